//! Hosts that come back, or are new, behind a stall.

use super::*;
use crate::core::canary::beacon::Named;

const RESET: fn(&mut Remediation) = |p| p.mode = Mode::Reset;

fn fleet() -> Fleet {
    Fleet::with(6, RESET, Restored::default())
}

impl Fleet {
    fn leaves(&mut self, i: usize) {
        self.send(i, Event::Shutdown);
        self.alive[i] = false;
    }

    /// Its agent starts anew, without a memory.
    fn starts(&mut self, i: usize) {
        self.alive[i] = true;
        self.cores[i] = Core::new(self.cores[i].policy.clone(), Restored::default(), 0.5, self.now());
        self.send(i, connected());
    }

    fn names(&self, i: usize) -> usize {
        self.cores[i].names(&self.cores[i].lanes[0]).len()
    }
}

#[test]
fn who_comes_back_behind_a_stall_is_missed_there_and_the_stall_is_healed() {
    let mut f = fleet();
    f.leaves(5);
    f.run(20.0);
    f.stalled.insert((5, 0));
    f.starts(5);
    f.run(12.0);
    assert!(
        f.did("others hear c5, which is not heard here on lane main"),
        "{:?}",
        f.records
    );
    f.run(20.0);
    assert_eq!(f.acts.len(), 1, "{:?}", f.acts);
    assert_eq!(f.acts[0].1, 0);
    assert!(f.stalled.is_empty());
    assert_eq!(f.all_faults(), []);
}

#[test]
fn whom_a_fresh_agent_never_heard_is_missed_too() {
    let mut f = fleet();
    f.alive[0] = false;
    f.run(1.0);
    f.stalled.insert((5, 0));
    f.starts(0);
    f.run(60.0);
    assert!(f.did("fault route:c5>a0"), "{:?}", f.records);
    assert!(f.stalled.is_empty() || f.faults(0).iter().any(|(id, _)| id == "route:c5>a0"));
}

#[test]
fn whom_others_do_not_hear_any_more_nobody_misses() {
    let mut f = Fleet::new(6, Mode::Observe);
    f.leaves(5);
    f.run(20.0);
    f.stalled.insert((5, 0));
    f.starts(5);
    f.run(40.0);
    assert_eq!(f.faults(0), [("route:c5>a0".to_owned(), FaultKind::Route)]);
    let kept = f.cores[0].roster(f.now());
    assert!(kept.iter().all(|e| e.host != name(5)), "others' word is not kept");
    // This goodbye is not heard either.
    f.leaves(5);
    f.run(30.0);
    assert_eq!(f.all_faults(), []);
}

#[test]
fn a_fleet_of_which_all_know_all_names_nobody() {
    let mut f = fleet();
    for _ in 0..50 {
        f.run(0.7);
        assert!((0..6).all(|i| f.names(i) == 0));
    }
    // A goodbye is heard by all at once.
    f.leaves(5);
    f.run(5.0);
    assert!((0..5).all(|i| f.names(i) == 0));
}

#[test]
fn nobody_restarts_a_server_for_others_word() {
    let restart = |p: &mut Remediation| (p.mode, p.path_resets) = (Mode::Restart, false);
    let mut f = Fleet::with(6, restart, Restored::default());
    f.leaves(5);
    f.run(20.0);
    f.stalled.insert((5, 0));
    f.starts(5);
    f.run(180.0);
    assert_eq!(f.faults(0), [("route:c5>a0".to_owned(), FaultKind::Route)]);
    assert_eq!(f.acts, []);
    // Heard once, it is known like any other.
    f.stalled.clear();
    f.run(10.0);
    f.stalled.insert((5, 0));
    f.run(120.0);
    assert_eq!(f.acts.len(), 1, "{:?}", f.acts);
}

/// Of a host that does not exist, by `by`, to b3.
fn says(f: &mut Fleet, by: usize, seq: u64) {
    let mut beacon = crate::core::canary::beacon::tests::beacon(name(by).as_str(), region(by).as_str(), seq);
    (beacon.inc, beacon.hears) = (u64::MAX, 5);
    let named = Named {
        host: HostName::new("x9").unwrap(),
        region: region(0),
        cluster: "C".to_owned(),
        inc: 7,
    };
    beacon.names.push(named);
    let source = Source {
        region: region(by),
        host: name(by),
    };
    let beacon = Arc::new(beacon.sealed());
    let lane = lane();
    f.send(3, Event::Beacon { lane, source, beacon });
}

#[test]
fn after_a_standstill_one_word_is_no_more_than_before() {
    let x9 = HostName::new("x9").unwrap();
    let mut f = Fleet::new(6, Mode::Observe);
    f.alive[1] = false;
    for seq in 1..60 {
        f.alive[3] = seq % 20 != 0;
        says(&mut f, 1, seq);
        f.run(if f.alive[3] { 1.0 } else { 8.0 });
        assert!(!f.cores[3].members.contains_key(&x9), "{seq}");
    }
}

#[test]
fn a_second_word_that_is_long_past_does_not_count() {
    let x9 = HostName::new("x9").unwrap();
    let mut f = Fleet::new(6, Mode::Observe);
    (f.alive[1], f.alive[2]) = (false, false);
    says(&mut f, 1, 1);
    says(&mut f, 2, 1);
    f.run(8.0);
    for seq in 2..60 {
        says(&mut f, 1, seq);
        f.run(1.0);
        assert!(!f.cores[3].members.contains_key(&x9), "{seq}");
    }
}

#[test]
fn one_word_alone_makes_nobody_expected() {
    let x9 = HostName::new("x9").unwrap();
    let mut f = Fleet::new(6, Mode::Observe);
    f.alive[1] = false;
    for seq in 1..30 {
        says(&mut f, 1, seq);
        f.run(1.0);
    }
    assert!(!f.cores[3].members.contains_key(&x9));
    f.alive[2] = false;
    for seq in 30..60 {
        says(&mut f, 1, seq);
        says(&mut f, 2, seq);
        f.run(1.0);
    }
    assert!(f.cores[3].members.contains_key(&x9), "two are believed");
    f.run(120.0);
    assert!(!f.faults(3).iter().any(|(id, _)| id.contains("x9")), "and not for ever");
}
