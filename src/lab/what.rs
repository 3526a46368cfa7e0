//! What a stall swallows, and how long it lives.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Number of a fault in a lab.
pub type FaultId = u64;

/// What is swallowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// Messages of all accounts; interest still travels.
    Messages,
    /// Changes of interest; messages for subscriptions known before still travel.
    Interest,
    /// Messages on one pooled route connection (2.10 and newer).
    Pool(PoolSlot),
}

/// One route connection of a pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PoolSlot {
    /// By its place in the pool.
    Index(u32),
    /// The one that carries this account: its own, or the slot that its name hashes to.
    Account(String),
}

/// How long a stall lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sticks {
    /// On the connections there are now: a new connection flows, so a reset heals.
    Connections,
    /// On the pair: new connections stall too, so a reset does not help.
    Pair,
}

impl FromStr for What {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "messages" => Ok(Self::Messages),
            None if text == "interest" => Ok(Self::Interest),
            Some(("pool", n)) if n.parse::<u32>().is_ok() => Ok(Self::Pool(PoolSlot::Index(n.parse().unwrap_or(0)))),
            Some(("account", name)) if !name.is_empty() => Ok(Self::Pool(PoolSlot::Account(name.to_owned()))),
            _ => Err(format!(
                "what to stall is `messages`, `interest`, `pool:<index>` or `account:<name>`, not `{text}`"
            )),
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Messages => f.write_str("messages"),
            Self::Interest => f.write_str("interest"),
            Self::Pool(PoolSlot::Index(index)) => write!(f, "pool:{index}"),
            Self::Pool(PoolSlot::Account(name)) => write!(f, "account:{name}"),
        }
    }
}
