//! What can go wrong, as plain data with hosts and regions by number.

use std::fmt;
use std::time::Duration;

/// A host, by its place in the fleet.
pub(super) type HostNo = usize;
/// A region, which is also one NATS cluster.
pub(super) type RegionNo = usize;

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A half-open route: the connection of the canaries passes nothing from one end to the other.
    RouteStall,
    /// The same, and what is queued for it fills the memory of the sending server.
    RouteTrickle,
    /// New interest of `host` does not reach `peer`.
    InterestLost,
    /// `host` drops what comes from `peer` whatever the connection: only a restart of `host` heals it.
    Stubborn,
    /// One pool connection is gone and not dialled again.
    PoolSlot,
    /// A gossiped route is gone and not dialled again.
    Hole,
    /// The outbound gateway waits for an INFO that never comes.
    GatewayWaits,
    /// The outbound gateway is up and passes nothing.
    GatewayStall,
    /// The server process stands still.
    Freeze,
    /// The server process dies; systemd starts it again.
    ServerCrash,
    /// Host, server and agent are gone for a while.
    HostDown,
    /// All hosts of a region are gone for a while.
    RegionDown,
    /// No packets between two regions.
    Partition,
    /// No packets from or to a host.
    HostCut,
    /// No packets between two hosts.
    PairCut,
    /// No packets from one host to another; TCP then stops both ways.
    OneWayCut,
    /// Bursts of packet loss between two regions or within one.
    Loss,
    /// The agent's loop stands still again and again.
    SlowAgent,
    /// The agent's connection to its own server passes nothing.
    LaneCut,
    /// The agent dies; systemd starts it again.
    AgentCrash,
    /// The agent dies right after its next wish to write its ledger or to act.
    AgentCrashAtAct,
    /// The agent is stopped in order and started later.
    AgentStop,
    /// The wall clock jumps ahead.
    ClockAhead,
    /// The wall clock jumps back.
    ClockBack,
    /// The monotonic clock is fast.
    ClockDrift,
    /// State cannot be written.
    DiskFails,
    /// Writes of state never end.
    DiskHangs,
    /// What was written last cannot be read at the next start.
    DiskTorn,
    /// The store of permits does not answer.
    StoreDown,
    /// The store does what it is asked and its answers are lost.
    StoreLosesAnswers,
    /// An operator stops the unit and starts it later.
    OperatorStops,
    /// An operator masks the unit while its server is down.
    OperatorMasks,
    /// An operator makes the server a lame duck and starts it again.
    LameDuck,
    /// An operator restarts a region, or all, one host at a time.
    Rolling,
    /// An operator pauses automation.
    Pause,
    /// Servers that are restarted do not come up: the new binary is bad.
    BadUpgrade,
    /// Memory leaks until the server is killed.
    Leak,
    /// All servers of a region, or all, die at once.
    MassRestart,
    /// Clients come and go in floods: system traffic without any fault of a server.
    ClientStorm,
}

/// What a fault is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Needs {
    Host,
    /// Two hosts of one cluster.
    Peers,
    /// Any two hosts.
    Pair,
    /// A host and a region that is not its own.
    HostAndCluster,
    /// A region, or all.
    Region,
    TwoRegions,
    Nothing,
}

/// Name, kind, what it is about.
pub(super) const KINDS: [(&str, Kind, Needs); 39] = [
    ("route_stall", Kind::RouteStall, Needs::Peers),
    ("route_trickle", Kind::RouteTrickle, Needs::Peers),
    ("interest_lost", Kind::InterestLost, Needs::Peers),
    ("stubborn", Kind::Stubborn, Needs::Peers),
    ("pool_slot", Kind::PoolSlot, Needs::Peers),
    ("hole", Kind::Hole, Needs::Peers),
    ("gateway_waits", Kind::GatewayWaits, Needs::HostAndCluster),
    ("gateway_stall", Kind::GatewayStall, Needs::HostAndCluster),
    ("freeze", Kind::Freeze, Needs::Host),
    ("server_crash", Kind::ServerCrash, Needs::Host),
    ("host_down", Kind::HostDown, Needs::Host),
    ("region_down", Kind::RegionDown, Needs::Region),
    ("partition", Kind::Partition, Needs::TwoRegions),
    ("host_cut", Kind::HostCut, Needs::Host),
    ("pair_cut", Kind::PairCut, Needs::Pair),
    ("one_way_cut", Kind::OneWayCut, Needs::Pair),
    ("loss", Kind::Loss, Needs::TwoRegions),
    ("slow_agent", Kind::SlowAgent, Needs::Host),
    ("lane_cut", Kind::LaneCut, Needs::Host),
    ("agent_crash", Kind::AgentCrash, Needs::Host),
    ("agent_crash_at_act", Kind::AgentCrashAtAct, Needs::Host),
    ("agent_stop", Kind::AgentStop, Needs::Host),
    ("clock_ahead", Kind::ClockAhead, Needs::Host),
    ("clock_back", Kind::ClockBack, Needs::Host),
    ("clock_drift", Kind::ClockDrift, Needs::Host),
    ("disk_fails", Kind::DiskFails, Needs::Host),
    ("disk_hangs", Kind::DiskHangs, Needs::Host),
    ("disk_torn", Kind::DiskTorn, Needs::Host),
    ("store_down", Kind::StoreDown, Needs::Nothing),
    ("store_loses_answers", Kind::StoreLosesAnswers, Needs::Nothing),
    ("operator_stops", Kind::OperatorStops, Needs::Host),
    ("operator_masks", Kind::OperatorMasks, Needs::Host),
    ("lame_duck", Kind::LameDuck, Needs::Host),
    ("rolling", Kind::Rolling, Needs::Region),
    ("pause", Kind::Pause, Needs::Nothing),
    ("bad_upgrade", Kind::BadUpgrade, Needs::Region),
    ("leak", Kind::Leak, Needs::Region),
    ("mass_restart", Kind::MassRestart, Needs::Region),
    ("client_storm", Kind::ClientStorm, Needs::Nothing),
];

impl Kind {
    /// The name in scenario files.
    #[must_use]
    pub fn name(self) -> &'static str {
        KINDS.iter().find(|k| k.1 == self).map_or("unknown", |k| k.0)
    }

    pub(super) fn needs(self) -> Needs {
        KINDS.iter().find(|k| k.1 == self).map_or(Needs::Nothing, |k| k.2)
    }

    pub(super) fn by_name(name: &str) -> Option<Self> {
        KINDS.iter().find(|k| k.0 == name).map(|k| k.1)
    }
}

/// A fault with its place and time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What.
    pub kind: Kind,
    /// When it begins.
    pub at: Duration,
    /// How long it lasts, where that means something.
    pub lasts: Duration,
    /// Host; for directed faults the receiving one, but the sending one of cuts and gateways.
    pub host: HostNo,
    /// The other host; for directed faults the sending one.
    pub peer: HostNo,
    /// Region; `None` = all.
    pub region: Option<RegionNo>,
    /// The other region.
    pub to: Option<RegionNo>,
    /// Share of packets lost, or of memory leaked per minute.
    pub percent: usize,
}

/// A fault in words that name hosts.
pub(super) struct Named<'a>(pub(super) &'a Fault, pub(super) &'a [String], pub(super) &'a [String]);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(fault, hosts, regions) = self;
        let host = |n: HostNo| hosts.get(n).map_or("?", String::as_str);
        let region = |n: Option<RegionNo>| n.and_then(|n| regions.get(n)).map_or("all", String::as_str);
        f.write_str(fault.kind.name())?;
        match fault.kind.needs() {
            Needs::Host => write!(f, " {}", host(fault.host))?,
            Needs::Peers | Needs::Pair => write!(f, " {} {}", host(fault.host), host(fault.peer))?,
            Needs::HostAndCluster => write!(f, " {} to {}", host(fault.host), region(fault.to))?,
            Needs::Region => write!(f, " {}", region(fault.region))?,
            Needs::TwoRegions => write!(f, " {} {}", region(fault.region), region(fault.to))?,
            Needs::Nothing => {}
        }
        if !fault.lasts.is_zero() {
            write!(f, " for {}", humantime::format_duration(fault.lasts))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_kind_has_one_name() {
        let names: BTreeSet<&str> = KINDS.iter().map(|k| k.0).collect();
        let kinds: BTreeSet<Kind> = KINDS.iter().map(|k| k.1).collect();
        assert_eq!((names.len(), kinds.len()), (KINDS.len(), KINDS.len()));
        assert!(names.iter().all(|n| Kind::by_name(n).is_some_and(|k| k.name() == *n)));
    }
}
