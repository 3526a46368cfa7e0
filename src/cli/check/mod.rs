//! `watchdog check`: one monitoring check of this host, as Nagios and its kin call it.
//!
//! Names, formats and the state of an agent that does not answer follow `nats server check` of the nats CLI; exit
//! codes, ranges and performance data follow the guidelines of the Monitoring Plugins project. By these, a service that
//! cannot be reached is CRITICAL, and UNKNOWN is left to what this command itself cannot do or tell.

mod judge;
mod render;
mod report;
mod storm;
#[cfg(test)]
mod tests;

use std::time::Duration;

use clap::{Args, ValueEnum};

use self::report::{Report, State};
use super::{api, output};
use crate::core::view::Snapshot;

/// What a check may see before it warns, and before it is critical.
#[derive(Debug, Clone, PartialEq, Args)]
pub(super) struct Limits {
    /// Warn above this share of stalled paths to this host, in percent
    #[arg(long, value_name = "PERCENT", default_value = "0", value_parser = percent)]
    pub(super) stalled_warn: f64,
    /// Critical above this share of stalled paths to this host, in percent
    #[arg(long, value_name = "PERCENT", default_value = "10", value_parser = percent)]
    pub(super) stalled_critical: f64,
    /// Warn when the oldest reading of the server is older
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = crate::cli::words::a_duration)]
    pub(super) age_warn: Duration,
    /// Critical when the oldest reading of the server is older
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = crate::cli::words::a_duration)]
    pub(super) age_critical: Duration,
    /// Warn when the agent's loop was later, or its own beacon took longer
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = crate::cli::words::a_duration)]
    pub(super) lag_warn: Duration,
    /// Critical when the agent's loop was later, or its own beacon took longer
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = crate::cli::words::a_duration)]
    pub(super) lag_critical: Duration,
    /// Warn when the server's memory reaches its limit sooner, at its steady growth
    #[arg(long, value_name = "DURATION", default_value = "6h", value_parser = crate::cli::words::a_duration)]
    pub(super) memory_warn: Duration,
    /// Critical when the server's memory reaches its limit sooner, at its steady growth
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = crate::cli::words::a_duration)]
    pub(super) memory_critical: Duration,
    /// Warn above so many new slow consumers in a minute
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) slow_warn: u32,
    /// Critical above so many new slow consumers in a minute
    #[arg(long, value_name = "N", default_value_t = 60)]
    pub(super) slow_critical: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            stalled_warn: 0.0,
            stalled_critical: 10.0,
            age_warn: Duration::from_secs(30),
            age_critical: Duration::from_secs(120),
            lag_warn: Duration::from_secs(1),
            lag_critical: Duration::from_secs(5),
            memory_warn: Duration::from_secs(6 * 3_600),
            memory_critical: Duration::from_secs(3_600),
            slow_warn: 0,
            slow_critical: 60,
        }
    }
}

/// Which faults count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum Scope {
    /// Those at this host's end
    #[default]
    Host,
    /// All that this agent knows of
    Fleet,
}

/// For whom to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Format {
    /// A line of text and performance data, more lines after it
    #[default]
    Nagios,
    /// The fields of the nats CLI's checks, and each single check
    Json,
    /// Prometheus text for a textfile collector; always ends with code 0
    Prometheus,
    /// Tables for people
    Text,
}

/// One monitoring check with Nagios exit codes: agent, server, links, canaries, faults, brownout, memory, slow consumers, age of data
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  watchdog check
  watchdog check --stalled-critical 25 --format json
  watchdog check --format prometheus > /var/lib/node_exporter/watchdog.prom

The worst state wins: CRITICAL, WARNING, UNKNOWN, OK. An agent that does not answer is CRITICAL.

Exit codes:
  0  OK; with --format prometheus always
  1  WARNING
  2  CRITICAL
  3  UNKNOWN; also wrong usage")]
pub(super) struct Check {
    /// How to print
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    format: Format,
    /// Which faults count
    #[arg(long, value_name = "SCOPE", value_enum, default_value_t)]
    scope: Scope,
    #[command(flatten)]
    limits: Limits,
    #[command(flatten)]
    agent: api::Agent,
}

impl Check {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        let report = self.look();
        let text = match self.format {
            Format::Nagios => render::nagios(&report),
            Format::Json => render::json(&report)?,
            Format::Prometheus => render::prometheus(&report),
            Format::Text => render::text(&report, output::paint()),
        };
        output::print(&text)?;
        Ok(match self.format {
            Format::Prometheus => 0,
            _ => report.state().code(),
        })
    }

    /// The report, also of an agent that cannot be read.
    fn look(&self) -> Report {
        // A loop that hangs leaves an old state behind, which must not pass for today's.
        if let Err(error) = self.agent.fetch("/livez") {
            return Report::single(&self.agent.url, State::Critical, &format!("{error:#}"));
        }
        let value = match self.agent.get("/api/v1/status") {
            Ok(value) => value,
            Err(error) => return Report::single(&self.agent.url, State::Critical, &format!("{error:#}")),
        };
        match api::typed::<Snapshot>(value, &["history", "sources"]) {
            Ok(snapshot) => judge::judge(&snapshot, &self.limits, self.scope),
            Err(error) => Report::single(&self.agent.url, State::Unknown, &format!("{error:#}")),
        }
    }
}

fn percent(text: &str) -> Result<f64, String> {
    match text.trim_end_matches('%').parse::<f64>() {
        Ok(share) if (0.0..=100.0).contains(&share) => Ok(share),
        _ => Err("give a share from 0 to 100".to_owned()),
    }
}
