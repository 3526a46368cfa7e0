//! The probe book: requests with a fresh reply subject, so that new interest has to travel too.
//!
//! One probe per region and interval, round robin. A target that did not answer is asked again at the next interval,
//! before the round goes on, so that a fault is told from a hiccup in a few intervals whatever the region's size.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::core::ids::{HostName, LaneName, Mono, Region};

/// Unanswered probes in a row that make a suspicion.
pub const SUSPECT_AFTER: u32 = 3;

/// A probe under way.
#[derive(Debug, Clone, PartialEq)]
struct Open {
    lane: LaneName,
    target: HostName,
    region: Region,
    sent: Mono,
}

/// How a probe ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Ended {
    /// Lane.
    pub lane: LaneName,
    /// Asked host.
    pub target: HostName,
    /// Its region.
    pub region: Region,
    /// RTT without the responder's hold time, or why not.
    pub result: Result<Duration, ProbeFailure>,
}

/// Why a probe failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProbeFailure {
    /// No answer in time.
    Timeout,
    /// The server knew no one to ask.
    NoResponders,
}

impl ProbeFailure {
    /// The label value.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::NoResponders => "no_responders",
        }
    }
}

/// All probes of one agent.
#[derive(Debug, Clone, Default)]
pub struct ProbeBook {
    next_id: u64,
    open: BTreeMap<u64, Open>,
    last: BTreeMap<(LaneName, Region), HostName>,
    misses: BTreeMap<(LaneName, HostName), u32>,
    answered: BTreeMap<(LaneName, HostName), (Mono, Duration)>,
}

impl ProbeBook {
    /// Picks this interval's targets: one per region of those that are `fit`, suspects first. Hosts come in the order of
    /// names. Returns (id, target).
    pub fn round(
        &mut self,
        lane: &LaneName,
        regions: &BTreeMap<Region, Vec<HostName>>,
        fit: impl Fn(&HostName) -> bool,
        now: Mono,
    ) -> Vec<(u64, HostName)> {
        let busy: BTreeSet<HostName> = self
            .open
            .values()
            .filter(|o| &o.lane == lane)
            .map(|o| o.target.clone())
            .collect();
        let mut picked = Vec::new();
        for (region, hosts) in regions {
            let mut missed = self
                .misses
                .iter()
                .filter(|((l, _), n)| l == lane && (1..=SUSPECT_AFTER).contains(*n))
                .map(|((_, h), _)| h);
            let suspect = missed.find(|h| !busy.contains(*h) && hosts.binary_search(h).is_ok() && fit(h));
            let key = (lane.clone(), region.clone());
            let target = suspect.cloned().or_else(|| {
                let after = self.last.get(&key);
                let next = after.map_or(0, |last| hosts.partition_point(|h| h <= last));
                let mut round = hosts.iter().skip(next).chain(hosts.iter().take(next));
                round.find(|h| fit(h)).filter(|h| !busy.contains(*h)).cloned()
            });
            let Some(target) = target else { continue };
            if suspect.is_none() {
                self.last.insert(key, target.clone());
            }
            self.next_id += 1;
            self.open.insert(
                self.next_id,
                Open {
                    lane: lane.clone(),
                    target: target.clone(),
                    region: region.clone(),
                    sent: now,
                },
            );
            picked.push((self.next_id, target));
        }
        picked
    }

    /// An answer came; `None` if it is of no known probe (too late, or not ours).
    pub fn answered(&mut self, id: u64, hold: Duration, now: Mono) -> Option<Ended> {
        let open = self.open.remove(&id)?;
        let rtt = now.since(open.sent).saturating_sub(hold);
        let key = (open.lane.clone(), open.target.clone());
        self.misses.remove(&key);
        self.answered.insert(key, (now, rtt));
        Some(Ended {
            lane: open.lane,
            target: open.target,
            region: open.region,
            result: Ok(rtt),
        })
    }

    /// A probe failed at once.
    pub fn failed(&mut self, id: u64, why: ProbeFailure) -> Option<Ended> {
        let open = self.open.remove(&id)?;
        Some(self.miss(open, why))
    }

    /// Ends what is older than `limit`.
    pub fn expire(&mut self, now: Mono, limit: Duration) -> Vec<Ended> {
        let old: Vec<u64> = self
            .open
            .iter()
            .filter(|(_, o)| now.since(o.sent) >= limit)
            .map(|(id, _)| *id)
            .collect();
        old.into_iter()
            .filter_map(|id| self.failed(id, ProbeFailure::Timeout))
            .collect()
    }

    fn miss(&mut self, open: Open, why: ProbeFailure) -> Ended {
        *self.misses.entry((open.lane.clone(), open.target.clone())).or_default() += 1;
        Ended {
            lane: open.lane,
            target: open.target,
            region: open.region,
            result: Err(why),
        }
    }

    /// Unanswered probes in a row.
    #[must_use]
    pub fn misses(&self, lane: &LaneName, host: &HostName) -> u32 {
        self.misses.get(&(lane.clone(), host.clone())).copied().unwrap_or(0)
    }

    /// Hosts under suspicion on a lane.
    pub fn suspects<'a>(&'a self, lane: &'a LaneName) -> impl Iterator<Item = &'a HostName> {
        self.misses
            .iter()
            .filter(move |((l, _), n)| l == lane && **n >= SUSPECT_AFTER)
            .map(|((_, h), _)| h)
    }

    /// Somebody answered, ever: the own replies come back.
    #[must_use]
    pub fn answers(&self) -> bool {
        !self.answered.is_empty()
    }

    /// When a host last answered, and how fast.
    #[must_use]
    pub fn last_answer(&self, lane: &LaneName, host: &HostName) -> Option<(Mono, Duration)> {
        self.answered.get(&(lane.clone(), host.clone())).copied()
    }

    /// Forgets all open probes and misses: the asker itself was away.
    pub fn rebase(&mut self) {
        self.open.clear();
        self.misses.clear();
    }

    /// Forgets a host that is gone.
    pub fn forget(&mut self, host: &HostName) {
        self.open.retain(|_, o| &o.target != host);
        self.misses.retain(|(_, h), _| h != host);
        self.answered.retain(|(_, h), _| h != host);
    }

    /// Forgets the misses of a host, because its silence has another explanation.
    pub fn excuse(&mut self, lane: &LaneName, host: &HostName) {
        self.misses.remove(&(lane.clone(), host.clone()));
    }

    /// Starts a suspicion anew, so that this host is asked first: a remedy was tried.
    pub fn ask_again(&mut self, lane: &LaneName, host: &HostName) {
        self.open.retain(|_, o| &o.lane != lane || &o.target != host);
        self.misses.insert((lane.clone(), host.clone()), 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(n: &str) -> HostName {
        HostName::new(n).unwrap()
    }

    fn round(book: &mut ProbeBook, lane: &LaneName, hosts: &[&str], t: u64) -> (u64, HostName) {
        let regions = BTreeMap::from([(Region::new("x").unwrap(), hosts.iter().map(|h| host(h)).collect())]);
        book.round(lane, &regions, |_| true, at(t)).remove(0)
    }

    fn at(s: u64) -> Mono {
        Mono(Duration::from_secs(s))
    }

    #[test]
    fn the_round_goes_through_all_hosts_of_a_region() {
        let (lane, hosts) = (LaneName::new("main").unwrap(), ["a", "b", "c"]);
        let mut book = ProbeBook::default();
        let mut seen = Vec::new();
        for t in 0..4 {
            let (id, h) = round(&mut book, &lane, &hosts, t);
            seen.push(h.to_string());
            book.answered(id, Duration::ZERO, at(t));
        }
        assert_eq!(seen, ["a", "b", "c", "a"]);
    }

    #[test]
    fn who_did_not_answer_is_asked_again_first_and_suspected_after_three() {
        let (lane, hosts) = (LaneName::new("main").unwrap(), ["a", "b", "c"]);
        let mut book = ProbeBook::default();
        for t in 0..3 {
            let (_, h) = round(&mut book, &lane, &hosts, t * 5);
            assert_eq!(h, host("a"));
            assert_eq!(book.expire(at(t * 5 + 2), Duration::from_secs(2)).len(), 1);
        }
        assert_eq!(book.suspects(&lane).collect::<Vec<_>>(), [&host("a")]);
        let (id, _) = round(&mut book, &lane, &["a"], 20);
        book.answered(id, Duration::ZERO, at(20));
        assert_eq!(book.suspects(&lane).count(), 0);
    }

    #[test]
    fn the_responders_hold_time_is_not_the_networks() {
        let lane = LaneName::new("main").unwrap();
        let mut book = ProbeBook::default();
        let (id, _) = round(&mut book, &lane, &["a"], 0);
        let end = book.answered(id, Duration::from_millis(900), at(1)).unwrap();
        assert_eq!(end.result, Ok(Duration::from_millis(100)));
        assert_eq!(book.answered(id, Duration::ZERO, at(1)), None);
    }
}
