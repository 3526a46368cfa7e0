//! The snapshot: all that readers (HTTP, metrics, page, commands) get to see, as plain data.
//!
//! This is the shape of `/api/v1/*`; `docs/api.md` and the `--output json` of commands follow it.
//! Durations are seconds, times Unix seconds, both as numbers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::core::audit::Who;
use crate::core::canary::beacon::Health;
use crate::core::ids::{HostName, LaneName, Region};
pub use crate::core::sys::view::{
    AmountView, BrownoutView, ChurnView, ExpectedView, MemoryView, PeerRateView, RateView, SysView,
};

/// The whole state of one agent at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// When it was taken, Unix seconds.
    pub at: f64,
    /// The agent itself.
    pub agent: AgentView,
    /// Its server.
    pub server: ServerView,
    /// Its lanes.
    pub lanes: Vec<LaneView>,
    /// Per source region and lane.
    pub regions: Vec<RegionView>,
    /// Per target region and lane.
    pub probes: Vec<ProbeView>,
    /// Every source on every lane.
    pub sources: Vec<SourceView>,
    /// Region to region, from this agent's verdicts and others' reports.
    pub matrix: Vec<MatrixCell>,
    /// What is wrong now.
    pub faults: Vec<FaultView>,
    /// What automation may do, did, and was kept from doing.
    pub remediation: RemediationView,
    /// Who may act, and what is paused.
    #[serde(default)]
    pub permits: PermitsView,
    /// The last decisions, acts and refusals, oldest first.
    pub history: Vec<Record>,
    /// Beacons and other messages dropped, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// System traffic.
    #[serde(default)]
    pub sys: SysView,
    /// Brownout of the host, its region and the fleet.
    #[serde(default)]
    pub brownout: Vec<BrownoutView>,
    /// Commands and events.
    #[serde(default)]
    pub audit: AuditView,
}

/// The agent itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgentView {
    /// Version of this build.
    pub version: String,
    /// This host.
    pub host: HostName,
    /// This region.
    pub region: Region,
    /// Time since start.
    pub uptime_seconds: f64,
    /// What it says of itself in beacons.
    pub health: Health,
    /// Sentences on why health is not `ok`.
    pub health_reasons: Vec<String>,
    /// How long the own beacon took through the own server; `None` = not heard yet.
    pub self_loop_seconds: Option<f64>,
    /// How late the loop's last tick was.
    pub loop_lag_seconds: f64,
    /// Beacon interval in use (stretched by the budget).
    pub interval_seconds: f64,
    /// Known hosts, this one included.
    pub roster: usize,
    /// Why state is not kept on disk, if so.
    pub state_error: Option<String>,
}

/// The local server as last read.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ServerView {
    /// Its monitoring port answers like a nats-server.
    pub up: bool,
    /// The newest error where a read failed.
    pub error: Option<String>,
    /// Age of the last good read per endpoint; `None` = never read.
    pub age_seconds: BTreeMap<String, Option<f64>>,
    /// `server_name`.
    pub name: String,
    /// `server_id`.
    pub id: String,
    /// `version`.
    pub version: String,
    /// Cluster name, empty if none.
    pub cluster: String,
    /// Start, Unix seconds.
    pub start: Option<f64>,
    /// Starts seen by this agent.
    pub restarts_seen: u64,
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// Client connections.
    pub connections: Option<u64>,
    /// `healthz`: `None` = unknown.
    pub healthy: Option<bool>,
    /// Its words where not healthy.
    pub health_detail: String,
    /// Lame duck.
    pub lame_duck: bool,
    /// Slow consumers by kind; only `all` before 2.10.
    pub slow_consumers: BTreeMap<String, u64>,
    /// Peers in the own cluster by the roster.
    pub peers_expected: usize,
    /// Peers routed to.
    pub peers_connected: Option<usize>,
    /// Names of hosts of the own cluster without a route.
    pub peers_missing: Vec<String>,
    /// Remote clusters by the roster and configuration.
    pub gateways_expected: usize,
    /// Remote clusters with an outbound gateway.
    pub gateways_connected: Option<usize>,
    /// Remote clusters without one.
    pub gateways_missing: Vec<String>,
    /// Which pool connections lanes cover, and other advice.
    pub advice: Vec<String>,
}

/// One lane.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LaneView {
    /// Name.
    pub lane: LaneName,
    /// Connected to the local server.
    pub connected: bool,
    /// Beacons sent.
    pub sent: u64,
    /// The newest connection error.
    pub error: Option<String>,
}

/// A histogram with upper bounds in seconds; `counts` has one more entry, for +Inf. Counts are not cumulative.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct HistogramView {
    /// Upper bounds, ascending.
    pub bounds: Vec<f64>,
    /// Observations per bucket.
    pub counts: Vec<u64>,
    /// Sum of observations.
    pub sum: f64,
}

/// What one region's beacons did on one lane. Counters only grow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RegionView {
    /// Source region.
    pub region: Region,
    /// Lane.
    pub lane: LaneName,
    /// Beacons received.
    pub received: u64,
    /// Sequence gaps.
    pub lost: u64,
    /// Came, but late.
    pub late: u64,
    /// Came twice.
    pub duplicate: u64,
    /// Came after a later one.
    pub reordered: u64,
    /// Age of the last beacon of the worst source that is not departed.
    pub age_seconds: f64,
    /// That source.
    pub worst: Option<HostName>,
    /// Sources by verdict: ok, late, stalled, departed, warming; all five present.
    pub paths: BTreeMap<String, u64>,
    /// One-way delay by both hosts' clocks, skew and all.
    pub one_way: HistogramView,
    /// Clocks differ so much that one-way delay is not to be read (negative, or above the interval).
    pub skewed: bool,
}

/// Probes to one region on one lane.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProbeView {
    /// Target region.
    pub region: Region,
    /// Lane.
    pub lane: LaneName,
    /// RTT minus the responder's hold time.
    pub rtt: HistogramView,
    /// The last RTT.
    pub last_seconds: Option<f64>,
    /// Failures by reason: timeout, no_responders.
    pub failures: BTreeMap<String, u64>,
}

/// A verdict on one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Not heard long enough to judge.
    Warming,
    /// On time.
    Ok,
    /// Overdue, not long enough for a stall.
    Late,
    /// Silent for `stall_after` intervals.
    Stalled,
    /// Left in order.
    Departed,
}

impl Verdict {
    /// All, in the order of the metric's label.
    pub const ALL: [Verdict; 5] = [Self::Ok, Self::Late, Self::Stalled, Self::Departed, Self::Warming];

    /// The label value.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Warming => "warming",
            Self::Ok => "ok",
            Self::Late => "late",
            Self::Stalled => "stalled",
            Self::Departed => "departed",
        }
    }
}

/// One source on one lane.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SourceView {
    /// Source host.
    pub host: HostName,
    /// Its region.
    pub region: Region,
    /// Lane.
    pub lane: LaneName,
    /// Verdict.
    pub verdict: Verdict,
    /// Since the last beacon; `None` = never heard by this process.
    pub age_seconds: Option<f64>,
    /// Since the verdict changed.
    pub since_seconds: f64,
    /// Beacons received.
    pub received: u64,
    /// Sequence gaps.
    pub lost: u64,
    /// Last one-way delay by both clocks; may be negative under skew.
    pub one_way_seconds: Option<f64>,
    /// Last probe RTT.
    pub rtt_seconds: Option<f64>,
    /// Its server.
    pub server: String,
    /// Its server's version.
    pub server_version: String,
    /// Its cluster.
    pub cluster: String,
    /// What it says of itself.
    pub health: Health,
}

/// Region to region.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MatrixCell {
    /// Sending region.
    pub from: Region,
    /// Receiving region.
    pub to: Region,
    /// Host pairs judged.
    pub pairs: u64,
    /// Pairs that do not hear.
    pub broken: u64,
    /// Worst age, only where this host receives.
    pub age_seconds: Option<f64>,
    /// Share of beacons lost, 0 to 1, only where this host receives.
    pub loss: Option<f64>,
    /// Last probe RTT, only from this host's region.
    pub rtt_seconds: Option<f64>,
}

/// What kind of thing is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// This agent itself: it is slow or cut off and says nothing about others.
    Observer,
    /// A host that nobody hears, or that hears nobody.
    Host,
    /// One host to all of a remote cluster.
    Gateway,
    /// Two servers of a cluster that are no peers.
    Hole,
    /// One pool connection between two servers.
    Pool,
    /// One server to another.
    Route,
    /// Old subscriptions work, new ones do not travel.
    Interest,
    /// No TCP, or no INFO: the network or the server is down; a restart here heals nothing.
    Network,
}

impl FaultKind {
    /// All kinds, for the metric.
    pub const ALL: [FaultKind; 8] = [
        Self::Observer,
        Self::Host,
        Self::Gateway,
        Self::Hole,
        Self::Pool,
        Self::Route,
        Self::Interest,
        Self::Network,
    ];

    /// The label value.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Observer => "observer",
            Self::Host => "host",
            Self::Gateway => "gateway",
            Self::Hole => "hole",
            Self::Pool => "pool",
            Self::Route => "route",
            Self::Interest => "interest",
            Self::Network => "network",
        }
    }
}

/// A fault as shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FaultView {
    /// Stable while it lasts, like `route:iad-1>fra-2`.
    pub id: String,
    /// Kind.
    pub kind: FaultKind,
    /// Region of the faulty source.
    pub region: Region,
    /// Sending host.
    pub from: HostName,
    /// Receiving host, or remote cluster for gateways; `None` for host faults.
    pub to: Option<String>,
    /// Lanes it shows on.
    pub lanes: Vec<LaneName>,
    /// Since when, Unix seconds.
    pub since: f64,
    /// Evidence in one sentence.
    pub evidence: String,
    /// INFO was read from the peer: `None` = not checked.
    pub network_ok: Option<bool>,
    /// What is being done: `observing`, `confirming`, `checking network`, `resetting`, `restarting`, `verifying`, `backing off`, `blocked: …`, `gave up`, `not ours`.
    pub remedy: String,
}

/// Automation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RemediationView {
    /// `observe`, `reset` or `restart`.
    pub mode: String,
    /// Why resets are not possible here, if so.
    pub reset_unavailable: Option<String>,
    /// Acts: (action, reason, outcome) and count. Actions: reset, restart. Outcomes: would, started, healed, failed, no_effect.
    pub actions: Vec<ActionCount>,
    /// Refusals by gate.
    pub blocked: BTreeMap<String, u64>,
    /// Gates that hold something back right now, as sentences.
    pub blocking: Vec<String>,
    /// What was done before cannot be read: no fault leads to a restart for an hour, or until `watchdog resume`.
    #[serde(default)]
    pub ledger_damaged: bool,
    /// Restarts that the host's limit still allows now.
    pub restarts_left: u32,
    /// A restart by the agent is under way.
    pub restart_in_progress: bool,
    /// The rollout that is open, as far as this agent was told.
    #[serde(default)]
    pub rollout: Option<crate::core::control::roll::OpenRollout>,
    /// The last restart by the agent, Unix seconds.
    pub last_restart: Option<f64>,
    /// Why it was made.
    pub last_restart_reason: Option<String>,
}

/// Permits as this agent last read them.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct PermitsView {
    /// `register`, or `slots` where no store is configured.
    pub store: String,
    /// Since the document was last read; `None` = never by this process, or there is no store.
    pub age_seconds: Option<f64>,
    /// Why it cannot be read or used, if so.
    pub error: Option<String>,
    /// What this host holds: `taken`, `acting` or `failed`.
    pub held: Option<String>,
    /// Who holds a permit.
    pub holders: Vec<HolderView>,
    /// What is paused.
    pub pauses: Vec<PauseView>,
}

/// A host that holds a permit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HolderView {
    /// Who.
    pub host: HostName,
    /// Its region.
    pub region: Region,
    /// Fault id, or who ordered it.
    pub why: String,
    /// `taken`, `acting`, `failed` or `vanished`.
    pub state: String,
    /// Taken, Unix seconds.
    pub since: f64,
    /// Vanished from then on unless renewed, Unix seconds.
    pub until: f64,
    /// What went wrong.
    pub note: String,
}

/// A pause.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PauseView {
    /// `the fleet`, `region iad`, `host iad-1`.
    pub scope: String,
    /// `fleet`, `region` or `host`.
    pub kind: String,
    /// It covers this host.
    pub here: bool,
    /// Who paused.
    pub who: String,
    /// Why.
    pub why: String,
    /// Since when, Unix seconds.
    pub since: f64,
    /// Until when, Unix seconds; `None` = until resumed.
    pub until: Option<f64>,
}

/// One counter of `watchdog_remediation_actions_total`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ActionCount {
    /// reset, restart
    pub action: String,
    /// Kind of fault, or `operator`.
    pub reason: String,
    /// Outcome.
    pub outcome: String,
    /// How often.
    pub count: u64,
}

/// One line of history: a decision, act or refusal. Fields are added, never renamed: old lines stay readable.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Record {
    /// Unix seconds.
    pub at: f64,
    /// What: `fault`, `cleared`, `would`, `act`, `outcome`, `refused`, `command`, `gave_up`, `server`, `source`, `agent`, `brownout`, `explained`.
    pub event: String,
    /// Fault id or subject of the matter.
    pub subject: String,
    /// One sentence.
    pub text: String,
    /// Who decided; `None` in lines of builds before this field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub who: Option<Who>,
    /// Why: the fault's kind, the gate, or the operator's reason.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// What it rests on.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub evidence: String,
    /// What came of it: `would`, `started`, `refused`, `accepted`, `done`, `healed`, `failed`, `no_effect`, `gave_up`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub outcome: String,
    /// Id of the act, the same in all its lines, unique over restarts of the agent.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub act: String,
    /// Id of the rollout that it belongs to.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub rollout: String,
}

/// What was asked of the agent from the network, and what it told. Counters only grow.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AuditView {
    /// Signed commands that passed all checks of who and when, by verb.
    #[serde(default)]
    pub commands_taken: BTreeMap<String, u64>,
    /// Commands refused, by reason; nothing was done.
    #[serde(default)]
    pub commands_refused: BTreeMap<String, u64>,
    /// Records sent as events.
    #[serde(default)]
    pub events_sent: u64,
    /// Records not sent as events: over the rate, or the connection did not take them.
    #[serde(default)]
    pub events_dropped: u64,
    /// Records that a slow disk kept out of the state directory; the log has them.
    #[serde(default)]
    pub records_lost: u64,
}
