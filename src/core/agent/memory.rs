//! The ledger on disk between acts: what came of them, what an operator made it forget, and clocks that jump.

use std::time::Duration;

use crate::core::agent::act::{SAVE_LIMIT, kind_of};
use crate::core::agent::event::Action;
use crate::core::agent::order::Order;
use crate::core::agent::{Core, TICK};
use crate::core::ids::{Mono, Now};
use crate::core::remedy::case::{Case, Step};
use crate::core::remedy::ledger::ActKind;

/// After a write that failed.
const AGAIN: Duration = Duration::from_secs(10);
/// Clocks that went apart by more than this: one of them jumped, or drifted for long.
const JUMP: Duration = Duration::from_secs(5);

/// What is to be written.
#[derive(Debug, Clone)]
pub(super) struct Keep {
    dirty: bool,
    /// The write under way, since when.
    saving: Option<(u64, Mono)>,
    retry: Mono,
    /// Both clocks, when they were last taken to agree.
    clocks: Now,
}

impl Keep {
    /// `dirty`: what this process holds is not on disk.
    pub(super) fn new(dirty: bool, now: Now) -> Self {
        Self {
            dirty,
            saving: None,
            retry: now.mono,
            clocks: now,
        }
    }
}

impl Core {
    /// The ledger differs from what is on disk.
    pub(super) fn ledger_changed(&mut self) {
        self.kept.dirty = true;
    }

    /// A write that no act waits for is under way; another one would be refused.
    pub(super) fn ledger_busy(&self) -> bool {
        self.kept.saving.is_some()
    }

    /// Each tick.
    pub(super) fn tend_memory(&mut self, now: Now, out: &mut Vec<Action>) {
        self.watch_clocks(now);
        if std::mem::take(&mut self.damage_untold)
            && let Some(damage) = self.forgotten(now)
        {
            self.record("agent", self.policy.host.to_string(), damage.to_string(), now, out);
        }
        let present = self.cases.iter().filter(|(_, c)| c.present);
        for (id, _) in present {
            self.kept.dirty |= self.ledger.memory.still_there(id, now);
        }
        if self.kept.saving.is_some_and(|(_, at)| now.mono.since(at) > SAVE_LIMIT) {
            (self.kept.saving, self.kept.dirty) = (None, true);
        }
        self.write_ledger(now, out);
    }

    /// Writes what has changed, unless a write is under way.
    pub(super) fn write_ledger(&mut self, now: Now, out: &mut Vec<Action>) {
        let under_way = self.kept.saving.is_some()
            || self.restart.as_ref().is_some_and(|r| r.saving)
            || self
                .cases
                .values()
                .any(|c| matches!(c.step, Step::Permit { .. } | Step::Saving { .. }));
        if !self.kept.dirty || under_way || now.mono < self.kept.retry {
            return;
        }
        let act = self.new_id();
        self.kept.dirty = false;
        self.kept.saving = Some((act, now.mono));
        out.push(Action::SaveLedger {
            act,
            ledger: Box::new(self.ledger.clone()),
        });
    }

    /// A write ended; true = it was one that no act waits for.
    pub(super) fn on_memory_saved(&mut self, act: u64, result: &Result<(), String>, now: Now) -> bool {
        if self.kept.saving.is_none_or(|(id, _)| id != act) {
            return false;
        }
        self.kept.saving = None;
        if result.is_err() {
            self.kept.dirty = true;
            self.kept.retry = now.mono.plus(AGAIN);
        }
        true
    }

    fn watch_clocks(&mut self, now: Now) {
        let Now { mono, wall } = self.kept.clocks;
        let expected = wall.0.saturating_add(now.mono.since(mono));
        if expected.abs_diff(now.wall.0) > JUMP {
            self.kept.clocks = now;
            self.ledger.jumped(now);
            self.ledger_changed();
        }
    }

    /// What a new case has behind it: it was out of sight, or the agent was; what was tried is not tried again.
    pub(super) fn recall(&mut self, id: &str, case: &mut Case, now: Now) {
        let Some(tried) = self.ledger.memory.tried(id, now) else {
            return;
        };
        (case.resets, case.restarts) = (tried.resets, tried.restarts);
        if tried.gave_up {
            case.step = Step::GaveUp;
        }
    }

    /// The restart that was noted last did not happen.
    pub(super) fn not_restarted(&mut self) {
        self.ledger.take_back(ActKind::Restart);
        let last = self.ledger.last(ActKind::Restart);
        self.last_restart = last.map(|a| (a.at, kind_of(&a.reason)));
        self.ledger_changed();
    }

    /// Takes in what the permit document says of resumptions.
    pub(super) fn take_marks(&mut self, now: Now, out: &mut Vec<Action>) {
        let seen = self.permit.seen().and_then(|s| s.doc.as_ref().ok());
        let Some(marks) = seen.map(|doc| doc.marks(&self.policy.host, &self.policy.region)) else {
            return;
        };
        let newest = marks.last().cloned();
        if self.ledger.memory.resumed(marks)
            && let Some(mark) = newest
        {
            let text = format!("{} was resumed by {}", mark.scope, mark.who);
            self.clear_flaps(&text, now, out);
        }
    }

    /// A signed `resume`: what was given up here, or held as flapping, is tried anew.
    pub fn resume(&mut self, order: &Order, now: Now) -> Vec<Action> {
        let mut out = Vec::new();
        self.keep(order.record("resume accepted".to_owned(), "accepted"), now, &mut out);
        self.clear_flaps(&order.why(), now, &mut out);
        out
    }

    fn clear_flaps(&mut self, why: &str, now: Now, out: &mut Vec<Action>) {
        self.ledger.memory.clear();
        let mut again = 0;
        for case in self.cases.values_mut() {
            if case.resets + case.restarts == 0 && case.step != Step::GaveUp {
                continue;
            }
            again += 1;
            match case.step {
                Step::GaveUp | Step::BackingOff { .. } => case.step = Step::Waiting,
                // An act under way goes on, and counts.
                Step::Saving { .. } | Step::Fencing { .. } | Step::Acting { .. } | Step::Verifying { .. } => continue,
                Step::Waiting | Step::Checking { .. } | Step::Permit { .. } => {}
            }
            (case.resets, case.restarts) = (0, 0);
        }
        self.ledger_changed();
        let text = format!("{why}: what was tried before is forgotten; faults here that are tried anew: {again}");
        self.record("agent", self.policy.host.to_string(), text, now, out);
        self.write_ledger(now, out);
    }
}

/// Two agents that hold each other up must not try again at the same moment for ever: 0.75 to 1.5 of `length`, another
/// share for each host, fault and `n`.
#[allow(clippy::cast_precision_loss, reason = "a share")]
pub(super) fn spread(length: Duration, seed: u64, id: &str, n: u64) -> Duration {
    let mut h = seed ^ n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for byte in id.bytes() {
        h = (h ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    h = (h ^ (h >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    h = (h ^ (h >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let share = ((h ^ (h >> 31)) >> 11) as f64 / (1u64 << 53) as f64;
    length.mul_f64(0.75 + 0.75 * share).max(TICK)
}
