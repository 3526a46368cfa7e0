//! Findings on system traffic: brownout by scope, memory, slow consumers.

use super::Limits;
use super::report::{Bound, Figure, Report, State};
use crate::cli::words::span;
use crate::core::rollout::advice::{bytes, number};
use crate::core::view::Snapshot;

/// A host's brownout is its own trouble; one of a region or the fleet is everybody's.
pub(super) fn brownout(report: &mut Report, s: &Snapshot) {
    let v = &s.sys;
    let quiet = v.expected.as_ref().map(|e| (e.received, e.sent));
    let rates = [
        ("sys_received", v.received, quiet.map(|q| q.0)),
        ("sys_sent", v.sent, quiet.map(|q| q.1)),
    ];
    for (name, measured, _) in rates {
        let help = match name {
            "sys_received" => "System traffic into the server, bytes per second.",
            _ => "System traffic out of the server, bytes per second.",
        };
        report
            .figures
            .extend(measured.map(|m| Figure::new(name, m.bytes, "B", help)));
    }
    let on: Vec<_> = s.brownout.iter().filter(|b| b.on).collect();
    if !on.is_empty() {
        let wide = on.iter().any(|b| b.scope != "host");
        let texts: Vec<String> = on
            .iter()
            .map(|b| {
                let since = b
                    .since
                    .map_or(String::new(), |t| format!(" for {}", span((s.at - t).max(0.0))));
                let why = b.reasons.first().map_or(String::new(), |why| format!(" ({why})"));
                format!("brownout of the {}{since}{why}", b.scope)
            })
            .collect();
        let state = if wide { State::Critical } else { State::Warning };
        report.found("brownout", state, texts.join("; "));
        return;
    }
    let measured = rates
        .iter()
        .find_map(|(_, measured, expected)| Some((measured.as_ref()?, expected)));
    let (state, text) = match (&v.source, measured) {
        _ if !s.server.up => (
            State::Ok,
            "no system traffic is measured while the server does not answer".to_owned(),
        ),
        (None, _) => (State::Unknown, "system traffic is not measured".to_owned()),
        (Some(_), None) => (State::Unknown, "system traffic has no rate yet".to_owned()),
        (Some(_), Some((m, _))) if v.shared_with_jetstream => (
            State::Ok,
            format!(
                "no brownout by the ceiling alone, system traffic {}/s in {} messages/s with JetStream's replication in it: \
                 give [system] credentials to have events counted apart",
                bytes(m.bytes),
                number(m.messages)
            ),
        ),
        (Some(_), Some((_, None))) => (State::Unknown, "what system traffic to expect is not known".to_owned()),
        (Some(_), Some((m, Some(e)))) => (
            State::Ok,
            format!(
                "no brownout, system traffic {}/s in {} messages/s, at rest {}/s in {}",
                bytes(m.bytes),
                number(m.messages),
                bytes(e.bytes),
                number(e.messages)
            ),
        ),
    };
    report.found("brownout", state, text);
}

pub(super) fn memory(report: &mut Report, s: &Snapshot, limits: &Limits) {
    let m = &s.sys.memory;
    let Some(left) = m.exhaustion_seconds else {
        let text = match m.slope_bytes_per_second {
            Some(slope) => format!("memory grows by {}/min, to no known limit", bytes(slope * 60.0)),
            None => "memory does not grow steadily".to_owned(),
        };
        report.found("memory", State::Ok, text);
        return;
    };
    let help = "Time until the server's memory reaches its limit at its steady growth.";
    let figure = Figure::new("memory_exhaustion", left, "s", help).limits(
        Bound::Below(limits.memory_warn.as_secs_f64()),
        Bound::Below(limits.memory_critical.as_secs_f64()),
    );
    let limit = m
        .limit_bytes
        .map_or(String::new(), |n| format!(" of {}", crate::cli::words::bytes(n)));
    report.found(
        "memory",
        figure.state(),
        format!("memory reaches its limit{limit} in {}", span(left)),
    );
    report.figures.push(figure);
}

pub(super) fn slow_consumers(report: &mut Report, s: &Snapshot, limits: &Limits) {
    let rates = &s.sys.churn.slow_consumers_per_minute;
    let help = "New slow consumers in the last minute.";
    let figure = Figure::new("slow_per_minute", rates.values().sum(), "", help).limits(
        Bound::Above(f64::from(limits.slow_warn)),
        Bound::Above(f64::from(limits.slow_critical)),
    );
    let kinds: Vec<String> = rates
        .iter()
        .filter(|(_, n)| **n > 0.0)
        .map(|(kind, n)| format!("{n:.0} of kind {kind}"))
        .collect();
    let text = match kinds.as_slice() {
        [] => "no new slow consumer".to_owned(),
        kinds => format!("new slow consumers in a minute: {}", kinds.join(", ")),
    };
    report.found("slow_consumers", figure.state(), text);
    report.figures.push(figure);
}
