//! One connection between two servers, as it passes a front.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU8, Ordering},
};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::frame::Kind;

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

/// What the dialler's first INFO says.
#[derive(Debug, Clone, Default)]
pub(crate) struct Identity {
    pub(crate) introduced: bool,
    pub(crate) dialler: Option<usize>,
    pub(crate) pool_index: u32,
    pub(crate) pool_size: u32,
    pub(crate) account: Option<String>,
}

#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) id: u64,
    pub(crate) link: Link,
    pub(crate) acceptor: usize,
    identity: Mutex<Identity>,
    drops: [AtomicU8; 2],
    pub(crate) gate: watch::Sender<Gate>,
}

pub(crate) const DROP_MESSAGES: u8 = 1;
pub(crate) const DROP_INTEREST: u8 = 2;

impl Connection {
    pub(crate) fn new(id: u64, link: Link, acceptor: usize, dialler: Option<usize>) -> Self {
        Self {
            id,
            link,
            acceptor,
            identity: Mutex::new(Identity {
                dialler,
                ..Identity::default()
            }),
            drops: [AtomicU8::new(0), AtomicU8::new(0)],
            gate: watch::Sender::new(Gate::Open),
        }
    }

    pub(crate) fn identity(&self) -> MutexGuard<'_, Identity> {
        self.identity.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn dialler(&self) -> Option<usize> {
        self.identity().dialler
    }

    /// Sets what is dropped in each [`Direction`], and whether anything passes; closed stays closed.
    pub(crate) fn set(&self, drops: [u8; 2], gate: Gate) {
        for (flag, bits) in self.drops.iter().zip(drops) {
            flag.store(bits, Ordering::Relaxed);
        }
        self.gate.send_if_modified(|now| {
            let change = *now != Gate::Closed && *now != gate;
            if change {
                *now = gate;
            }
            change
        });
    }

    pub(crate) fn view(&self, names: &[String]) -> ConnectionView {
        let identity = self.identity().clone();
        let flag = |direction: Direction, bit, text: &str| {
            (self.drops[direction as usize].load(Ordering::Relaxed) & bit != 0).then(|| text.to_owned())
        };
        let flags = [
            flag(Direction::ToAcceptor, DROP_MESSAGES, "messages to acceptor"),
            flag(Direction::ToAcceptor, DROP_INTEREST, "interest to acceptor"),
            flag(Direction::ToDialler, DROP_MESSAGES, "messages to dialler"),
            flag(Direction::ToDialler, DROP_INTEREST, "interest to dialler"),
            (*self.gate.borrow() == Gate::Held).then(|| "held".to_owned()),
        ];
        ConnectionView {
            id: self.id,
            link: if self.link == Link::Route { "route" } else { "gateway" }.to_owned(),
            dialler: identity.dialler.map(|dialler| names[dialler].clone()),
            acceptor: names[self.acceptor].clone(),
            pool_index: identity.pool_index,
            account: identity.account,
            faults: flags.into_iter().flatten().collect(),
        }
    }

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
