//! The system traffic of the local server: readings in, brownout out, and what that holds back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::core::agent::Core;
use crate::core::agent::event::Action;
use crate::core::canary::beacon::{Beacon, Brownout, Health, Source};
use crate::core::ids::{HostName, Mono, Now};
use crate::core::remedy::gate::Blocked;
use crate::core::server::{Route, Sample, Varz};
use crate::core::sys::churn::Churn;
use crate::core::sys::detect::{Change, Context, Detector, State};
use crate::core::sys::expect::{Expected, Facts};
use crate::core::sys::explain::Explanations;
use crate::core::sys::memory::{Memory, MemoryLimit};
use crate::core::sys::model::ServerVersion;
use crate::core::sys::rates::{Rates, Step};
use crate::core::sys::scope::Scope;
use crate::core::sys::window::Amount;
use crate::core::view::{
    AmountView, BrownoutView, ChurnView, ExpectedView, MemoryView, PeerRateView, RateView, SysView, Verdict,
};

/// Between two looks at the shape of the fleet and at the scopes.
const LOOK: Duration = Duration::from_secs(1);
/// A server that started less than this before its first read is starting.
const JUST_STARTED: Duration = Duration::from_secs(30);
/// Peers that are shown.
const TOP: usize = 5;

/// All that is known of the system traffic.
#[derive(Debug, Clone, Default)]
pub(super) struct Sys {
    rates: Rates,
    detector: Detector,
    explanations: Explanations,
    churn: Churn,
    memory: Memory,
    pub(super) memory_limit: Option<MemoryLimit>,
    fleet_seen: Option<(Sources, Fleet)>,
    /// What is known, and what is expected by it.
    expected: Option<(Facts, Expected)>,
    /// Peers of which server process.
    peers: Option<(String, BTreeSet<Arc<str>>)>,
    reports: BTreeMap<HostName, Brownout>,
    region: Scope,
    fleet: Scope,
    next_look: Mono,
}

/// Counters of all that a [`Fleet`] is summed up from: turns of verdicts, what hosts say, what the own server shows, and
/// how many members there are.
type Sources = (u64, u64, u64, usize);

/// What follows from the members, their verdicts and the own server.
#[derive(Debug, Clone, Default, PartialEq)]
struct Fleet {
    /// Servers with an agent by version, this one not among them.
    versions: BTreeMap<ServerVersion, u32>,
    clusters: usize,
    /// Of the own cluster.
    beside: u32,
    /// Bytes of their names.
    names: usize,
    /// Hosts that are heard, in the fleet and in this region.
    heard: [usize; 2],
    /// Pinned accounts.
    pinned: usize,
}

impl Sys {
    /// Bytes queued for routes, by the local server's STATSZ.
    pub(super) fn on_pending(&mut self, pending: Option<u64>) {
        self.churn.on_statsz(pending);
    }

    /// What the own beacon says of it.
    pub(super) fn beacon(&self, now: Now) -> Option<Brownout> {
        let since = self.detector.since()?;
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a score is in 0..=1000"
        )]
        let score = (self.detector.score() * 100.0) as u64;
        Some(Brownout {
            since: now.mono.since(since.mono).as_secs(),
            score,
        })
    }
}

impl Core {
    /// A good read of the local server, before it replaces the one before.
    pub(super) fn on_sample(&mut self, sample: &Sample, now: Now, out: &mut Vec<Action>) {
        match sample {
            Sample::Varz(varz) => self.on_sys_varz(varz, now),
            Sample::Routez(routes) => self.on_sys_routes(routes, now, out),
            Sample::Gatewayz(gateways) => {
                if let Some(v) = self.local.varz() {
                    self.sys.churn.on_gateways(&v.server_id, gateways);
                }
            }
            Sample::Accstatz(accstatz) => {
                let pooled = self.version().is_some_and(|v| (v.major, v.minor) >= (2, 10));
                let odd = self.odd_count();
                let step = self.sys.rates.on_account(accstatz, pooled, now.mono);
                self.on_step(step, odd, now, out);
            }
            Sample::Healthz(_) | Sample::Jsz(_) => {}
        }
    }

    fn on_sys_varz(&mut self, varz: &Varz, now: Now) {
        let known = self.local.varz().map(|v| v.server_id.as_str());
        let began = match known {
            // Seen for the first time by an agent that may have started with it.
            None => varz
                .start
                .is_some_and(|t| now.wall.0.saturating_sub(t.0) < JUST_STARTED && t <= now.wall),
            Some(id) => id != varz.server_id,
        };
        if began {
            self.sys.explanations.started(now.mono);
        }
        self.sys.rates.set_shared(varz.jetstream);
        self.sys.churn.on_varz(varz, now.mono);
        self.sys.memory.on_read(&varz.server_id, varz.mem, now.mono);
    }

    fn on_sys_routes(&mut self, routes: &[Route], now: Now, out: &mut Vec<Action>) {
        let Some(v) = self.local.varz() else { return };
        let (id, system) = (v.server_id.clone(), v.system_account.clone());
        self.see_peers(&id, routes, now.mono);
        if let Some(version) = self.version() {
            self.sys.churn.on_routes(&id, version, routes);
        }
        let odd = self.odd_count();
        let step = self.sys.rates.on_routes(&id, &system, routes, now.mono);
        self.on_step(step, odd, now, out);
    }

    pub(super) fn on_sys_counted(
        &mut self,
        subscription: u64,
        peers: &BTreeMap<String, crate::core::sys::reading::Tally>,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        let odd = self.odd_count();
        let step = self.sys.rates.on_counted(subscription, peers, now.mono);
        self.on_step(step, odd, now, out);
    }

    /// Peers that came and went since the last read of the same process.
    fn see_peers(&mut self, id: &str, routes: &[Route], now: Mono) {
        let known = self.sys.peers.as_ref().is_some_and(|(of, _)| of == id);
        if known && self.local.connected_as(routes) {
            return;
        }
        let seen: BTreeSet<Arc<str>> = routes.iter().map(|r| r.remote_id.clone()).collect();
        if let Some((of, known)) = self.sys.peers.take()
            && of == id
        {
            for peer in known.difference(&seen) {
                let host = self.host_of(peer);
                self.sys.explanations.left(peer, host.as_deref(), now);
            }
            for peer in seen.difference(&known) {
                let host = self.host_of(peer);
                self.sys.explanations.came(peer, host.as_deref(), now);
            }
        }
        self.sys.peers = Some((id.to_owned(), seen));
    }

    fn host_of(&self, server_id: &str) -> Option<String> {
        let found = self.members.iter().find(|(_, m)| m.server_id == server_id);
        found.map(|(h, _)| h.to_string())
    }

    /// What a beacon explains, before the member is updated by it.
    pub(super) fn explain(&mut self, source: &Source, beacon: &Beacon, verdict: (Verdict, Verdict), now: Now) {
        let host = source.host.as_str();
        let x = &mut self.sys.explanations;
        if matches!(beacon.health, Health::Restarting | Health::LameDuck) {
            x.announced(host, now.mono);
        }
        match self.members.get(&source.host) {
            None => x.joined(host, &beacon.server_id, now.mono),
            Some(m) if m.server_id.is_empty() || beacon.server_id.is_empty() => {}
            Some(m) if m.server_id != beacon.server_id => x.changed(host, &beacon.server_id, now.mono),
            Some(_) if verdict == (Verdict::Stalled, Verdict::Ok) => x.healed(host, &beacon.server_id, now.mono),
            Some(_) => {}
        }
        match beacon.brownout {
            Some(report) => self.sys.reports.insert(source.host.clone(), report),
            None => self.sys.reports.remove(&source.host),
        };
    }

    fn odd_count(&self) -> u64 {
        self.sys.rates.odd_readings().values().sum()
    }

    fn on_step(&mut self, step: Option<Step>, odd_before: u64, now: Now, out: &mut Vec<Action>) {
        if self.odd_count() > odd_before {
            self.sys.detector.on_odd();
        }
        let Some(step) = step else { return };
        let receives = step.source.receives();
        let Some(flow) = (if receives { step.received } else { step.sent }) else {
            return;
        };
        if self.sys.expected.is_none() {
            self.look_at_the_fleet(now);
        }
        // Of JetStream's replication nothing can be expected: a batch job is a thousandfold of an idle night.
        let shared = self.sys.rates.is_shared();
        if shared && self.sys.detector.is_on_by_volume() {
            // In a storm the counting connection may be the first to go. What tells no volume does not tell that it is over.
            return;
        }
        let context = Context {
            expected: self.sys.expected.as_ref().map(|(_, e)| e).filter(|_| !shared),
            receives,
            restarts: self.sys.explanations.restarts(now.mono),
            starting: self.sys.explanations.starting(now.mono),
            policy: &self.policy.brownout,
        };
        let change = self.sys.detector.on_flow(flow, &context, now);
        self.tell(change, now, out);
    }

    /// Time passes; once per [`LOOK`] the fleet is looked at.
    pub(super) fn tick_sys(&mut self, now: Now, out: &mut Vec<Action>) {
        if now.mono < self.sys.next_look {
            return;
        }
        self.sys.next_look = now.mono.plus(LOOK);
        let change = self.sys.detector.on_tick(now);
        self.tell(change, now, out);
        self.look_at_the_fleet(now);
        self.sys.explanations.forget(now.mono);
        self.sys.rates.forget(now.mono);
        self.look_at_scopes(now, out);
    }

    fn tell(&mut self, change: Option<Change>, now: Now, out: &mut Vec<Action>) {
        let (event, text) = match change {
            None => return,
            Some(Change::Suspected) => {
                // The sooner it is read again, the sooner it is known.
                out.push(Action::ReadRoutes);
                return;
            }
            Some(Change::Explained) => {
                let why = self.sys.explanations.sentences(now.mono);
                (
                    "explained",
                    format!("more system traffic than usual: {}", why.join("; ")),
                )
            }
            Some(Change::Began) => {
                let why: Vec<String> = self.sys.detector.reasons().iter().map(ToString::to_string).collect();
                let ends = self.sys.detector.ends_when();
                (
                    "brownout",
                    format!("a brownout began: {}; it ends when {ends}", why.join("; ")),
                )
            }
            Some(Change::Ended { lasted, lost }) => {
                let secs = lasted.as_secs_f64();
                let text = if lost {
                    format!("the brownout that began {secs:.0} s ago is not known to last: no readings come")
                } else {
                    format!("the brownout ended after {secs:.0} s")
                };
                ("brownout_over", text)
            }
        };
        self.record(event, "host".to_owned(), text, now, out);
    }

    fn version(&self) -> Option<ServerVersion> {
        self.local.varz()?.version.parse().ok()
    }

    fn look_at_the_fleet(&mut self, now: Now) {
        let sources = self.sources();
        if self.sys.fleet_seen.as_ref().is_none_or(|(of, _)| *of != sources) {
            self.sys.fleet_seen = Some((sources, self.sum_up()));
        }
        #[cfg(test)]
        assert_eq!(
            self.sys.fleet_seen,
            Some((sources, self.sum_up())),
            "a change was not noticed"
        );
        let facts = self.facts(now);
        if facts.as_ref() == self.sys.expected.as_ref().map(|(of, _)| of) {
            return;
        }
        self.sys.expected = facts.and_then(|facts| {
            let expected = Expected::of(&facts)?;
            Some((facts, expected))
        });
        if let Some((_, e)) = &self.sys.expected {
            self.sys.explanations.set_lasts(e.lasts);
        }
    }

    fn sources(&self) -> Sources {
        let turns = self.lanes.iter().map(|l| l.turns).sum();
        (turns, self.told, self.local.shown, self.members.len())
    }

    fn sum_up(&self) -> Fleet {
        let mut fleet = Fleet::default();
        let own = self.version();
        let cluster = self.cluster();
        let mut clusters: BTreeSet<&str> = [cluster.as_str()].into();
        // Nearly all are of one version, and hosts of a cluster stand together.
        let mut last: Option<(&String, Option<ServerVersion>)> = None;
        let mut beyond = "";
        for (host, m) in self.members.iter() {
            let verdicts = self.lanes.iter().filter_map(|l| l.paths.get(host)).map(|p| p.verdict);
            if verdicts.clone().any(|v| matches!(v, Verdict::Ok | Verdict::Late)) {
                let here = m.place.region == self.policy.region;
                fleet.heard = [fleet.heard[0] + 1, fleet.heard[1] + usize::from(here)];
            }
            if !{ verdicts }.any(|v| v != Verdict::Departed) {
                continue;
            }
            let version = match &last {
                Some((text, version)) if *text == &m.version => *version,
                _ => m.version.parse().ok().or(own),
            };
            last = Some((&m.version, version));
            if let Some(version) = version {
                *fleet.versions.entry(version).or_default() += 1;
            }
            fleet.names += m.server.len();
            if m.place.cluster == cluster || m.place.cluster.is_empty() {
                fleet.beside += 1;
            } else if m.place.cluster != beyond {
                beyond = &m.place.cluster;
                clusters.insert(beyond);
            }
        }
        fleet.clusters = clusters.len();
        let routes = self.local.routes.as_ref().map_or(&[][..], |(_, r)| r);
        let pinned: BTreeSet<&Arc<str>> = routes.iter().filter_map(|r| r.account.as_ref()).collect();
        fleet.pinned = pinned.len();
        fleet
    }

    fn facts(&self, now: Now) -> Option<Facts> {
        let varz = self.local.varz()?;
        let own = self.version()?;
        let (_, fleet) = self.sys.fleet_seen.as_ref()?;
        let mut versions = fleet.versions.clone();
        // Servers without an agent are there too.
        let peers = u32::try_from(varz.remotes).unwrap_or(0).min(100_000);
        *versions.entry(own).or_default() += 1 + peers.saturating_sub(fleet.beside);
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Some(Facts {
            versions,
            clusters: count(fleet.clusters).max(count(varz.gateways.len())),
            pool_size: varz.pool_size,
            pinned: count(fleet.pinned),
            accounts: self
                .local
                .accounts
                .as_ref()
                .map_or(1, |(_, a)| u32::try_from(a.active_accounts).unwrap_or(u32::MAX)),
            clients: u32::try_from(varz.connections).unwrap_or(u32::MAX),
            name_bytes: count((fleet.names + varz.server_name.len()) / (self.members.len() + 1)),
            age: varz
                .start
                .map_or(Duration::from_secs(86_400), |t| now.wall.0.saturating_sub(t.0)),
        })
    }

    fn look_at_scopes(&mut self, now: Now, out: &mut Vec<Action>) {
        let members = &self.members;
        self.sys.reports.retain(|host, _| members.contains_key(host));
        let own = usize::from(self.sys.detector.is_on());
        let [fleet, region] = self.sys.fleet_seen.as_ref().map_or([0, 0], |(_, f)| f.heard);
        let (mut fleet, mut region) = ((own, fleet + 1), (own, region + 1));
        for host in self.sys.reports.keys() {
            let paths = self.lanes.iter().filter_map(|l| l.paths.get(host));
            if !{ paths }.any(|p| matches!(p.verdict, Verdict::Ok | Verdict::Late)) {
                continue;
            }
            fleet.0 += 1;
            let there = self.members.get(host).map(|m| &m.place.region);
            region.0 += usize::from(there == Some(&self.policy.region));
        }
        let news = [
            ("region", self.sys.region.update(region.0, region.1, now)),
            ("fleet", self.sys.fleet.update(fleet.0, fleet.1, now)),
        ];
        for (name, changed) in news {
            if !changed {
                continue;
            }
            let scope = if name == "fleet" {
                &self.sys.fleet
            } else {
                &self.sys.region
            };
            let (event, text) = match scope.since() {
                Some(_) => (
                    "brownout",
                    format!("a brownout of the {name} began: {}", scope.reason()),
                ),
                None => ("brownout_over", format!("the brownout of the {name} ended")),
            };
            self.record(event, name.to_owned(), text, now, out);
        }
    }

    /// No act and no restart while a brownout is on, whoever wants it.
    pub(super) fn brownout_gate(&self, now: Now) -> Result<(), Blocked> {
        if !self.policy.brownout.hold {
            return Ok(());
        }
        let blocked = |scope, since: Now, reason, ends| {
            Err(Blocked::Brownout {
                scope,
                lasted: now.mono.since(since.mono),
                reason,
                ends,
            })
        };
        let detector = &self.sys.detector;
        if let Some(since) = detector.since() {
            let reasons: Vec<String> = detector.reasons().iter().map(ToString::to_string).collect();
            return blocked("host", since, reasons.join("; "), detector.ends_when());
        }
        for (name, scope) in [("region", &self.sys.region), ("fleet", &self.sys.fleet)] {
            if let Some(since) = scope.since() {
                return blocked(name, since, scope.reason(), scope.ends_when());
            }
        }
        Ok(())
    }

    pub(super) fn sys_view(&self, now: Now) -> SysView {
        let sys = &self.sys;
        let source = sys.rates.source(now.mono);
        let shown = |a: Option<Amount>| a.filter(|_| source.is_some()).map(rate);
        let (received, sent) = sys.rates.totals();
        SysView {
            source: source.map(|s| s.name().to_owned()),
            age_seconds: sys.rates.age(now.mono).map(|d| d.as_secs_f64()),
            shared_with_jetstream: sys.rates.is_shared(),
            received: shown(sys.rates.received(now.mono)),
            sent: shown(sys.rates.sent(now.mono)),
            received_total: amount(received),
            sent_total: amount(sent),
            expected: sys
                .expected
                .as_ref()
                .map(|(_, e)| e)
                .filter(|_| !sys.rates.is_shared())
                .map(|e| ExpectedView {
                    servers: e.servers,
                    clusters: e.clusters,
                    received: rate(e.received),
                    sent: rate(e.sent),
                    worst: rate(e.worst),
                    statsz_bytes: e.statsz_bytes,
                    restart: rate(e.restart),
                }),
            peers: sys
                .rates
                .top(TOP, now.mono)
                .into_iter()
                .map(|(peer, a)| PeerRateView {
                    peer: self.host_of(peer).unwrap_or_else(|| peer.to_owned()),
                    received: rate(a),
                })
                .collect(),
            odd_readings: sys
                .rates
                .odd_readings()
                .iter()
                .map(|(odd, n)| (odd.name().to_owned(), *n))
                .collect(),
            churn: self.churn_view(now),
            memory: MemoryView {
                limit_bytes: sys.memory_limit.map(|l| l.bytes),
                limit_source: sys.memory_limit.map(|l| l.source.name().to_owned()),
                slope_bytes_per_second: sys.memory.slope(),
                exhaustion_seconds: sys
                    .memory_limit
                    .and_then(|l| sys.memory.exhaustion(l))
                    .map(|d| d.as_secs_f64()),
            },
        }
    }

    #[allow(clippy::cast_precision_loss, reason = "a count of slow consumers")]
    fn churn_view(&self, now: Now) -> ChurnView {
        let churn = &self.sys.churn;
        let per_minute = churn.slow_per_minute(now.mono);
        ChurnView {
            slow_consumers: churn.slow_consumers().clone(),
            slow_consumers_per_minute: per_minute.into_iter().map(|(k, n)| (k, n as f64)).collect(),
            routes_opened: churn.routes().0,
            routes_closed: churn.routes().1,
            gateways_opened: churn.gateways().0,
            gateways_closed: churn.gateways().1,
            pending_bytes: churn.pending(),
            stalled_clients: churn.stalled(),
        }
    }

    pub(super) fn brownout_views(&self, now: Now) -> Vec<BrownoutView> {
        let detector = &self.sys.detector;
        let on = detector.is_on();
        let state = match detector.state() {
            State::Quiet => "quiet",
            State::Suspect { .. } => "suspect",
            State::Brownout { .. } => "brownout",
            State::Ending { .. } => "ending",
        };
        let host = BrownoutView {
            scope: "host".to_owned(),
            on,
            state: state.to_owned(),
            score: detector.score(),
            since: detector.since().map(|n| n.wall.as_secs_f64()),
            reasons: detector.reasons().iter().map(ToString::to_string).collect(),
            explanations: self.sys.explanations.sentences(now.mono),
            ends_when: on.then(|| detector.ends_when()),
            hosts: None,
        };
        let scopes = [("region", &self.sys.region), ("fleet", &self.sys.fleet)].map(|(name, s)| {
            let on = s.since().is_some();
            BrownoutView {
                scope: name.to_owned(),
                on,
                state: match (on, s.is_ending()) {
                    (true, true) => "ending",
                    (true, false) => "brownout",
                    (false, _) => "quiet",
                }
                .to_owned(),
                score: s.score(),
                since: s.since_wall().map(crate::core::ids::Wall::as_secs_f64),
                reasons: on.then(|| s.reason()).into_iter().collect(),
                explanations: Vec::new(),
                ends_when: on.then(|| s.ends_when()),
                hosts: Some(s.hosts()),
            }
        });
        std::iter::once(host).chain(scopes).collect()
    }
}

fn rate(a: Amount) -> RateView {
    RateView {
        messages: a.msgs,
        bytes: a.bytes,
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "sums of positive amounts, far below 2^53"
)]
fn amount(a: Amount) -> AmountView {
    AmountView {
        messages: a.msgs as u64,
        bytes: a.bytes as u64,
    }
}
