//! The one table of configuration keys: what parses, shows and documents them.

use std::time::Duration;

/// What a key's value must be, with its limits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Any text.
    Text,
    /// A token of a NATS subject: letters, digits, `-` and `_`.
    Name,
    /// Path of a file that is read.
    Path,
    /// Text that is never shown.
    Secret,
    /// A duration with its least and greatest value.
    Duration(Duration, Duration),
    /// A whole number with its least and greatest value.
    Count(u32, u32),
    /// A number from 0 to 1.
    Fraction,
    /// `true` or `false`.
    Flag,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A list of texts.
    List,
    /// A program and its arguments.
    Argv,
    /// Region to list of host names.
    Hosts,
    /// `address:port`.
    Listen,
}

/// One key.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Key {
    /// Dotted name, `section.key`.
    pub name: &'static str,
    /// What the value must be.
    pub kind: Kind,
    /// Default as TOML; `None` = see `unset`.
    pub default: Option<&'static str>,
    /// What holds where there is neither a value nor a default.
    pub unset: &'static str,
    /// A good value as TOML.
    pub example: &'static str,
    /// What it means, in a sentence.
    pub help: &'static str,
}

/// Sections that exist in the plan and not in this version.
pub const NOT_YET: &[&str] = &["brownout", "permits"];

const fn key(name: &'static str, kind: Kind, default: &'static str, example: &'static str, help: &'static str) -> Key {
    Key {
        name,
        kind,
        default: Some(default),
        unset: "",
        example,
        help,
    }
}

const fn optional(
    name: &'static str,
    kind: Kind,
    unset: &'static str,
    example: &'static str,
    help: &'static str,
) -> Key {
    Key {
        name,
        kind,
        default: None,
        unset,
        example,
        help,
    }
}

const fn between(least_ms: u64, most_s: u64) -> Kind {
    Kind::Duration(Duration::from_millis(least_ms), Duration::from_secs(most_s))
}

/// All keys, in the order of the documentation. A `[[lane]]` takes `lane.name` and the keys of `[nats]`.
pub const KEYS: &[Key] = &[
    key(
        "subject_prefix",
        Kind::Text,
        "\"watchdog\"",
        "\"watchdog\"",
        "First tokens of every subject; the same on all hosts of a fleet.",
    ),
    optional(
        "host.name",
        Kind::Name,
        "the system's host name up to the first dot",
        "\"iad-1\"",
        "Name of this host, unique in the fleet. It is a token of the subjects that this host publishes on.",
    ),
    optional(
        "host.region",
        Kind::Name,
        "required",
        "\"iad\"",
        "Region of this host: the only place name that becomes a metric label.",
    ),
    key(
        "nats.url",
        Kind::Text,
        "\"nats://127.0.0.1:4222\"",
        "\"nats://127.0.0.1:4222\"",
        "The one server that this agent looks after, `nats://` or `tls://`. The connection stays on it: gossiped servers are ignored.",
    ),
    optional(
        "nats.context",
        Kind::Text,
        "none",
        "\"system\"",
        "A context of the `nats` CLI, by name or as a path to its JSON file; the other keys of the table override what it says.",
    ),
    optional(
        "nats.creds",
        Kind::Path,
        "none",
        "\"/etc/watchdog/watchdog.creds\"",
        "Creds file (JWT and seed). Read again at every connect.",
    ),
    optional(
        "nats.nkey",
        Kind::Path,
        "none",
        "\"/etc/watchdog/watchdog.nk\"",
        "NKEY seed file. Read again at every connect.",
    ),
    optional(
        "nats.user",
        Kind::Text,
        "none",
        "\"watchdog\"",
        "User name; needs `password` or `password_file`.",
    ),
    optional(
        "nats.password",
        Kind::Secret,
        "none",
        "\"secret\"",
        "Password of `user`. Better in `password_file`.",
    ),
    optional(
        "nats.password_file",
        Kind::Path,
        "none",
        "\"/etc/watchdog/password\"",
        "File with the password of `user`.",
    ),
    optional(
        "nats.token",
        Kind::Secret,
        "none",
        "\"secret\"",
        "Token. Better in `token_file`.",
    ),
    optional(
        "nats.token_file",
        Kind::Path,
        "none",
        "\"/etc/watchdog/token\"",
        "File with the token.",
    ),
    optional(
        "nats.inbox_prefix",
        Kind::Text,
        "`_INBOX`",
        "\"_INBOX_watchdog\"",
        "Prefix of reply subjects, where permissions ask for one.",
    ),
    optional(
        "nats.tls.ca",
        Kind::Path,
        "the system's certificates",
        "\"/etc/watchdog/ca.pem\"",
        "Certificate authority that signed the server's certificate, PEM.",
    ),
    optional(
        "nats.tls.cert",
        Kind::Path,
        "none",
        "\"/etc/watchdog/client.pem\"",
        "Client certificate, PEM; needs `key`.",
    ),
    optional(
        "nats.tls.key",
        Kind::Path,
        "none",
        "\"/etc/watchdog/client.key\"",
        "Private key of the client certificate, PEM.",
    ),
    key(
        "nats.tls.first",
        Kind::Flag,
        "false",
        "true",
        "TLS handshake before the server's greeting (`handshake_first` at the server).",
    ),
    optional(
        "lane.name",
        Kind::Name,
        "required",
        "\"logs\"",
        "Name of the lane, a metric label. `main` is the `[nats]` account.",
    ),
    key(
        "server.monitor",
        Kind::Text,
        "\"http://127.0.0.1:8222\"",
        "\"http://127.0.0.1:8222\"",
        "The server's monitoring port, `http://` only.",
    ),
    optional(
        "server.unit",
        Kind::Text,
        "`nats-server.service`, where there is no `restart_command`",
        "\"nats-server.service\"",
        "The systemd unit of the server.",
    ),
    optional(
        "server.restart_command",
        Kind::Argv,
        "none",
        "[\"/usr/local/bin/restart-nats\"]",
        "Program and arguments that restart the server, instead of `unit`. No shell.",
    ),
    key(
        "server.poll",
        between(100, 60),
        "\"1s\"",
        "\"1s\"",
        "Time between reads of `/varz` and `/healthz`.",
    ),
    key(
        "server.poll_routes",
        between(500, 300),
        "\"2s\"",
        "\"2s\"",
        "Time between reads of `/routez` and `/gatewayz`, which take the server's lock.",
    ),
    key(
        "server.timeout",
        between(50, 60),
        "\"2s\"",
        "\"2s\"",
        "Limit for one read.",
    ),
    key(
        "server.restart_deadline",
        between(1_000, 3_600),
        "\"60s\"",
        "\"60s\"",
        "Limit for a whole restart, until the server answers again.",
    ),
    key(
        "canary.interval",
        between(100, 60),
        "\"1s\"",
        "\"1s\"",
        "Time between beacons. The agent stretches it to keep `max_inbound_per_second`.",
    ),
    key(
        "canary.stall_after",
        Kind::Count(2, 20),
        "3",
        "3",
        "Silent intervals before a path counts as stalled.",
    ),
    key(
        "canary.max_inbound_per_second",
        Kind::Count(1, 1_000_000),
        "500",
        "500",
        "Budget of beacons that this agent receives per second.",
    ),
    optional(
        "canary.hosts",
        Kind::Hosts,
        "learned from beacons",
        "{ iad = [\"iad-1\", \"iad-2\"], fra = [\"fra-1\"] }",
        "Hosts that must exist, by region: exact from the first second instead of learned.",
    ),
    key(
        "remediation.mode",
        Kind::OneOf(&["observe", "reset", "restart"]),
        "\"observe\"",
        "\"observe\"",
        "How far automation may climb: `observe` says what it would do, `reset` destroys stalled sockets, `restart` may restart the local server too.",
    ),
    key(
        "remediation.path_resets",
        Kind::Flag,
        "true",
        "true",
        "`false` skips the reset rung and goes to restart, where `mode` allows it.",
    ),
    key(
        "remediation.max_sick_fraction",
        Kind::Fraction,
        "0.1",
        "0.1",
        "Share of hosts that may be sick before restarts stop: more is an incident, not a host. One sick host is always allowed.",
    ),
    key(
        "remediation.restarts_per_hour",
        Kind::Count(0, 60),
        "2",
        "2",
        "Restarts of the local server by the agent, at most; kept over the agent's own restarts.",
    ),
    key(
        "remediation.resets_per_hour",
        Kind::Count(0, 3_600),
        "20",
        "20",
        "Path resets, at most.",
    ),
    key(
        "remediation.confirm",
        between(0, 600),
        "\"300ms\"",
        "\"300ms\"",
        "How long a stall must last beyond its verdict before a reset.",
    ),
    key(
        "remediation.restart_confirm",
        between(0, 3_600),
        "\"3s\"",
        "\"3s\"",
        "The same before a restart.",
    ),
    key(
        "remediation.mesh_confirm",
        between(0, 3_600),
        "\"10s\"",
        "\"10s\"",
        "How long a missing route, gateway or pool connection must be missing.",
    ),
    key(
        "remediation.sender_delay",
        between(0, 3_600),
        "\"20s\"",
        "\"20s\"",
        "How long the sending side waits for the receiving side to act first.",
    ),
    key(
        "remediation.verify",
        between(100, 600),
        "\"10s\"",
        "\"10s\"",
        "How long a remedy has to show its effect.",
    ),
    key(
        "remediation.tries",
        Kind::Count(1, 20),
        "2",
        "2",
        "Resets of one fault before the next rung.",
    ),
    key(
        "control.operators",
        Kind::List,
        "[]",
        "[\"UB3VSA2HKP3GQ4CB5YFA6W7EUNUPLGVVBBOOKBP7KIAQYYWI5WCLBYSF\"]",
        "NKEY public keys whose signed commands this agent obeys; none = it obeys nobody.",
    ),
    key(
        "http.listen",
        Kind::Listen,
        "\"127.0.0.1:9777\"",
        "\"127.0.0.1:9777\"",
        "Where metrics, health and the read-only API are served.",
    ),
    optional(
        "state.directory",
        Kind::Text,
        "`$STATE_DIRECTORY`, which systemd sets; else nothing is kept",
        "\"/var/lib/watchdog\"",
        "Where limits and the roster outlive the agent.",
    ),
];

/// The entry of a key. `lane.3.creds` is that of `nats.creds`.
#[must_use]
pub fn find(name: &str) -> Option<&'static Key> {
    let canonical = canonical(name);
    KEYS.iter().find(|key| key.name == canonical)
}

/// The variable that sets a key; lanes have none.
#[must_use]
pub fn variable(key: &Key) -> Option<String> {
    let lane = key.name.starts_with("lane.");
    (!lane).then(|| format!("WATCHDOG_{}", key.name.replace('.', "_").to_uppercase()))
}

/// `lane.3.creds` as people write it: `lane[3].creds`.
#[must_use]
pub fn shown(name: &str) -> String {
    match split_lane(name) {
        Some((index, rest)) => format!("lane[{index}].{rest}"),
        None => name.to_owned(),
    }
}

fn canonical(name: &str) -> String {
    match split_lane(name) {
        Some((_, "name")) => "lane.name".into(),
        Some((_, rest)) => format!("nats.{rest}"),
        None => name.into(),
    }
}

fn split_lane(name: &str) -> Option<(&str, &str)> {
    let (index, rest) = name.strip_prefix("lane.")?.split_once('.')?;
    index.parse::<usize>().is_ok().then_some((index, rest))
}

/// The key that somebody probably meant.
#[must_use]
pub fn nearest(name: &str) -> Option<String> {
    let (lane, written) = match split_lane(name) {
        Some((index, rest)) => (Some(index), rest),
        None => (None, name),
    };
    let candidates = KEYS.iter().filter_map(|key| match lane {
        None => Some(key.name),
        Some(_) => key.name.strip_prefix("nats.").or(key.name.strip_prefix("lane.")),
    });
    let last = written.rsplit('.').next().unwrap_or_default();
    let (distance, best) = candidates
        .map(|key| match key.rsplit('.').next() == Some(last) {
            true => (1, key),
            false => (distance(key, written), key),
        })
        .min()?;
    let best = match lane {
        Some(index) => format!("lane[{index}].{best}"),
        None => best.to_owned(),
    };
    (distance <= 1 + last.len() / 4).then_some(best)
}

/// The section that somebody probably meant.
#[must_use]
pub fn nearest_section(name: &str) -> Option<&'static str> {
    KEYS.iter()
        .filter_map(|key| key.name.split_once('.').map(|(section, _)| section))
        .map(|section| (distance(section, name), section))
        .min()
        .filter(|(distance, _)| *distance <= 2)
        .map(|(_, section)| section)
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_finds_its_key() {
        for (written, meant) in [
            ("canary.intervall", "canary.interval"),
            ("host.regoin", "host.region"),
            ("host.mode", "remediation.mode"),
            ("lane.2.cred", "lane[2].creds"),
            ("lane.0.nmae", "lane[0].name"),
        ] {
            assert_eq!(nearest(written).as_deref(), Some(meant), "{written}");
        }
        assert_eq!(nearest("server.colour"), None);
        assert_eq!(nearest_section("canarry"), Some("canary"));
    }

    #[test]
    fn every_key_stands_once_in_the_table() {
        let mut names: Vec<_> = KEYS.iter().map(|key| key.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), KEYS.len());
    }
}
