//! A token bucket as GCRA (ITU-T I.371) on the monotonic clock: a burst at once, then one per step. Some of the burst
//! can be kept for what matters more.

use std::time::Duration;

use crate::core::ids::Mono;

/// How many more may pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    burst: u32,
    step: Duration,
    /// When it is full again.
    full_at: Mono,
}

impl Bucket {
    /// A full one.
    #[must_use]
    pub fn new(burst: u32, step: Duration) -> Self {
        Self {
            burst,
            step,
            full_at: Mono(Duration::ZERO),
        }
    }

    /// Takes a token, if more than `reserve` are there.
    pub fn take(&mut self, reserve: u32, now: Mono) -> bool {
        let backlog = self.full_at.since(now);
        if backlog + self.step * (reserve + 1) > self.step * self.burst {
            return false;
        }
        self.full_at = self.full_at.max(now).plus(self.step);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_secs(2);

    fn at(millis: u64) -> Mono {
        Mono(Duration::from_millis(millis))
    }

    #[test]
    fn a_burst_passes_and_then_one_per_step() {
        let mut bucket = Bucket::new(3, STEP);
        let passed = (0..10).filter(|_| bucket.take(0, at(1000))).count();
        assert_eq!(passed, 3);
        assert!(!bucket.take(0, at(2999)));
        assert!(bucket.take(0, at(3000)));
        assert!(!bucket.take(0, at(3000)));
    }

    #[test]
    fn over_a_long_time_no_more_than_the_rate_passes() {
        let mut bucket = Bucket::new(3, STEP);
        let passed = (0..100_000).filter(|ms| bucket.take(0, at(*ms))).count();
        assert_eq!(passed, 3 + 49);
    }

    #[test]
    fn the_reserve_is_for_what_matters_more() {
        let mut bucket = Bucket::new(10, STEP);
        let small = (0..20).filter(|_| bucket.take(4, at(0))).count();
        assert_eq!(small, 6);
        let great = (0..20).filter(|_| bucket.take(0, at(0))).count();
        assert_eq!(great, 4);
    }
}
