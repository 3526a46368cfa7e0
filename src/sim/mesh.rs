//! Routes with their gossip, and gateways: what connects servers, and what passes.

use std::time::Duration;

use super::fault::HostNo;

/// Most connections of one pair: a pool of three and one for the system account.
pub(super) const SLOTS: usize = 4;
/// A route that hears nothing is closed after this.
pub(super) const ROUTE_STALE: Duration = Duration::from_secs(85);
/// A gateway that hears nothing is closed after this.
pub(super) const GATEWAY_STALE: Duration = Duration::from_secs(45);

/// One route connection.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Slot {
    pub(super) up: bool,
    /// Nothing passes: from the smaller host number to the larger, and back.
    pub(super) stall: [bool; 2],
    /// When that began.
    pub(super) stalled_at: [Duration; 2],
    pub(super) since: Duration,
    /// Connection ids at both ends.
    pub(super) rid: [u64; 2],
    /// The dialling end's port.
    pub(super) port: u16,
    /// Gone and not dialled again: a bug of the pool.
    pub(super) lost: bool,
    /// What is queued for it fills the memory of the sender.
    pub(super) queues: bool,
}

/// All connections between two servers of one cluster.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pair {
    pub(super) ends: [HostNo; 2],
    pub(super) slots: [Slot; SLOTS],
    /// One of the two stands in the other's configuration: dialled for ever. Else gossiped: dialled once.
    pub(super) configured: bool,
    /// Which end dialled.
    pub(super) dialler: usize,
    /// New interest does not travel: of the first to the second, and back.
    pub(super) interest: [bool; 2],
    /// The receiving server drops what comes, whatever the connection: first to second, and back.
    pub(super) stubborn: [bool; 2],
    /// After a cut, TCP tries again only then.
    pub(super) resume: Duration,
    /// A dial is planned.
    pub(super) dialling: bool,
}

impl Pair {
    pub(super) fn any(&self) -> bool {
        self.slots.iter().any(|s| s.up)
    }

    /// 0 where `from` is the first end.
    pub(super) fn way(&self, from: HostNo) -> usize {
        usize::from(self.ends[0] != from)
    }

    /// Does the canaries' connection pass messages from `from`? The network apart.
    pub(super) fn passes(&self, from: HostNo, now: Duration) -> bool {
        let way = self.way(from);
        let slot = &self.slots[0];
        slot.up && !slot.stall[way] && !self.stubborn[way] && now >= self.resume
    }
}

/// Where an outbound gateway stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Link {
    /// Not connected; dialled again.
    Idle,
    /// Connected to a server there and waiting for its INFO for ever.
    Waits(HostNo),
    /// Up.
    Up(HostNo),
}

/// The outbound gateway of a server to a remote cluster.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Gateway {
    pub(super) link: Link,
    /// Where it ended before, and until when.
    pub(super) left: Option<(HostNo, Duration)>,
    pub(super) stall: bool,
    pub(super) cid: u64,
    pub(super) since: Duration,
    pub(super) resume: Duration,
    pub(super) dialling: bool,
    /// Its next dials wait for ever, so many times.
    pub(super) will_wait: u32,
}

impl Gateway {
    pub(super) fn new() -> Self {
        Self {
            link: Link::Idle,
            left: None,
            stall: false,
            cid: 0,
            since: Duration::ZERO,
            resume: Duration::ZERO,
            dialling: false,
            will_wait: 0,
        }
    }
}
