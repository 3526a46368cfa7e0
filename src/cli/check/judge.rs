//! From an agent's state to findings. Pure. What is not known is UNKNOWN and never OK.

use super::report::{Bound, Figure, Report, State};
use super::{Limits, Scope, storm};
use crate::cli::words::{count, span};
use crate::core::canary::beacon::Health;
use crate::core::view::{FaultView, Snapshot};

/// Judges `s`.
pub(super) fn judge(s: &Snapshot, limits: &Limits, scope: Scope) -> Report {
    let mut report = Report {
        name: s.agent.host.to_string(),
        findings: Vec::new(),
        figures: Vec::new(),
    };
    agent(&mut report, s, limits);
    server(&mut report, s);
    links(&mut report, s);
    canaries(&mut report, s, limits);
    faults(&mut report, s, scope);
    storm::brownout(&mut report, s);
    storm::memory(&mut report, s, limits);
    storm::slow_consumers(&mut report, s, limits);
    data(&mut report, s, limits);
    report
}

fn agent(report: &mut Report, s: &Snapshot, limits: &Limits) {
    let a = &s.agent;
    let (mut state, word) = match a.health {
        Health::Ok => (State::Ok, "well, but"),
        Health::Warming => (State::Unknown, "warming up, it judges nobody yet"),
        Health::Sick => (State::Warning, "not well, it says nothing about others"),
        Health::Restarting => (State::Warning, "restarting its server"),
        Health::LameDuck => (State::Warning, "beside a lame duck"),
    };
    let mut more = a.health_reasons.clone();
    let lag = Figure::new(
        "loop_lag",
        a.loop_lag_seconds,
        "s",
        "How late the agent's last tick was.",
    );
    let loops = a.self_loop_seconds.map(|seconds| {
        Figure::new(
            "self_loop",
            seconds,
            "s",
            "How long the agent's own beacon took through its own server.",
        )
    });
    let bounds = (limits.lag_warn.as_secs_f64(), limits.lag_critical.as_secs_f64());
    for figure in [Some(lag), loops].into_iter().flatten() {
        let figure = figure.limits(Bound::Above(bounds.0), Bound::Above(bounds.1));
        if figure.state() != State::Ok {
            more.push(format!("{} {}", figure.name.replace('_', " "), span(figure.value)));
        }
        state = state.worse(figure.state());
        report.figures.push(figure);
    }
    if let Some(error) = &a.state_error {
        state = state.worse(State::Warning);
        more.push(format!("nothing is kept on disk: {error}"));
    }
    if s.remediation.ledger_damaged {
        state = state.worse(State::Warning);
        more.push("what was done here before cannot be read, see `watchdog status`".to_owned());
    }
    for lane in s.lanes.iter().filter(|lane| !lane.connected && s.server.up) {
        state = state.worse(State::Warning);
        let error = lane.error.as_deref().unwrap_or("no error was told");
        more.push(format!("lane {} not connected: {error}", lane.lane));
    }
    let text = match more.as_slice() {
        [] => format!("agent {}", word.trim_end_matches(", but")),
        more => format!("agent {word}: {}", more.join("; ")),
    };
    report.found("agent", state, text);
}

fn server(report: &mut Report, s: &Snapshot) {
    let v = &s.server;
    let name = if v.name.is_empty() { "server" } else { &v.name };
    let detail = match (v.health_detail.as_str(), &v.error) {
        ("", Some(error)) if !v.up => format!(": {error}"),
        ("", _) => String::new(),
        (detail, _) => format!(": {detail}"),
    };
    let (state, word) = match (v.up, v.lame_duck, v.healthy) {
        (false, ..) if v.error.is_none() => (State::Unknown, "not looked at yet"),
        (false, ..) => (State::Critical, "does not answer"),
        (true, true, _) => (State::Warning, "is a lame duck"),
        (true, false, Some(true)) => (State::Ok, "healthy"),
        (true, false, Some(false)) => (State::Critical, "not healthy"),
        (true, false, None) => (State::Unknown, "has not told its health"),
    };
    report.found("server", state, format!("{name} {word}{detail}"));
    let figures = [
        ("clients", v.connections, "", "Client connections of the server."),
        ("memory", v.memory_bytes, "B", "Resident memory of the server."),
    ];
    for (name, value, unit, help) in figures {
        report
            .figures
            .extend(value.map(|value| Figure::new(name, value as f64, unit, help)));
    }
    let slow = v.slow_consumers.get("all").copied();
    let slow = slow.unwrap_or_else(|| v.slow_consumers.values().sum());
    if v.up {
        let help = "Slow consumers of the server since its start.";
        report
            .figures
            .push(Figure::new("slow_consumers", slow as f64, "c", help));
    }
}

fn links(report: &mut Report, s: &Snapshot) {
    let v = &s.server;
    let mut state = State::Ok;
    let mut texts = Vec::new();
    let kinds = [
        ("peers", v.peers_connected, v.peers_expected, &v.peers_missing),
        (
            "gateways",
            v.gateways_connected,
            v.gateways_expected,
            &v.gateways_missing,
        ),
    ];
    for (kind, connected, expected, missing) in kinds {
        let Some(connected) = connected else {
            // A server that is down has no links to know of; that it is down is said elsewhere.
            if v.up && expected > 0 {
                state = state.worse(State::Unknown);
                texts.push(format!("{kind} not known"));
            }
            continue;
        };
        let (help, bound) = match kind {
            "peers" => ("Peers that the server has a route to.", Bound::Below(expected as f64)),
            _ => (
                "Remote clusters that the server has an outbound gateway to.",
                Bound::Below(expected as f64),
            ),
        };
        let mut figure = Figure::new(kind, connected as f64, "", help);
        figure.warn = Some(bound);
        let mut text = format!("{connected} of {expected} {kind}");
        if !missing.is_empty() {
            text = format!("{text}, missing {}", missing.join(", "));
            state = state.worse(State::Warning);
        }
        state = state.worse(figure.state());
        if expected > 0 || connected > 0 {
            texts.push(text);
        }
        report.figures.push(figure);
    }
    let text = match texts.as_slice() {
        [] if v.up => "no other server is known".to_owned(),
        [] => "no links while the server is down".to_owned(),
        texts => texts.join("; "),
    };
    report.found("links", state, text);
}

fn canaries(report: &mut Report, s: &Snapshot, limits: &Limits) {
    let paths = |state: &str| {
        let regions = s.regions.iter();
        regions.map(|r| r.paths.get(state).copied().unwrap_or(0)).sum::<u64>()
    };
    let (stalled, late, ok) = (paths("stalled"), paths("late"), paths("ok"));
    let judged = stalled + late + ok;
    if judged == 0 {
        let (state, text) = match (paths("warming"), s.agent.roster) {
            (_, 0 | 1) => (State::Ok, "no other host is known"),
            (0, _) => (State::Unknown, "no path has been judged"),
            _ => (State::Unknown, "paths are warming up, none is judged yet"),
        };
        report.found("canaries", state, text);
        return;
    }
    let share = 100.0 * stalled as f64 / judged as f64;
    let figure = Figure::new(
        "stalled",
        share,
        "%",
        "Share of the paths to this host that pass nothing.",
    )
    .limits(Bound::Above(limits.stalled_warn), Bound::Above(limits.stalled_critical));
    let total = count(judged, "path");
    let text = match (stalled, late) {
        (0, 0) => format!("{total} fine"),
        (0, late) => format!("{total}, {late} late"),
        (stalled, _) => {
            let from: Vec<String> = s
                .regions
                .iter()
                .filter_map(|r| r.paths.get("stalled").filter(|n| **n > 0).map(|n| (r, n)))
                .map(|(r, n)| format!("{n} from {} on {}", r.region, r.lane))
                .collect();
            format!("{stalled} of {total} stalled: {}", from.join(", "))
        }
    };
    report.found("canaries", figure.state(), text);
    report.figures.push(figure);
    let (lost, received) = s
        .regions
        .iter()
        .fold((0, 0), |(lost, received), r| (lost + r.lost, received + r.received));
    let counters = [
        ("received", received, "Beacons received."),
        ("lost", lost, "Beacons lost by gaps in their sequence."),
    ];
    report
        .figures
        .extend(counters.map(|(name, value, help)| Figure::new(name, value as f64, "c", help)));
}

fn faults(report: &mut Report, s: &Snapshot, scope: Scope) {
    let host = s.agent.host.as_str();
    let ours = |f: &&FaultView| f.from.as_str() == host || f.to.as_deref() == Some(host);
    let (counted, elsewhere): (Vec<&FaultView>, Vec<&FaultView>) =
        s.faults.iter().partition(|f| scope == Scope::Fleet || ours(f));
    let help = "Faults that count for this check.";
    let figure = Figure::new("faults", counted.len() as f64, "", help);
    report.figures.push(Figure {
        warn: Some(Bound::Above(0.0)),
        ..figure
    });
    let aside = match elsewhere.len() {
        0 => String::new(),
        n => format!(", {} elsewhere", count(n as u64, "fault")),
    };
    if counted.is_empty() {
        report.found("faults", State::Ok, format!("no fault{}{aside}", here(scope)));
        return;
    }
    let lost = counted.iter().any(|f| f.remedy.starts_with("gave up"));
    let state = if lost { State::Critical } else { State::Warning };
    let texts: Vec<String> = counted
        .iter()
        .take(5)
        .map(|f| format!("{} for {} ({})", f.id, span((s.at - f.since).max(0.0)), f.remedy))
        .collect();
    let more = match counted.len().saturating_sub(texts.len()) {
        0 => String::new(),
        n => format!(" and {n} more"),
    };
    report.found("faults", state, format!("{}{more}{aside}", texts.join("; ")));
}

fn here(scope: Scope) -> &'static str {
    match scope {
        Scope::Host => " here",
        Scope::Fleet => "",
    }
}

fn data(report: &mut Report, s: &Snapshot, limits: &Limits) {
    let ages = &s.server.age_seconds;
    let never: Vec<&str> = ages
        .iter()
        .filter(|(_, a)| a.is_none())
        .map(|(e, _)| e.as_str())
        .collect();
    let oldest = ages
        .iter()
        .filter_map(|(e, age)| age.map(|age| (e, age)))
        .max_by(|a, b| a.1.total_cmp(&b.1));
    let figure = oldest.map(|(_, age)| {
        Figure::new("data_age", age, "s", "Age of the oldest reading of the server.").limits(
            Bound::Above(limits.age_warn.as_secs_f64()),
            Bound::Above(limits.age_critical.as_secs_f64()),
        )
    });
    let (state, text) = match (&figure, oldest) {
        // Nothing can be fresh; the server's own finding says why.
        _ if !s.server.up => (State::Ok, "no readings while the server does not answer".to_owned()),
        (Some(figure), Some((endpoint, age))) if never.is_empty() => {
            (figure.state(), format!("oldest reading {endpoint}, {} old", span(age)))
        }
        _ if ages.is_empty() => (State::Unknown, "the server has never been read".to_owned()),
        _ => (State::Unknown, format!("never read: {}", never.join(", "))),
    };
    report.found("data", state, text);
    report.figures.extend(figure);
}
