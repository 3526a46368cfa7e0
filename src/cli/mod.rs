//! The commands: a file each, and the only place that prints.
//!
//! A command turns what it learns into text (`words`, pure and tested) or JSON and returns an [`Exit`].

mod agent;
mod api;
mod check;
mod config;
pub mod connect_flags;
mod exit;
mod history;
mod matrix;
mod output;
mod permits;
mod plan;
pub mod restart;
mod roll;
#[cfg(test)]
mod sample;
mod simulate;
mod status;
mod status_permits;
mod status_sys;
#[cfg(test)]
mod tests;
mod words;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use exit::{Exit, Failure};

/// Finds stalled paths in NATS clusters, heals what it can, and restarts servers without making a storm
#[derive(Debug, Parser)]
#[command(
    name = "watchdog",
    version,
    max_term_width = 100,
    after_help = "Every command has --help with an example and its exit codes."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Agent(agent::Agent),
    Status(status::Status),
    Matrix(matrix::Matrix),
    History(Box<history::History>),
    Check(Box<check::Check>),
    Plan(Box<plan::Plan>),
    Restart(Box<roll::Restart>),
    Pause(permits::Pause),
    Resume(Box<permits::Resume>),
    Permits(permits::Permits),
    Simulate(simulate::Simulate),
    #[command(subcommand)]
    Config(config::Config),
}

/// Runs the command that the process was started with.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return misused(&error),
    };
    let result = match cli.command {
        Command::Check(command) => match command.run() {
            Ok(code) => return ExitCode::from(code),
            Err(error) => Err(Failure {
                exit: Exit::Refused,
                error,
            }),
        },
        Command::Agent(command) => command.run(),
        Command::Status(command) => command.run(),
        Command::Matrix(command) => command.run(),
        Command::History(command) => command.run(),
        Command::Plan(command) => command.run(),
        Command::Restart(command) => command.run(),
        Command::Pause(command) => command.run(),
        Command::Resume(command) => command.run(),
        Command::Permits(command) => command.run(),
        Command::Simulate(command) => command.run(),
        Command::Config(command) => command.run(),
    };
    match result {
        Ok(exit) => exit.into(),
        Err(failure) => {
            output::complain(&failure);
            failure.exit.into()
        }
    }
}

/// A monitoring system reads code 2 as CRITICAL: a check that is called wrongly is UNKNOWN.
fn misused(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    let check = std::env::args_os().nth(1).is_some_and(|word| word == "check");
    match error.exit_code() {
        0 => ExitCode::SUCCESS,
        _ if check => ExitCode::from(3),
        _ => Exit::Usage.into(),
    }
}

/// One thread: the work is a loop that waits, and a message that wakes two threads costs twice.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| anyhow::anyhow!("cannot start the I/O runtime: {e}"))
}
