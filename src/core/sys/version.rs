//! What a version of nats-server does with the system account, as its source says.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A version of nats-server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerVersion {
    /// 2 in `2.10.26`.
    pub major: u16,
    /// 10 in `2.10.26`.
    pub minor: u16,
    /// 26 in `2.10.26`.
    pub patch: u16,
}

/// A version that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no version of nats-server; write it like 2.10.26")]
pub struct BadVersion(pub String);

impl ServerVersion {
    /// Of its three numbers.
    #[must_use]
    pub const fn new(major: u16, minor: u16, patch: u16) -> Self {
        Self { major, minor, patch }
    }

    /// Between two STATSZ of a server that has run for a while: `statsHBInterval`, which before 2.10.21 was
    /// `eventsHBInterval`.
    #[must_use]
    pub fn statsz_interval(self) -> Duration {
        Duration::from_secs(if self >= Self::new(2, 10, 21) { 10 } else { 30 })
    }

    /// Sends at most one STATSZ a second, whatever the reason (`limitStatsz`, PR 5470).
    #[must_use]
    pub fn limits_statsz(self) -> bool {
        self >= Self::new(2, 10, 17)
    }

    /// Has several connections per peer, and one of its own for each pinned account.
    #[must_use]
    pub fn pools_routes(self) -> bool {
        self >= Self::new(2, 10, 0)
    }

    /// Sends a CONNS of `$G` for each connection that is made, routes and clients of other accounts included
    /// (`addClient` before 2.10; later `accConnsUpdate` leaves `$G` out).
    #[must_use]
    pub fn tells_of_global(self) -> bool {
        self < Self::new(2, 10, 0)
    }
}

impl fmt::Display for ServerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl FromStr for ServerVersion {
    type Err = BadVersion;

    /// `2.10.26`, with or without a `v` before it or words after it (`2.15.0-dev`).
    fn from_str(text: &str) -> Result<Self, BadVersion> {
        let bad = || BadVersion(text.to_owned());
        let core = text.strip_prefix('v').unwrap_or(text);
        let core = core.split(['-', '+']).next().unwrap_or_default();
        let mut numbers = core.split('.').map(|n| n.parse::<u16>());
        let mut next = || numbers.next().and_then(Result::ok).ok_or_else(bad);
        let version = Self::new(next()?, next()?, next()?);
        if numbers.next().is_some() {
            return Err(bad());
        }
        Ok(version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_and_said_again() {
        for text in ["2.9.10", "2.10.26", "2.15.1"] {
            assert_eq!(text.parse::<ServerVersion>().unwrap().to_string(), text);
        }
        assert_eq!("v2.15.0-dev+x".parse(), Ok(ServerVersion::new(2, 15, 0)));
        for bad in ["", "2", "2.10", "2.10.x", "2.10.1.1", "-1.2.3", "2.10.99999", "two"] {
            let error = bad.parse::<ServerVersion>().unwrap_err().to_string();
            assert!(error.contains("2.10.26"), "{error}");
        }
    }

    #[test]
    fn versions_have_an_order_of_numbers_not_of_letters() {
        let of = |text: &str| text.parse::<ServerVersion>().unwrap();
        assert!(of("2.9.10") < of("2.10.0"));
        assert!(of("2.10.9") < of("2.10.26"));
        assert_eq!(of("2.10.20").statsz_interval(), Duration::from_secs(30));
        assert_eq!(of("2.10.21").statsz_interval(), Duration::from_secs(10));
        assert!(!of("2.10.16").limits_statsz() && of("2.10.17").limits_statsz());
        assert!(of("2.9.25").tells_of_global() && !of("2.10.0").tells_of_global());
    }
}
