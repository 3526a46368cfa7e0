//! Simulated sources: beacons of many hosts, made by the real wire form, into one real server.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use async_nats::{Client, ConnectOptions};
use futures_util::StreamExt;

use super::{LabError, Result};
use crate::core::{
    canary::beacon::Beacon,
    ids::{HostName, Region},
};

/// Answered by the sources, as agents do; an agent takes silence for a fault.
const PROBES: &str = "watchdog.probe.*";

/// How many sources speak how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Sources.
    pub sources: usize,
    /// Regions they are in, each a cluster.
    pub regions: usize,
    /// Time between two beacons of one source.
    pub interval: Duration,
}

/// Publishes until dropped, beacons spread evenly over the interval, probes answered.
///
/// # Errors
/// Where the server cannot be reached or ends the connection.
pub async fn run(load: Load, url: &str, user: &str, password: &str) -> Result<()> {
    let failed = |what: &str, why: String| LabError::Process {
        what: format!("{what} at {url}: {why}"),
    };
    let options = ConnectOptions::with_user_and_password(user.to_owned(), password.to_owned());
    let client = options.name("watchdog-lab load").connect(url).await;
    let client = client.map_err(|e| failed("connect", e.to_string()))?;
    let mut sources = (0..load.sources)
        .map(|n| source(n, &load))
        .collect::<Result<Vec<Beacon>>>()?;
    let names: BTreeSet<String> = sources.iter().map(|s| s.host.to_string()).collect();
    tokio::try_join!(
        answer_probes(&client, &names, failed),
        publish(&client, &mut sources, load.interval, failed)
    )?;
    Ok(())
}

async fn publish(
    client: &Client,
    sources: &mut [Beacon],
    interval: Duration,
    failed: impl Fn(&str, String) -> LabError,
) -> Result<()> {
    let begun = Instant::now();
    let count = f64::from(u32::try_from(sources.len()).unwrap_or(u32::MAX));
    for round in 0u32.. {
        for (n, beacon) in (0u32..).zip(sources.iter_mut()) {
            let due = interval * round + interval.mul_f64(f64::from(n) / count);
            // A timer tick is a millisecond: below that, beacons go out in small bunches.
            if let Some(wait) = due.checked_sub(begun.elapsed()).filter(|w| w.as_millis() > 0) {
                tokio::time::sleep(wait).await;
            }
            beacon.seq += 1;
            beacon.sent = unix().as_micros().try_into().unwrap_or(u64::MAX);
            let subject = Beacon::subject("watchdog", &beacon.region, &beacon.host);
            let sent = client.publish(subject, beacon.encode().into()).await;
            sent.map_err(|e| failed("publish", e.to_string()))?;
        }
    }
    Ok(())
}

async fn answer_probes(
    client: &Client,
    names: &BTreeSet<String>,
    failed: impl Fn(&str, String) -> LabError,
) -> Result<()> {
    let subscribed = client.subscribe(PROBES).await;
    let mut probes = subscribed.map_err(|e| failed("subscribe", e.to_string()))?;
    while let Some(probe) = probes.next().await {
        let target = probe.subject.rsplit('.').next().unwrap_or_default();
        let Some(reply) = probe.reply.clone().filter(|_| names.contains(target)) else {
            continue;
        };
        let answer = format!("{{\"host\":\"{target}\",\"hold_us\":1}}");
        let sent = client.publish(reply, answer.into()).await;
        sent.map_err(|e| failed("publish", e.to_string()))?;
    }
    Ok(())
}

/// As large as a real one: all that an agent says of its server is filled in.
fn source(n: usize, load: &Load) -> Result<Beacon> {
    let bad = |e: crate::core::ids::BadName| LabError::Spec(e.to_string());
    let region = format!("r{}", n % load.regions.max(1));
    let host = format!("{region}-{n}");
    Ok(Beacon {
        seq: 0,
        inc: unix().as_millis().try_into().unwrap_or(u64::MAX),
        interval: load.interval.as_millis().try_into().unwrap_or(u64::MAX),
        sent: 0,
        server_id: format!("N{n:055}"),
        server: format!("nats-{host}"),
        server_version: "2.10.26".to_owned(),
        route: format!("10.{}.{}.1:6222", n / 256, n % 256),
        gateway: format!("10.{}.{}.1:7222", n / 256, n % 256),
        hears: u32::try_from(load.sources).unwrap_or(u32::MAX),
        cluster: region.clone(),
        ..Beacon::new(HostName::new(&host).map_err(bad)?, Region::new(&region).map_err(bad)?)
    })
}

fn unix() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
