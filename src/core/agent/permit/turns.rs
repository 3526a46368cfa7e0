//! What holds a restart back before a permit is asked for: a pause, the document, and without a store the time slot.

use std::time::Duration;

use super::{AGAIN, blocked};
use crate::core::agent::Core;
use crate::core::ids::{Now, Wall};
use crate::core::permit::machine::Told;
use crate::core::permit::rules::Refusal;
use crate::core::permit::slots::{self, Turn};
use crate::core::policy::Mode;
use crate::core::remedy::case::{Case, Role};
use crate::core::remedy::gate::Blocked;

impl Core {
    /// Somebody paused; holds every rung. Resets go by the last that was read, however old; what was never read, or cannot
    /// be understood, holds too: it may say so.
    pub(in crate::core::agent) fn gate_paused(&self, now: Now) -> Result<(), Blocked> {
        if !self.registered() {
            return Ok(());
        }
        match self.permit.machine.seen() {
            None => Err(Blocked::PermitStore(self.store_words())),
            Some(seen) => match (&seen.doc, self.permit.machine.paused(now)) {
                (Err(unreadable), _) => Err(Blocked::PermitStore(unreadable.to_string())),
                (Ok(_), Some(p)) => Err(blocked(Told::Refused(Refusal::Paused(Box::new(p.clone()))))),
                (Ok(_), None) => Ok(()),
            },
        }
    }

    pub(super) fn store_words(&self) -> String {
        let error = self.permit.machine.error();
        error.map_or_else(|| "the permits were not read yet".to_owned(), str::to_owned)
    }

    /// Whether a permit would be given now, or whether it is this host's turn. The last gate before a restart.
    pub(in crate::core::agent) fn gate_permit(&mut self, id: &str, now: Now) -> Result<(), Blocked> {
        if self.policy.remediation.mode == Mode::Observe {
            return Ok(());
        }
        if !self.registered() {
            return self.gate_turn(now);
        }
        if now.mono < self.permit.retry
            && let Some(refused) = &self.permit.refused
        {
            return Err(refused.clone());
        }
        let claim = self.claim_with(id.to_owned(), false, String::new());
        let would = self.permit.machine.would(&claim, now).map_err(blocked);
        if let Err(refused) = &would {
            // Somebody waits: what changed is to be known sooner than by the usual rhythm.
            self.permit.retry = now.mono.plus(AGAIN);
            self.permit.refused = Some(refused.clone());
            self.permit.machine.read_soon(now.mono);
        }
        would
    }

    /// Without a register: this host's time slot is open.
    pub(in crate::core::agent) fn gate_turn(&mut self, now: Now) -> Result<(), Blocked> {
        if self.registered() {
            return Ok(());
        }
        let (me, length) = (&self.policy.host, self.policy.permits.slot_length);
        let others = self.members.keys().filter(|h| self.present(h));
        if slots::is_turn(me, others.clone(), length, now.wall) {
            return Ok(());
        }
        let next = match self
            .permit
            .next_turn
            .filter(|t| *t > now.wall && t.0 - now.wall.0 < length * 20_000)
        {
            Some(next) => Some(next),
            None => match slots::turn(me, others, length, now.wall) {
                Turn::Now => return Ok(()),
                Turn::In(wait) => wait.map(|w| Wall(now.wall.0 + w)),
            },
        };
        self.permit.next_turn = next;
        Err(Blocked::NotMySlot { next })
    }

    /// The side that acts first waits for a turn too where turns come by lot.
    pub(in crate::core::agent) fn first_had_its_turn(&self, case: &mut Case, now: Now) -> bool {
        let me = &self.policy.host;
        let Some(first) = case
            .peer(me)
            .filter(|_| case.role == Role::Second && !self.registered())
        else {
            return true;
        };
        let length = self.policy.permits.slot_length;
        let others = self
            .members
            .keys()
            .filter(|h| *h != first && self.present(h))
            .chain([me]);
        let until = case.first_until.unwrap_or_else(|| {
            let wait = match slots::turn(first, others, length, case.since_wall) {
                Turn::Now => Duration::ZERO,
                Turn::In(wait) => wait.unwrap_or_default(),
            };
            case.since.plus(wait + length)
        });
        case.first_until = Some(until);
        now.mono >= until
    }
}
