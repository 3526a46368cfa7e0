//! What the simulator promises, and what the agents must do in it.

use std::path::Path;
use std::time::Duration;

use super::*;

fn scenario(text: &str) -> Scenario {
    let head = "name = \"t\"\nabout = \"t\"\n";
    Scenario::parse(Path::new("t.toml"), &format!("{head}{text}")).unwrap()
}

fn whole(s: &Scenario, seed: u64) -> Outcome {
    let options = Options {
        whole_trace: true,
        ..Options::default()
    };
    run(s, seed, options)
}

fn text(outcome: &Outcome) -> String {
    outcome.trace.iter().map(|l| format!("{l}\n")).collect()
}

#[test]
fn a_fleet_in_which_nothing_goes_wrong_does_nothing() {
    let o = whole(&scenario("duration = \"10m\"\n"), 1);
    assert_eq!(o.violation, None);
    assert_eq!((o.figures.restarts, o.figures.resets), (0, 0));
    assert!(!text(&o).contains("fault"), "{}", text(&o));
}

#[test]
fn a_stalled_route_is_reset_and_healed() {
    let s = scenario(
        "duration = \"5m\"\n[[fault]]\nat = \"60s\"\nkind = \"route_stall\"\nhost = \"iad-4\"\npeer = \"iad-5\"\n",
    );
    let o = whole(&s, 1);
    assert_eq!(o.violation, None, "{}", text(&o));
    assert_eq!((o.figures.restarts, o.figures.resets), (0, 1), "{}", text(&o));
    let healed = o.figures.healed_after.unwrap();
    assert!(healed < Duration::from_secs(10), "{healed:?}\n{}", text(&o));
}

/// The same with fifteen hosts, after the line that says how long: these tests run without optimization.
fn small(text: &str) -> String {
    text.replacen('\n', "\n[fleet]\nhosts_per_region = 5\n", 1)
}

/// What breaks when `what` is taken away, after a proof that nothing breaks with it.
fn without(what: Mutation, text: &str) -> Option<Invariant> {
    let s = scenario(&small(text));
    let whole = whole(&s, 1);
    assert_eq!(whole.violation, None, "{}", self::text(&whole));
    let options = Options {
        mutation: Some(what),
        ..Options::default()
    };
    run(&s, 1, options).violation.map(|v| v.invariant)
}

fn fault(at: &str, kind: &str, rest: &str) -> String {
    format!("[[fault]]\nat = \"{at}\"\nkind = \"{kind}\"\n{rest}\n")
}

const STUBBORN: &str = "host = \"iad-4\"\npeer = \"iad-5\"";

#[test]
fn a_restart_without_a_permit_is_seen() {
    let text = format!("duration = \"5m\"\n{}", fault("60s", "stubborn", STUBBORN));
    assert_eq!(without(Mutation::NoPermits, &text), Some(Invariant::NoPermit));
}

#[test]
fn a_restart_for_a_fault_of_the_network_is_seen() {
    let text = format!(
        "duration = \"6m\"\n[agents]\ncan_reset = false\n{}",
        fault("60s", "pair_cut", &format!("{STUBBORN}\nfor = \"3m\""))
    );
    assert_eq!(without(Mutation::NoNetworkCheck, &text), Some(Invariant::NetworkFault));
}

#[test]
fn a_limit_that_is_forgotten_is_seen() {
    let text = format!(
        "duration = \"15m\"\n[agents]\ncan_reset = false\nrestarts_per_hour = 1\n{}{}{}",
        fault("60s", "stubborn", STUBBORN),
        fault("5m", "agent_crash", "host = \"iad-4\""),
        fault("7m", "stubborn", STUBBORN)
    );
    assert_eq!(without(Mutation::NoLedger, &text), Some(Invariant::OverLimit));
}

#[test]
fn a_restart_in_an_incident_is_seen() {
    let text = format!(
        "duration = \"8m\"\n[agents]\ncan_reset = false\n{}{}",
        fault("60s", "partition", "region = \"fra\"\nto = \"sin\"\nfor = \"5m\""),
        fault("2m", "stubborn", STUBBORN)
    );
    assert_eq!(without(Mutation::NoSickLimit, &text), Some(Invariant::Incident));
}

/// A fault that only a restart heals comes at two minutes; what is on from one to five holds that restart, and no longer.
fn held_until_five_minutes(by: &str) {
    let text = format!(
        "duration = \"10m\"\n[agents]\ncan_reset = false\n{}{}",
        fault("60s", by, "for = \"4m\""),
        fault("2m", "stubborn", STUBBORN)
    );
    let o = whole(&scenario(&small(&text)), 1);
    assert_eq!(o.violation, None, "{}", self::text(&o));
    let restarts: Vec<Duration> = o
        .trace
        .iter()
        .filter(|l| l.text.starts_with("restarts its"))
        .map(|l| l.at)
        .collect();
    assert_eq!(restarts.len(), 1, "{}", self::text(&o));
    assert!(restarts[0] >= Duration::from_secs(300), "{restarts:?}");
}

#[test]
fn a_pause_holds_and_its_end_lets_go() {
    held_until_five_minutes("pause");
}

#[test]
fn a_storm_holds_restarts() {
    held_until_five_minutes("client_storm");
}

#[test]
fn a_few_real_agents_judge_a_fleet_of_stand_ins() {
    let few = "duration = \"5m\"\n[agents]\nreal_every = 10\nmode = \"observe\"\n";
    let o = whole(&scenario(few), 1);
    assert!(!text(&o).contains("fault"), "{}", text(&o));
    let cut = fault("60s", "partition", "region = \"iad\"\nto = \"fra\"\nfor = \"2m\"");
    let told = text(&whole(&scenario(&format!("{few}{cut}")), 1));
    for path in [
        "iad-1    source fra-7: fra-7 is silent",
        "fra-1    source iad-4: iad-4 is silent",
    ] {
        assert!(told.contains(path), "{path}: {told}");
    }
    assert!(!told.contains("sin-1    source"), "{told}");
    assert!(told.contains("iad-1    source fra-7: fra-7 is heard again"), "{told}");
}

fn under(policy: Policy, s: &Scenario) -> Outcome {
    let options = Options {
        policy,
        whole_trace: true,
        ..Options::default()
    };
    run(s, 1, options)
}

#[test]
fn minutes_of_a_cut_network_are_not_mendable_and_those_of_a_stall_are() {
    let of = |kind: &str, rest: &str| {
        let text = format!(
            "duration = \"3m\"\n{}",
            fault("60s", kind, &format!("{STUBBORN}{rest}"))
        );
        under(Policy::None, &scenario(&small(&text))).figures
    };
    let (cut, stall) = (of("pair_cut", "\nfor = \"5m\""), of("route_stall", ""));
    assert!(cut.broken_path_seconds > 60, "{cut:?}");
    assert_eq!(cut.mendable_path_seconds, 0, "{cut:?}");
    assert!(stall.broken_path_seconds > 60, "{stall:?}");
    assert_eq!(stall.mendable_path_seconds, stall.broken_path_seconds, "{stall:?}");
}

#[test]
fn what_was_queued_for_a_connection_goes_with_it() {
    let text = format!("duration = \"20m\"\n{}", fault("60s", "route_trickle", STUBBORN));
    let s = scenario(&small(&text));
    let full = |policy| self::text(&under(policy, &s)).contains("iad-5    its server is out of memory");
    assert!(full(Policy::None), "nothing heals it, so that it must fill up");
    assert!(!full(Policy::Lock), "it was healed by a restart of the receiver");
}

#[test]
fn the_sums_of_the_score_are_of_the_incidents_that_a_remedy_heals() {
    let stall = format!("duration = \"3m\"\n{}", fault("60s", "route_stall", STUBBORN));
    let (other, healed) = (small(&stall), small(&stall) + "[expect]\nremedy = true\n");
    let rows: Vec<report::Row> = [other, healed]
        .map(|text| {
            let s = scenario(&text);
            let cells = Policy::ALL.map(|p| (p, vec![under(p, &s)]));
            (s, cells.to_vec())
        })
        .to_vec();
    let seconds = rows[1].1[0].1[0].figures.mendable_path_seconds;
    let table = report::table(&rows);
    let none = format!("| none | 0 | 0 | {}.{} |", seconds / 60, seconds / 6 % 10);
    assert!(table.starts_with("| policy | harmful acts, all 2 incidents"), "{table}");
    assert!(table.contains(&none) && seconds > 60, "{none}: {table}");
}
