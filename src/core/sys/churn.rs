//! What comes and goes: slow consumers by kind, route and gateway connections, and what is stuck.
//!
//! Connections are told apart by their ids, which are new at every reconnect, within one `server_id`; what a restart of the local
//! server takes away and brings is no churn. A connection that comes and goes between two reads is not seen.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::core::ids::Mono;
use crate::core::server::{Gatewayz, Route, Varz};
use crate::core::sys::model::ServerVersion;

/// Rates are per this time.
const MINUTE: Duration = Duration::from_secs(60);
/// From here on `/routez` tells what is queued.
const TELLS_PENDING: ServerVersion = ServerVersion::new(2, 10, 26);
/// Growth that no server can have had between two reads is garbage.
const MOST: u64 = 1_000_000_000;

/// Ids of connections within one server process.
#[derive(Debug, Clone, Default)]
struct Ids {
    server_id: String,
    /// Sorted.
    known: Vec<u64>,
    opened: u64,
    closed: u64,
}

impl Ids {
    fn read(&mut self, server_id: &str, ids: impl Iterator<Item = u64>) {
        let mut ids: Vec<u64> = ids.collect();
        ids.sort_unstable();
        ids.dedup();
        let new = |ids: &[u64], known: &[u64]| ids.iter().filter(|id| known.binary_search(id).is_err()).count() as u64;
        if self.server_id != server_id {
            server_id.clone_into(&mut self.server_id);
        } else if self.known != ids {
            self.opened += new(&ids, &self.known);
            self.closed += new(&self.known, &ids);
        }
        self.known = ids;
    }
}

/// Reads of `/routez`, one every two seconds, for which what STATSZ told is believed once it comes no more.
const BELIEVED: u8 = 30;

/// All that is counted.
#[derive(Debug, Clone, Default)]
pub struct Churn {
    server_id: String,
    last: BTreeMap<String, u64>,
    slow: BTreeMap<String, u64>,
    recent: VecDeque<(Mono, String, u64)>,
    routes: Ids,
    gateways: Ids,
    pending: Option<u64>,
    told_by_routes: bool,
    /// Reads of `/routez` for which a STATSZ is believed still.
    believed: u8,
    stalled: Option<u64>,
}

impl Churn {
    /// `/varz`: slow consumers and stalled clients.
    pub fn on_varz(&mut self, varz: &Varz, now: Mono) {
        let mut kinds = varz.slow_consumers_by_kind.clone();
        if kinds.is_empty() {
            kinds.insert("all".to_owned(), varz.slow_consumers);
        }
        if self.server_id == varz.server_id {
            for (kind, count) in &kinds {
                let grown = count.saturating_sub(self.last.get(kind).copied().unwrap_or(*count));
                if (1..MOST).contains(&grown) {
                    *self.slow.entry(kind.clone()).or_default() += grown;
                    self.recent.push_back((now, kind.clone(), grown));
                } else {
                    self.slow.entry(kind.clone()).or_default();
                }
            }
        } else {
            varz.server_id.clone_into(&mut self.server_id);
            for kind in kinds.keys() {
                self.slow.entry(kind.clone()).or_default();
            }
        }
        self.last = kinds;
        self.stalled = varz.stalled_clients;
        self.forget(now);
    }

    /// `/routez`: which connections there are, and what is queued for them.
    pub fn on_routes(&mut self, server_id: &str, version: ServerVersion, routes: &[Route]) {
        self.routes.read(server_id, routes.iter().map(|r| r.rid));
        self.told_by_routes = version >= TELLS_PENDING;
        if self.told_by_routes {
            self.pending = Some(routes.iter().fold(0, |sum: u64, r| sum.saturating_add(r.pending)));
        } else {
            self.believed = self.believed.saturating_sub(1);
            self.pending = self.pending.filter(|_| self.believed > 0);
        }
    }

    /// STATSZ of the local server, where it is received: what is queued for routes.
    pub fn on_statsz(&mut self, pending: Option<u64>) {
        if !self.told_by_routes {
            self.pending = pending;
            self.believed = BELIEVED;
        }
    }

    /// `/gatewayz`: which connections there are.
    pub fn on_gateways(&mut self, server_id: &str, gateways: &Gatewayz) {
        let all = gateways.outbound.iter().chain(&gateways.inbound);
        self.gateways.read(server_id, all.map(|g| g.cid));
    }

    fn forget(&mut self, now: Mono) {
        while self.recent.front().is_some_and(|(t, ..)| now.since(*t) >= MINUTE) {
            self.recent.pop_front();
        }
    }

    /// New slow consumers since this process started, by kind.
    #[must_use]
    pub fn slow_consumers(&self) -> &BTreeMap<String, u64> {
        &self.slow
    }

    /// New slow consumers of the last minute, by kind.
    #[must_use]
    pub fn slow_per_minute(&self, now: Mono) -> BTreeMap<String, u64> {
        let mut sum: BTreeMap<String, u64> = self.slow.keys().map(|k| (k.clone(), 0)).collect();
        for (_, kind, n) in self.recent.iter().filter(|(t, ..)| now.since(*t) < MINUTE) {
            *sum.entry(kind.clone()).or_default() += n;
        }
        sum
    }

    /// Route connections that came and went.
    #[must_use]
    pub fn routes(&self) -> (u64, u64) {
        (self.routes.opened, self.routes.closed)
    }

    /// Gateway connections that came and went.
    #[must_use]
    pub fn gateways(&self) -> (u64, u64) {
        (self.gateways.opened, self.gateways.closed)
    }

    /// Bytes queued for routes, where the version tells.
    #[must_use]
    pub fn pending(&self) -> Option<u64> {
        self.pending
    }

    /// Clients held back, where the version tells.
    #[must_use]
    pub fn stalled(&self) -> Option<u64> {
        self.stalled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(patch: u16) -> ServerVersion {
        ServerVersion::new(2, 10, patch)
    }

    fn route(rid: u64) -> Route {
        Route {
            rid,
            pending: 7,
            ..Route::default()
        }
    }

    #[test]
    fn a_reconnect_is_one_gone_and_one_come_and_a_restart_is_none() {
        let mut c = Churn::default();
        c.on_routes("A", version(25), &[route(1), route(2)]);
        c.on_routes("A", version(25), &[route(1), route(3)]);
        assert_eq!(c.routes(), (1, 1));
        assert_eq!(c.pending(), None, "always 0 before 2.10.26, so not told");
        c.on_statsz(Some(5));
        c.on_routes("A", version(25), &[route(1), route(3)]);
        assert_eq!(c.pending(), Some(5), "but STATSZ tells");
        for _ in 0..BELIEVED {
            c.on_routes("A", version(25), &[route(1), route(3)]);
        }
        assert_eq!(c.pending(), None, "not for ever");
        c.on_routes("B", version(26), &[route(1), route(2)]);
        assert_eq!(c.routes(), (1, 1));
        c.on_statsz(Some(5));
        assert_eq!(c.pending(), Some(14));
    }

    #[test]
    fn slow_consumers_are_counted_over_resets_and_never_backwards() {
        let mut c = Churn::default();
        let mut read = |id: &str, routes: u64, at: u64| {
            let varz = Varz {
                server_id: id.to_owned(),
                slow_consumers_by_kind: [("routes".to_owned(), routes)].into(),
                ..Varz::default()
            };
            c.on_varz(&varz, Mono(Duration::from_secs(at)));
            let rate = c.slow_per_minute(Mono(Duration::from_secs(at)));
            (c.slow_consumers()["routes"], rate["routes"])
        };
        assert_eq!(read("A", 100, 0), (0, 0), "what was before is not new");
        assert_eq!(read("A", 103, 10), (3, 3));
        assert_eq!(read("A", 2, 20), (3, 3), "backwards");
        assert_eq!(read("A", u64::MAX, 30), (3, 3), "garbage");
        assert_eq!(read("B", 5, 40), (3, 3), "another process");
        assert_eq!(read("B", 6, 80), (4, 1), "the first three are older than a minute");
    }
}
