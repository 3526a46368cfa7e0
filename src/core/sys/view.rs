//! What readers see of the system traffic and of brownouts: a part of the snapshot, as plain data.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Messages and bytes per second.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct RateView {
    /// Messages per second.
    pub messages: f64,
    /// Bytes per second.
    pub bytes: f64,
}

/// Messages and bytes that this agent has counted since it started; they only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AmountView {
    /// Messages.
    pub messages: u64,
    /// Bytes.
    pub bytes: u64,
}

/// What a healthy fleet of this shape makes.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ExpectedView {
    /// Servers that this rests on.
    pub servers: u32,
    /// Clusters that this rests on.
    pub clusters: u32,
    /// Quiet rate into this server.
    pub received: RateView,
    /// Quiet rate out of this server.
    pub sent: RateView,
    /// Most that servers with their limit in place may send into this one.
    pub worst: RateView,
    /// Size of one STATSZ.
    pub statsz_bytes: f64,
    /// One restart, into this server.
    pub restart: RateView,
}

/// System traffic that came from one peer.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct PeerRateView {
    /// Host where it is known, else the server's id.
    pub peer: String,
    /// Its rate over the last seconds.
    pub received: RateView,
}

/// What came and went, and what is stuck.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ChurnView {
    /// New slow consumers since the agent started, by kind.
    pub slow_consumers: BTreeMap<String, u64>,
    /// The same per minute, over the last minute.
    pub slow_consumers_per_minute: BTreeMap<String, f64>,
    /// Route connections that came.
    pub routes_opened: u64,
    /// Route connections that went.
    pub routes_closed: u64,
    /// Gateway connections that came.
    pub gateways_opened: u64,
    /// Gateway connections that went.
    pub gateways_closed: u64,
    /// Bytes queued for routes; `None` = this version does not tell.
    pub pending_bytes: Option<u64>,
    /// Clients held back for slow consumers; `None` = this version does not tell.
    pub stalled_clients: Option<u64>,
}

/// The server's memory over time.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct MemoryView {
    /// What it may use; `None` = not known.
    pub limit_bytes: Option<u64>,
    /// Where the limit stands: `cgroup` or `host`.
    pub limit_source: Option<String>,
    /// Growth where it is steady, in bytes per second; `None` = no steady growth.
    pub slope_bytes_per_second: Option<f64>,
    /// Until the limit at this growth.
    pub exhaustion_seconds: Option<f64>,
}

/// System traffic at the local server.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct SysView {
    /// What is measured with: `account`, `routes`, `counted`, `account_sent`; `None` = nothing was read lately.
    pub source: Option<String>,
    /// Age of its last good reading.
    pub age_seconds: Option<f64>,
    /// What is measured is the replication of JetStream too, which runs in the system account: nothing can be expected of
    /// it, and only the ceiling is judged. With `[system]` credentials events are counted apart.
    pub shared_with_jetstream: bool,
    /// Rate into the server over the last seconds; `None` = this source does not tell.
    pub received: Option<RateView>,
    /// Rate out of the server.
    pub sent: Option<RateView>,
    /// Counted into the server.
    pub received_total: AmountView,
    /// Counted out of the server.
    pub sent_total: AmountView,
    /// What is expected; `None` = the fleet's shape is not known yet, or JetStream shares the account.
    pub expected: Option<ExpectedView>,
    /// Peers that sent most, at most five.
    pub peers: Vec<PeerRateView>,
    /// Readings that were not believed, by reason: reset, garbage, backwards.
    pub odd_readings: BTreeMap<String, u64>,
    /// Churn.
    pub churn: ChurnView,
    /// Memory.
    pub memory: MemoryView,
}

/// Brownout in one scope.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct BrownoutView {
    /// `host`, `region` (the own one) or `fleet`.
    pub scope: String,
    /// It is on.
    pub on: bool,
    /// `quiet`, `suspect`, `brownout` or `ending`.
    pub state: String,
    /// 1 is where it begins. Of a host: excess of the traffic; of a region or the fleet: share of its hosts.
    pub score: f64,
    /// When it began, Unix seconds.
    pub since: Option<f64>,
    /// Why, as sentences; empty while it is off.
    pub reasons: Vec<String>,
    /// What explains traffic above the quiet rate now, as sentences.
    pub explanations: Vec<String>,
    /// What will end it.
    pub ends_when: Option<String>,
    /// Hosts that report one, of so many; only for a region and the fleet.
    pub hosts: Option<(usize, usize)>,
}
