//! Hosts that come back, or are new, behind a stall.

use super::*;
use crate::core::canary::beacon::Named;
use crate::core::mesh::End;

const RESET: fn(&mut Remediation) = |p| p.mode = Mode::Reset;

fn fleet() -> Fleet {
    Fleet::with(6, RESET, Restored::default())
}

/// The agent of c5 left, and is back: these do not hear it any more.
fn comeback(change: impl Fn(&mut Remediation), deaf: &[usize]) -> Fleet {
    let mut f = Fleet::with(6, change, Restored::default());
    f.leaves(5);
    f.run(20.0);
    f.stalled.extend(deaf.iter().map(|to| (5, *to)));
    f.starts(5);
    f
}

fn restart(p: &mut Remediation) {
    (p.mode, p.path_resets) = (Mode::Restart, false);
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
    let mut f = comeback(RESET, &[0]);
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
    let mut f = comeback(|p| p.mode = Mode::Observe, &[0]);
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
    let mut f = comeback(restart, &[0]);
    f.run(180.0);
    assert_eq!(f.faults(0), [("route:c5>a0".to_owned(), FaultKind::Route)]);
    assert_eq!(f.acts, []);
    assert!(f.did("knows by others' word alone"), "{:?}", f.records);
    // Heard once, it is known like any other.
    f.stalled.clear();
    f.run(10.0);
    f.stalled.insert((5, 0));
    f.run(120.0);
    assert_eq!(f.acts.len(), 1, "{:?}", f.acts);
}

#[test]
fn who_is_missed_by_many_by_others_word_alone_does_not_restart_its_server_either() {
    let mut f = comeback(restart, &[0, 1, 2]);
    f.run(180.0);
    assert_eq!(f.faults(5), [("host:c5".to_owned(), FaultKind::Host)]);
    assert_eq!(f.acts, []);
}

#[test]
fn what_others_said_outlasts_an_absence_of_who_heard_it() {
    let mut f = comeback(|p| p.mode = Mode::Observe, &[0]);
    f.run(40.0);
    // Its agent stands still, and later it is cut off from its own server.
    f.alive[0] = false;
    f.run(20.0);
    f.alive[0] = true;
    f.run(30.0);
    f.deaf_to_itself = Some(0);
    f.run(20.0);
    f.deaf_to_itself = None;
    f.run(30.0);
    assert_eq!(f.faults(0), [("route:c5>a0".to_owned(), FaultKind::Route)]);
    assert!(!f.did("others do not name c5 any more"), "{:?}", f.records);
}

#[test]
fn one_that_left_unheard_hides_no_other() {
    let mut f = Fleet::new(6, Mode::Observe);
    // a0 misses b3 for ever: its goodbye got stuck. All others know that it left.
    f.stalled.insert((3, 0));
    f.run(20.0);
    f.leaves(3);
    f.leaves(5);
    f.run(20.0);
    f.stalled.insert((5, 0));
    f.starts(5);
    f.run(30.0);
    assert!(f.did("others hear c5"), "{:?}", f.records);
}

#[test]
fn a_receiver_that_may_not_know_its_source_heals_nothing_by_its_silence() {
    let mut f = fleet();
    let fault = judge_tests::fault_of(FaultKind::Route, 5, Some(End::Host(name(0))));
    let case = judge_tests::gone(&f, fault, &[]);
    let acted = f.now().mono;
    f.run(3.0);
    assert!(f.cores[5].healed(&case, acted, f.now()));
    let now = f.now();
    f.cores[5].lanes[0].fewer.insert(name(0), now.mono);
    assert!(!f.cores[5].healed(&case, acted, now));
}

#[test]
fn a_first_beacon_after_a_goodbye_is_evidence() {
    let mut f = fleet();
    f.leaves(5);
    f.run(20.0);
    let pair = (name(5), name(0));
    let begun = |f: &mut Fleet| {
        let now = f.now();
        let e = f.cores[0].gather(now);
        (e.unknown.contains(&pair), e.begun.contains(&pair))
    };
    assert_eq!(begun(&mut f), (true, false));
    f.starts(5);
    assert_eq!(begun(&mut f), (true, true));
    f.run(5.0);
    assert_eq!(begun(&mut f), (false, false));
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
fn a_second_word_that_is_long_past_does_not_count() {
    let x9 = HostName::new("x9").unwrap();
    let mut f = Fleet::new(6, Mode::Observe);
    (f.alive[1], f.alive[2]) = (false, false);
    says(&mut f, 2, 1);
    for seq in 1..60 {
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
