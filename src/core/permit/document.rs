//! The permit document: one small JSON object per scope. People read it and other versions write it, so what this build
//! does not know is kept as it is; a document of a later version, or no document at all, is never overwritten.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::core::ids::{HostName, Region, Wall};

/// Version written by this build.
pub const VERSION: u32 = 1;
/// Longest document that is read or written, in bytes.
pub const MAX_BYTES: usize = 64 * 1024;
/// Longest sentence that is kept in it, in characters.
pub const MAX_TEXT: usize = 300;

/// A document that is not touched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadDocument {
    /// A later version.
    #[error(
        "the permit document is of version {0} and this build knows {VERSION}: upgrade this agent; nothing is changed until then"
    )]
    Newer(u32),
    /// Something else.
    #[error("the permit document cannot be read ({0}): look at it, and repair or delete it; nothing is overwritten")]
    Garbage(String),
    /// Too large.
    #[error("the permit document has {0} bytes, at most {MAX_BYTES} are read: remove old pauses or holders")]
    TooLarge(usize),
}

/// Unix time in the document: seconds with milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Stamp(Duration);

impl Stamp {
    /// As a wall clock time.
    #[must_use]
    pub fn wall(self) -> Wall {
        Wall(self.0)
    }
}

impl From<Wall> for Stamp {
    fn from(wall: Wall) -> Self {
        let millis = u64::try_from(wall.0.as_millis()).unwrap_or(u64::MAX);
        Self(Duration::from_millis(millis))
    }
}

impl From<Stamp> for f64 {
    fn from(stamp: Stamp) -> Self {
        stamp.0.as_secs_f64()
    }
}

impl TryFrom<f64> for Stamp {
    type Error = String;
    fn try_from(seconds: f64) -> Result<Self, String> {
        let time = Duration::try_from_secs_f64(seconds).map_err(|e| format!("{seconds} is no Unix time: {e}"))?;
        // Half a millisecond: JSON's number is binary, the stamp is not.
        Ok(Wall(time.saturating_add(Duration::from_micros(500))).into())
    }
}

/// What a holder has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Nothing yet.
    Taken,
    /// The act has begun, or may have; or its proof is awaited.
    Acting,
    /// The act did not make the host healthy: a failed host, until a human releases it.
    Failed,
}

/// A host that may act.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Holder {
    /// Who.
    pub host: HostName,
    /// Its region.
    pub region: Region,
    /// Its cluster; may be empty.
    #[serde(default)]
    pub cluster: String,
    /// Fault id, or who ordered it.
    pub why: String,
    /// An operator ordered it.
    #[serde(default)]
    pub ordered: bool,
    /// One try of one agent process.
    pub token: String,
    /// How far.
    pub phase: Phase,
    /// Taken.
    pub since: Stamp,
    /// Renewed last.
    pub renewed: Stamp,
    /// Vanished from then on.
    pub until: Stamp,
    /// What went wrong.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// What later versions wrote.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

impl Holder {
    /// It has not renewed in time: a failed host as long as it stays away.
    #[must_use]
    pub fn vanished(&self, now: Wall) -> bool {
        self.phase != Phase::Failed && now >= self.until.wall()
    }
}

/// What a pause covers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// All hosts.
    Fleet,
    /// A region.
    Region(Region),
    /// A host.
    Host(HostName),
}

impl Scope {
    /// Does it cover this host?
    #[must_use]
    pub fn covers(&self, host: &HostName, region: &Region) -> bool {
        match self {
            Self::Fleet => true,
            Self::Region(r) => r == region,
            Self::Host(h) => h == host,
        }
    }

    /// The label value.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Fleet => "fleet",
            Self::Region(_) => "region",
            Self::Host(_) => "host",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fleet => f.write_str("the fleet"),
            Self::Region(r) => write!(f, "region {r}"),
            Self::Host(h) => write!(f, "host {h}"),
        }
    }
}

/// Automation stands still, and nothing is restarted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pause {
    /// What it covers.
    pub scope: Scope,
    /// Who paused.
    pub who: String,
    /// Why.
    pub why: String,
    /// Since when.
    pub since: Stamp,
    /// Until when; `None` = until resumed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Stamp>,
    /// What later versions wrote.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// Somebody resumed: agents in its scope try anew what they gave up or held as flapping.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// What it covers.
    pub scope: Scope,
    /// Who resumed.
    pub who: String,
    /// When.
    pub at: Stamp,
    /// What later versions wrote.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

impl Mark {
    /// Made now.
    #[must_use]
    pub fn new(scope: Scope, who: &str, now: Wall) -> Self {
        Self {
            scope,
            who: short(who),
            at: now.into(),
            rest: Map::new(),
        }
    }
}

/// A grant to automation, for the hourly rate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Grant {
    /// To whom.
    pub host: HostName,
    /// When.
    pub at: Stamp,
    /// What later versions wrote.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// What an operator did by hand.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Deed {
    /// When.
    pub at: Stamp,
    /// Who.
    pub who: String,
    /// What, in words.
    pub what: String,
    /// Why.
    pub why: String,
    /// What later versions wrote.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// The document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Document {
    /// Its version.
    pub v: u32,
    /// Who may act.
    #[serde(default)]
    pub holders: Vec<Holder>,
    /// What stands still.
    #[serde(default)]
    pub pauses: Vec<Pause>,
    /// Grants to automation of the last hour, oldest first.
    #[serde(default)]
    pub recent: Vec<Grant>,
    /// The last release, for spacing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub released: Option<Stamp>,
    /// The last resumption of each scope, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resumed: Vec<Mark>,
    /// What operators did last, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deeds: Vec<Deed>,
    /// The rolling restart that is open; see [`crate::core::permit::rollout`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Value>,
    /// What later versions wrote.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

impl Default for Document {
    fn default() -> Self {
        Self {
            v: VERSION,
            holders: Vec::new(),
            pauses: Vec::new(),
            recent: Vec::new(),
            released: None,
            resumed: Vec::new(),
            deeds: Vec::new(),
            rollout: None,
            rest: Map::new(),
        }
    }
}

impl Document {
    /// Reads a document.
    ///
    /// # Errors
    /// What it is instead.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadDocument> {
        #[derive(Deserialize)]
        struct Version {
            v: u32,
        }
        if bytes.len() > MAX_BYTES {
            return Err(BadDocument::TooLarge(bytes.len()));
        }
        let garbage = |e: serde_json::Error| BadDocument::Garbage(e.to_string());
        match serde_json::from_slice::<Version>(bytes).map_err(garbage)?.v {
            0 => Err(BadDocument::Garbage("its version is 0".to_owned())),
            v if v > VERSION => Err(BadDocument::Newer(v)),
            _ => serde_json::from_slice(bytes).map_err(garbage),
        }
    }

    /// The bytes of the document, indented: operators read it with the store's own tools.
    ///
    /// # Errors
    /// It has become too large.
    pub fn encode(&self) -> Result<Vec<u8>, BadDocument> {
        let bytes = serde_json::to_vec_pretty(self).map_err(|e| BadDocument::Garbage(e.to_string()))?;
        if bytes.len() > MAX_BYTES {
            return Err(BadDocument::TooLarge(bytes.len()));
        }
        Ok(bytes)
    }

    /// The holder of a token.
    #[must_use]
    pub fn holder(&self, token: &str) -> Option<&Holder> {
        self.holders.iter().find(|h| h.token == token)
    }

    /// What a host holds.
    #[must_use]
    pub fn of(&self, host: &HostName) -> Option<&Holder> {
        self.holders.iter().find(|h| &h.host == host)
    }

    /// Resumptions that cover a host.
    #[must_use]
    pub fn marks(&self, host: &HostName, region: &Region) -> Vec<Mark> {
        let covers = |m: &&Mark| m.scope.covers(host, region);
        self.resumed.iter().filter(covers).cloned().collect()
    }

    /// Pauses that cover a host now.
    pub fn paused<'a>(
        &'a self,
        host: &'a HostName,
        region: &'a Region,
        now: Wall,
    ) -> impl Iterator<Item = &'a Pause> + 'a {
        let open = move |p: &&Pause| p.until.is_none_or(|until| now < until.wall());
        self.pauses
            .iter()
            .filter(open)
            .filter(move |p| p.scope.covers(host, region))
    }
}

/// A sentence of bounded length, in one line.
#[must_use]
pub fn short(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().take(MAX_TEXT).collect()
}
