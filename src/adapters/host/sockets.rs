//! Resets a path: destroys chosen TCP sockets of the *local* nats-server and nothing else.
//!
//! Whose socket it is comes first, which remote second. The server is the owner of the socket that listens on its client
//! port. Where `/proc` lets us look into that process, only sockets it holds can match. Where it does not (the agent has
//! `CAP_NET_ADMIN` and no more), only sockets of the listener's user and cgroup can, and never one of our own.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, SocketAddr};

use super::netlink::{self, CONNECTED, ENOENT, EOPNOTSUPP, EPERM, ESTALE, Query};
pub use super::netlink::{Socket, TcpState};
use super::owner;
use netlink_packet_sock_diag::inet::StateFlags;

/// Where the local nats-server listens for clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerEndpoint {
    /// `host` of `/varz`: an address, a name, or `0.0.0.0` or `::` for all.
    pub host: String,
    /// `port` of `/varz`.
    pub port: u16,
}

/// Which connections of the server are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    /// The one connection with this remote; more than one is refused. `/routez` shows the remote of each route: it tells
    /// one connection where the peer dialled, and all connections to that peer where this server did.
    One(SocketAddr),
    /// Every connection to any of these.
    AnyOf(Vec<SocketAddr>),
}

/// What became of each socket that was to be destroyed.
#[derive(Debug, Default)]
pub struct Destroyed {
    /// Destroyed now.
    pub destroyed: Vec<Socket>,
    /// Gone before we came.
    pub gone: Vec<Socket>,
    /// Still there, and why.
    pub failed: Vec<(Socket, io::Error)>,
}

/// Why no socket was found or destroyed.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Nothing listens where the server says it does.
    #[error(
        "nothing listens on {host}:{port}, the client address of the local nats-server; is it in another network namespace (a container)?"
    )]
    NoListener {
        /// As in [`ServerEndpoint`].
        host: String,
        /// As in [`ServerEndpoint`].
        port: u16,
    },
    /// More than one socket or process could be the server.
    #[error("cannot tell which is the local nats-server: {candidates} all serve {host}:{port}; no socket was touched")]
    Ambiguous {
        /// As in [`ServerEndpoint`].
        host: String,
        /// As in [`ServerEndpoint`].
        port: u16,
        /// The listeners or processes, for people.
        candidates: String,
    },
    /// [`Match::One`] fits several connections.
    #[error(
        "{count} connections of the local nats-server have the remote {remote}, so the one that is meant cannot be told; reset it from the other end, or all of them"
    )]
    NotOne {
        /// The remote asked for.
        remote: SocketAddr,
        /// How many have it.
        count: usize,
    },
    /// The kernel refuses.
    #[error(
        "the kernel refuses to destroy sockets: CAP_NET_ADMIN is missing; give it with AmbientCapabilities=CAP_NET_ADMIN in the unit of watchdog"
    )]
    NotPermitted,
    /// The kernel cannot.
    #[error(
        "this kernel cannot destroy sockets: it was built without CONFIG_INET_DIAG_DESTROY; use mode observe or restart"
    )]
    NotSupported,
    /// The host name of the server has no address.
    #[error("cannot resolve {host}, the client address of the local nats-server")]
    Resolve {
        /// The name.
        host: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Talking to the kernel failed.
    #[error("cannot {what}")]
    Kernel {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// Whether resets are possible here: privilege and kernel support. To be asked once, at start.
pub async fn capability() -> Result<(), SocketError> {
    blocking(|| {
        let permitted = owner::has_net_admin().map_err(kernel("read our own capabilities"))?;
        if !permitted {
            return Err(SocketError::NotPermitted);
        }
        netlink::probe().map_err(refusal)
    })
    .await
}

/// The connections of the local server that match. Destroys nothing, needs no privilege.
pub async fn find(server: &ServerEndpoint, wanted: &Match) -> Result<Vec<Socket>, SocketError> {
    let addresses = addresses(server).await?;
    let (server, wanted) = (server.clone(), wanted.clone());
    blocking(move || {
        let listeners = listeners(&server, &addresses)?;
        let query = Query {
            states: CONNECTED,
            local_port: 0,
            remote_port: wanted.only_port(),
        };
        let sockets = netlink::list(&query).map_err(kernel("list TCP connections"))?;
        let owner = Owner::of(&server, &listeners)?;
        wanted.select(&owner, sockets)
    })
    .await
}

/// Destroys these sockets. The peer sees a reset, the local server an aborted connection.
pub async fn destroy(sockets: &[Socket]) -> Result<Destroyed, SocketError> {
    let sockets = sockets.to_vec();
    blocking(move || {
        let mut outcome = Destroyed::default();
        for socket in sockets {
            match netlink::destroy(&socket) {
                Ok(()) => outcome.destroyed.push(socket),
                Err(e) => match e.raw_os_error() {
                    Some(ENOENT | ESTALE) => outcome.gone.push(socket),
                    Some(EPERM | EOPNOTSUPP) => return Err(refusal(e)),
                    _ => outcome.failed.push((socket, e)),
                },
            }
        }
        Ok(outcome)
    })
    .await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SocketError> + Send + 'static,
) -> Result<T, SocketError> {
    let joined = tokio::task::spawn_blocking(work).await;
    joined.unwrap_or_else(|e| Err(kernel("finish a socket query")(io::Error::other(e))))
}

impl Match {
    /// The remote port they all have, or 0.
    fn only_port(&self) -> u16 {
        match self {
            Self::One(remote) => remote.port(),
            Self::AnyOf(remotes) => match remotes.split_first() {
                Some((first, rest)) if rest.iter().all(|r| r.port() == first.port()) => first.port(),
                _ => 0,
            },
        }
    }

    fn remotes(&self) -> HashSet<(IpAddr, u16)> {
        let remotes = match self {
            Self::One(remote) => std::slice::from_ref(remote),
            Self::AnyOf(remotes) => remotes,
        };
        remotes.iter().map(|r| (r.ip().to_canonical(), r.port())).collect()
    }

    fn select(&self, owner: &Owner, sockets: Vec<Socket>) -> Result<Vec<Socket>, SocketError> {
        let remotes = self.remotes();
        let mut sockets = sockets;
        sockets.retain(|s| {
            s.state != TcpState::Listen && remotes.contains(&(s.remote.ip(), s.remote.port())) && owner.owns(s)
        });
        match self {
            Self::One(remote) if sockets.len() > 1 => Err(SocketError::NotOne {
                remote: *remote,
                count: sockets.len(),
            }),
            _ => Ok(sockets),
        }
    }
}

/// How the server's sockets are told from all others.
#[derive(Debug, PartialEq, Eq)]
enum Owner {
    /// It holds these.
    Process { inodes: HashSet<u32> },
    /// They are this user's, in this cgroup, and not ours.
    User {
        uid: u32,
        cgroup: Option<u64>,
        ours: HashSet<u32>,
    },
}

impl Owner {
    fn of(server: &ServerEndpoint, listeners: &[Socket]) -> Result<Self, SocketError> {
        let ambiguous = |candidates: Vec<String>| SocketError::Ambiguous {
            host: server.host.clone(),
            port: server.port,
            candidates: candidates.join(", "),
        };
        let [listener] = listeners else {
            let names = listeners.iter().map(|l| format!("{} (uid {})", l.local, l.uid));
            return Err(ambiguous(names.collect()));
        };
        let look = kernel("look into /proc");
        let holders = owner::holders(listener.inode).map_err(&look)?;
        match holders[..] {
            [] => Ok(Self::User {
                uid: listener.uid,
                cgroup: listener.cgroup,
                ours: owner::own_inodes().map_err(look)?,
            }),
            [pid] => Ok(Self::Process {
                inodes: owner::inodes(pid).map_err(look)?,
            }),
            _ => Err(ambiguous(holders.iter().map(|pid| format!("process {pid}")).collect())),
        }
    }

    fn owns(&self, socket: &Socket) -> bool {
        // Inode 0: closed by its owner, only the kernel still has it.
        socket.inode != 0
            && match self {
                Self::Process { inodes } => inodes.contains(&socket.inode),
                Self::User { uid, cgroup, ours } => {
                    socket.uid == *uid && socket.cgroup == *cgroup && !ours.contains(&socket.inode)
                }
            }
    }
}

fn listeners(server: &ServerEndpoint, addresses: &[IpAddr]) -> Result<Vec<Socket>, SocketError> {
    let query = Query {
        states: StateFlags::LISTEN,
        local_port: server.port,
        remote_port: 0,
    };
    let mut sockets = netlink::list(&query).map_err(kernel("list TCP listeners"))?;
    sockets.retain(|s| addresses.iter().any(|ip| serves(s.local.ip(), *ip)));
    if sockets.is_empty() {
        return Err(SocketError::NoListener {
            host: server.host.clone(),
            port: server.port,
        });
    }
    Ok(sockets)
}

/// Go listens on `::` for both families where `0.0.0.0` is asked for.
fn serves(listener: IpAddr, configured: IpAddr) -> bool {
    listener == configured || listener.is_unspecified() && configured.is_unspecified()
}

async fn addresses(server: &ServerEndpoint) -> Result<Vec<IpAddr>, SocketError> {
    let host = server.host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![ip.to_canonical()]);
    }
    let resolved = tokio::net::lookup_host((host, server.port)).await;
    let resolved = resolved.map_err(|source| SocketError::Resolve {
        host: host.to_owned(),
        source,
    })?;
    Ok(resolved.map(|address| address.ip().to_canonical()).collect())
}

fn kernel(what: &'static str) -> impl Fn(io::Error) -> SocketError {
    move |source| SocketError::Kernel { what, source }
}

fn refusal(source: io::Error) -> SocketError {
    match source.raw_os_error() {
        Some(EPERM) => SocketError::NotPermitted,
        Some(EOPNOTSUPP) => SocketError::NotSupported,
        _ => SocketError::Kernel {
            what: "destroy a TCP socket",
            source,
        },
    }
}

#[cfg(test)]
mod tests;
