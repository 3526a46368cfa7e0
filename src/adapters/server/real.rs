//! Real nats-servers for the tests of this folder.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::monitor::Monitor;
use crate::core::server::{Endpoint, Sample, Varz};

pub(super) const VERSIONS: [&str; 3] = ["2.9.10", "2.10.26", "2.15.1"];

/// A nats-server with a cluster and a gateway on free ports; stopped when dropped.
pub(super) struct Server {
    process: Process,
    pub(super) monitor: Monitor,
    pub(super) varz: Box<Varz>,
}

struct Process {
    child: Child,
    dir: TempDir,
}

impl Server {
    pub(super) async fn start(version: &str, tls: bool) -> Self {
        let process = Process::start(version, tls);
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(monitor) = process.monitor()
                && let Ok(Sample::Varz(varz)) = monitor.read(Endpoint::Varz).await
                && varz.cluster_addr.is_some()
                && varz.gateway_addr.is_some()
            {
                return Self { process, monitor, varz };
            }
            let late = Instant::now() > deadline;
            assert!(!late, "nats-server {version} has not started");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Route and gateway port.
    pub(super) fn ports(&self) -> [String; 2] {
        [&self.varz.cluster_addr, &self.varz.gateway_addr].map(|addr| format!("127.0.0.1:{}", addr.as_ref().unwrap().1))
    }

    /// Returns when every thread has stopped, which is a while after the signal was sent.
    pub(super) fn freeze(&self) {
        self.signal("-STOP");
        let tasks = format!("/proc/{}/task", self.process.child.id());
        let stopped = |task: std::fs::DirEntry| {
            let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            stat.rsplit(") ").next().is_some_and(|s| s.starts_with('T'))
        };
        let deadline = Instant::now() + Duration::from_secs(10);
        while !std::fs::read_dir(&tasks).unwrap().flatten().all(stopped) {
            assert!(Instant::now() < deadline, "the server does not stop");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(super) fn signal(&self, signal: &str) {
        let pid = self.process.child.id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(sent.success());
    }
}

impl Process {
    fn start(version: &str, tls: bool) -> Self {
        let root = env!("CARGO_MANIFEST_DIR");
        let binary = format!("{root}/.tools/servers/{version}/nats-server");
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().display();
        let pem = format!("{root}/tests/fixtures/tls/test-only");
        let files = format!(r#"cert_file: "{pem}-cert.pem", key_file: "{pem}-key.pem", ca_file: "{pem}-cert.pem""#);
        let tls = if tls {
            format!("tls {{ {files}, verify: true }}")
        } else {
            String::new()
        };
        let text = format!(
            r#"
            listen: "127.0.0.1:-1"
            http: "127.0.0.1:-1"
            ports_file_dir: "{at}"
            lame_duck_duration: "40s"
            lame_duck_grace_period: "1s"
            cluster {{ name: A, listen: "127.0.0.1:-1", {tls} }}
            gateway {{ name: A, listen: "127.0.0.1:-1", {tls} }}"#
        );
        let config = dir.path().join("nats.conf");
        std::fs::write(&config, text).unwrap();
        let child = Command::new(&binary)
            .arg("-c")
            .arg(&config)
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("{binary}: {e}; tools/servers.sh fetches it"));
        Self { child, dir }
    }

    /// Once the server has written down its ports.
    fn monitor(&self) -> Option<Monitor> {
        let files = std::fs::read_dir(self.dir.path()).ok()?.flatten();
        let ports = files
            .map(|e| e.path())
            .find(|p| p.extension().is_some_and(|e| e == "ports"))?;
        let ports: serde_json::Value = serde_json::from_slice(&std::fs::read(ports).ok()?).ok()?;
        Monitor::new(ports["monitoring"][0].as_str()?, Duration::from_secs(2)).ok()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
