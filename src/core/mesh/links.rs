//! Which link a pair that does not hear each other goes by.
//!
//! Within a cluster it is the route from the sender's server. Into another cluster it is the outbound gateway of the
//! sender's server, to *one* server there, and from that one a route (NATS: one outbound connection per remote cluster
//! and server; a message that came by a gateway is carried on by routes, one that came by a route by nothing). Beacons
//! say where gateways lead; where they do not, nothing is attributed and the older rules of `diagnose` hold.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::core::ids::{HostName, LaneName};
use crate::core::mesh::Evidence;

/// (source, receiver) to the lanes on which the receiver does not hear the source.
pub(super) type Open = BTreeMap<(HostName, HostName), Arc<BTreeSet<LaneName>>>;

impl Evidence {
    /// To whose server the source's messages go first on their way into the receiver's cluster; `None` = not known, or
    /// both are in one cluster.
    pub(super) fn entry(&self, source: &HostName, receiver: &HostName) -> Option<&HostName> {
        let (from, to) = (self.members.get(source)?, self.members.get(receiver)?);
        if from.cluster.is_empty() || to.cluster.is_empty() || from.cluster == to.cluster {
            return None;
        }
        let entry = from.entries.get(&to.cluster)?;
        // A host that has moved, or was never there, carries nothing.
        let there = self.members.get(entry).is_some_and(|p| p.cluster == to.cluster);
        there.then_some(entry)
    }
}

/// Books what is silent because it comes through a stalled route of the receiver's cluster under that route, and drops
/// what goes through a host that is out itself.
pub(super) fn book_transit(e: &Evidence, open: &mut Open, out: &BTreeSet<HostName>) {
    let transit: Vec<_> = open
        .iter()
        .filter_map(|((s, r), lanes)| {
            let entry = e.entry(s, r)?.clone();
            Some((s.clone(), r.clone(), entry, lanes.clone()))
        })
        .collect();
    for (source, receiver, entry, lanes) in transit {
        let pair = (source.clone(), receiver.clone());
        if out.contains(&entry) {
            open.remove(&pair);
            continue;
        }
        if entry == receiver || !arrives(e, &source, &entry, &receiver) {
            continue;
        }
        let route = (entry.clone(), receiver.clone());
        // That the receiver hears the entry itself contradicts a stalled route: the entry may have changed just now.
        let heard = !open.contains_key(&route)
            && !e.deaf.contains_key(&route)
            && e.members.contains_key(&entry)
            && (!e.untold(&entry, &receiver) || e.begun.contains(&route));
        if heard {
            continue;
        }
        open.remove(&pair);
        Arc::make_mut(open.entry(route).or_default()).extend(lanes.iter().cloned());
    }
}

/// Does the source's message get as far as the entry's server? The entry's own word, else that of others behind it.
fn arrives(e: &Evidence, source: &HostName, entry: &HostName, receiver: &HostName) -> bool {
    let hears = |r: &HostName| {
        e.receivers.contains(r) && !e.untold(source, r) && !e.deaf.contains_key(&(source.clone(), r.clone()))
    };
    if e.receivers.contains(entry) && !e.untold(source, entry) {
        return hears(entry);
    }
    let cluster = e.members.get(receiver).map(|p| &p.cluster);
    e.receivers
        .iter()
        .any(|r| r != receiver && e.members.get(r).map(|p| &p.cluster) == cluster && hears(r))
}

/// The links by which what `host` does not hear would have come in.
pub(super) fn ways_in<'a>(
    e: &'a Evidence,
    host: &'a HostName,
    sources: &[&'a HostName],
) -> BTreeSet<(bool, &'a HostName)> {
    sources
        .iter()
        .map(|s| match e.entry(s, host) {
            Some(entry) if entry != host => (true, entry),
            // A gateway that ends here, or nobody knows where, is a way of its own.
            Some(_) => (false, *s),
            None => (true, *s),
        })
        .collect()
}
