//! What a healthy fleet of this shape makes: from what the agent knows to the model's figures.
//!
//! The model knows one version; a fleet in the middle of an upgrade has several. Each version's figures count with the
//! share of servers that run it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::core::sys::model::{self, ServerVersion, Shape};
use crate::core::sys::window::Amount;

/// What the agent knows of the fleet.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Facts {
    /// Servers by version, this one included.
    pub versions: BTreeMap<ServerVersion, u32>,
    /// Clusters, at least the own one.
    pub clusters: u32,
    /// `pool_size` of the local server; `None` before 2.10.
    pub pool_size: Option<i64>,
    /// Pinned accounts, the system account included.
    pub pinned: u32,
    /// Accounts with clients on the local server.
    pub accounts: u32,
    /// Clients of the local server.
    pub clients: u32,
    /// Mean length of a server's name.
    pub name_bytes: u32,
    /// How long the local server is up.
    pub age: Duration,
}

/// The figures that the detector compares with.
#[derive(Debug, Clone, PartialEq)]
pub struct Expected {
    /// Servers that this rests on.
    pub servers: u32,
    /// Clusters that this rests on.
    pub clusters: u32,
    /// Quiet rate into this server, per second.
    pub received: Amount,
    /// Quiet rate out of it.
    pub sent: Amount,
    /// Most that servers which keep their limit may send, per second.
    pub worst: Amount,
    /// One STATSZ of every other server: legal at any moment, where their timers run in step.
    pub round: Amount,
    /// One restart somewhere, into this server.
    pub restart: Amount,
    /// How long that takes.
    pub lasts: Duration,
    /// Size of one STATSZ.
    pub statsz_bytes: f64,
}

impl Expected {
    /// From what is known; `None` = no version of any server is known.
    #[must_use]
    pub fn of(facts: &Facts) -> Option<Self> {
        let servers: u32 = facts.versions.values().sum();
        let mut sum: Option<Self> = None;
        for (version, count) in &facts.versions {
            let share = f64::from(*count) / f64::from(servers.max(1));
            let one = Self::uniform(&shape(facts, *version, servers));
            sum = Some(match sum {
                None => one.weighted(share),
                Some(sum) => sum.and(&one.weighted(share)),
            });
        }
        sum
    }

    fn uniform(shape: &Shape) -> Self {
        let quiet = model::quiet(shape);
        let restart = model::restart(shape);
        let rate = |l: model::Load| {
            Amount {
                msgs: l.msgs_per_second,
                bytes: l.bytes_per_second,
            }
            .sane()
        };
        let others = f64::from(shape.servers.saturating_sub(1));
        let statsz = Some(model::statsz_bytes(shape))
            .filter(|b| b.is_finite())
            .unwrap_or(0.0);
        Self {
            servers: shape.servers,
            clusters: shape.clusters,
            received: rate(quiet.received),
            sent: rate(quiet.sent),
            worst: rate(model::worst_legal(shape)),
            round: Amount {
                msgs: others,
                bytes: others * statsz,
            },
            restart: Amount {
                msgs: restart.into_each.msgs,
                bytes: restart.into_each.bytes,
            }
            .sane(),
            lasts: restart.lasts,
            statsz_bytes: statsz,
        }
    }

    fn weighted(self, share: f64) -> Self {
        Self {
            received: self.received.times(share),
            sent: self.sent.times(share),
            worst: self.worst.times(share),
            round: self.round.times(share),
            restart: self.restart.times(share),
            statsz_bytes: self.statsz_bytes * share,
            ..self
        }
    }

    fn and(self, other: &Self) -> Self {
        Self {
            received: self.received.plus(other.received),
            sent: self.sent.plus(other.sent),
            worst: self.worst.plus(other.worst),
            round: self.round.plus(other.round),
            restart: self.restart.plus(other.restart),
            lasts: self.lasts.max(other.lasts),
            statsz_bytes: self.statsz_bytes + other.statsz_bytes,
            ..self
        }
    }
}

fn shape(facts: &Facts, version: ServerVersion, servers: u32) -> Shape {
    let pool = facts.pool_size.and_then(|p| i32::try_from(p).ok()).unwrap_or(-1);
    Shape {
        pool_size: pool,
        pinned: facts.pinned,
        accounts: facts.accounts,
        clients_per_server: facts.clients,
        // The dearer of the two: a credit must cover either.
        lame_duck: true,
        name_bytes: facts.name_bytes,
        age: facts.age,
        ..Shape::new(servers, facts.clusters.max(1), version)
    }
}
