//! A publisher on one host and a subscriber on another: when messages stopped and when they flowed again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use async_nats::{ConnectOptions, Event, Subscriber};
use futures_util::StreamExt;
use tokio::{sync::mpsc, task::JoinHandle};

use super::{Host, LabError, Result};

const EVERY: Duration = Duration::from_millis(20);

/// A numbered message every 20 ms from one host to another, for as long as it lives.
#[derive(Debug)]
pub struct Flow {
    arrivals: mpsc::UnboundedReceiver<(u64, Instant)>,
    seen: Vec<(u64, Instant)>,
    disconnects: Arc<AtomicU64>,
    tasks: [JoinHandle<()>; 2],
}

/// The longest silence of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The last arrival before.
    pub stopped: Instant,
    /// The first arrival after.
    pub resumed: Instant,
    /// How many messages never came.
    pub lost: u64,
}

impl Flow {
    /// Subscribes on `to`, publishes on `from`, and waits for the first message.
    ///
    /// # Errors
    /// Where a client cannot connect, or nothing arrives within ten seconds.
    pub async fn start(from: &Host, to: &Host) -> Result<Self> {
        let disconnects = Arc::new(AtomicU64::new(0));
        let publisher = connect(from, &disconnects).await?;
        let listener = connect(to, &disconnects).await?;
        let failed = |source| LabError::socket("subscribe at", &to.client_url)(std::io::Error::other(source));
        let subject = listener.new_inbox();
        let subscriber: Subscriber = listener
            .subscribe(subject.clone())
            .await
            .map_err(|error| failed(error.to_string()))?;
        listener.flush().await.map_err(|error| failed(error.to_string()))?;
        let (sender, arrivals) = mpsc::unbounded_channel();
        let hear = async move {
            let mut messages = subscriber;
            while let Some(message) = messages.next().await {
                let number = std::str::from_utf8(&message.payload)
                    .ok()
                    .and_then(|text| text.parse().ok());
                if number.is_none_or(|number| sender.send((number, Instant::now())).is_err()) {
                    return;
                }
            }
            drop(listener);
        };
        let speak = async move {
            let mut ticks = tokio::time::interval(EVERY);
            for number in 0_u64.. {
                ticks.tick().await;
                if publisher
                    .publish(subject.clone(), number.to_string().into())
                    .await
                    .is_err()
                {
                    return;
                }
            }
        };
        let tasks = [tokio::spawn(hear), tokio::spawn(speak)];
        let mut flow = Self {
            arrivals,
            seen: Vec::new(),
            disconnects,
            tasks,
        };
        match tokio::time::timeout(Duration::from_secs(10), flow.arrivals.recv()).await {
            Ok(Some(first)) => flow.seen.push(first),
            _ => {
                let what = format!("no message gets from {} to {}", from.name, to.name);
                return Err(LabError::NothingToFault { what });
            }
        }
        Ok(flow)
    }

    /// The longest silence that ended after `since`, if one was longer than `least`.
    pub fn gap(&mut self, since: Instant, least: Duration) -> Option<Gap> {
        while let Ok(arrival) = self.arrivals.try_recv() {
            self.seen.push(arrival);
        }
        let gap = |pair: &[(u64, Instant)]| Gap {
            stopped: pair[0].1,
            resumed: pair[1].1,
            lost: pair[1].0.saturating_sub(pair[0].0 + 1),
        };
        let gaps = self.seen.windows(2).map(gap).filter(|gap| gap.resumed >= since);
        gaps.max_by_key(|gap| gap.resumed - gap.stopped)
            .filter(|gap| gap.resumed - gap.stopped > least)
    }

    /// How often one of the two clients lost its server.
    #[must_use]
    pub fn disconnects(&self) -> u64 {
        self.disconnects.load(Ordering::Relaxed)
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn connect(host: &Host, disconnects: &Arc<AtomicU64>) -> Result<async_nats::Client> {
    let disconnects = disconnects.clone();
    let options = ConnectOptions::with_user_and_password("watchdog".into(), "watchdog".into())
        .ignore_discovered_servers()
        .event_callback(move |event| {
            if event == Event::Disconnected {
                disconnects.fetch_add(1, Ordering::Relaxed);
            }
            async {}
        });
    let connected = options.connect(&host.client_url).await;
    connected.map_err(|error| LabError::socket("connect to", &host.client_url)(std::io::Error::other(error)))
}
