//! `watchdog history`: of this host from its agent or its state directory, of the fleet from all agents, or as it comes.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use clap::Args;
use serde::Deserialize;

use super::connect_flags::ConnectFlags;
use super::output::{self, Format, Output};
use super::words::{Paint, Tone, time};
use super::{Exit, Failure, api};
use crate::adapters::nats::connect;
use crate::adapters::store::history::read;
use crate::core::audit::Told;
use crate::core::ids::{HostName, Region};
use crate::core::view::{AgentView, Record};

mod fleet;

/// A server that does not answer in this time is not there.
const CONNECT: Duration = Duration::from_secs(5);

/// What was decided, done, refused, and why, on this host or, with --fleet, on all
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  watchdog history
  watchdog history --since 1h --event act --event refused
  watchdog history --fleet --output json | jq 'select(.outcome == \"failed\")'
  watchdog history --follow

Exit codes:
  0  done
  1  failed: the agent could not be read, or some of those asked did not answer
  2  usage")]
pub(super) struct History {
    #[command(flatten)]
    agent: api::Agent,
    /// Read the files of this state directory instead of asking the agent
    #[arg(long, value_name = "DIR", conflicts_with_all = ["fleet", "host", "follow"])]
    state: Option<PathBuf>,
    /// Ask every agent that is heard, over NATS
    #[arg(long)]
    fleet: bool,
    /// Ask the agent of this host, over NATS; repeat for more
    #[arg(long, value_name = "HOST", conflicts_with = "fleet")]
    host: Vec<HostName>,
    /// Go on with what happens, over NATS, on all hosts or those of --host, until Ctrl-C
    #[arg(long)]
    follow: bool,
    /// The newest N records of each host
    #[arg(long, value_name = "N", default_value_t = 200)]
    last: usize,
    /// Only what happened within this time
    #[arg(long, value_name = "DURATION", value_parser = crate::cli::words::a_duration)]
    since: Option<Duration>,
    /// Only events of this kind: act, outcome, refused, command, fault, …; repeat for more
    #[arg(long, value_name = "EVENT")]
    event: Vec<String>,
    /// Prefix of the agents' subjects
    #[arg(long, value_name = "PREFIX", default_value = "watchdog")]
    prefix: String,
    /// How long agents may take to answer
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = crate::cli::words::a_duration)]
    within: Duration,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connect: ConnectFlags,
}

#[derive(Debug, Deserialize)]
pub(super) struct Answer {
    pub(super) history: Vec<Record>,
}

#[derive(Debug, Deserialize)]
struct Whose {
    agent: AgentView,
}

/// What is shown of all there is.
#[derive(Debug, Clone, Default)]
struct Filter {
    since: f64,
    events: BTreeSet<String>,
}

impl Filter {
    fn passes(&self, record: &Record) -> bool {
        record.at >= self.since && (self.events.is_empty() || self.events.contains(&record.event))
    }
}

impl History {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        if self.fleet || self.follow || !self.host.is_empty() {
            return super::runtime()?.block_on(self.over_nats());
        }
        let (whose, records) = match &self.state {
            Some(dir) => {
                let records = read(dir, usize::MAX).with_context(|| "no history there".to_owned())?;
                (None, records)
            }
            None => {
                let value = self.agent.get("/api/v1/history")?;
                let answer: Answer = api::typed(value, &[])?;
                let whose: Whose = api::typed(self.agent.get("/api/v1/status")?, &[])?;
                (Some((whose.agent.host, whose.agent.region)), answer.history)
            }
        };
        let filter = self.filter();
        let mut records: Vec<Record> = records.into_iter().filter(|r| filter.passes(r)).collect();
        records.drain(..records.len().saturating_sub(self.last));
        match self.output.output {
            Format::Json => output::print(&lines(whose, records)?)?,
            Format::Text => output::print(&render(&records, output::paint()))?,
        }
        Ok(Exit::Done)
    }

    fn filter(&self) -> Filter {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Filter {
            since: self.since.map_or(0.0, |since| now.saturating_sub(since).as_secs_f64()),
            events: self.event.iter().cloned().collect(),
        }
    }

    async fn over_nats(self) -> Result<Exit, Failure> {
        let to = self.connect.resolve().map_err(Failure::usage)?;
        let client = connect::connect(&to, "watchdog history", CONNECT)
            .await
            .map_err(anyhow::Error::from)?;
        let (filter, format) = (self.filter(), self.output.output);
        // Before the past is asked for, so that nothing falls between the two.
        let events = match self.follow {
            true => Some(fleet::subscribe(&client, &self.prefix).await?),
            false => None,
        };
        let mut exit = Exit::Done;
        if self.fleet || !self.host.is_empty() {
            let asked = fleet::ask_all(&client, &self).await?;
            let mut told = asked.told;
            told.retain(|t| filter.passes(&t.record));
            for t in &told {
                fleet::print(t, format)?;
            }
            for (host, error) in &asked.silent {
                exit = Exit::Failed;
                output::warn(&format!("history: {host} is missing: {error}"));
            }
        }
        if let Some(events) = events {
            fleet::follow(events, &self.prefix, &self.host, &filter, format).await?;
        }
        Ok(exit)
    }
}

/// A JSON line each, with whose it is where that is known.
fn lines(whose: Option<(HostName, Region)>, records: Vec<Record>) -> anyhow::Result<String> {
    let mut text = String::new();
    for record in records {
        let line = match &whose {
            Some((host, region)) => serde_json::to_string(&Told::new(host.clone(), region.clone(), record)),
            None => serde_json::to_string(&record),
        };
        text.push_str(&line?);
        text.push('\n');
    }
    Ok(text)
}

fn tone(event: &str) -> Tone {
    match event {
        "fault" | "refused" => Tone::Warn,
        "cleared" => Tone::Good,
        "act" | "gave_up" => Tone::Bad,
        _ => Tone::Plain,
    }
}

/// The sentence, and who, where it was not the agent by itself.
fn sentence(record: &Record) -> String {
    use crate::core::audit::WhoKind;

    match &record.who {
        Some(who) if who.kind != WhoKind::Agent => format!("{} [{who}]", record.text),
        _ => record.text.clone(),
    }
}

pub(super) fn render(history: &[Record], paint: Paint) -> String {
    if history.is_empty() {
        return "Nothing has happened that is kept.\n".into();
    }
    let rows = history.iter().map(|record| {
        vec![
            (Tone::Dim, time(record.at)),
            (tone(&record.event), record.event.clone()),
            (Tone::Plain, record.subject.clone()),
            (Tone::Plain, sentence(record)),
        ]
    });
    paint.table(&["time", "event", "subject", "what and why"], rows.collect())
}
