//! Configuration keys: their shape, and how a name finds its key. The table itself is [`KEYS`].

use std::time::Duration;

pub use super::key_table::KEYS;

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
pub const NOT_YET: &[&str] = &[];

/// The entry of a key. `lane.3.creds` and `permits.nats.creds` are that of `nats.creds`.
#[must_use]
pub fn find(name: &str) -> Option<&'static Key> {
    let canonical = canonical(name);
    KEYS.iter().find(|key| key.name == canonical)
}

/// The variable that sets a key; lanes and hooks have none.
#[must_use]
pub fn variable(key: &Key) -> Option<String> {
    let listed = key.name.starts_with("lane.") || key.name.starts_with("hooks.");
    (!listed).then(|| format!("WATCHDOG_{}", key.name.replace('.', "_").to_uppercase()))
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
        None => match split_hook(name) {
            Some((_, rest)) => format!("hooks.NAME.{rest}"),
            None => match name.strip_prefix("permits.").filter(|rest| rest.starts_with("nats.")) {
                Some(rest) => rest.into(),
                None => in_system(name).unwrap_or_else(|| name.into()),
            },
        },
    }
}

/// `[system]` takes the keys of `[nats]`; those that have an entry of their own keep it.
fn in_system(name: &str) -> Option<String> {
    let rest = name.strip_prefix("system.")?;
    let own = KEYS.iter().any(|key| key.name == name);
    (!own).then(|| format!("nats.{rest}"))
}

/// `hooks.upgrade.command` in `upgrade` and `command`.
pub(super) fn split_hook(name: &str) -> Option<(&str, &str)> {
    name.strip_prefix("hooks.")?.split_once('.')
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

/// The variable that somebody probably meant; `None` for what is nothing like ours.
#[must_use]
pub fn nearest_variable(name: &str) -> Option<String> {
    KEYS.iter()
        .filter_map(variable)
        .map(|variable| (distance(&variable, name), variable))
        .min()
        .filter(|(distance, _)| *distance <= 2)
        .map(|(_, variable)| variable)
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
