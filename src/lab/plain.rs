//! Many real servers and nothing else: no fronts, no faults, all routes written out. For what the servers themselves do.

use std::{
    fmt::Write,
    fs,
    net::SocketAddrV4,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    task::AbortHandle,
};

use super::{
    LabError, Result, get_json,
    process::{Nursery, Program, Running},
    start::{free_base, free_port, v4},
};
use crate::core::sys::reading::Tally;

/// The account of all clients; user and password are its name.
pub const ACCOUNT: &str = "APP";
/// The system account; user and password are its name.
pub const SYSTEM: &str = "SYS";
const STOP_PATIENCE: Duration = Duration::from_secs(15);

/// What to start.
#[derive(Debug, Clone)]
pub struct PlainSpec {
    /// The nats-server binary.
    pub server: PathBuf,
    /// How many, spread evenly over the clusters.
    pub servers: usize,
    /// Clusters, joined by gateways where there are several.
    pub clusters: usize,
    /// Clients on each server, all in [`ACCOUNT`]; one whose server goes connects to the next server at once.
    pub clients: usize,
}

/// One server.
#[derive(Debug, Clone)]
pub struct PlainServer {
    /// Its name.
    pub name: String,
    /// Its cluster's.
    pub cluster: String,
    /// Where clients go.
    pub client: SocketAddrV4,
    /// Where it is asked, an `http://` URL.
    pub monitor: String,
    route: SocketAddrV4,
    gateway: SocketAddrV4,
}

/// What one server counts of the system account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// Whose counters these are.
    pub server_id: String,
    /// Deliveries.
    pub sent: Tally,
    /// What came over the system account's own route connections, by `/routez` (2.10+).
    pub by_routes: Tally,
}

/// Running servers; they end when this is dropped.
#[derive(Debug)]
pub struct Plain {
    spec: PlainSpec,
    servers: Vec<PlainServer>,
    nursery: Nursery,
    running: Mutex<Vec<Option<Running>>>,
    clients: Vec<AbortHandle>,
    dir: tempfile::TempDir,
}

impl Drop for Plain {
    fn drop(&mut self) {
        for client in &self.clients {
            client.abort();
        }
    }
}

impl Plain {
    /// Starts all and waits until each has a route to all others of its cluster.
    ///
    /// # Errors
    /// Servers that do not start or do not find each other within `patience`.
    pub async fn start(spec: PlainSpec, patience: Duration) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("watchdog-plain-").tempdir();
        let dir = dir.map_err(LabError::file("create directory in", std::env::temp_dir()))?;
        let mut plain = Self {
            servers: lay_out(&spec)?,
            nursery: Nursery::new()?,
            running: Mutex::default(),
            clients: Vec::new(),
            spec,
            dir,
        };
        for (i, server) in plain.servers.iter().enumerate() {
            let path = plain.path(i, "conf");
            fs::write(&path, plain.config(server)).map_err(LabError::file("write", path))?;
            let running = plain.launch(i)?;
            plain.slots().push(Some(running));
        }
        plain.wait_until_whole(patience).await?;
        let addresses: Arc<[SocketAddrV4]> = plain.servers.iter().map(|s| s.client).collect();
        for server in 0..plain.servers.len() {
            for _ in 0..plain.spec.clients {
                let client = tokio::spawn(stay_connected(addresses.clone(), server));
                plain.clients.push(client.abort_handle());
            }
        }
        Ok(plain)
    }

    /// The servers.
    #[must_use]
    pub fn servers(&self) -> &[PlainServer] {
        &self.servers
    }

    /// Stops one with SIGTERM and starts it again.
    ///
    /// # Errors
    /// It does not start.
    pub async fn restart(&self, server: usize) -> Result<()> {
        let running = self.slots().get_mut(server).and_then(Option::take);
        if let Some(running) = running {
            let _ = tokio::task::spawn_blocking(move || running.stop(STOP_PATIENCE)).await;
        }
        let running = self.launch(server)?;
        if let Some(slot) = self.slots().get_mut(server) {
            *slot = Some(running);
        }
        Ok(())
    }

    /// Waits until each server has a route to all others of its cluster, and a gateway to each other cluster.
    ///
    /// # Errors
    /// What is missing after `patience`.
    pub async fn wait_until_whole(&self, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            let looks = join_all(self.servers.iter().map(|s| self.missing(s))).await;
            let missing: Vec<String> = looks.into_iter().flatten().collect();
            if missing.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(LabError::NotWhole {
                    seconds: patience.as_secs(),
                    missing: missing.join("; "),
                    dir: self.dir.path().to_owned(),
                });
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }

    /// What each server counts of the system account now.
    ///
    /// # Errors
    /// A server does not answer, or has no such account.
    pub async fn counted(&self) -> Result<Vec<Counted>> {
        join_all(self.servers.iter().map(counted)).await.into_iter().collect()
    }

    fn launch(&self, server: usize) -> Result<Running> {
        self.nursery.start(&Program {
            bin: self.spec.server.clone(),
            args: vec!["-c".to_owned(), self.path(server, "conf").display().to_string()],
            log: self.path(server, "log"),
            netns: None,
        })
    }

    fn path(&self, server: usize, kind: &str) -> PathBuf {
        self.dir.path().join(format!("{server}.{kind}"))
    }

    fn slots(&self) -> std::sync::MutexGuard<'_, Vec<Option<Running>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn config(&self, server: &PlainServer) -> String {
        let mut text = format!(
            "server_name: \"{}\"\nlisten: \"{}\"\nhttp: \"{}\"\n",
            server.name,
            server.client,
            server.monitor.trim_start_matches("http://")
        );
        let _ = write!(
            text,
            "cluster {{\n  name: \"{}\"\n  listen: \"{}\"\n  routes: [\n",
            server.cluster, server.route
        );
        let peers = self
            .servers
            .iter()
            .filter(|s| s.cluster == server.cluster && s.name != server.name);
        for peer in peers {
            let _ = writeln!(text, "    \"nats://{}\"", peer.route);
        }
        text += "  ]\n}\n";
        if self.spec.clusters > 1 {
            let _ = write!(
                text,
                "gateway {{\n  name: \"{}\"\n  listen: \"{}\"\n  gateways: [\n",
                server.cluster, server.gateway
            );
            for cluster in 0..self.spec.clusters {
                let name = cluster_name(cluster);
                let members = self.servers.iter().filter(|s| s.cluster == name);
                let urls: Vec<String> = members.map(|s| format!("\"nats://{}\"", s.gateway)).collect();
                let _ = writeln!(text, "    {{ name: \"{name}\", urls: [{}] }}", urls.join(", "));
            }
            text += "  ]\n}\n";
        }
        for account in [SYSTEM, ACCOUNT] {
            let users = format!("users: [{{ user: \"{account}\", password: \"{account}\" }}]");
            let head = if account == SYSTEM { "accounts {\n" } else { "" };
            let _ = writeln!(text, "{head}  {account}: {{ {users} }}");
        }
        let _ = write!(text, "}}\nsystem_account: {SYSTEM}\n");
        text
    }

    async fn missing(&self, server: &PlainServer) -> Option<String> {
        let expected = self.spec.servers / self.spec.clusters - 1;
        let varz = match get_json(&format!("{}/varz", server.monitor)).await {
            Ok(varz) => varz,
            Err(error) => return Some(error.to_string()),
        };
        let remotes = varz["remotes"].as_u64().unwrap_or_default();
        if remotes != expected as u64 {
            return Some(format!("{} has {remotes} of {expected} peers", server.name));
        }
        if self.spec.clusters == 1 {
            return None;
        }
        let gatewayz = match get_json(&format!("{}/gatewayz", server.monitor)).await {
            Ok(gatewayz) => gatewayz,
            Err(error) => return Some(error.to_string()),
        };
        let there = gatewayz["outbound_gateways"]
            .as_object()
            .map_or(0, serde_json::Map::len);
        (there + 1 != self.spec.clusters).then(|| format!("{} has {there} gateways", server.name))
    }
}

fn cluster_name(cluster: usize) -> String {
    format!("c{}", cluster + 1)
}

fn lay_out(spec: &PlainSpec) -> Result<Vec<PlainServer>> {
    if spec.clusters == 0 || spec.servers == 0 || !spec.servers.is_multiple_of(spec.clusters) {
        let (servers, clusters) = (spec.servers, spec.clusters);
        return Err(LabError::Spec(format!(
            "{servers} servers cannot be spread evenly over {clusters} clusters"
        )));
    }
    let ip = free_base(1);
    // Held until all are picked, so that none is picked twice.
    let mut held = Vec::new();
    let mut pick = || {
        let listener = free_port(ip).map_err(LabError::socket("find a free port on", ip))?;
        let address = v4(&listener)?;
        held.push(listener);
        Ok(address)
    };
    let each = spec.servers / spec.clusters;
    (0..spec.servers)
        .map(|i| {
            Ok(PlainServer {
                name: format!("s{:02}", i + 1),
                cluster: cluster_name(i / each),
                client: pick()?,
                monitor: format!("http://{}", pick()?),
                route: pick()?,
                gateway: pick()?,
            })
        })
        .collect()
}

async fn counted(server: &PlainServer) -> Result<Counted> {
    let accstatz = get_json(&format!("{}/accstatz?unused=1", server.monitor)).await?;
    let routez = get_json(&format!("{}/routez", server.monitor)).await?;
    let none = Vec::new();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let accounts = accstatz["account_statz"].as_array().unwrap_or(&none);
    let system = accounts.iter().find(|a| a["acc"] == SYSTEM);
    let system = system.ok_or_else(|| LabError::Http {
        url: format!("{}/accstatz?unused=1", server.monitor),
        why: format!("no account {SYSTEM}"),
    })?;
    let routes = list(&routez["routes"]);
    let routes = routes.iter().filter(|r| r["account"] == SYSTEM);
    let by_routes = routes.fold(Tally::default(), |sum, r| Tally {
        msgs: sum.msgs + number(&r["in_msgs"]),
        bytes: sum.bytes + number(&r["in_bytes"]),
    });
    Ok(Counted {
        server_id: accstatz["server_id"].as_str().unwrap_or_default().to_owned(),
        sent: Tally {
            msgs: number(&system["sent"]["msgs"]),
            bytes: number(&system["sent"]["bytes"]),
        },
        by_routes,
    })
}

/// A client that answers PING, and connects to the next server as soon as its own is gone.
async fn stay_connected(servers: Arc<[SocketAddrV4]>, first: usize) {
    let mut server = first;
    loop {
        let _ = be_connected(servers[server % servers.len()]).await;
        server += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn be_connected(server: SocketAddrV4) -> std::io::Result<()> {
    let mut stream = BufReader::new(TcpStream::connect(server).await?);
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    let connect = format!("CONNECT {{\"verbose\":false,\"user\":\"{ACCOUNT}\",\"pass\":\"{ACCOUNT}\"}}\r\nPING\r\n");
    stream.write_all(connect.as_bytes()).await?;
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 || line.starts_with("-ERR") {
            return Ok(());
        }
        if line.starts_with("PING") {
            stream.write_all(b"PONG\r\n").await?;
        }
    }
}
