//! Servers going up and down, routes and gateways dialled, closed, and what passes over them.

use std::time::Duration;

use super::fault::{HostNo, RegionNo};
use super::mesh::{GATEWAY_STALE, Link, Pair, ROUTE_STALE, SLOTS, Slot};
use super::server::{AT_REST, Unit, Why};
use super::world::{What, World};
use crate::core::agent::event::Event;

fn millis(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

impl World {
    /// Connections that each pair has.
    pub(super) fn slots(&self) -> usize {
        if self.scenario.fleet.old { 1 } else { SLOTS }
    }

    pub(super) fn region(&self, host: HostNo) -> RegionNo {
        self.region_of[host]
    }

    /// Hosts of a region.
    pub(super) fn hosts_of(&self, region: RegionNo) -> std::ops::Range<HostNo> {
        let n = self.scenario.fleet.hosts;
        region * n..(region + 1) * n
    }

    /// Where the pair of two hosts of one cluster stands.
    pub(super) fn pair(&self, a: HostNo, b: HostNo) -> usize {
        let n = self.scenario.fleet.hosts;
        let (low, high) = (a.min(b), a.max(b));
        low * n + high - self.region(low) * n
    }

    pub(super) fn gateway(&self, host: HostNo, to: RegionNo) -> usize {
        host * self.scenario.fleet.regions.len() + to
    }

    pub(super) fn works(&self, host: HostNo) -> bool {
        self.servers[host].works(self.now)
    }

    fn route_passes(&self, from: HostNo, to: HostNo) -> bool {
        self.net.open(from, to) && self.pairs[self.pair(from, to)].passes(from, self.now)
    }

    /// Would a message of the canaries' account get from a client of one server to a client of the other?
    pub(super) fn passes(&self, from: HostNo, to: HostNo) -> bool {
        if !self.works(from) || !self.works(to) {
            return false;
        }
        if from == to {
            return true;
        }
        let there = self.region(to);
        if self.region(from) == there {
            return self.route_passes(from, to);
        }
        let gateway = &self.gateways[self.gateway(from, there)];
        match gateway.link {
            Link::Up(via) if !gateway.stall && self.now >= gateway.resume => {
                self.works(via) && self.net.open(from, via) && (via == to || self.route_passes(via, to))
            }
            _ => false,
        }
    }

    pub(super) fn connect_pair(&mut self, pair: usize) {
        let all = !self.pairs[pair].any();
        for i in 0..self.slots() {
            let slot = self.pairs[pair].slots[i];
            if slot.up || slot.lost && !all {
                continue;
            }
            let rid = [self.id(), self.id()];
            self.pairs[pair].slots[i] = Slot {
                up: true,
                since: self.now,
                rid,
                port: u16::try_from(20_000 + rid[0] % 40_000).unwrap_or(20_000),
                ..Slot::default()
            };
        }
        self.pairs[pair].interest = [false; 2];
        self.pairs[pair].resume = self.now;
        if all {
            self.gossip(pair);
        }
    }

    /// A seed tells its peers of a server that connects to it, and the server of them.
    fn gossip(&mut self, pair: usize) {
        if !self.pairs[pair].configured || self.now.is_zero() {
            return;
        }
        let [a, b] = self.pairs[pair].ends;
        for x in self.hosts_of(self.region(a)) {
            for (near, far) in [(a, b), (b, a)] {
                if x == near || x == far || !self.pairs[self.pair(near, x)].any() {
                    continue;
                }
                let new = self.pair(far, x);
                if !self.pairs[new].any() && !self.pairs[new].dialling {
                    self.pairs[new].dialling = true;
                    let wait = self.dice.between(millis(100), millis(1500));
                    self.after(wait, What::Dial(new));
                }
            }
        }
    }

    pub(super) fn dial(&mut self, pair: usize) {
        self.pairs[pair].dialling = false;
        let [a, b] = self.pairs[pair].ends;
        let whole = self.pairs[pair].slots.iter().take(self.slots()).all(|s| s.up || s.lost);
        let alive = self.servers[a].up && self.servers[b].up;
        if whole && self.pairs[pair].any() || !alive {
            // A server that comes up dials by itself.
            return;
        }
        if self.works(a) && self.works(b) && self.net.open(a, b) {
            self.connect_pair(pair);
        } else if self.pairs[pair].configured {
            self.plan_dial(pair, millis(1000), millis(2000));
        } else {
            let (a, b) = (self.names[a].clone(), self.names[b].clone());
            self.say_world(format!(
                "{a} and {b} are no peers any more: a gossiped route is dialled only once"
            ));
        }
    }

    pub(super) fn plan_dial(&mut self, pair: usize, low: Duration, high: Duration) {
        if !self.pairs[pair].dialling {
            self.pairs[pair].dialling = true;
            let wait = self.dice.between(low, high);
            self.after(wait, What::Dial(pair));
        }
    }

    /// Closes connections of a pair; they are dialled again as their kind is.
    pub(super) fn close_slots(&mut self, pair: usize, which: impl Fn(usize, &Slot) -> bool) -> usize {
        let mut closed = 0;
        for i in 0..self.slots() {
            let Pair { ends, slots, .. } = &mut self.pairs[pair];
            let slot = &mut slots[i];
            if slot.up && which(i, slot) {
                if slot.queues {
                    ends.iter().for_each(|end| self.servers[*end].queued = 0);
                }
                *slot = Slot {
                    lost: slot.lost,
                    ..Slot::default()
                };
                closed += 1;
            }
        }
        if closed > 0 {
            let [a, b] = self.pairs[pair].ends;
            self.score.afresh(a, b);
            self.score.afresh(b, a);
            let (low, high) = if self.pairs[pair].configured {
                (millis(1000), millis(1200))
            } else {
                (millis(50), millis(150))
            };
            self.plan_dial(pair, low, high);
        }
        closed
    }

    pub(super) fn connect_gateway(&mut self, host: HostNo, to: RegionNo) {
        let able: Vec<HostNo> = self
            .hosts_of(to)
            .filter(|h| self.works(*h) && !self.servers[*h].lame && self.net.open(host, *h))
            .collect();
        let Some(via) = self.dice.pick(&able).copied() else {
            self.plan_gateway(host, to, millis(1000), millis(2000));
            return;
        };
        let cid = self.id();
        let i = self.gateway(host, to);
        let (now, g) = (self.now, &mut self.gateways[i]);
        g.link = if g.will_wait > 0 {
            Link::Waits(via)
        } else {
            Link::Up(via)
        };
        g.will_wait = g.will_wait.saturating_sub(1);
        g.stall = false;
        g.cid = cid;
        g.since = now;
        g.resume = now;
    }

    pub(super) fn plan_gateway(&mut self, host: HostNo, to: RegionNo, low: Duration, high: Duration) {
        let i = self.gateway(host, to);
        if !self.gateways[i].dialling {
            self.gateways[i].dialling = true;
            let wait = self.dice.between(low, high);
            self.after(wait, What::GatewayDial(host, to));
        }
    }

    pub(super) fn dial_gateway(&mut self, host: HostNo, to: RegionNo) {
        let i = self.gateway(host, to);
        self.gateways[i].dialling = false;
        if self.gateways[i].link == Link::Idle && self.servers[host].up && self.servers[host].gone == 0 {
            self.connect_gateway(host, to);
        }
    }

    pub(super) fn close_gateway(&mut self, host: HostNo, to: RegionNo) {
        let i = self.gateway(host, to);
        if let Link::Up(via) = self.gateways[i].link {
            self.gateways[i].left = Some((via, self.now));
        }
        self.gateways[i].link = Link::Idle;
        self.gateways[i].stall = false;
        for x in self.hosts_of(to) {
            self.score.afresh(host, x);
        }
        self.plan_gateway(host, to, millis(900), millis(1300));
    }

    /// The process ends: all its connections are closed.
    pub(super) fn server_down(&mut self, host: HostNo, why: Why, unit: Unit) {
        let s = &mut self.servers[host];
        s.unit = unit;
        s.why = why;
        s.epoch += 1;
        if !std::mem::replace(&mut s.up, false) {
            return;
        }
        (s.lame, s.queued, s.memory) = (false, 0, AT_REST);
        self.say(host, format!("its server is down ({why:?})"));
        for x in self.hosts_of(self.region(host)) {
            if x != host {
                let pair = self.pair(host, x);
                if self.pairs[pair].slots.iter().any(|s| s.queues) {
                    self.servers[x].queued = 0;
                }
                self.pairs[pair].slots = Default::default();
                let way = self.pairs[pair].way(x);
                self.pairs[pair].stubborn[way] = false;
            }
        }
        for to in 0..self.regions.len() {
            let i = self.gateway(host, to);
            self.gateways[i].link = Link::Idle;
        }
        self.close_gateways_to(host);
        let gone = Err("the connection was closed".to_owned());
        self.lane_state(host, gone);
        self.watch.dirty = true;
    }

    fn close_gateways_to(&mut self, host: HostNo) {
        let here = self.region(host);
        for from in 0..self.servers.len() {
            let i = self.gateway(from, here);
            if self.gateways[i].link == Link::Up(host) || self.gateways[i].link == Link::Waits(host) {
                self.close_gateway(from, here);
            }
        }
    }

    /// Starts the process after a while.
    pub(super) fn server_start(&mut self, host: HostNo, low: Duration, high: Duration) {
        let wait = self.dice.between(low, high);
        let epoch = self.servers[host].epoch;
        self.after(wait, What::ServerUp(host, epoch));
    }

    pub(super) fn server_up(&mut self, host: HostNo, epoch: u32) {
        if self.servers[host].epoch != epoch || self.servers[host].up || self.servers[host].gone > 0 {
            return;
        }
        if self.servers[host].bad > 0 {
            self.servers[host].unit = Unit::Activating;
            self.say(host, "its server does not come up".to_owned());
            if let Some((act, life)) = self.servers[host].act.take() {
                let result = Err("the restart job ended as failed".to_owned());
                self.after(
                    millis(10),
                    What::Agent(host, life, Box::new(Event::ActDone { act, result })),
                );
            }
            self.server_start(host, Duration::from_secs(5), Duration::from_secs(6));
            return;
        }
        let now = self.now;
        let s = &mut self.servers[host];
        (s.up, s.unit, s.started, s.hand) = (true, Unit::Active, now, None);
        s.begins(host);
        s.frozen_until = Duration::ZERO;
        let act = s.act.take();
        self.say(host, "its server is up".to_owned());
        self.weather.started(self.servers.len());
        self.servers[host].counted_from = self.weather.messages;
        if let Some((act, life)) = act {
            let result = Ok("nats-server.service was restarted".to_owned());
            self.after(
                millis(10),
                What::Agent(host, life, Box::new(Event::ActDone { act, result })),
            );
        }
        for x in self.hosts_of(self.region(host)) {
            if x != host {
                let pair = self.pair(host, x);
                self.plan_dial(pair, millis(100), millis(1500));
            }
        }
        for to in 0..self.regions.len() {
            if to != self.region(host) {
                self.plan_gateway(host, to, millis(200), millis(2000));
            }
        }
        let wait = self.dice.between(millis(200), millis(2200));
        self.after(wait, What::Connect(host, epoch));
        self.watch.dirty = true;
    }

    /// Kills the process; systemd starts it again.
    pub(super) fn crash(&mut self, host: HostNo) {
        if self.servers[host].up {
            self.server_down(host, Why::Crash, Unit::Activating);
            self.server_start(host, millis(2000), millis(5000));
        }
    }

    /// After the end of a cut, TCP waits for its next try.
    pub(super) fn resumes(&mut self, a: HostNo, b: HostNo, lasted: Duration) {
        let longest = lasted.min(Duration::from_secs(60)).max(millis(200));
        let at = self.now + self.dice.between(millis(100), longest);
        if self.region(a) == self.region(b) {
            let pair = self.pair(a, b);
            self.pairs[pair].resume = self.pairs[pair].resume.max(at);
            return;
        }
        for (from, to) in [(a, b), (b, a)] {
            let i = self.gateway(from, self.region(to));
            if self.gateways[i].link == Link::Up(to) {
                self.gateways[i].resume = at;
            }
        }
    }

    /// Closes what was silent for too long.
    pub(super) fn sweep(&mut self) {
        let frozen = self.servers.iter().any(|s| s.frozen_until > self.now || s.gone > 0);
        if self.net.cut == 0 && !frozen {
            return;
        }
        let now = self.now;
        let still = |w: &World, h: HostNo| {
            let s = &w.servers[h];
            (s.frozen_until > now || s.gone > 0).then(|| now.saturating_sub(s.frozen_since))
        };
        for pair in 0..self.pairs.len() {
            let [a, b] = self.pairs[pair].ends;
            if a >= b || !self.pairs[pair].any() {
                continue;
            }
            let silent = self.net.cut_for(a, b, now).max(still(self, a)).max(still(self, b));
            if silent.is_some_and(|s| s >= ROUTE_STALE) {
                self.close_slots(pair, |_, _| true);
            }
        }
        for host in 0..self.servers.len() {
            for to in 0..self.regions.len() {
                let Link::Up(via) = self.gateways[self.gateway(host, to)].link else {
                    continue;
                };
                let silent = self
                    .net
                    .cut_for(host, via, now)
                    .max(still(self, host))
                    .max(still(self, via));
                if silent.is_some_and(|s| s >= GATEWAY_STALE) {
                    self.close_gateway(host, to);
                }
            }
        }
    }
}
