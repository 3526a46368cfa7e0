//! What is really the case: which paths pass nothing, what an act here could heal, and the score that follows.

use std::time::Duration;

use super::fault::HostNo;
use super::invariants::Act;
use super::mesh::Link;
use super::world::World;

/// A path that was broken so long ago may still be the reason of an act.
const JUST_NOW: Duration = Duration::from_secs(3);
/// Something that is broken for so long has called somebody out.
const PAGE: u32 = 300;

/// What a run cost.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Figures {
    /// Sum over directed pairs of hosts of the time that nothing passes, in seconds.
    pub broken_path_seconds: u64,
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
    /// Servers that died.
    pub crashes: u32,
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
        }
    }

    pub(super) fn fault(&mut self, now: Duration) {
        self.first_fault.get_or_insert(now);
    }

    /// When the last message of this pair arrives.
    pub(super) fn not_before(&mut self, from: HostNo, to: HostNo) -> &mut Duration {
        if self.not_before.is_empty() {
            self.not_before = vec![Duration::ZERO; self.hosts * self.hosts];
        }
        &mut self.not_before[from * self.hosts + to]
    }

    /// Is anything of this host still under way that was sent a while ago?
    fn waits(&self, host: HostNo, now: Duration) -> bool {
        let late = now + Duration::from_millis(700);
        !self.not_before.is_empty()
            && (0..self.hosts)
                .any(|x| self.not_before[host * self.hosts + x] > late || self.not_before[x * self.hosts + host] > late)
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
        let mut broken = 0;
        let mut pages = Vec::new();
        for to in 0..n {
            for from in 0..n {
                let i = from * n + to;
                if self.passes(from, to) {
                    self.score.silent[i] = 0;
                    continue;
                }
                broken += 1;
                self.score.silent[i] += 1;
                if self.score.silent[i] == PAGE {
                    pages.push(self.culprit(from, to));
                }
            }
        }
        self.score.figures.broken_path_seconds += broken;
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

    /// Whose fault it is that nothing passes, roughly: a page is per host.
    fn culprit(&self, from: HostNo, to: HostNo) -> HostNo {
        if self.works(from) && !self.works(to) { to } else { from }
    }

    /// Could this act on this host's server heal anything that is broken, whatever the network does?
    pub(super) fn could_heal(&self, host: HostNo, act: Act) -> bool {
        let s = &self.servers[host];
        if !s.works(self.now) && s.up && s.gone == 0 {
            // A server that stands still comes back by a restart.
            return act == Act::Restart;
        }
        if act == Act::Restart && (s.memory >= 800 || s.lame) {
            return true;
        }
        let here = self.region(host);
        let peers = self.hosts_of(here).filter(|x| *x != host);
        let route = |x: HostNo| {
            let pair = &self.pairs[self.pair(host, x)];
            let waits = self.now < pair.resume;
            let resets = pair
                .slots
                .iter()
                .take(self.slots())
                .any(|s| s.up && (s.stall[0] || s.stall[1]))
                || pair.slots.iter().any(|s| s.lost)
                || pair.interest[0]
                || pair.interest[1]
                || (!pair.any() && !pair.dialling)
                || pair.stubborn[1 - pair.way(host)]
                || (pair.stubborn[pair.way(host)] && act == Act::Reset);
            self.works(x) && self.net.open(host, x) && (resets || waits && act == Act::Reset)
        };
        if peers.into_iter().any(route) {
            return true;
        }
        // A connection that waits for its next retransmission is stuck: a new one passes sooner.
        if act == Act::Reset && self.score.waits(host, self.now) {
            return true;
        }
        (0..self.regions.len()).filter(|r| *r != here).any(|to| {
            let g = &self.gateways[self.gateway(host, to)];
            let reachable = self.hosts_of(to).any(|x| self.works(x) && self.net.open(host, x));
            let stuck = matches!(g.link, Link::Waits(_))
                || matches!(g.link, Link::Up(via) if g.stall || self.dead_end(host, via, to))
                || act == Act::Reset
                    && matches!(g.link, Link::Up(via) if self.now < g.resume || !self.net.open(host, via));
            reachable && stuck
        })
    }

    /// The gateway leads to a server that stands still or that nothing passes from, and others there are fine: dialled
    /// anew it would lead to another.
    fn dead_end(&self, host: HostNo, via: HostNo, to: usize) -> bool {
        self.net.open(host, via)
            && (!self.works(via)
                || self
                    .hosts_of(to)
                    .any(|x| x != via && self.works(x) && !self.passes(host, x)))
    }

    /// The same for what was broken a moment ago: who acts cannot know what healed since it last listened.
    pub(super) fn could_just_heal(&self, host: HostNo, act: Act) -> bool {
        let within = self.scenario.agents.interval * 2 + JUST_NOW;
        let last = match act {
            Act::Reset => self.watch.reset_useful[host],
            Act::Restart => self.watch.restart_useful[host],
        };
        self.could_heal(host, act) || last.is_some_and(|t| self.now.saturating_sub(t) <= within)
    }
}
