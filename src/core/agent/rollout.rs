//! The rollout that is open, as this host was told: one at a time, kept over the agent's own restart.

use crate::core::agent::Core;
use crate::core::agent::event::Action;
use crate::core::control::roll::Record;
use crate::core::ids::Now;
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

    /// The record of the rollout that is open.
    #[must_use]
    pub fn open_record(&self) -> Option<&Record> {
        self.rollout.as_deref()
    }

    /// While a rollout is open, nothing but what belongs to it restarts a server; automation passes no name.
    pub(super) fn gate_rollout(&self, of: &str) -> Result<(), Blocked> {
        match &self.rollout {
            Some(open) if open.id != of => Err(Blocked::RolloutOpen {
                id: open.id.clone(),
                by: open.by.clone(),
            }),
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
