//! `/metrics`: a [`Snapshot`] as Prometheus text, built anew per scrape. There is no registry and no state here: the
//! core counts, this only writes down. What is unknown is absent, never 0 and never NaN.

use std::collections::BTreeMap;

use prometheus::TextEncoder;
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, MetricFamily, MetricType};

use crate::core::canary::beacon::Health;
use crate::core::control::Refusal;
use crate::core::sys::rates::{Odd, Source};
use crate::core::view::{FaultKind, HistogramView, Snapshot, Verdict};
use crate::telemetry::catalogue::{self as c, Kind, Metric};

/// Content type of [`render`]'s text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

const MODES: [&str; 3] = ["observe", "reset", "restart"];
const HEALTHS: [(&str, Health); 5] = [
    ("warming", Health::Warming),
    ("ok", Health::Ok),
    ("sick", Health::Sick),
    ("restarting", Health::Restarting),
    ("lame_duck", Health::LameDuck),
];
// Counters start at 0, not at their first event: Prometheus's increase() does not see a series begin at 1.
const DROPS: [&str; 6] = [
    "subject",
    "too_large",
    "future_version",
    "malformed",
    "lying",
    "roster_full",
];
const ACTIONS: [&str; 2] = ["reset", "restart"];
const REASONS: [&str; 7] = ["host", "gateway", "hole", "pool", "route", "interest", "operator"];
const OUTCOMES: [&str; 5] = ["would", "started", "healed", "failed", "no_effect"];
/// Label values of `watchdog_fault_remedies`; what a newer core says beyond them is `other`.
const REMEDIES: [&str; 11] = [
    "observing",
    "confirming",
    "checking_network",
    "resetting",
    "restarting",
    "verifying",
    "backing_off",
    "blocked",
    "gave_up",
    "not_ours",
    "other",
];

/// The snapshot as Prometheus text format 0.0.4.
#[must_use]
pub fn render(snapshot: &Snapshot) -> String {
    let mut page = Page::default();
    agent(&mut page, snapshot);
    canaries(&mut page, snapshot);
    probes(&mut page, snapshot);
    faults(&mut page, snapshot);
    server(&mut page, snapshot);
    system(&mut page, snapshot);
    remediation(&mut page, snapshot);
    audit(&mut page, snapshot);
    permits(&mut page, snapshot);
    page.encode()
}

fn agent(page: &mut Page, s: &Snapshot) {
    let a = &s.agent;
    page.put(c::BUILD_INFO, &[&a.version, a.region.as_str()], 1.0);
    page.put(c::UPTIME, &[], a.uptime_seconds);
    page.put(c::SNAPSHOT_TIMESTAMP, &[], s.at);
    for (name, health) in HEALTHS {
        page.put(c::AGENT_HEALTH, &[name], flag(a.health == health));
    }
    page.maybe(c::SELF_LOOP, &[], a.self_loop_seconds);
    page.put(c::LOOP_LAG, &[], a.loop_lag_seconds);
    page.put(c::ROSTER, &[], a.roster as f64);
    page.put(c::STATE_WRITABLE, &[], flag(a.state_error.is_none()));
    page.put(c::CANARY_INTERVAL, &[], a.interval_seconds);
    for lane in &s.lanes {
        page.put(c::LANE_CONNECTED, &[lane.lane.as_str()], flag(lane.connected));
        page.put(c::CANARY_SENT, &[lane.lane.as_str()], lane.sent as f64);
    }
}

fn canaries(page: &mut Page, s: &Snapshot) {
    let mut paths: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    let mut one_way: BTreeMap<&str, HistogramView> = BTreeMap::new();
    let mut skewed: BTreeMap<&str, bool> = BTreeMap::new();
    for r in &s.regions {
        let region = r.region.as_str();
        let labels = [region, r.lane.as_str()];
        page.put(c::CANARY_RECEIVED, &labels, r.received as f64);
        page.put(c::CANARY_LOST, &labels, r.lost as f64);
        page.put(c::CANARY_LATE, &labels, r.late as f64);
        page.put(c::CANARY_DUPLICATE, &labels, r.duplicate as f64);
        page.put(c::CANARY_REORDERED, &labels, r.reordered as f64);
        // Without a source there is no age: 0 would read as fresh.
        page.maybe(c::CANARY_AGE, &labels, r.worst.as_ref().map(|_| r.age_seconds));
        for verdict in Verdict::ALL {
            *paths.entry((region, verdict.name())).or_default() += r.paths.get(verdict.name()).copied().unwrap_or(0);
        }
        add(one_way.entry(region).or_default(), &r.one_way);
        *skewed.entry(region).or_default() |= r.skewed;
    }
    for ((region, state), count) in paths {
        page.put(c::PATHS, &[region, state], count as f64);
    }
    for (region, histogram) in &one_way {
        page.histogram(c::CANARY_ONE_WAY, &[region], histogram);
    }
    for (region, skewed) in skewed {
        page.put(c::CANARY_SKEWED, &[region], flag(skewed));
    }
    let mut dropped: BTreeMap<&str, u64> = DROPS.map(|reason| (reason, 0)).into();
    dropped.extend(s.dropped.iter().map(|(reason, count)| (reason.as_str(), *count)));
    for (reason, count) in dropped {
        page.put(c::CANARY_DROPPED, &[reason], count as f64);
    }
}

fn probes(page: &mut Page, s: &Snapshot) {
    for p in &s.probes {
        let (region, lane) = (p.region.as_str(), p.lane.as_str());
        page.histogram(c::PROBE_RTT, &[region, lane], &p.rtt);
        for (reason, count) in &p.failures {
            page.put(c::PROBE_FAILURES, &[region, lane, reason], *count as f64);
        }
    }
}

fn faults(page: &mut Page, s: &Snapshot) {
    // Zeros for every region that is known, so that an alert's series ends when the fault does.
    let regions = s
        .regions
        .iter()
        .map(|r| r.region.as_str())
        .chain([s.agent.region.as_str()]);
    let mut counts: BTreeMap<(&str, &str), u64> = regions
        .flat_map(|r| FaultKind::ALL.map(|k| ((k.name(), r), 0)))
        .collect();
    let mut remedies: BTreeMap<&str, u64> = REMEDIES.map(|name| (name, 0)).into();
    for fault in &s.faults {
        *counts.entry((fault.kind.name(), fault.region.as_str())).or_default() += 1;
        *remedies.entry(remedy_state(&fault.remedy)).or_default() += 1;
    }
    for ((kind, region), count) in counts {
        page.put(c::FAULTS, &[kind, region], count as f64);
    }
    for (state, count) in remedies {
        page.put(c::FAULT_REMEDIES, &[state], count as f64);
    }
}

/// `blocked: paused by …` is `blocked`: the sentence is for people and has no bound, the label has one.
fn remedy_state(remedy: &str) -> &'static str {
    let word = remedy.split(':').next().unwrap_or_default().trim().replace(' ', "_");
    REMEDIES.into_iter().find(|state| *state == word).unwrap_or("other")
}

fn server(page: &mut Page, s: &Snapshot) {
    let v = &s.server;
    page.put(c::SERVER_UP, &[], flag(v.up));
    if !v.version.is_empty() {
        page.put(c::SERVER_INFO, &[&v.name, &v.cluster, &v.version], 1.0);
    }
    page.maybe(c::SERVER_HEALTHY, &[], v.healthy.map(flag));
    page.maybe(c::SERVER_LAME_DUCK, &[], v.up.then(|| flag(v.lame_duck)));
    page.maybe(c::SERVER_START, &[], v.start);
    page.put(c::SERVER_STARTS, &[], v.restarts_seen as f64);
    page.maybe(c::SERVER_MEMORY, &[], v.memory_bytes.map(|n| n as f64));
    page.maybe(c::SERVER_CONNECTIONS, &[], v.connections.map(|n| n as f64));
    for (kind, count) in &v.slow_consumers {
        page.put(c::SERVER_SLOW_CONSUMERS, &[kind], *count as f64);
    }
    page.put(c::PEERS_EXPECTED, &[], v.peers_expected as f64);
    page.maybe(c::PEERS_CONNECTED, &[], v.peers_connected.map(|n| n as f64));
    page.put(c::GATEWAYS_EXPECTED, &[], v.gateways_expected as f64);
    page.maybe(c::GATEWAYS_CONNECTED, &[], v.gateways_connected.map(|n| n as f64));
    for (source, age) in &v.age_seconds {
        page.maybe(c::SOURCE_AGE, &[source], *age);
    }
}

fn system(page: &mut Page, s: &Snapshot) {
    let v = &s.sys;
    for source in Source::ALL {
        let on = v.source.as_deref() == Some(source.name());
        page.put(c::SYS_SOURCE, &[source.name()], flag(on));
    }
    page.maybe(c::SYS_AGE, &[], v.age_seconds);
    for (direction, total) in [("received", v.received_total), ("sent", v.sent_total)] {
        page.put(c::SYS_MESSAGES, &[direction], total.messages as f64);
        page.put(c::SYS_BYTES, &[direction], total.bytes as f64);
    }
    page.put(c::SYS_SHARED, &[], flag(v.shared_with_jetstream));
    if let Some(e) = &v.expected {
        for (direction, rate) in [("received", e.received), ("sent", e.sent)] {
            page.put(c::SYS_EXPECTED_MESSAGES, &[direction], rate.messages);
            page.put(c::SYS_EXPECTED_BYTES, &[direction], rate.bytes);
        }
    }
    for odd in Odd::ALL {
        let count = v.odd_readings.get(odd.name()).copied().unwrap_or(0);
        page.put(c::SYS_ODD_READINGS, &[odd.name()], count as f64);
    }
    for b in &s.brownout {
        page.put(c::BROWNOUT, &[&b.scope], flag(b.on));
        page.put(c::BROWNOUT_SCORE, &[&b.scope], b.score);
    }
    let churn = &v.churn;
    for (kind, count) in &churn.slow_consumers {
        page.put(c::SLOW_CONSUMERS, &[kind], *count as f64);
    }
    for (metric, opened, closed) in [
        (c::ROUTE_CHURN, churn.routes_opened, churn.routes_closed),
        (c::GATEWAY_CHURN, churn.gateways_opened, churn.gateways_closed),
    ] {
        page.put(metric, &["opened"], opened as f64);
        page.put(metric, &["closed"], closed as f64);
    }
    page.maybe(c::SERVER_PENDING, &[], churn.pending_bytes.map(|n| n as f64));
    page.maybe(c::SERVER_STALLED_CLIENTS, &[], churn.stalled_clients.map(|n| n as f64));
    page.maybe(c::SERVER_MEMORY_LIMIT, &[], v.memory.limit_bytes.map(|n| n as f64));
    page.maybe(c::SERVER_MEMORY_EXHAUSTION, &[], v.memory.exhaustion_seconds);
}

fn permits(page: &mut Page, s: &Snapshot) {
    let p = &s.permits;
    if p.store != "register" {
        return;
    }
    for state in ["taken", "acting", "failed"] {
        page.put(c::PERMITS_HELD, &[state], flag(p.held.as_deref() == Some(state)));
    }
    for state in ["taken", "acting", "failed", "vanished"] {
        let count = p.holders.iter().filter(|h| h.state == state).count();
        page.put(c::PERMIT_HOLDERS, &[state], count as f64);
    }
    let fresh = p.age_seconds.is_some_and(|age| age < 60.0);
    page.put(c::PERMIT_STORE_UP, &[], flag(fresh && p.error.is_none()));
    for scope in ["fleet", "region", "host"] {
        let paused = p.pauses.iter().any(|pause| pause.here && pause.kind == scope);
        page.put(c::PAUSED, &[scope], flag(paused));
    }
}

fn remediation(page: &mut Page, s: &Snapshot) {
    let r = &s.remediation;
    for mode in MODES {
        page.put(c::REMEDIATION_MODE, &[mode], flag(r.mode == mode));
    }
    page.put(c::RESET_AVAILABLE, &[], flag(r.reset_unavailable.is_none()));
    let mut acts: BTreeMap<(&str, &str, &str), u64> = possible_acts().map(|act| (act, 0)).collect();
    for a in &r.actions {
        *acts.entry((&a.action, &a.reason, &a.outcome)).or_default() += a.count;
    }
    for ((action, reason, outcome), count) in acts {
        page.put(c::REMEDIATION_ACTIONS, &[action, reason, outcome], count as f64);
    }
    for (gate, count) in &r.blocked {
        page.put(c::REMEDIATION_BLOCKED, &[gate], *count as f64);
    }
    page.put(c::REMEDIATION_BLOCKING, &[], r.blocking.len() as f64);
    page.put(c::LEDGER_DAMAGED, &[], flag(r.ledger_damaged));
    page.put(c::RESTARTS_LEFT, &[], f64::from(r.restarts_left));
    page.put(c::RESTART_IN_PROGRESS, &[], flag(r.restart_in_progress));
    let open = r.rollout.as_ref();
    page.put(c::ROLLOUT_OPEN, &[], flag(open.is_some()));
    page.put(c::ROLLOUT_HALTED, &[], flag(open.is_some_and(|o| o.halted.is_some())));
    let (proved, hosts) = open.map_or((0, 0), |o| (o.proved, o.hosts));
    page.put(c::ROLLOUT_HOSTS, &["proved"], proved as f64);
    page.put(c::ROLLOUT_HOSTS, &["waiting"], hosts.saturating_sub(proved) as f64);
    let reason = r.last_restart_reason.as_deref().map_or("unknown", restart_reason);
    page.maybe(c::LAST_RESTART, &[reason], r.last_restart);
}

fn audit(page: &mut Page, s: &Snapshot) {
    let a = &s.audit;
    let mut taken: BTreeMap<&str, u64> = BTreeMap::from([("restart", 0)]);
    taken.extend(a.commands_taken.iter().map(|(verb, n)| (verb.as_str(), *n)));
    for (verb, count) in taken {
        page.put(c::COMMANDS, &[verb], count as f64);
    }
    let mut refused: BTreeMap<&str, u64> = Refusal::GATES.map(|reason| (reason, 0)).into();
    refused.extend(a.commands_refused.iter().map(|(reason, n)| (reason.as_str(), *n)));
    for (reason, count) in refused {
        page.put(c::COMMANDS_REFUSED, &[reason], count as f64);
    }
    page.put(c::EVENTS, &["sent"], a.events_sent as f64);
    page.put(c::EVENTS, &["dropped"], a.events_dropped as f64);
    page.put(c::RECORDS_LOST, &[], a.records_lost as f64);
}

fn possible_acts() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    ACTIONS
        .into_iter()
        .flat_map(|action| REASONS.map(|reason| (action, reason)))
        .flat_map(|(action, reason)| OUTCOMES.map(|outcome| (action, reason, outcome)))
}

/// An operator's words have no bound, a label has one.
fn restart_reason(reason: &str) -> &str {
    let known = reason == "operator" || FaultKind::ALL.iter().any(|kind| kind.name() == reason);
    if known { reason } else { "other" }
}

fn flag(on: bool) -> f64 {
    f64::from(u8::from(on))
}

/// Adds what one lane saw to another; a lane with other bounds is left out rather than counted wrongly.
fn add(to: &mut HistogramView, from: &HistogramView) {
    if to.counts.is_empty() {
        to.clone_from(from);
    } else if to.bounds == from.bounds {
        for (sum, n) in to.counts.iter_mut().zip(&from.counts) {
            *sum += n;
        }
        to.sum += from.sum;
    }
}

#[derive(Default)]
struct Page {
    families: BTreeMap<&'static str, Vec<prometheus::proto::Metric>>,
}

impl Page {
    fn put(&mut self, metric: Metric, labels: &[&str], value: f64) {
        if !value.is_finite() {
            return;
        }
        let mut sample = prometheus::proto::Metric::from_label(pairs(&metric, labels));
        match metric.kind {
            Kind::Counter => {
                let mut counter = Counter::default();
                counter.set_value(value);
                sample.set_counter(counter);
            }
            _ => {
                let mut gauge = Gauge::default();
                gauge.set_value(value);
                sample.set_gauge(gauge);
            }
        }
        self.families.entry(metric.name).or_default().push(sample);
    }

    fn maybe(&mut self, metric: Metric, labels: &[&str], value: Option<f64>) {
        if let Some(value) = value {
            self.put(metric, labels, value);
        }
    }

    fn histogram(&mut self, metric: Metric, labels: &[&str], view: &HistogramView) {
        if !view.sum.is_finite() || view.counts.len() != view.bounds.len() + 1 {
            return;
        }
        let mut total = 0;
        let buckets = view.bounds.iter().zip(&view.counts).map(|(bound, count)| {
            total += count;
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(total);
            bucket
        });
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(view.counts.iter().sum());
        histogram.set_sample_sum(view.sum);
        let mut sample = prometheus::proto::Metric::from_label(pairs(&metric, labels));
        sample.set_histogram(histogram);
        self.families.entry(metric.name).or_default().push(sample);
    }

    fn encode(mut self) -> String {
        let families: Vec<MetricFamily> = c::ALL
            .iter()
            .filter_map(|metric| {
                let samples = self.families.remove(metric.name)?;
                let mut family = MetricFamily::default();
                family.set_name(metric.name.to_owned());
                family.set_help(metric.help.to_owned());
                family.set_field_type(match metric.kind {
                    Kind::Counter => MetricType::COUNTER,
                    Kind::Gauge => MetricType::GAUGE,
                    Kind::Histogram => MetricType::HISTOGRAM,
                });
                family.set_metric(samples);
                Some(family)
            })
            .collect();
        TextEncoder::new()
            .encode_to_string(&families)
            .expect("no family is empty or nameless, and a String takes every write")
    }
}

fn pairs(metric: &Metric, values: &[&str]) -> Vec<LabelPair> {
    debug_assert_eq!(metric.labels.len(), values.len(), "{}", metric.name);
    let pair = |(name, value): (&&str, &&str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    metric.labels.iter().zip(values).map(pair).collect()
}
