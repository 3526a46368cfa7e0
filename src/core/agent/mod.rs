//! The agent's core: one state, one entry [`Core::handle`], plain events in, plain actions out, time as an argument.
//!
//! `beacons` says and hears, `evidence` gathers who hears whom, `heal` drives cases up the ladder, `show` makes the
//! snapshot. Nothing here waits, reads a clock or touches the world.

mod act;
mod audit;
mod beacons;
pub mod by_host;
mod called;
pub mod event;
mod evidence;
mod gates;
mod heal;
pub mod lane;
pub mod local;
mod memory;
mod names;
pub mod order;
mod permit;
mod reach;
mod rollout;
pub mod run;
mod show;
mod sight;
mod sys;
#[cfg(test)]
mod sys_tests;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::core::agent::by_host::ByHost;
use crate::core::agent::event::{Action, Event, RosterEntry};
use crate::core::agent::lane::{Lane, RegionStats};
use crate::core::agent::local::{Change, Local};
use crate::core::agent::order::Order;
pub use crate::core::agent::run::RestartRun;
use crate::core::canary::beacon::Health;
use crate::core::canary::probes::ProbeBook;
use crate::core::control::roll::Record as Rollout;
use crate::core::control::{Beside, Hearing, HostStatus, LastCommand};
use crate::core::ids::{HostName, LaneName, Mono, Now, Region, Wall};
use crate::core::mesh::{End, Evidence, Place};
use crate::core::policy::{Brownout, Canary, Policy, Remediation};
use crate::core::remedy::case::Case;
use crate::core::remedy::gate::Blocked;
use crate::core::remedy::ledger::{ActKind, Boot, Ledger};
use crate::core::server::{Endpoint, Gatewayz, Route, Sample};
use crate::core::view::{Record, Verdict};

/// How often [`Event::Tick`] comes.
pub const TICK: Duration = Duration::from_millis(100);
/// A loop that stood still for longer was away: it blames itself.
const AWAY: Duration = Duration::from_millis(1500);
/// After being away, so long nothing is said about others.
const RECOVER: Duration = Duration::from_secs(3);
/// Between two diagnoses while there are faults, and after a report that says something new.
const JUDGE_SOON: Duration = Duration::from_millis(200);
/// Between two diagnoses of a fleet that is well: a look at 900 hosts is not free. Stalls seen here do not wait for it.
const JUDGE_QUIET: Duration = Duration::from_secs(1);
/// A member not heard for this long is forgotten.
const FORGET: Duration = Duration::from_secs(24 * 3600);
/// Hosts that are learned from beacons; a flood of forged names must not fill the memory, nor stretch the interval.
const MAX_HOSTS: usize = 4096;
/// Regions that are learned from beacons: they are labels of series.
const MAX_REGIONS: usize = 256;

/// What was kept on disk.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Restored {
    /// The roster.
    pub roster: Vec<RosterEntry>,
    /// The ledger; `Err` = it was there and could not be read.
    pub ledger: Option<Result<Ledger, String>>,
    /// The rollout that was open.
    pub rollout: Option<Rollout>,
    /// Why nothing can be kept, if so.
    pub state_error: Option<String>,
    /// Why sockets cannot be reset here, if so.
    pub reset_unavailable: Option<String>,
    /// The machine's boot, and how long ago it was when the core is made; `None` = not known.
    pub boot: Option<Boot>,
    /// The last records of earlier processes, oldest first.
    pub history: Vec<Record>,
}

/// A known host.
#[derive(Debug, Clone, PartialEq)]
struct Member {
    /// Shared with the evidence, which holds one of each member.
    place: Arc<Place>,
    server_id: String,
    server: String,
    version: String,
    route: String,
    gateway: String,
    health: Health,
    /// Last heard before this process began to listen.
    heard: Wall,
    ip: Option<Arc<str>>,
    /// The read of routes in which `ip` was last looked for.
    ip_read: u64,
}

impl Member {
    /// One of whom nothing else is known yet.
    fn new(region: Region, heard: Wall) -> Self {
        let place = Place {
            region,
            cluster: String::new(),
            entries: BTreeMap::new(),
        };
        Self {
            place: Arc::new(place),
            server_id: String::new(),
            server: String::new(),
            version: String::new(),
            route: String::new(),
            gateway: String::new(),
            health: Health::Warming,
            heard,
            ip: None,
            ip_read: 0,
        }
    }
}

/// The whole state of one agent.
#[derive(Debug, Clone)]
pub struct Core {
    policy: Policy,
    started: Now,
    inc: u64,
    lanes: Vec<Lane>,
    members: ByHost<Member>,
    /// Members by region, and what this was made from.
    regions: ((u64, usize), BTreeMap<Region, Vec<HostName>>),
    /// Where this host is, and what that was made from.
    place: Option<((u64, u64, usize), Arc<Place>)>,
    book: ProbeBook,
    local: Local,
    sys: sys::Sys,
    evidence: Evidence,
    /// What `evidence` was gathered from.
    sight: Option<sight::Sight>,
    /// Counts changes of what hosts say.
    told: u64,
    ungatewayed_since: BTreeMap<String, Mono>,
    cases: BTreeMap<String, Case>,
    /// Hosts and clusters that came back a moment ago: until when what is still silent there may be on its way back.
    recovering: BTreeMap<End, Mono>,
    /// When something was last done about the paths to a peer.
    acted_on: BTreeMap<HostName, Mono>,
    restarted_at: Option<Mono>,
    ledger: Ledger,
    /// That the ledger could not be read is not in the history yet.
    damage_untold: bool,
    kept: memory::Keep,
    restart: Option<RestartRun>,
    rollout: Option<Box<Rollout>>,
    /// When this host was told of it last.
    rollout_told: Mono,
    /// The rollout that was closed last, and its term.
    closed: Option<(String, u64)>,
    last_restart: Option<(Wall, String)>,
    permit: permit::Permit,
    last_command: Option<LastCommand>,
    next_id: u64,
    next_beacon: Mono,
    last_extra: Mono,
    next_diagnosis: Mono,
    judged_at: Mono,
    roster_dirty: bool,
    roster_saved: Mono,
    /// Names that several servers of the own cluster have, as last looked for.
    shared_names: BTreeMap<String, BTreeSet<HostName>>,
    last_tick: Mono,
    loop_lag: Duration,
    away_at: Option<Mono>,
    /// So many hosts were sick that it was an incident.
    incident_at: Option<Mono>,
    /// When a lane last carried nothing, not even the own beacon.
    deaf_at: Option<Mono>,
    twin_at: Option<Mono>,
    state_error: Option<String>,
    reset_unavailable: Option<String>,
    audit: audit::Audit,
    dropped: BTreeMap<String, u64>,
    actions: BTreeMap<(&'static str, String, &'static str), u64>,
    blocked: BTreeMap<&'static str, u64>,
    leaving: bool,
}

/// Unix milliseconds of the start and twelve random bits, so that two that start together are told apart; below 2^53.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "phase is in 0..1"
)]
fn incarnation(start: Wall, phase: f64) -> u64 {
    let millis = u64::try_from(start.0.as_millis()).unwrap_or(u64::MAX >> 12);
    millis
        .saturating_mul(4096)
        .saturating_add((phase.clamp(0.0, 1.0) * 4095.0) as u64)
}

impl Core {
    /// A new agent. `phase` in 0..1 spreads beacons of hosts that start together.
    #[must_use]
    pub fn new(policy: Policy, restored: Restored, phase: f64, now: Now) -> Self {
        let interval = policy.canary.interval;
        let lanes = policy
            .lanes
            .iter()
            .map(|l| Lane::new(l.clone(), now.mono, interval))
            .collect();
        // The damaged file is out of the way by now: without another one the next process would begin with free limits.
        let damaged = matches!(restored.ledger, Some(Err(_)));
        let mut ledger = match restored.ledger {
            None => Ledger::default(),
            Some(Ok(ledger)) => ledger,
            Some(Err(why)) => Ledger::exhausted(&why, now),
        };
        ledger.anchor(restored.boot.as_ref(), now);
        let last_restart = ledger.last(ActKind::Restart).map(|a| (a.at, act::kind_of(&a.reason)));
        let mut core = Self {
            started: now,
            inc: incarnation(now.wall, phase),
            lanes,
            members: ByHost::default(),
            regions: ((0, 0), BTreeMap::new()),
            place: None,
            book: ProbeBook::default(),
            local: Local::default(),
            sys: sys::Sys::default(),
            evidence: Evidence::default(),
            sight: None,
            told: 0,
            ungatewayed_since: BTreeMap::new(),
            cases: BTreeMap::new(),
            recovering: BTreeMap::new(),
            acted_on: BTreeMap::new(),
            restarted_at: None,
            ledger,
            damage_untold: false,
            kept: memory::Keep::new(damaged, now),
            restart: None,
            rollout: restored.rollout.map(Box::new),
            rollout_told: now.mono,
            closed: None,
            last_restart,
            permit: permit::Permit::new(&policy, incarnation(now.wall, phase), now),
            last_command: None,
            next_id: 0,
            next_beacon: now.mono.plus(interval.mul_f64(phase.clamp(0.0, 1.0))),
            last_extra: now.mono,
            next_diagnosis: now.mono,
            judged_at: now.mono,
            roster_dirty: false,
            roster_saved: now.mono,
            shared_names: BTreeMap::new(),
            last_tick: now.mono,
            loop_lag: Duration::ZERO,
            away_at: None,
            incident_at: None,
            deaf_at: None,
            twin_at: None,
            state_error: restored.state_error,
            reset_unavailable: restored.reset_unavailable,
            audit: audit::Audit::new(restored.history),
            dropped: BTreeMap::new(),
            actions: BTreeMap::new(),
            blocked: BTreeMap::new(),
            leaving: false,
            policy,
        };
        core.restore(restored.roster, now);
        core.inherit_run(now);
        core.damage_untold = damaged;
        core
    }

    /// Takes in one event and says what is wanted.
    pub fn handle(&mut self, event: Event, now: Now) -> Vec<Action> {
        let mut out = Vec::new();
        self.notice_absence(now, &mut out);
        match event {
            Event::Tick => self.on_tick(now, &mut out),
            Event::Connection { lane, state } => self.on_connection(&lane, state, now, &mut out),
            Event::Beacon { lane, source, beacon } => self.on_beacon(&lane, &source, &beacon, now, &mut out),
            Event::Dropped { reason, .. } => *self.dropped.entry(reason.to_owned()).or_default() += 1,
            Event::ProbeAnswered { id, hold } => {
                let ended = self.book.answered(id, hold, now.mono);
                self.on_probe(ended, now);
            }
            Event::ProbeFailed { id, why } => {
                let ended = self.book.failed(id, why);
                self.on_probe(ended, now);
            }
            Event::Server { endpoint, result } => self.on_server(endpoint, result, now, &mut out),
            Event::SysCounted {
                subscription,
                peers,
                pending,
            } => {
                self.sys.on_pending(pending);
                self.on_sys_counted(subscription, &peers, now, &mut out);
            }
            Event::MemoryLimit(limit) => self.sys.memory_limit = limit,
            Event::LameDuck => self.on_lame_duck(now, &mut out),
            Event::Unit(report) => self.local.unit = Some((now.mono, report)),
            Event::Checked { check, result } => self.on_checked(check, result, now),
            Event::LedgerSaved { act, result } => self.on_ledger_saved(act, result, now, &mut out),
            Event::ActDone { act, result } => self.on_act_done(act, result, now, &mut out),
            Event::StepDone { act, result } => self.on_step_done(act, result, now, &mut out),
            Event::PermitsRead { ask, result } => self.on_permits_read(ask, result, now, &mut out),
            Event::PermitsWritten { ask, result } => self.on_permits_written(ask, result, now, &mut out),
            Event::StateKept(error) => {
                // What could not be written is written again, not only when the roster changes next.
                self.roster_dirty |= error.is_some();
                self.state_error = error;
            }
            Event::Shutdown => self.on_shutdown(now, &mut out),
        }
        out
    }

    /// Notes an order that a gate held.
    pub fn refuse_order(&mut self, order: &Order, blocked: &Blocked, now: Now) -> Vec<Action> {
        let mut out = Vec::new();
        *self.blocked.entry(blocked.gate()).or_default() += 1;
        let mut record = order.record(format!("{} refused: {blocked}", order.verb), "refused");
        record.event = "refused".to_owned();
        record.evidence = format!("{}: {blocked}", blocked.gate());
        self.keep(record, now, &mut out);
        out
    }

    /// The answer to `status` of the control protocol.
    #[must_use]
    pub fn host_status(&self, now: Now) -> HostStatus {
        let routes = self.local.fresh_routes(now.mono).unwrap_or_default();
        let names: BTreeSet<&str> = routes
            .iter()
            .map(|r| {
                if r.remote_name.is_empty() {
                    &r.remote_id
                } else {
                    &r.remote_name
                }
            })
            .map(|name| &**name)
            .collect();
        let clusters = |g: &Gatewayz| {
            let there: BTreeSet<String> = g.outbound.iter().map(|c| c.cluster.to_string()).collect();
            there.into_iter().collect()
        };
        let pinned = |routes: &[Route]| {
            let accounts: BTreeSet<&Arc<str>> = routes.iter().filter_map(|r| r.account.as_ref()).collect();
            u32::try_from(accounts.len()).unwrap_or(u32::MAX)
        };
        let beside = Beside {
            pool_size: self.local.varz().and_then(|v| v.pool_size),
            pinned: self.local.fresh_routes(now.mono).map(pinned),
            active_accounts: self.local.accounts.as_ref().map(|(_, a)| a.active_accounts),
            gossiped_routes: self
                .local
                .fresh_routes(now.mono)
                .map(|routes| routes.iter().any(|r| r.did_solicit && !r.is_configured)),
            peer_names: names.into_iter().map(str::to_owned).collect(),
            gateways: self.local.fresh_gateways(now.mono).map(clusters),
            busy: self
                .restart
                .as_ref()
                .map(|r| format!("restarting its server ({}): {}", r.why, r.doing.text()))
                .or_else(|| self.waiting_order()),
            last_command: self.last_command.clone(),
            restart: self.restart_facts(),
        };
        HostStatus::from_snapshot(&self.snapshot(now), beside)
    }

    /// The answer to `hears` of the control protocol.
    #[must_use]
    pub fn hearing(&self, source: &HostName, now: Now) -> Hearing {
        Hearing::from_snapshot(&self.snapshot(now), source)
    }

    /// Takes over what may change while running.
    pub fn reload(&mut self, canary: Canary, remediation: Remediation, now: Now) -> Vec<Action> {
        let mut out = Vec::new();
        self.policy.canary = canary;
        self.policy.remediation = remediation;
        // After how many intervals silence is a stall may be another.
        for lane in &mut self.lanes {
            lane.due = Mono::default();
        }
        let text = format!("configuration reloaded; mode {}", self.policy.remediation.mode.name());
        self.record("agent", self.policy.host.to_string(), text, now, &mut out);
        out
    }

    /// The same for `[brownout]`.
    pub fn reload_brownout(&mut self, brownout: Brownout) {
        self.policy.brownout = brownout;
    }

    fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// A loop that stood still, or a machine that slept, missed what others sent: that is nobody else's fault.
    fn notice_absence(&mut self, now: Now, out: &mut Vec<Action>) {
        let gap = now.mono.since(self.last_tick);
        if gap < AWAY {
            return;
        }
        self.last_tick = now.mono;
        self.loop_lag = gap - TICK;
        self.away_at = Some(now.mono);
        self.book.rebase();
        for lane in &mut self.lanes {
            lane.own.rebase(now.mono);
            lane.rebase(now.mono);
        }
        let text = format!(
            "this agent stood still for {:.1} s; verdicts start anew",
            gap.as_secs_f64()
        );
        self.record("agent", self.policy.host.to_string(), text, now, out);
    }

    fn on_tick(&mut self, now: Now, out: &mut Vec<Action>) {
        self.loop_lag = now.mono.since(self.last_tick).saturating_sub(TICK);
        self.last_tick = now.mono;
        if self.leaving {
            return;
        }
        let limit = (self.interval() * 2).max(Duration::from_secs(2));
        for ended in self.book.expire(now.mono, limit) {
            self.on_probe(Some(ended), now);
        }
        let news = self.tick_lanes(now, out);
        if now.mono >= self.next_beacon {
            self.next_beacon = self
                .next_beacon
                .plus(self.interval())
                .max(now.mono.plus(self.interval() / 2));
            self.expect_called(now, out);
            self.publish(false, now, out);
            self.probe(now, out);
        } else if news && now.mono.since(self.last_extra) >= self.interval() / 2 {
            // What was just found out must not wait for the next beacon: others' judgement hangs on it.
            self.last_extra = now.mono;
            self.publish(false, now, out);
            out.push(Action::ReadRoutes);
        }
        // After a time without a judgement, the old one is no base for what `heal` does below.
        let old = now.mono.since(self.judged_at) > JUDGE_QUIET + TICK;
        if news || old || now.mono >= self.next_diagnosis {
            self.judge(now, out);
            let quiet = self.cases.is_empty();
            self.next_diagnosis = now.mono.plus(if quiet { JUDGE_QUIET } else { JUDGE_SOON });
        }
        let stalled = self.stall();
        if self.lanes.iter().any(|l| l.deaf(now.mono, stalled)) {
            self.deaf_at = Some(now.mono);
        }
        self.tend_permit(now, out);
        self.tend_memory(now, out);
        self.heal(now, out);
        self.watch_restart(now, out);
        self.watch_run(now, out);
        self.keep_roster(now, out);
        self.tick_sys(now, out);
        self.sum_up_refusals(now, out);
    }

    fn on_server(
        &mut self,
        endpoint: Endpoint,
        result: Result<Sample, crate::core::server::ReadError>,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        let error = result.as_ref().err().map(ToString::to_string);
        if let Ok(sample) = &result {
            self.on_sample(sample, now, out);
        }
        let change = self.local.on_read(endpoint, result, now.mono);
        let name = self.local.varz().map_or_else(String::new, |v| v.server_name.clone());
        let text = match change {
            Change::None => return,
            Change::Up => format!("server {name} answers"),
            Change::Down => format!("server {name} does not answer: {}", error.unwrap_or_default()),
            Change::Restarted => format!("server {name} was restarted"),
        };
        if change == Change::Restarted || change == Change::Up {
            out.push(Action::ReadRoutes);
        }
        self.record("server", name, text, now, out);
    }

    fn on_connection(&mut self, lane: &LaneName, state: Result<(), String>, now: Now, out: &mut Vec<Action>) {
        let Some(l) = self.lanes.iter_mut().find(|l| &l.name == lane) else {
            return;
        };
        let was = l.connected.is_ok();
        match state {
            Ok(()) => {
                l.connected = Ok(now.mono);
                l.deaf = true;
                if !was {
                    let text = format!("lane {lane} is connected");
                    self.record("agent", lane.to_string(), text, now, out);
                    self.publish(false, now, out);
                }
            }
            Err(e) => {
                l.connected = Err(e.clone());
                l.deaf = true;
                l.self_loop = None;
                if was {
                    self.record(
                        "agent",
                        lane.to_string(),
                        format!("lane {lane} lost its connection: {e}"),
                        now,
                        out,
                    );
                }
            }
        }
    }

    fn on_lame_duck(&mut self, now: Now, out: &mut Vec<Action>) {
        if !std::mem::replace(&mut self.local.lame_duck, true) {
            let name = self.local.varz().map_or_else(String::new, |v| v.server_name.clone());
            self.record(
                "server",
                name.clone(),
                format!("server {name} is a lame duck"),
                now,
                out,
            );
            // The last word while there is still a connection.
            self.publish(false, now, out);
        }
    }

    fn on_shutdown(&mut self, now: Now, out: &mut Vec<Action>) {
        if !self.leaving {
            self.leaving = true;
            self.publish(true, now, out);
            out.push(Action::SaveRoster(self.roster(now)));
            self.record(
                "agent",
                self.policy.host.to_string(),
                "leaving in order".to_owned(),
                now,
                out,
            );
        }
        out.push(Action::Leave);
    }

    fn interval(&self) -> Duration {
        let canary = &self.policy.canary;
        let lanes: usize = self.lanes.iter().map(|l| l.paths.len()).sum();
        let budget = canary.max_inbound_per_second.max(1);
        // So it is in all but large fleets, and this is asked for often.
        if canary.interval.saturating_mul(budget) > Duration::from_secs(lanes as u64 + 1) {
            return canary.interval;
        }
        let budget = f64::from(budget);
        #[allow(clippy::cast_precision_loss, reason = "a count of hosts")]
        let least = Duration::from_secs_f64(lanes as f64 / budget);
        canary.interval.max(least)
    }

    /// Why this agent is not to be believed about others now.
    fn unwell(&self, now: Now) -> Vec<String> {
        let mut why = Vec::new();
        let interval = self.interval();
        for lane in &self.lanes {
            if let Err(e) = &lane.connected {
                why.push(format!("lane {} is not connected: {e}", lane.name));
            } else if !lane.hears_itself(now.mono, interval) {
                why.push(format!("its own beacon does not come back on lane {}", lane.name));
            }
        }
        if self.away_at.is_some_and(|t| now.mono.since(t) < RECOVER) {
            why.push("its loop stood still a moment ago".to_owned());
        }
        if self
            .twin_at
            .is_some_and(|t| now.mono.since(t) < Duration::from_secs(60))
        {
            why.push(format!(
                "another agent also calls itself {}: give one of them another host.name",
                self.policy.host
            ));
        }
        why
    }

    fn warming(&self, now: Now) -> bool {
        let since = self
            .lanes
            .iter()
            .filter_map(|l| l.connected.as_ref().ok())
            .max()
            .copied();
        since.is_none_or(|t| now.mono.since(t) < self.warm())
    }

    /// Silence of a peer is a stall after so long.
    fn stall(&self) -> Duration {
        self.interval() * self.policy.canary.stall_after
    }

    /// After a time without ears, all others' beacons have come again by then.
    fn warm(&self) -> Duration {
        self.stall() + Duration::from_secs(1)
    }

    /// Its own beacon came back a moment ago, and others' verdicts are of the time before.
    fn was_deaf(&self, now: Now) -> bool {
        self.deaf_at.is_some_and(|t| now.mono.since(t) < self.warm())
    }

    fn health(&self, now: Now) -> Health {
        if self.restart.is_some() {
            Health::Restarting
        } else if self.local.lame_duck {
            Health::LameDuck
        } else if self.warming(now) && self.lanes.iter().all(|l| l.connected.is_ok()) {
            // Also while the first own beacon is still under way: that is no sickness.
            Health::Warming
        } else if !self.unwell(now).is_empty() {
            Health::Sick
        } else {
            Health::Ok
        }
    }

    fn known_clusters(&self) -> BTreeSet<String> {
        let own = self.cluster();
        let mut clusters = BTreeSet::new();
        for (host, m) in self.members.iter() {
            if !m.place.cluster.is_empty()
                && m.place.cluster != own
                && !clusters.contains(&m.place.cluster)
                && self.present(host)
            {
                clusters.insert(m.place.cluster.clone());
            }
        }
        if let Some(v) = self.local.varz() {
            clusters.extend(v.gateways.keys().filter(|c| **c != own).cloned());
        }
        clusters
    }

    fn cluster(&self) -> String {
        self.cluster_name().to_owned()
    }

    /// Empty where it is not known, or has no name.
    fn cluster_name(&self) -> &str {
        let own = self.local.varz();
        own.and_then(|v| v.cluster.as_deref().or(v.gateway.as_deref()))
            .unwrap_or_default()
    }

    /// What was counted, by lane and region.
    fn stats(&self) -> BTreeMap<(&LaneName, &Region), &RegionStats> {
        let lanes = self.lanes.iter();
        lanes
            .flat_map(|l| l.regions.iter().map(move |(r, s)| ((&l.name, r), s)))
            .collect()
    }

    /// Belongs and has not left on every lane.
    fn present(&self, host: &HostName) -> bool {
        self.lanes
            .iter()
            .filter_map(|l| l.paths.get(host))
            .any(|p| p.verdict != Verdict::Departed)
    }
}
