//! Whose turn it is: the receiver first, the sender after its delay, at most one act more where reports differ, and two
//! that hold each other up do not do so for ever.

use super::*;
use crate::core::policy::Arbiter;
use crate::core::remedy::gate::Blocked;

/// A number that looks random, from two others.
fn dice(seed: usize, n: usize) -> usize {
    let x = (seed as u64 * 1_000_003 + n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    usize::try_from((x ^ (x >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 40).unwrap()
}

#[test]
fn the_sender_acts_after_its_delay_and_only_where_the_receiver_does_not() {
    for tenths in 0..10 {
        let mut f = Fleet::new(6, Mode::Reset);
        f.run(f64::from(tenths) / 10.0);
        f.cores[3].reset_unavailable = Some("no capability".to_owned());
        let begin = f.now;
        f.stalled.insert((0, 3));
        f.run(120.0);
        assert_eq!(f.acts.len(), 1, "{:?}", f.acts);
        let (when, who, _) = &f.acts[0];
        assert_eq!(*who, 0);
        let delay = Remediation::default().sender_delay;
        let waited = *when - begin;
        assert!(delay < waited && waited < delay + Duration::from_secs(8), "{waited:?}");
        assert_eq!(f.all_faults(), []);
    }
}

#[test]
fn both_directions_of_one_connection_are_at_most_two_acts() {
    for tenths in 0..10 {
        let mut f = Fleet::new(6, Mode::Reset);
        f.run(f64::from(tenths) / 10.0);
        f.stalled.extend([(0, 3), (3, 0)]);
        f.run(120.0);
        assert!((1..=2).contains(&f.acts.len()), "{:?}", f.acts);
        assert!(f.acts.iter().all(|a| [0, 3].contains(&a.1)), "{:?}", f.acts);
        assert_eq!(f.all_faults(), []);
    }
}

/// One server that the others do not hear any more, while short losses keep some reports from some agents.
fn many_stalls_of_one(seed: usize) -> Fleet {
    let mut f = Fleet::new(12, Mode::Reset);
    f.run((seed % 10) as f64 / 10.0);
    f.stalled
        .extend((1..12).filter(|r| dice(seed, *r) % 11 < 9).map(|r| (0, r)));
    f.run(2.0);
    // Too short for a verdict; the beacons with the news are among those that are lost.
    let lost: Vec<Pair> = (0..30)
        .map(|n| (1 + dice(seed, 100 + n) % 11, dice(seed, 200 + n) % 12))
        .filter(|(s, r)| s != r && !f.stalled.contains(&(*s, *r)))
        .collect();
    f.stalled.extend(lost.iter().copied());
    f.run(1.8);
    f.stalled.retain(|pair| !lost.contains(pair));
    // The sender's turn comes after a minute.
    f.run(80.0);
    f
}

#[test]
fn where_many_stalls_meet_and_reports_differ_at_most_one_act_more_is_done() {
    let mut most = 0;
    for seed in 0..24 {
        let f = many_stalls_of_one(seed);
        let others = f.acts.iter().filter(|a| a.1 != 0).count();
        assert!(!f.acts.is_empty(), "{seed}");
        assert!(others <= 1 && f.acts.len() <= 2, "{seed}: {:?}", f.acts);
        assert_eq!(f.all_faults(), [], "{seed}");
        most = most.max(f.acts.len());
    }
    assert!(most >= 1, "nothing was stalled");
}

#[test]
fn probes_that_were_lost_on_a_path_known_to_be_stalled_accuse_no_interest_afterwards() {
    let mut f = Fleet::new(6, Mode::Observe);
    f.stalled.insert((0, 3));
    f.run(40.0);
    f.stalled.clear();
    f.run(20.0);
    assert!(!f.did("interest:"), "{:?}", f.records);
}

#[test]
fn two_that_refuse_each_other_both_get_their_turn() {
    let change = |p: &mut Remediation| {
        (p.mode, p.path_resets, p.max_sick_fraction) = (Mode::Restart, false, 1.0);
        // One that was called off counts for the limit.
        p.restarts_per_hour = 6;
    };
    let permits = Permits {
        arbiter: Arbiter::Register,
        slots: 2,
        per_region: 2,
        per_cluster: 2,
        spacing: Duration::ZERO,
        ..Permits::default()
    };
    let mut refused = 0;
    for tenths in 0..10 {
        let mut f = Fleet::permitted(8, change, Restored::default(), permits.clone());
        f.run(f64::from(tenths) / 10.0);
        // Each says that it restarts before it has heard that the other does, and both hear it before they begin.
        f.beacon_takes = Duration::from_millis(200);
        f.save_takes = Duration::from_secs(1);
        f.stalled.extend([(1, 2), (1, 7)]);
        let begin = f.now;
        while f.acts.len() < 2 && f.now < begin + Duration::from_secs(300) {
            f.run(0.1);
        }
        let who: BTreeSet<usize> = f.acts.iter().map(|a| a.1).collect();
        assert_eq!(who, BTreeSet::from([2, 7]), "{:?}", f.acts);
        assert!(f.acts[1].0 - f.acts[0].0 >= Duration::from_secs(1), "{:?}", f.acts);
        let held = |i: usize| f.cores[i].blocked.get("other_restarting").copied().unwrap_or(0);
        refused += u64::from(held(2) > 0 && held(7) > 0);
        assert!(held(2) + held(7) < 8, "{} {}", held(2), held(7));
        f.run(60.0);
        assert_eq!((f.acts.len(), f.all_faults()), (2, vec![]));
    }
    assert!(refused >= 3, "they are to refuse each other in this test: {refused}");
}

#[test]
fn after_what_held_both_sides_the_first_acts_first_again() {
    for tenths in 0..10 {
        let mut f = Fleet::new(6, Mode::Reset);
        f.run(f64::from(tenths) / 10.0);
        f.unrouted.insert((0, 3));
        f.no_network.extend([(0, 3), (3, 0)]);
        f.run(100.0);
        assert_eq!(f.acts, []);
        f.no_network.clear();
        f.run(50.0);
        assert_eq!(f.acts.len(), 1, "{:?}", f.acts);
        assert_eq!(f.acts[0].1, 0);
    }
    // The common seed of both was not heard for a while.
    for tenths in 0..10 {
        let mut f = Fleet::new(6, Mode::Reset);
        f.run(f64::from(tenths) / 10.0);
        f.alive[5] = false;
        f.run(5.0);
        f.unrouted.insert((0, 3));
        f.run(100.0);
        assert_eq!(f.acts, []);
        assert!(
            f.did("hole:a0|b3 reset held back: no socket to reset"),
            "{:?}",
            f.records
        );
        f.alive[5] = true;
        f.run(50.0);
        assert_eq!(f.acts.len(), 1, "{:?}", f.acts);
        assert_eq!(f.acts[0].1, 0);
    }
    // What held the first ends while the second still waits for it.
    let mut f = Fleet::new(6, Mode::Reset);
    f.unrouted.insert((0, 3));
    f.alive[5] = false;
    while !f.did("hole:a0|b3") {
        f.run(0.1);
    }
    f.run(69.0);
    f.alive[5] = true;
    f.stubborn = true;
    f.run(20.0);
    assert!(!f.acts.is_empty() && f.acts.iter().all(|a| a.1 == 0), "{:?}", f.acts);
    // Where the first cannot, the second does after its delay.
    let mut f = Fleet::new(6, Mode::Reset);
    f.cores[0].reset_unavailable = Some("no capability".to_owned());
    f.unrouted.insert((0, 3));
    f.no_network.extend([(0, 3), (3, 0)]);
    f.run(100.0);
    f.no_network.clear();
    f.run(120.0);
    assert_eq!(f.acts.iter().map(|a| a.1).collect::<Vec<_>>(), [3]);
}

#[test]
fn without_a_store_a_restart_that_failed_holds_others_until_its_host_is_back() {
    let change = |p: &mut Remediation| {
        (p.mode, p.path_resets, p.max_sick_fraction) = (Mode::Restart, false, 1.0);
    };
    let dies = |announced: bool| {
        let mut f = Fleet::with(6, change, Restored::default());
        if announced {
            let now = f.now();
            f.cores[5].open_rollout(rollout("R1"), now).unwrap();
            for action in f.cores[5].order_restart(&order(), now).unwrap() {
                f.carry(5, action);
            }
        }
        f.alive[5] = false;
        f.run(100.0);
        f
    };
    let restarts = |f: &Fleet| f.acts.iter().filter(|a| a.1 != 5).count();

    let mut f = dies(false);
    f.stalled.insert((1, 2));
    f.run(200.0);
    assert_eq!(restarts(&f), 1, "who died by itself holds nobody");

    let mut f = dies(true);
    // First its restart may still end well, then it has not: nobody gets through in between.
    for tenths in 0..2000 {
        f.run(0.1);
        for core in &f.cores[..5] {
            let held = core.gates_of_the_fleet(f.now());
            assert!(
                matches!(held, Err(Blocked::OtherRestarting(_) | Blocked::OtherNotBack(_))),
                "{tenths}: {held:?}"
            );
        }
    }
    f.stalled.insert((1, 2));
    f.run(200.0);
    assert_eq!(restarts(&f), 0, "{:?}", f.acts);
    let said = f.cores[2].snapshot(f.now()).faults;
    let remedy = |r: &str| r.starts_with("gave up: the server of c5 was being restarted, and nobody has heard");
    assert!(said.iter().any(|x| remedy(&x.remedy)), "{said:?}");
    f.alive[5] = true;
    f.run(120.0);
    assert_eq!(restarts(&f), 1, "{:?}", f.records);
}
