//! Names and times as types, so that a region is never passed where a host is meant.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
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

/// The first bytes as a number that sorts as they do: no name holds the zeros that fill up a shorter one.
fn head(name: &str) -> u64 {
    let mut head = [0; 8];
    for (to, from) in head.iter_mut().zip(name.bytes()) {
        *to = from;
    }
    u64::from_be_bytes(head)
}

/// Does a head hold all of its name?
fn is_whole(head: u64) -> bool {
    head.to_be_bytes().ends_with(&[0])
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Eq, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name {
            /// See [`head`]: nearly all comparisons end here.
            head: u64,
            text: Arc<str>,
        }

        impl $name {
            /// Checks that `name` can stand as one token of a NATS subject.
            ///
            /// # Errors
            /// Says which character or length is wrong.
            pub fn new(name: &str) -> Result<Self, BadName> {
                check(name).map(|()| Self {
                    head: head(name),
                    text: name.into(),
                })
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.text
            }

            /// The first eight bytes as a number, filled up with zeros, and the rest.
            #[must_use]
            pub fn head_and_rest(&self) -> (u64, &[u8]) {
                match is_whole(self.head) {
                    true => (self.head, &[]),
                    false => (self.head, self.text.as_bytes().get(8..).unwrap_or_default()),
                }
            }
        }

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.cmp(other).is_eq()
            }
        }

        impl Hash for $name {
            fn hash<H: Hasher>(&self, state: &mut H) {
                self.text.hash(state);
            }
        }

        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }

        impl Ord for $name {
            fn cmp(&self, other: &Self) -> Ordering {
                match self.head.cmp(&other.head) {
                    Ordering::Equal if is_whole(self.head) || Arc::ptr_eq(&self.text, &other.text) => Ordering::Equal,
                    Ordering::Equal => self.text.cmp(&other.text),
                    differ => differ,
                }
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
                name.text.as_ref().to_owned()
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
                f.pad(&self.text)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.text, f)
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
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn names_sort_as_their_text_does(a in "[a-c-]{1,12}", b in "[a-c-]{1,12}") {
            let (x, y) = (HostName::new(&a).unwrap(), HostName::new(&b).unwrap());
            prop_assert_eq!(x.cmp(&y), a.cmp(&b));
            prop_assert_eq!(x == y, a == b);
        }
    }

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
