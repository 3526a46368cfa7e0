//! The read-only HTTP server: `/metrics`, `/livez`, `/readyz`, `/api/v1/*` and the page.
//!
//! Readers see the newest [`Snapshot`] and nothing else; no request reaches the core. Everything a client may hold on
//! to is bounded: connections, the time to send a header or to sit idle, and the life of a connection.

mod health;
mod routes;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::core::view::Snapshot;

pub use health::FRESH;

/// Starting failed.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The address cannot be had.
    #[error(
        "cannot listen on {address} for HTTP: {source}; is another agent running? set http.listen to a free address"
    )]
    Bind {
        /// `http.listen`.
        address: SocketAddr,
        /// The system's words.
        source: io::Error,
    },
}

/// What a client may hold on to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time; more wait in the kernel's queue.
    pub connections: usize,
    /// Time to send a whole request header; also how long a kept-alive connection may sit idle.
    pub header: Duration,
    /// Life of a connection: also ends a client that never reads its answer.
    pub lifetime: Duration,
    /// Time to finish an answer that is under way when the connection must end.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 64,
            header: Duration::from_secs(10),
            lifetime: Duration::from_secs(120),
            drain: Duration::from_secs(2),
        }
    }
}

/// Listens on `http.listen`.
///
/// # Errors
/// [`HttpError::Bind`] with the address.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, HttpError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| HttpError::Bind { address, source })
}

/// Serves until `shutdown` ends, with the default [`Limits`].
pub async fn serve(
    listener: TcpListener,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    shutdown: impl Future<Output = ()>,
) {
    serve_within(Limits::default(), listener, snapshots, shutdown).await;
}

/// Serves until `shutdown` ends. Open answers get [`Limits::drain`] to finish.
pub async fn serve_within(
    limits: Limits,
    listener: TcpListener,
    mut snapshots: watch::Receiver<Arc<Snapshot>>,
    shutdown: impl Future<Output = ()>,
) {
    let (seen, seen_by_readers) = watch::channel(Seen::now(snapshots.borrow_and_update().clone()));
    let (stop, stopped) = watch::channel(());
    let mut open = JoinSet::new();
    let mut fed = true;
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            changed = snapshots.changed(), if fed => match changed {
                Ok(()) => {
                    seen.send_replace(Seen::now(snapshots.borrow_and_update().clone()));
                }
                // The loop is gone: its last words are still served, and /livez says how old they are.
                Err(_) => fed = false,
            },
            Some(end) = open.join_next() => {
                if let Err(error) = end {
                    tracing::error!(%error, "an HTTP connection ended in a panic");
                }
            }
            accepted = listener.accept(), if open.len() < limits.connections => match accepted {
                Ok((stream, _)) => {
                    open.spawn(connection(limits, stream, seen_by_readers.clone(), stopped.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept an HTTP connection; trying again");
                    sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
    drop((listener, stop));
    let _ = timeout(limits.drain, async { while open.join_next().await.is_some() {} }).await;
    // What is left is aborted with the set.
}

/// A snapshot and when it came, by the monotonic clock: a wall clock may jump.
#[derive(Clone)]
struct Seen {
    at: Instant,
    snapshot: Arc<Snapshot>,
}

impl Seen {
    fn now(snapshot: Arc<Snapshot>) -> Self {
        Self {
            at: Instant::now(),
            snapshot,
        }
    }
}

async fn connection(limits: Limits, stream: TcpStream, seen: watch::Receiver<Seen>, mut stopped: watch::Receiver<()>) {
    let service = service_fn(|request| {
        let Seen { at, snapshot } = seen.borrow().clone();
        let answer = routes::answer(request.method(), request.uri().path(), &snapshot, at.elapsed());
        async move { Ok::<_, Infallible>(answer) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header)
        .max_headers(64)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), service);
    let mut served = pin!(served);
    tokio::select! {
        end = served.as_mut() => return log_end(end),
        _ = stopped.changed() => {}
        () = sleep(limits.lifetime) => {}
    }
    served.as_mut().graceful_shutdown();
    if let Ok(end) = timeout(limits.drain, served).await {
        log_end(end);
    }
}

fn log_end(end: hyper::Result<()>) {
    if let Err(error) = end {
        tracing::debug!(%error, "an HTTP client left or sent what is not HTTP");
    }
}
