//! The agent's HTTP API as a client.

use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::config::url;

/// Limit for the whole exchange.
const LIMIT: Duration = Duration::from_secs(5);
/// A snapshot of a thousand hosts is about 1 MB.
const MAX_BYTES: usize = 64 << 20;

#[derive(Debug, Clone, Args)]
pub(super) struct Agent {
    /// Where the agent serves its API (http.listen)
    #[arg(
        long = "agent",
        value_name = "URL",
        env = "WATCHDOG_AGENT",
        default_value = "http://127.0.0.1:9777"
    )]
    pub(super) url: String,
}

impl Agent {
    /// Reads `path` and gives its JSON.
    pub(super) fn get(&self, path: &str) -> anyhow::Result<Value> {
        serde_json::from_slice(&self.fetch(path)?)
            .with_context(|| format!("{}{path} is not JSON: is that the agent's address?", self.url))
    }

    /// Reads `path`; an answer that is no success is an error with its words.
    pub(super) fn fetch(&self, path: &str) -> anyhow::Result<Bytes> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start the I/O runtime")?;
        let exchange = async { tokio::time::timeout(LIMIT, self.exchange(path)).await };
        runtime.block_on(exchange).map_err(|_| {
            anyhow::anyhow!(
                "the agent at {} did not answer {path} within {}: see its log (journalctl -u watchdog)",
                self.url,
                humantime::format_duration(LIMIT)
            )
        })?
    }

    async fn exchange(&self, path: &str) -> anyhow::Result<Bytes> {
        let parts = url::parse(&self.url, &["http"], Some("http"))
            .map_err(|e| anyhow::anyhow!("--agent {e}; write http://127.0.0.1:9777"))?;
        let port = parts.port.unwrap_or(9777);
        let stream = match TcpStream::connect((parts.host.as_str(), port)).await {
            Ok(stream) => stream,
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => bail!(
                "nothing listens at {}: is the agent running? (systemctl status watchdog; another address with --agent)",
                self.url
            ),
            Err(e) => bail!("cannot reach the agent at {}: {e}", self.url),
        };
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .with_context(|| format!("no HTTP with {}", self.url))?;
        let request = hyper::Request::get(format!("{}{path}", parts.path.trim_end_matches('/')))
            .header(hyper::header::HOST, format!("{}:{port}", parts.host))
            .header(hyper::header::CONNECTION, "close")
            .body(Empty::<Bytes>::new())
            .context("--agent has a path that cannot be asked for")?;
        let answer = async {
            let response = sender.send_request(request).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_BYTES).collect().await;
            anyhow::Ok((status, body.map_err(|e| anyhow::anyhow!("{e}"))?.to_bytes()))
        };
        tokio::pin!(answer, connection);
        // The connection must be driven until the answer is whole, and not longer.
        let answer = tokio::select! {
            answer = &mut answer => answer,
            end = &mut connection => match end {
                Ok(()) => answer.await,
                Err(e) => Err(e.into()),
            },
        };
        let (status, body) = answer.with_context(|| format!("no good answer from {}{path}", self.url))?;
        if !status.is_success() {
            let text = String::from_utf8_lossy(&body);
            let text: String = text.trim().chars().filter(|c| !c.is_control()).take(200).collect();
            bail!("{}{path} answered {status}: {text}", self.url);
        }
        Ok(body)
    }
}

/// The API's JSON as a type; lists that the endpoint leaves out are empty.
pub(super) fn typed<T: DeserializeOwned>(mut value: Value, left_out: &[&str]) -> anyhow::Result<T> {
    harmless(&mut value);
    if let Some(object) = value.as_object_mut() {
        for name in left_out {
            object.entry(*name).or_insert_with(|| Value::Array(Vec::new()));
        }
    }
    serde_json::from_value(value)
        .context("the agent's answer has another shape: are agent and command of the same version?")
}

/// Takes control characters out of all texts: names and errors come from other hosts, and what is printed here must not
/// command the terminal of whoever reads it.
fn harmless(value: &mut Value) {
    match value {
        Value::String(text) if text.chars().any(char::is_control) => {
            *text = text.replace(char::is_control, "\u{fffd}");
        }
        Value::Array(list) => list.iter_mut().for_each(harmless),
        Value::Object(object) => object.values_mut().for_each(harmless),
        _ => {}
    }
}
