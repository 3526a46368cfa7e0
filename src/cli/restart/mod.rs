//! `watchdog restart`: the rolling restart, from the operator's side.
//!
//! Here: flags, the order of questions, exit codes. The rollout itself is `core::rollout`; `drive` carries its
//! questions to the hosts, `show` tells the operator.

mod drive;
mod forecast;
mod go_on;
pub(super) mod inventory;
pub mod show;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use self::forecast::Forecast;
use self::show::Console;
use super::Exit;
use crate::adapters::nats::control::Operator;
use crate::core::rollout::cost::{Cost, PER_RESTART, Question};
use crate::core::rollout::shape::{Known, shape};
use crate::core::rollout::{Inventory, Limits, Outcome, Plan, PlanError, Selection, plan};
use crate::core::sys::roll::Ceiling;

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
    /// Gap between the proof of one host and the next; auto: the least that keeps --ceiling by the model of system traffic
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = stagger)]
    pub stagger: Stagger,
    /// Ceiling for the mean of system traffic into each server: bytes a second (20MB), or times the quiet rate (2x)
    #[arg(long, value_name = "BYTES", default_value = "2x", value_parser = ceiling)]
    pub ceiling: Ceiling,
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

/// A stagger, or that one is to be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stagger {
    /// The least that keeps the ceiling.
    Auto,
    /// This.
    Fixed(Duration),
}

impl Stagger {
    /// What was given.
    #[must_use]
    pub fn fixed(self) -> Option<Duration> {
        match self {
            Self::Auto => None,
            Self::Fixed(gap) => Some(gap),
        }
    }
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|e| format!("{e}; give a duration such as 30s or 2m"))
}

pub(super) fn stagger(text: &str) -> Result<Stagger, String> {
    match text {
        "auto" => Ok(Stagger::Auto),
        text => match humantime::parse_duration(text) {
            Ok(gap) => Ok(Stagger::Fixed(gap)),
            Err(e) => Err(format!("{e}; give a duration such as 30s, or auto")),
        },
    }
}

/// `20MB`, `20MB/s`, `512KiB`, `2x`.
pub(super) fn ceiling(text: &str) -> Result<Ceiling, String> {
    let bad =
        || format!("{text:?} is no ceiling; give bytes a second such as 20MB, or times the quiet rate such as 2x");
    let bare = text.trim().trim_end_matches("/s");
    let digits = bare
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(bare.len());
    let (number, unit) = bare.split_at(digits);
    let number: f64 = number.parse().map_err(|_| bad())?;
    let factor = match unit.trim().to_ascii_lowercase().as_str() {
        "x" if number <= 1.0 => return Err("a ceiling must be above the quiet rate, so more than 1x".to_owned()),
        "x" => return Ok(Ceiling::TimesQuiet(number)),
        "" | "b" => 1.0,
        "k" | "kb" => 1e3,
        "m" | "mb" => 1e6,
        "g" | "gb" => 1e9,
        "kib" => 1024.0,
        "mib" => 1024.0 * 1024.0,
        "gib" => 1024.0 * 1024.0 * 1024.0,
        _ => return Err(bad()),
    };
    match number * factor {
        bytes if bytes > 0.0 && bytes.is_finite() => Ok(Ceiling::BytesPerSecond(bytes)),
        _ => Err(bad()),
    }
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
    let forecast = match forecast(&args, &inventory, &plan) {
        Ok(forecast) => forecast,
        Err(text) => {
            console.error(&text);
            return Ok(Exit::Refused);
        }
    };
    let gap = forecast.stagger;
    console.plan(&plan, &forecast)?;
    let Some(operator) = operator else {
        return Ok(Exit::Done);
    };
    if !args.yes && !console.confirm(plan.order.len()).await? {
        console.error("not confirmed; nothing was restarted");
        return Ok(Exit::Failed);
    }
    let limits = Limits {
        stagger: gap,
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

/// The stagger, and what the model says of it. A stagger that was given needs no model.
fn forecast(args: &RestartArgs, inventory: &Inventory, plan: &Plan) -> Result<Forecast, String> {
    let ask = |known: Known| {
        Cost::of(Question {
            shape: known.shape,
            hosts: u32::try_from(plan.order.len()).unwrap_or(u32::MAX),
            at_once: args.max_unavailable,
            stagger: args.stagger.fixed(),
            ceiling: args.ceiling,
            per_restart: PER_RESTART,
        })
        .map(|cost| (cost, known.notes))
        .map_err(|e| e.to_string())
    };
    let cost = shape(inventory).map_err(|e| e.to_string()).and_then(ask);
    match (args.stagger, cost) {
        (Stagger::Fixed(stagger), cost) => Ok(Forecast {
            stagger,
            auto: false,
            cost,
        }),
        (Stagger::Auto, Ok(cost)) => Ok(Forecast {
            stagger: cost.0.stagger,
            auto: true,
            cost: Ok(cost),
        }),
        (Stagger::Auto, Err(text)) => Err(format!(
            "no stagger can be found: {text}; nothing was restarted. Give --stagger a duration to go without the model"
        )),
    }
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
    use crate::core::control::HostStatus;
    use crate::core::control::status::tests::status;
    use crate::core::ids::HostName;

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
        assert!(refused(&["--max-unavailable", "2"]).contains("one host at a time"));
        assert!(refused(&["--max-unavailable", "0"]).contains("accepts 1 only"));
        assert!(refused(&["--stagger", "30"]).contains("such as 30s"));
    }

    #[test]
    fn a_ceiling_is_a_rate_or_a_multiple_of_the_quiet_one() {
        for (text, bytes) in [
            ("20MB", 20e6),
            ("20mb/s", 20e6),
            ("1.5GiB", 1.5 * 1073741824.0),
            ("512", 512.0),
        ] {
            assert_eq!(ceiling(text), Ok(Ceiling::BytesPerSecond(bytes)), "{text}");
        }
        assert_eq!(ceiling("2.5x"), Ok(Ceiling::TimesQuiet(2.5)));
        for wrong in ["", "x", "1x", "0.5x", "0", "-5MB", "20 apples", "nan", "infMB", "MB"] {
            assert!(ceiling(wrong).is_err(), "{wrong}");
        }
        assert_eq!(stagger("auto"), Ok(Stagger::Auto));
    }

    #[test]
    fn the_defaults_are_as_documented() {
        let args = Cli::parse_from(["restart"]).args;
        assert_eq!(args.stagger, Stagger::Fixed(Duration::from_secs(30)));
        assert_eq!(args.ceiling, Ceiling::TimesQuiet(2.0));
        assert_eq!(args.timeout, Duration::from_secs(120));
        assert_eq!((args.max_unavailable, args.prefix.as_str()), (1, "watchdog"));
    }

    #[test]
    fn auto_without_a_known_shape_is_refused_and_a_given_stagger_is_not() {
        let inventory = |pool_size: Option<i64>| -> Inventory {
            ["a", "b"]
                .map(|host| {
                    let status = HostStatus {
                        roster: 2,
                        pool_size,
                        ..status(host)
                    };
                    let found = plan::Found {
                        region: status.region.clone(),
                        cluster: "C".to_owned(),
                        version: "2.10.26".to_owned(),
                        status: Some(status),
                    };
                    (HostName::new(host).unwrap(), found)
                })
                .into()
        };
        let ask = |flags: &[&str], inventory: &Inventory| {
            let args = Cli::parse_from([&["restart", "--all"], flags].concat()).args;
            let all = Selection {
                all: true,
                ..Selection::default()
            };
            forecast(&args, inventory, &plan::plan(inventory, &all).unwrap())
        };
        let refused = ask(&["--stagger", "auto"], &inventory(None)).err().unwrap();
        assert!(
            refused.contains("no stagger can be found: no agent told its server's pool_size"),
            "{refused}"
        );
        let given = ask(&["--stagger", "7s"], &inventory(None)).ok().unwrap();
        assert_eq!(given.stagger, Duration::from_secs(7));
        assert!(given.lines()[0].contains("is not known"), "{:?}", given.lines());
        assert!(given.json().is_null());

        let found = ask(&["--stagger", "auto"], &inventory(Some(3))).ok().unwrap();
        assert!(found.lines()[0].contains("the least that keeps"), "{:?}", found.lines());
        let short = ask(&["--stagger", "1s"], &inventory(Some(3))).ok().unwrap();
        assert!(short.lines()[0].contains("too short"), "{:?}", short.lines());
        let low = ask(&["--stagger", "auto", "--ceiling", "1B"], &inventory(Some(3)))
            .err()
            .unwrap();
        assert!(low.contains("raise the ceiling"), "{low}");
    }
}
