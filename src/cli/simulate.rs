//! `watchdog simulate`: the deterministic fleet. Threads share the seeds; each run has a thread of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use clap::{Args, ValueEnum};
use serde_json::json;

use super::output::{self, Format, Output};
use super::{Exit, Failure};
use crate::sim::{self, Mutation, Options, Outcome, Policy, Scenario};

/// After so many failures no new run is begun.
const MOST_FAILURES: usize = 20;
/// Lines of the trace under a run that was asked for.
const SHOWN: usize = 60;

/// Runs a fleet of real agents in a simulated world, from a seed; the same seed is the same run on every machine
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  watchdog simulate tests/scenarios/mixed.toml --runs 300
  watchdog simulate tests/scenarios/mixed.toml --seed 17 --trace
  watchdog simulate tests/scenarios/catalogue --score

Exit codes:
  0  no invariant was broken, and all came out as the scenario expects
  1  an invariant was broken; the command that repeats it is printed
  2  usage, or a mistake in the scenario file")]
pub(super) struct Simulate {
    /// Scenario file, or a directory of them
    #[arg(value_name = "SCENARIO")]
    scenario: PathBuf,
    /// The first seed
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// So many seeds, one after the other
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    runs: u64,
    /// Runs at once; default: one for each core
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Print the whole trace of the first seed
    #[arg(long)]
    trace: bool,
    /// Who looks after the servers
    #[arg(long, value_enum, default_value_t = Who::Watchdog)]
    policy: Who,
    /// Take something away from the agents, to prove that the checks see it
    #[arg(long, value_name = "WHAT", value_enum)]
    mutate: Option<What>,
    /// Measure only while something is wrong, each five seconds: for days of large fleets
    #[arg(long)]
    bulk: bool,
    /// Every scenario under every policy, as a table
    #[arg(long, conflicts_with_all = ["policy", "mutate", "trace", "bulk"])]
    score: bool,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Who {
    None,
    Naive,
    Lock,
    Watchdog,
}

impl From<Who> for Policy {
    fn from(who: Who) -> Self {
        match who {
            Who::None => Self::None,
            Who::Naive => Self::Naive,
            Who::Lock => Self::Lock,
            Who::Watchdog => Self::Ours,
        }
    }
}

#[allow(clippy::enum_variant_names, reason = "each takes something away")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    NoLedger,
    NoNetworkCheck,
    NoSickLimit,
    NoPermits,
}

impl From<What> for Mutation {
    fn from(what: What) -> Self {
        match what {
            What::NoLedger => Self::NoLedger,
            What::NoNetworkCheck => Self::NoNetworkCheck,
            What::NoSickLimit => Self::NoSickLimit,
            What::NoPermits => Self::NoPermits,
        }
    }
}

impl Simulate {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        if self.score {
            return self.table();
        }
        let scenarios = self.scenarios()?;
        let options = Options {
            policy: self.policy.into(),
            mutation: self.mutate.map(Mutation::from),
            whole_trace: self.trace,
            bulk: self.bulk,
        };
        let begun = Instant::now();
        let jobs: Vec<Job<'_>> = scenarios
            .iter()
            .flat_map(|(_, scenario)| self.seeds().map(move |seed| (scenario, seed, options)))
            .collect();
        // What is taken away is proved to be missed by one run.
        let most = if self.mutate.is_some() { 1 } else { MOST_FAILURES };
        let mut outcomes = run_all(&jobs, self.threads, most).into_iter().peekable();
        let (mut failed, mut all, mut text) = (false, Vec::new(), String::new());
        for (i, (file, scenario)) in scenarios.iter().enumerate() {
            let last = (i + 1) * jobs.len() / scenarios.len();
            let mut here = Vec::new();
            while let Some((_, outcome)) = outcomes.next_if(|(job, _)| *job < last) {
                here.push(outcome);
            }
            failed |= here.iter().any(|o| o.violation.is_some() || !o.missed.is_empty());
            match self.output.output {
                Format::Json => all.extend(here.iter().map(|o| self.json(file, o))),
                Format::Text => text += &self.text(file, scenario, &here, begun.elapsed()),
            }
        }
        match self.output.output {
            Format::Json => output::print_json(&all)?,
            Format::Text => output::print(&text)?,
        }
        Ok(if failed { Exit::Failed } else { Exit::Done })
    }

    fn seeds(&self) -> std::ops::Range<u64> {
        self.seed..self.seed.saturating_add(self.runs)
    }

    /// All that is to be run, by the names of the files.
    fn scenarios(&self) -> Result<Vec<(PathBuf, Scenario)>, Failure> {
        let mut files: Vec<PathBuf> = if self.scenario.is_dir() {
            std::fs::read_dir(&self.scenario)
                .with_context(|| format!("cannot read {}", self.scenario.display()))?
                .filter_map(|e| e.ok().map(|e| e.path()))
                .filter(|p| p.extension().is_some_and(|e| e == "toml"))
                .collect()
        } else {
            vec![self.scenario.clone()]
        };
        files.sort();
        if files.is_empty() {
            let none = anyhow!("{}: expected scenario files (*.toml)", self.scenario.display());
            return Err(Failure::usage(none));
        }
        files
            .into_iter()
            .map(|file| read(&file).map(|scenario| (file, scenario)))
            .collect()
    }

    /// The one command that repeats a run.
    fn again(&self, file: &Path, seed: u64) -> String {
        let mut text = format!("watchdog simulate {} --seed {seed}", file.display());
        if self.policy != Who::Watchdog {
            text += &format!(" --policy {}", name_of(self.policy));
        }
        if let Some(what) = self.mutate {
            text += &format!(" --mutate {}", name_of(what));
        }
        if self.bulk {
            text += " --bulk";
        }
        text + " --trace"
    }

    fn json(&self, file: &Path, o: &Outcome) -> serde_json::Value {
        let f = &o.figures;
        json!({
            "scenario": file.display().to_string(),
            "seed": o.seed,
            "events": o.events,
            "trace_digest": format!("{:016x}", o.digest),
            "broken_path_seconds": f.broken_path_seconds,
            "mendable_path_seconds": f.mendable_path_seconds,
            "harmful": f.harmful,
            "restarts": f.restarts,
            "resets": f.resets,
            "operator_restarts": f.operator_restarts,
            "pages": f.pages,
            "healed_after_seconds": f.healed_after.map(|d| d.as_secs_f64()),
            "missed": o.missed,
            "violation": o.violation.as_ref().map(|v| json!({
                "invariant": v.invariant.sentence(),
                "at_seconds": v.at.as_secs_f64(),
                "host": v.host,
                "text": v.text,
                "repeat": self.again(file, o.seed),
            })),
        })
    }

    fn text(&self, file: &Path, scenario: &Scenario, outcomes: &[Outcome], took: Duration) -> String {
        let mut text = String::new();
        if self.trace {
            for line in outcomes.first().iter().flat_map(|o| &o.trace) {
                text += &format!("{line}\n");
            }
        }
        let mut failures = 0;
        for o in outcomes
            .iter()
            .filter(|o| o.violation.is_some() || !o.missed.is_empty())
        {
            failures += 1;
            if failures > 3 {
                continue;
            }
            text += &format!("seed {}:\n", o.seed);
            if let Some(v) = &o.violation {
                text += &format!("{v}\n");
            } else {
                for line in o
                    .trace
                    .iter()
                    .skip(o.trace.len().saturating_sub(SHOWN))
                    .filter(|_| !self.trace)
                {
                    text += &format!("  {line}\n");
                }
            }
            for missed in &o.missed {
                text += &format!("{missed}\n");
            }
            text += &format!("again: {}\n\n", self.again(file, o.seed));
        }
        if failures > 3 {
            let others: Vec<String> = outcomes
                .iter()
                .filter(|o| o.violation.is_some() || !o.missed.is_empty())
                .skip(3)
                .map(|o| o.seed.to_string())
                .collect();
            text += &format!("and seeds {}\n", others.join(", "));
        }
        let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
        for v in outcomes.iter().filter_map(|o| o.violation.as_ref()) {
            *kinds.entry(v.invariant.sentence()).or_default() += 1;
        }
        for (kind, n) in kinds {
            text += &format!("{n} × {kind}\n");
        }
        let sum = |f: fn(&sim::Figures) -> u32| outcomes.iter().map(|o| u64::from(f(&o.figures))).sum::<u64>();
        let events: u64 = outcomes.iter().map(|o| o.events).sum();
        text += &format!(
            "{}: {} {} of {} hosts and {}, {failures} failed; {} resets, {} restarts, {} harmful; {events} events in {:.1} s\n",
            scenario.name,
            outcomes.len(),
            if outcomes.len() == 1 { "run" } else { "runs" },
            scenario.fleet.len(),
            humantime::format_duration(scenario.duration),
            sum(|f| f.resets),
            sum(|f| f.restarts),
            sum(|f| f.harmful),
            took.as_secs_f64(),
        );
        if let [one] = outcomes {
            text += &format!("trace digest {:016x}\n", one.digest);
        }
        text
    }

    fn table(&self) -> Result<Exit, Failure> {
        let scenarios = self.scenarios()?;
        let of = |policy| Options {
            policy,
            ..Options::default()
        };
        let jobs: Vec<Job<'_>> = scenarios
            .iter()
            .flat_map(|(_, scenario)| Policy::ALL.map(|policy| (scenario, policy)))
            .flat_map(|(scenario, policy)| self.seeds().map(move |seed| (scenario, seed, of(policy))))
            .collect();
        let mut outcomes = run_all(&jobs, self.threads, MOST_FAILURES).into_iter().peekable();
        let mut rows = Vec::new();
        let mut failed = false;
        let (mut last, each) = (0, jobs.len() / (scenarios.len() * Policy::ALL.len()));
        for (file, scenario) in scenarios.clone() {
            let mut cells = Vec::new();
            for policy in Policy::ALL {
                last += each;
                let mut here = Vec::new();
                while let Some((_, outcome)) = outcomes.next_if(|(job, _)| *job < last) {
                    here.push(outcome);
                }
                for o in here.iter().filter(|_| policy == Policy::Ours) {
                    failed |= o.violation.is_some() || !o.missed.is_empty() || o.figures.harmful > 0;
                }
                cells.push((policy, here));
            }
            rows.push((file, scenario, cells));
        }
        match self.output.output {
            Format::Json => {
                let value: Vec<_> = rows
                    .iter()
                    .flat_map(|(file, s, cells)| cells.iter().map(move |(p, o)| (file, s, p, o)))
                    .map(|(file, s, p, o)| {
                        let runs: Vec<_> = o.iter().map(|o| self.json(file, o)).collect();
                        json!({ "scenario": s.name, "policy": p.name(), "runs": runs })
                    })
                    .collect();
                output::print_json(&value)?;
            }
            Format::Text => {
                let rows: Vec<sim::report::Row> = rows.into_iter().map(|(_, s, cells)| (s, cells)).collect();
                output::print(&sim::report::table(&rows))?;
            }
        }
        Ok(if failed { Exit::Failed } else { Exit::Done })
    }
}

fn name_of(value: impl ValueEnum) -> String {
    value
        .to_possible_value()
        .map_or_else(String::new, |v| v.get_name().to_owned())
}

fn read(file: &Path) -> Result<Scenario, Failure> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("cannot read the scenario {}", file.display()))
        .map_err(Failure::usage)?;
    Scenario::parse(file, &text).map_err(Failure::usage)
}

/// One run.
type Job<'a> = (&'a Scenario, u64, Options);

/// All runs, on so many threads, by the order of the jobs whichever ends first. After a few failures no new run is begun.
fn run_all(jobs: &[Job<'_>], threads: Option<usize>, most: usize) -> Vec<(usize, Outcome)> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = threads.unwrap_or(cores).clamp(1, 256).min(jobs.len().max(1));
    let next = AtomicUsize::new(0);
    let failures = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while failures.load(Ordering::Relaxed) < most {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    let Some((scenario, seed, options)) = jobs.get(i) else {
                        return;
                    };
                    let mut outcome = sim::run(scenario, *seed, *options);
                    let failed = outcome.violation.is_some() || !outcome.missed.is_empty();
                    if !failed && !options.whole_trace {
                        outcome.trace.clear();
                    }
                    failures.fetch_add(usize::from(failed), Ordering::Relaxed);
                    if let Ok(mut done) = done.lock() {
                        done.push((i, outcome));
                    }
                }
            });
        }
    });
    let mut outcomes = done.into_inner().unwrap_or_default();
    outcomes.sort_by_key(|(job, _)| *job);
    outcomes
}
