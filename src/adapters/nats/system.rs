//! What is done as a user of the system account: counting its traffic on a server that has no counters of what it receives
//! (before 2.10), and the one request that moves the leader of JetStream's meta group.
//!
//! Counting: two subscriptions, to subjects that come to every server anyway because the server itself subscribes to them: no message
//! is sent to this server that would not be sent without them. Payloads are counted and not decoded, but for the server's own
//! STATSZ: it tells what is queued for routes, which `/routez` does not before 2.10.26. The connection
//! itself is not free: as a client of the system account it makes the server tell the others of it every 30 s
//! (`$SYS.SERVER.ACCOUNT.<account>.CONNS`), as any client of any account does.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::{Event as Nats, Message};
use futures_util::{StreamExt, stream};
use serde::Deserialize;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

use super::connect::{self, ConnectError};
use super::lane::Input;
use crate::config::settings::Connect;
use crate::core::agent::event::Event;
use crate::core::ids::HostName;
use crate::core::sys::reading::{OTHERS, Tally};

/// What every server of every version subscribes to by itself. Nothing else is ever subscribed to here.
pub const SUBJECTS: [&str; 2] = ["$SYS.SERVER.*.STATSZ", "$SYS.SERVER.ACCOUNT.*.CONNS"];
/// Answered by the leader of the meta group, to the system account only.
const STEP_DOWN_SUBJECT: &str = "$JS.API.META.LEADER.STEPDOWN";
/// For the connection, and for the answer.
const STEP_DOWN: Duration = Duration::from_secs(5);
/// Between two events.
const EVERY: Duration = Duration::from_secs(1);
/// Senders that are told apart. A fleet that restarts for months makes new ids for ever; the rest are one.
const MOST_PEERS: usize = 4096;

/// Counts until the receiver of `inputs` is gone; the connection goes on trying for ever.
///
/// # Errors
/// The credentials or the URL cannot be read, or the client has ended.
pub async fn count(connect: Connect, host: HostName, inputs: mpsc::Sender<Input>) -> Result<(), ConnectError> {
    let failed = |reason: String| ConnectError::Other {
        url: connect::shown(&connect),
        reason,
    };
    let (connected, mut connections) = watch::channel(0_u64);
    let options = connect::agent_options(&connect, &host)?
        .name(format!("watchdog {host} system"))
        .event_callback(move |event| {
            if matches!(event, Nats::Connected) {
                connected.send_modify(|n| *n += 1);
            }
            async {}
        });
    let client = options.connect(connect::servers(&connect)?).await;
    let client = client.map_err(|e| failed(e.to_string()))?;
    let mut subscribers = Vec::new();
    for subject in SUBJECTS {
        let subscriber = client.subscribe(subject).await;
        subscribers.push(subscriber.map_err(|e| failed(e.to_string()))?);
    }
    let mut messages = stream::select_all(subscribers);
    let mut every = tokio::time::interval(EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut counts = Counts::default();
    loop {
        tokio::select! {
            message = messages.next() => match message {
                Some(message) => counts.take(&message),
                None => return Err(failed("the connection has ended".to_owned())),
            },
            _ = every.tick() => {
                // What was missed while the connection was away is not known: counts begin anew.
                let subscription = *connections.borrow_and_update();
                if subscription != counts.subscription {
                    let own = client.server_info().server_id;
                    counts = Counts { subscription, own, ..Counts::default() };
                }
                if subscription > 0 {
                    let (peers, pending) = (counts.peers.clone(), counts.pending);
                    let event = Event::SysCounted { subscription, peers, pending };
                    if inputs.send(Input::Event(event)).await.is_err() {
                        return Ok(());
                    }
                }
            }
        }
    }
}

/// Asks the leader of JetStream's meta group to step down, on a connection of its own that ends with the answer.
///
/// # Errors
/// No connection, no answer, or the server's word against it.
pub async fn step_down(connect: &Connect, host: &HostName) -> Result<(), StepDownError> {
    let client = connect::connect(connect, &format!("watchdog {host} step-down"), STEP_DOWN).await?;
    let answer = tokio::time::timeout(STEP_DOWN, client.request(STEP_DOWN_SUBJECT, "".into())).await;
    let message = answer
        .map_err(|_| StepDownError::Silent("no answer in time".to_owned()))?
        .map_err(|e| StepDownError::Silent(e.to_string()))?;
    let word: serde_json::Value = serde_json::from_slice(&message.payload).unwrap_or_default();
    if word["success"] == true {
        return Ok(());
    }
    let why = word["error"]["description"].as_str().unwrap_or("it gives no reason");
    Err(StepDownError::Refused(
        why.chars().filter(|c| !c.is_control()).take(200).collect(),
    ))
}

/// Why the meta leader was not moved.
#[derive(Debug, thiserror::Error)]
pub enum StepDownError {
    /// No connection as the system account.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// No answer.
    #[error(
        "the meta leader was asked to step down and does not answer ({0}): is [system] a user of the system account?"
    )]
    Silent(String),
    /// A no.
    #[error("the meta leader does not step down: {0}")]
    Refused(String),
}

#[derive(Debug, Default)]
struct Counts {
    subscription: u64,
    /// The server that is connected to.
    own: String,
    peers: BTreeMap<String, Tally>,
    /// Bytes queued for routes, by the last STATSZ of that server.
    pending: Option<u64>,
}

/// What is read of a STATSZ.
#[derive(Deserialize)]
struct Statsz {
    statsz: Stats,
}

#[derive(Deserialize)]
struct Stats {
    #[serde(default)]
    routes: Vec<RouteStat>,
}

#[derive(Deserialize)]
struct RouteStat {
    #[serde(default)]
    pending: u64,
}

fn sender(subject: &str) -> &str {
    subject.split('.').nth(2).unwrap_or_default()
}

impl Counts {
    fn take(&mut self, message: &Message) {
        self.add(&message.subject, message.payload.len());
        if sender(&message.subject) == self.own && !self.own.is_empty() {
            // One that cannot be read tells nothing.
            let read: Option<Statsz> = serde_json::from_slice(&message.payload).ok();
            self.pending = read.map(|s| {
                s.statsz
                    .routes
                    .iter()
                    .fold(0, |sum: u64, r| sum.saturating_add(r.pending))
            });
        }
    }

    fn add(&mut self, subject: &str, bytes: usize) {
        let sender = sender(subject);
        let known = self.peers.contains_key(sender) || self.peers.len() < MOST_PEERS;
        let sender = if known { sender } else { OTHERS };
        let add = |tally: &mut Tally| {
            tally.msgs = tally.msgs.saturating_add(1);
            tally.bytes = tally.bytes.saturating_add(bytes as u64);
        };
        match self.peers.get_mut(sender) {
            Some(tally) => add(tally),
            None => add(self.peers.entry(sender.to_owned()).or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn senders_are_told_apart_by_the_subject_alone() {
        let mut counts = Counts::default();
        counts.add("$SYS.SERVER.NAAA.STATSZ", 100);
        counts.add("$SYS.SERVER.NAAA.STATSZ", 50);
        counts.add("$SYS.SERVER.ACCOUNT.APP.CONNS", 7);
        assert_eq!(counts.peers["NAAA"], Tally { msgs: 2, bytes: 150 });
        assert_eq!(
            counts.peers[crate::core::sys::reading::CONNS],
            Tally { msgs: 1, bytes: 7 }
        );
    }

    #[test]
    fn what_is_queued_for_routes_is_read_of_the_own_statsz_only() {
        let mut counts = Counts {
            own: "NME".to_owned(),
            ..Counts::default()
        };
        let statsz = |payload: &str| Message {
            subject: "$SYS.SERVER.NME.STATSZ".into(),
            reply: None,
            payload: payload.to_owned().into(),
            headers: None,
            status: None,
            description: None,
            length: payload.len(),
        };
        counts.take(&statsz(
            r#"{"server":{},"statsz":{"mem":1,"routes":[{"rid":1,"pending":3},{"rid":2,"pending":4}]}}"#,
        ));
        assert_eq!(counts.pending, Some(7));
        let mut other = statsz(r#"{"statsz":{"routes":[{"pending":900}]}}"#);
        other.subject = "$SYS.SERVER.NYOU.STATSZ".into();
        counts.take(&other);
        assert_eq!(counts.pending, Some(7));
        counts.take(&statsz("{half"));
        assert_eq!((counts.pending, counts.peers["NME"].msgs), (None, 2));
    }

    #[test]
    fn a_flood_of_senders_takes_bounded_memory() {
        let mut counts = Counts::default();
        for i in 0..MOST_PEERS + 500 {
            counts.add(&format!("$SYS.SERVER.N{i}.STATSZ"), 1);
        }
        assert_eq!(counts.peers.len(), MOST_PEERS + 1);
        assert_eq!(counts.peers[OTHERS].msgs, 500);
        counts.add("$SYS", 1);
        assert_eq!(counts.peers[OTHERS].msgs, 501, "a subject without a sender is no panic");
    }

    #[test]
    fn nothing_wide_is_ever_subscribed_to() {
        for subject in SUBJECTS {
            assert!(
                !subject.contains('>') && subject.starts_with("$SYS.SERVER."),
                "{subject}"
            );
        }
    }
}
