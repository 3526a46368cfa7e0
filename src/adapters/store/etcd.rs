//! The register as a key of etcd, by its JSON gateway (`/v3/kv/range`, `/v3/kv/txn`; etcd 3.4 and later), over plain HTTP.
//! Reads are linearizable, as is etcd's default; the swap is a transaction on the key's `mod_revision`.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use data_encoding::BASE64;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::{Request, Uri, header};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::register::Register;
use crate::core::permit::{Revision, StoreError, Stored};

/// Larger answers are not read.
const MAX_BODY: usize = 1024 * 1024;

/// A key of etcd.
#[derive(Debug)]
pub struct Etcd {
    endpoints: Vec<String>,
    /// The endpoint that answered last.
    good: AtomicUsize,
    user: Option<(String, String)>,
    token: Mutex<Option<String>>,
    key: String,
    timeout: Duration,
}

#[derive(Debug, Default, Deserialize)]
struct Header {
    #[serde(default)]
    revision: String,
}

#[derive(Debug, Deserialize)]
struct Range {
    #[serde(default)]
    kvs: Vec<KeyValue>,
}

#[derive(Debug, Deserialize)]
struct KeyValue {
    mod_revision: String,
    #[serde(default)]
    value: String,
}

#[derive(Debug, Deserialize)]
struct Txn {
    header: Header,
    #[serde(default)]
    succeeded: bool,
}

/// How one request to one endpoint ended.
enum Failed {
    /// It was not sent.
    NotSent(String),
    /// It may have been done.
    Unknown(String),
    /// The token is no good (any more).
    Token,
}

impl Etcd {
    /// The document of `scope`.
    #[must_use]
    pub fn new(endpoints: Vec<String>, user: Option<(String, String)>, scope: &str, timeout: Duration) -> Self {
        Self {
            endpoints,
            good: AtomicUsize::new(0),
            user,
            token: Mutex::new(None),
            key: BASE64.encode(format!("/watchdog/permits/{scope}").as_bytes()),
            timeout,
        }
    }

    /// Asks the endpoint that answered last, then the others. A write goes to a second one only if the first never got it.
    async fn ask(&self, path: &str, body: &Value, again: bool) -> Result<Value, StoreError> {
        let first = self.good.load(Ordering::Relaxed);
        let mut why = Vec::new();
        for i in 0..self.endpoints.len() {
            let n = (first + i) % self.endpoints.len();
            let endpoint = &self.endpoints[n];
            let limit = self.timeout / 2;
            let asked = tokio::time::timeout(limit, self.ask_one(endpoint, path, body)).await;
            let failed = match asked {
                Ok(Ok(value)) => {
                    self.good.store(n, Ordering::Relaxed);
                    return Ok(value);
                }
                Ok(Err(failed)) => failed,
                Err(_) => Failed::Unknown(format!("no answer within {}", humantime::format_duration(limit))),
            };
            let sent = !matches!(failed, Failed::NotSent(_));
            why.push(match failed {
                Failed::NotSent(e) | Failed::Unknown(e) => format!("{endpoint}: {e}"),
                Failed::Token => format!("{endpoint}: the user may not do this, or its password is wrong"),
            });
            // The next request begins with another one.
            self.good.store((n + 1) % self.endpoints.len(), Ordering::Relaxed);
            if sent && !again {
                break;
            }
        }
        Err(StoreError::Unreachable(why.join("; ")))
    }

    async fn ask_one(&self, endpoint: &str, path: &str, body: &Value) -> Result<Value, Failed> {
        let Some((user, password)) = &self.user else {
            return post(endpoint, path, body, None).await;
        };
        let token = self.token.lock().map(|t| t.clone()).unwrap_or_default();
        if let Some(token) = token {
            match post(endpoint, path, body, Some(&token)).await {
                Err(Failed::Token) => {}
                other => return other,
            }
        }
        let login = json!({ "name": user, "password": password });
        let answer = post(endpoint, "/v3/auth/authenticate", &login, None).await;
        let answer = answer.map_err(|e| match e {
            Failed::Unknown(e) => Failed::NotSent(format!("login as {user}: {e}")),
            other => other,
        })?;
        let token = answer["token"].as_str().unwrap_or_default().to_owned();
        if let Ok(mut kept) = self.token.lock() {
            *kept = Some(token.clone());
        }
        post(endpoint, path, body, Some(&token)).await
    }
}

async fn post(endpoint: &str, path: &str, body: &Value, token: Option<&str>) -> Result<Value, Failed> {
    let not_sent = |e: &dyn std::fmt::Display| Failed::NotSent(e.to_string());
    let uri: Uri = format!("{endpoint}{path}").parse().map_err(|e| not_sent(&e))?;
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = uri.port_u16().unwrap_or(2379);
    let stream = TcpStream::connect((host.as_str(), port))
        .await
        .map_err(|e| not_sent(&e))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| not_sent(&e))?;
    let mut request = Request::post(uri.path())
        .header(header::HOST, format!("{host}:{port}"))
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CONNECTION, "close");
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, token);
    }
    let request = request
        .body(Full::new(Bytes::from(body.to_string())))
        .map_err(|e| not_sent(&e))?;
    let exchange = async {
        let response = sender
            .send_request(request)
            .await
            .map_err(|e| Failed::Unknown(e.to_string()))?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), MAX_BODY).collect().await;
        let body = body.map_err(|e| Failed::Unknown(e.to_string()))?.to_bytes();
        if status == 401 || status == 403 {
            return Err(Failed::Token);
        }
        if status != 200 {
            let text: String = String::from_utf8_lossy(&body).trim().chars().take(200).collect();
            // etcd names a token that is too old, and a login that is missing, with 400 or 401.
            if text.contains("invalid auth token") || text.contains("user name is empty") {
                return Err(Failed::Token);
            }
            return Err(Failed::Unknown(format!("HTTP status {status}: {text}")));
        }
        serde_json::from_slice(&body).map_err(|e| Failed::Unknown(format!("is that etcd? {e}")))
    };
    let mut connection = std::pin::pin!(connection);
    let mut exchange = std::pin::pin!(exchange);
    tokio::select! {
        done = &mut exchange => done,
        _ = &mut connection => exchange.await,
    }
}

fn read<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, StoreError> {
    serde_json::from_value(value).map_err(|e| StoreError::Unreachable(format!("etcd's answer cannot be read: {e}")))
}

fn revision(text: &str) -> Result<Revision, StoreError> {
    let bad = |e| StoreError::Unreachable(format!("etcd's revision {text:?} is no number: {e}"));
    text.parse().map(Revision).map_err(bad)
}

impl Register for Etcd {
    async fn get(&self) -> Result<Option<Stored>, StoreError> {
        let answer = self.ask("/v3/kv/range", &json!({ "key": self.key }), true).await?;
        let Some(kv) = read::<Range>(answer)?.kvs.into_iter().next() else {
            return Ok(None);
        };
        let bad = |e| StoreError::Unreachable(format!("etcd's answer is not base64: {e}"));
        let bytes = BASE64.decode(kv.value.as_bytes()).map_err(bad)?;
        Ok(Some(Stored {
            revision: revision(&kv.mod_revision)?,
            bytes,
        }))
    }

    async fn compare_and_swap(&self, bytes: Vec<u8>, expect: Option<Revision>) -> Result<Revision, StoreError> {
        let expect = expect.map_or(0, |r| r.0).to_string();
        let body = json!({
            "compare": [{ "target": "MOD", "result": "EQUAL", "key": self.key, "mod_revision": expect }],
            "success": [{ "requestPut": { "key": self.key, "value": BASE64.encode(&bytes) } }],
        });
        let txn: Txn = read(self.ask("/v3/kv/txn", &body, false).await?)?;
        if txn.succeeded {
            revision(&txn.header.revision)
        } else {
            Err(StoreError::Conflict)
        }
    }
}
