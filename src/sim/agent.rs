//! One agent: a real core with its clocks, its disk and its connection. What it wants done is in `acts`.

use std::sync::Arc;
use std::time::Duration;

use super::Policy;
use super::fault::{HostNo, RegionNo};
use super::network::Network;
use super::stand_in::StandIn;
use super::store::Store;
use super::world::{What, World};
use crate::core::agent::event::{Event, RosterEntry};
use crate::core::agent::{Core, Restored};
use crate::core::canary::beacon::Beacon;
use crate::core::ids::{Mono, Now, Wall};
use crate::core::policy::{Arbiter, Brownout, Canary, Permits, Policy as CorePolicy, Remediation, RestartWays};
use crate::core::remedy::ledger::{Boot, Ledger};

/// A tick where nothing is wrong; the core takes 1.5 s for an absence.
const QUIET: Duration = Duration::from_millis(1000);
/// A tick where something is.
const BUSY: Duration = Duration::from_millis(200);
/// How long after the last news an agent is busy.
const ALERT: Duration = Duration::from_secs(8);
/// The wall clock at the beginning.
pub(super) const EPOCH: Duration = Duration::from_secs(1_800_000_000);
/// Reads of the server where nothing is wrong; what is older than ten seconds is stale for the core.
const POLL: Duration = Duration::from_secs(8);
/// Where something is: as the driver does always.
const POLL_BUSY: Duration = Duration::from_secs(2);

/// What is on disk.
#[derive(Debug, Default)]
pub(super) struct Disk {
    pub(super) ledger: Option<String>,
    pub(super) roster: Vec<RosterEntry>,
    /// Faults that make writes fail.
    pub(super) fails: u16,
    /// Faults that make writes never end.
    pub(super) hangs: u16,
    /// The ledger cannot be read.
    pub(super) torn: bool,
}

/// One agent.
#[derive(Debug)]
pub(super) struct Agent {
    pub(super) core: Option<Box<Core>>,
    /// In place of a core.
    pub(super) stand_in: Option<Box<StandIn>>,
    /// Counts starts.
    pub(super) life: u32,
    pub(super) born: Duration,
    phase: f64,
    offset: Duration,
    /// Seconds that the wall clock is wrong by.
    pub(super) skew: i64,
    /// Millionths by which the monotonic clock is fast.
    pub(super) drift: u32,
    pub(super) frozen: bool,
    pub(super) thaws_at: Duration,
    /// Its last beacon.
    pub(super) spoke: Duration,
    backlog: Vec<Event>,
    pub(super) busy_until: Duration,
    pub(super) disk: Disk,
    /// Faults that keep its connection from passing anything.
    pub(super) lane_cut: u16,
    pub(super) connected: bool,
    /// It dies at its next act.
    pub(super) dies_at_act: bool,
    /// Stopped by an operator, or its host is down.
    pub(super) held_down: u16,
    pub(super) routes_asked: bool,
    /// A register of its own, where permits are taken away.
    pub(super) register: Store,
    /// When its next tick and its next read of the server are; others that are planned are void.
    tick_at: Duration,
    poll_at: Duration,
}

impl Agent {
    pub(super) fn new(phase: f64, offset: Duration) -> Self {
        Self {
            core: None,
            stand_in: None,
            life: 0,
            born: Duration::ZERO,
            phase,
            offset,
            skew: 0,
            drift: 0,
            frozen: false,
            thaws_at: Duration::ZERO,
            spoke: Duration::ZERO,
            backlog: Vec::new(),
            busy_until: Duration::ZERO,
            disk: Disk::default(),
            lane_cut: 0,
            connected: false,
            dies_at_act: false,
            held_down: 0,
            routes_asked: false,
            register: Store::default(),
            tick_at: Duration::ZERO,
            poll_at: Duration::ZERO,
        }
    }

    /// So much time by the host's clock.
    fn by_its_clock(&self, time: Duration) -> Duration {
        let fast = time.as_micros() * u128::from(self.drift) / 1000;
        time + Duration::from_nanos(u64::try_from(fast).unwrap_or(u64::MAX))
    }

    /// Hosts of the model do not boot.
    pub(super) fn boot(&self, at: Duration) -> Boot {
        Boot {
            id: "boot".to_owned(),
            up: self.by_its_clock(at),
        }
    }

    pub(super) fn now(&self, at: Duration) -> Now {
        let mono = self.by_its_clock(at.saturating_sub(self.born));
        let wall = EPOCH + at + self.offset;
        let skew = Duration::from_secs(self.skew.unsigned_abs());
        Now {
            mono: Mono(mono),
            wall: Wall(if self.skew < 0 { wall - skew } else { wall + skew }),
        }
    }
}

impl World {
    /// Starts the agent, if nothing holds it down.
    pub(super) fn start_agent(&mut self, host: HostNo) {
        let now = self.now;
        let agent = &self.agents[host];
        let none = self.options.policy != Policy::Ours || agent.stand_in.is_some();
        if none || agent.core.is_some() || agent.held_down > 0 {
            return;
        }
        let policy = self.core_policy(host);
        let ledger = self.restored_ledger(host);
        let can_reset = self.scenario.agents.can_reset;
        let agent = &mut self.agents[host];
        agent.life += 1;
        agent.born = now;
        agent.frozen = false;
        agent.backlog.clear();
        agent.connected = false;
        agent.busy_until = now + Duration::from_secs(15);
        let restored = Restored {
            roster: agent.disk.roster.clone(),
            ledger,
            rollout: None,
            history: Vec::new(),
            state_error: None,
            boot: Some(agent.boot(now)),
            reset_unavailable: (!can_reset).then(|| "no CAP_NET_ADMIN".to_owned()),
        };
        let clock = agent.now(now);
        let (life, phase) = (agent.life, agent.phase);
        agent.core = Some(Box::new(Core::new(policy, restored, phase, clock)));
        if !now.is_zero() {
            self.say(host, "its agent starts".to_owned());
        }
        self.after(Duration::from_millis(20), What::Connect(host, self.servers[host].epoch));
        let first = QUIET.mul_f64(phase);
        self.plan_tick(host, life, first);
        self.plan_poll(host, life, first.mul_f64(0.5));
    }

    fn core_policy(&self, host: HostNo) -> CorePolicy {
        let set = &self.scenario.agents;
        let remediation = Remediation {
            mode: set.mode,
            restarts_per_hour: set.restarts_per_hour,
            max_sick_fraction: set.max_sick_fraction,
            ..Remediation::default()
        };
        self.options.mutate_policy(CorePolicy {
            host: self.hosts[host].clone(),
            region: self.sources[host].region.clone(),
            lanes: vec![self.lane.clone()],
            canary: Canary {
                interval: set.interval,
                ..Canary::default()
            },
            remediation,
            brownout: Brownout::default(),
            permits: Permits {
                arbiter: if set.permits { Arbiter::Register } else { Arbiter::Slots },
                ..Permits::default()
            },
            restart_deadline: Duration::from_secs(60),
            has_unit: true,
            // As every unit can.
            restart: RestartWays {
                can_stop: true,
                ..RestartWays::default()
            },
            version: "simulated".to_owned(),
        })
    }

    fn restored_ledger(&mut self, host: HostNo) -> Option<Result<Ledger, String>> {
        if self.options.forgets_ledger() {
            return None;
        }
        let disk = &mut self.agents[host].disk;
        if std::mem::take(&mut disk.torn) {
            return Some(Err("unexpected end of file".to_owned()));
        }
        let text = disk.ledger.as_ref()?;
        Some(serde_json::from_str(text).map_err(|e| e.to_string()))
    }

    /// The process dies.
    pub(super) fn kill_agent(&mut self, host: HostNo) {
        if self.agents[host].core.take().is_some() {
            self.agents[host].life += 1;
            self.say(host, "its agent dies".to_owned());
        }
    }

    fn plan_tick(&mut self, host: HostNo, life: u32, wait: Duration) {
        self.agents[host].tick_at = self.now + wait;
        self.after(wait, What::Tick(host, life));
    }

    fn plan_poll(&mut self, host: HostNo, life: u32, wait: Duration) {
        self.agents[host].poll_at = self.now + wait;
        self.after(wait, What::Poll(host, life));
    }

    pub(super) fn tick(&mut self, host: HostNo, life: u32) {
        if self.agents[host].life != life || self.agents[host].tick_at != self.now {
            return;
        }
        let gap = if self.now < self.agents[host].busy_until {
            BUSY
        } else {
            QUIET
        };
        self.plan_tick(host, life, gap);
        if !self.agents[host].frozen {
            self.handle(host, Event::Tick);
        }
    }

    pub(super) fn poll(&mut self, host: HostNo, life: u32) {
        let agent = &self.agents[host];
        if agent.life != life || agent.poll_at != self.now {
            return;
        }
        let busy = self.now < agent.busy_until;
        self.plan_poll(host, life, if busy { POLL_BUSY } else { POLL });
        self.read_server(host);
    }

    pub(super) fn poll_routes(&mut self, host: HostNo, life: u32) {
        if self.agents[host].life == life {
            self.agents[host].routes_asked = false;
            self.read_routes(host);
        }
    }

    pub(super) fn hand_over(&mut self, host: HostNo, life: u32, event: Event) {
        if self.agents[host].life == life {
            self.handle(host, event);
        }
    }

    /// The loop stands still for a while.
    pub(super) fn freeze_agent(&mut self, host: HostNo, lasts: Duration) {
        let agent = &mut self.agents[host];
        if (agent.core.is_some() || agent.stand_in.is_some()) && !agent.frozen {
            agent.frozen = true;
            agent.thaws_at = self.now + lasts;
            let life = agent.life;
            self.after(lasts, What::Thaw(host, life));
        }
    }

    pub(super) fn thaw(&mut self, host: HostNo, life: u32) {
        let agent = &mut self.agents[host];
        if agent.life != life || !agent.frozen {
            return;
        }
        agent.frozen = false;
        let missed = std::mem::take(&mut agent.backlog);
        // The driver looks at its ticker first.
        self.handle(host, Event::Tick);
        for event in missed {
            self.handle(host, event);
        }
    }

    /// Takes an event to the core and carries out what it wants.
    pub(super) fn handle(&mut self, host: HostNo, event: Event) {
        let now = self.agents[host].now(self.now);
        let agent = &mut self.agents[host];
        if agent.frozen {
            agent.backlog.push(event);
            return;
        }
        let Some(core) = agent.core.as_mut() else { return };
        let actions = core.handle(event, now);
        if actions.is_empty() {
            return;
        }
        let life = agent.life;
        for action in actions {
            if self.agents[host].life != life {
                return;
            }
            self.carry_out(host, life, action);
        }
    }

    /// Something is going on there.
    pub(super) fn alert(&mut self, host: HostNo) {
        let until = self.now + ALERT;
        let (now, agent) = (self.now, &mut self.agents[host]);
        let quiet = agent.busy_until <= now;
        agent.busy_until = agent.busy_until.max(until);
        let (life, tick, poll) = (agent.life, agent.tick_at, agent.poll_at);
        if quiet && tick > now + BUSY {
            self.plan_tick(host, life, BUSY);
        }
        if quiet && poll > now + BUSY {
            self.plan_poll(host, life, BUSY);
        }
    }

    /// The client's connection to the local server.
    pub(super) fn lane_state(&mut self, host: HostNo, state: Result<(), String>) {
        if self.agents[host].core.is_none() || self.agents[host].connected == state.is_ok() {
            return;
        }
        self.agents[host].connected = state.is_ok();
        self.alert(host);
        let lane = self.lane.clone();
        self.handle(host, Event::Connection { lane, state });
    }

    pub(super) fn connect_agent(&mut self, host: HostNo, epoch: u32) {
        let s = &self.servers[host];
        if s.epoch == epoch && s.up && s.gone == 0 {
            self.lane_state(host, Ok(()));
        }
    }

    /// A beacon leaves.
    pub(super) fn publish(&mut self, host: HostNo, beacon: &Arc<Beacon>) {
        self.agents[host].spoke = self.now;
        if self.agents[host].lane_cut > 0 || !self.works(host) {
            return;
        }
        self.hear(host, host, beacon);
        let here = self.region(host);
        let slow = self.storming();
        for region in 0..self.regions.len() {
            let delay = self.net.delay(here, region);
            let loss = self.net.loss(here, region);
            if loss == 0 && !slow {
                self.after(delay, What::Deliver(host, region, beacon.clone()));
                continue;
            }
            for to in self.hosts_of(region).filter(|to| *to != host) {
                if self.agents[to].stand_in.is_some() {
                    continue;
                }
                let mut wait = delay + Network::retransmits(loss, &mut self.dice);
                if slow {
                    wait += self.dice.between(Duration::ZERO, Duration::from_millis(1500));
                }
                let wait = self.in_order(host, to, wait);
                self.after(wait, What::DeliverTo(host, to, beacon.clone()));
            }
        }
    }

    /// TCP keeps the order: nothing overtakes what was sent before.
    fn in_order(&mut self, from: HostNo, to: HostNo, wait: Duration) -> Duration {
        self.score.in_order(from, to, self.now + wait) - self.now
    }

    pub(super) fn deliver(&mut self, from: HostNo, region: RegionNo, beacon: &Arc<Beacon>) {
        for to in self.hosts_of(region) {
            if to != from && self.agents[to].core.is_some() && self.passes(from, to) {
                self.hear(from, to, beacon);
            }
        }
    }

    pub(super) fn hear(&mut self, from: HostNo, to: HostNo, beacon: &Arc<Beacon>) {
        let agent = &self.agents[to];
        if agent.core.is_none() || !agent.connected || agent.lane_cut > 0 {
            return;
        }
        let event = Event::Beacon {
            lane: self.lane.clone(),
            source: self.sources[from].clone(),
            beacon: beacon.clone(),
        };
        self.handle(to, event);
    }
}
