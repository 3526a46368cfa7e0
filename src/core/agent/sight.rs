//! What a judgement is made from, in a few words: where they are the same as last time, so are the evidence and the
//! faults, and nothing is gathered anew. A fleet is looked at every second, and hardly ever anything has changed.

use crate::core::agent::Core;
use crate::core::ids::Now;

/// What was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sight {
    /// Verdicts, whose reports count, who does not answer.
    heard: u64,
    /// Counts changes of what hosts say of themselves and of others.
    told: u64,
    members: usize,
    /// Counts changes of what the local server shows.
    shown: u64,
    /// The reads of its routes and gateways are.
    fresh: [bool; 2],
}

fn mix(hash: u64, with: u64) -> u64 {
    (hash ^ with).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
}

impl Core {
    pub(super) fn sight(&self, now: Now) -> Sight {
        let mut heard = self.lanes.len() as u64;
        for lane in &self.lanes {
            heard = mix(heard, lane.turns);
            for report in lane.reports.values() {
                heard = mix(heard, 64 + u64::from(report.credible(now.mono)));
            }
            for suspect in self.book.suspects(&lane.name) {
                let place = self.members.position(suspect).unwrap_or(usize::MAX - 1);
                heard = mix(heard, 1000 + place as u64);
            }
        }
        let local = &self.local;
        Sight {
            heard,
            told: self.told,
            members: self.members.len(),
            shown: local.shown,
            fresh: [
                local.fresh_routes(now.mono).is_some(),
                local.fresh_gateways(now.mono).is_some(),
            ],
        }
    }
}
