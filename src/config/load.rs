//! From merged values to [`Settings`]: every key read once, cross checks, all errors together.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::context::expand;
use super::credentials::check_public_user_key;
use super::error::ConfigErrors;
use super::keys;
use super::nats;
use super::permits;
use super::reader::{Reader, Shown};
use super::settings::{Brownout, Canary, Connect, Hook, Lane, Mode, Parts, Remediation, RestartVia, Server, Settings};
use super::source::{DEFAULT_PATH, Env, Layers};
use super::url;
use crate::core::ids::{HostName, LaneName, Region};

/// Settings, and where each of them came from.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// Every key in force with its value and origin, in the order of the documentation.
    pub origins: Vec<Shown>,
    /// The files that were read, in order.
    pub files: Vec<PathBuf>,
}

impl Settings {
    /// Reads files and variables. `path` is `--config`; without it the default file, which may be absent.
    ///
    /// # Errors
    /// All that is wrong, at once.
    pub fn load(path: Option<&Path>, env: &Env) -> Result<Loaded, ConfigErrors> {
        load(path.unwrap_or(Path::new(DEFAULT_PATH)), path.is_some(), env)
    }
}

/// [`Settings::load`] of a main file that may be absent where it is not `required`.
pub(super) fn load(main: &Path, required: bool, env: &Env) -> Result<Loaded, ConfigErrors> {
    let mut reader = Reader::new(Layers::read(main, required, env));
    let settings = settings(&mut reader, env);
    let Reader { mut layers, shown } = reader;
    let files = layers.files.clone();
    layers.errors.sort_by_key(|error| error.origin.position(&files));
    match settings {
        Some(settings) if layers.errors.is_empty() => Ok(Loaded {
            settings,
            origins: shown,
            files,
        }),
        _ => Err(ConfigErrors(layers.errors)),
    }
}

fn settings(reader: &mut Reader, env: &Env) -> Option<Settings> {
    let prefix = prefix(reader);
    let host = host(reader, env);
    let region = region(reader);
    let main = nats::connect(reader, "nats", None, env);
    let system = system(reader, main.as_ref(), env);
    let lanes = lanes(reader, main.clone(), env);
    let server = server(reader);
    let canary = canary(reader);
    let remediation = remediation(reader);
    let brownout = brownout(reader);
    let permits = permits::permits(reader, main.as_ref(), env);
    let operators = operators(reader);
    let hooks = hooks(reader);
    let http = reader.listen("http.listen");
    let state = state(reader, env);
    Some(Settings {
        host: host?,
        region: region?,
        prefix: prefix?,
        lanes: lanes?,
        system,
        server: server?,
        canary,
        remediation: remediation?,
        brownout: brownout?,
        permits: permits?,
        operators,
        hooks,
        http: http?,
        state,
    })
}

fn prefix(reader: &mut Reader) -> Option<String> {
    let prefix = reader.text("subject_prefix")?;
    for token in prefix.split('.') {
        if let Err(error) = HostName::new(token) {
            reader.error("subject_prefix", format!("{prefix:?}: {error} (like \"watchdog\")"));
            return None;
        }
    }
    Some(prefix)
}

fn host(reader: &mut Reader, env: &Env) -> Option<HostName> {
    if reader.is_set("host.name") {
        return HostName::new(&reader.text("host.name")?).ok();
    }
    let system = env.hostname.as_deref().unwrap_or_default().trim();
    let short = system.split('.').next().unwrap_or_default();
    match HostName::new(short) {
        Ok(host) => {
            reader.show("host.name", format!("{short:?}"), "the system's host name");
            Some(host)
        }
        Err(error) => {
            let message = format!(
                "is not set, and the system's host name {system:?} does not do: {error} (like name = \"iad-1\")"
            );
            reader.missing("host.name", message);
            None
        }
    }
}

fn region(reader: &mut Reader) -> Option<Region> {
    if !reader.is_set("host.region") {
        let file = match reader.layers.files.is_empty() {
            true => " (there is no such file)",
            false => "",
        };
        let message = format!(
            "is missing{file}: say where this host is (like [host] region = \"iad\", or WATCHDOG_HOST_REGION=iad)"
        );
        reader.missing("host.region", message);
        return None;
    }
    Region::new(&reader.text("host.region")?).ok()
}

fn lanes(reader: &mut Reader, main: Option<Connect>, env: &Env) -> Option<Vec<Lane>> {
    let mut names = vec!["main".to_owned()];
    let mut lanes = Vec::new();
    for index in 0..reader.layers.lanes.len() {
        let section = format!("lane.{index}");
        let key = format!("{section}.name");
        if !reader.is_set(&key) {
            reader.error(&key, "is missing: a lane has a name (like name = \"logs\")");
        }
        let name = reader.text(&key);
        if let Some(name) = &name {
            if names.contains(name) {
                let message = match name.as_str() {
                    "main" => "\"main\" is the [nats] account; give this lane another name".into(),
                    name => format!("{name:?} is taken by another lane; names are unique"),
                };
                reader.error(&key, message);
            }
            names.push(name.clone());
        }
        // Without a valid [nats] its errors are enough: a stand-in keeps the lane's own checks going.
        let base = main.clone().unwrap_or_else(|| Connect {
            urls: vec![super::context::DEFAULT_URL.into()],
            ..Connect::default()
        });
        if let Some(connect) = nats::connect(reader, &section, Some(&base), env)
            && let Some(name) = name.and_then(|name| LaneName::new(&name).ok())
        {
            lanes.push(Lane { name, connect });
        }
    }
    let name = LaneName::new("main").ok()?;
    lanes.insert(0, Lane { name, connect: main? });
    Some(lanes)
}

/// Only where the section says something. A wrong one is an error that is noted, like all.
fn system(reader: &mut Reader, main: Option<&Connect>, env: &Env) -> Option<Connect> {
    if !reader.layers.values.keys().any(|key| key.starts_with("system.")) {
        return None;
    }
    let stand_in = Connect {
        urls: vec![super::context::DEFAULT_URL.into()],
        ..Connect::default()
    };
    nats::connect(reader, "system", Some(main.unwrap_or(&stand_in)), env)
}

fn server(reader: &mut Reader) -> Option<Server> {
    let monitor = monitor(reader);
    let restart = restart(reader);
    let poll = reader.duration("server.poll");
    let poll_routes = reader.duration("server.poll_routes");
    let timeout = reader.duration("server.timeout");
    let restart_deadline = reader.duration("server.restart_deadline");
    let lame_duck_duration = reader.duration("server.lame_duck_duration");
    Some(Server {
        monitor: monitor?,
        restart: restart?,
        lame_duck_duration,
        poll,
        poll_routes,
        timeout,
        restart_deadline,
    })
}

fn monitor(reader: &mut Reader) -> Option<String> {
    let text = reader.text("server.monitor")?;
    if text.to_ascii_lowercase().starts_with("https://") {
        let message =
            "https is not supported: give the server a plain http_port on loopback (like \"http://127.0.0.1:8222\")";
        reader.error("server.monitor", message);
        return None;
    }
    let checked = url::parse(&text, &["http"], None).and_then(|parts| match parts.userinfo {
        Some(_) => Err("a monitoring port takes no user".into()),
        None => Ok(()),
    });
    match checked {
        Ok(()) => Some(text.trim_end_matches('/').to_owned()),
        Err(error) => {
            reader.error("server.monitor", format!("{error} (like \"http://127.0.0.1:8222\")"));
            None
        }
    }
}

fn restart(reader: &mut Reader) -> Option<RestartVia> {
    let command = reader.list("server.restart_command");
    let unit = reader.text("server.unit");
    if reader.is_set("server.unit") && reader.is_set("server.restart_command") {
        let message = format!(
            "stands beside unit ({}); a server is restarted one way: keep one of the two",
            reader.origin("server.unit")
        );
        reader.error("server.restart_command", message);
        return None;
    }
    let parts = Parts {
        lame_duck: reader.list("server.lame_duck_command"),
        stop: reader.list("server.stop_command"),
        start: reader.list("server.start_command"),
    };
    if let Some(command) = command {
        if parts.start.is_none() {
            for key in ["server.lame_duck_command", "server.stop_command"] {
                if reader.is_set(key) {
                    reader.error(key, "has no start_command beside it: who would start the server again?");
                    return None;
                }
            }
        }
        return Some(RestartVia::Command(command, parts));
    }
    for key in [
        "server.lame_duck_command",
        "server.stop_command",
        "server.start_command",
    ] {
        if reader.is_set(key) && !reader.is_set("server.restart_command") {
            reader.error(key, "belongs to restart_command; with a unit, systemd does this");
            return None;
        }
    }
    if reader.is_set("server.restart_command") {
        return None;
    }
    let unit = match unit {
        Some(unit) => unit,
        None if reader.is_set("server.unit") => return None,
        None => {
            reader.show("server.unit", "\"nats-server.service\"".into(), "default");
            "nats-server.service".into()
        }
    };
    let plain = unit.chars().all(|c| c.is_ascii_alphanumeric() || ":-_.@\\".contains(c));
    if plain && unit.ends_with(".service") {
        return Some(RestartVia::Unit(unit));
    }
    let message = format!("{unit:?} is not the full name of a service (like \"nats-server.service\")");
    reader.error("server.unit", message);
    None
}

fn canary(reader: &mut Reader) -> Canary {
    Canary {
        interval: reader.duration("canary.interval"),
        stall_after: reader.count("canary.stall_after"),
        max_inbound_per_second: reader.count("canary.max_inbound_per_second"),
        hosts: reader.hosts("canary.hosts"),
    }
}

fn remediation(reader: &mut Reader) -> Option<Remediation> {
    let mode = match reader.text("remediation.mode").as_deref() {
        Some("observe") => Some(Mode::Observe),
        Some("reset") => Some(Mode::Reset),
        Some("restart") => Some(Mode::Restart),
        _ => None,
    };
    let path_resets = reader.flag("remediation.path_resets");
    let remediation = Remediation {
        mode: mode.unwrap_or(Mode::Observe),
        path_resets: path_resets.unwrap_or(true),
        max_sick_fraction: reader.fraction("remediation.max_sick_fraction"),
        restarts_per_hour: reader.count("remediation.restarts_per_hour"),
        resets_per_hour: reader.count("remediation.resets_per_hour"),
        confirm: reader.duration("remediation.confirm"),
        restart_confirm: reader.duration("remediation.restart_confirm"),
        mesh_confirm: reader.duration("remediation.mesh_confirm"),
        sender_delay: reader.duration("remediation.sender_delay"),
        verify: reader.duration("remediation.verify"),
        tries: reader.count("remediation.tries"),
    };
    mode.and(path_resets).map(|_| remediation)
}

fn brownout(reader: &mut Reader) -> Option<Brownout> {
    let hold = reader.flag("brownout.hold");
    let ceiling = "brownout.ceiling_bytes_per_second";
    Some(Brownout {
        factor: f64::from(reader.count("brownout.factor")),
        ceiling_bytes_per_second: reader.is_set(ceiling).then(|| f64::from(reader.count(ceiling))),
        minimum: reader.duration("brownout.minimum"),
        hold: hold?,
    })
}

fn hooks(reader: &mut Reader) -> BTreeMap<String, Hook> {
    let names: BTreeSet<String> = reader
        .layers
        .values
        .keys()
        .filter_map(|key| keys::split_hook(key).map(|(name, _)| name.to_owned()))
        .collect();
    let mut hooks = BTreeMap::new();
    for name in names {
        let (command, timeout) = (format!("hooks.{name}.command"), format!("hooks.{name}.timeout"));
        if let Err(error) = HostName::new(&name) {
            reader.error(&command, format!("{error} (like [hooks.upgrade])"));
            continue;
        }
        if !reader.is_set(&command) {
            reader.error(&timeout, format!("hook {name:?} has no command"));
            continue;
        }
        let (command, timeout) = (reader.list(&command), reader.duration(&timeout));
        if let Some(command) = command {
            hooks.insert(name, Hook { command, timeout });
        }
    }
    hooks
}

fn operators(reader: &mut Reader) -> Vec<String> {
    let operators = reader.list("control.operators").unwrap_or_default();
    for (index, operator) in operators.iter().enumerate() {
        if let Err(error) = check_public_user_key(operator) {
            let message =
                format!("{error}; an operator's is a user's, 56 characters from \"U\" (nsc generate nkey --user)");
            reader.error("control.operators", message);
        } else if operators[..index].contains(operator) {
            reader.error("control.operators", format!("{operator} stands twice"));
        }
    }
    operators
}

fn state(reader: &mut Reader, env: &Env) -> Option<PathBuf> {
    if let Some(directory) = reader.text("state.directory") {
        return Some(expand(&directory, env));
    }
    // systemd separates several directories by colons; the first is ours.
    let directory = env.get("STATE_DIRECTORY")?.split(':').next()?.to_owned();
    reader.show("state.directory", format!("{directory:?}"), "$STATE_DIRECTORY");
    Some(directory.into())
}
