//! The ledger: what was done here, kept on disk, and the limits that follow from it.
//!
//! The limit is GCRA (ITU-T I.371): `n` acts at once, then one per `hour / n`. It is kept on both clocks and the
//! stricter one counts: the wall clock survives the agent's own restart, the monotonic one a wall clock that jumps. What is
//! read from disk is anchored to the monotonic clock at once, by the machine's own clock where that is of the same boot; after a jump the wall clock's side is set by the other.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::core::agent::run::KeptRun;
use crate::core::control::roll::Ordered;
use crate::core::ids::{Now, Wall};
use crate::core::remedy::memory::{Memory, Until};

const HOUR: Duration = Duration::from_secs(3600);
/// Acts kept on disk.
const KEPT: usize = 100;

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActKind {
    /// Destroy sockets of the local server.
    Reset,
    /// Restart the local server.
    Restart,
}

impl ActKind {
    /// The label value.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::Restart => "restart",
        }
    }
}

/// One act, as kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Act {
    /// When, by the wall clock.
    pub at: Wall,
    /// What.
    pub kind: ActKind,
    /// Fault id, or who ordered it.
    pub reason: String,
}

/// The machine's own clock, which nobody sets: which boot, and how long ago it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot {
    /// Its random id (Linux: `/proc/sys/kernel/random/boot_id`).
    pub id: String,
    /// Since then.
    pub up: Duration,
}

/// When a ledger was written, by the wall clock and by the machine's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    boot: String,
    up_ms: u64,
    wall: Wall,
}

/// The file `ledger.json`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ledger {
    /// Theoretical arrival time per kind.
    full_at: BTreeMap<ActKind, Until>,
    /// The last acts, oldest first.
    pub acts: Vec<Act>,
    /// The last restart that was ordered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ordered: Option<Ordered>,
    /// The ordered restart that is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<KeptRun>,
    /// What was tried about faults.
    #[serde(default, skip_serializing_if = "Memory::is_empty")]
    pub memory: Memory,
    /// When it was written; absent where the machine does not tell its boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    written: Option<Written>,
}

impl Ledger {
    /// The safe reading of a ledger that cannot be read: all limits count as used, and all faults as come back too often.
    #[must_use]
    pub fn exhausted(why: &str, now: Now) -> Self {
        let kinds = [ActKind::Reset, ActKind::Restart];
        Self {
            full_at: kinds.iter().map(|k| (*k, Until::after(HOUR, now))).collect(),
            memory: Memory::unreadable(why, now),
            ..Self::default()
        }
    }

    /// As it goes to disk.
    #[must_use]
    pub fn written(&self, boot: Option<Boot>, now: Now) -> Self {
        let written = boot.map(|b| Written {
            boot: b.id,
            up_ms: u64::try_from(b.up.as_millis()).unwrap_or(u64::MAX),
            wall: now.wall,
        });
        Self {
            written,
            ..self.clone()
        }
    }

    /// Just read from disk. Within one boot the machine's own clock says how long that took, else the wall clock.
    pub fn anchor(&mut self, boot: Option<&Boot>, now: Now) {
        let same = self.written.take().zip(boot).filter(|(w, b)| w.boot == b.id);
        let since = same.and_then(|(w, b)| Some((w.wall, b.up.checked_sub(Duration::from_millis(w.up_ms))?)));
        let wall = since.map_or(now.wall, |(then, took)| Wall(then.0.saturating_add(took)));
        let by = Now { wall, ..now };
        self.full_at.values_mut().for_each(|end| end.anchor(HOUR, by, now));
        // Nothing was done in the future: a clock was set back, or the file is damaged.
        self.acts.iter_mut().for_each(|act| act.at = act.at.min(now.wall));
        self.memory.anchor(by, now);
    }

    /// The wall clock jumped: what is kept on disk must say the same as before.
    pub fn jumped(&mut self, now: Now) {
        self.full_at.values_mut().for_each(|end| end.jumped(now));
        self.memory.jumped(now);
    }

    /// The act that was noted last did not begin. It is no restart that anybody made; that it was tried counts for the
    /// limit all the same.
    pub fn take_back(&mut self, kind: ActKind) {
        if let Some(last) = self.acts.iter().rposition(|a| a.kind == kind) {
            self.acts.remove(last);
        }
    }

    /// Acts still allowed now.
    #[must_use]
    pub fn left(&self, kind: ActKind, per_hour: u32, now: Now) -> u32 {
        let Some(step) = HOUR.checked_div(per_hour) else {
            return 0;
        };
        let free = HOUR.saturating_sub(self.backlog(kind, now));
        u32::try_from(free.as_nanos() / step.as_nanos().max(1))
            .unwrap_or(per_hour)
            .min(per_hour)
    }

    /// Time until one more act is allowed; zero = now.
    #[must_use]
    pub fn wait(&self, kind: ActKind, per_hour: u32, now: Now) -> Duration {
        match HOUR.checked_div(per_hour) {
            None => Duration::MAX,
            Some(step) => (self.backlog(kind, now) + step).saturating_sub(HOUR),
        }
    }

    /// Notes an act that is about to be done.
    pub fn note(&mut self, kind: ActKind, per_hour: u32, reason: &str, now: Now) {
        let step = HOUR.checked_div(per_hour.max(1)).unwrap_or(HOUR);
        let full = self.backlog(kind, now) + step;
        self.full_at.insert(kind, Until::after(full, now));
        self.acts.push(Act {
            at: now.wall,
            kind,
            reason: reason.to_owned(),
        });
        if self.acts.len() > KEPT {
            self.acts.drain(..self.acts.len() - KEPT);
        }
    }

    fn backlog(&self, kind: ActKind, now: Now) -> Duration {
        self.full_at
            .get(&kind)
            .map_or(Duration::ZERO, |end| end.left(HOUR, now))
    }

    /// The last act of a kind.
    #[must_use]
    pub fn last(&self, kind: ActKind) -> Option<&Act> {
        self.acts.iter().rev().find(|a| a.kind == kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::ids::Mono;
    use proptest::prelude::*;

    fn at(mono: u64, wall: u64) -> Now {
        Now {
            mono: Mono(Duration::from_secs(mono)),
            wall: Wall(Duration::from_secs(wall)),
        }
    }

    #[test]
    fn two_an_hour_are_two_and_the_third_comes_half_an_hour_later() {
        let mut l = Ledger::default();
        for _ in 0..2 {
            assert!(l.left(ActKind::Restart, 2, at(0, 1000)) > 0);
            l.note(ActKind::Restart, 2, "x", at(0, 1000));
        }
        assert_eq!(l.left(ActKind::Restart, 2, at(0, 1000)), 0);
        assert_eq!(l.wait(ActKind::Restart, 2, at(0, 1000)), Duration::from_secs(1800));
        assert_eq!(l.left(ActKind::Restart, 2, at(1800, 2800)), 1);
        assert_eq!(l.left(ActKind::Reset, 20, at(0, 1000)), 20);
    }

    #[test]
    fn the_limit_survives_the_agents_own_restart() {
        let mut l = Ledger::default();
        l.note(ActKind::Restart, 1, "x", at(500, 1000));
        let read: Ledger = serde_json::from_str(&serde_json::to_string(&l).unwrap()).unwrap();
        assert_eq!(read.left(ActKind::Restart, 1, at(0, 1010)), 0);
        assert_eq!(read.left(ActKind::Restart, 1, at(0, 4600)), 1);
    }

    #[test]
    fn a_clock_that_jumps_forward_gives_nothing_and_one_set_back_takes_an_hour_at_most() {
        let mut l = Ledger::default();
        l.note(ActKind::Restart, 1, "x", at(0, 1_000_000));
        assert_eq!(l.left(ActKind::Restart, 1, at(10, 9_000_000)), 0);
        assert_eq!(l.wait(ActKind::Restart, 1, at(10, 0)), HOUR);
    }

    #[test]
    fn a_clock_that_is_set_while_the_agent_is_away_moves_no_limit_within_one_boot() {
        let boot = |id: &str, up| {
            Some(Boot {
                id: id.to_owned(),
                up: Duration::from_secs(up),
            })
        };
        let kept = |wrote: Now, up| {
            let mut l = Ledger::default();
            l.note(ActKind::Restart, 1, "x", wrote);
            serde_json::to_string(&l.written(boot("a", up), wrote)).unwrap()
        };
        let wait = |kept: &str, id, up, now: Now| {
            let mut read: Ledger = serde_json::from_str(kept).unwrap();
            read.anchor(boot(id, up).as_ref(), now);
            read.wait(ActKind::Restart, 1, now).as_secs()
        };
        let kept = kept(at(9, 1_000_000), 50);
        for wall in [0, 1_000_010, 1_003_610, 9_000_000] {
            assert_eq!(wait(&kept, "a", 60, at(0, wall)), 3590, "{wall}");
            assert_eq!(wait(&kept, "a", 3650, at(0, wall)), 0, "{wall}");
        }
        // After a boot, or where time ran backwards, the wall clock is all there is.
        assert_eq!(wait(&kept, "b", 60, at(0, 1_000_100)), 3500);
        assert_eq!(wait(&kept, "a", 49, at(0, 1_000_100)), 3500);
    }

    #[test]
    fn no_jump_of_the_wall_clock_loosens_a_limit_over_a_crash() {
        let crash = |l: &Ledger, now: Now| {
            let mut read: Ledger = serde_json::from_str(&serde_json::to_string(l).unwrap()).unwrap();
            read.anchor(None, now);
            read
        };
        let mut l = Ledger::default();
        l.note(ActKind::Restart, 1, "x", at(500, 1_000_000));
        // Forward while it runs, then a crash.
        l.jumped(at(510, 9_000_000));
        let l = crash(&l, at(0, 9_000_001));
        assert_eq!(
            l.wait(ActKind::Restart, 1, at(0, 9_000_001)),
            Duration::from_secs(3590) - Duration::from_secs(1)
        );
        // Right after the start, when the clock is set for the first time.
        assert_eq!(l.left(ActKind::Restart, 1, at(5, 99_000_000)), 0);
        assert_eq!(l.left(ActKind::Restart, 1, at(3600, 99_000_000)), 1);
        // Back, and a crash: an hour at most, and no day.
        let mut l = crash(&l, at(0, 1_000));
        assert_eq!(l.left(ActKind::Restart, 1, at(3599, 4_599)), 0);
        l.jumped(at(10, 10));
        assert_eq!(l.left(ActKind::Restart, 1, at(3600, 3_600)), 1);
    }

    #[test]
    fn an_act_that_did_not_begin_is_none_but_counts() {
        let mut l = Ledger::default();
        l.note(ActKind::Restart, 2, "first", at(0, 1000));
        l.note(ActKind::Reset, 20, "reset", at(1, 1001));
        l.note(ActKind::Restart, 2, "second", at(2, 1002));
        l.take_back(ActKind::Restart);
        assert_eq!(l.last(ActKind::Restart).map(|a| a.reason.as_str()), Some("first"));
        assert!(l.last(ActKind::Reset).is_some());
        assert_eq!(l.left(ActKind::Restart, 2, at(2, 1002)), 0);
    }

    #[test]
    fn an_unreadable_ledger_counts_as_used_up() {
        let l = Ledger::exhausted("cut in half", at(0, 1000));
        assert_eq!(l.left(ActKind::Restart, 2, at(0, 1000)), 0);
        assert_eq!(l.left(ActKind::Reset, 20, at(0, 1000)), 0);
        assert_eq!(Ledger::default().left(ActKind::Reset, 0, at(0, 0)), 0);
    }

    proptest! {
        #[test]
        fn never_more_than_twice_the_limit_in_any_hour(steps in proptest::collection::vec(1u64..900, 1..300), n in 1u32..6) {
            let (mut l, mut t, mut done) = (Ledger::default(), 0u64, Vec::<u64>::new());
            for dt in steps {
                t += dt;
                if l.left(ActKind::Restart, n, at(t, t)) > 0 {
                    l.note(ActKind::Restart, n, "x", at(t, t));
                    done.push(t);
                }
                let hour = done.iter().filter(|d| **d + 3600 > t).count();
                prop_assert!(hour <= 2 * n as usize);
            }
        }
    }
}
