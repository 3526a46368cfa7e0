//! One lane: an account's connection, the paths heard on it, and what others report on it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::core::agent::by_host::ByHost;
use crate::core::agent::called::Called;
use crate::core::canary::beacon::{Beacon, Health, Mark, Source};
use crate::core::canary::path::{Counts, Path};
use crate::core::ids::{HostName, LaneName, Mono, Now, Region};
use crate::core::view::{HistogramView, Verdict};

/// Upper bounds of delay histograms, seconds.
const BOUNDS: [f64; 12] = [
    0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
];

/// What a host last said of its hearing.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// When it came.
    pub at: Mono,
    /// When the next is due at the latest.
    pub interval: Duration,
    /// Its own state.
    pub health: Health,
    /// How many sources it hears.
    hears: u32,
    /// How many it knows by others' word alone.
    hearsay: u32,
    mark: Mark,
    /// What it complains of; usually nothing.
    said: Option<Box<Said>>,
}

#[derive(Debug, Clone, PartialEq)]
struct Said {
    deaf: Vec<HostName>,
    more: BTreeMap<Region, u32>,
    unanswered: Vec<HostName>,
    unrouted: Vec<HostName>,
}

impl Report {
    /// From a beacon.
    #[must_use]
    pub fn of(beacon: &Beacon, now: Mono) -> Self {
        let mut report = Self {
            at: now,
            interval: Duration::ZERO,
            health: beacon.health,
            hears: beacon.hears,
            hearsay: beacon.hearsay,
            mark: Mark::default(),
            said: None,
        };
        report.renew(beacon, now);
        report
    }

    /// Takes in the next beacon of the same host; true if it says anything new.
    pub fn renew(&mut self, beacon: &Beacon, now: Mono) -> bool {
        self.at = now;
        self.interval = interval_of(beacon);
        (self.hears, self.hearsay) = (beacon.hears, beacon.hearsay);
        self.mark = beacon.mark;
        let mut new = std::mem::replace(&mut self.health, beacon.health) != beacon.health;
        if !self.says(beacon) {
            new = true;
            let quiet = beacon.deaf.is_empty()
                && beacon.deaf_more.is_empty()
                && beacon.unanswered.is_empty()
                && beacon.unrouted.is_empty();
            self.said = (!quiet).then(|| {
                Box::new(Said {
                    deaf: beacon.deaf.clone(),
                    more: beacon.deaf_more.clone(),
                    unanswered: beacon.unanswered.clone(),
                    unrouted: beacon.unrouted.clone(),
                })
            });
        }
        new
    }

    /// Does the beacon say nothing beyond what this report was made from?
    #[must_use]
    pub fn repeated_by(&self, beacon: &Beacon) -> bool {
        beacon.mark.repeats(self.mark)
    }

    /// Takes in a beacon that says nothing new.
    pub fn confirm(&mut self, beacon: &Beacon, now: Mono) {
        self.at = now;
        self.interval = interval_of(beacon);
        (self.hears, self.hearsay) = (beacon.hears, beacon.hearsay);
    }

    fn says(&self, b: &Beacon) -> bool {
        let more = |m: &BTreeMap<Region, u32>| m.len() == b.deaf_more.len() && m.iter().eq(b.deaf_more.iter());
        match &self.said {
            None => b.deaf.is_empty() && b.deaf_more.is_empty() && b.unanswered.is_empty() && b.unrouted.is_empty(),
            Some(s) => s.deaf == b.deaf && more(&s.more) && s.unanswered == b.unanswered && s.unrouted == b.unrouted,
        }
    }

    /// Whom it does not hear.
    #[must_use]
    pub fn deaf(&self) -> &[HostName] {
        self.said.as_ref().map_or(&[], |s| &s.deaf)
    }

    /// How many more it does not hear, in these regions.
    pub fn more(&self) -> impl Iterator<Item = (&Region, &u32)> {
        self.said.iter().flat_map(|s| &s.more)
    }

    /// Who does not answer its probes.
    #[must_use]
    pub fn unanswered(&self) -> &[HostName] {
        self.said.as_ref().map_or(&[], |s| &s.unanswered)
    }

    /// Whom its server has no route to.
    #[must_use]
    pub fn unrouted(&self) -> &[HostName] {
        self.said.as_ref().map_or(&[], |s| &s.unrouted)
    }

    /// It complains of nobody.
    #[must_use]
    pub fn is_content(&self) -> bool {
        self.said.is_none()
    }

    /// Hosts that it hears or misses by what it heard itself. Others have left, as far as it knows.
    #[must_use]
    pub fn knows(&self) -> usize {
        let more = self.more().fold(0_u32, |sum, (_, n)| sum.saturating_add(*n));
        let missed = (more as usize).saturating_add(self.deaf().len());
        (self.hears as usize).saturating_add(missed.saturating_sub(self.hearsay as usize))
    }

    /// How many of those that it misses it knows by others' word alone.
    #[must_use]
    pub fn hearsay(&self) -> u32 {
        self.hearsay
    }

    /// May it be believed about others now?
    #[must_use]
    pub fn credible(&self, now: Mono) -> bool {
        self.health == Health::Ok && now.since(self.at) < self.interval * 2
    }
}

/// When the next beacon is due, within reason.
fn interval_of(beacon: &Beacon) -> Duration {
    Duration::from_millis(beacon.interval.clamp(50, 600_000))
}

/// Does a change of a verdict say anything of its source? Late is well: that a beacon is overdue is held against nobody.
#[must_use]
pub fn is_turn(before: Verdict, after: Verdict) -> bool {
    let well = |v| if v == Verdict::Late { Verdict::Ok } else { v };
    well(before) != well(after)
}

/// A histogram of delays.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Delays {
    counts: [u64; BOUNDS.len() + 1],
    sum: f64,
}

impl Delays {
    /// Counts one by two hosts' clocks; a negative one is skew, not delay.
    #[allow(clippy::cast_precision_loss, reason = "microseconds of a delay")]
    pub fn observe_micros(&mut self, micros: i64) {
        if micros >= 0 {
            self.observe(micros as f64 / 1e6);
        }
    }

    /// Counts one, in seconds.
    pub fn observe(&mut self, value: f64) {
        // All bounds are looked at: that has no branch to guess wrong.
        let bucket: usize = BOUNDS.iter().map(|b| usize::from(value > *b)).sum();
        self.counts[bucket] += 1;
        self.sum += value;
    }

    /// For readers.
    #[must_use]
    pub fn view(&self) -> HistogramView {
        HistogramView {
            bounds: BOUNDS.to_vec(),
            counts: self.counts.to_vec(),
            sum: self.sum,
        }
    }
}

/// What was counted of one region on one lane.
#[derive(Debug, Clone, Default)]
pub struct RegionStats {
    /// Of sources that are forgotten.
    pub gone: Counts,
    /// One-way delays.
    pub one_way: Delays,
    /// Round trips.
    pub rtt: Delays,
    /// The last one.
    pub last_rtt: Option<Duration>,
    /// Failed probes by reason.
    pub failures: BTreeMap<&'static str, u64>,
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
    pub paths: ByHost<Path>,
    /// Counts changes of what verdicts say of a source, and of who is one.
    pub turns: u64,
    /// Before this, time changes no verdict.
    pub due: Mono,
    /// What they report.
    pub reports: ByHost<Report>,
    /// Hosts that hear fewer hosts than this one and do not miss them, since when.
    pub fewer: BTreeMap<HostName, Mono>,
    /// Hosts that others hear and this one does not know of.
    pub called: BTreeMap<HostName, Called>,
    /// Regions ever heard; they are few and never go.
    pub regions: Vec<(Region, RegionStats)>,
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
            paths: ByHost::default(),
            turns: 0,
            due: Mono::default(),
            reports: ByHost::default(),
            fewer: BTreeMap::new(),
            called: BTreeMap::new(),
            regions: Vec::new(),
            deaf: true,
        }
    }

    /// Does the lane carry the own beacon back in time?
    #[must_use]
    pub fn hears_itself(&self, now: Mono, interval: Duration) -> bool {
        self.connected.is_ok() && self.own.heard().is_some() && self.own.silence(now) <= interval + interval / 2
    }

    /// Connected, and nothing comes back, not even the own beacon: what is missed of others says nothing of them.
    #[must_use]
    pub fn deaf(&self, now: Mono, after: Duration) -> bool {
        self.connected.is_ok() && self.own.heard().is_some() && self.own.silence(now) >= after
    }

    /// Hosts that have not left: as many as one of them hears or misses, its own beacon not counted but this host's.
    #[must_use]
    pub fn present(&self) -> usize {
        self.paths.values().filter(|p| p.verdict != Verdict::Departed).count()
    }

    /// Starts all silences anew.
    pub fn rebase(&mut self, now: Mono) {
        for (_, path) in self.paths.iter_mut() {
            path.rebase(now);
        }
        self.turns += 1;
        self.due = Mono::default();
        self.reports.clear();
        self.fewer.clear();
        self.rebase_called(now);
    }

    /// Takes in the next beacon of a known source that is well and says nothing new, as nearly all are; false if it is not
    /// such a one, and nothing was done.
    pub fn steady(&mut self, source: &Source, beacon: &Beacon, now: Now, stall_after: u32) -> bool {
        let Some(at) = self.paths.position(&source.host) else {
            return false;
        };
        let Some(path) = self
            .paths
            .at_mut(at)
            .filter(|p| p.verdict == Verdict::Ok && p.awaits(beacon))
        else {
            return false;
        };
        let stats = self.regions.get_mut(path.tally as usize);
        let Some((_, stats)) = stats.filter(|(region, _)| *region == source.region) else {
            return false;
        };
        let report = self.reports.position_near(Some(at), &source.host);
        let Some(report) = report.and_then(|i| self.reports.at_mut(i)) else {
            return false;
        };
        if !report.repeated_by(beacon) {
            return false;
        }
        report.confirm(beacon, now.mono);
        path.on_beacon(beacon, now, stall_after);
        self.due = self.due.min(path.due(stall_after));
        if let Some(micros) = path.one_way_micros {
            stats.one_way.observe_micros(micros);
        }
        true
    }

    /// What is counted of a region; a right `hint` spares the search and is mended where it was wrong.
    pub fn stats(&mut self, hint: &mut u32, region: &Region) -> &mut RegionStats {
        let right = |i: usize, regions: &[(Region, RegionStats)]| regions.get(i).is_some_and(|(r, _)| r == region);
        let mut at = *hint as usize;
        if !right(at, &self.regions) {
            at = self
                .regions
                .iter()
                .position(|(r, _)| r == region)
                .unwrap_or(self.regions.len());
            if at == self.regions.len() {
                self.regions.push((region.clone(), RegionStats::default()));
            }
            *hint = u32::try_from(at).unwrap_or(u32::MAX);
        }
        &mut self.regions[at].1
    }
}
