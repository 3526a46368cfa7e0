//! Is it the network, or NATS? A TCP connection to a peer's route or gateway port, and a look at who answers.
//!
//! A nats-server sends its INFO line at once on a plaintext route or gateway port. On a TLS one it says nothing before
//! the handshake (clients are another matter), so after a while without INFO a TLS hello is sent that no server can
//! accept: the alert that comes back shows that a process is there and runs. The kernel of a frozen server's host
//! accepts connections as well; only an answer counts.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::time::{Instant, timeout_at};

use super::parse::{PeerInfo, parse_info};
use crate::core::agent::event::{Answered, Passed};

/// A longer first line is no INFO.
const MAX_INFO: usize = 64 * 1024;

/// More addresses of one name are not tried.
const MAX_ADDRESSES: usize = 16;

/// Longest wait for INFO before TLS is tried; a third of the time-out where that is less.
const PLAINTEXT_GRACE: Duration = Duration::from_secs(1);

/// TLS 1.2 client hello with one cipher suite that does not exist.
const HELLO: [u8; 52] = {
    let mut hello = [0; 52];
    // record: handshake, 47 bytes; message: client hello, 43 bytes
    let start = [0x16, 3, 1, 0, 47, 1, 0, 0, 43, 3, 3];
    let mut i = 0;
    while i < start.len() {
        hello[i] = start[i];
        i += 1;
    }
    // 32 bytes of random and an empty session id stay zero
    hello[45] = 2;
    hello[46] = 0xfe;
    hello[47] = 0xfe;
    hello[48] = 1;
    hello
};

/// What a peer's port showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkCheck {
    /// A nats-server that runs.
    Info(PeerInfo),
    /// A process that runs and speaks TLS; who it is cannot be seen without a certificate.
    Tls,
    /// TCP was established, and nobody spoke.
    NoInfo {
        /// Still open at the end; else the other side closed or reset it.
        connected: bool,
    },
    /// Nothing listens there.
    Refused,
    /// No route, no such name, a firewall that says so; in the system's words.
    Unreachable(String),
    /// TCP was not established in time.
    TimedOut,
    /// Something else speaks there.
    NotNats,
}

impl NetworkCheck {
    /// The network carries and a process answers: what is stalled there is NATS, and a remedy can help.
    #[must_use]
    pub fn info_seen(&self) -> bool {
        matches!(self, Self::Info(_) | Self::Tls)
    }

    /// Of several addresses the best one counts: nats-server may use any.
    fn rank(&self) -> u8 {
        match self {
            Self::Info(_) => 6,
            Self::Tls => 5,
            Self::NoInfo { connected: true } => 4,
            Self::NoInfo { connected: false } => 3,
            Self::NotNats => 2,
            Self::TimedOut => 1,
            Self::Refused | Self::Unreachable(_) => 0,
        }
    }
}

impl std::fmt::Display for NetworkCheck {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Info(_) => f.write_str("INFO was read"),
            Self::Tls => f.write_str("it speaks TLS"),
            Self::NoInfo { connected: true } => f.write_str("TCP connects, and no INFO comes"),
            Self::NoInfo { connected: false } => f.write_str("TCP connects and is closed before INFO"),
            Self::Refused => f.write_str("connection refused"),
            Self::Unreachable(why) => write!(f, "unreachable: {why}"),
            Self::TimedOut => f.write_str("TCP does not connect in time"),
            Self::NotNats => f.write_str("something else than a nats-server answers"),
        }
    }
}

/// A check and what it took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What the port showed.
    pub check: NetworkCheck,
    /// How long TCP took to connect, or until it did not: a second or more where a SYN or its answer was lost.
    pub connect: Duration,
}

impl Found {
    /// For the core, where INFO was seen.
    #[must_use]
    pub fn passed(self) -> Passed {
        let who = match self.check {
            NetworkCheck::Info(info) => Some(Answered {
                server_id: info.server_id,
                cluster: info.cluster,
            }),
            _ => None,
        };
        Passed {
            connect: self.connect,
            who,
        }
    }
}

/// Checks `addr` (`host:port`), all addresses of a name at once, within `timeout`.
///
/// `from` is the address that the local server's own connections come from where that is known; one of the other
/// family, a wildcard, or one that this host does not have (any more) is not used.
pub async fn check(addr: &str, from: Option<IpAddr>, timeout: Duration) -> Found {
    let start = Instant::now();
    let end = start + timeout;
    let addresses = match timeout_at(end, lookup_host(addr)).await {
        Ok(Ok(addresses)) => addresses.take(MAX_ADDRESSES),
        Ok(Err(e)) => return unresolved(format!("{addr} does not resolve: {e}")),
        Err(_) => return unresolved(format!("{addr} does not resolve within {timeout:?}")),
    };
    let mut checks: FuturesUnordered<_> = addresses.map(|to| check_one(to, from, end, timeout / 3)).collect();
    let mut best: Option<Found> = None;
    while let Some(found) = checks.next().await {
        if matches!(found.check, NetworkCheck::Info(_)) {
            return found;
        }
        if best.as_ref().is_none_or(|b| b.check.rank() < found.check.rank()) {
            best = Some(found);
        }
    }
    best.unwrap_or_else(|| unresolved(format!("{addr} has no address")))
}

fn unresolved(why: String) -> Found {
    Found {
        check: NetworkCheck::Unreachable(why),
        connect: Duration::ZERO,
    }
}

async fn check_one(to: SocketAddr, from: Option<IpAddr>, end: Instant, grace: Duration) -> Found {
    let start = Instant::now();
    let stream = timeout_at(end, connect(to, from)).await;
    let connect = start.elapsed();
    let check = match stream {
        Ok(Ok(stream)) => who_speaks(stream, end, grace).await,
        Ok(Err(e)) => match e.kind() {
            ErrorKind::ConnectionRefused => NetworkCheck::Refused,
            ErrorKind::TimedOut => NetworkCheck::TimedOut,
            _ => NetworkCheck::Unreachable(format!("cannot connect to {to}: {e}")),
        },
        Err(_) => NetworkCheck::TimedOut,
    };
    Found { check, connect }
}

async fn who_speaks(mut stream: TcpStream, end: Instant, grace: Duration) -> NetworkCheck {
    let mut line = Vec::with_capacity(2048);
    let plaintext_end = end.min(Instant::now() + grace.min(PLAINTEXT_GRACE));
    if let Ok(seen) = timeout_at(plaintext_end, read_answer(&mut stream, &mut line)).await {
        return seen;
    }
    if line.is_empty() && stream.write_all(&HELLO).await.is_err() {
        return NetworkCheck::NoInfo { connected: false };
    }
    match timeout_at(end, read_answer(&mut stream, &mut line)).await {
        Ok(seen) => seen,
        Err(_) => NetworkCheck::NoInfo { connected: true },
    }
}

async fn connect(to: SocketAddr, from: Option<IpAddr>) -> std::io::Result<TcpStream> {
    let socket = if to.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    // From a loopback address only loopback can be reached.
    let usable = |ip: &IpAddr| {
        !ip.is_unspecified() && ip.is_ipv4() == to.is_ipv4() && (!ip.is_loopback() || to.ip().is_loopback())
    };
    if let Some(ip) = from.filter(usable) {
        match socket.bind(SocketAddr::new(ip, 0)) {
            // An address that has left this host is no fault of the network: nats-server does not bind its own either.
            Err(e) if e.kind() != ErrorKind::AddrNotAvailable => return Err(e),
            _ => {}
        }
    }
    socket.connect(to).await
}

/// Reads on until it is clear who speaks. Cancel safe: what was read stays in `line`.
async fn read_answer(stream: &mut TcpStream, line: &mut Vec<u8>) -> NetworkCheck {
    loop {
        if let Some(seen) = recognise(line) {
            return seen;
        }
        match stream.read_buf(line).await {
            Ok(0) | Err(_) if line.is_empty() => return NetworkCheck::NoInfo { connected: false },
            Ok(0) | Err(_) => return NetworkCheck::NotNats,
            Ok(_) => {}
        }
    }
}

/// `None` while more has to be read.
fn recognise(line: &[u8]) -> Option<NetworkCheck> {
    const INFO: &[u8] = b"INFO ";
    const ALERT: u8 = 0x15;
    const HANDSHAKE: u8 = 0x16;
    match line {
        [] | [ALERT | HANDSHAKE] => return None,
        [ALERT | HANDSHAKE, 3, ..] => return Some(NetworkCheck::Tls),
        _ => {}
    }
    let known = line.len().min(INFO.len());
    if line[..known] != INFO[..known] {
        return Some(NetworkCheck::NotNats);
    }
    match line.iter().position(|b| *b == b'\n') {
        Some(end) => {
            let info = line.get(known..end).and_then(|json| parse_info(json).ok());
            Some(info.map_or(NetworkCheck::NotNats, NetworkCheck::Info))
        }
        None if line.len() > MAX_INFO => Some(NetworkCheck::NotNats),
        None => None,
    }
}

#[cfg(test)]
#[path = "network_tests.rs"]
mod tests;
