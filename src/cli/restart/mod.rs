//! `watchdog restart`: the rolling restart, from the operator's side.
//!
//! Here: flags, the order of questions, exit codes. The rollout itself is `core::rollout`; `drive` carries its
//! questions to the hosts, `show` tells the operator.

mod drive;
mod forecast;
mod go_on;
pub(super) mod inventory;
mod live;
mod record;
pub mod show;
mod store;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use self::forecast::Forecast;
use self::show::Console;
use self::store::{GaveUp, Store};
use super::Exit;
use crate::adapters::nats::control::{Operator, ask};
use crate::core::control::roll::{RECORD_VERSION, Record, RecordHost};
use crate::core::control::{Answer, LameDuck, RestartOrder, Verb};
use crate::core::ids::HostName;
use crate::core::rollout::cost::{Cost, PER_RESTART, Question};
use crate::core::rollout::plan::Found;
use crate::core::rollout::resume::resume;
use crate::core::rollout::shape::{Known, shape};
use crate::core::rollout::{Exclude, Filter, Inventory, Limits, Outcome, Plan, PlanError, Selection, Waves, plan};
use crate::core::sys::roll::Ceiling;

/// How long an agent may take to answer.
const ANSWER: Duration = Duration::from_secs(5);

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
    long_about = "Restarts the nats-servers of the selected hosts through their agents, one at a time, in waves: one canary, its region, then more. After each: proof \
(healthz, peers and gateways back, heard by others again, three good reads), then the stagger, then the next. The \
first failure halts.",
    after_help = "\
Example:
  watchdog restart --region iad --dry-run
  watchdog restart --region iad --stagger 30s --operator /etc/watchdog/operator.nk --reason 'new certificates'
  watchdog restart --all --where 'version<2.10.26' --hook upgrade --reason 'upgrade to 2.10.26'
  watchdog restart --resume 5f0c2a91

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
    /// Restart the hosts of this cluster; repeat for more; with --region: those that are in both
    #[arg(long, value_name = "CLUSTER")]
    pub cluster: Vec<String>,
    /// Of those selected, or of all, only the ones for which this holds: host, region, cluster, version, clients, leaders
    #[arg(long = "where", value_name = "EXPR", value_parser = Filter::parse)]
    pub filter: Option<Filter>,
    /// Leave this host out, or those for which an expression holds; repeat for more
    #[arg(long, value_name = "HOST|EXPR", value_parser = Exclude::parse)]
    pub exclude: Vec<Exclude>,
    /// Restart every host that is heard, as far as --where and --exclude leave them
    #[arg(long)]
    pub all: bool,
    /// How it grows: numbers of hosts, shares, `region` (the rest of the canary's) and `all`
    #[arg(long, value_name = "WAVES", default_value = "1,region,25%,all")]
    pub waves: Waves,
    /// Gap between the proof of one host and the next; auto: the least that keeps --ceiling by the model of system traffic
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = stagger)]
    pub stagger: Stagger,
    /// Ceiling for the mean of system traffic into each server: bytes a second (20MB), or times the quiet rate (2x)
    #[arg(long, value_name = "BYTES", default_value = "2x", value_parser = ceiling)]
    pub ceiling: Ceiling,
    /// Chance adds up to this share to each gap, in percent
    #[arg(long, value_name = "PERCENT", default_value = "10", value_parser = clap::value_parser!(u32).range(0..=100))]
    pub jitter: u32,
    /// Hosts that may be down at a time, in all; never two of one region
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub max_unavailable: u32,
    /// Drain clients first: where there are any, never, or always
    #[arg(long, value_name = "WHEN", default_value = "auto", value_parser = lame_duck)]
    pub lame_duck: LameDuck,
    /// Run this hook of each agent's own configuration while its server is stopped
    #[arg(long, value_name = "NAME")]
    pub hook: Option<String>,
    /// Go on with a rollout that is open: as it was planned, from what the hosts report
    #[arg(long, value_name = "ID", conflicts_with_all = ["host", "region", "cluster", "filter", "exclude", "all", "hook", "abort", "dry_run"])]
    pub resume: Option<String>,
    /// Give a rollout up that is open: nothing is undone, and another may begin
    #[arg(long, value_name = "ID", conflicts_with_all = ["host", "region", "cluster", "filter", "exclude", "all", "hook", "dry_run"])]
    pub abort: Option<String>,
    /// Where the store of permits does not answer or has garbage, restart all the same: nothing then keeps others from
    /// restarting at the same time; each agent records it
    #[arg(long)]
    pub without_store: bool,
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
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = crate::cli::words::a_duration)]
    pub timeout: Duration,
    /// Configuration file whose `[permits]` says where the agents keep permits [default: /etc/watchdog/watchdog.toml]
    #[arg(short, long, value_name = "FILE", env = "WATCHDOG_CONFIG")]
    pub config: Option<PathBuf>,
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

fn lame_duck(text: &str) -> Result<LameDuck, String> {
    LameDuck::parse(text).ok_or_else(|| "give auto, never or always".to_owned())
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
    let store = match store(&args).await {
        Ok(store) => store,
        Err(text) => {
            console.error(&text);
            return Ok(Exit::Usage);
        }
    };
    let beacons = inventory::listen(&client, &args.prefix).await?;
    let (inventory, beacons) = inventory::take(&client, &args.prefix, beacons).await;
    if let Some(id) = &args.abort {
        return abort(&args, id, &client, operator, store.as_ref(), &inventory, console).await;
    }
    let stored = match stored(store.as_ref(), &args, &inventory).await {
        Ok(stored) => stored,
        Err((exit, text)) => {
            console.error(&text);
            return Ok(exit);
        }
    };
    let made = match &args.resume {
        Some(id) => going_on(&args, id, &client, stored, &inventory).await,
        None => begun(&args, &stored, &inventory),
    };
    let mut course = match made {
        Ok(course) => course,
        Err((exit, text)) => {
            console.error(&text);
            return Ok(exit);
        }
    };
    let stagger = match args.resume {
        Some(_) => Stagger::Fixed(course.limits.stagger),
        None => args.stagger,
    };
    let forecast = match forecast(&args, stagger, course.record.max_unavailable, &inventory, &course.plan) {
        Ok(forecast) => forecast,
        Err(text) => {
            console.error(&text);
            return Ok(Exit::Refused);
        }
    };
    course.limits.stagger = forecast.stagger;
    course.limits.ceiling = forecast.ceiling();
    course.record.stagger_ms = millis(forecast.stagger);
    console.plan(&course.plan, &forecast)?;
    let Some(operator) = operator else {
        return Ok(Exit::Done);
    };
    if !args.yes && !console.confirm(course.plan.order.len()).await? {
        console.error("not confirmed; nothing was restarted");
        return Ok(Exit::Failed);
    }
    let orders = drive::Orders {
        operator,
        reason: course.record.reason.clone(),
        prefix: args.prefix.clone(),
        without_store: args.without_store,
    };
    let board = record::Board::new(&client, &orders, store, &inventory);
    if let Err(text) = board.open(&course.record).await {
        console.error(&text);
        return Ok(Exit::Refused);
    }
    let outcome = drive::drive(&client, &orders, course, &inventory, board, beacons, console).await?;
    console.outcome(&outcome)?;
    Ok(match outcome {
        Outcome::Done(_) => Exit::Done,
        Outcome::Halted(halt) if halt.refused_at_once() => Exit::Refused,
        Outcome::Halted(halt) if halt.untouched() => Exit::Failed,
        Outcome::Halted(_) => Exit::Halted,
    })
}

/// One signed command to one host, outside of any rollout.
///
/// # Errors
/// It did not answer; it may have taken the command all the same.
pub(super) async fn tell(
    client: &async_nats::Client,
    prefix: &str,
    operator: Operator,
    reason: &str,
    host: &HostName,
    verb: Verb,
) -> anyhow::Result<Answer> {
    let (prefix, reason) = (prefix.to_owned(), reason.to_owned());
    let orders = drive::Orders {
        operator,
        reason,
        prefix,
        without_store: false,
    };
    let command = orders.command(host.clone(), verb, Default::default(), "");
    let envelope = orders.operator.sign(&command);
    Ok(ask(client, &orders.prefix, host, &envelope, ANSWER).await?)
}

/// The stagger, and what the model says of it. A stagger that was given needs no model.
fn forecast(
    args: &RestartArgs,
    stagger: Stagger,
    at_once: usize,
    inventory: &Inventory,
    plan: &Plan,
) -> Result<Forecast, String> {
    let ask = |known: Known| {
        Cost::of(Question {
            shape: known.shape,
            hosts: u32::try_from(plan.order.len()).unwrap_or(u32::MAX),
            at_once: u32::try_from(at_once).unwrap_or(u32::MAX),
            stagger: stagger.fixed(),
            ceiling: args.ceiling,
            per_restart: PER_RESTART,
        })
        .map(|cost| (cost, known.notes))
        .map_err(|e| e.to_string())
    };
    let cost = shape(inventory).map_err(|e| e.to_string()).and_then(ask);
    match (stagger, cost) {
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

fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

/// The permit store of the configuration; a plan that is only shown needs none.
async fn store(args: &RestartArgs) -> Result<Option<Store>, String> {
    if args.dry_run {
        return Ok(None);
    }
    Store::configured(args.config.as_deref()).await
}

/// What is known of the permit store, where there is one.
enum Stored {
    /// There is none: what hosts say counts.
    No,
    /// The rollout that is open there, if any.
    Yes(Option<Box<Record>>),
}

/// Agents that take their permits from a store restart nothing for a rollout that is not open there.
async fn stored(store: Option<&Store>, args: &RestartArgs, inventory: &Inventory) -> Result<Stored, (Exit, String)> {
    let Some(store) = store else {
        let says_so = |(host, found): (&HostName, &Found)| {
            found
                .status
                .as_ref()
                .is_some_and(|s| s.restart.store)
                .then(|| host.clone())
        };
        return match inventory.iter().find_map(says_so).filter(|_| !args.dry_run) {
            None => Ok(Stored::No),
            Some(host) => Err((
                Exit::Usage,
                format!(
                    "{host} takes its permits from a store, and a rollout must be open there: give the configuration file \
                     whose [permits] names it (--config FILE)"
                ),
            )),
        };
    };
    match store.read().await {
        Ok(record) => Ok(Stored::Yes(record.map(Box::new))),
        Err(text) => Err((Exit::Refused, format!("{text}; nothing was restarted"))),
    }
}

/// The rollout that stands in the way of a new one.
fn in_the_way(stored: &Stored, inventory: &Inventory) -> Option<String> {
    let (rollout, known) = match stored {
        // What hosts remember beside it is over, and they were not told.
        Stored::Yes(record) => (record.as_ref()?.summary(), "open in the permit store".to_owned()),
        Stored::No => {
            let (_, (rollout, hosts)) = record::open_ones(inventory).pop_first()?;
            let known = format!("known to {} of {} hosts", hosts.len(), inventory.len());
            (rollout, known)
        }
    };
    let state = rollout
        .halted
        .map_or("is under way".to_owned(), |why| format!("has halted ({why})"));
    Some(format!(
        "rollout {id} of {} {state}: {} of {} hosts proved, {known}; go on with `watchdog restart --resume {id}` or give it up with `watchdog restart --abort {id}`",
        rollout.by,
        rollout.proved,
        rollout.hosts,
        id = rollout.id,
    ))
}

/// A new rollout.
fn begun(args: &RestartArgs, stored: &Stored, inventory: &Inventory) -> Result<drive::Course, (Exit, String)> {
    let selection = Selection {
        hosts: args.host.clone(),
        regions: args.region.clone(),
        clusters: args.cluster.clone(),
        filter: args.filter.clone(),
        exclude: args.exclude.clone(),
        all: args.all,
    };
    let order = RestartOrder {
        lame_duck: args.lame_duck,
        hook: args.hook.clone(),
        term: 0,
    };
    let refused = |e: PlanError| (if e.is_gate() { Exit::Refused } else { Exit::Usage }, e.to_string());
    let mut plan = plan::plan(inventory, &selection, &args.waves).map_err(refused)?;
    plan.prepare(inventory, &order).map_err(refused)?;
    if let Some(text) = in_the_way(stored, inventory) {
        return Err((Exit::Refused, text));
    }
    let record = Record {
        v: RECORD_VERSION,
        id: format!("{:08x}", rand::random::<u32>()),
        term: 0,
        seq: 1,
        by: drive::who(),
        reason: args.reason.clone(),
        started_ms: drive::now_ms(),
        hosts: plan
            .order
            .iter()
            .map(|p| RecordHost {
                host: p.host.clone(),
                wave: p.wave,
                version: p.version.clone(),
                proved: false,
            })
            .collect(),
        // What `auto` finds comes later.
        stagger_ms: millis(args.stagger.fixed().unwrap_or_default()),
        jitter: args.jitter,
        max_unavailable: args.max_unavailable as usize,
        timeout_ms: millis(args.timeout),
        order,
        halted: None,
    };
    Ok(drive::Course {
        limits: limits(&record),
        record,
        plan,
        adopted: Vec::new(),
        done: Vec::new(),
    })
}

/// One that is open.
async fn going_on(
    args: &RestartArgs,
    id: &str,
    client: &async_nats::Client,
    stored: Stored,
    inventory: &Inventory,
) -> Result<drive::Course, (Exit, String)> {
    let refused = |e: PlanError| (Exit::Refused, e.to_string());
    let known = record::newest(client, &args.prefix, inventory, id).await;
    let newest = match stored {
        Stored::No => known.ok_or_else(|| unknown(id, inventory)),
        // A host may have been told what the store was not, when that did not answer.
        Stored::Yes(Some(record)) if record.id == id => Ok(known
            .into_iter()
            .fold(*record, |a, b| if b.age() > a.age() { b } else { a })),
        Stored::Yes(other) => Err(not_stored(id, other.as_deref())),
    };
    let mut record = newest.map_err(|text| (Exit::Usage, text))?;
    let mut resumed = resume(inventory, &record).map_err(refused)?;
    resumed.plan.prepare(inventory, &record.order).map_err(refused)?;
    record.term += 1;
    record.seq += 1;
    record.halted = None;
    for entry in &mut record.hosts {
        entry.proved |= resumed.done.contains(&entry.host);
    }
    Ok(drive::Course {
        limits: limits(&record),
        record,
        plan: resumed.plan,
        adopted: resumed.adopted,
        done: resumed.done,
    })
}

fn limits(record: &Record) -> Limits {
    Limits {
        stagger: Duration::from_millis(record.stagger_ms),
        jitter: record.jitter,
        seed: rand::random(),
        max_unavailable: record.max_unavailable.max(1),
        timeout: Duration::from_millis(record.timeout_ms),
        ..Limits::default()
    }
}

async fn abort(
    args: &RestartArgs,
    id: &str,
    client: &async_nats::Client,
    operator: Option<Operator>,
    store: Option<&Store>,
    inventory: &Inventory,
    console: &mut Console,
) -> anyhow::Result<Exit> {
    let stored = match store {
        None => None,
        Some(store) => match store.give_up(id, &args.reason).await {
            Ok(record) => Some(record.summary()),
            Err(GaveUp::NotThere) => None,
            Err(GaveUp::Failed(text)) => {
                console.error(&text);
                return Ok(Exit::Refused);
            }
        },
    };
    let open = record::open_ones(inventory);
    let hosts = open.get(id).map_or(0, |(_, hosts)| hosts.len());
    let rollout = stored.or_else(|| open.get(id).map(|(rollout, _)| rollout.clone()));
    let (Some(operator), Some(rollout)) = (operator, rollout) else {
        console.error(&unknown(id, inventory));
        return Ok(Exit::Usage);
    };
    let orders = drive::Orders {
        operator,
        reason: args.reason.clone(),
        prefix: args.prefix.clone(),
        without_store: false,
    };
    let left = record::Board::new(client, &orders, None, inventory)
        .close_at_hosts(id)
        .await;
    if left.is_empty() {
        console.error(&format!(
            "rollout {id} is given up: {} of {} hosts were proved, nothing is undone; it was known to {hosts} of {} hosts",
            rollout.proved,
            rollout.hosts,
            inventory.len()
        ));
        return Ok(Exit::Done);
    }
    if store.is_some() {
        console.error(&format!(
            "rollout {id} is given up in the permit store; {} of {} hosts were not told and learn it from there",
            left.len(),
            inventory.len()
        ));
        return Ok(Exit::Done);
    }
    let names: Vec<&str> = left.iter().map(crate::core::ids::HostName::as_str).collect();
    console.error(&format!(
        "rollout {id} is given up, except at {}, which did not take it; say it again",
        names.join(", ")
    ));
    Ok(Exit::Failed)
}

fn not_stored(id: &str, other: Option<&Record>) -> String {
    match other {
        None => format!("rollout {id:?} is not open in the permit store: it has ended or was given up; none is open"),
        Some(other) => format!("rollout {id:?} is not open in the permit store; open is {}", other.id),
    }
}

fn unknown(id: &str, inventory: &Inventory) -> String {
    let open = record::open_ones(inventory);
    let known: Vec<&str> = open.keys().map(String::as_str).collect();
    match known.as_slice() {
        [] => format!("no host knows a rollout {id:?}; none is open"),
        known => format!("no host knows a rollout {id:?}; open is {}", known.join(", ")),
    }
}

/// What can be known to be wrong before anything is asked; the key, unless it is a dry run.
fn ready(args: &RestartArgs, console: &Console) -> Result<Option<Operator>, String> {
    let goes_on = args.resume.is_some() || args.abort.is_some();
    let some = !args.host.is_empty() || !args.region.is_empty() || !args.cluster.is_empty();
    if !args.all && !some && args.filter.is_none() && !goes_on {
        return Err(PlanError::NothingSelected.to_string());
    }
    if args.all && some {
        return Err(PlanError::AllAndSome.to_string());
    }
    if args.dry_run {
        return Ok(None);
    }
    if !args.yes && args.abort.is_none() && !console.interactive() {
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
        assert!(refused(&["--max-unavailable", "0"]).contains("1..=100"));
        assert!(refused(&["--where", "version<"]).contains("expected a value"));
        assert!(refused(&["--waves", "1,2"]).contains("must be `all`"));
        assert!(refused(&["--lame-duck", "maybe"]).contains("auto, never or always"));
        assert!(refused(&["--resume", "x", "--all"]).contains("cannot be used with"));
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
            let plan = plan::plan(inventory, &all, &Waves::default()).unwrap();
            forecast(&args, args.stagger, 1, inventory, &plan)
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
