//! The command without the agent (no feature `agent`): `watchdog simulate` alone, for tests and long runs.

mod exit;
mod output;
mod simulate;

use std::process::ExitCode;

use clap::Parser;

pub use exit::{Exit, Failure};

/// The simulator alone
#[derive(Debug, Parser)]
#[command(name = "watchdog", version, max_term_width = 100)]
enum Cli {
    Simulate(simulate::Simulate),
}

/// Runs the command that the process was started with.
#[must_use]
pub fn main() -> ExitCode {
    let Cli::Simulate(command) = Cli::parse();
    match command.run() {
        Ok(exit) => exit.into(),
        Err(failure) => {
            output::complain(&failure);
            failure.exit.into()
        }
    }
}
