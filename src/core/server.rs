//! What the agent knows of its local nats-server: plain samples that `adapters::server` fills in.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::core::ids::Wall;
use crate::core::sys::reading::Accstatz;

/// `/varz`, what is used of it. Fields that a version does not have are `None`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Varz {
    /// New at every start.
    pub server_id: String,
    /// Configured or random name; 2.9 gives it as `name` in some places.
    pub server_name: String,
    /// Like `2.10.26`.
    pub version: String,
    /// Client listen address, may be a wildcard.
    pub host: String,
    /// Client port.
    pub port: u16,
    /// Server start by its clock.
    pub start: Option<Wall>,
    /// Resident memory in bytes.
    pub mem: u64,
    /// Client connections.
    pub connections: u64,
    /// Distinct routed peers.
    pub remotes: u64,
    /// Route connections.
    pub routes: u64,
    /// Total slow consumers since start.
    pub slow_consumers: u64,
    /// By kind: clients, routes, gateways, leafs (2.10+).
    pub slow_consumers_by_kind: BTreeMap<String, u64>,
    /// Clients that a slow consumer made the server hold back (2.12+).
    pub stalled_clients: Option<u64>,
    /// Name of the system account: what [`Route::account`] is compared with.
    pub system_account: String,
    /// Cluster name, `None` when the server is not clustered.
    pub cluster: Option<String>,
    /// Where it takes routes: configured listen host (may be a wildcard) and port.
    pub cluster_addr: Option<(String, u16)>,
    /// Explicit routes (`host:port`) of its configuration: its seeds.
    pub cluster_urls: Vec<String>,
    /// Connections per peer without pinned accounts; `None` before 2.10, negative = no pooling.
    pub pool_size: Option<i64>,
    /// Gateway name.
    pub gateway: Option<String>,
    /// Where it takes gateways.
    pub gateway_addr: Option<(String, u16)>,
    /// Remote gateways of its configuration: name to `host:port` list.
    pub gateways: BTreeMap<String, Vec<String>>,
    /// JetStream is on.
    pub jetstream: bool,
    /// Server that leads JetStream's meta group; `None` = none, or not clustered.
    pub meta_leader: Option<String>,
}

/// One connection of `/routez`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Route {
    /// Connection id, new at every reconnect.
    pub rid: u64,
    /// `server_id` of the peer.
    pub remote_id: Arc<str>,
    /// `server_name` of the peer (2.10+), else empty.
    pub remote_name: Arc<str>,
    /// The local server dialled.
    pub did_solicit: bool,
    /// It stands in the configuration.
    pub is_configured: bool,
    /// Remote address as the server sees it.
    pub ip: Arc<str>,
    /// Remote port: ephemeral, or the listening port where the local server dialled.
    pub port: u16,
    /// Messages received over it.
    pub in_msgs: u64,
    /// Messages sent over it.
    pub out_msgs: u64,
    /// Bytes received over it.
    pub in_bytes: u64,
    /// Bytes sent over it.
    pub out_bytes: u64,
    /// Bytes queued in the server for it; always 0 before 2.10.26.
    pub pending: u64,
    /// Pinned account (2.10+).
    pub account: Option<Arc<str>>,
}

/// One connection of `/gatewayz`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GatewayConn {
    /// Name of the remote cluster.
    pub cluster: Arc<str>,
    /// Connection id.
    pub cid: u64,
    /// `server_id` of the remote server.
    pub remote_id: Arc<str>,
    /// Remote address.
    pub ip: Arc<str>,
    /// Remote port.
    pub port: u16,
    /// Messages received over it.
    pub in_msgs: u64,
    /// Messages sent over it.
    pub out_msgs: u64,
}

/// `/gatewayz`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Gatewayz {
    /// One per remote cluster that registered.
    pub outbound: Vec<GatewayConn>,
    /// Any number.
    pub inbound: Vec<GatewayConn>,
}

/// `/healthz`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Healthz {
    /// HTTP 200 and `status: ok`.
    pub ok: bool,
    /// `error` of the body, or its status.
    pub detail: String,
}

/// `/jsz?streams=1`, what is used of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Jsz {
    /// Streams of which the server has a replica, by the server that leads them.
    pub leaders: BTreeMap<String, u64>,
}

/// The endpoints that are polled; each has its own age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Endpoint {
    /// `/varz`
    Varz,
    /// `/routez`
    Routez,
    /// `/gatewayz`
    Gatewayz,
    /// `/healthz`
    Healthz,
    /// `/accstatz`
    Accstatz,
    /// `/jsz?streams=1`: rarely, and only for the order of restarts, so its age is not watched.
    Jsz,
}

impl Endpoint {
    /// Those whose age is watched, in the order they are polled.
    pub const ALL: [Endpoint; 5] = [Self::Varz, Self::Routez, Self::Gatewayz, Self::Healthz, Self::Accstatz];

    /// The `source` label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Varz => "varz",
            Self::Routez => "routez",
            Self::Gatewayz => "gatewayz",
            Self::Healthz => "healthz",
            Self::Accstatz => "accstatz",
            Self::Jsz => "jsz",
        }
    }

    /// Path and query, without the slash.
    #[must_use]
    pub fn path(self) -> &'static str {
        match self {
            // The system account has no connections as a rule and is left out otherwise.
            Self::Accstatz => "accstatz?unused=1",
            Self::Jsz => "jsz?streams=1",
            other => other.name(),
        }
    }
}

/// One good read.
#[derive(Debug, Clone, PartialEq)]
pub enum Sample {
    /// `/varz`
    Varz(Box<Varz>),
    /// `/routez`
    Routez(Vec<Route>),
    /// `/gatewayz`
    Gatewayz(Gatewayz),
    /// `/healthz`
    Healthz(Healthz),
    /// `/accstatz`
    Accstatz(Accstatz),
    /// `/jsz?streams=1`
    Jsz(Jsz),
}

/// Why a read failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Nothing listens there.
    #[error("cannot connect to {url}: {error}; is nats-server running with http_port set?")]
    Connect {
        /// What was read.
        url: String,
        /// The system's words.
        error: String,
    },
    /// No answer in time.
    #[error("no answer from {url} within {after:?}")]
    Timeout {
        /// What was read.
        url: String,
        /// The limit.
        after: Duration,
    },
    /// An answer that is not a nats-server's.
    #[error("{url} does not answer like a nats-server: {what}")]
    NotNats {
        /// What was read.
        url: String,
        /// What was wrong.
        what: String,
    },
    /// Cut off, or larger than is read.
    #[error("broken answer from {url}: {what}")]
    Broken {
        /// What was read.
        url: String,
        /// What was wrong.
        what: String,
    },
}

impl ReadError {
    /// A short constant for a label.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Connect { .. } => "connect",
            Self::Timeout { .. } => "timeout",
            Self::NotNats { .. } => "not_nats",
            Self::Broken { .. } => "broken",
        }
    }
}
