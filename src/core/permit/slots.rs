//! Time slots: who may restart where no register is configured. A pure function of names and the wall clock.
//!
//! In each slot every host has a weight, a hash of its name and the slot's number (rendezvous hashing, Thaler and
//! Ravishankar 1998). A host has the slot if no host *that it knows* weighs more. Two hosts that know each other can
//! never both have the same slot, however much else of the fleet either of them knows: the rosters need not agree.
//! A slot opens a guard of a quarter of its length after its beginning and closes as much before its end, so hosts
//! whose clocks differ by less than half a slot never act in the same moment by taking it for different slots.
//!
//! The price: a turn comes by lot, once in as many slots as there are hosts on average; nineteen of twenty waits end within three
//! times that. Large fleets want a register.

use std::time::Duration;

use crate::core::ids::{HostName, Wall};

/// Slots looked ahead for the next turn.
const AHEAD: u64 = 20_000;

/// Where a host stands in the order of slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Its slot is open.
    Now,
    /// Its next slot opens in so long; `None` = not within what was looked at.
    In(Option<Duration>),
}

/// Is this host's slot open? Cheap: no looking ahead.
#[must_use]
pub fn is_turn<'a>(
    me: &HostName,
    others: impl Iterator<Item = &'a HostName> + Clone,
    length: Duration,
    now: Wall,
) -> bool {
    let length = length.as_millis().max(4);
    let guard = length / 4;
    let (slot, into) = (now.0.as_millis() / length, now.0.as_millis() % length);
    into >= guard && into < length - guard && has(me, others, slot)
}

/// When is this host's turn? `others` are all hosts that may act, this one aside.
#[must_use]
pub fn turn<'a>(
    me: &HostName,
    others: impl Iterator<Item = &'a HostName> + Clone,
    length: Duration,
    now: Wall,
) -> Turn {
    let length = length.as_millis().max(4);
    let guard = length / 4;
    let at = now.0.as_millis();
    let (slot, into) = (at / length, at % length);
    if is_turn(
        me,
        others.clone(),
        Duration::from_millis(u64::try_from(length).unwrap_or(u64::MAX)),
        now,
    ) {
        return Turn::Now;
    }
    // A slot that has not opened yet may be the next.
    let first = if into < guard { slot } else { slot + 1 };
    let next = (first..first + u128::from(AHEAD)).find(|s| has(me, others.clone(), *s));
    Turn::In(next.map(|s| {
        let millis = (s * length + guard).saturating_sub(at);
        Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
    }))
}

fn has<'a>(me: &HostName, others: impl Iterator<Item = &'a HostName>, slot: u128) -> bool {
    let own = weight(me, slot);
    others.into_iter().filter(|o| *o != me).all(|o| weight(o, slot) < own)
}

/// FNV-1a and the finalizer of splitmix64, since FNV alone mixes the last bytes badly; the name breaks a tie.
fn weight(host: &HostName, slot: u128) -> (u64, &str) {
    let number = u64::try_from(slot).unwrap_or(u64::MAX).to_be_bytes();
    let bytes = number.iter().chain(host.as_str().as_bytes());
    let mut h = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |h, b| {
        (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3)
    });
    h = (h ^ (h >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    h = (h ^ (h >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (h ^ (h >> 31), host.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const L: Duration = Duration::from_secs(2);

    fn names(n: usize) -> Vec<HostName> {
        (0..n).map(|i| HostName::new(&format!("h-{i}")).unwrap()).collect()
    }

    fn at(millis: u64) -> Wall {
        Wall(Duration::from_secs(1_700_000_000) + Duration::from_millis(millis))
    }

    #[test]
    fn a_lone_host_has_every_slot_and_waits_only_for_the_guard() {
        let me = HostName::new("only").unwrap();
        assert_eq!(turn(&me, [].iter(), L, at(500)), Turn::Now);
        assert_eq!(
            turn(&me, [].iter(), L, at(0)),
            Turn::In(Some(Duration::from_millis(500)))
        );
        assert_eq!(
            turn(&me, [].iter(), L, at(1500)),
            Turn::In(Some(Duration::from_millis(1000)))
        );
    }

    #[test]
    fn waits_are_as_documented() {
        for n in [2usize, 6, 20, 100] {
            let hosts = names(n);
            let mut waits: Vec<f64> = (0..2000u64)
                .map(|i| match turn(&hosts[0], hosts.iter(), L, at(i * 7919)) {
                    Turn::Now => 0.0,
                    Turn::In(wait) => wait.unwrap().as_secs_f64(),
                })
                .collect();
            waits.sort_by(f64::total_cmp);
            let mean = waits.iter().sum::<f64>() / waits.len() as f64;
            let most = waits[waits.len() * 95 / 100];
            let turn_every = n as f64 * L.as_secs_f64();
            assert!(mean < turn_every * 1.25, "{n}: mean {mean:.1} s");
            assert!(most < turn_every * 3.5, "{n}: 95 % {most:.1} s");
        }
    }

    #[test]
    fn the_next_turn_that_is_told_is_one() {
        let hosts = names(20);
        for i in 0..500u64 {
            let now = at(i * 613);
            if let Turn::In(Some(wait)) = turn(&hosts[3], hosts.iter(), L, now) {
                assert_eq!(turn(&hosts[3], hosts.iter(), L, Wall(now.0 + wait)), Turn::Now);
            }
        }
    }

    proptest! {
        /// Rosters that differ, clocks that differ: two that know each other never act at the same moment.
        #[test]
        fn two_hosts_that_know_each_other_never_have_a_turn_at_once(
            n in 2usize..40, known in any::<(u64, u64)>(), skew in 0u64..1000, t in 0u64..100_000_000,
        ) {
            let hosts = names(n);
            let roster = |mask: u64| -> Vec<HostName> {
                hosts.iter().enumerate().filter(|(i, _)| *i < 2 || mask >> i & 1 == 1).map(|(_, h)| h.clone()).collect()
            };
            let (a, b) = (roster(known.0), roster(known.1));
            for k in 0..200 {
                let t = t + k * 37;
                let first = turn(&hosts[0], a.iter(), L, at(t)) == Turn::Now;
                let second = turn(&hosts[1], b.iter(), L, at(t + skew)) == Turn::Now;
                prop_assert!(!(first && second), "at {t}, {skew} ms apart");
            }
        }
    }
}
