//! What an agent reads of its own server and its unit.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::acts::{GATEWAY_PORT, ROUTE_PORT, ip};
use super::fault::HostNo;
use super::mesh::Link;
use super::scenario::Fleet;
use super::server::Unit;
use super::world::World;
use crate::core::agent::event::{Event, UnitReport};
use crate::core::server::{Endpoint, GatewayConn, Gatewayz, Healthz, ReadError, Route, Sample, Varz};
use crate::core::sys::reading::{AccountTraffic, Accstatz, OTHERS, Tally};

/// What servers show of each other and what never changes, shared by all reads of it.
#[derive(Debug)]
pub(super) struct Texts {
    names: Vec<Arc<str>>,
    ips: Vec<Arc<str>>,
    clusters: Vec<Arc<str>>,
    /// By region: the seeds of each other one's gateways.
    seeds: Vec<BTreeMap<String, Vec<String>>>,
    system: Arc<str>,
}

impl Texts {
    pub(super) fn new(names: &[String], fleet: &Fleet) -> Self {
        let regions = &fleet.regions;
        // Before 2.10 a route does not tell its peer's name.
        let shown = |name: &String| {
            if fleet.old {
                "".into()
            } else {
                format!("nats-{name}").into()
            }
        };
        let seeds = |r: usize| {
            let hosts = (r * fleet.hosts..(r + 1) * fleet.hosts).take(3);
            (
                regions[r].clone(),
                hosts.map(|h| format!("{}:{GATEWAY_PORT}", ip(h))).collect(),
            )
        };
        let others = |here: usize| (0..regions.len()).filter(move |r| *r != here).map(seeds).collect();
        Self {
            names: names.iter().map(shown).collect(),
            ips: (0..names.len()).map(|host| ip(host).into()).collect(),
            clusters: regions.iter().map(|r| r.as_str().into()).collect(),
            seeds: (0..regions.len()).map(others).collect(),
            system: "$SYS".into(),
        }
    }
}

impl World {
    pub(super) fn read_server(&mut self, host: HostNo) {
        if self.agents[host].frozen || self.agents[host].core.is_none() {
            return;
        }
        let unit = self.unit_report(host);
        self.handle(host, Event::Unit(Ok(unit)));
        let result = self.answer(host, |w| Sample::Varz(Box::new(w.varz(host))));
        self.handle(
            host,
            Event::Server {
                endpoint: Endpoint::Varz,
                result,
            },
        );
        let result = self.answer(host, |w| {
            let ok = !w.servers[host].lame;
            Sample::Healthz(Healthz {
                ok,
                detail: String::new(),
            })
        });
        self.handle(
            host,
            Event::Server {
                endpoint: Endpoint::Healthz,
                result,
            },
        );
        self.read_routes(host);
    }

    pub(super) fn read_routes(&mut self, host: HostNo) {
        if self.agents[host].frozen || self.agents[host].core.is_none() {
            return;
        }
        let result = self.answer(host, |w| Sample::Routez(w.routes(host)));
        self.handle(
            host,
            Event::Server {
                endpoint: Endpoint::Routez,
                result,
            },
        );
        let result = self.answer(host, |w| Sample::Gatewayz(w.gatewayz(host)));
        self.handle(
            host,
            Event::Server {
                endpoint: Endpoint::Gatewayz,
                result,
            },
        );
        self.read_traffic(host);
    }

    /// System traffic: by the account's counters, before 2.10 by counting what comes.
    fn read_traffic(&mut self, host: HostNo) {
        if !self.scenario.fleet.old {
            let endpoint = Endpoint::Accstatz;
            let result = self.answer(host, |w| Sample::Accstatz(w.accstatz(host)));
            self.handle(host, Event::Server { endpoint, result });
            return;
        }
        let agent = &self.agents[host];
        if self.works(host) && agent.connected && agent.lane_cut == 0 {
            let subscription = u64::from(self.servers[host].starts) << 32 | u64::from(agent.life);
            let peers = BTreeMap::from([(OTHERS.to_owned(), self.tally(host))]);
            self.handle(
                host,
                Event::SysCounted {
                    subscription,
                    peers,
                    pending: None,
                },
            );
        }
    }

    fn tally(&self, host: HostNo) -> Tally {
        let msgs = self.weather.messages - self.servers[host].counted_from;
        let bytes = msgs * self.statsz_bytes();
        Tally { msgs, bytes }
    }

    fn accstatz(&self, host: HostNo) -> Accstatz {
        let system = AccountTraffic {
            account: "$SYS".to_owned(),
            received: self.tally(host),
            ..AccountTraffic::default()
        };
        Accstatz {
            server_id: self.servers[host].id.to_string(),
            system: Some(system),
            active_accounts: 1,
            accounts: 2,
        }
    }

    fn answer(&self, host: HostNo, sample: impl Fn(&Self) -> Sample) -> Result<Sample, ReadError> {
        let url = "http://127.0.0.1:8222".to_owned();
        if self.works(host) {
            return Ok(sample(self));
        }
        if self.servers[host].up {
            let after = Duration::from_secs(2);
            return Err(ReadError::Timeout { url, after });
        }
        let error = "connection refused".to_owned();
        Err(ReadError::Connect { url, error })
    }

    fn unit_report(&self, host: HostNo) -> UnitReport {
        let (load, active, sub) = match self.servers[host].unit {
            Unit::Active => ("loaded", "active", "running"),
            Unit::Activating => ("loaded", "activating", "auto-restart"),
            Unit::Inactive => ("loaded", "inactive", "dead"),
            Unit::Masked => ("masked", "inactive", "dead"),
        };
        UnitReport {
            load: load.to_owned(),
            active: active.to_owned(),
            sub: sub.to_owned(),
        }
    }

    pub(super) fn varz(&self, host: HostNo) -> Varz {
        let fleet = &self.scenario.fleet;
        let here = self.region(host);
        Varz {
            server_id: self.servers[host].id.to_string(),
            server_name: format!("nats-{}", self.names[host]),
            version: if fleet.old { "2.9.10" } else { "2.10.26" }.to_owned(),
            mem: u64::from(self.servers[host].memory) << 20,
            cluster: Some(fleet.regions[here].clone()),
            cluster_addr: Some((ip(host), ROUTE_PORT)),
            pool_size: (!fleet.old).then_some(3),
            gateway: Some(fleet.regions[here].clone()),
            gateway_addr: Some((ip(host), GATEWAY_PORT)),
            gateways: self.texts.seeds[here].clone(),
            jetstream: fleet.jetstream,
            system_account: "$SYS".to_owned(),
            ..Varz::default()
        }
    }

    fn routes(&self, host: HostNo) -> Vec<Route> {
        let n = self.slots();
        let mut routes = Vec::with_capacity(n * self.scenario.fleet.hosts);
        for x in self.hosts_of(self.region(host)).filter(|x| *x != host) {
            let pair = &self.pairs[self.pair(host, x)];
            let (way, dialled) = (pair.way(host), pair.way(host) == pair.dialler);
            for (i, slot) in pair.slots.iter().enumerate().take(n).filter(|(_, s)| s.up) {
                let incoming = 1 - way;
                let until = if slot.stall[incoming] {
                    slot.stalled_at[incoming]
                } else {
                    self.now
                };
                let lived = until.saturating_sub(slot.since).as_secs();
                routes.push(Route {
                    rid: slot.rid[way],
                    remote_id: self.servers[x].id.clone(),
                    remote_name: self.texts.names[x].clone(),
                    did_solicit: dialled,
                    is_configured: pair.configured && dialled,
                    ip: self.texts.ips[x].clone(),
                    port: if dialled { ROUTE_PORT } else { slot.port },
                    in_msgs: match i {
                        0 => lived,
                        3 => lived / 10,
                        _ => 3,
                    },
                    out_msgs: 0,
                    in_bytes: 0,
                    out_bytes: 0,
                    pending: 0,
                    account: (i == 3).then(|| self.texts.system.clone()),
                });
            }
        }
        routes
    }

    fn gatewayz(&self, host: HostNo) -> Gatewayz {
        let conn = |cluster: usize, of: HostNo, cid: u64| GatewayConn {
            cluster: self.texts.clusters[cluster].clone(),
            cid,
            remote_id: self.servers[of].id.clone(),
            ip: self.texts.ips[of].clone(),
            port: GATEWAY_PORT,
            in_msgs: 0,
            out_msgs: 0,
        };
        let outbound = (0..self.regions.len())
            .filter_map(|to| match self.gateways[self.gateway(host, to)].link {
                Link::Up(via) => Some(conn(to, via, self.gateways[self.gateway(host, to)].cid)),
                _ => None,
            })
            .collect();
        Gatewayz {
            outbound,
            inbound: Vec::new(),
        }
    }
}
