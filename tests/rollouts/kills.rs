//! kill -9 of the command and of agents at each step of a rollout whose permits and record are in a store.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::sleep;

use super::fleet::{Fleet, NEW, OLD, binary};
use super::store::{QUICK, document, eventually, fleet, in_a_file};

async fn given_back(fleet: &Fleet, when: &str) {
    let what = format!("all permits given back, and no rollout open: {when}");
    eventually(Duration::from_secs(30), &what, async || {
        let doc = document(&fleet.config()).await;
        doc["holders"].as_array().is_some_and(Vec::is_empty) && doc.get("rollout").is_none()
    })
    .await;
}

/// All six hosts in one rollout, whose command dies again and again.
pub(crate) async fn the_command_dies(fleet: &Fleet) {
    let mut rolling = fleet.begin(&[&["--all"], &QUICK[..]].concat());
    rolling.until("proved").await;
    let id = rolling.id();
    for step in ["sending", "accepted", "started", "read", "proved"] {
        let at = rolling.until(step).await;
        rolling.kill().await;
        eprintln!("the command died at {at}");
        rolling = fleet.begin(&["--resume", &id]);
    }
    let (code, lines) = rolling.end().await;
    assert_eq!(code, Some(0), "{lines:#?}");
    let versions = fleet.versions().await;
    assert!(versions.values().all(|v| v == NEW), "{versions:?}");
    let hooks = fleet.hooks();
    assert!(hooks.len() == 6 && hooks.values().all(|n| *n == 1), "{hooks:?}");
    assert_eq!(fleet.open_rollouts().await, [""; 0]);
}

/// One host, whose agent dies at this step and is back at once.
async fn an_agent_dies(fleet: &Fleet, step: &str, target: &str, before: &BTreeMap<String, usize>) {
    fleet.hook_installs(&binary(target));
    // An order that was lost with the agent is waited for that long.
    let quick = QUICK.map(|word| if word == "60s" { "30s" } else { word });
    let mut rolling = fleet.begin(&[&["--host", "iad-1"], &quick[..]].concat());
    rolling.until(step).await;
    fleet.lab.kill_agent("iad-1").unwrap();
    fleet.lab.start_agent("iad-1").unwrap();
    let id = rolling.id();
    let (mut code, mut lines) = rolling.end().await;
    eprintln!("the agent died at {step}: code {code:?}, {}", lines.last().unwrap());
    // A fresh agent takes no command for a while.
    for _ in 0..2 {
        fleet.lab.wait_until_easy(Duration::from_secs(60)).await.unwrap();
        sleep(Duration::from_secs(11)).await;
        if code == Some(0) {
            break;
        }
        assert_eq!(code, Some(4), "{step}: {lines:#?}");
        (code, lines) = fleet.begin(&["--resume", &id]).end().await;
    }
    assert_eq!(code, Some(0), "{step}: {lines:#?}");
    let versions = fleet.versions().await;
    assert_eq!(versions["iad-1"], target, "{step}: {versions:?}");
    // Where the agent died while the hook was to run or ran, the resumed rollout may run it again; never more often.
    let ran = fleet.hooks()["iad-1"] - before["iad-1"];
    let most = if step == "accepted" { 2 } else { 1 };
    assert!((1..=most).contains(&ran), "{step}: {ran} times");
    assert_eq!(fleet.open_rollouts().await, [""; 0], "{step}");
    given_back(fleet, step).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_store_whoever_dies_at_any_step_nothing_is_done_twice_or_held_for_ever() {
    let kept = tempfile::tempdir().unwrap();
    let fleet = fleet(2, in_a_file(kept.path())).await;
    the_command_dies(&fleet).await;
    given_back(&fleet, "the command died").await;
    for (step, target) in [("accepted", OLD), ("started", NEW), ("read", OLD)] {
        let before = fleet.hooks();
        an_agent_dies(&fleet, step, target, &before).await;
    }
}
