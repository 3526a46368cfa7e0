//! Beacons that are not to be believed: counted by reason, and no verdict changes.

use std::time::Duration;

use futures_util::StreamExt;
use nats_watchdog::core::canary::beacon::{Beacon, MAX_BYTES};
use nats_watchdog::core::ids::{HostName, Region};
use tokio::task::JoinHandle;

use crate::bench::{Agent, Bench, eventually};

const SUBJECT: &str = "watchdog.canary.fra.fra-1";

fn beacon(host: &str, region: &str, seq: u64) -> Beacon {
    Beacon {
        seq,
        inc: 7,
        hears: 1,
        ..Beacon::new(HostName::new(host).unwrap(), Region::new(region).unwrap())
    }
}

/// A source that speaks until it is aborted. It promises one beacon a second and sends five, so that a busy machine
/// does not make it late. It answers probes, as an agent does.
async fn speaks(client: async_nats::Client, first: u64) -> JoinHandle<()> {
    let mut probes = client.subscribe("watchdog.probe.fra-1").await.unwrap();
    client.flush().await.unwrap();
    let answering = client.clone();
    tokio::spawn(async move {
        while let Some(probe) = probes.next().await {
            let reply = probe.reply.unwrap();
            let answer = br#"{"host":"fra-1","hold_us":1}"#.as_slice();
            answering.publish(reply, answer.into()).await.unwrap();
        }
    });
    tokio::spawn(async move {
        for seq in first.. {
            let payload = beacon("fra-1", "fra", seq).encode();
            client.publish(SUBJECT, payload.into()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    })
}

async fn heard(agent: &Agent) {
    eventually("fra-1 is ok", || agent.verdict("fra-1").as_deref() == Some("ok")).await;
}

#[tokio::test]
async fn beacons_that_are_not_to_be_believed_are_counted_and_change_no_verdict() {
    let bench = Bench::new();
    let server = bench.server();
    let mut agent = bench.config("iad-1", server.client, server.monitor).start();
    let client = server.client().await;
    let source = speaks(client.clone(), 1).await;
    agent.ready().await;
    heard(&agent).await;

    let huge = vec![b'x'; MAX_BYTES + 1];
    let liar = beacon("fra-9", "fra", 1);
    let mut zero = beacon("fra-1", "fra", 0);
    zero.bye = true;
    let mut goodbye = beacon("fra-1", "fra", 9_999);
    (goodbye.v, goodbye.bye) = (VERSION + 1, true);
    for (reason, subject, payload) in [
        ("malformed", SUBJECT, b"\xff{ not json".to_vec()),
        ("malformed", SUBJECT, b"[[[[[[[[[[[[[[[[".repeat(100)),
        ("malformed", SUBJECT, Vec::new()),
        ("malformed", SUBJECT, zero.encode()),
        ("too_large", SUBJECT, huge),
        ("future_version", SUBJECT, goodbye.encode()),
        ("future_version", SUBJECT, br#"{"v":3,"all":"new"}"#.to_vec()),
        ("lying", SUBJECT, liar.encode()),
        ("lying", "watchdog.canary.iad.iad-1", liar.encode()),
        ("subject", "watchdog.canary.fra", beacon("fra-1", "fra", 1).encode()),
        ("subject", "watchdog.canary.fra.fra-1.x", liar.encode()),
    ] {
        let before = agent.dropped(reason);
        client.publish(subject, payload.into()).await.unwrap();
        client.flush().await.unwrap();
        eventually(reason, || agent.dropped(reason) > before).await;
        assert_eq!(agent.verdict("fra-1").as_deref(), Some("ok"), "{reason}");
    }
    assert_eq!(agent.source("fra-9"), None, "a liar became a source");
    assert_eq!(agent.status()["agent"]["roster"], 2);
    assert_eq!(agent.status()["agent"]["health"], "ok");
    assert_eq!(agent.json("/api/v1/faults")["faults"].as_array().unwrap().len(), 0);
    assert!(agent.is_alive());
    source.abort();
}

#[tokio::test]
async fn a_sequence_that_runs_back_or_leaps_is_counted_and_believed_by_nobody() {
    let bench = Bench::new();
    let server = bench.server();
    let agent = bench.config("iad-1", server.client, server.monitor).start();
    let client = server.client().await;
    let source = speaks(client.clone(), 1_000).await;
    agent.ready().await;
    heard(&agent).await;
    let counted = |name: &str| {
        let series = format!("watchdog_canary_{name}_total{{source_region=\"fra\",lane=\"main\"}}");
        agent.metric(&series)
    };

    let mut back = beacon("fra-1", "fra", 3);
    back.bye = true;
    client.publish(SUBJECT, back.encode().into()).await.unwrap();
    eventually("reordered", || counted("reordered") == Some(1.0)).await;
    let mut leap = beacon("fra-1", "fra", u64::MAX);
    leap.bye = true;
    client.publish(SUBJECT, leap.encode().into()).await.unwrap();
    let mut older = beacon("fra-1", "fra", 5);
    (older.inc, older.bye) = (1, true);
    client.publish(SUBJECT, older.encode().into()).await.unwrap();
    eventually("foreign", || agent.dropped("foreign") >= 2.0).await;
    assert_eq!(counted("lost"), Some(0.0));
    assert_eq!(agent.verdict("fra-1").as_deref(), Some("ok"));
    let (_, before) = agent.source("fra-1").unwrap();
    eventually("fra-1 is heard on", || agent.source("fra-1").unwrap().1 > before + 2).await;
    assert_eq!(agent.verdict("fra-1").as_deref(), Some("ok"));
    source.abort();
}

#[tokio::test]
async fn two_agents_with_one_name_both_say_so() {
    let bench = Bench::new();
    let server = bench.server();
    let first = bench.config("iad-1", server.client, server.monitor);
    let mut second = bench.config("iad-1", server.client, server.monitor);
    second.path = bench.dir.path().join("second.toml");
    second.state = bench.dir.path().join("second-state");
    let agents = [first.start(), second.start()];
    for agent in &agents {
        eventually("says so", || {
            let status = agent.status();
            status["agent"]["health"] == "sick"
                && status["agent"]["health_reasons"]
                    .to_string()
                    .contains("also calls itself iad-1")
        })
        .await;
        let told = agent.recorded("agent");
        assert!(told.iter().any(|t| t.contains("also calls itself iad-1")), "{told:?}");
        assert!(agent.dropped("twin") >= 1.0);
    }
}
