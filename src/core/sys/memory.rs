//! Memory that grows without end: a gated Theil–Sen slope over block minima, and the time until the limit.
//!
//! The minimum of each minute is taken, since what garbage collection and bursts add comes and goes. The slope is the
//! median of the slopes between all pairs of blocks (Theil 1950, Sen 1968), which three wild minutes in ten do not
//! move. It counts only if the gates are passed: half an hour of blocks, both halves rising by themselves, three
//! quarters of all pairs rising, and a growth over the span of at least 5 % of what is in use. Blind spots: growth by
//! stairs whose steps are longer than the memory (two hours), and growth that a restart cuts off before half an hour.

use std::collections::VecDeque;
use std::time::Duration;

use crate::core::ids::Mono;

/// One block.
const BLOCK: Duration = Duration::from_secs(60);
/// Blocks that are remembered: two hours.
const MEMORY: usize = 120;
/// Blocks before a slope is one.
const LEAST: usize = 30;
/// Share of pairs that must rise.
const RISING: f64 = 0.75;
/// Growth over the span, as a share of what is in use.
const MATERIAL: f64 = 0.05;
/// A limit further away than this is none to tell of.
const HORIZON: Duration = Duration::from_secs(30 * 86_400);

/// Where a limit stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitSource {
    /// `memory.max` of the unit's control group.
    Cgroup,
    /// The host's memory.
    Host,
}

impl LimitSource {
    /// For people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Cgroup => "cgroup",
            Self::Host => "host",
        }
    }
}

/// What the server may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryLimit {
    /// Bytes.
    pub bytes: u64,
    /// Whose.
    pub source: LimitSource,
}

/// The server's memory over time.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    server_id: String,
    block: Option<(Mono, f64)>,
    blocks: VecDeque<(f64, f64)>,
    now: f64,
    slope: Option<f64>,
}

impl Memory {
    /// Takes in a reading.
    #[allow(clippy::cast_precision_loss, reason = "bytes of memory")]
    pub fn on_read(&mut self, server_id: &str, bytes: u64, now: Mono) {
        if self.server_id != server_id {
            *self = Self {
                server_id: server_id.to_owned(),
                ..Self::default()
            };
        }
        if bytes == 0 {
            return;
        }
        let bytes = bytes as f64;
        self.now = bytes;
        let Some((begun, least)) = &mut self.block else {
            self.block = Some((now, bytes));
            return;
        };
        *least = least.min(bytes);
        if now.since(*begun) >= BLOCK {
            let (begun, least) = (*begun, *least);
            self.blocks.push_back((begun.0.as_secs_f64(), least));
            if self.blocks.len() > MEMORY {
                self.blocks.pop_front();
            }
            self.block = Some((now, bytes));
            self.slope = self.gated();
        }
    }

    /// Steady growth in bytes per second, if there is any.
    #[must_use]
    pub fn slope(&self) -> Option<f64> {
        self.slope
    }

    /// Until the limit at this growth.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "bytes of memory")]
    pub fn exhaustion(&self, limit: MemoryLimit) -> Option<Duration> {
        let left = (limit.bytes as f64 - self.now).max(0.0);
        let secs = left / self.slope?;
        Duration::try_from_secs_f64(secs).ok().filter(|d| *d < HORIZON)
    }

    fn gated(&self) -> Option<f64> {
        if self.blocks.len() < LEAST {
            return None;
        }
        let blocks: Vec<(f64, f64)> = self.blocks.iter().copied().collect();
        let (first, second) = blocks.split_at(blocks.len() / 2);
        let (slope, rising) = theil_sen(&blocks)?;
        let halves = theil_sen(first)?.0 > 0.0 && theil_sen(second)?.0 > 0.0;
        let span = blocks.last()?.0 - blocks.first()?.0;
        let material = slope * span >= MATERIAL * blocks.first()?.1;
        (slope > 0.0 && halves && rising >= RISING && material).then_some(slope)
    }
}

/// The median slope of all pairs, and the share of them that rise.
#[allow(clippy::cast_precision_loss, reason = "a share of at most 7140 pairs")]
fn theil_sen(blocks: &[(f64, f64)]) -> Option<(f64, f64)> {
    let mut slopes = Vec::with_capacity(blocks.len() * blocks.len() / 2);
    for (i, (t0, y0)) in blocks.iter().enumerate() {
        slopes.extend(
            blocks[i + 1..]
                .iter()
                .filter(|(t, _)| t > t0)
                .map(|(t, y)| (y - y0) / (t - t0)),
        );
    }
    if slopes.is_empty() {
        return None;
    }
    let rising = slopes.iter().filter(|s| **s > 0.0).count() as f64 / slopes.len() as f64;
    let mid = slopes.len() / 2;
    let (_, median, _) = slopes.select_nth_unstable_by(mid, f64::total_cmp);
    Some((*median, rising))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn fed(minutes: u64, bytes: impl Fn(u64) -> u64) -> Memory {
        let mut m = Memory::default();
        for s in 0..minutes * 6 {
            m.on_read("A", bytes(s * 10), Mono(Duration::from_secs(s * 10)));
        }
        m
    }

    fn limit(bytes: u64) -> MemoryLimit {
        MemoryLimit {
            bytes,
            source: LimitSource::Host,
        }
    }

    #[test]
    fn a_leak_under_a_saw_is_seen_with_its_time_to_the_limit() {
        // 100 KiB/s under a saw of 50 MiB.
        let m = fed(60, |t| 200 * MIB + t * 102_400 + (t % 300) * MIB / 6);
        let slope = m.slope().expect("a slope");
        assert!((slope / 102_400.0 - 1.0).abs() < 0.25, "{slope}");
        let left = m.exhaustion(limit(1200 * MIB)).expect("a time");
        let expected = (1200.0 - 200.0) * 10.24 - 3600.0;
        assert!((left.as_secs_f64() / expected - 1.0).abs() < 0.4, "{left:?} {expected}");
    }

    #[test]
    fn warm_up_that_levels_off_is_no_leak() {
        let m = fed(90, |t| 100 * MIB + t.min(1800) * 51_200 + (t * 7919 % 97) * 10_000);
        assert_eq!(m.slope(), None);
    }

    #[test]
    fn noise_is_no_leak_and_garbage_does_not_panic() {
        assert_eq!(fed(120, |t| 300 * MIB + (t * 7919 % 1009) * 4096).slope(), None);
        let m = fed(120, |t| if t % 170 == 0 { u64::MAX } else { t * 31 % 7 });
        let _ = m.exhaustion(limit(0));
    }

    #[test]
    fn a_restart_begins_anew() {
        let mut m = fed(60, |t| 200 * MIB + t * 102_400);
        assert!(m.slope().is_some());
        m.on_read("B", 10 * MIB, Mono(Duration::from_secs(4000)));
        assert_eq!(m.slope(), None);
    }
}
