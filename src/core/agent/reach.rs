//! Where things are: addresses for the network check, sockets for a reset.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::core::agent::event::ResetTarget;
use crate::core::agent::{Core, Member};
use crate::core::ids::{HostName, Now};
use crate::core::mesh::End;
use crate::core::remedy::case::Case;
use crate::core::remedy::gate::Blocked;
use crate::core::remedy::ledger::ActKind;
use crate::core::server::Route;
use crate::core::view::{FaultKind, Verdict};

/// Peers asked when it is not about one of them.
const SAMPLE: usize = 3;

impl Core {
    /// `host:port` list whose INFO proves that the network to the other side is fine.
    pub(super) fn addresses(&self, case: &Case, kind: ActKind) -> Vec<String> {
        let me = &self.policy.host;
        if let Some(peer) = case.peer(me) {
            return self.route_address(peer).into_iter().collect();
        }
        match &case.fault.to {
            Some(End::Cluster(cluster)) => match self.gateway_leads_to(cluster) {
                // Dialled anew it may lead past what is cut off; a restart is for what the network has no part in.
                Some(there) if kind == ActKind::Restart => vec![there],
                _ => self.gateway_addresses(cluster),
            },
            _ if &case.fault.from == me => {
                let own = self.cluster();
                self.members
                    .iter()
                    .filter(|(h, m)| m.place.cluster == own && self.present(h))
                    .filter_map(|(h, _)| self.route_address(h))
                    .take(SAMPLE)
                    .collect()
            }
            _ => self.route_address(&case.fault.from).into_iter().collect(),
        }
    }

    fn route_address(&self, host: &HostName) -> Option<String> {
        let m = self.members.get(host)?;
        match m.route.strip_prefix(':') {
            Some("") => None,
            Some(port) => m.ip.as_ref().map(|ip| join(ip, port)),
            None if m.route.is_empty() => None,
            None => Some(m.route.clone()),
        }
    }

    /// The other end of the outbound gateway, if there is one.
    fn gateway_leads_to(&self, cluster: &str) -> Option<String> {
        let (_, g) = self.local.gateways.as_ref()?;
        let c = g.outbound.iter().find(|c| *c.cluster == *cluster && !c.ip.is_empty())?;
        Some(join(&c.ip, &c.port.to_string()))
    }

    fn gateway_addresses(&self, cluster: &str) -> Vec<String> {
        let configured = self
            .local
            .varz()
            .and_then(|v| v.gateways.get(cluster))
            .into_iter()
            .flatten();
        let told = self
            .members
            .values()
            .filter(|m| m.place.cluster == cluster && !m.gateway.is_empty() && !m.gateway.starts_with(':'))
            .map(|m| &m.gateway);
        let mut seen = BTreeSet::new();
        configured
            .chain(told)
            .filter(|a| seen.insert((*a).clone()))
            .cloned()
            .collect()
    }

    /// Which sockets to destroy.
    pub(super) fn reset_target(&self, case: &Case, now: Now) -> Result<ResetTarget, Blocked> {
        let me = &self.policy.host;
        let stale = |source, endpoint| Blocked::StaleData {
            source,
            age: self.local.age(endpoint, now.mono),
        };
        if let (FaultKind::Gateway, Some(End::Cluster(cluster))) = (case.fault.kind, &case.fault.to) {
            let g = self
                .local
                .fresh_gateways(now.mono)
                .ok_or_else(|| stale("gatewayz", crate::core::server::Endpoint::Gatewayz))?;
            return self.gateway_target(cluster, g);
        }
        let routes = self
            .local
            .fresh_routes(now.mono)
            .ok_or_else(|| stale("routez", crate::core::server::Endpoint::Routez))?;
        match (case.fault.kind, case.peer(me)) {
            (FaultKind::Hole, Some(peer)) => self.seed_target(peer, case.resets, routes),
            (kind, Some(peer)) => {
                let to_peer = self.routes_to(peer, routes);
                let servers: BTreeSet<&Arc<str>> = to_peer.iter().map(|r| &r.remote_id).collect();
                if servers.len() > 1 {
                    return Err(Blocked::NoTarget(format!(
                        "connections to {} servers pass for those to {peer}",
                        servers.len()
                    )));
                }
                let exact = kind == FaultKind::Route && case.resets == 0 && &case.fault.from == peer;
                let silent_since = now.mono.0.saturating_sub(self.silence(peer, now));
                let one = exact
                    .then(|| self.local.stopped(&to_peer, crate::core::ids::Mono(silent_since)))
                    .flatten()
                    .filter(|r| to_peer.iter().filter(|o| (&o.ip, o.port) == (&r.ip, r.port)).count() == 1);
                match one {
                    Some(r) => target(
                        &[r],
                        format!("route connection {} to {peer}", r.rid),
                        to_peer.len() == 1,
                    ),
                    None => target(
                        &to_peer,
                        format!("all {} route connections to {peer}", to_peer.len()),
                        true,
                    ),
                }
            }
            (_, None) => {
                let deaf: Vec<&Route> = self
                    .members
                    .keys()
                    .filter(|h| self.touched(h))
                    .flat_map(|h| self.routes_to(h, routes))
                    .collect();
                let n = deaf.len();
                target(
                    &deaf,
                    format!("{n} route connections to the peers that are not heard or do not hear {me}"),
                    true,
                )
            }
        }
    }

    fn gateway_target(&self, cluster: &str, g: &crate::core::server::Gatewayz) -> Result<ResetTarget, Blocked> {
        if let Some(c) = g.outbound.iter().find(|c| *c.cluster == *cluster) {
            return Ok(ResetTarget {
                remotes: vec![join(&c.ip, &c.port.to_string())],
                what: format!("the outbound gateway connection {} to cluster {cluster}", c.cid),
                whole: false,
            });
        }
        // What beacons tell is not to be trusted with a socket that the server shows as another one, nor with a name, which
        // may lead anywhere.
        let routes = self.local.routes.iter().flat_map(|(_, routes)| routes);
        let routes = routes.map(|r| join(&r.ip, &r.port.to_string()));
        let gateways = g.outbound.iter().chain(&g.inbound);
        let shown = routes.chain(gateways.map(|c| join(&c.ip, &c.port.to_string())));
        let shown: BTreeSet<SocketAddr> = shown.filter_map(|a| canonical(&a)).collect();
        let configured = self.local.varz().and_then(|v| v.gateways.get(cluster));
        let own = |a: &String| configured.is_some_and(|all| all.contains(a));
        let mut remotes = self.gateway_addresses(cluster);
        remotes.retain(|a| canonical(a).map_or_else(|| own(a), |a| !shown.contains(&a)));
        if remotes.is_empty() {
            return Err(Blocked::NoTarget(format!(
                "no gateway address of cluster {cluster} is known"
            )));
        }
        Ok(ResetTarget {
            remotes,
            what: format!("the pending gateway connection to cluster {cluster}"),
            whole: false,
        })
    }

    /// A common seed tells both of each other again when it is dialled anew; after one that did not help, the next.
    fn seed_target(&self, peer: &HostName, resets: u32, routes: &[Route]) -> Result<ResetTarget, Blocked> {
        let common = |host: &HostName| {
            let reports = self.lanes.iter().filter_map(|l| l.reports.get(host));
            let fine = self
                .lanes
                .iter()
                .filter_map(|l| l.paths.get(host))
                .all(|p| p.verdict == Verdict::Ok);
            fine && host != peer
                && reports.clone().count() > 0
                && reports
                    .into_iter()
                    .all(|r| !r.deaf().contains(peer) && !r.unrouted().contains(peer))
        };
        let configured = |host: &HostName| self.routes_to(host, routes).iter().any(|r| r.is_configured);
        let mut seeds: Vec<&HostName> = self.members.keys().filter(|h| common(h)).collect();
        // A configured route is dialled again for ever; a gossiped one only once.
        seeds.retain(|h| configured(h));
        let turn = resets as usize % seeds.len().max(1);
        let Some(seed) = seeds.get(turn) else {
            return Err(Blocked::NoTarget(format!(
                "no configured route leads to a server that also knows {peer}; add a route to it, or list all peers"
            )));
        };
        let to_seed = self.routes_to(seed, routes);
        target(
            &to_seed,
            format!("all {} route connections to the common seed {seed}", to_seed.len()),
            seeds.len() == 1,
        )
    }

    pub(super) fn routes_to<'a>(&self, host: &HostName, routes: &'a [Route]) -> Vec<&'a Route> {
        let own = self.cluster_name();
        // There are no routes between clusters, and another one may have servers of the same names.
        let near = |m: &&Member| m.place.cluster.is_empty() || own.is_empty() || m.place.cluster == own;
        let Some(m) = self.members.get(host).filter(|m| !m.server_id.is_empty()).filter(near) else {
            return Vec::new();
        };
        let named = |r: &&Route| !r.remote_name.is_empty() && *r.remote_name == *m.server;
        routes
            .iter()
            .filter(|r| *r.remote_id == *m.server_id || named(r))
            .collect()
    }

    /// Does anything between this host and `host` stall?
    pub(super) fn touched(&self, host: &HostName) -> bool {
        let me = &self.policy.host;
        self.evidence.deaf.contains_key(&(host.clone(), me.clone()))
            || self.evidence.deaf.contains_key(&(me.clone(), host.clone()))
    }

    fn silence(&self, host: &HostName, now: Now) -> std::time::Duration {
        self.lanes
            .iter()
            .filter_map(|l| l.paths.get(host))
            .map(|p| p.silence(now.mono))
            .max()
            .unwrap_or_default()
    }
}

fn target(routes: &[&Route], what: String, whole: bool) -> Result<ResetTarget, Blocked> {
    let remotes: BTreeSet<String> = routes
        .iter()
        .filter(|r| r.port > 0)
        .map(|r| join(&r.ip, &r.port.to_string()))
        .collect();
    if remotes.is_empty() {
        return Err(Blocked::NoTarget(
            "the server shows no route connection to that peer".to_owned(),
        ));
    }
    Ok(ResetTarget {
        remotes: remotes.into_iter().collect(),
        what,
        whole,
    })
}

/// An address in the one way in which the kernel knows it; `None` for a name.
fn canonical(address: &str) -> Option<SocketAddr> {
    let address: SocketAddr = address.parse().ok()?;
    Some(SocketAddr::new(address.ip().to_canonical(), address.port()))
}

fn join(ip: &str, port: &str) -> String {
    if ip.contains(':') {
        format!("[{ip}]:{port}")
    } else {
        format!("{ip}:{port}")
    }
}
