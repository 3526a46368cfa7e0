//! What a core wants done, done to the world.

use std::time::Duration;

use super::fault::{HostNo, RegionNo};
use super::invariants::Act;
use super::mesh::Link;
use super::network::Network;
use super::server::{Unit, Why};
use super::store::Store;
use super::world::{What, World};
use crate::core::agent::event::{Action, Answered, Event, Passed, ResetTarget};
use crate::core::ids::HostName;

pub(super) const ROUTE_PORT: u16 = 6222;
pub(super) const GATEWAY_PORT: u16 = 7222;

/// An INFO that takes longer is none.
const CHECK: Duration = Duration::from_secs(2);

/// The address of a host.
pub(super) fn ip(host: HostNo) -> String {
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
                let agent = &self.agents[host];
                let ledger = ledger.written(Some(agent.boot(self.now)), agent.now(self.now));
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
                let reachable = self.reaches_store(host);
                let result = self.register(host).read(reachable);
                let event = Box::new(Event::PermitsRead { ask, result });
                self.after(Duration::from_millis(20), What::Agent(host, life, event));
            }
            Action::WritePermits { ask, bytes, expect } => {
                let reachable = self.reaches_store(host);
                let result = self.register(host).write(bytes, expect, reachable);
                self.watch.dirty = true;
                let event = Box::new(Event::PermitsWritten { ask, result });
                self.after(Duration::from_millis(20), What::Agent(host, life, event));
                self.may_die(host);
            }
            Action::ReadRoutes => {
                if !std::mem::replace(&mut self.agents[host].routes_asked, true) {
                    self.after(Duration::from_millis(250), What::Routes(host, life));
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

    /// The register that this agent uses.
    fn register(&mut self, host: HostNo) -> &mut Store {
        if self.options.permits_for_all() {
            &mut self.agents[host].register
        } else {
            &mut self.store
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
    pub(super) fn reaches_store(&self, host: HostNo) -> bool {
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
        if self.agents[to].core.is_none() && self.agents[to].stand_in.is_none() {
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
        // Who stands still answers when it goes on: the request waits in its socket.
        let waits = match self.agents[to].frozen {
            true => self.agents[to].thaws_at.saturating_sub(self.now),
            false => Duration::ZERO,
        };
        let rtt = self.net.delay(self.region(host), self.region(to)) * 2 + waits;
        let hold = Duration::ZERO;
        let event = Box::new(Event::ProbeAnswered { id, hold });
        self.after(rtt, What::Agent(host, life, event));
    }

    fn check_network(&mut self, host: HostNo, life: u32, check: u64, addresses: &[String]) {
        self.alert(host);
        let mut waited = Duration::from_millis(2);
        let mut result = Err("no address".to_owned());
        let mut who = None;
        for address in addresses {
            let Some((to, _)) = host_at(address).filter(|(to, _)| *to < self.servers.len()) else {
                result = Err(format!("{address} is no address"));
                continue;
            };
            let loss = self.net.loss(self.region(host), self.region(to));
            let (connect, line) = Network::handshake(loss, &mut self.dice);
            if self.net.open(host, to) && self.works(to) && connect + line < CHECK {
                let connect = connect + self.net.delay(self.region(host), self.region(to)) * 2;
                waited += connect + line;
                result = Ok(connect);
                who = Some(Answered {
                    server_id: self.servers[to].id.to_string(),
                    cluster: Some(self.scenario.fleet.regions[self.region(to)].clone()),
                });
                break;
            }
            waited += if self.net.open(host, to) && self.servers[to].gone == 0 && !self.servers[to].up {
                Duration::from_millis(5)
            } else {
                CHECK
            };
            result = Err(format!("{address}: no INFO"));
        }
        let result = self.options.mutate_check(result);
        self.say(host, format!("checks {}: {result:?}", addresses.join(" ")));
        let result = result.map(|connect| Passed { connect, who });
        self.after(
            waited,
            What::Agent(host, life, Box::new(Event::Checked { check, result })),
        );
    }

    fn reset(&mut self, host: HostNo, target: &ResetTarget) -> Result<String, String> {
        self.say(host, format!("resets {}", target.what));
        let remotes: Vec<(String, u16)> = target
            .remotes
            .iter()
            .filter_map(|r| {
                r.rsplit_once(':')
                    .and_then(|(ip, port)| Some((ip.to_owned(), port.parse().ok()?)))
            })
            .collect();
        let here = self.hosts_of(self.region(host)).filter(|x| *x != host);
        let peers: Vec<(HostNo, Vec<u16>)> = here
            .map(|x| {
                let address = ip(x);
                let of_peer = remotes.iter().filter(|(ip, _)| *ip == address);
                (x, of_peer.map(|(_, p)| *p).collect())
            })
            .filter(|(x, ports): &(HostNo, Vec<u16>)| self.has_sockets(host, *x, ports))
            .collect();
        let gateways: Vec<RegionNo> = (0..self.regions.len())
            .filter(|to| match self.gateways[self.gateway(host, *to)].link {
                Link::Up(via) | Link::Waits(via) => remotes.contains(&(ip(via), GATEWAY_PORT)),
                Link::Idle => false,
            })
            .collect();
        if peers.is_empty() && gateways.is_empty() {
            // What destroys no socket does nothing.
            let to = target.remotes.join(", ");
            return Err(format!("no socket of the local server goes to {to}"));
        }
        let hosts: Vec<HostNo> = peers.iter().map(|(x, _)| *x).collect();
        let useful = self.reset_useful(host, &hosts, &gateways);
        self.judge_act(host, Act::Reset, useful);
        let mut closed = gateways.len();
        for (x, ports) in peers {
            let pair = self.pair(host, x);
            let (way, dialler) = (self.pairs[pair].way(host), self.pairs[pair].dialler);
            closed += self.close_slots(pair, |_, slot| {
                ports.contains(&if way == dialler { ROUTE_PORT } else { slot.port })
            });
        }
        for to in gateways {
            self.close_gateway(host, to);
        }
        Ok(format!("destroyed {closed}, of {}", target.what))
    }

    /// Does the server have route connections to a peer with one of these remote ports?
    fn has_sockets(&self, host: HostNo, x: HostNo, ports: &[u16]) -> bool {
        let pair = &self.pairs[self.pair(host, x)];
        let dialled = pair.way(host) == pair.dialler;
        let mut up = pair.slots.iter().take(self.slots()).filter(|s| s.up);
        up.any(|s| ports.contains(&if dialled { ROUTE_PORT } else { s.port }))
    }

    fn restart(&mut self, host: HostNo, life: u32, act: u64) {
        let ordered = self.agents[host].core.as_ref().is_some_and(|c| c.restarts_as_ordered());
        let how = if ordered { " as ordered" } else { "" };
        self.say(host, format!("restarts its server{how}"));
        self.judge_moment(host, ordered);
        if !ordered {
            let useful = self.restart_useful(host);
            self.judge_act(host, Act::Restart, useful);
        }
        self.restart_server(host, if ordered { Why::Operator } else { Why::Hand });
        self.servers[host].hand = Some(self.now);
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
}
