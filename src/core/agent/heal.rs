//! Cases up the ladder: confirm, check the network, pass the gates, write the ledger, act, verify.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::core::agent::Core;
use crate::core::agent::act::{BACK_OFF, SAVE_LIMIT};
use crate::core::agent::event::{Action, Answered, Passed};
use crate::core::ids::{HostName, Mono, Now, Region};
use crate::core::mesh::{End, Fault, SHARED};
use crate::core::policy::Mode;
use crate::core::remedy::case::{Case, RECOVER, Role, Step};
use crate::core::remedy::gate::Blocked;
use crate::core::remedy::ledger::ActKind;
use crate::core::view::FaultKind;

/// The same for a network check; the addresses of one are few, and each has a limit of its own.
const CHECK_LIMIT: Duration = Duration::from_secs(30);
/// Addresses of one check: at two seconds each they stay below its limit.
const ADDRESSES: usize = 8;
/// So often the network is looked at while a restart waits for the next try of a connection.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Of so many that see a silent host, in name order, look at its network.
const CHECKERS: usize = 3;

impl Core {
    pub(super) fn heal(&mut self, now: Now, out: &mut Vec<Action>) {
        let ids: Vec<String> = self.cases.keys().cloned().collect();
        for id in ids {
            let Some(mut case) = self.cases.remove(&id) else {
                continue;
            };
            if self.advance(&id, &mut case, now, out) {
                self.cases.insert(id, case);
            }
        }
    }

    /// One look at one case; false = it is closed.
    pub(super) fn advance(&mut self, id: &str, case: &mut Case, now: Now, out: &mut Vec<Action>) -> bool {
        match case.step.clone() {
            Step::Waiting => self.consider(id, case, now, out),
            Step::BackingOff { until } if now.mono >= until => case.step = Step::Waiting,
            Step::Verifying { kind, until } => return self.verify(id, case, kind, until, now, out),
            Step::Checking { until, .. } if now.mono >= until => {
                let limit = humantime::format_duration(CHECK_LIMIT);
                case.checked(Err(format!("the check did not end within {limit}")), now.mono);
                case.step = Step::Waiting;
            }
            Step::Saving { kind, until, .. } if now.mono >= until => {
                let limit = humantime::format_duration(SAVE_LIMIT);
                let why = format!("the disk did not answer within {limit}");
                self.call_off(id, case, kind, Blocked::LedgerNotKept(why), now, out);
            }
            Step::Permit { until } if now.mono >= until => self.give_up_permit(id, case, now, out),
            Step::Fencing { until, .. } if now.mono >= until => {
                let why = "the last look at the permit did not end".to_owned();
                self.call_off(id, case, ActKind::Restart, Blocked::PermitStore(why), now, out);
            }
            Step::Acting { act, kind, until } if now.mono >= until => {
                self.acted(
                    id,
                    case,
                    kind,
                    Err("it did not report back in time".to_owned()),
                    now,
                    out,
                );
                if self.restart.as_ref().is_some_and(|r| r.act == act) {
                    self.restart = None;
                }
            }
            Step::Checking { .. }
            | Step::Permit { .. }
            | Step::Saving { .. }
            | Step::Fencing { .. }
            | Step::Acting { .. }
            | Step::BackingOff { .. }
            | Step::GaveUp => {}
        }
        true
    }

    /// What was about to be done is not done.
    pub(super) fn call_off(
        &mut self,
        id: &str,
        case: &mut Case,
        kind: ActKind,
        blocked: Blocked,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        self.note_held(id, case, kind, &blocked, now, out);
        self.ledger.memory.try_on(id, case.resets, case.restarts, now);
        match kind {
            ActKind::Restart => {
                self.restart = None;
                self.permit_unused();
                self.not_restarted();
            }
            ActKind::Reset => {
                self.ledger.take_back(kind);
                self.ledger_changed();
            }
        }
        case.blocked = Some(blocked);
        case.step = Step::BackingOff {
            until: now.mono.plus(self.jittered(BACK_OFF, id)),
        };
    }

    pub(super) fn consider(&mut self, id: &str, case: &mut Case, now: Now, out: &mut Vec<Action>) {
        if !case.present {
            return;
        }
        if case.role == Role::None {
            if self.looks_at(case) && !case.checked_lately(now.mono) {
                case.blocked = self.check_network(case, ActKind::Reset, now, out).err();
            }
            return;
        }
        let policy = &self.policy.remediation;
        let Some(kind) = case.next(policy, self.reset_unavailable.is_none()) else {
            case.step = Step::GaveUp;
            case.blocked = None;
            let text = format!(
                "{} resets and {} restarts did not heal it, and mode {} allows no more: a human must look, then `watchdog resume`",
                case.resets,
                case.restarts,
                policy.mode.name()
            );
            self.ledger.memory.gave_up(id, case.resets, case.restarts, now);
            self.ledger_changed();
            self.count("none", case, "gave_up");
            self.note(("gave_up", "gave_up"), id, case, text, now, out);
            return;
        };
        if now.mono.since(case.since) < case.confirm(kind, policy) + self.gathers(case) {
            if case.network.is_none() && now.mono.since(case.since) >= policy.confirm {
                // Whoever looks at the end only does not know that the network was down, or lost packets, until then.
                // Where nothing can be asked, the look at the end says so.
                let _ = self.check_network(case, kind, now, out);
            }
            self.see_what_holds_both(id, case, kind, now);
            return;
        }
        let tried = self.gate_tries(case, kind, now);
        let network = case.network_for(kind, policy, now.mono);
        // What loses some packets lets others pass: while that is waited for, each second shows more of it.
        let enough =
            |seen: &Result<(), String>| seen.is_err() || tried.is_ok() || case.checked_within(LOOK_AGAIN, now.mono);
        let Some(network) = network.filter(enough) else {
            if let Err(blocked) = self.check_network(case, kind, now, out) {
                self.hold(id, case, kind, blocked, now, out);
            }
            return;
        };
        let passed = match network {
            Ok(()) => match case.recovering(kind, policy, now.mono) {
                Some(since) => Err(Blocked::Busy(format!(
                    "recovery after a fault of the network that ended {} s ago",
                    since.as_secs()
                ))),
                None => self
                    .gate_recovery(case, kind, now)
                    .and(tried)
                    .and_then(|()| self.gates(id, case, kind, now)),
            },
            Err(what) => Err(Blocked::NetworkDown {
                address: self.addresses(case, kind).join(", "),
                what,
            }),
        };
        if let Err(blocked) = passed {
            if blocked.holds_both_sides() {
                case.held_at = Some(now.mono);
            }
            let soon = case.confirm(kind, &self.policy.remediation) + self.interval() * 2;
            if matches!(blocked, Blocked::NoWitness(_)) && now.mono.since(case.since) < soon {
                // Others have not spoken since; their next beacons will tell.
                return;
            }
            self.hold(id, case, kind, blocked, now, out);
            return;
        }
        if kind == ActKind::Restart
            && let Err(blocked) = self.gate_permit(id, now)
        {
            self.hold(id, case, kind, blocked, now, out);
            return;
        }
        case.blocked = None;
        if case.second_waits(&self.policy.remediation, now.mono)
            || kind == ActKind::Restart && !self.first_had_its_turn(case, now)
        {
            return;
        }
        if self.policy.remediation.mode == Mode::Observe {
            if case.would != Some(kind) {
                case.would = Some(kind);
                self.count(kind.name(), case, "would");
                let what = self.describe(case, kind, now);
                let text = format!("mode observe: would {what}");
                self.note(("would", "would"), id, case, text, now, out);
            }
            return;
        }
        if self.ledger_busy() {
            return;
        }
        match kind {
            ActKind::Reset => self.act(id, case, kind, now, out),
            ActKind::Restart => self.ask_permit(id, case, now, out),
        }
    }

    /// Where several stalls meet in one server it may be that server, which is to act then and nobody else. Who would
    /// act at once on its own stall waits until everybody has said what it hears, also where one beacon was lost.
    fn gathers(&self, case: &Case) -> Duration {
        let (FaultKind::Route, Some(End::Host(to))) = (case.fault.kind, &case.fault.to) else {
            return Duration::ZERO;
        };
        let meet = |end: &HostName| {
            let pairs = self.evidence.deaf.keys().filter(|(s, r)| s == end || r == end);
            let peers: BTreeSet<&HostName> = pairs.map(|(s, r)| if s == end { r } else { s }).collect();
            peers.len() >= SHARED
        };
        // Whom another misses too may stand still, which all will tell soon.
        let from = &case.fault.from;
        let missed = self.evidence.deaf.keys().any(|(s, r)| s == from && r != to);
        // What others' word tells, each finds out in its own time.
        match missed || self.hearsay(from) || meet(from) || meet(to) {
            true => self.interval() * 2,
            // Its last beacon did not reach all at the same moment, and not all look at the same moment.
            false => (self.interval() / 4).saturating_sub(self.policy.remediation.confirm),
        }
    }

    /// Holds a remedy back, and says so once per gate.
    pub(super) fn hold(
        &mut self,
        id: &str,
        case: &mut Case,
        kind: ActKind,
        blocked: Blocked,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        if case.blocked.as_ref().map(Blocked::gate) != Some(blocked.gate()) {
            self.note_held(id, case, kind, &blocked, now, out);
        }
        case.blocked = Some(blocked);
    }

    /// A host that was out, or a path whose network was, comes back bit by bit: TCP tries again only after as long as it
    /// was cut off. What is still silent then is another fault by name, and the network's all the same.
    pub(super) fn recovers(&mut self, case: &Case, now: Now) {
        let out = now.mono.since(case.since) + self.stall();
        let wait = match (&case.network, case.network_back) {
            (Some((_, Err(_))), _) | (_, Some(_)) => RECOVER,
            _ if case.fault.kind == FaultKind::Host => out.min(RECOVER),
            _ => return,
        };
        let until = now.mono.plus(wait.max(self.policy.remediation.mesh_confirm));
        let (me, own) = (&self.policy.host, self.cluster());
        let end = match &case.fault.to {
            Some(to @ End::Cluster(cluster)) if *cluster != own => to.clone(),
            Some(End::Host(to)) if to != me => End::Host(to.clone()),
            _ => End::Host(case.fault.from.clone()),
        };
        // What leads to its cluster was cut off with it.
        let behind = match &end {
            End::Host(host) => self.members.get(host).map(|m| m.place.cluster.clone()),
            End::Cluster(_) => None,
        };
        let cluster = behind.filter(|c| !c.is_empty() && *c != own).map(End::Cluster);
        self.recovering.retain(|_, until| *until > now.mono);
        for end in [Some(end), cluster].into_iter().flatten() {
            let known = self.recovering.entry(end).or_insert(until);
            *known = until.max(*known);
        }
    }

    /// While the second side waits for the first, what holds that one too is noted: its wait begins anew then.
    fn see_what_holds_both(&self, id: &str, case: &mut Case, kind: ActKind, now: Now) {
        let policy = &self.policy.remediation;
        let waited = now.mono.since(case.since) + policy.sender_delay;
        if case.role == Role::Second && waited >= case.confirm(kind, policy) {
            let held = self.gates(id, case, kind, now);
            if held.is_err_and(|blocked| blocked.holds_both_sides()) {
                case.held_at = Some(now.mono);
            }
        }
    }

    /// A connection that only lost packets has had its next try.
    pub(super) fn gate_tries(&self, case: &Case, kind: ActKind, now: Now) -> Result<(), Blocked> {
        let tried = |lossy| case.may_be_tried_again(self.silent_since(case), lossy, now.mono);
        match kind == ActKind::Restart && (tried(false) || tried(true) && self.others_stall_beside(case)) {
            true => Err(Blocked::Busy(
                "the next try of a connection that may only have lost packets".to_owned(),
            )),
            false => Ok(()),
        }
    }

    /// Does a path between the same two regions carry nothing either, of which neither end is one of this fault's? Then
    /// it may be the network between them, of which one check that passes is no proof.
    fn others_stall_beside(&self, case: &Case) -> bool {
        let members = &self.evidence.members;
        let ours = |h: &HostName| h == &case.fault.from || Some(h) == host_of(case.fault.to.as_ref());
        let span = |fault: &Fault| -> Option<(&Region, BTreeSet<&Region>)> {
            let there = match &fault.to {
                Some(End::Host(to)) => members.get(to).map(|p| &p.region).into_iter().collect(),
                Some(End::Cluster(c)) => members
                    .values()
                    .filter(|p| p.cluster == *c)
                    .map(|p| &p.region)
                    .collect(),
                None => return None,
            };
            Some((&members.get(&fault.from)?.region, there))
        };
        let Some((here, there)) = span(&case.fault) else {
            return false;
        };
        let paths = self.cases.values().filter(|c| c.present).map(|c| &c.fault);
        paths
            .filter(|f| matches!(f.kind, FaultKind::Route | FaultKind::Gateway))
            .filter(|f| !ours(&f.from) && !host_of(f.to.as_ref()).is_some_and(ours))
            .filter_map(span)
            .any(|(from, to)| from == here && !to.is_disjoint(&there) || there.contains(from) && to.contains(here))
    }

    /// Since when nothing passes: an agent that stood still, or has a new report only, knows of it late.
    pub(super) fn silent_since(&self, case: &Case) -> Mono {
        let told = Mono(case.since.0.saturating_sub(self.stall()));
        let peer = case.peer(&self.policy.host);
        let paths = self.lanes.iter().filter_map(|l| l.paths.get(peer?));
        paths.filter_map(|p| p.heard()).fold(told, Mono::min)
    }

    /// Neither end of it has just come back.
    pub(super) fn gate_recovery(&self, case: &Case, kind: ActKind, now: Now) -> Result<(), Blocked> {
        if kind == ActKind::Reset {
            // A connection that waits for its next try is what a reset is for.
            return Ok(());
        }
        let me = &self.policy.host;
        let ends = [Some(End::Host(me.clone())), case.fault.to.clone()];
        let peer = case.peer(me).map(|p| End::Host(p.clone()));
        for end in ends.into_iter().flatten().chain(peer) {
            if self.recovering.get(&end).is_some_and(|until| now.mono < *until) {
                return Err(Blocked::Busy(format!(
                    "the recovery of {end}, which was out or cut off,"
                )));
            }
        }
        Ok(())
    }

    pub(super) fn check_network(
        &mut self,
        case: &mut Case,
        kind: ActKind,
        now: Now,
        out: &mut Vec<Action>,
    ) -> Result<(), Blocked> {
        let mut addresses = self.addresses(case, kind);
        addresses.truncate(ADDRESSES);
        if addresses.is_empty() {
            let peer = match (case.peer(&self.policy.host), &case.fault.to) {
                (Some(peer), _) => peer.to_string(),
                (None, Some(to)) => to.to_string(),
                (None, None) => case.fault.from.to_string(),
            };
            return Err(Blocked::NoAddress(peer));
        }
        let check = self.new_id();
        let until = now.mono.plus(CHECK_LIMIT);
        case.checked_for = kind;
        case.step = Step::Checking { check, until };
        out.push(Action::CheckNetwork { check, addresses });
        Ok(())
    }

    pub(super) fn on_checked(&mut self, check: u64, result: Result<Passed, String>, now: Now) {
        if let Some((id, mut case)) = self.take_case(|s| matches!(s, Step::Checking { check: c, .. } if *c == check)) {
            let result = result.and_then(|passed| {
                let who = passed.who.as_ref();
                who.map_or(Ok(()), |who| self.recognise(&case, who, now))
                    .map(|()| passed.connect)
            });
            case.checked(result, now.mono);
            case.step = Step::Waiting;
            self.cases.insert(id, case);
        }
    }

    /// Whoever answered must not be somebody else: an address that leads back here, or to another host, says nothing about
    /// the way to the one that was meant.
    pub(super) fn recognise(&self, case: &Case, who: &Answered, now: Now) -> Result<(), String> {
        let me = &self.policy.host;
        if self.local.varz().is_some_and(|own| own.server_id == who.server_id) {
            return Err("the own server answers at the address that was checked".to_owned());
        }
        let meant = match &case.fault.to {
            Some(End::Cluster(cluster)) => {
                return match &who.cluster {
                    Some(other) if other != cluster => Err(format!(
                        "a server of cluster {other} answers at the address of a gateway of {cluster}"
                    )),
                    _ => Ok(()),
                };
            }
            _ => case.peer(me).unwrap_or(&case.fault.from),
        };
        if meant == me {
            return Ok(());
        }
        let other = self
            .members
            .iter()
            .find(|(h, m)| *h != meant && m.server_id == who.server_id && self.heard_lately(h, now));
        match other {
            Some((other, _)) => Err(format!("the server of {other} answers at the address of {meant}")),
            None => Ok(()),
        }
    }

    /// A few of those that see a silent host look at its network, so that it can be named.
    pub(super) fn looks_at(&self, case: &Case) -> bool {
        let me = &self.policy.host;
        case.fault.kind == FaultKind::Host
            && &case.fault.from != me
            && self
                .evidence
                .receivers
                .iter()
                .filter(|r| **r != case.fault.from)
                .take(CHECKERS)
                .any(|r| r == me)
    }

    pub(super) fn take_case(&mut self, step: impl Fn(&Step) -> bool) -> Option<(String, Case)> {
        let id = self
            .cases
            .iter()
            .find(|(_, c)| step(&c.step))
            .map(|(id, _)| id.clone())?;
        self.cases.remove_entry(&id)
    }

    pub(super) fn per_hour(&self, kind: ActKind) -> u32 {
        match kind {
            ActKind::Reset => self.policy.remediation.resets_per_hour,
            ActKind::Restart => self.policy.remediation.restarts_per_hour,
        }
    }

    pub(super) fn count(&mut self, action: &'static str, case: &Case, outcome: &'static str) {
        let key = (action, case.fault.kind.name().to_owned(), outcome);
        *self.actions.entry(key).or_default() += 1;
    }
}

fn host_of(end: Option<&End>) -> Option<&HostName> {
    match end {
        Some(End::Host(host)) => Some(host),
        _ => None,
    }
}
