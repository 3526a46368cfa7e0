//! The local server as the agent knows it: samples with their ages, and what follows from them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::core::agent::event::UnitReport;
use crate::core::ids::Mono;
use crate::core::server::{Endpoint, GatewayConn, Gatewayz, Healthz, ReadError, Route, Sample, Varz};
use crate::core::sys::reading::Accstatz;

/// What is older is not a base for any act.
pub const STALE: Duration = Duration::from_secs(10);

/// How a route connection's `in_msgs` went.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Growth {
    last: u64,
    /// First read that showed the connection.
    since: Mono,
    /// Last read that saw growth.
    pub grew: Option<Mono>,
    /// Reads that saw growth.
    pub times: u32,
    /// The read that showed it last.
    read: u64,
}

/// The local server.
#[derive(Debug, Clone, Default)]
pub struct Local {
    /// `/varz`
    pub varz: Option<(Mono, Varz)>,
    /// `/routez`
    pub routes: Option<(Mono, Vec<Route>)>,
    /// `/gatewayz`
    pub gateways: Option<(Mono, Gatewayz)>,
    /// `/healthz`
    pub health: Option<(Mono, Healthz)>,
    /// `/accstatz`
    pub accounts: Option<(Mono, Accstatz)>,
    /// The newest error per endpoint, gone after a good read.
    pub errors: BTreeMap<Endpoint, ReadError>,
    /// The monitoring port answers.
    pub up: bool,
    /// New `server_id`s seen after the first.
    pub restarts: u64,
    /// It said so; gone with the next `server_id`.
    pub lame_duck: bool,
    /// When this `server_id` was first seen.
    pub id_since: Mono,
    /// Remote cluster to the `cid` of the outbound gateway, and the first read that showed it.
    pub gateway_since: BTreeMap<Arc<str>, (u64, Mono)>,
    /// Remote clusters to or from which a gateway was ever seen; what a restart forgets is not how things are wired.
    pub gateways_seen: BTreeSet<Arc<str>>,
    /// Per `rid`.
    pub growth: BTreeMap<u64, Growth>,
    /// Connections per peer id, and the names that their peers show, as last read.
    pub peers: BTreeMap<Arc<str>, usize>,
    /// Names that peers show.
    pub names: BTreeSet<Arc<str>>,
    /// Most connections ever seen per peer id.
    pub most: BTreeMap<Arc<str>, usize>,
    /// Streams that the server leads, by the last `/jsz`; gone with the next `server_id`.
    pub stream_leaders: Option<u64>,
    /// Good reads of `/routez`.
    pub route_reads: u64,
    /// Counts changes of what a judgement sees of the server: its name and places, its peers and the connections to each,
    /// its gateways. Counters and addresses are nothing to it.
    pub shown: u64,
    /// The unit.
    pub unit: Option<(Mono, Result<UnitReport, String>)>,
}

/// What a read changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Nothing to tell.
    None,
    /// It answers again, or for the first time.
    Up,
    /// It stopped answering.
    Down,
    /// A new `server_id`.
    Restarted,
}

impl Local {
    /// Takes in a read.
    pub fn on_read(&mut self, endpoint: Endpoint, result: Result<Sample, ReadError>, now: Mono) -> Change {
        let sample = match result {
            Ok(sample) => sample,
            // Nothing but an order hangs on it.
            Err(_) if endpoint == Endpoint::Jsz => {
                self.stream_leaders = None;
                return Change::None;
            }
            Err(e) => {
                self.errors.insert(endpoint, e);
                let down = endpoint == Endpoint::Varz && self.up;
                if endpoint == Endpoint::Varz {
                    self.up = false;
                }
                return if down { Change::Down } else { Change::None };
            }
        };
        self.errors.remove(&endpoint);
        match sample {
            Sample::Varz(varz) => return self.on_varz(*varz, now),
            Sample::Routez(routes) => self.on_routes(routes, now),
            Sample::Gatewayz(g) => self.on_gateways(g, now),
            Sample::Healthz(h) => self.health = Some((now, h)),
            Sample::Accstatz(a) => self.accounts = Some((now, a)),
            Sample::Jsz(jsz) => {
                let own = self.varz().map_or("", |v| v.server_name.as_str());
                self.stream_leaders = (!own.is_empty()).then(|| {
                    let led = jsz.leaders.iter().filter(|(server, _)| server.as_str() == own);
                    led.map(|(_, streams)| streams).sum()
                });
            }
        }
        Change::None
    }

    fn on_varz(&mut self, varz: Varz, now: Mono) -> Change {
        let old = self.varz.as_ref().map(|(_, v)| v.server_id.clone());
        let was_up = std::mem::replace(&mut self.up, true);
        let restarted = old.as_ref().is_some_and(|id| *id != varz.server_id);
        self.shown += u64::from(self.varz().is_none_or(|v| !looks_like(v, &varz)));
        if old.is_none() || restarted {
            self.id_since = now;
            self.lame_duck = false;
            self.growth.clear();
            self.gateway_since.clear();
            self.most.clear();
        }
        self.varz = Some((now, varz));
        if restarted {
            self.restarts += 1;
            // What was read from the process before says nothing about this one.
            self.routes = None;
            self.gateways = None;
            self.accounts = None;
            self.stream_leaders = None;
            return Change::Restarted;
        }
        if was_up { Change::None } else { Change::Up }
    }

    fn on_gateways(&mut self, g: Gatewayz, now: Mono) {
        let same = |(a, b): (&GatewayConn, &GatewayConn)| {
            a.cid == b.cid && is_same(&a.cluster, &b.cluster) && is_same(&a.remote_id, &b.remote_id)
        };
        let dated = |c: &GatewayConn| self.gateway_since.get(&c.cluster).is_some_and(|(cid, _)| *cid == c.cid);
        let last = self.gateways.as_ref().map(|(_, last)| &last.outbound);
        let same = last.is_some_and(|last| last.len() == g.outbound.len() && last.iter().zip(&g.outbound).all(same));
        if !same || !g.outbound.iter().all(dated) {
            self.shown += 1;
            let before = std::mem::take(&mut self.gateway_since);
            for c in &g.outbound {
                let known = before.get(&c.cluster).filter(|(cid, _)| *cid == c.cid);
                let since = known.map_or(now, |(_, since)| *since);
                self.gateway_since.insert(c.cluster.clone(), (c.cid, since));
            }
        }
        for c in g.outbound.iter().chain(&g.inbound) {
            if !self.gateways_seen.contains(&c.cluster) {
                self.gateways_seen.insert(c.cluster.clone());
            }
        }
        self.gateways = Some((now, g));
    }

    /// How long the oldest of these connections has been seen; `None` where there is none.
    #[must_use]
    pub fn age_of(&self, routes: &[&Route], now: Mono) -> Option<Duration> {
        let seen = routes.iter().filter_map(|r| self.growth.get(&r.rid));
        seen.map(|g| now.since(g.since)).max()
    }

    fn on_routes(&mut self, routes: Vec<Route>, now: Mono) {
        self.route_reads += 1;
        // What was counted of the connections was forgotten where the server was seen for the first time after them.
        let counted = routes.first().is_none_or(|r| self.growth.contains_key(&r.rid));
        let same = counted && self.connected_as(&routes);
        for route in &routes {
            let g = self.growth.entry(route.rid).or_insert_with(|| Growth {
                since: now,
                ..Growth::default()
            });
            if route.in_msgs > g.last {
                g.grew = Some(now);
                g.times += 1;
            }
            g.last = route.in_msgs;
            g.read = self.route_reads;
        }
        if !same {
            self.shown += 1;
            self.growth.retain(|_, g| g.read == self.route_reads);
            self.peers = per_peer(&routes);
            self.names = routes.iter().map(|r| r.remote_name.clone()).collect();
            for (peer, n) in &self.peers {
                let most = self.most.entry(peer.clone()).or_default();
                *most = (*n).max(*most);
            }
        }
        #[cfg(test)]
        {
            assert!(self.growth.values().all(|g| g.read == self.route_reads));
            assert_eq!(self.peers, per_peer(&routes));
            assert!(
                self.names
                    .iter()
                    .eq(&routes.iter().map(|r| r.remote_name.clone()).collect::<BTreeSet<_>>())
            );
            assert!(self.peers.iter().all(|(peer, n)| self.most.get(peer) >= Some(n)));
        }
        self.routes = Some((now, routes));
    }

    /// Did the last read show the same connections in the same order?
    #[must_use]
    pub fn connected_as(&self, routes: &[Route]) -> bool {
        let same = |(a, b): (&Route, &Route)| {
            let account = match (&a.account, &b.account) {
                (Some(a), Some(b)) => is_same(a, b),
                (a, b) => a.is_none() && b.is_none(),
            };
            a.rid == b.rid && is_same(&a.remote_id, &b.remote_id) && is_same(&a.remote_name, &b.remote_name) && account
        };
        let last = self.routes.as_ref().map(|(_, last)| last);
        last.is_some_and(|last| last.len() == routes.len() && last.iter().zip(routes).all(same))
    }

    /// `/varz`, whatever its age.
    #[must_use]
    pub fn varz(&self) -> Option<&Varz> {
        self.varz.as_ref().map(|(_, v)| v)
    }

    /// Age of the last good read.
    #[must_use]
    pub fn age(&self, endpoint: Endpoint, now: Mono) -> Option<Duration> {
        let at = match endpoint {
            Endpoint::Varz => self.varz.as_ref().map(|(t, _)| *t),
            Endpoint::Routez => self.routes.as_ref().map(|(t, _)| *t),
            Endpoint::Gatewayz => self.gateways.as_ref().map(|(t, _)| *t),
            Endpoint::Healthz => self.health.as_ref().map(|(t, _)| *t),
            Endpoint::Accstatz => self.accounts.as_ref().map(|(t, _)| *t),
            Endpoint::Jsz => None,
        };
        at.map(|t| now.since(t))
    }

    /// Route connections, if fresh.
    #[must_use]
    pub fn fresh_routes(&self, now: Mono) -> Option<&[Route]> {
        let (at, routes) = self.routes.as_ref()?;
        (now.since(*at) < STALE).then_some(routes)
    }

    /// Gateways, if fresh.
    #[must_use]
    pub fn fresh_gateways(&self, now: Mono) -> Option<&Gatewayz> {
        let (at, g) = self.gateways.as_ref()?;
        (now.since(*at) < STALE).then_some(g)
    }

    /// The address at which the server sees a peer.
    #[must_use]
    pub fn ip_of(&self, server_id: &str) -> Option<Arc<str>> {
        let (_, routes) = self.routes.as_ref()?;
        let seen = routes.iter().find(|r| *r.remote_id == *server_id && !r.ip.is_empty());
        seen.map(|r| r.ip.clone())
    }

    /// Connections that each peer should have: pool plus pinned accounts; `None` without pooling.
    #[must_use]
    pub fn connections_per_peer(&self) -> Option<usize> {
        let pool = usize::try_from(self.varz()?.pool_size?).ok().filter(|n| *n > 0)?;
        let (_, routes) = self.routes.as_ref()?;
        let pinned: BTreeSet<&Arc<str>> = routes.iter().filter_map(|r| r.account.as_ref()).collect();
        Some(pool + pinned.len())
    }

    /// Peer ids with fewer connections than they had, or than configured where another peer shows that it can be.
    #[must_use]
    pub fn thin_peers(&self, now: Mono) -> BTreeSet<&str> {
        let (Some(want), Some(_)) = (self.connections_per_peer(), self.fresh_routes(now)) else {
            return BTreeSet::new();
        };
        let full = self.peers.values().any(|n| *n >= want);
        self.peers
            .iter()
            .filter(|(peer, n)| {
                **n < want && **n > 1 && (full || self.most.get(*peer).is_some_and(|most| *most >= want))
            })
            .map(|(peer, _)| &**peer)
            .collect()
    }

    /// The connection whose incoming messages stopped when the source fell silent, if exactly one did.
    #[must_use]
    pub fn stopped<'a>(&self, to_peer: &[&'a Route], silent_since: Mono) -> Option<&'a Route> {
        if let [only] = to_peer {
            return Some(only);
        }
        let (read, _) = self.routes.as_ref()?;
        let mut stopped = to_peer.iter().filter(|r| {
            r.account.is_none()
                && self
                    .growth
                    .get(&r.rid)
                    .is_some_and(|g| g.times >= 2 && g.grew.is_some_and(|t| t < *read && t.0 + STALE > silent_since.0))
        });
        let first = stopped.next()?;
        stopped.next().is_none().then_some(first)
    }
}

/// Do the two show the same but for figures?
fn looks_like(a: &Varz, b: &Varz) -> bool {
    let name = (&a.server_id, &a.server_name, &a.version) == (&b.server_id, &b.server_name, &b.version);
    let place = (&a.cluster, &a.gateway, a.pool_size) == (&b.cluster, &b.gateway, b.pool_size);
    name && place && a.gateways == b.gateways
}

fn is_same(a: &Arc<str>, b: &Arc<str>) -> bool {
    Arc::ptr_eq(a, b) || a == b
}

/// Connections to each peer.
fn per_peer(routes: &[Route]) -> BTreeMap<Arc<str>, usize> {
    let mut count = BTreeMap::new();
    for r in routes {
        *count.entry(r.remote_id.clone()).or_default() += 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: u64) -> Mono {
        Mono(Duration::from_secs(s))
    }

    fn varz(id: &str) -> Result<Sample, ReadError> {
        Ok(Sample::Varz(Box::new(Varz {
            server_id: id.to_owned(),
            pool_size: Some(3),
            ..Varz::default()
        })))
    }

    fn route(rid: u64, peer: &str, in_msgs: u64) -> Route {
        Route {
            rid,
            remote_id: peer.into(),
            in_msgs,
            ..Route::default()
        }
    }

    #[test]
    fn a_new_server_id_is_a_restart_and_forgets_its_routes() {
        let mut l = Local::default();
        assert_eq!(l.on_read(Endpoint::Varz, varz("A"), at(0)), Change::Up);
        l.on_read(Endpoint::Routez, Ok(Sample::Routez(vec![route(1, "P", 0)])), at(0));
        assert_eq!(l.on_read(Endpoint::Varz, varz("B"), at(1)), Change::Restarted);
        assert!(l.fresh_routes(at(1)).is_none());
        assert_eq!(l.restarts, 1);
    }

    #[test]
    fn the_connection_that_stopped_is_told_from_the_idle_ones() {
        let mut l = Local::default();
        l.on_read(Endpoint::Varz, varz("A"), at(0));
        for (t, n) in [(1, 10), (3, 12), (5, 12)] {
            let routes = vec![route(1, "P", n), route(2, "P", 1), route(3, "P", 0)];
            l.on_read(Endpoint::Routez, Ok(Sample::Routez(routes)), at(t));
        }
        let routes = l.fresh_routes(at(5)).unwrap().to_vec();
        let refs: Vec<&Route> = routes.iter().collect();
        assert_eq!(l.stopped(&refs, at(3)).map(|r| r.rid), Some(1));
    }

    #[test]
    fn a_missing_pool_connection_shows_against_what_was() {
        let mut l = Local::default();
        l.on_read(Endpoint::Varz, varz("A"), at(0));
        let four = |n: usize| (0..n as u64).map(|i| route(i, "P", 0)).collect::<Vec<_>>();
        l.on_read(Endpoint::Routez, Ok(Sample::Routez(four(3))), at(0));
        assert!(l.thin_peers(at(0)).is_empty());
        l.on_read(Endpoint::Routez, Ok(Sample::Routez(four(2))), at(2));
        assert_eq!(l.thin_peers(at(2)).len(), 1);
        assert!(l.thin_peers(at(60)).is_empty(), "stale data accuses nobody");
    }

    #[test]
    fn a_server_that_does_not_answer_is_down_at_once_and_its_age_grows() {
        let mut l = Local::default();
        l.on_read(Endpoint::Varz, varz("A"), at(0));
        let refused = ReadError::Connect {
            url: String::new(),
            error: String::new(),
        };
        assert_eq!(l.on_read(Endpoint::Varz, Err(refused), at(3)), Change::Down);
        assert!(!l.up);
        assert_eq!(l.age(Endpoint::Varz, at(5)), Some(Duration::from_secs(5)));
    }
}
