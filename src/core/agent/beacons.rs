//! Saying and hearing: beacons, probes, the roster.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::core::agent::event::{Action, RosterEntry};
use crate::core::agent::lane::{Report, is_turn};
use crate::core::agent::{Core, FORGET, JUDGE_SOON, MAX_HOSTS, MAX_REGIONS, Member};
use crate::core::canary::beacon::{Beacon, Health, MAX_GATEWAYS, MAX_LISTED, Source};
use crate::core::canary::path::{Heard, Path};
use crate::core::canary::probes::Ended;
use crate::core::ids::{HostName, LaneName, Mono, Now, Region, Wall};
use crate::core::mesh::Place;
use crate::core::remedy::memory::REMEMBER;
use crate::core::view::Verdict;

/// The roster goes to disk at most this often.
const SAVE_EVERY: Duration = Duration::from_secs(10);

impl Core {
    pub(super) fn publish(&mut self, bye: bool, now: Now, out: &mut Vec<Action>) {
        let health = self.health(now);
        let interval = self.interval();
        let place = self.own_place();
        for i in 0..self.lanes.len() {
            if self.lanes[i].connected.is_err() {
                continue;
            }
            let beacon = self.compose(i, (health, bye), interval, &place, now);
            let lane = &mut self.lanes[i];
            lane.sent += 1;
            lane.sent_at.insert(lane.sent, now.mono);
            while lane.sent_at.len() > 32 {
                lane.sent_at.pop_first();
            }
            out.push(Action::Publish {
                lane: lane.name.clone(),
                beacon: Arc::new(beacon),
            });
        }
    }

    fn compose(&self, i: usize, (health, bye): (Health, bool), interval: Duration, place: &Place, now: Now) -> Beacon {
        let lane = &self.lanes[i];
        let varz = self.local.varz();
        let mut deaf = Vec::new();
        let mut deaf_more: BTreeMap<Region, u32> = BTreeMap::new();
        let (mut hears, mut hearsay) = (0_u32, 0_u32);
        for (host, path) in lane.paths.iter() {
            hearsay += u32::from(path.hearsay() && path.verdict == Verdict::Stalled);
            match path.verdict {
                Verdict::Stalled if deaf.len() < MAX_LISTED => deaf.push(host.clone()),
                Verdict::Stalled => {
                    if let Some(m) = self.members.get(host) {
                        *deaf_more.entry(m.place.region.clone()).or_default() += 1;
                    }
                }
                Verdict::Ok | Verdict::Late => hears += 1,
                _ => {}
            }
        }
        let me = &self.policy.host;
        let unrouted = self.evidence.unrouted.iter().filter(|(h, _)| h == me);
        let beacon = Beacon {
            seq: lane.sent + 1,
            inc: self.inc,
            interval: u64::try_from(interval.as_millis()).unwrap_or(1000),
            sent: u64::try_from(now.wall.0.as_micros()).unwrap_or(0),
            server_id: varz.map_or_else(String::new, |v| v.server_id.clone()),
            server: varz.map_or_else(String::new, |v| v.server_name.clone()),
            server_version: varz.map_or_else(String::new, |v| v.version.clone()),
            cluster: place.cluster.clone(),
            route: varz.map_or_else(String::new, |v| listen(v.cluster_addr.as_ref())),
            gateway: varz.map_or_else(String::new, |v| listen(v.gateway_addr.as_ref())),
            gateways: place.entries.clone(),
            health,
            deaf,
            deaf_more,
            unanswered: self.book.suspects(&lane.name).take(MAX_LISTED).cloned().collect(),
            unrouted: unrouted.map(|(_, p)| p.clone()).take(MAX_LISTED).collect(),
            brownout: self.sys.beacon(now),
            hears,
            hearsay,
            names: self.names(lane),
            bye,
            ..Beacon::new(me.clone(), self.policy.region.clone())
        };
        beacon.sealed()
    }

    /// Where this host is; made anew only where what it rests on has changed.
    pub(super) fn own_place(&mut self) -> Arc<Place> {
        let place = |core: &Self| Place {
            region: core.policy.region.clone(),
            cluster: core.cluster(),
            entries: core.entries(),
        };
        let sources = (self.told, self.local.shown, self.members.len());
        let known = self.place.take().filter(|(of, _)| *of == sources);
        let (_, own) = self
            .place
            .insert(known.unwrap_or_else(|| (sources, Arc::new(place(self)))));
        let own = own.clone();
        #[cfg(test)]
        assert_eq!(*own, place(self), "a change was not noticed");
        own
    }

    /// To whose servers the outbound gateways of the own one lead.
    fn entries(&self) -> BTreeMap<String, HostName> {
        let Some((_, g)) = &self.local.gateways else {
            return BTreeMap::new();
        };
        let host = |id: &str| self.members.iter().find(|(_, m)| m.server_id == id).map(|(h, _)| h);
        let known = g.outbound.iter().filter(|c| !c.remote_id.is_empty());
        known
            .filter_map(|c| Some((c.cluster.to_string(), host(&c.remote_id)?.clone())))
            .take(MAX_GATEWAYS)
            .collect()
    }

    pub(super) fn on_beacon(
        &mut self,
        lane: &LaneName,
        source: &Source,
        beacon: &Beacon,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        if source.host == self.policy.host {
            self.on_own(lane, beacon, now, out);
            return;
        }
        let stall_after = self.policy.canary.stall_after;
        let mut lanes = self.lanes.iter_mut().filter(|l| &l.name == lane);
        if lanes.any(|l| l.steady(source, beacon, now, stall_after)) {
            return;
        }
        // Found once; the tables of a core are filled in the same order, so the place fits the others too.
        let place = self.members.position(&source.host);
        let member = place.and_then(|i| self.members.at(i));
        if member.is_none_or(|m| m.place.region != source.region) && !self.has_room(source) {
            let count = self.dropped.entry("roster_full".to_owned()).or_default();
            *count += 1;
            if *count == 1 {
                let text = format!(
                    "the roster is full ({MAX_HOSTS} hosts, {MAX_REGIONS} regions): beacons of {} in {} and of others are \
                     dropped; see who publishes names that do not exist",
                    source.host, source.region
                );
                self.record("agent", source.host.to_string(), text, now, out);
            }
            return;
        }
        let interval = self.policy.canary.interval;
        let Some(l) = self.lanes.iter_mut().find(|l| &l.name == lane) else {
            return;
        };
        let found = l.paths.position_near(place, &source.host);
        let at = found.unwrap_or_else(|| l.paths.insert(source.host.clone(), Path::new(now.mono, interval)));
        let Some(path) = l.paths.at_mut(at) else { return };
        let (before, begun) = (path.verdict, path.begins());
        let heard = path.on_beacon(beacon, now, stall_after);
        let begins = path.begins() && !begun;
        let (after, one_way, mut tally) = (path.verdict, path.one_way_micros, path.tally);
        l.due = l.due.min(path.due(stall_after));
        l.turns += u64::from(found.is_none() || begins || is_turn(before, after));
        match heard {
            Heard::Old => return,
            Heard::Foreign => {
                *self.dropped.entry("foreign".to_owned()).or_default() += 1;
                return;
            }
            Heard::Fresh | Heard::NewCount => {}
        }
        l.called.remove(&source.host);
        let stats = l.stats(&mut tally, &source.region);
        if let Some(micros) = one_way {
            stats.one_way.observe_micros(micros);
        }
        if let Some(path) = l.paths.at_mut(at) {
            path.tally = tally;
        }
        let report = l.reports.position_near(Some(at), &source.host);
        let news = match report.and_then(|i| l.reports.at_mut(i)) {
            Some(old) => old.renew(beacon, now.mono),
            None => {
                l.reports.insert(source.host.clone(), Report::of(beacon, now.mono));
                true
            }
        };
        l.hear_of(source, beacon, &self.policy.host, now.mono);
        if news {
            self.told += 1;
            self.next_diagnosis = self.next_diagnosis.min(now.mono.plus(JUDGE_SOON));
        }
        if before != after && before != Verdict::Late {
            // Probes that were lost while it was away say nothing about its interest now.
            self.book.excuse(lane, &source.host);
        }
        self.explain(source, beacon, (before, after), now);
        self.remember(place, source, beacon, now);
        self.roster_dirty |= found.is_none();
        if before == after {
            return;
        }
        self.roster_dirty |= after == Verdict::Departed || before == Verdict::Departed;
        let host = source.host.to_string();
        match (before, after) {
            (Verdict::Stalled, Verdict::Ok) => {
                self.record(
                    "source",
                    host,
                    format!("{} is heard again on lane {lane}", source.host),
                    now,
                    out,
                );
            }
            (b, Verdict::Departed) if b != Verdict::Departed => {
                self.record(
                    "source",
                    host,
                    format!("{} said goodbye on lane {lane}", source.host),
                    now,
                    out,
                );
            }
            _ => {}
        }
    }

    /// May this source be learned, if it is not known?
    pub(super) fn has_room(&self, source: &Source) -> bool {
        match self.members.get(&source.host) {
            Some(m) if m.place.region == source.region => return true,
            Some(_) => {}
            None if self.members.len() >= MAX_HOSTS => return false,
            None => {}
        }
        let regions = || {
            let counted = self.lanes.iter().flat_map(|l| &l.regions).map(|(r, _)| r);
            counted.chain(self.members.values().map(|m| &m.place.region))
        };
        regions().any(|r| r == &source.region) || regions().collect::<BTreeSet<_>>().len() < MAX_REGIONS
    }

    fn on_own(&mut self, lane: &LaneName, beacon: &Beacon, now: Now, out: &mut Vec<Action>) {
        let stall_after = self.policy.canary.stall_after;
        let inc = self.inc;
        if beacon.inc != inc {
            // A goodbye of the process before may still be under way; a twin keeps talking.
            if !beacon.bye {
                if self.twin_at.is_none_or(|t| now.mono.since(t) > Duration::from_secs(60)) {
                    let text = format!("another agent also calls itself {}", self.policy.host);
                    self.record("agent", self.policy.host.to_string(), text, now, out);
                }
                self.twin_at = Some(now.mono);
                *self.dropped.entry("twin".to_owned()).or_default() += 1;
            }
            return;
        }
        let interval = self.interval();
        let Some(l) = self.lanes.iter_mut().find(|l| &l.name == lane) else {
            return;
        };
        l.own.on_beacon(beacon, now, stall_after);
        if let Some(sent) = l.sent_at.remove(&beacon.seq) {
            l.self_loop = Some(now.mono.since(sent));
        }
        if l.deaf && l.hears_itself(now.mono, interval) {
            l.deaf = false;
            l.rebase(now.mono);
        }
    }

    fn remember(&mut self, place: Option<usize>, source: &Source, beacon: &Beacon, now: Now) {
        let place = place.unwrap_or_else(|| {
            let new = Member::new(source.region.clone(), now.wall);
            self.members.insert(source.host.clone(), new)
        });
        let Some(member) = self.members.at_mut(place) else {
            return;
        };
        if member.place.region != source.region {
            Arc::make_mut(&mut member.place).region = source.region.clone();
            self.told += 1;
        }
        if beacon.health != Health::Ok && member.health == Health::Ok {
            for lane in &self.lanes {
                self.book.excuse(&lane.name, &source.host);
            }
        }
        member.health = beacon.health;
        if member.place.entries != beacon.gateways {
            Arc::make_mut(&mut member.place).entries.clone_from(&beacon.gateways);
            self.told += 1;
        }
        // Only a new server, or one not seen yet, can be anywhere else than it was; a read shows it or not.
        let same = member.server_id == beacon.server_id;
        if !same || member.ip.is_none() && member.ip_read != self.local.route_reads {
            member.ip_read = self.local.route_reads;
            if let Some(ip) = self.local.ip_of(&beacon.server_id) {
                member.ip = Some(ip);
            }
        }
        if !beacon.server_id.is_empty() && member.server_id != beacon.server_id {
            for lane in &self.lanes {
                self.book.excuse(&lane.name, &source.host);
            }
            member.server_id.clone_from(&beacon.server_id);
            member.server.clone_from(&beacon.server);
            member.version.clone_from(&beacon.server_version);
            self.roster_dirty = true;
            self.told += 1;
        }
        if !beacon.cluster.is_empty() && member.place.cluster != beacon.cluster {
            Arc::make_mut(&mut member.place).cluster.clone_from(&beacon.cluster);
            self.roster_dirty = true;
            self.told += 1;
        }
        for (old, new) in [
            (&mut member.route, &beacon.route),
            (&mut member.gateway, &beacon.gateway),
        ] {
            if !new.is_empty() && old != new {
                old.clone_from(new);
                self.roster_dirty = true;
                self.told += 1;
            }
        }
    }

    /// Lets time pass on all lanes; true if a stall came or went.
    pub(super) fn tick_lanes(&mut self, now: Now, out: &mut Vec<Action>) -> bool {
        let stall_after = self.policy.canary.stall_after;
        let interval = self.interval();
        let mut news = Vec::new();
        for lane in &mut self.lanes {
            if !lane.hears_itself(now.mono, interval) {
                lane.deaf = true;
            }
            if lane.deaf {
                continue;
            }
            if now.mono < lane.due {
                #[cfg(test)]
                assert!(
                    lane.paths
                        .values()
                        .all(|p| p.clone().on_tick(now.mono, stall_after).is_none())
                );
                continue;
            }
            lane.due = Mono(Duration::MAX);
            for (host, path) in lane.paths.iter_mut() {
                let turned = path.on_tick(now.mono, stall_after);
                lane.due = lane.due.min(path.due(stall_after));
                let Some((before, after)) = turned else {
                    continue;
                };
                lane.turns += u64::from(is_turn(before, after));
                if after != Verdict::Late {
                    self.book.excuse(&lane.name, host);
                }
                if after == Verdict::Stalled {
                    let silence = path.silence(now.mono).as_secs_f64();
                    news.push((lane.name.clone(), host.clone(), silence));
                }
            }
        }
        news.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
        let stall = !news.is_empty();
        for (lane, host, silence) in news {
            let text = format!("{host} is silent for {silence:.1} s on lane {lane}");
            self.record("source", host.to_string(), text, now, out);
        }
        stall
    }

    pub(super) fn probe(&mut self, now: Now, out: &mut Vec<Action>) {
        if !self.unwell(now).is_empty() {
            return;
        }
        let sources = (self.told, self.members.len());
        if self.regions.0 != sources {
            self.regions = (sources, self.by_region());
        }
        #[cfg(test)]
        assert_eq!(self.regions.1, self.by_region(), "a change was not noticed");
        for lane in &self.lanes {
            let fit = |host: &HostName| {
                lane.paths.get(host).is_some_and(|p| p.verdict == Verdict::Ok)
                    && self.members.get(host).is_some_and(|m| m.health == Health::Ok)
            };
            for (id, target) in self.book.round(&lane.name, &self.regions.1, fit, now.mono) {
                out.push(Action::Probe {
                    id,
                    lane: lane.name.clone(),
                    target,
                });
            }
        }
    }

    fn by_region(&self) -> BTreeMap<Region, Vec<HostName>> {
        let mut regions: BTreeMap<Region, Vec<HostName>> = BTreeMap::new();
        for (host, m) in self.members.iter() {
            regions.entry(m.place.region.clone()).or_default().push(host.clone());
        }
        regions
    }

    pub(super) fn on_probe(&mut self, ended: Option<Ended>, now: Now) {
        let Some(ended) = ended else { return };
        let healthy = self
            .lanes
            .iter()
            .find(|l| l.name == ended.lane)
            .and_then(|l| l.paths.get(&ended.target))
            .is_some_and(|p| p.verdict == Verdict::Ok);
        // The target says that it does not hear this host, so the request is what got lost.
        let path = (self.policy.host.clone(), ended.target.clone());
        let unheard = self.evidence.deaf.contains_key(&path);
        // An agent that says that it is not well, as one that stood still does, may have been too slow to answer.
        let well = self.members.get(&ended.target).is_some_and(|m| m.health == Health::Ok);
        if ended.result.is_err()
            && (!healthy || unheard || !well || self.may_not_know_me(&ended.lane, &ended.target, now))
        {
            // Silence, of either, has its own verdict; it says nothing about interest.
            self.book.excuse(&ended.lane, &ended.target);
        }
        let Some(lane) = self.lanes.iter_mut().find(|l| l.name == ended.lane) else {
            return;
        };
        let mut unknown = u32::MAX;
        let stats = lane.stats(&mut unknown, &ended.region);
        match ended.result {
            Ok(rtt) => {
                stats.rtt.observe(rtt.as_secs_f64());
                stats.last_rtt = Some(rtt);
            }
            Err(why) => *stats.failures.entry(why.reason()).or_default() += 1,
        }
    }

    pub(super) fn restore(&mut self, roster: Vec<RosterEntry>, now: Now) {
        let interval = self.policy.canary.interval;
        let listed = self.policy.canary.hosts.clone();
        for e in roster {
            if self.members.len() >= MAX_HOSTS {
                break;
            }
            let old = now.wall.0.saturating_sub(e.heard.0) > FORGET;
            if old || e.departed || e.host == self.policy.host {
                continue;
            }
            for lane in &mut self.lanes {
                if e.lanes.contains(&lane.name) {
                    lane.paths.insert(e.host.clone(), Path::new(now.mono, interval));
                }
            }
            let mut member = Member::new(e.region, e.heard);
            member.server = e.server;
            Arc::make_mut(&mut member.place).cluster = e.cluster;
            (member.route, member.gateway) = (e.route, e.gateway);
            self.members.insert(e.host, member);
        }
        for (host, region) in listed {
            if host == self.policy.host || self.members.contains_key(&host) {
                continue;
            }
            if let Some(lane) = self.lanes.first_mut() {
                lane.paths.insert(host.clone(), Path::new(now.mono, interval));
            }
            self.members.insert(host, Member::new(region, now.wall));
        }
    }

    pub(super) fn keep_roster(&mut self, now: Now, out: &mut Vec<Action>) {
        if now.mono.since(self.roster_saved) < SAVE_EVERY {
            return;
        }
        self.roster_saved = now.mono;
        self.forget(now.mono);
        self.forget_acts(now);
        self.watch_names(now, out);
        if std::mem::take(&mut self.roster_dirty) {
            out.push(Action::SaveRoster(self.roster(now)));
        }
    }

    /// Drops who was silent for a day, and keeps what was counted of it.
    fn forget(&mut self, now: Mono) {
        let configured: BTreeSet<&HostName> = self.policy.canary.hosts.iter().map(|(h, _)| h).collect();
        let gone: Vec<HostName> = self
            .members
            .keys()
            .filter(|h| !configured.contains(h))
            .filter(|h| {
                self.lanes
                    .iter()
                    .filter_map(|l| l.paths.get(h))
                    .all(|p| p.silence(now) >= FORGET)
            })
            .cloned()
            .collect();
        for host in gone {
            let Some(member) = self.members.remove(&host) else {
                continue;
            };
            self.roster_dirty = true;
            self.book.forget(&host);
            for lane in &mut self.lanes {
                lane.reports.remove(&host);
                let Some(path) = lane.paths.remove(&host) else {
                    continue;
                };
                lane.turns += 1;
                let mut tally = path.tally;
                let sum = &mut lane.stats(&mut tally, &member.place.region).gone;
                sum.received += path.counts.received;
                sum.lost += path.counts.lost;
                sum.late += path.counts.late;
                sum.duplicate += path.counts.duplicate;
                sum.reordered += path.counts.reordered;
            }
        }
    }

    /// Drops what was done about faults so long ago that it bears on nothing any more.
    fn forget_acts(&mut self, now: Now) {
        self.acted_on.retain(|_, at| now.mono.since(*at) < REMEMBER);
        self.ledger.memory.prune(now);
    }

    pub(super) fn roster(&self, now: Now) -> Vec<RosterEntry> {
        // A beacon that says nothing new leaves its time on its path alone.
        let heard = |host: &HostName| {
            let paths = self.lanes.iter().filter_map(|l| l.paths.get(host));
            let last = paths.filter_map(Path::heard).max()?;
            Some(Wall(now.wall.0.saturating_sub(now.mono.since(last))))
        };
        let lanes_of = |host: &HostName| {
            self.lanes
                .iter()
                .filter(|l| {
                    let path = l.paths.get(host);
                    path.is_some_and(|p| !p.hearsay() && p.verdict != Verdict::Departed)
                })
                .map(|l| l.name.clone())
                .collect()
        };
        // Whom nobody here ever heard is no memory of this agent.
        let own = |host: &HostName| {
            let mut paths = self.lanes.iter().filter_map(|l| l.paths.get(host)).peekable();
            paths.peek().is_none() || paths.any(|p| !p.hearsay())
        };
        self.members
            .iter()
            .filter(|(host, _)| own(host))
            .map(|(host, m)| RosterEntry {
                host: host.clone(),
                region: m.place.region.clone(),
                lanes: lanes_of(host),
                server: m.server.clone(),
                cluster: m.place.cluster.clone(),
                route: m.route.clone(),
                gateway: m.gateway.clone(),
                heard: heard(host).unwrap_or(m.heard),
                departed: !self.present(host),
            })
            .collect()
    }
}

/// `host:port`, with an empty host where the server listens on all addresses.
fn listen(addr: Option<&(String, u16)>) -> String {
    match addr {
        Some((_, 0)) | None => String::new(),
        Some((host, port)) if matches!(host.as_str(), "0.0.0.0" | "::" | "") => format!(":{port}"),
        Some((host, port)) if host.contains(':') => format!("[{host}]:{port}"),
        Some((host, port)) => format!("{host}:{port}"),
    }
}
