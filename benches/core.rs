//! What the pure core costs in a fleet of 900 hosts: beacons, ticks, the diagnosis, the snapshot, `/metrics`.
#![allow(missing_docs)]

use std::sync::Arc;
use std::time::Duration;

use divan::counter::ItemsCount;
use divan::{AllocProfiler, Bencher, black_box};
use nats_watchdog::core::agent::event::{Event, RosterEntry};
use nats_watchdog::core::agent::{Core, Restored, TICK};
use nats_watchdog::core::canary::beacon::{Beacon, Source};
use nats_watchdog::core::ids::{HostName, LaneName, Mono, Now, Region, Wall};
use nats_watchdog::core::mesh::{Evidence, Place, diagnose};
use nats_watchdog::core::policy::{Brownout, Canary, Mode, Policy, Remediation, RestartWays};
use nats_watchdog::core::server::{Endpoint, Route, Sample, Varz};
use nats_watchdog::core::sys::reading::{AccountTraffic, Accstatz, Tally};
use nats_watchdog::telemetry::metrics::render;

/// Counts allocations, so that the memory of a source is shown beside the time.
#[global_allocator]
static ALLOC: AllocProfiler = AllocProfiler::system();

const HOSTS: usize = 900;
const REGIONS: usize = 10;
const STALLS: usize = 50;

fn main() {
    divan::main();
}

fn now(at: Duration) -> Now {
    Now {
        mono: Mono(at),
        wall: Wall(Duration::from_secs(1_800_000_000) + at),
    }
}

fn lane() -> LaneName {
    LaneName::new("main").expect("a name")
}

fn region(n: usize) -> Region {
    Region::new(&format!("r{}", n % REGIONS)).expect("a name")
}

fn host(n: usize) -> HostName {
    HostName::new(&format!("r{}-{n}", n % REGIONS)).expect("a name")
}

fn policy() -> Policy {
    Policy {
        host: HostName::new("iad-1").expect("a name"),
        region: Region::new("iad").expect("a name"),
        lanes: vec![lane()],
        canary: Canary::default(),
        remediation: Remediation {
            mode: Mode::Observe,
            ..Remediation::default()
        },
        brownout: Brownout::default(),
        permits: Default::default(),
        restart_deadline: Duration::from_secs(60),
        has_unit: false,
        restart: RestartWays::default(),
        version: "bench".to_owned(),
    }
}

fn beacon(source: &Source, n: usize) -> Beacon {
    let beacon = Beacon {
        interval: 1800,
        sent: 1_800_000_000_000_000,
        server_id: format!("N{n:055}"),
        server: format!("nats-{}", source.host),
        server_version: "2.10.26".to_owned(),
        cluster: source.region.to_string(),
        route: format!("10.0.{}.{}:6222", n / 256, n % 256),
        gateway: format!("10.0.{}.{}:7222", n / 256, n % 256),
        hears: 899,
        ..Beacon::new(source.host.clone(), source.region.clone())
    };
    beacon.sealed()
}

/// A core among `HOSTS` others that all speak, and the events of one round.
struct Fleet {
    core: Core,
    round: Vec<Event>,
    at: Duration,
}

impl Fleet {
    fn new() -> Self {
        let core = Core::new(policy(), Restored::default(), 0.0, now(Duration::ZERO));
        let round = (0..HOSTS).map(|n| {
            let source = Source {
                region: region(n),
                host: host(n),
            };
            Event::Beacon {
                lane: lane(),
                beacon: Arc::new(beacon(&source, n)),
                source,
            }
        });
        let mut fleet = Self {
            core,
            round: round.collect(),
            at: Duration::ZERO,
        };
        fleet.tell(Event::Connection {
            lane: lane(),
            state: Ok(()),
        });
        // Until everybody is judged.
        for _ in 0..8 {
            fleet.second();
        }
        fleet
    }

    fn tell(&mut self, event: Event) {
        // Its own beacon comes back at once, else the core would believe nothing.
        for action in self.core.handle(event, now(self.at)) {
            if let nats_watchdog::core::agent::event::Action::Publish { lane, beacon } = action {
                let source = Source {
                    region: beacon.region.clone(),
                    host: beacon.host.clone(),
                };
                let own = Event::Beacon { lane, source, beacon };
                self.core.handle(own, now(self.at));
            }
        }
    }

    fn next_round(&mut self) {
        for event in &mut self.round {
            if let Event::Beacon { beacon, .. } = event {
                Arc::make_mut(beacon).seq += 1;
            }
        }
    }

    /// A second and a bit: a round of beacons, and ticks.
    fn second(&mut self) {
        self.next_round();
        for event in self.round.clone() {
            self.tell(event);
        }
        for _ in 0..18 {
            self.at += TICK;
            self.tell(Event::Tick);
        }
    }
}

#[divan::bench]
fn beacons_of_900_sources(bencher: Bencher<'_, '_>) {
    let mut fleet = Fleet::new();
    bencher
        .counter(ItemsCount::new(HOSTS))
        .with_inputs(|| {
            fleet.at += Duration::from_millis(1);
            fleet.next_round();
            (fleet.core.clone(), fleet.round.clone(), now(fleet.at))
        })
        .bench_local_values(|(mut core, round, at)| {
            for event in round {
                black_box(core.handle(event, at));
            }
            core
        });
}

fn ten_ticks(bencher: Bencher<'_, '_>, fleet: &Fleet) {
    bencher
        .with_inputs(|| fleet.core.clone())
        .bench_local_values(|mut core| {
            for n in 1..=10 {
                black_box(core.handle(Event::Tick, now(fleet.at + TICK * n)));
            }
            core
        });
}

#[divan::bench]
fn a_second_of_ticks_among_900_sources(bencher: Bencher<'_, '_>) {
    let fleet = Fleet::new();
    ten_ticks(bencher, &fleet);
}

/// The regions have fallen apart in two halves of 450 hosts; nobody here hears the other one, and everybody says so.
#[divan::bench]
fn a_second_of_ticks_in_a_partition(bencher: Bencher<'_, '_>) {
    let mut fleet = Fleet::new();
    let away = |n: usize| n % REGIONS >= REGIONS / 2;
    let deaf: Vec<HostName> = (0..HOSTS).filter(|n| away(*n)).map(host).take(24).collect();
    let more = |r: usize| (region(r), 90 - u32::from(r < REGIONS / 2 + 5) * 5);
    let mut n = 0;
    fleet.round.retain(|_| {
        n += 1;
        !away(n - 1)
    });
    for event in &mut fleet.round {
        if let Event::Beacon { beacon, .. } = event {
            let beacon = Arc::make_mut(beacon);
            beacon.deaf.clone_from(&deaf);
            beacon.deaf_more = (REGIONS / 2..REGIONS).map(more).collect();
            beacon.hears = 449;
            *beacon = beacon.clone().sealed();
        }
    }
    for _ in 0..6 {
        fleet.second();
    }
    assert!(fleet.core.snapshot(now(fleet.at)).faults.len() > 10);
    ten_ticks(bencher, &fleet);
}

/// What `max alloc` shows, divided by 900, is the memory of one source.
#[divan::bench]
fn memory_of_900_sources(bencher: Bencher<'_, '_>) {
    let fleet = Fleet::new();
    bencher
        .counter(ItemsCount::new(HOSTS))
        .bench_local(|| black_box(&fleet.core).clone());
}

#[divan::bench]
fn snapshot_of_900_sources(bencher: Bencher<'_, '_>) {
    let fleet = Fleet::new();
    bencher.bench_local(|| black_box(&fleet.core).snapshot(now(fleet.at)));
}

#[divan::bench]
fn metrics_of_900_sources(bencher: Bencher<'_, '_>) {
    let fleet = Fleet::new();
    let snapshot = fleet.core.snapshot(now(fleet.at));
    assert_eq!(snapshot.sources.len(), HOSTS);
    bencher.bench_local(|| render(black_box(&snapshot)));
}

#[divan::bench]
fn decoding_900_beacons(bencher: Bencher<'_, '_>) {
    let wire: Vec<(String, Vec<u8>)> = (0..HOSTS)
        .map(|n| {
            let source = Source {
                region: region(n),
                host: host(n),
            };
            let subject = Beacon::subject("watchdog", &source.region, &source.host);
            (subject, beacon(&source, n).encode())
        })
        .collect();
    bencher.counter(ItemsCount::new(HOSTS)).bench(|| {
        for (subject, payload) in &wire {
            black_box(Beacon::decode("watchdog", subject, payload)).expect("it was made by encode");
        }
    });
}

/// Everybody can be believed, and `stalls` pairs within a cluster do not hear each other.
fn evidence(stalls: usize) -> Evidence {
    let mut e = Evidence {
        lanes: 1,
        ..Evidence::default()
    };
    for n in 0..HOSTS {
        let place = Place {
            region: region(n),
            cluster: region(n).to_string(),
            entries: std::collections::BTreeMap::new(),
        };
        e.members.insert(host(n), place.into());
        e.receivers.insert(host(n));
    }
    for n in 0..stalls {
        let pair = (host(n), host(n + REGIONS * (1 + n % 7)));
        e.deaf.insert(pair, std::sync::Arc::new([lane()].into()));
    }
    e
}

#[divan::bench(args = [0, STALLS])]
fn diagnosis_of_900_hosts(bencher: Bencher<'_, '_>, stalls: usize) {
    let e = evidence(stalls);
    assert!(diagnose(&e).len() >= stalls.min(1));
    bencher.bench(|| diagnose(black_box(&e)));
}

/// Everybody misses 24 others of its cluster, each other ones.
#[divan::bench(sample_count = 3, sample_size = 1)]
fn diagnosis_of_900_hosts_with_21600_stalls(bencher: Bencher<'_, '_>) {
    let mut e = evidence(0);
    for n in 0..HOSTS * 24 {
        let pair = (host(n % HOSTS), host((n + REGIONS * (1 + n / HOSTS)) % HOSTS));
        e.deaf.insert(pair, std::sync::Arc::new([lane()].into()));
    }
    bencher.bench(|| diagnose(black_box(&e)));
}

#[divan::bench]
fn restoring_a_roster_of_900(bencher: Bencher<'_, '_>) {
    let entry = |n: usize| RosterEntry {
        host: host(n),
        region: region(n),
        lanes: vec![lane()],
        server: format!("nats-{n}"),
        cluster: region(n).to_string(),
        route: String::new(),
        gateway: String::new(),
        heard: now(Duration::ZERO).wall,
        departed: false,
    };
    let restored = Restored {
        roster: (0..HOSTS).map(entry).collect(),
        ..Restored::default()
    };
    bencher
        .with_inputs(|| restored.clone())
        .bench_values(|r| Core::new(policy(), r, 0.0, now(Duration::ZERO)));
}

/// One poll of the system traffic: routes of 99 peers with four connections each, the account, the model of 900 servers,
/// detector, explanations and scopes.
#[divan::bench]
fn one_poll_of_system_traffic_among_900(bencher: Bencher<'_, '_>) {
    let mut fleet = Fleet::new();
    let varz = Varz {
        server_id: "ME".to_owned(),
        version: "2.10.26".to_owned(),
        cluster: Some("r0".to_owned()),
        system_account: "$SYS".to_owned(),
        pool_size: Some(3),
        remotes: 99,
        ..Varz::default()
    };
    let good = |endpoint, sample| Event::Server {
        endpoint,
        result: Ok(sample),
    };
    fleet.tell(good(Endpoint::Varz, Sample::Varz(Box::new(varz))));
    let mut n = 0_u64;
    bencher.bench_local(|| {
        n += 180;
        fleet.at += Duration::from_secs(2);
        let route = |i: u64| Route {
            rid: i,
            remote_id: format!("N{:055}", i / 4).into(),
            account: i.is_multiple_of(4).then(|| "$SYS".into()),
            in_msgs: n / 99,
            in_bytes: n * 4_000,
            ..Route::default()
        };
        let accstatz = Accstatz {
            server_id: "ME".to_owned(),
            system: Some(AccountTraffic {
                received: Tally {
                    msgs: n,
                    bytes: n * 400_000,
                },
                ..AccountTraffic::default()
            }),
            ..Accstatz::default()
        };
        fleet.tell(good(Endpoint::Routez, Sample::Routez((0..396).map(route).collect())));
        fleet.tell(good(Endpoint::Accstatz, Sample::Accstatz(accstatz)));
    });
}
