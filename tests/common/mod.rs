//! Snapshots to look at, and a plain HTTP client.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "shared by test binaries, each of which takes what it needs"
)]

pub mod prometheus;
pub mod sample;

use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use nats_watchdog::adapters::http;
use nats_watchdog::core::view::Snapshot;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;

/// A server that is running, on a free port of the loopback.
pub struct Served {
    pub address: SocketAddr,
    pub snapshots: watch::Sender<Arc<Snapshot>>,
    pub task: tokio::task::JoinHandle<()>,
}

impl Served {
    pub async fn start(snapshot: Snapshot) -> Self {
        Self::within(http::Limits::default(), snapshot).await
    }

    pub async fn within(limits: http::Limits, snapshot: Snapshot) -> Self {
        let listener = http::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (snapshots, received) = watch::channel(Arc::new(snapshot));
        let task = tokio::spawn(http::serve_within(limits, listener, received, pending()));
        Self {
            address,
            snapshots,
            task,
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Status, header and body of one answer.
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

/// GET over HTTP/1.0: the answer ends with the connection.
pub async fn get(address: SocketAddr, path: &str) -> Answer {
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
    raw(address, request.as_bytes()).await
}

/// Sends bytes as they are and reads until the other side closes.
pub async fn raw(address: SocketAddr, request: &[u8]) -> Answer {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut bytes = Vec::new();
        // A reset after the answer is an end too.
        let _ = stream.read_to_end(&mut bytes).await;
        bytes
    };
    let bytes = timeout(Duration::from_secs(20), exchange)
        .await
        .expect("an answer within 20 s");
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Answer {
        status: status.unwrap_or(0),
        head: head.to_lowercase(),
        body: body.to_owned(),
    }
}
