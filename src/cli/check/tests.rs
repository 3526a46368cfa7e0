//! What a monitoring system gets to read.

use super::report::State;
use super::{Limits, Scope, judge, render};
use crate::cli::sample;
use crate::cli::words::Paint;
use crate::core::canary::beacon::Health;
use crate::core::view::Snapshot;

fn report(s: &Snapshot) -> super::Report {
    judge::judge(s, &Limits::default(), Scope::Host)
}

fn state_of(s: &Snapshot, check: &str) -> State {
    let report = report(s);
    report.findings.iter().find(|f| f.check == check).unwrap().state
}

#[test]
fn a_host_in_trouble_in_all_formats() {
    let report = report(&sample::troubled());
    let text = [
        render::nagios(&report),
        render::json(&report).unwrap(),
        render::prometheus(&report),
        render::text(&report, Paint::new(false)),
    ];
    insta::assert_snapshot!(text.join("\n----\n"));
}

#[test]
fn a_host_that_is_well_is_ok_on_one_line() {
    let report = report(&sample::well());
    assert_eq!(report.state(), State::Ok, "{report:?}");
    insta::assert_snapshot!(render::nagios(&report));
}

#[test]
fn a_server_that_does_not_answer_is_critical_whatever_else_is_unknown() {
    let report = report(&sample::dark());
    assert_eq!(report.state(), State::Critical);
    insta::assert_snapshot!(render::nagios(&report));
}

#[test]
fn the_worst_state_wins_and_unknown_is_better_than_bad() {
    assert_eq!(State::Unknown.worse(State::Ok), State::Unknown);
    assert_eq!(State::Unknown.worse(State::Warning), State::Warning);
    assert_eq!(State::Critical.worse(State::Unknown), State::Critical);
    let mut s = sample::well();
    s.agent.health = Health::Warming;
    assert_eq!(report(&s).state(), State::Unknown);
    s.server.lame_duck = true;
    assert_eq!(report(&s).state(), State::Warning);
    s.server.lame_duck = false;
    s.server.healthy = Some(false);
    assert_eq!(report(&s).state(), State::Critical);
}

#[test]
fn what_is_not_known_is_never_ok() {
    let mut s = sample::well();
    s.server.healthy = None;
    assert_eq!(state_of(&s, "server"), State::Unknown);
    s.server.peers_connected = None;
    assert_eq!(state_of(&s, "links"), State::Unknown);
    s.regions.clear();
    assert_eq!(state_of(&s, "canaries"), State::Unknown);
    s.server.age_seconds.insert("healthz".into(), None);
    assert_eq!(state_of(&s, "data"), State::Unknown);
    s.server.age_seconds.clear();
    assert_eq!(state_of(&s, "data"), State::Unknown);
}

#[test]
fn thresholds_are_upper_bounds_that_belong_to_the_good_side() {
    let mut s = sample::well();
    let paths = &mut s.regions[0].paths;
    paths.clear();
    paths.extend([("ok".to_owned(), 9), ("stalled".to_owned(), 1)]);
    assert_eq!(state_of(&s, "canaries"), State::Warning, "10 % is not above 10 %");
    s.regions[0].paths.insert("stalled".into(), 2);
    assert_eq!(state_of(&s, "canaries"), State::Critical);
    for (age, state) in [
        (30.0, State::Ok),
        (31.0, State::Warning),
        (120.0, State::Warning),
        (121.0, State::Critical),
    ] {
        s.server.age_seconds.insert("varz".into(), Some(age));
        assert_eq!(state_of(&s, "data"), state, "{age}");
    }
    s.agent.loop_lag_seconds = 1.5;
    assert_eq!(state_of(&s, "agent"), State::Warning);
}

#[test]
fn a_fault_elsewhere_counts_only_if_asked_for() {
    let mut s = sample::troubled();
    let host = sample::host;
    (s.faults[0].from, s.faults[0].to) = (host("fra-1"), Some("fra-2".into()));
    assert_eq!(state_of(&s, "faults"), State::Ok);
    let fleet = judge::judge(&s, &Limits::default(), Scope::Fleet);
    assert!(fleet.texts(State::Warning).iter().any(|t| t.contains("route:")));
    s.faults[0].remedy = "gave up".into();
    let fleet = judge::judge(&s, &Limits::default(), Scope::Fleet);
    assert_eq!(fleet.state(), State::Critical);
}

#[test]
fn no_text_can_begin_performance_data_or_end_the_line() {
    let mut s = sample::well();
    s.server.healthy = Some(false);
    s.server.health_detail = "x | load=99 \n evil".into();
    let text = render::nagios(&report(&s));
    let first = text.lines().next().unwrap();
    assert_eq!(first.matches('|').count(), 1, "{first}");
    let (_, data) = first.split_once(" | ").unwrap();
    for item in data.split(' ') {
        let (name, value) = item.split_once('=').unwrap();
        assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{item}");
        let value = value.split(';').next().unwrap().trim_end_matches(['s', 'B', '%', 'c']);
        assert!(value.parse::<f64>().unwrap().is_finite(), "{item}");
    }
    assert!(!text.lines().any(|line| line.starts_with(" evil")), "{text}");
}

#[test]
fn a_brownout_of_the_host_warns_and_one_of_the_fleet_is_critical() {
    let mut s = sample::troubled();
    assert_eq!(state_of(&s, "brownout"), State::Warning);
    s.brownout[2].on = true;
    assert_eq!(state_of(&s, "brownout"), State::Critical);
    let mut s = sample::well();
    s.sys.expected = None;
    assert_eq!(state_of(&s, "brownout"), State::Unknown);
    s.sys.source = None;
    assert_eq!(state_of(&s, "brownout"), State::Unknown);
}

#[test]
fn memory_and_slow_consumers_have_limits() {
    let mut s = sample::well();
    for (left, state) in [
        (22_000.0, State::Ok),
        (21_000.0, State::Warning),
        (3_500.0, State::Critical),
    ] {
        s.sys.memory.exhaustion_seconds = Some(left);
        assert_eq!(state_of(&s, "memory"), state, "{left}");
    }
    for (rate, state) in [(0.0, State::Ok), (1.0, State::Warning), (61.0, State::Critical)] {
        s.sys.churn.slow_consumers_per_minute.insert("clients".into(), rate);
        assert_eq!(state_of(&s, "slow_consumers"), state, "{rate}");
    }
}
