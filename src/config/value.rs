//! One value: from TOML or a variable's text to what its key wants, or a sentence on why not.

use std::net::SocketAddr;
use std::time::Duration;

use toml::Value;

use super::keys::{Key, Kind};
use super::url;
use crate::core::ids::{HostName, Region};

/// A value that is what its [`Kind`] says.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Parsed {
    Text(String),
    Duration(Duration),
    Count(u32),
    Fraction(f64),
    Flag(bool),
    List(Vec<String>),
    Hosts(Vec<(HostName, Region)>),
    Listen(SocketAddr),
}

/// Checks `value` against the kind and limits of `key`.
pub(super) fn parse(key: &Key, value: &Value) -> Result<Parsed, String> {
    let is_not = |what: &str| {
        let found = match key.kind {
            Kind::Secret => "the value".to_owned(),
            _ => url::redact(&value.to_string()),
        };
        format!("{found} is not {what} (like {})", key.example)
    };
    match key.kind {
        Kind::Text | Kind::Path | Kind::Secret => match value {
            Value::String(text) if text.trim().is_empty() => Err(is_not("a text with something in it")),
            Value::String(text) => Ok(Parsed::Text(text.clone())),
            _ => Err(is_not("a text in quotes")),
        },
        Kind::Name => {
            let text = value.as_str().ok_or_else(|| is_not("a name in quotes"))?;
            HostName::new(text).map_err(|e| format!("{e} (like {})", key.example))?;
            Ok(Parsed::Text(text.to_owned()))
        }
        Kind::Duration(least, most) => {
            let text = value
                .as_str()
                .ok_or_else(|| format!("{value} is not a duration (like \"1s\", \"500ms\")"))?;
            let duration = humantime::parse_duration(text)
                .map_err(|_| format!("{text:?} is not a duration (like \"1s\", \"500ms\")"))?;
            within(duration, least, most, |d| humantime::format_duration(d).to_string()).map(Parsed::Duration)
        }
        Kind::Count(least, most) => {
            let number = value.as_integer().ok_or_else(|| is_not("a whole number"))?;
            let number = within(number, least.into(), most.into(), |n| n.to_string())?;
            Ok(Parsed::Count(u32::try_from(number).unwrap_or(least)))
        }
        Kind::Fraction => {
            let number = match value {
                Value::Integer(n) => f64::from(i32::try_from(*n).unwrap_or(i32::MAX)),
                Value::Float(n) if n.is_finite() => *n,
                _ => return Err(is_not("a number from 0 to 1")),
            };
            within(number, 0.0, 1.0, |n| n.to_string()).map(Parsed::Fraction)
        }
        Kind::Flag => value.as_bool().map(Parsed::Flag).ok_or_else(|| is_not("true or false")),
        Kind::OneOf(words) => match value.as_str() {
            Some(text) if words.contains(&text) => Ok(Parsed::Text(text.to_owned())),
            _ => {
                let words: Vec<_> = words.iter().map(|w| format!("{w:?}")).collect();
                Err(format!("{value} is not one of {}", words.join(", ")))
            }
        },
        Kind::List | Kind::Argv => {
            let list = texts(value).ok_or_else(|| is_not("a list of texts"))?;
            if key.kind == Kind::Argv && list.first().is_none_or(String::is_empty) {
                return Err(is_not("a program with its arguments"));
            }
            Ok(Parsed::List(list))
        }
        Kind::Hosts => hosts(value, &is_not),
        Kind::Listen => value
            .as_str()
            .and_then(|text| text.parse().ok())
            .map(Parsed::Listen)
            .ok_or_else(|| is_not("an address with a port")),
    }
}

/// What a variable's text means for `key`: the same as in a file, without quotes.
pub(super) fn from_variable(key: &Key, text: &str) -> Value {
    let as_toml = || toml::Value::try_from(text).unwrap_or_else(|_| Value::String(text.into()));
    match key.kind {
        Kind::Count(..) | Kind::Fraction | Kind::Flag | Kind::Argv | Kind::Hosts => {
            toml_value(text).unwrap_or_else(as_toml)
        }
        Kind::List if text.trim_start().starts_with('[') => toml_value(text).unwrap_or_else(as_toml),
        Kind::List => Value::Array(url::split(text).into_iter().map(Value::String).collect()),
        _ => Value::String(text.to_owned()),
    }
}

/// A default's text as a value.
pub(super) fn toml_value(text: &str) -> Option<Value> {
    let mut table: toml::Table = toml::from_str(&format!("x = {text}")).ok()?;
    table.remove("x")
}

/// The value as TOML on one line, secrets and passwords in URLs masked.
pub(super) fn show(key: &Key, value: &Value) -> String {
    match (key.kind, value) {
        (Kind::Secret, _) => "\"***\"".into(),
        (Kind::Text, Value::String(text)) => Value::String(url::redact(text)).to_string(),
        (_, value) => value.to_string(),
    }
}

fn within<T: PartialOrd + Copy>(value: T, least: T, most: T, show: impl Fn(T) -> String) -> Result<T, String> {
    if value < least || value > most {
        return Err(format!(
            "{} is out of range: from {} to {}",
            show(value),
            show(least),
            show(most)
        ));
    }
    Ok(value)
}

fn texts(value: &Value) -> Option<Vec<String>> {
    let texts = value.as_array()?.iter();
    texts.map(|v| v.as_str().map(str::to_owned)).collect()
}

fn hosts(value: &Value, is_not: &dyn Fn(&str) -> String) -> Result<Parsed, String> {
    let table = value
        .as_table()
        .ok_or_else(|| is_not("a table of regions with lists of hosts"))?;
    let mut hosts: Vec<(HostName, Region)> = Vec::new();
    for (region, names) in table {
        let region = Region::new(region).map_err(|e| e.to_string())?;
        let names = texts(names).ok_or_else(|| is_not("a table of regions with lists of hosts"))?;
        for name in names {
            let name = HostName::new(&name).map_err(|e| e.to_string())?;
            if let Some((_, other)) = hosts.iter().find(|(host, _)| *host == name) {
                return Err(format!("host {name} stands twice, in {other} and in {region}"));
            }
            hosts.push((name, region.clone()));
        }
    }
    Ok(Parsed::Hosts(hosts))
}
