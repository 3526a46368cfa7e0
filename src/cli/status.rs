//! `watchdog status`: this host as its agent sees it, in sentences.

use clap::Args;

use super::output::{self, Format, Output};
use super::words::{Paint, Tone, bytes, count, line, maybe, span, time};
use super::{Exit, Failure, api, status_permits, status_sys};
use crate::core::canary::beacon::Health;
use crate::core::view::{FaultView, HistogramView, ProbeView, RegionView, RemediationView, ServerView, Snapshot};

/// This host as its agent sees it: server, canaries per region, faults, system traffic, what automation may do and what blocks it
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  watchdog status
  watchdog status --output json | jq .faults

Exit codes:
  0  done, whatever the status is
  1  the agent could not be read
  2  usage")]
pub(super) struct Status {
    #[command(flatten)]
    agent: api::Agent,
    #[command(flatten)]
    output: Output,
}

impl Status {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let value = self.agent.get("/api/v1/status")?;
        match self.output.output {
            Format::Json => output::print_json(&value)?,
            Format::Text => {
                let snapshot: Snapshot = api::typed(value, &["history", "sources"])?;
                output::print(&render(&snapshot, output::paint()))?;
            }
        }
        Ok(Exit::Done)
    }
}

pub(super) fn render(s: &Snapshot, paint: Paint) -> String {
    let mut sections = vec![agent(s, paint), server(&s.server, s.at, paint)];
    sections.push(canaries(&s.regions, &s.probes, paint));
    sections.push(faults(&s.faults, s.at, paint));
    sections.push(status_sys::system(s, paint));
    sections.push(status_permits::permits(&s.permits, s.at, paint));
    sections.push(automation(&s.remediation, &status_permits::standing(s), s.at, paint));
    sections.join("\n")
}

fn agent(s: &Snapshot, paint: Paint) -> String {
    let a = &s.agent;
    let (tone, word) = match a.health {
        Health::Ok => (Tone::Good, "well"),
        Health::Warming => (Tone::Warn, "warming up: it judges nobody yet"),
        Health::Sick => (Tone::Bad, "not well: it says nothing about others"),
        Health::Restarting => (Tone::Warn, "restarting its server"),
        Health::LameDuck => (Tone::Warn, "beside a lame duck"),
    };
    let title = paint.heading(&format!("Host {} in {}", a.host, a.region));
    let mut text = format!("{title}\n");
    let state = paint.text(tone, word);
    let up = span(a.uptime_seconds);
    line(&mut text, &format!("The agent ({}, up {up}) is {state}.", a.version));
    for reason in &a.health_reasons {
        line(&mut text, &format!("- {reason}"));
    }
    let own = match a.self_loop_seconds {
        Some(seconds) => format!("its own beacon came back in {}", span(seconds)),
        None => paint.text(Tone::Bad, "its own beacon has not come back"),
    };
    let hosts = count(a.roster as u64, "host");
    let interval = span(a.interval_seconds);
    line(
        &mut text,
        &format!("It knows {hosts}, sends a beacon every {interval}; {own}."),
    );
    for lane in s.lanes.iter().filter(|lane| !lane.connected) {
        let error = lane.error.as_deref().unwrap_or("no error was told");
        let gone = paint.text(Tone::Bad, "not connected");
        line(&mut text, &format!("Lane {} is {gone}: {error}.", lane.lane));
    }
    if let Some(error) = &a.state_error {
        line(&mut text, &format!("Nothing is kept on disk: {error}."));
    }
    text
}

fn server(v: &ServerView, at: f64, paint: Paint) -> String {
    let mut text = paint.heading("Server") + "\n";
    if !v.up {
        let error = v.error.as_deref().unwrap_or("no answer yet");
        let down = paint.text(Tone::Bad, "does not answer");
        line(&mut text, &format!("The monitoring port {down}: {error}."));
    }
    if v.id.is_empty() {
        return text;
    }
    let state = match (v.lame_duck, v.healthy) {
        _ if !v.up => paint.text(Tone::Bad, "was there before"),
        (true, _) => paint.text(Tone::Warn, "is a lame duck"),
        (false, Some(true)) => paint.text(Tone::Good, "is healthy"),
        (false, Some(false)) => paint.text(Tone::Bad, "is not healthy"),
        (false, None) => paint.text(Tone::Warn, "has not told its health"),
    };
    let detail = match v.health_detail.as_str() {
        "" => String::new(),
        detail => format!(": {detail}"),
    };
    let up = v
        .start
        .map_or(String::new(), |start| format!(", up {}", span(at - start)));
    let cluster = match v.cluster.as_str() {
        "" => "no cluster".to_owned(),
        cluster => format!("cluster {cluster}"),
    };
    line(
        &mut text,
        &format!("{} ({}, {cluster}{up}) {state}{detail}.", v.name, v.version),
    );
    let mut figures = Vec::new();
    figures.extend(v.connections.map(|n| count(n, "client")));
    figures.extend(v.memory_bytes.map(bytes));
    let slow: u64 = v
        .slow_consumers
        .get("all")
        .copied()
        .unwrap_or_else(|| v.slow_consumers.values().sum());
    figures.push(count(slow, "slow consumer"));
    line(&mut text, &format!("{}.", figures.join(", ")));
    let peers = (v.peers_connected, v.peers_expected, &v.peers_missing);
    line(&mut text, &links("Routes", "server", peers, paint));
    let gateways = (v.gateways_connected, v.gateways_expected, &v.gateways_missing);
    if v.gateways_expected > 0 || v.gateways_connected.is_some_and(|n| n > 0) {
        line(&mut text, &links("Gateways", "cluster", gateways, paint));
    }
    for advice in &v.advice {
        line(&mut text, &format!("Advice: {advice}"));
    }
    text
}

/// `Routes to 2 of 3 other servers; missing: iad-3.`
fn links(
    kind: &str,
    what: &str,
    (connected, expected, missing): (Option<usize>, usize, &Vec<String>),
    paint: Paint,
) -> String {
    let Some(connected) = connected else {
        return format!("{kind}: not known yet.");
    };
    let others = count(expected as u64, &format!("other {what}"));
    let all = format!("{kind} to {connected} of {others}");
    match missing.as_slice() {
        [] => format!("{all}."),
        missing => format!("{all}; {}: {}.", paint.text(Tone::Bad, "missing"), missing.join(", ")),
    }
}

fn canaries(regions: &[RegionView], probes: &[ProbeView], paint: Paint) -> String {
    let mut text = paint.heading("Canaries heard, by region") + "\n";
    if regions.is_empty() {
        line(&mut text, "None yet.");
        return text;
    }
    let rows = regions.iter().map(|region| {
        let paths = |state: &str| region.paths.get(state).copied().unwrap_or(0);
        let mut words = Vec::new();
        for (state, name) in [
            ("ok", "fine"),
            ("late", "late"),
            ("stalled", "stalled"),
            ("warming", "warming up"),
            ("departed", "left"),
        ] {
            if paths(state) > 0 {
                words.push(format!("{} {name}", paths(state)));
            }
        }
        let tone = match (paths("stalled"), paths("late")) {
            (0, 0) => Tone::Good,
            (0, _) => Tone::Warn,
            _ => Tone::Bad,
        };
        let worst = match &region.worst {
            Some(host) => format!("{} ({host})", span(region.age_seconds)),
            None => "-".into(),
        };
        let probe = probes
            .iter()
            .find(|p| p.region == region.region && p.lane == region.lane);
        let failed: u64 = probe.map_or(0, |probe| probe.failures.values().sum());
        let one_way = match region.skewed {
            true => "clocks differ".into(),
            false => maybe(mean(&region.one_way)),
        };
        let lost = if region.lost > 0 { Tone::Warn } else { Tone::Plain };
        vec![
            (Tone::Plain, region.region.to_string()),
            (Tone::Plain, region.lane.to_string()),
            (tone, if words.is_empty() { "-".into() } else { words.join(", ") }),
            (Tone::Plain, worst),
            (lost, region.lost.to_string()),
            (Tone::Plain, region.late.to_string()),
            (Tone::Plain, one_way),
            (Tone::Plain, maybe(probe.and_then(|probe| probe.last_seconds))),
            (if failed > 0 { Tone::Warn } else { Tone::Plain }, failed.to_string()),
        ]
    });
    let header = [
        "region",
        "lane",
        "paths",
        "oldest",
        "lost",
        "late",
        "one way",
        "RTT",
        "failed probes",
    ];
    text + &paint.table(&header, rows.collect())
}

fn mean(histogram: &HistogramView) -> Option<f64> {
    let count: u64 = histogram.counts.iter().sum();
    let count = u32::try_from(count).ok().filter(|count| *count > 0)?;
    Some(histogram.sum / f64::from(count))
}

fn faults(faults: &[FaultView], at: f64, paint: Paint) -> String {
    let mut text = paint.heading("Faults") + "\n";
    if faults.is_empty() {
        line(&mut text, &format!("{}.", paint.text(Tone::Good, "None")));
    }
    for fault in faults {
        let since = span(at - fault.since);
        let lanes: Vec<_> = fault.lanes.iter().map(ToString::to_string).collect();
        let lanes = match lanes.is_empty() {
            true => String::new(),
            false => format!(", lane {}", lanes.join(", ")),
        };
        let id = paint.text(Tone::Bad, &fault.id);
        line(&mut text, &format!("{id} for {since}{lanes}: {}", fault.evidence));
        let network = match fault.network_ok {
            Some(true) => "The network is fine, NATS is stalled.",
            Some(false) => "The network or the server is down: a remedy here heals nothing.",
            None => "The network has not been checked.",
        };
        line(&mut text, &format!("  {network} Now: {}.", fault.remedy));
    }
    text
}

fn automation(r: &RemediationView, standing: &[String], at: f64, paint: Paint) -> String {
    let mut text = paint.heading("Automation") + "\n";
    let may = match r.mode.as_str() {
        "observe" => "it touches nothing and says what it would do",
        "reset" => "it may destroy stalled sockets and never restarts the server",
        "restart" => "it may destroy stalled sockets and restart the local server",
        _ => "this command does not know that mode",
    };
    line(&mut text, &format!("Mode {}: {may}.", r.mode));
    if let Some(why) = &r.reset_unavailable {
        line(
            &mut text,
            &format!("{} here: {why}.", paint.text(Tone::Warn, "Resets are not possible")),
        );
    }
    if r.restart_in_progress {
        line(
            &mut text,
            &format!("{} now.", paint.text(Tone::Warn, "It is restarting the server")),
        );
    }
    if let Some(open) = &r.rollout {
        let state = match &open.halted {
            None => "is open".to_owned(),
            Some(why) => format!("has halted ({why})"),
        };
        let (id, by, proved, hosts) = (&open.id, &open.by, open.proved, open.hosts);
        let rollout = paint.text(Tone::Warn, "A rollout");
        line(
            &mut text,
            &format!("{rollout} {state}: {id} by {by}, {proved} of {hosts} hosts proved."),
        );
    }
    if r.blocking.is_empty() && standing.is_empty() {
        line(&mut text, "Nothing is held back.");
    }
    for gate in standing.iter().chain(&r.blocking) {
        line(&mut text, &format!("{}: {gate}", paint.text(Tone::Warn, "Held back")));
    }
    let last = match (r.last_restart, &r.last_restart_reason) {
        (None, _) => "it has made none".to_owned(),
        (Some(when), reason) => {
            let reason = reason.as_deref().unwrap_or("no reason kept");
            format!("the last was at {}, {} ago ({reason})", time(when), span(at - when))
        }
    };
    line(&mut text, &format!("Restarts left now: {}; {last}.", r.restarts_left));
    for action in &r.actions {
        let outcome = match action.outcome.as_str() {
            "would" => "would have been made".into(),
            other => other.replace('_', " "),
        };
        let times = count(action.count, "time");
        line(
            &mut text,
            &format!("{} for {}: {outcome}, {times}.", action.action, action.reason),
        );
    }
    text
}
