//! A host of the lab: its names, addresses and files.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    path::{Path, PathBuf},
};

use super::{LabError, LabSpec, Result, Topology};

/// The name of the cluster where there is only one.
const ONE_CLUSTER: &str = "lab";

/// A host: one server and perhaps one agent, on an address of their own.
#[derive(Debug, Clone)]
pub struct Host {
    /// `<region>-<number>`; also the server's name.
    pub name: String,
    /// The region.
    pub region: String,
    /// The cluster's name.
    pub cluster: String,
    /// The address of everything on this host.
    pub ip: Ipv4Addr,
    /// Where clients connect: `nats://ip:port`.
    pub client_url: String,
    /// Where the server's monitoring answers: `http://ip:port`.
    pub monitor_url: String,
    /// The `[http]` listen address of the agent: `ip:port`.
    pub agent_http: String,
    /// The name of the server.
    pub server_name: String,
    /// Configurations, logs and state of this host.
    pub dir: PathBuf,
    /// The server's log.
    pub server_log: PathBuf,
    /// The agent's log.
    pub agent_log: PathBuf,
    /// Where peers dial routes.
    pub route_address: SocketAddrV4,
    /// Where other clusters dial gateways.
    pub gateway_address: SocketAddrV4,
    pub(crate) client: SocketAddrV4,
    pub(crate) monitor: SocketAddrV4,
    pub(crate) route_listen: SocketAddrV4,
    pub(crate) gateway_listen: SocketAddrV4,
    pub(crate) netns: Option<String>,
}

/// Lets `pick` choose a free address for every port of every host.
pub(crate) fn lay_out(
    spec: &LabSpec,
    root: &Path,
    ip_of: impl Fn(usize) -> Ipv4Addr,
    mut pick: impl FnMut(Ipv4Addr) -> Result<SocketAddrV4>,
) -> Result<Vec<Host>> {
    let mut hosts = Vec::new();
    for (index, (name, region)) in spec.host_names().into_iter().enumerate() {
        let ip = ip_of(index);
        let (client, monitor, agent) = (pick(ip)?, pick(ip)?, pick(ip)?);
        let (route_listen, gateway_listen) = (pick(ip)?, pick(ip)?);
        let dir = root.join(&name);
        std::fs::create_dir_all(&dir).map_err(LabError::file("create directory", &dir))?;
        hosts.push(Host {
            cluster: match spec.topology {
                Topology::OneCluster => ONE_CLUSTER.to_owned(),
                Topology::ClusterPerRegion => region.clone(),
            },
            region,
            ip,
            client_url: format!("nats://{client}"),
            monitor_url: format!("http://{monitor}"),
            agent_http: agent.to_string(),
            server_name: name.clone(),
            server_log: dir.join("server.log"),
            agent_log: dir.join("agent.log"),
            dir,
            route_address: route_listen,
            gateway_address: gateway_listen,
            client,
            monitor,
            route_listen,
            gateway_listen,
            netns: spec.netns.as_ref().map(|prefix| format!("{prefix}-{name}")),
            name,
        });
    }
    Ok(hosts)
}
