//! The switchboard: every connection between servers that passes a front, and the faults that apply to it.
//!
//! A connection reads its own flags (one atomic load per frame); the rules are looked at only when a rule or what is known
//! about a connection changes.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use serde::Deserialize;

use super::{
    ConnectionView, FaultId, PoolSlot, Sticks, What,
    config::SYSTEM_ACCOUNT,
    wire::{Connection, DROP_INTEREST, DROP_MESSAGES, Direction, Gate, Identity, Link},
};

/// What to do with a connection that was just accepted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    Pass,
    Refuse,
    Hold,
}

/// Who dialled, by process id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caller {
    Server(usize),
    Agent(usize),
}

#[derive(Debug)]
struct Stall {
    from: usize,
    to: usize,
    what: What,
    // None: every connection of the pair, now and later.
    connections: Option<BTreeSet<u64>>,
}

#[derive(Debug, Default)]
struct State {
    connections: BTreeMap<u64, Arc<Connection>>,
    stalls: BTreeMap<FaultId, Stall>,
    cuts: BTreeSet<(usize, usize)>,
    // (server that dials, cluster it dials): the next connection is accepted and left in silence.
    holds: Vec<(usize, String)>,
    callers: HashMap<u32, Caller>,
}

#[derive(Debug)]
pub(crate) struct Board {
    names: Vec<String>,
    clusters: Vec<String>,
    state: Mutex<State>,
    next: AtomicU64,
}

impl Board {
    pub(crate) fn new(hosts: impl Iterator<Item = (String, String)>) -> Self {
        let (names, clusters) = hosts.unzip();
        Self {
            names,
            clusters,
            state: Mutex::default(),
            next: AtomicU64::new(1),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn learn_process(&self, pid: u32, caller: Caller) {
        self.state().callers.insert(pid, caller);
    }

    pub(crate) fn forget_process(&self, pid: u32) {
        self.state().callers.remove(&pid);
    }

    /// The processes to search for the owner of a new connection; none while no fault cares.
    pub(crate) fn suspects(&self) -> Vec<u32> {
        let state = self.state();
        if state.cuts.is_empty() && state.holds.is_empty() {
            Vec::new()
        } else {
            state.callers.keys().copied().collect()
        }
    }

    /// Decides about a new connection from the process `pid`, where that is known.
    pub(crate) fn admit(&self, link: Link, acceptor: usize, pid: Option<u32>) -> (Admission, Option<Caller>) {
        let mut state = self.state();
        let caller = pid.and_then(|pid| state.callers.get(&pid).copied());
        let admission = match caller {
            Some(Caller::Server(host) | Caller::Agent(host)) if state.cuts.contains(&pair(host, acceptor)) => {
                Admission::Refuse
            }
            Some(Caller::Server(host)) if link == Link::Gateway => {
                let held = state
                    .holds
                    .iter()
                    .position(|(h, c)| *h == host && *c == self.clusters[acceptor]);
                held.map_or(Admission::Pass, |index| {
                    state.holds.remove(index);
                    Admission::Hold
                })
            }
            _ => Admission::Pass,
        };
        (admission, caller)
    }

    pub(crate) fn open(&self, link: Link, acceptor: usize, caller: Option<Caller>) -> Arc<Connection> {
        let dialler = match caller {
            Some(Caller::Server(host)) => Some(host),
            Some(Caller::Agent(_)) | None => None,
        };
        let connection = Arc::new(Connection::new(self.next(), link, acceptor, dialler));
        let mut state = self.state();
        state.connections.insert(connection.id, connection.clone());
        self.refresh(&state, &connection);
        connection
    }

    pub(crate) fn close(&self, connection: &Connection) {
        self.state().connections.remove(&connection.id);
    }

    /// Reads the dialler's INFO: who it is and, since 2.10, which place of the pool this is.
    pub(crate) fn identify(&self, connection: &Arc<Connection>, info: &[u8]) {
        #[derive(Deserialize)]
        struct Info {
            #[serde(default)]
            server_name: String,
            #[serde(default)]
            route_pool_idx: u32,
            #[serde(default)]
            route_pool_size: u32,
            route_account: Option<String>,
        }
        // Later INFO lines are gossip: they carry the names of others.
        if connection.identity().introduced {
            return;
        }
        let start = info.iter().position(|&b| b == b'{').unwrap_or(0);
        let Ok(info) = serde_json::from_slice::<Info>(&info[start..]) else {
            return;
        };
        let Some(dialler) = self.names.iter().position(|n| *n == info.server_name) else {
            return;
        };
        let state = self.state();
        *connection.identity() = Identity {
            introduced: true,
            dialler: Some(dialler),
            pool_index: info.route_pool_idx,
            pool_size: info.route_pool_size,
            account: info.route_account.filter(|a| !a.is_empty()),
        };
        self.refresh(&state, connection);
    }

    /// Adds a stall; with [`Sticks::Connections`] `None` where there is nothing to stall.
    pub(crate) fn stall(&self, from: usize, to: usize, what: What, sticks: Sticks) -> Option<FaultId> {
        let mut state = self.state();
        let carrying = |c: &&Arc<Connection>| self.stalled_direction(c, from, to, &what).is_some();
        let now: BTreeSet<u64> = state.connections.values().filter(carrying).map(|c| c.id).collect();
        if now.is_empty() && sticks == Sticks::Connections {
            return None;
        }
        let id = self.next();
        let connections = (sticks == Sticks::Connections).then_some(now);
        state.stalls.insert(
            id,
            Stall {
                from,
                to,
                what,
                connections,
            },
        );
        self.refresh_all(&state);
        Some(id)
    }

    pub(crate) fn unstall(&self, id: FaultId) -> bool {
        let mut state = self.state();
        let known = state.stalls.remove(&id).is_some();
        self.refresh_all(&state);
        known
    }

    /// Removes every fault; what is held in silence stays held, as only its owner can give it up.
    pub(crate) fn clear(&self) {
        let mut state = self.state();
        state.stalls.clear();
        state.cuts.clear();
        state.holds.clear();
        self.refresh_all(&state);
    }

    pub(crate) fn cut(&self, a: usize, b: usize) {
        let mut state = self.state();
        state.cuts.insert(pair(a, b));
        self.refresh_all(&state);
    }

    pub(crate) fn mend(&self, a: usize, b: usize) -> bool {
        let mut state = self.state();
        let known = state.cuts.remove(&pair(a, b));
        self.refresh_all(&state);
        known
    }

    /// Closes every connection between two hosts; how many there were.
    pub(crate) fn reset(&self, a: usize, b: usize) -> usize {
        self.close_where(&self.state(), |c, dialler| pair(dialler, c.acceptor) == pair(a, b))
    }

    /// Closes the outbound gateway of `host` and holds the next one; how many were closed.
    pub(crate) fn hold_gateway(&self, host: usize, cluster: &str) -> usize {
        let mut state = self.state();
        state.holds.push((host, cluster.to_owned()));
        self.close_where(&state, |c, dialler| {
            c.link == Link::Gateway && dialler == host && self.clusters[c.acceptor] == cluster
        })
    }

    pub(crate) fn faults(&self) -> Vec<(FaultId, String)> {
        let state = self.state();
        let name = |host: usize| &self.names[host];
        let stalls = state.stalls.iter().map(|(id, s)| {
            let sticks = if s.connections.is_some() {
                "these connections"
            } else {
                "the pair"
            };
            (
                *id,
                format!("stall {} -> {} {} on {sticks}", name(s.from), name(s.to), s.what),
            )
        });
        let cuts = state
            .cuts
            .iter()
            .map(|&(a, b)| (0, format!("cut {} {}", name(a), name(b))));
        let holds = state
            .holds
            .iter()
            .map(|(h, c)| (0, format!("hold the next gateway {} -> {c}", name(*h))));
        stalls.chain(cuts).chain(holds).collect()
    }

    pub(crate) fn connections(&self) -> Vec<ConnectionView> {
        self.state().connections.values().map(|c| c.view(&self.names)).collect()
    }

    pub(crate) fn cuts(&self) -> Vec<(usize, usize)> {
        self.state().cuts.iter().copied().collect()
    }

    fn close_where(&self, state: &State, matches: impl Fn(&Connection, usize) -> bool) -> usize {
        let hit = |c: &&Arc<Connection>| c.dialler().is_some_and(|dialler| matches(c, dialler));
        let hits: Vec<_> = state.connections.values().filter(hit).collect();
        for connection in &hits {
            connection.gate.send_replace(Gate::Closed);
        }
        hits.len()
    }

    fn refresh_all(&self, state: &State) {
        state.connections.values().for_each(|c| self.refresh(state, c));
    }

    fn refresh(&self, state: &State, connection: &Connection) {
        let mut drops = [0, 0];
        for stall in state.stalls.values() {
            if stall
                .connections
                .as_ref()
                .is_some_and(|ids| !ids.contains(&connection.id))
            {
                continue;
            }
            if let Some(direction) = self.stalled_direction(connection, stall.from, stall.to, &stall.what) {
                drops[direction as usize] |= if stall.what == What::Interest {
                    DROP_INTEREST
                } else {
                    DROP_MESSAGES
                };
            }
        }
        let dialler = connection.dialler();
        let cut = dialler.is_some_and(|d| state.cuts.contains(&pair(d, connection.acceptor)));
        connection.set(drops, if cut { Gate::Held } else { Gate::Open });
    }

    /// In which direction of this connection `what` from one server to another travels, if it does.
    ///
    /// Between clusters, messages leave on the *sender's* outbound gateway, to whichever server it dialled there; interest in
    /// what `from`'s cluster wants comes back to `to` on the outbound gateway that `to` opened.
    fn stalled_direction(&self, c: &Connection, from: usize, to: usize, what: &What) -> Option<Direction> {
        let identity = c.identity();
        let dialler = identity.dialler?;
        if self.clusters[from] != self.clusters[to] {
            let leads = |a: usize, b: usize| dialler == a && self.clusters[c.acceptor] == self.clusters[b];
            return match what {
                _ if c.link != Link::Gateway => None,
                What::Messages => leads(from, to).then_some(Direction::ToAcceptor),
                What::Interest => leads(to, from).then_some(Direction::ToDialler),
                What::Pool(_) => None,
            };
        }
        if c.link != Link::Route {
            return None;
        }
        let slot = match what {
            What::Messages | What::Interest => true,
            What::Pool(PoolSlot::Index(index)) => identity.account.is_none() && identity.pool_index == *index,
            What::Pool(PoolSlot::Account(name)) => match &identity.account {
                Some(own) => own == name,
                // The system account is the only one that the lab's servers give a connection of its own.
                None => name != SYSTEM_ACCOUNT && identity.pool_index == fnv1a(name) % identity.pool_size.max(1),
            },
        };
        match (dialler, c.acceptor) {
            _ if !slot => None,
            ends if ends == (from, to) => Some(Direction::ToAcceptor),
            ends if ends == (to, from) => Some(Direction::ToDialler),
            _ => None,
        }
    }
}

fn pair(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}

/// The hash by which nats-server (2.10+, route.go) spreads accounts over the pool.
fn fnv1a(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}
