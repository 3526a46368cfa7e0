//! What a storm of system messages costs an agent that reads counters, beside a subscriber that takes them all.

use std::{
    fmt, fs,
    net::SocketAddrV4,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use async_nats::{Client, ConnectOptions};
use futures_util::StreamExt;
use serde_json::Value;
use toml::Table;

use super::{
    LabError, Result,
    cost::{TICKS_PER_SECOND, cpu_ticks, kib},
    get_json,
    plain::{ACCOUNT, Plain, PlainServer, PlainSpec, SYSTEM},
    process::{Nursery, Program, Running},
    start::{free_base, free_port, v4},
};
use crate::core::sys::model::ServerVersion;

const WHOLE: Duration = Duration::from_secs(30);
const DRAIN: Duration = Duration::from_secs(300);
/// Until the agents' start is over.
const WARM_UP: Duration = Duration::from_secs(15);
/// A server id is 56 characters long.
const SENDER: &str = "NSTORMSTORMSTORMSTORMSTORMSTORMSTORMSTORMSTORMSTORMSTORM";

/// One storm to make.
#[derive(Debug, Clone)]
pub struct Storm {
    /// The nats-server binary.
    pub server: PathBuf,
    /// Its version.
    pub version: ServerVersion,
    /// Messages.
    pub messages: u64,
    /// Payload of each.
    pub bytes: usize,
    /// The agent's binary.
    pub agent_bin: PathBuf,
    /// This program, which is also the subscriber.
    pub lab_bin: PathBuf,
    /// Give the agent credentials of the system account: before 2.10 it counts by a subscription then.
    pub system: bool,
}

/// What one process cost while the storm lasted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share {
    /// Messages that its server sent to it.
    pub received: u64,
    /// CPU time, user and system.
    pub cpu: Duration,
    /// Most resident memory ever, KiB.
    pub peak: u64,
}

/// What was measured.
#[derive(Debug, Clone)]
pub struct StormCost {
    /// The storm.
    pub storm: Storm,
    /// Until the last message had arrived by the route.
    pub lasted: Duration,
    /// The agent beside the server into which the storm comes.
    pub agent: Share,
    /// Most memory of the agent before the storm, KiB.
    pub agent_before: u64,
    /// A subscriber of all of it at the same server.
    pub subscriber: Share,
    /// Beacons of the other host that this agent missed, and received, meanwhile.
    pub beacons: (u64, u64),
}

/// Head of the Markdown table whose rows [`StormCost`] displays.
pub const HEAD: &str = "\
| server | storm | lasted | who | messages sent to it | CPU | peak RSS | beacons lost |
|---|---|---|---|---|---|---|---|";

impl fmt::Display for StormCost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |kib: u64| kib as f64 / 1024.0;
        let lasted = self.lasted.as_secs_f64();
        let row = |who: &str, share: &Share, before: String, lost: String| {
            format!(
                "| {} | {} messages of {} bytes | {lasted:.1} s | {who} | {} | {:.2} s, {:.1} % of a core | {:.1} MiB{before} | {lost} |",
                self.storm.version,
                self.storm.messages,
                self.storm.bytes,
                share.received,
                share.cpu.as_secs_f64(),
                share.cpu.as_secs_f64() / lasted * 100.0,
                mib(share.peak)
            )
        };
        let who = if self.storm.system {
            "agent with `[system]`"
        } else {
            "agent"
        };
        let (lost, heard) = self.beacons;
        let before = format!(" (before: {:.1})", mib(self.agent_before));
        writeln!(
            f,
            "{}",
            row(who, &self.agent, before, format!("{lost} of {}", lost + heard))
        )?;
        write!(
            f,
            "{}",
            row("subscriber", &self.subscriber, String::new(), "-".to_owned())
        )
    }
}

/// Makes the storm and measures.
///
/// # Errors
/// Where servers or agents do not start, or the storm does not arrive.
pub async fn measure(storm: Storm) -> Result<StormCost> {
    let spec = PlainSpec {
        server: storm.server.clone(),
        servers: 2,
        clusters: 1,
        clients: 0,
    };
    let mesh = Plain::start(spec, WHOLE).await?;
    let [into, from] = mesh.servers() else {
        return Err(LabError::Spec("two servers were asked for".to_owned()));
    };
    let dir = tempfile::tempdir().map_err(LabError::file("create directory in", std::env::temp_dir()))?;
    let nursery = Nursery::new()?;
    let agent = Agent::start(&storm, into, dir.path(), &nursery)?;
    let _other = Agent::start(&storm, from, dir.path(), &nursery)?;
    let subscriber = nursery.start(&Program {
        bin: storm.lab_bin.clone(),
        args: ["take-all", "--url", &format!("nats://{}", into.client)]
            .map(str::to_owned)
            .to_vec(),
        log: dir.path().join("subscriber.log"),
        netns: None,
    })?;
    tokio::time::sleep(WARM_UP).await;
    let begun = Instant::now();
    let agent_before = kib(agent.pid(), "VmHWM:")?;
    let (cpu, subscriber_cpu) = (cpu_ticks(agent.pid())?, cpu_ticks(subscriber.pid())?);
    let (told, beacons, arrived) = (told(into).await?, agent.beacons().await?, by_routes(into).await?);
    publish(&storm, from).await?;
    let deadline = Instant::now() + DRAIN;
    while by_routes(into).await? < arrived + storm.messages {
        if Instant::now() > deadline {
            return Err(LabError::Process {
                what: format!(
                    "the storm of {} messages has not arrived after {DRAIN:?}",
                    storm.messages
                ),
            });
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let lasted = begun.elapsed();
    // What is queued for the subscriber and what the agent hears of it is part of the cost.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (now_told, now_beacons) = (self::told(into).await?, agent.beacons().await?);
    let used = |ticks: f64| Duration::from_secs_f64(ticks / TICKS_PER_SECOND);
    Ok(StormCost {
        lasted,
        agent: Share {
            received: now_told.0.saturating_sub(told.0),
            cpu: used(cpu_ticks(agent.pid())? - cpu),
            peak: kib(agent.pid(), "VmHWM:")?,
        },
        agent_before,
        subscriber: Share {
            received: now_told.1.saturating_sub(told.1),
            cpu: used(cpu_ticks(subscriber.pid())? - subscriber_cpu),
            peak: kib(subscriber.pid(), "VmHWM:")?,
        },
        beacons: (
            now_beacons.0.saturating_sub(beacons.0),
            now_beacons.1.saturating_sub(beacons.1),
        ),
        storm,
    })
}

/// Takes all STATSZ that come, until it is ended.
///
/// # Errors
/// Where the server does not let it in, or ends the connection.
pub async fn take_all(url: &str) -> Result<()> {
    let client = system_client(url).await?;
    let subscriber = client.subscribe("$SYS.SERVER.*.STATSZ").await;
    let mut messages = subscriber.map_err(|e| failed("subscribe at", url, &e))?;
    let mut bytes = 0;
    while let Some(message) = messages.next().await {
        bytes += message.payload.len();
    }
    Err(LabError::Process {
        what: format!("the connection to {url} has ended after {bytes} bytes"),
    })
}

struct Agent {
    running: Running,
    http: SocketAddrV4,
}

impl Agent {
    fn start(storm: &Storm, server: &PlainServer, dir: &Path, nursery: &Nursery) -> Result<Self> {
        let ip = free_base(1);
        let listener = free_port(ip).map_err(LabError::socket("find a free port on", ip))?;
        let http = v4(&listener)?;
        drop(listener);
        let state = dir.join(format!("{}.state", server.name));
        fs::create_dir_all(&state).map_err(LabError::file("create directory", &state))?;
        let mut config = format!(
            "[host]\nname = {name:?}\nregion = {name:?}\n[nats]\nurl = \"nats://{}\"\nuser = {ACCOUNT:?}\npassword = {ACCOUNT:?}\n\
             [server]\nmonitor = {:?}\nrestart_command = [\"/bin/false\"]\n[http]\nlisten = \"{http}\"\n[state]\ndirectory = {:?}\n",
            server.client,
            server.monitor,
            state.display().to_string(),
            name = server.name,
        );
        if storm.system {
            config += &format!("[system]\nuser = {SYSTEM:?}\npassword = {SYSTEM:?}\n");
        }
        config.parse::<Table>().map_err(|e| LabError::Spec(e.to_string()))?;
        let path = dir.join(format!("{}.toml", server.name));
        fs::write(&path, config).map_err(LabError::file("write", &path))?;
        let running = nursery.start(&Program {
            bin: storm.agent_bin.clone(),
            args: vec!["agent".to_owned(), "--config".to_owned(), path.display().to_string()],
            log: dir.join(format!("{}.log", server.name)),
            netns: None,
        })?;
        Ok(Self { running, http })
    }

    fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// Beacons lost and received.
    async fn beacons(&self) -> Result<(u64, u64)> {
        let status = get_json(&format!("http://{}/api/v1/status", self.http)).await?;
        let regions = status["regions"].as_array().cloned().unwrap_or_default();
        let sum = |key: &str| regions.iter().filter_map(|r| r[key].as_u64()).sum();
        Ok((sum("lost"), sum("received")))
    }
}

/// Messages that the server sent to the agent's connections, and to the one that takes all.
async fn told(server: &PlainServer) -> Result<(u64, u64)> {
    let connz = get_json(&format!("{}/connz", server.monitor)).await?;
    let all = connz["connections"].as_array().cloned().unwrap_or_default();
    let out = |wanted: &dyn Fn(&str) -> bool| {
        let named = all.iter().filter(|c| wanted(c["name"].as_str().unwrap_or_default()));
        named.filter_map(|c| c["out_msgs"].as_u64()).sum()
    };
    Ok((
        out(&|name| name.starts_with("watchdog ")),
        out(&|name| name == "take-all"),
    ))
}

/// Messages that came over the routes of the system account; over all where it has none of its own (before 2.10).
async fn by_routes(server: &PlainServer) -> Result<u64> {
    let routez = get_json(&format!("{}/routez", server.monitor)).await?;
    let routes = routez["routes"].as_array().cloned().unwrap_or_default();
    let own = |r: &&Value| r["account"] == SYSTEM;
    let any = routes.iter().any(|r| own(&r));
    Ok(routes
        .iter()
        .filter(|r| !any || own(r))
        .filter_map(|r| r["in_msgs"].as_u64())
        .sum())
}

async fn publish(storm: &Storm, server: &PlainServer) -> Result<()> {
    let url = format!("nats://{}", server.client);
    let client = system_client(&url).await?;
    let subject = format!("$SYS.SERVER.{SENDER}.STATSZ");
    for seq in 0..storm.messages {
        let head = format!(
            "{{\"server\":{{\"name\":\"storm\",\"host\":\"127.0.0.1\",\"id\":\"{SENDER}\",\"ver\":\"{}\",\"jetstream\":false,\
             \"flags\":0,\"seq\":{},\"time\":\"2026-11-24T21:00:00.000000001Z\"}},\"statsz\":{{\"start\":\
             \"2026-11-24T20:00:00.000000001Z\",\"routes\":[],\"pad\":\"",
            storm.version,
            seq + 1
        );
        let mut payload = head.into_bytes();
        payload.resize(storm.bytes.saturating_sub(3).max(payload.len()), b'x');
        payload.extend_from_slice(b"\"}}");
        let sent = client.publish(subject.clone(), payload.into()).await;
        sent.map_err(|e| failed("publish to", &url, &e))?;
    }
    client.flush().await.map_err(|e| failed("flush to", &url, &e))
}

async fn system_client(url: &str) -> Result<Client> {
    let options = ConnectOptions::with_user_and_password(SYSTEM.to_owned(), SYSTEM.to_owned()).name("take-all");
    options.connect(url).await.map_err(|e| failed("connect to", url, &e))
}

fn failed(what: &str, url: &str, why: &dyn fmt::Display) -> LabError {
    LabError::Process {
        what: format!("{what} {url}: {why}"),
    }
}
