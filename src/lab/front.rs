//! The front of a server's route or gateway port: accepts, dials the server behind it, and moves frames both ways.

use std::{
    net::{SocketAddr, SocketAddrV4},
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    time::timeout,
};

use super::{
    board::{Admission, Board},
    frame::{Kind, Splitter},
    whois,
    wire::{Connection, Direction, Gate, Link},
};

// A mesh of 40 has 6,000 of these; 64 KiB each was 385 MB.
const READ: usize = 16 << 10;
const DIAL: Duration = Duration::from_secs(2);

/// Serves one front for ever; the lab aborts it.
pub(crate) async fn serve(listener: TcpListener, server: SocketAddrV4, link: Link, host: usize, board: Arc<Board>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    connections.spawn(carry(stream, peer, server, link, host, board.clone()));
                }
                // Out of descriptors, or the peer is gone already: neither is a reason to stop or to spin.
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn carry(stream: TcpStream, peer: SocketAddr, server: SocketAddrV4, link: Link, host: usize, board: Arc<Board>) {
    let suspects = board.suspects();
    let pid = match (peer, stream.local_addr()) {
        (SocketAddr::V4(peer), Ok(SocketAddr::V4(local))) if !suspects.is_empty() => {
            tokio::task::spawn_blocking(move || whois::owner(peer, local, &suspects))
                .await
                .ok()
                .flatten()
        }
        _ => None,
    };
    let (admission, caller) = board.admit(link, host, pid);
    match admission {
        Admission::Refuse => return abort(&[&stream]),
        Admission::Hold => return silence(stream).await,
        Admission::Pass => {}
    }
    let Ok(Ok(behind)) = timeout(DIAL, TcpStream::connect(server)).await else {
        return abort(&[&stream]);
    };
    let _ = (stream.set_nodelay(true), behind.set_nodelay(true));
    let connection = board.open(link, host, caller);
    let ((dialler_read, dialler_write), (acceptor_read, acceptor_write)) = (stream.into_split(), behind.into_split());
    let mut to_acceptor = Pump {
        read: dialler_read,
        write: acceptor_write,
        direction: Direction::ToAcceptor,
        gate: connection.gate.subscribe(),
    };
    let mut to_dialler = Pump {
        read: acceptor_read,
        write: dialler_write,
        direction: Direction::ToDialler,
        gate: connection.gate.subscribe(),
    };
    let mut closed = connection.gate.subscribe();
    let reset = tokio::select! {
        orderly = to_acceptor.run(&board, &connection) => !orderly,
        orderly = to_dialler.run(&board, &connection) => !orderly,
        _ = closed.wait_for(|gate| *gate == Gate::Closed) => true,
    };
    board.close(&connection);
    if reset {
        abort(&[to_acceptor.read.as_ref(), to_dialler.read.as_ref()]);
    }
}

struct Pump {
    read: OwnedReadHalf,
    write: OwnedWriteHalf,
    direction: Direction,
    gate: watch::Receiver<Gate>,
}

impl Pump {
    /// Moves frames until one side ends; true where it ended in an orderly way.
    async fn run(&mut self, board: &Board, connection: &Arc<Connection>) -> bool {
        let (mut splitter, mut input, mut out) = (Splitter::default(), vec![0; READ], Vec::with_capacity(READ));
        loop {
            // While held nothing is read: the sender's buffers fill, and an end on one side does not show on the other.
            if self.gate.wait_for(|gate| *gate == Gate::Open).await.is_err() {
                return false;
            }
            let size = tokio::select! {
                read = self.read.read(&mut input) => match read {
                    Ok(0) => return true,
                    Ok(size) => size,
                    Err(_) => return false,
                },
                _ = self.gate.wait_for(|gate| *gate != Gate::Open) => continue,
            };
            out.clear();
            let judged = splitter.push(&input[..size], &mut out, |kind, line| {
                if kind == Kind::Info && self.direction == Direction::ToAcceptor {
                    board.identify(connection, line);
                }
                connection.passes(kind, self.direction)
            });
            if judged.is_err() || self.write.write_all(&out).await.is_err() {
                return false;
            }
        }
    }
}

/// Accepts and says nothing until the other side gives up.
async fn silence(mut stream: TcpStream) {
    let mut nothing = [0; 256];
    while stream.read(&mut nothing).await.is_ok_and(|size| size > 0) {}
}

/// Makes the close of these a reset, as a killed or refused connection is.
fn abort(streams: &[&TcpStream]) {
    for stream in streams {
        let _ = stream.set_zero_linger();
    }
}
