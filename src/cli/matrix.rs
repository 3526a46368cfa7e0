//! `watchdog matrix`.

use std::collections::BTreeSet;

use clap::Args;
use serde::Deserialize;

use super::output::{self, Format, Output};
use super::words::{Paint, Tone, count, maybe, percent, span};
use super::{Exit, Failure, api};
use crate::core::ids::Region;
use crate::core::view::{MatrixCell, SourceView, Verdict};

/// Region by region: who hears whom, how old the oldest news is, what is lost, how long a round trip takes
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  watchdog matrix
  watchdog matrix --hosts

Exit codes:
  0  done, whatever the matrix says
  1  the agent could not be read
  2  usage")]
pub(super) struct Matrix {
    /// The single paths to this host that are not fine
    #[arg(long)]
    hosts: bool,
    #[command(flatten)]
    agent: api::Agent,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Deserialize)]
pub(super) struct Answer {
    pub(super) matrix: Vec<MatrixCell>,
    pub(super) sources: Vec<SourceView>,
}

impl Matrix {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let value = self.agent.get("/api/v1/matrix")?;
        match self.output.output {
            Format::Json => output::print_json(&value)?,
            Format::Text => {
                let answer: Answer = api::typed(value, &[])?;
                let text = match self.hosts {
                    true => hosts(&answer.sources, output::paint()),
                    false => regions(&answer.matrix, output::paint()),
                };
                output::print(&text)?;
            }
        }
        Ok(Exit::Done)
    }
}

pub(super) fn regions(matrix: &[MatrixCell], paint: Paint) -> String {
    if matrix.is_empty() {
        return "No region has been heard yet.\n".into();
    }
    let from: BTreeSet<&Region> = matrix.iter().map(|cell| &cell.from).collect();
    let to: BTreeSet<&Region> = matrix.iter().map(|cell| &cell.to).collect();
    let cell = |from: &Region, to: &Region| {
        let cell = matrix.iter().find(|c| c.from == *from && c.to == *to);
        match cell.filter(|cell| cell.pairs > 0) {
            None => (Tone::Dim, "-".to_owned()),
            Some(cell) => {
                let heard = cell.pairs.saturating_sub(cell.broken);
                let tone = match cell.broken {
                    0 => Tone::Good,
                    _ => Tone::Bad,
                };
                (tone, format!("{heard}/{}", cell.pairs))
            }
        }
    };
    let rows = from.iter().map(|from| {
        let name = (Tone::Plain, from.to_string());
        std::iter::once(name)
            .chain(to.iter().map(|to| cell(from, to)))
            .collect()
    });
    let header: Vec<&str> = std::iter::once("from \\ to")
        .chain(to.iter().map(|to| to.as_str()))
        .collect();
    let mut text = paint.heading("Host pairs that hear each other, of those judged") + "\n";
    text += &paint.table(&header, rows.collect());

    let seen = |c: &&MatrixCell| c.age_seconds.is_some() || c.loss.is_some() || c.rtt_seconds.is_some();
    let rows = matrix.iter().filter(seen).map(|cell| {
        let lossy = cell.loss.is_some_and(|loss| loss > 0.0);
        vec![
            (Tone::Plain, cell.from.to_string()),
            (Tone::Plain, cell.to.to_string()),
            (Tone::Plain, maybe(cell.age_seconds)),
            (
                if lossy { Tone::Warn } else { Tone::Plain },
                cell.loss.map_or("-".into(), percent),
            ),
            (Tone::Plain, maybe(cell.rtt_seconds)),
        ]
    });
    let rows: Vec<_> = rows.collect();
    if !rows.is_empty() {
        text += &format!("\n{}\n", paint.heading("As measured by this host"));
        text += &paint.table(&["from", "to", "worst age", "loss", "RTT"], rows);
    }
    text
}

pub(super) fn hosts(sources: &[SourceView], paint: Paint) -> String {
    let bad: Vec<_> = sources.iter().filter(|source| source.verdict != Verdict::Ok).collect();
    let fine = sources.len() - bad.len();
    if bad.is_empty() {
        return match fine {
            0 => "No host has been heard yet.\n".into(),
            1 => "The 1 path to this host is fine.\n".into(),
            n => format!("All {n} paths to this host are fine.\n"),
        };
    }
    let rows = bad.iter().map(|source| {
        let tone = match source.verdict {
            Verdict::Stalled => Tone::Bad,
            Verdict::Late => Tone::Warn,
            _ => Tone::Dim,
        };
        vec![
            (Tone::Plain, source.host.to_string()),
            (Tone::Plain, source.region.to_string()),
            (Tone::Plain, source.lane.to_string()),
            (tone, source.verdict.name().to_owned()),
            (Tone::Plain, span(source.since_seconds)),
            (Tone::Plain, source.age_seconds.map_or("never".into(), span)),
            (Tone::Plain, source.lost.to_string()),
            (Tone::Plain, maybe(source.rtt_seconds)),
            (Tone::Plain, format!("{} {}", source.server, source.server_version)),
        ]
    });
    let header = [
        "host",
        "region",
        "lane",
        "verdict",
        "since",
        "last heard",
        "lost",
        "RTT",
        "server",
    ];
    let mut text = paint.table(&header, rows.collect());
    if fine > 0 {
        text += &format!("{} to this host more, all fine.\n", count(fine as u64, "path"));
    }
    text
}
