//! Acts and what came of them: the ledger first, then the act, then the proof that it helped.

use std::time::Duration;

use crate::core::agent::event::Action;
use crate::core::agent::memory::spread;
use crate::core::agent::run::{ServerStep, StepError};
use crate::core::agent::{Core, RestartRun};
use crate::core::control::{LastCommand, Stage};
use crate::core::ids::{Mono, Now};
use crate::core::mesh::End;
use crate::core::remedy::case::{Case, Step};
use crate::core::remedy::gate::Blocked;
use crate::core::remedy::ledger::ActKind;
use crate::core::remedy::memory::one_more;
use crate::core::view::{FaultKind, Record};

/// An act that does not report back in this time beyond its own limit has failed.
const ACT_LIMIT: Duration = Duration::from_secs(30);
/// The same for a write of the ledger. The act is not done: what was right then may not be right now.
pub(super) const SAVE_LIMIT: Duration = Duration::from_secs(10);
/// For the last look at the permit, which has shorter limits of its own.
const FENCE_LIMIT: Duration = Duration::from_secs(30);
/// After a remedy that did not help, before the next; doubles.
pub(super) const BACK_OFF: Duration = Duration::from_secs(5);
/// What stands in the ledger for a restart that was ordered.
pub(super) const OPERATOR: &str = "operator";
/// What is not well is unwell for good after this long: a remedy is judged in spite of it.
const UNWELL: Duration = Duration::from_secs(60);

impl Core {
    pub(super) fn act(&mut self, id: &str, case: &mut Case, kind: ActKind, now: Now, out: &mut Vec<Action>) {
        let per_hour = self.per_hour(kind);
        let act = self.new_id();
        self.ledger.note(kind, per_hour, id, now);
        // Counts from before it begins: the agent may die in it.
        let (resets, restarts) = one_more(case.resets, case.restarts, kind);
        self.ledger.memory.try_on(id, resets, restarts, now);
        let until = now.mono.plus(SAVE_LIMIT);
        case.step = Step::Saving { act, kind, until };
        let text = self.describe(case, kind, now);
        case.act = Some(act);
        self.note(("act", "started"), id, case, text, now, out);
        if kind == ActKind::Restart {
            self.begin_restart(act, id.to_owned(), None, now, out);
        }
        out.push(Action::SaveLedger {
            act,
            ledger: Box::new(self.ledger.clone()),
        });
    }

    pub(super) fn describe(&self, case: &Case, kind: ActKind, now: Now) -> String {
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
        let old_id = self.local.varz().map_or_else(String::new, |v| v.server_id.clone());
        self.restart = Some(RestartRun::plain(act, why.clone(), rollout, old_id, now.mono));
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
        if self.on_memory_saved(act, &result, now) {
            return;
        }
        if self
            .restart
            .as_ref()
            .is_some_and(|r| r.act == act && r.rollout.is_some())
        {
            self.on_run_saved(result, now, out);
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
            .and_then(|()| self.last_gates(&id, &case, kind, now))
            .and_then(|()| match kind {
                ActKind::Reset => Ok(Action::Reset {
                    act,
                    target: self.reset_target(&case, now)?,
                }),
                ActKind::Restart => Ok(Action::Restart { act }),
            });
        match action {
            Err(blocked) => self.call_off(&id, &mut case, kind, blocked, now, out),
            Ok(Action::Restart { .. }) if self.fenced(act) => {
                let until = now.mono.plus(FENCE_LIMIT);
                case.step = Step::Fencing { act, until };
                self.fence(now, out);
            }
            Ok(action) => self.start_act(&mut case, act, kind, action, now, out),
        }
        self.cases.insert(id, case);
    }

    pub(super) fn start_act(
        &mut self,
        case: &mut Case,
        act: u64,
        kind: ActKind,
        action: Action,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        if let Action::Reset { target, .. } = &action {
            case.tried_all = target.whole;
        }
        // Until now it waited for the disk and for the permit, each of which has its own limit.
        if let Some(run) = self.restart.as_mut().filter(|run| run.act == act) {
            (run.begun, run.touched) = (now.mono, true);
        }
        out.push(action);
        self.count(kind.name(), case, "started");
        let limit = match kind {
            ActKind::Reset => ACT_LIMIT,
            // The run of a restart has its own, shorter limit.
            ActKind::Restart => self.policy.restart_deadline + ACT_LIMIT * 2,
        };
        let until = now.mono.plus(limit);
        case.step = Step::Acting { act, kind, until };
    }

    pub(super) fn on_act_done(&mut self, act: u64, result: Result<String, String>, now: Now, out: &mut Vec<Action>) {
        if self
            .restart
            .as_ref()
            .is_some_and(|r| r.act == act && r.rollout.is_some())
        {
            return self.on_step_done(act, result.map_err(|what| StepError { touched: true, what }), now, out);
        }
        if let Some(run) = self.restart.as_mut().filter(|r| r.act == act) {
            match result {
                Ok(_) => {
                    run.issued = true;
                    run.step_begun = now.mono;
                }
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
    pub(super) fn acted(
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
                self.note(("outcome", "done"), id, case, done, now, out);
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
                case.tried_all = false;
                self.count(kind.name(), case, "failed");
                let text = format!("the {} failed: {e}", kind.name());
                self.note(("outcome", "failed"), id, case, text, now, out);
                case.step = self.back_off(id, case, now.mono);
            }
        }
    }

    /// Waits for the new server after a restart, and ends the run in time.
    pub(super) fn watch_restart(&mut self, now: Now, out: &mut Vec<Action>) {
        let Some(run) = &self.restart else { return };
        let limit = self.policy.restart_deadline + ACT_LIMIT;
        let fresh = self.local.up && self.local.varz().is_some_and(|v| v.server_id != run.old_id);
        // Each step of an ordered one has its own limit.
        let begun = run.rollout.is_some() || run.touched;
        let waits = run.issued || begun && run.doing == ServerStep::Restart && !run.inherited;
        let since = if run.rollout.is_some() {
            run.step_begun
        } else {
            run.begun
        };
        if run.issued && fresh && self.lanes.iter().all(|l| l.connected.is_ok()) {
            let fault = run.fault.clone();
            self.end_restart(fault.map_or(Ok(()), Err), now, out);
        } else if waits && now.mono.since(since) > limit {
            let text = format!(
                "the server did not come back within {}",
                humantime::format_duration(limit)
            );
            self.end_restart(Err(text), now, out);
        }
    }

    pub(super) fn end_restart(&mut self, result: Result<(), String>, now: Now, out: &mut Vec<Action>) {
        let Some(run) = self.restart.take() else { return };
        if !run.touched && run.rollout.is_some() {
            self.not_restarted();
        }
        let took = now.mono.since(run.begun).as_secs_f64();
        self.restarted_at = Some(now.mono);
        let text = match &result {
            Ok(()) => format!("the server was restarted and answers again after {took:.1} s"),
            Err(e) => format!("the restart failed: {e}"),
        };
        let record = Record {
            event: "outcome".to_owned(),
            subject: run.why.clone(),
            text: text.clone(),
            who: run.who.clone(),
            outcome: if result.is_ok() { "done" } else { "failed" }.to_owned(),
            act: self.act_id(run.act),
            rollout: run.rollout.clone().unwrap_or_default(),
            ..Record::default()
        };
        self.keep(record, now, out);
        if let Some(rollout) = run.rollout {
            let (state, outcome) = if result.is_ok() {
                (Stage::Done, "done")
            } else {
                (Stage::Failed, "failed")
            };
            if let Some(ordered) = self.ledger.ordered.as_mut().filter(|o| o.rollout == rollout) {
                ordered.stage = state;
                ordered.detail.clone_from(&text);
            }
            self.ledger.run = None;
            // What was under way must not be taken up again by the next process.
            self.ledger_changed();
            self.write_ledger(now, out);
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
            case.step = self.back_off(&id, &case, now.mono);
        }
        self.cases.insert(id, case);
    }

    pub(super) fn verify(
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
            let text = format!("healed by {}, {lasted:.1} s after the verdict", kind.name());
            self.note(("outcome", "healed"), id, case, text, now, out);
            self.ledger.memory.healed(id, now);
            self.ledger_changed();
            return false;
        }
        if now.mono < until || !self.unwell(now).is_empty() && now.mono < until.plus(UNWELL) {
            return true;
        }
        let outcome = if case.present { "no_effect" } else { "failed" };
        self.count(kind.name(), case, outcome);
        let within = humantime::format_duration(self.policy.remediation.verify);
        let text = format!("{} did not heal it within {within}", kind.name());
        self.note(("outcome", outcome), id, case, text, now, out);
        case.step = self.back_off(id, case, now.mono);
        true
    }

    fn back_off(&self, id: &str, case: &Case, now: Mono) -> Step {
        let tries = (case.resets + case.restarts).saturating_sub(1).min(6);
        let until = now.plus(self.jittered(BACK_OFF * 2u32.pow(tries), id));
        Step::BackingOff { until }
    }

    /// Hosts that hold each other up must not try again at the same moment: each waits for a time of its own.
    pub(super) fn jittered(&self, length: Duration, id: &str) -> Duration {
        let host = self.policy.host.as_str();
        spread(length, self.inc, &format!("{host} {id}"), self.next_id)
    }
}

/// `route` of `route:a>b`, `operator` of `operator`.
pub(super) fn kind_of(reason: &str) -> String {
    reason.split(':').next().unwrap_or_default().to_owned()
}
