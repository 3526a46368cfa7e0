//! `diagnose`: a pure function from evidence to faults.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use crate::core::ids::{HostName, LaneName, Region};
use crate::core::mesh::links::{Open, book_transit, ways_in};
use crate::core::view::FaultKind;

/// Where a host is.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    pub members: BTreeMap<HostName, Arc<Place>>,
    /// Number of lanes every pair is judged on.
    pub lanes: usize,
    /// Hosts that can be believed about others now.
    pub receivers: BTreeSet<HostName>,
    /// (source, receiver) to the lanes on which the receiver does not hear the source.
    pub deaf: BTreeMap<(HostName, HostName), Arc<BTreeSet<LaneName>>>,
    /// (source, receiver) of which the receiver cannot say anything.
    pub unknown: BTreeSet<(HostName, HostName)>,
    /// (source, receiver) of those: a first beacon came all the same.
    pub begun: BTreeSet<(HostName, HostName)>,
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
        if self.unknown.is_empty() && self.more.is_empty() {
            return false;
        }
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
    /// How many hosts hear `from`: the proof that its agent lives.
    pub witnesses: usize,
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
    let judged = |pair: &(HostName, HostName)| {
        let (s, r) = pair;
        e.members.contains_key(s) && e.receivers.contains(r) && s != r && !e.unknown.contains(pair)
    };
    let open = e.deaf.iter().filter(|(pair, _)| judged(pair));
    let mut open: Open = open.map(|(pair, lanes)| (pair.clone(), lanes.clone())).collect();
    deaf_hosts(e, &mut open, &mut faults);
    mute_hosts(e, &mut open, &mut faults);
    let out = faults.iter().map(|f| f.from.clone()).collect();
    book_transit(e, &mut open, &out);
    let local_deaf = local_deaf(e, &open);
    // A server that most of its own cluster does not reach explains its gateways, and those that lead to it.
    shared_hosts(e, &mut open, &mut faults);
    gateways(e, &mut open, &mut faults);
    open.retain(|(s, r), _| same_cluster(e, s, r) || !local_deaf.contains(r));
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

fn hearers(e: &Evidence, source: &HostName) -> usize {
    let deaf = e.deaf.range(pairs_from(e, source)..).map(|(pair, _)| pair);
    let deaf: BTreeSet<&HostName> = deaf.map_while(of(source)).collect();
    audience(e, source).filter(|r| !deaf.contains(r)).count()
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
    fault_heard(e, kind, from, to, hearers(e, from), evidence)
}

fn fault_heard(
    e: &Evidence,
    kind: FaultKind,
    from: &HostName,
    to: Option<End>,
    witnesses: usize,
    evidence: String,
) -> Option<Fault> {
    Some(Fault {
        kind,
        from: from.clone(),
        to,
        region: e.members.get(from)?.region.clone(),
        lanes: BTreeSet::new(),
        absent: matches!(kind, FaultKind::Host | FaultKind::Hole),
        witnesses,
        evidence,
    })
}

fn mute_hosts(e: &Evidence, open: &mut Open, faults: &mut Vec<Fault>) {
    let deaf: BTreeSet<HostName> = faults.iter().map(|f| f.from.clone()).collect();
    let mut suspects: BTreeMap<&HostName, usize> = BTreeMap::new();
    for (source, _) in e.deaf.keys() {
        *suspects.entry(source).or_default() += 1;
    }
    if e.more.is_empty() {
        // Too few to be all of those that could speak.
        suspects.retain(|_, n| *n + e.unknown.len() + deaf.len() + 1 >= e.receivers.len());
    }
    for host in suspects
        .into_keys()
        .filter(|h| e.members.contains_key(*h) && !deaf.contains(*h))
    {
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
}

/// Who does not hear a neighbour: it may be the one that has the gateway by which a remote cluster's messages come.
fn local_deaf(e: &Evidence, open: &Open) -> BTreeSet<HostName> {
    let near = open.keys().filter(|(s, r)| same_cluster(e, s, r));
    near.map(|(_, r)| r.clone()).collect()
}

/// Stalls with so many peers may be those of one server.
pub const SHARED: usize = 3;

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
    let mut shared: Vec<_> = count.into_iter().filter(|(_, peers)| peers.len() >= SHARED).collect();
    shared.sort_by_key(|(h, peers)| (std::cmp::Reverse(peers.len()), h.clone()));
    // Hosts by number of stalls of any lane, at most: what is explained on the way only makes it less.
    let mut most: BTreeMap<&HostName, BTreeSet<&HostName>> = BTreeMap::new();
    let near: Vec<(HostName, HostName)> = match shared.is_empty() {
        true => Vec::new(),
        false => (open.keys().filter(|(s, r)| same_cluster(e, s, r)).cloned()).collect(),
    };
    for (s, r) in &near {
        most.entry(s).or_default().insert(r);
        most.entry(r).or_default().insert(s);
    }
    // By cluster: who in it could speak.
    let mut speakers: BTreeMap<&str, usize> = BTreeMap::new();
    for (host, _) in shared {
        let own = e.members.get(&host).map_or("", |p| p.cluster.as_str());
        let all = *speakers.entry(own).or_insert_with(|| {
            let there = e.members.iter().filter(|(h, _)| e.receivers.contains(*h));
            let near = |p: &Place| own.is_empty() || p.cluster.is_empty() || p.cluster == own;
            there.filter(|(_, p)| near(p)).count()
        });
        let all = all - usize::from(e.members.contains_key(&host) && e.receivers.contains(&host));
        if most.get(&host).is_none_or(|peers| peers.len() * 2 <= all) {
            continue;
        }
        let left: BTreeSet<&HostName> = open
            .keys()
            .filter(|(s, r)| (*s == host || *r == host) && same_cluster(e, s, r))
            .map(|(s, r)| if *s == host { r } else { s })
            .collect();
        if left.len() < SHARED || left.len() * 2 <= all {
            continue;
        }
        let text = format!(
            "{} of {all} paths between {host} and its cluster are stalled",
            left.len()
        );
        faults.extend(fault(e, FaultKind::Host, &host, None, text));
        open.retain(|(s, r), _| *s != host && *r != host && e.entry(s, r) != Some(&host));
    }
}

fn pairs(e: &Evidence, open: &Open, faults: &mut Vec<Fault>) {
    // Pairs are sorted by source: it is counted once for each.
    let mut counted: Option<(&HostName, usize)> = None;
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
            let others = match counted {
                Some((source, n)) if source == s => n,
                _ => hearers(e, s),
            };
            counted = Some((s, others));
            let text = format!("{r} does not hear {s}; {others} others do");
            fault_heard(e, FaultKind::Route, s, Some(End::Host(r.clone())), others, text)
        };
        if let Some(f) = &mut found {
            f.lanes = lanes.as_ref().clone();
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
#[path = "diagnose_tests.rs"]
mod tests;
