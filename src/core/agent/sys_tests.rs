//! Cores that hear of each other's servers and read their own: what explains traffic, what is held back, what is told.

use std::sync::Arc;
use std::time::Duration;

use crate::core::agent::event::{Action, Event};
use crate::core::agent::{Core, Restored, TICK};
use crate::core::canary::beacon::{Beacon, Health, Source};
use crate::core::ids::{HostName, LaneName, Mono, Now, Region, Wall};
use crate::core::policy::{Brownout, Canary, Mode, Permits, Policy, Remediation, RestartWays};
use crate::core::remedy::gate::Blocked;
use crate::core::server::{Endpoint, Gatewayz, Healthz, Route, Sample, Varz};
use crate::core::sys::reading::{AccountTraffic, Accstatz, Tally};
use crate::core::view::BrownoutView;

/// Host 0 is a real core in region r0; the others are beacons and routes. One cluster of 2.9.10.
struct World {
    core: Core,
    servers: usize,
    ids: Vec<u32>,
    health: Vec<Health>,
    /// Hosts that report a brownout.
    sick: Vec<bool>,
    /// Not routed to.
    cut: Vec<bool>,
    jetstream: bool,
    seq: u64,
    now: Duration,
    sent: Tally,
    next_poll: Duration,
    records: Vec<(Duration, String)>,
}

fn host(i: usize) -> HostName {
    HostName::new(&format!("h{i}")).unwrap()
}

fn region(i: usize) -> Region {
    Region::new(&format!("r{}", i % 2)).unwrap()
}

fn lane() -> LaneName {
    LaneName::new("main").unwrap()
}

impl World {
    /// An operator orders a restart of the server.
    fn order(&mut self) -> Result<Vec<Action>, Blocked> {
        let now = now_at(self.now);
        let _ = self.core.open_rollout(super::tests::rollout("R1"), now);
        self.core.order_restart(&super::tests::order(), now)
    }

    fn new(servers: usize) -> Self {
        Self::with(servers, Brownout::default())
    }

    fn with(servers: usize, brownout: Brownout) -> Self {
        let policy = Policy {
            host: host(0),
            region: region(0),
            lanes: vec![lane()],
            canary: Canary::default(),
            remediation: Remediation {
                mode: Mode::Restart,
                ..Remediation::default()
            },
            brownout,
            permits: Permits::default(),
            restart_deadline: Duration::from_secs(60),
            has_unit: false,
            restart: RestartWays::default(),
            version: "test".to_owned(),
        };
        let mut w = Self {
            core: Core::new(policy, Restored::default(), 0.0, now_at(Duration::ZERO)),
            servers,
            ids: vec![0; servers],
            health: vec![Health::Ok; servers],
            sick: vec![false; servers],
            cut: vec![false; servers],
            jetstream: false,
            seq: 0,
            now: Duration::ZERO,
            sent: Tally::default(),
            next_poll: Duration::ZERO,
            records: Vec::new(),
        };
        w.event(Event::Connection {
            lane: lane(),
            state: Ok(()),
        });
        w.run(60, 1.3, 3_000.0);
        w
    }

    fn id(&self, i: usize) -> String {
        format!("S{i}.{}", self.ids[i])
    }

    fn event(&mut self, event: Event) {
        let actions = self.core.handle(event, now_at(self.now));
        for action in actions {
            match action {
                Action::Publish { lane, beacon } => {
                    let source = Source {
                        region: region(0),
                        host: host(0),
                    };
                    self.event(Event::Beacon { lane, source, beacon });
                }
                Action::ReadRoutes => self.next_poll = self.next_poll.min(self.now + Duration::from_millis(300)),
                Action::Record(r) => self.records.push((self.now, r.text)),
                _ => {}
            }
        }
    }

    fn read(&mut self, endpoint: Endpoint, sample: Sample) {
        let result = Ok(sample);
        self.event(Event::Server { endpoint, result });
    }

    fn poll(&mut self) {
        let varz = Varz {
            server_id: self.id(0),
            server_name: "s0".to_owned(),
            version: "2.9.10".to_owned(),
            cluster: Some("C".to_owned()),
            system_account: "$SYS".to_owned(),
            remotes: self.servers as u64 - 1,
            start: Some(Wall(Duration::from_secs(1_700_000_000))),
            jetstream: self.jetstream,
            ..Varz::default()
        };
        self.read(Endpoint::Varz, Sample::Varz(Box::new(varz)));
        let healthz = Healthz {
            ok: true,
            detail: String::new(),
        };
        self.read(Endpoint::Healthz, Sample::Healthz(healthz));
        let routes = (1..self.servers)
            .filter(|i| !self.cut[*i])
            .map(|i| Route {
                rid: i as u64 * 1_000 + u64::from(self.ids[i]),
                remote_id: self.id(i).into(),
                ip: "127.0.0.9".into(),
                ..Route::default()
            })
            .collect();
        self.read(Endpoint::Routez, Sample::Routez(routes));
        self.read(Endpoint::Gatewayz, Sample::Gatewayz(Gatewayz::default()));
        let accstatz = Accstatz {
            server_id: self.id(0),
            system: Some(AccountTraffic {
                account: "$SYS".to_owned(),
                sent: self.sent,
                ..AccountTraffic::default()
            }),
            active_accounts: 1,
            accounts: 2,
        };
        self.read(Endpoint::Accstatz, Sample::Accstatz(accstatz));
    }

    fn beacons(&mut self) {
        self.seq += 1;
        for i in 1..self.servers {
            if self.cut[i] {
                continue;
            }
            let beacon = Beacon {
                seq: self.seq,
                server_id: self.id(i),
                server: format!("s{i}"),
                server_version: "2.9.10".to_owned(),
                cluster: "C".to_owned(),
                health: self.health[i],
                brownout: self.sick[i].then_some(crate::core::canary::beacon::Brownout { since: 5, score: 300 }),
                hears: self.servers as u32 - 1,
                ..Beacon::new(host(i), region(i))
            }
            .sealed();
            let source = Source {
                region: region(i),
                host: host(i),
            };
            self.event(Event::Beacon {
                lane: lane(),
                source,
                beacon: Arc::new(beacon),
            });
        }
    }

    /// `seconds` at a rate of the system account.
    fn run(&mut self, seconds: u64, msgs: f64, bytes: f64) {
        let end = self.now + Duration::from_secs(seconds);
        let (mut m, mut b) = (0.0, 0.0);
        while self.now < end {
            self.now += TICK;
            m += msgs / 10.0;
            b += bytes / 10.0;
            self.sent.msgs += m as u64;
            self.sent.bytes += b as u64;
            (m, b) = (m.fract(), b.fract());
            if self.now.as_millis().is_multiple_of(1_000) {
                self.beacons();
            }
            if self.now >= self.next_poll {
                self.next_poll = self.now + Duration::from_secs(2);
                self.poll();
            }
            self.event(Event::Tick);
        }
    }

    /// Servers stop, are away for two seconds and come back as new processes, with the traffic of `times` restarts.
    fn restart(&mut self, hosts: &[usize], times: f64) {
        for i in hosts {
            self.cut[*i] = true;
        }
        self.run(2, 1.3, 3_000.0);
        for i in hosts {
            self.cut[*i] = false;
            self.ids[*i] += 1;
        }
        // Measured at 40 servers of 2.9.10: 151 messages into each, most of them at once.
        self.run(3, times * 40.0, times * 100_000.0);
        self.run(12, times * 2.5 + 1.3, times * 6_000.0);
    }

    fn view(&self, scope: &str) -> BrownoutView {
        let s = self.core.snapshot(now_at(self.now));
        s.brownout.into_iter().find(|b| b.scope == scope).unwrap()
    }

    fn said(&self, what: &str) -> Option<Duration> {
        self.records.iter().find(|(_, r)| r.contains(what)).map(|(t, _)| *t)
    }
}

fn now_at(t: Duration) -> Now {
    Now {
        mono: Mono(t),
        wall: Wall(Duration::from_secs(1_800_000_000) + t),
    }
}

#[test]
fn three_servers_restarted_at_once_are_a_brownout_that_holds_operators_back() {
    let mut w = World::new(40);
    let start = w.now + Duration::from_secs(2);
    w.restart(&[3, 5, 7], 2.6);
    let began = w.said("a brownout began").expect("a brownout");
    assert!(began - start <= Duration::from_secs(5), "{:?}", began - start);
    let refused = w.order().unwrap_err();
    assert!(
        matches!(refused, Blocked::Brownout { scope: "host", .. }),
        "{refused:?}"
    );
    let text = refused.to_string();
    assert!(
        text.contains("brownout of the host is on since") && text.contains("it ends when"),
        "{text}"
    );
    let status = w.core.host_status(now_at(w.now));
    assert!(status.brownout.is_some_and(|b| b.contains("system traffic of")));
    let over = w.now;
    w.run(40, 1.3, 3_000.0);
    let ended = w.said("the brownout ended").expect("its end");
    assert!(ended - over <= Duration::from_secs(30), "{:?}", ended - over);
    assert!(w.order().is_ok());
}

#[test]
fn one_restart_is_explained_announced_or_not() {
    let mut w = World::new(40);
    w.restart(&[3], 1.0);
    assert_eq!(w.said("a brownout began"), None, "{:?}", w.records);
    let told = w.view("host").explanations;
    w.run(60, 1.3, 3_000.0);
    w.health[9] = Health::Restarting;
    w.run(3, 1.3, 3_000.0);
    assert!(
        w.view("host").explanations[0].contains("announced restart of h9"),
        "{told:?}"
    );
    w.health[9] = Health::Ok;
    w.restart(&[9], 1.0);
    assert_eq!(w.said("a brownout began"), None, "{:?}", w.records);
}

#[test]
fn growth_and_the_heal_of_a_partition_are_explained() {
    let mut w = World::new(40);
    // Ten new servers at once, each as dear as a restart.
    w.servers = 50;
    for list in [&mut w.cut, &mut w.sick] {
        list.resize(50, false);
    }
    w.ids.resize(50, 0);
    w.health.resize(50, Health::Ok);
    w.run(3, 400.0, 1_000_000.0);
    w.run(60, 1.6, 4_000.0);
    assert_eq!(w.said("a brownout began"), None, "{:?}", w.records);
    for i in 20..40 {
        w.cut[i] = true;
    }
    w.run(60, 0.8, 2_000.0);
    for i in 20..40 {
        w.cut[i] = false;
    }
    w.run(3, 800.0, 2_000_000.0);
    w.run(30, 1.6, 4_000.0);
    assert_eq!(w.said("a brownout began"), None, "{:?}", w.records);
}

#[test]
fn a_region_that_reports_it_holds_back_a_host_that_does_not_see_it() {
    let mut w = World::new(10);
    w.sick[2] = true;
    w.run(5, 0.3, 600.0);
    assert!(!w.view("region").on, "one host is a host");
    w.sick[4] = true;
    w.run(3, 0.3, 600.0);
    let (region, fleet) = (w.view("region"), w.view("fleet"));
    assert!(region.on && !fleet.on, "{region:?} {fleet:?}");
    assert_eq!(region.hosts, Some((2, 5)));
    let refused = w.order().unwrap_err();
    assert!(
        matches!(refused, Blocked::Brownout { scope: "region", .. }),
        "{refused:?}"
    );
    w.sick = vec![false; 10];
    w.run(6, 0.3, 600.0);
    assert!(!w.view("region").on);
}

#[test]
fn what_is_told_not_to_hold_holds_nothing() {
    let hold = Brownout {
        hold: false,
        ..Brownout::default()
    };
    let mut w = World::with(40, hold);
    w.restart(&[3, 5, 7], 2.6);
    assert!(w.view("host").on);
    assert!(w.order().is_ok());
}

#[test]
fn replication_of_jetstream_is_no_brownout_and_the_ceiling_still_is() {
    let mut w = World::new(3);
    w.jetstream = true;
    w.run(30, 3.0, 1_000.0);
    w.run(120, 900.0, 400_000.0);
    assert!(!w.view("host").on, "{:?}", w.view("host"));
    assert!(w.order().is_ok());
    let s = w.core.snapshot(now_at(w.now)).sys;
    assert!(s.shared_with_jetstream && s.expected.is_none(), "{s:?}");
    w.run(15, 30_000.0, 90e6);
    assert!(w.view("host").on, "what fills a network card is one, whatever it is");
    let mut w = World::new(3);
    w.run(30, 3.0, 1_000.0);
    w.run(120, 900.0, 400_000.0);
    assert!(w.view("host").on, "without JetStream the same is one");
}

#[test]
fn a_brownout_does_not_end_because_only_jetstreams_counters_are_left() {
    let mut w = World::new(3);
    w.run(30, 3.0, 1_000.0);
    w.run(60, 900.0, 400_000.0);
    assert!(w.view("host").on);
    w.jetstream = true;
    w.run(120, 900.0, 400_000.0);
    assert!(w.view("host").on, "what is not measured is not known to be over");
    w.run(200, 900.0, 400_000.0);
    assert!(!w.view("host").on, "nor is it known for ever");
    assert!(w.said("is not known to last").is_some());
}

#[test]
fn the_snapshot_tells_source_rates_and_expectation() {
    let mut w = World::new(40);
    w.run(20, 2.6, 6_000.0);
    let s = w.core.snapshot(now_at(w.now)).sys;
    assert_eq!(s.source.as_deref(), Some("account_sent"));
    assert_eq!(s.received, None, "2.9 does not tell what it receives");
    assert!(s.sent.is_some_and(|r| (r.messages - 2.6).abs() < 0.5), "{:?}", s.sent);
    assert!(s.expected.is_some_and(|e| e.servers == 40));
    assert!(s.sent_total.messages > 50);
}
