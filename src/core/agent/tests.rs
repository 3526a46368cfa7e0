//! A small fleet of real cores with a perfect, scriptable world around them; no sleeping, time is stepped.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::core::agent::event::{Action, Answered, Event, Passed};
use crate::core::agent::order::Order;
use crate::core::agent::{Core, Restored, TICK};
use crate::core::audit::Who;
use crate::core::canary::beacon::{Beacon, Health, Mark, Source};
use crate::core::control::Args;
use crate::core::ids::{HostName, LaneName, Mono, Now, Region, Wall};
use crate::core::policy::{Brownout, Canary, Mode, Permits, Policy, Remediation, RestartWays};
use crate::core::remedy::ledger::{ActKind, Ledger};
use crate::core::server::{Endpoint, GatewayConn, Gatewayz, Healthz, ReadError, Route, Sample, Varz};
use crate::core::view::{FaultKind, Verdict};

#[path = "called_tests.rs"]
mod called_tests;
#[path = "damage_tests.rs"]
mod damage_tests;
#[path = "judge_tests.rs"]
mod judge_tests;
#[path = "memory_tests.rs"]
mod memory_tests;
#[path = "permit_tests.rs"]
mod permit_tests;
#[path = "turn_tests.rs"]
mod turn_tests;

type Pair = (usize, usize);
type Forge = fn(&mut Beacon);

/// Hosts `a0`, `a1`, `b2`, … two per region, all in one cluster.
struct Fleet {
    cores: Vec<Core>,
    alive: Vec<bool>,
    now: Duration,
    /// Beacons from .0 to .1 vanish.
    stalled: BTreeSet<Pair>,
    /// Fresh replies from .1 to .0 vanish.
    no_interest: BTreeSet<Pair>,
    /// Servers that are no peers.
    unrouted: BTreeSet<Pair>,
    /// No TCP from .0 to .1.
    no_network: BTreeSet<Pair>,
    /// A reset of .0 heals nothing.
    stubborn: bool,
    acts: Vec<(Duration, usize, String)>,
    records: Vec<(usize, String)>,
    ids: Vec<u32>,
    save: Result<(), String>,
    /// How long a beacon is under way, to all but `near`.
    beacon_takes: Duration,
    /// Whom beacons reach at once.
    near: Option<usize>,
    /// Its own beacons do not come back to it.
    deaf_to_itself: Option<usize>,
    /// How long a write of the ledger takes.
    save_takes: Duration,
    /// TCP, in a check of the network.
    connect_takes: Duration,
    /// Who says so at every address that is checked.
    answers: Option<Answered>,
    /// What .0 says of itself is made another thing of.
    forged: Option<(usize, Forge)>,
    /// Servers have gateways to these clusters; each leads to 127.0.0.7:1.
    gateways: Vec<&'static str>,
    /// Answers that are on their way.
    later: Vec<(Duration, usize, Event)>,
    /// What never reports back: `check`, `save`, `act`.
    lost: &'static str,
    jetstream: bool,
    /// Servers do not say where they take routes.
    no_address: bool,
    /// Ids of the writes that never reported back.
    unsaved: Vec<(usize, u64)>,
    /// The register of permits.
    register: permit_tests::Register,
    /// The ledger of each host as it is on disk.
    disk: BTreeMap<usize, String>,
    /// The server of .0 has the name of that of .1.
    namesake: Option<Pair>,
}

fn name(i: usize) -> HostName {
    HostName::new(&format!("{}{i}", char::from(b'a' + u8::try_from(i / 2).unwrap()))).unwrap()
}

fn region(i: usize) -> Region {
    Region::new(&char::from(b'a' + u8::try_from(i / 2).unwrap()).to_string()).unwrap()
}

impl Fleet {
    fn new(n: usize, mode: Mode) -> Self {
        Self::with(n, |p| p.mode = mode, Restored::default())
    }

    fn with(n: usize, change: impl Fn(&mut Remediation), restored: Restored) -> Self {
        Self::permitted(n, change, restored, Permits::default())
    }

    fn permitted(n: usize, change: impl Fn(&mut Remediation), restored: Restored, permits: Permits) -> Self {
        let mut remediation = Remediation::default();
        change(&mut remediation);
        let core = |i: usize| {
            let policy = Policy {
                host: name(i),
                region: region(i),
                lanes: vec![LaneName::new("main").unwrap()],
                canary: Canary::default(),
                remediation: remediation.clone(),
                brownout: Brownout::default(),
                permits: permits.clone(),
                restart_deadline: Duration::from_secs(60),
                has_unit: false,
                restart: RestartWays::default(),
                version: "test".to_owned(),
            };
            let mut restored = restored.clone();
            if i != 0 {
                restored.ledger = None;
            }
            Core::new(policy, restored, i as f64 / n as f64, now_at(Duration::ZERO))
        };
        let mut fleet = Self {
            cores: (0..n).map(core).collect(),
            alive: vec![true; n],
            now: Duration::ZERO,
            stalled: BTreeSet::new(),
            no_interest: BTreeSet::new(),
            unrouted: BTreeSet::new(),
            no_network: BTreeSet::new(),
            stubborn: false,
            acts: Vec::new(),
            records: Vec::new(),
            ids: vec![0; n],
            save: Ok(()),
            beacon_takes: Duration::ZERO,
            near: None,
            deaf_to_itself: None,
            save_takes: Duration::ZERO,
            connect_takes: Duration::from_millis(1),
            answers: None,
            forged: None,
            gateways: Vec::new(),
            later: Vec::new(),
            lost: "",
            jetstream: false,
            no_address: false,
            unsaved: Vec::new(),
            register: permit_tests::Register::default(),
            disk: BTreeMap::new(),
            namesake: None,
        };
        for i in 0..n {
            fleet.send(i, connected());
        }
        fleet.run(12.0);
        fleet
    }

    fn now(&self) -> Now {
        now_at(self.now)
    }

    fn id(&self, i: usize) -> String {
        format!("S{i}.{}", self.ids[i])
    }

    fn send(&mut self, i: usize, event: Event) {
        if !self.alive[i] {
            return;
        }
        let now = self.now();
        for action in self.cores[i].handle(event, now) {
            self.carry(i, action);
        }
    }

    fn carry(&mut self, i: usize, action: Action) {
        match action {
            Action::Publish { lane, mut beacon } => {
                if let Some((_, forge)) = self.forged.filter(|(liar, _)| *liar == i) {
                    let beacon = Arc::make_mut(&mut beacon);
                    forge(beacon);
                    beacon.mark = Mark::default();
                }
                for to in 0..self.cores.len() {
                    let cut = self.stalled.contains(&(i, to)) || self.unrouted.contains(&ordered(i, to));
                    if to != i && !cut || to == i && self.deaf_to_itself != Some(i) {
                        let source = Source {
                            region: region(i),
                            host: name(i),
                        };
                        let (lane, beacon) = (lane.clone(), beacon.clone());
                        let heard = Event::Beacon { lane, source, beacon };
                        if self.beacon_takes.is_zero() || self.near == Some(to) {
                            self.send(to, heard);
                        } else {
                            self.later.push((self.now + self.beacon_takes, to, heard));
                        }
                    }
                }
            }
            Action::Probe { id, target, .. } => {
                let to = (0..self.cores.len()).find(|j| name(*j) == target).unwrap();
                let cut = [(i, to), (to, i)].iter().any(|p| self.stalled.contains(p));
                if !cut && !self.no_interest.contains(&(i, to)) && self.alive[to] {
                    let hold = Duration::ZERO;
                    self.send(i, Event::ProbeAnswered { id, hold });
                }
            }
            Action::CheckNetwork { .. } if self.lost == "check" => {}
            Action::SaveLedger { act, .. } if self.lost == "save" => self.unsaved.push((i, act)),
            Action::Reset { target, .. } if self.lost == "act" => self.acts.push((self.now, i, target.what)),
            Action::Restart { .. } if self.lost == "act" => self.acts.push((self.now, i, "restart".to_owned())),
            Action::CheckNetwork { check, addresses } => {
                let port: usize = addresses[0].rsplit(':').next().unwrap().parse().unwrap();
                let to = port.wrapping_sub(100);
                let result = if self.no_network.contains(&(i, to)) {
                    Err("timed out".to_owned())
                } else {
                    Ok(Passed {
                        connect: self.connect_takes,
                        who: self.answers.clone(),
                    })
                };
                self.send(i, Event::Checked { check, result });
            }
            Action::ReadPermits { ask } => self.read_permits(i, ask),
            Action::WritePermits { ask, bytes, expect } => self.write_permits(i, ask, bytes, expect),
            Action::SaveLedger { act, ledger } => {
                let result = self.save.clone();
                if result.is_ok() {
                    self.disk.insert(i, serde_json::to_string(&ledger).unwrap());
                }
                let saved = Event::LedgerSaved { act, result };
                if self.save_takes.is_zero() {
                    self.send(i, saved);
                } else {
                    self.later.push((self.now + self.save_takes, i, saved));
                }
            }
            Action::Reset { act, target } => {
                self.acts.push((self.now, i, format!("reset {}", target.what)));
                if !self.stubborn {
                    self.stalled.retain(|p| p.0 != i && p.1 != i);
                    self.no_interest.retain(|p| p.0 != i);
                    self.unrouted.clear();
                }
                self.send(
                    i,
                    Event::ActDone {
                        act,
                        result: Ok("done".to_owned()),
                    },
                );
            }
            Action::Restart { act } => {
                self.acts.push((self.now, i, "restart".to_owned()));
                self.ids[i] += 1;
                if !self.stubborn {
                    self.stalled.retain(|p| p.0 != i && p.1 != i);
                }
                self.send(
                    i,
                    Event::Connection {
                        lane: lane(),
                        state: Err("gone".to_owned()),
                    },
                );
                self.send(i, connected());
                self.send(
                    i,
                    Event::ActDone {
                        act,
                        result: Ok("done".to_owned()),
                    },
                );
            }
            Action::Step { .. } | Action::SaveRollout(_) => {}
            Action::ReadRoutes => self.read(i),
            Action::Tell(_) => {}
            Action::Record(r) => self.records.push((i, format!("{} {} {}", r.event, r.subject, r.text))),
            Action::SaveRoster(_) | Action::Leave => {}
        }
    }

    fn read(&mut self, i: usize) {
        let routes = (0..self.cores.len())
            .filter(|j| *j != i && !self.unrouted.contains(&ordered(i, *j)))
            .map(|j| Route {
                rid: j as u64,
                remote_id: self.id(j).into(),
                ip: "127.0.0.9".into(),
                port: u16::try_from(j + 1).unwrap(),
                is_configured: j == 5,
                did_solicit: true,
                ..Route::default()
            })
            .collect();
        self.send(i, server(Endpoint::Routez, Sample::Routez(routes)));
    }

    fn poll(&mut self, i: usize) {
        let varz = Varz {
            server_id: self.id(i),
            server_name: format!("s{}", self.namesake.filter(|n| n.0 == i).map_or(i, |n| n.1)),
            version: "2.10.26".to_owned(),
            cluster: Some("C".to_owned()),
            cluster_addr: (!self.no_address).then(|| ("127.0.0.9".to_owned(), u16::try_from(i + 100).unwrap())),
            jetstream: self.jetstream,
            ..Varz::default()
        };
        self.send(i, server(Endpoint::Varz, Sample::Varz(Box::new(varz))));
        let health = Healthz {
            ok: true,
            detail: String::new(),
        };
        self.send(i, server(Endpoint::Healthz, Sample::Healthz(health)));
        self.read(i);
        let outbound = self.gateways.iter().map(|cluster| GatewayConn {
            cluster: (*cluster).into(),
            ip: "127.0.0.7".into(),
            port: 1,
            ..GatewayConn::default()
        });
        let gateways = Gatewayz {
            outbound: outbound.collect(),
            inbound: Vec::new(),
        };
        self.send(i, server(Endpoint::Gatewayz, Sample::Gatewayz(gateways)));
    }

    fn run(&mut self, seconds: f64) {
        let end = self.now + Duration::from_secs_f64(seconds);
        while self.now < end {
            self.now += TICK;
            let due = |(at, ..): &(Duration, usize, Event)| *at <= self.now;
            let (due, later) = std::mem::take(&mut self.later).into_iter().partition(due);
            self.later = later;
            for (_, i, event) in Vec::from_iter::<Vec<_>>(due) {
                self.send(i, event);
            }
            for i in 0..self.cores.len() {
                if self.now.as_millis().is_multiple_of(1000) {
                    self.poll(i);
                }
                self.send(i, Event::Tick);
            }
        }
    }

    fn faults(&self, i: usize) -> Vec<(String, FaultKind)> {
        let s = self.cores[i].snapshot(self.now());
        s.faults.into_iter().map(|f| (f.id, f.kind)).collect()
    }

    fn all_faults(&self) -> Vec<(String, FaultKind)> {
        (0..self.cores.len())
            .filter(|i| self.alive[*i])
            .flat_map(|i| self.faults(i))
            .collect()
    }

    fn did(&self, what: &str) -> bool {
        self.records.iter().any(|(_, r)| r.contains(what))
    }
}

fn ordered(a: usize, b: usize) -> Pair {
    (a.min(b), a.max(b))
}

fn now_at(t: Duration) -> Now {
    Now {
        mono: Mono(t),
        wall: Wall(Duration::from_secs(1_700_000_000) + t),
    }
}

fn lane() -> LaneName {
    LaneName::new("main").unwrap()
}

fn connected() -> Event {
    Event::Connection {
        lane: lane(),
        state: Ok(()),
    }
}

fn server(endpoint: Endpoint, sample: Sample) -> Event {
    Event::Server {
        endpoint,
        result: Ok(sample),
    }
}

#[test]
fn a_healthy_fleet_does_nothing_for_an_hour() {
    let mut f = Fleet::new(6, Mode::Restart);
    f.run(3600.0);
    assert_eq!(f.all_faults(), []);
    assert_eq!(f.acts, []);
    let s = f.cores[0].snapshot(f.now());
    assert!(s.sources.iter().all(|p| p.verdict == Verdict::Ok && p.lost == 0));
}

#[test]
fn one_stalled_route_is_reset_by_its_receiver_alone_within_five_seconds() {
    let mut f = Fleet::new(6, Mode::Restart);
    let begin = f.now;
    f.stalled.insert((0, 3));
    f.run(30.0);
    assert_eq!(f.acts.len(), 1, "{:?}", f.acts);
    let (when, who, what) = &f.acts[0];
    assert_eq!((*who, what.as_str()), (3, "reset route connection 0 to a0"));
    assert!(*when - begin < Duration::from_millis(4500), "{:?}", *when - begin);
    assert_eq!(f.all_faults(), []);
    assert!(f.did("healed by reset"));
}

#[test]
fn after_a_fault_of_the_network_its_recovery_is_awaited() {
    let mut f = Fleet::new(6, Mode::Restart);
    f.stalled.insert((0, 3));
    f.no_network.insert((3, 0));
    f.no_network.insert((0, 3));
    // Shorter than the sender waits: it is the receiver that is looked at.
    f.run(25.0);
    assert_eq!(f.acts, []);
    f.no_network.clear();
    let back = |f: &Fleet| {
        let faults = f.cores[3].snapshot(f.now()).faults;
        faults.iter().any(|fault| fault.network_ok == Some(true))
    };
    for _ in 0..150 {
        if back(&f) {
            break;
        }
        f.run(0.1);
    }
    assert!(back(&f));
    f.run(8.0);
    assert_eq!(f.acts, [], "servers dial anew by themselves");
    f.run(15.0);
    assert_eq!(f.acts.len(), 1, "{:?}", f.acts);
}

#[test]
fn where_resets_are_not_allowed_the_receiver_restarts() {
    let restart = |p: &mut Remediation| (p.mode, p.path_resets) = (Mode::Restart, false);
    let mut f = Fleet::permitted(6, restart, Restored::default(), permit_tests::registered());
    f.run(20.0);
    let begin = f.now;
    f.stalled.insert((0, 3));
    f.run(40.0);
    assert_eq!(
        f.acts.iter().map(|a| (a.1, a.2.as_str())).collect::<Vec<_>>(),
        [(3, "restart")]
    );
    // Three seconds to the verdict; as long again, and 0.9 s, from the first look at the network.
    let took = f.acts[0].0 - begin;
    assert!(took < Duration::from_secs(9), "{took:?}");
    assert_eq!(f.all_faults(), []);
}

#[test]
fn observe_says_what_it_would_do_and_does_nothing() {
    let mut f = Fleet::new(6, Mode::Observe);
    f.stalled.insert((0, 3));
    f.run(60.0);
    assert_eq!(f.acts, []);
    assert!(f.did("mode observe: would reset route connection 0 to a0"));
    assert_eq!(f.faults(1), [("route:a0>b3".to_owned(), FaultKind::Route)]);
}

#[test]
fn a_dead_host_is_one_fault_and_nobody_acts() {
    let mut f = Fleet::new(6, Mode::Restart);
    f.alive[0] = false;
    f.run(300.0);
    assert_eq!(f.acts, []);
    assert_eq!(f.faults(4), [("host:a0".to_owned(), FaultKind::Host)]);
}

#[test]
fn a_peer_without_network_is_named_so_and_nothing_is_touched() {
    let mut f = Fleet::new(6, Mode::Restart);
    for j in [1, 2, 3, 4, 5] {
        f.stalled.extend([(0, j), (j, 0)]);
        f.no_network.extend([(0, j), (j, 0)]);
    }
    f.run(120.0);
    assert_eq!(f.acts, []);
    assert_eq!(f.faults(1), [("host:a0".to_owned(), FaultKind::Network)]);
    assert_eq!(
        f.faults(0).iter().filter(|x| x.1 == FaultKind::Network).count(),
        1,
        "{:?}",
        f.faults(0)
    );
}

#[test]
fn a_pair_without_network_is_not_reset() {
    let mut f = Fleet::new(6, Mode::Restart);
    f.stalled.insert((0, 3));
    f.no_network.extend([(3, 0), (0, 3)]);
    f.run(60.0);
    assert_eq!(f.acts, []);
    assert!(f.faults(3).contains(&("route:a0>b3".to_owned(), FaultKind::Network)));
}

#[test]
fn an_agent_that_stood_still_blames_itself() {
    let mut f = Fleet::new(6, Mode::Restart);
    f.alive[2] = false;
    f.run(5.0);
    f.alive[2] = true;
    f.run(1.0);
    let s = f.cores[2].snapshot(f.now());
    assert!(s.agent.health_reasons.iter().any(|r| r.contains("stood still")));
    f.run(30.0);
    assert_eq!(f.acts, []);
    assert_eq!(f.all_faults(), []);
}

#[test]
fn a_goodbye_is_no_fault() {
    let mut f = Fleet::new(6, Mode::Restart);
    f.send(2, Event::Shutdown);
    f.alive[2] = false;
    f.run(60.0);
    assert_eq!(f.all_faults(), []);
    assert_eq!(f.acts, []);
}

#[test]
fn a_hole_is_healed_through_the_common_seed_by_one_side() {
    let mut f = Fleet::new(6, Mode::Reset);
    f.unrouted.insert((0, 3));
    f.run(40.0);
    assert_eq!(f.acts.len(), 1, "{:?}", f.acts);
    assert_eq!(
        (f.acts[0].1, f.acts[0].2.as_str()),
        (0, "reset all 1 route connections to the common seed c5")
    );
    assert_eq!(f.all_faults(), []);
}

#[test]
fn interest_that_does_not_travel_is_found_by_probes_and_healed() {
    let mut f = Fleet::new(6, Mode::Reset);
    f.no_interest.insert((0, 3));
    f.run(60.0);
    assert_eq!(f.acts.len(), 1, "{:?}", f.acts);
    assert_eq!(f.acts[0].1, 0);
    assert!(f.did("interest:a0>b3"));
    assert_eq!(f.all_faults(), []);
}

#[test]
fn a_connection_that_had_no_time_for_a_beacon_is_not_reset() {
    let mut f = Fleet::new(6, Mode::Reset);
    f.unrouted.insert((0, 3));
    f.run(6.0);
    assert!(!f.all_faults().is_empty());
    // Dialled again; the next beacons are still to come.
    f.unrouted.clear();
    f.stalled.extend([(0, 3), (3, 0)]);
    f.run(1.6);
    assert!(f.did("route:a0>b3"), "{:?}", f.records);
    let young = |f: &Fleet| f.cores.iter().any(|c| c.blocked.contains_key("young_connection"));
    for _ in 0..6 {
        if young(&f) {
            break;
        }
        f.run(0.1);
    }
    assert!(young(&f), "{:?}", f.records);
    f.stalled.clear();
    f.run(10.0);
    assert_eq!((f.acts.clone(), f.all_faults()), (vec![], vec![]));
    // One that stays stalled is reset all the same.
    f.unrouted.insert((0, 3));
    f.run(6.0);
    f.unrouted.clear();
    f.stalled.insert((0, 3));
    f.run(6.0);
    assert_eq!(f.acts.len(), 1, "{:?}", f.acts);
    assert!(!f.did("no other host proves"), "{:?}", f.records);
}

#[test]
fn probes_that_were_lost_while_a_host_was_away_accuse_nobody() {
    let mut f = Fleet::new(6, Mode::Reset);
    f.no_interest.insert((0, 3));
    // Until it is suspected, and not yet healed.
    while !f.cores[0].book.suspects(&lane()).any(|h| *h == name(3)) {
        f.run(0.1);
    }
    let gone: Vec<Pair> = (0..6).filter(|i| *i != 3).flat_map(|i| [(i, 3), (3, i)]).collect();
    f.stalled.extend(gone);
    f.no_interest.clear();
    f.run(5.0);
    assert!(f.cores[0].book.suspects(&lane()).next().is_none());
}

#[test]
fn a_remedy_that_does_not_help_ends_with_a_human() {
    let mut f = Fleet::new(6, Mode::Restart);
    f.stubborn = true;
    f.stalled.insert((0, 3));
    f.run(600.0);
    let by = |what: &str| f.acts.iter().filter(|a| a.1 == 3 && a.2.contains(what)).count();
    // There is one connection, so that a second reset would be the first one again.
    assert_eq!((by("reset"), by("restart")), (1, 1), "{:?}", f.acts);
    assert!(f.did("a human must look"));
    assert!(
        f.cores[3]
            .snapshot(f.now())
            .faults
            .iter()
            .any(|x| x.remedy.starts_with("gave up"))
    );
}

#[test]
fn nothing_is_done_that_cannot_be_noted() {
    let mut f = Fleet::new(6, Mode::Restart);
    f.save = Err("disk full".to_owned());
    f.stalled.insert((0, 3));
    f.run(15.0);
    assert_eq!(f.acts, []);
    assert!(f.did("cannot be written"));
}

#[test]
fn two_hosts_cannot_tell_a_stall_from_a_dead_agent_and_do_nothing() {
    let mut f = Fleet::new(2, Mode::Restart);
    f.stalled.insert((0, 1));
    f.run(15.0);
    assert!(f.acts.iter().all(|a| a.1 != 1), "{:?}", f.acts);
}

#[test]
fn a_restarted_server_elsewhere_is_no_fault_that_lasts() {
    let mut f = Fleet::new(6, Mode::Restart);
    f.send(
        2,
        Event::Connection {
            lane: lane(),
            state: Err("gone".to_owned()),
        },
    );
    let refused = ReadError::Connect {
        url: String::new(),
        error: String::new(),
    };
    f.send(
        2,
        Event::Server {
            endpoint: Endpoint::Varz,
            result: Err(refused),
        },
    );
    f.ids[2] += 1;
    f.run(2.0);
    f.send(2, connected());
    f.run(20.0);
    assert_eq!(f.acts, []);
    assert_eq!(f.all_faults(), []);
}

pub(super) fn rollout(id: &str) -> crate::core::control::roll::Record {
    crate::core::control::roll::tests::record(id, &["r0-00"])
}

pub(super) fn order() -> Order {
    Order {
        who: Who::operator("op", "UOP"),
        verb: "restart",
        rollout: "R1".to_owned(),
        reason: "upgrade".to_owned(),
        args: Args::default(),
    }
}

#[test]
fn an_ordered_restart_is_announced_noted_and_reported() {
    let mut f = Fleet::new(6, Mode::Observe);
    let now = f.now();
    f.cores[2].open_rollout(rollout("R1"), now).unwrap();
    let actions = f.cores[2].order_restart(&order(), now).unwrap();
    assert!(
        matches!(&actions[0], Action::Publish { beacon, .. } if beacon.health == crate::core::canary::beacon::Health::Restarting)
    );
    for a in actions {
        f.carry(2, a);
    }
    f.run(1.0);
    f.run(10.0);
    assert_eq!(
        f.cores[2].host_status(f.now()).last_command.unwrap().state,
        crate::core::control::Stage::Done
    );
    assert_eq!(f.all_faults(), []);
}

#[test]
fn the_roster_is_known_again_after_the_agents_own_restart() {
    let f = Fleet::new(6, Mode::Observe);
    let restored = Restored {
        roster: f.cores[0].roster(f.now()),
        ..Restored::default()
    };
    let core = Core::new(f.cores[0].policy.clone(), restored, 0.0, f.now());
    let s = core.snapshot(f.now());
    assert_eq!(s.agent.roster, 6);
    assert!(s.sources.iter().all(|p| p.verdict == Verdict::Warming));
}

#[test]
fn a_clock_that_jumps_changes_no_verdict() {
    let mut f = Fleet::new(4, Mode::Restart);
    for step in [-3_000_000_i64, 5_000_000] {
        let mut now = f.now();
        now.wall = Wall(Duration::from_secs(u64::try_from(1_700_000_000 + step).unwrap()));
        let out = f.cores[0].handle(Event::Tick, now);
        assert!(
            !out.iter()
                .any(|a| matches!(a, Action::Reset { .. } | Action::Restart { .. }))
        );
    }
    f.run(10.0);
    assert_eq!(f.all_faults(), []);
}

#[test]
fn a_twin_is_noticed_by_both_and_named() {
    let mut f = Fleet::new(3, Mode::Restart);
    let mut twin: Beacon = crate::core::canary::beacon::tests::beacon("a0", "a", 1);
    twin.inc = 5;
    let source = Source {
        region: region(0),
        host: name(0),
    };
    f.send(
        0,
        Event::Beacon {
            lane: lane(),
            source,
            beacon: Arc::new(twin),
        },
    );
    let s = f.cores[0].snapshot(f.now());
    assert!(
        s.agent
            .health_reasons
            .iter()
            .any(|r| r.contains("also calls itself a0"))
    );
    assert_eq!(s.dropped.get("twin"), Some(&1));
}

#[test]
fn the_interval_stretches_to_keep_the_budget() {
    let mut f = Fleet::new(2, Mode::Observe);
    let mut hosts = BTreeMap::new();
    for i in 0..900 {
        hosts.insert(i, HostName::new(&format!("h{i}")).unwrap());
    }
    for h in hosts.values() {
        let mut b = crate::core::canary::beacon::tests::beacon(h.as_str(), "x", 1);
        b.inc = 1;
        let source = Source {
            region: Region::new("x").unwrap(),
            host: h.clone(),
        };
        f.send(
            0,
            Event::Beacon {
                lane: lane(),
                source,
                beacon: Arc::new(b),
            },
        );
    }
    let s = f.cores[0].snapshot(f.now());
    assert!(
        (s.agent.interval_seconds - 901.0 / 500.0).abs() < 0.01,
        "{}",
        s.agent.interval_seconds
    );
}

#[test]
fn the_ledger_written_before_an_act_holds_the_act() {
    let mut f = Fleet::new(6, Mode::Reset);
    f.stalled.insert((0, 3));
    let mut saved: Option<Ledger> = None;
    while f.acts.is_empty() && f.now < Duration::from_secs(60) {
        f.run(0.1);
        saved = Some(f.cores[3].ledger.clone());
    }
    assert_eq!(saved.unwrap().last(ActKind::Reset).unwrap().reason, "route:a0>b3");
}

#[test]
fn a_first_beacon_under_way_is_warm_up_and_no_sickness() {
    let core = &Fleet::new(1, Mode::Observe).cores[0];
    let mut core = Core::new(core.policy.clone(), Restored::default(), 0.0, now_at(Duration::ZERO));
    core.handle(connected(), now_at(Duration::ZERO));
    let said = |core: &Core, ms| core.snapshot(now_at(Duration::from_millis(ms))).agent.health;
    assert_eq!(said(&core, 1), Health::Warming);
    // It never comes: that is one.
    for n in 1..60 {
        core.handle(Event::Tick, now_at(TICK * n));
    }
    assert_eq!(said(&core, 5900), Health::Sick);
}

#[test]
fn a_roster_that_could_not_be_written_is_written_again_though_nothing_changed() {
    let mut f = Fleet::new(2, Mode::Observe);
    f.run(30.0);
    let core = &mut f.cores[0];
    assert!(!core.roster_dirty);
    let at = |s: u64| now_at(f.now + Duration::from_secs(s));
    core.handle(Event::StateKept(Some("disk full".to_owned())), at(0));
    let wanted = core.handle(Event::Tick, at(11));
    assert!(wanted.iter().any(|a| matches!(a, Action::SaveRoster(_))), "{wanted:?}");
}

/// A fleet in which `b3` has written down a reset, and the disk has not answered yet.
fn about_to_act(mode: Mode) -> (Fleet, u64) {
    let mut f = Fleet::new(6, mode);
    f.lost = "save";
    f.stalled.insert((0, 3));
    while f.unsaved.is_empty() {
        f.run(0.1);
    }
    let (who, act) = f.unsaved[0];
    assert_eq!(who, 3);
    (f, act)
}

fn saved(act: u64) -> Event {
    Event::LedgerSaved { act, result: Ok(()) }
}

#[test]
fn what_never_reports_back_is_given_up_and_the_case_goes_on() {
    for (lost, said) in [
        ("check", "the check did not end within 30s"),
        ("save", "the disk did not answer within 10s"),
        ("act", "the reset failed: it did not report back in time"),
    ] {
        let mut f = Fleet::new(6, Mode::Reset);
        f.lost = lost;
        f.stalled.insert((0, 3));
        f.run(40.0);
        assert!(f.did(said), "{lost}");
        assert_eq!(f.acts.len(), usize::from(lost == "act"), "{lost}");
        f.lost = "";
        f.run(60.0);
        assert_eq!(f.all_faults(), [], "{lost}");
    }
}

#[test]
fn an_answer_that_comes_after_it_was_given_up_does_nothing() {
    let (mut f, act) = about_to_act(Mode::Reset);
    f.run(10.5);
    f.send(3, saved(act));
    assert_eq!(f.acts, []);
}

#[test]
fn what_healed_while_the_ledger_was_written_is_not_touched() {
    let (mut f, act) = about_to_act(Mode::Reset);
    f.stalled.clear();
    f.run(2.5);
    f.send(3, saved(act));
    assert_eq!(f.acts, []);
    assert!(f.did("the fault was gone before the act began"));
}

#[test]
fn what_the_operator_forbade_while_the_ledger_was_written_is_not_done() {
    let (mut f, act) = about_to_act(Mode::Reset);
    let now = f.now();
    f.cores[3].reload(Canary::default(), Remediation::default(), now);
    f.send(3, saved(act));
    assert_eq!(f.acts, []);
    assert!(f.did("mode is observe now"));
}

#[test]
fn an_agent_that_fell_ill_while_the_ledger_was_written_does_nothing() {
    let (mut f, act) = about_to_act(Mode::Reset);
    let state = Err("gone".to_owned());
    f.send(3, Event::Connection { lane: lane(), state });
    f.send(3, saved(act));
    assert_eq!(f.acts, []);
    assert!(f.did("this agent is not well itself"));
}

#[test]
fn an_ordered_restart_is_not_begun_on_a_server_that_somebody_stops_meanwhile() {
    let mut f = Fleet::new(6, Mode::Observe);
    f.lost = "save";
    let now = f.now();
    f.cores[2].open_rollout(rollout("R1"), now).unwrap();
    for a in f.cores[2].order_restart(&order(), now).unwrap() {
        f.carry(2, a);
    }
    f.send(2, Event::LameDuck);
    let (_, act) = f.unsaved[0];
    f.send(2, saved(act));
    assert_eq!(f.acts, []);
    let last = f.cores[2].host_status(f.now()).last_command.unwrap();
    assert_eq!(last.state, crate::core::control::Stage::Failed);
    assert!(last.detail.contains("not begun"), "{}", last.detail);
}

#[test]
fn after_a_spell_of_illness_the_old_judgement_is_no_base_for_an_act() {
    for ticks in [0.0, 0.1] {
        let mut f = Fleet::new(6, Mode::Reset);
        f.stalled.insert((0, 3));
        f.run(3.0);
        while f.faults(3).is_empty() {
            f.run(0.1);
        }
        f.run(ticks);
        // A twin makes the agent unwell for a minute; the path heals meanwhile.
        let source = Source {
            region: region(3),
            host: name(3),
        };
        let twin = Arc::new(crate::core::canary::beacon::tests::beacon("b3", "b", 1));
        let lane = lane();
        f.send(
            3,
            Event::Beacon {
                lane,
                source,
                beacon: twin,
            },
        );
        f.stalled.clear();
        f.run(90.0);
        assert_eq!(f.acts, [], "{ticks}");
        assert!(!f.did("act route:a0>b3"), "{ticks}");
    }
}

fn stranger(f: &mut Fleet, host: &str, region: &str, seq: u64) {
    let beacon = Arc::new(crate::core::canary::beacon::tests::beacon(host, region, seq));
    let source = Source {
        region: Region::new(region).unwrap(),
        host: HostName::new(host).unwrap(),
    };
    let lane = lane();
    f.send(0, Event::Beacon { lane, source, beacon });
}

#[test]
fn a_flood_of_forged_hosts_fills_no_memory_and_hides_no_known_one() {
    let mut f = Fleet::new(2, Mode::Restart);
    for i in 0..5000 {
        stranger(&mut f, &format!("h{i}"), "x", 1);
    }
    let s = f.cores[0].snapshot(f.now());
    assert_eq!(
        (f.cores[0].members.len(), f.cores[0].lanes[0].paths.len()),
        (4096, 4096)
    );
    assert_eq!(s.dropped.get("roster_full"), Some(&905));
    assert_eq!(
        f.records
            .iter()
            .filter(|(_, r)| r.contains("the roster is full"))
            .count(),
        1
    );
    stranger(&mut f, "a1", "a", 1);
    assert_eq!(f.cores[0].snapshot(f.now()).dropped.get("roster_full"), Some(&905));
}

#[test]
fn a_flood_of_forged_regions_makes_no_series() {
    let mut f = Fleet::new(2, Mode::Restart);
    for i in 0..400 {
        stranger(&mut f, &format!("h{i}"), &format!("r{i}"), 1);
        // A known host under ever new regions.
        stranger(&mut f, "h0", &format!("q{i}"), i + 2);
    }
    assert_eq!(f.cores[0].stats().len(), 256);
    assert!(f.cores[0].dropped["roster_full"] > 500);
}

#[test]
fn what_was_done_is_forgotten_after_an_hour_and_not_earlier() {
    let mut f = Fleet::new(6, Mode::Reset);
    f.stalled.insert((0, 3));
    f.run(30.0);
    assert_eq!(f.acts.len(), 1);
    let (id, since) = ("route:x>y".to_owned(), f.now());
    f.cores[3].ledger.memory.try_on(&id, 1, 0, since);
    let kept = |f: &Fleet| (f.cores[3].ledger.memory.len(), f.cores[3].acted_on.len());
    f.run(3500.0);
    assert_eq!(kept(&f), (2, 1));
    f.run(130.0);
    assert_eq!(kept(&f), (0, 0));
}

#[test]
fn with_jetstream_no_server_is_restarted_while_another_of_the_cluster_is_silent() {
    for (jetstream, restarts) in [(false, 1), (true, 0)] {
        let change = |p: &mut Remediation| (p.mode, p.path_resets, p.max_sick_fraction) = (Mode::Restart, false, 1.0);
        let mut f = Fleet::with(6, change, Restored::default());
        f.jetstream = jetstream;
        f.alive[1] = false;
        f.run(20.0);
        f.stalled.insert((0, 3));
        f.run(20.0);
        assert_eq!(f.acts.len(), restarts, "{:?}", f.acts);
        assert_eq!(f.did("JetStream is on and a1 is not healthy"), jetstream);
    }
}

#[test]
fn a_peer_without_a_known_address_is_said_and_counted_once() {
    let mut f = Fleet::new(6, Mode::Reset);
    f.no_address = true;
    f.run(3.0);
    f.cores[3].members.get_mut(&name(0)).unwrap().route.clear();
    f.stalled.insert((0, 3));
    f.run(20.0);
    assert_eq!(f.acts, []);
    let said = |(_, r): &&(usize, String)| r.contains("the address of a0 is not known");
    assert_eq!(f.records.iter().filter(said).count(), 1);
    assert_eq!(f.cores[3].blocked.get("no_address"), Some(&1));
}

#[test]
fn one_accuser_is_not_enough_to_restart_oneself() {
    let mut f = Fleet::with(
        2,
        |p| {
            p.mode = Mode::Restart;
            p.path_resets = false;
        },
        Restored::default(),
    );
    f.stalled.insert((0, 1));
    f.run(120.0);
    assert_eq!(f.acts, []);
}

#[test]
fn the_word_of_two_receivers_never_restarts_the_sender() {
    let mut f = Fleet::with(
        6,
        |p| (p.mode, p.max_sick_fraction) = (Mode::Restart, 1.0),
        Restored::default(),
    );
    f.stubborn = true;
    f.stalled.extend([(0, 3), (0, 4)]);
    f.run(1200.0);
    let of_sender: Vec<&str> = f.acts.iter().filter(|a| a.1 == 0).map(|a| a.2.as_str()).collect();
    assert!(of_sender.iter().all(|what| what.starts_with("reset")), "{of_sender:?}");
    assert!(!of_sender.is_empty(), "it does try the cheap thing: {:?}", f.acts);
}

#[test]
fn two_that_start_in_the_same_millisecond_are_told_apart() {
    let f = Fleet::new(2, Mode::Observe);
    let again = |phase| {
        Core::new(
            f.cores[0].policy.clone(),
            Restored::default(),
            phase,
            now_at(Duration::ZERO),
        )
    };
    let (one, mut two) = (again(0.2), again(0.7));
    let mut beacon = crate::core::canary::beacon::tests::beacon("a0", "a", 1);
    beacon.inc = one.inc;
    let source = Source {
        region: region(0),
        host: name(0),
    };
    let beacon = Arc::new(beacon);
    two.handle(
        Event::Beacon {
            lane: lane(),
            source,
            beacon,
        },
        now_at(Duration::ZERO),
    );
    let s = two.snapshot(now_at(Duration::ZERO));
    assert_eq!(s.dropped.get("twin"), Some(&1));
}
