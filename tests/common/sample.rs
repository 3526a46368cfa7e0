//! Snapshots as an agent could give them.

use std::collections::BTreeMap;

use nats_watchdog::core::canary::beacon::Health;
use nats_watchdog::core::ids::{HostName, LaneName, Region};
use nats_watchdog::core::view::*;

const NOW: f64 = 1_795_500_000.0;
const BOUNDS: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

pub fn host(name: &str) -> HostName {
    HostName::new(name).unwrap()
}

pub fn region(name: &str) -> Region {
    Region::new(name).unwrap()
}

pub fn lane(name: &str) -> LaneName {
    LaneName::new(name).unwrap()
}

fn counts(pairs: &[(&str, u64)]) -> BTreeMap<String, u64> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect()
}

fn histogram(around: usize) -> HistogramView {
    let mut counts = vec![0; BOUNDS.len() + 1];
    counts[around] = 900;
    counts[around + 1] = 90;
    counts[around + 2] = 10;
    HistogramView {
        bounds: BOUNDS.to_vec(),
        sum: BOUNDS[around] * 1000.0,
        counts,
    }
}

fn per_second(messages: f64, bytes: f64) -> RateView {
    RateView { messages, bytes }
}

/// Twelve servers of 2.10.26 in the middle of a storm, with a leak.
fn system() -> SysView {
    let total = |messages, bytes| AmountView { messages, bytes };
    SysView {
        source: Some("account".to_owned()),
        age_seconds: Some(0.8),
        shared_with_jetstream: false,
        received: Some(per_second(64.0, 340_000.0)),
        sent: Some(per_second(61.0, 330_000.0)),
        received_total: total(1_400_000, 7_300_000_000),
        sent_total: total(1_390_000, 7_200_000_000),
        expected: Some(ExpectedView {
            servers: 12,
            clusters: 4,
            received: per_second(1.1, 5_800.0),
            sent: per_second(1.1, 5_800.0),
            worst: per_second(11.0, 58_000.0),
            statsz_bytes: 5_300.0,
            restart: per_second(18.0, 95_000.0),
        }),
        peers: vec![PeerRateView {
            peer: "iad-2".to_owned(),
            received: per_second(21.0, 110_000.0),
        }],
        odd_readings: counts(&[("reset", 1)]),
        churn: ChurnView {
            slow_consumers: counts(&[("clients", 3), ("routes", 0)]),
            slow_consumers_per_minute: [("clients".to_owned(), 1.0), ("routes".to_owned(), 0.0)].into(),
            routes_opened: 44,
            routes_closed: 44,
            gateways_opened: 2,
            gateways_closed: 2,
            pending_bytes: Some(1_200_000),
            stalled_clients: Some(4),
        },
        memory: MemoryView {
            limit_bytes: Some(8 << 30),
            limit_source: Some("cgroup".to_owned()),
            slope_bytes_per_second: Some(150_000.0),
            exhaustion_seconds: Some(43_000.0),
        },
    }
}

fn brownouts() -> Vec<BrownoutView> {
    let off = |scope: &str, of: usize| BrownoutView {
        scope: scope.to_owned(),
        state: "quiet".to_owned(),
        score: 0.3,
        hosts: Some((1, of)),
        ..BrownoutView::default()
    };
    let host = BrownoutView {
        scope: "host".to_owned(),
        on: true,
        state: "brownout".to_owned(),
        score: 5.7,
        since: Some(NOW - 12.0),
        reasons: vec![
            "system traffic of 64 messages/s where 1.1 messages/s are expected and at most 11 messages/s are explained"
                .to_owned(),
        ],
        ends_when: Some("system traffic stays below 6.1 messages/s and 55.8 kB/s for 10s".to_owned()),
        ..BrownoutView::default()
    };
    vec![host, off("region", 3), off("fleet", 12)]
}

/// A small fleet on a bad night: iad-1 looks at iad, fra, syd and gru; one route is being reset, one gateway was given up,
/// and a remote host is cut off by the network.
pub fn full() -> Snapshot {
    let regions = ["fra", "gru", "iad", "syd"];
    Snapshot {
        at: NOW,
        agent: agent("iad-1", "iad"),
        server: server("iad-1"),
        lanes: vec![connected("default"), connected("logs")],
        regions: regions
            .iter()
            .enumerate()
            .flat_map(|(i, r)| ["default", "logs"].map(|l| from_region(r, l, 2 + i * 2)))
            .collect(),
        probes: regions
            .iter()
            .enumerate()
            .flat_map(|(i, r)| ["default", "logs"].map(|l| probes(r, l, 2 + i * 2)))
            .collect(),
        sources: regions
            .iter()
            .flat_map(|r| (1..=3).map(move |n| format!("{r}-{n}")))
            .map(|name| source(&name, "default"))
            .collect(),
        matrix: matrix(&regions),
        faults: faults(),
        remediation: remediation(),
        permits: permits(),
        history: history(),
        dropped: counts(&[("malformed", 2), ("lying", 1)]),
        sys: system(),
        brownout: brownouts(),
        audit: AuditView {
            commands_taken: counts(&[("restart", 2)]),
            commands_refused: counts(&[("unsigned", 1), ("replayed", 3)]),
            events_sent: 40,
            events_dropped: 2,
            records_lost: 0,
        },
    }
}

/// The same host when all is well and little is known yet.
pub fn fresh() -> Snapshot {
    let mut s = full();
    s.agent.health = Health::Warming;
    s.agent.health_reasons = vec!["started 2 s ago".to_owned()];
    s.agent.self_loop_seconds = None;
    s.server = ServerView::default();
    s.server.age_seconds = BTreeMap::from([("varz".to_owned(), None)]);
    for lane in &mut s.lanes {
        lane.connected = false;
    }
    for r in &mut s.regions {
        r.worst = None;
        r.age_seconds = 0.0;
    }
    s.faults.clear();
    s.remediation.last_restart = None;
    s.remediation.last_restart_reason = None;
    s
}

/// A fleet at the size that the series budget is for: 12 regions, 900 hosts, `lanes` lanes, a fault of each kind.
pub fn large(lanes: usize) -> Snapshot {
    let mut s = full();
    let regions: Vec<String> = (0..12).map(|i| format!("r{i}")).collect();
    let lanes: Vec<String> = (0..lanes).map(|i| format!("lane{i}")).collect();
    let pairs = || {
        regions
            .iter()
            .flat_map(|r| lanes.iter().map(move |l| (r.as_str(), l.as_str())))
    };
    s.lanes = lanes.iter().map(|l| connected(l)).collect();
    s.regions = pairs().map(|(r, l)| from_region(r, l, 4)).collect();
    s.probes = pairs().map(|(r, l)| probes(r, l, 4)).collect();
    s.sources = (0..900)
        .flat_map(|n| lanes.iter().map(move |l| source(&format!("r{}-{n}", n % 12), l)))
        .collect();
    s.matrix = matrix(&regions.iter().map(String::as_str).collect::<Vec<_>>());
    let one = s.faults[0].clone();
    s.faults = FaultKind::ALL
        .iter()
        .map(|kind| FaultView {
            kind: *kind,
            region: region("r7"),
            ..one.clone()
        })
        .collect();
    s
}

/// What a second does to counters and clocks.
pub fn tick(s: &mut Snapshot) {
    s.at += 1.0;
    s.agent.uptime_seconds += 1.0;
    for lane in &mut s.lanes {
        lane.sent += 1;
    }
    for r in &mut s.regions {
        r.received += 3;
        r.lost += 1;
        r.late += 1;
        grow(&mut r.one_way);
    }
    for p in &mut s.probes {
        grow(&mut p.rtt);
        for count in p.failures.values_mut() {
            *count += 1;
        }
    }
    for count in s.dropped.values_mut().chain(s.remediation.blocked.values_mut()) {
        *count += 1;
    }
    for count in s.server.slow_consumers.values_mut() {
        *count += 1;
    }
    for action in &mut s.remediation.actions {
        action.count += 1;
    }
    for total in [&mut s.sys.received_total, &mut s.sys.sent_total] {
        total.messages += 1;
        total.bytes += 5_300;
    }
}

fn grow(h: &mut HistogramView) {
    h.counts[4] += 1;
    h.sum += 0.008;
}

fn agent(name: &str, in_region: &str) -> AgentView {
    AgentView {
        version: "0.1.0".to_owned(),
        host: host(name),
        region: region(in_region),
        uptime_seconds: 93_784.0,
        health: Health::Ok,
        health_reasons: Vec::new(),
        self_loop_seconds: Some(0.0004),
        loop_lag_seconds: 0.0011,
        interval_seconds: 1.0,
        roster: 12,
        state_error: None,
    }
}

fn server(name: &str) -> ServerView {
    ServerView {
        up: true,
        error: None,
        age_seconds: [("varz", 0.4), ("healthz", 0.4), ("routez", 1.2), ("gatewayz", 1.2)]
            .map(|(k, v)| (k.to_owned(), Some(v)))
            .into(),
        name: name.to_owned(),
        id: "NDJWE2F4QVHK3YH3VYJ5R2GZTQ4J7Q6N5U2AZ3V6Y6W5Q7X2O3M4L5K6".to_owned(),
        version: "2.10.26".to_owned(),
        cluster: "iad".to_owned(),
        start: Some(NOW - 412_000.0),
        restarts_seen: 1,
        memory_bytes: Some(187_432_960),
        connections: Some(1_284),
        healthy: Some(true),
        health_detail: String::new(),
        lame_duck: false,
        slow_consumers: counts(&[("clients", 3), ("routes", 0), ("gateways", 0), ("leafs", 0)]),
        peers_expected: 2,
        peers_connected: Some(2),
        peers_missing: Vec::new(),
        gateways_expected: 3,
        gateways_connected: Some(2),
        gateways_missing: vec!["gru".to_owned()],
        advice: vec![
            "lanes cover 2 of 4 connections to each peer; slots 1 and 3 carry accounts without a lane".to_owned(),
            "routes to iad-3 are learned by gossip and are dialled again only once; list all peers, or set connect_retries".to_owned(),
        ],
    }
}

fn connected(name: &str) -> LaneView {
    LaneView {
        lane: lane(name),
        connected: true,
        sent: 93_784,
        error: None,
    }
}

fn from_region(name: &str, on: &str, around: usize) -> RegionView {
    let (age, stalled, late) = match name {
        "fra" => (7.4, 1, 0),
        "gru" => (61.0, 3, 0),
        "syd" => (1.8, 0, 1),
        _ => (0.7, 0, 0),
    };
    RegionView {
        region: region(name),
        lane: lane(on),
        received: 280_000,
        lost: stalled * 31,
        late: 12,
        duplicate: 0,
        reordered: 1,
        age_seconds: age,
        worst: Some(host(&format!("{name}-2"))),
        paths: counts(&[
            ("ok", 3 - stalled - late),
            ("late", late),
            ("stalled", stalled),
            ("departed", 0),
            ("warming", 0),
        ]),
        one_way: histogram(around),
        skewed: name == "syd",
    }
}

fn probes(name: &str, on: &str, around: usize) -> ProbeView {
    ProbeView {
        region: region(name),
        lane: lane(on),
        rtt: histogram(around),
        last_seconds: Some(BOUNDS[around]),
        failures: counts(&[("timeout", 4), ("no_responders", 0)]),
    }
}

fn source(name: &str, on: &str) -> SourceView {
    let in_region = name.split('-').next().unwrap();
    let verdict = match name {
        "fra-2" | "gru-1" | "gru-2" | "gru-3" => Verdict::Stalled,
        "syd-3" => Verdict::Late,
        _ => Verdict::Ok,
    };
    SourceView {
        host: host(name),
        region: region(in_region),
        lane: lane(on),
        verdict,
        age_seconds: Some(if verdict == Verdict::Ok { 0.6 } else { 7.4 }),
        since_seconds: if verdict == Verdict::Ok { 93_000.0 } else { 4.4 },
        received: 93_000,
        lost: u64::from(verdict == Verdict::Stalled) * 31,
        one_way_seconds: Some(0.041),
        rtt_seconds: Some(0.083),
        server: name.to_owned(),
        server_version: "2.10.26".to_owned(),
        cluster: in_region.to_owned(),
        health: Health::Ok,
    }
}

fn matrix(regions: &[&str]) -> Vec<MatrixCell> {
    let mut cells = Vec::new();
    for from in regions {
        for to in regions {
            let broken = match (*from, *to) {
                ("gru", to) if to != "gru" => 9,
                ("fra", "iad") => 1,
                _ => 0,
            };
            let here = *to == "iad";
            let far = from != to;
            cells.push(MatrixCell {
                from: region(from),
                to: region(to),
                pairs: if far { 9 } else { 6 },
                broken,
                age_seconds: here.then_some(if broken > 0 { 7.4 } else { 0.8 }),
                loss: here.then_some(if broken > 0 { 0.11 } else { 0.0001 }),
                rtt_seconds: (*from == "iad").then_some(if far { 0.083 } else { 0.0006 }),
            });
        }
    }
    cells
}

fn faults() -> Vec<FaultView> {
    vec![
        FaultView {
            id: "route:fra-2>iad-1".to_owned(),
            kind: FaultKind::Route,
            region: region("fra"),
            from: host("fra-2"),
            to: Some("iad-1".to_owned()),
            lanes: vec![lane("default")],
            since: NOW - 7.0,
            evidence: "iad-1 has not heard fra-2 for 7.4 s; iad-2 and iad-3 hear it; fra-2 hears iad-1".to_owned(),
            network_ok: Some(true),
            remedy: "resetting".to_owned(),
        },
        FaultView {
            id: "gateway:gru-1>iad".to_owned(),
            kind: FaultKind::Gateway,
            region: region("gru"),
            from: host("gru-1"),
            to: Some("iad".to_owned()),
            lanes: vec![lane("default"), lane("logs")],
            since: NOW - 340.0,
            evidence: "none of 3 hosts of iad hears gru-1; gru-2 is heard there; three resets did not help".to_owned(),
            network_ok: Some(true),
            remedy: "gave up".to_owned(),
        },
        FaultView {
            id: "network:gru-3".to_owned(),
            kind: FaultKind::Network,
            region: region("gru"),
            from: host("gru-3"),
            to: None,
            lanes: vec![lane("default"), lane("logs")],
            since: NOW - 61.0,
            evidence: "nobody hears gru-3; no TCP connection to 10.9.3.3:6222 within 2 s".to_owned(),
            network_ok: Some(false),
            remedy: "blocked: the network or the server is down, a restart here heals nothing".to_owned(),
        },
    ]
}

fn permits() -> PermitsView {
    PermitsView {
        store: "register".to_owned(),
        age_seconds: Some(4.0),
        error: None,
        held: Some("acting".to_owned()),
        holders: vec![HolderView {
            host: host("iad-1"),
            region: region("iad"),
            why: "route:fra-1>iad-1".to_owned(),
            state: "acting".to_owned(),
            since: 1_700_000_000.0,
            until: 1_700_000_300.0,
            note: String::new(),
        }],
        pauses: vec![PauseView {
            scope: "region fra".to_owned(),
            kind: "region".to_owned(),
            here: false,
            who: "ann@ops".to_owned(),
            why: "network work".to_owned(),
            since: 1_700_000_000.0,
            until: Some(1_700_007_200.0),
        }],
    }
}

fn remediation() -> RemediationView {
    let action = |action: &str, reason: &str, outcome: &str, count| ActionCount {
        action: action.to_owned(),
        reason: reason.to_owned(),
        outcome: outcome.to_owned(),
        count,
    };
    RemediationView {
        mode: "restart".to_owned(),
        reset_unavailable: None,
        actions: vec![
            action("reset", "gateway", "failed", 3),
            action("reset", "route", "healed", 5),
            action("reset", "route", "started", 6),
            action("restart", "gateway", "would", 1),
        ],
        blocked: counts(&[("network_down", 12), ("too_many_sick", 2)]),
        blocking: vec![
            "the network to gru-3 is down: no TCP connection to 10.9.3.3:6222".to_owned(),
            "4 of 12 hosts are sick, at most 1 may be: this is an incident, not a host".to_owned(),
        ],
        ledger_damaged: false,
        restarts_left: 0,
        restart_in_progress: false,
        rollout: Some(nats_watchdog::core::control::roll::OpenRollout {
            id: "5f0c2a91".to_owned(),
            term: 0,
            seq: 3,
            by: "ops@desk".to_owned(),
            reason: "upgrade to 2.10.26".to_owned(),
            started_ms: 1_795_499_000_000,
            hosts: 12,
            proved: 2,
            halted: None,
        }),
        last_restart: Some(NOW - 1_900.0),
        last_restart_reason: Some("route".to_owned()),
    }
}

fn history() -> Vec<Record> {
    let record = |ago: f64, event: &str, subject: &str, text: &str| Record {
        at: NOW - ago,
        event: event.to_owned(),
        subject: subject.to_owned(),
        text: text.to_owned(),
        ..Record::default()
    };
    vec![
        record(
            1900.0,
            "act",
            "route:iad-2>iad-1",
            "restarting nats-server.service: two resets did not help",
        ),
        record(
            1888.0,
            "outcome",
            "route:iad-2>iad-1",
            "healed 12 s after the restart began",
        ),
        record(
            340.0,
            "fault",
            "gateway:gru-1>iad",
            "none of 3 hosts of iad hears gru-1",
        ),
        record(
            333.0,
            "act",
            "gateway:gru-1>iad",
            "resetting 10.9.1.1:48112 > 10.9.3.1:7222",
        ),
        record(
            61.0,
            "fault",
            "network:gru-3",
            "nobody hears gru-3; no TCP connection to 10.9.3.3:6222 within 2 s",
        ),
        record(
            60.0,
            "refused",
            "network:gru-3",
            "the network or the server is down, a restart here heals nothing",
        ),
        record(7.0, "fault", "route:fra-2>iad-1", "iad-1 has not heard fra-2 for 7.4 s"),
        record(
            4.0,
            "act",
            "route:fra-2>iad-1",
            "resetting 10.9.1.1:51442 > 10.9.2.2:6222, the one connection that stalled",
        ),
    ]
}
