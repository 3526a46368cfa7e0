//! Gates: why a remedy is held back. A refusal is a value with its figures and a sentence to act on.
//!
//! Which gates hold which rung is in docs/operations.md, where a test looks for every name. A path reset is cheap and
//! local and is held by little; a restart is held by all. The first that holds is named.

use std::fmt;
use std::time::Duration;

use crate::core::ids::{HostName, Wall};
use crate::core::permit::document::Scope;
use crate::core::permit::rules::Refusal;
use crate::core::policy::Mode;

/// A refusal.
#[derive(Debug, Clone, PartialEq)]
pub enum Blocked {
    /// Somebody paused.
    Paused {
        /// What is paused.
        scope: Scope,
        /// Who paused it.
        who: String,
        /// Why.
        why: String,
        /// Until when; `None` = until resumed.
        until: Option<Wall>,
    },
    /// The permit is not to be had, or was lost.
    NoPermit(Refusal),
    /// The register of permits does not answer.
    PermitStore(String),
    /// Without a register: another host's time slot.
    NotMySlot {
        /// When this host's next one opens; `None` = not soon.
        next: Option<Wall>,
    },
    /// The agent itself is slow or cut off.
    SelfUnwell(String),
    /// What is known of the server is too old.
    StaleData {
        /// Endpoint.
        source: &'static str,
        /// Age; `None` = never read.
        age: Option<Duration>,
    },
    /// No INFO from the peer.
    NetworkDown {
        /// What was checked.
        address: String,
        /// What happened.
        what: String,
    },
    /// The peer's address is not known, so the network cannot be checked.
    NoAddress(String),
    /// Nobody else proves that the source is alive.
    NoWitness(HostName),
    /// What is said does not fit what is known here; in words.
    Doubtful(String),
    /// Too few say that they do not hear this host.
    FewWords(HostName),
    /// Who misses this host never heard it itself.
    Hearsay(HostName),
    /// Several servers of the cluster have one name.
    SameName {
        /// The name.
        name: String,
        /// Whose servers.
        hosts: Vec<HostName>,
    },
    /// Two hosts say that one server is theirs.
    SameServer(HostName, HostName),
    /// The server has no gateways, and the fault is on the way to this cluster.
    NoGateway(String),
    /// The server has gateways, and neither its configuration nor any connection so far knew of one with this cluster.
    UnknownGateway(String),
    /// No socket to reset.
    NoTarget(String),
    /// The connection is so new that no beacon had the time to come over it.
    YoungConnection(Duration),
    /// The only ones who say so were themselves silent until a moment ago, as this one.
    JustBack(HostName),
    /// Sockets cannot be reset here.
    ResetUnavailable(String),
    /// The server does not answer.
    ServerDown,
    /// The server is a lame duck.
    LameDuck,
    /// The server has just started.
    ServerStarting(Duration),
    /// The unit is stopped, masked, starting, or its state is unknown.
    UnitState(String),
    /// The host's own limit.
    HostLimit {
        /// `reset` or `restart`.
        action: &'static str,
        /// The limit.
        per_hour: u32,
        /// Time until the next is allowed.
        wait: Duration,
    },
    /// This fault came back too often after a remedy.
    Flapping {
        /// Fault id.
        fault: String,
        /// Remedies within the hour.
        times: usize,
    },
    /// What was done here before cannot be read: any fault may have come back too often.
    Forgotten {
        /// For how long that counts.
        wait: Duration,
        /// Which file, and what is wrong with it; empty = not known any more.
        why: String,
    },
    /// An incident, not a host.
    TooManySick {
        /// Sick hosts, this one included.
        sick: usize,
        /// Of so many.
        of: usize,
        /// Allowed.
        limit: usize,
    },
    /// It was so until so long ago.
    JustManySick(Duration),
    /// Another host's server is being restarted.
    OtherRestarting(HostName),
    /// It was, and the host was not heard again by anybody.
    OtherNotBack(HostName),
    /// A system traffic storm is on.
    Brownout {
        /// `host`, `region` or `fleet`.
        scope: &'static str,
        /// How long it has lasted.
        lasted: Duration,
        /// Why it is one.
        reason: String,
        /// What ends it.
        ends: String,
    },
    /// JetStream might lose its quorum.
    JetStreamPeerDown(HostName),
    /// A rollout is open: only what belongs to it restarts a server.
    RolloutOpen {
        /// Its name.
        id: String,
        /// Who began it.
        by: String,
    },
    /// The rollout is not open here: closed, given up, or never told.
    RolloutUnknown(String),
    /// Another process drives the rollout by now.
    Superseded(String),
    /// What was told of a rollout means nothing.
    BadRollout(String),
    /// The hook that was ordered cannot be run here.
    NoHook {
        /// Its name.
        name: String,
        /// Why not.
        why: String,
    },
    /// A lame duck was ordered, and none can be made here.
    NoLameDuck,
    /// Another act is under way here.
    Busy(String),
    /// The fault was gone when all was ready.
    Gone,
    /// The mode was lowered when all was ready.
    Mode(Mode),
    /// The ledger cannot be written, so the limit could not be kept.
    LedgerNotKept(String),
}

impl Blocked {
    /// Does it last until a human has looked? Then it is as good as given up.
    #[must_use]
    pub fn wants_a_human(&self) -> bool {
        matches!(
            self,
            Self::Flapping { .. } | Self::Forgotten { .. } | Self::OtherNotBack(_)
        )
    }

    /// Does what holds this side hold the other side of a fault too, and ends there at the same time?
    #[must_use]
    pub fn holds_both_sides(&self) -> bool {
        !matches!(
            self,
            Self::SelfUnwell(_)
                | Self::ResetUnavailable(_)
                | Self::ServerDown
                | Self::StaleData { .. }
                | Self::LameDuck
                | Self::ServerStarting(_)
                | Self::UnitState(_)
                | Self::Flapping { .. }
                | Self::Forgotten { .. }
                | Self::HostLimit { .. }
                | Self::LedgerNotKept(_)
        )
    }

    /// The label value.
    #[must_use]
    pub fn gate(&self) -> &'static str {
        match self {
            Self::Paused { .. } => "paused",
            Self::NoPermit(_) => "no_permit",
            Self::PermitStore(_) => "permit_store",
            Self::NotMySlot { .. } => "not_my_slot",
            Self::SelfUnwell(_) => "self_unwell",
            Self::StaleData { .. } => "stale_data",
            Self::NetworkDown { .. } => "network_down",
            Self::NoAddress(_) => "no_address",
            Self::NoWitness(_) | Self::Doubtful(_) | Self::FewWords(_) | Self::Hearsay(_) => "no_witness",
            Self::SameName { .. } | Self::SameServer(..) => "same_name",
            Self::NoGateway(_) | Self::UnknownGateway(_) => "no_gateway",
            Self::NoTarget(_) => "no_target",
            Self::YoungConnection(_) | Self::JustBack(_) => "young_connection",
            Self::ResetUnavailable(_) => "reset_unavailable",
            Self::ServerDown => "server_down",
            Self::LameDuck => "lame_duck",
            Self::ServerStarting(_) => "server_starting",
            Self::UnitState(_) => "unit_state",
            Self::HostLimit { .. } => "host_limit",
            Self::Flapping { .. } | Self::Forgotten { .. } => "flapping",
            Self::TooManySick { .. } | Self::JustManySick(_) => "too_many_sick",
            Self::OtherRestarting(_) | Self::OtherNotBack(_) => "other_restarting",
            Self::Brownout { .. } => "brownout",
            Self::JetStreamPeerDown(_) => "jetstream_peer_down",
            Self::RolloutOpen { .. } => "rollout_open",
            Self::RolloutUnknown(_) => "rollout_unknown",
            Self::Superseded(_) => "superseded",
            Self::BadRollout(_) => "bad_rollout",
            Self::NoHook { .. } => "no_hook",
            Self::NoLameDuck => "no_lame_duck",
            Self::Busy(_) => "busy",
            Self::Gone => "gone",
            Self::Mode(_) => "mode",
            Self::LedgerNotKept(_) => "ledger_not_kept",
        }
    }
}

fn secs(d: &Duration) -> String {
    humantime::format_duration(Duration::from_secs(d.as_secs())).to_string()
}

impl fmt::Display for Blocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Paused { scope, who, why, until } => {
                write!(f, "{scope} is paused by {who}: {why}")?;
                match until {
                    Some(until) => write!(f, " (until {})", until.rfc3339()),
                    None => write!(f, " (until `watchdog resume`)"),
                }
            }
            Self::NoPermit(refusal) => write!(f, "no permit: {refusal}"),
            Self::PermitStore(why) => write!(
                f,
                "the store of permits cannot be used ({why}): what it may forbid is not done; look at [permits]"
            ),
            Self::NotMySlot { next: Some(next) } => write!(
                f,
                "no store of permits is configured, and this time slot is another host's; the next of this host opens at {}",
                next.rfc3339()
            ),
            Self::NotMySlot { next: None } => write!(
                f,
                "no store of permits is configured, and this host has no time slot soon: so many hosts want a store, see [permits]"
            ),
            Self::SelfUnwell(why) => write!(f, "this agent is not well itself: {why}"),
            Self::StaleData { source, age: Some(age) } => {
                write!(f, "/{source} of the local server was last read {} ago", secs(age))
            }
            Self::StaleData { source, age: None } => write!(f, "/{source} of the local server was never read"),
            Self::NetworkDown { address, what } => {
                write!(
                    f,
                    "no INFO from {address} ({what}): the network or that server is down, and nothing done here heals that"
                )
            }
            Self::NoAddress(peer) => write!(
                f,
                "the address of {peer} is not known, so the network to it cannot be checked"
            ),
            Self::NoWitness(source) => {
                write!(
                    f,
                    "no other host proves that {source} is alive: it may have stopped; look at its agent"
                )
            }
            Self::Doubtful(why) => f.write_str(why),
            Self::FewWords(host) => write!(
                f,
                "too few say that they do not hear {host}: they may be wrong themselves, and no server is restarted on so few words"
            ),
            Self::Hearsay(source) => {
                write!(
                    f,
                    "who misses {source} knows by others' word alone that it is there: no server is restarted for that; look at \
                     its routes, gateways and NATS permissions"
                )
            }
            Self::SameName { name, hosts } => {
                let hosts: Vec<&str> = hosts.iter().map(HostName::as_str).take(8).collect();
                write!(
                    f,
                    "the servers of {} are all named {name}, so it is not known whose connections are whose; give each \
                     its own server_name",
                    hosts.join(" and ")
                )
            }
            Self::SameServer(a, b) => write!(
                f,
                "{a} and {b} both say that one server is theirs, so it is not known whose connections are whose; where a host \
                 was renamed, that ends with the server's next start"
            ),
            Self::NoGateway(cluster) => write!(
                f,
                "this server has no gateways: what is between it and {cluster} goes over a leaf node connection, perhaps of \
                 another server"
            ),
            Self::UnknownGateway(cluster) => write!(
                f,
                "this server knows of no gateway to {cluster} by its configuration, nor had one: no server is restarted on \
                 others' word that there should be one"
            ),
            Self::NoTarget(what) => write!(f, "no socket to reset: {what}"),
            Self::YoungConnection(age) => write!(
                f,
                "the connection is {:.1} s old: its first beacon is still awaited",
                age.as_secs_f64()
            ),
            Self::JustBack(host) => write!(
                f,
                "{host}, who says so, was itself silent until a moment ago: its next beacons tell what is so now"
            ),
            Self::ResetUnavailable(why) => write!(f, "sockets cannot be reset here: {why}"),
            Self::ServerDown => write!(
                f,
                "the local server does not answer: its unit or its operator must start it"
            ),
            Self::LameDuck => write!(f, "the local server is a lame duck: somebody is stopping it"),
            Self::ServerStarting(up) => write!(f, "the local server has been up for only {}", secs(up)),
            Self::UnitState(what) => write!(f, "{what}"),
            Self::HostLimit { action, per_hour, wait } => write!(
                f,
                "the limit of {per_hour} {action}s per hour is used up here; the next is allowed in {}",
                secs(wait)
            ),
            Self::Flapping { fault, times } => {
                write!(
                    f,
                    "{fault} came back after {times} remedies within an hour: a human must look, then `watchdog resume`"
                )
            }
            Self::Forgotten { wait, why } => {
                write!(f, "what was done here before cannot be read")?;
                if !why.is_empty() {
                    write!(f, " ({why})")?;
                }
                write!(
                    f,
                    ": all limits count as used, and for {} no fault leads to a restart, as if each had come back too \
                     often; a human must look, then `watchdog resume`",
                    secs(wait)
                )
            }
            Self::JustManySick(ago) => write!(
                f,
                "too many hosts were sick {} s ago: what is left of an incident may end with it",
                ago.as_secs()
            ),
            Self::TooManySick { sick, of, limit } => write!(
                f,
                "{sick} of {of} hosts are sick, at most {limit} may be: this is an incident, not a host"
            ),
            Self::OtherRestarting(host) => write!(f, "the server of {host} is being restarted"),
            Self::OtherNotBack(host) => write!(
                f,
                "the server of {host} was being restarted, and nobody has heard that host since: what ailed it may ail the next one too"
            ),
            Self::Brownout {
                scope,
                lasted,
                reason,
                ends,
            } => write!(
                f,
                "a brownout of the {scope} is on since {}: {reason}; it ends when {ends}",
                secs(lasted)
            ),
            Self::JetStreamPeerDown(host) => {
                write!(
                    f,
                    "JetStream is on and {host} is not healthy: one more server less might cost the quorum"
                )
            }
            Self::RolloutOpen { id, by } => write!(
                f,
                "rollout {id} of {by} is open: go on with it (`watchdog restart --resume {id}`) or give it up (`watchdog restart --abort {id}`)"
            ),
            Self::RolloutUnknown(id) => write!(
                f,
                "rollout {id} is not open here, or not in the store of permits: it was given up, or this agent lost its state; `watchdog restart --resume {id}` opens it again where others know it"
            ),
            Self::Superseded(id) => write!(
                f,
                "rollout {id} was taken over by another `watchdog restart --resume {id}`"
            ),
            Self::BadRollout(what) => write!(f, "{what}"),
            Self::NoHook { name, why } => write!(f, "hook {name:?} cannot be run: {why}"),
            Self::NoLameDuck => write!(
                f,
                "the server cannot be drained: server.lame_duck_command and server.start_command are not configured"
            ),
            Self::Busy(what) => write!(f, "{what} is under way"),
            Self::Gone => write!(f, "the fault was gone before the act began: nothing was done"),
            Self::Mode(mode) => write!(f, "mode is {} now: nothing was done", mode.name()),
            Self::LedgerNotKept(why) => write!(
                f,
                "the ledger of acts cannot be written, so the limit could not be kept: {why}"
            ),
        }
    }
}
