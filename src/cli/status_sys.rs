//! The part of `watchdog status` on system traffic: measured beside expected, brownout by scope, memory, churn.

use super::words::{Paint, Tone, count, line, span};
use crate::core::rollout::advice::{bytes, number};
use crate::core::view::{BrownoutView, ChurnView, MemoryView, RateView, Snapshot, SysView};

/// System traffic and brownouts.
pub(super) fn system(s: &Snapshot, paint: Paint) -> String {
    let mut text = paint.heading("System traffic") + "\n";
    for sentence in traffic(&s.sys, s.server.up, paint) {
        line(&mut text, &sentence);
    }
    let on = s.brownout.iter().any(|b| b.on);
    for sentence in brownouts(&s.brownout, s.at, paint) {
        line(&mut text, &sentence);
    }
    if on && !s.sys.peers.is_empty() {
        let peers = s.sys.peers.iter();
        let peers: Vec<String> = peers.map(|p| format!("{} {}", p.peer, rate(p.received))).collect();
        line(&mut text, &format!("Most comes from {}.", peers.join("; ")));
    }
    if let Some(sentence) = memory(&s.sys.memory, s.server.memory_bytes, paint) {
        line(&mut text, &sentence);
    }
    if let Some(sentence) = churn(&s.sys.churn, paint) {
        line(&mut text, &sentence);
    }
    text
}

fn rate(r: RateView) -> String {
    format!("{}/s in {} messages/s", bytes(r.bytes), number(r.messages))
}

fn traffic(v: &SysView, up: bool, paint: Paint) -> Vec<String> {
    let age = v
        .age_seconds
        .map_or(String::new(), |age| format!(", {} old", span(age)));
    let Some(source) = &v.source else {
        let why = if up {
            "the local server has not been read, or tells nothing of its system account"
        } else {
            "the server does not answer"
        };
        return vec![format!("{}: {why}.", paint.text(Tone::Warn, "Not measured"))];
    };
    let source = match source.as_str() {
        "account" => "the system account's counters",
        "routes" => "the system account's route connections",
        "counted" => "a count of what arrives",
        "account_sent" => "the system account's counters, of what is sent only",
        other => other,
    };
    let mut told = Vec::new();
    let directions = [
        ("In", v.received, v.expected.as_ref().map(|e| e.received)),
        ("Out", v.sent, v.expected.as_ref().map(|e| e.sent)),
    ];
    for (name, measured, expected) in directions {
        let Some(measured) = measured else { continue };
        let beside = match expected {
            Some(e) => format!("expected at rest: {}", rate(e)),
            None if v.shared_with_jetstream => "JetStream's replication is in it, so nothing is expected".to_owned(),
            None => "what to expect is not known yet".to_owned(),
        };
        told.push(format!("{name}: {} ({beside}).", rate(measured)));
    }
    if told.is_empty() {
        told.push("No rate yet: a second reading is needed.".to_owned());
    }
    let shape = v.expected.as_ref().map_or(String::new(), |e| {
        format!(
            "; expected for {} in {}, a STATSZ of {}",
            count(u64::from(e.servers), "server"),
            count(u64::from(e.clusters), "cluster"),
            bytes(e.statsz_bytes)
        )
    });
    told.push(format!("Measured by {source}{age}{shape}."));
    if v.shared_with_jetstream {
        told.push(
            "Brownouts are judged by the ceiling alone: give [system] credentials to have events counted apart from JetStream."
                .to_owned(),
        );
    }
    told
}

fn brownouts(all: &[BrownoutView], at: f64, paint: Paint) -> Vec<String> {
    let mut told = Vec::new();
    for b in all.iter().filter(|b| b.on || b.state == "suspect") {
        let hosts = b.hosts.map_or(String::new(), |(n, of)| format!(", {n} of {of} hosts"));
        let since = b
            .since
            .map_or(String::new(), |since| format!(" for {}", span((at - since).max(0.0))));
        let why = match b.reasons.as_slice() {
            [] => String::new(),
            reasons => format!(": {}", reasons.join("; ")),
        };
        let (tone, what) = match (b.on, b.state.as_str()) {
            (true, "ending") => (Tone::Warn, "Brownout, ending"),
            (true, _) => (Tone::Bad, "Brownout"),
            (false, _) => (Tone::Warn, "Suspected brownout"),
        };
        told.push(format!(
            "{} of the {}{since}, score {:.1}{hosts}{why}.",
            paint.text(tone, what),
            b.scope,
            b.score
        ));
        if let Some(end) = &b.ends_when {
            told.push(format!("  It ends when {end}."));
        }
    }
    if told.is_empty() && !all.is_empty() {
        told.push(format!(
            "{} of host, region or fleet.",
            paint.text(Tone::Good, "No brownout")
        ));
    }
    for explanation in all.iter().flat_map(|b| &b.explanations) {
        told.push(format!("Explained: {explanation}."));
    }
    told
}

fn memory(m: &MemoryView, now: Option<u64>, paint: Paint) -> Option<String> {
    let slope = m.slope_bytes_per_second?;
    let growth = format!("{}/min", bytes(slope * 60.0));
    let used = now.map_or(String::new(), |n| format!(" from {}", super::words::bytes(n)));
    let limit = match (m.limit_bytes, &m.limit_source) {
        (Some(limit), source) => format!(
            "{} ({})",
            super::words::bytes(limit),
            source.as_deref().unwrap_or("its limit")
        ),
        (None, _) => return Some(format!("Memory grows by {growth}{used}; its limit is not known.")),
    };
    Some(match m.exhaustion_seconds {
        Some(left) => {
            let tone = if left < 3_600.0 { Tone::Bad } else { Tone::Warn };
            let left = paint.text(tone, &span(left));
            format!("Memory grows by {growth}{used} and reaches {limit} in {left}.")
        }
        None => format!("Memory grows by {growth}{used}; the limit is {limit}."),
    })
}

fn churn(c: &ChurnView, paint: Paint) -> Option<String> {
    let mut told = Vec::new();
    for (kind, per_minute) in c.slow_consumers_per_minute.iter().filter(|(_, n)| **n > 0.0) {
        told.push(format!(
            "{per_minute:.0} new slow consumers ({kind}) in the last minute"
        ));
    }
    let pending = c.pending_bytes.filter(|n| *n > 0);
    told.extend(pending.map(|n| format!("{} queued for routes", bytes(n as f64))));
    (!told.is_empty()).then(|| format!("{}: {}.", paint.text(Tone::Warn, "Under pressure"), told.join("; ")))
}
