//! The snapshot for readers.

use std::collections::{BTreeMap, BTreeSet};

use crate::core::agent::Core;
use crate::core::agent::lane::RegionStats;
use crate::core::canary::path::{Counts, Path};
use crate::core::ids::{HostName, LaneName, Now, Region};
use crate::core::mesh::End;
use crate::core::policy::Mode;
use crate::core::remedy::case::{Case, Step};
use crate::core::remedy::gate::Blocked;
use crate::core::remedy::ledger::ActKind;
use crate::core::server::Endpoint;
use crate::core::view::{
    ActionCount, AgentView, FaultKind, FaultView, LaneView, MatrixCell, ProbeView, RegionView, RemediationView,
    ServerView, Snapshot, SourceView, Verdict,
};

type Groups<'a> = BTreeMap<(&'a LaneName, &'a Region), Vec<(&'a HostName, &'a Path)>>;

impl Core {
    /// All that readers may see, as of `now`.
    #[must_use]
    pub fn snapshot(&self, now: Now) -> Snapshot {
        let groups = self.groups();
        Snapshot {
            at: now.wall.as_secs_f64(),
            agent: self.agent_view(now),
            server: self.server_view(now),
            lanes: self
                .lanes
                .iter()
                .map(|l| LaneView {
                    lane: l.name.clone(),
                    connected: l.connected.is_ok(),
                    sent: l.sent,
                    error: l.connected.clone().err(),
                })
                .collect(),
            regions: self.region_views(&groups, now),
            probes: self.probe_views(),
            sources: self.source_views(now),
            matrix: self.matrix(&groups, now),
            faults: self.fault_views(now),
            remediation: self.remediation_view(now),
            history: self.audit.history(),
            permits: self.permits_view(now),
            dropped: self.dropped.clone(),
            sys: self.sys_view(now),
            brownout: self.brownout_views(now),
            audit: self.audit.view(),
        }
    }

    fn agent_view(&self, now: Now) -> AgentView {
        AgentView {
            version: self.policy.version.clone(),
            host: self.policy.host.clone(),
            region: self.policy.region.clone(),
            uptime_seconds: now.mono.since(self.started.mono).as_secs_f64(),
            health: self.health(now),
            health_reasons: self.unwell(now),
            self_loop_seconds: self
                .lanes
                .iter()
                .map(|l| {
                    l.self_loop
                        .filter(|_| l.hears_itself(now.mono, self.interval()))
                        .map(|d| d.as_secs_f64())
                })
                .fold(None, |a: Option<f64>, b| match (a, b) {
                    (Some(a), Some(b)) => Some(a.max(b)),
                    (a, b) => a.or(b),
                }),
            loop_lag_seconds: self.loop_lag.as_secs_f64(),
            interval_seconds: self.interval().as_secs_f64(),
            roster: self.members.len() + 1,
            state_error: self.state_error.clone(),
        }
    }

    fn server_view(&self, now: Now) -> ServerView {
        let local = &self.local;
        let varz = local.varz();
        let cluster = self.cluster();
        let mut view = ServerView {
            up: local.up,
            error: local.errors.values().next().map(ToString::to_string),
            age_seconds: Endpoint::ALL
                .iter()
                .map(|e| (e.name().to_owned(), local.age(*e, now.mono).map(|d| d.as_secs_f64())))
                .collect(),
            restarts_seen: local.restarts,
            cluster: cluster.clone(),
            ..ServerView::default()
        };
        if let Some(v) = varz {
            view.name.clone_from(&v.server_name);
            view.id.clone_from(&v.server_id);
            view.version.clone_from(&v.version);
            view.start = v.start.map(super::Wall::as_secs_f64);
            view.lame_duck = local.lame_duck;
            // What describes a process that does not answer is not shown as if it were so now.
            if local.up {
                view.memory_bytes = Some(v.mem);
                view.connections = Some(v.connections);
            }
            view.slow_consumers.clone_from(&v.slow_consumers_by_kind);
            if view.slow_consumers.is_empty() {
                view.slow_consumers.insert("all".to_owned(), v.slow_consumers);
            }
        }
        if let Some((_, h)) = local
            .health
            .as_ref()
            .filter(|(t, _)| now.mono.since(*t) < super::local::STALE && local.up)
        {
            view.healthy = Some(h.ok);
            view.health_detail.clone_from(&h.detail);
        }
        let routes = local.fresh_routes(now.mono).filter(|_| local.up);
        view.peers_connected = routes.map(|_| local.peers.len());
        for (host, m) in self.members.iter() {
            if m.place.cluster == cluster && !cluster.is_empty() && self.present(host) {
                view.peers_expected += 1;
                if routes.is_some_and(|r| !r.iter().any(|r| *r.remote_id == *m.server_id)) {
                    view.peers_missing.push(host.to_string());
                }
            }
        }
        let clusters = self.known_clusters();
        view.gateways_expected = if varz.is_some_and(|v| v.gateway.is_some()) {
            clusters.len()
        } else {
            0
        };
        if let Some(g) = local
            .fresh_gateways(now.mono)
            .filter(|_| local.up && view.gateways_expected > 0)
        {
            let there: BTreeSet<&str> = g.outbound.iter().map(|c| &*c.cluster).collect();
            view.gateways_connected = Some(there.len());
            view.gateways_missing = clusters.into_iter().filter(|c| !there.contains(c.as_str())).collect();
        }
        view.advice = self.advice();
        view
    }

    fn advice(&self) -> Vec<String> {
        let mut advice: Vec<String> = self.name_advice().collect();
        let Some(v) = self.local.varz() else { return advice };
        if let Some(pool) = v.pool_size.and_then(|p| u32::try_from(p).ok()).filter(|p| *p > 1) {
            let lanes = self.lanes.len();
            if lanes < pool as usize {
                advice.push(format!(
                    "each peer has {pool} pooled connections and canaries run in {lanes} account(s): a stall of a connection \
                     that carries none of them is not seen; add a [[lane]] per important account"
                ));
            }
        }
        if let Some((_, routes)) = &self.local.routes {
            let solicited_implicit = routes.iter().filter(|r| r.did_solicit && !r.is_configured).count();
            if solicited_implicit > 0 {
                advice.push(
                    "some routes are gossiped, not configured: nats-server redials such a route once only; list all peers in \
                     cluster.routes, or set cluster.connect_retries"
                        .to_owned(),
                );
            }
        }
        advice
    }

    /// Paths per lane and region, for all that are known. Made once per snapshot: finding a member is not free.
    fn groups(&self) -> Groups<'_> {
        let mut groups: Groups<'_> = self.stats().into_keys().map(|key| (key, Vec::new())).collect();
        for lane in &self.lanes {
            for (host, path) in lane.paths.iter() {
                if let Some(m) = self.members.get(host) {
                    groups
                        .entry((&lane.name, &m.place.region))
                        .or_default()
                        .push((host, path));
                }
            }
        }
        groups
    }

    fn region_views(&self, groups: &Groups<'_>, now: Now) -> Vec<RegionView> {
        let (all, fallback) = (self.stats(), RegionStats::default());
        groups
            .iter()
            .map(|((lane, region), paths)| {
                let stats = all.get(&(*lane, *region)).copied().unwrap_or(&fallback);
                self.region_view((*lane).clone(), (*region).clone(), paths, stats, now)
            })
            .collect()
    }

    fn region_view(
        &self,
        lane: LaneName,
        region: Region,
        group: &[(&HostName, &Path)],
        stats: &RegionStats,
        now: Now,
    ) -> RegionView {
        let mut sum: Counts = stats.gone;
        let mut paths: BTreeMap<String, u64> = Verdict::ALL.iter().map(|v| (v.name().to_owned(), 0)).collect();
        let mut worst: Option<(std::time::Duration, &HostName)> = None;
        let mut skewed = false;
        let interval = i64::try_from(self.interval().as_micros()).unwrap_or(i64::MAX);
        for &(host, p) in group {
            sum.received += p.counts.received;
            sum.lost += p.counts.lost;
            sum.late += p.counts.late;
            sum.duplicate += p.counts.duplicate;
            sum.reordered += p.counts.reordered;
            *paths.entry(p.verdict.name().to_owned()).or_default() += 1;
            skewed |= p.one_way_micros.is_some_and(|m| m < 0 || m > interval);
            let age = p.heard().map_or_else(|| p.silence(now.mono), |t| now.mono.since(t));
            if p.verdict != Verdict::Departed && worst.is_none_or(|(w, _)| age > w) {
                worst = Some((age, host));
            }
        }
        RegionView {
            received: sum.received,
            lost: sum.lost,
            late: sum.late,
            duplicate: sum.duplicate,
            reordered: sum.reordered,
            age_seconds: worst.map_or(0.0, |(age, _)| age.as_secs_f64()),
            worst: worst.map(|(_, h)| h.clone()),
            paths,
            one_way: stats.one_way.view(),
            skewed,
            region,
            lane,
        }
    }

    fn probe_views(&self) -> Vec<ProbeView> {
        self.stats()
            .into_iter()
            .map(|((lane, region), s)| ProbeView {
                region: region.clone(),
                lane: lane.clone(),
                rtt: s.rtt.view(),
                last_seconds: s.last_rtt.map(|d| d.as_secs_f64()),
                failures: s.failures.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect(),
            })
            .collect()
    }

    #[allow(clippy::cast_precision_loss, reason = "microseconds of a delay")]
    fn source_views(&self, now: Now) -> Vec<SourceView> {
        let mut views = Vec::new();
        for lane in &self.lanes {
            for (host, p) in lane.paths.iter() {
                let Some(m) = self.members.get(host) else { continue };
                views.push(SourceView {
                    host: host.clone(),
                    region: m.place.region.clone(),
                    lane: lane.name.clone(),
                    verdict: p.verdict,
                    age_seconds: p.heard().map(|t| now.mono.since(t).as_secs_f64()),
                    since_seconds: now.mono.since(p.since).as_secs_f64(),
                    received: p.counts.received,
                    lost: p.counts.lost,
                    one_way_seconds: p.one_way_micros.map(|m| m as f64 / 1e6),
                    rtt_seconds: self.book.last_answer(&lane.name, host).map(|(_, d)| d.as_secs_f64()),
                    server: m.server.clone(),
                    server_version: m.version.clone(),
                    cluster: m.place.cluster.clone(),
                    health: m.health,
                });
            }
        }
        views
    }

    fn matrix(&self, groups: &Groups<'_>, now: Now) -> Vec<MatrixCell> {
        let cells = self.evidence.cells();
        let own = &self.policy.region;
        let stats = self.stats();
        cells
            .into_iter()
            .map(|((from, to), (pairs, broken))| {
                let here: Vec<&Path> = self
                    .lanes
                    .iter()
                    .filter(|_| &to == own)
                    .filter_map(|l| groups.get(&(&l.name, &from)))
                    .flatten()
                    .map(|(_, p)| *p)
                    .filter(|p| p.verdict != Verdict::Departed)
                    .collect();
                let received: u64 = here.iter().map(|p| p.counts.received).sum();
                let lost: u64 = here.iter().map(|p| p.counts.lost).sum();
                #[allow(clippy::cast_precision_loss, reason = "a share of counts")]
                let loss = (received + lost > 0).then(|| lost as f64 / (received + lost) as f64);
                let age = here
                    .iter()
                    .filter_map(|p| p.heard())
                    .map(|t| now.mono.since(t).as_secs_f64());
                MatrixCell {
                    age_seconds: age.reduce(f64::max),
                    loss: loss.filter(|_| !here.is_empty()),
                    rtt_seconds: stats
                        .iter()
                        .filter(|((_, r), _)| &from == own && **r == to)
                        .filter_map(|(_, s)| s.last_rtt.map(|d| d.as_secs_f64()))
                        .reduce(f64::max),
                    from,
                    to,
                    pairs,
                    broken,
                }
            })
            .collect()
    }

    fn fault_views(&self, now: Now) -> Vec<FaultView> {
        let mut views: Vec<FaultView> = self
            .cases
            .iter()
            .filter(|(_, c)| {
                c.present
                    || matches!(
                        c.step,
                        Step::Acting { .. } | Step::Verifying { .. } | Step::Saving { .. }
                    )
            })
            .map(|(id, c)| fault_view(id, c))
            .collect();
        let unwell = self.unwell(now);
        if !unwell.is_empty() && !self.warming(now) && self.restart.is_none() {
            views.push(FaultView {
                id: format!("observer:{}", self.policy.host),
                kind: FaultKind::Observer,
                region: self.policy.region.clone(),
                from: self.policy.host.clone(),
                to: None,
                lanes: Vec::new(),
                since: now.wall.as_secs_f64(),
                evidence: unwell.join("; "),
                network_ok: None,
                remedy: "quiet about others until this is over".to_owned(),
            });
        }
        views
    }

    fn remediation_view(&self, now: Now) -> RemediationView {
        let policy = &self.policy.remediation;
        let mut blocking: Vec<String> = self
            .cases
            .iter()
            .filter_map(|(id, c)| {
                c.blocked
                    .as_ref()
                    .filter(|_| c.present)
                    .map(|b| format!("{id} by {}: {b}", b.gate()))
            })
            .collect();
        if policy.mode != Mode::Observe && self.ledger.left(ActKind::Restart, policy.restarts_per_hour, now) == 0 {
            let held = Blocked::HostLimit {
                action: "restart",
                per_hour: policy.restarts_per_hour,
                wait: self.ledger.wait(ActKind::Restart, policy.restarts_per_hour, now),
            };
            blocking.push(format!("restarts by {}: {held}", held.gate()));
        }
        let forgotten = self.forgotten(now).map(|b| format!("restarts by {}: {b}", b.gate()));
        blocking.extend(forgotten.clone());
        RemediationView {
            mode: policy.mode.name().to_owned(),
            reset_unavailable: self.reset_unavailable.clone(),
            actions: self
                .actions
                .iter()
                .map(|((action, reason, outcome), count)| ActionCount {
                    action: (*action).to_owned(),
                    reason: reason.clone(),
                    outcome: (*outcome).to_owned(),
                    count: *count,
                })
                .collect(),
            blocked: self.blocked.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect(),
            blocking,
            ledger_damaged: forgotten.is_some(),
            restarts_left: self.ledger.left(ActKind::Restart, policy.restarts_per_hour, now),
            restart_in_progress: self.restart.is_some(),
            rollout: self.rollout_shown(),
            last_restart: self.last_restart.as_ref().map(|(t, _)| t.as_secs_f64()),
            last_restart_reason: self.last_restart.as_ref().map(|(_, why)| why.clone()),
        }
    }
}

fn fault_view(id: &str, c: &Case) -> FaultView {
    let network_ok = c.network.as_ref().map(|(_, seen)| seen.is_ok());
    let kind = if network_ok == Some(false) {
        FaultKind::Network
    } else {
        c.fault.kind
    };
    let mut evidence = c.fault.evidence.clone();
    if let Some((_, Err(what))) = &c.network {
        evidence = format!("{evidence}; no INFO: {what}");
    }
    FaultView {
        id: id.to_owned(),
        kind,
        region: c.fault.region.clone(),
        from: c.fault.from.clone(),
        to: c.fault.to.as_ref().map(End::to_string),
        lanes: c.fault.lanes.iter().cloned().collect(),
        since: c.since_wall.as_secs_f64(),
        evidence,
        network_ok,
        remedy: c.remedy(),
    }
}
