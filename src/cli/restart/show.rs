//! What the operator sees: the plan, a bar on a terminal and lines elsewhere, JSON lines for machines, the end.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant, SystemTime};

use comfy_table::Table;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior};

use super::Output;
use super::forecast::Forecast;
use super::go_on::go_on;
use super::live::{self, Screen, View};
use crate::cli::words::Paint;
use crate::core::control::HostStatus;
use crate::core::ids::HostName;
use crate::core::rollout::{Halt, Outcome, Plan, Progress, Step};

/// Between two drawings of the view.
const REDRAW: Duration = Duration::from_millis(250);

/// Where a rollout is shown and where its operator interrupts it.
pub struct Console {
    out: Box<dyn Write + Send>,
    err: Box<dyn Write + Send>,
    argv: Vec<String>,
    output: Output,
    interactive: bool,
    screen: Option<Screen>,
    view: Option<View>,
    paint: Paint,
    began: Instant,
    redraw: Option<Interval>,
    interrupts: Option<mpsc::Receiver<()>>,
    answers: Option<mpsc::Receiver<String>>,
    rollout: String,
    last: String,
}

impl Console {
    /// The process's own terminal and Ctrl-C.
    #[must_use]
    pub fn standard(output: Output) -> Self {
        let interactive = io::stdin().is_terminal() && io::stderr().is_terminal();
        let screen = (output == Output::Table && io::stderr().is_terminal()).then(Screen::new);
        Self {
            out: Box::new(io::stdout()),
            err: Box::new(io::stderr()),
            argv: std::env::args().collect(),
            output,
            interactive,
            screen,
            view: None,
            paint: Paint::new(colour()),
            began: Instant::now(),
            redraw: None,
            interrupts: None,
            answers: None,
            rollout: String::new(),
            last: String::new(),
        }
    }

    /// No terminal: text goes to `out` and `err`, interrupts come from a channel, and `argv` is what was typed.
    #[must_use]
    pub fn detached(
        output: Output,
        out: Box<dyn Write + Send>,
        err: Box<dyn Write + Send>,
        argv: Vec<String>,
        interrupts: mpsc::Receiver<()>,
    ) -> Self {
        Self {
            out,
            err,
            argv,
            output,
            interactive: false,
            screen: None,
            view: None,
            paint: Paint::new(false),
            began: Instant::now(),
            redraw: None,
            interrupts: Some(interrupts),
            answers: None,
            rollout: String::new(),
            last: String::new(),
        }
    }

    /// Somebody can be asked.
    pub(super) fn interactive(&self) -> bool {
        self.interactive
    }

    /// Waits for the operator's wish to stop, then for the wish to leave; keeps the view fresh meanwhile.
    pub(super) async fn interrupted(&mut self) {
        loop {
            let redraw = self.redraw.get_or_insert_with(redraw);
            let answer = tokio::select! {
                Some(()) = next(&mut self.interrupts) => {
                    self.ask();
                    return;
                }
                Some(answer) = next(&mut self.answers) => answer,
                _ = redraw.tick(), if self.screen.is_some() => {
                    self.draw();
                    continue;
                }
                else => std::future::pending().await,
            };
            self.answers = None;
            if let Some(screen) = &self.screen {
                screen.typed();
            }
            if let Some(view) = &mut self.view {
                view.asking = false;
            }
            self.draw();
            if matches!(answer.trim(), "l" | "L" | "leave") {
                return;
            }
        }
    }

    /// The first Ctrl-C: finish the host in work, or leave at once? Finishing is what happens without an answer.
    fn ask(&mut self) {
        if self.screen.is_none() || !self.interactive || self.answers.is_some() {
            return;
        }
        if let Some(screen) = &self.screen {
            // The terminal has echoed `^C` behind the last line, which fills its width.
            screen.typed();
        }
        if let Some(view) = &mut self.view {
            view.asking = true;
        }
        let (send, receive) = mpsc::channel(1);
        self.answers = Some(receive);
        // A thread of its own, which ends with the process: a read of the terminal cannot be called off.
        std::thread::spawn(move || {
            let mut line = String::new();
            if io::stdin().read_line(&mut line).is_ok_and(|n| n > 0) {
                let _ = send.blocking_send(line);
            }
        });
    }

    fn draw(&mut self) {
        if let (Some(screen), Some(view)) = (&mut self.screen, &self.view) {
            screen.draw(&view.lines(self.began.elapsed(), self.paint));
        }
    }

    pub(super) fn error(&mut self, text: &str) {
        // A broken stderr must not change how the command ends.
        let _ = writeln!(self.err, "restart: {text}");
    }

    pub(super) async fn confirm(&mut self, hosts: usize) -> io::Result<bool> {
        write!(self.err, "Restart {}, one at a time? [y/N] ", count(hosts))?;
        self.err.flush()?;
        let line = tokio::task::spawn_blocking(|| {
            let mut line = String::new();
            io::stdin().read_line(&mut line).map(|_| line)
        });
        let line = line.await.map_err(io::Error::other)??;
        Ok(matches!(line.trim(), "y" | "Y" | "yes"))
    }

    pub(super) fn plan(&mut self, plan: &Plan, forecast: &Forecast) -> io::Result<()> {
        let stagger = forecast.stagger;
        self.view = Some(View::new(live::waves(plan), stagger));
        if self.output == Output::Json {
            let hosts: Vec<Value> = plan
                .order
                .iter()
                .map(|p| {
                    json!({"host": p.host, "region": p.region, "cluster": p.cluster, "wave": p.wave,
                        "version": p.version, "clients": p.clients, "jetstream": p.jetstream,
                        "stream_leaders": p.leaders, "meta_leader": p.meta_leader, "steps_down": p.steps_down,
                        "allowance_seconds": p.allowance.as_secs_f64()})
                })
                .collect();
            return self.json(json!({"event": "plan", "hosts": hosts, "watched": plan.others,
                "silent": plan.silent, "stagger_seconds": stagger.as_secs_f64(),
                "stagger_auto": forecast.auto, "why": forecast.lines().join(" "), "cost": forecast.json()}));
        }
        let mut table = Table::new();
        table.load_preset(comfy_table::presets::NOTHING);
        table.set_header(["#", "WAVE", "HOST", "REGION", "CLUSTER", "VERSION", "CLIENTS"]);
        for (i, p) in plan.order.iter().enumerate() {
            let clients = p.clients.map_or_else(|| "?".to_owned(), |c| c.to_string());
            table.add_row([
                (i + 1).to_string(),
                p.wave.to_string(),
                p.host.to_string(),
                p.region.to_string(),
                p.cluster.clone(),
                p.version.clone(),
                clients,
            ]);
        }
        for line in table.to_string().lines() {
            writeln!(self.out, "{}", line.trim_end())?;
        }
        let gaps = u32::try_from(plan.order.len().saturating_sub(1)).unwrap_or(u32::MAX);
        writeln!(
            self.out,
            "{} one at a time, the first as canary; {} of stagger in all, the restarts and proofs come on top.",
            count(plan.order.len()),
            humantime::format_duration(stagger.saturating_mul(gaps)),
        )?;
        for line in forecast.lines() {
            writeln!(self.out, "{line}")?;
        }
        for p in plan.order.iter().filter(|p| p.meta_leader) {
            let how = match p.steps_down {
                true => "it steps down first",
                false => {
                    "its agent has no credentials of the system account ([system]) to have it step down first, so it hands over when it is stopped"
                }
            };
            writeln!(
                self.out,
                "{} leads the meta group of JetStream and goes last; {how}.",
                p.host
            )?;
        }
        if !plan.silent.is_empty() {
            writeln!(
                self.out,
                "Heard, but not answering on control, so watched by their beacons only: {}.",
                list(&plan.silent)
            )?;
        }
        Ok(())
    }

    pub(super) fn begin(&mut self, rollout: &str, hosts: usize) -> io::Result<()> {
        rollout.clone_into(&mut self.rollout);
        if self.interrupts.is_none() {
            self.interrupts = Some(signals()?);
        }
        self.began = Instant::now();
        if let Some(view) = &mut self.view {
            view.begin(rollout);
        }
        if self.output == Output::Json {
            return self.json(json!({"event": "begin", "hosts": hosts}));
        }
        self.draw();
        Ok(())
    }

    pub(super) fn progress(&mut self, progress: &Progress) -> io::Result<()> {
        if self.output == Output::Json {
            return self.json(progress_json(progress));
        }
        if let Some(view) = &mut self.view {
            view.on(progress, self.began.elapsed());
        }
        let text = sentence(progress);
        if let Some(screen) = &self.screen {
            if matches!(progress, Progress::Proved { .. }) {
                screen.say(&text);
            }
            self.draw();
        } else if self.last != text {
            let at = humantime::format_rfc3339_seconds(SystemTime::now());
            writeln!(self.out, "{at} {text}")?;
            self.out.flush()?;
            self.last = text;
        }
        Ok(())
    }

    pub(super) fn outcome(&mut self, outcome: &Outcome) -> io::Result<()> {
        if let Some(mut screen) = self.screen.take() {
            screen.clear();
        }
        let go_on = match outcome {
            Outcome::Halted(halt) if !halt.untouched() => Some(go_on(&self.argv, &self.rollout)),
            _ => None,
        };
        if self.output == Output::Json {
            self.json(outcome_json(outcome, go_on.as_deref()))?;
        }
        match outcome {
            Outcome::Done(_) if self.output == Output::Json => Ok(()),
            Outcome::Done(hosts) => {
                writeln!(self.out, "{} restarted and proved.", count(hosts.len()))
            }
            Outcome::Halted(halt) => {
                let text = ending(halt, go_on.as_deref());
                writeln!(self.err, "{text}")
            }
        }
    }

    fn json(&mut self, mut value: Value) -> io::Result<()> {
        if let Some(object) = value.as_object_mut() {
            let at = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
            object.insert("at".to_owned(), at.into());
            if !self.rollout.is_empty() {
                object.insert("rollout".to_owned(), self.rollout.clone().into());
            }
        }
        writeln!(self.out, "{value}")?;
        self.out.flush()
    }
}

/// SIGINT and SIGTERM, from now on. One listener for the whole rollout, so that none is lost between two waits.
fn signals() -> io::Result<mpsc::Receiver<()>> {
    let (send, receive) = mpsc::channel(4);
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if send.send(()).await.is_err() {
                return;
            }
        }
    });
    Ok(receive)
}

/// Of a channel that may not be there, or has ended.
async fn next<T>(channel: &mut Option<mpsc::Receiver<T>>) -> Option<T> {
    match channel {
        Some(channel) => channel.recv().await,
        None => None,
    }
}

fn redraw() -> Interval {
    let mut every = tokio::time::interval(REDRAW);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    every
}

/// The view is drawn on stderr: colour follows from that one.
fn colour() -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    io::stderr().is_terminal() && !set("NO_COLOR") && !dumb
}

fn count(hosts: usize) -> String {
    match hosts {
        1 => "1 host".to_owned(),
        n => format!("{n} hosts"),
    }
}

fn list(hosts: &[HostName]) -> String {
    let names: Vec<&str> = hosts.iter().map(HostName::as_str).collect();
    names.join(", ")
}

/// Whole seconds; a proof is not measured finer.
fn rounded(d: Duration) -> String {
    humantime::format_duration(Duration::from_secs(d.as_secs())).to_string()
}

fn sentence(progress: &Progress) -> String {
    match progress {
        Progress::Held { host, gate } => format!("{host}: held: {gate}"),
        Progress::Sending { host } => format!("{host}: all well, sending the command"),
        Progress::Accepted { host } => format!("{host}: accepted, restarting"),
        Progress::Started { host, after, version } => {
            format!("{host}: new server ({version}) answers after {}", rounded(*after))
        }
        Progress::Read {
            host,
            good,
            of,
            lacking,
            values,
        } if lacking.is_empty() => format!("{host}: good read {good} of {of}: {}", live::proof(values)),
        Progress::Read { host, lacking, .. } => {
            format!("{host}: not yet: {}", lacking.join("; "))
        }
        Progress::Proved { host, after, done, of } => {
            format!("{host}: proved after {} ({done} of {of})", rounded(*after))
        }
        Progress::Wave { wave, of, hosts } => format!("wave {wave} of {of}: {}", count(*hosts)),
        Progress::Doing { host, what } => format!("{host}: {what}"),
        Progress::Staggering { next, gap } => {
            format!("{next}: next in {}", humantime::format_duration(*gap))
        }
        Progress::Stopping { after } => {
            format!("{after}: finishing its proof, then stopping; Ctrl-C again to leave now")
        }
    }
}

fn progress_json(progress: &Progress) -> Value {
    match progress {
        Progress::Held { host, gate } => {
            json!({"event": "held", "host": host, "text": gate.to_string()})
        }
        Progress::Sending { host } => json!({"event": "sending", "host": host}),
        Progress::Accepted { host } => json!({"event": "accepted", "host": host}),
        Progress::Started { host, after, version } => json!({"event": "started", "host": host,
            "after_seconds": after.as_secs_f64(), "version": version}),
        Progress::Read {
            host,
            good,
            of,
            lacking,
            values,
        } => json!({"event": "read", "host": host, "good": good, "of": of, "lacking": lacking, "values": values}),
        Progress::Proved { host, after, done, of } => json!({"event": "proved", "host": host,
            "after_seconds": after.as_secs_f64(), "done": done, "of": of}),
        Progress::Wave { wave, of, hosts } => {
            json!({"event": "wave", "wave": wave, "of": of, "hosts": hosts})
        }
        Progress::Doing { host, what } => json!({"event": "doing", "host": host, "what": what}),
        Progress::Staggering { next, gap } => {
            json!({"event": "staggering", "host": next, "gap_seconds": gap.as_secs_f64()})
        }
        Progress::Stopping { after } => json!({"event": "stopping", "host": after}),
    }
}

fn outcome_json(outcome: &Outcome, go_on: Option<&str>) -> Value {
    match outcome {
        Outcome::Done(hosts) => json!({"event": "outcome", "outcome": "done", "done": hosts}),
        Outcome::Halted(halt) => json!({
            "event": "outcome",
            "outcome": if halt.refused_at_once() { "refused" } else { "halted" },
            "host": halt.host, "step": halt.step, "touched": halt.touched,
            "reason": halt.reason.to_string(), "done": halt.done, "also_in_work": halt.also,
            "remaining": halt.remaining, "state": halt.state, "go_on": go_on,
        }),
    }
}

/// The last words after a halt or a refusal.
fn ending(halt: &Halt, go_on: Option<&str>) -> String {
    let host = halt.host.as_ref().map_or("?", HostName::as_str);
    let mut lines = Vec::new();
    if halt.untouched() {
        let how = if halt.refused_at_once() { "refused" } else { "stopped" };
        lines.push(format!(
            "restart: {how} at {host}, nothing was restarted: {}",
            halt.reason
        ));
        return lines.join("\n");
    }
    let step = match halt.step {
        Step::Checking => "before its restart",
        Step::Sending => "while the command was sent",
        Step::Restarting => "while it restarted",
        Step::Proving => "during its proof",
        Step::Staggering => "before its turn",
    };
    lines.push(format!("restart: halted at {host}, {step}: {}", halt.reason));
    if !halt.done.is_empty() {
        lines.push(format!("  restarted and proved: {}", list(&halt.done)));
    }
    if halt.touched {
        lines.push(format!(
            "  in work, not proved:  {host}: {}",
            state(halt.state.as_ref())
        ));
    }
    if !halt.also.is_empty() {
        lines.push(format!("  in work too:          {}", list(&halt.also)));
    }
    if !halt.remaining.is_empty() {
        lines.push(format!("  not touched:          {}", list(&halt.remaining)));
    }
    if let Some(command) = go_on {
        if halt.touched {
            lines.push(format!(
                "See to {host} first (`watchdog status` there, and its server's log): while it is not well, nothing else is restarted. Then go on with:"
            ));
        } else {
            lines.push("Go on with:".to_owned());
        }
        lines.push(format!("  {command}"));
    }
    lines.join("\n")
}

fn state(status: Option<&HostStatus>) -> String {
    let Some(s) = status else {
        return "its agent gave no status".to_owned();
    };
    let server = match (s.up, s.healthy) {
        (false, _) => "server down",
        (true, Some(true)) => "server up and healthy",
        (true, Some(false)) => "server up, not healthy",
        (true, None) => "server up, health unknown",
    };
    let mut text = format!("last status: {server}");
    if !s.server_id.is_empty() {
        text.push_str(&format!(", server id {}", s.server_id));
    }
    if let Some(peers) = s.peers {
        text.push_str(&format!(", {peers} peers"));
    }
    if !s.health_detail.is_empty() {
        text.push_str(&format!(" ({})", s.health_detail));
    }
    if let Some(last) = &s.last_command {
        text.push_str(&format!(", last command: {:?} {}", last.state, last.detail));
    }
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::rollout::Reason;

    fn halt(touched: bool, done: &[&str]) -> Halt {
        let names = |names: &[&str]| names.iter().map(|n| HostName::new(n).unwrap()).collect();
        Halt {
            host: Some(HostName::new("iad-2").unwrap()),
            step: Step::Restarting,
            touched,
            reason: Reason::NoNewServer {
                after: Duration::from_secs(120),
            },
            done: names(done),
            also: Vec::new(),
            remaining: names(&["iad-3", "iad-4"]),
            state: None,
        }
    }

    #[test]
    fn a_halt_says_what_is_done_what_is_not_and_how_to_go_on() {
        insta::assert_snapshot!(
            ending(&halt(true, &["iad-1"]), Some("watchdog restart --host iad-3 --host iad-4")),
            @r"
        restart: halted at iad-2, while it restarted: no new server answered within 120s
          restarted and proved: iad-1
          in work, not proved:  iad-2: its agent gave no status
          not touched:          iad-3, iad-4
        See to iad-2 first (`watchdog status` there, and its server's log): while it is not well, nothing else is restarted. Then go on with:
          watchdog restart --host iad-3 --host iad-4
        "
        );
    }

    #[test]
    fn a_refusal_at_once_says_that_nothing_was_done() {
        let text = ending(&halt(false, &[]), None);
        assert!(text.contains("nothing was restarted"), "{text}");
    }
}
