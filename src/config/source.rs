//! The sources: files and variables, merged into one flat list of located values. Later ones win; lanes add up.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::Value;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Origin};
use super::keys::{self, KEYS, Kind};
use super::value;

/// Where the agent looks without `--config`.
pub const DEFAULT_PATH: &str = "/etc/watchdog/watchdog.toml";

/// What the process was started with, read once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Env {
    /// Environment variables.
    pub variables: BTreeMap<String, String>,
    /// The system's host name.
    pub hostname: Option<String>,
}

impl Env {
    /// That of this process.
    #[must_use]
    pub fn system() -> Self {
        let text = |pair: (std::ffi::OsString, std::ffi::OsString)| {
            Some((pair.0.into_string().ok()?, pair.1.into_string().ok()?))
        };
        Self {
            variables: std::env::vars_os().filter_map(text).collect(),
            hostname: std::fs::read_to_string("/proc/sys/kernel/hostname").ok(),
        }
    }

    /// A variable that is set to something.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let value = self.variables.get(name).map(String::as_str);
        value.filter(|value| !value.is_empty())
    }
}

/// A value and where it came from.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Located {
    pub value: Value,
    pub origin: Origin,
}

/// All sources merged.
#[derive(Debug, Default)]
pub(super) struct Layers {
    /// By dotted name; lanes as `lane.<index>.<key>`.
    pub values: BTreeMap<String, Located>,
    /// Number of lanes, and where each begins.
    pub lanes: Vec<Origin>,
    /// The main file, whether it is there or not.
    pub main: PathBuf,
    /// The files that were read.
    pub files: Vec<PathBuf>,
    /// A file could not be read as a whole: do not complain about what is missing.
    pub incomplete: bool,
    pub errors: Vec<ConfigError>,
}

impl Layers {
    /// Reads all sources; the main file may be absent where it is not `required`.
    pub(super) fn read(main: &Path, required: bool, env: &Env) -> Self {
        let mut layers = Self {
            main: main.into(),
            ..Self::default()
        };
        layers.file(main, required);
        let fragments = main.parent().unwrap_or(Path::new("")).join("conf.d");
        for fragment in layers.fragments(&fragments) {
            layers.file(&fragment, true);
        }
        layers.variables(env);
        layers
    }

    fn error(&mut self, origin: Origin, key: &str, message: String) {
        self.errors.push(ConfigError {
            origin,
            key: keys::shown(key),
            message,
        });
    }

    fn fragments(&mut self, directory: &Path) -> Vec<PathBuf> {
        let entries = match std::fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
            Err(e) => {
                self.incomplete = true;
                self.error(Origin::Whole(directory.into()), "", format!("cannot be read: {e}"));
                return Vec::new();
            }
        };
        let mut files: Vec<PathBuf> = entries
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| path.extension().is_some_and(|e| e == "toml"))
            .collect();
        files.sort();
        files
    }

    fn file(&mut self, path: &Path, required: bool) {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if !required && e.kind() == std::io::ErrorKind::NotFound => return,
            Err(e) => {
                self.incomplete = true;
                let message = format!("cannot be read: {e}");
                return self.error(Origin::Whole(path.into()), "", message);
            }
        };
        self.files.push(path.to_owned());
        let (table, errors) = DeTable::parse_recoverable(&text);
        for error in &errors {
            let start = error.span().map_or(0, |span| span.start);
            let line = line_at(&text, start);
            let content = without_value(text.lines().nth(line - 1).unwrap_or_default());
            let message = format!("is not TOML: {}, in {content}", error.message());
            self.error(Origin::File(path.into(), line), "", message);
        }
        if errors.is_empty() {
            self.table("", table.get_ref(), &|at| Origin::File(path.into(), line_at(&text, at)));
        } else {
            self.incomplete = true;
        }
    }

    fn table(&mut self, section: &str, table: &DeTable<'_>, at: &dyn Fn(usize) -> Origin) {
        // A table iterates by name; people read by line.
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(name, _)| name.span().start);
        for (name, value) in entries {
            let origin = at(name.span().start);
            let name = match section {
                "" => name.get_ref().to_string(),
                section => format!("{section}.{}", name.get_ref()),
            };
            let value = value.get_ref();
            if name == "lane" {
                self.lanes(value, origin, at);
            } else if keys::NOT_YET.contains(&name.as_str()) {
                self.error(
                    origin,
                    &name,
                    format!("[{name}] is not in this version of watchdog; remove the section"),
                );
            } else if keys::find(&name).is_some() {
                let value = owned(value);
                self.values.insert(name, Located { value, origin });
            } else if is_section(&name) {
                match value.as_table() {
                    Some(table) => self.table(&name, table, at),
                    None => self.error(origin, &name, format!("is a section: write [{name}]")),
                }
            } else {
                self.unknown(origin, &name, value.is_table());
            }
        }
    }

    fn lanes(&mut self, value: &DeValue<'_>, origin: Origin, at: &dyn Fn(usize) -> Origin) {
        let Some(lanes) = value
            .as_array()
            .filter(|lanes| lanes.iter().all(|l| l.get_ref().is_table()))
        else {
            return self.error(origin, "lane", "lanes are a list of tables: write [[lane]]".into());
        };
        for lane in lanes.iter() {
            let section = format!("lane.{}", self.lanes.len());
            self.lanes.push(at(lane.span().start));
            if let Some(table) = lane.get_ref().as_table() {
                self.table(&section, table, at);
            }
        }
    }

    fn unknown(&mut self, origin: Origin, name: &str, table: bool) {
        let what = if table { "section" } else { "key" };
        let near = match table && !name.contains('.') {
            true => keys::nearest_section(name).map(|section| format!("[{section}]")),
            false => keys::nearest(name),
        };
        let hint = near.map_or(String::new(), |near| format!("; did you mean {near}?"));
        self.error(origin, name, format!("there is no such {what}{hint}"));
    }

    fn variables(&mut self, env: &Env) {
        for (name, text) in &env.variables {
            let Some(rest) = name.strip_prefix("WATCHDOG_") else {
                continue;
            };
            if text.is_empty() {
                continue;
            }
            let key = KEYS.iter().find(|key| keys::variable(key).as_ref() == Some(name));
            let origin = Origin::Env(name.clone());
            match key {
                Some(key) => {
                    let value = value::from_variable(key, text);
                    self.values.insert(key.name.into(), Located { value, origin });
                }
                // systemd (WATCHDOG_USEC, WATCHDOG_PID) and others have variables of this prefix too: only what
                // begins like a section of ours, or is nearly one of our variables, is taken for a slip.
                None => {
                    let dotted = rest.to_lowercase().replacen('_', ".", 1);
                    let near = keys::nearest(&dotted)
                        .and_then(|near| keys::variable(keys::find(&near)?))
                        .or_else(|| keys::nearest_variable(name));
                    let ours = dotted.split_once('.').is_some_and(|(s, _)| is_section(s));
                    if ours || keys::nearest_variable(name).is_some() {
                        let hint = near.map_or(String::new(), |near| format!("; did you mean {near}?"));
                        self.error(origin, "", format!("there is no such setting{hint}"));
                    }
                }
            }
        }
    }
}

fn is_section(name: &str) -> bool {
    let lane = name.strip_prefix("lane.").and_then(|rest| rest.split_once('.'));
    let inherited = lane.map(|(_, rest)| rest).or(name.strip_prefix("system."));
    let name = inherited.map_or(name.to_owned(), |rest| format!("nats.{rest}"));
    // Any name of a hook.
    let name = match name.strip_prefix("hooks.") {
        Some(hook) if !hook.contains('.') => "hooks.NAME".to_owned(),
        _ => name,
    };
    let name = match name.strip_prefix("permits.nats") {
        Some(rest) => format!("nats{rest}"),
        None => name,
    };
    let prefix = format!("{name}.");
    KEYS.iter()
        .any(|key| key.name.starts_with(&prefix) && key.kind != Kind::Hosts)
}

/// A line of a file that does not parse. Its value may be a secret and is not shown.
fn without_value(line: &str) -> String {
    let Some((key, value)) = line.split_once('=') else {
        return format!("`{}`", line.trim());
    };
    let hint = match value.trim_start().starts_with(|c: char| c.is_alphabetic() || c == '/') {
        true => " (a text needs quotes)",
        false => "",
    };
    format!("`{} = …`{hint}", key.trim())
}

fn line_at(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|b| *b == b'\n').count()
}

fn owned(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or_else(|_| Value::String(number.as_str().into()), Value::Integer),
        DeValue::Float(number) => Value::Float(number.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(flag) => Value::Boolean(*flag),
        DeValue::Datetime(time) => Value::Datetime(*time),
        DeValue::Array(list) => Value::Array(list.iter().map(|v| owned(v.get_ref())).collect()),
        DeValue::Table(table) => Value::Table(
            table
                .iter()
                .map(|(name, value)| (name.get_ref().to_string(), owned(value.get_ref())))
                .collect(),
        ),
    }
}
