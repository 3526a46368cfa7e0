//! What the operator allows and how fast things go: the part of the configuration that the core decides by.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::core::ids::{HostName, LaneName, Region};
pub use crate::core::permit::policy::{Arbiter, Permits};
use crate::core::remedy::ledger::ActKind;

/// How far automation may climb.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// Nothing; log what would be done.
    Observe,
    /// Destroy stalled sockets.
    Reset,
    /// Restart the local server.
    Restart,
}

impl Mode {
    /// All modes, lowest first.
    pub const ALL: [Mode; 3] = [Self::Observe, Self::Reset, Self::Restart];

    /// The highest rung; `None` = no act at all, which is less than any.
    #[must_use]
    pub fn allows(self) -> Option<ActKind> {
        match self {
            Self::Observe => None,
            Self::Reset => Some(ActKind::Reset),
            Self::Restart => Some(ActKind::Restart),
        }
    }

    /// The configuration value.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Observe => "observe",
            Self::Reset => "reset",
            Self::Restart => "restart",
        }
    }
}

/// `[canary]`
#[derive(Debug, Clone, PartialEq)]
pub struct Canary {
    /// Beacon interval, default 1 s.
    pub interval: Duration,
    /// Silent intervals before a stall, default 3.
    pub stall_after: u32,
    /// Budget of beacons received per second, default 500.
    pub max_inbound_per_second: u32,
    /// Hosts that must exist, from the configuration; usually empty (learned).
    pub hosts: Vec<(HostName, Region)>,
}

impl Default for Canary {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(1),
            stall_after: 3,
            max_inbound_per_second: 500,
            hosts: Vec::new(),
        }
    }
}

/// `[remediation]`
#[derive(Debug, Clone, PartialEq)]
pub struct Remediation {
    /// `mode`
    pub mode: Mode,
    /// `path_resets`: false = skip the reset rung and go to restart where `mode` allows. Default true.
    pub path_resets: bool,
    /// `max_sick_fraction`, default 0.1
    pub max_sick_fraction: f64,
    /// `restarts_per_hour`, default 2
    pub restarts_per_hour: u32,
    /// `resets_per_hour`, default 20
    pub resets_per_hour: u32,
    /// `confirm`: how long a stall must last beyond its verdict before a reset, default 300 ms
    pub confirm: Duration,
    /// `restart_confirm`: the same before a restart, default 3 s
    pub restart_confirm: Duration,
    /// `mesh_confirm`: how long a hole, a missing gateway or pool connection must last, default 10 s
    pub mesh_confirm: Duration,
    /// `sender_delay`: how long the sending side waits for the receiver to act, default 60 s
    pub sender_delay: Duration,
    /// `verify`: how long a remedy has to show its effect, default 10 s
    pub verify: Duration,
    /// `tries`: resets of one fault before the next rung, default 2
    pub tries: u32,
}

impl Default for Remediation {
    fn default() -> Self {
        Self {
            mode: Mode::Observe,
            path_resets: true,
            max_sick_fraction: 0.1,
            restarts_per_hour: 2,
            resets_per_hour: 20,
            confirm: Duration::from_millis(300),
            restart_confirm: Duration::from_secs(3),
            mesh_confirm: Duration::from_secs(10),
            sender_delay: Duration::from_secs(60),
            verify: Duration::from_secs(10),
            tries: 2,
        }
    }
}

/// `[brownout]`
#[derive(Debug, Clone, PartialEq)]
pub struct Brownout {
    /// `hold`: false = measured and told, but nothing is held back. Default true.
    pub hold: bool,
    /// `factor`: times the usual where a brownout begins, default 3.
    pub factor: f64,
    /// `ceiling_bytes_per_second`; `None` = 64 MB/s, or three times `factor` times the quiet traffic.
    pub ceiling_bytes_per_second: Option<f64>,
    /// `minimum`: how long the traffic must be above, default 500 ms.
    pub minimum: Duration,
}

impl Default for Brownout {
    fn default() -> Self {
        Self {
            hold: true,
            factor: 3.0,
            ceiling_bytes_per_second: None,
            minimum: Duration::from_millis(500),
        }
    }
}

/// How the local server can be restarted here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RestartWays {
    /// Hooks, and how long each may take.
    pub hooks: BTreeMap<String, Duration>,
    /// Longest that a lame duck may take, its end included; `None` = there is no way to make one.
    pub lame_duck: Option<Duration>,
    /// It can be stopped and started one after the other.
    pub can_stop: bool,
    /// There are credentials of the system account: a leader of the meta group can be asked to step down.
    pub step_down: bool,
}

/// All that the core is told at start.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// This host.
    pub host: HostName,
    /// This region.
    pub region: Region,
    /// Lanes, the `[nats]` account first.
    pub lanes: Vec<LaneName>,
    /// `[canary]`
    pub canary: Canary,
    /// `[remediation]`
    pub remediation: Remediation,
    /// `[brownout]`
    pub brownout: Brownout,
    /// `[permits]`
    pub permits: Permits,
    /// Limit for a whole restart until the server answers again.
    pub restart_deadline: Duration,
    /// The server is restarted through a systemd unit, whose state is then a gate.
    pub has_unit: bool,
    /// What an ordered restart can do beside a plain one.
    pub restart: RestartWays,
    /// Version of this build.
    pub version: String,
}
