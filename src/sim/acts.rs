//! What a core wants done, done to the world.

use std::time::Duration;

use super::fault::HostNo;
use super::invariants::Act;
use super::mesh::Link;
use super::server::{Unit, Why};
use super::world::{What, World};
use crate::core::agent::event::{Action, Event, ResetTarget, UnitReport};
use crate::core::ids::HostName;
use crate::core::server::{Endpoint, GatewayConn, Gatewayz, Healthz, ReadError, Route, Sample, Varz};

const ROUTE_PORT: u16 = 6222;
const GATEWAY_PORT: u16 = 7222;

/// The address of a host.
fn ip(host: HostNo) -> String {
    format!("10.{}.{}.{}", host / 65536, host / 256 % 256, host % 256)
}

fn host_at(address: &str) -> Option<(HostNo, u16)> {
    let (ip, port) = address.rsplit_once(':')?;
    let parts: Vec<usize> = ip.split('.').filter_map(|p| p.parse().ok()).collect();
    match parts[..] {
        [10, a, b, c] => Some((a * 65536 + b * 256 + c, port.parse().ok()?)),
        _ => None,
    }
}

impl World {
    pub(super) fn carry_out(&mut self, host: HostNo, life: u32, action: Action) {
        match action {
            Action::Publish { beacon, .. } => self.publish(host, &beacon),
            Action::Probe { id, target, .. } => self.probe(host, life, id, &target),
            Action::CheckNetwork { check, addresses } => self.check_network(host, life, check, &addresses),
            Action::SaveLedger { act, ledger } => {
                self.alert(host);
                let disk = &mut self.agents[host].disk;
                let result = if disk.fails > 0 {
                    Err("no space left on device".to_owned())
                } else {
                    if let Ok(text) = serde_json::to_string(&ledger) {
                        disk.ledger = Some(text);
                    }
                    Ok(())
                };
                if disk.hangs == 0 {
                    let event = Event::LedgerSaved { act, result };
                    self.after(Duration::from_millis(5), What::Agent(host, life, Box::new(event)));
                }
                self.may_die(host);
            }
            Action::SaveRoster(roster) => {
                let disk = &mut self.agents[host].disk;
                if disk.fails == 0 && disk.hangs == 0 {
                    disk.roster = roster;
                }
                if disk.hangs == 0 {
                    let kept = (disk.fails > 0).then(|| "no space left on device".to_owned());
                    let event = Box::new(Event::StateKept(kept));
                    self.after(Duration::from_millis(5), What::Agent(host, life, event));
                }
            }
            Action::Reset { act, target } => {
                self.alert(host);
                let result = self.reset(host, &target);
                let event = Box::new(Event::ActDone { act, result });
                self.after(Duration::from_millis(5), What::Agent(host, life, event));
                self.may_die(host);
            }
            Action::Restart { act } => {
                self.alert(host);
                self.restart(host, life, act);
                self.may_die(host);
            }
            Action::ReadPermits { ask } => {
                let result = self.store.read(self.reaches_store(host));
                let result = self.options.mutate_read(result);
                let event = Box::new(Event::PermitsRead { ask, result });
                self.after(Duration::from_millis(20), What::Agent(host, life, event));
            }
            Action::WritePermits { ask, bytes, expect } => {
                let reachable = self.reaches_store(host);
                let result = self.store.write(bytes, expect, reachable);
                let result = self.options.mutate_write(result, expect);
                self.watch.dirty = true;
                let event = Box::new(Event::PermitsWritten { ask, result });
                self.after(Duration::from_millis(20), What::Agent(host, life, event));
                self.may_die(host);
            }
            Action::ReadRoutes => {
                if !std::mem::replace(&mut self.agents[host].routes_asked, true) {
                    self.after(Duration::from_millis(100), What::Routes(host, life));
                }
            }
            Action::Record(record) => {
                if record.event == "fault" || record.event == "source" {
                    self.alert(host);
                }
                self.watch_record(host, &record);
                self.say(host, format!("{} {}: {}", record.event, record.subject, record.text));
            }
            // Ordered restarts are of one step here, rollouts are not kept on disk, and nobody listens to events.
            Action::Step { .. } | Action::SaveRollout(_) | Action::Tell(_) => {}
            Action::Leave => {
                self.agents[host].core = None;
                self.agents[host].life += 1;
            }
        }
    }

    fn may_die(&mut self, host: HostNo) {
        if std::mem::take(&mut self.agents[host].dies_at_act) {
            self.kill_agent(host);
            let wait = self.dice.between(Duration::from_secs(1), Duration::from_secs(5));
            self.after(wait, What::AgentStart(host));
        }
    }

    /// The store is kept by the servers themselves: who is cut off from most of them does not reach it.
    fn reaches_store(&self, host: HostNo) -> bool {
        if !self.works(host) || self.agents[host].lane_cut > 0 {
            return false;
        }
        let n = self.servers.len();
        let near = (0..n).filter(|h| self.works(*h) && self.net.open(host, *h)).count();
        near * 2 > n
    }

    fn probe(&mut self, host: HostNo, life: u32, id: u64, target: &HostName) {
        let Some(to) = self.index.get(target).copied() else {
            return;
        };
        if self.agents[host].lane_cut > 0 || self.agents[to].lane_cut > 0 || !self.agents[to].connected {
            return;
        }
        if self.agents[to].frozen || self.agents[to].core.is_none() {
            return;
        }
        if !self.passes(host, to) || !self.passes(to, host) {
            return;
        }
        if self.region(host) == self.region(to) && host != to {
            let pair = &self.pairs[self.pair(host, to)];
            if pair.interest[pair.way(host)] {
                return;
            }
        }
        let rtt = self.net.delay(self.region(host), self.region(to)) * 2;
        let hold = Duration::ZERO;
        let event = Box::new(Event::ProbeAnswered { id, hold });
        self.after(rtt, What::Agent(host, life, event));
    }

    fn check_network(&mut self, host: HostNo, life: u32, check: u64, addresses: &[String]) {
        self.alert(host);
        let mut waited = Duration::from_millis(2);
        let mut result = Err("no address".to_owned());
        for address in addresses {
            let Some((to, _)) = host_at(address).filter(|(to, _)| *to < self.servers.len()) else {
                result = Err(format!("{address} is no address"));
                continue;
            };
            if self.net.open(host, to) && self.works(to) {
                waited += self.net.delay(self.region(host), self.region(to)) * 2;
                result = Ok(());
                break;
            }
            waited += if self.net.open(host, to) && self.servers[to].gone == 0 && !self.servers[to].up {
                Duration::from_millis(5)
            } else {
                Duration::from_secs(2)
            };
            result = Err(format!("{address}: no INFO"));
        }
        let result = self.options.mutate_check(result);
        self.say(host, format!("checks {}: {result:?}", addresses.join(" ")));
        self.after(
            waited,
            What::Agent(host, life, Box::new(Event::Checked { check, result })),
        );
    }

    fn reset(&mut self, host: HostNo, target: &ResetTarget) -> Result<String, String> {
        self.say(host, format!("resets {}", target.what));
        let useful = self.could_just_heal(host, Act::Reset);
        let mut closed = 0;
        let remotes: Vec<(String, u16)> = target
            .remotes
            .iter()
            .filter_map(|r| {
                r.rsplit_once(':')
                    .and_then(|(ip, port)| Some((ip.to_owned(), port.parse().ok()?)))
            })
            .collect();
        for x in self.hosts_of(self.region(host)).filter(|x| *x != host) {
            let address = ip(x);
            let ports: Vec<u16> = remotes
                .iter()
                .filter(|(ip, _)| *ip == address)
                .map(|(_, p)| *p)
                .collect();
            if ports.is_empty() {
                continue;
            }
            let pair = self.pair(host, x);
            let (way, dialler) = (self.pairs[pair].way(host), self.pairs[pair].dialler);
            closed += self.close_slots(pair, |_, slot| {
                ports.contains(&if way == dialler { ROUTE_PORT } else { slot.port })
            });
        }
        for to in 0..self.regions.len() {
            if let Link::Up(via) | Link::Waits(via) = self.gateways[self.gateway(host, to)].link
                && remotes.contains(&(ip(via), GATEWAY_PORT))
            {
                self.close_gateway(host, to);
                closed += 1;
            }
        }
        // What destroys no socket does nothing.
        if closed > 0 {
            self.judge_act(host, Act::Reset, useful);
        }
        if closed == 0 {
            return Err(format!(
                "no socket of the local server goes to {}",
                target.remotes.join(", ")
            ));
        }
        Ok(format!("destroyed {closed}, of {}", target.what))
    }

    fn restart(&mut self, host: HostNo, life: u32, act: u64) {
        let ordered = std::mem::take(&mut self.agents[host].ordered);
        self.say(
            host,
            format!("restarts its server{}", if ordered { " as ordered" } else { "" }),
        );
        if !ordered {
            let useful = self.could_just_heal(host, Act::Restart);
            self.judge_act(host, Act::Restart, useful);
        }
        self.restart_server(host, if ordered { Why::Operator } else { Why::Hand });
        self.servers[host].act = Some((act, life));
    }

    /// What systemd does for whoever asks.
    pub(super) fn restart_server(&mut self, host: HostNo, why: Why) {
        self.server_down(host, why, Unit::Activating);
        if why == Why::Hand {
            self.servers[host].hand = Some(self.now);
        }
        self.server_start(host, Duration::from_millis(500), Duration::from_secs(3));
    }

    pub(super) fn server_id(&self, host: HostNo) -> String {
        format!("S{host}.{}", self.servers[host].starts)
    }

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

    fn varz(&self, host: HostNo) -> Varz {
        let fleet = &self.scenario.fleet;
        let here = self.region(host);
        let remote = (0..fleet.regions.len()).filter(|r| *r != here);
        Varz {
            server_id: self.server_id(host),
            server_name: format!("nats-{}", self.names[host]),
            version: if fleet.old { "2.9.10" } else { "2.10.26" }.to_owned(),
            mem: u64::from(self.servers[host].memory) << 20,
            cluster: Some(fleet.regions[here].clone()),
            cluster_addr: Some((ip(host), ROUTE_PORT)),
            pool_size: (!fleet.old).then_some(3),
            gateway: Some(fleet.regions[here].clone()),
            gateway_addr: Some((ip(host), GATEWAY_PORT)),
            gateways: remote
                .map(|r| {
                    let seeds = self.hosts_of(r).take(3).map(|h| format!("{}:{GATEWAY_PORT}", ip(h)));
                    (fleet.regions[r].clone(), seeds.collect())
                })
                .collect(),
            jetstream: fleet.jetstream,
            system_account: "$SYS".to_owned(),
            ..Varz::default()
        }
    }

    fn routes(&self, host: HostNo) -> Vec<Route> {
        let n = self.slots();
        let mut routes = Vec::new();
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
                    remote_id: self.server_id(x),
                    remote_name: if self.scenario.fleet.old {
                        String::new()
                    } else {
                        format!("nats-{}", self.names[x])
                    },
                    did_solicit: dialled,
                    is_configured: pair.configured && dialled,
                    ip: ip(x),
                    port: if dialled { ROUTE_PORT } else { slot.port },
                    in_msgs: match i {
                        0 => lived,
                        3 => lived / 10,
                        _ => 3,
                    },
                    account: (i == 3).then(|| "$SYS".to_owned()),
                    ..Route::default()
                });
            }
        }
        routes
    }

    fn gatewayz(&self, host: HostNo) -> Gatewayz {
        let conn = |cluster: usize, of: HostNo, cid: u64| GatewayConn {
            cluster: self.scenario.fleet.regions[cluster].clone(),
            cid,
            remote_id: self.server_id(of),
            ip: ip(of),
            port: GATEWAY_PORT,
            ..GatewayConn::default()
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
