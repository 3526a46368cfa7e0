//! The beacon: what one agent tells all others once per interval, and its wire form.
//!
//! Lives here: the JSON form, its version and size limits. Not here: what a receiver makes of it (`tracker`).
//! The subject says who sent it, since NATS permissions bind subjects to hosts; a payload that disagrees is
//! [`BeaconError::Lying`].

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde::{Deserialize, Serialize};

use crate::core::ids::{HostName, Region};

/// Version of the wire form written by this build. A higher one is counted and ignored.
pub const VERSION: u32 = 1;
/// Largest accepted payload, in bytes.
pub const MAX_BYTES: usize = 8 * 1024;
/// Most hosts a hearing report names; the rest is counted per region.
pub const MAX_LISTED: usize = 24;
/// Most hosts that a beacon names as heard, see [`Beacon::names`].
pub const MAX_NAMED: usize = 8;
/// Most remote clusters of which a beacon says where the sender's gateway leads.
pub const MAX_GATEWAYS: usize = 64;

/// Who a message came from, according to its subject.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Source {
    /// The region token of the subject.
    pub region: Region,
    /// The host token of the subject.
    pub host: HostName,
}

/// The sender's own state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// Just started or just reconnected: what it says about others is not evidence yet.
    #[default]
    Warming,
    /// Speaks for others.
    Ok,
    /// Slow or cut off by its own account; not to be believed about others.
    Sick,
    /// Its server is being restarted by its agent.
    Restarting,
    /// Its server is a lame duck.
    LameDuck,
}

/// A brownout at the sender's host, while it is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Brownout {
    /// Seconds since it began.
    #[serde(default)]
    pub since: u64,
    /// Its score in percent; 100 is where one begins.
    #[serde(default)]
    pub score: u64,
}

/// A host that the sender hears.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Named {
    /// Who.
    pub host: HostName,
    /// Where.
    pub region: Region,
    /// Cluster of its server, as in [`Beacon::cluster`].
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cluster: String,
    /// Its process, as in [`Beacon::inc`].
    pub inc: u64,
}

/// One beacon. Times are Unix milliseconds, durations milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beacon {
    /// Wire version, see [`VERSION`].
    pub v: u32,
    /// Sender; must agree with the subject.
    pub host: HostName,
    /// Sender's region; must agree with the subject.
    pub region: Region,
    /// Counts up by one per beacon within one incarnation, from 1.
    pub seq: u64,
    /// The sender's process: Unix milliseconds of its start times 4096 and a random part. A new one resets the sequence.
    pub inc: u64,
    /// Milliseconds until the next beacon is due.
    pub interval: u64,
    /// When it was sent by the sender's clock, Unix microseconds.
    pub sent: u64,
    /// `server_id` of the sender's server; empty until known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub server_id: String,
    /// `server_name` of the sender's server.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub server: String,
    /// Version of the sender's server.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub server_version: String,
    /// Cluster of the sender's server; empty = no cluster or unknown.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cluster: String,
    /// `host:port` where the sender's server takes routes; empty = unknown.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub route: String,
    /// `host:port` where the sender's server takes gateways; empty = none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub gateway: String,
    /// Where the sender's messages enter other clusters: cluster to the host to whose server its gateway leads.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub gateways: BTreeMap<String, HostName>,
    /// The sender's state.
    #[serde(default)]
    pub health: Health,
    /// Hosts whose beacons the sender does not get on this lane: the hearing report.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deaf: Vec<HostName>,
    /// What did not fit into `deaf`, counted per region.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub deaf_more: BTreeMap<Region, u32>,
    /// Hosts whose beacons come but whose probes are not answered: new interest does not travel.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unanswered: Vec<HostName>,
    /// Hosts of the sender's cluster that its server has no route to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unrouted: Vec<HostName>,
    /// The sender's host sees a brownout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub brownout: Option<Brownout>,
    /// How many sources the sender hears on this lane.
    #[serde(default)]
    pub hears: u32,
    /// How many of those that it does not hear it knows by others' word alone, from [`Beacon::names`].
    #[serde(default, skip_serializing_if = "is_zero")]
    pub hearsay: u32,
    /// Hosts that the sender hears well, [`MAX_NAMED`] in turn, while somebody knows fewer hosts than it does: who does
    /// not hear them learns that it should.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<Named>,
    /// The sender leaves in order; its silence from here on is no fault.
    #[serde(default, skip_serializing_if = "is_false")]
    pub bye: bool,
    /// See [`Beacon::sealed`].
    #[serde(skip)]
    pub mark: Mark,
}

/// A fingerprint of what a beacon says beyond its count, so that a receiver sees at a glance that nothing is new. Zero =
/// not taken. It follows from the rest, so it tells no two beacons apart.
#[derive(Debug, Clone, Copy, Default)]
pub struct Mark(u64);

impl Mark {
    /// Both taken, and the same.
    #[must_use]
    pub fn repeats(self, before: Mark) -> bool {
        self.0 != 0 && self.0 == before.0
    }
}

impl PartialEq for Mark {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Mark {}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
fn is_false(b: &bool) -> bool {
    !b
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// Why a beacon was dropped. Counted by [`BeaconError::reason`], never fatal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BeaconError {
    /// Not `…canary.<region>.<host>`.
    #[error("subject {0:?} is not a canary subject")]
    Subject(String),
    /// Larger than [`MAX_BYTES`].
    #[error("beacon of {0} bytes, at most {MAX_BYTES} are read")]
    TooLarge(usize),
    /// A newer agent speaks.
    #[error("beacon of wire version {0}, this agent reads up to {VERSION}; upgrade it")]
    FutureVersion(u32),
    /// Not JSON or not of this shape.
    #[error("malformed beacon: {0}")]
    Malformed(String),
    /// Subject and payload name different senders.
    #[error("beacon on the subject of {subject} claims to be {claimed}")]
    Lying {
        /// Host by the subject.
        subject: HostName,
        /// Host by the payload.
        claimed: HostName,
    },
}

impl BeaconError {
    /// A short constant for a metric label.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Subject(_) => "subject",
            Self::TooLarge(_) => "too_large",
            Self::FutureVersion(_) => "future_version",
            Self::Malformed(_) => "malformed",
            Self::Lying { .. } => "lying",
        }
    }
}

impl Beacon {
    /// The first beacon of a sender that says nothing beyond its name and promises one a second.
    #[must_use]
    pub fn new(host: HostName, region: Region) -> Self {
        Self {
            v: VERSION,
            host,
            region,
            seq: 1,
            inc: 1,
            interval: 1000,
            sent: 1,
            server_id: String::new(),
            server: String::new(),
            server_version: String::new(),
            cluster: String::new(),
            route: String::new(),
            gateway: String::new(),
            gateways: BTreeMap::new(),
            health: Health::Ok,
            deaf: Vec::new(),
            deaf_more: BTreeMap::new(),
            unanswered: Vec::new(),
            unrouted: Vec::new(),
            brownout: None,
            hears: 0,
            hearsay: 0,
            names: Vec::new(),
            bye: false,
            mark: Mark::default(),
        }
    }

    /// With its mark taken; to be called last, since whoever sees a mark that it knows looks at nothing else.
    #[must_use]
    pub fn sealed(mut self) -> Self {
        let mut hasher = DefaultHasher::new();
        let server = (&self.server_id, &self.server, &self.server_version, &self.cluster);
        let places = (&self.route, &self.gateway, &self.gateways);
        let report = (&self.deaf, &self.deaf_more, &self.unanswered, &self.unrouted);
        (server, places, report, self.health, self.brownout).hash(&mut hasher);
        // Names are for a while only, and each time they are said counts.
        let mark = Mark(hasher.finish() | 1);
        self.mark = if self.names.is_empty() { mark } else { Mark::default() };
        self
    }

    /// The subject this beacon is published on.
    #[must_use]
    pub fn subject(prefix: &str, region: &Region, host: &HostName) -> String {
        format!("{prefix}.canary.{region}.{host}")
    }

    /// The wire form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads a message that came on `subject`.
    ///
    /// # Errors
    /// See [`BeaconError`]; the message is to be dropped and counted.
    pub fn decode(prefix: &str, subject: &str, payload: &[u8]) -> Result<(Source, Self), BeaconError> {
        let source = source_of(prefix, subject)?;
        if payload.len() > MAX_BYTES {
            return Err(BeaconError::TooLarge(payload.len()));
        }
        let beacon: Self = match serde_json::from_slice(payload) {
            Ok(beacon) => beacon,
            Err(e) => return Err(version_or(payload, &e)),
        };
        if beacon.v > VERSION {
            return Err(BeaconError::FutureVersion(beacon.v));
        }
        if beacon.host != source.host || beacon.region != source.region {
            return Err(BeaconError::Lying {
                subject: source.host,
                claimed: beacon.host,
            });
        }
        if beacon.interval == 0 || beacon.seq == 0 {
            return Err(BeaconError::Malformed("interval and seq must be at least 1".to_owned()));
        }
        Ok((source, beacon.sealed()))
    }
}

fn version_or(payload: &[u8], e: &serde_json::Error) -> BeaconError {
    #[derive(Deserialize)]
    struct Version {
        v: u32,
    }
    match serde_json::from_slice::<Version>(payload) {
        Ok(Version { v }) if v > VERSION => BeaconError::FutureVersion(v),
        _ => BeaconError::Malformed(e.to_string()),
    }
}

fn source_of(prefix: &str, subject: &str) -> Result<Source, BeaconError> {
    let bad = || BeaconError::Subject(subject.to_owned());
    let (region, host) = subject
        .strip_prefix(prefix)
        .and_then(|rest| rest.strip_prefix(".canary."))
        .and_then(|rest| rest.split_once('.'))
        .ok_or_else(bad)?;
    Ok(Source {
        region: Region::new(region).map_err(|_| bad())?,
        host: HostName::new(host).map_err(|_| bad())?,
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn beacon(host: &str, region: &str, seq: u64) -> Beacon {
        Beacon {
            seq,
            ..Beacon::new(HostName::new(host).unwrap(), Region::new(region).unwrap())
        }
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        let b = beacon("iad-1", "iad", 7);
        let (source, read) = Beacon::decode("watchdog", "watchdog.canary.iad.iad-1", &b.encode()).unwrap();
        assert_eq!(read, b);
        assert_eq!(source.host.as_str(), "iad-1");
    }

    #[test]
    fn a_mark_is_repeated_by_the_next_beacon_and_by_none_that_says_more() {
        let one = beacon("iad-1", "iad", 7).sealed();
        let mut next = beacon("iad-1", "iad", 8);
        assert!(
            !next.mark.repeats(one.mark) && !one.mark.repeats(next.mark),
            "not taken"
        );
        next.sent = 5;
        assert!(next.clone().sealed().mark.repeats(one.mark));
        let host = || HostName::new("fra-1").unwrap();
        let more: [fn(&mut Beacon, HostName); 7] = [
            |b, host| {
                b.names.push(Named {
                    region: b.region.clone(),
                    cluster: String::new(),
                    inc: 3,
                    host,
                });
            },
            |b, h| b.deaf.push(h),
            |b, h| b.unrouted.push(h),
            |b, h| b.unanswered.push(h),
            |b, h| drop(b.gateways.insert("fra".to_owned(), h)),
            |b, _| b.health = Health::Sick,
            |b, _| b.route.push('x'),
        ];
        for say in more {
            let mut other = next.clone();
            say(&mut other, host());
            assert!(!other.sealed().mark.repeats(one.mark));
        }
    }

    #[test]
    fn a_beacon_that_claims_another_sender_is_a_lie() {
        let b = beacon("iad-1", "iad", 7);
        let e = Beacon::decode("watchdog", "watchdog.canary.iad.iad-2", &b.encode()).unwrap_err();
        assert_eq!(e.reason(), "lying");
        let e = Beacon::decode("watchdog", "watchdog.canary.fra.iad-1", &b.encode()).unwrap_err();
        assert_eq!(e.reason(), "lying");
    }

    #[test]
    fn garbage_giants_and_the_future_are_told_apart() {
        let read = |p: &[u8]| {
            Beacon::decode("watchdog", "watchdog.canary.iad.iad-1", p)
                .unwrap_err()
                .reason()
        };
        assert_eq!(read(b"\xff\x00"), "malformed");
        assert_eq!(read(b"{}"), "malformed");
        assert_eq!(read(&vec![b' '; MAX_BYTES + 1]), "too_large");
        assert_eq!(read(br#"{"v":2,"shape":"unknown"}"#), "future_version");
        let mut zero = beacon("iad-1", "iad", 1);
        zero.interval = 0;
        assert_eq!(read(&zero.encode()), "malformed");
    }

    #[test]
    fn a_strange_subject_is_no_canary() {
        for s in [
            "watchdog.canary.iad",
            "watchdog.canary.iad.a.b",
            "other.canary.iad.x",
            "watchdogcanary.iad.x",
        ] {
            assert!(
                matches!(Beacon::decode("watchdog", s, b"{}"), Err(BeaconError::Subject(_))),
                "{s}"
            );
        }
    }
}
