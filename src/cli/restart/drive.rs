//! Drives a [`Machine`]: carries its questions to the hosts and the answers back; reads the clock and draws nonces.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_nats::Client;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

use super::inventory::Beacons;
use super::show::Console;
use crate::adapters::nats::control::{AskError, Operator, ask, read};
use crate::core::control::{Answer, Args, Command, Verb, guard};
use crate::core::ids::{HostName, Mono};
use crate::core::rollout::{Action, Event, Inventory, Limits, Machine, Outcome, Plan};

/// How long a host may take to answer a question.
const QUESTION: Duration = Duration::from_secs(2);
/// Questions under way at a time.
const AT_ONCE: usize = 256;

/// What the commands say, and who signs them.
pub(super) struct Orders {
    pub(super) operator: Operator,
    pub(super) reason: String,
    pub(super) prefix: String,
}

impl Orders {
    fn restart(&self, host: HostName, rollout: &str) -> Command {
        let issued = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        Command {
            host,
            verb: Verb::Restart,
            args: Args::default(),
            rollout: rollout.to_owned(),
            nonce: format!("{:032x}", rand::random::<u128>()),
            issued_ms: millis(issued),
            expires_ms: millis(issued + guard::EXPIRY),
            reason: self.reason.clone(),
            by: who(),
        }
    }
}

/// Runs the rollout to its end.
pub(super) async fn drive(
    client: &Client,
    orders: &Orders,
    plan: &Plan,
    inventory: &Inventory,
    limits: Limits,
    mut beacons: Beacons,
    console: &mut Console,
) -> anyhow::Result<Outcome> {
    let start = Instant::now();
    let now = || Mono(start.elapsed());
    let rollout = format!("{:08x}", rand::random::<u32>());
    let mut machine = Machine::new(&rollout, plan, inventory, limits, now());
    let (answers, mut answered) = mpsc::unbounded_channel();
    let asking = Asking {
        client: client.clone(),
        prefix: orders.prefix.clone(),
        answers,
        slots: Arc::new(Semaphore::new(AT_ONCE)),
    };
    console.begin(&rollout, plan.order.len())?;
    let mut interrupts = 0_u32;
    let mut event = Event::Tick;
    loop {
        for action in machine.handle(event, now()) {
            match action {
                Action::AskStatus { round, host } => asking.status(round, host),
                Action::AskHears { round, by, source } => asking.hears(round, by, source),
                Action::Restart { host } => asking.restart(orders, host, &rollout, limits.answer),
                Action::Report(progress) => console.progress(&progress)?,
                Action::Finish(outcome) => return Ok(outcome),
            }
        }
        let Some(deadline) = machine.deadline() else {
            anyhow::bail!("the rollout ended without an outcome");
        };
        event = tokio::select! {
            biased;
            () = console.interrupted() => {
                interrupts += 1;
                if interrupts == 1 { Event::Interrupt } else { Event::Abandon }
            }
            Some(event) = answered.recv() => event,
            () = tokio::time::sleep_until(start + deadline.0) => Event::Tick,
            Some(beacon) = beacons.next() => Event::Beacon {
                host: beacon.host,
                health: beacon.health,
                interval: Duration::from_millis(beacon.interval),
                bye: beacon.bye,
            },
        };
    }
}

struct Asking {
    client: Client,
    prefix: String,
    answers: mpsc::UnboundedSender<Event>,
    slots: Arc<Semaphore>,
}

impl Asking {
    fn question(
        &self,
        host: HostName,
        verb: Verb,
        event: impl FnOnce(HostName, Result<Answer, String>) -> Event + Send + 'static,
    ) {
        let (client, prefix) = (self.client.clone(), self.prefix.clone());
        let (answers, slots) = (self.answers.clone(), Arc::clone(&self.slots));
        tokio::spawn(async move {
            let _slot = slots.acquire_owned().await;
            let answer = read(&client, &prefix, &host, verb, QUESTION).await;
            let event = event(host, answer.map_err(|e| e.to_string()));
            // Nobody listens any more when the rollout has ended.
            let _ = answers.send(event);
        });
    }

    fn status(&self, round: u64, host: HostName) {
        self.question(host, Verb::Status, move |host, answer| Event::Status {
            round,
            host,
            answer: answer.and_then(|answer| match answer {
                Answer::Status(status) => Ok(status),
                other => Err(unexpected(&other)),
            }),
        });
    }

    fn hears(&self, round: u64, by: HostName, source: HostName) {
        self.question(by, Verb::Hears { source }, move |by, answer| Event::Hears {
            round,
            by,
            answer: answer.and_then(|answer| match answer {
                Answer::Hears(hearing) => Ok(hearing),
                other => Err(unexpected(&other)),
            }),
        });
    }

    fn restart(&self, orders: &Orders, host: HostName, rollout: &str, within: Duration) {
        let envelope = orders.operator.sign(&orders.restart(host.clone(), rollout));
        let (client, prefix) = (self.client.clone(), self.prefix.clone());
        let answers = self.answers.clone();
        tokio::spawn(async move {
            let answer = match ask(&client, &prefix, &host, &envelope, within).await {
                // The one failure that is sure: the command reached nobody.
                Err(e @ AskError::NoResponders(_)) => Ok(Answer::Refused {
                    gate: "no_agent".to_owned(),
                    text: e.to_string(),
                }),
                other => other.map_err(|e| e.to_string()),
            };
            let _ = answers.send(Event::Answered { host, answer });
        });
    }
}

fn unexpected(answer: &Answer) -> String {
    match answer {
        Answer::Refused { text, .. } => text.clone(),
        other => format!("answered something else: {other:?}"),
    }
}

fn who() -> String {
    let user = ["SUDO_USER", "USER", "LOGNAME"]
        .iter()
        .find_map(|name| std::env::var(name).ok())
        .unwrap_or_else(|| "unknown".to_owned());
    let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let by = format!("{user}@{}", machine.trim());
    by.chars().filter(|c| !c.is_control()).take(128).collect()
}
