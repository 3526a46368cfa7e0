//! Clients at work all the time, through a driver that reconnects, and what of their messages was lost to whom; a look
//! at every server's port all the time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_nats::{Client, ConnectOptions, Event, ServerAddr};
use futures_util::StreamExt;
use nats_watchdog::lab::Lab;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// Around the time that a client was without its server, its messages may be lost: what was under way, and interest that
/// has to travel again.
const MARGIN: Duration = Duration::from_secs(2);
const GAP: Duration = Duration::from_millis(20);

/// From when to when; the last may not have ended.
type Outage = (Instant, Option<Instant>);

#[derive(Clone, Default)]
struct Outages(Arc<Mutex<Vec<Outage>>>);

impl Outages {
    fn event(&self, event: &Event) {
        let mut all = self.0.lock().unwrap();
        match event {
            Event::Disconnected => all.push((Instant::now(), None)),
            Event::Connected => {
                if let Some((_, end @ None)) = all.last_mut() {
                    *end = Some(Instant::now());
                }
            }
            _ => {}
        }
    }

    fn cover(&self, at: Instant) -> bool {
        self.0
            .lock()
            .unwrap()
            .iter()
            .any(|(start, end)| at + MARGIN >= *start && end.is_none_or(|end| at <= end + MARGIN))
    }

    fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

/// A client that stays in its region.
async fn client(lab: &Lab, region: &str, first: usize) -> (Client, Outages) {
    let hosts: Vec<_> = lab.hosts().iter().filter(|h| h.region == region).collect();
    let servers: Vec<ServerAddr> = (0..hosts.len())
        .map(|i| hosts[(first + i) % hosts.len()].client_url.parse().unwrap())
        .collect();
    let outages = Outages::default();
    let note = outages.clone();
    let client = ConnectOptions::with_user_and_password("watchdog".into(), "watchdog".into())
        .retain_servers_order()
        .ignore_discovered_servers()
        .reconnect_delay_callback(|_| Duration::from_millis(50))
        .event_callback(move |event| {
            note.event(&event);
            async {}
        })
        .connect(servers)
        .await
        .unwrap();
    (client, outages)
}

type Sent = Arc<Mutex<BTreeMap<u64, Instant>>>;
type Heard = Arc<Mutex<BTreeMap<(usize, u64), u32>>>;

/// Publishers and subscribers, one each per region.
pub(crate) struct Traffic {
    stop: Arc<AtomicBool>,
    publishers: Vec<(JoinHandle<()>, Outages, Sent)>,
    subscribers: Vec<(JoinHandle<()>, Outages, Heard)>,
}

/// What became of the messages.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) due: usize,
    pub(crate) lost: usize,
    /// Of those, the ones of clients that were without their server: the one that was restarted.
    pub(crate) lost_of_moved_clients: usize,
    /// Of those, the ones that went over a gateway while some server was down, and neither whose publisher nor whose
    /// subscriber was without its server: the gateway ended at the one that was restarted.
    pub(crate) lost_by_gateways: usize,
    /// Lost, and none of this holds.
    pub(crate) lost_without_reason: usize,
    pub(crate) disconnects: usize,
}

impl Traffic {
    pub(crate) async fn start(lab: &Lab) -> Self {
        let regions: BTreeSet<&str> = lab.hosts().iter().map(|h| h.region.as_str()).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let mut subscribers = Vec::new();
        for region in &regions {
            let (client, outages) = client(lab, region, 1).await;
            let mut messages = client.subscribe("work.>").await.unwrap();
            client.flush().await.unwrap();
            let heard = Heard::default();
            let note = heard.clone();
            let task = tokio::spawn(async move {
                let _client = client;
                while let Some(message) = messages.next().await {
                    let publisher = message.subject.rsplit('.').next().unwrap().parse().unwrap();
                    let number = std::str::from_utf8(&message.payload).unwrap().parse().unwrap();
                    *note.lock().unwrap().entry((publisher, number)).or_default() += 1;
                }
            });
            subscribers.push((task, outages, heard));
        }
        // Interest travels to the other clusters.
        sleep(Duration::from_secs(2)).await;
        let mut publishers = Vec::new();
        for (i, region) in regions.iter().enumerate() {
            let (client, outages) = client(lab, region, 0).await;
            let sent = Sent::default();
            let (note, stop) = (sent.clone(), stop.clone());
            let task = tokio::spawn(async move {
                let mut number = 0_u64;
                while !stop.load(Ordering::Relaxed) {
                    number += 1;
                    let payload = number.to_string();
                    if client.publish(format!("work.{i}"), payload.into()).await.is_ok() {
                        note.lock().unwrap().insert(number, Instant::now());
                    }
                    sleep(GAP).await;
                }
                let _ = client.flush().await;
            });
            publishers.push((task, outages, sent));
        }
        Self {
            stop,
            publishers,
            subscribers,
        }
    }

    /// `down` = when some server was seen down.
    pub(crate) async fn end(self, down: &BTreeSet<Instant>) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let mut publishers = Vec::new();
        for (task, outages, sent) in self.publishers {
            task.await.unwrap();
            publishers.push((outages, sent));
        }
        sleep(Duration::from_secs(2)).await;
        let mut tally = Tally::default();
        for (outages, _) in &publishers {
            tally.disconnects += outages.count();
        }
        for (to, (task, outages, heard)) in self.subscribers.into_iter().enumerate() {
            task.abort();
            tally.disconnects += outages.count();
            let heard = heard.lock().unwrap();
            for (i, (own, sent)) in publishers.iter().enumerate() {
                for (number, at) in sent.lock().unwrap().iter() {
                    tally.due += 1;
                    if !heard.contains_key(&(i, *number)) {
                        tally.lost += 1;
                        if own.cover(*at) || outages.cover(*at) {
                            tally.lost_of_moved_clients += 1;
                            continue;
                        }
                        let some_down = down.range(*at - MARGIN..*at + MARGIN).next().is_some();
                        if to != i && some_down {
                            tally.lost_by_gateways += 1;
                        } else {
                            tally.lost_without_reason += 1;
                        }
                    }
                }
            }
        }
        tally
    }
}

/// Looks at every server's client port all the time; the most that were down at once, and when a look saw one down.
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    task: JoinHandle<(usize, BTreeSet<Instant>)>,
}

impl Watch {
    pub(crate) fn start(lab: &Lab) -> Self {
        let addresses: Vec<String> = lab
            .hosts()
            .iter()
            .map(|h| h.client_url.trim_start_matches("nats://").to_owned())
            .collect();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let (mut most, mut looks) = (0, BTreeSet::new());
            while !stopped.load(Ordering::Relaxed) {
                let all = futures_util::future::join_all(addresses.iter().map(TcpStream::connect)).await;
                let down = all.iter().filter(|c| c.is_err()).count();
                most = most.max(down);
                if down > 0 {
                    looks.insert(Instant::now());
                }
                // Each look is a connection, and each connection is system events: not many a second.
                sleep(Duration::from_millis(200)).await;
            }
            (most, looks)
        });
        Self { stop, task }
    }

    pub(crate) async fn end(self) -> (usize, BTreeSet<Instant>) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap()
    }
}
