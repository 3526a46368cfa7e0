//! What a rollout tells the operator: its progress, and how it ended.

use std::time::Duration;

use serde::Serialize;

use super::gate::Gate;
use crate::core::control::HostStatus;
use crate::core::ids::HostName;

/// Something worth a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// A gate is closed; it is asked again for a while.
    Held {
        /// Who is next.
        host: HostName,
        /// Which.
        gate: Gate,
    },
    /// The gate was open, the command goes out.
    Sending {
        /// To whom.
        host: HostName,
    },
    /// The agent took it.
    Accepted {
        /// Who.
        host: HostName,
    },
    /// A new server answers.
    Started {
        /// Where.
        host: HostName,
        /// Since the command.
        after: Duration,
        /// Its version.
        version: String,
    },
    /// One read of the proof.
    Read {
        /// Of whom.
        host: HostName,
        /// Good ones in a row.
        good: u32,
        /// Needed.
        of: u32,
        /// What is not back yet.
        lacking: Vec<String>,
        /// What was seen.
        values: Values,
    },
    /// The host is done.
    Proved {
        /// Who.
        host: HostName,
        /// Since the command.
        after: Duration,
        /// Hosts done.
        done: usize,
        /// Hosts of the plan.
        of: usize,
    },
    /// A wave begins.
    Wave {
        /// Its number, from 1.
        wave: usize,
        /// The last one's.
        of: usize,
        /// Hosts in it that are not done yet.
        hosts: usize,
    },
    /// What the agent of a host in work says that it is at.
    Doing {
        /// Who.
        host: HostName,
        /// In words.
        what: String,
    },
    /// Waiting before the next.
    Staggering {
        /// Who is next.
        next: HostName,
        /// For how long.
        gap: Duration,
    },
    /// The operator's wish is noted.
    Stopping {
        /// The last host.
        after: HostName,
    },
}

/// What a read of the proof saw, beside what was there before the restart.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Values {
    /// Peers routed to; `None` = not known.
    pub peers: Option<usize>,
    /// Before.
    pub peers_before: usize,
    /// Gateways of before that are back.
    pub gateways: usize,
    /// Before.
    pub gateways_before: usize,
    /// Witnesses that hear it by a beacon of the new server.
    pub heard: usize,
    /// All witnesses.
    pub witnesses: usize,
    /// How many of them must.
    pub needed: usize,
    /// System traffic into the host's server; `None` = its agent does not say.
    pub sys: Option<SysRate>,
}

/// System traffic, payload bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct SysRate {
    /// Bytes a second now.
    pub bytes_per_second: u64,
    /// What its mean is to stay below; `None` = the model has no figures for this fleet.
    pub ceiling: Option<u64>,
}

/// Where a rollout was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// At the gate.
    Checking,
    /// The command was sent, nothing came back yet.
    Sending,
    /// Waiting for the new server.
    Restarting,
    /// Reading the new server.
    Proving,
    /// Between two hosts.
    Staggering,
}

/// Why it halted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// A gate stayed closed.
    #[error("{0}")]
    Gate(Gate),
    /// The agent refused.
    #[error("its agent refused ({gate}): {text}")]
    Refused {
        /// Which gate.
        gate: String,
        /// Its words.
        text: String,
    },
    /// No answer to the command, and the agent knows nothing of it.
    #[error(
        "its agent did not take the command, which was not answered ({0}); it may still take it until the command expires"
    )]
    NotTaken(String),
    /// The command was taken, and the agent knows nothing of it any more.
    #[error(
        "its agent took the command and knows nothing of it any more: the agent was restarted before it began, and its server is the one of before"
    )]
    Forgotten,
    /// The agent says that it went wrong.
    #[error("its agent could not restart the server: {0}")]
    Failed(String),
    /// The time is up and the server is the old one, or none.
    #[error("no new server answered within {after:?}")]
    NoNewServer {
        /// The limit.
        after: Duration,
    },
    /// The time is up and something is not back.
    #[error("restarted, but not proved healthy within {after:?}: {good} of {of} good reads; lacking: {}", .lacking.join("; "))]
    NoProof {
        /// The limit.
        after: Duration,
        /// Good reads in a row.
        good: u32,
        /// Needed.
        of: u32,
        /// What the last read lacked.
        lacking: Vec<String>,
    },
    /// It started twice.
    #[error("the server started once more by itself during the proof; it may be crashing, see its log")]
    StartedAgain,
    /// The operator stopped it in order.
    #[error("stopped by the operator")]
    Interrupted,
    /// The operator left.
    #[error("left by the operator")]
    Abandoned,
}

/// A rollout that did not end as planned.
#[derive(Debug, Clone, PartialEq)]
pub struct Halt {
    /// The host in work, or next.
    pub host: Option<HostName>,
    /// Where it was.
    pub step: Step,
    /// The host in work may have been restarted.
    pub touched: bool,
    /// Why.
    pub reason: Reason,
    /// Restarted and proved.
    pub done: Vec<HostName>,
    /// Other hosts that were commanded and are not proved.
    pub also: Vec<HostName>,
    /// Not touched.
    pub remaining: Vec<HostName>,
    /// The last status of the host in work.
    pub state: Option<HostStatus>,
}

impl Halt {
    /// A gate or an agent said no before anything was done.
    #[must_use]
    pub fn refused_at_once(&self) -> bool {
        self.untouched() && matches!(self.reason, Reason::Gate(_) | Reason::Refused { .. })
    }

    /// Nothing was restarted.
    #[must_use]
    pub fn untouched(&self) -> bool {
        self.done.is_empty() && self.also.is_empty() && !self.touched
    }
}

/// How a rollout ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// All restarted and proved.
    Done(Vec<HostName>),
    /// Not all.
    Halted(Box<Halt>),
}
