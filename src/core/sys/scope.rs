//! Brownout of a region and of the fleet: the share of hosts that report one, with hysteresis.
//!
//! Every agent computes it from the beacons it hears and its own state. Two hosts at least where there are two: one
//! host's trouble is a host's. Blind spot: hosts that are not heard count neither way, so a storm that silences beacons shows
//! by those that still speak.

use std::time::Duration;

use crate::core::ids::{Now, Wall};

/// Share of hosts where it begins, and where it may end.
const ENTRY: f64 = 0.25;
const EXIT: f64 = 0.10;
/// Below the exit share for so long.
const CALM: Duration = Duration::from_secs(3);

/// One scope.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scope {
    on: Option<Now>,
    calm: Option<crate::core::ids::Mono>,
    hosts: (usize, usize),
    score: f64,
}

impl Scope {
    /// `sick` of `of` hosts report one. True if it came or went.
    #[allow(clippy::cast_precision_loss, reason = "a share of hosts")]
    pub fn update(&mut self, sick: usize, of: usize, now: Now) -> bool {
        self.hosts = (sick, of);
        let share = sick as f64 / of.max(1) as f64;
        self.score = share / ENTRY;
        let enough = sick >= of.min(2) && sick > 0;
        match self.on {
            None if enough && share >= ENTRY => {
                self.on = Some(now);
                self.calm = None;
                true
            }
            None => false,
            Some(_) if share > EXIT && enough => {
                self.calm = None;
                false
            }
            Some(_) => {
                let calm = *self.calm.get_or_insert(now.mono);
                let over = now.mono.since(calm) >= CALM;
                if over {
                    self.on = None;
                    self.calm = None;
                }
                over
            }
        }
    }

    /// Since when, while it is on.
    #[must_use]
    pub fn since(&self) -> Option<Now> {
        self.on
    }

    /// The same by the wall clock.
    #[must_use]
    pub fn since_wall(&self) -> Option<Wall> {
        self.on.map(|n| n.wall)
    }

    /// Below the exit share, not long enough.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        self.on.is_some() && self.calm.is_some()
    }

    /// 1 is where it begins.
    #[must_use]
    pub fn score(&self) -> f64 {
        self.score
    }

    /// Hosts that report one, of so many.
    #[must_use]
    pub fn hosts(&self) -> (usize, usize) {
        self.hosts
    }

    /// Why, as a sentence.
    #[must_use]
    pub fn reason(&self) -> String {
        let (sick, of) = self.hosts;
        format!("{sick} of {of} hosts report a brownout")
    }

    /// What ends it, as a sentence.
    #[must_use]
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of hosts"
    )]
    pub fn ends_when(&self) -> String {
        let (_, of) = self.hosts;
        let few = ((of as f64 * EXIT) as usize).max(of.min(2).saturating_sub(1));
        let calm = humantime::format_duration(CALM);
        format!("at most {few} of {of} hosts report one for {calm}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::ids::Mono;

    fn at(s: u64) -> Now {
        Now {
            mono: Mono(Duration::from_secs(s)),
            wall: Wall::default(),
        }
    }

    #[test]
    fn a_share_begins_it_and_a_smaller_one_ends_it_after_a_while() {
        let mut s = Scope::default();
        assert!(!s.update(1, 8, at(0)), "one host is a host");
        assert!(s.update(2, 8, at(1)));
        assert!(!s.update(1, 8, at(2)) && s.is_ending());
        assert!(!s.update(2, 8, at(3)) && !s.is_ending(), "it came back");
        assert!(!s.update(0, 8, at(4)));
        assert!(s.update(0, 8, at(7)));
        assert_eq!(s.since(), None);
    }

    #[test]
    fn the_only_host_is_its_region() {
        let mut s = Scope::default();
        assert!(s.update(1, 1, at(0)));
        assert!(!s.update(0, 1, at(1)));
        assert!(s.update(0, 1, at(4)));
        assert!(!Scope::default().update(0, 0, at(0)));
    }
}
