//! `watchdog plan`: what restarts would cost in system traffic, for the fleet that is there or for one that is not.
//!
//! Here: flags and the way to a [`Cost`]; the figures are `core::rollout::cost` over the model in `core::sys`.

mod chart;
mod render;
#[cfg(test)]
mod tests;

use std::time::Duration;

use clap::Args;

use super::connect_flags::ConnectFlags;
use super::output::{self, Format, Output};
use super::restart::{Stagger, ceiling, inventory, stagger};
use super::{Exit, Failure};
use crate::adapters::nats::connect;
use crate::core::rollout::advice::{self, Advice};
use crate::core::rollout::cost::{Cost, Question};
use crate::core::rollout::shape::{Known, shape};
use crate::core::sys::model::{ServerVersion, Shape};
use crate::core::sys::roll::Ceiling;

/// A server that does not answer in this time is not there.
const CONNECT: Duration = Duration::from_secs(5);

/// What restarts would cost in $SYS messages and bytes, the stagger that keeps them under a ceiling, and how long a roll takes
#[derive(Debug, Args)]
#[command(after_help = "\
Without --servers, agents are asked for the shape of the fleet, as `watchdog restart --dry-run` does.

Example:
  watchdog plan
  watchdog plan --servers 900 --clusters 9 --server-version 2.10.26 --pool-size 3 --clients-per-server 200
  watchdog plan --servers 900 --clusters 9 --server-version 2.10.26 --pool-size=-1 --stagger 30s --ceiling 20MB

Exit codes:
  0  done
  1  failed: no connection
  2  usage
  3  refused: the fleet's shape is not known, or no stagger keeps the ceiling")]
pub(super) struct Plan {
    #[command(flatten)]
    fleet: Fleet,
    /// From the proof of one host to the next: a duration, or auto for the least that keeps the ceiling
    #[arg(long, value_name = "DURATION", default_value = "auto", value_parser = stagger)]
    stagger: Stagger,
    /// Ceiling for the mean of system traffic into each server: bytes a second (20MB), or times the quiet rate (2x)
    #[arg(long, value_name = "BYTES", value_parser = ceiling, default_value = "2x")]
    ceiling: Ceiling,
    /// Servers restarted at a time
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    max_unavailable: u32,
    /// How long one restart takes with its proof
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = crate::cli::words::a_duration)]
    per_restart: Duration,
    /// Prefix of the agents' subjects
    #[arg(long, value_name = "PREFIX", default_value = "watchdog")]
    prefix: String,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connect: ConnectFlags,
}

// A fleet that is not there.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "A fleet that is not there")]
#[allow(missing_docs, reason = "clap would take a doc comment for what the command is about")]
pub(super) struct Fleet {
    /// Servers of the whole fleet
    #[arg(long, value_name = "N", requires = "server_version", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    servers: Option<u32>,
    /// Clusters that they are in
    #[arg(long, value_name = "N", default_value_t = 1, requires = "servers", value_parser = clap::value_parser!(u32).range(1..))]
    clusters: u32,
    /// Version of nats-server
    #[arg(long, value_name = "VERSION", requires = "servers")]
    server_version: Option<ServerVersion>,
    /// Route connections per peer without pinned accounts; -1 = one for all [default: 3, the server's own]
    #[arg(long, value_name = "N", requires = "servers", allow_negative_numbers = true)]
    pool_size: Option<i32>,
    /// Accounts with a route connection of their own, the system account among them
    #[arg(long, value_name = "N", default_value_t = 1, requires = "servers")]
    pinned: u32,
    /// Clients on each server
    #[arg(long, value_name = "N", default_value_t = 0, requires = "servers")]
    clients_per_server: u32,
    /// Accounts that have clients on each server [default: 1 where there are clients]
    #[arg(long, value_name = "N", requires = "servers")]
    accounts: Option<u32>,
    /// Restarts begin with a lame duck
    #[arg(long, requires = "servers")]
    lame_duck: bool,
}

/// An answer as it is shown.
pub(super) struct Answer {
    pub(super) cost: Cost,
    pub(super) advice: Vec<Advice>,
    pub(super) notes: Vec<String>,
    /// The shape was read from the fleet.
    pub(super) live: bool,
}

impl Plan {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let (known, gossiped, live) = match self.fleet.known().map_err(|e| Failure::usage(anyhow::anyhow!(e)))? {
            Some(known) => (known, None, false),
            None => match self.look()? {
                Ok((known, gossiped)) => (known, gossiped, true),
                Err(text) => return Ok(refused(&text)),
            },
        };
        let question = Question {
            hosts: known.shape.servers,
            shape: known.shape,
            at_once: self.max_unavailable,
            stagger: self.stagger.fixed(),
            ceiling: self.ceiling,
            per_restart: self.per_restart,
        };
        let cost = match Cost::of(question) {
            Ok(cost) => cost,
            Err(e) => return Ok(refused(&e.to_string())),
        };
        let answer = Answer {
            advice: advice::advice(&cost, gossiped),
            cost,
            notes: known.notes,
            live,
        };
        match self.output.output {
            Format::Json => output::print_json(&render::json(&answer))?,
            Format::Text => output::print(&render::text(&answer, output::paint(), chart::Glyphs::of_stdout()))?,
        }
        Ok(Exit::Done)
    }

    /// Asks the agents.
    fn look(&self) -> anyhow::Result<Result<(Known, Option<bool>), String>> {
        super::runtime()?.block_on(async {
            let to = self.connect.resolve()?;
            let client = connect::connect(&to, "watchdog plan", CONNECT).await?;
            let beacons = inventory::listen(&client, &self.prefix).await?;
            let (found, _) = inventory::take(&client, &self.prefix, beacons).await;
            let told: Vec<bool> = found
                .values()
                .filter_map(|f| f.status.as_ref()?.gossiped_routes)
                .collect();
            let gossiped = (!told.is_empty()).then(|| told.contains(&true));
            Ok(shape(&found).map(|known| (known, gossiped)).map_err(|e| {
                format!("{e}\nTo ask for a fleet that is not there, give --servers, --clusters and --server-version.")
            }))
        })
    }
}

impl Fleet {
    /// The shape given, if one was.
    fn known(&self) -> Result<Option<Known>, String> {
        let (Some(servers), Some(version)) = (self.servers, self.server_version) else {
            return Ok(None);
        };
        if self.clusters > servers {
            return Err(format!(
                "--clusters {} of --servers {servers}: a cluster has a server at least",
                self.clusters
            ));
        }
        let clients = self.clients_per_server;
        let mut notes = Vec::new();
        if !servers.is_multiple_of(self.clusters) {
            notes.push(format!(
                "{servers} servers do not divide by {} clusters; means are used.",
                self.clusters
            ));
        }
        if !version.pools_routes() && self.pool_size.is_some() {
            notes.push(format!(
                "{version} has no route pools; the pool size has no meaning for it."
            ));
        }
        let shape = Shape {
            pool_size: self.pool_size.unwrap_or(3),
            pinned: self.pinned,
            clients_per_server: clients,
            accounts: self.accounts.unwrap_or(u32::from(clients > 0)),
            lame_duck: self.lame_duck,
            ..Shape::new(servers, self.clusters, version)
        };
        Ok(Some(Known {
            versions: [(version, servers)].into(),
            shape,
            notes,
        }))
    }
}

fn refused(text: &str) -> Exit {
    output::warn(&format!("plan: {text}"));
    Exit::Refused
}
