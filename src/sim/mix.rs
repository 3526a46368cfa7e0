//! Faults by chance: which, where and when, from the seed alone, so that each policy meets the same.

use std::time::Duration;

use super::dice::Dice;
use super::fault::{Fault, HostNo, Kind, Needs};
use super::scenario::{Scenario, default_length};
use crate::core::policy::Mode;

/// Draws what goes wrong in a run.
pub(super) fn draw(scenario: &Scenario, seed: u64) -> Vec<Fault> {
    let Some(mix) = &scenario.mix else { return Vec::new() };
    let mut dice = Dice::new(seed, 3);
    let hours = scenario.duration.as_secs().div_ceil(3600).max(1);
    let n = mix.per_hour * usize::try_from(hours).unwrap_or(1);
    let unlucky = unlucky(scenario, mix.vary, seed);
    (0..n)
        .filter_map(|_| one(scenario, &mix.kinds, mix.from, &unlucky, &mut dice))
        .collect()
}

/// In one run of three all that happens to single hosts happens to a few: what limits are for.
fn unlucky(scenario: &Scenario, vary: bool, seed: u64) -> Vec<HostNo> {
    let mut dice = Dice::new(seed, 5);
    match vary && dice.chance(33) {
        true => (0..3).map(|_| dice.below(scenario.fleet.len())).collect(),
        false => Vec::new(),
    }
}

fn one(scenario: &Scenario, kinds: &[Kind], from: Duration, unlucky: &[HostNo], dice: &mut Dice) -> Option<Fault> {
    let fleet = &scenario.fleet;
    let kind = *dice.pick(kinds)?;
    let host = dice.below(fleet.len());
    let host = unlucky.get(host % unlucky.len().max(1)).copied().unwrap_or(host);
    let here = fleet.region_of(host);
    let first = here * fleet.hosts;
    let peer = match kind.needs() {
        Needs::Peers if fleet.hosts < 2 => return None,
        Needs::Peers => {
            let p = first + dice.below(fleet.hosts - 1);
            if p >= host { p + 1 } else { p }
        }
        Needs::Pair => {
            let p = dice.below(fleet.len().saturating_sub(1));
            if p >= host { p + 1 } else { p }
        }
        _ => host,
    };
    if peer >= fleet.len() || (peer == host && matches!(kind.needs(), Needs::Pair)) {
        return None;
    }
    let other = (here + 1 + dice.below(fleet.regions.len().saturating_sub(1).max(1))) % fleet.regions.len();
    if matches!(kind, Kind::Partition | Kind::GatewayStall | Kind::GatewayWaits) && other == here {
        return None;
    }
    let to = match kind {
        Kind::Loss if dice.chance(40) => here,
        _ => other,
    };
    // Most of what is done to a region is done to one.
    let region = if kind == Kind::Rolling && dice.chance(30) {
        None
    } else {
        Some(here)
    };
    let at = dice.between(
        from,
        scenario.duration.saturating_sub(Duration::from_secs(60)).max(from),
    );
    let length = default_length(kind);
    let lasts = dice.between(length / 4, length * 2);
    Some(Fault {
        kind,
        at: Duration::from_millis(u64::try_from(at.as_millis()).unwrap_or(0)),
        lasts: Duration::from_millis(u64::try_from(lasts.as_millis()).unwrap_or(0)),
        host,
        peer,
        region,
        to: Some(to),
        percent: 5 + dice.below(50),
    })
}

/// Fleet and settings of a run, where they are drawn too.
#[must_use]
pub(super) fn vary(scenario: &Scenario, seed: u64) -> Scenario {
    let mut s = scenario.clone();
    if !s.mix.as_ref().is_some_and(|m| m.vary) {
        return s;
    }
    let mut dice = Dice::new(seed, 4);
    s.fleet.old = dice.chance(30);
    s.fleet.jetstream = dice.chance(20);
    s.fleet.seeds = 1 + dice.below(3.min(s.fleet.hosts));
    s.agents.can_reset = dice.chance(60);
    s.agents.permits = dice.chance(70);
    s.agents.interval = Duration::from_secs(2 + dice.below(4) as u64);
    s.agents.mode = match dice.below(10) {
        0 => Mode::Observe,
        1 => Mode::Reset,
        _ => Mode::Restart,
    };
    s.agents.restarts_per_hour = 1 + u32::from(dice.chance(66)) + u32::from(dice.chance(33));
    s
}
