//! Which gates hold a remedy back here and now; what each says is in [`crate::core::remedy::gate`].

use std::collections::BTreeSet;
use std::time::Duration;

use crate::core::agent::Core;
use crate::core::agent::event::UnitReport;
use crate::core::agent::local::STALE;
use crate::core::canary::beacon::Health;
use crate::core::canary::path::ANNOUNCED;
use crate::core::canary::probes::SUSPECT_AFTER;
use crate::core::ids::{HostName, Mono, Now};
use crate::core::mesh::{End, SHARED};
use crate::core::policy::Mode;
use crate::core::remedy::case::{Case, Step, owner};
use crate::core::remedy::gate::Blocked;
use crate::core::remedy::ledger::ActKind;
use crate::core::server::Endpoint;
use crate::core::view::{FaultKind, Verdict};

/// A server that started less than this ago is left alone.
const STARTING: Duration = Duration::from_secs(10);
/// What is still broken so soon after an incident is a part of it: a network that loses packets lets go of one path after
/// the other.
const INCIDENT: Duration = Duration::from_secs(30);
/// Remedies of one fault within an hour; more is flapping.
const FLAPS: usize = 2;
/// Intervals in which a fault that every asker finds is found and told, beyond a round of them.
const ROUND: u32 = 2 * SUSPECT_AFTER;
/// Beacons of a host that was silent, the last of which tells of the time since.
const TOLD: u32 = 3;

/// What wants to be done.
pub(super) struct Asked<'a> {
    id: &'a str,
    case: &'a Case,
    kind: ActKind,
    now: Now,
}

/// One place in the order of gates.
pub(super) struct Gate {
    /// What its refusals are called.
    #[cfg_attr(not(test), allow(dead_code, reason = "a test compares the documented order with it"))]
    pub names: &'static [&'static str],
    /// Only this rung; `None` = both.
    pub only: Option<ActKind>,
    /// Looked at again when all is written down, right before the act.
    again: bool,
    holds: fn(&Core, &Asked<'_>) -> Result<(), Blocked>,
}

const fn gate(names: &'static [&'static str], holds: fn(&Core, &Asked<'_>) -> Result<(), Blocked>) -> Gate {
    Gate {
        names,
        only: None,
        again: false,
        holds,
    }
}

impl Gate {
    const fn only(self, kind: ActKind) -> Self {
        Self {
            only: Some(kind),
            ..self
        }
    }

    const fn again(self) -> Self {
        Self { again: true, ..self }
    }
}

/// The order, which docs/operations.md has too: the first that holds is named. Before all come the check of the network
/// (`no_address`, `network_down`), after all the permit of a restart, and what [`Core::last_gates`] says.
pub(super) const GATES: [Gate; 16] = [
    gate(&["permit_store", "paused"], |c, a| c.gate_paused(a.now)).again(),
    gate(&["self_unwell"], |c, a| c.gate_self(a.now)).again(),
    gate(&["busy"], |c, a| c.gate_busy(a)),
    gate(&["brownout"], |c, a| c.brownout_gate(a.now)).again(),
    gate(&["same_name"], |c, a| c.gate_names(a.case, a.now)).again(),
    gate(&["no_witness"], |c, a| c.gate_witness(a.case, a.kind, a.now)),
    gate(&["reset_unavailable"], |c, _| c.gate_reset()).only(ActKind::Reset),
    gate(&["rollout_open"], |c, _| c.gate_rollout(""))
        .only(ActKind::Restart)
        .again(),
    gate(
        &["server_down", "stale_data", "lame_duck", "server_starting"],
        |c, a| c.gates_of_the_server(a.now),
    )
    .again(),
    gate(&["no_gateway"], |c, a| c.gate_gateway(a.case, a.kind, a.now)),
    gate(&["no_target"], |c, a| c.reset_target(a.case, a.now).map(drop)).only(ActKind::Reset),
    gate(&["young_connection"], |c, a| c.gate_young(a.case, a.now)),
    gate(&["unit_state"], |c, a| c.gate_unit(a.now))
        .only(ActKind::Restart)
        .again(),
    gate(&["other_restarting", "too_many_sick", "jetstream_peer_down"], |c, a| {
        c.gates_of_the_fleet(a.now)
    })
    .only(ActKind::Restart)
    .again(),
    gate(&["flapping"], |c, a| c.gate_flapping(a)),
    gate(&["host_limit"], |c, a| c.gate_limit(a)),
];

impl Core {
    /// What may have changed while the ledger was written, right before the act.
    pub(super) fn last_gates(&mut self, id: &str, case: &Case, kind: ActKind, now: Now) -> Result<(), Blocked> {
        if !case.present {
            return Err(Blocked::Gone);
        }
        if Some(kind) > self.policy.remediation.mode.allows() {
            return Err(Blocked::Mode(self.policy.remediation.mode));
        }
        self.pass(|g| g.again, &Asked { id, case, kind, now })?;
        match kind {
            ActKind::Reset => Ok(()),
            ActKind::Restart => self.gate_turn(now),
        }
    }

    /// All gates in their order; see [`crate::core::remedy::gate`].
    pub(super) fn gates(&self, id: &str, case: &Case, kind: ActKind, now: Now) -> Result<(), Blocked> {
        self.pass(|_| true, &Asked { id, case, kind, now })
    }

    fn pass(&self, which: impl Fn(&Gate) -> bool, asked: &Asked<'_>) -> Result<(), Blocked> {
        GATES
            .iter()
            .filter(|g| g.only.is_none_or(|kind| kind == asked.kind) && which(g))
            .try_for_each(|g| (g.holds)(self, asked))
    }

    fn gate_self(&self, now: Now) -> Result<(), Blocked> {
        let unwell = self.unwell(now);
        if !unwell.is_empty() {
            return Err(Blocked::SelfUnwell(unwell.join("; ")));
        }
        if self.health(now) == Health::Warming {
            return Err(Blocked::SelfUnwell("it has just started or reconnected".to_owned()));
        }
        if self.was_deaf(now) {
            return Err(Blocked::SelfUnwell(
                "its own beacon came back only a moment ago".to_owned(),
            ));
        }
        Ok(())
    }

    fn gate_busy(&self, asked: &Asked<'_>) -> Result<(), Blocked> {
        if let Some(run) = &self.restart {
            return Err(Blocked::Busy(format!("a restart ({})", run.why)));
        }
        if let Some(other) = self.cases.iter().find(|(_, c)| {
            matches!(
                c.step,
                Step::Permit { .. } | Step::Saving { .. } | Step::Fencing { .. } | Step::Acting { .. }
            )
        }) {
            return Err(Blocked::Busy(format!("a remedy for {}", other.0)));
        }
        self.gate_settling(asked.case, asked.now)
    }

    fn gate_reset(&self) -> Result<(), Blocked> {
        match &self.reset_unavailable {
            Some(why) if self.policy.remediation.mode != Mode::Observe => Err(Blocked::ResetUnavailable(why.clone())),
            _ => Ok(()),
        }
    }

    fn gate_flapping(&self, asked: &Asked<'_>) -> Result<(), Blocked> {
        let memory = &self.ledger.memory;
        // A reset is held by its limit, which counts as used, and is harmless enough not to be held for an hour.
        if let (ActKind::Restart, Some(forgotten)) = (asked.kind, self.forgotten(asked.now)) {
            return Err(forgotten);
        }
        let times = memory.times(asked.id, asked.now);
        if times >= FLAPS {
            let fault = asked.id.to_owned();
            return Err(Blocked::Flapping { fault, times });
        }
        Ok(())
    }

    /// What was done before could not be read, and nobody has said that it does not matter.
    pub(super) fn forgotten(&self, now: Now) -> Option<Blocked> {
        let (wait, why) = self.ledger.memory.unread(now)?;
        let why = why.to_owned();
        Some(Blocked::Forgotten { wait, why })
    }

    fn gate_limit(&self, asked: &Asked<'_>) -> Result<(), Blocked> {
        let (kind, per_hour) = (asked.kind, self.per_hour(asked.kind));
        if self.ledger.left(kind, per_hour, asked.now) == 0 {
            return Err(Blocked::HostLimit {
                action: kind.name(),
                per_hour,
                wait: self.ledger.wait(kind, per_hour, asked.now),
            });
        }
        Ok(())
    }

    pub(super) fn gate_settling(&self, case: &Case, now: Now) -> Result<(), Blocked> {
        let settling = |at: &Mono| now.mono.since(*at) < self.policy.remediation.verify;
        let peer = case.peer(&self.policy.host);
        if self.restarted_at.as_ref().is_some_and(settling)
            || peer.and_then(|p| self.acted_on.get(p)).is_some_and(settling)
        {
            return Err(Blocked::Busy("the verification of an earlier remedy".to_owned()));
        }
        Ok(())
    }

    /// What crosses between clusters without gateways goes over leaf node connections of servers that are not known. That
    /// there is a gateway to just this cluster is for the own server to say before it is restarted: others may be wrong.
    pub(super) fn gate_gateway(&self, case: &Case, kind: ActKind, now: Now) -> Result<(), Blocked> {
        let Some(End::Cluster(cluster)) = &case.fault.to else {
            return Ok(());
        };
        let varz = self.local.varz();
        let shown = self.local.fresh_gateways(now.mono);
        let any = varz.is_some_and(|v| v.gateway.is_some() || !v.gateways.is_empty())
            || shown.is_some_and(|g| !g.outbound.is_empty() || !g.inbound.is_empty());
        if !any {
            return Err(Blocked::NoGateway(cluster.clone()));
        }
        let known =
            varz.is_some_and(|v| v.gateways.contains_key(cluster)) || self.local.gateways_seen.contains(&**cluster);
        if kind == ActKind::Restart && !known {
            return Err(Blocked::UnknownGateway(cluster.clone()));
        }
        Ok(())
    }

    /// A connection that has not had the time to carry a beacon, and the word of it back here, is not stalled.
    pub(super) fn gate_young(&self, case: &Case, now: Now) -> Result<(), Blocked> {
        let me = &self.policy.host;
        if let Some(host) = self.only_just_back(case) {
            return Err(Blocked::JustBack(host));
        }
        let peer = case.peer(me);
        let age = match (&case.fault.to, peer) {
            (Some(End::Cluster(cluster)), _) => {
                let since = self.local.gateway_since.get(cluster.as_str());
                since.map(|(_, since)| now.mono.since(*since))
            }
            (_, Some(peer)) => self.connected_for(peer, now)?,
            _ => None,
        };
        // Who listens itself needs no word of others.
        let rounds = match case.fault.kind {
            // Probes that were lost before it was there say nothing about it: those since must have had their time.
            FaultKind::Interest => SUSPECT_AFTER + 2,
            _ if peer == Some(&case.fault.from) => 1,
            _ => 2,
        };
        match age {
            Some(age) if age < self.interval() * rounds + Duration::from_secs(1) => Err(Blocked::YoungConnection(age)),
            _ => Ok(()),
        }
    }

    /// How long the oldest connection to the server of `peer` has been seen; `None` where there is none.
    fn connected_for(&self, peer: &HostName, now: Now) -> Result<Option<Duration>, Blocked> {
        let Some(routes) = self.local.fresh_routes(now.mono) else {
            return Err(Blocked::StaleData {
                source: "routez",
                age: self.local.age(Endpoint::Routez, now.mono),
            });
        };
        Ok(self.local.age_of(&self.routes_to(peer, routes), now.mono))
    }

    /// Who says that this host is not heard there, if all who do were themselves silent until a moment ago: with their
    /// first beacons comes what they knew while nothing passed.
    fn only_just_back(&self, case: &Case) -> Option<HostName> {
        let me = &self.policy.host;
        let Some(End::Cluster(cluster)) = case.fault.to.as_ref().filter(|_| &case.fault.from == me) else {
            return None;
        };
        let there = |h: &HostName| self.members.get(h).is_some_and(|m| &m.place.cluster == cluster);
        let mut tellers = (self.evidence.deaf.keys())
            .filter(|(source, receiver)| source == me && there(receiver))
            .map(|(_, receiver)| receiver);
        let first = tellers.next()?;
        let steady = |h: &HostName| {
            self.lanes
                .iter()
                .any(|l| l.paths.get(h).is_some_and(|p| p.steady(TOLD)))
        };
        (!steady(first) && !tellers.any(steady)).then(|| first.clone())
    }

    /// A source that nobody hears may just be gone; that it lives must be proved by somebody else.
    pub(super) fn gate_witness(&self, case: &Case, kind: ActKind, now: Now) -> Result<(), Blocked> {
        let me = &self.policy.host;
        if let Some(peer) = case.peer(me) {
            let connected = self.connected_for(peer, now)?;
            if !self.witness(case, peer, connected, now) {
                return Err(match connected {
                    Some(age) if age < self.spoken() + self.interval() * 2 => Blocked::YoungConnection(age),
                    _ => Blocked::NoWitness(peer.clone()),
                });
            }
            if kind == ActKind::Restart && self.hearsay(peer) {
                return Err(Blocked::Hearsay(peer.clone()));
            }
            self.not_contradicted(case, peer, kind, connected.is_some(), now)?;
            // That one or two others do not hear this one is their word: they may be wrong, or lie, or be at fault, each for
            // itself, and restart first.
            let told = matches!(case.fault.kind, FaultKind::Route | FaultKind::Pool) && &case.fault.from == me;
            if kind == ActKind::Restart && told && self.accusers(None) < SHARED {
                return Err(Blocked::FewWords(case.fault.from.clone()));
            }
            return Ok(());
        }
        let fresh = case.since.plus(self.policy.remediation.confirm);
        let anyone = self
            .lanes
            .iter()
            .any(|l| l.reports.values().any(|r| r.credible(now.mono) && r.at >= fresh));
        if !anyone && (kind == ActKind::Restart || case.fault.kind == FaultKind::Host) {
            return Err(Blocked::NoWitness(case.fault.from.clone()));
        }
        // That the own server shows no gateway is no hearsay.
        let to = match &case.fault.to {
            Some(End::Cluster(to)) if &case.fault.from == me && !self.ungatewayed_since.contains_key(to) => Some(&**to),
            _ => None,
        };
        let told = to.is_some() || case.fault.kind == FaultKind::Host;
        let accusers = self.accusers(to);
        if kind == ActKind::Restart && to.is_some() && accusers == 0 && self.deaf_to_me().next().is_some() {
            return Err(Blocked::Hearsay(me.clone()));
        }
        // One host that does not hear this one may be wrong itself: no restart on a single word.
        if kind == ActKind::Restart && told && accusers < 2 {
            return Err(Blocked::FewWords(case.fault.from.clone()));
        }
        Ok(())
    }

    /// What others say against what is known here.
    fn not_contradicted(
        &self,
        case: &Case,
        peer: &HostName,
        kind: ActKind,
        connected: bool,
        now: Now,
    ) -> Result<(), Blocked> {
        let me = &self.policy.host;
        if case.fault.kind == FaultKind::Hole && connected {
            return Err(Blocked::Doubtful(format!(
                "it is said that there is no route to {peer}, and the own server shows one"
            )));
        }
        if case.fault.kind != FaultKind::Interest || &case.fault.from != me {
            return Ok(());
        }
        if !(self.lanes.iter()).any(|l| self.book.last_answer(&l.name, peer).is_some()) {
            // Where its agent answers nobody, others find out too within a round of theirs.
            let region = self.members.get(peer).map(|m| &m.place.region);
            let asked = self
                .members
                .values()
                .filter(|m| Some(&m.place.region) == region)
                .count();
            let round = u32::try_from(asked).unwrap_or(u32::MAX).saturating_add(ROUND);
            let round = self.interval().saturating_mul(round);
            let alone = !self
                .evidence
                .unanswered
                .iter()
                .any(|(asker, to)| to == peer && asker != me);
            let told = now.mono.since(case.since) >= round;
            if kind == ActKind::Restart || !self.book.answers() || !alone || !told {
                return Err(Blocked::Doubtful(format!(
                    "{peer} never answered a probe of this agent: its own agent may be at fault, or NATS permissions"
                )));
            }
        }
        let silent = self.evidence.unanswered.iter().filter(|(asker, _)| asker == me).count();
        if kind == ActKind::Restart && silent < 2 {
            return Err(Blocked::Doubtful(format!(
                "{peer} alone does not answer probes: that restarts no server here"
            )));
        }
        Ok(())
    }

    /// Who does not hear this host.
    fn deaf_to_me(&self) -> impl Iterator<Item = &HostName> {
        let me = &self.policy.host;
        let pairs = self.evidence.deaf.keys();
        pairs.filter(move |(s, r)| s == me && r != me).map(|(_, r)| r)
    }

    /// How many of them heard it before. Who misses some by others' word alone may never have heard this one.
    fn accusers(&self, cluster: Option<&str>) -> usize {
        let there = |h: &HostName| {
            self.members
                .get(h)
                .is_some_and(|m| cluster.is_none_or(|c| m.place.cluster == c))
        };
        self.deaf_to_me()
            .filter(|r| there(r))
            .filter(|r| {
                let mut reports = self.lanes.iter().filter_map(|l| l.reports.get(r));
                reports.all(|report| report.hearsay() == 0)
            })
            .count()
    }

    pub(super) fn gates_of_the_server(&self, now: Now) -> Result<(), Blocked> {
        self.gates_of_the_server_but_start(now)?;
        let started_here = self.local.restarts > 0;
        let up = now.mono.since(self.local.id_since);
        if started_here && up < STARTING {
            return Err(Blocked::ServerStarting(up));
        }
        Ok(())
    }

    pub(super) fn gates_of_the_server_but_start(&self, now: Now) -> Result<(), Blocked> {
        if !self.local.up {
            return Err(Blocked::ServerDown);
        }
        match self.local.age(Endpoint::Varz, now.mono) {
            Some(age) if age < STALE => {}
            age => return Err(Blocked::StaleData { source: "varz", age }),
        }
        if self.local.lame_duck {
            return Err(Blocked::LameDuck);
        }
        Ok(())
    }

    /// The gates of a restart that concern the local server; for operators too.
    pub(super) fn restart_gates_of_the_server(&self, now: Now) -> Result<(), Blocked> {
        self.gates_of_the_server(now)?;
        self.gate_unit(now)
    }

    fn gate_unit(&self, now: Now) -> Result<(), Blocked> {
        if !self.policy.has_unit {
            return Ok(());
        }
        match &self.local.unit {
            None => Err(Blocked::UnitState(
                "the state of the server's unit is not known yet".to_owned(),
            )),
            Some((at, _)) if now.mono.since(*at) > STALE * 2 => Err(Blocked::UnitState(
                "the state of the server's unit is not known any more".to_owned(),
            )),
            Some((_, Err(e))) => Err(Blocked::UnitState(format!(
                "the state of the server's unit cannot be read: {e}"
            ))),
            Some((_, Ok(unit))) => unit_gate(unit),
        }
    }

    pub(super) fn gates_of_the_fleet(&self, now: Now) -> Result<(), Blocked> {
        let me = &self.policy.host;
        let restarting = || self.members.iter().filter(|(_, m)| m.health == Health::Restarting);
        if let Some((host, _)) = restarting().find(|(h, _)| !self.long_gone(h, now)) {
            return Err(Blocked::OtherRestarting(host.clone()));
        }
        if let Some((host, _)) = restarting().find(|(h, _)| self.never_came_back(h)) {
            return Err(Blocked::OtherNotBack(host.clone()));
        }
        self.gate_sick(now)?;
        if let Some(ago) = self
            .incident_at
            .map(|at| now.mono.since(at))
            .filter(|ago| *ago < INCIDENT)
        {
            return Err(Blocked::JustManySick(ago));
        }
        if self.local.varz().is_some_and(|v| v.jetstream) {
            let own = self.cluster();
            let down = self.members.iter().find(|(h, m)| {
                m.place.cluster == own
                    && self
                        .lanes
                        .iter()
                        .filter_map(|l| l.paths.get(h))
                        .any(|p| p.verdict == Verdict::Departed || m.health == Health::LameDuck)
            });
            // One that fell silent said no goodbye, and is out all the same.
            let dead = self.cases.values().filter(|c| c.present).map(|c| &c.fault).find(|f| {
                f.kind == FaultKind::Host
                    && &f.from != me
                    && self.members.get(&f.from).is_some_and(|m| m.place.cluster == own)
            });
            if let Some(host) = down.map(|(h, _)| h).or(dead.map(|f| &f.from)) {
                return Err(Blocked::JetStreamPeerDown(host.clone()));
            }
        }
        Ok(())
    }

    /// So many at once are an incident, not a host.
    pub(super) fn gate_sick(&self, now: Now) -> Result<(), Blocked> {
        let me = &self.policy.host;
        let others = self.cases.values().map(|c| owner(&c.fault)).filter(|h| *h != me);
        let sick = others.collect::<BTreeSet<&HostName>>().len() + 1;
        // A name that somebody once used makes the fleet no larger.
        let of = self.members.keys().filter(|h| self.heard_lately(h, now)).count() + 1;
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of a count of hosts"
        )]
        let limit = ((of as f64 * self.policy.remediation.max_sick_fraction) as usize).max(1);
        match sick > limit {
            true => Err(Blocked::TooManySick { sick, of, limit }),
            false => Ok(()),
        }
    }

    /// Its announced restart is so long ago that it is a failure, which is seen elsewhere: by its permit, or by all who
    /// miss it, which takes them all a moment longer.
    fn long_gone(&self, host: &HostName, now: Now) -> bool {
        let told = if self.registered() {
            Duration::ZERO
        } else {
            STALE.max(self.stall())
        };
        self.lanes
            .iter()
            .filter_map(|l| l.paths.get(host))
            .all(|p| p.silence(now.mono) > ANNOUNCED + told)
    }

    /// Without a store no permit says that a restart failed: nobody hears the host that announced it.
    fn never_came_back(&self, host: &HostName) -> bool {
        let missed = |c: &Case| c.present && c.fault.kind == FaultKind::Host && &c.fault.from == host;
        !self.registered() && self.cases.values().any(missed)
    }
}

fn unit_gate(unit: &UnitReport) -> Result<(), Blocked> {
    if unit.load == "loaded" && unit.active == "active" {
        return Ok(());
    }
    Err(Blocked::UnitState(format!(
        "the server's unit is {} and {} ({}): somebody stopped, masked or starts it",
        unit.load, unit.active, unit.sub
    )))
}
