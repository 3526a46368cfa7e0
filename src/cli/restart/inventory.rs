//! Who is there: hosts by their beacons, then each one's own word.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Context;
use async_nats::{Client, Subscriber};
use futures_util::StreamExt;
use futures_util::stream;
use tokio::time::{Instant, timeout_at};

use crate::adapters::nats::control;
use crate::core::canary::beacon::Beacon;
use crate::core::control::{Answer, HostStatus, Verb};
use crate::core::ids::HostName;
use crate::core::rollout::Inventory;
use crate::core::rollout::plan::Found;

/// How long beacons are collected.
const LISTEN: Duration = Duration::from_secs(3);
/// How long at most, where agents know of more hosts than were heard (their interval may be stretched).
const LISTEN_LONGER: Duration = Duration::from_secs(10);
/// How long a host may take to answer.
const ANSWER: Duration = Duration::from_secs(2);
/// Hosts asked at a time.
const AT_ONCE: usize = 64;

/// Beacons as they come.
pub(in crate::cli) struct Beacons {
    prefix: String,
    messages: Subscriber,
}

impl Beacons {
    /// The next well-formed beacon; `None` when the client is closed. Safe to drop and call again.
    pub(super) async fn next(&mut self) -> Option<Beacon> {
        loop {
            let message = self.messages.next().await?;
            let read = Beacon::decode(&self.prefix, &message.subject, &message.payload);
            if let Ok((_, beacon)) = read {
                return Some(beacon);
            }
        }
    }
}

/// Begins to listen.
pub(in crate::cli) async fn listen(client: &Client, prefix: &str) -> anyhow::Result<Beacons> {
    let subject = format!("{prefix}.canary.>");
    let messages = client
        .subscribe(subject.clone())
        .await
        .with_context(|| format!("cannot subscribe to {subject}"))?;
    client
        .flush()
        .await
        .with_context(|| format!("cannot subscribe to {subject}"))?;
    Ok(Beacons {
        prefix: prefix.to_owned(),
        messages,
    })
}

/// Collects hosts and asks each for its status.
pub(in crate::cli) async fn take(client: &Client, prefix: &str, mut beacons: Beacons) -> (Inventory, Beacons) {
    let start = Instant::now();
    let mut heard: BTreeMap<HostName, Beacon> = BTreeMap::new();
    collect(&mut beacons, &mut heard, start + LISTEN, usize::MAX).await;
    let mut statuses = ask_all(client, prefix, heard.keys().cloned()).await;
    let known = statuses.values().map(|s| s.roster).max().unwrap_or(0);
    if heard.len() < known {
        collect(&mut beacons, &mut heard, start + LISTEN_LONGER, known).await;
        let new = heard.keys().filter(|h| !statuses.contains_key(*h)).cloned();
        statuses.extend(ask_all(client, prefix, new).await);
    }
    let inventory = heard
        .into_iter()
        .map(|(host, beacon)| {
            let status = statuses.remove(&host);
            let said = |of: fn(&HostStatus) -> &String, otherwise: String| {
                let text = status.as_ref().map(of).filter(|text| !text.is_empty());
                text.cloned().unwrap_or(otherwise)
            };
            let found = Found {
                region: beacon.region,
                cluster: said(|s| &s.cluster, beacon.cluster),
                version: said(|s| &s.version, beacon.server_version),
                status,
            };
            (host, found)
        })
        .collect();
    (inventory, beacons)
}

/// Who sends beacons.
pub(crate) async fn hosts(client: &Client, prefix: &str) -> anyhow::Result<BTreeSet<HostName>> {
    let mut beacons = listen(client, prefix).await?;
    let mut heard = BTreeMap::new();
    collect(&mut beacons, &mut heard, Instant::now() + LISTEN, usize::MAX).await;
    Ok(heard.into_keys().collect())
}

async fn collect(beacons: &mut Beacons, heard: &mut BTreeMap<HostName, Beacon>, until: Instant, enough: usize) {
    while heard.len() < enough
        && let Ok(Some(beacon)) = timeout_at(until, beacons.next()).await
    {
        if beacon.bye {
            heard.remove(&beacon.host);
        } else {
            heard.insert(beacon.host.clone(), beacon);
        }
    }
}

async fn ask_all(
    client: &Client,
    prefix: &str,
    hosts: impl Iterator<Item = HostName>,
) -> BTreeMap<HostName, HostStatus> {
    stream::iter(hosts)
        .map(|host| async move {
            match control::read(client, prefix, &host, Verb::Status, ANSWER).await {
                Ok(Answer::Status(status)) => Some((host, *status)),
                _ => None,
            }
        })
        .buffer_unordered(AT_ONCE)
        .filter_map(|found| async { found })
        .collect()
        .await
}
