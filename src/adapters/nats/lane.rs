//! One lane of the agent: a connection pinned to the local server, its subscriptions, and what is published on it.
//!
//! Turns what comes into core events. Answers probes by itself, at once, so that a busy core delays nobody.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::{Client, Event as Nats, Message, StatusCode, Subject};
use bytes::Bytes;
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, mpsc};

use crate::adapters::nats::connect::{self, ConnectError};
use crate::adapters::nats::control::Verified;
use crate::adapters::nats::kept::{COMPLAINTS, Kept, QUIET};
use crate::config::settings;
use crate::core::agent::event::Event;
use crate::core::canary::beacon::{Beacon, MAX_BYTES};
use crate::core::canary::probes::ProbeFailure;
use crate::core::ids::{HostName, LaneName};

/// A publish that does not get into the client's buffer in this time is dropped: a beacon that waits is a lie.
const PUBLISH: Duration = Duration::from_millis(100);
/// A probe's reply subject is given up after this; the core has given up before.
const PROBE: Duration = Duration::from_secs(10);

/// What a lane brings.
#[derive(Debug)]
pub enum Input {
    /// For the core.
    Event(Event),
    /// A request on the control subject.
    Control {
        /// What was sent.
        payload: Bytes,
        /// Where the answer goes; a request without one gets none.
        reply: Option<Subject>,
    },
    /// A command that may be carried out: that it was taken is on disk, or cannot be.
    Taken {
        /// The command.
        order: Box<Verified>,
        /// Why it could not be written down, if so.
        kept: Result<(), String>,
        /// Where the answer goes.
        reply: Option<Subject>,
    },
}

/// The answer to a probe.
#[derive(Debug, Serialize, Deserialize)]
struct ProbeReply {
    host: HostName,
    /// Microseconds between request and reply at the responder.
    hold_us: u64,
}

/// An open lane.
#[derive(Debug, Clone)]
pub struct Lane {
    name: LaneName,
    client: Client,
    inputs: mpsc::Sender<Input>,
    prefix: Arc<str>,
    complaints: broadcast::Sender<String>,
}

/// Opens a lane. Returns before it is connected; it goes on trying for ever.
///
/// # Errors
/// The credentials or the URL cannot be read.
pub async fn open(
    lane: &settings::Lane,
    host: &HostName,
    prefix: &str,
    control: bool,
    inputs: mpsc::Sender<Input>,
) -> Result<Lane, ConnectError> {
    let (name, tx) = (lane.name.clone(), inputs.clone());
    let url: Arc<str> = connect::shown(&lane.connect).into();
    let (complaints, _) = broadcast::channel(COMPLAINTS);
    let complain = complaints.clone();
    let options = connect::agent_options(&lane.connect, host)?.event_callback(move |event| {
        let (name, url, tx) = (name.clone(), url.clone(), tx.clone());
        if let Nats::ServerError(e) = &event {
            let _ = complain.send(e.to_string());
        }
        async move {
            for event in told(&name, &url, &event) {
                let _ = tx.send(Input::Event(event)).await;
            }
        }
    });
    let servers = connect::servers(&lane.connect)?;
    let client = options.connect(servers).await.map_err(|e| ConnectError::Other {
        url: lane.connect.urls.join(", "),
        reason: e.to_string(),
    })?;
    let lane = Lane {
        name: lane.name.clone(),
        client,
        inputs,
        prefix: prefix.into(),
        complaints,
    };
    lane.hear().await?;
    lane.answer_probes(host).await?;
    if control {
        lane.take_control(host).await?;
    }
    Ok(lane)
}

/// What the client's event means for the core.
fn told(lane: &LaneName, url: &str, event: &Nats) -> Vec<Event> {
    let down = |why: String| {
        vec![Event::Connection {
            lane: lane.clone(),
            state: Err(why),
        }]
    };
    match event {
        Nats::Connected => vec![Event::Connection {
            lane: lane.clone(),
            state: Ok(()),
        }],
        Nats::Disconnected | Nats::Closed | Nats::Draining => down("the connection is closed".to_owned()),
        Nats::LameDuckMode => vec![Event::LameDuck],
        Nats::SlowConsumer(_) => vec![Event::Dropped {
            reason: "slow_agent",
            detail: "this agent reads too slowly".to_owned(),
        }],
        Nats::ClientError(e) => down(format!(
            "cannot connect to {url} ({e}): is the nats-server running, is this its client port, are the credentials right? \
             it is tried again for ever"
        )),
        Nats::ServerError(e) => vec![Event::Dropped {
            reason: "server_error",
            detail: e.to_string(),
        }],
    }
}

impl Lane {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &LaneName {
        &self.name
    }

    async fn subscribe(&self, subject: String, quiet: Option<Duration>) -> Result<Kept, ConnectError> {
        let (client, complaints) = (self.client.clone(), self.complaints.subscribe());
        Kept::new(client, subject.clone(), complaints, quiet)
            .await
            .map_err(|reason| ConnectError::Other { url: subject, reason })
    }

    async fn hear(&self) -> Result<(), ConnectError> {
        let mut beacons = self.subscribe(format!("{}.canary.>", self.prefix), Some(QUIET)).await?;
        let lane = self.clone();
        tokio::spawn(async move {
            loop {
                let message = beacons.next().await;
                let input = Input::Event(lane.read(&message));
                if lane.inputs.send(input).await.is_err() {
                    return;
                }
            }
        });
        Ok(())
    }

    fn read(&self, message: &Message) -> Event {
        if message.payload.len() > MAX_BYTES {
            return Event::Dropped {
                reason: "too_large",
                detail: message.subject.to_string(),
            };
        }
        match Beacon::decode(&self.prefix, &message.subject, &message.payload) {
            Ok((source, beacon)) => Event::Beacon {
                lane: self.name.clone(),
                source,
                beacon: Arc::new(beacon),
            },
            Err(e) => Event::Dropped {
                reason: e.reason(),
                detail: format!("{}: {e}", message.subject),
            },
        }
    }

    async fn answer_probes(&self, host: &HostName) -> Result<(), ConnectError> {
        let mut probes = self.subscribe(format!("{}.probe.{host}", self.prefix), None).await?;
        let (client, host) = (self.client.clone(), host.clone());
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            while !inputs.is_closed() {
                let message = probes.next().await;
                let got = Instant::now();
                let Some(reply) = message.reply else { continue };
                let answer = ProbeReply {
                    host: host.clone(),
                    hold_us: u64::try_from(got.elapsed().as_micros()).unwrap_or(u64::MAX),
                };
                let payload = serde_json::to_vec(&answer).unwrap_or_default();
                let _ = tokio::time::timeout(PUBLISH, client.publish(reply, payload.into())).await;
            }
        });
        Ok(())
    }

    async fn take_control(&self, host: &HostName) -> Result<(), ConnectError> {
        let subject = crate::core::control::subject(&self.prefix, host);
        let mut requests = self.subscribe(subject, None).await?;
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            loop {
                let message = requests.next().await;
                let input = Input::Control {
                    payload: message.payload,
                    reply: message.reply,
                };
                if inputs.send(input).await.is_err() {
                    return;
                }
            }
        });
        Ok(())
    }

    /// Publishes, or drops where the client's buffer is full.
    pub async fn publish(&self, subject: String, payload: Vec<u8>) -> bool {
        let publish = self.client.publish(subject, payload.into());
        matches!(tokio::time::timeout(PUBLISH, publish).await, Ok(Ok(())))
    }

    /// Asks `target` on a reply subject that nobody ever used, and tells what came of it.
    pub fn probe(&self, id: u64, target: &HostName) {
        let lane = self.clone();
        let subject = format!("{}.probe.{target}", self.prefix);
        tokio::spawn(async move {
            let asked = tokio::time::timeout(PROBE, lane.ask(subject)).await;
            let event = match asked {
                Ok(Some(Ok(hold))) => Event::ProbeAnswered { id, hold },
                Ok(Some(Err(why))) => Event::ProbeFailed { id, why },
                Ok(None) | Err(_) => return,
            };
            let _ = lane.inputs.send(Input::Event(event)).await;
        });
    }

    async fn ask(&self, subject: String) -> Option<Result<Duration, ProbeFailure>> {
        let inbox = self.client.new_inbox();
        let mut replies = self.client.subscribe(inbox.clone()).await.ok()?;
        self.client
            .publish_with_reply(subject, inbox, Bytes::new())
            .await
            .ok()?;
        let message = replies.next().await?;
        if message.status == Some(StatusCode::NO_RESPONDERS) {
            return Some(Err(ProbeFailure::NoResponders));
        }
        let reply: ProbeReply = serde_json::from_slice(&message.payload).ok()?;
        Some(Ok(Duration::from_micros(reply.hold_us)))
    }

    /// Waits until what was published is with the server.
    pub async fn flush(&self, limit: Duration) {
        let _ = tokio::time::timeout(limit, self.client.flush()).await;
    }
}
