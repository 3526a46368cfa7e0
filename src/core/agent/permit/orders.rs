//! Orders of operators: they wait for a permit, and end where none comes.

use super::{ORDER_LIMIT, Waiting, blocked};
use crate::core::agent::Core;
use crate::core::agent::act::OPERATOR;
use crate::core::agent::event::Action;
use crate::core::agent::order::Order;
use crate::core::control::args::WITHOUT_STORE;
use crate::core::control::{LastCommand, RestartOrder, Stage};
use crate::core::ids::Now;
use crate::core::permit::rules::{Claim, Part, Refusal};
use crate::core::remedy::case::Step;
use crate::core::remedy::gate::Blocked;

impl Core {
    /// The claim of an ordered restart.
    pub(super) fn claim_of(&mut self, order: &Order) -> Claim {
        Claim {
            part: Some(Part {
                id: order.rollout.clone(),
                term: RestartOrder::read(&order.args).term,
            }),
            ..self.claim(order.why(), true)
        }
    }

    /// An ordered restart asks for its permit.
    pub(in crate::core::agent) fn ask_order(&mut self, order: &Order, now: Now) -> Result<Vec<Action>, Blocked> {
        if let Some(waiting) = &self.permit.order {
            let why = waiting.order.why();
            return Err(Blocked::Busy(format!("a restart that waits for its permit ({why})")));
        }
        if self.cases.values().any(|c| matches!(c.step, Step::Permit { .. })) {
            return Err(Blocked::Busy("a request for a permit".to_owned()));
        }
        let mut out = Vec::new();
        let why = order.why();
        let claim = self.claim_of(order);
        let without_store = order.args.flag(WITHOUT_STORE);
        match self.permit.machine.would(&claim, now).map_err(blocked) {
            Err(b @ (Blocked::PermitStore(_) | Blocked::NoPermit(Refusal::Document(_)))) if without_store => {
                let text = format!("{} goes on without a permit on the operator's word: {b}", order.rollout);
                self.record("permit", self.policy.host.to_string(), text, now, &mut out);
                self.permit.machine.abandon(now.mono);
                self.start_order(order, now, &mut out)?;
                self.permit.over = self.restart.as_ref().map(|r| r.act);
                return Ok(out);
            }
            // The last read may be older than the rollout: the request reads anew.
            Err(
                Blocked::NoPermit(Refusal::Taken { .. } | Refusal::Spacing(_) | Refusal::Unsettled)
                | Blocked::RolloutOpen { .. }
                | Blocked::RolloutUnknown(_)
                | Blocked::Superseded(_),
            )
            | Ok(()) => {}
            Err(refused) => {
                self.permit.machine.read_soon(now.mono);
                return Err(refused);
            }
        }
        self.last_command = Some(LastCommand {
            rollout: order.rollout.clone(),
            state: Stage::Accepted,
            detail: format!("{why}; waiting for a permit"),
        });
        self.permit.order = Some(Waiting {
            order: order.clone(),
            until: now.mono.plus(ORDER_LIMIT),
            ask_at: now.mono,
        });
        self.tend_order(now, &mut out);
        Ok(out)
    }

    /// What an ordered restart waits for, if it does.
    pub(in crate::core::agent) fn waiting_order(&self) -> Option<String> {
        let waiting = self.permit.order.as_ref()?;
        Some(format!("waiting for a permit ({})", waiting.order.why()))
    }

    pub(super) fn tend_order(&mut self, now: Now, out: &mut Vec<Action>) {
        let Some(waiting) = &self.permit.order else { return };
        if self.permit.machine.busy() || now.mono < waiting.ask_at {
            return;
        }
        let order = waiting.order.clone();
        let claim = self.claim_of(&order);
        self.permit.machine.take(claim, now, out);
    }

    pub(super) fn order_failed(&mut self, rollout: &str, detail: String, now: Now, out: &mut Vec<Action>) {
        self.record(
            "outcome",
            rollout.to_owned(),
            format!("the ordered restart failed: {detail}"),
            now,
            out,
        );
        *self
            .actions
            .entry(("restart", OPERATOR.to_owned(), "failed"))
            .or_default() += 1;
        self.last_command = Some(LastCommand {
            rollout: rollout.to_owned(),
            state: Stage::Failed,
            detail,
        });
    }
}
