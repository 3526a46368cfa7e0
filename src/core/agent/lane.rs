//! One lane: an account's connection, the paths heard on it, and what others report on it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::core::canary::beacon::{Beacon, Health};
use crate::core::canary::path::Path;
use crate::core::ids::{HostName, LaneName, Mono, Region};

/// What a host last said of its hearing.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// When it came.
    pub at: Mono,
    /// When the next is due at the latest.
    pub interval: Duration,
    /// Its own state.
    pub health: Health,
    /// Whom it does not hear.
    pub deaf: BTreeSet<HostName>,
    /// How many more it does not hear, in these regions.
    pub more: BTreeMap<Region, u32>,
    /// Who does not answer its probes.
    pub unanswered: BTreeSet<HostName>,
    /// Whom its server has no route to.
    pub unrouted: BTreeSet<HostName>,
}

impl Report {
    /// From a beacon.
    #[must_use]
    pub fn of(beacon: &Beacon, now: Mono) -> Self {
        Self {
            at: now,
            interval: Duration::from_millis(beacon.interval.clamp(50, 600_000)),
            health: beacon.health,
            deaf: beacon.deaf.iter().cloned().collect(),
            more: beacon.deaf_more.clone(),
            unanswered: beacon.unanswered.iter().cloned().collect(),
            unrouted: beacon.unrouted.iter().cloned().collect(),
        }
    }

    /// Nothing in it but its time is new.
    #[must_use]
    pub fn says_the_same(&self, other: &Self) -> bool {
        self.health == other.health
            && self.more == other.more
            && self.deaf == other.deaf
            && self.unanswered == other.unanswered
            && self.unrouted == other.unrouted
    }

    /// May it be believed about others now?
    #[must_use]
    pub fn credible(&self, now: Mono) -> bool {
        self.health == Health::Ok && now.since(self.at) < self.interval * 2
    }
}

/// One lane's state.
#[derive(Debug, Clone)]
pub struct Lane {
    /// Name.
    pub name: LaneName,
    /// Connected, since when; else why not.
    pub connected: Result<Mono, String>,
    /// Beacons sent: the next sequence is one more.
    pub sent: u64,
    /// The own beacon through the own server.
    pub own: Path,
    /// The delay of the last own beacon.
    pub self_loop: Option<Duration>,
    /// When beacons were sent, to time the self-loop.
    pub sent_at: BTreeMap<u64, Mono>,
    /// Sources.
    pub paths: BTreeMap<HostName, Path>,
    /// What they report.
    pub reports: BTreeMap<HostName, Report>,
    /// Not hearing itself: verdicts are frozen.
    pub deaf: bool,
}

impl Lane {
    /// Not connected yet.
    #[must_use]
    pub fn new(name: LaneName, now: Mono, interval: Duration) -> Self {
        Self {
            name,
            connected: Err("not connected yet".to_owned()),
            sent: 0,
            own: Path::new(now, interval),
            self_loop: None,
            sent_at: BTreeMap::new(),
            paths: BTreeMap::new(),
            reports: BTreeMap::new(),
            deaf: true,
        }
    }

    /// Does the lane carry the own beacon back in time?
    #[must_use]
    pub fn hears_itself(&self, now: Mono, interval: Duration) -> bool {
        self.connected.is_ok() && self.own.heard().is_some() && self.own.silence(now) <= interval.mul_f64(1.5)
    }

    /// Starts all silences anew.
    pub fn rebase(&mut self, now: Mono) {
        for path in self.paths.values_mut() {
            path.rebase(now);
        }
        self.reports.clear();
    }
}
