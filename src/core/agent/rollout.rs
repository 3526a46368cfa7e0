//! The rollout that is open, as this host was told: one at a time, kept over the agent's own restart. Where there is a
//! store of permits, its document counts: a rollout that is not open there is not open here.

use crate::core::agent::Core;
use crate::core::agent::event::Action;
use crate::core::control::roll::{OpenRollout, Record};
use crate::core::ids::Now;
use crate::core::permit::rules::Refusal;
use crate::core::remedy::gate::Blocked;

impl Core {
    /// A rollout begins, or has come further.
    ///
    /// # Errors
    /// Another one is open, or the record means nothing.
    pub fn open_rollout(&mut self, record: Record, now: Now) -> Result<Vec<Action>, Blocked> {
        record.check().map_err(Blocked::BadRollout)?;
        self.gate_rollout(&record.id)?;
        // What was sent before it was closed, by a process that did not know, opens nothing.
        if let Some((id, term)) = &self.closed
            && *id == record.id
            && record.term <= *term
        {
            return Err(Blocked::RolloutUnknown(record.id));
        }
        let mut out = Vec::new();
        match &self.rollout {
            // An older one that was long under way.
            Some(known) if known.age() >= record.age() => return Ok(out),
            Some(known) if known.halted == record.halted && known.term == record.term => {}
            _ => {
                let text = match &record.halted {
                    None => format!(
                        "rollout {} of {} hosts by {} is open{}",
                        record.id,
                        record.hosts.len(),
                        record.by,
                        because(&record.reason)
                    ),
                    Some(why) => format!("rollout {} by {} has halted: {why}", record.id, record.by),
                };
                self.record("rollout", record.id.clone(), text, now, &mut out);
            }
        }
        self.rollout = Some(Box::new(record));
        self.rollout_told = now.mono;
        out.push(Action::SaveRollout(self.rollout.clone()));
        Ok(out)
    }

    /// A rollout is over or given up. One that is not known is closed already.
    pub fn close_rollout(&mut self, id: &str, by: &str, now: Now) -> Vec<Action> {
        let mut out = Vec::new();
        if let Some(open) = self.rollout.take_if(|r| r.id == id) {
            self.closed = Some((open.id, open.term));
            out.push(Action::SaveRollout(None));
            self.record(
                "rollout",
                id.to_owned(),
                format!("rollout {id} was closed by {by}"),
                now,
                &mut out,
            );
        }
        out
    }

    /// The document was read: what it says is over is over, even if nobody could tell this host.
    pub(super) fn rollout_by_the_store(&mut self, now: Now, out: &mut Vec<Action>) {
        let Some(told) = &self.rollout else { return };
        let over = match self.rollout_stored() {
            // A command writes the store first: what was read later than it told this host must have it.
            Some((at, Ok(stored))) => at > self.rollout_told && stored.is_none_or(|s| s.id != told.id),
            _ => false,
        };
        if over {
            let id = told.id.clone();
            out.extend(self.close_rollout(&id, "somebody (it is not in the permit store any more)", now));
        }
    }

    /// The rollout that is open as far as this host knows, in short.
    pub(super) fn rollout_shown(&self) -> Option<OpenRollout> {
        let told = self.rollout.as_ref().map(|r| r.summary());
        let stored = self
            .rollout_stored()
            .and_then(|(_, stored)| stored.ok().flatten().cloned());
        match (told, stored) {
            (Some(told), Some(stored))
                if told.id == stored.id && (told.term, told.seq) >= (stored.term, stored.seq) =>
            {
                Some(told)
            }
            (told, stored) => stored.or(told),
        }
    }

    /// The record of the rollout that is open.
    #[must_use]
    pub fn open_record(&self) -> Option<&Record> {
        self.rollout.as_deref()
    }

    /// While a rollout is open, nothing but what belongs to it restarts a server; automation passes no name.
    pub(super) fn gate_rollout(&self, of: &str) -> Result<(), Blocked> {
        let blocked = |id: &str, by: &str| Blocked::RolloutOpen {
            id: id.to_owned(),
            by: by.to_owned(),
        };
        match &self.rollout {
            Some(open) if open.id != of => return Err(blocked(&open.id, &open.by)),
            _ => {}
        }
        // What is ordered reads anew when it takes its permit: what was read before may be older than its rollout.
        match self.rollout_stored() {
            Some((_, Ok(Some(open)))) if of.is_empty() => Err(blocked(&open.id, &open.by)),
            Some((_, Err(Refusal::Rollout(bad)))) => Err(Blocked::BadRollout(bad.to_string())),
            _ => Ok(()),
        }
    }

    /// A restart is ordered within the rollout that is open here, by the process that drives it now.
    pub(super) fn gate_order(&self, rollout: &str, term: u64) -> Result<(), Blocked> {
        self.gate_rollout(rollout)?;
        match &self.rollout {
            None => Err(Blocked::RolloutUnknown(rollout.to_owned())),
            Some(open) if open.term > term => Err(Blocked::Superseded(rollout.to_owned())),
            Some(_) => Ok(()),
        }
    }
}

fn because(reason: &str) -> String {
    match reason {
        "" => String::new(),
        reason => format!(": {reason}"),
    }
}
