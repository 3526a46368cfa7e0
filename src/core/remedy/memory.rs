//! What was tried about a fault and what came of it, kept with the ledger over the agent's own restart: a fault that came
//! back too often, or that was given up, must not be tried anew because the agent was started anew.
//!
//! A memory that cannot be read is the worst one: every fault counts as come back too often for a restart, for as long as
//! anything would have been remembered. A reset is cheap: the limit, which counts as used, holds it for minutes, and not
//! this for an hour. `watchdog resume` makes it forget.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::core::ids::{Mono, Now, Wall};
use crate::core::permit::document::Mark;
use crate::core::remedy::ledger::ActKind;

/// What was done about a fault is remembered for so long after it was last seen.
pub const REMEMBER: Duration = Duration::from_secs(3600);
/// While a fault is there, its memory is made fresh this often.
const REFRESH: Duration = Duration::from_secs(300);
/// Tries of one kind; whatever a damaged file says, they can be counted further.
const MOST: u32 = 1000;

/// An end by both clocks: the wall clock's outlives the process, the monotonic one does not jump. The later one counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Wall", into = "Wall")]
pub struct Until {
    wall: Wall,
    mono: Mono,
}

impl From<Wall> for Until {
    fn from(wall: Wall) -> Self {
        let mono = Mono::default();
        Self { wall, mono }
    }
}

impl From<Until> for Wall {
    fn from(until: Until) -> Self {
        until.wall
    }
}

impl Until {
    /// So long from now.
    #[must_use]
    pub fn after(length: Duration, now: Now) -> Self {
        Self {
            wall: Wall(now.wall.0.saturating_add(length)),
            mono: now.mono.plus(length),
        }
    }

    /// What is left of it, never more than `most`: a wall clock that was set back makes it look endless.
    #[must_use]
    pub fn left(&self, most: Duration, now: Now) -> Duration {
        let wall = self.wall.0.saturating_sub(now.wall.0);
        wall.max(self.mono.since(now.mono)).min(most)
    }

    /// Read from disk: what is left at the time `by` counts from now on by both clocks.
    pub fn anchor(&mut self, most: Duration, by: Now, now: Now) {
        *self = Self::after(self.left(most, by), now);
    }

    /// The wall clock jumped: it is set by the monotonic one, so that what is kept on disk says the same as before.
    pub fn jumped(&mut self, now: Now) {
        self.wall = Wall(now.wall.0.saturating_add(self.mono.since(now.mono)));
    }
}

/// One fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tried {
    /// Counts until then.
    until: Until,
    /// Resets done since it was last healed.
    pub resets: u32,
    /// Restarts done since it was last healed.
    pub restarts: u32,
    /// Healed by a remedy; each counts until then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    healed: Vec<Until>,
    /// Everything allowed was tried.
    #[serde(default)]
    pub gave_up: bool,
}

/// All faults about which something was done.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    #[serde(default)]
    faults: BTreeMap<String, Tried>,
    /// It could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unread: Option<Until>,
    /// Why not, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    unread_why: String,
    /// Resumptions that were taken in; `None` = the document was never looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    marks: Option<Vec<Mark>>,
}

impl Memory {
    /// The safe reading of one that cannot be read.
    #[must_use]
    pub fn unreadable(why: &str, now: Now) -> Self {
        Self {
            unread: Some(Until::after(REMEMBER, now)),
            unread_why: why.to_owned(),
            ..Self::default()
        }
    }

    /// Nothing to keep.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.faults.is_empty() && self.unread.is_none() && self.marks.is_none()
    }

    /// Faults that are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.faults.len()
    }

    fn each_end(&mut self, change: impl Fn(&mut Until)) {
        for tried in self.faults.values_mut() {
            change(&mut tried.until);
            tried.healed.iter_mut().for_each(&change);
        }
        self.unread.iter_mut().for_each(change);
    }

    /// Just read from disk; `by` is what the clock would say now that it was written by.
    pub fn anchor(&mut self, by: Now, now: Now) {
        self.each_end(|end| end.anchor(REMEMBER, by, now));
        for tried in self.faults.values_mut() {
            (tried.resets, tried.restarts) = (tried.resets.min(MOST), tried.restarts.min(MOST));
        }
    }

    /// The wall clock jumped.
    pub fn jumped(&mut self, now: Now) {
        self.each_end(|end| end.jumped(now));
    }

    /// Drops what bears on nothing any more.
    pub fn prune(&mut self, now: Now) {
        let counts = |end: &Until| !end.left(REMEMBER, now).is_zero();
        self.unread = self.unread.filter(counts);
        if self.unread.is_none() {
            self.unread_why.clear();
        }
        self.faults.retain(|_, t| {
            t.healed.retain(counts);
            counts(&t.until) || !t.healed.is_empty()
        });
    }

    /// What was tried about a fault since it was last healed.
    #[must_use]
    pub fn tried(&self, id: &str, now: Now) -> Option<&Tried> {
        let tried = self.faults.get(id)?;
        (!tried.until.left(REMEMBER, now).is_zero()).then_some(tried)
    }

    /// So much was tried; an act counts from before it begins.
    pub fn try_on(&mut self, id: &str, resets: u32, restarts: u32, now: Now) {
        let until = Until::after(REMEMBER, now);
        let tried = self.faults.entry(id.to_owned()).or_insert_with(|| Tried {
            until,
            resets: 0,
            restarts: 0,
            healed: Vec::new(),
            gave_up: false,
        });
        (tried.until, tried.resets, tried.restarts) = (until, resets, restarts);
        if resets + restarts == 0 && tried.healed.is_empty() {
            self.faults.remove(id);
        }
    }

    /// A remedy has healed it.
    pub fn healed(&mut self, id: &str, now: Now) {
        if let Some(tried) = self.faults.get_mut(id) {
            (tried.resets, tried.restarts, tried.gave_up) = (0, 0, false);
            tried.until = Until::after(REMEMBER, now);
            tried.healed.push(tried.until);
        }
    }

    /// Everything allowed was tried.
    pub fn gave_up(&mut self, id: &str, resets: u32, restarts: u32, now: Now) {
        let until = Until::after(REMEMBER, now);
        let tried = self.faults.entry(id.to_owned()).or_insert_with(|| Tried {
            until,
            resets,
            restarts,
            healed: Vec::new(),
            gave_up: true,
        });
        (tried.until, tried.gave_up) = (until, true);
    }

    /// How often it was healed within the hour, and came back if it is there.
    #[must_use]
    pub fn times(&self, id: &str, now: Now) -> usize {
        let counts = |end: &&Until| !end.left(REMEMBER, now).is_zero();
        self.faults
            .get(id)
            .map_or(0, |t| t.healed.iter().filter(counts).count())
    }

    /// For how long all faults still count as come back too often, because it could not be read, and why not.
    #[must_use]
    pub fn unread(&self, now: Now) -> Option<(Duration, &str)> {
        let left = self.unread?.left(REMEMBER, now);
        (!left.is_zero()).then_some((left, self.unread_why.as_str()))
    }

    /// The fault is still there; true = that is worth a write.
    pub fn still_there(&mut self, id: &str, now: Now) -> bool {
        let old = |end: &Until| end.left(REMEMBER, now) < REMEMBER - REFRESH;
        match self.faults.get_mut(id) {
            Some(t) if old(&t.until) && (t.gave_up || t.resets + t.restarts > 0) => {
                t.until = Until::after(REMEMBER, now);
                true
            }
            _ => false,
        }
    }

    /// Forgets all faults: an operator wants them tried anew.
    pub fn clear(&mut self) {
        self.faults.clear();
        self.unread = None;
        self.unread_why.clear();
    }

    /// Takes in the resumptions in the permit document that cover this host; true = one of them is new. They are told
    /// apart, never ordered: they come from many clocks. What is there at the very first look is old.
    pub fn resumed(&mut self, marks: Vec<Mark>) -> bool {
        let new = self
            .marks
            .as_ref()
            .is_some_and(|old| marks.iter().any(|m| !old.contains(m)));
        self.marks = Some(marks);
        new
    }
}

/// So many of a kind, with one more.
#[must_use]
pub fn one_more(resets: u32, restarts: u32, kind: ActKind) -> (u32, u32) {
    match kind {
        ActKind::Reset => (resets + 1, restarts),
        ActKind::Restart => (resets, restarts + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::permit::document::Scope;

    fn at(mono: u64, wall: u64) -> Now {
        Now {
            mono: Mono(Duration::from_secs(mono)),
            wall: Wall(Duration::from_secs(wall)),
        }
    }

    /// As the next process reads it.
    fn reread(m: &Memory, now: Now) -> Memory {
        let mut read: Memory = serde_json::from_str(&serde_json::to_string(m).unwrap()).unwrap();
        read.anchor(now, now);
        read
    }

    #[test]
    fn what_was_tried_and_healed_outlives_the_process_for_an_hour() {
        let mut m = Memory::default();
        m.try_on("route:a>b", 1, 0, at(0, 10_000));
        m.healed("route:a>b", at(5, 10_005));
        m.try_on("route:a>b", 2, 0, at(100, 10_100));
        m.gave_up("host:c", 2, 1, at(100, 10_100));
        let m = reread(&m, at(0, 10_200));
        assert_eq!(m.times("route:a>b", at(0, 10_200)), 1);
        assert_eq!(m.tried("route:a>b", at(0, 10_200)).unwrap().resets, 2);
        assert!(m.tried("host:c", at(0, 10_200)).unwrap().gave_up);
        assert_eq!(m.times("route:a>b", at(3404, 13_604)), 1);
        assert_eq!(m.times("route:a>b", at(3405, 13_605)), 0);
        assert!(m.tried("host:c", at(3500, 13_700)).is_none());
    }

    #[test]
    fn no_jump_of_the_wall_clock_makes_it_forget() {
        let mut m = Memory::default();
        m.try_on("x", 1, 0, at(0, 10_000));
        m.healed("x", at(0, 10_000));
        for wall in [0, 10_060, 9_000_000] {
            assert_eq!(m.times("x", at(60, wall)), 1, "{wall}");
        }
        // A jump, then a crash: what is on disk counts as much as before.
        m.jumped(at(60, 9_000_000));
        let m = reread(&m, at(0, 9_000_001));
        assert_eq!(m.times("x", at(0, 9_000_001)), 1);
        // And one after the start.
        assert_eq!(m.times("x", at(3000, 90_000_000)), 1);
        assert_eq!(m.times("x", at(3600, 90_000_000)), 0);
    }

    #[test]
    fn it_is_pruned_and_stays_small() {
        let mut m = Memory::unreadable("cut in half", at(0, 10_000));
        for i in 0..50 {
            m.try_on(&format!("f{i}"), 1, 0, at(i, 10_000 + i));
        }
        m.try_on("called off", 0, 0, at(50, 10_050));
        assert_eq!(m.len(), 50);
        m.prune(at(3600, 13_600));
        assert_eq!((m.len(), m.unread(at(3600, 13_600))), (49, None));
        m.prune(at(3700, 13_700));
        assert!(m.is_empty());
    }

    #[test]
    fn a_fault_that_stays_is_not_forgotten_and_costs_a_write_now_and_then() {
        let mut m = Memory::default();
        m.try_on("x", 2, 0, at(0, 10_000));
        let writes = (0..7200).filter(|t| m.still_there("x", at(*t, 10_000 + t))).count();
        assert!((20..=24).contains(&writes), "{writes}");
        m.prune(at(7200, 17_200));
        assert_eq!(m.len(), 1);
    }

    #[test]
    fn a_resumption_counts_once_and_an_old_one_never() {
        let mark = |at: u64| Mark::new(Scope::Fleet, "eve", Wall(Duration::from_secs(at)));
        let mut m = Memory::unreadable("cut in half", at(0, 10_000));
        assert!(!m.resumed(vec![mark(9_000)]), "made before this was damaged");
        assert!(m.resumed(vec![mark(10)]), "whatever that operator's clock says");
        assert!(!m.resumed(vec![mark(10)]));
        assert!(!m.resumed(vec![]));
        m.clear();
        assert_eq!(m.unread(at(0, 10_000)), None);
    }
}
