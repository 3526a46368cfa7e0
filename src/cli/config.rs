//! `watchdog config check` and `watchdog config show`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::output::{self, Format, Output};
use super::words::{Paint, Tone, count};
use super::{Exit, Failure};
use crate::config::{ConfigErrors, Env, Loaded, Settings, Shown};

/// Check the configuration, or show it with where each value came from
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Example:
  watchdog config check

Exit codes:
  0  the configuration is good
  2  it is not: all errors at once on stderr")]
pub(super) enum Config {
    Check(Check),
    Show(Show),
}

/// Check files, variables and the credentials they name: all errors at once, with file, line and key
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  watchdog config check --config /etc/watchdog/watchdog.toml && systemctl reload watchdog

Exit codes:
  0  the configuration is good
  2  it is not: all errors at once on stderr")]
pub(super) struct Check {
    #[command(flatten)]
    source: Source,
}

/// Show the merged configuration and where each value came from; secrets are masked
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  watchdog config show
  watchdog config show --output json | jq -r '.[] | select(.origin != \"default\") | .key'

Exit codes:
  0  done
  2  the configuration is not good: all errors at once on stderr")]
pub(super) struct Show {
    #[command(flatten)]
    source: Source,
}

#[derive(Debug, Args)]
struct Source {
    /// Configuration file; conf.d/*.toml beside it is read too [default: /etc/watchdog/watchdog.toml]
    #[arg(short, long, value_name = "FILE", env = "WATCHDOG_CONFIG")]
    config: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

impl Source {
    fn load(&self) -> Result<Loaded, Failure> {
        Settings::load(self.config.as_deref(), &Env::system()).map_err(|errors| {
            if self.output.output == Format::Json
                && let Err(error) = output::print_json(&as_json(&errors))
            {
                return error.into();
            }
            Failure::usage(errors)
        })
    }
}

impl Config {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        match self {
            Self::Check(Check { source }) => {
                let loaded = source.load()?;
                match source.output.output {
                    Format::Json => output::print_json(&json!({ "errors": [] }))?,
                    Format::Text => output::print(&good(&loaded))?,
                }
            }
            Self::Show(Show { source }) => {
                let loaded = source.load()?;
                match source.output.output {
                    Format::Json => {
                        let rows = loaded
                            .origins
                            .iter()
                            .map(|s| json!({ "key": s.key, "value": s.value, "origin": s.origin }));
                        output::print_json(&rows.collect::<Vec<_>>())?;
                    }
                    Format::Text => output::print(&table(&loaded.origins, output::paint()))?,
                }
            }
        }
        Ok(Exit::Done)
    }
}

fn as_json(errors: &ConfigErrors) -> serde_json::Value {
    let errors = errors
        .0
        .iter()
        .map(|e| json!({ "origin": e.origin.to_string(), "key": e.key, "message": e.message }));
    json!({ "errors": errors.collect::<Vec<_>>() })
}

pub(super) fn good(loaded: &Loaded) -> String {
    let settings = &loaded.settings;
    let files: Vec<_> = loaded.files.iter().map(|file| file.display().to_string()).collect();
    let files = match files.is_empty() {
        true => "no file".into(),
        false => files.join(", "),
    };
    format!(
        "The configuration is good: host {} in region {}, {}, mode {}. Read: {files}.\n",
        settings.host,
        settings.region,
        count(settings.lanes.len() as u64, "lane"),
        settings.remediation.mode.name(),
    )
}

pub(super) fn table(origins: &[Shown], paint: Paint) -> String {
    let rows = origins.iter().map(|shown| {
        let tone = match shown.origin.as_str() {
            "default" => Tone::Dim,
            _ => Tone::Plain,
        };
        vec![
            (Tone::Plain, shown.key.clone()),
            (tone, shown.value.clone()),
            (tone, shown.origin.clone()),
        ]
    });
    paint.table(&["key", "value", "from"], rows.collect())
}
