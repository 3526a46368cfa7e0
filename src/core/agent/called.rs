//! Hosts that others hear and this one does not know of.
//!
//! Silence is a fault only of who was heard before. A host that comes back after a goodbye, or is new, and from which
//! nothing passes from the start, is missed by nobody behind the stall. Two counts show it: a report says how many hosts
//! its sender knows. Who knows more names those that it hears, some with each beacon, until the counts agree; who is told
//! of a host by two others, or by the only other one, over as long as a stall takes, expects it until they name it no
//! more. That is enough for a fault and for a reset of connections; no server, neither its own nor that of the host that
//! is missed, is restarted for it.

use std::sync::Arc;
use std::time::Duration;

use crate::core::agent::event::Action;
use crate::core::agent::lane::Lane;
use crate::core::agent::{Core, Member};
use crate::core::canary::beacon::{Beacon, Health, MAX_LISTED, MAX_NAMED, Named, Source};
use crate::core::canary::path::Path;
use crate::core::ids::{HostName, LaneName, Mono, Now, Region};
use crate::core::view::Verdict;

/// Most hosts of which others' word is kept.
const MAX_CALLED: usize = 64;
/// So many must say so.
const VOICES: usize = 2;
/// Others' word holds for as long as they take to name all hosts so many times.
const ROUNDS: u32 = 3;
/// And for no more intervals than this: in a large fleet many name the same one, each in its turn.
const MOST_INTERVALS: u32 = 30;

/// What others say of a host that this one does not know of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Called {
    region: Region,
    cluster: String,
    first: Mono,
    last: Mono,
    /// The last two that said so, and when; the latest is the last.
    voices: Vec<(HostName, Mono)>,
}

impl Called {
    fn say(&mut self, by: &HostName, now: Mono) {
        self.last = now;
        self.voices.retain(|(host, _)| host != by);
        self.voices.push((by.clone(), now));
        if self.voices.len() > VOICES {
            self.voices.remove(0);
        }
    }

    /// How many say so as of late, and after as long as a stall takes?
    fn sure(&self, stall: Duration, holds: Duration, now: Mono) -> usize {
        let counts = |at: Mono| at.since(self.first) >= stall && now.since(at) <= holds;
        self.voices.iter().filter(|(_, at)| counts(*at)).count()
    }
}

impl Lane {
    /// How long others' word counts.
    fn word_holds(&self, interval: Duration, stall: Duration) -> Duration {
        let rounds = u32::try_from(self.paths.len() / MAX_NAMED + 1).unwrap_or(u32::MAX);
        stall + interval.saturating_mul(rounds.saturating_mul(ROUNDS).min(MOST_INTERVALS))
    }

    /// Who hears fewer hosts than this one, `me`, although it does not say that it misses them? Whom this one does not
    /// hear either says nothing.
    fn compare(&mut self, me: &HostName, now: Mono) {
        let hears = |p: &Path| matches!(p.verdict, Verdict::Ok | Verdict::Late);
        let heard = self.paths.values().filter(|p| hears(p)).count();
        let unheard = |host: &HostName| host != me && !self.paths.get(host).is_some_and(hears);
        let mut before = std::mem::take(&mut self.fewer);
        for (host, report) in self.reports.iter() {
            let unheard = report.deaf().iter().filter(|h| unheard(h)).count();
            if report.credible(now) && report.knows().saturating_sub(unheard) < heard {
                self.fewer.insert(host.clone(), before.remove(host).unwrap_or(now));
            }
        }
    }

    /// May `host` not hear all that it should, and not know so yet? Others' word takes a while.
    fn may_not_know(&self, host: &HostName, interval: Duration, stall: Duration, now: Mono) -> bool {
        let since = self.fewer.get(host);
        since.is_some_and(|t| now.since(*t) < self.word_holds(interval, stall) + stall * 3)
    }

    /// The receiver was away or cut off: that it was told nothing meanwhile takes back nothing.
    pub fn rebase_called(&mut self, now: Mono) {
        self.called.values_mut().for_each(|called| called.last = now);
    }

    /// Takes in what a beacon says of hosts that this one, `me`, does not know of.
    pub fn hear_of(&mut self, source: &Source, beacon: &Beacon, me: &HostName, now: Mono) {
        if beacon.health != Health::Ok || self.deaf {
            return;
        }
        for named in beacon.names.iter().take(MAX_NAMED) {
            let known = self
                .paths
                .get(&named.host)
                .is_some_and(|p| !p.hearsay() && (!p.said_goodbye() || p.inc() == named.inc));
            if known || &named.host == me {
                continue;
            }
            let room = self.called.len() < MAX_CALLED;
            match self.called.get_mut(&named.host) {
                Some(called) => called.say(&source.host, now),
                None if !room => {}
                None => {
                    let called = Called {
                        region: named.region.clone(),
                        cluster: named.cluster.clone(),
                        first: now,
                        last: now,
                        voices: vec![(source.host.clone(), now)],
                    };
                    self.called.insert(named.host.clone(), called);
                }
            }
        }
    }
}

impl Core {
    /// Is a host expected by others' word alone, on any lane?
    pub(super) fn hearsay(&self, host: &HostName) -> bool {
        self.lanes.iter().filter_map(|l| l.paths.get(host)).any(Path::hearsay)
    }

    /// Whom a beacon names, where somebody knows fewer hosts than this one.
    pub(super) fn names(&self, lane: &Lane) -> Vec<Named> {
        // Where so much is missed, counts tell nothing, and beacons are long as it is.
        let missed = lane.paths.values().filter(|p| p.verdict == Verdict::Stalled).count();
        if lane.fewer.is_empty() || missed >= MAX_LISTED {
            return Vec::new();
        }
        let named = |(host, path): (&HostName, &Path)| {
            let place = &self.members.get(host)?.place;
            let well = path.verdict == Verdict::Ok && path.steady(2);
            well.then(|| Named {
                host: host.clone(),
                region: place.region.clone(),
                cluster: place.cluster.clone(),
                inc: path.inc(),
            })
        };
        let n = lane.paths.len().max(1);
        let turn = usize::try_from(lane.sent % n as u64).unwrap_or_default() * MAX_NAMED % n;
        let from_there = lane.paths.iter().skip(turn).chain(lane.paths.iter().take(turn));
        from_there.take(MAX_NAMED).filter_map(named).collect()
    }

    /// May a host not hear this one on a lane, and not know yet that it should?
    pub(super) fn may_not_know_me(&self, lane: &LaneName, host: &HostName, now: Now) -> bool {
        let stall = self.stall();
        let lane = self.lanes.iter().find(|l| &l.name == lane);
        lane.is_some_and(|l| l.may_not_know(host, self.interval(), stall, now.mono))
    }

    /// Expects whom enough others have named for long enough, and nobody any more whom they do not name.
    pub(super) fn expect_called(&mut self, now: Now, out: &mut Vec<Action>) {
        let (interval, stall) = (self.interval(), self.stall());
        let (mut expected, mut dismissed) = (Vec::new(), Vec::new());
        for lane in self.lanes.iter_mut().filter(|l| !l.deaf) {
            lane.compare(&self.policy.host, now.mono);
            let holds = lane.word_holds(interval, stall);
            let credible = lane.reports.values().filter(|r| r.credible(now.mono)).count();
            let present = lane.present();
            if credible * 2 < present {
                // Too few can speak: that they do not name anybody says nothing.
                lane.called.values_mut().for_each(|c| c.last = now.mono);
            }
            lane.called.retain(|_, c| now.mono.since(c.last) <= holds);
            for (host, path) in lane.paths.iter_mut() {
                if path.hearsay() && !lane.called.contains_key(host) {
                    path.dismiss(now.mono);
                    lane.turns += 1;
                    self.book.excuse(&lane.name, host);
                    dismissed.push((lane.name.clone(), host.clone()));
                }
            }
            // In a fleet of three there is one other.
            let enough = present.clamp(1, VOICES);
            for (host, c) in &lane.called {
                let unknown = lane.paths.get(host).is_none_or(Path::said_goodbye);
                if unknown && c.sure(stall, holds, now.mono) >= enough {
                    expected.push((lane.name.clone(), host.clone(), c.region.clone(), c.cluster.clone()));
                }
            }
        }
        for (lane, host) in dismissed {
            let text = format!("others do not name {host} any more, which was never heard here on lane {lane}");
            self.record("source", host.to_string(), text, now, out);
        }
        for (name, host, region, cluster) in expected {
            let source = Source { region, host };
            self.expect(&name, source, cluster, now, out);
        }
    }

    fn expect(&mut self, lane: &LaneName, source: Source, cluster: String, now: Now, out: &mut Vec<Action>) {
        if !self.has_room(&source) {
            return;
        }
        let interval = self.interval();
        if !self.members.contains_key(&source.host) {
            let mut new = Member::new(source.region.clone(), now.wall);
            Arc::make_mut(&mut new.place).cluster = cluster;
            self.members.insert(source.host.clone(), new);
        }
        let Some(l) = self.lanes.iter_mut().find(|l| &l.name == lane) else {
            return;
        };
        if let Some(path) = l.paths.get_mut(&source.host) {
            path.expect(now.mono);
        } else {
            let mut path = Path::new(now.mono, interval);
            path.expect(now.mono);
            l.paths.insert(source.host.clone(), path);
        }
        l.turns += 1;
        l.due = Mono::default();
        self.roster_dirty = true;
        let text = format!("others hear {}, which is not heard here on lane {lane}", source.host);
        self.record("source", source.host.to_string(), text, now, out);
    }
}
