//! Settings: the validated configuration. Nothing here is optional that the agent needs.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::core::ids::{HostName, LaneName, Region};

/// All that an agent needs to run.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// `host.name`
    pub host: HostName,
    /// `host.region`
    pub region: Region,
    /// `subject_prefix`, default `watchdog`
    pub prefix: String,
    /// The lanes; the `[nats]` account is the first, named `main`.
    pub lanes: Vec<Lane>,
    /// `[server]`
    pub server: Server,
    /// `[canary]`
    pub canary: Canary,
    /// `[remediation]`
    pub remediation: Remediation,
    /// `control.operators`: NKEY public keys (`U…`)
    pub operators: Vec<String>,
    /// `http.listen`
    pub http: SocketAddr,
    /// `state.directory`; `None` = nothing is kept (said at start and in `status`)
    pub state: Option<PathBuf>,
}

/// One NATS account and how to reach it.
#[derive(Debug, Clone, PartialEq)]
pub struct Lane {
    /// Lane name.
    pub name: LaneName,
    /// How to connect.
    pub connect: Connect,
}

/// How to connect to one NATS server, for the agent and for commands alike.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Connect {
    /// Server URLs, `nats://…`, `tls://…`; the agent has exactly one.
    pub urls: Vec<String>,
    /// Who we are.
    pub auth: Auth,
    /// TLS files.
    pub tls: Tls,
    /// Prefix of reply subjects, from a context; default `_INBOX`.
    pub inbox_prefix: Option<String>,
}

/// Credentials; secrets are never shown.
#[derive(Clone, PartialEq, Default)]
pub enum Auth {
    /// None.
    #[default]
    None,
    /// Creds file (read and parsed when the configuration is checked).
    Creds(PathBuf),
    /// NKEY seed file.
    Nkey(PathBuf),
    /// User and password.
    User(String, String),
    /// Token.
    Token(String),
    /// JWT and seed in a context.
    Jwt {
        /// `user_jwt`
        jwt: String,
        /// `user_seed`
        seed: String,
    },
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Creds(p) => f.debug_tuple("Creds").field(p).finish(),
            Self::Nkey(p) => f.debug_tuple("Nkey").field(p).finish(),
            Self::User(u, _) => f.debug_tuple("User").field(u).finish_non_exhaustive(),
            Self::Token(_) => f.write_str("Token(..)"),
            Self::Jwt { .. } => f.write_str("Jwt(..)"),
        }
    }
}

/// TLS files.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Tls {
    /// CA file.
    pub ca: Option<PathBuf>,
    /// Client certificate.
    pub cert: Option<PathBuf>,
    /// Client key.
    pub key: Option<PathBuf>,
    /// TLS before INFO.
    pub first: bool,
}

/// `[server]`
#[derive(Debug, Clone, PartialEq)]
pub struct Server {
    /// Base URL of the monitoring port, `http://host:port` with an optional path.
    pub monitor: String,
    /// How it is restarted.
    pub restart: RestartVia,
    /// Time between reads of `/varz` and `/healthz`, default 1 s.
    pub poll: Duration,
    /// Time between reads of `/routez` and `/gatewayz`, default 2 s.
    pub poll_routes: Duration,
    /// Limit for one read, default 2 s.
    pub timeout: Duration,
    /// Limit for a whole restart until the server answers again, default 60 s.
    pub restart_deadline: Duration,
}

/// How the local server is restarted.
#[derive(Debug, Clone, PartialEq)]
pub enum RestartVia {
    /// systemd unit.
    Unit(String),
    /// argv, no shell.
    Command(Vec<String>),
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
    /// `sender_delay`: how long the sending side waits for the receiver to act, default 20 s
    pub sender_delay: Duration,
    /// `verify`: how long a remedy has to show its effect, default 10 s
    pub verify: Duration,
    /// `tries`: resets of one fault before the next rung, default 2
    pub tries: u32,
}
