//! The control protocol: what one asks an agent on `<prefix>.control.<host>`, and what it answers.
//!
//! Lives here: the JSON shapes, their version, and the rules on who may command when ([`guard`]). Not here: the
//! signature itself and the subscription (`adapters::nats::control`), nor what an agent does with a command.
//!
//! A request is an [`Envelope`]. Its `command` is JSON *as text*, so that what was signed is what is read, byte by byte.
//! Reading verbs go unsigned; verbs that act do not. A field that changes what an old agent would do wants a new verb
//! or a new version, since unknown fields are ignored.

pub mod args;
pub mod guard;
pub mod roll;
pub mod status;

use serde::{Deserialize, Serialize};

use crate::core::ids::{HostName, Region};
use crate::core::view::{Record, Verdict};

pub use args::{Arg, Args};
pub use guard::{NonceMemory, Refusal, Watermark};
pub use roll::{LameDuck, RestartFacts, RestartOrder};
pub use status::{Beside, HostStatus, LastCommand, Stage};

/// Version of the wire form.
pub const VERSION: u32 = 1;
/// Version of a command with arguments: an agent that would ignore them must not take it, and cannot, since the version
/// is part of what is signed. The highest that is read.
pub const VERSION_ARGS: u32 = 2;
/// Most records in one answer to `history`.
pub const MAX_RECORDS: usize = 1000;
/// Largest request that is read, in bytes: the record of a rollout of 900 hosts has 110 KiB.
pub const MAX_BYTES: usize = 256 * 1024;

/// The subject on which the agent of `host` takes requests.
#[must_use]
pub fn subject(prefix: &str, host: &HostName) -> String {
    format!("{prefix}.control.{host}")
}

/// A request as it travels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// Wire version: [`VERSION`], or [`VERSION_ARGS`] where there are arguments.
    pub v: u32,
    /// A [`Command`] as JSON text.
    pub command: String,
    /// The operator's public NKEY (`U…`); empty = unsigned.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub key: String,
    /// Ed25519 over [`signed_bytes`], base64url without padding; empty = unsigned.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sig: String,
}

impl Envelope {
    /// An unsigned request, for reading verbs.
    #[must_use]
    pub fn unsigned(command: &Command) -> Self {
        Self {
            v: command.version(),
            command: command.text(),
            key: String::new(),
            sig: String::new(),
        }
    }

    /// The wire form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads a request.
    ///
    /// # Errors
    /// Too large, malformed, or of a later version.
    pub fn decode(payload: &[u8]) -> Result<Self, Refusal> {
        #[derive(Deserialize)]
        struct Version {
            v: u32,
        }
        if payload.len() > MAX_BYTES {
            return Err(Refusal::Malformed(format!(
                "{} bytes, at most {MAX_BYTES} are read",
                payload.len()
            )));
        }
        match serde_json::from_slice::<Version>(payload) {
            Ok(Version { v }) if v > VERSION_ARGS => return Err(Refusal::FutureVersion(v)),
            _ => {}
        }
        serde_json::from_slice(payload).map_err(|e| Refusal::Malformed(e.to_string()))
    }
}

/// What the signature covers. The leading byte can stand in no UTF-8 text, so no server can get an operator's key to
/// sign a command by sending it as the nonce of a login.
#[must_use]
pub fn signed_bytes(v: u32, command: &str) -> Vec<u8> {
    let domain = format!("watchdog.control.v{v}\n");
    [b"\xff".as_slice(), domain.as_bytes(), command.as_bytes()].concat()
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case")]
pub enum Verb {
    /// How is the host? Answer: [`Answer::Status`].
    Status,
    /// Does the host hear another? Answer: [`Answer::Hears`].
    Hears {
        /// The other.
        source: HostName,
    },
    /// What was decided and done there? Answer: [`Answer::History`].
    History {
        /// The newest so many; `None` = [`MAX_RECORDS`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limit: Option<usize>,
        /// Only what is not older than this, Unix milliseconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        since_ms: Option<u64>,
    },
    /// Restart the local server. Answer: [`Answer::Accepted`] or [`Answer::Refused`]; then watch `status`.
    Restart,
    /// A rollout begins, or has come further: keep its record and take no other. Answer: [`Answer::Accepted`] or
    /// [`Answer::Refused`].
    Open {
        /// The rollout.
        record: Box<roll::Record>,
    },
    /// The rollout named in [`Command::rollout`] is over or given up: forget it.
    Close,
    /// Try anew what was given up there, or held as come back too often. Answer: [`Answer::Accepted`].
    Resume,
    /// Which rollout is open? Answer: [`Answer::Rollout`].
    Rollout,
}

impl Verb {
    /// It changes something, so it must be signed.
    #[must_use]
    pub fn acts(&self) -> bool {
        match self {
            Self::Status | Self::Hears { .. } | Self::History { .. } | Self::Rollout => false,
            Self::Restart | Self::Open { .. } | Self::Close | Self::Resume => true,
        }
    }

    /// The name on the wire.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Hears { .. } => "hears",
            Self::History { .. } => "history",
            Self::Restart => "restart",
            Self::Open { .. } => "open",
            Self::Close => "close",
            Self::Resume => "resume",
            Self::Rollout => "rollout",
        }
    }
}

/// One command to one host. Times are Unix milliseconds by the operator's clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// The host it is for; an agent refuses what is for another.
    pub host: HostName,
    /// What to do.
    #[serde(flatten)]
    pub verb: Verb,
    /// What else the verb is told, see [`args`].
    #[serde(default, skip_serializing_if = "Args::is_empty")]
    pub args: Args,
    /// The rollout it belongs to; comes back in [`LastCommand`].
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub rollout: String,
    /// Never used twice.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub nonce: String,
    /// When it was made.
    #[serde(default)]
    pub issued_ms: u64,
    /// Void from then on.
    #[serde(default)]
    pub expires_ms: u64,
    /// Why, in the operator's words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Who, as `user@machine`; informative, the key is what counts.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub by: String,
}

impl Command {
    /// A reading command, which needs no nonce and no times.
    #[must_use]
    pub fn read(host: HostName, verb: Verb) -> Self {
        Self {
            host,
            verb,
            args: Args::default(),
            rollout: String::new(),
            nonce: String::new(),
            issued_ms: 0,
            expires_ms: 0,
            reason: String::new(),
            by: String::new(),
        }
    }

    /// The wire version that it needs.
    #[must_use]
    pub fn version(&self) -> u32 {
        if self.args.is_empty() { VERSION } else { VERSION_ARGS }
    }

    /// The JSON text that is signed and sent.
    #[must_use]
    pub fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// An answer as it travels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// Wire version, see [`VERSION`].
    pub v: u32,
    /// Who answers.
    pub host: HostName,
    /// What.
    #[serde(flatten)]
    pub answer: Answer,
}

impl Reply {
    /// The wire form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// What an agent answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", content = "body", rename_all = "snake_case")]
pub enum Answer {
    /// To `status`.
    Status(Box<HostStatus>),
    /// To `hears`.
    Hears(Hearing),
    /// To `rollout`: the record of the one that is open.
    Rollout(Option<Box<roll::Record>>),
    /// To `history`.
    History(Page),
    /// The command was taken on; it is not done yet.
    Accepted {
        /// The rollout of the command.
        rollout: String,
    },
    /// It was not, and nothing was done.
    Refused {
        /// A short constant, see [`Refusal::gate`] and the agent's gates.
        gate: String,
        /// A sentence for the operator.
        text: String,
    },
}

impl Answer {
    /// The refusal of a request that did not pass [`guard`].
    #[must_use]
    pub fn refused(refusal: &Refusal) -> Self {
        Self::Refused {
            gate: refusal.gate().to_owned(),
            text: refusal.to_string(),
        }
    }
}

/// Whether one host hears another, by the one that should.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hearing {
    /// The host heard or not.
    pub source: HostName,
    /// The worst verdict of all lanes; `None` = not known there.
    pub verdict: Option<Verdict>,
    /// Age of its last beacon on that lane, in milliseconds; `None` = never heard by this process.
    pub age_ms: Option<u64>,
    /// The lane of the worst verdict.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub lane: String,
}

/// What an agent remembers, oldest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Page {
    /// Its region.
    pub region: Region,
    /// The records.
    pub records: Vec<Record>,
    /// Older ones that were asked for and did not fit in.
    #[serde(default)]
    pub left_out: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str) -> HostName {
        HostName::new(name).unwrap()
    }

    #[test]
    fn a_command_reads_back_as_written_and_looks_as_documented() {
        let mut command = Command::read(host("iad-1"), Verb::Restart);
        command.nonce = "n1".to_owned();
        command.expires_ms = 31;
        assert_eq!(
            command.text(),
            r#"{"host":"iad-1","verb":"restart","nonce":"n1","issued_ms":0,"expires_ms":31}"#
        );
        assert_eq!(serde_json::from_str::<Command>(&command.text()).unwrap(), command);
        let hears = Command::read(host("a"), Verb::Hears { source: host("b") });
        assert_eq!(serde_json::from_str::<Command>(&hears.text()).unwrap(), hears);
    }

    #[test]
    fn an_answer_reads_back_as_written() {
        for answer in [
            Answer::Status(Box::new(status::tests::status("a"))),
            Answer::Hears(Hearing {
                source: host("b"),
                verdict: Some(Verdict::Ok),
                age_ms: Some(3),
                lane: "main".to_owned(),
            }),
            Answer::Accepted {
                rollout: "r".to_owned(),
            },
            Answer::History(Page {
                region: Region::new("iad").unwrap(),
                records: vec![Record::default()],
                left_out: 1,
            }),
            Answer::refused(&Refusal::NoOperators),
        ] {
            let reply = Reply {
                v: VERSION,
                host: host("a"),
                answer,
            };
            assert_eq!(serde_json::from_slice::<Reply>(&reply.encode()).unwrap(), reply);
        }
    }

    #[test]
    fn a_later_version_is_refused_by_its_number() {
        assert_eq!(
            Envelope::decode(br#"{"v":3,"shape":"new"}"#),
            Err(Refusal::FutureVersion(3))
        );
        for bad in [b"".as_slice(), b"\xff", b"{}", b"[]", &[b' '; MAX_BYTES + 1]] {
            assert_eq!(Envelope::decode(bad).unwrap_err().gate(), "malformed");
        }
    }

    #[test]
    fn no_login_nonce_can_be_a_signed_command() {
        assert!(String::from_utf8(signed_bytes(VERSION, "{}")).is_err());
    }

    #[test]
    fn arguments_raise_the_version_so_that_no_older_agent_takes_the_command_without_them() {
        let mut command = Command::read(host("a"), Verb::Restart);
        assert_eq!(Envelope::unsigned(&command).v, 1);
        command.args = Args::default().with("hook", Arg::Text("upgrade".to_owned()));
        assert_eq!(Envelope::unsigned(&command).v, 2);
        assert_ne!(signed_bytes(1, &command.text()), signed_bytes(2, &command.text()));
        assert_eq!(serde_json::from_str::<Command>(&command.text()).unwrap(), command);
    }
}
