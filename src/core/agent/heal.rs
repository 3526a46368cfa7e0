//! Cases up the ladder: confirm, check the network, pass the gates, write the ledger, act, verify.

use std::time::Duration;

use crate::core::agent::event::{Action, UnitReport};
use crate::core::agent::local::STALE;
use crate::core::agent::{Core, REMEMBER, RestartRun};
use crate::core::canary::beacon::Health;
use crate::core::control::{LastCommand, Stage};
use crate::core::ids::{HostName, Mono, Now};
use crate::core::mesh::End;
use crate::core::policy::Mode;
use crate::core::remedy::case::{Case, Role, Step, owner};
use crate::core::remedy::gate::Blocked;
use crate::core::remedy::ledger::ActKind;
use crate::core::server::Endpoint;
use crate::core::view::{FaultKind, Verdict};

/// A network check is good for so long.
const CHECK_VALID: Duration = Duration::from_secs(10);
/// An act that does not report back in this time beyond its own limit has failed.
const ACT_LIMIT: Duration = Duration::from_secs(30);
/// The same for a network check; the addresses of one are few, and each has a limit of its own.
const CHECK_LIMIT: Duration = Duration::from_secs(30);
/// Addresses of one check: at two seconds each they stay below its limit.
const ADDRESSES: usize = 8;
/// The same for a write of the ledger. The act is not done: what was right then may not be right now.
const SAVE_LIMIT: Duration = Duration::from_secs(10);
/// After a remedy that did not help, before the next; doubles.
const BACK_OFF: Duration = Duration::from_secs(5);
/// A server that started less than this ago is left alone.
const STARTING: Duration = Duration::from_secs(10);
/// Remedies of one fault within an hour; more is flapping.
const FLAPS: usize = 2;
/// Of so many that see a silent host, in name order, look at its network.
const CHECKERS: usize = 3;
/// What stands in the ledger for a restart that was ordered.
pub(super) const OPERATOR: &str = "operator";
/// What is not well is unwell for good after this long: a remedy is judged in spite of it.
const UNWELL: Duration = Duration::from_secs(60);

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
    fn advance(&mut self, id: &str, case: &mut Case, now: Now, out: &mut Vec<Action>) -> bool {
        match case.step.clone() {
            Step::Waiting => self.consider(id, case, now, out),
            Step::BackingOff { until } if now.mono >= until => case.step = Step::Waiting,
            Step::Verifying { kind, until } => return self.verify(id, case, kind, until, now, out),
            Step::Checking { until, .. } if now.mono >= until => {
                let limit = humantime::format_duration(CHECK_LIMIT);
                case.network = Some((now.mono, Err(format!("the check did not end within {limit}"))));
                case.step = Step::Waiting;
            }
            Step::Saving { kind, until, .. } if now.mono >= until => {
                let limit = humantime::format_duration(SAVE_LIMIT);
                let why = format!("the disk did not answer within {limit}");
                self.call_off(id, case, kind, Blocked::LedgerNotKept(why), now, out);
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
            | Step::Saving { .. }
            | Step::Acting { .. }
            | Step::BackingOff { .. }
            | Step::GaveUp => {}
        }
        true
    }

    /// What was about to be done is not done.
    fn call_off(
        &mut self,
        id: &str,
        case: &mut Case,
        kind: ActKind,
        blocked: Blocked,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        *self.blocked.entry(blocked.gate()).or_default() += 1;
        let text = format!("{} held back: {blocked}", kind.name());
        self.record("refused", id.to_owned(), text, now, out);
        if kind == ActKind::Restart {
            self.restart = None;
        }
        case.blocked = Some(blocked);
        case.step = Step::BackingOff {
            until: now.mono.plus(BACK_OFF),
        };
    }

    fn consider(&mut self, id: &str, case: &mut Case, now: Now, out: &mut Vec<Action>) {
        if !case.present {
            return;
        }
        if case.role == Role::None {
            if self.looks_at(case) {
                case.blocked = self.check_network(case, now, out).err();
            }
            return;
        }
        let policy = &self.policy.remediation;
        let Some(kind) = case.next(policy, self.reset_unavailable.is_none()) else {
            case.step = Step::GaveUp;
            case.blocked = None;
            let text = format!(
                "{} resets and {} restarts did not heal it, and mode {} allows no more: a human must look",
                case.resets,
                case.restarts,
                policy.mode.name()
            );
            self.count("none", case, "gave_up");
            self.record("gave_up", id.to_owned(), text, now, out);
            return;
        };
        if now.mono.since(case.since) < case.confirm(kind, policy) {
            return;
        }
        let network = match &case.network {
            Some((at, seen)) if now.mono.since(*at) < CHECK_VALID => Some(seen.clone()),
            _ => None,
        };
        let Some(network) = network else {
            if let Err(blocked) = self.check_network(case, now, out) {
                self.hold(id, case, kind, blocked, now, out);
            }
            return;
        };
        let passed = match network {
            Ok(()) => self.gates(id, case, kind, now),
            Err(what) => Err(Blocked::NetworkDown {
                address: self.addresses(case).join(", "),
                what,
            }),
        };
        if let Err(blocked) = passed {
            let soon = case.confirm(kind, &self.policy.remediation) + self.interval() * 2;
            if matches!(blocked, Blocked::NoWitness(_)) && now.mono.since(case.since) < soon {
                // Others have not spoken since; their next beacons will tell.
                return;
            }
            self.hold(id, case, kind, blocked, now, out);
            return;
        }
        case.blocked = None;
        if self.policy.remediation.mode == Mode::Observe {
            if case.would != Some(kind) {
                case.would = Some(kind);
                self.count(kind.name(), case, "would");
                let what = self.describe(case, kind, now);
                self.record("would", id.to_owned(), format!("mode observe: would {what}"), now, out);
            }
            return;
        }
        self.act(id, case, kind, now, out);
    }

    /// Holds a remedy back, and says so once per gate.
    fn hold(&mut self, id: &str, case: &mut Case, kind: ActKind, blocked: Blocked, now: Now, out: &mut Vec<Action>) {
        if case.blocked.as_ref().map(Blocked::gate) != Some(blocked.gate()) {
            *self.blocked.entry(blocked.gate()).or_default() += 1;
            let text = format!("{} held back: {blocked}", kind.name());
            self.record("refused", id.to_owned(), text, now, out);
        }
        case.blocked = Some(blocked);
    }

    fn act(&mut self, id: &str, case: &mut Case, kind: ActKind, now: Now, out: &mut Vec<Action>) {
        let per_hour = self.per_hour(kind);
        let act = self.new_id();
        self.ledger.note(kind, per_hour, id, now);
        let until = now.mono.plus(SAVE_LIMIT);
        case.step = Step::Saving { act, kind, until };
        let what = self.describe(case, kind, now);
        self.record("act", id.to_owned(), what, now, out);
        if kind == ActKind::Restart {
            self.begin_restart(act, id.to_owned(), None, now, out);
        }
        out.push(Action::SaveLedger {
            act,
            ledger: Box::new(self.ledger.clone()),
        });
    }

    fn describe(&self, case: &Case, kind: ActKind, now: Now) -> String {
        match kind {
            ActKind::Reset => match self.reset_target(case, now) {
                Ok(t) => format!("reset {}", t.what),
                Err(b) => format!("reset, but {b}"),
            },
            ActKind::Restart => "restart the local nats-server".to_owned(),
        }
    }

    pub(super) fn begin_restart(
        &mut self,
        act: u64,
        why: String,
        rollout: Option<String>,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        self.restart = Some(RestartRun {
            act,
            why: why.clone(),
            rollout,
            begun: now.mono,
            old_id: self.local.varz().map_or_else(String::new, |v| v.server_id.clone()),
            issued: false,
        });
        let reason = if self.restart.as_ref().is_some_and(|r| r.rollout.is_some()) {
            OPERATOR
        } else {
            &why
        };
        self.last_restart = Some((now.wall, kind_of(reason)));
        // Says `restarting` in the beacon, so that the silence to come alarms nobody.
        self.publish(false, now, out);
    }

    pub(super) fn on_ledger_saved(&mut self, act: u64, result: Result<(), String>, now: Now, out: &mut Vec<Action>) {
        if self
            .restart
            .as_ref()
            .is_some_and(|r| r.act == act && r.rollout.is_some())
        {
            // The operator has decided; that the note of it could not be kept is said, not held against it.
            if let Err(e) = result {
                self.record(
                    "agent",
                    "ledger".to_owned(),
                    format!("the ledger cannot be written: {e}"),
                    now,
                    out,
                );
            }
            // The disk may have been slow: nobody may have stopped the server, or restarted it, meanwhile.
            match self.restart_gates_of_the_server(now) {
                Ok(()) => out.push(Action::Restart { act }),
                Err(blocked) => {
                    *self.blocked.entry(blocked.gate()).or_default() += 1;
                    self.end_restart(Err(format!("it was not begun: {blocked}")), now, out);
                }
            }
            return;
        }
        if !self
            .cases
            .values()
            .any(|c| matches!(c.step, Step::Saving { act: a, .. } if a == act))
        {
            return;
        }
        if self.unwell(now).is_empty() {
            self.look_again(now, out);
        }
        let Some((id, mut case)) = self.take_case(|s| matches!(s, Step::Saving { act: a, .. } if *a == act)) else {
            return;
        };
        let Step::Saving { kind, .. } = case.step else {
            return;
        };
        let action = result
            .map_err(Blocked::LedgerNotKept)
            .and_then(|()| self.last_gates(&case, kind, now))
            .and_then(|()| match kind {
                ActKind::Reset => Ok(Action::Reset {
                    act,
                    target: self.reset_target(&case, now)?,
                }),
                ActKind::Restart => Ok(Action::Restart { act }),
            });
        match action {
            Err(blocked) => self.call_off(&id, &mut case, kind, blocked, now, out),
            Ok(action) => {
                out.push(action);
                self.count(kind.name(), &case, "started");
                let limit = match kind {
                    ActKind::Reset => ACT_LIMIT,
                    // The run of a restart has its own, shorter limit.
                    ActKind::Restart => self.policy.restart_deadline + ACT_LIMIT * 2,
                };
                let until = now.mono.plus(limit);
                case.step = Step::Acting { act, kind, until };
            }
        }
        self.cases.insert(id, case);
    }

    /// What may have changed while the ledger was written, right before the act.
    fn last_gates(&self, case: &Case, kind: ActKind, now: Now) -> Result<(), Blocked> {
        let unwell = self.unwell(now);
        if !unwell.is_empty() {
            return Err(Blocked::SelfUnwell(unwell.join("; ")));
        }
        if !case.present {
            return Err(Blocked::Gone);
        }
        if Some(kind) > self.policy.remediation.mode.allows() {
            return Err(Blocked::Mode(self.policy.remediation.mode));
        }
        match kind {
            ActKind::Reset => self.gates_of_the_server(now),
            ActKind::Restart => {
                self.restart_gates_of_the_server(now)?;
                self.gates_of_the_fleet(now)
            }
        }
    }

    pub(super) fn on_act_done(&mut self, act: u64, result: Result<String, String>, now: Now, out: &mut Vec<Action>) {
        if let Some(run) = self.restart.as_mut().filter(|r| r.act == act) {
            match result {
                Ok(_) => run.issued = true,
                Err(e) => self.end_restart(Err(e), now, out),
            }
            return;
        }
        let Some((id, mut case)) = self.take_case(|s| matches!(s, Step::Acting { act: a, .. } if *a == act)) else {
            return;
        };
        self.acted(&id, &mut case, ActKind::Reset, result, now, out);
        self.cases.insert(id, case);
    }

    /// A remedy was done, or failed.
    fn acted(
        &mut self,
        id: &str,
        case: &mut Case,
        kind: ActKind,
        result: Result<String, String>,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        match kind {
            ActKind::Reset => case.resets += 1,
            ActKind::Restart => case.restarts += 1,
        }
        if let Some(peer) = case.peer(&self.policy.host) {
            self.acted_on.insert(peer.clone(), now.mono);
        }
        match result {
            Ok(done) => {
                self.record("outcome", id.to_owned(), done, now, out);
                case.step = Step::Verifying {
                    kind: ActKind::Reset,
                    until: now.mono.plus(self.policy.remediation.verify),
                };
                if let (FaultKind::Interest, Some(End::Host(to))) = (case.fault.kind, &case.fault.to) {
                    for lane in &self.lanes {
                        self.book.ask_again(&lane.name, to);
                    }
                }
            }
            Err(e) => {
                self.count(kind.name(), case, "failed");
                let text = format!("the {} failed: {e}", kind.name());
                self.record("outcome", id.to_owned(), text, now, out);
                case.step = back_off(case, now.mono);
            }
        }
    }

    /// Waits for the new server after a restart, and ends the run in time.
    pub(super) fn watch_restart(&mut self, now: Now, out: &mut Vec<Action>) {
        let Some(run) = &self.restart else { return };
        let limit = self.policy.restart_deadline + ACT_LIMIT;
        let fresh = self.local.up && self.local.varz().is_some_and(|v| v.server_id != run.old_id);
        if run.issued && fresh && self.lanes.iter().all(|l| l.connected.is_ok()) {
            self.end_restart(Ok(()), now, out);
        } else if now.mono.since(run.begun) > limit {
            let text = format!(
                "the server did not come back within {}",
                humantime::format_duration(limit)
            );
            self.end_restart(Err(text), now, out);
        }
    }

    fn end_restart(&mut self, result: Result<(), String>, now: Now, out: &mut Vec<Action>) {
        let Some(run) = self.restart.take() else { return };
        let took = now.mono.since(run.begun).as_secs_f64();
        self.restarted_at = Some(now.mono);
        let text = match &result {
            Ok(()) => format!("the server was restarted and answers again after {took:.1} s"),
            Err(e) => format!("the restart failed: {e}"),
        };
        self.record("outcome", run.why.clone(), text.clone(), now, out);
        if let Some(rollout) = run.rollout {
            let (state, outcome) = if result.is_ok() {
                (Stage::Done, "done")
            } else {
                (Stage::Failed, "failed")
            };
            self.last_command = Some(LastCommand {
                rollout,
                state,
                detail: text,
            });
            *self
                .actions
                .entry(("restart", OPERATOR.to_owned(), outcome))
                .or_default() += 1;
            return;
        }
        let Some((id, mut case)) =
            self.take_case(|s| matches!(s, Step::Acting { act, .. } | Step::Saving { act, .. } if *act == run.act))
        else {
            return;
        };
        case.restarts += 1;
        if result.is_ok() {
            let until = now.mono.plus(self.policy.remediation.verify);
            let kind = ActKind::Restart;
            case.step = Step::Verifying { kind, until };
        } else {
            self.count("restart", &case, "failed");
            case.step = back_off(&case, now.mono);
        }
        self.cases.insert(id, case);
    }

    fn verify(
        &mut self,
        id: &str,
        case: &mut Case,
        kind: ActKind,
        until: Mono,
        now: Now,
        out: &mut Vec<Action>,
    ) -> bool {
        let acted = Mono(until.0.saturating_sub(self.policy.remediation.verify));
        if self.healed(case, acted, now) {
            let lasted = now.mono.since(case.since).as_secs_f64();
            self.count(kind.name(), case, "healed");
            self.record(
                "outcome",
                id.to_owned(),
                format!("healed by {}, {lasted:.1} s after the verdict", kind.name()),
                now,
                out,
            );
            let times = self.healed.entry(id.to_owned()).or_default();
            times.push(now.mono);
            return false;
        }
        if now.mono < until || !self.unwell(now).is_empty() && now.mono < until.plus(UNWELL) {
            return true;
        }
        let outcome = if case.present { "no_effect" } else { "failed" };
        self.count(kind.name(), case, outcome);
        let within = humantime::format_duration(self.policy.remediation.verify);
        self.record(
            "outcome",
            id.to_owned(),
            format!("{} did not heal it within {within}", kind.name()),
            now,
            out,
        );
        case.step = back_off(case, now.mono);
        true
    }

    fn check_network(&mut self, case: &mut Case, now: Now, out: &mut Vec<Action>) -> Result<(), Blocked> {
        if case
            .network
            .as_ref()
            .is_some_and(|(at, _)| now.mono.since(*at) < CHECK_VALID)
        {
            return Ok(());
        }
        let mut addresses = self.addresses(case);
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
        case.step = Step::Checking { check, until };
        out.push(Action::CheckNetwork { check, addresses });
        Ok(())
    }

    pub(super) fn on_checked(&mut self, check: u64, result: Result<(), String>, now: Now) {
        if let Some((id, mut case)) = self.take_case(|s| matches!(s, Step::Checking { check: c, .. } if *c == check)) {
            case.network = Some((now.mono, result));
            case.step = Step::Waiting;
            self.cases.insert(id, case);
        }
    }

    /// A few of those that see a silent host look at its network, so that it can be named.
    fn looks_at(&self, case: &Case) -> bool {
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

    fn take_case(&mut self, step: impl Fn(&Step) -> bool) -> Option<(String, Case)> {
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

    fn count(&mut self, action: &'static str, case: &Case, outcome: &'static str) {
        let key = (action, case.fault.kind.name().to_owned(), outcome);
        *self.actions.entry(key).or_default() += 1;
    }

    /// All gates in their order; see [`crate::core::remedy::gate`].
    fn gates(&self, id: &str, case: &Case, kind: ActKind, now: Now) -> Result<(), Blocked> {
        let unwell = self.unwell(now);
        if !unwell.is_empty() {
            return Err(Blocked::SelfUnwell(unwell.join("; ")));
        }
        if self.health(now) != Health::Ok {
            return Err(Blocked::SelfUnwell("it has just started or reconnected".to_owned()));
        }
        if let Some(run) = &self.restart {
            return Err(Blocked::Busy(format!("a restart ({})", run.why)));
        }
        if let Some(other) = self
            .cases
            .iter()
            .find(|(_, c)| matches!(c.step, Step::Saving { .. } | Step::Acting { .. }))
        {
            return Err(Blocked::Busy(format!("a remedy for {}", other.0)));
        }
        self.gate_settling(case, now)?;
        self.gate_witness(case, kind, now)?;
        match kind {
            ActKind::Reset => {
                if let Some(why) = self
                    .reset_unavailable
                    .as_ref()
                    .filter(|_| self.policy.remediation.mode != Mode::Observe)
                {
                    return Err(Blocked::ResetUnavailable(why.clone()));
                }
                self.gates_of_the_server(now)?;
                self.reset_target(case, now)?;
            }
            ActKind::Restart => {
                self.restart_gates_of_the_server(now)?;
                self.gates_of_the_fleet(now)?;
            }
        }
        let times = self
            .healed
            .get(id)
            .map_or(0, |t| t.iter().filter(|t| now.mono.since(**t) < REMEMBER).count());
        if times >= FLAPS {
            return Err(Blocked::Flapping {
                fault: id.to_owned(),
                times,
            });
        }
        let per_hour = self.per_hour(kind);
        if self.ledger.left(kind, per_hour, now) == 0 {
            return Err(Blocked::HostLimit {
                action: kind.name(),
                per_hour,
                wait: self.ledger.wait(kind, per_hour, now),
            });
        }
        Ok(())
    }

    /// After an act on a peer, its effect is awaited before anything else is done between the two.
    fn gate_settling(&self, case: &Case, now: Now) -> Result<(), Blocked> {
        let settling = |at: &Mono| now.mono.since(*at) < self.policy.remediation.verify;
        let peer = case.peer(&self.policy.host);
        if self.restarted_at.as_ref().is_some_and(settling)
            || peer.and_then(|p| self.acted_on.get(p)).is_some_and(settling)
        {
            return Err(Blocked::Busy("the verification of an earlier remedy".to_owned()));
        }
        Ok(())
    }

    /// A source that nobody hears may just be gone; that it lives must be proved by somebody else.
    fn gate_witness(&self, case: &Case, kind: ActKind, now: Now) -> Result<(), Blocked> {
        let me = &self.policy.host;
        if let Some(peer) = case.peer(me) {
            return if self.witness(case, peer, now) {
                Ok(())
            } else {
                Err(Blocked::NoWitness(peer.clone()))
            };
        }
        let fresh = case.since.plus(self.policy.remediation.confirm);
        let anyone = self
            .lanes
            .iter()
            .any(|l| l.reports.values().any(|r| r.credible(now.mono) && r.at >= fresh));
        if !anyone && (kind == ActKind::Restart || case.fault.kind == FaultKind::Host) {
            return Err(Blocked::NoWitness(case.fault.from.clone()));
        }
        // One host that does not hear this one may be wrong itself: no restart on a single word.
        let accusers = self.evidence.deaf.keys().filter(|(s, r)| s == me && r != me).count();
        if kind == ActKind::Restart && case.fault.kind == FaultKind::Host && accusers < 2 {
            return Err(Blocked::NoWitness(case.fault.from.clone()));
        }
        Ok(())
    }

    fn gates_of_the_server(&self, now: Now) -> Result<(), Blocked> {
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
        let started_here = self.local.restarts > 0;
        let up = now.mono.since(self.local.id_since);
        if started_here && up < STARTING {
            return Err(Blocked::ServerStarting(up));
        }
        Ok(())
    }

    /// The gates of a restart that concern the local server; for operators too.
    pub(super) fn restart_gates_of_the_server(&self, now: Now) -> Result<(), Blocked> {
        self.gates_of_the_server(now)?;
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

    fn gates_of_the_fleet(&self, now: Now) -> Result<(), Blocked> {
        let me = &self.policy.host;
        if let Some((host, _)) = self
            .members
            .iter()
            .find(|(h, m)| m.health == Health::Restarting && !self.long_gone(h, now))
        {
            return Err(Blocked::OtherRestarting(host.clone()));
        }
        let sick = self
            .cases
            .values()
            .map(|c| owner(&c.fault))
            .filter(|h| *h != me)
            .collect::<std::collections::BTreeSet<&HostName>>()
            .len()
            + 1;
        let of = self.members.len() + 1;
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of a count of hosts"
        )]
        let limit = ((of as f64 * self.policy.remediation.max_sick_fraction) as usize).max(1);
        if sick > limit {
            return Err(Blocked::TooManySick { sick, of, limit });
        }
        if self.local.varz().is_some_and(|v| v.jetstream) {
            let own = self.cluster();
            let down = self.members.iter().find(|(h, m)| {
                m.cluster == own
                    && self
                        .lanes
                        .iter()
                        .filter_map(|l| l.paths.get(*h))
                        .any(|p| p.verdict == Verdict::Departed || m.health == Health::LameDuck)
            });
            // One that fell silent said no goodbye, and is out all the same.
            let dead = self.cases.values().filter(|c| c.present).map(|c| &c.fault).find(|f| {
                f.kind == FaultKind::Host
                    && &f.from != me
                    && self.members.get(&f.from).is_some_and(|m| m.cluster == own)
            });
            if let Some(host) = down.map(|(h, _)| h).or(dead.map(|f| &f.from)) {
                return Err(Blocked::JetStreamPeerDown(host.clone()));
            }
        }
        Ok(())
    }

    /// Its announced restart is so long ago that it is a failure, which is seen elsewhere.
    fn long_gone(&self, host: &HostName, now: Now) -> bool {
        self.lanes
            .iter()
            .filter_map(|l| l.paths.get(host))
            .all(|p| p.silence(now.mono) > Duration::from_secs(150))
    }
}

/// `route` of `route:a>b`, `operator` of `operator`.
pub(super) fn kind_of(reason: &str) -> String {
    reason.split(':').next().unwrap_or_default().to_owned()
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

fn back_off(case: &Case, now: Mono) -> Step {
    let tries = (case.resets + case.restarts).saturating_sub(1).min(6);
    Step::BackingOff {
        until: now.plus(BACK_OFF * 2u32.pow(tries)),
    }
}
