//! What a judgement is made from, in a few words: where they are the same as last time, so are the evidence and the
//! faults, and nothing is gathered anew. A fleet is looked at every second, and hardly ever anything has changed.

use std::collections::BTreeSet;

use crate::core::agent::Core;
use crate::core::ids::{HostName, Mono, Now};
use crate::core::mesh::Evidence;

/// What was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sight {
    /// Verdicts, whose reports count, who does not answer.
    heard: u64,
    /// Counts changes of what hosts say of themselves and of others.
    told: u64,
    members: usize,
    /// The reads of the local server, and whether they are fresh.
    reads: Reads,
}

type Reads = (Option<Mono>, Option<Mono>, Option<Mono>, bool, bool);

fn mix(hash: u64, with: u64) -> u64 {
    (hash ^ with).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
}

impl Core {
    pub(super) fn sight(&self, now: Now) -> Sight {
        let mut heard = self.lanes.len() as u64;
        for lane in &self.lanes {
            for path in lane.paths.values() {
                heard = mix(heard, path.verdict as u64 + 1);
            }
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
            reads: (
                local.varz.as_ref().map(|(t, _)| *t),
                local.routes.as_ref().map(|(t, _)| *t),
                local.gateways.as_ref().map(|(t, _)| *t),
                local.fresh_routes(now.mono).is_some(),
                local.fresh_gateways(now.mono).is_some(),
            ),
        }
    }

    /// Would gathering give the same evidence again?
    pub(super) fn sees_the_same(&mut self, now: Now) -> bool {
        let new = self.sight(now);
        let Some(old) = self.sight else { return false };
        if new == old {
            return true;
        }
        if (new.heard, new.told, new.members) != (old.heard, old.told, old.members) {
            return false;
        }
        // Only the server was read again: usually it shows what it showed.
        let me = self.policy.host.clone();
        let mut shown = Evidence {
            members: std::mem::take(&mut self.evidence.members),
            ..Evidence::default()
        };
        self.own_server(&mut shown, now);
        self.evidence.members = std::mem::take(&mut shown.members);
        let e = &self.evidence;
        let own = |pairs: &BTreeSet<(HostName, HostName)>| pairs.iter().filter(|(h, _)| *h == me).count();
        let place = e.members.get(&me);
        let same = shown.thin == e.thin
            && shown.ungatewayed == e.ungatewayed
            && shown.unrouted.len() == own(&e.unrouted)
            && shown.unrouted.is_subset(&e.unrouted)
            && place.is_some_and(|p| p.cluster == self.cluster() && p.entries == self.entries());
        if same {
            self.sight = Some(new);
        }
        same
    }
}
