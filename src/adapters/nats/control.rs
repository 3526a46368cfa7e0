//! The control protocol on the wire: signing and asking on the operator's side, checking and serving on the agent's.
//!
//! What may be commanded and when is `core::control::guard`; here is the signature (Ed25519 by NKEYs) and NATS.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_nats::{Client, Message, Request, Subscriber};
use bytes::Bytes;
use data_encoding::BASE64URL_NOPAD;
use futures_util::StreamExt;
use nkeys::{KeyPair, KeyPairType};

use crate::core::control::{
    Answer, Command, Envelope, NonceMemory, Refusal, Reply, VERSION, Verb, guard, signed_bytes, subject,
};
use crate::core::ids::{HostName, Wall};

/// Largest seed file that is read, in bytes.
const MAX_SEED_FILE: u64 = 64 * 1024;

/// Why there is no operator's key.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    /// The file.
    #[error("cannot read the operator's seed from {}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// What stands in it.
    #[error(
        "{} holds no user seed (a line that begins with SU); make one with `nk -gen user`",
        .0.display()
    )]
    NotASeed(PathBuf),
}

/// An operator's key, able to sign.
#[derive(Debug, Clone)]
pub struct Operator(KeyPair);

impl Operator {
    /// Reads a seed from a file: one line `SU…`, among others if need be (as in a creds file).
    ///
    /// # Errors
    /// The file is not readable or holds no user seed. The seed is never part of the text.
    pub fn from_file(path: &Path) -> Result<Self, SeedError> {
        let read = |source| SeedError::Read {
            path: path.to_owned(),
            source,
        };
        let bad = || SeedError::NotASeed(path.to_owned());
        if std::fs::metadata(path).map_err(read)?.len() > MAX_SEED_FILE {
            return Err(bad());
        }
        let text = std::fs::read_to_string(path).map_err(read)?;
        text.lines()
            .map(str::trim)
            .find(|line| line.starts_with("SU"))
            .and_then(Self::from_seed)
            .ok_or_else(bad)
    }

    /// A user seed; `None` if it is none.
    #[must_use]
    pub fn from_seed(seed: &str) -> Option<Self> {
        let pair = KeyPair::from_seed(seed).ok()?;
        (pair.key_pair_type() == KeyPairType::User).then_some(Self(pair))
    }

    /// The public key, as it stands in `control.operators`.
    #[must_use]
    pub fn public_key(&self) -> String {
        self.0.public_key()
    }

    /// Signs a command.
    #[must_use]
    pub fn sign(&self, command: &Command) -> Envelope {
        let text = command.text();
        // A pair made from a seed always signs; were it otherwise, the agent refuses the empty signature.
        let v = command.version();
        let sig = self.0.sign(&signed_bytes(v, &text)).unwrap_or_default();
        Envelope {
            v,
            command: text,
            key: self.public_key(),
            sig: BASE64URL_NOPAD.encode(&sig),
        }
    }
}

/// A request that passed, and the key that proved it; empty for verbs that only read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// What to do.
    pub command: Command,
    /// The operator's public key.
    pub key: String,
}

/// Takes a request that came to the agent of `host`: shape, key, host, signature, arguments, times, nonce, in this order.
/// A command that is returned is the agent's to carry out; its nonce is spent.
///
/// # Errors
/// See [`Refusal`]; answer with [`Answer::refused`].
pub fn verify(
    payload: &[u8],
    now: Wall,
    operators: &[String],
    memory: &mut NonceMemory,
    host: &HostName,
) -> Result<Verified, Refusal> {
    let envelope = Envelope::decode(payload)?;
    let command = guard::screen(&envelope, operators, host)?;
    if command.verb.acts() {
        let genuine = BASE64URL_NOPAD
            .decode(envelope.sig.as_bytes())
            .ok()
            .zip(KeyPair::from_public_key(&envelope.key).ok())
            .filter(|(_, key)| key.key_pair_type() == KeyPairType::User)
            .is_some_and(|(sig, key)| key.verify(&signed_bytes(envelope.v, &envelope.command), &sig).is_ok());
        if !genuine {
            return Err(Refusal::BadSignature { key: envelope.key });
        }
        guard::admit(&command, now, memory)?;
        return Ok(Verified {
            command,
            key: envelope.key,
        });
    }
    Ok(Verified {
        command,
        key: String::new(),
    })
}

/// Whether `key` can stand in `control.operators`: the public half of a user key.
#[must_use]
pub fn is_operator_key(key: &str) -> bool {
    KeyPair::from_public_key(key).is_ok_and(|pair| pair.key_pair_type() == KeyPairType::User)
}

/// Why an agent was not asked, or did not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// Nothing is subscribed.
    #[error("no agent listens on {0} (stopped, in another account, or cut off)")]
    NoResponders(String),
    /// Nothing came.
    #[error("no answer on {subject} within {after:?}")]
    Timeout {
        /// Where.
        subject: String,
        /// The limit.
        after: Duration,
    },
    /// The connection.
    #[error("cannot ask on {subject}: {error}")]
    Nats {
        /// Where.
        subject: String,
        /// The client's words.
        error: String,
    },
    /// Something else came.
    #[error("the answer on {subject} is not one of this version: {what}")]
    Answer {
        /// Where.
        subject: String,
        /// What.
        what: String,
    },
}

/// Sends a request to the agent of `host` and waits for its answer.
///
/// # Errors
/// See [`AskError`]. Except for [`AskError::NoResponders`], a command may have been taken all the same.
pub async fn ask(
    client: &Client,
    prefix: &str,
    host: &HostName,
    envelope: &Envelope,
    within: Duration,
) -> Result<Answer, AskError> {
    use async_nats::RequestErrorKind as Kind;

    let subject = subject(prefix, host);
    let timeout = || AskError::Timeout {
        subject: subject.clone(),
        after: within,
    };
    let request = Request::new().payload(envelope.encode().into()).timeout(None);
    // The client's own timeout starts after the send, which blocks while it is not connected.
    let sent = tokio::time::timeout(within, client.send_request(subject.clone(), request)).await;
    let message = sent.map_err(|_| timeout())?.map_err(|e| match e.kind() {
        Kind::NoResponders => AskError::NoResponders(subject.clone()),
        Kind::TimedOut => timeout(),
        _ => AskError::Nats {
            subject: subject.clone(),
            error: e.to_string(),
        },
    })?;
    let wrong = |what| AskError::Answer {
        subject: subject.clone(),
        what,
    };
    let reply: Reply = serde_json::from_slice(&message.payload).map_err(|e| wrong(e.to_string()))?;
    if reply.host != *host {
        return Err(wrong(format!("{} answers for {host}", reply.host)));
    }
    Ok(reply.answer)
}

/// Asks without a signature, for verbs that only read.
///
/// # Errors
/// See [`ask`].
pub async fn read(
    client: &Client,
    prefix: &str,
    host: &HostName,
    verb: Verb,
    within: Duration,
) -> Result<Answer, AskError> {
    let envelope = Envelope::unsigned(&Command::read(host.clone(), verb));
    ask(client, prefix, host, &envelope, within).await
}

/// The agent's end: requests as they come.
pub struct Service {
    client: Client,
    host: HostName,
    requests: Subscriber,
}

/// One request; to be answered once.
pub struct Incoming {
    /// What came; hand it to [`verify`].
    pub payload: Bytes,
    host: HostName,
    client: Client,
    reply: Option<async_nats::Subject>,
}

impl Service {
    /// Listens for requests to `host`.
    ///
    /// # Errors
    /// The client's words; the subject is part of them.
    pub async fn listen(client: Client, prefix: &str, host: &HostName) -> Result<Self, AskError> {
        let subject = subject(prefix, host);
        let requests = client.subscribe(subject.clone()).await.map_err(|e| AskError::Nats {
            subject,
            error: e.to_string(),
        })?;
        Ok(Self {
            client,
            host: host.clone(),
            requests,
        })
    }

    /// The next request; `None` when the client is closed. Safe to drop and call again.
    pub async fn next(&mut self) -> Option<Incoming> {
        let Message { payload, reply, .. } = self.requests.next().await?;
        Some(Incoming {
            payload,
            host: self.host.clone(),
            client: self.client.clone(),
            reply,
        })
    }
}

impl Incoming {
    /// Answers, where an answer is wanted.
    ///
    /// # Errors
    /// The client's words.
    pub async fn answer(self, answer: Answer) -> Result<(), AskError> {
        let Some(subject) = self.reply else {
            return Ok(());
        };
        let reply = Reply {
            v: VERSION,
            host: self.host,
            answer,
        };
        let nats = |error: String| AskError::Nats {
            subject: subject.to_string(),
            error,
        };
        self.client
            .publish(subject.clone(), reply.encode().into())
            .await
            .map_err(|e| nats(e.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::control::{Arg, Args};

    fn host(name: &str) -> HostName {
        HostName::new(name).unwrap()
    }

    fn wall(secs: u64) -> Wall {
        Wall(Duration::from_secs(secs))
    }

    fn operator() -> Operator {
        Operator(KeyPair::new_user())
    }

    fn restart(of: &str) -> Command {
        let mut c = Command::read(host(of), Verb::Restart);
        c.nonce = "n".to_owned();
        c.issued_ms = 100_000;
        c.expires_ms = 130_000;
        c
    }

    fn gate(envelope: &Envelope, operators: &[String]) -> &'static str {
        let mut memory = NonceMemory::new(wall(0));
        verify(&envelope.encode(), wall(100), operators, &mut memory, &host("a")).map_or_else(|r| r.gate(), |_| "taken")
    }

    #[test]
    fn only_an_operators_signature_over_this_very_text_is_taken() {
        let (op, evil) = (operator(), operator());
        let operators = [op.public_key()];
        let good = op.sign(&restart("a"));
        assert_eq!(gate(&good, &operators), "taken");
        assert_eq!(gate(&good, &[]), "no_operators");
        assert_eq!(gate(&evil.sign(&restart("a")), &operators), "unknown_key");
        assert_eq!(gate(&op.sign(&restart("b")), &operators), "other_host");

        let mut forged = evil.sign(&restart("a"));
        forged.key = op.public_key();
        assert_eq!(gate(&forged, &operators), "bad_signature");
        let mut changed = op.sign(&restart("b"));
        changed.command = changed.command.replace("\"b\"", "\"a\"");
        assert_eq!(gate(&changed, &operators), "bad_signature");
        for sig in ["!", "AAAA", &good.sig[1..]] {
            let broken = Envelope {
                sig: sig.to_owned(),
                ..good.clone()
            };
            assert_eq!(gate(&broken, &operators), "bad_signature", "{sig}");
        }
    }

    #[test]
    fn a_signature_over_the_bare_text_is_not_enough() {
        let op = operator();
        let mut e = op.sign(&restart("a"));
        e.sig = BASE64URL_NOPAD.encode(&op.0.sign(e.command.as_bytes()).unwrap());
        assert_eq!(gate(&e, &[op.public_key()]), "bad_signature");
    }

    #[test]
    fn arguments_are_part_of_what_is_signed() {
        let op = operator();
        let mut command = restart("a");
        command.args = Args::default().with("hook", Arg::Text("upgrade".to_owned()));
        let signed = op.sign(&command);
        assert_eq!(gate(&signed, &[op.public_key()]), "taken");
        // A genuine command, whose argument is refused and not ignored.
        let mut odd = restart("a");
        odd.args = Args::default().with("hoook", Arg::Text("upgrade".to_owned()));
        assert_eq!(gate(&op.sign(&odd), &[op.public_key()]), "argument");
        let mut other = signed.clone();
        other.command = other.command.replace("upgrade", "erase");
        assert_eq!(gate(&other, &[op.public_key()]), "bad_signature");
        let mut without = signed.clone();
        without.command = restart("a").text();
        assert_eq!(gate(&without, &[op.public_key()]), "bad_signature");
        let mut older = signed;
        older.v = 1;
        assert_eq!(gate(&older, &[op.public_key()]), "bad_signature");
    }

    #[test]
    fn a_bad_signature_spends_no_nonce() {
        let (op, mut memory) = (operator(), NonceMemory::new(wall(0)));
        let good = op.sign(&restart("a"));
        let mut bad = good.clone();
        bad.sig = BASE64URL_NOPAD.encode(&[0; 64]);
        let ops = [op.public_key()];
        let mut take = |e: &Envelope| verify(&e.encode(), wall(100), &ops, &mut memory, &host("a"));
        assert_eq!(take(&bad).unwrap_err().gate(), "bad_signature");
        assert!(take(&good).is_ok());
        assert_eq!(take(&good).unwrap_err().gate(), "replayed");
    }

    #[test]
    fn a_seed_file_is_read_and_nothing_else_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("op.nk");
        let pair = KeyPair::new_user();
        let seed = pair.seed().unwrap();
        std::fs::write(&path, format!("# operator\n{seed}\n")).unwrap();
        let op = Operator::from_file(&path).unwrap();
        assert_eq!(op.public_key(), pair.public_key());
        assert!(is_operator_key(&op.public_key()) && !is_operator_key(&seed));
        assert!(!format!("{op:?}").contains(&seed));

        let account = KeyPair::new_account().seed().unwrap();
        for bad in ["", "SUnonsense", &account] {
            std::fs::write(&path, bad).unwrap();
            let e = Operator::from_file(&path).unwrap_err().to_string();
            assert!(e.contains("holds no user seed"), "{e}");
        }
        let e = Operator::from_file(Path::new("/nonexistent")).unwrap_err();
        assert!(matches!(e, SeedError::Read { .. }));
    }
}
