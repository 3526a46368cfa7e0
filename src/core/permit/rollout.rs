//! The rollout in the permit document: one for all hosts of the scope, whoever can reach them. It has the whole plan, so
//! that any machine that reads the document can go on with it.
//!
//! The document is read by every agent every few seconds and is bounded, so a host is one word: `host`, `host@1` for
//! the second of `versions`, with `+` behind it once it is proved. A digest of the plan tells an entry that was edited or
//! damaged, by accident: it is FNV-1a and no signature. What cannot be read holds everybody and is never overwritten.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::core::control::RestartOrder;
use crate::core::control::roll::{RECORD_VERSION, Record, RecordHost};
use crate::core::ids::{HostName, Wall};
use crate::core::permit::document::{Document, Stamp, short};
use crate::core::permit::rules::{By, note};

/// Version of the entry that this build writes.
pub const VERSION: u32 = 1;
/// More waves than this are no plan.
const MAX_WAVES: usize = 4096;

/// How far a rollout is, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum State {
    /// A command drives it, or did when it was last heard of.
    Open,
    /// Something failed; it waits for somebody.
    Halted,
}

/// As it stands in the document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Entry {
    v: u32,
    id: String,
    state: State,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    halted: String,
    who: String,
    #[serde(default)]
    why: String,
    since: Stamp,
    changed: Stamp,
    #[serde(default)]
    term: u64,
    seq: u64,
    digest: String,
    versions: Vec<String>,
    waves: Vec<String>,
    stagger_ms: u64,
    jitter: u32,
    max_unavailable: usize,
    timeout_ms: u64,
    #[serde(default)]
    order: RestartOrder,
}

/// An entry that is not touched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadEntry {
    /// A later version.
    #[error(
        "the rollout in the permit document is of version {0} and this build knows {VERSION}: upgrade; nothing is restarted until then"
    )]
    Newer(u64),
    /// Something else.
    #[error(
        "the rollout in the permit document cannot be read ({0}): nothing is restarted and nothing is overwritten; look at it, then take `rollout` out of the document"
    )]
    Garbage(String),
}

/// Why a rollout's record is not written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// Another one is open.
    #[error(
        "rollout {id} of {by} {state}: {proved} of {hosts} hosts proved; go on with `watchdog restart --resume {id}` or give it up with `watchdog restart --abort {id}`"
    )]
    Another {
        /// Its name.
        id: String,
        /// Who began it.
        by: String,
        /// `is open`, or that it has halted and why.
        state: String,
        /// Hosts that are proved.
        proved: usize,
        /// Hosts of its plan.
        hosts: usize,
    },
    /// Another process drives it by now.
    #[error("rollout {0} was taken over by another `watchdog restart --resume {0}`")]
    Superseded(String),
    /// It is not open any more, or never was.
    #[error("rollout {0} is not open in the permit store: it has ended or was given up")]
    NotOpen(String),
    /// What stands there is no rollout of ours.
    #[error(transparent)]
    Bad(#[from] BadEntry),
    /// It cannot be written.
    #[error("the rollout cannot be kept in the permit store: {0}")]
    Plan(String),
}

/// The rollout that is open; `None` = none is.
///
/// # Errors
/// Something else stands there.
pub fn read(doc: &Document) -> Result<Option<Record>, BadEntry> {
    let Some(value) = doc.rollout.as_ref().filter(|v| !v.is_null()) else {
        return Ok(None);
    };
    let garbage = |what: &str| BadEntry::Garbage(short(what));
    match value.get("v").and_then(Value::as_u64) {
        None | Some(0) => return Err(garbage("it has no version")),
        Some(v) if v > u64::from(VERSION) => return Err(BadEntry::Newer(v)),
        Some(_) => {}
    }
    let entry = Entry::deserialize(value).map_err(|e| garbage(&e.to_string()))?;
    let record = entry.record().map_err(|e| garbage(&e))?;
    record.check().map_err(|e| garbage(&e))?;
    if entry.digest != digest(&record) {
        return Err(garbage("its digest is not that of its plan"));
    }
    Ok(Some(record))
}

/// A rollout begins, or another process goes on with one: its term is then higher than any before.
///
/// # Errors
/// What stands against it.
pub fn open(doc: &Document, record: &Record, now: Wall) -> Result<Document, NotTaken> {
    let what = match read(doc)? {
        Some(known) if known.id != record.id => return Err(another(&known)),
        Some(known) if known.term >= record.term => return Err(NotTaken::Superseded(record.id.clone())),
        Some(_) => "went on with",
        // Given up in the meantime: hosts that were not told may still have it.
        None if record.term > 0 => return Err(NotTaken::NotOpen(record.id.clone())),
        None => "began",
    };
    let by = By {
        who: record.by.clone(),
        why: record.reason.clone(),
    };
    let mut next = written(doc, record, now)?;
    note(&mut next, &by, format!("{what} rollout {}", record.id), now);
    Ok(next)
}

/// How far it is, from the process that drives it. What is older than what stands there changes nothing.
///
/// # Errors
/// It is not this process's any more.
pub fn update(doc: &Document, record: &Record, now: Wall) -> Result<Document, NotTaken> {
    let known = ours(doc, record)?;
    if known.age() >= record.age() {
        return Ok(doc.clone());
    }
    written(doc, record, now)
}

/// It is over, by the process that drives it.
///
/// # Errors
/// It is not this process's any more.
pub fn end(doc: &Document, record: &Record, by: &By, now: Wall) -> Result<Document, NotTaken> {
    ours(doc, record)?;
    Ok(without(doc, by, format!("ended rollout {}", record.id), now))
}

/// An operator gives it up, whoever drives it; what it was.
///
/// # Errors
/// It is not there.
pub fn give_up(doc: &Document, id: &str, by: &By, now: Wall) -> Result<(Document, Record), NotTaken> {
    match read(doc)? {
        Some(known) if known.id == id => Ok((without(doc, by, format!("gave up rollout {id}"), now), known)),
        Some(known) => Err(another(&known)),
        None => Err(NotTaken::NotOpen(id.to_owned())),
    }
}

fn ours(doc: &Document, record: &Record) -> Result<Record, NotTaken> {
    match read(doc)? {
        Some(known) if known.id == record.id && known.term <= record.term => Ok(known),
        Some(known) if known.id == record.id => Err(NotTaken::Superseded(known.id)),
        _ => Err(NotTaken::NotOpen(record.id.clone())),
    }
}

fn another(known: &Record) -> NotTaken {
    let open = known.summary();
    NotTaken::Another {
        id: open.id,
        by: open.by,
        state: open
            .halted
            .map_or("is open".to_owned(), |why| format!("has halted ({why})")),
        proved: open.proved,
        hosts: open.hosts,
    }
}

fn without(doc: &Document, by: &By, what: String, now: Wall) -> Document {
    let mut next = doc.clone();
    next.rollout = None;
    note(&mut next, by, what, now);
    next
}

/// The document with the record in it; fields of later versions in the entry of the same rollout stay.
fn written(doc: &Document, record: &Record, now: Wall) -> Result<Document, NotTaken> {
    let entry = Entry::new(record, now).map_err(NotTaken::Plan)?;
    let fields = serde_json::to_value(entry).map_err(|e| NotTaken::Plan(e.to_string()))?;
    let old = doc.rollout.as_ref().and_then(Value::as_object).cloned();
    let mut all: Map<String, Value> = old.unwrap_or_default();
    all.remove("halted");
    if let Value::Object(fields) = fields {
        all.extend(fields);
    }
    let mut next = doc.clone();
    next.rollout = Some(Value::Object(all));
    Ok(next)
}

impl Entry {
    fn new(record: &Record, now: Wall) -> Result<Self, String> {
        record.check()?;
        let mut versions: Vec<String> = Vec::new();
        let mut waves: Vec<String> = Vec::new();
        for h in &record.hosts {
            if h.wave == 0 || h.wave > MAX_WAVES || h.wave < waves.len() {
                return Err(format!("{} stands in wave {} out of order", h.host, h.wave));
            }
            waves.resize(h.wave, String::new());
            let version = match versions.iter().position(|v| *v == h.version) {
                Some(at) => at,
                None => {
                    versions.push(h.version.clone());
                    versions.len() - 1
                }
            };
            if let Some(wave) = waves.last_mut() {
                if !wave.is_empty() {
                    wave.push(' ');
                }
                wave.push_str(h.host.as_str());
                if version > 0 {
                    wave.push_str(&format!("@{version}"));
                }
                if h.proved {
                    wave.push('+');
                }
            }
        }
        Ok(Self {
            v: VERSION,
            id: record.id.clone(),
            state: match record.halted {
                None => State::Open,
                Some(_) => State::Halted,
            },
            halted: record.halted.as_deref().map(short).unwrap_or_default(),
            who: record.by.clone(),
            why: short(&record.reason),
            since: Wall(Duration::from_millis(record.started_ms)).into(),
            changed: now.into(),
            term: record.term,
            seq: record.seq,
            digest: digest(record),
            versions,
            waves,
            stagger_ms: record.stagger_ms,
            jitter: record.jitter,
            max_unavailable: record.max_unavailable,
            timeout_ms: record.timeout_ms,
            order: record.order.clone(),
        })
    }

    fn record(&self) -> Result<Record, String> {
        let mut hosts = Vec::new();
        for (i, wave) in self.waves.iter().enumerate() {
            for word in wave.split_whitespace() {
                let (word, proved) = match word.strip_suffix('+') {
                    Some(word) => (word, true),
                    None => (word, false),
                };
                let (name, version) = match word.split_once('@') {
                    Some((name, n)) => (name, n.parse().map_err(|_| format!("{word:?} is no host"))?),
                    None => (word, 0_usize),
                };
                hosts.push(RecordHost {
                    host: HostName::new(name).map_err(|e| e.to_string())?,
                    wave: i + 1,
                    version: self
                        .versions
                        .get(version)
                        .cloned()
                        .ok_or_else(|| format!("{word:?} has no version"))?,
                    proved,
                });
            }
        }
        Ok(Record {
            v: RECORD_VERSION,
            id: self.id.clone(),
            term: self.term,
            seq: self.seq,
            by: self.who.clone(),
            reason: self.why.clone(),
            started_ms: u64::try_from(self.since.wall().0.as_millis()).unwrap_or(u64::MAX),
            hosts,
            stagger_ms: self.stagger_ms,
            jitter: self.jitter,
            max_unavailable: self.max_unavailable,
            timeout_ms: self.timeout_ms,
            order: RestartOrder {
                term: 0,
                ..self.order.clone()
            },
            halted: (self.state == State::Halted).then(|| self.halted.clone()),
        })
    }
}

/// Of the plan, whatever its state: hosts with waves and versions, in order, and the hook.
#[must_use]
pub fn digest(record: &Record) -> String {
    // FNV-1a, 64 bits.
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut eat = |text: &str| {
        for byte in text.bytes().chain([b'\n']) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    eat(&record.id);
    eat(record.order.hook.as_deref().unwrap_or_default());
    eat(record.order.lame_duck.name());
    for h in &record.hosts {
        eat(&format!("{} {} {}", h.wave, h.host, h.version));
    }
    format!("{hash:016x}")
}
