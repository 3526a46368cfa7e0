//! What is usual here, beyond what the model knows, and a slow change of it.
//!
//! The statistic is the logarithm of measured over expected, per block of a minute, so that growth of the fleet moves
//! both and cancels out. Usual = median of the last four hours of blocks; its spread = 1.4826 MAD (Hampel 1974), with a
//! floor for Poisson counts. A change = one-sided CUSUM (Page 1954) over standardised blocks, with k = 1 and h = 8, each
//! block bounded to 3, so that no single block, however wild, can alarm: five in a row must be at least [`CHANGE`] times
//! the usual. Frozen while alarming: what alarms does not become usual.
//!
//! Blind spots. A rise slower than the median follows (threefold within about four hours) is never seen here; the
//! volume and the ceiling see it when it is large. A storm that is under way when the agent starts and is steady for ten
//! minutes is taken for usual, up to the cap of [`cap`]. Falls are not seen: silence is no brownout. A change that
//! is not far above what is expected becomes usual after half an hour (`ACCEPT`): a fleet whose clients changed their
//! habits must not hold back healing for ever.

use std::collections::VecDeque;
use std::time::Duration;

// Not the system's, whose last digit depends on machine and C library: the same seed is the same trace everywhere.
use libm::{exp, log};

use crate::core::ids::Mono;
use crate::core::sys::window::Flow;

/// One block.
pub const BLOCK: Duration = Duration::from_secs(60);
/// Blocks that are remembered: four hours.
const MEMORY: usize = 240;
/// Blocks before there is something usual.
const LEARN: usize = 10;
/// Blocks that must agree before a change is one.
const RUN: usize = 5;
/// Times the usual that a change must be.
pub const CHANGE: f64 = 3.0;
/// Slack of the CUSUM, in spreads.
const SLACK: f64 = 1.0;
/// Where the CUSUM alarms.
const ALARM: f64 = 8.0;
/// What one block can add at most.
const MOST: f64 = 3.0;
/// Least spread: 10 %.
const LEAST_SPREAD: f64 = 0.1;
/// Widest range of logarithms, a doubling, in which a first level is learned while something alarms.
const STEADY: f64 = std::f64::consts::LN_2;
/// Blocks after which a change that is not far above expected is the new usual.
const ACCEPT: u32 = 30;

/// What the blocks say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Usual {
    /// Too few blocks yet.
    Learning,
    /// As usual.
    Normal,
    /// So many times the usual, for a time.
    Changed {
        /// Measured over usual.
        times: f64,
    },
}

/// One dimension: messages or bytes.
#[derive(Debug, Clone)]
pub struct Baseline {
    /// What a rise must be at least, per second, to be worth an alarm.
    floor: f64,
    blocks: VecDeque<f64>,
    /// While learning: which of them had an alarm.
    alarmed: VecDeque<bool>,
    recent: VecDeque<f64>,
    median: Option<(f64, f64)>,
    cusum: f64,
    changed: bool,
    changed_for: u32,
    begun: Option<Mono>,
    count: f64,
    expected: f64,
    measured: Duration,
    excused: bool,
    /// Something alarmed in this block.
    alarm: bool,
}

impl Baseline {
    /// Nothing known. `floor`: the least rise, per second, that is worth an alarm.
    #[must_use]
    pub fn new(floor: f64) -> Self {
        Self {
            floor,
            blocks: VecDeque::new(),
            alarmed: VecDeque::new(),
            recent: VecDeque::new(),
            median: None,
            cusum: 0.0,
            changed: false,
            changed_for: 0,
            begun: None,
            count: 0.0,
            expected: 0.0,
            measured: Duration::ZERO,
            excused: false,
            alarm: false,
        }
    }

    /// Times the expected that is usual here; at least 1, at most `cap`.
    #[must_use]
    pub fn usual(&self, cap: f64) -> f64 {
        self.median.map_or(1.0, |(m, _)| exp(m).clamp(1.0, cap.max(1.0)))
    }

    /// What the blocks say.
    #[must_use]
    pub fn says(&self) -> Usual {
        match self.median {
            None => Usual::Learning,
            Some((median, _)) if self.changed => Usual::Changed {
                times: exp(middle(self.recent.iter().copied()).unwrap_or(median) - median),
            },
            Some(_) => Usual::Normal,
        }
    }

    /// Takes in what came of this dimension. `expected`: quiet rate per second. `excused`: something explains what
    /// comes, so this block teaches nothing. `frozen`: an alarm is on.
    pub fn push(&mut self, amount: f64, expected: f64, flow: &Flow, excused: bool, frozen: bool) {
        if flow.over > BLOCK {
            // A gap says nothing about any minute.
            self.restart_block(flow.at);
            return;
        }
        let begun = *self.begun.get_or_insert(flow.at);
        self.count += amount;
        self.expected += expected * flow.over.as_secs_f64();
        self.measured += flow.over;
        self.excused |= excused;
        self.alarm |= frozen;
        if flow.at.since(begun) < BLOCK {
            return;
        }
        let whole = self.measured >= BLOCK / 2 && self.expected > 0.0;
        if whole && !self.excused {
            self.close(self.alarm);
        }
        self.restart_block(flow.at);
    }

    fn restart_block(&mut self, now: Mono) {
        self.begun = Some(now);
        self.count = 0.0;
        self.expected = 0.0;
        self.measured = Duration::ZERO;
        self.excused = false;
        self.alarm = false;
    }

    fn close(&mut self, frozen: bool) {
        let x = log((self.count + 0.5) / (self.expected + 0.5));
        let Some((median, mad)) = self.median else {
            self.learn(x, frozen);
            return;
        };
        let usual_count = self.expected * exp(median);
        let spread = (1.4826 * mad).max(LEAST_SPREAD).max(1.0 / (usual_count + 1.0).sqrt());
        let z = ((x - median) / spread - SLACK).clamp(-MOST, MOST);
        self.cusum = (self.cusum + z).clamp(0.0, ALARM * 2.0);
        self.recent.push_back(x);
        if self.recent.len() > RUN {
            self.recent.pop_front();
        }
        let least = self.recent.iter().copied().fold(f64::INFINITY, f64::min);
        let secs = self.measured.as_secs_f64().max(1.0);
        let rise = (self.count - usual_count) / secs;
        let full = self.recent.len() == RUN;
        if !self.changed {
            self.changed = full && self.cusum >= ALARM && exp(least - median) >= CHANGE && rise >= self.floor;
            self.changed_for = 0;
        } else {
            self.changed_for += 1;
            let back = self.recent.iter().rev().take(2).all(|x| exp(x - median) < CHANGE / 2.0);
            if back || self.changed_for >= ACCEPT {
                self.changed = false;
                self.cusum = 0.0;
                if !back {
                    // The new usual is learned from what has lasted.
                    self.blocks.clear();
                    self.blocks.extend(self.recent.iter());
                }
            }
        }
        if !self.changed && !frozen {
            self.remember(x);
        }
    }

    /// A first level: of the minutes without an alarm where they are most of them, else of steady ones alone.
    fn learn(&mut self, x: f64, frozen: bool) {
        self.blocks.push_back(x);
        self.alarmed.push_back(frozen);
        if self.blocks.len() < LEARN {
            return;
        }
        let all = self.blocks.iter().zip(&self.alarmed);
        let calm: VecDeque<f64> = all.filter(|(_, alarmed)| !**alarmed).map(|(x, _)| *x).collect();
        if calm.len() > LEARN / 2 {
            self.blocks = calm;
        } else if !is_steady(&self.blocks) {
            self.blocks.pop_front();
            self.alarmed.pop_front();
            return;
        }
        self.alarmed.clear();
        self.median = spread_of(&self.blocks);
    }

    fn remember(&mut self, x: f64) {
        self.blocks.push_back(x);
        if self.blocks.len() > MEMORY {
            self.blocks.pop_front();
        }
        self.median = spread_of(&self.blocks).or(self.median);
    }
}

/// Times the expected that may become usual: what is legal at worst, or ten times, or `absolute` per second.
#[must_use]
pub fn cap(expected: f64, worst: f64, absolute: f64) -> f64 {
    if expected <= 0.0 {
        return 1.0;
    }
    (worst.max(absolute) / expected).max(10.0)
}

fn middle(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut sorted: Vec<f64> = values.collect();
    let mid = sorted.len() / 2;
    if sorted.is_empty() {
        return None;
    }
    let (_, median, _) = sorted.select_nth_unstable_by(mid, f64::total_cmp);
    Some(*median)
}

/// All but the lowest and the highest are near each other.
fn is_steady(blocks: &VecDeque<f64>) -> bool {
    let mut sorted: Vec<f64> = blocks.iter().copied().collect();
    sorted.sort_by(f64::total_cmp);
    let inner = sorted.get(1).zip(sorted.iter().rev().nth(1));
    inner.is_some_and(|(low, high)| high - low < STEADY)
}

fn spread_of(blocks: &VecDeque<f64>) -> Option<(f64, f64)> {
    let median = middle(blocks.iter().copied())?;
    let mad = middle(blocks.iter().map(|x| (x - median).abs()))?;
    Some((median, mad))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::sys::window::Amount;

    /// Blocks of one rate each, `expected` = 10 a second.
    fn minutes(b: &mut Baseline, from: &mut u64, rates: &[f64], excused: bool) {
        minutes_with(b, from, rates, excused, false);
    }

    fn minutes_with(b: &mut Baseline, from: &mut u64, rates: &[f64], excused: bool, alarm: bool) {
        for rate in rates {
            for _ in 0..30 {
                *from += 2;
                let flow = Flow {
                    at: Mono(Duration::from_secs(*from)),
                    over: Duration::from_secs(2),
                    amount: Amount::default(),
                };
                b.push(rate * 2.0, 10.0, &flow, excused, alarm);
            }
        }
    }

    #[test]
    fn a_lasting_threefold_rise_is_a_change_and_a_wild_minute_is_not() {
        let mut b = Baseline::new(5.0);
        let mut t = 0;
        minutes(&mut b, &mut t, &[10.0; 20], false);
        assert_eq!(b.says(), Usual::Normal);
        minutes(&mut b, &mut t, &[1e6, 10.0, 10.0, 10.0], false);
        assert_eq!(b.says(), Usual::Normal, "one minute is no change");
        minutes(&mut b, &mut t, &[40.0; 5], false);
        assert!(matches!(b.says(), Usual::Normal | Usual::Changed { .. }));
        minutes(&mut b, &mut t, &[40.0; 2], false);
        assert!(
            matches!(b.says(), Usual::Changed { times } if (times - 4.0).abs() < 0.2),
            "{:?}",
            b.says()
        );
        minutes(&mut b, &mut t, &[10.0; 3], false);
        assert_eq!(b.says(), Usual::Normal, "and it ends");
        assert!((b.usual(10.0) - 1.0).abs() < 0.05, "frozen while it lasted");
    }

    #[test]
    fn a_change_that_stays_becomes_usual() {
        let mut b = Baseline::new(5.0);
        let mut t = 0;
        minutes(&mut b, &mut t, &[10.0; 20], false);
        minutes(&mut b, &mut t, &[40.0; 12], false);
        assert!(matches!(b.says(), Usual::Changed { .. }));
        minutes(&mut b, &mut t, &[40.0; 40], false);
        assert_eq!(b.says(), Usual::Normal);
        assert!(b.usual(10.0) > 3.5, "{}", b.usual(10.0));
    }

    #[test]
    fn explained_minutes_teach_nothing() {
        let mut b = Baseline::new(5.0);
        let mut t = 0;
        minutes(&mut b, &mut t, &[10.0; 20], false);
        minutes(&mut b, &mut t, &[90.0; 20], true);
        assert_eq!(b.says(), Usual::Normal);
        assert!((b.usual(10.0) - 1.0).abs() < 0.05);
    }

    #[test]
    fn a_minute_whose_alarm_was_over_before_it_ended_is_no_calm_one() {
        let mut b = Baseline::new(5.0);
        let mut t = 0;
        minutes(&mut b, &mut t, &[10.0; 5], false);
        for _ in 0..5 {
            // Two readings before the minute ends the alarm is over.
            for i in 0..30 {
                t += 2;
                let flow = Flow {
                    at: Mono(Duration::from_secs(t)),
                    over: Duration::from_secs(2),
                    amount: Amount::default(),
                };
                b.push(500.0, 10.0, &flow, false, i < 20);
            }
        }
        assert_eq!(b.says(), Usual::Learning);
    }

    #[test]
    fn storms_that_fill_most_of_the_first_minutes_are_not_usual_and_a_steady_one_of_ten_is() {
        let mut b = Baseline::new(5.0);
        let mut t = 0;
        minutes(&mut b, &mut t, &[10.0; 4], false);
        minutes_with(&mut b, &mut t, &[250.0; 6], false, true);
        assert_eq!(b.says(), Usual::Learning);
        minutes(&mut b, &mut t, &[10.0; 7], false);
        assert_eq!(b.says(), Usual::Normal);
        assert!((b.usual(100.0) - 1.0).abs() < 0.05, "{}", b.usual(100.0));
        let mut b = Baseline::new(5.0);
        minutes_with(&mut b, &mut t, &[250.0; 11], false, true);
        assert!(b.usual(100.0) > 20.0, "{}", b.usual(100.0));
    }
}
