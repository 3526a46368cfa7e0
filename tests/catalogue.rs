//! One catalogue of names: what is rendered, alerted on, drawn and documented agrees with it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Instant;

use common::{prometheus, sample};
use nats_watchdog::core::view::Snapshot;
use nats_watchdog::telemetry::catalogue::{self, Kind};
use nats_watchdog::telemetry::metrics::render;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Samples as written: series (name and labels) to value.
fn series(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            (series.to_owned(), value.parse().unwrap())
        })
        .collect()
}

fn names(text: &str) -> BTreeSet<&'static str> {
    series(text)
        .keys()
        .map(|series| {
            let name = series.split('{').next().unwrap();
            catalogue::find(name)
                .unwrap_or_else(|| panic!("{name} is not in the catalogue"))
                .name
        })
        .collect()
}

#[test]
fn a_full_snapshot_renders_every_metric_of_the_catalogue_and_no_other() {
    let rendered = names(&render(&sample::full()));
    let listed: BTreeSet<_> = catalogue::ALL.iter().map(|metric| metric.name).collect();
    assert_eq!(rendered, listed);
}

#[test]
fn help_and_type_are_the_catalogue_s() {
    let text = render(&sample::full());
    for metric in catalogue::ALL {
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        assert!(text.contains(&format!("# HELP {} {}\n", metric.name, metric.help)));
        assert!(text.contains(&format!("# TYPE {} {kind}\n", metric.name)));
    }
}

#[test]
fn what_is_unknown_is_absent() {
    let rendered = names(&render(&sample::fresh()));
    for absent in [
        "watchdog_self_loop_seconds",
        "watchdog_server_info",
        "watchdog_server_healthy",
        "watchdog_server_lame_duck",
        "watchdog_server_start_time_seconds",
        "watchdog_server_memory_bytes",
        "watchdog_server_connections",
        "watchdog_peers_connected",
        "watchdog_gateways_connected",
        "watchdog_source_age_seconds",
        "watchdog_canary_age_seconds",
        "watchdog_last_restart_timestamp_seconds",
    ] {
        assert!(!rendered.contains(absent), "{absent}");
    }
    let mut s = sample::full();
    s.agent.loop_lag_seconds = f64::NAN;
    s.regions[0].one_way.sum = f64::INFINITY;
    let text = render(&s);
    assert!(!text.contains("NaN") && !text.contains("Inf\n"), "{text}");
}

#[test]
fn figures_are_the_snapshot_s() {
    let figures = series(&render(&sample::full()));
    for (name, value) in [
        (r#"watchdog_server_up"#, 1.0),
        (r#"watchdog_remediation_mode{mode="restart"}"#, 1.0),
        (r#"watchdog_remediation_mode{mode="observe"}"#, 0.0),
        (
            r#"watchdog_canary_received_total{source_region="fra",lane="logs"}"#,
            280_000.0,
        ),
        // Both lanes together.
        (r#"watchdog_paths{source_region="gru",state="stalled"}"#, 6.0),
        (r#"watchdog_canary_one_way_seconds_count{source_region="fra"}"#, 2_000.0),
        (
            r#"watchdog_canary_one_way_seconds_bucket{source_region="fra",le="0.005"}"#,
            1_980.0,
        ),
        (
            r#"watchdog_canary_one_way_seconds_bucket{source_region="fra",le="+Inf"}"#,
            2_000.0,
        ),
        (r#"watchdog_canary_clock_skewed{source_region="syd"}"#, 1.0),
        (r#"watchdog_faults{kind="network",region="gru"}"#, 1.0),
        (r#"watchdog_faults{kind="network",region="iad"}"#, 0.0),
        (r#"watchdog_fault_remedies{state="gave_up"}"#, 1.0),
        (r#"watchdog_fault_remedies{state="blocked"}"#, 1.0),
        (r#"watchdog_fault_remedies{state="other"}"#, 0.0),
        (r#"watchdog_canary_dropped_total{reason="lying"}"#, 1.0),
        (
            r#"watchdog_remediation_actions_total{action="reset",reason="route",outcome="healed"}"#,
            5.0,
        ),
    ] {
        assert_eq!(figures.get(name), Some(&value), "{name}");
    }
}

#[test]
fn counters_that_alerts_watch_are_there_before_their_first_event() {
    let mut s = sample::full();
    s.dropped.clear();
    s.remediation.actions.clear();
    let figures = series(&render(&s));
    for name in [
        r#"watchdog_canary_dropped_total{reason="lying"}"#,
        r#"watchdog_remediation_actions_total{action="restart",reason="gateway",outcome="failed"}"#,
    ] {
        assert_eq!(figures.get(name), Some(&0.0), "{name}");
    }
}

#[test]
fn words_without_a_bound_do_not_become_labels() {
    let mut s = sample::full();
    s.remediation.last_restart_reason = Some("change 4711, asked for by Ann".to_owned());
    s.faults[0].remedy = "praying: hard".to_owned();
    let figures = series(&render(&s));
    assert!(figures.contains_key(r#"watchdog_last_restart_timestamp_seconds{reason="other"}"#));
    assert_eq!(figures[r#"watchdog_fault_remedies{state="other"}"#], 1.0);
    assert!(
        !figures
            .keys()
            .any(|series| series.contains("4711") || series.contains("praying"))
    );
}

#[test]
fn a_foreign_name_cannot_break_out_of_its_label() {
    let mut s = sample::full();
    s.server.name = "a\"} 1\nevil 2 \\".to_owned();
    let text = render(&s);
    assert!(text.contains(r#"server_name="a\"} 1\nevil 2 \\""#), "{text}");
    names(&text);
}

#[test]
fn promtool_finds_nothing_to_say_about_the_text() {
    for snapshot in [sample::full(), sample::fresh(), sample::large(4)] {
        let Some(mut promtool) = prometheus::promtool() else {
            return;
        };
        let output = prometheus::fed(promtool.args(["check", "metrics"]), &render(&snapshot));
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        assert!(output.stdout.is_empty(), "{output:?}");
    }
}

#[test]
fn nine_hundred_hosts_in_twelve_regions_stay_within_two_thousand_series() {
    for lanes in [1, 2, 4] {
        let s = sample::large(lanes);
        let count = series(&render(&s)).len();
        println!("{lanes} lanes: {count} series, {} sources", s.sources.len());
        assert!(count <= 2_000, "{lanes} lanes: {count}");
    }
}

#[test]
fn a_scrape_does_not_grow_with_the_fleet() {
    let small = Snapshot {
        sources: Vec::new(),
        ..sample::large(4)
    };
    let start = Instant::now();
    let text = render(&sample::large(4));
    println!("{} bytes in {:?}", text.len(), start.elapsed());
    assert_eq!(render(&small).len(), text.len());
}

/// Every `watchdog_…` word of a text that is not the agent's own command, unit or module.
fn mentioned(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| word.starts_with("watchdog_") && !word.ends_with('_'))
        .collect()
}

fn files(folder: &str, ends: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root().join(folder)];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if ends.iter().any(|end| path.to_string_lossy().ends_with(end)) {
            found.push(path);
        }
    }
    assert!(!found.is_empty(), "nothing in {folder}");
    found
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn every_name_in_alerts_dashboards_and_docs_is_in_the_catalogue() {
    for (folder, ends) in [
        ("alerts", &[".yml"][..]),
        ("dashboards", &[".json"]),
        ("docs", &[".md"]),
    ] {
        for file in files(folder, ends) {
            let text = read(&file);
            for name in mentioned(&text) {
                assert!(catalogue::find(name).is_some(), "{}: {name}", file.display());
            }
        }
    }
}

#[test]
fn the_reference_lists_every_metric_as_the_catalogue_has_it() {
    let reference = read("docs/metrics.md");
    let rows: Vec<&str> = reference
        .lines()
        .filter(|line| line.starts_with("| `watchdog_"))
        .collect();
    let expected: Vec<String> = catalogue::ALL
        .iter()
        .map(|metric| {
            let kind = format!("{:?}", metric.kind).to_lowercase();
            format!(
                "| `{}` | {kind} | {} | {} |",
                metric.name,
                metric.labels.join(", "),
                metric.help
            )
        })
        .collect();
    assert_eq!(
        rows,
        expected,
        "write these rows to docs/metrics.md:\n{}",
        expected.join("\n")
    );
}

/// Name and description of each alert, in the file's order.
fn alerts() -> Vec<(String, String)> {
    let text = read("alerts/watchdog.yml");
    let rules = text.split("- alert: ").skip(1);
    let alerts: Vec<_> = rules
        .map(|rule| (rule.lines().next().unwrap().to_owned(), rule.to_owned()))
        .collect();
    assert!(alerts.len() > 10, "{alerts:?}");
    alerts
}

#[test]
fn every_alert_has_a_severity_a_summary_and_its_own_runbook_section() {
    let runbook = read("docs/runbook.md");
    let sections: Vec<&str> = runbook.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    for (name, rule) in alerts() {
        for key in ["severity:", "summary:", "description:"] {
            assert!(rule.contains(key), "{name} has no {key}");
        }
        let link = format!("docs/runbook.md#{}", name.to_lowercase());
        assert!(rule.contains(&link), "{name} does not name {link}");
        assert_eq!(sections.iter().filter(|s| **s == name).count(), 1, "section of {name}");
    }
    let names: BTreeSet<String> = alerts().into_iter().map(|(name, _)| name).collect();
    for section in sections.iter().filter(|s| s.starts_with("Watchdog")) {
        assert!(names.contains(*section), "the runbook's {section} is no alert");
    }
}

/// What Alertmanager inhibits while a rollout gets on are alerts that there are, and none of those that tell of a rollout.
#[test]
fn the_inhibition_of_a_rollout_names_alerts_that_there_are() {
    let known: BTreeSet<String> = alerts().into_iter().map(|(name, _)| name).collect();
    let text = read("alerts/alertmanager.yml");
    let rules = text.split("\nroute:").next().unwrap();
    let matchers: Vec<&str> = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- 'alertname ")?.strip_suffix('\''))
        .collect();
    let named = |matcher: &str| -> Vec<String> {
        let names = matcher.trim_start_matches(['=', '~', ' ']).trim_matches('"');
        names.split('|').map(str::to_owned).collect()
    };
    for name in matchers.iter().flat_map(|m| named(m)) {
        assert!(known.contains(&name), "{name} is no alert");
    }
    let inhibited = named(matchers[1]);
    assert_eq!(named(matchers[0]), ["WatchdogRolloutOpen"]);
    for name in [
        "WatchdogServerDown",
        "WatchdogServerRestartsOften",
        "WatchdogRouteChurn",
        "WatchdogGatewaysMissing",
    ] {
        assert!(inhibited.iter().any(|n| n == name), "{name} is not inhibited");
    }
    assert!(
        inhibited
            .iter()
            .all(|n| !n.contains("Rollout") && !n.contains("Brownout") && !n.contains("Fault"))
    );
}

#[test]
fn every_alert_is_tested_to_fire_and_not_to_fire() {
    let tests: String = files("alerts/tests", &[".yml"]).iter().map(read).collect();
    for (name, _) in alerts() {
        let cases: Vec<&str> = tests
            .split("- eval_time:")
            .filter(|case| case.contains(&format!("alertname: {name}\n")))
            .collect();
        let fires = cases.iter().filter(|case| case.contains("exp_labels")).count();
        assert!(fires > 0, "{name} is never tested to fire");
        assert!(fires < cases.len(), "{name} is never tested not to fire");
    }
}

#[test]
fn promtool_passes_rules_and_their_tests() {
    let Some(mut promtool) = prometheus::promtool() else {
        return;
    };
    let output = prometheus::fed(promtool.args(["check", "rules", "alerts/watchdog.yml"]), "");
    assert!(output.status.success(), "{output:?}");
    for file in files("alerts/tests", &[".yml"]) {
        let Some(mut promtool) = prometheus::promtool() else {
            return;
        };
        let output = prometheus::fed(promtool.args(["test", "rules"]).arg(&file), "");
        assert!(
            output.status.success(),
            "{}:\n{}{}",
            file.display(),
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
