//! `watchdog check` as a monitoring system calls it: the real command against the real HTTP adapter.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod common;

use std::process::Output;
use std::sync::Arc;
use std::time::Duration;

use common::{Served, prometheus, sample};
use nats_watchdog::core::canary::beacon::Health;
use nats_watchdog::core::view::Snapshot;
use serde_json::Value;

async fn check(url: String, more: &[&str]) -> Output {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_watchdog"));
    command.arg("check").args(["--agent", &url]).args(more);
    let output = tokio::time::timeout(Duration::from_secs(20), command.kill_on_drop(true).output());
    output.await.expect("an end within 20 s").unwrap()
}

async fn checked(snapshot: Snapshot, more: &[&str]) -> (i32, String) {
    let served = Served::start(snapshot).await;
    let output = check(format!("http://{}", served.address), more).await;
    let text = String::from_utf8(output.stdout).unwrap();
    (output.status.code().unwrap(), text)
}

/// All well: no faults, all links, all paths, all read just now.
fn well() -> Snapshot {
    let mut s = sample::full();
    s.agent.health = Health::Ok;
    s.agent.health_reasons.clear();
    s.agent.state_error = None;
    s.agent.self_loop_seconds = Some(0.001);
    s.agent.loop_lag_seconds = 0.0;
    s.faults.clear();
    s.server.up = true;
    s.server.healthy = Some(true);
    s.server.lame_duck = false;
    s.server.peers_missing.clear();
    s.server.gateways_missing.clear();
    s.server.peers_connected = Some(s.server.peers_expected);
    s.server.gateways_connected = Some(s.server.gateways_expected);
    for b in &mut s.brownout {
        b.on = false;
    }
    s.sys.churn.slow_consumers_per_minute.clear();
    for age in s.server.age_seconds.values_mut() {
        *age = Some(0.5);
    }
    for lane in &mut s.lanes {
        lane.connected = true;
    }
    for r in &mut s.regions {
        r.paths.insert("stalled".into(), 0);
        r.paths.insert("late".into(), 0);
        r.paths.insert("ok".into(), 3);
    }
    s
}

#[tokio::test]
async fn exit_codes_are_those_of_nagios() {
    let (code, text) = checked(well(), &[]).await;
    assert_eq!(code, 0, "{text}");
    assert!(text.starts_with("OK iad-1: ") && text.contains(" | "), "{text}");

    let mut s = well();
    s.regions[0].paths.insert("stalled".into(), 1);
    let (code, text) = checked(s.clone(), &[]).await;
    assert_eq!(code, 1, "{text}");
    assert!(text.starts_with("WARNING iad-1: 1 of "), "{text}");
    let (code, text) = checked(s, &["--stalled-critical", "1"]).await;
    assert_eq!(code, 2, "{text}");

    let mut s = well();
    s.server.healthy = None;
    let (code, text) = checked(s, &[]).await;
    assert_eq!(code, 3, "{text}");
    assert!(text.starts_with("UNKNOWN iad-1: "), "{text}");
}

#[tokio::test]
async fn an_agent_that_does_not_answer_is_critical_and_wrong_usage_is_unknown() {
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    let output = check(url.clone(), &[]).await;
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("nothing listens at") && text.contains("is the agent running?"),
        "{text}"
    );
    for wrong in [
        &["--stalled-warn", "101"][..],
        &["--no-such-flag"],
        &["--format", "xml"],
    ] {
        assert_eq!(check(url.clone(), wrong).await.status.code(), Some(3), "{wrong:?}");
    }
}

#[tokio::test]
async fn an_agent_whose_loop_hangs_is_critical_though_its_last_state_was_good() {
    let served = Served::start(well()).await;
    let url = format!("http://{}", served.address);
    assert_eq!(check(url.clone(), &[]).await.status.code(), Some(0));
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        let output = check(url.clone(), &[]).await;
        if output.status.code() == Some(2) {
            let text = String::from_utf8(output.stdout).unwrap();
            assert!(text.contains("/livez answered 503"), "{text}");
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "still OK: {output:?}");
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    served.snapshots.send(Arc::new(well())).unwrap();
    assert_eq!(check(url, &[]).await.status.code(), Some(0));
}

#[tokio::test]
async fn what_is_no_agent_of_this_version_is_told_from_one_that_is_down() {
    // An HTTP server whose answers are good JSON of another shape.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let other = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = [0; 1024];
            let _ = stream.read(&mut buffer).await.unwrap();
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n{\"at\": 1.0}";
            stream.write_all(answer).await.unwrap();
        }
    });
    let output = check(url, &[]).await;
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    other.await.unwrap();
}

#[tokio::test]
async fn json_has_the_fields_of_the_nats_cli_and_every_check() {
    let (code, text) = checked(sample::full(), &["--format", "json"]).await;
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["code"], code);
    for field in [
        "status",
        "check_suite",
        "check_name",
        "critical",
        "warning",
        "ok",
        "perf_data",
    ] {
        assert!(!value[field].is_null(), "{field}: {text}");
    }
    let checks: Vec<&str> = value["checks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["check"].as_str().unwrap())
        .collect();
    for expected in [
        "agent",
        "server",
        "links",
        "canaries",
        "faults",
        "brownout",
        "memory",
        "slow_consumers",
        "data",
    ] {
        assert!(checks.contains(&expected), "{expected}: {checks:?}");
    }
}

#[tokio::test]
async fn prometheus_text_passes_promtool_and_always_ends_with_0() {
    for snapshot in [sample::full(), sample::fresh(), well()] {
        let (code, text) = checked(snapshot, &["--format", "prometheus"]).await;
        assert_eq!(code, 0, "{text}");
        let Some(mut promtool) = prometheus::promtool() else {
            return;
        };
        let output = prometheus::fed(promtool.args(["check", "metrics"]), &text);
        assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
    }
}
