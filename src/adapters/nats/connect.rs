//! Connections: from [`Connect`] to a client, for the agent (pinned, patient) and for commands (prompt, clear errors).

use std::error::Error as _;
use std::time::Duration;

use async_nats::{Auth as Answer, AuthError, ConnectErrorKind, ConnectOptions, ServerAddr};
use nkeys::KeyPair;

use crate::config::credentials::{self, CredentialsError};
use crate::config::settings::{Auth, Connect};
use crate::config::url::{self, redact};
use crate::core::ids::HostName;

/// How often the client pings its server; two missing answers end the connection.
const PING: Duration = Duration::from_secs(10);
/// Longest pause between two tries of the agent: its server may be back any moment.
const MAX_RETRY_DELAY: Duration = Duration::from_millis(500);

/// A connection that did not come about. URLs are shown without passwords.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The URL is none.
    #[error("cannot use the server URL {0}; write nats://host:4222 or tls://host:4222")]
    Url(String),
    /// The credentials cannot be read.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// Nothing listens there.
    #[error("nothing listens at {0}: is the nats-server running, and is this its client port?")]
    Refused(String),
    /// The name does not resolve.
    #[error("cannot find the address of {url}: {reason}")]
    Dns {
        /// Where to.
        url: String,
        /// What the resolver said.
        reason: String,
    },
    /// The server does not let us in.
    #[error("{url} refused {who}: check the credentials and the server's accounts ({reason})")]
    Auth {
        /// Where to.
        url: String,
        /// As whom.
        who: String,
        /// What was said.
        reason: String,
    },
    /// TLS did not come about.
    #[error("no TLS with {url}: {reason}; check --tlsca, --tlscert, --tlskey and the name in the server's certificate")]
    Tls {
        /// Where to.
        url: String,
        /// What failed.
        reason: String,
    },
    /// No answer.
    #[error("{url} did not answer within {limit}: wrong port, a firewall, or a server that hangs", limit = humantime::format_duration(*limit))]
    TimedOut {
        /// Where to.
        url: String,
        /// How long we waited.
        limit: Duration,
    },
    /// Anything else.
    #[error("cannot connect to {url}: {reason}")]
    Other {
        /// Where to.
        url: String,
        /// What the client library said.
        reason: String,
    },
}

/// Connects for a command: one try at each server, within `limit` in all.
///
/// # Errors
/// Says what was tried, where, and what to do.
pub async fn connect(c: &Connect, name: &str, limit: Duration) -> Result<async_nats::Client, ConnectError> {
    let servers = servers(c)?;
    let options = options(c)?.name(name).connection_timeout(limit);
    match tokio::time::timeout(limit, options.connect(servers)).await {
        Ok(Ok(client)) => Ok(client),
        Ok(Err(error)) => Err(explain(&error, c, limit)),
        Err(_) => Err(ConnectError::TimedOut { url: shown(c), limit }),
    }
}

/// Options of the agent's connections: pinned to the one server, retrying for ever, hearing their own messages.
///
/// # Errors
/// The credentials cannot be read.
pub fn agent_options(c: &Connect, host: &HostName) -> Result<ConnectOptions, ConnectError> {
    Ok(options(c)?
        .name(format!("watchdog {host}"))
        .ignore_discovered_servers()
        .retry_on_initial_connect()
        .reconnect_delay_callback(retry_delay))
}

/// Options that every connection shares: who we are, TLS, inbox prefix, pings.
///
/// # Errors
/// The credentials cannot be read.
pub fn options(c: &Connect) -> Result<ConnectOptions, ConnectError> {
    let mut options = authenticated(&c.auth)?.ping_interval(PING);
    if let Some(ca) = &c.tls.ca {
        options = options.add_root_certificates(ca.clone()).require_tls(true);
    }
    if let (Some(cert), Some(key)) = (&c.tls.cert, &c.tls.key) {
        options = options
            .add_client_certificate(cert.clone(), key.clone())
            .require_tls(true);
    }
    if c.tls.first {
        options = options.tls_first().require_tls(true);
    }
    if let Some(prefix) = &c.inbox_prefix {
        options = options.custom_inbox_prefix(prefix);
    }
    Ok(options)
}

/// The servers of `c` as the client library wants them.
///
/// # Errors
/// A URL does not parse.
pub fn servers(c: &Connect) -> Result<Vec<ServerAddr>, ConnectError> {
    let parse = |text: &String| {
        url::parse(text, url::NATS_SCHEMES, Some("nats")).map_err(ConnectError::Url)?;
        text.parse::<ServerAddr>()
            .map_err(|e| ConnectError::Url(format!("{}: {e}", redact(text))))
    };
    c.urls.iter().map(parse).collect()
}

fn authenticated(auth: &Auth) -> Result<ConnectOptions, ConnectError> {
    Ok(match auth {
        Auth::None => ConnectOptions::new(),
        Auth::User(user, password) => ConnectOptions::with_user_and_password(user.clone(), password.clone()),
        Auth::Token(token) => ConnectOptions::with_token(token.clone()),
        Auth::Creds(path) => {
            credentials::read_creds(path)?;
            let path = path.clone();
            // Read at every connect: creds are renewed under a running agent.
            ConnectOptions::with_auth_callback(move |nonce| {
                let read = credentials::read_creds(&path);
                async move {
                    let user = read.map_err(AuthError::new)?;
                    signed(&user.key, &nonce, Some(user.jwt))
                }
            })
        }
        Auth::Nkey(path) => {
            credentials::read_nkey(path)?;
            let path = path.clone();
            ConnectOptions::with_auth_callback(move |nonce| {
                let read = credentials::read_nkey(&path);
                async move { signed(&read.map_err(AuthError::new)?, &nonce, None) }
            })
        }
        Auth::Jwt { jwt, seed } => {
            credentials::seed(seed)?;
            let (jwt, seed) = (jwt.clone(), seed.clone());
            ConnectOptions::with_auth_callback(move |nonce| {
                let key = credentials::seed(&seed);
                let jwt = jwt.clone();
                async move { signed(&key.map_err(AuthError::new)?, &nonce, Some(jwt)) }
            })
        }
    })
}

/// The answer to the server's nonce; without a JWT the public key says who we are.
fn signed(key: &KeyPair, nonce: &[u8], jwt: Option<String>) -> Result<Answer, AuthError> {
    let mut answer = Answer::new();
    answer.signature = Some(key.sign(nonce).map_err(AuthError::new)?);
    answer.nkey = jwt.is_none().then(|| key.public_key());
    answer.jwt = jwt;
    Ok(answer)
}

fn retry_delay(attempt: usize) -> Duration {
    let doublings = u32::try_from(attempt.saturating_sub(1)).unwrap_or(u32::MAX).min(6);
    match attempt {
        0 | 1 => Duration::ZERO,
        _ => MAX_RETRY_DELAY.min(Duration::from_millis(10) * 2_u32.pow(doublings)),
    }
}

/// The URLs of `c` without passwords.
pub(crate) fn shown(c: &Connect) -> String {
    c.urls.iter().map(|url| redact(url)).collect::<Vec<_>>().join(", ")
}

fn who(auth: &Auth) -> String {
    match auth {
        Auth::None => "a connection without credentials".into(),
        Auth::User(user, _) => format!("user {user:?}"),
        Auth::Token(_) => "the token".into(),
        Auth::Creds(path) => format!("creds file {}", path.display()),
        Auth::Nkey(path) => format!("nkey file {}", path.display()),
        Auth::Jwt { .. } => "the JWT of the context".into(),
    }
}

fn explain(error: &async_nats::ConnectError, c: &Connect, limit: Duration) -> ConnectError {
    let url = shown(c);
    let mut reason = error.to_string();
    let (mut refused, mut tls) = (false, error.kind() == ConnectErrorKind::Tls);
    let mut cause = error.source();
    while let Some(inner) = cause {
        reason = inner.to_string();
        if let Some(io) = inner.downcast_ref::<std::io::Error>() {
            refused |= io.kind() == std::io::ErrorKind::ConnectionRefused;
            tls |= io.get_ref().is_some_and(|e| e.is::<async_nats::rustls::Error>());
        }
        cause = inner.source();
    }
    match error.kind() {
        _ if refused => ConnectError::Refused(url),
        _ if tls => ConnectError::Tls { url, reason },
        ConnectErrorKind::Dns => ConnectError::Dns { url, reason },
        ConnectErrorKind::TimedOut => ConnectError::TimedOut { url, limit },
        ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
            let who = who(&c.auth);
            ConnectError::Auth { url, who, reason }
        }
        _ => ConnectError::Other { url, reason },
    }
}

#[cfg(test)]
#[path = "connect_tests.rs"]
mod tests;
