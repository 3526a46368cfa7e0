//! A small HTTP client for what servers and agents tell.

use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, body::Bytes};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

use super::{LabError, Result};

const PATIENCE: Duration = Duration::from_secs(2);
const LARGEST: usize = 64 << 20;

/// The JSON at `url` (plain `http://`), within two seconds, whatever the status code.
///
/// # Errors
/// Where the address does not answer in time or with something else than JSON.
pub async fn get_json(url: &str) -> Result<serde_json::Value> {
    let failed = |why: String| LabError::Http {
        url: url.to_owned(),
        why,
    };
    match timeout(PATIENCE, get(url)).await {
        Err(_) => Err(failed("no answer in 2 s".into())),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Ok(Ok(body)) => serde_json::from_slice(&body).map_err(|error| failed(format!("not JSON: {error}"))),
    }
}

/// The body at `url`, whatever the status code.
pub(super) async fn get(url: &str) -> std::result::Result<Bytes, Box<dyn std::error::Error + Send + Sync>> {
    let uri: hyper::Uri = url.parse()?;
    let host = uri.authority().ok_or("no host in the address")?.clone();
    let stream = TcpStream::connect(host.as_str()).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let path = uri.path_and_query().map_or("/", |p| p.as_str());
    let request = Request::get(path)
        .header("host", host.as_str())
        .body(Empty::<Bytes>::new())?;
    let body = Limited::new(sender.send_request(request).await?.into_body(), LARGEST)
        .collect()
        .await;
    driver.abort();
    Ok(body?.to_bytes())
}
