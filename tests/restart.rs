//! `watchdog restart` against real agents and real servers, with clients at work all the time.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_nats::{Client, ConnectOptions, ServerAddr};
use futures_util::StreamExt;
use nats_watchdog::lab::{AgentSpec, Lab, LabSpec, Topology, get_json};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::{sleep, timeout};

const OLD: &str = "2.9.10";
const NEW: &str = "2.15.1";
const LIMIT: Duration = Duration::from_secs(240);

/// A lab whose agents obey one operator, and the file with that operator's seed.
struct Fleet {
    lab: Lab,
    seed: PathBuf,
    _dir: tempfile::TempDir,
}

async fn fleet(version: &str, topology: Topology, per_region: usize) -> Fleet {
    let server = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!(".tools/servers/{version}/nats-server"));
    assert!(server.exists(), "{} is missing: run tools/servers.sh", server.display());
    let operator = nkeys::KeyPair::new_user();
    let dir = tempfile::tempdir().unwrap();
    let seed = dir.path().join("operator.nk");
    std::fs::write(&seed, operator.seed().unwrap()).unwrap();
    let mut agents = AgentSpec::new("observe");
    agents.bin = env!("CARGO_BIN_EXE_watchdog").into();
    agents.extra_toml = format!("[control]\noperators = [\"{}\"]\n", operator.public_key());
    let lab = Lab::start(LabSpec {
        agents: Some(agents),
        lab_bin: Some(env!("CARGO_BIN_EXE_watchdog-lab").into()),
        topology,
        per_region,
        ..LabSpec::new(server)
    })
    .await
    .unwrap();
    lab.wait_until_easy(Duration::from_secs(60)).await.unwrap();
    // An agent takes no command that may have been sent before it started.
    sleep(Duration::from_secs(11)).await;
    Fleet { lab, seed, _dir: dir }
}

impl Fleet {
    async fn restart(&self, words: &[&str]) -> Output {
        let urls: Vec<&str> = self.lab.hosts().iter().map(|h| h.client_url.as_str()).collect();
        let run = Command::new(env!("CARGO_BIN_EXE_watchdog"))
            .arg("restart")
            .args(words)
            .args([
                "--server",
                &urls.join(","),
                "--user",
                "watchdog",
                "--password",
                "watchdog",
                "--operator",
            ])
            .arg(&self.seed)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        timeout(LIMIT, run).await.expect("the command does not end").unwrap()
    }

    async fn ids(&self) -> BTreeMap<String, String> {
        let mut ids = BTreeMap::new();
        for host in self.lab.hosts() {
            let varz = get_json(&format!("{}/varz", host.monitor_url)).await.unwrap();
            ids.insert(host.name.clone(), varz["server_id"].as_str().unwrap().to_owned());
        }
        ids
    }
}

fn text(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err))
}

/// Looks at every server's monitoring port all the time; the most that were down at once. Not at the client port: each
/// connection there is two system events, which two hundred looks a second make a brownout of.
struct Watch {
    stop: Arc<AtomicBool>,
    most: Arc<AtomicUsize>,
    seen: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Watch {
    fn start(lab: &Lab) -> Self {
        let addresses: Vec<String> = lab
            .hosts()
            .iter()
            .map(|h| h.monitor_url.trim_start_matches("http://").to_owned())
            .collect();
        let (stop, most, seen) = (Arc::new(AtomicBool::new(false)), Arc::default(), Arc::default());
        let (s, m, n): (_, Arc<AtomicUsize>, Arc<AtomicUsize>) = (stop.clone(), Arc::clone(&most), Arc::clone(&seen));
        let task = tokio::spawn(async move {
            while !s.load(Ordering::Relaxed) {
                let looks = addresses.iter().map(TcpStream::connect);
                let down = futures_util::future::join_all(looks)
                    .await
                    .iter()
                    .filter(|c| c.is_err())
                    .count();
                m.fetch_max(down, Ordering::Relaxed);
                n.fetch_add(usize::from(down > 0), Ordering::Relaxed);
                sleep(Duration::from_millis(5)).await;
            }
        });
        Self { stop, most, seen, task }
    }

    async fn end(self) -> (usize, usize) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
        (self.most.load(Ordering::Relaxed), self.seen.load(Ordering::Relaxed))
    }
}

/// A client that publishes and one that counts, both through a driver that reconnects.
struct Traffic {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    heard: Arc<AtomicU64>,
    publisher: tokio::task::JoinHandle<()>,
}

async fn client(lab: &Lab) -> Client {
    let servers: Vec<ServerAddr> = lab.hosts().iter().map(|h| h.client_url.parse().unwrap()).collect();
    let options = ConnectOptions::with_user_and_password("watchdog".into(), "watchdog".into());
    options.connect(servers).await.unwrap()
}

impl Traffic {
    async fn start(lab: &Lab) -> Self {
        let (from, to) = (client(lab).await, client(lab).await);
        let (stop, sent, heard): (_, Arc<AtomicU64>, Arc<AtomicU64>) =
            (Arc::new(AtomicBool::new(false)), Arc::default(), Arc::default());
        let mut messages = to.subscribe("work").await.unwrap();
        to.flush().await.unwrap();
        let count = heard.clone();
        tokio::spawn(async move {
            while messages.next().await.is_some() {
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        let (s, n) = (stop.clone(), sent.clone());
        let publisher = tokio::spawn(async move {
            while !s.load(Ordering::Relaxed) {
                if from.publish("work", "x".into()).await.is_ok() {
                    n.fetch_add(1, Ordering::Relaxed);
                }
                sleep(Duration::from_millis(5)).await;
            }
            let _ = from.flush().await;
            drop(to);
        });
        Self {
            stop,
            sent,
            heard,
            publisher,
        }
    }

    async fn end(self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        self.publisher.await.unwrap();
        sleep(Duration::from_millis(500)).await;
        (self.sent.load(Ordering::Relaxed), self.heard.load(Ordering::Relaxed))
    }
}

async fn six_are_rolled_one_at_a_time(version: &str, topology: Topology) {
    let fleet = fleet(version, topology, 2).await;
    let before = fleet.ids().await;
    let traffic = Traffic::start(&fleet.lab).await;
    let watch = Watch::start(&fleet.lab);
    let output = fleet
        .restart(&["--all", "--yes", "--stagger", "1s", "--reason", "test"])
        .await;
    let (most, looks) = watch.end().await;
    let (sent, heard) = traffic.end().await;
    let said = text(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert_eq!(most, 1, "two servers were down at once: {said}");
    assert!(looks > 0, "the watch saw no server down: it proves nothing");
    let after = fleet.ids().await;
    assert!(
        before.iter().all(|(host, id)| after[host] != *id),
        "{before:?} {after:?}"
    );
    // What is lost is what clients of a server that goes down had under way.
    eprintln!("{version}: {sent} sent, {heard} heard");
    assert!(heard > sent * 8 / 10, "{heard} of {sent} messages arrived");
    for host in fleet.lab.hosts() {
        let faults = get_json(&format!("http://{}/api/v1/faults", host.agent_http))
            .await
            .unwrap();
        assert_eq!(faults["faults"].as_array().unwrap().len(), 0, "{}: {faults}", host.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn six_are_rolled_one_at_a_time_on_2_9() {
    six_are_rolled_one_at_a_time(OLD, Topology::OneCluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn six_are_rolled_one_at_a_time_on_the_newest_with_gateways() {
    six_are_rolled_one_at_a_time(NEW, Topology::ClusterPerRegion).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_refused_and_nothing_is_restarted() {
    let fleet = fleet(NEW, Topology::OneCluster, 1).await;
    let before = fleet.ids().await;
    let code = |o: &Output| o.status.code();

    let dry = fleet.restart(&["--all", "--dry-run"]).await;
    assert_eq!(code(&dry), Some(0), "{}", text(&dry));
    assert!(
        text(&dry).contains("iad-1") && text(&dry).contains("fra-1"),
        "{}",
        text(&dry)
    );
    for (words, expected) in [
        (&["--yes"][..], "--all"),
        (&["--region", "fre", "--yes"][..], "fra"),
        (&["--all"][..], "--yes"),
    ] {
        let output = fleet.restart(words).await;
        assert_eq!(code(&output), Some(2), "{}", text(&output));
        assert!(text(&output).contains(expected), "{}", text(&output));
    }
    // A stranger's key is refused by the agent, counted, and said.
    std::fs::write(&fleet.seed, nkeys::KeyPair::new_user().seed().unwrap()).unwrap();
    let stranger = fleet.restart(&["--host", "fra-1", "--yes"]).await;
    assert_eq!(code(&stranger), Some(3), "{}", text(&stranger));
    let host = fleet.lab.host("fra-1").unwrap();
    let status = get_json(&format!("http://{}/api/v1/status", host.agent_http))
        .await
        .unwrap();
    assert_eq!(
        status["audit"]["commands_refused"]["unknown_key"], 1,
        "{}",
        status["audit"]
    );
    assert_eq!(fleet.ids().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_come_back_halts_the_roll_and_says_how_to_go_on() {
    let fleet = fleet(NEW, Topology::OneCluster, 1).await;
    let before = fleet.ids().await;
    // Its configuration is broken by now, as after a bad change.
    let first = {
        let dry = fleet.restart(&["--all", "--dry-run", "--output", "json"]).await;
        let plan = text(&dry);
        let position = |h: &str| plan.find(&format!("\"{h}\"")).unwrap_or(usize::MAX);
        let hosts = fleet.lab.hosts().iter().map(|h| h.name.clone());
        hosts.min_by_key(|h| position(h)).unwrap()
    };
    let config = fleet.lab.host(&first).unwrap().dir.join("server.conf");
    let good = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, "no_such_setting {").unwrap();
    let begin = Instant::now();
    let output = fleet
        .restart(&["--all", "--yes", "--stagger", "1s", "--timeout", "20s"])
        .await;
    let said = text(&output);
    assert_eq!(output.status.code(), Some(4), "after {:?}: {said}", begin.elapsed());
    assert!(
        said.contains("watchdog restart") && said.contains("--resume "),
        "no line to go on with: {said}"
    );
    std::fs::write(&config, good).unwrap();
    let mut untouched = fleet.lab.hosts().to_vec();
    untouched.retain(|h| h.name != first);
    for host in untouched {
        let varz = get_json(&format!("{}/varz", host.monitor_url)).await.unwrap();
        assert_eq!(
            varz["server_id"].as_str().unwrap(),
            before[&host.name],
            "{} was touched: {said}",
            host.name
        );
    }
}
