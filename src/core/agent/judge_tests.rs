//! What a judgement rests on: proof of the same kind as the suspicion, a fleet that was heard, names that are one host's.

use super::*;
use crate::core::canary::probes::ProbeBook;
use crate::core::mesh::{End, Fault};
use crate::core::remedy::case::Case;
use crate::core::remedy::case::Role;
use crate::core::remedy::gate::Blocked;

pub(super) fn fault_of(kind: FaultKind, from: usize, to: Option<End>) -> Fault {
    Fault {
        kind,
        from: name(from),
        to,
        region: region(from),
        lanes: BTreeSet::new(),
        absent: false,
        witnesses: 3,
        evidence: String::new(),
    }
}

pub(super) fn gone(f: &Fleet, fault: Fault, paths: &[Pair]) -> Case {
    let mut case = Case::new(fault, &name(3), f.now().mono, f.now().wall);
    case.present = false;
    case.paths = paths.iter().map(|(s, r)| (name(*s), name(*r))).collect();
    case
}

#[test]
fn a_host_fault_is_healed_when_the_paths_that_told_it_pass_again_and_not_by_any_fresh_report() {
    let mut f = Fleet::new(6, Mode::Reset);
    let case = gone(&f, fault_of(FaultKind::Host, 3, None), &[(0, 3), (1, 3), (4, 3)]);
    let acted = f.now().mono;
    f.run(2.5);
    assert!(f.cores[3].healed(&case, acted, f.now()));
    // Two of three fall silent; no verdict yet, and all others report as ever.
    f.stalled.extend([(0, 3), (1, 3)]);
    let acted = f.now().mono;
    f.run(1.5);
    assert_eq!(f.faults(3), []);
    assert!(!f.cores[3].healed(&case, acted, f.now()));
    // One of three may have left for good.
    f.stalled.clear();
    f.run(5.0);
    f.stalled.insert((0, 3));
    let acted = f.now().mono;
    f.run(1.5);
    assert!(f.cores[3].healed(&case, acted, f.now()));
}

#[test]
fn a_gateway_is_healed_when_those_that_missed_it_say_so() {
    let mut f = Fleet::new(6, Mode::Reset);
    let to = Some(End::Cluster("X".to_owned()));
    let case = gone(&f, fault_of(FaultKind::Gateway, 3, to), &[(3, 0), (3, 1)]);
    let acted = f.now().mono;
    f.run(2.5);
    assert!(f.cores[3].healed(&case, acted, f.now()));
    // Both fall silent, so they have not said it since; the others go on reporting.
    f.alive[0] = false;
    f.alive[1] = false;
    let acted = f.now().mono;
    f.run(1.5);
    assert!(!f.cores[3].healed(&case, acted, f.now()));
    // Nobody there was heard when it was found: then it must at least be registered.
    let case = gone(&f, case.fault, &[]);
    assert!(!f.cores[3].healed(&case, acted, f.now()));
}

#[test]
fn without_gateways_nothing_is_done_for_a_path_to_another_cluster() {
    let mut f = Fleet::new(6, Mode::Restart);
    f.run(2.5);
    let to = Some(End::Cluster("leaf-1".to_owned()));
    let case = gone(&f, fault_of(FaultKind::Gateway, 3, to), &[(3, 0)]);
    let blocked = f.cores[3].gate_gateway(&case, ActKind::Reset, f.now()).unwrap_err();
    assert_eq!(blocked.gate(), "no_gateway");
    let text = blocked.to_string();
    assert!(text.contains("between it and leaf-1 goes over a leaf node"), "{text}");
    // The same where it has gateways, and for a fault within its cluster.
    let mut varz = f.cores[3].local.varz().unwrap().clone();
    varz.gateway = Some("hub".to_owned());
    f.send(3, server(Endpoint::Varz, Sample::Varz(Box::new(varz))));
    let gate = |f: &Fleet, kind| f.cores[3].gate_gateway(&case, kind, f.now()).map_err(|b| b.to_string());
    assert_eq!(gate(&f, ActKind::Reset), Ok(()));
    // A restart wants more than others' word that there should be a gateway to it.
    let held = gate(&f, ActKind::Restart).unwrap_err();
    assert!(held.contains("knows of no gateway to leaf-1"), "{held}");
    f.gateways = vec!["leaf-1"];
    f.run(1.0);
    f.gateways = Vec::new();
    f.run(5.0);
    f.send(
        3,
        server(
            Endpoint::Varz,
            Sample::Varz(Box::new(varz_of(&f, 3, |v| v.gateway = Some("hub".to_owned())))),
        ),
    );
    assert_eq!(gate(&f, ActKind::Restart), Ok(()), "there was one");
    let case = gone(&f, fault_of(FaultKind::Host, 3, None), &[(3, 0)]);
    assert!(f.cores[2].gate_gateway(&case, ActKind::Restart, f.now()).is_ok());
}

fn varz_of(f: &Fleet, i: usize, change: impl Fn(&mut Varz)) -> Varz {
    let mut varz = f.cores[i].local.varz().unwrap().clone();
    change(&mut varz);
    varz
}

#[test]
fn a_host_that_claims_to_be_a_cluster_of_its_own_moves_nobody() {
    for (known, gateway) in [
        (vec!["B"], "[::ffff:127.0.0.7]:00001"),
        (vec!["B"], "127.0.0.7:1"),
        (vec![], "127.0.0.9:4"),
        (vec!["B"], "127.0.0.8:9"),
        (vec!["B"], "nats.lan:7"),
    ] {
        for path_resets in [true, false] {
            let policy = |p: &mut Remediation| (p.mode, p.path_resets) = (Mode::Restart, path_resets);
            let mut f = Fleet::with(6, policy, Restored::default());
            f.gateways.clone_from(&known);
            f.run(3.0);
            f.forged = Some((
                5,
                match gateway {
                    "127.0.0.7:1" => |b| lie(b, "127.0.0.7:1"),
                    "127.0.0.9:4" => |b| lie(b, "127.0.0.9:4"),
                    "nats.lan:7" => |b| lie(b, "nats.lan:7"),
                    "[::ffff:127.0.0.7]:00001" => |b| lie(b, "[::ffff:127.0.0.7]:00001"),
                    _ => |b| lie(b, "127.0.0.8:9"),
                },
            ));
            f.run(120.0);
            let done: Vec<_> = f
                .acts
                .iter()
                .filter(|a| a.2 != "reset the pending gateway connection to cluster ghost")
                .collect();
            assert_eq!(done, Vec::<&(Duration, usize, String)>::new(), "{gateway}");
            // At the address of nothing that the server shows there is no socket but, if any, the pending one.
            assert!(gateway == "127.0.0.8:9" || f.acts.is_empty(), "{gateway}: {:?}", f.acts);
        }
    }
}

#[test]
fn who_never_answered_a_probe_or_is_the_only_one_that_does_not_moves_no_server() {
    let policy = |p: &mut Remediation| (p.mode, p.path_resets) = (Mode::Restart, false);
    let mut f = Fleet::with(6, policy, Restored::default());
    f.no_interest.insert((0, 3));
    f.run(120.0);
    assert_eq!(f.acts, []);
    assert!(f.did("b3 alone does not answer probes"), "{:?}", f.records);

    let mut f = Fleet::new(6, Mode::Reset);
    for core in &mut f.cores {
        core.book.forget(&name(3));
    }
    f.no_interest.extend([(0, 3), (1, 3)]);
    f.run(120.0);
    assert_eq!(f.acts, []);
    assert!(f.did("b3 never answered a probe of this agent"), "{:?}", f.records);

    // Where all others are answered it is the path; where nobody answers this agent it is not.
    for others in [true, false] {
        let mut f = Fleet::new(6, Mode::Reset);
        let core = &mut f.cores[0];
        core.book.forget(&name(3));
        if !others {
            core.book = ProbeBook::default();
            f.no_interest.extend((1..6).map(|i| (0, i)));
        }
        f.no_interest.insert((0, 3));
        f.run(60.0);
        assert_eq!(f.acts.len(), usize::from(others), "{:?}", f.acts);
    }
}

#[test]
fn probes_that_were_lost_with_the_connection_before_say_nothing_of_the_new_one() {
    let mut f = Fleet::new(6, Mode::Reset);
    f.run(3.0);
    let to = Some(End::Host(name(4)));
    let case = gone(&f, fault_of(FaultKind::Interest, 3, to), &[]);
    // The server shows new connections from now on.
    f.cores[3].local.growth.clear();
    f.send(3, Event::Tick);
    f.read(3);
    let begun = f.now;
    for (age, young) in [(4, true), (7, false)] {
        f.run((begun + Duration::from_secs(age) - f.now).as_secs_f64());
        let held = f.cores[3].gate_young(&case, f.now());
        assert_eq!(held.is_err(), young, "{age} s: {held:?}");
    }
}

#[test]
fn a_route_that_is_there_is_no_hole_whoever_says_so() {
    let mut f = Fleet::new(6, Mode::Restart);
    let to = Some(End::Host(name(4)));
    let mut case = gone(&f, fault_of(FaultKind::Hole, 3, to), &[]);
    f.run(3.0);
    let asked = |f: &Fleet, case: &Case, kind| f.cores[3].gate_witness(case, kind, f.now()).map_err(|b| b.to_string());
    for kind in [ActKind::Reset, ActKind::Restart] {
        let held = asked(&f, &case, kind).unwrap_err();
        assert_eq!(
            held,
            "it is said that there is no route to c4, and the own server shows one"
        );
    }
    f.unrouted.insert((3, 4));
    f.run(2.0);
    case.since = Mono(f.now - Duration::from_secs(1));
    assert_eq!(asked(&f, &case, ActKind::Reset), Ok(()));
}

#[test]
fn one_host_that_hears_whom_all_others_miss_is_no_witness() {
    let mut f = Fleet::new(4, Mode::Reset);
    // It says nothing of whom it misses.
    f.forged = Some((3, |b| {
        b.hears = 9999;
        b.deaf.clear();
    }));
    f.alive[0] = false;
    f.run(60.0);
    assert_eq!(f.acts, []);
    assert!(f.did("no other host proves that a0 is alive"), "{:?}", f.records);
}

fn lie(beacon: &mut Beacon, gateway: &str) {
    beacon.cluster = "ghost".to_owned();
    beacon.health = Health::Sick;
    beacon.gateway = gateway.to_owned();
}

#[test]
fn who_says_that_anothers_server_is_its_own_gets_none_of_its_connections_reset() {
    let mut f = Fleet::new(6, Mode::Restart);
    f.forged = Some((4, |b| {
        (b.server_id, b.server) = ("S0.0".to_owned(), "s0".to_owned());
        b.deaf = vec![name(3)];
    }));
    f.run(200.0);
    assert_eq!(f.acts, []);
    assert!(f.did("the servers of a0 and c4 are all named s0"), "{:?}", f.records);
    assert!(f.cores[3].blocked["same_name"] > 0);
    // Under another name, or none, it is the same server.
    f.forged = Some((4, |b| {
        (b.server_id, b.server) = ("S0.0".to_owned(), String::new());
        b.deaf = vec![name(3)];
    }));
    f.run(200.0);
    assert_eq!(f.acts, []);
    assert!(
        f.did("a0 and c4 both say") || f.did("c4 and a0 both say"),
        "{:?}",
        f.records
    );
    // In another cluster there may be servers of the same names; there are no routes to it.
    let led = |f: &Fleet| {
        let routes = f.cores[3].local.fresh_routes(f.now().mono).unwrap().to_vec();
        f.cores[3].routes_to(&name(4), &routes).len()
    };
    assert_eq!(led(&f), 1);
    f.forged = Some((4, |b| {
        (b.server_id, b.server, b.cluster) = ("S0.0".to_owned(), "s0".to_owned(), "D".to_owned());
        b.deaf = vec![name(3)];
    }));
    f.run(200.0);
    assert_eq!(f.acts, []);
    assert_eq!(led(&f), 0);
}

#[test]
fn an_address_at_which_somebody_else_answers_proves_nothing_of_the_network() {
    let answered = |id: &str, cluster: &str| {
        Some(Answered {
            server_id: id.to_owned(),
            cluster: Some(cluster.to_owned()),
        })
    };
    for (id, said) in [
        ("S3.0", "the own server answers at the address that was checked"),
        ("S2.0", "the server of b2 answers at the address of a0"),
    ] {
        let mut f = Fleet::new(6, Mode::Restart);
        f.answers = answered(id, "C");
        f.stalled.insert((0, 3));
        f.run(20.0);
        assert_eq!(f.acts, []);
        assert!(f.did(said), "{:?}", f.records);
        // Who was not heard of may be the one that is meant, started anew.
        f.answers = answered("S0.7", "C");
        f.run(60.0);
        assert_eq!(f.acts.len(), 1, "{:?}", f.acts);
    }
    let f = Fleet::new(6, Mode::Restart);
    let to = Some(End::Cluster("X".to_owned()));
    let case = gone(&f, fault_of(FaultKind::Gateway, 3, to), &[(3, 0)]);
    let now = f.now();
    let who = |cluster| f.cores[3].recognise(&case, &answered("S9.0", cluster).unwrap(), now);
    assert_eq!(who("X"), Ok(()));
    assert_eq!(
        who("Y").unwrap_err(),
        "a server of cluster Y answers at the address of a gateway of X"
    );
}

#[test]
fn the_paths_of_a_fault_are_kept_while_it_lasts() {
    let mut f = Fleet::new(6, Mode::Observe);
    f.stalled.extend([(0, 3), (1, 3), (2, 3), (4, 3), (5, 3)]);
    f.run(10.0);
    let case = &f.cores[3].cases["host:b3"];
    assert_eq!(case.paths.len(), 5, "{:?}", case.paths);
}

#[test]
fn two_hosts_that_hold_each_other_up_do_not_try_again_at_the_same_moment() {
    let f = Fleet::new(6, Mode::Restart);
    let five = Duration::from_secs(5);
    let waits: Vec<Duration> = f.cores.iter().map(|c| c.jittered(five, "route:a0>b3")).collect();
    for (i, wait) in waits.iter().enumerate() {
        assert!(five * 3 / 4 <= *wait && *wait <= five * 3 / 2, "{waits:?}");
        let others = waits.iter().enumerate().filter(|(j, _)| *j != i);
        assert!(
            others.into_iter().all(|(_, o)| o.abs_diff(*wait) > TICK / 2),
            "{waits:?}"
        );
    }
    let again: Vec<Duration> = f.cores.iter().map(|c| c.jittered(five, "route:a0>b3")).collect();
    assert_eq!(waits, again, "a run can be repeated");
}

#[test]
fn names_that_were_once_used_make_the_fleet_no_larger() {
    let change = |p: &mut Remediation| (p.mode, p.path_resets) = (Mode::Restart, false);
    let mut f = Fleet::with(6, change, Restored::default());
    for i in 0..60 {
        let mut beacon = crate::core::canary::beacon::tests::beacon(&format!("x{i}"), "a", 1);
        beacon.bye = true;
        let source = Source {
            region: region(0),
            host: HostName::new(&format!("x{i}")).unwrap(),
        };
        let beacon = Arc::new(beacon);
        f.send(
            3,
            Event::Beacon {
                lane: lane(),
                source,
                beacon,
            },
        );
    }
    f.stalled.extend([(0, 3), (2, 5)]);
    f.run(30.0);
    assert_eq!(f.acts.iter().filter(|a| a.1 == 3).count(), 0, "{:?}", f.acts);
    assert!(f.did("2 of 6 hosts are sick, at most 1 may be"), "{:?}", f.records);
}

#[test]
fn what_could_hit_the_wrong_one_of_two_servers_with_one_name_is_not_done() {
    let mut f = Fleet::new(6, Mode::Restart);
    f.namesake = Some((4, 0));
    f.ids[4] += 1;
    f.run(15.0);
    assert!(f.did("the servers of a0 and c4 are all named s0"), "{:?}", f.records);
    assert!(f.cores[3].snapshot(f.now()).server.advice[0].contains("all named s0"));
    f.stalled.insert((0, 3));
    f.run(30.0);
    assert_eq!(f.acts, []);
    assert!(f.cores[3].blocked["same_name"] > 0);
    // Others are not concerned.
    f.stalled.insert((1, 5));
    f.run(10.0);
    assert_eq!(f.acts.len(), 1, "{:?}", f.acts);
    // And it is over when each has a name of its own.
    f.namesake = None;
    f.ids[4] += 1;
    f.run(100.0);
    assert_eq!(f.acts.len(), 2, "{:?}", f.acts);
}

/// Names in the first column of the table of gates, and what each holds.
fn documented() -> Vec<(String, String)> {
    let text = include_str!("../../../docs/operations.md");
    let table = text.split("## Gates").nth(1).unwrap();
    let rows = table.lines().skip_while(|l| !l.starts_with("|---")).skip(1);
    rows.take_while(|l| l.starts_with('|'))
        .flat_map(|row| {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let names = cells[1].split('`').skip(1).step_by(2).map(str::to_owned);
            names.map(|name| (name, cells[2].to_owned())).collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn the_documented_order_of_gates_is_that_of_the_code() {
    use crate::core::agent::gates::GATES;
    let mut order: Vec<(&str, &str)> = vec![("no_address", "both"), ("network_down", "both")];
    for gate in &GATES {
        let holds = gate.only.map_or("both", ActKind::name);
        order.extend(gate.names.iter().map(|name| (*name, holds)));
    }
    order.extend([("no_permit", "restart"), ("not_my_slot", "restart")]);
    order.extend([("ledger_not_kept", "both"), ("gone", "both"), ("mode", "both")]);
    let documented = documented();
    let documented: Vec<(&str, &str)> = documented.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    assert_eq!(documented, order);
}

#[test]
fn of_two_gates_that_hold_the_earlier_is_named() {
    let change = |p: &mut Remediation| (p.mode, p.path_resets, p.restarts_per_hour) = (Mode::Restart, false, 0);
    let mut f = Fleet::with(6, change, Restored::default());
    f.stalled.extend([(0, 3), (2, 5)]);
    f.run(20.0);
    let core = &mut f.cores[3];
    let blocked = core.cases["route:a0>b3"].blocked.clone().unwrap();
    assert_eq!(blocked.gate(), "too_many_sick", "and its limit is 0");
    core.local.lame_duck = true;
    let case = core.cases["route:a0>b3"].clone();
    let now = now_at(f.now);
    let held = |core: &Core| {
        core.gates("route:a0>b3", &case, ActKind::Restart, now)
            .unwrap_err()
            .gate()
    };
    assert_eq!(held(core), "lame_duck");
    core.away_at = Some(now.mono);
    assert_eq!(held(core), "self_unwell");
}

#[test]
fn who_was_deaf_even_to_itself_does_nothing_until_all_others_have_been_heard_again() {
    let mut f = Fleet::new(6, Mode::Restart);
    f.run(10.0);
    assert!(!f.cores[3].was_deaf(f.now()));
    f.stalled.extend((0..6).map(|i| (i, 3)));
    f.deaf_to_itself = Some(3);
    f.run(10.0);
    f.stalled.clear();
    f.deaf_to_itself = None;
    f.run(1.5);
    let case = gone(&f, fault_of(FaultKind::Route, 0, Some(End::Host(name(3)))), &[(0, 3)]);
    let held = f.cores[3].gates("x", &case, ActKind::Reset, f.now()).unwrap_err();
    assert_eq!(
        held.to_string(),
        "this agent is not well itself: its own beacon came back only a moment ago"
    );
    f.run(4.0);
    assert!(!f.cores[3].was_deaf(f.now()));
}

/// It has left; all but a0 know it.
fn nobody_acts_for_c5(mut f: Fleet) {
    f.run(60.0);
    assert_eq!(f.faults(0), [("route:c5>a0".to_owned(), FaultKind::Route)]);
    assert_eq!(f.acts, []);
    assert!(f.did("no other host proves that c5 is alive"), "{:?}", f.records);
}

#[test]
fn who_left_while_this_agent_was_away_is_no_stall_to_act_on() {
    let restart = |p: &mut Remediation| (p.mode, p.path_resets) = (Mode::Restart, false);
    let mut f = Fleet::with(6, restart, Restored::default());
    // The agent of a0 knows c5 from before, and was not there when c5 said goodbye.
    let restored = Restored {
        roster: f.cores[0].roster(f.now()),
        ..Restored::default()
    };
    f.alive[0] = false;
    f.send(5, Event::Shutdown);
    f.alive[5] = false;
    f.run(5.0);
    f.alive[0] = true;
    f.cores[0] = Core::new(f.cores[0].policy.clone(), restored, 0.0, f.now());
    f.send(0, connected());
    f.run(60.0);
    assert_eq!(f.faults(0), [("route:c5>a0".to_owned(), FaultKind::Route)]);
    assert_eq!(f.acts, []);
    assert!(
        f.records
            .iter()
            .any(|(i, r)| *i == 0 && r.contains("no other host proves that c5 is alive")),
        "{:?}",
        f.records
    );
}

#[test]
fn what_is_still_silent_when_a_host_comes_back_waits_for_its_recovery() {
    let restart = |p: &mut Remediation| (p.mode, p.path_resets) = (Mode::Restart, false);
    let mut f = Fleet::with(6, restart, Restored::default());
    f.stalled.extend((0..5).flat_map(|i| [(i, 5), (5, i)]));
    f.run(40.0);
    assert_eq!(f.acts, []);
    // All but one path came back: TCP tries again when it will.
    f.stalled = BTreeSet::from([(5, 0)]);
    f.run(30.0);
    assert_eq!(f.faults(0), [("route:c5>a0".to_owned(), FaultKind::Route)]);
    assert_eq!(f.acts, []);
    f.run(30.0);
    assert!(f.did("restart"), "{:?}", f.records);
}

#[test]
fn who_left_while_the_own_server_was_away_is_no_stall_to_act_on() {
    let restart = |p: &mut Remediation| (p.mode, p.path_resets) = (Mode::Restart, false);
    let mut f = Fleet::with(6, restart, Restored::default());
    // The agent of a0 lives on, and has heard c5 before.
    let state = Err("the connection was closed".to_owned());
    f.send(0, Event::Connection { lane: lane(), state });
    f.alive[0] = false;
    f.send(5, Event::Shutdown);
    f.alive[5] = false;
    f.run(5.0);
    f.alive[0] = true;
    f.send(0, connected());
    nobody_acts_for_c5(f);
}

#[test]
fn an_agent_that_says_it_is_not_well_is_not_accused_of_probes_it_did_not_answer() {
    let mut f = Fleet::new(6, Mode::Reset);
    f.no_interest.insert((0, 3));
    while f.cores[0].book.misses(&lane(), &name(3)) < 2 {
        f.run(0.1);
    }
    f.cores[3].away_at = Some(f.now().mono);
    f.run(1.1);
    assert_eq!(f.cores[0].members.get(&name(3)).unwrap().health, Health::Sick);
    assert_eq!(f.cores[0].book.misses(&lane(), &name(3)), 0);
    // One that was under way while it stood still, and is missed when it has said so, counts no more.
    f.run(5.0);
    let begun = f.now;
    while f.cores[0].book.misses(&lane(), &name(3)) == 0 && f.now < begun + Duration::from_secs(60) {
        f.run(0.1);
    }
    assert_eq!(f.cores[0].book.misses(&lane(), &name(3)), 1);
    f.cores[3].away_at = Some(f.now().mono);
    f.run(2.5);
    assert_eq!(f.cores[0].book.misses(&lane(), &name(3)), 0);
    assert_eq!(f.acts, []);
}

#[test]
fn the_first_word_of_who_was_cut_off_as_well_is_of_the_time_before() {
    let mut f = Fleet::new(6, Mode::Observe);
    f.stalled.extend([(3, 0), (0, 3)]);
    f.run(4.5);
    let to = Some(End::Cluster("C".to_owned()));
    let case = gone(&f, fault_of(FaultKind::Gateway, 3, to), &[]);
    let held = |f: &Fleet| f.cores[3].gate_young(&case, f.now()).map_err(|b| b.to_string());
    f.stalled.remove(&(0, 3));
    f.run(1.0);
    assert!(f.cores[3].evidence.deaf.contains_key(&(name(3), name(0))));
    assert_eq!(
        held(&f).unwrap_err(),
        "a0, who says so, was itself silent until a moment ago: its next beacons tell what is so now"
    );
    f.run(2.5);
    assert!(!held(&f).is_err_and(|why| why.contains("until a moment ago")));
    // Another who has been heard all the time and says the same is believed at once.
    f.stalled.insert((0, 3));
    f.run(4.5);
    f.stalled.remove(&(0, 3));
    f.stalled.insert((3, 1));
    f.run(4.2);
    f.stalled.insert((0, 3));
    f.run(4.5);
    f.stalled.remove(&(0, 3));
    f.run(1.0);
    assert!(!held(&f).is_err_and(|why| why.contains("until a moment ago")));
}

#[test]
fn what_leads_to_the_cluster_of_a_host_that_was_cut_off_waits_too() {
    let mut f = Fleet::new(6, Mode::Restart);
    let member = f.cores[3].members.get_mut(&name(0)).unwrap();
    std::sync::Arc::make_mut(&mut member.place).cluster = "X".to_owned();
    let gateway = |cluster: &str| {
        let to = Some(End::Cluster(cluster.to_owned()));
        gone(&f, fault_of(FaultKind::Gateway, 3, to), &[])
    };
    let (x, y) = (gateway("X"), gateway("Y"));
    let now = f.now();
    let mut host = gone(&f, fault_of(FaultKind::Host, 0, None), &[]);
    host.network = Some((now.mono, Err("no INFO".to_owned())));
    let core = &mut f.cores[3];
    assert!(core.gate_recovery(&x, ActKind::Restart, now).is_ok());
    core.recovers(&host, now);
    let held = core.gate_recovery(&x, ActKind::Restart, now).unwrap_err();
    assert!(held.to_string().contains("the recovery of X"), "{held}");
    assert!(core.gate_recovery(&y, ActKind::Restart, now).is_ok());
    let later = now_at(f.now + crate::core::remedy::case::RECOVER);
    assert!(f.cores[3].gate_recovery(&x, ActKind::Restart, later).is_ok());
}

#[test]
fn who_left_while_the_own_server_stood_still_is_no_stall_to_act_on() {
    for mode in [Mode::Reset, Mode::Restart] {
        let mut f = Fleet::with(
            6,
            |p| (p.mode, p.path_resets) = (mode, mode == Mode::Reset),
            Restored::default(),
        );
        // The connections of a0 stay, and nothing passes, not even its own beacons.
        f.stalled.extend((0..6).flat_map(|i| [(i, 0), (0, i)]));
        f.deaf_to_itself = Some(0);
        f.run(10.0);
        f.send(5, Event::Shutdown);
        f.alive[5] = false;
        f.run(10.0);
        f.stalled.clear();
        f.deaf_to_itself = None;
        nobody_acts_for_c5(f);
    }
}

#[test]
fn a_network_that_loses_packets_causes_no_restart() {
    for (connect, acts) in [(1200, 0), (150, 1)] {
        let restart = |p: &mut Remediation| (p.mode, p.path_resets) = (Mode::Restart, false);
        let mut f = Fleet::with(6, restart, Restored::default());
        f.connect_takes = Duration::from_millis(connect);
        f.stalled.insert((0, 3));
        f.run(50.0);
        assert_eq!(f.acts.len(), acts, "{:?}", f.acts);
        let held = f.did("TCP took 1.2 s to connect, so packets are lost on the way");
        assert_eq!(held, acts == 0, "{:?}", f.records);
    }
    // A new connection may pass sooner than the one that waits.
    let mut f = Fleet::new(6, Mode::Reset);
    f.connect_takes = Duration::from_millis(1200);
    f.stalled.insert((0, 3));
    f.run(10.0);
    assert_eq!(f.acts.len(), 1);
}

#[test]
fn what_is_missing_since_the_network_was_down_is_dialled_anew_by_the_servers_first() {
    let mut f = Fleet::new(6, Mode::Reset);
    f.unrouted.insert((0, 3));
    f.no_network.extend([(0, 3), (3, 0)]);
    f.run(9.0);
    assert!(!f.all_faults().is_empty());
    // It is back before the fault is confirmed.
    f.no_network.clear();
    f.run(9.0);
    assert_eq!(f.acts, []);
    assert!(f.did("recovery after a fault of the network"), "{:?}", f.records);
    f.run(20.0);
    assert_eq!(f.acts.len(), 1, "nobody dialled: {:?}", f.acts);
}

#[test]
fn a_gateway_that_was_dialled_anew_is_given_the_time_for_a_beacon_before_a_restart_too() {
    let mut f = Fleet::new(6, Mode::Restart);
    let to = Some(End::Cluster("X".to_owned()));
    let case = gone(&f, fault_of(FaultKind::Gateway, 3, to), &[]);
    let gate = |f: &Fleet, kind| {
        let asked = f.cores[3].gates("gateway:b3>cluster X", &case, kind, f.now());
        asked.map_err(|b| b.to_string())
    };
    f.run(2.5);
    let now = f.now().mono;
    let gateways = crate::core::server::Gatewayz {
        outbound: vec![crate::core::server::GatewayConn {
            cluster: "X".into(),
            ip: "127.0.0.7".into(),
            port: 1,
            ..Default::default()
        }],
        ..Default::default()
    };
    f.cores[3].local.gateways = Some((now, gateways));
    f.cores[3].local.gateway_since.insert("X".into(), (7, now));
    f.cores[3].local.gateways_seen.insert("X".into());
    for there in [name(0), name(1)] {
        let core = &mut f.cores[3];
        Arc::make_mut(&mut core.members.get_mut(&there).unwrap().place).cluster = "X".to_owned();
        let lanes = Arc::new(BTreeSet::from([lane()]));
        core.evidence.deaf.insert((name(3), there), lanes);
    }
    for kind in [ActKind::Reset, ActKind::Restart] {
        let held = gate(&f, kind).unwrap_err();
        assert_eq!(held, "the connection is 0.0 s old: its first beacon is still awaited");
    }
    // The word of one host there alone restarts nobody.
    let one = f.cores[3].evidence.deaf.remove(&(name(3), name(0))).unwrap();
    let held = gate(&f, ActKind::Restart).unwrap_err();
    assert!(held.starts_with("too few say that they do not hear b3"), "{held}");
    assert!(gate(&f, ActKind::Reset).unwrap_err().contains("first beacon"));
    f.cores[3].evidence.deaf.insert((name(3), name(0)), one);
    f.now += Duration::from_secs(4);
    for kind in [ActKind::Reset, ActKind::Restart] {
        assert!(
            !gate(&f, kind).is_err_and(|why| why.contains("first beacon")),
            "{kind:?}"
        );
    }
}

#[test]
fn a_goodbye_that_got_stuck_with_the_beacons_causes_no_act() {
    for mode in [Mode::Reset, Mode::Restart] {
        let policy = |p: &mut Remediation| (p.mode, p.path_resets) = (mode, mode == Mode::Reset);
        let mut f = Fleet::with(6, policy, Restored::default());
        f.stalled.insert((5, 0));
        f.run(1.0);
        f.send(5, Event::Shutdown);
        f.alive[5] = false;
        nobody_acts_for_c5(f);
    }
}

#[test]
fn whom_another_misses_too_is_not_acted_on_at_once() {
    // Heard last a moment earlier by two than by all others, it stands still then.
    let mut f = Fleet::new(6, Mode::Reset);
    f.stalled.extend([(5, 0), (5, 1)]);
    f.run(0.9);
    f.alive[5] = false;
    f.run(60.0);
    assert!(
        f.faults(0).contains(&("host:c5".to_owned(), FaultKind::Host)),
        "{:?}",
        f.faults(0)
    );
    assert!(f.did("fault route:c5>a0"), "{:?}", f.records);
    assert_eq!(f.acts, []);
}

#[test]
fn one_whom_a_last_beacon_reached_first_does_not_act_on_it() {
    let mut f = Fleet::new(6, Mode::Reset);
    for core in &mut f.cores {
        core.policy.canary.interval = Duration::from_secs(4);
    }
    f.run(20.0);
    (f.near, f.beacon_takes) = (Some(0), Duration::from_millis(700));
    f.run(8.0);
    f.cores[5].next_beacon = f.now().mono;
    f.run(0.1);
    f.alive[5] = false;
    f.run(11.0);
    // Who misses it a moment later has its say a moment before.
    let now = f.now().mono;
    for (n, core) in (0..).zip(&mut f.cores) {
        core.next_beacon = now.plus(Duration::from_millis(1200 + 50 * n));
    }
    f.run(60.0);
    assert!(f.did("fault route:c5>a0"), "{:?}", f.records);
    let faults = f.faults(0);
    assert_eq!(faults, [("host:c5".to_owned(), FaultKind::Host)]);
    assert_eq!(f.acts, []);
}

#[test]
fn where_nobody_knows_since_when_a_connection_is_there_nothing_is_done() {
    let restart = |p: &mut Remediation| (p.mode, p.path_resets) = (Mode::Restart, false);
    let mut f = Fleet::with(6, restart, Restored::default());
    f.stalled.insert((0, 3));
    f.run(5.0);
    let case = f.cores[3].cases["route:a0>b3"].clone();
    let asked = |f: &Fleet| f.cores[3].gate_witness(&case, ActKind::Restart, f.now());
    assert_eq!(asked(&f), Ok(()));
    f.cores[3].local.routes = None;
    assert!(matches!(asked(&f), Err(Blocked::StaleData { source: "routez", .. })));
}

#[test]
fn what_fell_silent_before_a_connection_was_there_is_not_held_against_it() {
    let mut f = Fleet::new(6, Mode::Reset);
    f.unrouted.insert((0, 5));
    f.run(6.9);
    assert!(!f.all_faults().is_empty());
    // Dialled again, and its agent dies: what others heard of it was before.
    f.unrouted.clear();
    f.alive[5] = false;
    f.run(60.0);
    assert!(f.did("fault route:c5>a0"), "{:?}", f.records);
    assert_eq!(f.acts, []);
}

#[test]
fn while_a_restart_waits_for_the_next_try_each_second_looks_at_the_network() {
    let restart = |p: &mut Remediation| (p.mode, p.path_resets) = (Mode::Restart, false);
    let mut f = Fleet::with(6, restart, Restored::default());
    f.stalled.insert((0, 3));
    f.run(5.5);
    let fine = |f: &Fleet| f.cores[3].cases["route:a0>b3"].fine_since;
    let before = fine(&f);
    assert!(before.is_some() && f.acts.is_empty(), "{before:?} {:?}", f.acts);
    // One packet is lost, for a second.
    f.connect_takes = Duration::from_secs(1);
    f.run(1.2);
    assert_eq!(fine(&f), None);
    // What was lost is looked at as seldom as any network that is down.
    f.connect_takes = Duration::from_millis(1);
    f.run(8.0);
    assert_eq!(fine(&f), None);
    f.run(3.0);
    let after = fine(&f).unwrap();
    assert!(after > before.unwrap(), "{before:?} {after:?}");
    f.run(180.0);
    assert_eq!(f.acts.len(), 1, "{:?}", f.acts);
}

#[test]
fn silence_counts_from_what_was_heard_last_where_the_verdict_came_late() {
    let mut f = Fleet::new(6, Mode::Restart);
    f.run(5.0);
    let core = &f.cores[3];
    let last = core.lanes[0].paths.get(&name(0)).unwrap().heard().unwrap();
    let mut case = gone(&f, fault_of(FaultKind::Route, 0, Some(End::Host(name(3)))), &[]);
    case.since = last.plus(Duration::from_secs(60));
    assert_eq!(core.silent_since(&case), last);
    // What others tell of this host's own beacons, whom it hears itself.
    case.since = last.plus(Duration::from_secs(1));
    let stall = core.interval() * core.policy.canary.stall_after;
    assert_eq!(core.silent_since(&case), Mono(case.since.0 - stall));
}

#[test]
fn the_second_side_looks_at_the_network_before_its_turn_too() {
    let mut f = Fleet::new(6, Mode::Reset);
    f.stalled.insert((0, 3));
    f.no_network.extend([(0, 3), (3, 0)]);
    f.run(10.0);
    assert!(matches!(f.cores[0].cases["route:a0>b3"].network, Some((_, Err(_)))));
    assert_eq!(f.acts, []);
}

#[test]
fn a_restart_waits_for_the_next_try_of_a_connection_that_may_only_have_lost_packets() {
    let restart = |p: &mut Remediation| (p.mode, p.path_resets) = (Mode::Restart, false);
    let mut f = Fleet::with(6, restart, Restored::default());
    f.stalled.insert((0, 3));
    f.run(60.0);
    assert!(
        f.did("the next try of a connection that may only have lost packets"),
        "{:?}",
        f.records
    );
    assert_eq!(f.acts.len(), 1, "{:?}", f.acts);
    // Silent since 7 s, fine since 20 s: not before 33 s, and a round trip.
    let second = Duration::from_secs(1);
    let mut case = gone(&f, fault_of(FaultKind::Route, 0, Some(End::Host(name(3)))), &[]);
    case.since = Mono(second * 10);
    case.checked(Ok(second / 100), Mono(second * 20));
    case.checked(Ok(second / 100), Mono(second * 30));
    let waits = |case: &Case, at: u32| case.may_be_tried_again(Mono(second * 7), false, Mono(second * at));
    assert!(waits(&case, 33) && !waits(&case, 34));
    // One more try, after twice as long.
    let waits_on = |at: u32| case.may_be_tried_again(Mono(second * 7), true, Mono(second * at));
    assert!(waits_on(61) && !waits_on(62));
    for lost in [Err("no INFO".to_owned()), Ok(second)] {
        let mut case = case.clone();
        case.checked(lost, Mono(second * 31));
        assert!(waits(&case, 1000));
    }
}

#[test]
fn a_restart_waits_for_one_more_try_where_others_between_the_same_regions_stall_too() {
    let restart = |p: &mut Remediation| (p.mode, p.path_resets) = (Mode::Restart, false);
    let held = |more: &[Pair]| {
        let mut f = Fleet::with(6, restart, Restored::default());
        f.run(60.0);
        f.stalled.insert((0, 3));
        f.stalled.extend(more);
        f.run(6.0);
        let (core, now) = (&f.cores[3], f.now());
        for (from, to) in more {
            let other = format!("route:{}>{}", name(*from), name(*to));
            assert!(core.cases[&other].present);
        }
        // It had its next try a moment ago, but not the one after that.
        let mut case = core.cases["route:a0>b3"].clone();
        case.since = Mono(now.mono.0 - Duration::from_secs(20));
        let silent = now.mono.since(core.silent_since(&case));
        case.fine_since = Some(Mono(now.mono.0 - silent / 2 - Duration::from_secs(1)));
        core.gate_tries(&case, ActKind::Restart, now).is_err()
    };
    assert!(!held(&[]));
    assert!(held(&[(1, 2)]) && held(&[(2, 1)]), "neither way");
    // Elsewhere, or of the same host: no sign of the network between these two regions.
    assert!(!held(&[(1, 5)]) && !held(&[(0, 2)]) && !held(&[(1, 3)]));
}

#[test]
fn what_is_left_of_an_incident_waits_for_half_a_minute() {
    let restart = |p: &mut Remediation| (p.mode, p.path_resets) = (Mode::Restart, false);
    let mut f = Fleet::with(6, restart, Restored::default());
    f.stalled.extend([(0, 3), (2, 5)]);
    f.run(60.0);
    f.stalled.remove(&(2, 5));
    let held = |f: &Fleet| {
        let case = f.cores[3].cases["route:a0>b3"].clone();
        let asked = f.cores[3].gates("route:a0>b3", &case, ActKind::Restart, f.now());
        asked.map_err(|blocked| blocked.to_string())
    };
    f.run(5.0);
    assert!(
        held(&f).unwrap_err().contains("too many hosts were sick"),
        "{:?}",
        held(&f)
    );
    f.run(20.0);
    assert_eq!(f.acts, []);
    assert!(held(&f).is_err());
    f.run(8.0);
    assert_eq!(held(&f), Ok(()));
}

#[test]
fn where_turns_come_by_lot_the_second_side_waits_for_that_of_the_first() {
    use crate::core::permit::slots::{Turn, turn};
    let f = Fleet::new(6, Mode::Restart);
    let core = &f.cores[3];
    let mut case = gone(&f, fault_of(FaultKind::Route, 3, Some(End::Host(name(0)))), &[]);
    assert_eq!(case.role, Role::Second);
    let length = core.policy.permits.slot_length;
    // At a time when the first one's turn is not now.
    let others: Vec<HostName> = (0..6).filter(|i| *i != 0).map(name).collect();
    let wait = loop {
        match turn(&name(0), others.iter(), length, case.since_wall) {
            Turn::In(Some(wait)) if wait > length => break wait,
            _ => case.since_wall.0 += length,
        }
    };
    let at = |wait: Duration| Now {
        mono: case.since.plus(wait),
        wall: Wall(case.since_wall.0 + wait),
    };
    let (early, late) = (at(wait), at(wait + length));
    assert!(!core.first_had_its_turn(&mut case.clone(), early));
    assert!(core.first_had_its_turn(&mut case.clone(), late));
    let mut first = case.clone();
    first.role = Role::First;
    assert!(core.first_had_its_turn(&mut first, early));
}

#[test]
fn after_a_common_seed_that_did_not_help_the_next_is_tried() {
    let mut f = Fleet::new(6, Mode::Reset);
    let mut case = gone(&f, fault_of(FaultKind::Hole, 0, Some(End::Host(name(3)))), &[]);
    let core = &mut f.cores[0];
    let now = now_at(f.now);
    let target = |core: &Core, case: &Case| core.reset_target(case, now).unwrap();
    let only = target(core, &case);
    assert!(only.what.ends_with("the common seed c5") && only.whole, "{only:?}");
    let (_, routes) = core.local.routes.as_mut().unwrap();
    routes
        .iter_mut()
        .filter(|r| r.rid == 4)
        .for_each(|r| r.is_configured = true);
    let first = target(core, &case);
    case.resets = 1;
    let second = target(core, &case);
    assert!(first.what.ends_with("c4") && !first.whole, "{first:?}");
    assert!(second.what.ends_with("c5") && !second.whole, "{second:?}");
}
