//! What is really the case: which paths pass nothing, what an act here could heal, and the score that follows.

use std::time::Duration;

use super::fault::{HostNo, RegionNo};
use super::invariants::Act;
use super::mesh::{Gateway, Link, Pair, Slot};
use super::server::{Server, Unit};
use super::world::World;

/// A path that was broken so long ago may still be the reason of an act.
const JUST_NOW: Duration = Duration::from_secs(3);
/// Memory of a server that a restart would do good.
const SICK: u32 = 800;
/// What arrives by then does not wait.
const SOON: Duration = Duration::from_millis(700);
/// Something that is broken for so long has called somebody out.
const PAGE: u32 = 300;

/// What a run cost.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Figures {
    /// Sum over directed pairs of hosts of the time that nothing passes, in seconds.
    pub broken_path_seconds: u64,
    /// Of them those in which a remedy could help, or the policy's own act was the cause: neither is the
    /// network on its way cut, nor one of the two servers stopped by its operator or gone with its host.
    pub mendable_path_seconds: u64,
    /// Restarts by the policy.
    pub restarts: u32,
    /// Resets by the policy.
    pub resets: u32,
    /// Acts that could heal nothing, or were made in a storm, or took one server more than is allowed.
    pub harmful: u32,
    /// People called out.
    pub pages: u32,
    /// From the first fault until all paths pass and stay so; `None` = not healed at the end.
    pub healed_after: Option<Duration>,
    /// Restarts that an operator made.
    pub operator_restarts: u32,
}

/// The score of a run as it goes.
#[derive(Debug)]
pub(super) struct Score {
    hosts: usize,
    pub(super) figures: Figures,
    first_fault: Option<Duration>,
    whole_since: Option<Duration>,
    /// How long each directed pair is silent, seconds.
    pub(super) silent: Vec<u32>,
    /// By host and region: seconds that something there is broken.
    paged: Vec<bool>,
    not_before: Vec<Duration>,
    /// The last of all these.
    last: Duration,
}

impl Score {
    pub(super) fn new(hosts: usize) -> Self {
        Self {
            hosts,
            figures: Figures::default(),
            first_fault: None,
            whole_since: Some(Duration::ZERO),
            silent: vec![0; hosts * hosts],
            paged: vec![false; hosts],
            not_before: Vec::new(),
            last: Duration::ZERO,
        }
    }

    pub(super) fn fault(&mut self, now: Duration) {
        self.first_fault.get_or_insert(now);
    }

    /// When a message of this pair arrives that would arrive at `at`: after the last one.
    pub(super) fn in_order(&mut self, from: HostNo, to: HostNo, at: Duration) -> Duration {
        if self.not_before.is_empty() {
            self.not_before = vec![Duration::ZERO; self.hosts * self.hosts];
        }
        let last = &mut self.not_before[from * self.hosts + to];
        *last = at.max(*last);
        self.last = self.last.max(*last);
        *last
    }

    /// Is anything between the two still under way that was sent a while ago?
    fn waits(&self, a: HostNo, b: HostNo, now: Duration) -> bool {
        let late = now + SOON;
        let of = |i: usize| self.not_before.get(i).is_some_and(|t| *t > late);
        of(a * self.hosts + b) || of(b * self.hosts + a)
    }

    /// Is anything under way that was sent a while ago?
    pub(super) fn anything_waits(&self, now: Duration) -> bool {
        self.last > now + SOON
    }

    /// A new connection waits for nothing that the old one waited for.
    pub(super) fn afresh(&mut self, from: HostNo, to: HostNo) {
        if let Some(t) = self.not_before.get_mut(from * self.hosts + to) {
            *t = Duration::ZERO;
        }
    }

    /// The figures at the end.
    pub(super) fn total(&self) -> Figures {
        let mut figures = self.figures.clone();
        figures.healed_after = match (self.first_fault, self.whole_since) {
            (None, _) => Some(Duration::ZERO),
            (Some(first), Some(whole)) => Some(whole.saturating_sub(first)),
            (Some(_), None) => None,
        };
        figures
    }
}

impl World {
    /// Each second: who hears whom, in truth.
    pub(super) fn measure(&mut self) {
        let n = self.servers.len();
        if self.options.bulk && self.watch.calm(self.now) {
            return;
        }
        let (mut broken, mut mendable) = (0, 0);
        let mut pages = Vec::new();
        if self.all_fine() {
            self.score.silent.fill(0);
            self.score.whole_since.get_or_insert(self.now);
            self.score.paged.fill(false);
            return;
        }
        for to in 0..n {
            for from in 0..n {
                let i = from * n + to;
                if self.passes(from, to) {
                    self.score.silent[i] = 0;
                    continue;
                }
                broken += 1;
                mendable += u64::from(self.mendable(from, to));
                self.score.silent[i] += 1;
                if self.score.silent[i] == PAGE {
                    pages.push(self.culprit(from, to));
                }
            }
        }
        self.score.figures.broken_path_seconds += broken;
        self.score.figures.mendable_path_seconds += mendable;
        for host in pages {
            if !std::mem::replace(&mut self.score.paged[host], true) {
                self.score.figures.pages += 1;
            }
        }
        if broken == 0 {
            self.score.whole_since.get_or_insert(self.now);
            self.score.paged.fill(false);
        } else {
            self.score.whole_since = None;
        }
    }

    fn mendable(&self, from: HostNo, to: HostNo) -> bool {
        let there = |h: HostNo| {
            let s = &self.servers[h];
            s.gone == 0 && matches!(s.unit, Unit::Active | Unit::Activating)
        };
        let gateway = &self.gateways[self.gateway(from, self.region(to))];
        let cut_behind = matches!(gateway.link, Link::Up(via) if via != to && !self.net.open(via, to));
        self.net.open(from, to) && !cut_behind && there(from) && there(to)
    }

    /// Everything is up and passes, and nothing waits: as is nearly always so, and seen much faster than by asking for each
    /// pair of hosts.
    fn all_fine(&self) -> bool {
        let now = self.now;
        let server = |s: &Server| s.works(now) && !s.lame && s.memory < SICK;
        let pair = |p: &Pair| {
            let ok = |s: &Slot| s.up && s.stall == [false; 2];
            p.ends[0] >= p.ends[1]
                || p.slots.iter().take(self.slots()).all(ok)
                    && !p.slots.iter().any(|s| s.lost)
                    && [p.interest, p.stubborn] == [[false; 2]; 2]
                    && now >= p.resume
        };
        let gateway = |g: &Gateway| matches!(g.link, Link::Up(_)) && !g.stall && now >= g.resume;
        let own = |i: usize| self.region(i / self.regions.len()) == i % self.regions.len();
        self.net.cut == 0
            && !self.score.anything_waits(now)
            && self.servers.iter().all(server)
            && self.gateways.iter().enumerate().all(|(i, g)| own(i) || gateway(g))
            && self.pairs.iter().all(pair)
    }

    /// Whose fault it is that nothing passes, roughly: a page is per host.
    fn culprit(&self, from: HostNo, to: HostNo) -> HostNo {
        if self.works(from) && !self.works(to) { to } else { from }
    }

    /// Could a restart of this host's server heal anything that is broken, whatever the network does?
    pub(super) fn restart_heals(&self, host: HostNo) -> bool {
        let s = &self.servers[host];
        if !s.works(self.now) && s.up && s.gone == 0 {
            // A server that stands still comes back by a restart.
            return true;
        }
        let here = self.region(host);
        s.memory >= SICK
            || s.lame
            || self
                .hosts_of(here)
                .any(|x| x != host && self.route_sick(host, x, Act::Restart))
            || (0..self.regions.len()).any(|to| to != here && self.gateway_sick(host, to, Act::Restart))
    }

    /// Is the route between the two broken in a way that this act on `host` heals, or may be thought to?
    pub(super) fn route_sick(&self, host: HostNo, x: HostNo, act: Act) -> bool {
        let pair = &self.pairs[self.pair(host, x)];
        let way = pair.way(host);
        let stalled = pair
            .slots
            .iter()
            .take(self.slots())
            .any(|s| s.up && (s.stall[0] || s.stall[1]));
        let broken = stalled
            || pair.slots.iter().any(|s| s.lost)
            || pair.interest[0]
            || pair.interest[1]
            || (!pair.any() && !pair.dialling)
            || pair.stubborn[1 - way];
        // That its peer drops what comes nobody can know before a reset was tried; a connection that waits for its next
        // retransmission is stuck, and a new one passes sooner.
        let by_reset = || pair.stubborn[way] || self.now < pair.resume || self.score.waits(host, x, self.now);
        (broken || act == Act::Reset && by_reset()) && self.works(x) && self.net.open(host, x)
    }

    /// The same of the gateway of `host` to a region.
    pub(super) fn gateway_sick(&self, host: HostNo, to: RegionNo, act: Act) -> bool {
        let g = &self.gateways[self.gateway(host, to)];
        let stuck = match g.link {
            Link::Idle => false,
            Link::Waits(_) => true,
            Link::Up(_) if g.stall => true,
            // What is broken behind it, or on its way, is not this server's: it is dialled anew, no more.
            Link::Up(via) => {
                act == Act::Reset
                    && (self.now < g.resume
                        || !self.net.open(host, via)
                        || self.dead_end(host, via, to)
                        || self.hosts_of(to).any(|x| self.score.waits(host, x, self.now)))
            }
        };
        stuck && self.hosts_of(to).any(|x| self.works(x) && self.net.open(host, x))
    }

    /// The gateway leads to a server that stands still or that nothing passes from, and others there are fine: dialled
    /// anew it would lead to another.
    fn dead_end(&self, host: HostNo, via: HostNo, to: RegionNo) -> bool {
        self.net.open(host, via)
            && (!self.works(via)
                || self
                    .hosts_of(to)
                    .any(|x| x != via && self.works(x) && !self.passes(host, x)))
    }

    /// Is or was something broken a moment ago? Who acts cannot know what healed since it last listened.
    pub(super) fn just_now(&self, last: Option<Duration>) -> bool {
        let within = self.scenario.agents.interval * 2 + JUST_NOW;
        last.is_some_and(|t| self.now.saturating_sub(t) <= within)
    }

    /// A restart heals something that is or just was broken.
    pub(super) fn restart_useful(&self, host: HostNo) -> bool {
        self.restart_heals(host) || self.just_now(self.watch.restart_useful[host])
    }

    /// A reset of the routes to these peers and of these gateways heals something that is or just was broken.
    pub(super) fn reset_useful(&self, host: HostNo, peers: &[HostNo], gateways: &[RegionNo]) -> bool {
        let n = self.servers.len();
        let hole = |seed: HostNo| {
            // A common seed that is dialled anew tells both ends of a hole of each other.
            self.pairs[self.pair(host, seed)].configured
                && self.hosts_of(self.region(host)).any(|x| {
                    x != host
                        && x != seed
                        && (self.route_absent(host, x) || self.just_now(self.watch.holes[host * n + x]))
                        && self.pairs[self.pair(seed, x)].any()
                })
        };
        peers.iter().any(|x| {
            self.route_sick(host, *x, Act::Reset) || self.just_now(self.watch.routes_sick[host * n + x]) || hole(*x)
        }) || gateways.iter().any(|to| {
            self.gateway_sick(host, *to, Act::Reset) || self.just_now(self.watch.gateways_sick[self.gateway(host, *to)])
        })
    }

    /// Two that could be peers are none, and nothing will make them.
    fn route_absent(&self, host: HostNo, x: HostNo) -> bool {
        let pair = &self.pairs[self.pair(host, x)];
        !pair.any() && !pair.dialling && self.works(host) && self.works(x)
    }

    /// Each second: what was of use when.
    pub(super) fn note_uses(&mut self) {
        let (n, now) = (self.servers.len(), self.now);
        if self.all_fine() {
            return;
        }
        for host in 0..n {
            let here = self.region(host);
            for x in self.hosts_of(here).filter(|x| *x != host) {
                if self.route_sick(host, x, Act::Reset) {
                    self.watch.routes_sick[host * n + x] = Some(now);
                }
                if self.route_absent(host, x) {
                    self.watch.holes[host * n + x] = Some(now);
                }
            }
            for to in (0..self.regions.len()).filter(|to| *to != here) {
                if self.gateway_sick(host, to, Act::Reset) {
                    let i = self.gateway(host, to);
                    self.watch.gateways_sick[i] = Some(now);
                }
            }
            if self.restart_heals(host) {
                self.watch.restart_useful[host] = Some(now);
            }
        }
    }
}
