//! From verdicts and reports to evidence, and from evidence to cases.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::core::agent::Core;
use crate::core::agent::event::Action;
use crate::core::canary::path::Path;
use crate::core::ids::{HostName, LaneName, Mono, Now};
use crate::core::mesh::{End, Evidence, Fault, diagnose};
use crate::core::remedy::case::{Case, Step};
use crate::core::view::{FaultKind, Verdict};

impl Core {
    /// Diagnoses anew. An agent that is not well keeps its last judgement and makes no new one.
    pub(super) fn judge(&mut self, now: Now, out: &mut Vec<Action>) {
        if !self.unwell(now).is_empty() || self.restart.is_some() {
            return;
        }
        self.look_again(now, out);
    }

    /// Diagnoses anew, whatever the agent thinks of itself.
    pub(super) fn look_again(&mut self, now: Now, out: &mut Vec<Action>) {
        self.judged_at = now.mono;
        if !self.cases.is_empty() && self.gate_sick(now).is_err() {
            self.incident_at = Some(now.mono);
        }
        let sight = Some(self.sight(now));
        if self.sight == sight {
            #[cfg(test)]
            {
                let anew = self.gather(now);
                assert_eq!(self.evidence, anew, "something new was not noticed");
            }
            self.close_gone(now, out);
            return;
        }
        self.evidence = self.gather(now);
        self.sight = sight;
        let faults = diagnose(&self.evidence);
        for case in self.cases.values_mut() {
            case.present = false;
        }
        for fault in faults {
            let id = fault.id();
            if let Some(case) = self.cases.get_mut(&id) {
                case.paths.extend(bearing(&self.evidence, &fault, &self.policy.host));
                case.fault = fault;
                case.present = true;
                continue;
            }
            let text = fault.evidence.clone();
            let mut case = Case::new(fault, &self.policy.host, now.mono, now.wall);
            case.paths = bearing(&self.evidence, &case.fault, &self.policy.host);
            self.recall(&id, &mut case, now);
            self.note(("fault", ""), &id, &case, text, now, out);
            if case.step == Step::GaveUp {
                let text = "it was given up before: a human must look, then `watchdog resume`".to_owned();
                self.count("none", &case, "gave_up");
                self.note(("gave_up", "gave_up"), &id, &case, text, now, out);
            }
            self.cases.insert(id, case);
            // An exact choice of the connection wants the newest counters.
            out.push(Action::ReadRoutes);
        }
        self.close_gone(now, out);
    }

    /// Closes cases of faults that are not seen any more.
    fn close_gone(&mut self, now: Now, out: &mut Vec<Action>) {
        let gone: Vec<String> = self
            .cases
            .iter()
            .filter(|(_, c)| {
                !c.present
                    && matches!(
                        c.step,
                        Step::Waiting | Step::BackingOff { .. } | Step::GaveUp | Step::Checking { .. }
                    )
            })
            .map(|(id, _)| id.clone())
            .collect();
        for id in gone {
            if let Some(case) = self.cases.remove(&id) {
                self.recovers(&case, now);
                let lasted = now.mono.since(case.since).as_secs_f64();
                let text = format!("gone after {lasted:.1} s");
                self.note(("cleared", ""), &id, &case, text, now, out);
            }
        }
    }

    pub(super) fn gather(&mut self, now: Now) -> Evidence {
        let me = self.policy.host.clone();
        let mut e = Evidence::default();
        let present = self.members.iter().filter(|(host, _)| self.present(host));
        e.members = present.map(|(host, m)| (host.clone(), m.place.clone())).collect();
        e.members.insert(me, self.own_place());
        let all: Arc<BTreeSet<LaneName>> = Arc::new(self.lanes.iter().map(|l| l.name.clone()).collect());
        e.lanes = all.len();
        self.own_hearing(&mut e, &all);
        self.others_hearing(&mut e, &all, now);
        self.own_server(&mut e, now);
        e
    }

    fn own_hearing(&self, e: &mut Evidence, all: &Arc<BTreeSet<LaneName>>) {
        let me = &self.policy.host;
        e.receivers.insert(me.clone());
        for host in self.members.keys() {
            let lanes = self.lanes.iter();
            let verdicts = lanes.filter_map(|l| l.paths.get(host).map(|p| (&l.name, p.verdict)));
            let stalled = verdicts.clone().filter(|(_, v)| *v == Verdict::Stalled);
            let stalled: BTreeSet<LaneName> = stalled.map(|(l, _)| l.clone()).collect();
            if !stalled.is_empty() {
                let everywhere = stalled.len() == verdicts.count();
                let lanes = if everywhere { all.clone() } else { stalled.into() };
                e.deaf.insert((host.clone(), me.clone()), lanes);
            } else if { verdicts }.any(|(_, v)| matches!(v, Verdict::Warming | Verdict::Departed)) {
                e.unknown.insert((host.clone(), me.clone()));
                let mut paths = self.lanes.iter().filter_map(|l| l.paths.get(host));
                if paths.any(Path::begins) {
                    e.begun.insert((host.clone(), me.clone()));
                }
            }
        }
        for lane in &self.lanes {
            for target in self.book.suspects(&lane.name) {
                e.unanswered.insert((me.clone(), target.clone()));
            }
        }
    }

    fn others_hearing(&self, e: &mut Evidence, all: &Arc<BTreeSet<LaneName>>, now: Now) {
        for host in self.members.keys() {
            let lanes = self.lanes.iter();
            let reports = lanes.filter_map(|l| l.reports.get(host).map(|r| (&l.name, r)));
            let reports = reports.filter(|(_, r)| r.credible(now.mono));
            if reports.clone().next().is_none() {
                continue;
            }
            e.receivers.insert(host.clone());
            if reports.clone().all(|(_, r)| r.is_content()) {
                continue;
            }
            let reports: Vec<_> = reports.collect();
            let mut deaf: BTreeMap<HostName, BTreeSet<LaneName>> = BTreeMap::new();
            for (lane, report) in &reports {
                for (region, n) in report.more().filter(|(_, n)| **n > 0) {
                    let more = e
                        .more
                        .entry(host.clone())
                        .or_default()
                        .entry(region.clone())
                        .or_default();
                    *more = (*n).max(*more);
                }
                for source in report.deaf() {
                    deaf.entry(source.clone()).or_default().insert((*lane).clone());
                }
                let pairs =
                    |hosts: &[HostName]| -> Vec<_> { hosts.iter().map(|h| (host.clone(), h.clone())).collect() };
                e.unanswered.extend(pairs(report.unanswered()));
                e.unrouted.extend(pairs(report.unrouted()));
            }
            for (source, lanes) in deaf {
                let lanes = if lanes.len() == reports.len() {
                    all.clone()
                } else {
                    lanes.into()
                };
                e.deaf.insert((source, host.clone()), lanes);
            }
        }
    }

    pub(super) fn own_server(&mut self, e: &mut Evidence, now: Now) {
        let me = self.policy.host.clone();
        let cluster = self.cluster();
        if let Some(routes) = self.local.fresh_routes(now.mono) {
            let thin = self.local.thin_peers(now.mono);
            let (led_to, named) = (&self.local.peers, &self.local.names);
            // A silent member's server may have a new id since: a connection to a server that nobody knows may be its own.
            let nameless = routes.iter().filter(|r| r.remote_name.is_empty());
            let strangers = nameless.clone().next().is_some() && {
                let mine: BTreeSet<&str> = self.members.values().map(|m| m.server_id.as_str()).collect();
                { nameless }.any(|r| !mine.contains(&*r.remote_id))
            };
            for (host, m) in self.members.iter() {
                if m.place.cluster != cluster || m.server_id.is_empty() || !e.members.contains_key(host) {
                    continue;
                }
                let named = !m.server.is_empty() && named.contains(m.server.as_str());
                if !strangers && !named && !led_to.contains_key(m.server_id.as_str()) {
                    e.unrouted.insert((me.clone(), host.clone()));
                } else if thin.contains(m.server_id.as_str()) {
                    e.thin.insert((me.clone(), host.clone()));
                }
            }
        }
        let missing: BTreeSet<String> = match self.local.fresh_gateways(now.mono) {
            Some(g) => {
                let there: BTreeSet<&str> = g.outbound.iter().map(|c| &*c.cluster).collect();
                self.known_clusters()
                    .into_iter()
                    .filter(|c| !there.contains(c.as_str()))
                    .collect()
            }
            None => BTreeSet::new(),
        };
        self.ungatewayed_since.retain(|c, _| missing.contains(c));
        for c in missing {
            self.ungatewayed_since.entry(c.clone()).or_insert(now.mono);
            e.ungatewayed.insert((me.clone(), c));
        }
    }

    /// Does anyone else prove, after the fault was found, that `host` is alive? `connected`: for how long there is a
    /// connection to its server.
    pub(super) fn witness(&self, case: &Case, host: &HostName, connected: Option<Duration>, now: Now) -> bool {
        let found = case.since.plus(self.policy.remediation.confirm);
        // What did not speak since a connection is there may have stopped when the one before it ended.
        let spoken = connected.map(|age| Mono(now.mono.0.saturating_sub(age)).plus(self.spoken()));
        let fresh = spoken.unwrap_or(found).max(found);
        // Who does not miss it may hear it, or know that it left: its goodbye may have got stuck where its beacons did, or
        // was said while this agent was away or cut off. Who knows as many hosts as this agent does hears it.
        let spoke = |h: &HostName, knows_it: bool| {
            self.lanes.iter().any(|l| {
                l.reports
                    .get(h)
                    .is_some_and(|r| r.credible(now.mono) && r.at >= fresh && (!knows_it || r.knows() >= l.present()))
            })
        };
        if spoke(host, false) {
            return true;
        }
        let me = &self.policy.host;
        let hear = self.evidence.receivers.iter().filter(|w| {
            let pair = (host.clone(), (*w).clone());
            *w != me
                && *w != host
                && !self.evidence.deaf.contains_key(&pair)
                && !self.evidence.untold(host, w)
                && spoke(w, true)
        });
        // One that alone does not miss whom all others do may be wrong, or lie.
        let miss = self.evidence.deaf.keys().filter(|(s, r)| s == host && r != me);
        hear.count() > miss.count()
    }

    /// Who does not miss a host heard it within so long.
    pub(super) fn spoken(&self) -> Duration {
        self.stall() + self.policy.remediation.confirm
    }

    /// Is what the fault was about fine again, by positive evidence?
    pub(super) fn healed(&self, case: &Case, acted: Mono, now: Now) -> bool {
        if case.present || !self.unwell(now).is_empty() || self.restart.is_some() {
            return false;
        }
        let me = &self.policy.host;
        match (&case.fault.kind, &case.fault.to) {
            (FaultKind::Interest, Some(End::Host(to))) => self
                .lanes
                .iter()
                .any(|l| self.book.last_answer(&l.name, to).is_some_and(|(t, _)| t > acted)),
            (FaultKind::Gateway, Some(End::Cluster(cluster))) => {
                let there = self
                    .local
                    .gateways
                    .as_ref()
                    .is_some_and(|(at, g)| *at > acted && g.outbound.iter().any(|c| *c.cluster == **cluster));
                // Nobody there was heard when it was found: that it is registered is all that can be asked for.
                if case.paths.is_empty() {
                    there
                } else {
                    self.pass_again(case, acted, now)
                }
            }
            (FaultKind::Host, _) => self.pass_again(case, acted, now),
            (_, Some(End::Host(to))) if to == me => self.passes(&case.fault.from, me, &case.fault.lanes, acted, now),
            (_, Some(End::Host(to))) if &case.fault.from == me => self.passes(me, to, &case.fault.lanes, acted, now),
            _ => true,
        }
    }

    /// Most of the paths that told the fault pass again, and none is said not to. Who has left since, or is silent by
    /// now, says nothing either way.
    fn pass_again(&self, case: &Case, acted: Mono, now: Now) -> bool {
        let none = BTreeSet::new();
        let (mut good, mut mute) = (0, 0);
        for (source, receiver) in &case.paths {
            let members = &self.evidence.members;
            if !members.contains_key(source) || !members.contains_key(receiver) {
                continue;
            }
            if self.evidence.deaf.contains_key(&(source.clone(), receiver.clone())) {
                return false;
            }
            match self.passes(source, receiver, &none, acted, now) {
                true => good += 1,
                false => mute += 1,
            }
        }
        good > mute
    }

    /// Is the path fine, by what its receiver heard or said after the act? `lanes` empty = on all lanes.
    fn passes(
        &self,
        source: &HostName,
        receiver: &HostName,
        lanes: &BTreeSet<LaneName>,
        acted: Mono,
        now: Now,
    ) -> bool {
        let mut asked = self
            .lanes
            .iter()
            .filter(|l| lanes.is_empty() || lanes.contains(&l.name));
        if receiver == &self.policy.host {
            return asked
                .filter_map(|l| l.paths.get(source))
                .all(|p| p.verdict == Verdict::Ok && p.heard().is_some_and(|t| t > acted));
        }
        let region = self.evidence.members.get(source).map(|p| &p.region);
        asked.any(|l| {
            l.reports.get(receiver).is_some_and(|r| {
                let cut_short = region.is_none_or(|region| r.more().any(|(of, n)| of == region && *n > 0));
                let knows = !self.may_not_know_me(&l.name, receiver, now);
                r.at > acted && r.credible(now.mono) && !r.deaf().contains(source) && !cut_short && knows
            })
        })
    }
}

/// The paths that tell a fault of this host itself.
fn bearing(e: &Evidence, fault: &Fault, me: &HostName) -> BTreeSet<(HostName, HostName)> {
    let bears = |(source, receiver): &(HostName, HostName)| match (fault.kind, &fault.to) {
        (FaultKind::Host, _) => source == me && e.receivers.contains(receiver) || receiver == me,
        (FaultKind::Gateway, Some(End::Cluster(cluster))) => {
            source == me && e.members.get(receiver).is_some_and(|p| &p.cluster == cluster)
        }
        _ => false,
    };
    if &fault.from != me || !matches!(fault.kind, FaultKind::Host | FaultKind::Gateway) {
        return BTreeSet::new();
    }
    e.deaf.keys().filter(|pair| bears(pair)).cloned().collect()
}
