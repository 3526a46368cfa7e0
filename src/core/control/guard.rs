//! Who may command an agent, and when: key, host, time, nonce. The signature is checked by the adapter in between.
//!
//! **Replay.** A nonce is kept until the memory is full or the command is long void; what is dropped raises a *floor*:
//! nothing issued at or before the floor is taken. So the memory is bounded, a full one refuses rather than forgets,
//! and a clock that jumps back opens nothing. A fresh process knows no nonce, hence its floor starts at its start plus
//! the tolerated skew: for the first [`SKEW`] after its start an agent takes no command (it says so). The clock may have
//! been set back between two processes, so the floor also starts at the newest command that was ever taken
//! ([`Watermark`], kept on disk).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Command, Envelope, args};
use crate::core::audit::{Who, harmless};
use crate::core::ids::{HostName, Wall};

/// How far the operator's clock may be off.
pub const SKEW: Duration = Duration::from_secs(10);
/// How long a command is valid unless the operator says otherwise.
pub const EXPIRY: Duration = Duration::from_secs(30);
/// Longest accepted validity.
pub const MAX_LIFETIME: Duration = Duration::from_secs(300);
/// Nonces kept.
pub const MAX_NONCES: usize = 1024;
/// Longest accepted nonce, in bytes.
pub const MAX_NONCE: usize = 64;

/// Why a request was not taken. Nothing was done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not of the documented shape.
    #[error("malformed control request: {0}")]
    Malformed(String),
    /// A newer command speaks.
    #[error(
        "control request of version {0}, this agent reads up to {ver}; upgrade the agent",
        ver = super::VERSION_ARGS
    )]
    FutureVersion(u32),
    /// Nobody may command this agent.
    #[error(
        "no operators configured: add control.operators = [\"U…\"] with the operator's public key to this agent's configuration"
    )]
    NoOperators,
    /// A verb that acts came without key or signature.
    #[error("command {verb:?} is not signed; give the operator's seed with --operator FILE")]
    Unsigned {
        /// The verb.
        verb: &'static str,
    },
    /// Signed by somebody else.
    #[error("key {key} is not in control.operators of {host}")]
    UnknownKey {
        /// The key as given, cut short if it is no key.
        key: String,
        /// This host.
        host: HostName,
    },
    /// Key and text do not go together.
    #[error("the signature of {key} does not fit the command; it was changed or signed otherwise")]
    BadSignature {
        /// The key.
        key: String,
    },
    /// For another host.
    #[error("command is for host {addressed}, this is {host}")]
    OtherHost {
        /// Whom it is for.
        addressed: HostName,
        /// This host.
        host: HostName,
    },
    /// Too late.
    #[error("command expired {ago:?} ago by this host's clock; send it again, and compare the clocks if it repeats")]
    Expired {
        /// How long ago.
        ago: Duration,
    },
    /// Issued in the future, beyond [`SKEW`].
    #[error(
        "command was issued {ahead:?} in the future by this host's clock, {SKEW:?} are tolerated; compare the clocks"
    )]
    FromTheFuture {
        /// How far.
        ahead: Duration,
    },
    /// Valid longer than [`MAX_LIFETIME`], or ends before it begins.
    #[error("command is valid for {lifetime:?}; at most {MAX_LIFETIME:?} are accepted, and more than none")]
    Lifetime {
        /// Its validity.
        lifetime: Duration,
    },
    /// No nonce, or too long a one.
    #[error("command has a nonce of {0} bytes; 1 to {MAX_NONCE} are accepted")]
    BadNonce(usize),
    /// The nonce was seen.
    #[error("command was taken before; nothing is done twice")]
    Replayed,
    /// An argument that this build does not carry out as it is meant.
    #[error("argument {name:?} of {verb}: {what}")]
    Argument {
        /// The verb.
        verb: &'static str,
        /// Which argument.
        name: String,
        /// What is wrong with it.
        what: String,
    },
    /// The clock is behind what was taken before.
    #[error(
        "this host's clock is {behind:?} behind the newest command it has taken; set the clock right, or, if it was wrong \
         then, stop the agent and remove control.json from its state directory"
    )]
    ClockWentBack {
        /// How far.
        behind: Duration,
    },
    /// Issued when this agent did not keep nonces, or so long ago that they are dropped.
    #[error("command is older than what this agent remembers (it takes none in its first {SKEW:?}); send it again")]
    BeforeMemory,
}

impl Refusal {
    /// A short constant for [`super::Answer::Refused`] and for labels.
    #[must_use]
    pub fn gate(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::FutureVersion(_) => "future_version",
            Self::NoOperators => "no_operators",
            Self::Unsigned { .. } => "unsigned",
            Self::UnknownKey { .. } => "unknown_key",
            Self::BadSignature { .. } => "bad_signature",
            Self::OtherHost { .. } => "other_host",
            Self::Expired { .. } => "expired",
            Self::FromTheFuture { .. } => "clock",
            Self::Lifetime { .. } => "lifetime",
            Self::BadNonce(_) => "nonce",
            Self::Replayed => "replayed",
            Self::BeforeMemory => "before_memory",
            Self::Argument { .. } => "argument",
            Self::ClockWentBack { .. } => "clock_went_back",
        }
    }

    /// Every [`Self::gate`], for the metric.
    pub const GATES: [&'static str; 15] = [
        "malformed",
        "future_version",
        "no_operators",
        "unsigned",
        "unknown_key",
        "bad_signature",
        "other_host",
        "expired",
        "clock",
        "lifetime",
        "nonce",
        "replayed",
        "before_memory",
        "argument",
        "clock_went_back",
    ];
}

/// The newest command that was ever taken, as kept in `control.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Watermark {
    /// Its `issued_ms`.
    pub issued_ms: u64,
}

/// The nonces this agent has seen.
#[derive(Debug, Clone)]
pub struct NonceMemory {
    floor_ms: u64,
    seen: BTreeMap<u64, BTreeSet<String>>,
    count: usize,
}

impl NonceMemory {
    /// The empty memory of an agent that started at `start`.
    #[must_use]
    pub fn new(start: Wall) -> Self {
        Self::restored(start, Watermark::default())
    }

    /// The same where commands up to `taken` had been taken by earlier processes.
    #[must_use]
    pub fn restored(start: Wall, taken: Watermark) -> Self {
        Self {
            floor_ms: millis(start.0.saturating_add(SKEW)).max(taken.issued_ms),
            seen: BTreeMap::new(),
            count: 0,
        }
    }

    /// What to keep on disk, before anything is done.
    #[must_use]
    pub fn watermark(&self) -> Watermark {
        let newest = self.seen.last_key_value().map_or(0, |(issued, _)| *issued);
        Watermark {
            issued_ms: newest.max(self.floor_ms),
        }
    }

    fn take(&mut self, command: &Command, now_ms: u64) -> Result<(), Refusal> {
        let void_before = now_ms.saturating_sub(millis(MAX_LIFETIME + 2 * SKEW));
        while let Some((&oldest, _)) = self.seen.first_key_value() {
            if oldest >= void_before && self.count < MAX_NONCES {
                break;
            }
            self.count -= self.seen.remove(&oldest).map_or(0, |nonces| nonces.len());
            self.floor_ms = self.floor_ms.max(oldest);
        }
        if command.issued_ms <= self.floor_ms {
            let behind = self.floor_ms.saturating_sub(now_ms.saturating_add(millis(SKEW)));
            return Err(match behind {
                0 => Refusal::BeforeMemory,
                ms => Refusal::ClockWentBack {
                    behind: Duration::from_millis(ms),
                },
            });
        }
        let nonces = self.seen.entry(command.issued_ms).or_default();
        if !nonces.insert(command.nonce.clone()) {
            return Err(Refusal::Replayed);
        }
        self.count += 1;
        Ok(())
    }
}

/// Reads the command of an envelope, and says whether its signature is still to be checked ([`Verb::acts`]).
///
/// [`Verb::acts`]: super::Verb::acts
///
/// # Errors
/// The command is malformed or for another host, or its key is not an operator's.
pub fn screen(envelope: &Envelope, operators: &[String], host: &HostName) -> Result<Command, Refusal> {
    let command: Command = serde_json::from_str(&envelope.command)
        .map_err(|e| Refusal::Malformed(harmless(&format!("its command: {e}"))))?;
    if command.verb.acts() {
        if operators.is_empty() {
            return Err(Refusal::NoOperators);
        }
        if envelope.key.is_empty() || envelope.sig.is_empty() {
            return Err(Refusal::Unsigned {
                verb: command.verb.name(),
            });
        }
        if !operators.contains(&envelope.key) {
            return Err(Refusal::UnknownKey {
                key: harmless(&envelope.key.chars().take(56).collect::<String>()),
                host: host.clone(),
            });
        }
    }
    if command.host != *host {
        return Err(Refusal::OtherHost {
            addressed: command.host,
            host: host.clone(),
        });
    }
    Ok(command)
}

/// Who an envelope says it is from; nothing of it is proved.
#[must_use]
pub fn claimed(payload: &[u8]) -> Who {
    let envelope = Envelope::decode(payload).ok();
    let command: Option<Command> = envelope.as_ref().and_then(|e| serde_json::from_str(&e.command).ok());
    let by = command.map_or_else(String::new, |c| c.by);
    let key: String = envelope.map_or_else(String::new, |e| e.key.chars().take(56).collect());
    Who::stranger(&by, &key)
}

/// Takes a command whose signature is good, once, if its time is right.
///
/// # Errors
/// Expired, from the future, valid too long, or seen before.
pub fn admit(command: &Command, now: Wall, memory: &mut NonceMemory) -> Result<(), Refusal> {
    args::check(command)?;
    let (now_ms, skew) = (millis(now.0), millis(SKEW));
    let lifetime = Duration::from_millis(command.expires_ms.saturating_sub(command.issued_ms));
    if lifetime.is_zero() || lifetime > MAX_LIFETIME {
        return Err(Refusal::Lifetime { lifetime });
    }
    if now_ms >= command.expires_ms.saturating_add(skew) {
        return Err(Refusal::Expired {
            ago: Duration::from_millis(now_ms - command.expires_ms),
        });
    }
    if command.issued_ms > now_ms.saturating_add(skew) {
        return Err(Refusal::FromTheFuture {
            ahead: Duration::from_millis(command.issued_ms - now_ms),
        });
    }
    if command.nonce.is_empty() || command.nonce.len() > MAX_NONCE {
        return Err(Refusal::BadNonce(command.nonce.len()));
    }
    memory.take(command, now_ms)
}

fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Verb;
    use super::*;

    const START: u64 = 1_000_000;

    fn wall(ms: u64) -> Wall {
        Wall(Duration::from_millis(ms))
    }

    fn command(nonce: &str, issued_ms: u64) -> Command {
        let mut c = Command::read(HostName::new("a").unwrap(), Verb::Restart);
        c.nonce = nonce.to_owned();
        c.issued_ms = issued_ms;
        c.expires_ms = issued_ms + 30_000;
        c
    }

    #[test]
    fn a_command_is_taken_once() {
        let mut memory = NonceMemory::new(wall(START));
        let c = command("n", START + 20_000);
        assert_eq!(admit(&c, wall(START + 20_000), &mut memory), Ok(()));
        assert_eq!(admit(&c, wall(START + 21_000), &mut memory), Err(Refusal::Replayed));
    }

    #[test]
    fn time_is_checked_on_both_sides_with_tolerance() {
        let t = START + 60_000;
        let at = |now: u64| admit(&command("n", t), wall(now), &mut NonceMemory::new(wall(START)));
        assert_eq!(at(t - 10_000), Ok(()));
        assert_eq!(at(t - 10_001).unwrap_err().gate(), "clock");
        assert_eq!(at(t + 39_999), Ok(()));
        assert_eq!(at(t + 40_000).unwrap_err().gate(), "expired");
    }

    #[test]
    fn a_command_that_never_ends_is_refused() {
        let mut c = command("n", START + 60_000);
        let mut memory = NonceMemory::new(wall(START));
        c.expires_ms = u64::MAX;
        let r = admit(&c, wall(START + 60_000), &mut memory);
        assert_eq!(r.unwrap_err().gate(), "lifetime");
        c.expires_ms = 1;
        let r = admit(&c, wall(START + 60_000), &mut memory);
        assert_eq!(r.unwrap_err().gate(), "lifetime");
    }

    #[test]
    fn a_restarted_agent_takes_nothing_that_it_may_have_taken_before() {
        let c = command("n", START + 10_000);
        let mut fresh = NonceMemory::new(wall(START));
        assert_eq!(admit(&c, wall(START + 1), &mut fresh), Err(Refusal::BeforeMemory));
        let later = command("n", START + 10_001);
        assert_eq!(admit(&later, wall(START + 10_001), &mut fresh), Ok(()));
    }

    #[test]
    fn a_clock_set_back_between_two_processes_opens_nothing() {
        let c = command("n", START + 3_600_000);
        let mut memory = NonceMemory::new(wall(START));
        admit(&c, wall(START + 3_600_000), &mut memory).unwrap();
        let kept = memory.watermark();
        assert_eq!(kept.issued_ms, c.issued_ms);
        // An hour back, and a new process: by its clock the command is from the future, and later it would be fresh.
        let mut next = NonceMemory::restored(wall(START), kept);
        let again = admit(&c, wall(START + 3_600_000), &mut next);
        assert_eq!(again, Err(Refusal::BeforeMemory));
        let other = command("m", START + 60_000);
        let refusal = admit(&other, wall(START + 60_000), &mut next).unwrap_err();
        assert_eq!(refusal.gate(), "clock_went_back");
        assert!(refusal.to_string().contains("control.json"), "{refusal}");
        let newer = command("n", START + 3_600_001);
        assert_eq!(admit(&newer, wall(START + 3_600_001), &mut next), Ok(()));
    }

    #[test]
    fn screening_names_the_first_thing_that_is_wrong() {
        let host = HostName::new("a").unwrap();
        let mut e = Envelope::unsigned(&command("n", 1));
        let gate = |e: &Envelope, ops: &[String]| screen(e, ops, &host).map_err(|r| r.gate()).err();
        let ops = vec!["UOP".to_owned()];
        assert_eq!(gate(&e, &[]), Some("no_operators"));
        assert_eq!(gate(&e, &ops), Some("unsigned"));
        (e.key, e.sig) = ("UEVIL".to_owned(), "x".to_owned());
        assert_eq!(gate(&e, &ops), Some("unknown_key"));
        e.key = "UOP".to_owned();
        assert_eq!(gate(&e, &ops), None);
        let other = Command::read(HostName::new("b").unwrap(), Verb::Status);
        assert_eq!(gate(&Envelope::unsigned(&other), &[]), Some("other_host"));
        e.command = "{".to_owned();
        assert_eq!(gate(&e, &ops), Some("malformed"));
    }

    #[test]
    fn reading_needs_no_operator() {
        let host = HostName::new("a").unwrap();
        let e = Envelope::unsigned(&Command::read(host.clone(), Verb::Status));
        assert_eq!(screen(&e, &[], &host).unwrap().verb, Verb::Status);
    }

    proptest! {
        /// Whatever the order, the clock's jumps and the number of commands: nothing is taken twice, and the memory is bounded.
        #[test]
        fn nothing_is_ever_taken_twice(
            steps in prop::collection::vec((0_u64..40, 0_u64..900_000, 0_u64..900_000), 1..400)
        ) {
            let mut memory = NonceMemory::new(wall(START));
            let mut taken = BTreeSet::new();
            for (nonce, issued, now) in steps {
                let issued = START + issued / 20_000 * 20_000;
                let c = command(&nonce.to_string(), issued);
                if admit(&c, wall(START + now), &mut memory).is_ok() {
                    prop_assert!(taken.insert((nonce, issued)), "taken twice");
                }
                prop_assert!(memory.count <= MAX_NONCES);
            }
        }
    }

    #[test]
    fn a_full_memory_stays_bounded_and_refuses_the_old() {
        let mut memory = NonceMemory::new(wall(START));
        let first = command("x", START + 20_000);
        admit(&first, wall(START + 20_000), &mut memory).unwrap();
        for i in 0..(2 * MAX_NONCES as u64) {
            let c = command("x", START + 20_001 + i);
            admit(&c, wall(START + 25_000), &mut memory).unwrap();
            assert!(memory.count <= MAX_NONCES);
        }
        assert_eq!(
            admit(&first, wall(START + 25_000), &mut memory),
            Err(Refusal::BeforeMemory)
        );
    }
}
