//! What a lab shall look like.

use std::{collections::BTreeMap, path::PathBuf, str::FromStr};

/// How servers are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topology {
    /// All servers in one cluster, by routes.
    OneCluster,
    /// A cluster per region, gateways between all clusters.
    ClusterPerRegion,
}

/// How servers of a cluster learn of each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Routes {
    /// Every server lists all its peers.
    Full,
    /// All but the first know only the first; the rest is gossip.
    Gossip,
}

/// The agents of a lab, one per server.
#[derive(Debug, Clone)]
pub struct AgentSpec {
    /// The `watchdog` binary.
    pub bin: PathBuf,
    /// `observe`, `reset` or `restart`.
    pub mode: String,
    /// More configuration, merged over what the lab writes.
    pub extra_toml: String,
    /// The same for single hosts, by name.
    pub per_host_toml: BTreeMap<String, String>,
}

impl AgentSpec {
    /// Agents from the `watchdog` binary beside the running program, in `mode`.
    #[must_use]
    pub fn new(mode: &str) -> Self {
        let bin = std::env::current_exe()
            .ok()
            .and_then(|exe| exe.parent().map(|dir| dir.join("watchdog")))
            .unwrap_or_else(|| PathBuf::from("watchdog"));
        Self {
            bin,
            mode: mode.to_owned(),
            extra_toml: String::new(),
            per_host_toml: BTreeMap::new(),
        }
    }
}

/// What a lab shall look like; start it with [`crate::lab::Lab::start`].
#[derive(Debug, Clone)]
pub struct LabSpec {
    /// Region names; hosts are named `<region>-<number from 1>`.
    pub regions: Vec<String>,
    /// Hosts in each region.
    pub per_region: usize,
    /// One cluster, or one per region.
    pub topology: Topology,
    /// The nats-server binary.
    pub server: PathBuf,
    /// `cluster.pool_size`, 2.10 and newer; `None` leaves the server's default.
    pub pool_size: Option<i32>,
    /// Who lists whom.
    pub routes: Routes,
    /// Whether servers run JetStream.
    pub jetstream: bool,
    /// More accounts, each with a user NAME, password NAME.
    pub accounts: Vec<String>,
    /// Lines added to every server's configuration.
    pub server_extra: String,
    /// Agents, if any.
    pub agents: Option<AgentSpec>,
    /// Where configurations and logs go; kept. `None`: a temporary directory, removed at the end.
    pub dir: Option<PathBuf>,
    /// The `watchdog-lab` binary that agents call to restart their server; `None`: the running program.
    pub lab_bin: Option<PathBuf>,
    /// Fronts before route and gateway ports, which faults need; without them servers dial each other, and large labs cost
    /// less.
    pub fronts: bool,
    /// Prefix of the network namespaces that [`crate::lab::netns`] made; `None`: loopback and fronts.
    pub netns: Option<String>,
}

impl LabSpec {
    /// Three regions of two servers in one cluster, every peer listed, no agents.
    #[must_use]
    pub fn new(server: impl Into<PathBuf>) -> Self {
        Self {
            regions: ["iad", "fra", "nrt"].map(String::from).to_vec(),
            per_region: 2,
            topology: Topology::OneCluster,
            server: server.into(),
            pool_size: None,
            routes: Routes::Full,
            jetstream: false,
            accounts: Vec::new(),
            server_extra: String::new(),
            agents: None,
            dir: None,
            lab_bin: None,
            fronts: true,
            netns: None,
        }
    }

    /// Names of the hosts with their regions, in the order in which they are numbered.
    #[must_use]
    pub fn host_names(&self) -> Vec<(String, String)> {
        let one = |region: &String, n| (format!("{region}-{n}"), region.clone());
        self.regions
            .iter()
            .flat_map(|r| (1..=self.per_region).map(move |n| one(r, n)))
            .collect()
    }

    /// The account of the user `watchdog`: the global one, unless JetStream needs it to be configured.
    #[must_use]
    pub fn default_account(&self) -> &'static str {
        if self.jetstream && !self.accounts.is_empty() {
            "MAIN"
        } else {
            "$G"
        }
    }
}

impl FromStr for Topology {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "one" => Ok(Self::OneCluster),
            "per-region" => Ok(Self::ClusterPerRegion),
            _ => Err(format!("topology is `one` or `per-region`, not `{text}`")),
        }
    }
}

impl FromStr for Routes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "full" => Ok(Self::Full),
            "gossip" => Ok(Self::Gossip),
            _ => Err(format!("routes are `full` or `gossip`, not `{text}`")),
        }
    }
}
