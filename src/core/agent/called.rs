//! Hosts that others hear and this one does not know of.
//!
//! Silence is a fault only of who was heard before. A host that comes back after a goodbye, or is new, and from which
//! nothing passes from the start, is missed by nobody behind the stall. Two counts show it: a report says how many hosts
//! its sender knows. Who knows more names those that it hears, some with each beacon, until the counts agree; who is told
//! of a host by two others, for as long as a stall takes, expects it from then on.

use std::time::Duration;

use crate::core::agent::event::Action;
use crate::core::agent::lane::Lane;
use crate::core::agent::{Core, Member};
use crate::core::canary::beacon::{Beacon, Health, MAX_NAMED, Named, Source};
use crate::core::canary::path::Path;
use crate::core::canary::probes::Ended;
use crate::core::ids::{HostName, LaneName, Mono, Now, Region};
use crate::core::view::Verdict;

/// Most hosts of which others' word is kept.
const MAX_CALLED: usize = 64;
/// Others' word holds for as long as they take to name all hosts so many times.
const ROUNDS: u32 = 3;

/// What others say of a host that this one does not know of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Called {
    region: Region,
    first: Mono,
    last: Mono,
    by: HostName,
    /// Another one said so too.
    two: bool,
}

impl Lane {
    /// How long others' word counts.
    fn word_holds(&self, interval: Duration, stall: Duration) -> Duration {
        let rounds = u32::try_from(self.paths.len() / MAX_NAMED + 1).unwrap_or(u32::MAX);
        stall + interval.saturating_mul(rounds).saturating_mul(ROUNDS)
    }

    /// Who hears fewer hosts than this one, although it does not say that it misses them? Whom this one misses too says
    /// nothing.
    fn compare(&mut self, now: Mono) {
        let heard = |p: &&Path| matches!(p.verdict, Verdict::Ok | Verdict::Late);
        let heard = self.paths.values().filter(heard).count();
        let missed = |host: &HostName| self.paths.get(host).is_some_and(|p| p.verdict == Verdict::Stalled);
        let mut before = std::mem::take(&mut self.fewer);
        for (host, report) in self.reports.iter() {
            let missed = report.deaf().iter().filter(|h| missed(h)).count();
            if report.credible(now) && report.knows().saturating_sub(missed) < heard {
                self.fewer.insert(host.clone(), before.remove(host).unwrap_or(now));
            }
        }
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
                Some(c) => {
                    c.last = now;
                    c.two |= c.by != source.host;
                }
                None if !room => {}
                None => {
                    let called = Called {
                        region: named.region.clone(),
                        first: now,
                        last: now,
                        by: source.host.clone(),
                        two: false,
                    };
                    self.called.insert(named.host.clone(), called);
                }
            }
        }
    }
}

impl Core {
    /// Whom a beacon names, where somebody knows fewer hosts than this one.
    pub(super) fn names(&self, lane: &Lane) -> Vec<Named> {
        if lane.fewer.is_empty() {
            return Vec::new();
        }
        let named = |(host, path): (&HostName, &Path)| {
            let region = &self.members.get(host)?.place.region;
            let well = path.verdict == Verdict::Ok && path.steady(2);
            well.then(|| Named {
                host: host.clone(),
                region: region.clone(),
                inc: path.inc(),
            })
        };
        let n = lane.paths.len().max(1);
        let turn = usize::try_from(lane.sent % n as u64).unwrap_or_default() * MAX_NAMED % n;
        let from_there = lane.paths.iter().skip(turn).chain(lane.paths.iter().take(turn));
        from_there.take(MAX_NAMED).filter_map(named).collect()
    }

    /// May the target of a probe not hear this host and not know yet that it should? Others' word takes a while.
    pub(super) fn may_not_know_me(&self, ended: &Ended, now: Now) -> bool {
        let lane = self.lanes.iter().find(|l| l.name == ended.lane);
        let stall = self.interval() * self.policy.canary.stall_after;
        lane.is_some_and(|l| {
            let since = l.fewer.get(&ended.target);
            since.is_some_and(|t| now.mono.since(*t) < l.word_holds(self.interval(), stall) + stall * 3)
        })
    }

    /// Expects whom enough others have named for long enough, and nobody any more whom they do not name.
    pub(super) fn expect_called(&mut self, now: Now, out: &mut Vec<Action>) {
        let interval = self.interval();
        let stall = interval * self.policy.canary.stall_after;
        let mut expected = Vec::new();
        for lane in self.lanes.iter_mut().filter(|l| !l.deaf) {
            lane.compare(now.mono);
            let holds = lane.word_holds(interval, stall);
            lane.called.retain(|_, c| now.mono.since(c.last) <= holds);
            for (host, path) in lane.paths.iter_mut() {
                if path.hearsay() && !lane.called.contains_key(host) {
                    path.dismiss(now.mono);
                    lane.turns += 1;
                    self.book.excuse(&lane.name, host);
                }
            }
            if lane.called.is_empty() {
                continue;
            }
            let alone = lane.reports.values().filter(|r| r.credible(now.mono)).count() < 2;
            for (host, c) in &lane.called {
                let unknown = lane.paths.get(host).is_none_or(Path::said_goodbye);
                if unknown && (c.two || alone) && c.last.since(c.first) >= stall {
                    expected.push((lane.name.clone(), host.clone(), c.region.clone()));
                }
            }
        }
        for (name, host, region) in expected {
            let source = Source { region, host };
            self.expect(&name, source, now, out);
        }
    }

    fn expect(&mut self, lane: &LaneName, source: Source, now: Now, out: &mut Vec<Action>) {
        if !self.has_room(&source) {
            return;
        }
        let interval = self.interval();
        if !self.members.contains_key(&source.host) {
            let new = Member::new(source.region.clone(), now.wall);
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
