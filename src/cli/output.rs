//! Printing: text for people or JSON for machines, colour only where it is wanted.

#[cfg(feature = "agent")]
use std::io::IsTerminal as _;
use std::io::Write as _;

use clap::{Args, ValueEnum};

use super::Failure;
#[cfg(feature = "agent")]
use super::words::Paint;

/// For whom to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum Format {
    /// Tables and sentences for people
    #[default]
    Text,
    /// JSON for machines, as in the API
    Json,
}

#[derive(Debug, Clone, Copy, Args)]
pub(super) struct Output {
    /// How to print
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    pub(super) output: Format,
}

/// Colour on a terminal, unless `NO_COLOR` or a dumb terminal says no.
#[cfg(feature = "agent")]
pub(super) fn paint() -> Paint {
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    Paint::new(std::io::stdout().is_terminal() && !set("NO_COLOR") && !dumb)
}

/// Prints to stdout. A reader that went away (`| head`) is no error.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let line_end = if text.ends_with('\n') { "" } else { "\n" };
    match write!(out, "{text}{line_end}").and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(e.into()),
        _ => Ok(()),
    }
}

/// Prints `value` as indented JSON.
pub(super) fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    print(&serde_json::to_string_pretty(value)?)
}

/// Says on stderr what goes beside the result.
#[cfg(feature = "agent")]
pub(super) fn warn(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Says on stderr why a command failed.
pub(super) fn complain(failure: &Failure) {
    let text = format!("{:#}", failure.error);
    let prefix = if text.contains('\n') {
        "watchdog:\n"
    } else {
        "watchdog: "
    };
    let _ = writeln!(std::io::stderr(), "{prefix}{text}");
}
