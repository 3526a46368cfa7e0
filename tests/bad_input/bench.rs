//! A bench for one test: real servers and real agents on a loopback address of its own, all ended with it.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// For what takes seconds at most, on a machine that others use too.
pub(crate) const SOON: Duration = Duration::from_secs(40);
const VERSION: &str = "2.15.1";

pub(crate) struct Bench {
    pub(crate) dir: TempDir,
    ip: IpAddr,
}

impl Bench {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU8 = AtomicU8::new(1);
        let pid = std::process::id();
        let [_, _, high, low] = pid.to_be_bytes();
        let ip = Ipv4Addr::new(127, 1 + high % 250, low, NEXT.fetch_add(1, Ordering::Relaxed));
        Self {
            dir: tempfile::tempdir().unwrap(),
            ip: ip.into(),
        }
    }

    /// Free: nobody else uses this bench's address.
    pub(crate) fn address(&self) -> SocketAddr {
        TcpListener::bind((self.ip, 0)).unwrap().local_addr().unwrap()
    }

    pub(crate) fn server(&self) -> Server {
        let server = Server::at(self.address(), self.address());
        server.wait();
        server
    }

    /// Writes a configuration; `more` is appended and may begin with keys of `[host]`.
    pub(crate) fn config(&self, host: &str, client: SocketAddr, monitor: SocketAddr) -> Config {
        Config {
            path: self.dir.path().join(format!("{host}.toml")),
            state: self.dir.path().join(format!("{host}-state")),
            host: host.to_owned(),
            url: format!("nats://{client}"),
            monitor: format!("http://{monitor}"),
            http: self.address(),
            more: String::new(),
        }
    }
}

/// The configuration of one agent.
pub(crate) struct Config {
    pub(crate) path: PathBuf,
    pub(crate) state: PathBuf,
    pub(crate) host: String,
    pub(crate) url: String,
    pub(crate) monitor: String,
    pub(crate) http: SocketAddr,
    pub(crate) more: String,
}

impl Config {
    pub(crate) fn write(&self) -> &Path {
        let region = self.host.split('-').next().unwrap();
        let text = format!(
            "host = {{ name = \"{}\", region = \"{region}\" }}\nnats.url = \"{}\"\nhttp.listen = \"{}\"\n\
             state.directory = \"{}\"\nserver.monitor = \"{}\"\nserver.poll = \"300ms\"\n\
             server.restart_command = [\"/bin/false\"]\n{}\n",
            self.host,
            self.url,
            self.http,
            self.state.display(),
            self.monitor,
            self.more
        );
        std::fs::write(&self.path, text).unwrap();
        &self.path
    }

    pub(crate) fn start(&self) -> Agent {
        self.write();
        self.start_as_written()
    }

    /// Starts an agent with the file as it is.
    pub(crate) fn start_as_written(&self) -> Agent {
        let log = self.path.with_extension("log");
        let child = agent(&self.path)
            .stderr(std::fs::File::options().create(true).append(true).open(&log).unwrap())
            .spawn()
            .unwrap();
        Agent {
            child,
            log,
            http: self.http,
        }
    }

    /// Starts an agent that is expected to end by itself; its exit code and what it said.
    pub(crate) fn fails(&self) -> (Option<i32>, String) {
        fails(self.write())
    }
}

fn agent(config: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_watchdog"));
    command
        .env_clear()
        .env("WATCHDOG_LOG", "debug")
        .args(["agent", "--config"])
        .arg(config)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command
}

pub(crate) fn fails(config: &Path) -> (Option<i32>, String) {
    let log = config.with_extension("failed");
    let child = agent(config)
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let mut ended = Agent {
        child,
        log: log.clone(),
        http: ([127, 0, 0, 1], 0).into(),
    };
    let status = ended.ended();
    (status.code(), std::fs::read_to_string(log).unwrap())
}

/// A running agent; killed when dropped.
pub(crate) struct Agent {
    child: Child,
    log: PathBuf,
    pub(crate) http: SocketAddr,
}

impl Agent {
    #[allow(dead_code, reason = "another suite needs it")]
    pub(crate) fn of(child: Child, log: PathBuf, http: SocketAddr) -> Self {
        Self { child, log, http }
    }

    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args(["-s", name, &self.child.id().to_string()])
            .status();
        assert!(sent.unwrap().success());
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub(crate) fn ended(&mut self) -> ExitStatus {
        let deadline = Instant::now() + SOON;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "still runs: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub(crate) fn get(&self, path: &str) -> Option<(u16, String)> {
        get(self.http, path)
    }

    pub(crate) fn json(&self, path: &str) -> Value {
        self.get(path)
            .and_then(|(_, body)| serde_json::from_str(&body).ok())
            .unwrap_or_default()
    }

    pub(crate) fn status(&self) -> Value {
        self.json("/api/v1/status")
    }

    /// The verdict on `host` and how many of its beacons came.
    pub(crate) fn source(&self, host: &str) -> Option<(String, u64)> {
        let matrix = self.json("/api/v1/matrix");
        let source = matrix["sources"].as_array()?.iter().find(|s| s["host"] == host)?;
        Some((source["verdict"].as_str()?.to_owned(), source["received"].as_u64()?))
    }

    pub(crate) fn verdict(&self, host: &str) -> Option<String> {
        self.source(host).map(|(verdict, _)| verdict)
    }

    /// One series of `/metrics`, by its name with labels as written.
    pub(crate) fn metric(&self, series: &str) -> Option<f64> {
        let (status, text) = self.get("/metrics")?;
        assert_eq!(status, 200);
        let line = text
            .lines()
            .find(|l| l.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    pub(crate) fn dropped(&self, reason: &str) -> f64 {
        self.metric(&format!("watchdog_canary_dropped_total{{reason=\"{reason}\"}}"))
            .unwrap_or_default()
    }

    pub(crate) fn recorded(&self, event: &str) -> Vec<String> {
        let history = self.json("/api/v1/history");
        let records = history["history"].as_array().cloned().unwrap_or_default();
        let texts = records.iter().filter(|r| r["event"] == event);
        texts.map(|r| format!("{}: {}", r["subject"], r["text"])).collect()
    }

    pub(crate) async fn ready(&self) {
        eventually("ready", || self.get("/readyz").is_some_and(|(code, _)| code == 200)).await;
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = (self.child.kill(), self.child.wait());
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.log.display(), self.log());
        }
    }
}

/// A real nats-server; killed when dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) client: SocketAddr,
    pub(crate) monitor: SocketAddr,
}

impl Server {
    pub(crate) fn at(client: SocketAddr, monitor: SocketAddr) -> Self {
        Self::with(client, monitor, &[])
    }

    pub(crate) fn with(client: SocketAddr, monitor: SocketAddr, more: &[&str]) -> Self {
        let bin = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!(".tools/servers/{VERSION}/nats-server"));
        assert!(bin.exists(), "{} is missing: run tools/servers.sh", bin.display());
        let child = Command::new(bin)
            .args(["-a", &client.ip().to_string(), "-p", &client.port().to_string()])
            .args(["-m", &monitor.port().to_string()])
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, client, monitor }
    }

    fn wait(&self) {
        let deadline = Instant::now() + SOON;
        while get(self.monitor, "/varz").is_none() || TcpStream::connect(self.client).is_err() {
            assert!(Instant::now() < deadline, "nats-server is not up");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn stop(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) async fn client(&self) -> async_nats::Client {
        async_nats::connect(format!("nats://{}", self.client)).await.unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = (self.child.kill(), self.child.wait());
    }
}

/// Looks until it is so.
pub(crate) async fn eventually(what: &str, look: impl Fn() -> bool) {
    let deadline = Instant::now() + SOON;
    while !look() {
        assert!(Instant::now() < deadline, "not within {SOON:?}: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let code = head.split(' ').nth(1)?.parse().ok()?;
    Some((code, body.to_owned()))
}
