//! A snapshot for tests: a host in trouble, so that every sentence has something to say.

use std::collections::BTreeMap;

use crate::core::canary::beacon::Health;
use crate::core::ids::{HostName, LaneName, Region};
use crate::core::view::*;

/// 2026-11-24T14:00:00Z.
const AT: f64 = 1_795_528_800.0;

pub(super) fn host(name: &str) -> HostName {
    HostName::new(name).unwrap()
}

fn region(name: &str) -> Region {
    Region::new(name).unwrap()
}

fn main_lane() -> LaneName {
    LaneName::new("main").unwrap()
}

fn source(name: &str, verdict: Verdict, age: Option<f64>) -> SourceView {
    SourceView {
        host: host(name),
        region: region(&name[..3]),
        lane: main_lane(),
        verdict,
        age_seconds: age,
        since_seconds: 184.0,
        received: 9_000,
        lost: 3,
        one_way_seconds: Some(0.0008),
        rtt_seconds: Some(0.0021),
        server: format!("nats-{name}"),
        server_version: "2.10.26".into(),
        cluster: name[..3].into(),
        health: Health::Ok,
    }
}

fn regions() -> Vec<RegionView> {
    let view = |name: &str, ok: u64, stalled: u64, skewed: bool| RegionView {
        region: region(name),
        lane: main_lane(),
        received: 9_000,
        lost: stalled * 3,
        late: 1,
        duplicate: 0,
        reordered: 0,
        age_seconds: if stalled > 0 { 184.0 } else { 0.8 },
        worst: Some(host(&format!("{name}-2"))),
        paths: BTreeMap::from([
            ("ok".into(), ok),
            ("late".into(), 0),
            ("stalled".into(), stalled),
            ("departed".into(), 0),
            ("warming".into(), 0),
        ]),
        one_way: HistogramView {
            bounds: vec![0.001, 0.01],
            counts: vec![2, 2, 0],
            sum: 0.008,
        },
        skewed,
    };
    vec![view("fra", 2, 0, true), view("iad", 1, 1, false)]
}

fn server() -> ServerView {
    ServerView {
        up: true,
        age_seconds: BTreeMap::from([("varz".into(), Some(0.4)), ("routez".into(), Some(2.1))]),
        name: "nats-iad-1".into(),
        id: "NDABC".into(),
        version: "2.10.26".into(),
        cluster: "iad".into(),
        start: Some(AT - 349_200.0),
        memory_bytes: Some(52 << 20),
        connections: Some(12),
        healthy: Some(true),
        slow_consumers: BTreeMap::from([("clients".into(), 1), ("routes".into(), 0)]),
        peers_expected: 2,
        peers_connected: Some(1),
        peers_missing: vec!["iad-3".into()],
        gateways_expected: 1,
        gateways_connected: Some(1),
        advice: vec![
            "routes are learned by gossip: list all peers or set connect_retries, or a cut leaves a hole".into(),
        ],
        ..ServerView::default()
    }
}

fn fault() -> FaultView {
    FaultView {
        id: "route:iad-2>iad-1".into(),
        kind: FaultKind::Route,
        region: region("iad"),
        from: host("iad-2"),
        to: Some("iad-1".into()),
        lanes: vec![main_lane()],
        since: AT - 184.0,
        evidence: "iad-1 hears nothing from iad-2, which hears iad-1 and is heard by 2 others".into(),
        network_ok: Some(true),
        remedy: "blocked: mode is observe".into(),
    }
}

fn remediation() -> RemediationView {
    RemediationView {
        mode: "observe".into(),
        reset_unavailable: Some("the agent lacks CAP_NET_ADMIN".into()),
        actions: vec![ActionCount {
            action: "reset".into(),
            reason: "route".into(),
            outcome: "would".into(),
            count: 2,
        }],
        blocked: BTreeMap::from([("mode".into(), 2)]),
        blocking: vec!["route:iad-2>iad-1 by no_witness: no other host proves that iad-2 is alive".into()],
        ledger_damaged: false,
        restarts_left: 2,
        restart_in_progress: false,
        rollout: None,
        last_restart: Some(AT - 86_400.0),
        last_restart_reason: Some("route iad-2>iad-1".into()),
    }
}

/// A host in trouble.
fn system(messages: f64, bytes: f64) -> SysView {
    let quiet = RateView {
        messages: 1.1,
        bytes: 5_800.0,
    };
    SysView {
        source: Some("account".into()),
        age_seconds: Some(0.8),
        shared_with_jetstream: false,
        received: Some(RateView { messages, bytes }),
        sent: Some(RateView { messages, bytes }),
        expected: Some(ExpectedView {
            servers: 12,
            clusters: 4,
            received: quiet,
            sent: quiet,
            statsz_bytes: 5_300.0,
            ..ExpectedView::default()
        }),
        peers: vec![PeerRateView {
            peer: "iad-2".into(),
            received: RateView {
                messages: 21.0,
                bytes: 110_000.0,
            },
        }],
        churn: ChurnView {
            slow_consumers_per_minute: BTreeMap::from([("clients".into(), 2.0), ("routes".into(), 0.0)]),
            pending_bytes: Some(1_200_000),
            ..ChurnView::default()
        },
        memory: MemoryView {
            limit_bytes: Some(8 << 30),
            limit_source: Some("cgroup".into()),
            slope_bytes_per_second: Some(190_000.0),
            exhaustion_seconds: Some(43_000.0),
        },
        ..SysView::default()
    }
}

fn brownouts(on: bool) -> Vec<BrownoutView> {
    let off = |scope: &str, hosts| BrownoutView {
        scope: scope.into(),
        state: "quiet".into(),
        score: 0.3,
        hosts,
        ..BrownoutView::default()
    };
    let mut all = vec![
        off("host", None),
        off("region", Some((1, 3))),
        off("fleet", Some((1, 12))),
    ];
    if on {
        all[0] = BrownoutView {
            on: true,
            state: "brownout".into(),
            score: 5.7,
            since: Some(AT - 12.0),
            reasons: vec!["system traffic of 64 messages/s where 1.1 messages/s are expected".into()],
            explanations: vec!["fra-1 restarted 8 s ago".into()],
            ends_when: Some("system traffic stays below 6.1 messages/s for 10s".into()),
            ..off("host", None)
        };
    }
    all
}

pub(super) fn troubled() -> Snapshot {
    let cell = |from: &str, to: &str, broken: u64, here: bool| MatrixCell {
        from: region(from),
        to: region(to),
        pairs: 4,
        broken,
        age_seconds: here.then_some(0.8),
        loss: here.then_some(if broken > 0 { 0.0125 } else { 0.0 }),
        rtt_seconds: here.then_some(0.0021),
    };
    let record = |at: f64, event: &str, subject: &str, text: &str| Record {
        at,
        event: event.into(),
        subject: subject.into(),
        text: text.into(),
        ..Record::default()
    };
    Snapshot {
        at: AT,
        agent: AgentView {
            version: "0.1.0".into(),
            host: host("iad-1"),
            region: region("iad"),
            uptime_seconds: 7_380.0,
            health: Health::Ok,
            health_reasons: Vec::new(),
            self_loop_seconds: Some(0.00042),
            loop_lag_seconds: 0.0001,
            interval_seconds: 1.0,
            roster: 4,
            state_error: Some("state.directory is not set".into()),
        },
        server: server(),
        lanes: vec![LaneView {
            lane: LaneName::new("logs").unwrap(),
            connected: false,
            sent: 0,
            error: Some("authorization violation".into()),
        }],
        regions: regions(),
        probes: vec![ProbeView {
            region: region("fra"),
            lane: main_lane(),
            rtt: HistogramView::default(),
            last_seconds: Some(0.0871),
            failures: BTreeMap::from([("timeout".into(), 2)]),
        }],
        sources: vec![
            source("iad-2", Verdict::Stalled, Some(184.0)),
            source("fra-1", Verdict::Ok, Some(0.4)),
            source("fra-2", Verdict::Warming, None),
        ],
        matrix: vec![
            cell("fra", "fra", 0, false),
            cell("fra", "iad", 0, true),
            cell("iad", "fra", 0, false),
            cell("iad", "iad", 1, true),
        ],
        faults: vec![fault()],
        remediation: remediation(),
        permits: permits(),
        history: vec![
            record(
                AT - 184.0,
                "fault",
                "route:iad-2>iad-1",
                "iad-1 hears nothing from iad-2",
            ),
            record(
                AT - 183.0,
                "would",
                "route:iad-2>iad-1",
                "reset the route to iad-2, but the mode is observe",
            ),
        ],
        dropped: BTreeMap::new(),
        sys: system(64.0, 340_000.0),
        brownout: brownouts(true),
        audit: AuditView::default(),
    }
}

fn permits() -> PermitsView {
    PermitsView {
        store: "register".into(),
        age_seconds: Some(4.0),
        error: None,
        held: Some("failed".into()),
        holders: vec![
            HolderView {
                host: host("iad-1"),
                region: region("iad"),
                why: "route:iad-2>iad-1".into(),
                state: "failed".into(),
                since: AT - 600.0,
                until: AT + 300.0,
                note: "the restart did not heal it".into(),
            },
            HolderView {
                host: host("fra-1"),
                region: region("fra"),
                why: "ordered by ann@ops: certificates".into(),
                state: "acting".into(),
                since: AT - 20.0,
                until: AT + 280.0,
                note: String::new(),
            },
        ],
        pauses: vec![
            PauseView {
                scope: "region iad".into(),
                kind: "region".into(),
                here: true,
                who: "ann@ops".into(),
                why: "network work".into(),
                since: AT - 3600.0,
                until: Some(AT + 3600.0),
            },
            PauseView {
                scope: "host fra-2".into(),
                kind: "host".into(),
                here: false,
                who: "bob@ops".into(),
                why: "disk".into(),
                since: AT - 60.0,
                until: None,
            },
        ],
    }
}

/// The same host when all is well and nothing has happened.
pub(super) fn well() -> Snapshot {
    let mut s = troubled();
    s.faults.clear();
    s.lanes.clear();
    s.history.clear();
    s.sources.retain(|source| source.verdict == Verdict::Ok);
    s.sys = system(1.2, 5_900.0);
    s.sys.churn = ChurnView::default();
    s.sys.memory = MemoryView::default();
    s.brownout = brownouts(false);
    s.permits.holders.clear();
    s.permits.pauses.clear();
    s.permits.held = None;
    s.agent.state_error = None;
    s.server.advice.clear();
    s.server.peers_missing.clear();
    s.server.peers_connected = Some(2);
    s.regions.truncate(1);
    s.remediation = RemediationView {
        mode: "restart".into(),
        reset_unavailable: None,
        actions: Vec::new(),
        blocked: BTreeMap::new(),
        blocking: Vec::new(),
        ledger_damaged: false,
        restarts_left: 2,
        restart_in_progress: false,
        rollout: None,
        last_restart: None,
        last_restart_reason: None,
    };
    s
}

/// Its server does not answer and the agent is cut off.
pub(super) fn dark() -> Snapshot {
    let mut s = well();
    s.agent.health = Health::Sick;
    s.agent.health_reasons = vec!["its own beacon is overdue by 4 s".into()];
    s.agent.self_loop_seconds = None;
    s.server = ServerView {
        error: Some("nothing listens at http://127.0.0.1:8222".into()),
        ..ServerView::default()
    };
    s.regions.clear();
    s.matrix.clear();
    s.sources.clear();
    s.sys = SysView::default();
    (s.permits.age_seconds, s.permits.error) = (Some(700.0), Some("connection refused".into()));
    s
}
