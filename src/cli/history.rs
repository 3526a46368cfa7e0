//! `watchdog history`.

use clap::Args;
use serde::Deserialize;

use super::output::{self, Format, Output};
use super::words::{Paint, Tone, time};
use super::{Exit, Failure, api};
use crate::core::view::Record;

/// What was decided, done, refused, and why, on this host
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  watchdog history
  watchdog history --output json | jq '.history[] | select(.event == \"act\")'

Exit codes:
  0  done
  1  the agent could not be read
  2  usage")]
pub(super) struct History {
    #[command(flatten)]
    agent: api::Agent,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Deserialize)]
pub(super) struct Answer {
    pub(super) history: Vec<Record>,
}

impl History {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let value = self.agent.get("/api/v1/history")?;
        match self.output.output {
            Format::Json => output::print_json(&value)?,
            Format::Text => {
                let answer: Answer = api::typed(value, &[])?;
                output::print(&render(&answer.history, output::paint()))?;
            }
        }
        Ok(Exit::Done)
    }
}

pub(super) fn render(history: &[Record], paint: Paint) -> String {
    if history.is_empty() {
        return "Nothing has happened since the agent started.\n".into();
    }
    let rows = history.iter().map(|record| {
        let tone = match record.event.as_str() {
            "fault" | "refused" => Tone::Warn,
            "cleared" => Tone::Good,
            "act" => Tone::Bad,
            _ => Tone::Plain,
        };
        vec![
            (Tone::Dim, time(record.at)),
            (tone, record.event.clone()),
            (Tone::Plain, record.subject.clone()),
            (Tone::Plain, record.text.clone()),
        ]
    });
    paint.table(&["time", "event", "subject", "what and why"], rows.collect())
}
