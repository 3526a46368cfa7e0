//! `watchdog-lab`: real nats-servers in regions on this machine, with faults on demand.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use futures_util::StreamExt;
use nats_watchdog::core::sys::model::ServerVersion;
use nats_watchdog::lab::{self, AgentSpec, Lab, LabSpec, Load, Reply, Routes, Topology, cost, storm_cost, sys_table};
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
    /// Stall one route under real agents and tell what they make of it; exit code 0 if it healed in time.
    ///
    /// Example: watchdog-lab demo --server ./nats-server --for 5m
    Demo(Demo),
    /// Send the beacons of many hosts that are not there to one real server.
    ///
    /// Example: watchdog-lab load --url nats://127.0.0.1:4222 --sources 200 --regions 10 --for 30s
    Load(LoadArgs),
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
    /// Restart servers of a large real mesh at once, and tell which agent saw what and when.
    ///
    /// Example: watchdog-lab storm --server .tools/servers/2.9.10/nats-server --hosts 40 1 3
    Storm {
        #[command(flatten)]
        large: Large,
        /// How many servers to restart at once, one storm after the other.
        #[arg(required = true)]
        at_once: Vec<usize>,
    },
    /// Restart all servers of a large real mesh by `watchdog restart` at several paces, and print what each did to the system
    /// traffic; `at-once` is no pace at all.
    ///
    /// Example: watchdog-lab staggers --server .tools/servers/2.9.10/nats-server --hosts 40 auto 30s at-once
    Staggers {
        #[command(flatten)]
        large: Large,
        /// Restart the servers of this region only.
        #[arg(long)]
        region: Option<String>,
        /// What `--stagger` is given, or `at-once`, one after the other.
        #[arg(required = true, value_parser = pace)]
        paces: Vec<String>,
    },
    /// Watch a quiet real mesh whose clients come and go, and tell of every brownout that an agent saw: there should be none.
    ///
    /// Example: watchdog-lab quiet --server .tools/servers/2.15.1/nats-server --hosts 20 --for 1h
    Quiet {
        #[command(flatten)]
        large: Large,
        /// For how long.
        #[arg(long = "for", default_value = "1h")]
        span: humantime::Duration,
        /// Clients that come in a minute, in the mean.
        #[arg(long, default_value_t = 30.0)]
        clients_per_minute: f64,
    },
    /// Record what one server's monitoring says of its system traffic, as JSON lines: a fixture for the detector.
    ///
    /// Example: watchdog-lab record --monitor http://127.0.0.1:8222 --for 2m storm.jsonl
    Record {
        /// The server's monitoring address.
        #[arg(long)]
        monitor: String,
        /// Between two reads.
        #[arg(long, default_value = "2s")]
        every: humantime::Duration,
        /// For how long.
        #[arg(long = "for", default_value = "2m")]
        span: humantime::Duration,
        /// The file to write.
        out: PathBuf,
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
    /// Bring up real meshes and print their system traffic beside what the model says; exit code 1 if a row is off by more
    /// than 15 % at rest or 25 % for a restart.
    ///
    /// Example: watchdog-lab sys-table --versions 2.10.26 --sizes 10,20 --clients 20
    SysTable(SysTable),
    /// Send a storm of system messages into a real server and print what it costs its agent, and a subscriber of all of it.
    ///
    /// Example: watchdog-lab storm-cost --versions 2.15.1 --messages 150000
    StormCost(StormCost),
    /// Take all STATSZ of a server and forget them: the subscriber of `storm-cost`.
    #[command(hide = true)]
    TakeAll {
        /// Where.
        #[arg(long)]
        url: String,
    },
}

#[derive(Args)]
struct SysTable {
    /// Where a directory for each version holds its nats-server.
    #[arg(long, default_value = ".tools/servers")]
    servers_dir: PathBuf,
    /// Numbers of servers.
    #[arg(long, value_delimiter = ',', default_value = "10,20,40")]
    sizes: Vec<usize>,
    /// Versions of nats-server.
    #[arg(long, value_delimiter = ',', default_value = "2.9.10,2.10.26,2.15.1")]
    versions: Vec<ServerVersion>,
    /// Clusters over which the servers are spread.
    #[arg(long, default_value_t = 1)]
    clusters: usize,
    /// Clients on each server.
    #[arg(long, default_value_t = 0)]
    clients: usize,
    /// Restarts to measure in each row.
    #[arg(long, default_value_t = 2)]
    restarts: usize,
    /// Measure the versions side by side: quicker, on a machine that has the memory (40 servers take 1.6 GB).
    #[arg(long)]
    at_once: bool,
    /// Leave out the head of the table.
    #[arg(long)]
    no_head: bool,
}

impl SysTable {
    async fn run(self) -> Result<ExitCode> {
        if !self.no_head {
            println!("{}", sys_table::HEAD);
        }
        let mut missed = false;
        for servers in &self.sizes {
            let rows = self.versions.iter().map(|version| sys_table::Row {
                server: self.servers_dir.join(version.to_string()).join("nats-server"),
                version: *version,
                servers: *servers,
                clusters: self.clusters,
                clients: self.clients,
                restarts: self.restarts,
            });
            let at_once = if self.at_once { self.versions.len().max(1) } else { 1 };
            let mut results = futures_util::stream::iter(rows.map(sys_table::measure)).buffered(at_once);
            while let Some(measured) = results.next().await {
                let measured = measured?;
                println!("{measured}");
                for miss in measured.misses() {
                    missed = true;
                    eprintln!("{}, {servers} servers: {miss}", measured.row.version);
                }
            }
        }
        Ok(if missed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

#[derive(Args)]
struct StormCost {
    /// Where a directory for each version holds its nats-server.
    #[arg(long, default_value = ".tools/servers")]
    servers_dir: PathBuf,
    /// Versions of nats-server.
    #[arg(long, value_delimiter = ',', default_value = "2.10.26,2.15.1")]
    versions: Vec<ServerVersion>,
    /// Messages.
    #[arg(long, default_value_t = 150_000)]
    messages: u64,
    /// Payload of each: that of a STATSZ of 24 servers of 2.10.
    #[arg(long, default_value_t = 10_800)]
    bytes: usize,
    /// The agent's binary; default: `watchdog` beside this program.
    #[arg(long, value_name = "PATH")]
    agent_bin: Option<PathBuf>,
    /// Give the agent credentials of the system account, which it uses on servers before 2.10.
    #[arg(long)]
    system: bool,
}

impl StormCost {
    async fn run(self) -> Result<ExitCode> {
        println!("{}", storm_cost::HEAD);
        for version in &self.versions {
            let storm = storm_cost::Storm {
                server: self.servers_dir.join(version.to_string()).join("nats-server"),
                version: *version,
                messages: self.messages,
                bytes: self.bytes,
                agent_bin: self.agent_bin.clone().unwrap_or_else(|| AgentSpec::new("observe").bin),
                lab_bin: std::env::current_exe().context("find this program")?,
                system: self.system,
            };
            println!("{}", storm_cost::measure(storm).await?);
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// A large mesh in four regions, an agent on every host, no fronts.
#[derive(Args)]
struct Large {
    /// Servers.
    #[arg(long, default_value_t = 40)]
    hosts: usize,
    /// The nats-server binary.
    #[arg(long, env = "NATS_SERVER", default_value = "nats-server")]
    server: PathBuf,
    /// The agents' binary; default: `watchdog` beside this program.
    #[arg(long, value_name = "PATH")]
    agent_bin: Option<PathBuf>,
    /// TOML that is merged over the agents' configuration.
    #[arg(long, value_name = "TOML", default_value = "")]
    agent_toml: String,
    /// Where configurations and logs go; kept afterwards.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Until the servers' own timers are slow and the agents have learned what is normal.
    #[arg(long, default_value = "90s")]
    settle: humantime::Duration,
}

impl Large {
    async fn start(&self) -> Result<Lab> {
        let mut agents = AgentSpec::new("observe");
        agents.bin = self.agent_bin.clone().unwrap_or(agents.bin);
        agents.extra_toml.clone_from(&self.agent_toml);
        let lab = Lab::start(LabSpec {
            regions: ["iad", "fra", "nrt", "gru"].map(String::from).to_vec(),
            per_region: self.hosts.div_ceil(4),
            agents: Some(agents),
            dir: self.dir.clone(),
            fronts: false,
            ..LabSpec::new(&self.server)
        })
        .await?;
        lab.wait_until_easy(Duration::from_secs(120)).await?;
        println!(
            "{} servers with agents are up; settling for {}",
            lab.hosts().len(),
            self.settle
        );
        tokio::time::sleep(*self.settle).await;
        Ok(lab)
    }
}

async fn storms(large: Large, at_once: Vec<usize>) -> Result<ExitCode> {
    let lab = large.start().await?;
    for n in at_once {
        let storm = lab::storm::storm(&lab, n, Duration::from_secs(90), |line| println!("{line}")).await?;
        println!("{storm}");
        tokio::time::sleep(*large.settle).await;
    }
    Ok(ExitCode::SUCCESS)
}

/// Forty servers are not brought up for a word that the command then refuses.
fn pace(text: &str) -> std::result::Result<String, String> {
    let known = [lab::staggers::AT_ONCE, "auto"].contains(&text);
    if known || humantime::parse_duration(text).is_ok() {
        return Ok(text.to_owned());
    }
    Err("give a duration such as 30s, or auto, or at-once".to_owned())
}

async fn staggers(mut large: Large, region: Option<String>, paces: Vec<String>) -> Result<ExitCode> {
    let operator = lab::staggers::Operator::new()?;
    large.agent_toml.push_str(&operator.toml());
    let lab = large.start().await?;
    let watchdog = large.agent_bin.clone().unwrap_or(AgentSpec::new("observe").bin);
    let mut table = vec![lab::staggers::HEAD.to_owned()];
    let mut failed = false;
    for pace in paces {
        println!("{pace}");
        let row = lab::staggers::restart_all(&lab, &watchdog, operator.key(), region.as_deref(), &pace).await?;
        println!("{row}");
        failed |= row.code.is_some_and(|code| code != 0);
        table.push(row.to_string());
        tokio::time::sleep(*large.settle).await;
    }
    println!("\n{}", table.join("\n"));
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn quiet(large: Large, span: Duration, clients_per_minute: f64) -> Result<ExitCode> {
    let lab = large.start().await?;
    let mut clients = 0_u64;
    let churn = lab::churn::churn(&lab, clients_per_minute, || clients += 1);
    let _ = tokio::time::timeout(span, churn).await;
    let alarms = lab::storm::alarms(&lab).await?;
    for line in &alarms {
        println!("{line}");
    }
    println!(
        "{} servers, {} quiet, {clients} clients came and went: {} brownouts",
        lab.hosts().len(),
        humantime::format_duration(span),
        alarms.len()
    );
    Ok(if alarms.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
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
    /// Give every host a network namespace, without fronts: cuts are silent, packets can be lost. Takes root.
    #[arg(long)]
    netns: bool,
}

impl Shape {
    fn spec(self) -> Result<LabSpec> {
        let netns = self.netns;
        let mut spec = self.plain_spec();
        if netns {
            spec.netns = lab::netns::inside();
        }
        if netns && spec.netns.is_none() {
            let names = spec.host_names();
            lab::netns::enter(names.iter().map(|(name, _)| name.as_str()))?;
        }
        Ok(spec)
    }

    fn plain_spec(self) -> LabSpec {
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

#[derive(Args)]
struct Demo {
    /// Three clusters joined by gateways instead of one cluster.
    #[arg(long)]
    supercluster: bool,
    /// The nats-server binary.
    #[arg(long, env = "NATS_SERVER", default_value = "nats-server")]
    server: PathBuf,
    /// The agents' binary; default: `watchdog` beside this program.
    #[arg(long, value_name = "PATH")]
    agent_bin: Option<PathBuf>,
    /// observe, reset or restart; default: reset where sockets may be reset (CAP_NET_ADMIN), else restart.
    #[arg(long)]
    mode: Option<String>,
    /// How long the stall may last to count as healed.
    #[arg(long, default_value = "60s")]
    bound: humantime::Duration,
    /// Keep all up afterwards for so long, to look at the pages.
    #[arg(long = "for", value_name = "DURATION")]
    stay_for: Option<humantime::Duration>,
    /// Keep all up afterwards until Ctrl-C.
    #[arg(long, conflicts_with = "stay_for")]
    stay: bool,
    /// Where configurations and logs go; kept afterwards.
    #[arg(long)]
    dir: Option<PathBuf>,
}

impl Demo {
    fn spec(&self) -> LabSpec {
        let mut agents = AgentSpec::new(
            self.mode
                .as_deref()
                .unwrap_or(if may_reset() { "reset" } else { "restart" }),
        );
        agents.bin = self.agent_bin.clone().unwrap_or(agents.bin);
        let topology = if self.supercluster {
            Topology::ClusterPerRegion
        } else {
            Topology::OneCluster
        };
        LabSpec {
            topology,
            agents: Some(agents),
            dir: self.dir.clone(),
            ..LabSpec::new(&self.server)
        }
    }

    async fn run(self) -> Result<ExitCode> {
        // Without a store a restart waits for its host's turn in a cycle of minutes. These agents share a disk.
        let permits = tempfile::tempdir()?;
        let file = permits.path().join("permits.json");
        let mut spec = self.spec();
        if let Some(agents) = &mut spec.agents {
            agents.extra_toml = format!("[permits]\nstore = \"file\"\nfile = {file:?}\n");
        }
        let lab = Lab::start(spec).await?;
        describe(&lab);
        let outcome = lab::demo(&lab, *self.bound, |line| println!("{line}")).await?;
        let seconds = |time: Option<Duration>| time.map_or("never".to_owned(), |t| format!("{:.2} s", t.as_secs_f64()));
        println!("stall to first verdict   {}", seconds(outcome.seen));
        println!("stall to flowing again   {}", seconds(outcome.flowing));
        println!("stall to all agents ok   {}", seconds(outcome.easy));
        let lost = outcome
            .flowing
            .map_or("all since the stall".to_owned(), |_| outcome.lost.to_string());
        println!("messages lost            {lost}");
        println!("clients disconnected     {}", outcome.disconnects);
        println!("{}", if outcome.healed() { "HEALED" } else { "NOT HEALED" });
        if self.stay {
            println!("the pages above stay up until Ctrl-C");
            std::future::pending::<()>().await;
        }
        if let Some(time) = self.stay_for {
            println!("the pages above stay up for {time}");
            tokio::time::sleep(*time).await;
        }
        Ok(if outcome.healed() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}

/// Whether this process has CAP_NET_ADMIN, which destroying a socket takes.
fn may_reset() -> bool {
    const CAP_NET_ADMIN: u32 = 12;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = effective.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    bits.is_some_and(|bits| bits >> CAP_NET_ADMIN & 1 == 1)
}

#[derive(Args)]
struct LoadArgs {
    /// Where to.
    #[arg(long)]
    url: String,
    /// The user.
    #[arg(long, default_value = "watchdog")]
    user: String,
    /// The password.
    #[arg(long, default_value = "watchdog")]
    password: String,
    /// How many hosts.
    #[arg(long, default_value_t = 200)]
    sources: usize,
    /// Spread over how many regions.
    #[arg(long, default_value_t = 10)]
    regions: usize,
    /// Between two beacons of one host.
    #[arg(long, default_value = "1s")]
    interval: humantime::Duration,
    /// For how long.
    #[arg(long = "for", default_value = "30s")]
    duration: humantime::Duration,
}

impl LoadArgs {
    async fn run(self) -> Result<ExitCode> {
        let load = Load {
            sources: self.sources,
            regions: self.regions,
            interval: *self.interval,
        };
        let run = lab::load::run(load, &self.url, &self.user, &self.password);
        if let Ok(ended) = tokio::time::timeout(*self.duration, run).await {
            ended?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

async fn up(shape: Shape) -> Result<ExitCode> {
    let lab = Lab::start(shape.spec()?).await?;
    describe(&lab);
    std::future::pending::<()>().await;
    drop(lab);
    Ok(ExitCode::SUCCESS)
}

/// Runs something that owns a lab; a signal drops it, and with it all that the lab started.
async fn until_signal(work: impl Future<Output = Result<ExitCode>>) -> Result<ExitCode> {
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    tokio::select! {
        ended = work => ended,
        _ = interrupt.recv() => Ok(ExitCode::from(130)),
        _ = terminate.recv() => Ok(ExitCode::from(143)),
    }
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    match Cli::parse().command {
        Command::Up(shape) => until_signal(up(shape)).await,
        Command::Demo(demo) => until_signal(demo.run()).await,
        Command::Storm { large, at_once } => until_signal(storms(large, at_once)).await,
        Command::Staggers { large, region, paces } => until_signal(staggers(large, region, paces)).await,
        Command::Quiet {
            large,
            span,
            clients_per_minute,
        } => until_signal(quiet(large, *span, clients_per_minute)).await,
        Command::Record {
            monitor,
            every,
            span,
            out,
        } => {
            until_signal(async move {
                let lines = lab::record::record(&monitor, *every, *span, &out).await?;
                println!("{lines} reads in {}", out.display());
                Ok(ExitCode::SUCCESS)
            })
            .await
        }
        Command::SysTable(table) => until_signal(table.run()).await,
        Command::StormCost(cost) => until_signal(cost.run()).await,
        Command::TakeAll { url } => {
            until_signal(async move {
                storm_cost::take_all(&url).await?;
                Ok(ExitCode::SUCCESS)
            })
            .await
        }
        Command::Load(load) => until_signal(load.run()).await,
        Command::Cost {
            server,
            agent_bin,
            span,
            rows,
        } => {
            until_signal(async {
                println!("{}", cost::HEAD);
                for row in rows {
                    println!("{}", cost::measure(row, span, server.clone(), agent_bin.clone()).await?);
                }
                Ok(ExitCode::SUCCESS)
            })
            .await
        }
        Command::Ctl { addr, command } => {
            match lab::send(&addr, &command).await? {
                Reply::Status(status) => println!("{}", serde_json::to_string_pretty(&status)?),
                Reply::Stalled(id) => println!("stall {id}"),
                Reply::Missing(missing) if missing.is_empty() => println!("nothing is missing"),
                Reply::Missing(missing) => println!("{}", missing.join("\n")),
                Reply::Closed(count) => println!("closed {count}"),
                Reply::Done | Reply::Failed(_) => println!("done"),
            }
            Ok(ExitCode::SUCCESS)
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
