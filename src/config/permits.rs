//! `[permits]`: the rules and the store that they are kept in.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::context::expand;
use super::error::ConfigErrors;
use super::nats;
use super::reader::Reader;
use super::settings::Connect;
use super::source::{DEFAULT_PATH, Env, Layers};
use super::url;
use crate::core::permit::policy::{Arbiter, Permits};

/// `[permits]`
#[derive(Debug, Clone, PartialEq)]
pub struct PermitSettings {
    /// What the core decides by.
    pub rules: Permits,
    /// Where the document is.
    pub store: PermitStore,
    /// `scope`: the name of the document; hosts of one scope share it.
    pub scope: String,
    /// `timeout`: for one read or write.
    pub timeout: Duration,
}

/// The register.
#[derive(Clone, PartialEq)]
pub enum PermitStore {
    /// None: time slots.
    Slots,
    /// A file on this host.
    File(PathBuf),
    /// JetStream KV.
    NatsKv {
        /// Of which system; several URLs are fine.
        connect: Connect,
        /// The bucket.
        bucket: String,
    },
    /// etcd's JSON gateway.
    Etcd {
        /// Base URLs, `http://host:2379`.
        endpoints: Vec<String>,
        /// User and password.
        user: Option<(String, String)>,
    },
}

impl std::fmt::Debug for PermitStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name())
    }
}

impl PermitStore {
    /// For people, without secrets.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Slots => "time slots".to_owned(),
            Self::File(path) => format!("file {}", path.display()),
            Self::NatsKv { connect, bucket } => {
                let urls: Vec<String> = connect.urls.iter().map(|u| url::redact(u)).collect();
                format!("KV bucket {bucket} at {}", urls.join(", "))
            }
            Self::Etcd { endpoints, .. } => format!("etcd at {}", endpoints.join(", ")),
        }
    }
}

/// Only `[permits]`, and what it takes from `[nats]`, of the agent's configuration: for commands on machines that run
/// no agent and so need no region. `path` as for [`super::Settings::load`].
///
/// # Errors
/// What is wrong with these tables, or with a file as a whole.
pub fn load_permits(path: Option<&Path>, env: &Env) -> Result<PermitSettings, ConfigErrors> {
    let main = path.unwrap_or(Path::new(DEFAULT_PATH));
    let mut reader = Reader::new(Layers::read(main, path.is_some(), env));
    let main = nats::connect(&mut reader, "nats", None, env);
    match permits(&mut reader, main.as_ref(), env) {
        Some(settings) if reader.layers.errors.is_empty() => Ok(settings),
        _ => Err(ConfigErrors(reader.layers.errors)),
    }
}

/// Reads the table.
pub(super) fn permits(reader: &mut Reader, main: Option<&Connect>, env: &Env) -> Option<PermitSettings> {
    let word = reader.text("permits.store")?;
    let scope = reader.text("permits.scope");
    let timeout = reader.duration("permits.timeout");
    let rules = Permits {
        arbiter: if word == "slots" {
            Arbiter::Slots
        } else {
            Arbiter::Register
        },
        slots: reader.count("permits.slots"),
        per_region: reader.count("permits.slots_per_region"),
        per_cluster: reader.count("permits.slots_per_cluster"),
        spacing: reader.duration("permits.spacing"),
        per_hour: reader.count("permits.per_hour"),
        lease: reader.duration("permits.lease"),
        slot_length: reader.duration("permits.slot_length"),
    };
    let store = match word.as_str() {
        "slots" => Some(PermitStore::Slots),
        "file" => file(reader, env),
        "nats-kv" => nats_kv(reader, main, env),
        _ => etcd(reader),
    };
    Some(PermitSettings {
        rules,
        store: store?,
        scope: scope?,
        timeout,
    })
}

fn file(reader: &mut Reader, env: &Env) -> Option<PermitStore> {
    if !reader.is_set("permits.file") {
        let message = "is missing: store = \"file\" needs one (like file = \"/var/lib/watchdog/permits.json\")";
        reader.missing("permits.file", message);
        return None;
    }
    let path = reader.text("permits.file")?;
    Some(PermitStore::File(expand(&path, env)))
}

fn nats_kv(reader: &mut Reader, main: Option<&Connect>, env: &Env) -> Option<PermitStore> {
    let bucket = reader.text("permits.bucket")?;
    let own = reader.layers.values.keys().any(|k| k.starts_with("permits.nats."));
    let connect = if own {
        nats::connect(reader, "permits.nats", main, env)?
    } else {
        main.cloned()?
    };
    Some(PermitStore::NatsKv { connect, bucket })
}

fn etcd(reader: &mut Reader) -> Option<PermitStore> {
    if !reader.is_set("permits.etcd.endpoints") {
        let message = "is missing: store = \"etcd\" needs some (like endpoints = [\"http://127.0.0.1:2379\"])";
        reader.missing("permits.etcd.endpoints", message);
        return None;
    }
    let endpoints = reader.list("permits.etcd.endpoints")?;
    let mut good = !endpoints.is_empty();
    for endpoint in &endpoints {
        let checked = match url::parse(endpoint, &["http"], None) {
            Ok(parts) if parts.userinfo.is_some() => Err("put the user in permits.etcd.user".to_owned()),
            Ok(_) => Ok(()),
            Err(e) if endpoint.starts_with("https://") => Err(format!(
                "{e}: TLS is not supported; use a proxy on loopback (like `etcd grpc-proxy`)"
            )),
            Err(e) => Err(e),
        };
        if let Err(error) = checked {
            reader.error(
                "permits.etcd.endpoints",
                format!("{error} (like \"http://127.0.0.1:2379\")"),
            );
            good = false;
        }
    }
    let user = reader.text("permits.etcd.user");
    let password = nats::secret(reader, "permits.etcd", "password");
    let user = match (user, password) {
        (Some(user), Some(password)) => Some((user, password)),
        (Some(_), None) => {
            reader.error("permits.etcd.user", "has no password; add password_file");
            None
        }
        (None, Some(_)) => {
            reader.error("permits.etcd.password", "has no user; add user");
            None
        }
        (None, None) => None,
    };
    good.then(|| PermitStore::Etcd {
        endpoints: endpoints.iter().map(|e| e.trim_end_matches('/').to_owned()).collect(),
        user,
    })
}

impl Default for PermitSettings {
    fn default() -> Self {
        Self {
            rules: Permits::default(),
            store: PermitStore::Slots,
            scope: "fleet".to_owned(),
            timeout: Duration::from_secs(2),
        }
    }
}
