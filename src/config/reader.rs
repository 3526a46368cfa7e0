//! Typed reading of merged values. It never stops at an error: it notes it and goes on with a stand-in, and whoever
//! asked for settings gets the errors instead of them.

use std::net::SocketAddr;
use std::time::Duration;

use super::error::{ConfigError, Origin};
use super::keys;
use super::source::{Layers, Located};
use super::value::{self, Parsed};
use crate::core::ids::{HostName, Region};

/// One line of `config show`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Dotted key, lanes as `lane[0].creds`.
    pub key: String,
    /// Value as TOML, secrets masked.
    pub value: String,
    /// Where it came from.
    pub origin: String,
}

pub(super) struct Reader {
    pub layers: Layers,
    pub shown: Vec<Shown>,
}

impl Reader {
    pub(super) fn new(layers: Layers) -> Self {
        Self {
            layers,
            shown: Vec::new(),
        }
    }

    /// Notes an error at the place of `key`.
    pub(super) fn error(&mut self, key: &str, message: impl Into<String>) {
        let origin = self.origin(key);
        self.error_at(origin, key, message);
    }

    pub(super) fn error_at(&mut self, origin: Origin, key: &str, message: impl Into<String>) {
        self.layers.errors.push(ConfigError {
            origin,
            key: keys::shown(key),
            message: message.into(),
        });
    }

    /// Notes that a required key is missing.
    pub(super) fn missing(&mut self, key: &str, message: impl Into<String>) {
        if !self.layers.incomplete {
            self.error(key, message);
        }
    }

    /// Where `key` stands; the main file where it stands nowhere.
    pub(super) fn origin(&self, key: &str) -> Origin {
        if let Some(located) = self.layers.values.get(key) {
            return located.origin.clone();
        }
        let lane = key.strip_prefix("lane.").and_then(|rest| rest.split_once('.'));
        if let Some(index) = lane.and_then(|(index, _)| index.parse::<usize>().ok())
            && let Some(origin) = self.layers.lanes.get(index)
        {
            return origin.clone();
        }
        Origin::Whole(self.layers.main.clone())
    }

    pub(super) fn is_set(&self, key: &str) -> bool {
        self.layers.values.contains_key(key)
    }

    pub(super) fn show(&mut self, key: &str, value: String, origin: impl ToString) {
        self.shown.push(Shown {
            key: keys::shown(key),
            value,
            origin: origin.to_string(),
        });
    }

    /// The value, else the default, else `None`; `None` too where it is wrong, which is noted.
    fn read(&mut self, name: &str) -> Option<Parsed> {
        let key = keys::find(name).expect("every key that is read stands in the table");
        let located = match self.layers.values.get(name) {
            Some(located) => located.clone(),
            // What holds for [nats] by default is inherited by lanes and [system], not defaulted.
            None if ["lane.", "system.", "permits.nats."]
                .iter()
                .any(|own| name.starts_with(own)) =>
            {
                return None;
            }
            None => Located {
                value: value::toml_value(key.default?).expect("every default in the table is TOML"),
                origin: Origin::Default,
            },
        };
        match value::parse(key, &located.value) {
            Ok(parsed) => {
                self.show(name, value::show(key, &located.value), &located.origin);
                Some(parsed)
            }
            Err(message) => {
                self.error(name, message);
                None
            }
        }
    }

    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        match self.read(name)? {
            Parsed::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn duration(&mut self, name: &str) -> Duration {
        match self.read(name) {
            Some(Parsed::Duration(duration)) => duration,
            _ => Duration::ZERO,
        }
    }

    pub(super) fn count(&mut self, name: &str) -> u32 {
        match self.read(name) {
            Some(Parsed::Count(count)) => count,
            _ => 0,
        }
    }

    pub(super) fn fraction(&mut self, name: &str) -> f64 {
        match self.read(name) {
            Some(Parsed::Fraction(fraction)) => fraction,
            _ => 0.0,
        }
    }

    pub(super) fn flag(&mut self, name: &str) -> Option<bool> {
        match self.read(name)? {
            Parsed::Flag(flag) => Some(flag),
            _ => None,
        }
    }

    pub(super) fn list(&mut self, name: &str) -> Option<Vec<String>> {
        match self.read(name)? {
            Parsed::List(list) => Some(list),
            _ => None,
        }
    }

    pub(super) fn hosts(&mut self, name: &str) -> Vec<(HostName, Region)> {
        match self.read(name) {
            Some(Parsed::Hosts(hosts)) => hosts,
            _ => Vec::new(),
        }
    }

    pub(super) fn listen(&mut self, name: &str) -> Option<SocketAddr> {
        match self.read(name)? {
            Parsed::Listen(address) => Some(address),
            _ => None,
        }
    }
}
