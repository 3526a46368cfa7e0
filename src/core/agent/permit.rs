//! Permits, from the agent's side: asked for after all other gates and before the ledger is written, looked at again
//! right before the act, given back when this host has proved healthy, kept as that of a failed host when it has not.
//!
//! What a permit is settled by follows each tick from what is going on, not from who began it: so it is the same after a
//! crash, when the permit is found in the document instead of in memory.

mod orders;
mod shown;
mod turns;

use std::time::Duration;

use crate::core::agent::Core;
use crate::core::agent::event::Action;
use crate::core::agent::order::Order;
use crate::core::canary::beacon::Health;
use crate::core::control::roll::OpenRollout;
use crate::core::ids::{Mono, Now, Wall};
use crate::core::permit::document::Phase;
use crate::core::permit::machine::{Machine, Seen, Told};
use crate::core::permit::policy::Arbiter;
use crate::core::permit::rules::{Claim, Refusal};
use crate::core::permit::{Revision, StoreError, Stored};
use crate::core::policy::Policy;
use crate::core::remedy::case::{Case, Role, Step};
use crate::core::remedy::gate::Blocked;
use crate::core::remedy::ledger::ActKind;
use crate::core::server::Endpoint;

/// For the answer to a request for a permit.
const PERMIT_LIMIT: Duration = Duration::from_secs(20);
/// After a refusal, before the next request.
const AGAIN: Duration = Duration::from_secs(2);
/// So long a host must be sound without a break before its permit is given back.
const PROOF: Duration = Duration::from_secs(3);
/// Beyond the limits of a restart and of its verification, until there has to be proof.
const PROOF_LIMIT: Duration = Duration::from_secs(60);
/// How long an ordered restart waits for a permit that others hold.
const ORDER_LIMIT: Duration = Duration::from_secs(30);

/// A restart that an operator ordered and that waits for its permit.
#[derive(Debug, Clone, PartialEq)]
struct Waiting {
    order: Order,
    until: Mono,
    ask_at: Mono,
}

/// What the agent knows beside the machine.
#[derive(Debug, Clone)]
pub(super) struct Permit {
    machine: Machine,
    /// Not asked again before.
    retry: Mono,
    /// The last refusal, for as long.
    refused: Option<Blocked>,
    /// The act was called off: nothing was done under this permit.
    unused: bool,
    /// Since when proof is awaited, and since when the host is sound.
    proving: Option<(Mono, Option<Mono>)>,
    order: Option<Waiting>,
    /// The act of a restart that goes on without a permit, on an operator's word.
    over: Option<u64>,
    next_turn: Option<Wall>,
}

impl Permit {
    /// The document as last read.
    pub(super) fn seen(&self) -> Option<&Seen> {
        self.machine.seen()
    }

    pub(super) fn new(policy: &Policy, inc: u64, now: Now) -> Self {
        let (host, region) = (policy.host.clone(), policy.region.clone());
        Self {
            machine: Machine::new(policy.permits.clone(), host, region, inc, now.mono),
            retry: now.mono,
            refused: None,
            unused: false,
            proving: None,
            order: None,
            over: None,
            next_turn: None,
        }
    }
}

impl Core {
    /// The rollout that the permit document says is open, as last read; `None` = it was not read, or there is no store.
    pub(super) fn rollout_stored(&self) -> Option<(Mono, Result<Option<&OpenRollout>, &Refusal>)> {
        let seen = self.permit.machine.seen().filter(|_| self.registered())?;
        Some((seen.at, seen.rollout.as_ref().map(Option::as_ref)))
    }

    pub(super) fn registered(&self) -> bool {
        self.policy.permits.arbiter == Arbiter::Register
    }

    fn claim(&mut self, why: String, ordered: bool) -> Claim {
        let token = self.permit.machine.token();
        self.claim_with(why, ordered, token)
    }

    fn claim_with(&self, why: String, ordered: bool, token: String) -> Claim {
        Claim {
            host: self.policy.host.clone(),
            region: self.policy.region.clone(),
            cluster: self.cluster(),
            why,
            ordered,
            part: None,
            token,
        }
    }

    /// Asks for the permit of a restart that passed all other gates.
    pub(super) fn ask_permit(&mut self, id: &str, case: &mut Case, now: Now, out: &mut Vec<Action>) {
        if !self.registered() {
            self.act(id, case, ActKind::Restart, now, out);
            return;
        }
        let claim = self.claim(id.to_owned(), false);
        let until = now.mono.plus(PERMIT_LIMIT);
        case.step = Step::Permit { until };
        self.permit.machine.take(claim, now, out);
    }

    /// The permit did not come in time, or the case ended.
    pub(super) fn give_up_permit(&mut self, id: &str, case: &mut Case, now: Now, out: &mut Vec<Action>) {
        self.permit.machine.abandon(now.mono);
        let why = format!("no answer within {}", humantime::format_duration(PERMIT_LIMIT));
        self.not_permitted(id, case, Blocked::PermitStore(why), now, out);
    }

    fn not_permitted(&mut self, id: &str, case: &mut Case, refused: Blocked, now: Now, out: &mut Vec<Action>) {
        self.permit.retry = now.mono.plus(AGAIN);
        self.permit.refused = Some(refused.clone());
        case.step = Step::Waiting;
        self.hold(id, case, ActKind::Restart, refused, now, out);
    }

    /// An act under a permit does not begin after all.
    pub(super) fn permit_unused(&mut self) {
        self.permit.unused = true;
    }

    /// Must the act wait for the permit's last look?
    pub(super) fn fenced(&self, act: u64) -> bool {
        self.registered() && self.permit.over != Some(act)
    }

    /// The last look at the permit, right before the act.
    pub(super) fn fence(&mut self, now: Now, out: &mut Vec<Action>) {
        self.permit.machine.fence(now, out);
    }

    pub(super) fn on_permits_read(
        &mut self,
        ask: u64,
        result: Result<Option<Stored>, StoreError>,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        let told = self.permit.machine.on_read(ask, result, now, out);
        self.take_marks(now, out);
        self.on_told(told, now, out);
        self.rollout_by_the_store(now, out);
    }

    pub(super) fn on_permits_written(
        &mut self,
        ask: u64,
        result: Result<Revision, StoreError>,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        let told = self.permit.machine.on_written(ask, result, now, out);
        self.on_told(told, now, out);
    }

    /// Every tick: what is asked for goes on, and what is held is settled.
    pub(super) fn tend_permit(&mut self, now: Now, out: &mut Vec<Action>) {
        if !self.registered() {
            return;
        }
        let told = self.permit.machine.tick(now, out);
        self.on_told(told, now, out);
        self.tend_order(now, out);
        self.settle(now, out);
    }

    fn on_told(&mut self, told: Option<Told>, now: Now, out: &mut Vec<Action>) {
        let Some(told) = told else { return };
        let me = self.policy.host.to_string();
        match told {
            Told::Taken => {
                self.permit.unused = false;
                self.permit.proving = None;
                self.on_taken(now, out);
            }
            Told::Fenced => self.on_fenced(Ok(()), now, out),
            Told::Released => {
                self.permit.proving = None;
                self.record("permit", me, "the permit was given back".to_owned(), now, out);
            }
            Told::Kept => {
                let text = "the permit is kept as that of a failed host: nobody acts until `watchdog permits release`";
                self.record("permit", me, text.to_owned(), now, out);
            }
            Told::Found(Phase::Failed) => {
                let text = "this host holds the permit of a failed host: look at it, then `watchdog permits release`";
                self.record("permit", me, text.to_owned(), now, out);
            }
            Told::Found(_) => {
                let text = "a permit that was taken before this agent started was found; it is given back once this host has \
                     proved healthy";
                self.record("permit", me, text.to_owned(), now, out);
            }
            told @ (Told::Refused(_) | Told::NoStore(_) | Told::Lost(_)) => {
                if let Told::Lost(why) = &told {
                    let text = format!("the permit of this host is gone: {why}");
                    self.record("permit", me, text, now, out);
                }
                self.on_no_permit(blocked(told), now, out);
            }
        }
    }

    fn on_taken(&mut self, now: Now, out: &mut Vec<Action>) {
        if let Some(Waiting { order, .. }) = self.permit.order.take() {
            let begun = self
                .brownout_gate(now)
                .and_then(|()| self.restart_gates_of_the_server(now))
                .and_then(|()| self.start_order(&order, now, out));
            if let Err(b) = begun {
                self.order_failed(&order.rollout, format!("it was not begun: {b}"), now, out);
            }
            return;
        }
        let Some((id, mut case)) = self.take_case(|s| matches!(s, Step::Permit { .. })) else {
            // The case is over: what was taken is given back.
            return;
        };
        case.step = Step::Waiting;
        let passed = if case.present {
            self.gates(&id, &case, ActKind::Restart, now)
        } else {
            Err(Blocked::Gone)
        };
        match passed {
            Ok(()) => self.act(&id, &mut case, ActKind::Restart, now, out),
            Err(refused) => self.not_permitted(&id, &mut case, refused, now, out),
        }
        self.cases.insert(id, case);
    }

    /// The answer to the last look.
    fn on_fenced(&mut self, fence: Result<(), Blocked>, now: Now, out: &mut Vec<Action>) {
        let Some(act) = self.restart.as_ref().map(|r| r.act) else {
            return;
        };
        if self.restart.as_ref().is_some_and(|r| r.rollout.is_some()) {
            let passed = fence
                .and_then(|()| self.brownout_gate(now))
                .and_then(|()| self.restart_gates_of_the_server(now));
            match passed {
                Ok(()) => self.begin_step(now, out),
                Err(refused) => {
                    *self.blocked.entry(refused.gate()).or_default() += 1;
                    self.permit_unused();
                    self.end_restart(Err(format!("it was not begun: {refused}")), now, out);
                }
            }
            return;
        }
        if self.unwell(now).is_empty() {
            self.look_again(now, out);
        }
        let Some((id, mut case)) = self.take_case(|s| matches!(s, Step::Fencing { act: a, .. } if *a == act)) else {
            return;
        };
        match fence.and_then(|()| self.last_gates(&id, &case, ActKind::Restart, now)) {
            Ok(()) => self.start_act(&mut case, act, ActKind::Restart, Action::Restart { act }, now, out),
            Err(refused) => self.call_off(&id, &mut case, ActKind::Restart, refused, now, out),
        }
        self.cases.insert(id, case);
    }

    fn on_no_permit(&mut self, refused: Blocked, now: Now, out: &mut Vec<Action>) {
        if let Some(mut waiting) = self.permit.order.take() {
            let busy = matches!(
                &refused,
                Blocked::NoPermit(Refusal::Taken { .. } | Refusal::Spacing(_) | Refusal::Unsettled)
            );
            if busy && now.mono < waiting.until {
                waiting.ask_at = now.mono.plus(AGAIN / 2);
                self.permit.order = Some(waiting);
            } else {
                *self.blocked.entry(refused.gate()).or_default() += 1;
                self.order_failed(&waiting.order.rollout, format!("it was not begun: {refused}"), now, out);
            }
            return;
        }
        if let Some((id, mut case)) = self.take_case(|s| matches!(s, Step::Permit { .. })) {
            self.not_permitted(&id, &mut case, refused, now, out);
            self.cases.insert(id, case);
            return;
        }
        if self.awaits_fence() {
            self.on_fenced(Err(refused), now, out);
        }
    }

    /// The ledger is written and the act has not begun.
    fn awaits_fence(&self) -> bool {
        match &self.restart {
            None => false,
            // What has begun is ended, whatever becomes of its permit: the server may be down by our hand.
            Some(run) if run.rollout.is_some() => !run.touched && !run.issued && self.fenced(run.act),
            Some(run) => self
                .cases
                .values()
                .any(|c| matches!(c.step, Step::Fencing { act, .. } if act == run.act)),
        }
    }

    /// What is held is given back or kept, by how this host is.
    fn settle(&mut self, now: Now, out: &mut Vec<Action>) {
        let Some(held) = self.permit.machine.held().cloned() else {
            self.permit.proving = None;
            return;
        };
        if self.permit.machine.busy() || self.restart.is_some() || now.mono < self.permit.retry {
            return;
        }
        let in_use = |s: &Step| {
            matches!(
                s,
                Step::Permit { .. }
                    | Step::Fencing { .. }
                    | Step::Verifying {
                        kind: ActKind::Restart,
                        ..
                    }
                    | Step::Saving {
                        kind: ActKind::Restart,
                        ..
                    }
            )
        };
        match held.phase {
            Phase::Failed => return,
            Phase::Taken => {
                if !self.cases.values().any(|c| in_use(&c.step)) {
                    self.permit.machine.release(now, out);
                    self.permit.retry = now.mono.plus(AGAIN);
                }
                return;
            }
            Phase::Acting if self.permit.unused => {
                self.permit.machine.release(now, out);
                self.permit.retry = now.mono.plus(AGAIN);
                return;
            }
            Phase::Acting => {}
        }
        if self.cases.values().any(|c| in_use(&c.step)) {
            return;
        }
        let sound = self.sound(now);
        let (began, mut since) = self.permit.proving.unwrap_or((now.mono, None));
        since = if sound.is_ok() { since.or(Some(now.mono)) } else { None };
        self.permit.proving = Some((began, since));
        let not_healed = self.cases.get(&held.why).is_some_and(|c| c.present && c.restarts > 0);
        let policy = &self.policy;
        let limit = policy.restart_deadline + policy.remediation.verify + PROOF_LIMIT;
        if since.is_some_and(|s| now.mono.since(s) >= PROOF) {
            self.permit.machine.release(now, out);
            self.permit.retry = now.mono.plus(AGAIN);
        } else if not_healed {
            self.permit
                .machine
                .fail("the restart did not heal it".to_owned(), now, out);
            self.permit.retry = now.mono.plus(AGAIN);
        } else if now.mono.since(began) > limit {
            let why = sound.err().unwrap_or_else(|| "it is never well for long".to_owned());
            let limit = humantime::format_duration(limit);
            self.permit
                .machine
                .fail(format!("no proof of health within {limit}: {why}"), now, out);
            self.permit.retry = now.mono.plus(AGAIN);
        }
    }

    /// This host and its server are well, as far as it can tell, and nothing here waits for a remedy.
    fn sound(&self, now: Now) -> Result<(), String> {
        let unwell = self.unwell(now);
        if !unwell.is_empty() {
            return Err(unwell.join("; "));
        }
        if self.health(now) != Health::Ok {
            return Err("the agent has just connected, or the server is a lame duck".to_owned());
        }
        self.gates_of_the_server_but_start(now).map_err(|b| b.to_string())?;
        let fresh = self
            .local
            .age(Endpoint::Healthz, now.mono)
            .is_some_and(|a| a < super::local::STALE);
        match self.local.health.as_ref().filter(|_| fresh) {
            None => return Err("/healthz was not read lately".to_owned()),
            Some((_, h)) if !h.ok => return Err(format!("/healthz says {}", h.detail)),
            Some(_) => {}
        }
        match self.cases.iter().find(|(_, c)| c.present && c.role == Role::First) {
            Some((id, _)) => Err(format!("{id} is not healed")),
            None => Ok(()),
        }
    }
}

fn blocked(told: Told) -> Blocked {
    match told {
        Told::Refused(Refusal::Paused(p)) => Blocked::Paused {
            scope: p.scope,
            who: p.who,
            why: p.why,
            until: p.until.map(|u| u.wall()),
        },
        Told::Refused(Refusal::RolloutOpen { id, by }) => Blocked::RolloutOpen { id, by },
        Told::Refused(Refusal::Superseded(id)) => Blocked::Superseded(id),
        Told::Refused(Refusal::RolloutNotOpen(id)) => Blocked::RolloutUnknown(id),
        Told::Refused(Refusal::Rollout(bad)) => Blocked::BadRollout(bad.to_string()),
        Told::Refused(refusal) => Blocked::NoPermit(refusal),
        Told::NoStore(why) => Blocked::PermitStore(why),
        Told::Lost(why) => Blocked::NoPermit(Refusal::NotHeld(why)),
        other => Blocked::NoPermit(Refusal::NotHeld(format!("{other:?}"))),
    }
}
