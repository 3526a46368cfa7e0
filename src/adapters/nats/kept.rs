//! A subscription that outlives what ends it. The client makes all anew after a lost connection by itself; but one that the
//! server refused or took away while the connection lives, as after a reload with other permissions, is gone for good, and
//! its lane would be deaf until the agent is started anew.

use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, Message, Subscriber};
use futures_util::StreamExt;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{sleep, timeout};
use tracing::warn;

/// Before the first new try, doubled each time up to [`MOST`].
const PAUSE: Duration = Duration::from_secs(5);
const MOST: Duration = Duration::from_secs(120);
/// A subscription that brings at least the own beacons and is silent for so long is made anew.
pub(super) const QUIET: Duration = Duration::from_secs(30);
/// For one that may be silent for ever.
const EVER: Duration = Duration::from_secs(365 * 24 * 3600);
/// Complaints of the server that may wait to be looked at.
pub(super) const COMPLAINTS: usize = 32;

/// The subscription.
pub(super) struct Kept {
    client: Client,
    subject: String,
    messages: Subscriber,
    complaints: broadcast::Receiver<String>,
    /// Nothing at all for so long is a fault; `None` = it may be.
    quiet: Option<Duration>,
    tries: u32,
}

impl Kept {
    pub(super) async fn new(
        client: Client,
        subject: String,
        complaints: broadcast::Receiver<String>,
        quiet: Option<Duration>,
    ) -> Result<Self, String> {
        let messages = client.subscribe(subject.clone()).await.map_err(|e| e.to_string())?;
        Ok(Self {
            client,
            subject,
            messages,
            complaints,
            quiet,
            tries: 0,
        })
    }

    /// The next message, however long it takes; never ends.
    pub(super) async fn next(&mut self) -> Message {
        loop {
            let limit = self.quiet.map_or(EVER, |quiet| quiet.max(self.pause()));
            let why = tokio::select! {
                biased;
                complaint = self.complaints.recv() => match complaint {
                    Ok(text) if !about(&text, &self.subject) => continue,
                    Ok(text) => text,
                    Err(RecvError::Lagged(_)) => "the server complained a lot".to_owned(),
                    // The connection's callback is gone, and with it the connection.
                    Err(RecvError::Closed) => "the connection is gone".to_owned(),
                },
                next = timeout(limit, self.messages.next()) => match next {
                    Ok(Some(message)) => {
                        self.tries = 0;
                        return message;
                    }
                    Ok(None) => "it ended".to_owned(),
                    // While there is no connection there is nothing to mend, and the client's queue is short.
                    Err(_) if self.client.connection_state() != State::Connected => continue,
                    Err(_) => format!("it brought nothing for {}", humantime::format_duration(limit)),
                },
            };
            warn!("the subscription to {} is made anew: {why}", self.subject);
            self.again().await;
        }
    }

    async fn again(&mut self) {
        loop {
            let pause = self.pause();
            self.tries = self.tries.saturating_add(1);
            sleep(pause).await;
            if self.client.connection_state() != State::Connected {
                // It is made anew with the connection, if it is still known there; if not, that shows again.
                continue;
            }
            // The old one goes only when the new one is there.
            if let Ok(messages) = self.client.subscribe(self.subject.clone()).await {
                self.messages = messages;
                return;
            }
        }
    }

    fn pause(&self) -> Duration {
        (PAUSE * 2u32.pow(self.tries.min(5))).min(MOST)
    }
}

/// Does the server refuse this subscription?
fn about(complaint: &str, subject: &str) -> bool {
    let text = complaint.to_ascii_lowercase();
    text.contains("subscription to") && text.contains(&format!("\"{}\"", subject.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_is_about_the_subscription_that_it_names() {
        let text = "Permissions Violation for Subscription to \"watchdog.canary.>\"";
        assert!(about(text, "watchdog.canary.>"));
        assert!(!about(text, "watchdog.probe.iad-1"));
        assert!(!about(
            "Permissions Violation for Publish to \"watchdog.canary.>\"",
            "watchdog.canary.>"
        ));
    }
}
