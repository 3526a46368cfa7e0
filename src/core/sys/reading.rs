//! What the local server counts of the system account, as plain data. Nothing here asks for a message: the counters are
//! there anyway.

/// Messages and bytes since some beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Messages.
    pub msgs: u64,
    /// Bytes.
    pub bytes: u64,
}

/// One account of `/accstatz`. All counts begin with the server's start.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AccountTraffic {
    /// Its name.
    pub account: String,
    /// Deliveries made for it: to routes, gateways, leaf nodes and clients, each counted.
    pub sent: Tally,
    /// Taken in for it. 2.9 books what arrives by routes on `$G` instead, so there this is only what clients sent.
    pub received: Tally,
    /// Client and leaf connections.
    pub clients: u64,
    /// Slow consumers among them.
    pub slow_consumers: u64,
}

/// `/accstatz?unused=1`, what is used of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Accstatz {
    /// Whose counters these are; new at every start, when they begin at 0 again.
    pub server_id: String,
    /// The system account's; `None` where the server lists no such account.
    pub system: Option<AccountTraffic>,
    /// Accounts with connections that send a CONNS heartbeat: all but `$G`.
    pub active_accounts: u64,
    /// Accounts that the server knows.
    pub accounts: u64,
}

/// The key of [`Event::SysCounted`](crate::core::agent::event::Event::SysCounted) under which CONNS events are counted:
/// their subject does not say who sent them, the local server's own are among them, and nothing is decoded.
pub const CONNS: &str = "ACCOUNT";
/// The key for senders beyond the number that is told apart.
pub const OTHERS: &str = "others";
