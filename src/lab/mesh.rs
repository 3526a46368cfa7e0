//! Whether all servers have found each other.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::{join_all, try_join_all};
use serde_json::Value;

use super::{ConnectionView, Host, LabSpec, Result, Topology, get_json};

/// What is missing for the mesh to be whole and settled; empty where it is.
pub(crate) async fn missing(hosts: &[Host], spec: &LabSpec, wires: &[ConnectionView]) -> Vec<String> {
    let read = try_join_all(hosts.iter().map(|host| read(host, "varz"))).await;
    let varz = match read {
        Ok(varz) => varz,
        Err(error) => return vec![error.to_string()],
    };
    // Servers of 2.9 name their peers by id only.
    let id = |varz: &Value| varz["server_id"].as_str().unwrap_or_default().to_owned();
    let ids: Vec<String> = varz.iter().map(id).collect();
    let full = varz.first().map_or(1, |varz| per_peer(varz, spec));
    let looks = hosts
        .iter()
        .map(|host| missing_at(host, hosts, &ids, full, spec.topology));
    let mut missing = join_all(looks).await.concat();
    if spec.netns.is_none() {
        missing.extend(surplus(hosts, full, wires));
    }
    missing
}

/// Two servers that dial each other drop one of two connections, sometimes both, a moment after they show as peers: a fault
/// that sticks to connections must not be set before.
fn surplus(hosts: &[Host], full: usize, wires: &[ConnectionView]) -> Vec<String> {
    let unknown = wires.iter().filter(|wire| wire.dialler.is_none());
    let mut surplus: Vec<String> = unknown
        .map(|wire| format!("somebody just dialled {}", wire.acceptor))
        .collect();
    let mut count: BTreeMap<[&str; 2], usize> = BTreeMap::new();
    for wire in wires.iter().filter(|wire| wire.link == "route") {
        let mut pair = [wire.dialler.as_deref().unwrap_or_default(), &wire.acceptor];
        pair.sort_unstable();
        *count.entry(pair).or_default() += 1;
    }
    let known = |name: &str| hosts.iter().any(|host| host.name == name);
    let too_many = count
        .into_iter()
        .filter(|([a, b], open)| known(a) && known(b) && *open > full);
    surplus.extend(too_many.map(|([a, b], n)| format!("{n} routes, not {full}, join {a} and {b}")));
    surplus
}

async fn read(host: &Host, what: &str) -> Result<Value> {
    get_json(&format!("{}/{what}", host.monitor_url)).await
}

async fn missing_at(host: &Host, hosts: &[Host], ids: &[String], full: usize, topology: Topology) -> Vec<String> {
    let mut missing = match read(host, "routez").await {
        Ok(routez) => missing_routes(host, hosts, ids, full, &routez),
        Err(error) => vec![error.to_string()],
    };
    if topology == Topology::ClusterPerRegion {
        missing.extend(match read(host, "gatewayz").await {
            Ok(gatewayz) => missing_gateways(host, hosts, &gatewayz),
            Err(error) => vec![error.to_string()],
        });
    }
    missing
}

/// How many route connections a server of this version keeps to each peer: since 2.10 a pool (of 3, if nothing is said) and
/// one for the system account.
fn per_peer(varz: &Value, spec: &LabSpec) -> usize {
    let version = varz["version"].as_str().unwrap_or_default();
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let pooled = (parts.next(), parts.next()) >= (Some(2), Some(10));
    match spec.pool_size.unwrap_or(3) {
        size if pooled && size > 0 => usize::try_from(size).unwrap_or(0) + 1,
        _ => 1,
    }
}

fn missing_routes(host: &Host, hosts: &[Host], ids: &[String], full: usize, routez: &Value) -> Vec<String> {
    let mut open: BTreeMap<&str, usize> = BTreeMap::new();
    for route in routez["routes"].as_array().into_iter().flatten() {
        *open.entry(route["remote_id"].as_str().unwrap_or_default()).or_default() += 1;
    }
    let peers = hosts.iter().zip(ids);
    peers
        .filter(|(peer, _)| peer.cluster == host.cluster && peer.name != host.name)
        .map(|(peer, id)| (peer, open.get(id.as_str()).copied().unwrap_or(0)))
        .filter(|(_, open)| *open < full)
        .map(|(peer, open)| format!("{} has {open} of {full} routes to {}", host.name, peer.name))
        .collect()
}

fn missing_gateways(host: &Host, hosts: &[Host], gatewayz: &Value) -> Vec<String> {
    let clusters: BTreeSet<&str> = hosts.iter().map(|peer| peer.cluster.as_str()).collect();
    let open = |cluster: &str| gatewayz["outbound_gateways"][cluster].is_object();
    clusters
        .into_iter()
        .filter(|cluster| *cluster != host.cluster && !open(cluster))
        .map(|cluster| format!("{} has no gateway to {cluster}", host.name))
        .collect()
}
