//! Permits in a fleet of cores that share a register with faults.

use super::*;
use crate::core::control::Arg;
use crate::core::permit::document::{Document, Phase, Scope};
use crate::core::permit::rules::{self, By, Refusal};
use crate::core::permit::{Revision, StoreError, Stored};
use crate::core::remedy::gate::Blocked;

/// A register that answers at once, unless told otherwise.
#[derive(Default)]
pub(super) struct Register {
    pub stored: Option<Stored>,
    pub gone: bool,
    /// Writes are done, and their answers lost.
    pub lost_replies: u32,
    pub writes: u32,
}

impl Fleet {
    pub(super) fn read_permits(&mut self, i: usize, ask: u64) {
        let result = if self.register.gone {
            Err(StoreError::Unreachable("connection refused".to_owned()))
        } else {
            Ok(self.register.stored.clone())
        };
        self.send(i, Event::PermitsRead { ask, result });
    }

    pub(super) fn write_permits(&mut self, i: usize, ask: u64, bytes: Vec<u8>, expect: Option<Revision>) {
        let r = &mut self.register;
        let result = if r.gone {
            Err(StoreError::Unreachable("connection refused".to_owned()))
        } else if r.stored.as_ref().map(|s| s.revision) != expect {
            Err(StoreError::Conflict)
        } else {
            let revision = Revision(expect.map_or(1, |e| e.0 + 1));
            r.stored = Some(Stored { revision, bytes });
            r.writes += 1;
            if r.lost_replies > 0 {
                r.lost_replies -= 1;
                Err(StoreError::Unreachable("timed out".to_owned()))
            } else {
                Ok(revision)
            }
        };
        self.send(i, Event::PermitsWritten { ask, result });
    }
}

pub(super) fn registered() -> Permits {
    Permits {
        arbiter: crate::core::policy::Arbiter::Register,
        spacing: Duration::ZERO,
        lease: Duration::from_secs(60),
        ..Permits::default()
    }
}

/// Six hosts whose only remedy is a restart, with a register of permits.
fn fleet() -> Fleet {
    restarting(Restored::default())
}

fn restarting(restored: Restored) -> Fleet {
    let change = |p: &mut Remediation| {
        p.mode = Mode::Restart;
        p.path_resets = false;
        p.max_sick_fraction = 1.0;
    };
    Fleet::permitted(6, change, restored, registered())
}

impl Fleet {
    fn document(&self) -> Document {
        let stored = self.register.stored.as_ref();
        stored.map_or_else(Document::default, |s| Document::decode(&s.bytes).unwrap())
    }

    fn put(&mut self, doc: &Document) {
        self.put_bytes(doc.encode().unwrap());
    }

    fn put_bytes(&mut self, bytes: Vec<u8>) {
        let revision = Revision(self.register.stored.as_ref().map_or(1, |s| s.revision.0 + 1));
        self.register.stored = Some(Stored { revision, bytes });
    }

    fn restarts(&self) -> usize {
        self.acts.iter().filter(|a| a.2 == "restart").count()
    }

    fn last_order(&self, i: usize) -> crate::core::control::LastCommand {
        self.cores[i].host_status(self.now()).last_command.unwrap()
    }

    /// As the command does before it tells any host; what is no document stays as it is.
    fn store_rollout(&mut self, id: &str) {
        let doc = self
            .register
            .stored
            .as_ref()
            .map_or(Ok(Document::default()), |s| Document::decode(&s.bytes));
        let Ok(doc) = doc else { return };
        if let Ok(next) = crate::core::permit::rollout::open(&doc, &rollout(id), self.now().wall) {
            self.put(&next);
        }
    }

    fn order(&mut self, i: usize, without_store: bool) -> Result<(), Blocked> {
        let now = self.now();
        self.store_rollout("R1");
        let _ = self.cores[i].open_rollout(rollout("R1"), now);
        let mut order = order();
        if without_store {
            order.args = order.args.with("without_store", Arg::Flag(true));
        }
        for a in self.cores[i].order_restart(&order, now)? {
            self.carry(i, a);
        }
        Ok(())
    }
}

fn ann() -> By {
    By {
        who: "ann".to_owned(),
        why: "work".to_owned(),
    }
}

#[test]
fn a_restart_takes_a_permit_and_gives_it_back_when_the_host_is_well() {
    let mut f = fleet();
    f.stalled.insert((0, 3));
    let begin = f.now;
    while f.restarts() == 0 && f.now - begin < Duration::from_secs(30) {
        f.run(0.1);
    }
    assert_eq!(f.acts.len(), 1, "{:?}", f.acts);
    assert!(
        f.acts[0].0 - begin < Duration::from_secs(8),
        "{:?}",
        f.acts[0].0 - begin
    );
    let doc = f.document();
    assert_eq!((doc.holders.len(), doc.holders[0].phase), (1, Phase::Acting));
    assert_eq!(
        (doc.holders[0].host.clone(), doc.holders[0].why.as_str()),
        (name(3), "route:a0>b3")
    );
    f.run(60.0);
    assert_eq!(f.document().holders, []);
    assert!(f.did("healed by restart") && f.did("the permit was given back"));
    assert_eq!(f.restarts(), 1);
}

#[test]
fn two_that_want_to_restart_at_once_do_so_one_after_the_other() {
    let mut f = fleet();
    f.stalled.extend([(0, 3), (2, 5)]);
    let mut most = 0;
    for _ in 0..1200 {
        f.run(0.1);
        most = most.max(f.document().holders.len());
    }
    assert_eq!((f.restarts(), most), (2, 1), "{:?}", f.acts);
    assert_eq!((f.document().holders.len(), f.all_faults()), (0, vec![]));
}

#[test]
fn a_host_that_is_not_healed_keeps_its_permit_and_stops_the_others_until_it_is_released() {
    let mut f = fleet();
    f.stubborn = true;
    f.stalled.insert((0, 3));
    f.run(60.0);
    assert_eq!(f.restarts(), 1);
    assert_eq!(f.document().holders[0].phase, Phase::Failed);
    f.stubborn = false;
    f.stalled.insert((2, 5));
    f.run(120.0);
    assert_eq!(f.restarts(), 1, "{:?}", f.acts);
    assert!(f.did("refused route:b2>c5 restart held back: no permit: b3 did not become healthy"));
    let (free, _) = rules::force_release(&f.document(), &name(3), &ann(), f.now().wall).unwrap();
    f.put(&free);
    f.run(60.0);
    assert_eq!(f.acts.iter().filter(|a| a.1 == 5).count(), 1, "{:?}", f.acts);
}

#[test]
fn a_pause_holds_resets_and_restarts_and_resume_lets_them_go() {
    for resets in [true, false] {
        let change = |p: &mut Remediation| {
            p.mode = Mode::Restart;
            p.path_resets = resets;
        };
        let mut f = Fleet::permitted(6, change, Restored::default(), registered());
        let doc = rules::pause(&f.document(), Scope::Region(region(3)), &ann(), None, f.now().wall);
        f.put(&doc);
        f.run(20.0);
        f.stalled.insert((0, 3));
        f.run(60.0);
        assert_eq!(f.acts, [], "resets {resets}");
        assert!(
            f.did("held back: region b is paused by ann: work (until `watchdog resume`)"),
            "{:?}",
            f.records
        );
        let (open, _) = rules::resume(&f.document(), &Scope::Region(region(3)), &ann(), f.now().wall);
        f.put(&open);
        f.run(60.0);
        assert_eq!(f.acts.len(), 1, "resets {resets}");
    }
}

#[test]
fn a_pause_that_comes_while_the_ledger_is_written_stops_the_act() {
    let mut f = fleet();
    f.lost = "save";
    f.stalled.insert((0, 3));
    while f.unsaved.is_empty() {
        f.run(0.1);
    }
    assert_eq!(f.document().holders.len(), 1, "the permit comes before the ledger");
    let doc = rules::pause(&f.document(), Scope::Fleet, &ann(), None, f.now().wall);
    f.put(&doc);
    let (i, act) = f.unsaved[0];
    f.send(i, Event::LedgerSaved { act, result: Ok(()) });
    f.run(20.0);
    assert_eq!(f.acts, []);
    assert!(
        f.did("restart held back: the fleet is paused by ann"),
        "{:?}",
        f.records
    );
    assert_eq!(f.document().holders, [], "and the permit is given back");
}

#[test]
fn a_permit_that_was_released_by_hand_meanwhile_opens_no_act() {
    let mut f = fleet();
    f.lost = "save";
    f.stalled.insert((0, 3));
    while f.unsaved.is_empty() {
        f.run(0.1);
    }
    let (free, _) = rules::force_release(&f.document(), &name(3), &ann(), f.now().wall).unwrap();
    f.put(&free);
    let (i, act) = f.unsaved[0];
    f.send(i, Event::LedgerSaved { act, result: Ok(()) });
    assert_eq!(f.acts, []);
    assert!(f.did("the permit is gone: an operator released it"), "{:?}", f.records);
}

#[test]
fn a_permit_that_is_released_by_hand_ends_no_ordered_restart_that_has_begun() {
    let mut f = fleet();
    f.lost = "act";
    f.order(2, false).unwrap();
    f.run(1.0);
    assert_eq!(f.restarts(), 1);
    let (free, _) = rules::force_release(&f.document(), &name(2), &ann(), f.now().wall).unwrap();
    f.put(&free);
    f.run(25.0);
    assert!(f.did("the permit of this host is gone"), "{:?}", f.records);
    assert_eq!(
        f.last_order(2).state,
        crate::core::control::Stage::Restarting,
        "it goes on"
    );
    let act = f.cores[2].restart.as_ref().unwrap().act;
    f.ids[2] += 1;
    f.send(
        2,
        Event::ActDone {
            act,
            result: Ok("done".to_owned()),
        },
    );
    f.run(10.0);
    assert_eq!(
        f.last_order(2).state,
        crate::core::control::Stage::Done,
        "{:?}",
        f.records
    );
    assert_eq!(f.restarts(), 1);
}

#[test]
fn without_its_store_automation_restarts_nothing_and_resets_go_on() {
    let mut f = fleet();
    f.register.gone = true;
    f.stalled.insert((0, 3));
    f.run(90.0);
    assert_eq!(f.acts, []);
    assert!(f.did("the store of permits cannot be used"), "{:?}", f.records);
    f.register.gone = false;
    f.run(60.0);
    assert_eq!(f.restarts(), 1);

    let mut f = Fleet::permitted(6, |p| p.mode = Mode::Restart, Restored::default(), registered());
    f.register.gone = true;
    f.run(120.0);
    f.stalled.insert((0, 3));
    f.run(10.0);
    assert_eq!(f.acts.len(), 1, "a reset needs no permit, and no pause was known");
}

#[test]
fn a_document_of_a_later_version_or_garbage_is_not_overwritten_and_nothing_is_done() {
    let large = [b"{\"v\":1,\"x\":\"".to_vec(), vec![b'x'; 70_000], b"\"}".to_vec()].concat();
    for bytes in [
        &b"{\"v\":7}"[..],
        b"not json",
        b"",
        b"{\"v\":1,\"holders\":7}",
        b"{\"v\":\"1\"}",
        &large,
    ] {
        let mut f = fleet();
        f.put_bytes(bytes.to_vec());
        f.run(20.0);
        f.stalled.insert((0, 3));
        f.run(90.0);
        assert_eq!(f.acts, []);
        assert_eq!(f.register.stored.as_ref().unwrap().bytes, bytes);
        assert!(
            f.did("restart held back: the store of permits cannot be used (the permit document "),
            "{:?}",
            f.records
        );
        assert!(f.order(3, false).is_err());
    }
    // Resets neither: what it says of a pause is not known, whatever was known before.
    let mut f = Fleet::permitted(6, |p| p.mode = Mode::Restart, Restored::default(), registered());
    f.put(&rules::pause(
        &Document::default(),
        Scope::Fleet,
        &ann(),
        None,
        f.now().wall,
    ));
    f.run(20.0);
    f.put_bytes(b"{\"v\":7}".to_vec());
    f.run(20.0);
    f.stalled.insert((0, 3));
    f.run(90.0);
    assert_eq!(f.acts, []);
    assert!(
        f.did("reset held back: the store of permits cannot be used (the permit document "),
        "{:?}",
        f.records
    );
}

/// What is read, but tells of times that no clock shows: it may hold everybody up, and lets nobody pass.
#[test]
fn a_document_with_times_of_the_past_and_the_future_restarts_nothing_and_breaks_nothing() {
    let holder = |since: &str, until: &str| {
        format!(
            r#"{{"v":1,"holders":[{{"host":"z9","region":"z","why":"w","token":"t","phase":"taken","since":{since},"renewed":{since},"until":{until}}}]}}"#
        )
    };
    let pause = |until: &str| {
        format!(r#"{{"v":1,"pauses":[{{"scope":"fleet","who":"ann","why":"x","since":1e15,"until":{until}}}]}}"#)
    };
    let of_the_past = "z9 took a permit and has not been heard since 1970-01-01T00:00:01.000Z";
    for (text, said) in [
        (holder("0", "1"), of_the_past),
        (holder("1e15", "1e16"), "1 of 1 permits of the fleet are out, to z9"),
        (pause("1e15"), "paused by ann: x (until 9999-12-31T23:59:59.000Z)"),
        (pause("1.8e19"), "paused by ann: x (until 9999-12-31T23:59:59.000Z)"),
        (pause("1e40"), "the permit document cannot be read"),
        (pause("-1"), "the permit document cannot be read"),
        (pause("\"tomorrow\""), "the permit document cannot be read"),
        (holder("null", "1"), "the permit document cannot be read"),
    ] {
        let mut f = fleet();
        f.put_bytes(text.clone().into_bytes());
        f.run(20.0);
        f.stalled.insert((0, 3));
        f.run(90.0);
        assert_eq!(f.acts, [], "{text}");
        assert_eq!(f.register.stored.as_ref().unwrap().bytes, text.as_bytes());
        assert!(f.did(said), "{text}: {:?}", f.records);
        assert!(f.order(3, false).is_err() || f.restarts() == 0, "{text}");
        drop(f.cores[3].snapshot(f.now()));
    }
    // A pause that is over, and a release and grants that lie years ahead, hold nobody.
    let over = r#"{"v":1,"released":9e9,"recent":[{"host":"c4","at":1e15}],"pauses":[{"scope":"fleet","who":"a","why":"b","since":1,"until":2}]}"#;
    let mut f = fleet();
    f.put_bytes(over.as_bytes().to_vec());
    f.run(20.0);
    f.stalled.insert((0, 3));
    f.run(90.0);
    assert_eq!(f.restarts(), 1, "{:?}", f.records);
}

#[test]
fn answers_that_get_lost_take_no_second_permit_and_restart_nothing_twice() {
    for lost in 1..6 {
        let mut f = fleet();
        f.register.lost_replies = lost;
        f.stalled.insert((0, 3));
        f.run(90.0);
        assert_eq!(f.restarts(), 1, "{lost}: {:?}", f.acts);
        assert_eq!(f.document().holders, [], "{lost}");
    }
}

#[test]
fn an_agent_that_dies_in_the_middle_finds_its_permit_and_gives_it_back_after_proof() {
    for phase in [Phase::Taken, Phase::Acting] {
        let mut f = fleet();
        if phase == Phase::Taken {
            f.lost = "save";
        }
        f.stalled.insert((0, 3));
        while f.document().holders.first().is_none_or(|h| h.phase != phase) {
            f.run(0.1);
        }
        // As a crash leaves it: the core is gone, the document and the ledger are not.
        f.stalled.clear();
        f.lost = "";
        let restored = Restored {
            ledger: Some(Ok(f.cores[3].ledger.clone())),
            ..Restored::default()
        };
        f.cores[3] = Core::new(f.cores[3].policy.clone(), restored, 0.5, f.now());
        f.send(3, connected());
        let done = f.restarts();
        f.run(40.0);
        assert_eq!(f.document().holders, [], "{phase:?}");
        assert_eq!(f.restarts(), done, "nothing is done twice");
        assert_eq!(
            f.did("taken before this agent started was found"),
            phase == Phase::Acting
        );
    }
}

#[test]
fn a_host_that_stays_away_stops_the_fleet_and_gives_back_when_it_returns() {
    let mut f = fleet();
    f.stalled.insert((0, 3));
    while f.restarts() == 0 {
        f.run(0.1);
    }
    f.alive[3] = false;
    f.run(100.0);
    let view = f.cores[5].snapshot(f.now()).permits;
    assert_eq!(view.holders[0].state, "vanished");
    assert!(matches!(
        f.order(5, false),
        Err(Blocked::NoPermit(Refusal::Vanished { .. }))
    ));
    f.alive[3] = true;
    f.cores[3] = Core::new(f.cores[3].policy.clone(), Restored::default(), 0.5, f.now());
    f.send(3, connected());
    f.run(60.0);
    assert_eq!(f.document().holders, []);
}

#[test]
fn an_ordered_restart_takes_its_permit_first_and_waits_for_the_one_before() {
    let mut f = fleet();
    f.order(2, false).unwrap();
    f.order(4, false).unwrap();
    assert_eq!(f.restarts(), 1);
    assert!(
        f.cores[4]
            .host_status(f.now())
            .busy
            .unwrap()
            .contains("waiting for a permit")
    );
    f.run(30.0);
    assert_eq!(f.restarts(), 2, "{:?}", f.records);
    assert_eq!(f.last_order(4).state, crate::core::control::Stage::Done);
    f.run(10.0);
    assert_eq!(f.document().holders, []);

    let doc = rules::pause(&f.document(), Scope::Fleet, &ann(), None, f.now().wall);
    f.put(&doc);
    f.run(20.0);
    assert!(matches!(f.order(2, false), Err(Blocked::Paused { .. })));
    assert!(
        matches!(f.order(2, true), Err(Blocked::Paused { .. })),
        "the word for a lost store is none against a pause"
    );
}

#[test]
fn the_store_says_which_rollout_is_open_whatever_hosts_were_told() {
    let mut f = fleet();
    f.store_rollout("R1");
    f.run(20.0);
    // Nobody told them, and all show it and hold automation.
    for core in &f.cores {
        let shown = core.snapshot(f.now()).remediation.rollout;
        assert_eq!(shown.map(|r| r.id).as_deref(), Some("R1"));
        assert!(core.open_record().is_none());
    }
    f.stalled.insert((0, 3));
    f.run(60.0);
    assert_eq!(f.acts, [], "{:?}", f.records);
    assert!(f.did("rollout R1 of ops@desk is open"), "{:?}", f.records);
    f.stalled.clear();
    f.run(30.0);

    // An order of a rollout that is not the one in the store is refused, though its host was told of it.
    let now = f.now();
    f.cores[2].open_rollout(rollout("R2"), now).unwrap();
    let other = crate::core::agent::order::Order {
        rollout: "R2".to_owned(),
        ..order()
    };
    let actions = f.cores[2].order_restart(&other, now).unwrap();
    for a in actions {
        f.carry(2, a);
    }
    f.run(2.0);
    assert_eq!(f.acts, []);
    let last = f.last_order(2);
    assert_eq!(last.state, crate::core::control::Stage::Failed);
    assert!(
        last.detail.contains("rollout R1 of ops@desk is open"),
        "{}",
        last.detail
    );
    // And what it was told is forgotten, since the store does not have it.
    f.run(20.0);
    assert_eq!(f.cores[2].open_record(), None);

    // Closed in the store by somebody whom hosts do not hear: over for those that were told, too.
    let now = f.now();
    f.cores[4].open_rollout(rollout("R1"), now).unwrap();
    let by = ann();
    let (doc, _) = crate::core::permit::rollout::give_up(&f.document(), "R1", &by, now.wall).unwrap();
    f.put(&doc);
    f.run(20.0);
    for core in &f.cores {
        assert_eq!(core.snapshot(f.now()).remediation.rollout, None);
    }
    assert_eq!(f.cores[4].open_record(), None);
}

#[test]
fn a_rollout_that_is_given_up_in_the_store_stops_a_restart_that_has_its_permit_and_has_not_begun() {
    let mut f = fleet();
    f.lost = "save";
    f.order(2, false).unwrap();
    f.run(1.0);
    assert_eq!(f.document().holders.len(), 1);
    let (doc, _) = crate::core::permit::rollout::give_up(&f.document(), "R1", &ann(), f.now().wall).unwrap();
    f.put(&doc);
    f.lost = "";
    let (_, act) = f.unsaved[0];
    f.send(2, saved(act));
    f.run(2.0);
    assert_eq!(f.acts, []);
    assert!(
        f.last_order(2).detail.contains("not open here, or not in the store"),
        "{}",
        f.last_order(2).detail
    );
    f.run(30.0);
    assert_eq!(f.document().holders, [], "nothing is held for what was not done");
}

#[test]
fn a_rollout_in_the_store_that_means_nothing_holds_everybody_and_stays() {
    let mut f = fleet();
    let doc = Document {
        rollout: Some(serde_json::json!({"v": 1, "id": "??"})),
        ..Document::default()
    };
    f.put(&doc);
    f.run(20.0);
    f.stalled.insert((0, 3));
    f.run(60.0);
    assert_eq!(f.acts, []);
    assert!(
        f.did("the rollout in the permit document cannot be read"),
        "{:?}",
        f.records
    );
    let now = f.now();
    assert!(f.cores[2].open_rollout(rollout("R1"), now).is_err());
    assert_eq!(f.document().rollout, doc.rollout);
}

#[test]
fn without_its_store_an_operators_word_is_needed_and_recorded() {
    let mut f = fleet();
    f.register.gone = true;
    f.run(90.0);
    assert!(matches!(f.order(2, false), Err(Blocked::PermitStore(_))));
    assert_eq!(f.acts, []);
    f.order(2, true).unwrap();
    f.run(20.0);
    assert_eq!(f.restarts(), 1);
    assert!(f.did("goes on without a permit on the operator's word"));
}

#[test]
fn without_a_register_no_two_of_twenty_begin_in_the_same_slot() {
    let change = |p: &mut Remediation| {
        p.mode = Mode::Restart;
        p.path_resets = false;
        p.max_sick_fraction = 1.0;
    };
    let mut f = Fleet::with(20, change, Restored::default());
    // No beacon tells the others that one restarts: only the slots keep them apart.
    f.stalled.extend([(0, 3), (2, 5), (6, 9), (8, 11)]);
    f.run(240.0);
    let times: Vec<Duration> = f.acts.iter().map(|a| a.0).collect();
    assert!(times.len() >= 4, "{:?}", f.acts);
    for pair in times.windows(2) {
        assert!(pair[1] - pair[0] >= Duration::from_secs(1), "{times:?}");
    }
    assert!(f.did("this time slot is another host's"));
}

#[test]
fn the_time_for_a_restart_begins_when_the_disk_and_the_store_have_answered() {
    let mut f = fleet();
    for core in &mut f.cores {
        core.policy.restart_deadline = Duration::from_secs(1);
    }
    // A disk and a store that take their time, each within its limit.
    f.save_takes = Duration::from_secs(9);
    f.lost = "act";
    f.stalled.insert((0, 3));
    while f.unsaved.is_empty() && f.restarts() == 0 {
        f.run(0.1);
    }
    let begun = f.now;
    let run = |f: &Fleet| f.cores[3].restart.clone();
    assert_eq!(run(&f).unwrap().begun.0, begun, "{:?}", f.records);
    f.run(30.0);
    assert!(run(&f).is_some(), "it still has a second");
    f.run(1.5);
    assert!(run(&f).is_none());
    assert!(f.did("the server did not come back within 31s"), "{:?}", f.records);
}
