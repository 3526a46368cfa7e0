//! One agent's way of changing the document: read, decide by [`rules`], compare and swap; again where somebody was first.
//!
//! - A write without an answer may have been done. It is tried again from a fresh read, where the own token tells.
//! - A read below the highest revision seen is stale and is read again. One that stays below for a whole lease is a
//!   register that was restored: it counts from then on.
//! - Tries are bounded and spread by a jitter that follows from the agent's incarnation: the core has no entropy.
//! - One job at a time. A new one replaces the old one, whose write may still land: what such a write leaves in the
//!   document under this host's name is found at the next read and cleared away.
//! - A pause with an end lasts until *both* clocks have reached it: a wall clock that jumps ends none.

use std::time::Duration;

use crate::core::agent::event::Action;
use crate::core::control::roll::OpenRollout;
use crate::core::ids::{HostName, Mono, Now, Region};
use crate::core::permit::document::{Document, Holder, Pause, Phase};
use crate::core::permit::policy::Permits;
use crate::core::permit::rollout;
use crate::core::permit::rules::{self, Claim, Part, Refusal};
use crate::core::permit::{Revision, StoreError, Stored};

/// An answer that takes longer does not come.
const ASK_LIMIT: Duration = Duration::from_secs(5);
/// A fence whose answer took longer proves nothing about now.
const FENCE_VALID: Duration = Duration::from_secs(2);
/// Between two reads while nothing is wanted; a quarter more or less by jitter.
const REFRESH: Duration = Duration::from_secs(15);
/// What was read earlier says nothing about now: no restart.
pub const STALE: Duration = Duration::from_secs(60);
/// For a job that somebody waits for.
const JOB_LIMIT: Duration = Duration::from_secs(15);
/// Tries of one job.
const TRIES: u32 = 12;
/// Between tries, doubled each time, up to sixteenfold.
const PAUSE: Duration = Duration::from_millis(50);

/// What a job is for.
#[derive(Debug, Clone, PartialEq)]
enum Goal {
    Refresh,
    Take(Claim),
    Fence,
    Renew,
    Fail(String),
    Release(String),
    /// One that an earlier process took and did not use.
    Clear(String),
    Adopt(String),
}

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Reading { ask: u64, at: Mono },
    Writing { ask: u64, at: Mono, doc: Box<Document> },
    Pausing { until: Mono },
}

#[derive(Debug, Clone, PartialEq)]
struct Job {
    goal: Goal,
    step: Step,
    tries: u32,
    began: Mono,
}

/// The permit of this host, as this agent knows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Held {
    /// What was asked for.
    pub token: String,
    /// Why.
    pub why: String,
    /// An operator ordered it.
    pub ordered: bool,
    /// The rollout that it belongs to, if any.
    pub part: Option<Part>,
    /// How far.
    pub phase: Phase,
    /// It was found in the document, taken by an earlier process of this agent.
    pub found: bool,
    /// Written last.
    renewed: Mono,
}

/// The document as last read.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// When that read began.
    pub at: Mono,
    /// What was read; no document is an empty one.
    pub doc: Result<Document, Refusal>,
    /// The rollout that it says is open.
    pub rollout: Result<Option<OpenRollout>, Refusal>,
}

/// What a job came to.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    /// The permit is taken.
    Taken,
    /// The act may begin: now, and not later.
    Fenced,
    /// It is given back.
    Released,
    /// It is kept, as that of a failed host.
    Kept,
    /// A permit of an earlier process of this agent was found and is this agent's now.
    Found(Phase),
    /// No.
    Refused(Refusal),
    /// The register does not answer.
    NoStore(String),
    /// What was held is gone.
    Lost(String),
}

/// The machine.
#[derive(Debug, Clone)]
pub struct Machine {
    policy: Permits,
    host: HostName,
    region: Region,
    inc: u64,
    asked: u64,
    job: Option<Job>,
    held: Option<Held>,
    seen: Option<Seen>,
    /// What was read last, as it is and as it reads: nearly always it is the same again.
    read: Option<(Vec<u8>, Result<Document, Refusal>)>,
    error: Option<String>,
    highest: Option<Revision>,
    /// Since when reads lie below the highest revision.
    below: Option<Mono>,
    next: Mono,
    /// Pauses with an end that were seen, and that end by the monotonic clock.
    ends: Vec<(Pause, Mono)>,
}

impl Machine {
    /// For the agent of `host`; `inc` tells its processes apart.
    #[must_use]
    pub fn new(policy: Permits, host: HostName, region: Region, inc: u64, now: Mono) -> Self {
        Self {
            policy,
            host,
            region,
            inc,
            asked: 0,
            job: None,
            held: None,
            seen: None,
            read: None,
            error: None,
            highest: None,
            below: None,
            next: now,
            ends: Vec::new(),
        }
    }

    /// What this host holds.
    #[must_use]
    pub fn held(&self) -> Option<&Held> {
        self.held.as_ref()
    }

    /// The document as last read.
    #[must_use]
    pub fn seen(&self) -> Option<&Seen> {
        self.seen.as_ref()
    }

    /// Why the register does not answer, if so.
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// Somebody waits for this machine.
    #[must_use]
    pub fn busy(&self) -> bool {
        self.job.as_ref().is_some_and(|j| j.goal != Goal::Refresh)
    }

    /// The pause that covers this host, by the document as last read.
    #[must_use]
    pub fn paused(&self, now: Now) -> Option<&Pause> {
        let doc = self.seen.as_ref()?.doc.as_ref().ok()?;
        let open = |p: &&Pause| match p.until {
            None => true,
            Some(until) => now.wall < until.wall() || self.ends.iter().any(|(seen, end)| seen == *p && now.mono < *end),
        };
        let mut all = doc.pauses.iter().filter(|p| p.scope.covers(&self.host, &self.region));
        all.find(open)
    }

    /// What stands against a permit by the document as last read; `Ok` = worth asking.
    ///
    /// # Errors
    /// The refusal, or that nothing usable is known.
    pub fn would(&self, claim: &Claim, now: Now) -> Result<(), Told> {
        let Some(seen) = &self.seen else {
            let why = self.error.clone().unwrap_or_else(|| "it was not read yet".to_owned());
            return Err(Told::NoStore(why));
        };
        let age = now.mono.since(seen.at);
        if age > STALE {
            let why = self.error.clone().unwrap_or_default();
            let age = humantime::format_duration(Duration::from_secs(age.as_secs()));
            return Err(Told::NoStore(format!("it was last read {age} ago; {why}")));
        }
        if let Some(pause) = self.paused(now) {
            return Err(Told::Refused(Refusal::Paused(Box::new(pause.clone()))));
        }
        let doc = seen.doc.as_ref().map_err(|r| Told::Refused(r.clone()))?;
        rules::take(doc, claim, &self.policy, now.wall)
            .map(|_| ())
            .map_err(Told::Refused)
    }

    /// A token that was never used.
    pub fn token(&mut self) -> String {
        self.asked += 1;
        format!("{}-{:x}-{}", self.host, self.inc, self.asked)
    }

    /// Asks for a permit.
    pub fn take(&mut self, claim: Claim, now: Now, out: &mut Vec<Action>) {
        self.begin(Goal::Take(claim), now, out);
    }

    /// Asks whether the act may begin.
    pub fn fence(&mut self, now: Now, out: &mut Vec<Action>) {
        self.begin(Goal::Fence, now, out);
    }

    /// Gives the permit back.
    pub fn release(&mut self, now: Now, out: &mut Vec<Action>) {
        if let Some(held) = &self.held {
            self.begin(Goal::Release(held.token.clone()), now, out);
        }
    }

    /// Keeps the permit, as that of a failed host.
    pub fn fail(&mut self, note: String, now: Now, out: &mut Vec<Action>) {
        if self.held.is_some() {
            self.begin(Goal::Fail(note), now, out);
        }
    }

    /// Drops what is asked for, and forgets what may have been written: the next read tells.
    pub fn abandon(&mut self, now: Mono) {
        self.job = None;
        self.next = now;
    }

    /// Reads soon, whatever the rhythm.
    pub fn read_soon(&mut self, now: Mono) {
        self.next = self.next.min(now);
    }

    /// Time passed.
    pub fn tick(&mut self, now: Now, out: &mut Vec<Action>) -> Option<Told> {
        match self.job.as_ref().map(|j| &j.step) {
            None if now.mono >= self.next => {
                let renew = self
                    .held
                    .as_ref()
                    .is_some_and(|h| h.phase != Phase::Failed && now.mono.since(h.renewed) >= self.policy.lease / 4);
                self.begin(if renew { Goal::Renew } else { Goal::Refresh }, now, out);
                None
            }
            Some(Step::Pausing { until }) if now.mono >= *until => {
                self.read(now, out);
                None
            }
            Some(Step::Reading { at, .. } | Step::Writing { at, .. }) if now.mono.since(*at) >= ASK_LIMIT => {
                let limit = humantime::format_duration(ASK_LIMIT);
                self.unreachable(format!("no answer within {limit}"), now)
            }
            _ => None,
        }
    }

    /// A read ended.
    pub fn on_read(
        &mut self,
        ask: u64,
        result: Result<Option<Stored>, StoreError>,
        now: Now,
        out: &mut Vec<Action>,
    ) -> Option<Told> {
        let began = match self.job.as_ref().map(|j| &j.step) {
            Some(Step::Reading { ask: a, at }) if *a == ask => *at,
            _ => return None,
        };
        let stored = match result {
            Ok(stored) => stored,
            Err(e) => return self.unreachable(words(e), now),
        };
        let revision = stored.as_ref().map(|s| s.revision);
        if revision < self.highest {
            let since = *self.below.get_or_insert(now.mono);
            if now.mono.since(since) < self.policy.lease {
                let (r, h) = (revision.map_or(0, |r| r.0), self.highest.map_or(0, |r| r.0));
                return self.unreachable(format!("it answers with revision {r}, older than {h} seen before"), now);
            }
        }
        self.below = None;
        self.highest = revision;
        self.error = None;
        let doc = match (&stored, &self.read) {
            (None, _) => Ok(Document::default()),
            (Some(s), Some((bytes, doc))) if s.bytes == *bytes => doc.clone(),
            (Some(s), _) => Document::decode(&s.bytes).map_err(Refusal::Document),
        };
        if self.read.as_ref().map(|(bytes, _)| bytes) != stored.as_ref().map(|s| &s.bytes) {
            self.read = stored.map(|s| (s.bytes, doc.clone()));
        }
        self.observe(doc.clone(), began, now);
        self.decide(doc, revision, now, out)
    }

    /// A write ended.
    pub fn on_written(
        &mut self,
        ask: u64,
        result: Result<Revision, StoreError>,
        now: Now,
        out: &mut Vec<Action>,
    ) -> Option<Told> {
        let job = self.job.as_ref()?;
        let (at, doc) = match &job.step {
            Step::Writing { ask: a, at, doc } if *a == ask => (*at, doc.as_ref().clone()),
            _ => return None,
        };
        match result {
            Err(StoreError::Conflict) => self.again("others change the permits all the time".to_owned(), now),
            Err(e) => self.unreachable(words(e), now),
            Ok(revision) => {
                self.highest = self.highest.max(Some(revision));
                self.error = None;
                let goal = job.goal.clone();
                if goal == Goal::Fence && now.mono.since(at) > FENCE_VALID {
                    return self.again("its answers are too slow to act on".to_owned(), now);
                }
                self.observe(Ok(doc), at, now);
                self.done(goal, now, out)
            }
        }
    }

    fn begin(&mut self, goal: Goal, now: Now, out: &mut Vec<Action>) {
        self.job = Some(Job {
            goal,
            step: Step::Pausing { until: now.mono },
            tries: 0,
            began: now.mono,
        });
        self.read(now, out);
    }

    fn read(&mut self, now: Now, out: &mut Vec<Action>) {
        self.asked += 1;
        let ask = self.asked;
        if let Some(job) = &mut self.job {
            job.step = Step::Reading { ask, at: now.mono };
            out.push(Action::ReadPermits { ask });
        }
    }

    /// What a document says of this host, whatever it was read for.
    fn observe(&mut self, doc: Result<Document, Refusal>, at: Mono, now: Now) {
        if let Ok(doc) = &doc {
            let mut ends = std::mem::take(&mut self.ends);
            ends.retain(|(p, _)| doc.pauses.contains(p));
            for p in &doc.pauses {
                if let Some(until) = p.until
                    && !ends.iter().any(|(seen, _)| seen == p)
                {
                    let left = until.wall().0.saturating_sub(now.wall.0);
                    ends.push((p.clone(), now.mono.plus(left)));
                }
            }
            self.ends = ends;
        }
        let rollout = match &doc {
            Ok(doc) => match rollout::read(doc) {
                Ok(record) => Ok(record.map(|r| r.summary())),
                Err(bad) => Err(Refusal::Rollout(bad)),
            },
            Err(refusal) => Err(refusal.clone()),
        };
        self.seen = Some(Seen { at, doc, rollout });
    }

    fn decide(
        &mut self,
        doc: Result<Document, Refusal>,
        expect: Option<Revision>,
        now: Now,
        out: &mut Vec<Action>,
    ) -> Option<Told> {
        let goal = self.job.as_ref()?.goal.clone();
        let doc = match doc {
            Ok(doc) => doc,
            Err(refusal) => {
                self.rest(now.mono);
                return (goal != Goal::Refresh).then_some(Told::Refused(refusal));
            }
        };
        match self.next_document(&goal, &doc, now) {
            Ok(Some(next)) => match next.encode() {
                Err(bad) => self.refuse(&goal, Refusal::Document(bad), now),
                Ok(bytes) => {
                    self.asked += 1;
                    let ask = self.asked;
                    if let Some(job) = &mut self.job {
                        let (at, doc) = (now.mono, Box::new(next));
                        job.step = Step::Writing { ask, at, doc };
                    }
                    out.push(Action::WritePermits { ask, bytes, expect });
                    None
                }
            },
            Ok(None) => self.done(goal, now, out),
            Err(refusal) => self.refuse(&goal, refusal, now),
        }
    }

    /// `None` = there is nothing to write.
    fn next_document(&self, goal: &Goal, doc: &Document, now: Now) -> Result<Option<Document>, Refusal> {
        let token = self.held.as_ref().map_or("", |h| h.token.as_str());
        if matches!(goal, Goal::Take(_) | Goal::Fence)
            && let Some(pause) = self.paused(now)
        {
            return Err(Refusal::Paused(Box::new(pause.clone())));
        }
        match goal {
            Goal::Refresh => Ok(None),
            Goal::Take(claim) => rules::take(doc, claim, &self.policy, now.wall),
            Goal::Fence => {
                if self
                    .held
                    .as_ref()
                    .is_some_and(|h| now.mono.since(h.renewed) >= self.policy.lease)
                {
                    return Err(Refusal::NotHeld("its lease ran out before the act began".to_owned()));
                }
                let part = self.held.as_ref().and_then(|h| h.part.as_ref());
                rules::fence(doc, token, part, &self.policy, now.wall).map(Some)
            }
            Goal::Renew => rules::renew(doc, token, &self.policy, now.wall).map(Some),
            Goal::Fail(note) => rules::fail(doc, token, note, now.wall),
            Goal::Release(token) => Ok(rules::release(doc, token, now.wall)),
            // What was read may have been stale: an act that has begun since is not cleared away, it is found.
            Goal::Clear(token) => Ok(doc
                .holder(token)
                .filter(|h| h.phase == Phase::Taken)
                .and_then(|_| rules::release(doc, token, now.wall))),
            Goal::Adopt(old) => rules::adopt(doc, old, &self.adopted(), &self.policy, now.wall).map(Some),
        }
    }

    /// Found permits are this process's under this token.
    fn adopted(&self) -> String {
        format!("{}-{:x}-found", self.host, self.inc)
    }

    fn refuse(&mut self, goal: &Goal, refusal: Refusal, now: Now) -> Option<Told> {
        self.rest(now.mono);
        match (goal, refusal) {
            (Goal::Refresh | Goal::Clear(_) | Goal::Adopt(_), _) => None,
            (Goal::Take(_), refusal) => Some(Told::Refused(refusal)),
            (_, Refusal::NotHeld(why)) => {
                self.held = None;
                Some(Told::Lost(why))
            }
            (_, refusal) => Some(Told::Refused(refusal)),
        }
    }

    /// A job has ended well.
    fn done(&mut self, goal: Goal, now: Now, out: &mut Vec<Action>) -> Option<Told> {
        self.rest(now.mono);
        let mut told = None;
        match goal {
            Goal::Refresh | Goal::Clear(_) => {}
            Goal::Take(claim) => {
                self.held = Some(Held {
                    token: claim.token,
                    why: claim.why,
                    ordered: claim.ordered,
                    part: claim.part,
                    phase: Phase::Taken,
                    found: false,
                    renewed: now.mono,
                });
                return Some(Told::Taken);
            }
            Goal::Fence => {
                if let Some(h) = &mut self.held {
                    (h.phase, h.renewed) = (Phase::Acting, now.mono);
                }
                return Some(Told::Fenced);
            }
            Goal::Renew => {
                if let Some(h) = &mut self.held {
                    h.renewed = now.mono;
                }
            }
            Goal::Fail(_) => {
                if let Some(h) = &mut self.held {
                    h.phase = Phase::Failed;
                }
                return Some(Told::Kept);
            }
            Goal::Release(token) => {
                if self.held.as_ref().is_some_and(|h| h.token == token) {
                    self.held = None;
                    told = Some(Told::Released);
                }
            }
            Goal::Adopt(_) => {
                let token = self.adopted();
                if let Some(h) = self.document().and_then(|d| d.holder(&token)).cloned() {
                    self.hold_found(&h, now);
                    told = Some(Told::Found(h.phase));
                }
            }
        }
        if told.is_none() {
            told = self.look_for_strays(now, out);
        }
        told
    }

    fn document(&self) -> Option<&Document> {
        self.seen.as_ref()?.doc.as_ref().ok()
    }

    fn hold_found(&mut self, h: &Holder, now: Now) {
        self.held = Some(Held {
            token: h.token.clone(),
            why: h.why.clone(),
            ordered: h.ordered,
            part: None,
            phase: h.phase,
            found: true,
            renewed: now.mono,
        });
    }

    /// A permit in this host's name that this process does not know of: what an earlier process took, or a write that
    /// landed after it was given up.
    fn look_for_strays(&mut self, now: Now, out: &mut Vec<Action>) -> Option<Told> {
        let own = self.document()?.of(&self.host).cloned();
        match (own, &self.held) {
            (None, Some(_)) => {
                self.held = None;
                Some(Told::Lost(
                    "an operator released it, or the register lost it".to_owned(),
                ))
            }
            (Some(h), Some(held)) if h.token == held.token => {
                // Nobody else writes it: the document knows best what was written before an answer got lost.
                if let Some(held) = &mut self.held {
                    held.phase = h.phase;
                }
                None
            }
            (Some(h), _) => {
                self.held = None;
                match h.phase {
                    Phase::Taken => self.begin(Goal::Clear(h.token), now, out),
                    Phase::Failed => {
                        self.hold_found(&h, now);
                        return Some(Told::Found(Phase::Failed));
                    }
                    Phase::Acting => self.begin(Goal::Adopt(h.token), now, out),
                }
                None
            }
            (None, None) => None,
        }
    }

    fn unreachable(&mut self, why: String, now: Now) -> Option<Told> {
        self.error = Some(why.clone());
        self.again(why, now)
    }

    /// From a fresh read, a little later; or not any more.
    fn again(&mut self, why: String, now: Now) -> Option<Told> {
        let jitter = self.jitter();
        let job = self.job.as_mut()?;
        job.tries += 1;
        let waited_for = matches!(job.goal, Goal::Take(_) | Goal::Fence);
        let out_of_time = now.mono.since(job.began) >= JOB_LIMIT;
        if job.goal == Goal::Refresh || job.tries >= TRIES || waited_for && out_of_time {
            let goal = job.goal.clone();
            self.rest(now.mono);
            // What must be done is tried again with the next refresh, by whoever keeps the permit.
            self.next = now.mono.plus(REFRESH / 3);
            return (goal != Goal::Refresh).then_some(Told::NoStore(why));
        }
        let pause = PAUSE * 2u32.pow(job.tries.min(5) - 1);
        job.step = Step::Pausing {
            until: now.mono.plus(pause.mul_f64(0.5 + jitter)),
        };
        None
    }

    fn rest(&mut self, now: Mono) {
        let spread = 0.75 + self.jitter() / 2.0;
        self.job = None;
        self.next = now.plus(REFRESH.min(self.policy.lease / 8).mul_f64(spread));
    }

    /// 0 to 1, another one each time.
    #[allow(clippy::cast_precision_loss, reason = "a share")]
    fn jitter(&self) -> f64 {
        let mut h = self.inc ^ self.asked.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        h = (h ^ (h >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        h = (h ^ (h >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((h ^ (h >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

fn words(error: StoreError) -> String {
    match error {
        StoreError::Unreachable(why) => why,
        conflict => conflict.to_string(),
    }
}
