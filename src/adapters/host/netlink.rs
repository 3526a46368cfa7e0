//! TCP sockets by `NETLINK_SOCK_DIAG`: list them, destroy one (`SOCK_DESTROY`, Linux 4.9). Blocking. Knows nothing about NATS.
//!
//! A socket is destroyed by its four-tuple *and* the kernel's cookie for it. Without the cookie, a four-tuple whose
//! connection has just gone falls through to the listener of that port, and the kernel would destroy that.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload,
    NetlinkSerializable, Nla as _,
};
use netlink_packet_sock_diag::inet::nlas::Nla;
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags};
use netlink_packet_sock_diag::{
    AF_INET, AF_INET6, IPPROTO_TCP, SockDiagDestroy, SockDiagMessage, TCP_CLOSE_WAIT, TCP_ESTABLISHED, TCP_FIN_WAIT1,
    TCP_FIN_WAIT2, TCP_LISTEN, TCP_SYN_SENT,
};
use netlink_sys::{Socket as Netlink, SocketAddr as KernelAddr, protocols::NETLINK_SOCK_DIAG};

/// `INET_DIAG_CGROUP_ID` (Linux 5.8); the packet crate has no name for it.
const CGROUP_ID: u16 = 21;
/// The kernel never sends a dump in pieces larger than 32 KiB.
const BUFFER: usize = 64 * 1024;
/// The kernel answers from inside the system call; a longer wait means something is badly wrong.
const ANSWER: Duration = Duration::from_secs(5);

/// States in which a connection can be destroyed with purpose.
pub(super) const CONNECTED: StateFlags = StateFlags::ESTABLISHED
    .union(StateFlags::SYN_SENT)
    .union(StateFlags::CLOSE_WAIT)
    .union(StateFlags::FIN_WAIT1)
    .union(StateFlags::FIN_WAIT2);

/// State of a TCP socket, as far as this module looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TcpState {
    /// Open in both directions.
    Established,
    /// Dialled, not answered yet.
    SynSent,
    /// We closed, the peer has not.
    FinWait,
    /// The peer closed, we have not.
    CloseWait,
    /// Waits for connections.
    Listen,
}

/// One TCP socket of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Socket {
    /// Its own address; a v4-mapped IPv6 address is shown as IPv4.
    pub local: SocketAddr,
    /// The other end, likewise.
    pub remote: SocketAddr,
    /// State when it was listed.
    pub state: TcpState,
    /// The user it belongs to.
    pub uid: u32,
    /// Its number under `/proc/PID/fd`.
    pub inode: u32,
    /// The cgroup (v2) it was made in, where the kernel tells.
    pub(super) cgroup: Option<u64>,
    family: u8,
    id: SocketId,
}

impl Socket {
    fn read(response: &InetResponse) -> Option<Self> {
        let header = &response.header;
        let id = &header.socket_id;
        let state = match header.state {
            TCP_ESTABLISHED => TcpState::Established,
            TCP_SYN_SENT => TcpState::SynSent,
            TCP_FIN_WAIT1 | TCP_FIN_WAIT2 => TcpState::FinWait,
            TCP_CLOSE_WAIT => TcpState::CloseWait,
            TCP_LISTEN => TcpState::Listen,
            _ => return None,
        };
        Some(Self {
            local: address(id.source_address, id.source_port),
            remote: address(id.destination_address, id.destination_port),
            state,
            uid: header.uid,
            inode: header.inode,
            cgroup: response.nlas.iter().find_map(cgroup),
            family: header.family,
            id: id.clone(),
        })
    }

    #[cfg(test)]
    pub(super) fn fake(local: &str, remote: &str, state: TcpState, uid: u32, inode: u32) -> Self {
        Self {
            local: local.parse().unwrap(),
            remote: remote.parse().unwrap(),
            state,
            uid,
            inode,
            cgroup: None,
            family: AF_INET,
            id: SocketId::new_v4(),
        }
    }
}

/// What the kernel is asked to list; port 0 is any.
#[derive(Debug, Clone)]
pub(super) struct Query {
    pub(super) states: StateFlags,
    pub(super) local_port: u16,
    pub(super) remote_port: u16,
}

/// Lists the TCP sockets, IPv4 and IPv6, of this network namespace. Needs no privilege.
pub(super) fn list(query: &Query) -> io::Result<Vec<Socket>> {
    let mut sockets = Vec::new();
    for (family, mut id) in [(AF_INET, SocketId::new_v4()), (AF_INET6, SocketId::new_v6())] {
        id.source_port = query.local_port;
        id.destination_port = query.remote_port;
        let message = SockDiagMessage::InetRequest(request(family, query.states.clone(), id));
        let answer = exchange(NLM_F_REQUEST | NLM_F_DUMP, message, |message| {
            if let SockDiagMessage::InetResponse(response) = message {
                sockets.extend(Socket::read(&response));
            }
        });
        match answer {
            // A kernel without IPv6 has no sockets of it.
            Err(e) if family == AF_INET6 && e.raw_os_error() == Some(ENOENT) => {}
            other => other?,
        }
    }
    Ok(sockets)
}

/// Destroys exactly this socket; `ENOENT` or `ESTALE` where it is gone already.
pub(super) fn destroy(socket: &Socket) -> io::Result<()> {
    destroy_id(socket.family, socket.id.clone())
}

/// Asks to destroy a socket that cannot exist: the kernel checks privilege and support before it looks.
/// `Ok` where a destruction would have been possible.
pub(super) fn probe() -> io::Result<()> {
    match destroy_id(AF_INET, SocketId::new_v4()) {
        Err(e) if matches!(e.raw_os_error(), Some(ENOENT | ESTALE)) => Ok(()),
        other => other,
    }
}

pub(super) const EPERM: i32 = 1;
pub(super) const ENOENT: i32 = 2;
pub(super) const EOPNOTSUPP: i32 = 95;
pub(super) const ESTALE: i32 = 116;

fn destroy_id(family: u8, id: SocketId) -> io::Result<()> {
    let message = SockDiagMessage::InetRequest(request(family, CONNECTED, id));
    let message = SockDiagDestroy::new(message);
    exchange(NLM_F_REQUEST | NLM_F_ACK, message, |_| {})
}

fn request(family: u8, states: StateFlags, socket_id: SocketId) -> InetRequest {
    InetRequest {
        family,
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::empty(),
        states,
        socket_id,
    }
}

/// Sends one request and hands each message of the answer to `each`, up to the end of the dump or the acknowledgement.
/// Blocks, at most for [`ANSWER`] without a word from the kernel.
fn exchange<M>(flags: u16, message: M, mut each: impl FnMut(M)) -> io::Result<()>
where
    M: NetlinkSerializable + NetlinkDeserializable + Into<NetlinkPayload<M>>,
{
    let netlink = Netlink::new(NETLINK_SOCK_DIAG)?;
    netlink.set_non_blocking(true)?;
    netlink.connect(&KernelAddr::new(0, 0))?;
    let mut packet = NetlinkMessage::new(NetlinkHeader::default(), message.into());
    packet.header.flags = flags;
    packet.finalize();
    let mut bytes = vec![0; packet.buffer_len()];
    packet.serialize(&mut bytes);
    netlink.send(&bytes, 0)?;

    let mut buffer = Vec::with_capacity(BUFFER);
    loop {
        buffer.clear();
        receive(&netlink, &mut buffer)?;
        let mut rest = &buffer[..];
        while !rest.is_empty() {
            let message = NetlinkMessage::<M>::deserialize(rest).map_err(io::Error::other)?;
            match message.payload {
                NetlinkPayload::InnerMessage(inner) => each(inner),
                NetlinkPayload::Done(done) => return code(done.code),
                NetlinkPayload::Error(error) => return code(error.raw_code()),
                NetlinkPayload::Overrun(_) => {
                    return Err(io::Error::other("the kernel dropped part of a socket list"));
                }
                _ => {}
            }
            let aligned = (message.header.length as usize).next_multiple_of(4);
            rest = rest.get(aligned..).unwrap_or_default();
        }
    }
}

/// One datagram. A receive timeout on the socket itself would need unsafe code; the answer is there as soon as the
/// request is sent, so the pause is hardly ever taken.
fn receive(netlink: &Netlink, buffer: &mut Vec<u8>) -> io::Result<()> {
    let started = Instant::now();
    while started.elapsed() < ANSWER {
        match netlink.recv(buffer, 0) {
            Ok(_) => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    let text = format!("the kernel did not answer a socket query in {ANSWER:?}");
    Err(io::Error::new(io::ErrorKind::TimedOut, text))
}

fn code(code: i32) -> io::Result<()> {
    match code {
        0 => Ok(()),
        negative => Err(io::Error::from_raw_os_error(negative.saturating_abs())),
    }
}

fn address(ip: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(ip.to_canonical(), port)
}

fn cgroup(nla: &Nla) -> Option<u64> {
    let Nla::Other(other) = nla else { return None };
    let mut bytes = [0; 8];
    if other.kind() != CGROUP_ID || other.value_len() != bytes.len() {
        return None;
    }
    other.emit_value(&mut bytes);
    Some(u64::from_ne_bytes(bytes))
}
