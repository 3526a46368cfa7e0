//! The document, its rules, and machines that share a register which loses answers, is slow, lags and goes away.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;

use crate::core::agent::event::Action;
use crate::core::ids::{HostName, Mono, Now, Region, Wall};
use crate::core::permit::document::{BadDocument, Document, MAX_BYTES, Phase, Scope};
use crate::core::permit::machine::{Machine, Told};
use crate::core::permit::policy::{Arbiter, Permits};
use crate::core::permit::rules::{self, By, Claim, Refusal};
use crate::core::permit::{Revision, StoreError, Stored};

fn host(i: usize) -> HostName {
    HostName::new(&format!("h{i}")).unwrap()
}

fn region(i: usize) -> Region {
    Region::new(if i.is_multiple_of(2) { "iad" } else { "fra" }).unwrap()
}

fn claim(i: usize) -> Claim {
    Claim {
        host: host(i),
        region: region(i),
        cluster: "C".to_owned(),
        why: "test".to_owned(),
        ordered: false,
        part: None,
        token: format!("t{i}"),
    }
}

fn policy() -> Permits {
    Permits {
        arbiter: Arbiter::Register,
        spacing: Duration::ZERO,
        ..Permits::default()
    }
}

fn at(seconds: u64) -> Wall {
    Wall(Duration::from_secs(1_700_000_000 + seconds))
}

fn by() -> By {
    By {
        who: "ann".to_owned(),
        why: "work".to_owned(),
    }
}

fn taken(doc: &Document, i: usize, now: Wall) -> Document {
    rules::take(doc, &claim(i), &policy(), now).unwrap().unwrap()
}

#[test]
fn what_later_versions_wrote_is_kept_and_what_is_no_document_is_not_read() {
    let text = br#"{"v":1,"color":"blue","holders":[{"host":"x","region":"r","why":"w","token":"t","phase":"acting",
        "since":1,"renewed":1.25,"until":9e9,"mood":"good"}],"pauses":[{"scope":{"region":"fra"},"who":"a","why":"b","since":1,"ticket":7}],
        "rollout":{"id":"R1","wave":[1,2]}}"#;
    let doc = Document::decode(text).unwrap();
    let again = rules::pause(&doc, Scope::Fleet, &by(), None, at(0)).encode().unwrap();
    let v: serde_json::Value = serde_json::from_slice(&again).unwrap();
    assert_eq!(v["color"], "blue");
    assert_eq!(v["holders"][0]["mood"], "good");
    assert_eq!(v["holders"][0]["renewed"], 1.25);
    assert_eq!(v["pauses"][0]["ticket"], 7);
    assert_eq!(v["rollout"]["wave"][1], 2);
    assert_eq!(
        Document::decode(br#"{"v":2,"holders":"a new shape"}"#),
        Err(BadDocument::Newer(2))
    );
    for garbage in [
        &b""[..],
        b"{}",
        b"[]",
        b"{\"v\":1,\"holders\":[{}]}",
        b"\xff\xfe",
        b"{\"v\":0}",
        b"{\"v\":1",
    ] {
        assert!(
            matches!(Document::decode(garbage), Err(BadDocument::Garbage(_))),
            "{garbage:?}"
        );
    }
    assert_eq!(
        Document::decode(&vec![b' '; MAX_BYTES + 1]),
        Err(BadDocument::TooLarge(MAX_BYTES + 1))
    );
}

#[test]
fn limits_hold_for_the_fleet_a_region_and_a_cluster() {
    let mut p = Permits {
        slots: 3,
        per_region: 2,
        per_cluster: 9,
        ..policy()
    };
    let doc = taken(&Document::default(), 0, at(0));
    assert_eq!(rules::take(&doc, &claim(0), &p, at(1)), Ok(None), "again is the same");
    let doc = rules::take(&doc, &claim(2), &p, at(0)).unwrap().unwrap();
    let refused = rules::take(&doc, &claim(4), &p, at(0)).unwrap_err();
    assert!(
        matches!(&refused, Refusal::Taken { of, .. } if of == "region iad"),
        "{refused}"
    );
    let doc3 = rules::take(&doc, &claim(1), &p, at(0)).unwrap().unwrap();
    assert!(matches!(rules::take(&doc3, &claim(3), &p, at(0)), Err(Refusal::Taken { of, .. }) if of == "the fleet"));
    p.per_cluster = 2;
    assert!(matches!(rules::take(&doc, &claim(1), &p, at(0)), Err(Refusal::Taken { of, .. }) if of == "cluster C"));
}

#[test]
fn a_holder_that_vanished_or_failed_stops_everybody_until_somebody_releases_it() {
    let p = Permits {
        slots: 5,
        per_region: 5,
        per_cluster: 5,
        ..policy()
    };
    let doc = taken(&Document::default(), 0, at(0));
    assert!(rules::take(&doc, &claim(1), &p, at(299)).is_ok());
    let refused = rules::take(&doc, &claim(1), &p, at(300)).unwrap_err();
    assert!(refused.to_string().contains("watchdog permits release h0"), "{refused}");
    // Also those that hold a permit already.
    let two = rules::take(&doc, &claim(1), &p, at(200)).unwrap().unwrap();
    assert!(rules::fence(&two, "t1", None, &p, at(299)).is_ok());
    assert!(matches!(
        rules::fence(&two, "t1", None, &p, at(300)),
        Err(Refusal::Vanished { .. })
    ));

    let failed = rules::fail(&doc, "t0", "healthz says no", at(5)).unwrap().unwrap();
    assert!(matches!(
        rules::take(&failed, &claim(1), &p, at(6)),
        Err(Refusal::Failed { .. })
    ));
    assert!(
        matches!(
            rules::take(&failed, &claim(1), &p, at(999_999)),
            Err(Refusal::Failed { .. })
        ),
        "for ever"
    );
    let (free, held) = rules::force_release(&failed, &host(0), &by(), at(7)).unwrap();
    assert_eq!(
        (held.note.as_str(), free.deeds[0].who.as_str()),
        ("healthz says no", "ann")
    );
    assert!(rules::take(&free, &claim(1), &p, at(8)).is_ok());
    assert!(rules::force_release(&free, &host(0), &by(), at(8)).is_err());
}

#[test]
fn a_failed_host_may_be_ordered_to_restart_again_and_may_not_do_so_itself() {
    let failed = rules::fail(&taken(&Document::default(), 0, at(0)), "t0", "x", at(1))
        .unwrap()
        .unwrap();
    let again = Claim {
        token: "t0b".to_owned(),
        ..claim(0)
    };
    assert!(matches!(
        rules::take(&failed, &again, &policy(), at(2)),
        Err(Refusal::Failed { .. })
    ));
    let ordered = Claim { ordered: true, ..again };
    let doc = rules::take(&failed, &ordered, &policy(), at(2)).unwrap().unwrap();
    assert_eq!((doc.holders.len(), doc.holders[0].token.as_str()), (1, "t0b"));
}

#[test]
fn spacing_and_the_hourly_rate_count_for_automation_and_orders_as_documented() {
    let p = Permits {
        spacing: Duration::from_secs(10),
        per_hour: 2,
        ..policy()
    };
    let mut doc = Document::default();
    for t in [0, 100] {
        doc = rules::take(&doc, &claim(0), &p, at(t)).unwrap().unwrap();
        doc = rules::fence(&doc, "t0", None, &p, at(t)).unwrap();
        doc = rules::release(&doc, "t0", at(t)).unwrap();
    }
    assert_eq!(
        rules::take(&doc, &claim(1), &p, at(104)),
        Err(Refusal::Spacing(Duration::from_secs(6)))
    );
    let wait = Duration::from_secs(3600 - 200);
    assert_eq!(
        rules::take(&doc, &claim(1), &p, at(200)),
        Err(Refusal::PerHour { limit: 2, wait })
    );
    let ordered = Claim {
        ordered: true,
        ..claim(1)
    };
    assert!(rules::take(&doc, &ordered, &p, at(200)).is_ok());
    assert!(
        rules::take(&doc, &ordered, &p, at(104)).is_err(),
        "spacing holds orders too"
    );
    assert!(rules::take(&doc, &claim(1), &p, at(3601)).is_ok());
}

#[test]
fn a_pause_holds_what_it_covers_until_its_end_and_resume_ends_it() {
    let doc = rules::pause(
        &Document::default(),
        Scope::Region(region(0)),
        &by(),
        Some(Duration::from_secs(60)),
        at(0),
    );
    assert!(matches!(
        rules::take(&doc, &claim(0), &policy(), at(59)),
        Err(Refusal::Paused(_))
    ));
    assert!(
        rules::take(&doc, &claim(1), &policy(), at(59)).is_ok(),
        "another region"
    );
    assert!(rules::take(&doc, &claim(0), &policy(), at(60)).is_ok());
    let held = taken(&Document::default(), 0, at(0));
    let held = rules::pause(&held, Scope::Host(host(0)), &by(), None, at(1));
    assert!(
        matches!(
            rules::fence(&held, "t0", None, &policy(), at(2)),
            Err(Refusal::Paused(_))
        ),
        "right before the act"
    );
    let (open, _) = rules::resume(&held, &Scope::Host(host(0)), &by(), at(3));
    assert!(rules::fence(&open, "t0", None, &policy(), at(4)).is_ok());
    let (again, ended) = rules::resume(&open, &Scope::Fleet, &by(), at(4));
    assert_eq!(ended, None, "the fleet was not paused");
    let covering = |n| again.marks(&host(n), &region(n)).len();
    assert_eq!((covering(0), covering(1)), (2, 1));
    let (many, _) = (0..500u64).fold((again, None), |(doc, _), n| {
        rules::resume(
            &doc,
            &Scope::Host(HostName::new(&format!("h{n}")).unwrap()),
            &by(),
            at(n),
        )
    });
    assert_eq!(many.resumed.len(), 100);
    assert_eq!(Document::decode(&many.encode().unwrap()).unwrap(), many);
}

#[test]
fn a_permit_that_was_released_by_hand_or_ran_out_opens_no_act() {
    let doc = taken(&Document::default(), 0, at(0));
    let (free, _) = rules::force_release(&doc, &host(0), &by(), at(1)).unwrap();
    assert!(matches!(
        rules::fence(&free, "t0", None, &policy(), at(2)),
        Err(Refusal::NotHeld(_))
    ));
    assert!(matches!(
        rules::fence(&doc, "t0", None, &policy(), at(300)),
        Err(Refusal::NotHeld(_))
    ));
}

/// Numbers from a seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }

    fn percent(&mut self, p: u64) -> bool {
        self.roll(100) < p
    }
}

/// What is on its way to a machine.
enum Answer {
    Read(Result<Option<Stored>, StoreError>),
    Written(Result<Revision, StoreError>),
}

/// What a host is at.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Doing {
    Nothing,
    Asking,
    Holding(u64),
    Fencing,
    Acting(u64),
    Ending,
}

struct World {
    now: u64,
    dice: Dice,
    faults: bool,
    versions: Vec<Stored>,
    machines: Vec<Machine>,
    doing: Vec<Doing>,
    /// (done at the register, arrives, host, incarnation, action)
    under_way: Vec<(u64, u64, usize, u64, Action)>,
    answers: Vec<(u64, usize, u64, u64, Answer)>,
    inc: u64,
    incs: Vec<u64>,
    /// Hosts whose server is down by our hand, as far as an observer can tell.
    acting: BTreeSet<usize>,
    acts: usize,
    gone_until: u64,
    slots: u32,
}

impl World {
    fn new(n: usize, seed: u64, slots: u32) -> Self {
        let mut w = Self {
            now: 0,
            dice: Dice(seed),
            faults: true,
            versions: Vec::new(),
            machines: Vec::new(),
            doing: vec![Doing::Nothing; n],
            under_way: Vec::new(),
            answers: Vec::new(),
            inc: 0,
            incs: vec![0; n],
            acting: BTreeSet::new(),
            acts: 0,
            gone_until: 0,
            slots,
        };
        for i in 0..n {
            let m = w.machine(i);
            w.machines.push(m);
        }
        w
    }

    fn machine(&mut self, i: usize) -> Machine {
        self.inc += 1;
        self.incs[i] = self.inc;
        Machine::new(self.policy(), host(i), region(i), self.inc, self.at().mono)
    }

    fn policy(&self) -> Permits {
        Permits {
            slots: self.slots,
            per_region: self.slots,
            per_cluster: self.slots,
            per_hour: 1000,
            lease: Duration::from_secs(40),
            ..policy()
        }
    }

    fn at(&self) -> Now {
        let t = Duration::from_millis(self.now);
        Now {
            mono: Mono(t),
            wall: Wall(Duration::from_secs(1_700_000_000) + t),
        }
    }

    fn document(&self) -> Document {
        self.versions
            .last()
            .map_or_else(Document::default, |s| Document::decode(&s.bytes).unwrap())
    }

    fn write(&mut self, doc: &Document) -> Revision {
        let revision = Revision(self.versions.len() as u64 + 1);
        self.versions.push(Stored {
            revision,
            bytes: doc.encode().unwrap(),
        });
        revision
    }

    fn carry(&mut self, i: usize, actions: Vec<Action>) {
        for action in actions {
            let slow = if self.faults && self.dice.percent(3) { 8000 } else { 60 };
            let done = self.now + 1 + self.dice.roll(slow);
            let back = done + 1 + self.dice.roll(slow);
            self.under_way.push((done, back, i, self.incs[i], action));
        }
    }

    /// The register does what has arrived by now.
    fn register(&mut self) {
        let (due, rest) = std::mem::take(&mut self.under_way)
            .into_iter()
            .partition(|u| u.0 <= self.now);
        self.under_way = rest;
        let mut due: Vec<_> = due;
        due.sort_by_key(|u| u.0);
        for (_, back, i, inc, action) in due {
            let gone = self.now < self.gone_until;
            let silent = self.faults && self.dice.percent(5);
            match action {
                Action::ReadPermits { ask } => {
                    let lag = if self.faults && self.dice.percent(10) {
                        self.dice.roll(4) as usize
                    } else {
                        0
                    };
                    let n = self.versions.len().saturating_sub(lag);
                    let result = if gone || silent {
                        Err(StoreError::Unreachable("no answer".to_owned()))
                    } else {
                        Ok(n.checked_sub(1).map(|n| self.versions[n].clone()))
                    };
                    self.answers.push((back, i, inc, ask, Answer::Read(result)));
                }
                Action::WritePermits { ask, bytes, expect } => {
                    let current = self.versions.last().map(|s| s.revision);
                    let result = if gone {
                        Err(StoreError::Unreachable("no answer".to_owned()))
                    } else if current != expect || self.faults && self.dice.percent(5) {
                        Err(StoreError::Conflict)
                    } else {
                        let doc = Document::decode(&bytes).unwrap();
                        let revision = self.write(&doc);
                        if silent {
                            Err(StoreError::Unreachable("timed out".to_owned()))
                        } else {
                            Ok(revision)
                        }
                    };
                    self.answers.push((back, i, inc, ask, Answer::Written(result)));
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn deliver(&mut self) {
        let (due, rest) = std::mem::take(&mut self.answers)
            .into_iter()
            .partition(|a| a.0 <= self.now);
        self.answers = rest;
        let due: Vec<_> = due;
        for (_, i, inc, ask, answer) in due {
            if self.incs[i] != inc {
                continue;
            }
            let (now, mut out) = (self.at(), Vec::new());
            let told = match answer {
                Answer::Read(r) => self.machines[i].on_read(ask, r, now, &mut out),
                Answer::Written(r) => self.machines[i].on_written(ask, r, now, &mut out),
            };
            self.carry(i, out);
            self.told(i, told);
        }
    }

    fn told(&mut self, i: usize, told: Option<Told>) {
        let Some(told) = told else { return };
        let rest = self.now + 500 + self.dice.roll(3000);
        match told {
            Told::Taken => self.doing[i] = Doing::Holding(rest),
            Told::Fenced => {
                assert_eq!(self.doing[i], Doing::Fencing);
                // The version that let it pass: the newest that this host wrote. Later ones only carry its entry along.
                let token = self.machines[i].held().unwrap().token.clone();
                let entry = |s: &Stored| {
                    let doc = Document::decode(&s.bytes).unwrap();
                    doc.holder(&token).map(|h| (h.phase, h.renewed))
                };
                let acting = |e: Option<_>| e.is_some_and(|(phase, _)| phase == Phase::Acting);
                let passed = (0..self.versions.len()).rev().find(|n| {
                    let own = entry(&self.versions[*n]);
                    acting(own) && n.checked_sub(1).is_none_or(|b| entry(&self.versions[b]) != own)
                });
                let doc = Document::decode(&self.versions[passed.unwrap()].bytes).unwrap();
                assert_eq!(doc.pauses, [], "h{i} passed a pause");
                assert!(doc.holders.len() <= self.slots as usize);
                assert!(
                    doc.holders.iter().all(|h| h.phase != Phase::Failed),
                    "h{i} passed a failed host"
                );
                self.acting.insert(i);
                self.acts += 1;
                assert!(
                    self.acting.len() <= self.slots as usize,
                    "down at once: {:?}",
                    self.acting
                );
                self.doing[i] = Doing::Acting(rest);
            }
            Told::Released | Told::Kept | Told::Lost(_) => {
                self.acting.remove(&i);
                self.doing[i] = Doing::Nothing;
            }
            Told::Found(Phase::Failed) => self.doing[i] = Doing::Nothing,
            Told::Found(_) => self.doing[i] = Doing::Acting(rest),
            Told::Refused(_) | Told::NoStore(_) => match self.doing[i] {
                Doing::Asking => self.doing[i] = Doing::Nothing,
                Doing::Fencing => self.doing[i] = Doing::Ending,
                _ => {}
            },
        }
    }

    fn step(&mut self) {
        self.now += 20;
        self.register();
        self.deliver();
        if self.now.is_multiple_of(100) {
            for i in 0..self.machines.len() {
                self.live(i);
            }
            if self.faults {
                self.operate();
            }
        }
    }

    fn live(&mut self, i: usize) {
        let (now, mut out) = (self.at(), Vec::new());
        let told = self.machines[i].tick(now, &mut out);
        if told.is_none() && !self.machines[i].busy() {
            match self.doing[i] {
                Doing::Nothing if self.machines[i].held().is_none() && self.faults && self.dice.percent(5) => {
                    let token = self.machines[i].token();
                    self.machines[i].take(Claim { token, ..claim(i) }, now, &mut out);
                    self.doing[i] = Doing::Asking;
                }
                Doing::Nothing | Doing::Asking | Doing::Fencing => {}
                Doing::Holding(until) if self.now >= until => {
                    self.machines[i].fence(now, &mut out);
                    self.doing[i] = Doing::Fencing;
                }
                Doing::Acting(until) if self.now >= until => {
                    if self.faults && self.dice.percent(10) {
                        self.machines[i].fail("test".to_owned(), now, &mut out);
                    } else {
                        // Its server is well again: from here on it is not down by our hand.
                        self.acting.remove(&i);
                        self.machines[i].release(now, &mut out);
                    }
                }
                Doing::Ending => self.machines[i].release(now, &mut out),
                Doing::Holding(_) | Doing::Acting(_) => {}
            }
        }
        self.carry(i, out);
        self.told(i, told);
        if self.faults && self.dice.roll(3000) == 0 {
            // The agent dies and is started anew; its server is where it was.
            self.machines[i] = self.machine(i);
            self.doing[i] = Doing::Nothing;
        }
    }

    fn operate(&mut self) {
        let wall = self.at().wall;
        if self.dice.roll(300) == 0 {
            let doc = rules::pause(&self.document(), Scope::Fleet, &by(), None, wall);
            self.write(&doc);
        }
        if self.dice.roll(100) == 0
            && let (doc, Some(_)) = rules::resume(&self.document(), &Scope::Fleet, &by(), wall)
        {
            self.write(&doc);
        }
        if self.dice.roll(400) == 0 {
            self.gone_until = self.now + 20_000;
        }
        let bad = self
            .document()
            .holders
            .iter()
            .find(|h| h.phase == Phase::Failed)
            .map(|h| h.host.clone());
        if let Some(bad) = bad
            && self.dice.roll(50) == 0
        {
            let (doc, _) = rules::force_release(&self.document(), &bad, &by(), wall).unwrap();
            self.write(&doc);
            let i: usize = bad.as_str()[1..].parse().unwrap();
            self.acting.remove(&i);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    /// Lost answers, conflicts, delays, stale reads, a register that is away, agents that die: never more at once than
    /// permitted, nobody past a pause or a failed host, and when the faults end all is given back.
    #[test]
    fn machines_that_share_a_bad_register_never_act_at_once_and_end_with_nothing_held(seed in any::<u64>(), slots in 1u32..3) {
        let mut w = World::new(5, seed, slots);
        for _ in 0..(5 * 60 * 50) {
            w.step();
        }
        prop_assert!(w.acts > 3, "only {} acts: the test tests nothing", w.acts);
        w.faults = false;
        w.gone_until = 0;
        for _ in 0..(2 * 60 * 50) {
            w.step();
        }
        let held: Vec<_> = w.document().holders.into_iter().filter(|h| h.phase != Phase::Failed).collect();
        prop_assert!(held.is_empty(), "{held:?} {:?}", w.doing);
    }
}

#[test]
fn a_wall_clock_that_jumps_ends_no_pause() {
    let t = |mono: u64, wall: u64| Now {
        mono: Mono(Duration::from_secs(mono)),
        wall: at(wall),
    };
    let mut m = Machine::new(policy(), host(0), region(0), 1, Mono::default());
    let doc = rules::pause(
        &Document::default(),
        Scope::Fleet,
        &by(),
        Some(Duration::from_secs(600)),
        at(0),
    );
    let mut out = Vec::new();
    m.tick(t(0, 0), &mut out);
    let Some(Action::ReadPermits { ask }) = out.pop() else {
        panic!()
    };
    m.on_read(
        ask,
        Ok(Some(Stored {
            revision: Revision(1),
            bytes: doc.encode().unwrap(),
        })),
        t(0, 0),
        &mut out,
    );
    assert!(m.paused(t(10, 9_000_000)).is_some(), "set forward by months");
    assert!(m.paused(t(599, 599)).is_some());
    assert!(m.paused(t(601, 601)).is_none());
    assert!(m.paused(t(601, 10)).is_some(), "set back");
}
