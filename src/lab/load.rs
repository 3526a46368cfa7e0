//! Beacons of many hosts that are not there, into one real server: what an agent pays in a large mesh.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_nats::ConnectOptions;

use super::{LabError, Result};
use crate::core::{
    canary::beacon::{Beacon, Health, VERSION},
    ids::{HostName, Region},
};

/// Whose beacons to send, where and for how long.
#[derive(Debug, Clone)]
pub struct Load {
    /// Where to: `nats://ip:port`.
    pub url: String,
    /// The user.
    pub user: String,
    /// The password.
    pub password: String,
    /// How many hosts.
    pub sources: usize,
    /// Spread over how many regions.
    pub regions: usize,
    /// Between two beacons of one host.
    pub interval: Duration,
    /// For how long.
    pub duration: Duration,
}

/// Sends at an even pace; how many beacons were sent, and in what time.
///
/// # Errors
/// Where the server cannot be reached or takes no more.
pub async fn load(load: &Load) -> Result<(u64, Duration)> {
    let failed = |error: String| LabError::socket("send beacons to", &load.url)(std::io::Error::other(error));
    let options = ConnectOptions::with_user_and_password(load.user.clone(), load.password.clone());
    let client = options
        .connect(&load.url)
        .await
        .map_err(|error| failed(error.to_string()))?;
    let sources = (0..load.sources)
        .map(|n| source(n, load.regions))
        .collect::<Result<Vec<_>>>()?;
    let subjects: Vec<String> = sources
        .iter()
        .map(|(region, host)| Beacon::subject("watchdog", region, host))
        .collect();
    let (start, inc) = (Instant::now(), unix_micros() / 1000);
    let (mut sent, mut tick) = (0, tokio::time::interval(Duration::from_millis(5)));
    while start.elapsed() < load.duration {
        tick.tick().await;
        let due = start.elapsed().as_secs_f64() / load.interval.as_secs_f64() * sources.len() as f64;
        while (sent as f64) < due {
            let (round, n) = (sent / sources.len() as u64, sent as usize % sources.len());
            let (region, host) = &sources[n];
            let payload = beacon(region, host, round + 1, inc, load.interval, sources.len());
            let published = client.publish(subjects[n].clone(), payload.into()).await;
            published.map_err(|error| failed(error.to_string()))?;
            sent += 1;
        }
    }
    client.flush().await.map_err(|error| failed(error.to_string()))?;
    Ok((sent, start.elapsed()))
}

fn source(n: usize, regions: usize) -> Result<(Region, HostName)> {
    let (region, number) = (n % regions.max(1), n / regions.max(1) + 1);
    let region = format!("load{region:02}");
    let host = format!("{region}-{number}");
    let name = |error| LabError::Spec(format!("name of a simulated host: {error}"));
    Ok((Region::new(&region).map_err(name)?, HostName::new(&host).map_err(name)?))
}

fn beacon(region: &Region, host: &HostName, seq: u64, inc: u64, interval: Duration, hears: usize) -> Vec<u8> {
    let beacon = Beacon {
        v: VERSION,
        host: host.clone(),
        region: region.clone(),
        seq,
        inc,
        interval: u64::try_from(interval.as_millis()).unwrap_or(u64::MAX),
        sent: unix_micros(),
        server_id: format!("N{:A<55}", host.as_str().to_uppercase()),
        server: host.to_string(),
        server_version: "2.15.1".to_owned(),
        cluster: region.to_string(),
        route: String::new(),
        gateway: String::new(),
        health: Health::Ok,
        deaf: Vec::new(),
        deaf_more: Default::default(),
        unanswered: Vec::new(),
        unrouted: Vec::new(),
        hears: u32::try_from(hears).unwrap_or(u32::MAX),
        bye: false,
    };
    beacon.encode()
}

fn unix_micros() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
