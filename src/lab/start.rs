//! Brings a lab up: addresses, fronts, configurations, processes.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::task::AbortHandle;

use super::{
    Host, Lab, LabError, LabSpec, Result,
    board::Board,
    config, control, front, host,
    netns::{self, Network},
    process::Nursery,
    running::{Dir, Inner, Role},
    wire::Link,
};

const MESH_PATIENCE: Duration = Duration::from_secs(60);

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
        let names = spec.host_names().into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        let network = spec.netns.clone().map(|prefix| Network::new(prefix, names));
        let mut hosts = lay_out(&spec, dir.path())?;
        let board = Arc::new(Board::new(
            hosts.iter().map(|h| (h.server_name.clone(), h.cluster.clone())),
        ));
        let mut tasks = Vec::new();
        if network.is_none() && spec.fronts {
            for (index, host) in hosts.iter_mut().enumerate() {
                host.route_address = raise(Link::Route, host.route_listen, index, &board, &mut tasks)?;
                host.gateway_address = raise(Link::Gateway, host.gateway_listen, index, &board, &mut tasks)?;
            }
        }
        let control_ip = if network.is_some() {
            netns::CONTROL
        } else {
            Ipv4Addr::LOCALHOST
        };
        let (listener, control) = control::bind(control_ip).await?;
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
            network,
            dir,
        });
        let weak = Arc::downgrade(&inner);
        let serve = control::serve(listener, move || weak.upgrade().map(|inner| Self { inner }));
        let lab = Self { inner };
        lab.tasks().push(tokio::spawn(serve).abort_handle());
        Ok(lab)
    }
}

fn lay_out(spec: &LabSpec, root: &Path) -> Result<Vec<Host>> {
    if spec.netns.is_some() {
        // Each host has all ports to itself.
        let mut ports = [4222, 8222, 9777, 6222, 7222].into_iter().cycle();
        let pick = |ip| Ok(SocketAddrV4::new(ip, ports.next().unwrap_or_default()));
        return host::lay_out(spec, root, netns::address, pick);
    }
    let base = free_base(spec.host_names().len());
    // Held until all are picked, so that none is picked twice.
    let mut picked = Vec::new();
    let pick = |ip| {
        let listener = free_port(ip).map_err(LabError::socket("find a free port on", ip))?;
        let address = v4(&listener)?;
        picked.push(listener);
        Ok(address)
    };
    host::lay_out(spec, root, |index| nth(base, index), pick)
}

/// A free port below the range from which the kernel gives ports to those who ask for any: nobody takes it between the moment
/// when it is let go here and the moment when a server binds it.
fn free_port(ip: Ipv4Addr) -> std::io::Result<TcpListener> {
    let mut tries = 100;
    loop {
        tries -= 1;
        match TcpListener::bind((ip, rand::random_range(10_000..32_000))) {
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && tries > 0 => {}
            bound => return bound,
        }
    }
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
