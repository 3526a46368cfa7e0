//! What system traffic a mesh of a given shape makes: at rest, at worst, and when one server restarts.
//!
//! From nats-server's `events.go`, `accounts.go` and `gateway.go` (2.9.10 to 2.15.1), proved against real meshes of 10, 20
//! and 40 servers (`docs/measured.md`, `make bench-sys`). One *broadcast* is one message that goes to all other servers of
//! the fleet: as many deliveries as there are other servers, gateways or not, because a gateway carries it once to each
//! cluster and the server there passes it on to its peers.
//!
//! | who broadcasts | when | versions |
//! |---|---|---|
//! | every server, STATSZ | every 10 s; every 30 s before 2.10.21 | all |
//! | every server, CONNS | every 30 s for each account that has clients there, `$G` left out | all |
//! | a server that starts, STATSZ | after 0.25 s, then at twice the time up to the interval | all |
//! | a server that sees a new server, STATSZ | at once; from 2.10.17 on at most one a second, so a server that starts does not answer each of the others | all |
//! | a server that a route was dialled to, CONNS of `$G` | each time: both sides dial where both list each other | before 2.10 |
//! | a server where a client connects or leaves, CONNS | each time, and one more of `$G` for each that connects before 2.10 | all |
//! | a server that goes, SHUTDOWN or LAMEDUCK | once | all |
//!
//! Not in the model: JetStream's own messages, leaf nodes, auth errors, whatever operators ask (`$SYS.REQ…`), and
//! subscriptions of clients of the system account, which add deliveries but no broadcasts.

use std::time::Duration;

use super::size;
pub use super::version::{BadVersion, ServerVersion};

/// CONNS of an account with clients: `eventsHBInterval`.
const CONNS_INTERVAL: f64 = 30.0;
/// First STATSZ of a server that starts; the time doubles until it is the interval.
const FIRST_STATSZ: f64 = 0.25;
/// Of the others, how many a server reaches on average when it answers each of them as soon as it hears it: its routes are
/// only coming up. Measured on 2.9.10 at 10, 20 and 40 servers.
const MESHED: f64 = 0.75;
/// Least time between two STATSZ of one server since 2.10.17, and the time in which servers redial and so hear of a new one.
const BURST: f64 = 1.0;

/// What the model needs to know of a fleet. Servers are alike and spread evenly.
#[derive(Debug, Clone, PartialEq)]
pub struct Shape {
    /// Servers of the whole fleet.
    pub servers: u32,
    /// Clusters, joined by gateways; 1 = no gateways.
    pub clusters: u32,
    /// Of all servers.
    pub version: ServerVersion,
    /// Route connections per peer without pinned accounts; negative = one for all. Without meaning before 2.10.
    pub pool_size: i32,
    /// Accounts with a route connection of their own, the system account among them.
    pub pinned: u32,
    /// Accounts that have clients on each server, `$G` left out.
    pub accounts: u32,
    /// Clients on each server.
    pub clients_per_server: u32,
    /// A restart begins with a lame duck: clients leave one by one, while the server still tells of it.
    pub lame_duck: bool,
    /// Length of a server's name; a server without one has its id, of 56.
    pub name_bytes: u32,
    /// Digits of the counters of a route connection that carries clients' messages: 1 = none were sent.
    pub route_digits: u32,
    /// How long the servers are up: the system account's own counters grow by it.
    pub age: Duration,
}

/// A rate.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Load {
    /// Messages per second.
    pub msgs_per_second: f64,
    /// Payload bytes per second.
    pub bytes_per_second: f64,
}

/// An amount.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Volume {
    /// Messages, each delivery counted.
    pub msgs: f64,
    /// Payload bytes.
    pub bytes: f64,
}

/// What one server has at rest.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Quiet {
    /// Into it.
    pub received: Load,
    /// Out of it: deliveries, to each server that it sends to itself.
    pub sent: Load,
}

/// What one restart adds to the quiet traffic.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct RestartCost {
    /// Deliveries at all servers.
    pub total: Volume,
    /// Into each of the others, on average.
    pub into_each: Volume,
    /// Into the one that restarts.
    pub into_restarted: Volume,
    /// From the start until it tells of itself no more often than the others.
    pub lasts: Duration,
    /// Into each of the others in the second in which all hear of it, quiet traffic left out.
    pub peak: Load,
}

impl Shape {
    /// A fleet without clients, with the defaults of its version, names of 8 bytes and a day old.
    #[must_use]
    pub fn new(servers: u32, clusters: u32, version: ServerVersion) -> Self {
        Self {
            servers,
            clusters,
            version,
            pool_size: 3,
            pinned: 1,
            accounts: 0,
            clients_per_server: 0,
            lame_duck: false,
            name_bytes: 8,
            route_digits: 6,
            age: Duration::from_secs(86_400),
        }
    }

    /// Other servers of the same cluster, on average.
    pub(super) fn peers(&self) -> u32 {
        (self.servers / self.clusters.max(1)).saturating_sub(1)
    }

    /// Route connections to each peer.
    pub(super) fn connections_per_peer(&self) -> u32 {
        match u32::try_from(self.pool_size) {
            Ok(pool) if self.version.pools_routes() => pool.max(1) + self.pinned,
            _ => 1,
        }
    }

    /// Servers that a broadcast reaches.
    fn others(&self) -> f64 {
        f64::from(self.servers.saturating_sub(1))
    }
}

/// Payload of one STATSZ.
#[must_use]
pub fn statsz_bytes(shape: &Shape) -> f64 {
    size::statsz(shape)
}

/// Traffic of one server at rest.
#[must_use]
pub fn quiet(shape: &Shape) -> Quiet {
    let statsz = 1.0 / shape.version.statsz_interval().as_secs_f64();
    let conns = f64::from(shape.accounts.min(shape.clients_per_server)) / CONNS_INTERVAL;
    let each = Load {
        msgs_per_second: statsz + conns,
        bytes_per_second: statsz * size::statsz(shape) + conns * size::conns(shape.version),
    };
    // Each broadcast is delivered once to each server, whoever passes it on.
    Quiet {
        received: each.times(shape.others()),
        sent: each.times(shape.others()),
    }
}

/// The most STATSZ that one server can be sent with nothing wrong in the servers: one a second from each other server; before
/// 2.10.17 there is no limit, and this is what it is when all servers find each other within a second.
#[must_use]
pub fn worst_legal(shape: &Shape) -> Load {
    let others = shape.others();
    let per_second = if shape.version.limits_statsz() {
        others
    } else {
        others * others
    };
    Load {
        msgs_per_second: per_second,
        bytes_per_second: per_second * size::statsz(shape),
    }
}

/// What the restart of one server costs.
#[must_use]
pub fn restart(shape: &Shape) -> RestartCost {
    let others = shape.others();
    let same_cluster = f64::from(shape.peers());
    let (version, statsz, conns) = (shape.version, size::statsz(shape), size::conns(shape.version));
    let (told, lasts) = back_off(shape);
    let old = version.tells_of_global();
    // Both sides of each pair of the cluster dial: the one that was dialled tells of it.
    let dialled = Volume::of(if old { same_cluster } else { 0.0 }, conns);
    let answers = if version.limits_statsz() { 0.0 } else { others * MESHED };
    let clients = f64::from(shape.clients_per_server);
    let connect = Volume::of(clients * if old { 2.0 } else { 1.0 }, conns);
    let leave = Volume::of(if shape.lame_duck { clients } else { 0.0 }, conns);
    // Broadcasts by the others, and by the one that restarts.
    let mut by_others = Volume::of(others, statsz).plus(dialled);
    let by_it = Volume::of((told + answers).max(0.0), statsz)
        .plus(dialled)
        .plus(Volume::of(1.0, size::SHUTDOWN))
        .plus(leave);
    // Clients of a lame duck connect elsewhere while it still hears of it; clients of one that is down while it does not.
    let mut unheard = Volume::default();
    if shape.lame_duck {
        by_others = by_others.plus(connect);
    } else {
        unheard = connect.times((others - 1.0).max(0.0));
    }
    let total = by_others.plus(by_it).times(others).plus(unheard);
    let into_each = total.minus(by_others).times(1.0 / others.max(1.0));
    RestartCost {
        total,
        into_each,
        into_restarted: by_others,
        lasts,
        peak: Load {
            msgs_per_second: into_each.msgs / BURST,
            bytes_per_second: into_each.bytes / BURST,
        },
    }
}

/// How many STATSZ a server that starts sends beyond those of its interval until it is back to it, and how long that takes.
fn back_off(shape: &Shape) -> (f64, Duration) {
    let interval = shape.version.statsz_interval().as_secs_f64();
    let (mut step, mut at, mut sent) = (FIRST_STATSZ, FIRST_STATSZ, 1.0);
    while step < interval {
        step = (step * 2.0).min(interval);
        if step < interval {
            at += step;
            sent += 1.0;
        }
    }
    // What it sends in its first second counts against the limit, which puts the timer off.
    let sent = if shape.version.limits_statsz() {
        sent - 1.0
    } else {
        sent
    };
    (sent - at / interval, Duration::from_secs_f64(at))
}

impl Volume {
    fn of(msgs: f64, bytes_each: f64) -> Self {
        Self {
            msgs,
            bytes: msgs * bytes_each,
        }
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            msgs: self.msgs + other.msgs,
            bytes: self.bytes + other.bytes,
        }
    }

    fn minus(self, other: Self) -> Self {
        self.plus(other.times(-1.0))
    }

    pub(super) fn times(self, n: f64) -> Self {
        Self {
            msgs: self.msgs * n,
            bytes: self.bytes * n,
        }
    }
}

impl Load {
    pub(super) fn times(self, n: f64) -> Self {
        Self {
            msgs_per_second: self.msgs_per_second * n,
            bytes_per_second: self.bytes_per_second * n,
        }
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            msgs_per_second: self.msgs_per_second + other.msgs_per_second,
            bytes_per_second: self.bytes_per_second + other.bytes_per_second,
        }
    }
}

#[cfg(test)]
#[path = "model_tests.rs"]
mod tests;
