//! A running lab: its servers, its agents, and the handles to disturb them.

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::task::AbortHandle;

use super::{
    FaultId, Host, LabError, LabSpec, Result, Sticks, What,
    board::{Board, Caller, ConnectionView, Link},
    config,
    control::{self, HostView, Status},
    front, get_json, host, mesh,
    process::{Nursery, Program, Running},
};

const MESH_PATIENCE: Duration = Duration::from_secs(60);
const UP_PATIENCE: Duration = Duration::from_secs(20);
const STOP_PATIENCE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(50);

/// A running lab. Clones are handles to the same lab; it ends, with all its processes, when the last one is dropped.
#[derive(Debug, Clone)]
pub struct Lab {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    spec: LabSpec,
    lab_bin: PathBuf,
    hosts: Vec<Host>,
    board: Arc<Board>,
    control: SocketAddr,
    nursery: Nursery,
    processes: Mutex<BTreeMap<(usize, Role), Running>>,
    tasks: Mutex<Vec<AbortHandle>>,
    dir: Dir,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    Server,
    Agent,
}

#[derive(Debug)]
enum Dir {
    Kept(PathBuf),
    Temporary(tempfile::TempDir),
}

impl Dir {
    fn path(&self) -> &Path {
        match self {
            Self::Kept(path) => path,
            Self::Temporary(dir) => dir.path(),
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner).clear();
        for task in self.tasks.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            task.abort();
        }
    }
}

impl Lab {
    /// Starts the servers, waits until the mesh is whole, then starts the agents.
    ///
    /// # Errors
    /// Where a server does not start, or the mesh is not whole after a minute: the error says what is missing.
    pub async fn start(spec: LabSpec) -> Result<Self> {
        let lab = Self::prepare(spec).await?;
        for host in lab.hosts() {
            lab.launch(lab.index(&host.name)?, Role::Server)?;
        }
        for host in lab.hosts() {
            lab.wait_until_up(host).await?;
        }
        lab.wait_until_whole(MESH_PATIENCE).await?;
        if lab.inner.spec.agents.is_some() {
            for host in lab.hosts() {
                lab.start_agent(&host.name)?;
            }
        }
        Ok(lab)
    }

    async fn prepare(spec: LabSpec) -> Result<Self> {
        let dir = match &spec.dir {
            Some(path) => {
                fs::create_dir_all(path).map_err(LabError::file("create directory", path))?;
                Dir::Kept(path.canonicalize().map_err(LabError::file("find directory", path))?)
            }
            None => Dir::Temporary(
                tempfile::Builder::new()
                    .prefix("watchdog-lab-")
                    .tempdir()
                    .map_err(LabError::file("create directory in", std::env::temp_dir()))?,
            ),
        };
        // Held until all are picked, so that none is picked twice.
        let mut picked = Vec::new();
        let base = free_base(spec.host_names().len());
        let mut hosts = host::lay_out(
            &spec,
            dir.path(),
            |index| nth(base, index),
            |ip| {
                let listener = TcpListener::bind((ip, 0)).map_err(LabError::socket("find a free port on", ip))?;
                let address = v4(&listener)?;
                picked.push(listener);
                Ok(address)
            },
        )?;
        let board = Arc::new(Board::new(
            hosts.iter().map(|h| (h.server_name.clone(), h.cluster.clone())),
        ));
        let mut tasks = Vec::new();
        for (index, host) in hosts.iter_mut().enumerate() {
            host.route_address = raise(Link::Route, host.route_listen, index, &board, &mut tasks)?;
            host.gateway_address = raise(Link::Gateway, host.gateway_listen, index, &board, &mut tasks)?;
        }
        drop(picked);
        let (listener, control) = control::bind(Ipv4Addr::LOCALHOST).await?;
        let lab_bin = lab_bin(&spec);
        for host in &hosts {
            write(&host.dir.join("server.conf"), &config::server(&spec, &hosts, host))?;
            if let Some(agent) = &spec.agents {
                let state = host.dir.join("state");
                fs::create_dir_all(&state).map_err(LabError::file("create directory", &state))?;
                let text = config::agent(&spec, agent, host, &lab_bin, &control.to_string())?;
                write(&host.dir.join("watchdog.toml"), &text)?;
            }
        }
        let inner = Arc::new(Inner {
            spec,
            lab_bin,
            hosts,
            board,
            control,
            nursery: Nursery::new()?,
            processes: Mutex::default(),
            tasks: Mutex::new(tasks),
            dir,
        });
        let weak = Arc::downgrade(&inner);
        let serve = control::serve(listener, move || weak.upgrade().map(|inner| Self { inner }));
        let lab = Self { inner };
        lab.tasks().push(tokio::spawn(serve).abort_handle());
        Ok(lab)
    }

    /// The hosts, in the order of their numbers.
    #[must_use]
    pub fn hosts(&self) -> &[Host] {
        &self.inner.hosts
    }

    /// The host of this name.
    ///
    /// # Errors
    /// Where there is none.
    pub fn host(&self, name: &str) -> Result<&Host> {
        Ok(&self.inner.hosts[self.index(name)?])
    }

    /// What the lab was started with.
    #[must_use]
    pub fn spec(&self) -> &LabSpec {
        &self.inner.spec
    }

    /// The address of the control port, for [`super::send`] and `watchdog-lab ctl --addr`.
    #[must_use]
    pub fn control_address(&self) -> SocketAddr {
        self.inner.control
    }

    /// The `watchdog-lab` binary that agents are told to call.
    #[must_use]
    pub fn lab_bin(&self) -> &Path {
        &self.inner.lab_bin
    }

    /// Where configurations and logs are.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.inner.dir.path()
    }

    /// Swallows what `from` sends to `to` on the connections there are now; a new connection flows, so a reset heals it.
    ///
    /// # Errors
    /// Where a host is unknown or no connection carries that.
    pub fn stall(&self, from: &str, to: &str, what: What) -> Result<FaultId> {
        self.stall_on(from, to, what, Sticks::Connections)
    }

    /// The same, on these connections or on the pair for ever.
    ///
    /// # Errors
    /// Where a host is unknown or, for connections, there is none that carries that.
    pub fn stall_on(&self, from: &str, to: &str, what: What, sticks: Sticks) -> Result<FaultId> {
        let nothing = || LabError::NothingToFault {
            what: format!("no connection carries {what} from {from} to {to}"),
        };
        let ends = (self.index(from)?, self.index(to)?);
        self.inner
            .board
            .stall(ends.0, ends.1, what.clone(), sticks)
            .ok_or_else(nothing)
    }

    /// Ends a stall.
    ///
    /// # Errors
    /// Where there is no such stall.
    pub fn unstall(&self, id: FaultId) -> Result<()> {
        let known = self.inner.board.unstall(id);
        known.then_some(()).ok_or_else(|| LabError::NothingToFault {
            what: format!("no stall has the number {id}"),
        })
    }

    /// Ends all stalls, cuts and pending holds.
    pub fn clear(&self) {
        self.inner.board.clear();
    }

    /// Passes nothing between two hosts: connections hang as in a black hole, new ones are refused.
    ///
    /// # Errors
    /// Where a host is unknown.
    pub fn cut(&self, a: &str, b: &str) -> Result<()> {
        self.inner.board.cut(self.index(a)?, self.index(b)?);
        Ok(())
    }

    /// Ends a cut; what hung goes on.
    ///
    /// # Errors
    /// Where a host is unknown or the pair is not cut.
    pub fn mend(&self, a: &str, b: &str) -> Result<()> {
        let known = self.inner.board.mend(self.index(a)?, self.index(b)?);
        known.then_some(()).ok_or_else(|| LabError::NothingToFault {
            what: format!("{a} and {b} are not cut"),
        })
    }

    /// Resets every connection between two servers, as the loss of their sockets would; how many there were.
    ///
    /// # Errors
    /// Where a host is unknown.
    pub fn reset(&self, a: &str, b: &str) -> Result<usize> {
        Ok(self.inner.board.reset(self.index(a)?, self.index(b)?))
    }

    /// Closes `host`'s outbound gateway to `cluster` and leaves its next one without INFO for ever; later ones pass.
    ///
    /// # Errors
    /// Where the host is unknown or has no such gateway.
    pub fn hold_gateway_info(&self, host: &str, cluster: &str) -> Result<usize> {
        let index = self.index(host)?;
        if !self
            .hosts()
            .iter()
            .any(|h| h.cluster == cluster && h.cluster != self.hosts()[index].cluster)
        {
            return Err(LabError::NothingToFault {
                what: format!("{host} has no remote cluster {cluster}"),
            });
        }
        Ok(self.inner.board.hold_gateway(index, cluster))
    }

    /// The connections between servers that pass fronts.
    #[must_use]
    pub fn connections(&self) -> Vec<ConnectionView> {
        self.inner.board.connections()
    }

    /// Everything, for `ctl status`.
    #[must_use]
    pub fn status(&self) -> Status {
        let view = |host: &Host| HostView {
            name: host.name.clone(),
            server_pid: self.server_pid(&host.name),
            agent_pid: self.agent_pid(&host.name),
            client_url: host.client_url.clone(),
            monitor_url: host.monitor_url.clone(),
            agent_http: host.agent_http.clone(),
        };
        Status {
            hosts: self.hosts().iter().map(view).collect(),
            faults: self.inner.board.faults(),
            connections: self.connections(),
        }
    }

    /// What is missing for the mesh to be whole; empty where it is.
    pub async fn missing(&self) -> Vec<String> {
        mesh::missing(self.hosts(), &self.inner.spec, &self.connections()).await
    }

    /// Waits until every server sees all its peers and gateways.
    ///
    /// # Errors
    /// Where that is not so in time; the error says what is missing.
    pub async fn wait_until_whole(&self, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            let missing = self.missing().await;
            if missing.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                let missing = missing.join("; ");
                return Err(LabError::NotWhole {
                    seconds: patience.as_secs(),
                    missing,
                    dir: self.dir().to_owned(),
                });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// SIGKILLs a server.
    ///
    /// # Errors
    /// Where the host is unknown or its server is not running.
    pub fn kill_server(&self, host: &str) -> Result<()> {
        self.take(host, Role::Server).map(drop)
    }

    /// Stops a server with SIGTERM.
    ///
    /// # Errors
    /// Where the host is unknown or its server is not running.
    pub async fn stop_server(&self, host: &str) -> Result<()> {
        stop(self.take(host, Role::Server)?).await;
        Ok(())
    }

    /// Starts a server and waits until it answers on its monitoring port.
    ///
    /// # Errors
    /// Where the host is unknown, its server runs already, or does not come up.
    pub async fn start_server(&self, host: &str) -> Result<()> {
        self.launch(self.index(host)?, Role::Server)?;
        self.wait_until_up(self.host(host)?).await
    }

    /// Stops a server if it runs, starts it and waits until it answers.
    ///
    /// # Errors
    /// Where the host is unknown, or the server does not come up.
    pub async fn restart_server(&self, host: &str) -> Result<()> {
        self.index(host)?;
        if let Ok(running) = self.take(host, Role::Server) {
            stop(running).await;
        }
        self.start_server(host).await
    }

    /// SIGSTOPs a server.
    ///
    /// # Errors
    /// Where the host is unknown or its server is not running.
    pub fn freeze_server(&self, host: &str) -> Result<()> {
        self.signal(host, Role::Server, "STOP")
    }

    /// SIGCONTs a server.
    ///
    /// # Errors
    /// Where the host is unknown or its server is not running.
    pub fn thaw_server(&self, host: &str) -> Result<()> {
        self.signal(host, Role::Server, "CONT")
    }

    /// Sends any signal (`"USR2"` makes a server a lame duck) to a server.
    ///
    /// # Errors
    /// Where the host is unknown or its server is not running.
    pub fn signal_server(&self, host: &str, signal: &str) -> Result<()> {
        self.signal(host, Role::Server, signal)
    }

    /// Starts an agent.
    ///
    /// # Errors
    /// Where the host is unknown, its agent runs already, or the lab has no agents.
    pub fn start_agent(&self, host: &str) -> Result<()> {
        self.launch(self.index(host)?, Role::Agent)
    }

    /// Stops an agent with SIGTERM.
    ///
    /// # Errors
    /// Where the host is unknown or its agent is not running.
    pub async fn stop_agent(&self, host: &str) -> Result<()> {
        stop(self.take(host, Role::Agent)?).await;
        Ok(())
    }

    /// SIGKILLs an agent.
    ///
    /// # Errors
    /// Where the host is unknown or its agent is not running.
    pub fn kill_agent(&self, host: &str) -> Result<()> {
        self.take(host, Role::Agent).map(drop)
    }

    /// SIGSTOPs an agent.
    ///
    /// # Errors
    /// Where the host is unknown or its agent is not running.
    pub fn freeze_agent(&self, host: &str) -> Result<()> {
        self.signal(host, Role::Agent, "STOP")
    }

    /// SIGCONTs an agent.
    ///
    /// # Errors
    /// Where the host is unknown or its agent is not running.
    pub fn thaw_agent(&self, host: &str) -> Result<()> {
        self.signal(host, Role::Agent, "CONT")
    }

    /// The server's process, while it lives.
    #[must_use]
    pub fn server_pid(&self, host: &str) -> Option<u32> {
        self.pid(host, Role::Server)
    }

    /// The agent's process, while it lives.
    #[must_use]
    pub fn agent_pid(&self, host: &str) -> Option<u32> {
        self.pid(host, Role::Agent)
    }

    /// All that the server of this host has logged; empty where there is nothing.
    #[must_use]
    pub fn server_log(&self, host: &str) -> String {
        self.host(host).map(|h| read_log(&h.server_log)).unwrap_or_default()
    }

    /// All that the agent of this host has logged; empty where there is nothing.
    #[must_use]
    pub fn agent_log(&self, host: &str) -> String {
        self.host(host).map(|h| read_log(&h.agent_log)).unwrap_or_default()
    }

    fn index(&self, name: &str) -> Result<usize> {
        let known = || {
            self.hosts()
                .iter()
                .map(|h| h.name.as_str())
                .collect::<Vec<_>>()
                .join(", ")
        };
        let index = self.hosts().iter().position(|h| h.name == name);
        index.ok_or_else(|| LabError::NoSuchHost {
            name: name.to_owned(),
            known: known(),
        })
    }

    fn processes(&self) -> MutexGuard<'_, BTreeMap<(usize, Role), Running>> {
        self.inner.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tasks(&self) -> MutexGuard<'_, Vec<AbortHandle>> {
        self.inner.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn launch(&self, index: usize, role: Role) -> Result<()> {
        let host = &self.inner.hosts[index];
        let mut processes = self.processes();
        if let Some(running) = processes.get_mut(&(index, role))
            && running.is_alive()
        {
            let what = format!("start {role:?} of {}: it runs already as {}", host.name, running.pid());
            return Err(LabError::Process { what });
        }
        let path = |file: &str| host.dir.join(file).display().to_string();
        let (bin, args, log) = match (role, &self.inner.spec.agents) {
            (Role::Server, _) => (
                &self.inner.spec.server,
                vec!["-c".into(), path("server.conf")],
                &host.server_log,
            ),
            (Role::Agent, Some(agent)) => (
                &agent.bin,
                vec!["agent".into(), "--config".into(), path("watchdog.toml")],
                &host.agent_log,
            ),
            (Role::Agent, None) => {
                return Err(LabError::Process {
                    what: "start an agent: this lab has none".into(),
                });
            }
        };
        let program = Program {
            bin: bin.clone(),
            args,
            log: log.clone(),
            netns: host.netns.clone(),
        };
        let running = self.inner.nursery.start(&program)?;
        self.inner.board.learn_process(
            running.pid(),
            match role {
                Role::Server => Caller::Server(index),
                Role::Agent => Caller::Agent(index),
            },
        );
        processes.insert((index, role), running);
        Ok(())
    }

    fn take(&self, host: &str, role: Role) -> Result<Running> {
        let key = (self.index(host)?, role);
        let running = self.processes().remove(&key);
        let running = running.ok_or_else(|| LabError::Process {
            what: format!("{role:?} of {host} is not running"),
        })?;
        self.inner.board.forget_process(running.pid());
        Ok(running)
    }

    fn signal(&self, host: &str, role: Role, name: &str) -> Result<()> {
        let key = (self.index(host)?, role);
        match self.processes().get_mut(&key) {
            Some(running) => running.signal(name),
            None => Err(LabError::Process {
                what: format!("{role:?} of {host} is not running"),
            }),
        }
    }

    fn pid(&self, host: &str, role: Role) -> Option<u32> {
        let key = (self.index(host).ok()?, role);
        self.processes()
            .get_mut(&key)
            .and_then(|running| running.is_alive().then(|| running.pid()))
    }

    async fn wait_until_up(&self, host: &Host) -> Result<()> {
        let url = format!("{}/varz", host.monitor_url);
        let deadline = Instant::now() + UP_PATIENCE;
        loop {
            let Err(error) = get_json(&url).await else {
                return Ok(());
            };
            let pid = self.server_pid(&host.name);
            if pid.is_none() || Instant::now() > deadline {
                let log = read_log(&host.server_log);
                let mut tail: Vec<&str> = log.lines().rev().take(3).collect();
                tail.reverse();
                let (host, log) = (host.name.clone(), tail.join(" / "));
                return Err(LabError::NotUp {
                    host,
                    pid,
                    url,
                    why: error.to_string(),
                    log,
                });
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

async fn stop(running: Running) {
    // Only fails where the runtime is ending, and then dropping the process has killed it.
    let _ = tokio::task::spawn_blocking(move || running.stop(STOP_PATIENCE)).await;
}

/// Listens in front of a server's port.
fn raise(
    link: Link,
    server: SocketAddrV4,
    host: usize,
    board: &Arc<Board>,
    tasks: &mut Vec<AbortHandle>,
) -> Result<SocketAddrV4> {
    let failed = || LabError::socket("listen on", server.ip());
    let listener = TcpListener::bind((*server.ip(), 0)).map_err(failed())?;
    let address = v4(&listener)?;
    listener.set_nonblocking(true).map_err(failed())?;
    let listener = tokio::net::TcpListener::from_std(listener).map_err(failed())?;
    tasks.push(tokio::spawn(front::serve(listener, server, link, host, board.clone())).abort_handle());
    Ok(address)
}

fn v4(listener: &TcpListener) -> Result<SocketAddrV4> {
    match listener.local_addr() {
        Ok(SocketAddr::V4(address)) => Ok(address),
        other => Err(LabError::Spec(format!("a listener on IPv4 has the address {other:?}"))),
    }
}

/// A random part of 127.0.0.0/8, so that labs that run side by side do not meet.
fn free_base(hosts: usize) -> Ipv4Addr {
    let third_free = 255 - u8::try_from(hosts / 250).unwrap_or(u8::MAX);
    Ipv4Addr::new(127, rand::random_range(1..=254), rand::random_range(0..third_free), 2)
}

fn nth(base: Ipv4Addr, index: usize) -> Ipv4Addr {
    let step = u32::try_from(index + index / 250 * 6).unwrap_or(u32::MAX);
    Ipv4Addr::from_bits(base.to_bits().saturating_add(step))
}

fn lab_bin(spec: &LabSpec) -> PathBuf {
    let own = || {
        std::env::current_exe()
            .ok()
            .filter(|exe| exe.file_stem().is_some_and(|name| name == "watchdog-lab"))
    };
    let tested = || std::env::var_os("CARGO_BIN_EXE_watchdog-lab").map(PathBuf::from);
    spec.lab_bin
        .clone()
        .or_else(own)
        .or_else(tested)
        .unwrap_or_else(|| PathBuf::from("watchdog-lab"))
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(LabError::file("write", path))
}

fn read_log(path: &Path) -> String {
    fs::read(path)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default()
}
