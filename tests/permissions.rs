//! The NATS permissions of docs/operations.md, on real servers with real agents: they let the agents work and let none
//! of them speak for another.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod common;

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event, Subscriber};
use common::get;
use futures_util::StreamExt;
use nats_watchdog::adapters::nats::control::{ask, read};
use nats_watchdog::core::audit::Told;
use nats_watchdog::core::control::{Answer, Command as Asked, Envelope, Verb};
use nats_watchdog::core::ids::HostName;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

const SOON: Duration = Duration::from_secs(30);
const HOSTS: [(&str, &str); 2] = [("iad-1", "iad"), ("fra-1", "fra")];

/// The block of the document, as it stands there.
fn documented() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md");
    let text = std::fs::read_to_string(path).unwrap();
    let block = text.split("<!-- permissions:").nth(1).unwrap();
    let block = block.split("```conf\n").nth(1).unwrap();
    block.split("```").next().unwrap().to_owned()
}

struct Process(Child);

impl Process {
    fn start(program: &Path, arguments: &[&str], log: &Path) -> Self {
        let log = std::fs::File::create(log).unwrap();
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        Self(child.unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server and an agent on each host.
struct Mesh {
    processes: Vec<Process>,
    clients: Vec<u16>,
    agents: Vec<SocketAddr>,
    dir: TempDir,
}

impl Mesh {
    fn start(version: &str) -> Self {
        let held: Vec<TcpListener> = (0..8).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let ports: Vec<u16> = held.iter().map(|l| l.local_addr().unwrap().port()).collect();
        drop(held);
        let dir = tempfile::tempdir().unwrap();
        let server = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!(".tools/servers/{version}/nats-server"));
        assert!(server.exists(), "{} is missing: run tools/servers.sh", server.display());
        let mut processes = Vec::new();
        for (i, (name, region)) in HOSTS.iter().enumerate() {
            let [client, monitor, route, http] = [0, 1, 2, 3].map(|k| ports[4 * i + k]);
            let peer = ports[4 * (1 - i) + 2];
            let conf = dir.path().join(format!("{name}.conf"));
            let text = format!(
                "server_name: {name}\nlisten: \"127.0.0.1:{client}\"\nhttp: \"127.0.0.1:{monitor}\"\n\
                 cluster {{ name: test, listen: \"127.0.0.1:{route}\", routes: [\"nats-route://127.0.0.1:{peer}\"] }}\n{}",
                documented()
            );
            std::fs::write(&conf, text).unwrap();
            let log = |what: &str| dir.path().join(format!("{name}.{what}.log"));
            processes.push(Process::start(&server, &["-c", conf.to_str().unwrap()], &log("server")));
            let toml = dir.path().join(format!("{name}.toml"));
            let text = format!(
                "[host]\nname = \"{name}\"\nregion = \"{region}\"\n[nats]\nurl = \"nats://127.0.0.1:{client}\"\n\
                 user = \"{name}\"\npassword = \"{name}-secret\"\ninbox_prefix = \"_INBOX_{name}\"\n\
                 [server]\nmonitor = \"http://127.0.0.1:{monitor}\"\nrestart_command = [\"false\"]\n\
                 [http]\nlisten = \"127.0.0.1:{http}\"\n"
            );
            std::fs::write(&toml, text).unwrap();
            let agent = Path::new(env!("CARGO_BIN_EXE_watchdog"));
            let arguments = ["agent", "--config", toml.to_str().unwrap()];
            processes.push(Process::start(agent, &arguments, &log("agent")));
        }
        Self {
            processes,
            clients: vec![ports[0], ports[4]],
            agents: [ports[3], ports[7]].map(|p| ([127, 0, 0, 1], p).into()).to_vec(),
            dir,
        }
    }

    /// A client of host `i`'s server, and what the server complains of.
    async fn client(&self, i: usize, user: &str, inbox: &str) -> (Client, mpsc::UnboundedReceiver<String>) {
        let (tx, complaints) = mpsc::unbounded_channel();
        let url = format!("nats://127.0.0.1:{}", self.clients[i]);
        let deadline = Instant::now() + SOON;
        loop {
            let tx = tx.clone();
            let options = ConnectOptions::with_user_and_password(user.into(), format!("{user}-secret"))
                .custom_inbox_prefix(inbox)
                .event_callback(move |event| {
                    let tx = tx.clone();
                    async move {
                        if let Event::ServerError(e) = event {
                            let _ = tx.send(e.to_string());
                        }
                    }
                });
            match options.connect(&url).await {
                Ok(client) => return (client, complaints),
                Err(e) => assert!(Instant::now() < deadline, "{user}: {e}; {}", self.logs()),
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Until what the agent of host `i` says of `source` satisfies.
    async fn hears(&self, i: usize, source: &str, satisfied: impl Fn(&Value) -> bool) {
        let deadline = Instant::now() + SOON;
        loop {
            let mut said = Value::Null;
            if std::net::TcpStream::connect(self.agents[i]).is_ok() {
                let matrix = get(self.agents[i], "/api/v1/matrix").await;
                let matrix: Value = serde_json::from_str(&matrix.body).unwrap();
                let sources = matrix["sources"].as_array().cloned().unwrap_or_default();
                said = sources.into_iter().find(|s| s["host"] == source).unwrap_or_default();
            }
            if satisfied(&said) {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{source} at {}: {said}; {}",
                HOSTS[i].0,
                self.logs()
            );
            sleep(Duration::from_millis(100)).await;
        }
    }

    fn logs(&self) -> String {
        let mut logs = String::new();
        for (name, _) in HOSTS {
            for what in ["server", "agent"] {
                let log = self.dir.path().join(format!("{name}.{what}.log"));
                logs += &std::fs::read_to_string(log).unwrap_or_default();
            }
        }
        logs
    }
}

/// The first message whose payload is `token`; all others are looked at by `also`.
async fn until(subscriber: &mut Subscriber, token: &str, mut also: impl FnMut(&async_nats::Message)) {
    let wait = async {
        while let Some(message) = subscriber.next().await {
            if message.payload == token {
                return;
            }
            also(&message);
        }
        panic!("the subscription has ended");
    };
    timeout(SOON, wait).await.expect("the permitted message within 30 s");
}

async fn complaint(complaints: &mut mpsc::UnboundedReceiver<String>, about: &str) {
    let wait = async {
        while let Some(text) = complaints.recv().await {
            if text.to_lowercase().contains("permissions violation") && text.contains(about) {
                return;
            }
        }
        panic!("the connection is gone");
    };
    let said = timeout(SOON, wait).await;
    assert!(said.is_ok(), "the server does not complain about {about}");
}

async fn holds(version: &str) {
    let mesh = Mesh::start(version);
    assert_eq!(mesh.processes.len(), 4);

    // The agents work: beacons, and probes with their replies, both ways.
    let well = |s: &Value| s["verdict"] == "ok" && s["rtt_seconds"].is_number();
    mesh.hears(0, "fra-1", well).await;
    mesh.hears(1, "iad-1", well).await;
    let (operator, _) = mesh.client(1, "operator", "_INBOX").await;
    for (name, _) in HOSTS {
        let host = HostName::new(name).unwrap();
        let answer = read(&operator, "watchdog", &host, Verb::Status, Duration::from_secs(5)).await;
        assert!(matches!(answer, Ok(Answer::Status(_))), "{name}: {answer:?}");
    }
    for log in mesh.logs().lines() {
        assert!(
            !log.to_lowercase().contains("permissions violation"),
            "an agent wants more: {log}"
        );
    }

    // What they decide is told and can be asked for.
    let mut events = operator.subscribe("watchdog.event.>").await.unwrap();
    operator.flush().await.unwrap();
    for (name, region) in HOSTS {
        let host = HostName::new(name).unwrap();
        let erase = Envelope {
            command: "{}".to_owned(),
            ..Envelope::unsigned(&Asked::read(host.clone(), Verb::Status))
        };
        let refused = ask(&operator, "watchdog", &host, &erase, Duration::from_secs(5)).await;
        assert!(matches!(refused, Ok(Answer::Refused { .. })), "{name}: {refused:?}");
        let told = async {
            loop {
                let message = events.next().await.unwrap();
                let told = Told::decode("watchdog", &message.subject, &message.payload).unwrap();
                if told.host == host && told.record.event == "refused" {
                    return told;
                }
            }
        };
        let told = timeout(SOON, told).await.expect("an event of the refusal");
        assert_eq!(told.region.as_str(), region);
        let page = read(
            &operator,
            "watchdog",
            &host,
            Verb::History {
                limit: None,
                since_ms: None,
            },
            Duration::from_secs(5),
        );
        let page = page.await;
        assert!(
            matches!(&page, Ok(Answer::History(p)) if !p.records.is_empty()),
            "{page:?}"
        );
    }

    // With the credentials of iad-1: its own subject passes, another's does not. One connection keeps order, so what
    // has not come before the permitted message never will.
    let mut canaries = operator.subscribe("watchdog.canary.>").await.unwrap();
    operator.flush().await.unwrap();
    let (thief, mut complaints) = mesh.client(0, "iad-1", "_INBOX_iad-1").await;
    for subject in [
        "watchdog.canary.fra.fra-1",
        "watchdog.canary.iad.fra-1",
        "watchdog.canary.fra.iad-1",
        "watchdog.event.fra.fra-1",
        "watchdog.event.iad.fra-1",
        "watchdog.control.fra-1",
        "_INBOX_fra-1.x",
        "_INBOX.x",
    ] {
        thief.publish(subject, "forged".into()).await.unwrap();
        thief.flush().await.unwrap();
        complaint(&mut complaints, subject).await;
    }
    thief.publish("watchdog.canary.iad.iad-1", "mine".into()).await.unwrap();
    let forged = |m: &async_nats::Message| assert_ne!(m.payload, "forged", "{} passed", m.subject);
    until(&mut canaries, "mine", forged).await;

    // Nor can it listen in.
    for subject in [
        "watchdog.control.fra-1",
        "watchdog.probe.fra-1",
        "watchdog.event.>",
        "_INBOX_fra-1.>",
        "_INBOX.>",
        ">",
    ] {
        let _refused = thief.subscribe(subject).await.unwrap();
        thief.flush().await.unwrap();
        complaint(&mut complaints, &format!("{subject:?}")).await;
    }
    // The operator speaks for nobody.
    let (operator, mut complaints) = mesh.client(0, "operator", "_INBOX").await;
    for subject in ["watchdog.canary.iad.iad-1", "watchdog.event.iad.iad-1"] {
        operator.publish(subject, "forged".into()).await.unwrap();
        operator.flush().await.unwrap();
        complaint(&mut complaints, subject).await;
    }
}

/// Takes the agents' subscriptions away by a reload, and gives them back by another.
async fn taken_away_and_given_back(version: &str) {
    let mesh = Mesh::start(version);
    let well = |s: &Value| s["verdict"] == "ok";
    mesh.hears(0, "fra-1", well).await;
    let conf = mesh.dir.path().join("iad-1.conf");
    let before = std::fs::read_to_string(&conf).unwrap();
    let reload = |text: &str| {
        std::fs::write(&conf, text).unwrap();
        let pid = mesh.processes[0].0.id().to_string();
        assert!(Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    };
    let health = async |wanted: &str| {
        let deadline = Instant::now() + SOON * 2;
        loop {
            let status: Value = serde_json::from_str(&get(mesh.agents[0], "/api/v1/status").await.body).unwrap();
            if status["agent"]["health"] == wanted {
                return;
            }
            assert!(Instant::now() < deadline, "{}; {}", status["agent"], mesh.logs());
            sleep(Duration::from_millis(100)).await;
        }
    };
    health("ok").await;
    let without = before.replace("\"watchdog.canary.>\"", "\"elsewhere.>\"");
    assert_ne!(without, before);
    reload(&without);
    health("sick").await;
    reload(&before);
    health("ok").await;
    mesh.hears(0, "fra-1", well).await;
}

#[tokio::test]
async fn a_subscription_that_a_reload_took_away_is_made_again_on_2_10() {
    taken_away_and_given_back("2.10.26").await;
}

#[tokio::test]
async fn a_subscription_that_a_reload_took_away_is_made_again_on_the_newest() {
    taken_away_and_given_back("2.15.1").await;
}

#[tokio::test]
async fn the_documented_permissions_are_enough_and_no_more_on_2_9() {
    holds("2.9.10").await;
}

#[tokio::test]
async fn the_documented_permissions_are_enough_and_no_more_on_2_10() {
    holds("2.10.26").await;
}

#[tokio::test]
async fn the_documented_permissions_are_enough_and_no_more_on_the_newest() {
    holds("2.15.1").await;
}
