//! What a host says of itself when asked: its server, its links, its last command.

use serde::{Deserialize, Serialize};

use super::Hearing;
pub use super::roll::{JetStream, RestartFacts};
use crate::core::canary::beacon::Health;
use crate::core::ids::{HostName, Region};
use crate::core::view::{BrownoutView, Snapshot, Verdict};

/// The answer to `status`. Times are Unix milliseconds, ages milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostStatus {
    /// Who.
    pub host: HostName,
    /// Where.
    pub region: Region,
    /// Cluster of its server; empty = none or unknown.
    pub cluster: String,
    /// `server_id`, new at every start; empty = never read.
    pub server_id: String,
    /// `server_name`.
    pub server_name: String,
    /// Version of the server.
    pub version: String,
    /// Start of the server.
    pub start_ms: Option<u64>,
    /// Age of the oldest of the reads this rests on; `None` = something was never read.
    pub age_ms: Option<u64>,
    /// The monitoring port answers.
    pub up: bool,
    /// `/healthz`; `None` = unknown.
    pub healthy: Option<bool>,
    /// Its words where not healthy, or the newest read error.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub health_detail: String,
    /// It drains clients and will stop.
    pub lame_duck: bool,
    /// Distinct peers routed to; `None` = unknown.
    pub peers: Option<usize>,
    /// Their names, or ids where the version has no names.
    #[serde(default)]
    pub peer_names: Vec<String>,
    /// Remote clusters with an outbound gateway; `None` = unknown.
    pub gateways: Option<Vec<String>>,
    /// Client connections.
    pub clients: Option<u64>,
    /// `pool_size` of its server; `None` = unknown, or a version without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool_size: Option<i64>,
    /// Accounts with a route connection of their own; `None` = unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned: Option<u32>,
    /// Accounts that have clients on its server, `$G` left out; `None` = unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_accounts: Option<u64>,
    /// Its server dialled a route that is not configured; `None` = unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gossiped_routes: Option<bool>,
    /// The agent's own state.
    pub agent_health: Health,
    /// Hosts whose beacons this agent should get and does not (stalled on any lane).
    #[serde(default)]
    pub unheard: Vec<HostName>,
    /// Hosts this agent knows, itself included.
    #[serde(default)]
    pub roster: usize,
    /// System traffic into its server now, payload bytes a second; `None` = not measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sys_bytes: Option<u64>,
    /// The brownout that its agent sees, as a sentence; no restart begins meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub brownout: Option<String>,
    /// What it is at, if anything; it takes no command meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub busy: Option<String>,
    /// The last command it took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_command: Option<LastCommand>,
    /// What concerns its restart.
    #[serde(default)]
    pub restart: RestartFacts,
}

/// How far a command is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Taken on.
    Accepted,
    /// The server is being restarted.
    Restarting,
    /// The server answers again.
    Done,
    /// It went wrong.
    Failed,
}

/// The last command an agent took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastCommand {
    /// Of which rollout.
    pub rollout: String,
    /// How far.
    pub state: Stage,
    /// A sentence, of use where it failed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// What a status has beside the [`Snapshot`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Beside {
    /// Distinct peers of the last `/routez`: `remote_name`, or `remote_id` where that is empty.
    pub peer_names: Vec<String>,
    /// Distinct remote clusters of the last `/gatewayz`'s outbound side.
    pub gateways: Option<Vec<String>>,
    /// `pool_size` of the last `/varz`.
    pub pool_size: Option<i64>,
    /// Distinct accounts that routes of the last `/routez` are pinned to.
    pub pinned: Option<u32>,
    /// Accounts with clients of the last `/accstatz`.
    pub active_accounts: Option<u64>,
    /// Of the last `/routez`.
    pub gossiped_routes: Option<bool>,
    /// What the agent is at.
    pub busy: Option<String>,
    /// The last command.
    pub last_command: Option<LastCommand>,
    /// What concerns its restart.
    pub restart: RestartFacts,
}

impl HostStatus {
    /// The status that a snapshot and what stands beside it make.
    #[must_use]
    pub fn from_snapshot(snapshot: &Snapshot, beside: Beside) -> Self {
        let (agent, server) = (&snapshot.agent, &snapshot.server);
        let oldest = ["varz", "healthz", "routez", "gatewayz"]
            .iter()
            .map(|e| server.age_seconds.get(*e).copied().flatten())
            .try_fold(0.0_f64, |oldest, age| age.map(|age| oldest.max(age)));
        let mut unheard: Vec<HostName> = snapshot
            .sources
            .iter()
            .filter(|s| s.verdict == Verdict::Stalled && s.host != agent.host)
            .map(|s| s.host.clone())
            .collect();
        unheard.sort();
        unheard.dedup();
        let detail = if server.health_detail.is_empty() {
            server.error.clone().unwrap_or_default()
        } else {
            server.health_detail.clone()
        };
        Self {
            host: agent.host.clone(),
            region: agent.region.clone(),
            cluster: server.cluster.clone(),
            server_id: server.id.clone(),
            server_name: server.name.clone(),
            version: server.version.clone(),
            start_ms: server.start.map(to_ms),
            age_ms: oldest.map(to_ms),
            up: server.up,
            healthy: server.healthy,
            health_detail: detail,
            lame_duck: server.lame_duck,
            peers: server.peers_connected,
            peer_names: beside.peer_names,
            gateways: beside.gateways,
            clients: server.connections,
            pool_size: beside.pool_size,
            pinned: beside.pinned,
            active_accounts: beside.active_accounts,
            gossiped_routes: beside.gossiped_routes,
            agent_health: agent.health,
            unheard,
            roster: agent.roster,
            sys_bytes: snapshot.sys.received.as_ref().map(|r| to_whole(r.bytes)),
            brownout: snapshot.brownout.iter().find(|b| b.on).map(brownout),
            busy: beside.busy,
            last_command: beside.last_command,
            restart: beside.restart,
        }
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate of bytes: a cast saturates"
)]
fn to_whole(rate: f64) -> u64 {
    rate.round() as u64
}

fn brownout(b: &BrownoutView) -> String {
    let ends = b.ends_when.as_deref().unwrap_or("it is over");
    format!(
        "a brownout of the {}: {}; it ends when {ends}",
        b.scope,
        b.reasons.join("; ")
    )
}

impl Hearing {
    /// What `snapshot` says about hearing `source`: the worst of all lanes.
    #[must_use]
    pub fn from_snapshot(snapshot: &Snapshot, source: &HostName) -> Self {
        let badness = |v: Verdict| match v {
            Verdict::Ok => 0,
            Verdict::Warming => 1,
            Verdict::Late => 2,
            Verdict::Departed => 3,
            Verdict::Stalled => 4,
        };
        let worst = snapshot
            .sources
            .iter()
            .filter(|s| s.host == *source)
            .max_by_key(|s| badness(s.verdict));
        Self {
            source: source.clone(),
            verdict: worst.map(|s| s.verdict),
            age_ms: worst.and_then(|s| s.age_seconds).map(to_ms),
            lane: worst.map(|s| s.lane.to_string()).unwrap_or_default(),
        }
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "negative and huge saturate, which is what is wanted"
)]
fn to_ms(seconds: f64) -> u64 {
    (seconds * 1000.0).round() as u64
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::core::ids::LaneName;
    use crate::core::view::{AgentView, AuditView, PermitsView, RemediationView, ServerView, SourceView, SysView};

    /// A healthy host with two peers and no gateways.
    pub(crate) fn status(host: &str) -> HostStatus {
        HostStatus {
            host: HostName::new(host).unwrap(),
            region: Region::new("iad").unwrap(),
            cluster: "C".to_owned(),
            server_id: format!("ID-{host}-1"),
            server_name: host.to_owned(),
            version: "2.10.26".to_owned(),
            start_ms: Some(1),
            age_ms: Some(0),
            up: true,
            healthy: Some(true),
            health_detail: String::new(),
            lame_duck: false,
            peers: Some(2),
            peer_names: vec![],
            gateways: Some(vec![]),
            clients: Some(0),
            pool_size: Some(3),
            pinned: Some(1),
            active_accounts: Some(0),
            gossiped_routes: Some(false),
            agent_health: Health::Ok,
            unheard: vec![],
            roster: 3,
            sys_bytes: None,
            brownout: None,
            busy: None,
            last_command: None,
            restart: RestartFacts::default(),
        }
    }

    fn source(host: &str, lane: &str, verdict: Verdict) -> SourceView {
        SourceView {
            host: HostName::new(host).unwrap(),
            region: Region::new("iad").unwrap(),
            lane: LaneName::new(lane).unwrap(),
            verdict,
            age_seconds: Some(0.25),
            since_seconds: 0.0,
            received: 1,
            lost: 0,
            one_way_seconds: None,
            rtt_seconds: None,
            server: String::new(),
            server_version: String::new(),
            cluster: String::new(),
            health: Health::Ok,
        }
    }

    fn snapshot() -> Snapshot {
        Snapshot {
            at: 0.0,
            agent: AgentView {
                version: String::new(),
                host: HostName::new("a").unwrap(),
                region: Region::new("iad").unwrap(),
                uptime_seconds: 0.0,
                health: Health::Ok,
                health_reasons: vec![],
                self_loop_seconds: None,
                loop_lag_seconds: 0.0,
                interval_seconds: 1.0,
                roster: 3,
                state_error: None,
            },
            server: ServerView::default(),
            lanes: vec![],
            regions: vec![],
            probes: vec![],
            sources: vec![
                source("b", "main", Verdict::Ok),
                source("b", "logs", Verdict::Stalled),
                source("c", "main", Verdict::Departed),
            ],
            matrix: vec![],
            faults: vec![],
            remediation: RemediationView {
                mode: "observe".to_owned(),
                reset_unavailable: None,
                actions: vec![],
                blocked: BTreeMap::new(),
                blocking: vec![],
                ledger_damaged: false,
                restarts_left: 2,
                restart_in_progress: false,
                rollout: None,
                last_restart: None,
                last_restart_reason: None,
            },
            permits: PermitsView::default(),
            history: vec![],
            dropped: BTreeMap::new(),
            sys: SysView::default(),
            brownout: vec![],
            audit: AuditView::default(),
        }
    }

    #[test]
    fn hearing_is_the_worst_lane_and_a_departed_host_is_not_unheard() {
        let s = snapshot();
        let b = HostName::new("b").unwrap();
        let hearing = Hearing::from_snapshot(&s, &b);
        assert_eq!(hearing.verdict, Some(Verdict::Stalled));
        assert_eq!((hearing.age_ms, hearing.lane.as_str()), (Some(250), "logs"));
        let unknown = Hearing::from_snapshot(&s, &HostName::new("x").unwrap());
        assert_eq!((unknown.verdict, unknown.age_ms), (None, None));
        assert_eq!(HostStatus::from_snapshot(&s, Beside::default()).unheard, [b]);
    }

    #[test]
    fn a_status_is_as_old_as_its_oldest_read_and_unknown_without_one() {
        let mut s = snapshot();
        assert_eq!(HostStatus::from_snapshot(&s, Beside::default()).age_ms, None);
        for (e, age) in [("varz", 0.1), ("healthz", 0.2), ("routez", 1.5), ("gatewayz", 0.0)] {
            s.server.age_seconds.insert(e.to_owned(), Some(age));
        }
        let status = HostStatus::from_snapshot(&s, Beside::default());
        assert_eq!(status.age_ms, Some(1500));
    }
}
