//! Who may command an agent, on a real server with a real agent: everything that is not an operator's own, fresh command
//! is refused, counted and recorded, and nothing is done; what is done is audited.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

#[allow(dead_code, reason = "the other suite needs more of it")]
#[path = "../bad_input/bench.rs"]
mod bench;
mod history;
mod refusals;
mod resume;

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bench::{Agent, Bench, Config, SOON, Server, eventually};
use nats_watchdog::adapters::nats::control::{Operator, ask};
use nats_watchdog::core::control::{Answer, Command, Envelope, Verb};
use nats_watchdog::core::ids::HostName;
use serde_json::Value;

/// Agent and server of one host; each restart of the server that is begun leaves a line in `acts`.
struct Host {
    bench: Bench,
    server: Server,
    config: Config,
    agent: Agent,
    operator: Operator,
    client: async_nats::Client,
}

impl Host {
    async fn start() -> Self {
        let operator = Operator::from_seed(&nkeys::KeyPair::new_user().seed().unwrap()).unwrap();
        let control = format!("control.operators = [\"{}\"]\n", operator.public_key());
        Self::with(&control, operator).await
    }

    async fn with(control: &str, operator: Operator) -> Self {
        let bench = Bench::new();
        let server = bench.server();
        let mut config = bench.config("iad-1", server.client, server.monitor);
        let acts = bench.dir.path().join("acts");
        config.more = control.to_owned();
        let text = std::fs::read_to_string(config.write()).unwrap().replace(
            "server.restart_command = [\"/bin/false\"]",
            &format!(
                "server.restart_command = [\"/bin/sh\", \"-c\", \"echo act >> {}\"]",
                acts.display()
            ),
        );
        std::fs::write(&config.path, &text).unwrap();
        let client = server.client().await;
        let agent = config.start_as_written();
        let host = Self {
            bench,
            server,
            config,
            agent,
            operator,
            client,
        };
        host.agent.ready().await;
        host
    }

    /// Kills the agent and starts another on the same state.
    async fn again(&mut self) {
        self.agent.kill();
        self.agent = self.config.start_as_written();
        self.agent.ready().await;
    }

    /// After this an agent takes commands.
    async fn old_enough(&self) {
        eventually("an agent that takes commands", || {
            self.agent.status()["agent"]["uptime_seconds"].as_f64() > Some(10.5)
        })
        .await;
    }

    async fn send(&self, envelope: &Envelope) -> Answer {
        let to = HostName::new("iad-1").unwrap();
        ask(&self.client, "watchdog", &to, envelope, Duration::from_secs(5))
            .await
            .unwrap()
    }

    /// A restart is ordered within a rollout that is open.
    async fn open(&self, rollout: &str) {
        let record = serde_json::json!({"v": 1, "id": rollout, "seq": 1, "by": "ada@desk", "started_ms": 1,
            "hosts": [{"h": "iad-1", "w": 1, "v": "2.10.26"}], "stagger_ms": 0, "jitter": 0, "max_unavailable": 1,
            "timeout_ms": 60_000});
        let mut command = restart(&format!("open-{rollout}"));
        command.rollout = rollout.to_owned();
        command.verb = Verb::Open {
            record: Box::new(serde_json::from_value(record).unwrap()),
        };
        let answer = self.send(&self.operator.sign(&command)).await;
        assert!(matches!(answer, Answer::Accepted { .. }), "{answer:?}");
    }

    /// The gate that refused.
    async fn refused(&self, envelope: &Envelope) -> String {
        match self.send(envelope).await {
            Answer::Refused { gate, .. } => gate,
            other => panic!("{envelope:?} was not refused: {other:?}"),
        }
    }

    fn server_id(&self) -> String {
        let id = self.agent.status()["server"]["id"].as_str().unwrap().to_owned();
        assert!(!id.is_empty());
        id
    }

    /// Restarts that were begun.
    fn acts(&self) -> usize {
        let acts: PathBuf = self.bench.dir.path().join("acts");
        std::fs::read_to_string(acts).map_or(0, |text| text.lines().count())
    }

    fn counted(&self, reason: &str) -> f64 {
        let series = format!("watchdog_commands_refused_total{{reason=\"{reason}\"}}");
        self.agent.metric(&series).unwrap()
    }

    fn taken(&self) -> f64 {
        self.agent.metric("watchdog_commands_total{verb=\"restart\"}").unwrap()
    }

    fn records(&self) -> Vec<Value> {
        let history = self.agent.json("/api/v1/history");
        history["history"].as_array().cloned().unwrap_or_default()
    }
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis()).unwrap()
}

/// A command that is good in all respects; valid for four minutes.
fn restart(nonce: &str) -> Command {
    let mut command = Command::read(HostName::new("iad-1").unwrap(), Verb::Restart);
    command.nonce = nonce.to_owned();
    command.issued_ms = now_ms();
    command.expires_ms = command.issued_ms + 240_000;
    command.rollout = format!("rollout-{nonce}");
    command.reason = "to see".to_owned();
    command.by = "ada@desk".to_owned();
    command
}

fn stranger() -> Operator {
    Operator::from_seed(&nkeys::KeyPair::new_user().seed().unwrap()).unwrap()
}
