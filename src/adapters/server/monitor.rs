//! Reads the local nats-server's monitoring port. One connection per read: the port is local, and a connection that is
//! kept says nothing about whether the server still takes new ones.

use std::error::Error as _;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper::{Request, Uri, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::parse::{ParseError, parse_accstatz, parse_gatewayz, parse_healthz, parse_jsz, parse_routez, parse_varz};
use crate::core::server::{Endpoint, ReadError, Sample, Varz};

/// Larger answers are not read. `/routez` of 900 peers with 4 connections each has 2 MiB.
pub const MAX_BODY: usize = 16 * 1024 * 1024;

/// A monitoring address that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("monitoring address {url:?} {what}; give it like \"http://127.0.0.1:8222\", with the http_port of nats-server")]
pub struct BadMonitorUrl {
    /// What was given.
    pub url: String,
    /// What is wrong with it.
    pub what: String,
}

/// The monitoring port of one nats-server.
#[derive(Debug, Clone)]
pub struct Monitor {
    base: String,
    host: String,
    port: u16,
    timeout: Duration,
}

impl Monitor {
    /// `base_url` like `http://127.0.0.1:8222`, with the server's `http_base_path` if it has one; `timeout` holds for a
    /// whole read, from name resolution to the last byte.
    ///
    /// # Errors
    /// Not an `http` URL with a host.
    pub fn new(base_url: &str, timeout: Duration) -> Result<Self, BadMonitorUrl> {
        let bad = |what: String| BadMonitorUrl {
            url: base_url.to_owned(),
            what,
        };
        let uri: Uri = base_url.parse().map_err(|e| bad(format!("is no URL ({e})")))?;
        if uri.scheme_str() != Some("http") {
            return Err(bad("is not an http:// URL".to_owned()));
        }
        let host = uri.host().filter(|h| !h.is_empty());
        let host = host.ok_or_else(|| bad("has no host".to_owned()))?;
        Ok(Self {
            base: base_url.trim_end_matches('/').to_owned(),
            host: host.trim_matches(['[', ']']).to_owned(),
            port: uri.port_u16().unwrap_or(80),
            timeout,
        })
    }

    /// Reads one endpoint.
    ///
    /// # Errors
    /// Within the timeout, why there is no sample. A `/healthz` that says no is a sample.
    pub async fn read(&self, endpoint: Endpoint) -> Result<Sample, ReadError> {
        let url = format!("{}/{}", self.base, endpoint.path());
        let limit = ReadError::Timeout {
            url: url.clone(),
            after: self.timeout,
        };
        tokio::time::timeout(self.timeout, self.read_patiently(endpoint, url))
            .await
            .unwrap_or(Err(limit))
    }

    async fn read_patiently(&self, endpoint: Endpoint, url: String) -> Result<Sample, ReadError> {
        // `/accstatz` does not say which account is the system's.
        let varz = match endpoint {
            Endpoint::Accstatz => {
                let url = format!("{}/{}", self.base, Endpoint::Varz.path());
                let (status, body) = self.get(&url).await?;
                Some(checked(Endpoint::Varz, status, &url, || parse_varz(&body))?)
            }
            _ => None,
        };
        let (status, body) = self.get(&url).await?;
        let sample = checked(endpoint, status, &url, || {
            sample(endpoint, status, &body, varz.as_ref())
        })?;
        match (&sample, varz) {
            (Sample::Accstatz(a), Some(v)) if a.server_id != v.server_id => Err(ReadError::Broken {
                url,
                what: "the server was restarted while it was read".to_owned(),
            }),
            _ => Ok(sample),
        }
    }

    async fn get(&self, url: &str) -> Result<(u16, Bytes), ReadError> {
        let stream = TcpStream::connect((self.host.as_str(), self.port))
            .await
            .map_err(|e| ReadError::Connect {
                url: url.to_owned(),
                error: e.to_string(),
            })?;
        let failed = |e: hyper::Error| http_failed(url, &e);
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
        let request = Request::get(url)
            .header(header::HOST, format!("{}:{}", self.host, self.port))
            .header(header::CONNECTION, "close")
            .body(Empty::<Bytes>::new())
            .map_err(|e| ReadError::NotNats {
                url: url.to_owned(),
                what: e.to_string(),
            })?;
        let exchange = async {
            let response = sender.send_request(request).await.map_err(failed)?;
            let status = response.status().as_u16();
            let body = Limited::new(response.into_body(), MAX_BODY).collect().await;
            let body = body.map_err(|e| match e.downcast::<hyper::Error>() {
                Ok(e) => http_failed(url, &e),
                Err(e) if e.is::<LengthLimitError>() => ReadError::Broken {
                    url: url.to_owned(),
                    what: format!("larger than {MAX_BODY} bytes"),
                },
                Err(e) => ReadError::Broken {
                    url: url.to_owned(),
                    what: e.to_string(),
                },
            })?;
            Ok((status, body.to_bytes()))
        };
        // The connection is driven here and not in a task of its own, so that dropping this future closes it.
        let (mut exchange, mut connection) = (pin!(exchange), pin!(connection));
        tokio::select! {
            answer = &mut exchange => return answer,
            _ = &mut connection => {}
        }
        exchange.await
    }
}

fn checked<T>(
    endpoint: Endpoint,
    status: u16,
    url: &str,
    parse: impl FnOnce() -> Result<T, ParseError>,
) -> Result<T, ReadError> {
    let url = url.to_owned();
    // Says no with 500 or 503; the reason is in the body.
    let refusal = endpoint == Endpoint::Healthz && (status == 500 || status == 503);
    if status != 200 && !refusal {
        let what = format!("HTTP status {status}");
        return Err(ReadError::NotNats { url, what });
    }
    parse().map_err(|e| {
        let what = e.to_string();
        match e {
            ParseError::CutOff(_) => ReadError::Broken { url, what },
            ParseError::NotJson(_) | ParseError::Missing(_) => ReadError::NotNats { url, what },
        }
    })
}

fn sample(endpoint: Endpoint, status: u16, body: &[u8], varz: Option<&Varz>) -> Result<Sample, ParseError> {
    Ok(match endpoint {
        Endpoint::Varz => Sample::Varz(Box::new(parse_varz(body)?)),
        Endpoint::Routez => Sample::Routez(parse_routez(body)?),
        Endpoint::Gatewayz => Sample::Gatewayz(parse_gatewayz(body)?),
        Endpoint::Healthz => Sample::Healthz(parse_healthz(status, body)?),
        Endpoint::Accstatz => Sample::Accstatz(parse_accstatz(body, varz.map_or("", |v| &v.system_account))?),
        Endpoint::Jsz => Sample::Jsz(parse_jsz(body)?),
    })
}

fn http_failed(url: &str, error: &hyper::Error) -> ReadError {
    let url = url.to_owned();
    let what = match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    };
    if error.is_parse() {
        ReadError::NotNats { url, what }
    } else {
        ReadError::Broken { url, what }
    }
}

#[cfg(test)]
#[path = "monitor_tests.rs"]
mod tests;
