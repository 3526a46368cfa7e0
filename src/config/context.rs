//! Contexts of the `nats` CLI, and how layers of connection settings come together.
//!
//! Precedence follows natscli: what is given outright goes over the context, field by field; of several kinds of
//! credentials, user goes first, then creds, nkey, JWT, token. One difference, on purpose: credentials given outright
//! displace those of the context altogether, where natscli would let a user in the context win over `--creds`.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::settings::{Auth, Connect, Tls};
use super::source::Env;
use super::url;

/// Where clients connect when nothing says otherwise.
pub const DEFAULT_URL: &str = "nats://127.0.0.1:4222";

/// A context that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// Names become file names.
    #[error("context name {0:?} is not valid: it must not be empty nor contain \"..\" or \"/\"")]
    Name(String),
    /// No directory to look in.
    #[error("cannot look for context {0:?}: neither XDG_CONFIG_HOME nor HOME is set")]
    NoHome(String),
    /// No such file.
    #[error("unknown context {name:?}: no file {path}; `nats context ls` lists those there are", path = path.display())]
    Unknown {
        /// Its name.
        name: String,
        /// Where it would be.
        path: PathBuf,
    },
    /// The file is there and cannot be read.
    #[error("cannot read context {path}: {reason}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A feature of contexts that is not supported.
    #[error("context {path}: {reason}", path = path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What, and what to do instead.
        reason: String,
    },
    /// A server URL that is none.
    #[error("server URL {0}")]
    Url(String),
}

/// One layer of connection settings; any part may be missing. Also the shape of a context's file.
#[derive(Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Partial {
    /// Server URLs, separated by commas.
    pub url: Option<String>,
    /// User name.
    pub user: Option<String>,
    /// Password.
    pub password: Option<String>,
    /// Creds file.
    pub creds: Option<String>,
    /// Seed file.
    pub nkey: Option<String>,
    /// JWT of a user.
    pub user_jwt: Option<String>,
    /// Seed that signs for it.
    pub user_seed: Option<String>,
    /// Token.
    pub token: Option<String>,
    /// CA file.
    pub ca: Option<String>,
    /// Client certificate file.
    pub cert: Option<String>,
    /// Client key file.
    pub key: Option<String>,
    /// TLS before the greeting.
    pub tls_first: Option<bool>,
    /// Prefix of reply subjects.
    pub inbox_prefix: Option<String>,
    /// Asks `nsc` for credentials: not supported.
    pub nsc: Option<String>,
    /// Not supported.
    pub socks_proxy: Option<String>,
}

impl std::fmt::Debug for Partial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Partial")
            .field("url", &self.url.as_deref().map(url::redact))
            .field("kinds", &self.kinds())
            .finish_non_exhaustive()
    }
}

impl Partial {
    /// The kinds of credentials in this layer, in order of precedence.
    #[must_use]
    pub fn kinds(&self) -> Vec<&'static str> {
        let in_url = self.url.as_deref().is_some_and(|u| url::redact(u) != u);
        [
            ("user", self.user.is_some()),
            ("creds", self.creds.is_some()),
            ("nkey", self.nkey.is_some()),
            ("user_jwt", self.user_jwt.is_some()),
            ("token", self.token.is_some()),
            ("url", in_url),
        ]
        .into_iter()
        .filter_map(|(kind, there)| there.then_some(kind))
        .collect()
    }

    /// This layer over `base`.
    #[must_use]
    pub fn over(self, base: Self) -> Self {
        let keeps_auth = self.kinds().is_empty();
        let auth = |field: Option<String>| field.filter(|_| keeps_auth);
        Self {
            user: self.user.or(auth(base.user)),
            password: self.password.or(auth(base.password)),
            creds: self.creds.or(auth(base.creds)),
            nkey: self.nkey.or(auth(base.nkey)),
            user_jwt: self.user_jwt.or(auth(base.user_jwt)),
            user_seed: self.user_seed.or(auth(base.user_seed)),
            token: self.token.or(auth(base.token)),
            url: self.url.or(base.url.map(|url| match keeps_auth {
                true => url,
                false => without_userinfo(&url),
            })),
            ca: self.ca.or(base.ca),
            cert: self.cert.or(base.cert),
            key: self.key.or(base.key),
            tls_first: self.tls_first.or(base.tls_first),
            inbox_prefix: self.inbox_prefix.or(base.inbox_prefix),
            nsc: self.nsc.or(base.nsc),
            socks_proxy: self.socks_proxy.or(base.socks_proxy),
        }
    }

    /// What to connect with. Paths with `~` or `$VARIABLE` are made whole.
    ///
    /// # Errors
    /// A server URL does not parse.
    pub fn connect(self, env: &Env) -> Result<Connect, ContextError> {
        let path = |text: String| expand(&text, env);
        let mut urls = url::split(self.url.as_deref().unwrap_or(DEFAULT_URL));
        let mut userinfo = None;
        for one in &mut urls {
            let parts = url::parse(one, url::NATS_SCHEMES, Some("nats")).map_err(ContextError::Url)?;
            userinfo = userinfo.or(parts.userinfo);
            *one = without_userinfo(one);
        }
        let auth = match self {
            Self {
                user: Some(user),
                password,
                ..
            } => Auth::User(user, password.unwrap_or_default()),
            Self { creds: Some(file), .. } => Auth::Creds(path(file)),
            Self { nkey: Some(file), .. } => Auth::Nkey(path(file)),
            Self {
                user_jwt: Some(jwt),
                user_seed: Some(seed),
                ..
            } => Auth::Jwt { jwt, seed },
            Self { token: Some(token), .. } => Auth::Token(token),
            _ => userinfo.map_or(Auth::None, |text| match text.split_once(':') {
                Some((user, password)) => Auth::User(decode(user), decode(password)),
                None => Auth::Token(decode(&text)),
            }),
        };
        Ok(Connect {
            urls,
            auth,
            tls: Tls {
                ca: self.ca.map(path),
                cert: self.cert.map(path),
                key: self.key.map(path),
                first: self.tls_first.unwrap_or(false),
            },
            inbox_prefix: self.inbox_prefix,
        })
    }

    fn without_empty(mut self) -> Self {
        let fields = [
            &mut self.url,
            &mut self.user,
            &mut self.password,
            &mut self.creds,
            &mut self.nkey,
            &mut self.user_jwt,
            &mut self.user_seed,
            &mut self.token,
            &mut self.ca,
            &mut self.cert,
            &mut self.key,
            &mut self.inbox_prefix,
            &mut self.nsc,
            &mut self.socks_proxy,
        ];
        for field in fields {
            if field.as_deref().is_some_and(str::is_empty) {
                *field = None;
            }
        }
        self
    }
}

/// Reads the context `name`: a name, or the path of a `.json` file as natscli allows.
///
/// # Errors
/// There is no such context, it is not JSON, or it needs what is not supported (`nsc`, `op://`, a proxy).
pub fn load(name: &str, env: &Env) -> Result<(Partial, PathBuf), ContextError> {
    let path = match Path::new(name) {
        file if name.ends_with(".json") && file.is_file() => file.to_owned(),
        _ => named(name, env)?,
    };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let name = name.to_owned();
            return Err(ContextError::Unknown { name, path });
        }
        Err(e) => {
            let reason = e.to_string();
            return Err(ContextError::Read { path, reason });
        }
    };
    let partial: Partial = serde_json::from_str(&text).map_err(|e| ContextError::Read {
        path: path.clone(),
        reason: format!("it is not a context's JSON: {e}"),
    })?;
    let partial = partial.without_empty();
    match unsupported(&partial) {
        Some(reason) => Err(ContextError::Unsupported { path, reason }),
        None => Ok((partial, path)),
    }
}

/// The context that `nats context select` chose.
#[must_use]
pub fn selected(env: &Env) -> Option<String> {
    let text = std::fs::read_to_string(parent(env)?.join("nats/context.txt")).ok()?;
    Some(text.trim().to_owned()).filter(|name| !name.is_empty())
}

/// `text` with `~` for the home directory and `$NAME` or `${NAME}` for variables, as in the `nats` CLI.
#[must_use]
pub fn expand(text: &str, env: &Env) -> PathBuf {
    let mut out = String::new();
    let mut rest = text;
    if let (Some(after), Some(home)) = (text.strip_prefix('~'), env.get("HOME"))
        && (after.is_empty() || after.starts_with('/'))
    {
        out.push_str(home);
        rest = after;
    }
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let tail = &rest[at + 1..];
        let (name, after) = match tail.strip_prefix('{').and_then(|t| t.split_once('}')) {
            Some(braced) => braced,
            None => {
                let end = tail.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
                tail.split_at(end.unwrap_or(tail.len()))
            }
        };
        match name {
            "" => out.push('$'),
            name => out.push_str(env.get(name).unwrap_or_default()),
        }
        rest = after;
    }
    out.push_str(rest);
    PathBuf::from(out)
}

fn unsupported(partial: &Partial) -> Option<String> {
    if partial.nsc.is_some() {
        return Some("it asks nsc for credentials, which is not supported; use creds".into());
    }
    if partial.socks_proxy.is_some() {
        return Some("it goes through a SOCKS proxy, which is not supported".into());
    }
    if partial.user_jwt.is_some() != partial.user_seed.is_some() {
        return Some("user_jwt and user_seed go together; one of them is missing".into());
    }
    let scheme = [&partial.creds, &partial.nkey, &partial.password, &partial.token]
        .into_iter()
        .flatten()
        .find_map(|value| value.split_once("://").map(|(scheme, _)| scheme))
        .filter(|scheme| scheme.chars().all(|c| c.is_ascii_alphanumeric()))?;
    Some(format!(
        "it keeps a secret at {scheme}://, which is not supported; use a file"
    ))
}

fn parent(env: &Env) -> Option<PathBuf> {
    match env.get("XDG_CONFIG_HOME") {
        Some(directory) => Some(directory.into()),
        None => Some(Path::new(env.get("HOME")?).join(".config")),
    }
}

fn named(name: &str, env: &Env) -> Result<PathBuf, ContextError> {
    if name.is_empty() || name.contains("..") || name.contains('/') {
        return Err(ContextError::Name(name.into()));
    }
    let parent = parent(env).ok_or_else(|| ContextError::NoHome(name.into()))?;
    Ok(parent.join("nats/context").join(format!("{name}.json")))
}

fn without_userinfo(text: &str) -> String {
    url::redact(text).replace("***@", "")
}

/// Undoes percent-encoding; what is not valid stays as it is.
fn decode(text: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = text.as_bytes();
    while let Some((&first, rest)) = bytes.split_first() {
        let hex = rest.get(..2).and_then(|h| std::str::from_utf8(h).ok());
        match hex
            .and_then(|h| u8::from_str_radix(h, 16).ok())
            .filter(|_| first == b'%')
        {
            Some(byte) => {
                out.push(byte);
                bytes = &rest[2..];
            }
            None => {
                out.push(first);
                bytes = rest;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}
