//! What the lab writes for its servers and agents.

use std::{fmt::Write, path::Path};

use toml::{Table, Value};

use super::{AgentSpec, Host, LabError, LabSpec, Result, Routes, Topology};

/// The system account; servers of 2.10 and newer give it a route connection of its own.
pub(crate) const SYSTEM_ACCOUNT: &str = "SYS";

/// The configuration of one nats-server.
pub(crate) fn server(spec: &LabSpec, hosts: &[Host], host: &Host) -> String {
    let mut text = format!(
        "server_name: \"{}\"\nlisten: \"{}\"\nhttp: \"{}\"\n",
        host.server_name, host.client, host.monitor
    );
    let _ = write!(
        text,
        "cluster {{\n  name: \"{}\"\n  listen: \"{}\"\n  advertise: \"{}\"\n",
        host.cluster, host.route_listen, host.route_address
    );
    if let Some(size) = spec.pool_size {
        let _ = writeln!(text, "  pool_size: {size}");
    }
    text += "  routes: [\n";
    for peer in peers(spec, hosts, host) {
        let _ = writeln!(text, "    \"nats-route://{}\"", peer.route_address);
    }
    text += "  ]\n}\n";
    if spec.topology == Topology::ClusterPerRegion {
        let _ = write!(
            text,
            "gateway {{\n  name: \"{}\"\n  listen: \"{}\"\n  advertise: \"{}\"\n  gateways: [\n",
            host.cluster, host.gateway_listen, host.gateway_address
        );
        for region in &spec.regions {
            let urls = hosts
                .iter()
                .filter(|h| h.region == *region)
                .map(|h| format!("\"nats://{}\"", h.gateway_address));
            let _ = writeln!(
                text,
                "    {{ name: \"{region}\", urls: [{}] }}",
                urls.collect::<Vec<_>>().join(", ")
            );
        }
        text += "  ]\n}\n";
    }
    if spec.jetstream {
        let _ = writeln!(
            text,
            "jetstream {{ store_dir: \"{}\" }}",
            host.dir.join("jetstream").display()
        );
    }
    text += &accounts(spec);
    text += &spec.server_extra;
    text
}

fn peers<'a>(spec: &LabSpec, hosts: &'a [Host], host: &Host) -> Vec<&'a Host> {
    let cluster = hosts.iter().filter(|h| h.cluster == host.cluster);
    match spec.routes {
        Routes::Full => cluster.filter(|h| h.name != host.name).collect(),
        Routes::Gossip => cluster.take(1).filter(|h| h.name != host.name).collect(),
    }
}

fn accounts(spec: &LabSpec) -> String {
    let user = |name: &str, password: &str| format!("users: [{{ user: \"{name}\", password: \"{password}\" }}]");
    let jetstream = if spec.jetstream { "jetstream: enabled, " } else { "" };
    let mut text = format!(
        "system_account: {SYSTEM_ACCOUNT}\naccounts {{\n  {SYSTEM_ACCOUNT}: {{ {} }}\n",
        user("sys", "sys")
    );
    for name in &spec.accounts {
        let _ = writeln!(text, "  {name}: {{ {jetstream}{} }}", user(name, name));
    }
    let watchdog = user("watchdog", "watchdog");
    if spec.default_account() == "$G" {
        let _ = write!(text, "}}\nauthorization {{ {watchdog} }}\n");
    } else {
        let _ = write!(text, "  {}: {{ {jetstream}{watchdog} }}\n}}\n", spec.default_account());
    }
    text
}

/// The configuration of one agent.
pub(crate) fn agent(spec: &LabSpec, agent: &AgentSpec, host: &Host, lab_bin: &Path, control: &str) -> Result<String> {
    let text = |value: &str| Value::String(value.to_owned());
    let table =
        |entries: Vec<(&str, Value)>| Value::Table(entries.into_iter().map(|(k, v)| (k.to_owned(), v)).collect());
    let bin = lab_bin.display().to_string();
    let ctl = |words: &[&str]| {
        let words = [&[bin.as_str(), "ctl", "--addr", control], words].concat();
        Value::Array(words.into_iter().map(text).collect())
    };
    let mut server = vec![
        ("monitor", text(&host.monitor_url)),
        ("restart_command", ctl(&["restart-server", &host.name])),
    ];
    if agent.parts {
        server.extend([
            ("lame_duck_command", ctl(&["signal-server", &host.name, "USR2"])),
            ("stop_command", ctl(&["stop-server", &host.name])),
            ("start_command", ctl(&["start-server", &host.name])),
        ]);
    }
    let lane = |name: &String| {
        table(vec![
            ("name", text(name)),
            ("user", text(name)),
            ("password", text(name)),
        ])
    };
    let mut config = Table::new();
    let sections = [
        (
            "host",
            table(vec![("name", text(&host.name)), ("region", text(&host.region))]),
        ),
        (
            "nats",
            table(vec![
                ("url", text(&host.client_url)),
                ("user", text("watchdog")),
                ("password", text("watchdog")),
            ]),
        ),
        ("lane", Value::Array(spec.accounts.iter().map(lane).collect())),
        ("server", table(server)),
        ("remediation", table(vec![("mode", text(&agent.mode))])),
        ("http", table(vec![("listen", text(&host.agent_http))])),
        (
            "state",
            table(vec![("directory", text(&host.dir.join("state").display().to_string()))]),
        ),
    ];
    for (name, section) in sections {
        if section.as_array().is_none_or(|lanes| !lanes.is_empty()) {
            config.insert(name.to_owned(), section);
        }
    }
    let more = [Some(&agent.extra_toml), agent.per_host_toml.get(&host.name)];
    for extra in more.into_iter().flatten() {
        let extra: Table = extra
            .parse()
            .map_err(|error| LabError::Spec(format!("agent's extra TOML: {error}")))?;
        merge(&mut config, extra);
    }
    Ok(config.to_string())
}

fn merge(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(old)), Value::Table(new)) => merge(old, new),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}
