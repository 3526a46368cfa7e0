//! Drives a [`Machine`]: carries its questions to the hosts and the answers back; reads the clock and draws nonces.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_nats::Client;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

use super::inventory::Beacons;
use super::record::Board;
use super::show::Console;
use crate::adapters::nats::control::{AskError, Operator, ask, read};
use crate::core::control::args::WITHOUT_STORE;
use crate::core::control::roll::Record;
use crate::core::control::{Answer, Arg, Args, Command, RestartOrder, Verb, guard};
use crate::core::ids::{HostName, Mono};
use crate::core::rollout::{Action, Adopted, Event, Inventory, Limits, Machine, Outcome, Plan, Progress};

/// How long a host may take to answer a question.
const QUESTION: Duration = Duration::from_secs(2);
/// Questions under way at a time.
const AT_ONCE: usize = 256;

/// What the commands say, and who signs them.
#[derive(Clone)]
pub(super) struct Orders {
    pub(super) operator: Operator,
    pub(super) reason: String,
    pub(super) prefix: String,
    /// Hosts go on where the store of permits does not answer.
    pub(super) without_store: bool,
}

/// A rollout about to be driven.
pub(super) struct Course {
    pub(super) record: Record,
    pub(super) plan: Plan,
    pub(super) adopted: Vec<Adopted>,
    pub(super) done: Vec<HostName>,
    pub(super) limits: Limits,
}

impl Orders {
    pub(super) fn command(&self, host: HostName, verb: Verb, args: Args, rollout: &str) -> Command {
        let issued = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        Command {
            host,
            verb,
            args,
            rollout: rollout.to_owned(),
            nonce: format!("{:032x}", rand::random::<u128>()),
            issued_ms: millis(issued),
            expires_ms: millis(issued + guard::EXPIRY),
            reason: self.reason.clone(),
            by: who(),
        }
    }
}

/// Runs the rollout to its end, and keeps its record at the hosts up to date.
pub(super) async fn drive(
    client: &Client,
    orders: &Orders,
    course: Course,
    inventory: &Inventory,
    board: Board,
    mut beacons: Beacons,
    console: &mut Console,
) -> anyhow::Result<Outcome> {
    let Course {
        mut record,
        plan,
        adopted,
        done,
        limits,
    } = course;
    let start = Instant::now();
    let now = || Mono(start.elapsed());
    let rollout = record.id.clone();
    let order = RestartOrder {
        term: record.term,
        ..record.order.clone()
    };
    let mut machine = Machine::new(&rollout, &plan, inventory, limits, now())
        .adopting(adopted, now())
        .continuing(done);
    let (answers, mut answered) = mpsc::unbounded_channel();
    let asking = Asking {
        client: client.clone(),
        prefix: orders.prefix.clone(),
        answers,
        slots: Arc::new(Semaphore::new(AT_ONCE)),
    };
    console.begin(&rollout, record.hosts.len())?;
    let mut updates = tokio::task::JoinSet::new();
    let mut interrupts = 0_u32;
    let mut event = Event::Tick;
    loop {
        for action in machine.handle(event, now()) {
            match action {
                Action::AskStatus { round, host } => asking.status(round, host),
                Action::AskHears { round, by, source } => asking.hears(round, by, source),
                Action::Restart { host } => asking.restart(orders, host, &order, &rollout, limits.answer),
                Action::Report(progress) => {
                    if let Progress::Proved { host, .. } = &progress {
                        proved(&mut record, host);
                        let (board, record) = (board.clone(), record.clone());
                        // What stands against it, the next host's agent says too.
                        updates.spawn(async move { board.update(&record).await });
                    }
                    console.progress(&progress)?;
                }
                Action::Finish(outcome) => {
                    // None of them may come after what is told now.
                    updates.shutdown().await;
                    ended(&board, record, &outcome, console).await;
                    return Ok(outcome);
                }
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

fn proved(record: &mut Record, host: &HostName) {
    record.seq += 1;
    for entry in record.hosts.iter_mut().filter(|h| h.host == *host) {
        entry.proved = true;
    }
}

/// What is done, or of which nothing was begun, is closed; what has halted stays open and says why.
async fn ended(board: &Board, mut record: Record, outcome: &Outcome, console: &mut Console) {
    let halted = match outcome {
        Outcome::Halted(halt) if !halt.untouched() || record.term > 0 => halt,
        _ => {
            if let Err(place) = board.close(&record).await {
                console.error(&format!(
                    "rollout {id} could not be closed {place}; `watchdog restart --abort {id}` does it later",
                    id = record.id
                ));
            }
            return;
        }
    };
    record.seq += 1;
    let at = halted
        .host
        .as_ref()
        .map_or(String::new(), |host| format!("at {host}: "));
    record.halted = Some(format!("{at}{}", halted.reason));
    if let Err(text) = board.update(&record).await {
        console.error(&format!("that it has halted could not be written: {text}"));
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

    fn restart(&self, orders: &Orders, host: HostName, order: &RestartOrder, rollout: &str, within: Duration) {
        let mut args = order.args();
        if orders.without_store {
            args = args.with(WITHOUT_STORE, Arg::Flag(true));
        }
        let command = orders.command(host.clone(), Verb::Restart, args, rollout);
        let envelope = orders.operator.sign(&command);
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

/// Unix milliseconds.
pub(super) fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn who() -> String {
    let user = ["SUDO_USER", "USER", "LOGNAME"]
        .iter()
        .find_map(|name| std::env::var(name).ok())
        .unwrap_or_else(|| "unknown".to_owned());
    let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let by = format!("{user}@{}", machine.trim());
    by.chars().filter(|c| !c.is_control()).take(128).collect()
}
