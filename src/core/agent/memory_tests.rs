//! What is remembered of faults over the agent's own restart, and what makes it forget.

use super::*;
use crate::core::permit::document::{Document, Scope};
use crate::core::permit::rules::{self, By};
use crate::core::permit::{Revision, Stored};

impl Fleet {
    /// The agent of `i` dies and another process takes over, with what is on disk.
    pub(super) fn agent_dies(&mut self, i: usize) {
        let disk = self.disk.get(&i);
        let ledger = disk.map(|text| serde_json::from_str(text).map_err(|e: serde_json::Error| e.to_string()));
        if matches!(ledger, Some(Err(_))) {
            // Moved aside.
            self.disk.remove(&i);
        }
        let now = self.now();
        let restored = Restored {
            roster: self.cores[i].roster(now),
            ledger,
            ..Restored::default()
        };
        self.cores[i] = Core::new(self.cores[i].policy.clone(), restored, 0.5, now);
        self.send(i, connected());
        self.run(15.0);
    }

    pub(super) fn resets(&self) -> usize {
        self.acts.iter().filter(|a| a.2.starts_with("reset")).count()
    }

    fn gave_up(&self, i: usize) -> bool {
        let faults = self.cores[i].snapshot(self.now()).faults;
        faults.iter().any(|f| f.remedy.starts_with("gave up"))
    }

    pub(super) fn signed_resume(&mut self, i: usize) {
        let order = Order {
            who: Who::operator("ann", "UKEY"),
            verb: "resume",
            rollout: String::new(),
            reason: "cable replaced".to_owned(),
            args: Args::default(),
        };
        let now = self.now();
        for action in self.cores[i].resume(&order, now) {
            self.carry(i, action);
        }
    }

    fn resume_in_store(&mut self, scope: Scope) {
        let stored = self.register.stored.take();
        let doc = stored
            .as_ref()
            .map_or_else(Document::default, |s| Document::decode(&s.bytes).unwrap());
        let by = By {
            who: "ann".to_owned(),
            why: String::new(),
        };
        let (doc, _) = rules::resume(&doc, &scope, &by, self.now().wall);
        self.register.stored = Some(Stored {
            revision: Revision(stored.map_or(1, |s| s.revision.0 + 1)),
            bytes: doc.encode().unwrap(),
        });
    }
}

/// A route that comes back each time it was healed; the agent of the receiver dies in between.
fn healed_twice() -> Fleet {
    let mut f = Fleet::new(6, Mode::Reset);
    for n in 1..=2 {
        f.stalled.insert((0, 3));
        f.run(30.0);
        assert_eq!(f.resets(), n, "{:?}", f.acts);
        f.agent_dies(3);
    }
    f
}

#[test]
fn a_fault_that_comes_back_after_two_remedies_is_left_alone_by_the_next_process_too() {
    let mut f = healed_twice();
    f.stalled.insert((0, 3));
    f.run(60.0);
    assert_eq!(f.acts.iter().filter(|a| a.1 == 3).count(), 2, "{:?}", f.acts);
    assert!(f.did("came back after 2 remedies"));
}

#[test]
fn a_signed_resume_lets_it_be_tried_again() {
    let mut f = healed_twice();
    f.stalled.insert((0, 3));
    f.run(8.0);
    assert_eq!(f.acts.iter().filter(|a| a.1 == 3).count(), 2);
    f.signed_resume(3);
    f.run(15.0);
    assert_eq!(f.acts.iter().filter(|a| a.1 == 3).count(), 3, "{:?}", f.acts);
    f.agent_dies(3);
    assert_eq!(
        f.cores[3].ledger.memory.times("route:a0>b3", f.now()),
        1,
        "one since the resume"
    );
}

/// All that is allowed was tried at host 3, and its agent has died since.
fn given_up(permits: Permits) -> (Fleet, usize) {
    let change = |p: &mut Remediation| p.mode = Mode::Reset;
    let mut f = Fleet::permitted(6, change, Restored::default(), permits);
    f.stubborn = true;
    f.stalled.insert((0, 3));
    f.run(200.0);
    assert!(f.gave_up(3), "{:?}", f.acts);
    let tried = f.acts.iter().filter(|a| a.1 == 3).count();
    assert!(tried > 0);
    f.agent_dies(3);
    assert!(f.gave_up(3), "{:?}", f.faults(3));
    f.run(100.0);
    assert_eq!(f.acts.iter().filter(|a| a.1 == 3).count(), tried);
    (f, tried)
}

#[test]
fn what_was_given_up_stays_so_over_a_restart_and_a_reload() {
    let (mut f, tried) = given_up(Permits::default());
    let mut more = f.cores[3].policy.remediation.clone();
    (more.mode, more.tries) = (Mode::Restart, 9);
    let now = f.now();
    f.cores[3].reload(Canary::default(), more, now);
    f.run(60.0);
    // Gone and back is no reason either.
    f.stalled.clear();
    f.run(10.0);
    assert!(!f.gave_up(3));
    f.stalled.insert((0, 3));
    f.run(60.0);
    assert!(f.gave_up(3));
    assert_eq!(f.acts.iter().filter(|a| a.1 == 3).count(), tried, "{:?}", f.acts);
    assert!(f.did("it was given up before"));
    f.signed_resume(3);
    f.run(30.0);
    assert!(f.acts.iter().filter(|a| a.1 == 3).count() > tried);
}

#[test]
fn a_given_up_fault_that_stays_for_hours_is_remembered_when_the_agent_dies_then() {
    let (mut f, tried) = given_up(Permits::default());
    f.run(3700.0);
    f.agent_dies(3);
    f.run(60.0);
    assert!(f.gave_up(3));
    assert_eq!(f.acts.iter().filter(|a| a.1 == 3).count(), tried);
}

#[test]
fn a_resume_in_the_store_is_taken_in_once_and_by_whom_it_covers() {
    let (mut f, tried) = given_up(Permits {
        arbiter: crate::core::policy::Arbiter::Register,
        ..Permits::default()
    });
    let count = |f: &Fleet| f.acts.iter().filter(|a| a.1 == 3).count();
    // The next process has to hear a0 before it can tell its connections.
    f.stalled.clear();
    f.run(10.0);
    f.stalled.insert((0, 3));
    f.run(30.0);
    assert!(f.gave_up(3) && count(&f) == tried);
    f.resume_in_store(Scope::Host(name(4)));
    f.run(60.0);
    assert_eq!(count(&f), tried, "another host was meant");
    f.resume_in_store(Scope::Region(region(3)));
    f.run(300.0);
    let of_3: Vec<&String> = f.records.iter().filter(|r| r.0 == 3).map(|r| &r.1).collect();
    assert_eq!(count(&f), 2 * tried, "{of_3:#?}");
    assert!(f.gave_up(3), "and no more than that");
    // The next process reads the same document.
    f.agent_dies(3);
    f.run(100.0);
    assert_eq!(count(&f), 2 * tried);
}

#[test]
fn what_could_not_be_written_is_written_later() {
    let mut f = Fleet::new(6, Mode::Reset);
    f.stalled.insert((0, 3));
    while f.resets() == 0 {
        f.run(0.1);
    }
    f.save = Err("disk full".to_owned());
    f.run(20.0);
    assert!(f.did("healed by reset"));
    f.save = Ok(());
    f.run(12.0);
    f.agent_dies(3);
    assert_eq!(f.cores[3].ledger.memory.times("route:a0>b3", f.now()), 1);
}

#[test]
fn a_restart_that_did_not_begin_is_not_shown_as_one() {
    let change = |p: &mut Remediation| (p.mode, p.path_resets) = (Mode::Restart, false);
    let mut f = Fleet::with(6, change, Restored::default());
    f.save = Err("disk full".to_owned());
    f.stalled.insert((0, 3));
    f.run(100.0);
    assert!(f.did("cannot be written"), "{:?}", f.records);
    let s = f.cores[3].snapshot(f.now());
    assert_eq!(
        (s.remediation.last_restart, s.remediation.last_restart_reason),
        (None, None)
    );
    assert!(f.cores[3].ledger.acts.is_empty());
    assert!(
        f.cores[3].ledger.left(ActKind::Restart, 2, f.now()) < 2,
        "it counts for the limit"
    );
}
