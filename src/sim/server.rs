//! One nats-server and its unit.

use std::sync::Arc;
use std::time::Duration;

use super::fault::HostNo;

/// What systemd says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Active,
    /// Between two starts.
    Activating,
    /// Stopped by an operator.
    Inactive,
    /// Stopped and masked by an operator.
    Masked,
}

/// Why a server is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// A policy restarts it.
    Hand,
    /// An operator restarts it.
    Operator,
    /// It died.
    Crash,
    /// An operator stopped it.
    Stopped,
}

/// One server.
#[derive(Debug, Clone)]
pub(super) struct Server {
    pub(super) up: bool,
    pub(super) why: Why,
    pub(super) unit: Unit,
    /// Faults that make the host be gone.
    pub(super) gone: u16,
    pub(super) frozen_until: Duration,
    pub(super) frozen_since: Duration,
    /// Counts starts: a part of its id.
    pub(super) starts: u32,
    pub(super) id: Arc<str>,
    pub(super) started: Duration,
    /// Counts ups and downs, so that what was planned for an earlier life is void.
    pub(super) epoch: u32,
    pub(super) lame: bool,
    /// Faults that keep a new process from coming up.
    pub(super) bad: u16,
    /// Memory in thousandths of what there is.
    pub(super) memory: u32,
    /// Memory that leaks each second, in the same.
    pub(super) leak: u32,
    /// Memory that a connection's queue took.
    pub(super) queued: u32,
    /// What it had received of system messages when it started, as the world counts them.
    pub(super) counted_from: u64,
    /// The act of the agent that restarts it, and the agent's life.
    pub(super) act: Option<(u64, u32)>,
    /// A policy restarts it since.
    pub(super) hand: Option<Duration>,
}

/// Memory of a server at rest.
pub(super) const AT_REST: u32 = 300;
/// Memory at which it is killed.
pub(super) const FULL: u32 = 1000;

impl Server {
    pub(super) fn new(host: HostNo) -> Self {
        Self {
            up: true,
            why: Why::Crash,
            unit: Unit::Active,
            gone: 0,
            frozen_until: Duration::ZERO,
            frozen_since: Duration::ZERO,
            starts: 1,
            id: id(host, 1),
            started: Duration::ZERO,
            epoch: 0,
            lame: false,
            bad: 0,
            memory: AT_REST,
            leak: 0,
            queued: 0,
            counted_from: 0,
            act: None,
            hand: None,
        }
    }

    /// A new process begins.
    pub(super) fn begins(&mut self, host: HostNo) {
        self.starts += 1;
        self.id = id(host, self.starts);
    }

    /// Does it carry messages?
    pub(super) fn works(&self, now: Duration) -> bool {
        self.up && self.gone == 0 && now >= self.frozen_until
    }
}

fn id(host: HostNo, starts: u32) -> Arc<str> {
    format!("S{host}.{starts}").into()
}
