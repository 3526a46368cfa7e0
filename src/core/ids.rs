//! Names and times as types, so that a region is never passed where a host is meant.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Longest accepted host, region or lane name, in bytes.
pub const MAX_NAME: usize = 64;

/// A name that cannot be a NATS subject token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// Nothing there.
    #[error("name is empty")]
    Empty,
    /// Longer than [`MAX_NAME`].
    #[error("name has {0} bytes, at most {MAX_NAME} are allowed")]
    TooLong(usize),
    /// A character that has a meaning in subjects or is not printable.
    #[error("name {name:?} has the character {bad:?}; use letters, digits, '-' and '_'")]
    Character {
        /// The whole name.
        name: String,
        /// The first character that is not allowed.
        bad: char,
    },
}

fn check(name: &str) -> Result<(), BadName> {
    if name.is_empty() {
        return Err(BadName::Empty);
    }
    if name.len() > MAX_NAME {
        return Err(BadName::TooLong(name.len()));
    }
    match name
        .chars()
        .find(|c| !(c.is_ascii_alphanumeric() || *c == '-' || *c == '_'))
    {
        None => Ok(()),
        Some(bad) => Err(BadName::Character {
            name: name.to_owned(),
            bad,
        }),
    }
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks that `name` can stand as one token of a NATS subject.
            ///
            /// # Errors
            /// Says which character or length is wrong.
            pub fn new(name: &str) -> Result<Self, BadName> {
                check(name).map(|()| Self(name.into()))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadName;
            fn try_from(name: String) -> Result<Self, BadName> {
                Self::new(&name)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.as_ref().to_owned()
            }
        }

        impl std::str::FromStr for $name {
            type Err = BadName;
            fn from_str(name: &str) -> Result<Self, BadName> {
                Self::new(name)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

name_type!(
    /// A host that runs one agent beside one nats-server; unique in the fleet.
    HostName
);
name_type!(
    /// A region: the only place name that becomes a metric label.
    Region
);
name_type!(
    /// A canary lane: one NATS account.
    LaneName
);

/// A monotonic instant: time since the agent's process started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Mono(pub Duration);

impl Mono {
    /// Time from `earlier` to `self`; zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Mono) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// The instant `by` later.
    #[must_use]
    pub fn plus(self, by: Duration) -> Mono {
        Mono(self.0.saturating_add(by))
    }
}

/// Wall-clock time since the Unix epoch. Shown and stored, never trusted for a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Wall(pub Duration);

impl Wall {
    /// Seconds since the epoch.
    #[must_use]
    pub fn as_secs_f64(self) -> f64 {
        self.0.as_secs_f64()
    }

    /// RFC 3339 text in UTC with milliseconds.
    #[must_use]
    pub fn rfc3339(self) -> String {
        // What others wrote may be any number; the formatter knows no year after 9999.
        const LAST: Duration = Duration::from_secs(253_402_300_799);
        humantime::format_rfc3339_millis(std::time::UNIX_EPOCH + self.0.min(LAST)).to_string()
    }
}

/// Both clocks, read once per event by the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// For every verdict and deadline.
    pub mono: Mono,
    /// For people and for what outlives the process.
    pub wall: Wall,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_break_a_subject_are_refused() {
        for bad in ["", "a.b", "a b", "*", ">", "iad\n", "ü"] {
            assert!(HostName::new(bad).is_err(), "{bad:?}");
        }
        assert!(HostName::new(&"x".repeat(65)).is_err());
        assert_eq!(HostName::new("iad-1_a").unwrap().as_str(), "iad-1_a");
    }

    #[test]
    fn a_time_that_no_calendar_has_is_shown_as_its_last_second() {
        let never = Wall(Duration::from_secs(u64::MAX));
        assert_eq!(never.rfc3339(), "9999-12-31T23:59:59.000Z");
        assert_eq!(Wall::default().rfc3339(), "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn a_bad_name_is_refused_when_read_from_json_too() {
        assert!(serde_json::from_str::<Region>("\"a.b\"").is_err());
    }
}
