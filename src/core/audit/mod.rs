//! Who did what: the author of a record, a record as it travels on NATS, and how many travel.
//!
//! The record itself is [`crate::core::view::Record`]. What an agent puts in one is in `core::agent`.

pub mod bucket;
pub mod told;

use serde::{Deserialize, Serialize};

use crate::core::ids::HostName;

pub use bucket::Bucket;
pub use told::{Told, ToldError};

/// Longest text taken over from a stranger, in characters.
const MAX_FOREIGN: usize = 200;

/// Kind of author.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhoKind {
    /// The agent by itself.
    Agent,
    /// A person, proved by the signature of the key.
    Operator,
    /// Somebody on the network; name and key are what was claimed.
    Stranger,
    /// A kind that this build does not know.
    #[serde(other)]
    Unknown,
}

impl WhoKind {
    /// The name in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Operator => "operator",
            Self::Stranger => "stranger",
            Self::Unknown => "unknown",
        }
    }
}

/// On whose behalf something was decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Who {
    /// What the name is worth.
    pub kind: WhoKind,
    /// Host of the agent, or `user@machine` as the operator's command gives it.
    #[serde(default)]
    pub name: String,
    /// Public NKEY (`U…`); empty for agents.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub key: String,
}

impl Who {
    /// An agent.
    #[must_use]
    pub fn agent(host: &HostName) -> Self {
        Self {
            kind: WhoKind::Agent,
            name: host.to_string(),
            key: String::new(),
        }
    }

    /// An operator whose signature was checked.
    #[must_use]
    pub fn operator(name: &str, key: &str) -> Self {
        Self {
            kind: WhoKind::Operator,
            name: harmless(name),
            key: harmless(key),
        }
    }

    /// Somebody whose words were not proved.
    #[must_use]
    pub fn stranger(name: &str, key: &str) -> Self {
        Self {
            kind: WhoKind::Stranger,
            name: harmless(name),
            key: harmless(key),
        }
    }
}

impl std::fmt::Display for Who {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = if self.name.is_empty() { "?" } else { &self.name };
        match (self.kind, self.key.get(..8)) {
            (WhoKind::Agent, _) => write!(f, "agent {name}"),
            (WhoKind::Operator, Some(key)) => write!(f, "{name} ({key}…)"),
            (WhoKind::Operator, None) => f.write_str(name),
            (WhoKind::Stranger | WhoKind::Unknown, Some(key)) => write!(f, "somebody who says {name} ({key}…)"),
            (WhoKind::Stranger | WhoKind::Unknown, None) => write!(f, "somebody who says {name}"),
        }
    }
}

/// Text from the network, fit for a log: bounded, and without characters that end a line or command a terminal.
#[must_use]
pub fn harmless(text: &str) -> String {
    let mut out: String = text
        .chars()
        .take(MAX_FOREIGN)
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect();
    if text.chars().nth(MAX_FOREIGN).is_some() {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_author_of_a_later_build_is_read_all_the_same() {
        let who: Who = serde_json::from_str(r#"{"kind":"committee","name":"x","more":1}"#).unwrap();
        assert_eq!((who.kind, who.name.as_str()), (WhoKind::Unknown, "x"));
    }

    #[test]
    fn what_a_stranger_says_can_neither_end_a_line_nor_fill_the_log() {
        let who = Who::stranger(&"x\n\x1b[2J".repeat(1000), "ü\u{7}");
        let text = who.to_string();
        assert!(!text.chars().any(char::is_control), "{text}");
        assert!(who.name.chars().count() <= MAX_FOREIGN + 1);
    }
}
