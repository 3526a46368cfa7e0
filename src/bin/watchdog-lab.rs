//! `watchdog-lab`: real nats-servers in regions on this machine, with faults on demand.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use nats_watchdog::lab::{self, AgentSpec, Lab, LabSpec, Load, Reply, Routes, Topology, cost};
use tokio::signal::unix::{SignalKind, signal};

/// Real nats-servers in regions on this machine, one agent each, with faults on demand.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Bring a lab up and keep it until Ctrl-C.
    ///
    /// Example: watchdog-lab up --regions iad,fra,nrt --per-region 2 --agents reset
    Up(Shape),
    /// Ask a running lab for something.
    ///
    /// Example: watchdog-lab ctl --addr 127.0.0.1:4567 stall iad-1 fra-2
    Ctl {
        /// The control address that `up` printed.
        #[arg(long, env = "WATCHDOG_LAB")]
        addr: String,
        #[command(subcommand)]
        command: lab::Command,
    },
    /// Publish beacons of simulated sources into a server until Ctrl-C, and answer their probes.
    ///
    /// Example: watchdog-lab load --url nats://127.0.0.1:4222 --sources 200 --regions 10
    Load {
        /// The server.
        #[arg(long)]
        url: String,
        /// User.
        #[arg(long, default_value = "watchdog")]
        user: String,
        /// Password.
        #[arg(long, default_value = "watchdog")]
        password: String,
        /// Sources.
        #[arg(long, default_value_t = 200)]
        sources: usize,
        /// Regions.
        #[arg(long, default_value_t = 10)]
        regions: usize,
        /// Time between beacons of one source.
        #[arg(long, default_value = "1s", value_parser = humantime::parse_duration)]
        interval: Duration,
    },
    /// Measure what one real agent costs among many simulated sources; prints a Markdown table.
    ///
    /// Example: watchdog-lab cost --server .tools/servers/2.15.1/nats-server 200@1s 900@1800ms
    Cost {
        /// The nats-server binary.
        #[arg(long, env = "NATS_SERVER", default_value = "nats-server")]
        server: PathBuf,
        /// The agent's binary; default: `watchdog` beside this program.
        #[arg(long, value_name = "PATH")]
        agent_bin: Option<PathBuf>,
        /// How long each row is measured.
        #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
        span: Duration,
        /// Rows, as sources@interval.
        #[arg(required = true)]
        rows: Vec<cost::Row>,
    },
}

/// What the lab looks like.
#[derive(Args)]
struct Shape {
    /// Names of regions.
    #[arg(long, value_delimiter = ',', default_value = "iad,fra,nrt")]
    regions: Vec<String>,
    /// Servers in each region.
    #[arg(long, default_value_t = 2)]
    per_region: usize,
    /// `one` cluster, or a cluster `per-region` with gateways.
    #[arg(long, default_value = "one")]
    topology: Topology,
    /// `full`: every server lists all peers; `gossip`: all know only the first.
    #[arg(long, default_value = "full")]
    routes: Routes,
    /// The nats-server binary.
    #[arg(long, env = "NATS_SERVER", default_value = "nats-server")]
    server: PathBuf,
    /// The servers' route pool size (2.10 and newer).
    #[arg(long, allow_negative_numbers = true)]
    pool_size: Option<i32>,
    /// Run JetStream.
    #[arg(long)]
    jetstream: bool,
    /// Another account with a user and password of the same name; may be repeated.
    #[arg(long = "account", value_name = "NAME")]
    accounts: Vec<String>,
    /// Run agents in this mode: observe, reset or restart.
    #[arg(long, value_name = "MODE")]
    agents: Option<String>,
    /// The agents' binary; default: `watchdog` beside this program.
    #[arg(long, value_name = "PATH")]
    agent_bin: Option<PathBuf>,
    /// TOML that is merged over the agents' configuration.
    #[arg(long, value_name = "TOML", default_value = "")]
    agent_toml: String,
    /// Where configurations and logs go; kept afterwards.
    #[arg(long)]
    dir: Option<PathBuf>,
}

impl Shape {
    fn spec(self) -> LabSpec {
        let agents = self.agents.map(|mode| {
            let mut spec = AgentSpec::new(&mode);
            spec.bin = self.agent_bin.unwrap_or(spec.bin);
            spec.extra_toml = self.agent_toml;
            spec
        });
        LabSpec {
            regions: self.regions,
            per_region: self.per_region,
            topology: self.topology,
            pool_size: self.pool_size,
            routes: self.routes,
            jetstream: self.jetstream,
            accounts: self.accounts,
            agents,
            dir: self.dir,
            ..LabSpec::new(self.server)
        }
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Up(shape) => {
            let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
            let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
            let up = async {
                let lab = Lab::start(shape.spec()).await?;
                describe(&lab);
                std::future::pending::<()>().await;
                drop(lab);
                Ok(())
            };
            tokio::select! {
                ended = up => ended,
                _ = interrupt.recv() => Ok(()),
                _ = terminate.recv() => Ok(()),
            }
        }
        Command::Load {
            url,
            user,
            password,
            sources,
            regions,
            interval,
        } => {
            let load = Load {
                sources,
                regions,
                interval,
            };
            Ok(lab::load::run(load, &url, &user, &password).await?)
        }
        Command::Cost {
            server,
            agent_bin,
            span,
            rows,
        } => {
            println!("{}", cost::HEAD);
            for row in rows {
                println!("{}", cost::measure(row, span, server.clone(), agent_bin.clone()).await?);
            }
            Ok(())
        }
        Command::Ctl { addr, command } => {
            match lab::send(&addr, &command).await? {
                Reply::Status(status) => println!("{}", serde_json::to_string_pretty(&status)?),
                Reply::Stalled(id) => println!("stall {id}"),
                Reply::Closed(count) => println!("closed {count}"),
                Reply::Done | Reply::Failed(_) => println!("done"),
            }
            Ok(())
        }
    }
}

fn describe(lab: &Lab) {
    println!("control  {}", lab.control_address());
    println!("files    {}", lab.dir().display());
    for host in lab.hosts() {
        let agent = lab
            .agent_pid(&host.name)
            .map(|pid| format!("  page http://{}/ (pid {pid})", host.agent_http));
        println!(
            "{:8} {} (pid {})  monitor {}{}",
            host.name,
            host.client_url,
            lab.server_pid(&host.name).unwrap_or_default(),
            host.monitor_url,
            agent.unwrap_or_default()
        );
    }
}
