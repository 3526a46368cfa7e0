//! The live view of a rollout: waves, the hosts in work and their steps, what the proof has seen, the time left.
//!
//! [`View`] is pure: it is told what happened and when, and gives lines. [`Screen`] keeps them in place on a terminal.

use std::collections::BTreeSet;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::cli::words::{Paint, Tone};
use crate::core::ids::HostName;
use crate::core::rollout::report::Values;
use crate::core::rollout::{Plan, Progress};

/// Waves with a line of their own; what is behind or far ahead is summed up.
const WAVES: usize = 4;
/// Hosts in work with lines of their own.
const IN_WORK: usize = 4;
/// Cells of the bar.
const BAR: usize = 30;

/// A wave of the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wave {
    /// From 1, as the plan has it: after a halt the first may be behind.
    pub(super) number: usize,
    pub(super) name: String,
    pub(super) hosts: Vec<HostName>,
}

/// The waves of a plan, in order.
pub(super) fn waves(plan: &Plan) -> Vec<Wave> {
    let mut waves: Vec<Wave> = Vec::new();
    for wave in plan.order.chunk_by(|a, b| a.wave == b.wave) {
        let Some(first) = wave.first() else { continue };
        let name = match wave {
            [canary] if canary.wave == 1 => format!("canary {}", canary.host),
            _ if wave.iter().all(|p| p.region == first.region) => first.region.to_string(),
            _ => "several regions".to_owned(),
        };
        waves.push(Wave {
            number: first.wave,
            name,
            hosts: wave.iter().map(|p| p.host.clone()).collect(),
        });
    }
    waves
}

#[derive(Debug, Clone)]
struct Work {
    host: HostName,
    step: String,
    since: Duration,
    reads: Option<(u32, u32)>,
    values: Option<Values>,
    lacking: Vec<String>,
}

/// What is known of the rollout. Times are since its start.
#[derive(Debug, Clone)]
pub(super) struct View {
    rollout: String,
    waves: Vec<Wave>,
    hosts: usize,
    done: BTreeSet<HostName>,
    work: Vec<Work>,
    next: Option<(HostName, Duration)>,
    stagger: Duration,
    took: Vec<Duration>,
    stopping: Option<HostName>,
    pub(super) asking: bool,
}

impl View {
    pub(super) fn new(waves: Vec<Wave>, stagger: Duration) -> Self {
        Self {
            rollout: String::new(),
            hosts: waves.iter().map(|w| w.hosts.len()).sum(),
            waves,
            done: BTreeSet::new(),
            work: Vec::new(),
            next: None,
            stagger,
            took: Vec::new(),
            stopping: None,
            asking: false,
        }
    }

    pub(super) fn begin(&mut self, rollout: &str) {
        rollout.clone_into(&mut self.rollout);
    }

    /// Takes in what happened.
    pub(super) fn on(&mut self, progress: &Progress, now: Duration) {
        match progress {
            Progress::Held { host, gate } => self.work(host, now).step = format!("held: {gate}"),
            Progress::Sending { host } => {
                let work = self.work(host, now);
                "the command is sent".clone_into(&mut work.step);
                work.since = now;
            }
            Progress::Accepted { host } => "restarting".clone_into(&mut self.work(host, now).step),
            Progress::Started { host, version, .. } => {
                self.work(host, now).step = format!("proving, its new server is {version}");
            }
            Progress::Read {
                host,
                good,
                of,
                lacking,
                values,
            } => {
                let work = self.work(host, now);
                work.reads = Some((*good, *of));
                work.values = Some(values.clone());
                work.lacking.clone_from(lacking);
            }
            Progress::Proved { host, after, .. } => {
                self.work.retain(|w| w.host != *host);
                self.done.insert(host.clone());
                self.took.push(*after);
            }
            // The plan told the waves; where a host stands is told by its own line.
            Progress::Wave { .. } => {}
            Progress::Doing { host, what } => self.work(host, now).step.clone_from(what),
            Progress::Staggering { next, gap } => self.next = Some((next.clone(), now + *gap)),
            Progress::Stopping { after } => self.stopping = Some(after.clone()),
        }
    }

    fn work(&mut self, host: &HostName, now: Duration) -> &mut Work {
        if self.next.as_ref().is_some_and(|(next, _)| next == host) {
            self.next = None;
        }
        let at = match self.work.iter().position(|w| w.host == *host) {
            Some(at) => at,
            None => {
                self.work.push(Work {
                    host: host.clone(),
                    step: String::new(),
                    since: now,
                    reads: None,
                    values: None,
                    lacking: Vec::new(),
                });
                self.work.len() - 1
            }
        };
        &mut self.work[at]
    }

    /// Time to the end, as far as it can be told; `None` before the first host is proved.
    fn left(&self, now: Duration) -> Option<Duration> {
        let proved = u32::try_from(self.took.len()).ok().filter(|n| *n > 0)?;
        let each = self.took.iter().sum::<Duration>() / proved;
        let to_do = u32::try_from(self.hosts.saturating_sub(self.done.len())).ok()?;
        let spent = self.work.iter().map(|w| now.saturating_sub(w.since).min(each)).max();
        let waiting = self
            .next
            .as_ref()
            .map_or(Duration::ZERO, |(_, at)| at.saturating_sub(now));
        Some(
            (each * to_do + self.stagger * to_do.saturating_sub(1) + waiting).saturating_sub(spent.unwrap_or_default()),
        )
    }

    /// The view, a line each, without line ends.
    pub(super) fn lines(&self, now: Duration, paint: Paint) -> Vec<String> {
        let mut lines = vec![self.headline(now, paint), self.bar()];
        lines.extend(self.wave_lines(paint));
        for work in self.work.iter().take(IN_WORK) {
            lines.extend(work_lines(work, now, paint));
        }
        if self.work.len() > IN_WORK {
            lines.push(format!("and {} more hosts in work", self.work.len() - IN_WORK));
        }
        if let Some((next, at)) = &self.next {
            lines.push(format!("next: {next} in {}", short(at.saturating_sub(now))));
        }
        lines.push(self.last_line(paint));
        lines
    }

    fn headline(&self, now: Duration, paint: Paint) -> String {
        let left = match self.left(now) {
            Some(left) => format!("about {} left", short(left)),
            None => {
                let gaps = u32::try_from(self.hosts.saturating_sub(1)).unwrap_or(u32::MAX);
                format!("at least {} left", short(self.stagger.saturating_mul(gaps)))
            }
        };
        let title = paint.heading(&format!("Rolling restart {}", self.rollout));
        format!(
            "{title}: {} of {} done, {} so far, {left}",
            self.done.len(),
            self.hosts,
            short(now)
        )
    }

    fn bar(&self) -> String {
        let full = self.done.len() * BAR / self.hosts.max(1);
        format!("[{}{}]", "#".repeat(full), ".".repeat(BAR - full))
    }

    fn wave_lines(&self, paint: Paint) -> Vec<String> {
        let done = |w: &Wave| w.hosts.iter().filter(|h| self.done.contains(*h)).count();
        let current = self.waves.iter().position(|w| done(w) < w.hosts.len());
        let first = current.unwrap_or(self.waves.len()).saturating_sub(1);
        let first = first.min(self.waves.len().saturating_sub(WAVES));
        let mut lines = Vec::new();
        if first > 0 {
            lines.push(paint.text(Tone::Dim, &format!("  {first} waves before are done")));
        }
        for (i, wave) in self.waves.iter().enumerate().skip(first).take(WAVES) {
            let text = format!(
                "  wave {}: {:<16} {} of {}",
                wave.number,
                wave.name,
                done(wave),
                wave.hosts.len()
            );
            let tone = match current {
                Some(now) if i == now => Tone::Plain,
                Some(now) if i > now => Tone::Dim,
                _ => Tone::Good,
            };
            lines.push(paint.text(tone, &text));
        }
        let after = self.waves.len().saturating_sub(first + WAVES);
        if after > 0 {
            lines.push(paint.text(Tone::Dim, &format!("  and {after} waves after them")));
        }
        lines
    }

    fn last_line(&self, paint: Paint) -> String {
        match (&self.stopping, self.asking) {
            (Some(after), true) => paint.text(
                Tone::Warn,
                &format!("Enter: finish {after} and stop. l, Enter: leave now, unwatched"),
            ),
            (Some(after), false) => paint.text(
                Tone::Warn,
                &format!("stopping once {after} is proved; Ctrl-C again leaves at once"),
            ),
            (None, _) => paint.text(Tone::Dim, "Ctrl-C: finish what is in work and stop"),
        }
    }
}

fn work_lines(work: &Work, now: Duration, paint: Paint) -> Vec<String> {
    let mut text = format!("{}: {}", work.host, work.step);
    if let Some((good, of)) = work.reads {
        text.push_str(&format!(", good reads {good}/{of}"));
    }
    text.push_str(&format!(", for {}", short(now.saturating_sub(work.since))));
    let held = work.step.starts_with("held");
    let mut lines = vec![paint.text(if held { Tone::Warn } else { Tone::Plain }, &text)];
    if let Some(values) = &work.values {
        lines.push(format!("  {}", proof(values)));
    }
    if !work.lacking.is_empty() {
        lines.push(paint.text(Tone::Warn, &format!("  not yet: {}", work.lacking.join("; "))));
    }
    lines
}

/// `peers 5/5, gateways 2/2, heard by 4/6 (2 needed), $SYS 12 kB/s of 90 kB/s`
pub(super) fn proof(v: &Values) -> String {
    let peers = v.peers.map_or_else(|| "?".to_owned(), |n| n.to_string());
    let mut text = format!(
        "peers {peers}/{}, gateways {}/{}, heard by {}/{} ({} needed)",
        v.peers_before, v.gateways, v.gateways_before, v.heard, v.witnesses, v.needed
    );
    if let Some(sys) = v.sys {
        text.push_str(&format!(", $SYS {}/s", size(sys.bytes_per_second)));
        if let Some(ceiling) = sys.ceiling {
            text.push_str(&format!(" of {}/s", size(ceiling)));
        }
    }
    text
}

#[allow(clippy::cast_precision_loss, reason = "for people")]
fn size(bytes: u64) -> String {
    crate::core::rollout::advice::bytes(bytes as f64)
}

/// Whole seconds.
fn short(d: Duration) -> String {
    humantime::format_duration(Duration::from_secs(d.as_secs())).to_string()
}

/// A few lines at the end of a terminal that are written anew in place; other text goes above them.
pub(super) struct Screen {
    all: MultiProgress,
    lines: Vec<ProgressBar>,
}

impl Screen {
    pub(super) fn new() -> Self {
        Self {
            all: MultiProgress::new(),
            lines: Vec::new(),
        }
    }

    pub(super) fn draw(&mut self, lines: &[String]) {
        while self.lines.len() < lines.len() {
            let bar = ProgressBar::no_length();
            let bar = match ProgressStyle::with_template("{wide_msg}") {
                Ok(style) => bar.with_style(style),
                Err(_) => bar,
            };
            self.lines.push(self.all.add(bar));
        }
        for bar in self.lines.drain(lines.len()..) {
            bar.finish_and_clear();
            self.all.remove(&bar);
        }
        for (bar, line) in self.lines.iter().zip(lines) {
            bar.set_message(line.clone());
            bar.tick();
        }
    }

    /// What was typed has moved the cursor one line down: back to where the next drawing expects it.
    pub(super) fn typed(&self) {
        use std::io::Write as _;

        let _ = write!(std::io::stderr(), "\x1b[1A");
    }

    /// A line that stays.
    pub(super) fn say(&self, line: &str) {
        // A broken terminal must not change how the rollout ends.
        let _ = self.all.println(line);
    }

    pub(super) fn clear(&mut self) {
        for bar in self.lines.drain(..) {
            bar.finish_and_clear();
        }
        let _ = self.all.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::rollout::report::SysRate;

    fn host(name: &str) -> HostName {
        HostName::new(name).unwrap()
    }

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn view(waves: &[usize]) -> View {
        let mut n = 0;
        let waves = waves.iter().enumerate().map(|(i, count)| Wave {
            number: i + 1,
            name: format!("wave-{i}"),
            hosts: (0..*count)
                .map(|_| {
                    n += 1;
                    host(&format!("h-{n}"))
                })
                .collect(),
        });
        let mut view = View::new(waves.collect(), secs(30));
        view.begin("5f0c2a91");
        view
    }

    fn text(view: &View, now: u64) -> String {
        view.lines(secs(now), Paint::new(false)).join("\n")
    }

    fn proved(n: usize) -> Progress {
        Progress::Proved {
            host: host(&format!("h-{n}")),
            after: secs(10),
            done: n,
            of: 12,
        }
    }

    #[test]
    fn a_host_in_its_proof_is_shown_with_waves_values_rate_and_time_left() {
        let mut view = view(&[1, 4, 7]);
        view.on(&proved(1), secs(10));
        view.on(&Progress::Sending { host: host("h-2") }, secs(40));
        let started = Progress::Started {
            host: host("h-2"),
            after: secs(2),
            version: "2.10.26".to_owned(),
        };
        view.on(&started, secs(42));
        let read = Progress::Read {
            host: host("h-2"),
            good: 0,
            of: 3,
            lacking: vec!["no gateway to fra".to_owned()],
            values: Values {
                peers: Some(5),
                peers_before: 5,
                gateways: 1,
                gateways_before: 2,
                heard: 4,
                witnesses: 6,
                needed: 2,
                sys: Some(SysRate {
                    bytes_per_second: 12_000,
                    ceiling: Some(90_000),
                }),
            },
        };
        view.on(&read, secs(44));
        insta::assert_snapshot!(text(&view, 45), @r"
        Rolling restart 5f0c2a91: 1 of 12 done, 45s so far, about 6m 45s left
        [##............................]
          wave 1: wave-0           1 of 1
          wave 2: wave-1           0 of 4
          wave 3: wave-2           0 of 7
        h-2: proving, its new server is 2.10.26, good reads 0/3, for 5s
          peers 5/5, gateways 1/2, heard by 4/6 (2 needed), $SYS 12 kB/s of 90 kB/s
          not yet: no gateway to fra
        Ctrl-C: finish what is in work and stop
        ");
    }

    #[test]
    fn waves_are_those_of_the_plan_also_of_what_is_left_of_it() {
        let planned = |name: &str, region: &str, wave| crate::core::rollout::plan::Planned {
            host: host(name),
            region: crate::core::ids::Region::new(region).unwrap(),
            cluster: "C".to_owned(),
            version: "2.10.26".to_owned(),
            clients: None,
            wave,
            jetstream: false,
            leaders: None,
            meta_leader: false,
            steps_down: false,
            allowance: Duration::ZERO,
        };
        let mut plan = Plan {
            order: vec![
                planned("iad-1", "iad", 1),
                planned("iad-2", "iad", 2),
                planned("iad-3", "iad", 2),
                planned("fra-1", "fra", 3),
                planned("syd-1", "syd", 3),
            ],
            others: Vec::new(),
            silent: Vec::new(),
        };
        let shown = |plan: &Plan| -> Vec<(usize, String, usize)> {
            waves(plan)
                .into_iter()
                .map(|w| (w.number, w.name, w.hosts.len()))
                .collect()
        };
        let several = (3, "several regions".to_owned(), 2);
        assert_eq!(
            shown(&plan),
            [
                (1, "canary iad-1".to_owned(), 1),
                (2, "iad".to_owned(), 2),
                several.clone()
            ]
        );
        plan.order.drain(..2);
        assert_eq!(shown(&plan), [(2, "iad".to_owned(), 1), several]);
        plan.order.clear();
        assert_eq!(shown(&plan), []);
    }

    #[test]
    fn before_the_first_proof_no_time_is_made_up() {
        assert!(text(&view(&[1, 2]), 0).contains("at least 1m left"));
    }

    #[test]
    fn a_gate_that_holds_a_stagger_and_a_wish_to_stop_are_named() {
        let mut view = view(&[2]);
        view.on(&proved(1), secs(10));
        let staggering = Progress::Staggering {
            next: host("h-2"),
            gap: secs(30),
        };
        view.on(&staggering, secs(10));
        assert!(text(&view, 15).contains("next: h-2 in 25s"));
        view.on(&Progress::Sending { host: host("h-2") }, secs(40));
        assert!(!text(&view, 41).contains("next:"));
        view.asking = true;
        view.on(&Progress::Stopping { after: host("h-2") }, secs(41));
        assert!(text(&view, 41).contains("Enter: finish h-2 and stop"));
        view.asking = false;
        assert!(text(&view, 41).contains("stopping once h-2 is proved"));
    }

    #[test]
    fn a_hundred_waves_and_hosts_in_work_fit_on_a_small_terminal() {
        let mut view = view(&[1; 100]);
        for n in 1..=50 {
            view.on(&proved(n), secs(10));
        }
        for n in 51..=70 {
            view.on(
                &Progress::Sending {
                    host: host(&format!("h-{n}")),
                },
                secs(20),
            );
        }
        let text = text(&view, 21);
        assert!(text.lines().count() <= 22, "{text}");
        assert!(
            text.contains("waves before are done") && text.contains("16 more hosts"),
            "{text}"
        );
    }
}
