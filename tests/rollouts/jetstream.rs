//! JetStream R3 with a steady publisher: how long a publish is refused, with the care of a rollout and without.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_nats::{Client, ConnectOptions, ServerAddr};
use nats_watchdog::lab::{Lab, Topology};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::fleet::{Fleet, Shape};

async fn client(lab: &Lab) -> Client {
    let servers: Vec<ServerAddr> = lab.hosts().iter().map(|h| h.client_url.parse().unwrap()).collect();
    ConnectOptions::with_user_and_password("watchdog".into(), "watchdog".into())
        .reconnect_delay_callback(|_| Duration::from_millis(50))
        .request_timeout(Some(Duration::from_secs(1)))
        .connect(servers)
        .await
        .unwrap()
}

async fn make_streams(client: &Client, n: usize) {
    for i in 0..n {
        let config = serde_json::json!({"name": format!("S{i}"), "subjects": [format!("js.{i}")], "num_replicas": 3,
            "storage": "file", "retention": "limits", "discard": "old", "max_consumers": -1, "max_msgs": -1, "max_bytes": -1});
        // Its leader places nothing on peers of whose disks it was not told yet.
        let deadline = Instant::now() + Duration::from_secs(90);
        loop {
            let subject = format!("$JS.API.STREAM.CREATE.S{i}");
            let answer = client.request(subject, config.to_string().into()).await;
            let made = answer
                .ok()
                .and_then(|m| serde_json::from_slice::<Value>(&m.payload).ok());
            if made.as_ref().is_some_and(|v| v["error"].is_null()) {
                break;
            }
            assert!(Instant::now() < deadline, "no stream: {made:?}");
            sleep(Duration::from_millis(200)).await;
        }
    }
}

/// Publishes to each stream in turn and waits for its word.
struct Publisher {
    stop: Arc<AtomicBool>,
    task: JoinHandle<(usize, usize, Duration)>,
}

impl Publisher {
    fn start(client: Client, streams: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let (mut taken, mut refused) = (0, 0);
            let mut last = vec![Instant::now(); streams];
            let mut longest = Duration::ZERO;
            while !stopped.load(Ordering::Relaxed) {
                for (i, last) in last.iter_mut().enumerate() {
                    let answer = client.request(format!("js.{i}"), "x".into()).await;
                    let ack = answer
                        .ok()
                        .and_then(|m| serde_json::from_slice::<Value>(&m.payload).ok());
                    if ack.is_some_and(|v| v["seq"].is_u64()) {
                        taken += 1;
                        longest = longest.max(last.elapsed());
                        *last = Instant::now();
                    } else {
                        refused += 1;
                    }
                }
                sleep(Duration::from_millis(20)).await;
            }
            for last in &last {
                longest = longest.max(last.elapsed());
            }
            (taken, refused, longest)
        });
        Self { stop, task }
    }

    /// Taken, refused, and the longest time that one stream took nothing.
    async fn end(self) -> (usize, usize, Duration) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap()
    }
}

const STREAMS: usize = 3;

/// Streams are led somewhere, and the agents, which look every 30 s, know where.
async fn leaders_are_known(fleet: &Fleet) {
    let deadline = Instant::now() + Duration::from_secs(40);
    loop {
        let (_, lines) = fleet.begin(&["--all", "--dry-run"]).end().await;
        let hosts = lines
            .first()
            .and_then(|l| l["hosts"].as_array().cloned())
            .unwrap_or_default();
        let led: u64 = hosts.iter().filter_map(|h| h["stream_leaders"].as_u64()).sum();
        if led == STREAMS as u64 {
            return;
        }
        assert!(Instant::now() < deadline, "leaders are not known: {lines:#?}");
        sleep(Duration::from_secs(1)).await;
    }
}

async fn roll_with_a_steady_publisher(version: &'static str) {
    let fleet = Fleet::start(Shape {
        topology: Topology::OneCluster,
        per_region: 1,
        jetstream: true,
        version,
        permits: String::new(),
        system: true,
    })
    .await;
    let client = client(&fleet.lab).await;
    make_streams(&client, STREAMS).await;
    leaders_are_known(&fleet).await;

    let publisher = Publisher::start(client.clone(), STREAMS);
    let rolled = fleet.begin(&["--all", "--stagger", "2s", "--max-unavailable", "3"]);
    let (code, lines) = rolled.end().await;
    let (taken, refused, longest) = publisher.end().await;
    eprintln!("{version}, with care: {taken} taken, {refused} refused, at most {longest:?} without a word");
    assert_eq!(code, Some(0), "{lines:#?}");
    let hosts = lines[0]["hosts"].as_array().unwrap();
    let leads = |i: usize| hosts[i]["meta_leader"] == true;
    assert_eq!([leads(0), leads(1), leads(2)], [false, false, true], "{}", lines[0]);
    assert!(hosts.iter().all(|h| h["stream_leaders"].is_u64()), "{}", lines[0]);
    // The leader of the meta group, and it alone, was asked to step down, and another led before it was touched.
    assert_eq!(hosts[2]["steps_down"], true, "{}", lines[0]);
    for (i, host) in hosts.iter().enumerate() {
        let log = fleet.lab.agent_log(host["host"].as_str().unwrap());
        let stepped = log.find("leads the meta group now");
        assert_eq!(stepped.is_some(), i == 2, "{log}");
        if let Some(stepped) = stepped {
            let touched =
                log[stepped..].contains("draining clients") || log[stepped..].contains("restarting the server");
            assert!(touched, "it stepped down after it was touched: {log}");
        }
    }

    let publisher = Publisher::start(client.clone(), STREAMS);
    sleep(Duration::from_secs(2)).await;
    let names: Vec<&String> = fleet.lab.hosts().iter().map(|h| &h.name).collect();
    let all = names.iter().map(|host| fleet.lab.restart_server(host));
    futures_util::future::try_join_all(all).await.unwrap();
    sleep(Duration::from_secs(15)).await;
    let (_, naive_refused, naive) = publisher.end().await;
    eprintln!("{version}, all at once: {naive_refused} refused, at most {naive:?} without a word");
    assert!(
        longest < Duration::from_secs(5),
        "a publish was refused for {longest:?}"
    );
    assert!(
        naive > longest,
        "without the care {naive:?}, with it {longest:?}: the test shows nothing"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_publish_is_refused_for_longer_than_a_leader_change_and_without_the_care_it_is_on_2_10() {
    roll_with_a_steady_publisher("2.10.26").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_publish_is_refused_for_longer_than_a_leader_change_and_without_the_care_it_is_on_2_15() {
    roll_with_a_steady_publisher("2.15.1").await;
}
