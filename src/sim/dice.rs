//! Seeded random numbers that are the same on every machine and in every version of this crate: xoshiro256++ seeded by
//! SplitMix64 (Blackman and Vigna, prng.di.unimi.it). Not `rand`, whose generators may change between versions.

use std::time::Duration;

/// A stream of random numbers.
#[derive(Debug, Clone)]
pub(super) struct Dice {
    s: [u64; 4],
}

fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Dice {
    /// The stream of this seed and purpose: what one part of the world draws must not move what another draws.
    #[must_use]
    pub(super) fn new(seed: u64, purpose: u64) -> Self {
        let mut state = seed ^ purpose.wrapping_mul(0xd134_2543_de82_ef95);
        Self {
            s: std::array::from_fn(|_| split_mix(&mut state)),
        }
    }

    /// 64 random bits.
    pub(super) fn bits(&mut self) -> u64 {
        let s = &mut self.s;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// Uniform below `n`; 0 for 0.
    pub(super) fn below(&mut self, n: usize) -> usize {
        let wide = u128::from(self.bits()) * n as u128;
        usize::try_from(wide >> 64).unwrap_or(0)
    }

    /// True in `percent` of a hundred.
    pub(super) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// Uniform in `[low, high)`.
    pub(super) fn between(&mut self, low: Duration, high: Duration) -> Duration {
        let span = u64::try_from(high.saturating_sub(low).as_micros()).unwrap_or(u64::MAX);
        let step = (u128::from(self.bits()) * u128::from(span)) >> 64;
        low + Duration::from_micros(u64::try_from(step).unwrap_or(0))
    }

    /// Uniform in 0..1, a multiple of 2^-16.
    pub(super) fn unit(&mut self) -> f64 {
        f64::from(u16::try_from(self.bits() >> 48).unwrap_or(0)) / 65536.0
    }

    /// One of `all`.
    pub(super) fn pick<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        let n = self.below(all.len());
        all.get(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_numbers_are_those_of_the_published_generator() {
        let mut d = Dice { s: [1, 2, 3, 4] };
        let drawn: Vec<u64> = (0..4).map(|_| d.bits()).collect();
        assert_eq!(
            drawn,
            [41_943_041, 58_720_359, 3_588_806_011_781_223, 3_591_011_842_654_386]
        );
    }

    #[test]
    fn streams_of_one_seed_differ_by_purpose_and_stay_in_their_bounds() {
        let (mut a, mut b) = (Dice::new(7, 1), Dice::new(7, 2));
        assert_ne!(a.bits(), b.bits());
        let (low, high) = (Duration::from_secs(1), Duration::from_secs(2));
        for _ in 0..1000 {
            assert!(a.below(10) < 10);
            let d = a.between(low, high);
            assert!(low <= d && d < high);
        }
        assert_eq!(a.below(0), 0);
        assert_eq!(a.pick::<u8>(&[]), None);
    }
}
