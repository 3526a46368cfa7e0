//! The lab's control port: one line of JSON asks, one line answers. So an agent can have its server restarted, and a person or
//! another process can make faults.

use std::{net::SocketAddr, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use super::{ConnectionView, FaultId, Lab, LabError, Result, Sticks};

const LONGEST_COMMAND: u64 = 64 << 10;
const PATIENCE: Duration = Duration::from_secs(60);

/// What can be asked of a running lab.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, clap::Subcommand)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum Command {
    /// Hosts, processes, faults and connections.
    Status,
    /// Swallow what `from` sends to `to`, in this one direction; PING, PONG and INFO pass.
    Stall {
        /// The sending host.
        from: String,
        /// The receiving host.
        to: String,
        /// messages, interest, `pool:INDEX` or `account:NAME`.
        #[arg(long, default_value = "messages")]
        #[serde(default = "messages")]
        what: String,
        /// Stall new connections of this pair too, so that a reset does not help.
        #[arg(long)]
        #[serde(default)]
        pair: bool,
    },
    /// End a stall.
    Unstall {
        /// The number that `stall` printed.
        id: FaultId,
    },
    /// End all stalls, cuts and pending holds.
    Clear,
    /// Pass nothing at all between two hosts and refuse new connections.
    Cut {
        /// One host.
        a: String,
        /// The other host.
        b: String,
    },
    /// End a cut.
    Mend {
        /// One host.
        a: String,
        /// The other host.
        b: String,
    },
    /// Cut a host from all others.
    Isolate {
        /// The host.
        host: String,
    },
    /// End all cuts of a host.
    Rejoin {
        /// The host.
        host: String,
    },
    /// Drop a share of the packets that a host gets from others (`up --netns` only).
    Loss {
        /// The host.
        host: String,
        /// In percent; 0 ends it.
        percent: f64,
    },
    /// What is missing for the mesh to be whole.
    Missing,
    /// Reset every connection between two servers.
    Reset {
        /// One host.
        a: String,
        /// The other host.
        b: String,
    },
    /// Close a host's outbound gateway; its next one is accepted and gets no INFO, later ones pass.
    HoldGateway {
        /// The host.
        host: String,
        /// The remote cluster.
        cluster: String,
    },
    /// SIGKILL a server.
    KillServer {
        /// The host.
        host: String,
    },
    /// Stop a server with SIGTERM.
    StopServer {
        /// The host.
        host: String,
    },
    /// Start a server.
    StartServer {
        /// The host.
        host: String,
    },
    /// Stop a server, start it, and wait until it answers.
    RestartServer {
        /// The host.
        host: String,
    },
    /// Send any signal to a server; USR2 makes it a lame duck.
    SignalServer {
        /// The host.
        host: String,
        /// Without SIG.
        signal: String,
    },
    /// SIGSTOP a server.
    FreezeServer {
        /// The host.
        host: String,
    },
    /// SIGCONT a server.
    ThawServer {
        /// The host.
        host: String,
    },
    /// Stop an agent with SIGTERM.
    StopAgent {
        /// The host.
        host: String,
    },
    /// SIGKILL an agent.
    KillAgent {
        /// The host.
        host: String,
    },
    /// Start an agent.
    StartAgent {
        /// The host.
        host: String,
    },
    /// SIGSTOP an agent.
    FreezeAgent {
        /// The host.
        host: String,
    },
    /// SIGCONT an agent.
    ThawAgent {
        /// The host.
        host: String,
    },
}

fn messages() -> String {
    "messages".to_owned()
}

/// The lab's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// Done.
    Done,
    /// The number of the new stall.
    Stalled(FaultId),
    /// How many connections were closed.
    Closed(usize),
    /// What there is.
    Status(Status),
    /// What is missing for the mesh to be whole; empty where it is.
    Missing(Vec<String>),
    /// Not done, and why.
    Failed(String),
}

/// What there is in a lab.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// All hosts.
    pub hosts: Vec<HostView>,
    /// Faults by number; cuts and holds have none.
    pub faults: Vec<(FaultId, String)>,
    /// Connections between servers that pass a front.
    pub connections: Vec<ConnectionView>,
}

/// A host as `status` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostView {
    /// Its name.
    pub name: String,
    /// Its server's process, while it lives.
    pub server_pid: Option<u32>,
    /// Its agent's process, while it lives.
    pub agent_pid: Option<u32>,
    /// Where clients connect.
    pub client_url: String,
    /// Where its server's monitoring answers.
    pub monitor_url: String,
    /// Where its agent's page is.
    pub agent_http: String,
}

/// Asks the lab at `address` and waits for its answer.
///
/// # Errors
/// Where no lab answers there, or it could not do what was asked.
pub async fn send(address: &str, command: &Command) -> Result<Reply> {
    let talk = async {
        let mut stream = TcpStream::connect(address).await?;
        let mut line = serde_json::to_vec(command)?;
        line.push(b'\n');
        stream.write_all(&line).await?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).await?;
        Ok(serde_json::from_str(&answer)?)
    };
    let answer = timeout(PATIENCE, talk)
        .await
        .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
    match answer.map_err(LabError::socket("ask the lab at (is it running?)", address))? {
        Reply::Failed(why) => Err(LabError::Refused {
            address: address.to_owned(),
            why,
        }),
        reply => Ok(reply),
    }
}

/// Serves commands for as long as the lab lives; it aborts this.
pub(crate) async fn serve(listener: TcpListener, lab: impl Fn() -> Option<Lab> + Clone + Send + 'static) {
    let mut clients = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    clients.spawn(answer(stream, lab.clone()));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            },
            Some(_) = clients.join_next() => {}
        }
    }
}

async fn answer(stream: TcpStream, lab: impl Fn() -> Option<Lab>) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read.take(LONGEST_COMMAND)).lines();
    while let Some(line) = lines.next_line().await? {
        let reply = match (serde_json::from_str(&line), lab()) {
            (Err(error), _) => Reply::Failed(format!("not a command: {error}")),
            (_, None) => Reply::Failed("the lab is ending".into()),
            (Ok(command), Some(lab)) => obey(&lab, command)
                .await
                .unwrap_or_else(|error| Reply::Failed(error.to_string())),
        };
        let mut text = serde_json::to_vec(&reply)?;
        text.push(b'\n');
        write.write_all(&text).await?;
        lines.get_mut().get_mut().set_limit(LONGEST_COMMAND);
    }
    Ok(())
}

async fn obey(lab: &Lab, command: Command) -> Result<Reply> {
    match command {
        Command::Status => return Ok(Reply::Status(lab.status())),
        Command::Stall { from, to, what, pair } => {
            let sticks = if pair { Sticks::Pair } else { Sticks::Connections };
            let what = what.parse().map_err(LabError::Spec)?;
            return Ok(Reply::Stalled(lab.stall_on(&from, &to, what, sticks)?));
        }
        Command::Reset { a, b } => return Ok(Reply::Closed(lab.reset(&a, &b)?)),
        Command::HoldGateway { host, cluster } => {
            return Ok(Reply::Closed(lab.hold_gateway_info(&host, &cluster)?));
        }
        Command::Unstall { id } => lab.unstall(id)?,
        Command::Missing => return Ok(Reply::Missing(lab.missing().await)),
        Command::Isolate { host } => lab.isolate(&host)?,
        Command::Rejoin { host } => lab.rejoin(&host)?,
        Command::Loss { host, percent } => lab.loss(&host, percent)?,
        Command::Clear => lab.clear()?,
        Command::Cut { a, b } => lab.cut(&a, &b)?,
        Command::Mend { a, b } => lab.mend(&a, &b)?,
        Command::KillServer { host } => lab.kill_server(&host)?,
        Command::StopServer { host } => lab.stop_server(&host).await?,
        Command::StartServer { host } => lab.start_server(&host).await?,
        Command::RestartServer { host } => lab.restart_server(&host).await?,
        Command::SignalServer { host, signal } => lab.signal_server(&host, &signal)?,
        Command::FreezeServer { host } => lab.freeze_server(&host)?,
        Command::ThawServer { host } => lab.thaw_server(&host)?,
        Command::StopAgent { host } => lab.stop_agent(&host).await?,
        Command::KillAgent { host } => lab.kill_agent(&host)?,
        Command::StartAgent { host } => lab.start_agent(&host)?,
        Command::FreezeAgent { host } => lab.freeze_agent(&host)?,
        Command::ThawAgent { host } => lab.thaw_agent(&host)?,
    }
    Ok(Reply::Done)
}

/// Binds the control port.
pub(crate) async fn bind(ip: std::net::Ipv4Addr) -> Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind((ip, 0))
        .await
        .map_err(LabError::socket("listen on", ip))?;
    let address = listener.local_addr().map_err(LabError::socket("listen on", ip))?;
    Ok((listener, address))
}
