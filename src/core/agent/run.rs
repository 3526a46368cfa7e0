//! A restart that was ordered, step by step: drain, stop, hook, start. Each step is on disk before it begins, so that an
//! agent that dies in the middle knows at its next start what it was at, does nothing twice, and leaves no server
//! stopped, unless it was away for over an hour: then others have decided about that server.
//!
//! **When something goes wrong** after the server was touched, the server is started again with what is there, and the
//! restart counts as failed: a server that runs an old version is better than none, and the rollout halts to tell.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::core::agent::event::Action;
use crate::core::agent::order::Order;
use crate::core::agent::{Core, act};
use crate::core::audit::Who;
use crate::core::control::roll::{Before, JetStream, Ordered};
use crate::core::control::{LameDuck, LastCommand, RestartFacts, RestartOrder, Stage};
use crate::core::ids::{Mono, Now};
use crate::core::remedy::gate::Blocked;
use crate::core::remedy::ledger::ActKind;
use crate::core::server::Endpoint;

/// Beyond a step's own limit, before it counts as lost.
const STEP_LIMIT: Duration = Duration::from_secs(30);
/// A fresh agent looks so long before it judges what became of the step it died in: a restart that goes on by itself
/// must have time to be seen.
const LOOK: Duration = Duration::from_secs(5);
/// An order that is so much older than all of its steps could last is nothing to go on with: others have decided since.
const ABANDONED: Duration = Duration::from_secs(3600);
/// A server that is up as before after so long was never touched.
const UNTOUCHED: Duration = Duration::from_secs(15);

/// One step of a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServerStep {
    /// The leader of JetStream's meta group steps down. Nothing is lost if it does not: it is asked, not told.
    StepDown,
    /// Lame duck by a local signal, then wait for the end of the process.
    Drain,
    /// Stop the server; fine if it is stopped.
    Stop,
    /// Run a hook of the configuration.
    Hook(String),
    /// Start the server; fine if it runs.
    Start,
    /// Stop and start in one.
    Restart,
}

impl ServerStep {
    /// In words.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::StepDown => "stepping down as meta leader".to_owned(),
            Self::Drain => "draining clients (lame duck)".to_owned(),
            Self::Stop => "stopping the server".to_owned(),
            Self::Hook(name) => format!("running hook {name}"),
            Self::Start => "starting the server".to_owned(),
            Self::Restart => "restarting the server".to_owned(),
        }
    }
}

/// Why a step failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepError {
    /// The server may not be as it was.
    pub touched: bool,
    /// What happened.
    pub what: String,
}

/// What is kept on disk of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptRun {
    /// Why, as told.
    pub why: String,
    /// The step under way.
    pub doing: ServerStep,
    /// Those after it.
    pub then: VecDeque<ServerStep>,
    /// What went wrong before.
    #[serde(default)]
    pub fault: Option<String>,
}

/// A restart of the local server under way.
#[derive(Debug, Clone, PartialEq)]
pub struct RestartRun {
    /// Id of the act.
    pub act: u64,
    /// Fault id, or who ordered it.
    pub why: String,
    /// A rollout's id, if an operator ordered it.
    pub rollout: Option<String>,
    /// The operator.
    pub who: Option<Who>,
    /// Begun.
    pub begun: Mono,
    /// `server_id` before.
    pub old_id: String,
    /// The act itself has ended; the new server is awaited.
    pub issued: bool,
    /// The step under way, or to be begun when the ledger is written.
    pub doing: ServerStep,
    /// Those after it.
    pub then: VecDeque<ServerStep>,
    /// When `doing` was wanted.
    pub step_begun: Mono,
    /// The ledger is being written before `doing` begins.
    pub saving: bool,
    /// What went wrong; the server is started all the same.
    pub fault: Option<String>,
    /// The first step has begun.
    pub touched: bool,
    /// `doing` was under way when the agent died; what became of it is to be found out.
    pub inherited: bool,
}

impl RestartRun {
    /// A restart in one step.
    #[must_use]
    pub fn plain(act: u64, why: String, rollout: Option<String>, old_id: String, now: Mono) -> Self {
        Self {
            act,
            why,
            rollout,
            who: None,
            begun: now,
            old_id,
            issued: false,
            doing: ServerStep::Restart,
            then: VecDeque::new(),
            step_begun: now,
            saving: true,
            fault: None,
            touched: false,
            inherited: false,
        }
    }
}

impl Core {
    /// An operator orders a restart. The command was verified before.
    ///
    /// # Errors
    /// The gate that holds it.
    pub fn order_restart(&mut self, order: &Order, now: Now) -> Result<Vec<Action>, Blocked> {
        let (rollout, how) = (order.rollout.as_str(), RestartOrder::read(&order.args));
        if let Some(run) = &self.restart {
            return Err(Blocked::Busy(format!("a restart ({})", run.why)));
        }
        if self.leaving {
            return Err(Blocked::SelfUnwell("it is stopping".to_owned()));
        }
        self.gate_order(rollout, how.term)?;
        self.brownout_gate(now)?;
        self.restart_gates_of_the_server(now)?;
        self.steps(&how, now)?;
        if self.registered() {
            return self.ask_order(order, now);
        }
        let mut out = Vec::new();
        self.start_order(order, now, &mut out)?;
        Ok(out)
    }

    /// The order has its permit, or needs none.
    pub(super) fn start_order(&mut self, order: &Order, now: Now, out: &mut Vec<Action>) -> Result<(), Blocked> {
        let (rollout, how) = (order.rollout.as_str(), RestartOrder::read(&order.args));
        let mut steps = self.steps(&how, now)?;
        let why = order.why();
        let act = self.new_id();
        self.begin_restart(act, why.clone(), Some(rollout.to_owned()), now, out);
        if let (Some(run), Some(first)) = (&mut self.restart, steps.pop_front()) {
            run.doing = first;
            run.then = steps;
            run.who = Some(order.who.clone());
        }
        let mut record = order.record("restart accepted".to_owned(), "accepted");
        record.act = self.act_id(act);
        self.keep(record, now, out);
        let per_hour = self.policy.remediation.restarts_per_hour;
        self.ledger.note(ActKind::Restart, per_hour, act::OPERATOR, now);
        self.ledger.ordered = Some(Ordered {
            rollout: rollout.to_owned(),
            stage: Stage::Restarting,
            detail: why,
            at_ms: u64::try_from(now.wall.0.as_millis()).unwrap_or(u64::MAX),
            order: how,
            before: self.before(now),
        });
        self.save_run(out);
        Ok(())
    }

    /// The steps of an order, in order; never empty.
    fn steps(&self, order: &RestartOrder, now: Now) -> Result<VecDeque<ServerStep>, Blocked> {
        let ways = &self.policy.restart;
        if let Some(name) = &order.hook {
            if !ways.hooks.contains_key(name) {
                let known: Vec<&str> = ways.hooks.keys().map(String::as_str).collect();
                return Err(Blocked::NoHook {
                    name: name.clone(),
                    why: match known.as_slice() {
                        [] => "this agent's configuration has no hooks".to_owned(),
                        known => format!("this agent's configuration has only {}", known.join(", ")),
                    },
                });
            }
            if !ways.can_stop {
                return Err(Blocked::NoHook {
                    name: name.clone(),
                    why: "a hook runs between stop and start, for which server.stop_command and server.start_command are needed"
                        .to_owned(),
                });
            }
        }
        let drain = match order.lame_duck {
            LameDuck::Never => false,
            LameDuck::Auto => ways.lame_duck.is_some() && self.clients(now) > 0,
            LameDuck::Always if ways.lame_duck.is_none() => return Err(Blocked::NoLameDuck),
            LameDuck::Always => true,
        };
        let mut steps = VecDeque::new();
        let leads = self.restart_facts().jetstream.is_some_and(|js| js.meta_leader);
        if leads && ways.step_down {
            steps.push_back(ServerStep::StepDown);
        }
        let care = steps.len();
        if drain {
            steps.push_back(ServerStep::Drain);
        }
        if let Some(name) = &order.hook {
            // After a drain too: a unit with Restart=always is on its way up again.
            steps.extend([ServerStep::Stop, ServerStep::Hook(name.clone())]);
        }
        steps.push_back(match steps.len() == care {
            true => ServerStep::Restart,
            false => ServerStep::Start,
        });
        Ok(steps)
    }

    /// Clients beside the agent itself; not known counts as some.
    fn clients(&self, now: Now) -> u64 {
        let fresh = self
            .local
            .age(Endpoint::Varz, now.mono)
            .is_some_and(|age| age < super::local::STALE);
        match self.local.varz().filter(|_| fresh) {
            Some(varz) => varz.connections.saturating_sub(self.own_clients()),
            None => 1,
        }
    }

    fn own_clients(&self) -> u64 {
        self.lanes.iter().filter(|l| l.connected.is_ok()).count() as u64
    }

    fn before(&self, now: Now) -> Before {
        let status = self.host_status(now);
        Before {
            server_id: status.server_id,
            version: status.version,
            peers: status.peers,
            peer_names: status.peer_names,
            gateways: status.gateways.unwrap_or_default(),
        }
    }

    /// Takes over a run that was under way when the agent died.
    pub(super) fn inherit_run(&mut self, now: Now) {
        let Some(ordered) = self.ledger.ordered.clone() else {
            return;
        };
        self.last_command = Some(LastCommand {
            rollout: ordered.rollout.clone(),
            state: ordered.stage,
            detail: ordered.detail.clone(),
        });
        let Some(kept) = self.ledger.run.clone() else { return };
        let act = self.new_id();
        let run = RestartRun::plain(act, kept.why, Some(ordered.rollout), ordered.before.server_id, now.mono);
        self.restart = Some(RestartRun {
            doing: kept.doing,
            then: kept.then,
            fault: kept.fault,
            saving: false,
            touched: true,
            inherited: true,
            ..run
        });
    }

    /// Writes what is about to be done; it is done when that is on disk.
    fn save_run(&mut self, out: &mut Vec<Action>) {
        let Some(run) = &mut self.restart else { return };
        run.saving = true;
        let doing = run.doing.text();
        self.ledger.run = Some(KeptRun {
            why: run.why.clone(),
            doing: run.doing.clone(),
            then: run.then.clone(),
            fault: run.fault.clone(),
        });
        if let Some(ordered) = &mut self.ledger.ordered {
            ordered.detail = match &run.fault {
                None => doing,
                Some(fault) => format!("{doing}, after: {fault}"),
            };
            self.last_command = Some(LastCommand {
                rollout: ordered.rollout.clone(),
                state: ordered.stage,
                detail: ordered.detail.clone(),
            });
        }
        out.push(Action::SaveLedger {
            act: run.act,
            ledger: Box::new(self.ledger.clone()),
        });
    }

    /// The ledger was written, or not, before a step of an ordered restart.
    pub(super) fn on_run_saved(&mut self, result: Result<(), String>, now: Now, out: &mut Vec<Action>) {
        // The operator has decided; that the note of it could not be kept is said, not held against it.
        if let Err(e) = result {
            let text = format!("the ledger cannot be written: {e}");
            self.record("agent", "ledger".to_owned(), text, now, out);
            self.ledger_changed();
        }
        let Some(run) = self.restart.as_mut().filter(|run| run.saving) else {
            return;
        };
        run.saving = false;
        run.step_begun = now.mono;
        let (act, first) = (run.act, !run.touched);
        // It takes nothing down: the last look at the permit comes after it, right before what does.
        let steps_down = run.doing == ServerStep::StepDown;
        // The disk may have been slow: nobody may have stopped the server, or restarted it, meanwhile.
        let gates = || {
            self.brownout_gate(now)?;
            self.restart_gates_of_the_server(now)
        };
        if first && let Err(blocked) = gates() {
            *self.blocked.entry(blocked.gate()).or_default() += 1;
            self.permit_unused();
            self.end_restart(Err(format!("it was not begun: {blocked}")), now, out);
        } else if first && self.fenced(act) && !steps_down {
            self.fence(now, out);
        } else {
            self.begin_step(now, out);
        }
    }

    /// Does what is to be done next; the ledger and the permit know of it.
    pub(super) fn begin_step(&mut self, now: Now, out: &mut Vec<Action>) {
        let Some(run) = self.restart.as_mut() else { return };
        run.touched |= run.doing != ServerStep::StepDown;
        run.step_begun = now.mono;
        let (act, step) = (run.act, run.doing.clone());
        self.record("act", "restart".to_owned(), step.text(), now, out);
        out.push(match step {
            ServerStep::Restart => Action::Restart { act },
            step => Action::Step { act, step },
        });
    }

    /// A step of an ordered restart has ended.
    pub(super) fn on_step_done(
        &mut self,
        act: u64,
        result: Result<String, StepError>,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        let Some(run) = self.restart.as_mut().filter(|run| run.act == act) else {
            return;
        };
        match result {
            Ok(said) => {
                let text = match said.trim() {
                    "" => format!("{}: done", run.doing.text()),
                    said => format!("{}: {said}", run.doing.text()),
                };
                match run.then.pop_front() {
                    Some(next) => {
                        run.doing = next;
                        self.record("act", "restart".to_owned(), text, now, out);
                        self.save_run(out);
                    }
                    None => {
                        run.issued = true;
                        run.step_begun = now.mono;
                    }
                }
            }
            Err(error) => self.step_failed(&error, now, out),
        }
    }

    fn step_failed(&mut self, error: &StepError, now: Now, out: &mut Vec<Action>) {
        let Some(run) = &mut self.restart else { return };
        let text = format!("{} failed: {}", run.doing.text(), error.what);
        let again = match &run.doing {
            ServerStep::StepDown => run.then.pop_front(),
            ServerStep::Drain | ServerStep::Stop if !error.touched => None,
            // What hangs in lame duck serves nobody.
            ServerStep::Drain => Some(ServerStep::Restart),
            ServerStep::Stop | ServerStep::Hook(_) => Some(ServerStep::Start),
            ServerStep::Start | ServerStep::Restart => None,
        };
        if run.doing == ServerStep::StepDown
            && let Some(step) = again
        {
            run.doing = step;
            self.record("act", "restart".to_owned(), text, now, out);
            self.save_run(out);
            return;
        }
        let text = match &run.fault {
            Some(before) => format!("{before}; {text}"),
            None => text,
        };
        let untouched = !error.touched && run.fault.is_none();
        match again {
            None => {
                if untouched {
                    self.not_restarted();
                }
                self.end_restart(Err(text), now, out);
            }
            Some(step) => {
                run.fault = Some(text.clone());
                run.doing = step;
                run.then.clear();
                self.record("outcome", "restart".to_owned(), text, now, out);
                self.save_run(out);
            }
        }
    }

    /// Limits of the step under way, and what becomes of a step that the agent died in.
    pub(super) fn watch_run(&mut self, now: Now, out: &mut Vec<Action>) {
        let Some(run) = &self.restart else { return };
        if run.rollout.is_none() || run.issued {
            return;
        }
        let took = now.mono.since(run.step_begun);
        let limit = self.step_limit(&run.doing) + STEP_LIMIT;
        if run.inherited {
            self.watch_inherited(took, limit, now, out);
        } else if took > limit && run.doing != ServerStep::Restart {
            let error = StepError {
                touched: true,
                what: format!("nothing was heard of it for {}", humantime::format_duration(limit)),
            };
            self.step_failed(&error, now, out);
        }
    }

    fn watch_inherited(&mut self, took: Duration, limit: Duration, now: Now, out: &mut Vec<Action>) {
        let can_stop = self.policy.restart.can_stop;
        let old = self.ledger.ordered.as_ref().is_some_and(|ordered| {
            let at = Duration::from_millis(ordered.at_ms);
            now.wall.0.saturating_sub(at) > ABANDONED + self.longest()
        });
        let looked = self.local.up || self.local.errors.contains_key(&Endpoint::Varz);
        let connected = self.lanes.iter().all(|l| l.connected.is_ok());
        let Some(run) = self.restart.as_mut().filter(|_| looked && took > LOOK) else {
            return;
        };
        let id = self.local.varz().map_or("", |v| v.server_id.as_str());
        if self.local.up && id != run.old_id {
            run.inherited = false;
            let missed = [&run.doing]
                .into_iter()
                .chain(&run.then)
                .find(|s| matches!(s, ServerStep::Hook(_)));
            if let Some(step) = missed {
                let text = format!(
                    "the agent died in the middle, and the server came back without {}",
                    step.text()
                );
                run.fault.get_or_insert(text);
            }
            run.issued = true;
            return;
        }
        if self.local.up {
            // A lame duck takes no new connection, this agent's among them.
            if connected && took > UNTOUCHED {
                let text = "the agent died before the server was touched; nothing was done".to_owned();
                self.not_restarted();
                self.end_restart(Err(text), now, out);
            } else if took > limit {
                run.inherited = false;
                let error = StepError {
                    touched: true,
                    what: "the agent died meanwhile, and the server did not stop".to_owned(),
                };
                self.step_failed(&error, now, out);
            }
            return;
        }
        // The command of the agent before may be at it still: it gets its time, so that nothing is done twice.
        if run.doing == ServerStep::Restart && !can_stop && took <= self.policy.restart_deadline {
            return;
        }
        if run.doing == ServerStep::StepDown || old {
            let text = match old {
                true => "the agent was away for so long that it left the server, which is down, to its operator",
                false => "the agent died before the server was touched, and somebody else stopped it; nothing was done",
            };
            self.end_restart(Err(text.to_owned()), now, out);
            return;
        }
        run.inherited = false;
        match run.doing.clone() {
            ServerStep::StepDown | ServerStep::Drain | ServerStep::Stop => {
                if let Some(next) = run.then.pop_front() {
                    run.doing = next;
                } else {
                    run.doing = ServerStep::Start;
                }
            }
            // Whether it had done its work is not known, and nothing is done twice.
            ServerStep::Hook(name) => {
                run.fault = Some(format!("the agent died while hook {name} ran"));
                run.doing = ServerStep::Start;
                run.then.clear();
            }
            // A command that restarts may be all that there is.
            ServerStep::Restart if !can_stop => {}
            ServerStep::Start | ServerStep::Restart => run.doing = ServerStep::Start,
        }
        self.save_run(out);
    }

    /// All steps that an order may have, each at its limit.
    fn longest(&self) -> Duration {
        let ways = &self.policy.restart;
        let hooks = ways.hooks.values().max().copied().unwrap_or_default();
        ways.lame_duck.unwrap_or_default() + hooks + (self.policy.restart_deadline + STEP_LIMIT) * 3
    }

    fn step_limit(&self, step: &ServerStep) -> Duration {
        let ways = &self.policy.restart;
        match step {
            ServerStep::StepDown => Duration::ZERO,
            ServerStep::Drain => ways.lame_duck.unwrap_or_default(),
            ServerStep::Hook(name) => ways.hooks.get(name).copied().unwrap_or_default(),
            ServerStep::Stop | ServerStep::Start | ServerStep::Restart => self.policy.restart_deadline,
        }
    }

    /// The restart that is under way was ordered.
    #[must_use]
    pub fn restarts_as_ordered(&self) -> bool {
        self.restart.as_ref().is_some_and(|r| r.rollout.is_some())
    }

    /// What a status says about restarts.
    pub(super) fn restart_facts(&self) -> RestartFacts {
        let ways = &self.policy.restart;
        let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        RestartFacts {
            hooks: ways
                .hooks
                .iter()
                .map(|(name, limit)| (name.clone(), millis(*limit)))
                .collect(),
            lame_duck_ms: ways.lame_duck.map(millis),
            step_down: ways.step_down,
            own_clients: self.own_clients(),
            jetstream: self.local.varz().filter(|v| v.jetstream).map(|v| JetStream {
                meta_leader: !v.server_name.is_empty() && v.meta_leader.as_deref() == Some(v.server_name.as_str()),
                stream_leaders: self.local.stream_leaders,
            }),
            ordered: self.ledger.ordered.clone(),
            rollout: self.rollout_shown(),
            store: self.registered(),
        }
    }
}

#[cfg(test)]
#[path = "run_tests.rs"]
mod tests;
