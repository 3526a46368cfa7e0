//! What an operator ordered, as the agent carries it out.

use crate::core::audit::Who;
use crate::core::control::{Args, Command};
use crate::core::view::Record;

/// A verified command, without what proved it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// The operator.
    pub who: Who,
    /// The verb, for the record.
    pub verb: &'static str,
    /// The rollout it belongs to.
    pub rollout: String,
    /// Why, in the operator's words; may be empty.
    pub reason: String,
    /// What else the verb is told.
    pub args: Args,
}

impl Order {
    /// The order in a command that `key` has signed.
    #[must_use]
    pub fn new(command: &Command, key: &str) -> Self {
        Self {
            who: Who::operator(&command.by, key),
            verb: command.verb.name(),
            rollout: command.rollout.clone(),
            reason: crate::core::audit::harmless(&command.reason),
            args: command.args.clone(),
        }
    }

    /// In words.
    #[must_use]
    pub fn why(&self) -> String {
        let by = &self.who.name;
        if self.reason.is_empty() {
            format!("ordered by {by}")
        } else {
            format!("ordered by {by}: {}", self.reason)
        }
    }

    /// A record about it.
    #[must_use]
    pub fn record(&self, text: String, outcome: &str) -> Record {
        let mut text = text;
        text.push_str(&format!(", {}", self.why()));
        Record {
            event: "command".to_owned(),
            subject: self.verb.to_owned(),
            text,
            who: Some(self.who.clone()),
            why: self.reason.clone(),
            outcome: outcome.to_owned(),
            rollout: self.rollout.clone(),
            ..Record::default()
        }
    }
}
