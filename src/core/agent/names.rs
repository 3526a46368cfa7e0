//! Two servers of one cluster with the same `server_name`: what routes and peers are called is then no proof of whose they
//! are, so nothing is done that rests on it. It is said, and seen in the status.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::core::agent::Core;
use crate::core::agent::event::Action;
use crate::core::ids::{HostName, Now};
use crate::core::remedy::case::Case;
use crate::core::remedy::gate::Blocked;
use crate::core::view::{FaultKind, Verdict};

/// Who was not heard for this long says nothing about how large the fleet is, or what servers are called.
const LATELY: Duration = Duration::from_secs(60);
/// Beacons that make a member more than a name somebody once used.
const KNOWN: u64 = 3;

impl Core {
    /// Was it heard lately by this process, and more than once?
    pub(super) fn heard_lately(&self, host: &HostName, now: Now) -> bool {
        self.lanes.iter().filter_map(|l| l.paths.get(host)).any(|p| {
            p.verdict != Verdict::Departed
                && p.counts.received >= KNOWN
                && p.heard().is_some_and(|at| now.mono.since(at) < LATELY)
        })
    }

    /// Names of servers of the own cluster that more than one host's server has.
    fn shared_names(&self, now: Now) -> BTreeMap<String, BTreeSet<HostName>> {
        let cluster = self.cluster_name();
        let own = self.local.varz().map(|v| (&v.server_name, &v.server_id));
        let others = self
            .members
            .iter()
            .filter(|(h, m)| (m.place.cluster == cluster || m.place.cluster.is_empty()) && self.heard_lately(h, now));
        // Two hosts that name one server: at most one of them is right.
        let mut named: BTreeMap<&String, BTreeMap<&String, BTreeSet<&HostName>>> = BTreeMap::new();
        let all = others.map(|(h, m)| (h, &m.server, &m.server_id));
        for (host, name, id) in all.chain(own.map(|(name, id)| (&self.policy.host, name, id))) {
            if !name.is_empty() && !id.is_empty() {
                named.entry(name).or_default().entry(id).or_default().insert(host);
            }
        }
        named
            .into_iter()
            .filter(|(_, ids)| ids.len() > 1 || ids.values().any(|hosts| hosts.len() > 1))
            .map(|(name, ids)| (name.clone(), ids.into_values().flatten().cloned().collect()))
            .collect()
    }

    /// Who else says that the server of `host` is its own, lately or not: at most one of them is right.
    fn same_server(&self, host: &HostName) -> Option<HostName> {
        let id = &self.members.get(host)?.server_id;
        if id.is_empty() {
            return None;
        }
        if self.local.varz().is_some_and(|own| own.server_id == *id) {
            return Some(self.policy.host.clone());
        }
        let other = self.members.iter().find(|(h, m)| *h != host && m.server_id == *id);
        other.map(|(h, _)| h.clone())
    }

    /// What is done about this case would rest on a name that two servers have.
    pub(super) fn gate_names(&self, case: &Case, now: Now) -> Result<(), Blocked> {
        let me = &self.policy.host;
        if let Some(peer) = case.peer(me)
            && let Some(other) = self.same_server(peer)
        {
            return Err(Blocked::SameServer(peer.clone(), other));
        }
        let shared = self.shared_names(now);
        if shared.is_empty() {
            return Ok(());
        }
        let concerned = |host: &HostName| match case.peer(me) {
            _ if host == me => true,
            Some(peer) => host == peer,
            // The own server as a whole: its connections to whoever stalls.
            None => case.fault.kind == FaultKind::Host && self.touched(host),
        };
        match shared.iter().find(|(_, hosts)| hosts.iter().any(concerned)) {
            None => Ok(()),
            Some((name, hosts)) => Err(Blocked::SameName {
                name: name.clone(),
                hosts: hosts.iter().cloned().collect(),
            }),
        }
    }

    /// Says what is new of it.
    pub(super) fn watch_names(&mut self, now: Now, out: &mut Vec<Action>) {
        let shared = self.shared_names(now);
        for (name, hosts) in &shared {
            if self.shared_names.get(name) != Some(hosts) {
                let text = same_name(name, hosts);
                self.record("server", name.clone(), text, now, out);
            }
        }
        self.shared_names = shared;
    }

    /// For the status.
    pub(super) fn name_advice(&self) -> impl Iterator<Item = String> {
        self.shared_names.iter().map(|(name, hosts)| same_name(name, hosts))
    }
}

fn same_name(name: &str, hosts: &BTreeSet<HostName>) -> String {
    let hosts: Vec<&str> = hosts.iter().map(HostName::as_str).take(8).collect();
    format!(
        "the servers of {} are all named {name}, in one cluster: nothing is reset or restarted where they could be taken \
         for each other; give each its own server_name",
        hosts.join(" and ")
    )
}
