//! What explains what, on fleets of a few hosts.

use super::*;

fn h(n: &str) -> HostName {
    HostName::new(n).unwrap()
}

/// Hosts like `a1`: the letter is region and, if `clusters`, cluster. All are receivers and hear all.
fn fleet(names: &[&str], clusters: bool) -> Evidence {
    Evidence {
        members: names
            .iter()
            .map(|n| {
                let region = Region::new(&n[..1]).unwrap();
                let cluster = if clusters { n[..1].to_owned() } else { "one".to_owned() };
                (
                    h(n),
                    Place {
                        region,
                        cluster,
                        entries: BTreeMap::new(),
                    }
                    .into(),
                )
            })
            .collect(),
        lanes: 1,
        receivers: names.iter().map(|n| h(n)).collect(),
        ..Evidence::default()
    }
}

fn deaf(e: &mut Evidence, pairs: &[(&str, &str)]) {
    for (s, r) in pairs {
        let lanes = e.deaf.entry((h(s), h(r))).or_default();
        Arc::make_mut(lanes).insert(LaneName::new("main").unwrap());
    }
}

fn ids(e: &Evidence) -> Vec<String> {
    diagnose(e).iter().map(Fault::id).collect()
}

const SIX: [&str; 6] = ["a1", "a2", "b1", "b2", "c1", "c2"];

#[test]
fn a_cell_counts_the_pairs_that_are_judged_and_those_that_do_not_hear() {
    let mut e = fleet(&["a1", "a2", "b1", "b2", "b3"], false);
    e.receivers.remove(&h("b3"));
    e.unknown.insert((h("a1"), h("b1")));
    e.unknown.insert((h("a1"), h("b3")));
    for (s, r) in [("a1", "b1"), ("a2", "b1"), ("a2", "b3"), ("b3", "a1")] {
        e.deaf.insert((h(s), h(r)), Arc::default());
    }
    let cells = e.cells();
    let cell = |from: &str, to: &str| cells[&(Region::new(from).unwrap(), Region::new(to).unwrap())];
    assert_eq!((cell("a", "a"), cell("b", "b")), ((2, 0), (4, 0)));
    assert_eq!((cell("a", "b"), cell("b", "a")), ((3, 1), (6, 1)));
}

#[test]
fn a_healthy_fleet_has_no_faults() {
    assert!(ids(&fleet(&SIX, false)).is_empty());
}

#[test]
fn one_deaf_pair_is_a_route_with_witnesses() {
    let mut e = fleet(&SIX, false);
    deaf(&mut e, &[("a1", "b2")]);
    let f = diagnose(&e);
    assert_eq!(f[0].id(), "route:a1>b2");
    assert_eq!(f[0].witnesses, 4);
    assert_eq!(f.len(), 1);
}

#[test]
fn a_host_that_nobody_hears_is_one_fault_not_five() {
    let mut e = fleet(&SIX, false);
    e.receivers.remove(&h("a1"));
    deaf(
        &mut e,
        &[("a1", "a2"), ("a1", "b1"), ("a1", "b2"), ("a1", "c1"), ("a1", "c2")],
    );
    assert_eq!(ids(&e), ["host:a1"]);
}

#[test]
fn a_host_that_hears_nobody_is_blamed_itself() {
    let mut e = fleet(&SIX, false);
    deaf(
        &mut e,
        &[("a2", "a1"), ("b1", "a1"), ("b2", "a1"), ("c1", "a1"), ("c2", "a1")],
    );
    assert_eq!(ids(&e), ["host:a1"]);
}

#[test]
fn a_whole_remote_cluster_that_is_deaf_to_one_host_is_its_gateway() {
    let mut e = fleet(&SIX, true);
    deaf(&mut e, &[("a1", "b1"), ("a1", "b2")]);
    assert_eq!(ids(&e), ["gateway:a1>cluster b"]);
}

#[test]
fn a_gateway_that_never_registered_shows_even_when_nobody_there_is_heard() {
    let mut e = fleet(&SIX, true);
    e.receivers.remove(&h("b1"));
    e.receivers.remove(&h("b2"));
    e.ungatewayed.insert((h("a1"), "b".to_owned()));
    assert_eq!(ids(&e), ["gateway:a1>cluster b"]);
}

#[test]
fn a_route_inside_the_remote_cluster_explains_what_came_through_it() {
    let mut e = fleet(&SIX, true);
    deaf(&mut e, &[("b1", "b2"), ("a1", "b2")]);
    assert_eq!(ids(&e), ["route:b1>b2"]);
}

#[test]
fn two_that_are_no_peers_are_a_hole() {
    let mut e = fleet(&SIX, false);
    deaf(&mut e, &[("a1", "b1"), ("b1", "a1")]);
    e.unrouted.insert((h("b1"), h("a1")));
    assert_eq!(ids(&e), ["hole:a1|b1"]);
}

#[test]
fn both_directions_with_a_route_present_are_two_routes() {
    let mut e = fleet(&SIX, false);
    deaf(&mut e, &[("a1", "b1"), ("b1", "a1")]);
    assert_eq!(ids(&e), ["route:a1>b1", "route:b1>a1"]);
}

#[test]
fn one_lane_of_two_is_a_pool_connection() {
    let mut e = fleet(&SIX, false);
    e.lanes = 2;
    deaf(&mut e, &[("a1", "b1")]);
    assert_eq!(ids(&e), ["pool:a1>b1"]);
}

#[test]
fn stalls_that_meet_in_one_server_are_that_server() {
    let mut e = fleet(&SIX, false);
    deaf(&mut e, &[("a1", "b1"), ("a1", "b2"), ("c1", "a1")]);
    assert_eq!(ids(&e), ["host:a1"]);
}

#[test]
fn only_new_interest_missing_is_interest() {
    let mut e = fleet(&SIX, false);
    e.unanswered.insert((h("a1"), h("b1")));
    assert_eq!(ids(&e), ["interest:a1>b1"]);
}

#[test]
fn an_agent_that_answers_nobody_is_no_path_fault() {
    let mut e = fleet(&SIX, false);
    for a in ["a1", "a2", "b2", "c1", "c2"] {
        e.unanswered.insert((h(a), h("b1")));
    }
    assert!(ids(&e).is_empty());
}

#[test]
fn reports_about_and_from_strangers_change_nothing() {
    let mut e = fleet(&SIX, false);
    deaf(&mut e, &[("zz", "b1"), ("a1", "zz")]);
    assert!(ids(&e).is_empty());
}

#[test]
fn who_is_not_named_in_a_report_that_was_too_short_is_not_heard_for_that() {
    let mut e = fleet(&SIX, false);
    // The agents of c1 and c2 died; the reports of the others had room for c1 only.
    for dead in ["c1", "c2"] {
        e.receivers.remove(&h(dead));
        deaf(&mut e, &[(dead, "a1")]);
    }
    deaf(&mut e, &[("c1", "a2"), ("c1", "b1"), ("c1", "b2")]);
    for r in ["a2", "b1", "b2"] {
        e.more.insert(h(r), BTreeMap::from([(Region::new("c").unwrap(), 1)]));
    }
    assert_eq!(ids(&e), ["host:c1", "host:c2"]);
    assert!(diagnose(&e).iter().all(|f| f.witnesses == 0));
    let cells = e.cells();
    let cell = |to: &str| cells[&(Region::new("c").unwrap(), Region::new(to).unwrap())];
    assert_eq!((cell("a"), cell("b")), ((4, 4), (4, 4)));
}

#[test]
fn one_that_hears_nobody_is_blamed_itself_even_if_it_cannot_name_all() {
    let mut e = fleet(&SIX, false);
    deaf(&mut e, &[("a2", "a1"), ("b1", "a1"), ("b2", "a1")]);
    e.more.insert(h("a1"), BTreeMap::from([(Region::new("c").unwrap(), 2)]));
    assert_eq!(ids(&e), ["host:a1"]);
}

#[test]
fn one_that_is_cut_off_from_a_region_still_hears_the_others() {
    let mut e = fleet(&SIX, false);
    deaf(&mut e, &[("c1", "a1")]);
    e.more.insert(h("a1"), BTreeMap::from([(Region::new("c").unwrap(), 1)]));
    assert_eq!(ids(&e), ["route:c1>a1"]);
}

#[test]
fn a_server_that_most_of_its_cluster_does_not_reach_explains_its_gateways_and_those_that_lead_to_it() {
    let names = ["a1", "a2", "a3", "a4", "a5", "b1", "b2"];
    let mut e = fleet(&names, true);
    deaf(&mut e, &[("a1", "a2"), ("a1", "a3"), ("a4", "a1"), ("a5", "a2")]);
    // Its own gateway, and that of b1, which leads to it.
    deaf(&mut e, &[("a1", "b1"), ("a1", "b2")]);
    deaf(&mut e, &[("b1", "a2"), ("b1", "a3"), ("b1", "a4"), ("b1", "a5")]);
    Arc::make_mut(e.members.get_mut(&h("b1")).unwrap()).entries = BTreeMap::from([("a".to_owned(), h("a1"))]);
    e.unknown.insert((h("b1"), h("a1")));
    assert_eq!(ids(&e), ["host:a1", "route:a5>a2"]);
    // A gateway that leads elsewhere is a fault of its own.
    Arc::make_mut(e.members.get_mut(&h("b1")).unwrap()).entries = BTreeMap::from([("a".to_owned(), h("a4"))]);
    assert_eq!(ids(&e), ["host:a1", "gateway:b1>cluster a", "route:a5>a2"]);
}

#[test]
fn a_route_that_begins_to_pass_is_not_blamed_for_what_comes_through_it() {
    let mut e = fleet(&["a1", "a2", "b1", "b2", "b3"], true);
    Arc::make_mut(e.members.get_mut(&h("a1")).unwrap()).entries = BTreeMap::from([("b".to_owned(), h("b2"))]);
    deaf(&mut e, &[("a1", "b1")]);
    // The agent of b2 has left: what comes through its server tells of the route.
    e.receivers.remove(&h("b2"));
    e.unknown.insert((h("b2"), h("b1")));
    assert_eq!(ids(&e), ["route:b2>b1"]);
    // It is back, and b1 has heard it.
    e.begun.insert((h("b2"), h("b1")));
    assert_eq!(ids(&e), ["route:a1>b1"]);
}
