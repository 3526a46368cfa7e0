//! The switchboard: every connection between servers that passes a front, and the faults that apply to it.
//!
//! A connection reads its own flags (one atomic load per frame); the rules are looked at only when a rule or what is known
//! about a connection changes.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    str::FromStr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::frame::Kind;

/// Number of a fault in a lab.
pub type FaultId = u64;

/// What is swallowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// Messages of all accounts; interest still travels.
    Messages,
    /// Changes of interest; messages for subscriptions known before still travel.
    Interest,
    /// Messages on one pooled route connection (2.10 and newer).
    Pool(PoolSlot),
}

/// One route connection of a pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PoolSlot {
    /// By its place in the pool.
    Index(u32),
    /// The one that carries this account: its own, or the slot that its name hashes to.
    Account(String),
}

/// How long a stall lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sticks {
    /// On the connections there are now: a new connection flows, so a reset heals.
    Connections,
    /// On the pair: new connections stall too, so a reset does not help.
    Pair,
}

impl FromStr for What {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "messages" => Ok(Self::Messages),
            None if text == "interest" => Ok(Self::Interest),
            Some(("pool", n)) if n.parse::<u32>().is_ok() => Ok(Self::Pool(PoolSlot::Index(n.parse().unwrap_or(0)))),
            Some(("account", name)) if !name.is_empty() => Ok(Self::Pool(PoolSlot::Account(name.to_owned()))),
            _ => Err(format!(
                "what to stall is `messages`, `interest`, `pool:<index>` or `account:<name>`, not `{text}`"
            )),
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Messages => f.write_str("messages"),
            Self::Interest => f.write_str("interest"),
            Self::Pool(PoolSlot::Index(index)) => write!(f, "pool:{index}"),
            Self::Pool(PoolSlot::Account(name)) => write!(f, "account:{name}"),
        }
    }
}

/// A connection as `status` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionView {
    /// Number, unique in the lab.
    pub id: u64,
    /// `route` or `gateway`.
    pub link: String,
    /// The server that dialled, once it said its name.
    pub dialler: Option<String>,
    /// The server that was dialled.
    pub acceptor: String,
    /// Place in the pool.
    pub pool_index: u32,
    /// The account that has this connection to itself.
    pub account: Option<String>,
    /// What is swallowed or held now; empty where all is well.
    pub faults: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    Route,
    Gateway,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    ToAcceptor,
    ToDialler,
}

/// Whether bytes move at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gate {
    Open,
    Held,
    Closed,
}

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

#[derive(Debug, Clone, Default)]
struct Identity {
    introduced: bool,
    dialler: Option<usize>,
    pool_index: u32,
    pool_size: u32,
    account: Option<String>,
}

#[derive(Debug)]
pub(crate) struct Connection {
    id: u64,
    link: Link,
    acceptor: usize,
    identity: Mutex<Identity>,
    drops: [AtomicU8; 2],
    pub(crate) gate: watch::Sender<Gate>,
}

const DROP_MESSAGES: u8 = 1;
const DROP_INTEREST: u8 = 2;

impl Connection {
    /// Whether a frame of this kind passes in this direction now.
    pub(crate) fn passes(&self, kind: Kind, direction: Direction) -> bool {
        let drops = self.drops[direction as usize].load(Ordering::Relaxed);
        match kind {
            Kind::Message => drops & DROP_MESSAGES == 0,
            Kind::Interest => drops & DROP_INTEREST == 0,
            Kind::Info | Kind::Other => true,
        }
    }
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
        let connection = Arc::new(Connection {
            id: self.next(),
            link,
            acceptor,
            identity: Mutex::default(),
            drops: [AtomicU8::new(0), AtomicU8::new(0)],
            gate: watch::Sender::new(Gate::Open),
        });
        let mut state = self.state();
        if let Some(Caller::Server(host)) = caller {
            identity(&connection).dialler = Some(host);
        }
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
        let Some(start) = info.iter().position(|&b| b == b'{') else {
            return;
        };
        let Ok(info) = serde_json::from_slice::<Info>(&info[start..]) else {
            return;
        };
        let Some(dialler) = self.names.iter().position(|n| *n == info.server_name) else {
            return;
        };
        let state = self.state();
        {
            let mut identity = identity(connection);
            // Later INFO lines are gossip: they carry the names of others.
            if identity.introduced {
                return;
            }
            *identity = Identity {
                introduced: true,
                dialler: Some(dialler),
                pool_index: info.route_pool_idx,
                pool_size: info.route_pool_size,
                account: info.route_account.filter(|a| !a.is_empty()),
            };
        }
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
        let view = |c: &Arc<Connection>| {
            let identity = identity(c).clone();
            let flag = |direction: Direction, bit, text: &str| {
                (c.drops[direction as usize].load(Ordering::Relaxed) & bit != 0).then(|| text.to_owned())
            };
            let held = (*c.gate.borrow() == Gate::Held).then(|| "held".to_owned());
            let flags = [
                flag(Direction::ToAcceptor, DROP_MESSAGES, "messages to acceptor"),
                flag(Direction::ToAcceptor, DROP_INTEREST, "interest to acceptor"),
                flag(Direction::ToDialler, DROP_MESSAGES, "messages to dialler"),
                flag(Direction::ToDialler, DROP_INTEREST, "interest to dialler"),
                held,
            ];
            ConnectionView {
                id: c.id,
                link: if c.link == Link::Route { "route" } else { "gateway" }.to_owned(),
                dialler: identity.dialler.map(|d| self.names[d].clone()),
                acceptor: self.names[c.acceptor].clone(),
                pool_index: identity.pool_index,
                account: identity.account,
                faults: flags.into_iter().flatten().collect(),
            }
        };
        self.state().connections.values().map(view).collect()
    }

    fn close_where(&self, state: &State, matches: impl Fn(&Connection, usize) -> bool) -> usize {
        let hit = |c: &&Arc<Connection>| identity(c).dialler.is_some_and(|dialler| matches(c, dialler));
        state
            .connections
            .values()
            .filter(hit)
            .inspect(|c| {
                c.gate.send_replace(Gate::Closed);
            })
            .count()
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
        for (flag, bits) in connection.drops.iter().zip(drops) {
            flag.store(bits, Ordering::Relaxed);
        }
        let dialler = identity(connection).dialler;
        let cut = dialler.is_some_and(|d| state.cuts.contains(&pair(d, connection.acceptor)));
        let gate = if cut { Gate::Held } else { Gate::Open };
        connection.gate.send_if_modified(|now| {
            let change = *now != Gate::Closed && *now != gate;
            if change {
                *now = gate;
            }
            change
        });
    }

    /// In which direction of this connection `what` from one server to another travels, if it does.
    ///
    /// Between clusters, messages leave on the *sender's* outbound gateway, to whichever server it dialled there; interest in
    /// what `from`'s cluster wants comes back to `to` on the outbound gateway that `to` opened.
    fn stalled_direction(&self, c: &Connection, from: usize, to: usize, what: &What) -> Option<Direction> {
        let identity = identity(c);
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
                None => identity.pool_index == fnv1a(name) % identity.pool_size.max(1) && !self.has_own_route(name),
            },
        };
        match (dialler, c.acceptor) {
            _ if !slot => None,
            ends if ends == (from, to) => Some(Direction::ToAcceptor),
            ends if ends == (to, from) => Some(Direction::ToDialler),
            _ => None,
        }
    }

    // The system account is the only one the lab's servers pin.
    fn has_own_route(&self, account: &str) -> bool {
        account == super::config::SYSTEM_ACCOUNT
    }
}

fn identity(connection: &Connection) -> MutexGuard<'_, Identity> {
    connection.identity.lock().unwrap_or_else(PoisonError::into_inner)
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
