//! Rollouts whose record lives in the permit store: its leader dies at each step; the command dies, and another machine
//! goes on.

use std::collections::VecDeque;
use std::path::Path;
use std::time::{Duration, Instant};

use nats_watchdog::lab::{Lab, LabSpec, Topology, get_json};
use serde_json::Value;
use tokio::time::sleep;

use super::fleet::{Fleet, NEW, OLD, Shape, binary, text};

pub(crate) const QUICK: [&str; 8] = [
    "--hook",
    "upgrade",
    "--stagger",
    "1s",
    "--timeout",
    "60s",
    "--lame-duck",
    "never",
];

pub(crate) async fn fleet(per_region: usize, permits: String) -> Fleet {
    Fleet::start(Shape {
        topology: Topology::OneCluster,
        per_region,
        jetstream: false,
        version: OLD,
        permits,
        system: false,
    })
    .await
}

/// `[permits]` of a store that is a file in this directory.
pub(crate) fn in_a_file(dir: &Path) -> String {
    format!(
        "[permits]\nstore = \"file\"\nspacing = \"0s\"\nfile = \"{}\"\n",
        dir.join("permits.json").display()
    )
}

pub(crate) async fn eventually(patience: Duration, what: &str, mut done: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + patience;
    while !done().await {
        assert!(Instant::now() < deadline, "not within {patience:?}: {what}");
        sleep(Duration::from_millis(250)).await;
    }
}

/// Three servers of their own that keep the permits.
async fn store() -> Lab {
    let spec = LabSpec {
        topology: Topology::OneCluster,
        per_region: 1,
        jetstream: true,
        agents: None,
        lab_bin: Some(env!("CARGO_BIN_EXE_watchdog-lab").into()),
        ..LabSpec::new(binary(NEW))
    };
    let lab = Lab::start(spec).await.unwrap();
    lab.wait_until_whole(Duration::from_secs(60)).await.unwrap();
    lab
}

/// Who leads the stream behind the bucket; `None` = nobody, or there is none.
async fn leader(store: &Lab) -> Option<String> {
    for host in store.hosts() {
        let url = format!("{}/jsz?streams=1&accounts=1", host.monitor_url);
        let Ok(jsz) = get_json(&url).await else { continue };
        let accounts = jsz["account_details"].as_array().cloned().unwrap_or_default();
        let streams = accounts
            .iter()
            .flat_map(|a| a["stream_detail"].as_array().cloned().unwrap_or_default());
        for stream in streams.filter(|s| s["name"] == "KV_watchdog") {
            if let Some(leader) = stream["cluster"]["leader"].as_str().filter(|l| !l.is_empty()) {
                return Some(leader.to_owned());
            }
        }
    }
    None
}

/// The permit document as `watchdog permits` has it.
pub(crate) async fn document(config: &Path) -> Value {
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_watchdog"))
        .args(["permits", "--output", "json", "--config"])
        .arg(config)
        .output()
        .await
        .unwrap();
    let value: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    value["document"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_of_the_store_dies_at_each_step_and_nothing_is_done_twice_or_held_for_ever() {
    let store = store().await;
    let urls: Vec<String> = store.hosts().iter().map(|h| h.client_url.clone()).collect();
    let permits = format!(
        "[permits]\nstore = \"nats-kv\"\nspacing = \"0s\"\n[permits.nats]\nurl = \"{}\"\nuser = \"watchdog\"\npassword = \"watchdog\"\n",
        urls.join(",")
    );
    let fleet = fleet(1, permits).await;
    let mut rolling = fleet.begin(&[&["--all"], &QUICK[..]].concat());
    rolling.until("sending").await;
    let id = rolling.id();
    let doc = document(&fleet.config()).await;
    assert_eq!(doc["rollout"]["id"], id.as_str(), "{doc:#}");
    // One step of each host; the dead one is back before the next dies.
    let mut steps = VecDeque::from(["accepted", "started", "read"]);
    let mut dead: Option<String> = None;
    let mut halts = 0;
    let lines = loop {
        while let Some(step) = steps.front() {
            if rolling.reach(step).await.is_none() {
                break;
            }
            if let Some(dead) = dead.take() {
                store.start_server(&dead).await.unwrap();
                store.wait_until_whole(Duration::from_secs(60)).await.unwrap();
            }
            let mut leads = None;
            eventually(Duration::from_secs(30), "a leader of the store's stream", async || {
                leads = leader(&store).await;
                leads.is_some()
            })
            .await;
            let leads = leads.unwrap();
            store.kill_server(&leads).unwrap();
            eprintln!("the leader {leads} died at {step}");
            dead = Some(leads);
            steps.pop_front();
            // The next step is another host's.
            if !steps.is_empty() && rolling.reach("proved").await.is_none() {
                break;
            }
        }
        let (code, lines) = rolling.end().await;
        eprintln!("code {code:?}, {}", lines.last().unwrap());
        if code == Some(0) {
            break lines;
        }
        // Whether it waits or halts, it can be ended, with the dead one dead.
        halts += 1;
        assert!(code == Some(4) && halts <= 6, "{lines:#?}");
        eventually(Duration::from_secs(30), "another leader of the store", async || {
            document(&fleet.config()).await["rollout"]["id"] == id.as_str()
        })
        .await;
        rolling = fleet.begin(&["--resume", &id]);
    };
    assert!(steps.is_empty(), "not reached: {steps:?} in {lines:#?}");
    assert!(leader(&store).await.is_some_and(|now| Some(now) != dead));
    let versions = fleet.versions().await;
    assert!(versions.values().all(|v| v == NEW), "{versions:?}");
    let hooks = fleet.hooks();
    assert!(hooks.len() == 3 && hooks.values().all(|n| *n == 1), "{hooks:?}");
    assert_eq!(fleet.open_rollouts().await, [""; 0]);
    eventually(Duration::from_secs(30), "all permits given back", async || {
        let doc = document(&fleet.config()).await;
        doc["holders"].as_array().is_some_and(Vec::is_empty) && doc.get("rollout").is_none()
    })
    .await;
}

/// What the agent of `host` shows of the rollout.
async fn shown(fleet: &Fleet, host: &str) -> Option<String> {
    let text = std::fs::read_to_string(fleet.lab.host(host).unwrap().dir.join("watchdog.toml")).unwrap();
    let listen = text.split("listen = \"").nth(1)?.split('"').next()?.to_owned();
    let status = get_json(&format!("http://{listen}/api/v1/status")).await.ok()?;
    status["remediation"]["rollout"]["id"].as_str().map(str::to_owned)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_whose_command_is_killed_is_seen_everywhere_and_ended_from_another_machine() {
    let kept = tempfile::tempdir().unwrap();
    let permits = in_a_file(kept.path());
    let fleet = fleet(1, permits.clone()).await;
    // Another machine: another directory, with nothing in it but where the permits are.
    let elsewhere = tempfile::tempdir().unwrap();
    let config = elsewhere.path().join("w.toml");
    std::fs::write(&config, &permits).unwrap();
    let there = ["--config", config.to_str().unwrap()];

    let mut rolling = fleet.begin(&[&["--all"], &QUICK[..]].concat());
    rolling.until("proved").await;
    rolling.until("accepted").await;
    let id = rolling.id();
    rolling.kill().await;

    // An agent that lost what it was told, and was never told again.
    let forgetful = "nrt-1";
    let memory = fleet.lab.host(forgetful).unwrap().dir.join("state/rollout.json");
    fleet.lab.kill_agent(forgetful).unwrap();
    std::fs::remove_file(&memory).unwrap();
    fleet.lab.start_agent(forgetful).unwrap();
    for host in fleet.lab.hosts() {
        eventually(
            Duration::from_secs(25),
            &format!("{} shows {id}", host.name),
            async || shown(&fleet, &host.name).await.as_deref() == Some(id.as_str()),
        )
        .await;
    }
    assert!(!memory.exists(), "it was told");
    sleep(Duration::from_secs(11)).await;
    fleet.lab.wait_until_easy(Duration::from_secs(60)).await.unwrap();

    // From the machine that knows the store a second one is refused by name; one that does not know it begins nothing.
    let second = fleet
        .restart(&[&["--region", "iad", "--yes"], &there[..]].concat())
        .await;
    assert_eq!(second.status.code(), Some(3), "{}", text(&second));
    assert!(text(&second).contains(&format!("rollout {id} of")), "{}", text(&second));
    assert!(text(&second).contains("open in the permit store"), "{}", text(&second));
    let empty = elsewhere.path().join("empty.toml");
    std::fs::write(&empty, "").unwrap();
    let blind = fleet
        .restart(&["--region", "iad", "--yes", "--config", empty.to_str().unwrap()])
        .await;
    assert_eq!(blind.status.code(), Some(2), "{}", text(&blind));
    assert!(
        text(&blind).contains("a rollout must be open there"),
        "{}",
        text(&blind)
    );

    let resumed = fleet.restart(&[&["--resume", &id, "--yes"], &there[..]].concat()).await;
    assert_eq!(resumed.status.code(), Some(0), "{}", text(&resumed));
    let versions = fleet.versions().await;
    assert!(versions.values().all(|v| v == NEW), "{versions:?}");
    let hooks = fleet.hooks();
    assert!(hooks.len() == 3 && hooks.values().all(|n| *n == 1), "{hooks:?}");
    let doc = document(&config).await;
    assert!(doc.get("rollout").is_none(), "{doc:#}");

    // Given up from there, it is over for every host, and nobody goes on with it.
    let mut rolling = fleet.begin(&["--all", "--lame-duck", "never", "--stagger", "30s"]);
    rolling.until("proved").await;
    // It says so before the hosts and the store have it.
    sleep(Duration::from_secs(3)).await;
    let id = rolling.id();
    rolling.kill().await;
    let abort = fleet.restart(&[&["--abort", &id], &there[..]].concat()).await;
    assert_eq!(abort.status.code(), Some(0), "{}", text(&abort));
    assert!(text(&abort).contains("1 of 3 hosts were proved"), "{}", text(&abort));
    let gone = fleet.restart(&[&["--resume", &id, "--yes"], &there[..]].concat()).await;
    assert_eq!(gone.status.code(), Some(2), "{}", text(&gone));
    assert!(text(&gone).contains("not open in the permit store"), "{}", text(&gone));
    assert_eq!(fleet.open_rollouts().await, [""; 0]);
}
