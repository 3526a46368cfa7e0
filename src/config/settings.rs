//! Settings: the validated configuration. Nothing here is optional that the agent needs.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::permits::PermitSettings;
use crate::core::ids::{HostName, LaneName, Region};
pub use crate::core::policy::{Brownout, Canary, Mode, Remediation};

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
    /// `[system]`: a user of the system account at the same server
    pub system: Option<Connect>,
    /// `[server]`
    pub server: Server,
    /// `[canary]`
    pub canary: Canary,
    /// `[remediation]`
    pub remediation: Remediation,
    /// `[brownout]`
    pub brownout: Brownout,
    /// `[permits]`
    pub permits: PermitSettings,
    /// `control.operators`: NKEY public keys (`U…`)
    pub operators: Vec<String>,
    /// `[hooks.NAME]`
    pub hooks: BTreeMap<String, Hook>,
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
    /// `lame_duck_duration` of its own configuration, default 2 min.
    pub lame_duck_duration: Duration,
    /// Time between reads of `/varz` and `/healthz`, default 1 s.
    pub poll: Duration,
    /// Time between reads of `/routez`, `/gatewayz` and `/accstatz`, default 2 s.
    pub poll_routes: Duration,
    /// Limit for one read, default 2 s.
    pub timeout: Duration,
    /// Limit for a whole restart until the server answers again, default 60 s.
    pub restart_deadline: Duration,
}

/// `[hooks.NAME]`: what may be run between stop and start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// argv, no shell.
    pub command: Vec<String>,
    /// It is killed then.
    pub timeout: Duration,
}

/// The parts of a restart by commands, for a lame duck and for hooks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Parts {
    /// Makes it a lame duck.
    pub lame_duck: Option<Vec<String>>,
    /// Stops it.
    pub stop: Option<Vec<String>>,
    /// Starts it.
    pub start: Option<Vec<String>>,
}

/// How the local server is restarted.
#[derive(Debug, Clone, PartialEq)]
pub enum RestartVia {
    /// systemd unit.
    Unit(String),
    /// argv, no shell; and the same in parts.
    Command(Vec<String>, Parts),
}
