//! Recorded monitoring of real servers (`watchdog-lab record`), read by the real parser into a real core, in stepped time.
//!
//! Beacons are not in the recordings: each peer that the server has a route to says once a second which server it runs. Before
//! 2.10 `/routez` has no names: the server that comes next is taken for the one that left first, as it was.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use nats_watchdog::adapters::server::parse::{parse_accstatz, parse_routez, parse_varz};
use nats_watchdog::core::agent::event::{Action, Event};
use nats_watchdog::core::agent::{Core, Restored, TICK};
use nats_watchdog::core::canary::beacon::{Beacon, Source};
use nats_watchdog::core::ids::{HostName, LaneName, Mono, Now, Region, Wall};
use nats_watchdog::core::policy::{Brownout, Canary, Mode, Permits, Policy, Remediation, RestartWays};
use nats_watchdog::core::server::{Endpoint, Gatewayz, Route, Sample};

/// How long the servers were up when a recording began; they speak differently in their first minute.
const UP: Duration = Duration::from_secs(100);

struct Replay {
    core: Core,
    began: Duration,
    now: Duration,
    seq: u64,
    version: String,
    cluster: String,
    system: String,
    peers: BTreeMap<String, String>,
    away: VecDeque<String>,
    /// Seconds, event, text of what is about the host itself.
    told: Vec<(f64, String, String)>,
    /// Seconds and ids of servers that the routes no longer lead to.
    left: Vec<(f64, BTreeSet<String>)>,
    /// Seconds in which the host itself explained its traffic.
    explained: Vec<f64>,
    worst: f64,
    /// Reads of the counters.
    reads: u64,
}

fn region() -> Region {
    Region::new("r").unwrap()
}

fn lane() -> LaneName {
    LaneName::new("main").unwrap()
}

impl Replay {
    fn of(file: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fixtures/sys")
            .join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        let policy = Policy {
            host: HostName::new("replayed").unwrap(),
            region: region(),
            lanes: vec![lane()],
            canary: Canary::default(),
            remediation: Remediation {
                mode: Mode::Restart,
                ..Remediation::default()
            },
            brownout: Brownout::default(),
            permits: Permits::default(),
            restart_deadline: Duration::from_secs(60),
            has_unit: false,
            restart: RestartWays::default(),
            version: "test".to_owned(),
        };
        let first: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        let start = parse_varz(&first["varz"].to_string().into_bytes())
            .unwrap()
            .start
            .unwrap();
        let began = start.0 + UP;
        let now = Now {
            mono: Mono(Duration::ZERO),
            wall: Wall(began),
        };
        let mut replay = Self {
            core: Core::new(policy, Restored::default(), 0.0, now),
            began,
            now: Duration::ZERO,
            seq: 0,
            version: String::new(),
            cluster: String::new(),
            system: String::new(),
            peers: BTreeMap::new(),
            away: VecDeque::new(),
            told: Vec::new(),
            left: Vec::new(),
            explained: Vec::new(),
            worst: 0.0,
            reads: 0,
        };
        replay.event(Event::Connection {
            lane: lane(),
            state: Ok(()),
        });
        for line in text.lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            replay.until(Duration::from_secs_f64(line["at"].as_f64().unwrap()));
            replay.read(&line);
        }
        assert!(replay.reads > 50, "{} reads of the counters", replay.reads);
        replay
    }

    fn at(&self) -> Now {
        Now {
            mono: Mono(self.now),
            wall: Wall(self.began + self.now),
        }
    }

    fn event(&mut self, event: Event) {
        for action in self.core.handle(event, self.at()) {
            match action {
                Action::Publish { lane, beacon } => {
                    let source = Source {
                        region: region(),
                        host: HostName::new("replayed").unwrap(),
                    };
                    self.event(Event::Beacon { lane, source, beacon });
                }
                Action::Record(r) if r.subject == "host" || r.subject == "replayed" => {
                    self.told.push((self.now.as_secs_f64(), r.event, r.text));
                }
                _ => {}
            }
        }
    }

    fn until(&mut self, to: Duration) {
        while self.now + TICK <= to {
            self.now += TICK;
            if self.now.as_millis().is_multiple_of(1_000) {
                self.beacons();
            }
            self.event(Event::Tick);
        }
    }

    fn beacons(&mut self) {
        self.seq += 1;
        for (name, id) in self.peers.clone() {
            let source = Source {
                region: region(),
                host: HostName::new(&name).unwrap(),
            };
            let beacon = Beacon {
                seq: self.seq,
                server_id: id,
                server: name,
                server_version: self.version.clone(),
                cluster: self.cluster.clone(),
                hears: u32::try_from(self.peers.len()).unwrap(),
                ..Beacon::new(source.host.clone(), region())
            };
            self.event(Event::Beacon {
                lane: lane(),
                source,
                beacon: Arc::new(beacon.sealed()),
            });
        }
    }

    fn read(&mut self, line: &Value) {
        let body = |key: &str| line.get(key).map(|v| v.to_string().into_bytes());
        if let Some(body) = body("varz") {
            let varz = parse_varz(&body).unwrap();
            self.version.clone_from(&varz.version);
            self.system.clone_from(&varz.system_account);
            self.cluster = varz.cluster.clone().unwrap_or_default();
            self.take(Endpoint::Varz, Sample::Varz(Box::new(varz)));
            self.take(Endpoint::Gatewayz, Sample::Gatewayz(Gatewayz::default()));
        }
        if let Some(body) = body("routez") {
            let routes = parse_routez(&body).unwrap();
            self.see(&routes);
            self.take(Endpoint::Routez, Sample::Routez(routes));
        }
        if let Some(body) = body("accstatz") {
            let accstatz = parse_accstatz(&body, &self.system).unwrap();
            self.take(Endpoint::Accstatz, Sample::Accstatz(accstatz));
            self.reads += 1;
        }
        let own = self.core.snapshot(self.at()).brownout.swap_remove(0);
        if !own.explanations.is_empty() {
            self.explained.push(self.now.as_secs_f64());
        }
        self.worst = self.worst.max(own.score);
    }

    fn see(&mut self, routes: &[Route]) {
        let seen: BTreeMap<&str, &str> = routes.iter().map(|r| (&*r.remote_id, &*r.remote_name)).collect();
        let mut left = BTreeSet::new();
        for (name, id) in std::mem::take(&mut self.peers) {
            if seen.contains_key(id.as_str()) {
                self.peers.insert(name, id);
            } else {
                left.insert(id);
                self.away.push_back(name);
            }
        }
        let known: BTreeSet<String> = self.peers.values().cloned().collect();
        for (id, name) in seen.into_iter().filter(|(id, _)| !known.contains(*id)) {
            let name = match name {
                "" => self
                    .away
                    .pop_front()
                    .unwrap_or_else(|| format!("h{}", self.peers.len())),
                name => name.to_owned(),
            };
            self.peers.insert(name, id.to_owned());
        }
        if !left.is_empty() {
            self.left.push((self.now.as_secs_f64(), left));
        }
    }

    fn take(&mut self, endpoint: Endpoint, sample: Sample) {
        let result = Ok(sample);
        self.event(Event::Server { endpoint, result });
    }

    /// When the host itself told such an event.
    fn times(&self, event: &str) -> Vec<f64> {
        self.told
            .iter()
            .filter(|(_, e, _)| e == event)
            .map(|(t, ..)| *t)
            .collect()
    }

    /// Departures within ten seconds of each other are one: when it began, and how many servers.
    fn departures(&self) -> Vec<(f64, usize)> {
        let mut all: Vec<(f64, usize)> = Vec::new();
        for (at, ids) in &self.left {
            match all.last_mut() {
                Some((t, n)) if at - *t < 10.0 => *n += ids.len(),
                _ => all.push((*at, ids.len())),
            }
        }
        all
    }
}

/// `watchdog-lab storm --hosts 40 1 3` on 2.9.10, as two servers that were not restarted tell it, twice. In the first run the
/// machine was very busy: the three took some seconds to come back, which makes the storm slower than it would be.
#[test]
fn of_forty_old_servers_one_restart_is_explained_and_three_at_once_are_a_brownout() {
    for (run, limit) in [("a", 10.0), ("b", 10.0), ("c", 5.0), ("d", 5.0)] {
        let file = &format!("storm-2.9.10-40-{run}.jsonl");
        let r = Replay::of(file);
        let departures = r.departures();
        let [(one, 1), (three, 3)] = departures[..] else {
            panic!("{file}: {departures:?}");
        };
        let began = r.times("brownout");
        assert_eq!(began.len(), 1, "{file}: {departures:?} {:?}", r.told);
        assert!(
            r.explained.iter().any(|t| (one..one + 20.0).contains(t)),
            "{file}: {departures:?} {:?}",
            r.explained
        );
        assert!(
            (three - 2.0..three + limit).contains(&began[0]),
            "{file}: {departures:?} {:?}",
            r.told
        );
        let over = r.times("brownout_over");
        assert!(
            over.len() == 1 && over[0] < three + 60.0,
            "{file}: {departures:?} {:?}",
            r.told
        );
    }
}

/// `watchdog-lab quiet --hosts 20 --for 1h` on 2.15.1, with clients that come and go.
#[test]
fn an_hour_of_a_quiet_mesh_with_clients_that_come_and_go_is_no_brownout() {
    let r = Replay::of("quiet-2.15.1-20.jsonl");
    assert!(r.now > Duration::from_secs(3_500), "{:?}", r.now);
    assert_eq!(r.times("brownout"), [0.0; 0], "{:?}", r.told);
    assert!(r.worst < 0.8, "a score of {}", r.worst);
    let s = r.core.snapshot(r.at()).sys;
    assert!(s.received_total.messages > 5_000, "{:?}", s.received_total);
}
