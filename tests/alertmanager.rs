//! What a real Alertmanager makes of the shipped inhibition while a rollout is open.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use common::prometheus::Alertmanager;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

/// What a restart of a server makes, and so a rollout does.
const INHIBITED: [&str; 7] = [
    "WatchdogGatewaysMissing",
    "WatchdogLaneDisconnected",
    "WatchdogPeersMissing",
    "WatchdogRouteChurn",
    "WatchdogServerDown",
    "WatchdogServerRestartsOften",
    "WatchdogServerUnhealthy",
];

/// Names and severities of all shipped alerts.
fn alerts() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/alerts/watchdog.yml")).unwrap();
    let rules = text.split("- alert: ").skip(1);
    let word = |text: &str| text.split_whitespace().next().unwrap().to_owned();
    rules
        .map(|rule| (word(rule), word(rule.split("severity:").nth(1).unwrap())))
        .collect()
}

fn alert(name: &str, severity: &str, job: &str, state: &str) -> Value {
    let end = |year: u32| format!("{year}-01-01T00:00:00Z");
    json!({
        "labels": {"alertname": name, "severity": severity, "job": job, "instance": "iad-1:9777"},
        "startsAt": end(2020),
        "endsAt": end(if state == "over" { 2021 } else { 2099 }),
    })
}

/// Jobs and names of the alerts that are suppressed once they are these, and otherwise after ten seconds.
async fn suppressed(manager: &Alertmanager, wanted: &BTreeSet<(String, String)>) -> BTreeSet<(String, String)> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let mut found = BTreeSet::new();
        for alert in manager.alerts().await {
            let label = |name: &str| alert["labels"][name].as_str().unwrap().to_owned();
            if alert["status"]["state"] == "suppressed" {
                assert_ne!(alert["status"]["inhibitedBy"], json!([]), "{alert:#}");
                found.insert((label("job"), label("alertname")));
            }
        }
        if &found == wanted || Instant::now() > deadline {
            return found;
        }
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_rollout_that_gets_on_inhibits_what_restarts_make_and_nothing_else() {
    let Some(manager) = Alertmanager::start().await else {
        return;
    };
    let all = alerts();
    assert!(all.len() >= 30, "{all:?}");
    let state = |name: &str| match name {
        "WatchdogRolloutHalted" => "over",
        _ => "on",
    };
    let here = all.iter().map(|(n, s)| alert(n, s, "watchdog", state(n)));
    // Another fleet, in which nobody rolls.
    let other = all.iter().filter(|(n, _)| !n.starts_with("WatchdogRollout"));
    let other = other.map(|(n, s)| alert(n, s, "other", "on"));
    manager.post(&here.chain(other).collect::<Vec<_>>()).await;
    let pair = |name: &str| ("watchdog".to_owned(), name.to_owned());
    let wanted: BTreeSet<_> = INHIBITED.map(pair).into();
    assert_eq!(suppressed(&manager, &wanted).await, wanted);

    // It halts: what is wrong with servers is told at once, and that the rollout stands is told by the halt.
    let word = |name: &str, state| {
        let severity = &all.iter().find(|(n, _)| n == name).unwrap().1;
        alert(name, severity, "watchdog", state)
    };
    manager
        .post(&[word("WatchdogRolloutOpen", "over"), word("WatchdogRolloutHalted", "on")])
        .await;
    let wanted = BTreeSet::from([pair("WatchdogRolloutStands")]);
    assert_eq!(suppressed(&manager, &wanted).await, wanted);
}
