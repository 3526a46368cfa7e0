//! Whether all servers have found each other.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Host, LabSpec, Topology, get_json};

/// What is missing for the mesh to be whole; empty where it is.
pub(crate) async fn missing(hosts: &[Host], spec: &LabSpec) -> Vec<String> {
    let looks = hosts.iter().map(|host| missing_at(host, hosts, spec));
    futures_util::future::join_all(looks).await.concat()
}

async fn missing_at(host: &Host, hosts: &[Host], spec: &LabSpec) -> Vec<String> {
    let mut missing = Vec::new();
    let (varz, routez) = (
        format!("{}/varz", host.monitor_url),
        format!("{}/routez", host.monitor_url),
    );
    match futures_util::future::try_join(get_json(&varz), get_json(&routez)).await {
        Ok((varz, routez)) => {
            missing.extend(missing_routes(host, hosts, per_peer(&varz, spec), &routez))
        }
        Err(error) => missing.push(error.to_string()),
    }
    if spec.topology == Topology::ClusterPerRegion {
        match get_json(&format!("{}/gatewayz", host.monitor_url)).await {
            Ok(gatewayz) => missing.extend(missing_gateways(host, hosts, &gatewayz)),
            Err(error) => missing.push(error.to_string()),
        }
    }
    missing
}

/// How many route connections a server of this version keeps to each peer: since 2.10 a pool (of 3, if nothing is said) and
/// one for the system account.
fn per_peer(varz: &Value, spec: &LabSpec) -> usize {
    let mut version = varz["version"]
        .as_str()
        .unwrap_or_default()
        .split('.')
        .map(|n| n.parse::<u32>().unwrap_or(0));
    let pooled = (version.next(), version.next()) >= (Some(2), Some(10));
    match spec.pool_size.unwrap_or(3) {
        size if pooled && size > 0 => usize::try_from(size).unwrap_or(0) + 1,
        _ => 1,
    }
}

fn missing_routes(host: &Host, hosts: &[Host], full: usize, routez: &Value) -> Vec<String> {
    let mut connections: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
    for route in routez["routes"].as_array().into_iter().flatten() {
        let name = route["remote_name"].as_str().unwrap_or_default();
        connections
            .entry(name)
            .or_default()
            .insert(route["rid"].as_u64().unwrap_or_default());
    }
    let peers = hosts
        .iter()
        .filter(|peer| peer.cluster == host.cluster && peer.name != host.name);
    let open = |peer: &Host| {
        connections
            .get(peer.server_name.as_str())
            .map_or(0, BTreeSet::len)
    };
    peers
        .filter(|peer| open(peer) < full)
        .map(|peer| {
            format!(
                "{} has {} of {full} routes to {}",
                host.name,
                open(peer),
                peer.name
            )
        })
        .collect()
}

fn missing_gateways(host: &Host, hosts: &[Host], gatewayz: &Value) -> Vec<String> {
    let clusters: BTreeSet<&String> = hosts
        .iter()
        .map(|h| &h.cluster)
        .filter(|c| **c != host.cluster)
        .collect();
    let open = |cluster: &str| gatewayz["outbound_gateways"][cluster].is_object();
    clusters
        .into_iter()
        .filter(|cluster| !open(cluster))
        .map(|cluster| format!("{} has no gateway to {cluster}", host.name))
        .collect()
}
