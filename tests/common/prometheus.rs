//! The real Prometheus, promtool and Alertmanager, where they are installed: servers on free ports.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::{get, raw};

/// promtool in the crate's folder; `None`, with words, where it is not installed.
pub fn promtool() -> Option<Command> {
    installed("promtool")
}

fn installed(program: &str) -> Option<Command> {
    if Command::new(program).arg("--version").output().is_err() {
        println!("SKIPPED: {program} is not installed (Debian: apt-get install prometheus)");
        return None;
    }
    let mut command = Command::new(program);
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    Some(command)
}

/// Runs to the end with `input` as standard input.
pub fn fed(command: &mut Command, input: &str) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// A Prometheus of its own.
pub struct Prometheus {
    child: Running,
    address: SocketAddr,
    _folder: TempDir,
}

/// A program under test, killed when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Prometheus {
    /// Scrapes `targets` every second as job `watchdog` and evaluates the shipped rules; `None` where not installed.
    pub async fn start(targets: &[SocketAddr]) -> Option<Self> {
        let mut command = installed("prometheus")?;
        let folder = tempfile::tempdir().unwrap();
        let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/alerts/watchdog.yml");
        let targets: Vec<String> = targets.iter().map(SocketAddr::to_string).collect();
        let config = serde_json::json!({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [rules],
            "scrape_configs": [{"job_name": "watchdog", "static_configs": [{"targets": targets}]}],
        });
        let file = folder.path().join("prometheus.yml");
        // JSON is YAML.
        std::fs::write(&file, config.to_string()).unwrap();
        let address = free_address();
        let child = command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut prometheus = Self {
            child: Running(child),
            address,
            _folder: folder,
        };
        wait_until_ready("prometheus", &mut prometheus.child.0, address).await;
        Some(prometheus)
    }

    /// All loaded rules, once each of them has been evaluated.
    pub async fn rules(&self) -> Vec<Value> {
        let deadline = Instant::now() + Duration::from_secs(15);
        loop {
            let body = get(self.address, "/api/v1/rules").await.body;
            let answer: Value = serde_json::from_str(&body).unwrap();
            let groups = answer["data"]["groups"].as_array().unwrap().iter();
            let rules: Vec<Value> = groups
                .flat_map(|group| group["rules"].as_array().unwrap().clone())
                .collect();
            if rules.iter().all(|rule| rule["health"] != "unknown") {
                return rules;
            }
            assert!(Instant::now() < deadline, "rules are not evaluated after 15 s: {body}");
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// The result of an instant query, or Prometheus's own words on why there is none.
    pub async fn query(&self, expr: &str) -> Result<Vec<Value>, String> {
        let path = format!("/api/v1/query?query={}", percent_encode(expr));
        let body = get(self.address, &path).await.body;
        let answer: Value = serde_json::from_str(&body).map_err(|e| format!("{e}: {body}"))?;
        match answer["data"]["result"].as_array() {
            Some(result) if answer["status"] == "success" => Ok(result.clone()),
            _ => Err(answer["error"].to_string()),
        }
    }
}

/// An Alertmanager of its own with the shipped configuration.
pub struct Alertmanager {
    child: Running,
    address: SocketAddr,
    _folder: TempDir,
}

impl Alertmanager {
    /// `None` where it is not installed.
    pub async fn start() -> Option<Self> {
        // Debian's name, and everybody else's.
        let debian = Command::new(DEBIAN).arg("--version").output().is_ok();
        let mut command = match debian && !Path::new("/usr/share/prometheus/alertmanager/default.tmpl").exists() {
            true => unpacked()?,
            false => installed(if debian { DEBIAN } else { "alertmanager" })?,
        };
        let folder = tempfile::tempdir().unwrap();
        let address = free_address();
        let child = command
            .arg("--config.file=alerts/alertmanager.yml")
            .arg(format!("--storage.path={}", folder.path().display()))
            .arg(format!("--web.listen-address={address}"))
            // Alone: no port for others of its kind.
            .arg("--cluster.listen-address=")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut manager = Self {
            child: Running(child),
            address,
            _folder: folder,
        };
        wait_until_ready("alertmanager", &mut manager.child.0, address).await;
        Some(manager)
    }

    /// Takes in alerts, as Prometheus sends them.
    pub async fn post(&self, alerts: &[Value]) {
        let body = serde_json::to_string(alerts).unwrap();
        let request = format!(
            "POST /api/v2/alerts HTTP/1.0\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        );
        let answer = raw(self.address, request.as_bytes()).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    }

    /// All that are on.
    pub async fn alerts(&self) -> Vec<Value> {
        serde_json::from_str(&get(self.address, "/api/v2/alerts").await.body).unwrap()
    }
}

const DEBIAN: &str = "prometheus-alertmanager";

/// Debian's binary wants its templates below /usr/share. Where the package is only unpacked they are laid over it, for
/// this process alone; root can do that. `None`, with words, where it cannot be done.
fn unpacked() -> Option<Command> {
    let over = "mount -t overlay overlay -o \"lowerdir=$0:/usr/share\" /usr/share";
    let share = concat!(env!("CARGO_MANIFEST_DIR"), "/.tools/prometheus/usr/share");
    let tried = Command::new("unshare").args(["-m", "sh", "-c", over, share]).output();
    if !tried.is_ok_and(|o| o.status.success()) {
        println!("SKIPPED: {DEBIAN} is only unpacked, and its templates cannot be mounted without root");
        return None;
    }
    let mut command = Command::new("unshare");
    command.current_dir(env!("CARGO_MANIFEST_DIR")).args([
        "-m",
        "sh",
        "-c",
        &format!("{over} && exec {DEBIAN} \"$@\""),
        share,
    ]);
    Some(command)
}

async fn wait_until_ready(name: &str, child: &mut Child, address: SocketAddr) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            let mut words = String::new();
            child.stderr.take().unwrap().read_to_string(&mut words).unwrap();
            panic!("{name} ended with {status}: {words}");
        }
        if tokio::net::TcpStream::connect(address).await.is_ok() && get(address, "/-/ready").await.status == 200 {
            return;
        }
        assert!(Instant::now() < deadline, "{name} is not ready after 30 s");
        sleep(Duration::from_millis(100)).await;
    }
}

/// The port is free when asked; another program may take it before Prometheus does, and then the test says so.
fn free_address() -> SocketAddr {
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    held.local_addr().unwrap()
}

fn percent_encode(text: &str) -> String {
    text.bytes()
        .map(|b| match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(b).to_string(),
            _ => format!("%{b:02X}"),
        })
        .collect()
}
