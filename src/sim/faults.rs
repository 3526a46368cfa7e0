//! Faults beginning and ending.

use std::time::Duration;

use super::fault::{Fault, HostNo, Kind, Named, RegionNo};
use super::mesh::{Link, Slot};
use super::server::{Unit, Why};
use super::world::{What, World};
use crate::core::agent::event::Event;

/// A slow agent stands still for so long each time.
const STUMBLE: (Duration, Duration) = (Duration::from_millis(300), Duration::from_secs(8));

impl World {
    pub(super) fn begin(&mut self, i: usize) {
        let fault = self.faults[i].clone();
        let text = Named(&fault, &self.names, &self.scenario.fleet.regions).to_string();
        self.say_world(format!("fault: {text}"));
        self.score.fault(self.now);
        self.active[i] = true;
        if !fault.lasts.is_zero() {
            self.after(fault.lasts, What::End(i));
        }
        self.start(&fault, i);
        self.watch.dirty = true;
    }

    /// The hosts of a region, or all.
    pub(super) fn in_region(&self, region: Option<RegionNo>) -> std::ops::Range<HostNo> {
        region.map_or(0..self.servers.len(), |r| self.hosts_of(r))
    }

    fn start(&mut self, f: &Fault, i: usize) {
        let (host, peer, now) = (f.host, f.peer, self.now);
        match f.kind {
            Kind::RouteStall | Kind::RouteTrickle => {
                let pair = self.pair(host, peer);
                let way = self.pairs[pair].way(peer);
                let slot = &mut self.pairs[pair].slots[0];
                if slot.up {
                    slot.stall[way] = true;
                    slot.stalled_at[way] = now;
                    slot.queues = f.kind == Kind::RouteTrickle;
                    if slot.queues {
                        self.servers[peer].queued = 1;
                    }
                }
            }
            Kind::InterestLost => {
                let pair = self.pair(host, peer);
                let way = self.pairs[pair].way(host);
                self.pairs[pair].interest[way] = true;
            }
            Kind::Stubborn if self.servers[host].up => {
                let pair = self.pair(host, peer);
                let way = self.pairs[pair].way(peer);
                self.pairs[pair].stubborn[way] = true;
            }
            Kind::PoolSlot => {
                let pair = self.pair(host, peer);
                let slots = self.slots();
                if slots > 1 && self.pairs[pair].any() {
                    let slot = self.dice.below(slots);
                    self.pairs[pair].slots[slot] = Slot {
                        lost: true,
                        ..Slot::default()
                    };
                }
            }
            Kind::Hole => {
                let pair = self.pair(host, peer);
                if !self.pairs[pair].configured {
                    self.pairs[pair].slots = Default::default();
                }
            }
            Kind::GatewayWaits | Kind::GatewayStall => self.gateway_fault(f),
            Kind::Freeze => {
                let s = &mut self.servers[host];
                s.frozen_since = now;
                s.frozen_until = s.frozen_until.max(now + f.lasts);
            }
            Kind::ServerCrash => self.crash(host),
            Kind::MassRestart => {
                for h in self.in_region(f.region) {
                    self.crash(h);
                }
            }
            Kind::HostDown => self.host_gone(host),
            Kind::RegionDown => {
                for h in self.in_region(f.region) {
                    self.host_gone(h);
                }
            }
            Kind::Partition | Kind::HostCut | Kind::PairCut | Kind::OneWayCut => {
                for (a, b) in self.cuts(f) {
                    self.net.cut(a, b, now);
                }
            }
            Kind::Loss => {
                let (a, b) = (f.region.unwrap_or(0), f.to.unwrap_or(0));
                self.net.lose(a, b, f.percent);
            }
            Kind::SlowAgent => self.stumble(i),
            _ => self.start_more(f),
        }
    }

    fn start_more(&mut self, f: &Fault) {
        let host = f.host;
        match f.kind {
            Kind::LaneCut => self.agents[host].lane_cut += 1,
            Kind::AgentCrash => {
                self.kill_agent(host);
                let wait = self.dice.between(Duration::from_secs(1), Duration::from_secs(5));
                self.after(wait, What::AgentStart(host));
            }
            Kind::AgentCrashAtAct => self.agents[host].dies_at_act = true,
            Kind::AgentStop => {
                self.agents[host].held_down += 1;
                self.handle(host, Event::Shutdown);
                self.kill_agent(host);
            }
            Kind::ClockAhead => self.agents[host].skew += seconds(f.lasts),
            Kind::ClockBack => self.agents[host].skew -= seconds(f.lasts),
            Kind::ClockDrift => self.agents[host].drift = 500,
            Kind::DiskFails => self.agents[host].disk.fails += 1,
            Kind::DiskHangs => self.agents[host].disk.hangs += 1,
            Kind::DiskTorn => self.agents[host].disk.torn = true,
            Kind::StoreDown => self.store.down += 1,
            Kind::StoreLosesAnswers => self.store.loses += 1,
            Kind::OperatorStops if self.servers[host].unit == Unit::Active => {
                self.server_down(host, Why::Stopped, Unit::Inactive);
            }
            Kind::OperatorMasks if self.servers[host].unit == Unit::Active => {
                self.server_down(host, Why::Stopped, Unit::Masked);
            }
            Kind::LameDuck if self.servers[host].up && self.servers[host].gone == 0 => {
                self.servers[host].lame = true;
                let epoch = self.servers[host].epoch;
                self.after(f.lasts.max(Duration::from_secs(2)), What::DuckGone(host, epoch));
                self.handle(host, Event::LameDuck);
            }
            Kind::Rolling => self.operator_rolls(f.region),
            Kind::BadUpgrade => {
                for h in self.in_region(f.region) {
                    self.servers[h].bad += 1;
                }
            }
            Kind::Leak => {
                let hosts: Vec<HostNo> = match f.region {
                    Some(_) => vec![host],
                    None => self.in_region(None).collect(),
                };
                for h in hosts {
                    self.servers[h].leak += 1;
                }
            }
            Kind::ClientStorm => self.weather.floods += 1,
            Kind::Pause => self.operator_pauses(f.lasts),
            _ => {}
        }
    }

    fn gateway_fault(&mut self, f: &Fault) {
        let Some(to) = f.to else { return };
        let i = self.gateway(f.host, to);
        match (f.kind, self.gateways[i].link) {
            (Kind::GatewayStall, Link::Up(_)) => self.gateways[i].stall = true,
            (Kind::GatewayWaits, Link::Up(via)) if self.scenario.fleet.old => {
                self.gateways[i].link = Link::Waits(via);
            }
            (Kind::GatewayWaits, _) if self.scenario.fleet.old => self.gateways[i].will_wait = 1,
            _ => {}
        }
    }

    /// Host, server, agent.
    fn host_gone(&mut self, host: HostNo) {
        self.servers[host].gone += 1;
        self.servers[host].frozen_since = self.now;
        self.agents[host].held_down += 1;
        self.kill_agent(host);
    }

    fn host_back(&mut self, host: HostNo) {
        self.weather.heals(self.now);
        let s = &mut self.servers[host];
        s.gone = s.gone.saturating_sub(1);
        if s.gone == 0 {
            let stopped = matches!(s.unit, Unit::Inactive | Unit::Masked);
            self.server_down(host, Why::Crash, Unit::Activating);
            if !stopped {
                self.server_start(host, Duration::from_secs(5), Duration::from_secs(20));
            }
        }
        self.release_agent(host);
    }

    fn release_agent(&mut self, host: HostNo) {
        let agent = &mut self.agents[host];
        agent.held_down = agent.held_down.saturating_sub(1);
        let wait = self.dice.between(Duration::from_secs(2), Duration::from_secs(20));
        self.after(wait, What::AgentStart(host));
    }

    /// Directed pairs that a fault of the network cuts.
    fn cuts(&self, f: &Fault) -> Vec<(HostNo, HostNo)> {
        match f.kind {
            Kind::PairCut | Kind::OneWayCut => vec![(f.peer, f.host)],
            Kind::HostCut => (0..self.servers.len())
                .filter(|h| *h != f.host)
                .map(|h| (f.host, h))
                .collect(),
            _ => {
                let there = |h: &HostNo| f.to.is_none_or(|to| self.region(*h) == to);
                let here: Vec<HostNo> = self.in_region(f.region).collect();
                let others: Vec<HostNo> = (0..self.servers.len())
                    .filter(|h| there(h) && !here.contains(h))
                    .collect();
                here.iter().flat_map(|a| others.iter().map(|b| (*a, *b))).collect()
            }
        }
    }

    pub(super) fn end(&mut self, i: usize) {
        self.active[i] = false;
        let f = self.faults[i].clone();
        let text = Named(&f, &self.names, &self.scenario.fleet.regions).to_string();
        self.say_world(format!("over: {text}"));
        self.watch.dirty = true;
        let host = f.host;
        match f.kind {
            Kind::HostDown => self.host_back(host),
            Kind::RegionDown => {
                for h in self.in_region(f.region) {
                    self.host_back(h);
                }
            }
            Kind::Partition | Kind::HostCut | Kind::PairCut | Kind::OneWayCut => {
                self.weather.heals(self.now);
                for (a, b) in self.cuts(&f) {
                    if let Some(lasted) = self.net.join(a, b, self.now) {
                        self.resumes(a, b, lasted);
                    }
                }
            }
            Kind::Loss => self.net.lose(f.region.unwrap_or(0), f.to.unwrap_or(0), 0),
            Kind::LaneCut => self.agents[host].lane_cut -= 1,
            Kind::AgentStop => self.release_agent(host),
            Kind::DiskFails => self.agents[host].disk.fails -= 1,
            Kind::DiskHangs => self.agents[host].disk.hangs -= 1,
            Kind::StoreDown => self.store.down -= 1,
            Kind::StoreLosesAnswers => self.store.loses -= 1,
            Kind::OperatorStops | Kind::OperatorMasks => self.operator_starts(host),
            Kind::BadUpgrade => {
                for h in self.in_region(f.region) {
                    self.servers[h].bad = self.servers[h].bad.saturating_sub(1);
                }
            }
            Kind::Leak => {
                let hosts: Vec<HostNo> = match f.region {
                    Some(_) => vec![host],
                    None => self.in_region(None).collect(),
                };
                for h in hosts {
                    self.servers[h].leak = self.servers[h].leak.saturating_sub(1);
                }
            }
            Kind::ClientStorm => self.weather.floods -= 1,
            _ => {}
        }
    }

    /// An operator starts a unit that is down.
    pub(super) fn operator_starts(&mut self, host: HostNo) {
        if matches!(self.servers[host].unit, Unit::Inactive | Unit::Masked) {
            self.servers[host].unit = Unit::Activating;
            self.server_start(host, Duration::from_millis(500), Duration::from_secs(2));
        }
    }

    pub(super) fn duck_gone(&mut self, host: HostNo, epoch: u32) {
        if self.servers[host].epoch == epoch && self.servers[host].lame {
            self.server_down(host, Why::Operator, Unit::Activating);
            self.server_start(host, Duration::from_secs(1), Duration::from_secs(5));
        }
    }

    pub(super) fn stumble(&mut self, i: usize) {
        if !self.active[i] {
            return;
        }
        let host = self.faults[i].host;
        let lasts = self.dice.between(STUMBLE.0, STUMBLE.1);
        self.freeze_agent(host, lasts);
        let next = lasts + self.dice.between(Duration::from_secs(1), Duration::from_secs(20));
        self.after(next, What::Stumble(i));
    }
}

fn seconds(d: Duration) -> i64 {
    i64::try_from(d.as_secs()).unwrap_or(0)
}
