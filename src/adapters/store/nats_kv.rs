//! The register as a key of a JetStream KV bucket, by JetStream's wire API (ADR-8, ADR-31): three requests that have been
//! the same since 2.6, so no client library's idea of a bucket stands between.
//!
//! Reads ask the stream's leader (`STREAM.MSG.GET`), never a replica. A leader that was deposed and does not know it yet
//! may still answer; such a stale read loses its swap, which needs a quorum: `Nats-Expected-Last-Subject-Sequence`.

use std::time::Duration;

use async_nats::{Client, HeaderMap, Request};
use data_encoding::BASE64;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::register::Register;
use crate::adapters::nats::connect::{self, ConnectError};
use crate::config::settings::Connect;
use crate::core::permit::{Revision, StoreError, Stored};

/// JetStream's numbers for what went wrong.
const NO_MESSAGE: u64 = 10037;
const NO_STREAM: u64 = 10059;
const OTHER_CONFIG: u64 = 10058;
const WRONG_LAST: [u64; 2] = [10071, 10164];
/// The limit of a request; the caller's is shorter as a rule.
const LIMIT: Duration = Duration::from_secs(10);

/// A key of a bucket.
#[derive(Debug)]
pub struct NatsKv {
    client: Client,
    stream: String,
    subject: String,
}

#[derive(Debug, Deserialize)]
struct ApiError {
    #[serde(default)]
    code: u64,
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

#[derive(Debug, Deserialize)]
struct Answer<T> {
    error: Option<ApiError>,
    #[serde(flatten)]
    good: Option<T>,
}

#[derive(Debug, Deserialize)]
struct Got {
    message: Message,
}

#[derive(Debug, Deserialize)]
struct Message {
    seq: u64,
    #[serde(default)]
    data: String,
    #[serde(default)]
    hdrs: String,
}

#[derive(Debug, Deserialize)]
struct Ack {
    seq: u64,
}

#[derive(Debug, Deserialize)]
struct Created {}

/// What is at the key: a document, or the mark of one that was deleted.
enum Cell {
    Empty,
    Deleted(u64),
    There(Stored),
}

impl NatsKv {
    /// The document of `scope` in `bucket`. Connects in the background and for ever.
    ///
    /// # Errors
    /// Credentials or URLs that cannot be used.
    pub async fn open(c: &Connect, bucket: &str, scope: &str, name: &str) -> Result<Self, ConnectError> {
        let options = connect::options(c)?.name(name).retry_on_initial_connect();
        let client = options
            .max_reconnects(None)
            .reconnect_delay_callback(|attempt| Duration::from_millis(100 * attempt.min(10) as u64))
            .connect(connect::servers(c)?)
            .await
            .map_err(|e| ConnectError::Other {
                url: connect::shown(c),
                reason: e.to_string(),
            })?;
        Ok(Self {
            client,
            stream: format!("KV_{bucket}"),
            subject: format!("$KV.{bucket}.permits.{scope}"),
        })
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        subject: String,
        payload: Vec<u8>,
        headers: Option<HeaderMap>,
    ) -> Result<Result<T, ApiError>, StoreError> {
        let mut request = Request::new().payload(payload.into()).timeout(Some(LIMIT));
        if let Some(headers) = headers {
            request = request.headers(headers);
        }
        let reply = self.client.send_request(subject, request).await.map_err(|e| {
            use async_nats::RequestErrorKind as K;
            StoreError::Unreachable(match e.kind() {
                K::NoResponders => {
                    "nobody answers for JetStream there: it is off, not for this account, or without a leader"
                        .to_owned()
                }
                K::TimedOut => format!("JetStream did not answer within {}", humantime::format_duration(LIMIT)),
                _ => e.to_string(),
            })
        })?;
        let bad = |e: String| StoreError::Unreachable(format!("JetStream's answer cannot be read: {e}"));
        let answer: Answer<T> = serde_json::from_slice(&reply.payload).map_err(|e| bad(e.to_string()))?;
        match (answer.error, answer.good) {
            (Some(error), _) => Ok(Err(error)),
            (None, Some(good)) => Ok(Ok(good)),
            (None, None) => Err(bad(String::from_utf8_lossy(&reply.payload).into_owned())),
        }
    }

    async fn cell(&self) -> Result<Cell, StoreError> {
        let subject = format!("$JS.API.STREAM.MSG.GET.{}", self.stream);
        let payload = json!({ "last_by_subj": self.subject }).to_string().into_bytes();
        match self.ask::<Got>(subject, payload, None).await? {
            Ok(Got { message }) => {
                let bad = |e| StoreError::Unreachable(format!("JetStream's answer is not base64: {e}"));
                let headers = BASE64.decode(message.hdrs.as_bytes()).map_err(bad)?;
                if String::from_utf8_lossy(&headers)
                    .to_ascii_lowercase()
                    .contains("kv-operation:")
                {
                    return Ok(Cell::Deleted(message.seq));
                }
                let bytes = BASE64.decode(message.data.as_bytes()).map_err(bad)?;
                Ok(Cell::There(Stored {
                    revision: Revision(message.seq),
                    bytes,
                }))
            }
            Err(e) if e.err_code == NO_MESSAGE || e.err_code == 0 && e.code == 404 => Ok(Cell::Empty),
            Err(e) if e.err_code == NO_STREAM => {
                self.make_bucket().await?;
                Ok(Cell::Empty)
            }
            Err(e) => Err(words(&e)),
        }
    }

    /// Three replicas in a cluster: a register must outlive a server.
    async fn make_bucket(&self) -> Result<(), StoreError> {
        let clustered = self.client.server_info().cluster.is_some();
        let bucket = self.stream.trim_start_matches("KV_");
        let config = json!({
            "name": self.stream,
            "description": "permits of watchdog",
            "subjects": [format!("$KV.{bucket}.>")],
            "retention": "limits",
            "storage": "file",
            "discard": "new",
            "max_msgs_per_subject": 16,
            "max_msgs": -1, "max_bytes": -1, "max_age": 0, "max_msg_size": -1, "max_consumers": -1,
            "num_replicas": if clustered { 3 } else { 1 },
            "duplicate_window": 120_000_000_000_u64,
            "allow_rollup_hdrs": true,
            "deny_delete": true,
        });
        let subject = format!("$JS.API.STREAM.CREATE.{}", self.stream);
        match self
            .ask::<Created>(subject, config.to_string().into_bytes(), None)
            .await?
        {
            Ok(_) => Ok(()),
            Err(e) if e.err_code == OTHER_CONFIG => Ok(()),
            Err(e) => Err(StoreError::Unreachable(format!(
                "the bucket {bucket} cannot be made: {} (code {}); make it by hand: nats kv add {bucket} --replicas 3",
                e.description, e.err_code
            ))),
        }
    }

    async fn swap(&self, bytes: Vec<u8>, expect: u64) -> Result<Revision, StoreError> {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Expected-Last-Subject-Sequence", expect.to_string().as_str());
        match self.ask::<Ack>(self.subject.clone(), bytes, Some(headers)).await? {
            Ok(ack) => Ok(Revision(ack.seq)),
            Err(e) if WRONG_LAST.contains(&e.err_code) => Err(StoreError::Conflict),
            Err(e) => Err(words(&e)),
        }
    }
}

fn words(e: &ApiError) -> StoreError {
    StoreError::Unreachable(format!("JetStream says {:?} (code {})", e.description, e.err_code))
}

impl Register for NatsKv {
    async fn get(&self) -> Result<Option<Stored>, StoreError> {
        Ok(match self.cell().await? {
            Cell::There(stored) => Some(stored),
            Cell::Empty | Cell::Deleted(_) => None,
        })
    }

    async fn compare_and_swap(&self, bytes: Vec<u8>, expect: Option<Revision>) -> Result<Revision, StoreError> {
        let Some(expect) = expect else {
            // Where a document was deleted its mark is what is expected.
            let last = match self.cell().await? {
                Cell::Empty => 0,
                Cell::Deleted(seq) => seq,
                Cell::There(_) => return Err(StoreError::Conflict),
            };
            return self.swap(bytes, last).await;
        };
        self.swap(bytes, expect.0).await
    }
}
