use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;

use super::document::{Document, MAX_BYTES, Stamp};
use super::policy::{Arbiter, Permits};
use super::rollout::{self, BadEntry, NotTaken};
use super::rules::{self, By, Claim, Part, Refusal};
use crate::core::control::roll::Record;
use crate::core::control::roll::tests::record as bare;
use crate::core::ids::{HostName, Region, Wall};

fn at(seconds: u64) -> Wall {
    Wall(Duration::from_secs(1_700_000_000 + seconds))
}

fn by() -> By {
    By {
        who: "ann@desk".to_owned(),
        why: "enough".to_owned(),
    }
}

/// Two waves, two versions, a hook.
fn record(id: &str) -> Record {
    let mut r = bare(id, &["fra-1", "iad-1", "fra-2"]);
    r.hosts[1].wave = 2;
    r.hosts[2].wave = 2;
    r.hosts[2].version = "2.9.10".to_owned();
    r.hosts[0].proved = true;
    r.order.hook = Some("upgrade".to_owned());
    r
}

fn opened(id: &str) -> Document {
    rollout::open(&Document::default(), &record(id), at(0)).unwrap()
}

fn newer(r: &Record, term: u64, seq: u64) -> Record {
    Record { term, seq, ..r.clone() }
}

#[test]
fn what_is_written_reads_back_through_the_bytes_and_people_can_read_it() {
    let doc = opened("5f0c2a91");
    let doc = Document::decode(&doc.encode().unwrap()).unwrap();
    assert_eq!(rollout::read(&doc).unwrap(), Some(record("5f0c2a91")));
    let entry = doc.rollout.unwrap();
    assert_eq!(entry["waves"], json!(["fra-1+", "iad-1 fra-2@1"]));
    assert_eq!(
        (entry["state"].as_str(), entry["who"].as_str()),
        (Some("open"), Some("ops@desk"))
    );
    assert!(doc.deeds.iter().any(|d| d.what == "began rollout 5f0c2a91"));
}

#[test]
fn a_plan_of_nine_hundred_hosts_leaves_room_in_the_document() {
    let names: Vec<String> = (0..900).map(|i| format!("region-number-nine-rack-{i:04}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut big = bare("5f0c2a91", &names);
    for h in &mut big.hosts {
        h.proved = true;
    }
    let doc = rollout::open(&Document::default(), &big, at(0)).unwrap();
    assert!(doc.encode().unwrap().len() < MAX_BYTES / 2);
}

#[test]
fn a_second_one_is_refused_by_name_until_the_first_has_ended_or_was_given_up() {
    let doc = opened("aa");
    let refused = rollout::open(&doc, &record("bb"), at(1)).unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("rollout aa of ops@desk is open: 1 of 3 hosts proved"),
        "{refused}"
    );
    let ended = rollout::end(&doc, &record("aa"), &by(), at(2)).unwrap();
    assert!(rollout::open(&ended, &record("bb"), at(3)).is_ok());
    let (given_up, was) = rollout::give_up(&doc, "aa", &by(), at(2)).unwrap();
    assert_eq!(was.id, "aa");
    assert!(rollout::open(&given_up, &record("bb"), at(3)).is_ok());
    assert!(matches!(
        rollout::give_up(&doc, "bb", &by(), at(2)),
        Err(NotTaken::Another { .. })
    ));
    assert_eq!(
        rollout::give_up(&given_up, "aa", &by(), at(2)).map(|_| ()),
        Err(NotTaken::NotOpen("aa".to_owned()))
    );
}

#[test]
fn of_two_that_go_on_with_one_rollout_the_document_takes_one() {
    let doc = opened("aa");
    let first = newer(&record("aa"), 1, 2);
    let doc = rollout::open(&doc, &first, at(1)).unwrap();
    assert_eq!(
        rollout::open(&doc, &first, at(1)),
        Err(NotTaken::Superseded("aa".to_owned())),
        "another process with the same term"
    );
    // What the process before still says changes nothing.
    let late = newer(&record("aa"), 0, 9);
    assert_eq!(
        rollout::update(&doc, &late, at(2)),
        Err(NotTaken::Superseded("aa".to_owned()))
    );
    assert_eq!(
        rollout::end(&doc, &late, &by(), at(2)),
        Err(NotTaken::Superseded("aa".to_owned()))
    );
    // Given up in the meantime: nobody goes on by what hosts still remember.
    let (gone, _) = rollout::give_up(&doc, "aa", &by(), at(3)).unwrap();
    assert_eq!(
        rollout::open(&gone, &newer(&record("aa"), 2, 3), at(4)),
        Err(NotTaken::NotOpen("aa".to_owned()))
    );
    assert_eq!(
        rollout::update(&gone, &first, at(4)),
        Err(NotTaken::NotOpen("aa".to_owned()))
    );
}

#[test]
fn an_update_that_comes_late_changes_nothing_and_a_halt_is_kept_until_somebody_goes_on() {
    let mut halted = newer(&record("aa"), 0, 5);
    halted.halted = Some("at fra-2: no new server answered".to_owned());
    let doc = rollout::update(&opened("aa"), &halted, at(1)).unwrap();
    assert_eq!(doc.rollout.as_ref().unwrap()["state"], "halted");
    assert_eq!(rollout::update(&doc, &newer(&record("aa"), 0, 4), at(2)).unwrap(), doc);
    assert_eq!(rollout::read(&doc).unwrap(), Some(halted.clone()));
    let on = rollout::open(&doc, &newer(&record("aa"), 1, 6), at(3)).unwrap();
    assert_eq!(rollout::read(&on).unwrap().unwrap().halted, None);
    assert!(on.rollout.unwrap().get("halted").is_none());
}

#[test]
fn what_is_no_rollout_of_ours_holds_everybody_and_is_never_overwritten() {
    let good = opened("aa").rollout.unwrap();
    let with = |key: &str, value: serde_json::Value| {
        let mut entry = good.clone();
        entry[key] = value;
        entry
    };
    let bad = [
        json!("soon"),
        json!({}),
        json!({"v": 0}),
        with("v", json!("one")),
        with("waves", json!(["fra-1 iad-1 fra-2"])),
        with("waves", json!(["fra-1@7+", "iad-1 fra-2@1"])),
        with("waves", json!(["fra 1+", "iad*1"])),
        with("waves", json!([])),
        with("versions", json!(["2.10.26", "2.15.1"])),
        with("digest", json!("0")),
        with("id", json!("a b")),
        with("since", json!(-1)),
    ];
    for entry in bad {
        let doc = Document {
            rollout: Some(entry.clone()),
            ..Document::default()
        };
        assert!(matches!(rollout::read(&doc), Err(BadEntry::Garbage(_))), "{entry}");
        assert!(
            matches!(rollout::open(&doc, &record("bb"), at(0)), Err(NotTaken::Bad(_))),
            "{entry}"
        );
        assert!(
            matches!(rollout::give_up(&doc, "aa", &by(), at(0)), Err(NotTaken::Bad(_))),
            "{entry}"
        );
        assert!(matches!(take(&doc, None), Err(Refusal::Rollout(_))), "{entry}");
    }
    let doc = Document {
        rollout: Some(with("v", json!(2))),
        ..Document::default()
    };
    assert_eq!(rollout::read(&doc), Err(BadEntry::Newer(2)));
    assert!(rollout::open(&doc, &newer(&record("aa"), 9, 9), at(0)).is_err());
    // Fields that this version does not know stay through its writes.
    let doc = Document {
        rollout: Some(with("colour", json!("blue"))),
        ..Document::default()
    };
    let next = rollout::update(&doc, &newer(&record("aa"), 0, 2), at(1)).unwrap();
    assert_eq!(next.rollout.unwrap()["colour"], "blue");
}

fn policy() -> Permits {
    Permits {
        arbiter: Arbiter::Register,
        spacing: Duration::ZERO,
        ..Permits::default()
    }
}

fn take(doc: &Document, part: Option<(&str, u64)>) -> Result<Document, Refusal> {
    let claim = Claim {
        host: HostName::new("fra-2").unwrap(),
        region: Region::new("fra").unwrap(),
        cluster: String::new(),
        why: "test".to_owned(),
        ordered: part.is_some(),
        part: part.map(|(id, term)| Part {
            id: id.to_owned(),
            term,
        }),
        token: "t".to_owned(),
    };
    rules::take(doc, &claim, &policy(), at(10)).map(Option::unwrap)
}

#[test]
fn while_one_is_open_permits_are_for_its_hosts_and_its_newest_driver_only() {
    let doc = rollout::open(&opened("aa"), &newer(&record("aa"), 1, 2), at(1)).unwrap();
    assert!(
        matches!(take(&doc, None), Err(Refusal::RolloutOpen { .. })),
        "automation"
    );
    assert!(matches!(take(&doc, Some(("bb", 0))), Err(Refusal::RolloutOpen { .. })));
    assert!(matches!(take(&doc, Some(("aa", 0))), Err(Refusal::Superseded(_))));
    assert!(take(&doc, Some(("aa", 1))).is_ok());
    assert!(matches!(
        take(&Document::default(), Some(("aa", 1))),
        Err(Refusal::RolloutNotOpen(_))
    ));
    assert!(take(&Document::default(), None).is_ok());
}

#[test]
fn a_rollout_that_is_given_up_or_taken_over_between_permit_and_act_is_stopped_by_the_last_look() {
    let part = Part {
        id: "aa".to_owned(),
        term: 0,
    };
    let held = take(&opened("aa"), Some(("aa", 0))).unwrap();
    let fence = |doc: &Document| rules::fence(doc, "t", Some(&part), &policy(), at(11)).map(|_| ());
    assert_eq!(fence(&held), Ok(()));
    let (gone, _) = rollout::give_up(&held, "aa", &by(), at(10)).unwrap();
    assert!(matches!(fence(&gone), Err(Refusal::RolloutNotOpen(_))));
    let over = rollout::open(&held, &newer(&record("aa"), 1, 2), at(10)).unwrap();
    assert!(matches!(fence(&over), Err(Refusal::Superseded(_))));
}

proptest! {
    /// Whatever a hand or another version left there is read or refused, never a panic; and what is read can be written.
    #[test]
    fn any_entry_is_read_or_refused(key in "[a-z_]{1,12}", text in ".{0,40}", n in any::<i64>(), nested in any::<bool>()) {
        let mut entry = opened("aa").rollout.unwrap();
        let known = ["v", "id", "state", "who", "since", "seq", "term", "digest", "versions", "waves", "jitter", "order"];
        let key = known.get(n.unsigned_abs() as usize % 16).map_or(key, |k| (*k).to_owned());
        entry[key] = if nested { json!([text, n]) } else if n % 2 == 0 { json!(text) } else { json!(n) };
        let doc = Document { rollout: Some(entry), ..Document::default() };
        if let Ok(Some(record)) = rollout::read(&doc) {
            let next = Record { term: record.term.saturating_add(1), ..record };
            let _ = rollout::open(&doc, &next, at(1));
        }
        let _ = take(&doc, Some(("aa", 0)));
    }
}

#[test]
fn since_is_kept_to_the_millisecond() {
    let mut r = record("aa");
    r.started_ms = 1_795_499_000_123;
    let doc = rollout::open(&Document::default(), &r, at(0)).unwrap();
    let doc = Document::decode(&doc.encode().unwrap()).unwrap();
    assert_eq!(rollout::read(&doc).unwrap().unwrap().started_ms, 1_795_499_000_123);
    assert!(f64::from(Stamp::from(at(0))) > 0.0);
}
