//! The world: one heap, all servers, the network, all agents. What happens to a thing stands in the file of that thing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::agent::Agent;
use super::dice::Dice;
use super::fault::{Fault, HostNo, RegionNo};
use super::heap::Heap;
use super::invariants::Watch;
use super::mesh::{Gateway, Pair};
use super::network::Network;
use super::operator::Operator;
use super::policies::Policies;
use super::reads::Texts;
use super::scenario::Scenario;
use super::server::Server;
use super::store::Store;
use super::trace::Trace;
use super::truth::Score;
use super::weather::Weather;
use super::{Options, Policy};
use crate::core::agent::event::Event;
use crate::core::canary::beacon::{Beacon, Source};
use crate::core::ids::{HostName, LaneName, Region};

/// What is planned.
#[derive(Debug)]
pub(super) enum What {
    /// The agent's tick, in this life.
    Tick(HostNo, u32),
    /// The agent reads its server.
    Poll(HostNo, u32),
    /// It reads routes and gateways once more.
    Routes(HostNo, u32),
    /// Something comes to the agent, in this life.
    Agent(HostNo, u32, Box<Event>),
    /// The agent's loop goes on.
    Thaw(HostNo, u32),
    /// Systemd starts the agent.
    AgentStart(HostNo),
    /// A stand-in's beacon is due.
    Hail(HostNo),
    /// A beacon reaches a region.
    Deliver(HostNo, RegionNo, Arc<Beacon>),
    /// A beacon reaches one host late.
    DeliverTo(HostNo, HostNo, Arc<Beacon>),
    /// A server's process begins to serve, in this epoch.
    ServerUp(HostNo, u32),
    /// The agent's client connects again.
    Connect(HostNo, u32),
    /// A route is dialled.
    Dial(usize),
    /// A gateway is dialled.
    GatewayDial(HostNo, RegionNo),
    /// A lame duck exits, in this epoch.
    DuckGone(HostNo, u32),
    /// A fault begins.
    Begin(usize),
    /// It ends.
    End(usize),
    /// A slow agent stands still again.
    Stumble(usize),
    /// Each second.
    Second,
}

/// In bulk the truth is measured each so many seconds.
const BULK: u64 = 5;

/// All there is.
pub(super) struct World {
    pub(super) scenario: Arc<Scenario>,
    pub(super) options: Options,
    pub(super) now: Duration,
    pub(super) heap: Heap<What>,
    /// What the world draws.
    pub(super) dice: Dice,
    pub(super) faults: Vec<Fault>,
    pub(super) active: Vec<bool>,
    pub(super) names: Vec<String>,
    pub(super) texts: Texts,
    pub(super) hosts: Vec<HostName>,
    pub(super) index: BTreeMap<HostName, HostNo>,
    pub(super) sources: Vec<Source>,
    pub(super) regions: Vec<Region>,
    pub(super) region_of: Vec<RegionNo>,
    pub(super) lane: LaneName,
    pub(super) net: Network,
    pub(super) servers: Vec<Server>,
    pub(super) pairs: Vec<Pair>,
    pub(super) gateways: Vec<Gateway>,
    pub(super) agents: Vec<Agent>,
    pub(super) store: Store,
    pub(super) operator: Operator,
    pub(super) policies: Policies,
    pub(super) trace: Trace,
    pub(super) score: Score,
    pub(super) watch: Watch,
    pub(super) weather: Weather,
    /// Counts what was handled.
    pub(super) events: u64,
    pub(super) next_id: u64,
}

impl World {
    pub(super) fn new(scenario: Arc<Scenario>, seed: u64, options: Options) -> Self {
        let fleet = &scenario.fleet;
        let n = fleet.len();
        let mut dice = Dice::new(seed, 1);
        let names = fleet.names();
        // The scenario's check has proved that these are names.
        let hosts: Vec<HostName> = names.iter().filter_map(|n| HostName::new(n).ok()).collect();
        let regions: Vec<Region> = fleet.regions.iter().filter_map(|r| Region::new(r).ok()).collect();
        let sources = hosts
            .iter()
            .enumerate()
            .map(|(h, host)| Source {
                region: regions[fleet.region_of(h)].clone(),
                host: host.clone(),
            })
            .collect();
        let net = Network::new(n, fleet.regions.len(), &mut dice);
        let mut faults = scenario.faults.clone();
        faults.extend(super::mix::draw(&scenario, seed));
        let mut world = Self {
            now: Duration::ZERO,
            heap: Heap::default(),
            active: vec![false; faults.len()],
            net,
            servers: (0..n).map(Server::new).collect(),
            pairs: Vec::new(),
            gateways: vec![Gateway::new(); n * fleet.regions.len()],
            agents: Vec::new(),
            store: Store::default(),
            operator: Operator::default(),
            policies: Policies::new(n),
            trace: Trace::new(options.whole_trace),
            score: Score::new(n),
            watch: Watch::new(n, fleet.regions.len()),
            weather: Weather::default(),
            events: 0,
            next_id: 100,
            lane: LaneName::new("main").unwrap_or_else(|_| unreachable!("main is a name")),
            texts: Texts::new(&names, fleet),
            index: hosts.iter().cloned().zip(0..).collect(),
            names,
            hosts,
            sources,
            regions,
            region_of: (0..n).map(|h| fleet.region_of(h)).collect(),
            faults,
            dice,
            options,
            scenario: scenario.clone(),
        };
        world.build(seed);
        world
    }

    fn build(&mut self, seed: u64) {
        let scenario = self.scenario.clone();
        let fleet = &scenario.fleet;
        for region in 0..fleet.regions.len() {
            for a in 0..fleet.hosts {
                for b in 0..fleet.hosts {
                    self.pairs.push(Pair {
                        ends: [region * fleet.hosts + a, region * fleet.hosts + b],
                        slots: Default::default(),
                        configured: a.min(b) < fleet.seeds,
                        dialler: usize::from(a.min(b) < fleet.seeds),
                        interest: [false; 2],
                        stubborn: [false; 2],
                        resume: Duration::ZERO,
                        dialling: false,
                    });
                }
            }
        }
        let n = fleet.len();
        for pair in 0..self.pairs.len() {
            if self.pairs[pair].ends[0] < self.pairs[pair].ends[1] {
                self.connect_pair(pair);
            }
        }
        for host in 0..n {
            for to in 0..fleet.regions.len() {
                if to != fleet.region_of(host) {
                    self.connect_gateway(host, to);
                }
            }
        }
        let mut phases = Dice::new(seed, 2);
        for host in 0..n {
            let phase = phases.unit();
            let offset = phases.between(Duration::ZERO, Duration::from_millis(200));
            self.agents.push(Agent::new(phase, offset));
            if self.options.policy == Policy::Ours {
                match host.is_multiple_of(scenario.agents.real_every) {
                    true => self.start_agent(host),
                    false => self.stand_in(host, phase),
                }
            }
        }
        for i in 0..self.faults.len() {
            self.heap.push(self.faults[i].at, What::Begin(i));
        }
        self.heap.push(Duration::from_secs(1), What::Second);
    }

    /// Runs to the end or to the first broken invariant.
    pub(super) fn run(&mut self) {
        let end = self.scenario.duration;
        while let Some((at, what)) = self.heap.pop(end) {
            self.now = at;
            self.events += 1;
            self.happen(what);
            self.check();
            if self.watch.broken.is_some() {
                return;
            }
        }
        self.now = end;
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Tick(h, life) => self.tick(h, life),
            What::Poll(h, life) => self.poll(h, life),
            What::Routes(h, life) => self.poll_routes(h, life),
            What::Agent(h, life, event) => self.hand_over(h, life, *event),
            What::Thaw(h, life) => self.thaw(h, life),
            What::AgentStart(h) => self.start_agent(h),
            What::Hail(h) => self.hail(h),
            What::Deliver(from, region, beacon) => self.deliver(from, region, &beacon),
            What::DeliverTo(from, to, beacon) => {
                if self.passes(from, to) {
                    self.hear(from, to, &beacon);
                }
            }
            What::ServerUp(h, epoch) => self.server_up(h, epoch),
            What::Connect(h, epoch) => self.connect_agent(h, epoch),
            What::Dial(pair) => self.dial(pair),
            What::GatewayDial(h, to) => self.dial_gateway(h, to),
            What::DuckGone(h, epoch) => self.duck_gone(h, epoch),
            What::Begin(i) => self.begin(i),
            What::End(i) => self.end(i),
            What::Stumble(i) => self.stumble(i),
            What::Second => self.second(),
        }
    }

    /// What goes on whatever happens.
    fn second(&mut self) {
        self.heap.push(self.now + Duration::from_secs(1), What::Second);
        self.weather_goes_on();
        self.sweep();
        let looks = !self.options.bulk || self.now.as_secs().is_multiple_of(BULK);
        if looks {
            self.measure();
        }
        self.operate();
        self.run_policies();
        if looks {
            self.watch_second();
        }
    }

    pub(super) fn after(&mut self, wait: Duration, what: What) {
        self.heap.push(self.now + wait, what);
    }

    pub(super) fn say(&mut self, host: HostNo, text: String) {
        self.trace.say(self.now, &self.names[host], text);
    }

    pub(super) fn say_world(&mut self, text: String) {
        self.trace.say(self.now, "", text);
    }

    pub(super) fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }
}
