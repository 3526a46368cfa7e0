//! `diagnose`: a pure function from evidence to faults.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::core::ids::{HostName, LaneName, Region};
use crate::core::mesh::links::{Open, book_transit, ways_in};
use crate::core::view::FaultKind;

/// Where a host is.
#[derive(Debug, Clone, PartialEq)]
pub struct Place {
    /// Region.
    pub region: Region,
    /// Cluster of its server; empty = unknown or none, which counts as one cluster of all.
    pub cluster: String,
    /// Remote cluster to the host to whose server the outbound gateway of this one's leads, as far as it was told.
    pub entries: BTreeMap<String, HostName>,
}

/// All that is known, already cleaned of what is not credible.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Evidence {
    /// Hosts that belong and have not left, this one included.
    pub members: BTreeMap<HostName, Place>,
    /// Number of lanes every pair is judged on.
    pub lanes: usize,
    /// Hosts that can be believed about others now.
    pub receivers: BTreeSet<HostName>,
    /// (source, receiver) to the lanes on which the receiver does not hear the source.
    pub deaf: BTreeMap<(HostName, HostName), BTreeSet<LaneName>>,
    /// (source, receiver) of which the receiver cannot say anything.
    pub unknown: BTreeSet<(HostName, HostName)>,
    /// Receiver to the regions in which it does not hear more hosts than its report had room for, and how many more:
    /// of a host there that it does not name, it may hear it or not.
    pub more: BTreeMap<HostName, BTreeMap<Region, u32>>,
    /// (host, peer): the host's server has no route to the peer.
    pub unrouted: BTreeSet<(HostName, HostName)>,
    /// (asker, target): beacons come, fresh replies do not.
    pub unanswered: BTreeSet<(HostName, HostName)>,
    /// (host, peer): fewer pool connections than configured.
    pub thin: BTreeSet<(HostName, HostName)>,
    /// (host, cluster): the host's server has no outbound gateway there.
    pub ungatewayed: BTreeSet<(HostName, String)>,
}

impl Evidence {
    /// Does `receiver` say nothing about `source`?
    #[must_use]
    pub fn untold(&self, source: &HostName, receiver: &HostName) -> bool {
        let pair = (source.clone(), receiver.clone());
        self.unknown.contains(&pair) || self.cut_short(source, receiver) && !self.deaf.contains_key(&pair)
    }

    /// Is the receiver's report too short for all that it does not hear in the source's region?
    fn cut_short(&self, source: &HostName, receiver: &HostName) -> bool {
        self.more
            .get(receiver)
            .is_some_and(|regions| self.members.get(source).is_none_or(|p| regions.contains_key(&p.region)))
    }

    /// Source and receiver region to the pairs of hosts that were judged, and how many of these do not hear.
    #[must_use]
    pub fn cells(&self) -> BTreeMap<(Region, Region), (u64, u64)> {
        let (mut sources, mut receivers) = (BTreeMap::new(), BTreeMap::new());
        let mut cells: BTreeMap<(Region, Region), (u64, u64)> = BTreeMap::new();
        for (host, place) in &self.members {
            *sources.entry(&place.region).or_insert(0) += 1;
            if self.receivers.contains(host) {
                *receivers.entry(&place.region).or_insert(0) += 1;
            }
        }
        for (to, hearing) in &receivers {
            for (from, speaking) in &sources {
                // Nobody is judged by itself.
                let own = if from == to { *hearing } else { 0 };
                cells.insert(((*from).clone(), (*to).clone()), (speaking * hearing - own, 0));
            }
        }
        let regions = |(source, receiver): &(HostName, HostName)| {
            let judged = source != receiver && self.receivers.contains(receiver);
            let place = |host| self.members.get(host).map(|p| p.region.clone());
            judged.then_some(())?;
            Some((place(source)?, place(receiver)?))
        };
        for pair in &self.unknown {
            if let Some(cell) = regions(pair).and_then(|key| cells.get_mut(&key)) {
                cell.0 = cell.0.saturating_sub(1);
            }
        }
        for pair in self.deaf.keys().filter(|pair| !self.unknown.contains(pair)) {
            if let Some(cell) = regions(pair).and_then(|key| cells.get_mut(&key)) {
                cell.1 += 1;
            }
        }
        for (receiver, regions) in self.more.iter().filter(|(r, _)| self.receivers.contains(*r)) {
            let Some(place) = self.members.get(receiver) else {
                continue;
            };
            for (from, n) in regions {
                if let Some((pairs, deaf)) = cells.get_mut(&(from.clone(), place.region.clone())) {
                    *deaf = deaf.saturating_add(u64::from(*n)).min(*pairs);
                }
            }
        }
        cells.retain(|_, (pairs, _)| *pairs > 0);
        cells
    }
}

/// The other end of a fault.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum End {
    /// A host.
    Host(HostName),
    /// A remote cluster.
    Cluster(String),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(h) => h.fmt(f),
            Self::Cluster(c) => f.pad(c),
        }
    }
}

/// One explained fault.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    /// Kind; never `Observer` or `Network`, which are decided elsewhere.
    pub kind: FaultKind,
    /// Sending host; the host itself for host faults; the smaller name for holes.
    pub from: HostName,
    /// Receiving end.
    pub to: Option<End>,
    /// Region of `from`.
    pub region: Region,
    /// Lanes it shows on; empty where it is not a matter of lanes.
    pub lanes: BTreeSet<LaneName>,
    /// The connection itself is not there, which a restart elsewhere explains for a while.
    pub absent: bool,
    /// Hosts that hear `from`: the proof that its agent lives.
    pub witnesses: BTreeSet<HostName>,
    /// One sentence.
    pub evidence: String,
}

impl Fault {
    /// Stable name of the fault while it lasts.
    #[must_use]
    pub fn id(&self) -> String {
        match &self.to {
            None => format!("{}:{}", self.kind.name(), self.from),
            Some(End::Cluster(c)) => format!("{}:{}>cluster {c}", self.kind.name(), self.from),
            Some(to) if self.kind == FaultKind::Hole => format!("hole:{}|{to}", self.from),
            Some(to) => format!("{}:{}>{to}", self.kind.name(), self.from),
        }
    }
}

/// The smallest set of faults that explains the evidence.
#[must_use]
pub fn diagnose(e: &Evidence) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut open = e.deaf.clone();
    open.retain(|(s, r), _| {
        e.members.contains_key(s) && e.receivers.contains(r) && s != r && !e.unknown.contains(&(s.clone(), r.clone()))
    });
    deaf_hosts(e, &mut open, &mut faults);
    mute_hosts(e, &mut open, &mut faults);
    let out = faults.iter().map(|f| f.from.clone()).collect();
    book_transit(e, &mut open, &out);
    gateways(e, &mut open, &mut faults);
    shared_hosts(e, &mut open, &mut faults);
    pairs(e, &open, &mut faults);
    thin_pools(e, &mut faults);
    interest(e, &mut faults);
    faults
}

/// Receivers that could speak about `source`.
fn audience<'a>(e: &'a Evidence, source: &'a HostName) -> impl Iterator<Item = &'a HostName> {
    let mute: BTreeSet<&HostName> = e.unknown.range(pairs_from(e, source)..).map_while(of(source)).collect();
    let named: BTreeSet<&HostName> = match e.more.is_empty() {
        true => BTreeSet::new(),
        false => e
            .deaf
            .range(pairs_from(e, source)..)
            .map(|(pair, _)| pair)
            .map_while(of(source))
            .collect(),
    };
    e.receivers
        .iter()
        .filter(move |r| *r != source && !mute.contains(r) && (named.contains(r) || !e.cut_short(source, r)))
}

fn hearers(e: &Evidence, source: &HostName) -> BTreeSet<HostName> {
    let deaf = e.deaf.range(pairs_from(e, source)..).map(|(pair, _)| pair);
    let deaf: BTreeSet<&HostName> = deaf.map_while(of(source)).collect();
    audience(e, source).filter(|r| !deaf.contains(r)).cloned().collect()
}

/// Where the pairs of `source` with receivers begin: maps of pairs are sorted by source, and a look at one source must
/// not cost a look-up per host of the fleet.
fn pairs_from(e: &Evidence, source: &HostName) -> (HostName, HostName) {
    (source.clone(), e.receivers.first().unwrap_or(source).clone())
}

fn of<'a>(source: &'a HostName) -> impl Fn(&'a (HostName, HostName)) -> Option<&'a HostName> {
    move |(s, r)| (s == source).then_some(r)
}

fn whole(e: &Evidence, lanes: &BTreeSet<LaneName>) -> bool {
    lanes.len() >= e.lanes
}

fn fault(e: &Evidence, kind: FaultKind, from: &HostName, to: Option<End>, evidence: String) -> Option<Fault> {
    Some(Fault {
        kind,
        from: from.clone(),
        to,
        region: e.members.get(from)?.region.clone(),
        lanes: BTreeSet::new(),
        absent: matches!(kind, FaultKind::Host | FaultKind::Hole),
        witnesses: hearers(e, from),
        evidence,
    })
}

fn mute_hosts(e: &Evidence, open: &mut Open, faults: &mut Vec<Fault>) {
    let deaf: BTreeSet<HostName> = faults.iter().map(|f| f.from.clone()).collect();
    let suspects: BTreeSet<&HostName> = e.deaf.keys().map(|(s, _)| s).collect();
    for host in e.members.keys().filter(|h| suspects.contains(h) && !deaf.contains(*h)) {
        let audience: Vec<_> = audience(e, host).filter(|r| !deaf.contains(*r)).collect();
        let is_deaf = |r: &&&HostName| {
            e.deaf
                .get(&(host.clone(), (**r).clone()))
                .is_some_and(|lanes| whole(e, lanes))
        };
        if audience.is_empty() || !audience.iter().all(|r| is_deaf(&r)) {
            continue;
        }
        let text = format!("none of {} hosts hears {host}", audience.len());
        faults.extend(fault(e, FaultKind::Host, host, None, text));
        open.retain(|(s, r), _| s != host && r != host);
    }
}

/// First, since one that hears nobody is likelier wrong itself than all the others are.
fn deaf_hosts(e: &Evidence, open: &mut Open, faults: &mut Vec<Fault>) {
    let mut stalls: BTreeMap<&HostName, usize> = BTreeMap::new();
    for (_, receiver) in open.keys() {
        *stalls.entry(receiver).or_default() += 1;
    }
    for host in &e.receivers {
        // Too few to be all of those that are judged.
        let stalls = stalls.get(host).copied().unwrap_or(0);
        if stalls + e.unknown.len() + 1 < e.members.len() && !e.more.contains_key(host) {
            continue;
        }
        let sources: Vec<_> = e.members.keys().filter(|s| *s != host && !e.untold(s, host)).collect();
        let deaf_to = |s: &&&HostName| {
            open.get(&((**s).clone(), host.clone()))
                .is_some_and(|lanes| whole(e, lanes))
        };
        if sources.len() < 2 || !sources.iter().all(|s| deaf_to(&s)) {
            continue;
        }
        // All of it comes by one route: that is less than a host.
        if ways_in(e, host, &sources).len() < 2 {
            continue;
        }
        let text = format!("{host} hears none of {} hosts", sources.len());
        faults.extend(fault(e, FaultKind::Host, host, None, text));
    }
    let deaf: BTreeSet<HostName> = faults.iter().map(|f| f.from.clone()).collect();
    open.retain(|(s, r), _| !deaf.contains(s) && !deaf.contains(r));
}

fn same_cluster(e: &Evidence, a: &HostName, b: &HostName) -> bool {
    match (e.members.get(a), e.members.get(b)) {
        (Some(a), Some(b)) => a.cluster.is_empty() || b.cluster.is_empty() || a.cluster == b.cluster,
        _ => true,
    }
}

fn gateways(e: &Evidence, open: &mut Open, faults: &mut Vec<Fault>) {
    let gone: BTreeSet<HostName> = faults.iter().map(|f| f.from.clone()).collect();
    let clusters: BTreeSet<&String> = e
        .members
        .values()
        .map(|p| &p.cluster)
        .filter(|c| !c.is_empty())
        .collect();
    let mut suspects: BTreeSet<(HostName, String)> = e.ungatewayed.clone();
    for (source, receiver) in open.keys() {
        if let Some(there) = e.members.get(receiver) {
            suspects.insert((source.clone(), there.cluster.clone()));
        }
    }
    for (host, cluster) in &suspects {
        let Some(place) = e.members.get(host) else { continue };
        if place.cluster.is_empty() || gone.contains(host) || *cluster == place.cluster || !clusters.contains(cluster) {
            continue;
        }
        let there: Vec<&HostName> = audience(e, host)
            .filter(|r| e.members.get(*r).is_some_and(|p| &p.cluster == cluster) && !gone.contains(*r))
            .collect();
        let deaf = there
            .iter()
            .filter(|r| open.contains_key(&(host.clone(), (**r).clone())))
            .count();
        let missing = e.ungatewayed.contains(&(host.clone(), cluster.clone()));
        let any_member = e
            .members
            .iter()
            .any(|(h, p)| &p.cluster == cluster && !gone.contains(h));
        if !((deaf > 0 && deaf == there.len()) || (missing && there.is_empty() && any_member)) {
            continue;
        }
        let text = match (missing, there.len()) {
            (true, 0) => {
                format!("the server of {host} has no outbound gateway to cluster {cluster}, and nobody there is heard")
            }
            (true, n) => format!(
                "none of {n} hosts in cluster {cluster} hears {host}, whose server has no outbound gateway there"
            ),
            (false, n) => format!("none of {n} hosts in cluster {cluster} hears {host}"),
        };
        let to = Some(End::Cluster(cluster.clone()));
        faults.extend(fault(e, FaultKind::Gateway, host, to, text).map(|f| Fault { absent: missing, ..f }));
        open.retain(|(s, r), _| s != host || e.members.get(r).is_none_or(|p| &p.cluster != cluster));
    }
    // What a remote cluster's server does not hear because it does not hear the neighbour that has the gateway.
    let local_deaf: BTreeSet<HostName> = open
        .keys()
        .filter(|(s, r)| same_cluster(e, s, r))
        .map(|(_, r)| r.clone())
        .collect();
    open.retain(|(s, r), _| same_cluster(e, s, r) || !local_deaf.contains(r));
}

/// Where many stalls meet in one server of a cluster, it is that server.
fn shared_hosts(e: &Evidence, open: &mut Open, faults: &mut Vec<Fault>) {
    let mut count: BTreeMap<HostName, BTreeSet<HostName>> = BTreeMap::new();
    for (s, r) in open
        .iter()
        .filter(|(p, l)| same_cluster(e, &p.0, &p.1) && whole(e, l))
        .map(|(p, _)| p)
    {
        count.entry(s.clone()).or_default().insert(r.clone());
        count.entry(r.clone()).or_default().insert(s.clone());
    }
    let mut shared: Vec<_> = count.into_iter().filter(|(_, peers)| peers.len() >= 3).collect();
    shared.sort_by_key(|(h, peers)| (std::cmp::Reverse(peers.len()), h.clone()));
    for (host, _) in shared {
        let left: BTreeSet<&HostName> = open
            .keys()
            .filter(|(s, r)| same_cluster(e, s, r))
            .filter_map(|(s, r)| {
                if *s == host {
                    Some(r)
                } else if *r == host {
                    Some(s)
                } else {
                    None
                }
            })
            .collect();
        let all = e
            .members
            .keys()
            .filter(|h| **h != host && same_cluster(e, h, &host) && e.receivers.contains(*h))
            .count();
        if left.len() < 3 || left.len() * 2 <= all {
            continue;
        }
        let text = format!(
            "{} of {all} paths between {host} and its cluster are stalled",
            left.len()
        );
        faults.extend(fault(e, FaultKind::Host, &host, None, text));
        open.retain(|(s, r), _| *s != host && *r != host);
    }
}

fn pairs(e: &Evidence, open: &Open, faults: &mut Vec<Fault>) {
    for ((s, r), lanes) in open {
        let unrouted = e.unrouted.contains(&(s.clone(), r.clone())) || e.unrouted.contains(&(r.clone(), s.clone()));
        let mutual = open.contains_key(&(r.clone(), s.clone()));
        let silent = |h: &HostName| !e.receivers.contains(h) || e.untold(if h == s { r } else { s }, h);
        let mut found = if unrouted && same_cluster(e, s, r) && (mutual || silent(s)) {
            if mutual && s > r {
                continue;
            }
            let (a, b) = if s < r { (s, r) } else { (r, s) };
            fault(
                e,
                FaultKind::Hole,
                a,
                Some(End::Host(b.clone())),
                format!("{a} and {b} do not hear each other, and their servers have no route to each other"),
            )
        } else if !whole(e, lanes) {
            let names: Vec<_> = lanes.iter().map(LaneName::as_str).collect();
            fault(
                e,
                FaultKind::Pool,
                s,
                Some(End::Host(r.clone())),
                format!("{r} hears {s}, but not on lane {}", names.join(", ")),
            )
        } else {
            let text = format!("{r} does not hear {s}; {} others do", hearers(e, s).len());
            fault(e, FaultKind::Route, s, Some(End::Host(r.clone())), text)
        };
        if let Some(f) = &mut found {
            f.lanes = lanes.clone();
        }
        faults.extend(found);
    }
}

fn thin_pools(e: &Evidence, faults: &mut Vec<Fault>) {
    for (host, peer) in &e.thin {
        let pair = |f: &Fault| {
            let ends = [
                Some(&f.from),
                match &f.to {
                    Some(End::Host(h)) => Some(h),
                    _ => None,
                },
            ];
            ends.contains(&Some(host)) && ends.contains(&Some(peer))
        };
        let known = faults
            .iter()
            .any(|f| pair(f) || (f.kind == FaultKind::Host && (&f.from == host || &f.from == peer)));
        if known {
            continue;
        }
        let text = format!("the server of {host} has fewer pool connections to {peer} than its pool size");
        let to = Some(End::Host(host.clone()));
        faults.extend(fault(e, FaultKind::Pool, peer, to, text).map(|f| Fault { absent: true, ..f }));
    }
}

fn interest(e: &Evidence, faults: &mut Vec<Fault>) {
    let mut by_target: BTreeMap<&HostName, usize> = BTreeMap::new();
    for (_, target) in &e.unanswered {
        *by_target.entry(target).or_default() += 1;
    }
    for (asker, target) in &e.unanswered {
        let explained = faults.iter().any(|f| {
            [&f.from].contains(&asker)
                || &f.from == target
                || f.to == Some(End::Host(target.clone()))
                || f.to == Some(End::Host(asker.clone()))
        });
        // A target that half of all cannot reach does not answer: its agent's affair, not a path's.
        let many = by_target.get(target).copied().unwrap_or(0);
        // Replies between clusters go by mapped subjects that need no interest; a miss there is the gateway's affair.
        if explained || !same_cluster(e, asker, target) || (many > 1 && many * 2 > e.receivers.len()) {
            continue;
        }
        let text = format!(
            "{asker} and {target} hear each other, but replies to fresh subjects of {asker} do not come back from {target}"
        );
        faults.extend(fault(
            e,
            FaultKind::Interest,
            asker,
            Some(End::Host(target.clone())),
            text,
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn h(n: &str) -> HostName {
        HostName::new(n).unwrap()
    }

    /// Hosts like `a1`: the letter is region and, if `clusters`, cluster. All are receivers and hear all.
    fn fleet(names: &[&str], clusters: bool) -> Evidence {
        Evidence {
            members: names
                .iter()
                .map(|n| {
                    let region = Region::new(&n[..1]).unwrap();
                    let cluster = if clusters { n[..1].to_owned() } else { "one".to_owned() };
                    (
                        h(n),
                        Place {
                            region,
                            cluster,
                            entries: BTreeMap::new(),
                        },
                    )
                })
                .collect(),
            lanes: 1,
            receivers: names.iter().map(|n| h(n)).collect(),
            ..Evidence::default()
        }
    }

    fn deaf(e: &mut Evidence, pairs: &[(&str, &str)]) {
        for (s, r) in pairs {
            e.deaf
                .entry((h(s), h(r)))
                .or_default()
                .insert(LaneName::new("main").unwrap());
        }
    }

    fn ids(e: &Evidence) -> Vec<String> {
        diagnose(e).iter().map(Fault::id).collect()
    }

    const SIX: [&str; 6] = ["a1", "a2", "b1", "b2", "c1", "c2"];

    #[test]
    fn a_cell_counts_the_pairs_that_are_judged_and_those_that_do_not_hear() {
        let mut e = fleet(&["a1", "a2", "b1", "b2", "b3"], false);
        e.receivers.remove(&h("b3"));
        e.unknown.insert((h("a1"), h("b1")));
        e.unknown.insert((h("a1"), h("b3")));
        for (s, r) in [("a1", "b1"), ("a2", "b1"), ("a2", "b3"), ("b3", "a1")] {
            e.deaf.insert((h(s), h(r)), BTreeSet::new());
        }
        let cells = e.cells();
        let cell = |from: &str, to: &str| cells[&(Region::new(from).unwrap(), Region::new(to).unwrap())];
        assert_eq!((cell("a", "a"), cell("b", "b")), ((2, 0), (4, 0)));
        assert_eq!((cell("a", "b"), cell("b", "a")), ((3, 1), (6, 1)));
    }

    #[test]
    fn a_healthy_fleet_has_no_faults() {
        assert!(ids(&fleet(&SIX, false)).is_empty());
    }

    #[test]
    fn one_deaf_pair_is_a_route_with_witnesses() {
        let mut e = fleet(&SIX, false);
        deaf(&mut e, &[("a1", "b2")]);
        let f = diagnose(&e);
        assert_eq!(f[0].id(), "route:a1>b2");
        assert_eq!(f[0].witnesses.len(), 4);
        assert_eq!(f.len(), 1);
    }

    #[test]
    fn a_host_that_nobody_hears_is_one_fault_not_five() {
        let mut e = fleet(&SIX, false);
        e.receivers.remove(&h("a1"));
        deaf(
            &mut e,
            &[("a1", "a2"), ("a1", "b1"), ("a1", "b2"), ("a1", "c1"), ("a1", "c2")],
        );
        assert_eq!(ids(&e), ["host:a1"]);
    }

    #[test]
    fn a_host_that_hears_nobody_is_blamed_itself() {
        let mut e = fleet(&SIX, false);
        deaf(
            &mut e,
            &[("a2", "a1"), ("b1", "a1"), ("b2", "a1"), ("c1", "a1"), ("c2", "a1")],
        );
        assert_eq!(ids(&e), ["host:a1"]);
    }

    #[test]
    fn a_whole_remote_cluster_that_is_deaf_to_one_host_is_its_gateway() {
        let mut e = fleet(&SIX, true);
        deaf(&mut e, &[("a1", "b1"), ("a1", "b2")]);
        assert_eq!(ids(&e), ["gateway:a1>cluster b"]);
    }

    #[test]
    fn a_gateway_that_never_registered_shows_even_when_nobody_there_is_heard() {
        let mut e = fleet(&SIX, true);
        e.receivers.remove(&h("b1"));
        e.receivers.remove(&h("b2"));
        e.ungatewayed.insert((h("a1"), "b".to_owned()));
        assert_eq!(ids(&e), ["gateway:a1>cluster b"]);
    }

    #[test]
    fn a_route_inside_the_remote_cluster_explains_what_came_through_it() {
        let mut e = fleet(&SIX, true);
        deaf(&mut e, &[("b1", "b2"), ("a1", "b2")]);
        assert_eq!(ids(&e), ["route:b1>b2"]);
    }

    #[test]
    fn two_that_are_no_peers_are_a_hole() {
        let mut e = fleet(&SIX, false);
        deaf(&mut e, &[("a1", "b1"), ("b1", "a1")]);
        e.unrouted.insert((h("b1"), h("a1")));
        assert_eq!(ids(&e), ["hole:a1|b1"]);
    }

    #[test]
    fn both_directions_with_a_route_present_are_two_routes() {
        let mut e = fleet(&SIX, false);
        deaf(&mut e, &[("a1", "b1"), ("b1", "a1")]);
        assert_eq!(ids(&e), ["route:a1>b1", "route:b1>a1"]);
    }

    #[test]
    fn one_lane_of_two_is_a_pool_connection() {
        let mut e = fleet(&SIX, false);
        e.lanes = 2;
        deaf(&mut e, &[("a1", "b1")]);
        assert_eq!(ids(&e), ["pool:a1>b1"]);
    }

    #[test]
    fn stalls_that_meet_in_one_server_are_that_server() {
        let mut e = fleet(&SIX, false);
        deaf(&mut e, &[("a1", "b1"), ("a1", "b2"), ("c1", "a1")]);
        assert_eq!(ids(&e), ["host:a1"]);
    }

    #[test]
    fn only_new_interest_missing_is_interest() {
        let mut e = fleet(&SIX, false);
        e.unanswered.insert((h("a1"), h("b1")));
        assert_eq!(ids(&e), ["interest:a1>b1"]);
    }

    #[test]
    fn an_agent_that_answers_nobody_is_no_path_fault() {
        let mut e = fleet(&SIX, false);
        for a in ["a1", "a2", "b2", "c1", "c2"] {
            e.unanswered.insert((h(a), h("b1")));
        }
        assert!(ids(&e).is_empty());
    }

    #[test]
    fn reports_about_and_from_strangers_change_nothing() {
        let mut e = fleet(&SIX, false);
        deaf(&mut e, &[("zz", "b1"), ("a1", "zz")]);
        assert!(ids(&e).is_empty());
    }

    #[test]
    fn who_is_not_named_in_a_report_that_was_too_short_is_not_heard_for_that() {
        let mut e = fleet(&SIX, false);
        // The agents of c1 and c2 died; the reports of the others had room for c1 only.
        for dead in ["c1", "c2"] {
            e.receivers.remove(&h(dead));
            deaf(&mut e, &[(dead, "a1")]);
        }
        deaf(&mut e, &[("c1", "a2"), ("c1", "b1"), ("c1", "b2")]);
        for r in ["a2", "b1", "b2"] {
            e.more.insert(h(r), BTreeMap::from([(Region::new("c").unwrap(), 1)]));
        }
        assert_eq!(ids(&e), ["host:c1", "host:c2"]);
        assert!(diagnose(&e).iter().all(|f| f.witnesses.is_empty()));
        let cells = e.cells();
        let cell = |to: &str| cells[&(Region::new("c").unwrap(), Region::new(to).unwrap())];
        assert_eq!((cell("a"), cell("b")), ((4, 4), (4, 4)));
    }

    #[test]
    fn one_that_hears_nobody_is_blamed_itself_even_if_it_cannot_name_all() {
        let mut e = fleet(&SIX, false);
        deaf(&mut e, &[("a2", "a1"), ("b1", "a1"), ("b2", "a1")]);
        e.more.insert(h("a1"), BTreeMap::from([(Region::new("c").unwrap(), 2)]));
        assert_eq!(ids(&e), ["host:a1"]);
    }

    #[test]
    fn one_that_is_cut_off_from_a_region_still_hears_the_others() {
        let mut e = fleet(&SIX, false);
        deaf(&mut e, &[("c1", "a1")]);
        e.more.insert(h("a1"), BTreeMap::from([(Region::new("c").unwrap(), 1)]));
        assert_eq!(ids(&e), ["route:c1>a1"]);
    }
}
