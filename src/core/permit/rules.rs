//! How the permit document may change. Each function takes a document and gives the next one, or says why not; the
//! caller compares and swaps. All of them may be tried again on a newer document without doing anything twice.
//!
//! Times in the document come from many clocks. They never free a permit: a lease that ran out makes its holder a
//! failed host and stops the fleet. A clock that is wrong can therefore hold others up, and cannot let them pass, save
//! for spacing and rate, which are ignored where they lie more than an hour ahead.

use std::fmt;
use std::time::Duration;

use serde_json::Map;

use crate::core::ids::{HostName, Region, Wall};
use crate::core::permit::document::{BadDocument, Deed, Document, Grant, Holder, Mark, Pause, Phase, Scope, short};
use crate::core::permit::policy::Permits;
use crate::core::permit::rollout::{self, BadEntry, NotTaken};

const HOUR: Duration = Duration::from_secs(3600);
/// Deeds of operators that are kept.
const DEEDS: usize = 20;
/// Resumptions that are kept; each scope has one.
const MARKS: usize = 100;
/// Grants that are kept, whatever the rate.
const GRANTS: usize = 1000;

/// Who asks for a permit, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The host.
    pub host: HostName,
    /// Its region.
    pub region: Region,
    /// Its cluster, may be empty.
    pub cluster: String,
    /// Fault id, or who ordered it.
    pub why: String,
    /// An operator ordered it: not counted in the hourly rate, and a failed permit of this very host is no hindrance.
    pub ordered: bool,
    /// The rollout that it belongs to, if any.
    pub part: Option<Part>,
    /// Unique to this try.
    pub token: String,
}

/// What belongs to a rollout, by the process that drives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The rollout.
    pub id: String,
    /// See [`crate::core::control::roll::Record::term`].
    pub term: u64,
}

/// Who did something by hand, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct By {
    /// Who.
    pub who: String,
    /// Why.
    pub why: String,
}

/// Why there is no permit.
#[derive(Debug, Clone, PartialEq)]
pub enum Refusal {
    /// Somebody paused.
    Paused(Box<Pause>),
    /// A holder vanished.
    Vanished {
        /// Who.
        host: HostName,
        /// Since when.
        until: Wall,
    },
    /// A holder did not become healthy.
    Failed {
        /// Who.
        host: HostName,
        /// What went wrong.
        note: String,
    },
    /// All permits are out.
    Taken {
        /// Of what: `the fleet`, `region iad`, `cluster C1`.
        of: String,
        /// So many may be out.
        limit: u32,
        /// Who has them.
        by: Vec<HostName>,
    },
    /// The last release is too fresh.
    Spacing(Duration),
    /// Automation has acted enough for an hour.
    PerHour {
        /// The limit.
        limit: u32,
        /// Until the next.
        wait: Duration,
    },
    /// What this host took earlier is not settled.
    Unsettled,
    /// The permit is not there any more: released by an operator, or run out.
    NotHeld(String),
    /// The document cannot be used.
    Document(BadDocument),
    /// A rollout is open, and this is no part of it.
    RolloutOpen {
        /// Its name.
        id: String,
        /// Who began it.
        by: String,
    },
    /// Another process drives the rollout by now.
    Superseded(String),
    /// The rollout is not open in the document.
    RolloutNotOpen(String),
    /// What the document says of a rollout means nothing here.
    Rollout(BadEntry),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let span = |d: &Duration| humantime::format_duration(Duration::from_secs(d.as_secs() + 1)).to_string();
        match self {
            Self::Paused(p) => {
                write!(f, "{} is paused by {}: {}", p.scope, p.who, p.why)?;
                match p.until {
                    Some(until) => write!(f, " (until {})", until.wall().rfc3339()),
                    None => write!(f, " (until `watchdog resume`)"),
                }
            }
            Self::Vanished { host, until } => write!(
                f,
                "{host} took a permit and has not been heard since {}: look at it, then `watchdog permits release {host}`",
                until.rfc3339()
            ),
            Self::Failed { host, note } => write!(
                f,
                "{host} did not become healthy after its restart ({note}): look at it, then `watchdog permits release {host}`"
            ),
            Self::Taken { of, limit, by } => {
                let by: Vec<&str> = by.iter().map(HostName::as_str).collect();
                write!(f, "{limit} of {limit} permits of {of} are out, to {}", by.join(", "))
            }
            Self::Spacing(wait) => write!(
                f,
                "the last permit was released a moment ago; the next in {}",
                span(wait)
            ),
            Self::PerHour { limit, wait } => {
                write!(
                    f,
                    "automation took {limit} permits within an hour; the next in {}",
                    span(wait)
                )
            }
            Self::Unsettled => write!(f, "an earlier permit of this host is not settled yet"),
            Self::NotHeld(why) => write!(f, "the permit is gone: {why}"),
            Self::Document(bad) => write!(f, "{bad}"),
            Self::RolloutOpen { id, by } => write!(f, "rollout {id} of {by} is open"),
            Self::Superseded(id) => write!(f, "rollout {id} was taken over by another process"),
            Self::RolloutNotOpen(id) => write!(f, "rollout {id} is not open in the permit document"),
            Self::Rollout(bad) => write!(f, "{bad}"),
        }
    }
}

/// Takes a permit; `None` = it is there already.
///
/// # Errors
/// What stands against it; the first reason in the order of [`Refusal`].
pub fn take(doc: &Document, claim: &Claim, policy: &Permits, now: Wall) -> Result<Option<Document>, Refusal> {
    if let Some(held) = doc.holder(&claim.token) {
        return if held.phase == Phase::Taken {
            Ok(None)
        } else {
            Err(Refusal::Unsettled)
        };
    }
    no_pause(doc, &claim.host, &claim.region, now)?;
    let own_failure = |h: &Holder| h.host == claim.host && h.phase == Phase::Failed && claim.ordered;
    no_failure(doc, now, |h| {
        own_failure(h) || h.host == claim.host && h.phase != Phase::Failed
    })?;
    part_of_what_is_open(doc, claim.part.as_ref())?;
    if doc.holders.iter().any(|h| h.host == claim.host && !own_failure(h)) {
        return Err(Refusal::Unsettled);
    }
    let others = || doc.holders.iter().filter(|h| h.host != claim.host);
    room("the fleet".to_owned(), policy.slots, others())?;
    let region = others().filter(|h| h.region == claim.region);
    room(format!("region {}", claim.region), policy.per_region, region)?;
    if !claim.cluster.is_empty() {
        let cluster = others().filter(|h| h.cluster == claim.cluster);
        room(format!("cluster {}", claim.cluster), policy.per_cluster, cluster)?;
    }
    if let Some(released) = doc.released.map(|r| r.wall().0).filter(|r| *r <= now.0 + HOUR) {
        let wait = (released + policy.spacing).saturating_sub(now.0);
        if !wait.is_zero() {
            return Err(Refusal::Spacing(wait));
        }
    }
    let mut next = doc.clone();
    next.recent.retain(|g| counts(g, now));
    if !claim.ordered {
        let limit = policy.per_hour;
        if next.recent.len() >= limit as usize {
            let freed = next.recent.len() - (limit as usize).min(next.recent.len());
            let wait = next
                .recent
                .get(freed)
                .map_or(HOUR, |g| (g.at.wall().0 + HOUR).saturating_sub(now.0));
            return Err(Refusal::PerHour { limit, wait });
        }
        let rest = Map::new();
        next.recent.push(Grant {
            host: claim.host.clone(),
            at: now.into(),
            rest,
        });
        let surplus = next.recent.len().saturating_sub(GRANTS);
        next.recent.drain(..surplus);
    }
    next.holders.retain(|h| h.host != claim.host);
    next.holders.push(Holder {
        host: claim.host.clone(),
        region: claim.region.clone(),
        cluster: claim.cluster.clone(),
        why: short(&claim.why),
        ordered: claim.ordered,
        token: claim.token.clone(),
        phase: Phase::Taken,
        since: now.into(),
        renewed: now.into(),
        until: Wall(now.0 + policy.lease).into(),
        note: String::new(),
        rest: Map::new(),
    });
    Ok(Some(next))
}

/// Right before the act: nothing has come between, and the document says from now on that the act may have begun. The act
/// is allowed only if *this* document is swapped in: a read alone may be stale, a swap that succeeds is not. `part` as
/// it was in the claim.
///
/// # Errors
/// What came between.
pub fn fence(
    doc: &Document,
    token: &str,
    part: Option<&Part>,
    policy: &Permits,
    now: Wall,
) -> Result<Document, Refusal> {
    let held = held(doc, token)?;
    if held.vanished(now) {
        return Err(Refusal::NotHeld("its lease ran out before the act began".to_owned()));
    }
    if held.phase == Phase::Failed {
        return Err(Refusal::Failed {
            host: held.host.clone(),
            note: held.note.clone(),
        });
    }
    no_pause(doc, &held.host, &held.region, now)?;
    part_of_what_is_open(doc, part)?;
    no_failure(doc, now, |h| h.token == token)?;
    renewed(doc, token, policy, now, Some(Phase::Acting))
}

/// Says that the holder lives.
///
/// # Errors
/// The permit is gone.
pub fn renew(doc: &Document, token: &str, policy: &Permits, now: Wall) -> Result<Document, Refusal> {
    renewed(doc, token, policy, now, None)
}

/// The holder's permit under a new token: its agent was started anew.
///
/// # Errors
/// The permit is gone.
pub fn adopt(doc: &Document, old: &str, new: &str, policy: &Permits, now: Wall) -> Result<Document, Refusal> {
    if doc.holder(old).is_none() && doc.holder(new).is_some() {
        return renew(doc, new, policy, now);
    }
    let mut next = renewed(doc, old, policy, now, None)?;
    for h in next.holders.iter_mut().filter(|h| h.token == old) {
        new.clone_into(&mut h.token);
    }
    Ok(next)
}

/// The act did not help: the host stays a failed one until a human releases it. `None` = it says so already.
///
/// # Errors
/// The permit is gone.
pub fn fail(doc: &Document, token: &str, note: &str, now: Wall) -> Result<Option<Document>, Refusal> {
    if held(doc, token)?.phase == Phase::Failed {
        return Ok(None);
    }
    let mut next = doc.clone();
    for h in next.holders.iter_mut().filter(|h| h.token == token) {
        h.phase = Phase::Failed;
        h.note = short(note);
        h.renewed = now.into();
    }
    Ok(Some(next))
}

/// Gives a permit back; `None` = it is not there. A permit that was never used leaves no spacing behind it.
#[must_use]
pub fn release(doc: &Document, token: &str, now: Wall) -> Option<Document> {
    let held = doc.holder(token)?;
    let mut next = doc.clone();
    if held.phase != Phase::Taken {
        next.released = Some(now.into());
    }
    next.holders.retain(|h| h.token != token);
    Some(next)
}

/// An operator releases what a host holds, whatever its state.
///
/// # Errors
/// It holds nothing.
pub fn force_release(doc: &Document, host: &HostName, by: &By, now: Wall) -> Result<(Document, Holder), NothingThere> {
    let held = doc
        .of(host)
        .cloned()
        .ok_or_else(|| NothingThere::Holder(host.clone()))?;
    let mut next = doc.clone();
    next.holders.retain(|h| &h.host != host);
    next.released = Some(now.into());
    note(&mut next, by, format!("released the permit of {host}"), now);
    Ok((next, held))
}

/// An operator pauses. A pause of the same scope is replaced.
#[must_use]
pub fn pause(doc: &Document, scope: Scope, by: &By, length: Option<Duration>, now: Wall) -> Document {
    let mut next = doc.clone();
    next.pauses
        .retain(|p| p.scope != scope && p.until.is_none_or(|u| now < u.wall()));
    note(&mut next, by, format!("paused {scope}"), now);
    next.pauses.push(Pause {
        scope,
        who: short(&by.who),
        why: short(&by.why),
        since: now.into(),
        until: length.map(|l| Wall(now.0.saturating_add(l)).into()),
        rest: Map::new(),
    });
    next
}

/// An operator resumes a scope: its pause is over, if there was one, and what agents in it gave up is tried anew. A wider
/// pause may still be in force.
#[must_use]
pub fn resume(doc: &Document, scope: &Scope, by: &By, now: Wall) -> (Document, Option<Pause>) {
    let mut next = doc.clone();
    let ended = next.pauses.iter().find(|p| &p.scope == scope).cloned();
    next.pauses.retain(|p| &p.scope != scope);
    next.resumed.retain(|m| &m.scope != scope);
    next.resumed.push(Mark::new(scope.clone(), &by.who, now));
    let surplus = next.resumed.len().saturating_sub(MARKS);
    next.resumed.drain(..surplus);
    note(&mut next, by, format!("resumed {scope}"), now);
    (next, ended)
}

/// What an operator wanted to end is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NothingThere {
    /// No permit.
    #[error("{0} holds no permit; `watchdog permits` lists who does")]
    Holder(HostName),
    /// No such rollout, or not this process's.
    #[error(transparent)]
    Rollout(#[from] NotTaken),
}

pub(super) fn note(doc: &mut Document, by: &By, what: String, now: Wall) {
    doc.deeds.push(Deed {
        at: now.into(),
        who: short(&by.who),
        what,
        why: short(&by.why),
        rest: Map::new(),
    });
    let surplus = doc.deeds.len().saturating_sub(DEEDS);
    doc.deeds.drain(..surplus);
}

fn counts(grant: &Grant, now: Wall) -> bool {
    let at = grant.at.wall().0;
    at + HOUR > now.0 && at <= now.0 + HOUR
}

fn held<'a>(doc: &'a Document, token: &str) -> Result<&'a Holder, Refusal> {
    let gone = || Refusal::NotHeld("an operator released it, or the register lost it".to_owned());
    doc.holder(token).ok_or_else(gone)
}

fn renewed(
    doc: &Document,
    token: &str,
    policy: &Permits,
    now: Wall,
    phase: Option<Phase>,
) -> Result<Document, Refusal> {
    held(doc, token)?;
    let mut next = doc.clone();
    for h in next.holders.iter_mut().filter(|h| h.token == token) {
        h.phase = phase.unwrap_or(h.phase);
        h.renewed = now.into();
        h.until = Wall(now.0 + policy.lease).into();
    }
    Ok(next)
}

fn no_pause(doc: &Document, host: &HostName, region: &Region, now: Wall) -> Result<(), Refusal> {
    match doc.paused(host, region, now).next() {
        Some(pause) => Err(Refusal::Paused(Box::new(pause.clone()))),
        None => Ok(()),
    }
}

/// While a rollout is open, only what belongs to it goes on; what belongs to one goes on only while that is open.
fn part_of_what_is_open(doc: &Document, part: Option<&Part>) -> Result<(), Refusal> {
    let open = rollout::read(doc).map_err(Refusal::Rollout)?;
    match (open, part) {
        (None, None) => Ok(()),
        (None, Some(part)) => Err(Refusal::RolloutNotOpen(part.id.clone())),
        (Some(open), Some(part)) if open.id == part.id && open.term > part.term => Err(Refusal::Superseded(open.id)),
        (Some(open), Some(part)) if open.id == part.id => Ok(()),
        (Some(open), _) => Err(Refusal::RolloutOpen {
            id: open.id,
            by: open.by,
        }),
    }
}

/// A failed host stops everybody.
fn no_failure(doc: &Document, now: Wall, except: impl Fn(&Holder) -> bool) -> Result<(), Refusal> {
    for h in doc.holders.iter().filter(|h| !except(h)) {
        if h.phase == Phase::Failed {
            return Err(Refusal::Failed {
                host: h.host.clone(),
                note: h.note.clone(),
            });
        }
        if h.vanished(now) {
            return Err(Refusal::Vanished {
                host: h.host.clone(),
                until: h.until.wall(),
            });
        }
    }
    Ok(())
}

fn room<'a>(of: String, limit: u32, out: impl Iterator<Item = &'a Holder>) -> Result<(), Refusal> {
    let by: Vec<HostName> = out.map(|h| h.host.clone()).collect();
    if by.len() >= limit as usize {
        return Err(Refusal::Taken { of, limit, by });
    }
    Ok(())
}
