//! `watchdog permits`, `watchdog pause`, `watchdog resume`: the permit document, from any machine that reaches its store.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};
use serde_json::json;

use super::connect_flags::ConnectFlags;
use super::output::{self, Format, Output};
use super::words::{Paint, Tone, time};
use super::{Exit, Failure, restart};
use crate::adapters::nats::connect;
use crate::adapters::nats::control::Operator;
use crate::adapters::store::edit::{self, EditError};
use crate::adapters::store::register;
use crate::config::Env;
use crate::config::permits::{PermitStore, load_permits};
use crate::core::control::{Answer, Verb};
use crate::core::ids::{HostName, Region, Wall};
use crate::core::permit::document::{Document, Phase, Scope};
use crate::core::permit::rollout;
use crate::core::permit::rules::{self, By};

/// A server that does not answer in this time is not there.
const CONNECT: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
struct Store {
    /// Configuration file whose [permits] says where they are [default: /etc/watchdog/watchdog.toml]
    #[arg(short, long, value_name = "FILE", env = "WATCHDOG_CONFIG", global = true)]
    config: Option<PathBuf>,
}

/// Stop automation, and every restart, in the fleet, a region or a host
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  watchdog pause --region iad --reason 'network maintenance' --for 2h

Exit codes:
  0  paused
  1  the store does not answer, or its document cannot be used
  2  usage or configuration: also where no store is configured")]
pub(super) struct Pause {
    #[command(flatten)]
    whole: Where,
    /// Why; everybody who is held back reads it
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// For how long [default: until resumed]
    #[arg(long = "for", value_name = "DURATION", value_parser = crate::cli::words::a_duration)]
    length: Option<Duration>,
    #[command(flatten)]
    store: Store,
    #[command(flatten)]
    output: Output,
}

/// End a pause of the fleet, a region or a host, and let agents there try anew what they gave up
#[derive(Debug, Args)]
#[command(
    long_about = "Ends the pause of the fleet, a region or a host, if there is one, and lets the agents there try anew what they \
gave up or hold as flapping. Through the store of permits, where [permits] names one; else by a signed command to one host.",
    after_help = "\
Example:
  watchdog resume --region iad --reason 'maintenance is over'
  watchdog resume --host iad-1 --operator operator.nk --reason 'cable replaced'

Exit codes:
  0  resumed, whether there was a pause or not
  1  the store or the agent does not answer, or the document cannot be used
  2  usage or configuration
  3  the agent refused the command"
)]
pub(super) struct Resume {
    #[command(flatten)]
    whole: Where,
    /// Why; kept in the document, or in the history of the host
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// Without a store: file with the operator's NKEY seed, which signs the command
    #[arg(long, value_name = "FILE", env = "WATCHDOG_OPERATOR")]
    operator: Option<PathBuf>,
    /// Without a store: prefix of the agents' subjects
    #[arg(long, value_name = "PREFIX", default_value = "watchdog")]
    prefix: String,
    #[command(flatten)]
    store: Store,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connect: ConnectFlags,
}

#[derive(Debug, Args)]
struct Where {
    /// Only this region [default: the fleet]
    #[arg(long, value_name = "REGION", conflicts_with = "host")]
    region: Option<Region>,
    /// Only this host
    #[arg(long, value_name = "HOST")]
    host: Option<HostName>,
}

impl Where {
    fn scope(&self) -> Scope {
        match (&self.region, &self.host) {
            (Some(region), _) => Scope::Region(region.clone()),
            (None, Some(host)) => Scope::Host(host.clone()),
            (None, None) => Scope::Fleet,
        }
    }
}

/// Who holds permits, what is paused; release the permit of a host that failed or vanished
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  watchdog permits
  watchdog permits release iad-1 --reason 'disk replaced, server is well'

Exit codes:
  0  done
  1  the store does not answer, or its document cannot be used
  2  usage or configuration: also where no store is configured
  3  the host holds no permit")]
pub(super) struct Permits {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    store: Store,
    /// How to print
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t, global = true)]
    output: Format,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Who holds what, since when, why; what is paused
    #[command(
        after_help = "Example:\n  watchdog permits list --output json\n\nExit codes:\n  as of `watchdog permits`"
    )]
    List,
    /// Release the permit of a host; if it restarts right now, that goes on
    #[command(
        after_help = "Example:\n  watchdog permits release iad-1 --reason 'it is well again'\n\nExit codes:\n  as of `watchdog permits`"
    )]
    Release {
        /// The host
        host: HostName,
        /// Why; kept in the document
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
}

impl Pause {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let (scope, by) = (self.whole.scope(), by(self.reason)?);
        let change = |doc: &Document| Ok((rules::pause(doc, scope.clone(), &by, self.length, now()), ()));
        let (doc, ()) = with(&self.store, async |r| edit::edit(r, change).await)?;
        tell(&doc, &format!("{scope} is paused."), self.output.output)
    }
}

impl Resume {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let settings = load_permits(self.store.config.as_deref(), &Env::system()).map_err(Failure::usage)?;
        if settings.store == PermitStore::Slots {
            return self.signed();
        }
        let scope = self.whole.scope();
        let by = By {
            who: who(),
            why: self.reason,
        };
        let change = |doc: &Document| Ok(rules::resume(doc, &scope, &by, now()));
        let (doc, ended) = with(&self.store, async |r| edit::edit(r, change).await)?;
        let pause = match ended {
            Some(_) => format!("The pause of {scope} is over"),
            None => format!("There was no pause of {scope}"),
        };
        let done = format!("{pause}; agents there try anew what they gave up.");
        tell(&doc, &done, self.output.output)
    }

    /// There is no document that all agents read: one is told by name.
    fn signed(self) -> Result<Exit, Failure> {
        let (Some(host), Some(seed)) = (self.whole.host, self.operator) else {
            return Err(Failure::usage(anyhow::anyhow!(
                "permits.store is \"slots\": there is no document of permits and no pause to end; to let one agent try anew \
                 what it gave up, give --host HOST and --operator FILE"
            )));
        };
        let operator = Operator::from_file(&seed).map_err(Failure::usage)?;
        let to = self.connect.resolve().map_err(Failure::usage)?;
        let (prefix, reason) = (self.prefix, self.reason);
        let answer = super::runtime()?.block_on(async {
            let client = connect::connect(&to, "watchdog resume", CONNECT).await?;
            restart::tell(&client, &prefix, operator, &reason, &host, Verb::Resume).await
        })?;
        let done = match answer {
            Answer::Accepted { .. } => format!("The agent of {host} tries anew what it gave up."),
            Answer::Refused { text, .. } => {
                let error = anyhow::anyhow!("{host} refused: {text}");
                return Err(Failure {
                    exit: Exit::Refused,
                    error,
                });
            }
            other => return Err(anyhow::anyhow!("{host} answered something else: {other:?}").into()),
        };
        match self.output.output {
            Format::Json => output::print_json(&json!({ "done": done }))?,
            Format::Text => output::print(&format!("{done}\n"))?,
        }
        Ok(Exit::Done)
    }
}

impl Permits {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        match self.what {
            None | Some(What::List) => {
                let doc = with(&self.store, async |r| edit::read(r).await)?;
                tell(&doc, "", self.output)
            }
            Some(What::Release { host, reason }) => {
                let by = by(reason)?;
                let change = |doc: &Document| rules::force_release(doc, &host, &by, now());
                let (doc, held) = with(&self.store, async |r| edit::edit(r, change).await)?;
                let text = format!(
                    "The permit of {host} is released ({}, {}).",
                    phase(held.phase),
                    held.why
                );
                tell(&doc, &text, self.output)
            }
        }
    }
}

fn by(why: String) -> Result<By, Failure> {
    if why.trim().is_empty() {
        return Err(Failure::usage(anyhow::anyhow!(
            "--reason is empty: say why, others will read it"
        )));
    }
    Ok(By { who: who(), why })
}

fn who() -> String {
    let user = ["SUDO_USER", "USER", "LOGNAME"]
        .iter()
        .find_map(|name| std::env::var(name).ok());
    let machine = Env::system().hostname.unwrap_or_default();
    format!("{}@{}", user.unwrap_or_else(|| "somebody".to_owned()), machine.trim())
}

fn now() -> Wall {
    Wall(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn with<T>(store: &Store, work: impl AsyncFnOnce(&register::Permits) -> Result<T, EditError>) -> Result<T, Failure> {
    let settings = load_permits(store.config.as_deref(), &Env::system()).map_err(Failure::usage)?;
    super::runtime()?.block_on(async {
        let opened = register::open(&settings, "watchdog permits").await;
        let register = opened.map_err(|e| Failure::usage(anyhow::anyhow!(e)))?.ok_or_else(|| {
            Failure::usage(anyhow::anyhow!(
                "permits.store is \"slots\": there is no document of permits and nothing to pause; configure a store, or \
                 set remediation.mode = \"observe\" and reload the agents"
            ))
        })?;
        work(&register).await.map_err(|e| {
            let exit = if matches!(e, EditError::Nothing(_)) { Exit::Refused } else { Exit::Failed };
            let error = anyhow::Error::from(e).context(settings.store.name());
            Failure { exit, error }
        })
    })
}

fn tell(doc: &Document, done: &str, format: Format) -> Result<Exit, Failure> {
    match format {
        Format::Json => output::print_json(&json!({ "done": done, "document": doc }))?,
        Format::Text => output::print(&render(doc, done, now(), output::paint()))?,
    }
    Ok(Exit::Done)
}

fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Taken => "taken",
        Phase::Acting => "acting",
        Phase::Failed => "failed",
    }
}

pub(super) fn render(doc: &Document, done: &str, at: Wall, paint: Paint) -> String {
    let mut text = String::new();
    if !done.is_empty() {
        text += &format!("{done}\n\n");
    }
    text += &paint.heading("Permits");
    if doc.holders.is_empty() {
        text += "\n  nobody holds one\n";
    } else {
        let rows = doc.holders.iter().map(|h| {
            let (tone, state) = match (h.vanished(at), h.phase) {
                (true, _) => (Tone::Bad, "vanished"),
                (false, Phase::Failed) => (Tone::Bad, "failed"),
                (false, p) => (Tone::Plain, phase(p)),
            };
            vec![
                (Tone::Plain, h.host.to_string()),
                (Tone::Plain, h.region.to_string()),
                (tone, state.to_owned()),
                (Tone::Dim, time(h.since.into())),
                (Tone::Plain, h.why.clone()),
                (Tone::Plain, h.note.clone()),
            ]
        });
        text += "\n";
        text += &paint.table(&["host", "region", "state", "since", "why", "note"], rows.collect());
    }
    text += "\n";
    text += &paint.heading("Pauses");
    let open = doc.pauses.iter().filter(|p| p.until.is_none_or(|u| at < u.wall()));
    let rows: Vec<_> = open
        .map(|p| {
            vec![
                (Tone::Bad, p.scope.to_string()),
                (Tone::Plain, p.who.clone()),
                (Tone::Dim, time(p.since.into())),
                (
                    Tone::Plain,
                    p.until.map_or_else(|| "resumed".to_owned(), |u| time(u.into())),
                ),
                (Tone::Plain, p.why.clone()),
            ]
        })
        .collect();
    if rows.is_empty() {
        text += "\n  nothing is paused\n";
    } else {
        text += "\n";
        text += &paint.table(&["paused", "by", "since", "until", "why"], rows);
    }
    text += "\n";
    text += &paint.heading("Rollout");
    text += &match rollout::read(doc) {
        Err(bad) => format!("\n  {}\n", paint.text(Tone::Bad, &bad.to_string())),
        Ok(None) => "\n  none is open\n".to_owned(),
        Ok(Some(record)) => {
            let open = record.summary();
            let state = open
                .halted
                .map_or("is open".to_owned(), |why| format!("has halted ({why})"));
            let why = if open.reason.is_empty() {
                String::new()
            } else {
                format!(": {}", open.reason)
            };
            let since = time(Duration::from_millis(open.started_ms).as_secs_f64());
            format!(
                "\n  {} {state}, since {since} by {}{why}\n  {} of {} hosts proved\n",
                open.id, open.by, open.proved, open.hosts
            )
        }
    };
    text
}
