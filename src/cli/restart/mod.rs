//! `watchdog restart`: the rolling restart, from the operator's side.
//!
//! Here: flags, the order of questions, exit codes. The rollout itself is `core::rollout`; `drive` carries its
//! questions to the hosts, `show` tells the operator.

mod drive;
mod go_on;
pub(super) mod inventory;
mod live;
pub mod show;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use self::show::Console;
use super::Exit;
use crate::adapters::nats::control::Operator;
use crate::core::rollout::{Limits, Outcome, PlanError, Selection, plan};

/// What can be known to be wrong before a connection is made.
///
/// # Errors
/// Words for the operator; the exit code is that of usage.
pub fn check(args: &RestartArgs) -> Result<(), String> {
    ready(args, &Console::standard(args.output)).map(|_| ())
}

/// Flags of `watchdog restart`.
#[derive(Debug, Clone, Args)]
#[command(
    about = "Restart servers one at a time, with proof after each",
    long_about = "Restarts the nats-servers of the selected hosts through their agents, one at a time. After each: proof \
(healthz, peers and gateways back, heard by others again, three good reads), then the stagger, then the next. The \
first failure halts.",
    after_help = "\
Example:
  watchdog restart --region iad --dry-run
  watchdog restart --region iad --stagger 30s --operator /etc/watchdog/operator.nk --reason 'upgrade to 2.10.26'

Exit codes:
  0  done
  1  failed
  2  usage
  3  refused by a gate, nothing was restarted
  4  halted half-way: how to go on is printed"
)]
pub struct RestartArgs {
    /// Restart this host; repeat for more
    #[arg(long, value_name = "HOST")]
    pub host: Vec<String>,
    /// Restart the hosts of this region; repeat for more; with --host: only these hosts, which must stand there
    #[arg(long, value_name = "REGION")]
    pub region: Vec<String>,
    /// Restart every host that is heard
    #[arg(long)]
    pub all: bool,
    /// Gap between the proof of one host and the next
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = stagger)]
    pub stagger: Duration,
    /// Hosts that may be down at a time; this version accepts 1 only
    #[arg(long, value_name = "N", default_value = "1", value_parser = one)]
    pub max_unavailable: u32,
    /// Show the plan and stop
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// Why; agents keep it in their history
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub reason: String,
    /// Limit for each host, from the command to the end of its proof
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = duration)]
    pub timeout: Duration,
    /// Prefix of the agents' subjects
    #[arg(long, value_name = "PREFIX", default_value = "watchdog")]
    pub prefix: String,
    /// File with the operator's NKEY seed, which signs the commands
    #[arg(long, value_name = "FILE", env = "WATCHDOG_OPERATOR")]
    pub operator: Option<PathBuf>,
    /// Table and sentences for people, or JSON lines
    #[arg(long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// One JSON object per line.
    Json,
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|e| format!("{e}; give a duration such as 30s or 2m"))
}

fn stagger(text: &str) -> Result<Duration, String> {
    if text == "auto" {
        return Err("`auto` is not in this version; give a duration such as 30s".to_owned());
    }
    duration(text)
}

fn one(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(1) => Ok(1),
        _ => Err("this version restarts one host at a time and accepts 1 only".to_owned()),
    }
}

/// Runs the command on the process's terminal.
///
/// # Errors
/// What is neither a refusal nor a halt: the connection, the terminal.
pub async fn run(args: RestartArgs, client: async_nats::Client) -> anyhow::Result<Exit> {
    let mut console = Console::standard(args.output);
    roll(args, client, &mut console).await
}

/// [`run`] on any console.
///
/// # Errors
/// As [`run`].
pub async fn roll(args: RestartArgs, client: async_nats::Client, console: &mut Console) -> anyhow::Result<Exit> {
    let operator = match ready(&args, console) {
        Ok(operator) => operator,
        Err(text) => {
            console.error(&text);
            return Ok(Exit::Usage);
        }
    };
    let selection = Selection {
        hosts: args.host.clone(),
        regions: args.region.clone(),
        all: args.all,
    };
    let beacons = inventory::listen(&client, &args.prefix).await?;
    let (inventory, beacons) = inventory::take(&client, &args.prefix, beacons).await;
    let plan = match plan::plan(&inventory, &selection) {
        Ok(plan) => plan,
        Err(e) => {
            console.error(&e.to_string());
            return Ok(if e.is_gate() { Exit::Refused } else { Exit::Usage });
        }
    };
    console.plan(&plan, args.stagger)?;
    let Some(operator) = operator else {
        return Ok(Exit::Done);
    };
    if !args.yes && !console.confirm(plan.order.len()).await? {
        console.error("not confirmed; nothing was restarted");
        return Ok(Exit::Failed);
    }
    let limits = Limits {
        stagger: args.stagger,
        timeout: args.timeout,
        ..Limits::default()
    };
    let orders = drive::Orders {
        operator,
        reason: args.reason.clone(),
        prefix: args.prefix.clone(),
    };
    let outcome = drive::drive(&client, &orders, &plan, &inventory, limits, beacons, console).await?;
    console.outcome(&outcome)?;
    Ok(match outcome {
        Outcome::Done(_) => Exit::Done,
        Outcome::Halted(halt) if halt.refused_at_once() => Exit::Refused,
        Outcome::Halted(halt) if halt.untouched() => Exit::Failed,
        Outcome::Halted(_) => Exit::Halted,
    })
}

/// What can be known to be wrong before anything is asked; the key, unless it is a dry run.
fn ready(args: &RestartArgs, console: &Console) -> Result<Option<Operator>, String> {
    let some = !args.host.is_empty() || !args.region.is_empty();
    if !args.all && !some {
        return Err(PlanError::NothingSelected.to_string());
    }
    if args.all && some {
        return Err(PlanError::AllAndSome.to_string());
    }
    if args.dry_run {
        return Ok(None);
    }
    if !args.yes && !console.interactive() {
        return Err("no terminal to ask on: give --yes to restart, or --dry-run to see the plan".to_owned());
    }
    let path = args.operator.as_ref().ok_or(
        "commands to restart are signed: give the file with the operator's seed by --operator FILE or \
         WATCHDOG_OPERATOR (`nk -gen user` makes one)",
    )?;
    Operator::from_file(path).map(Some).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        args: RestartArgs,
    }

    fn refused(argv: &[&str]) -> String {
        let e = Cli::try_parse_from([&["restart"], argv].concat()).unwrap_err();
        assert_eq!(e.exit_code(), 2);
        e.to_string()
    }

    #[test]
    fn what_is_for_later_versions_is_a_usage_error_that_says_so() {
        assert!(refused(&["--stagger", "auto"]).contains("not in this version"));
        assert!(refused(&["--max-unavailable", "2"]).contains("one host at a time"));
        assert!(refused(&["--max-unavailable", "0"]).contains("accepts 1 only"));
        assert!(refused(&["--stagger", "30"]).contains("such as 30s"));
    }

    #[test]
    fn the_defaults_are_as_documented() {
        let args = Cli::parse_from(["restart"]).args;
        assert_eq!(args.stagger, Duration::from_secs(30));
        assert_eq!(args.timeout, Duration::from_secs(120));
        assert_eq!((args.max_unavailable, args.prefix.as_str()), (1, "watchdog"));
    }
}
