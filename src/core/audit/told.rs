//! A record as an event on `<prefix>.event.<region>.<host>`. Whose it is, the subject says, which permissions bind to
//! the host; a payload that says otherwise is not believed.

use serde::{Deserialize, Serialize};

use crate::core::ids::{HostName, Region};
use crate::core::view::Record;

/// Version of the wire form.
pub const VERSION: u32 = 1;
/// Largest event that is read, in bytes.
pub const MAX_BYTES: usize = 16 * 1024;

/// A record and whose it is: the line of `watchdog history --output json` too.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Told {
    /// Wire version, see [`VERSION`].
    pub v: u32,
    /// Whose agent.
    pub host: HostName,
    /// Where.
    pub region: Region,
    /// Records of this agent before this one that were not sent, since the last that was.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub missed: u64,
    /// What happened.
    #[serde(flatten)]
    pub record: Record,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the shape that serde asks for")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// Why a message is no event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ToldError {
    /// Not `<prefix>.event.<region>.<host>`.
    #[error("{0} is no event subject")]
    Subject(String),
    /// Not readable.
    #[error("the event on {subject} cannot be read: {what}")]
    Malformed {
        /// Where it came.
        subject: String,
        /// What is wrong.
        what: String,
    },
    /// Subject and payload name different hosts.
    #[error("the event on {subject} speaks for {host}, whom the subject does not name")]
    Forged {
        /// Where it came.
        subject: String,
        /// Whom the payload names.
        host: HostName,
    },
}

impl Told {
    /// A record of `host`.
    #[must_use]
    pub fn new(host: HostName, region: Region, record: Record) -> Self {
        Self {
            v: VERSION,
            host,
            region,
            missed: 0,
            record,
        }
    }

    /// Where events of `host` are published.
    #[must_use]
    pub fn subject(prefix: &str, region: &Region, host: &HostName) -> String {
        format!("{prefix}.event.{region}.{host}")
    }

    /// The wire form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads an event.
    ///
    /// # Errors
    /// Subject or payload are not of the documented shape, or do not go together.
    pub fn decode(prefix: &str, subject: &str, payload: &[u8]) -> Result<Self, ToldError> {
        let wrong = || ToldError::Subject(subject.to_owned());
        let (region, host) = subject
            .strip_prefix(prefix)
            .and_then(|rest| rest.strip_prefix(".event."))
            .and_then(|rest| rest.split_once('.'))
            .ok_or_else(wrong)?;
        let malformed = |what: String| ToldError::Malformed {
            subject: subject.to_owned(),
            what,
        };
        if payload.len() > MAX_BYTES {
            return Err(malformed(format!(
                "{} bytes, at most {MAX_BYTES} are read",
                payload.len()
            )));
        }
        let told: Self = serde_json::from_slice(payload).map_err(|e| malformed(e.to_string()))?;
        if told.host.as_str() != host || told.region.as_str() != region {
            return Err(ToldError::Forged {
                subject: subject.to_owned(),
                host: told.host,
            });
        }
        Ok(told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told() -> Told {
        let record = Record {
            at: 12.5,
            event: "act".to_owned(),
            subject: "route:a>b".to_owned(),
            text: "reset".to_owned(),
            ..Record::default()
        };
        Told::new(HostName::new("b").unwrap(), Region::new("iad").unwrap(), record)
    }

    #[test]
    fn an_event_reads_back_as_written_and_looks_as_documented() {
        let told = told();
        assert_eq!(
            String::from_utf8(told.encode()).unwrap(),
            r#"{"v":1,"host":"b","region":"iad","at":12.5,"event":"act","subject":"route:a>b","text":"reset"}"#
        );
        let subject = Told::subject("watchdog", &told.region, &told.host);
        assert_eq!(subject, "watchdog.event.iad.b");
        assert_eq!(Told::decode("watchdog", &subject, &told.encode()), Ok(told));
    }

    #[test]
    fn nobody_speaks_for_another() {
        let bytes = told().encode();
        for subject in ["watchdog.event.iad.a", "watchdog.event.fra.b"] {
            let error = Told::decode("watchdog", subject, &bytes).unwrap_err();
            assert!(matches!(error, ToldError::Forged { .. }), "{error}");
        }
        for subject in ["watchdog.event.b", "other.event.iad.b", "watchdog.canary.iad.b"] {
            let error = Told::decode("watchdog", subject, &bytes).unwrap_err();
            assert!(matches!(error, ToldError::Subject(_)), "{error}");
        }
        for bad in [b"".as_slice(), b"{}", &[b' '; MAX_BYTES + 1]] {
            let error = Told::decode("watchdog", "watchdog.event.iad.b", bad).unwrap_err();
            assert!(matches!(error, ToldError::Malformed { .. }), "{error}");
        }
    }
}
