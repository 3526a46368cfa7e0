//! State that cannot be kept: the agent runs, says so, and does nothing that it could not remember.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::bench::{Bench, eventually};

/// A file system of 64 KiB, gone when dropped.
struct Tiny(PathBuf);

impl Tiny {
    fn mount(at: &Path) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let options = ["-t", "tmpfs", "-o", "size=64k", "tmpfs"];
        let mounted = Command::new("mount").args(options).arg(at).output().ok()?;
        mounted.status.success().then(|| Self(at.to_owned()))
    }

    fn fill(&self) -> PathBuf {
        let filler = self.0.join("filler");
        // Ends with an error: that is the point.
        let _ = std::fs::write(&filler, vec![0; 1 << 20]);
        filler
    }
}

impl Drop for Tiny {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_state_directory_that_cannot_be_written_is_said_and_survived() {
    let bench = Bench::new();
    let server = bench.server();
    let mut config = bench.config("iad-1", server.client, server.monitor);
    // Not even root makes a directory below a file.
    let file = bench.dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    config.state = file.join("state");
    let mut agent = config.start();
    agent.ready().await;
    let error = agent.status()["agent"]["state_error"].to_string();
    assert!(
        error.contains(config.state.to_str().unwrap()) && error.contains("directory"),
        "{error}"
    );
    assert_eq!(agent.metric("watchdog_state_writable"), Some(0.0));
    assert!(agent.is_alive());
}

#[tokio::test]
async fn a_disk_that_is_full_at_start_is_said_and_survived() {
    let bench = Bench::new();
    let server = bench.server();
    let config = bench.config("iad-1", server.client, server.monitor);
    let Some(tiny) = Tiny::mount(&config.state) else {
        eprintln!("skipped: only root can mount a tmpfs");
        return;
    };
    tiny.fill();
    let mut agent = config.start();
    agent.ready().await;
    let error = agent.status()["agent"]["state_error"].to_string();
    assert!(error.contains("free space"), "{error}");
    assert_eq!(agent.metric("watchdog_state_writable"), Some(0.0));
    assert!(agent.is_alive());
    drop(agent);
}

#[tokio::test]
async fn a_disk_that_fills_up_is_said_until_there_is_room_again() {
    let bench = Bench::new();
    let server = bench.server();
    let config = bench.config("iad-1", server.client, server.monitor);
    let Some(tiny) = Tiny::mount(&config.state) else {
        eprintln!("skipped: only root can mount a tmpfs");
        return;
    };
    let agent = config.start();
    agent.ready().await;
    assert_eq!(agent.metric("watchdog_state_writable"), Some(1.0));
    let filler = tiny.fill();
    let other = bench.config("fra-1", server.client, server.monitor).start();
    eventually("the error is shown", || {
        agent.status()["agent"]["state_error"]
            .to_string()
            .contains("free space")
    })
    .await;
    assert_eq!(agent.metric("watchdog_state_writable"), Some(0.0));
    assert_eq!(agent.verdict("fra-1").as_deref(), Some("ok"));
    std::fs::remove_file(filler).unwrap();
    eventually("the error is gone", || agent.status()["agent"]["state_error"].is_null()).await;
    let roster = std::fs::read_to_string(config.state.join("roster.json")).unwrap();
    assert!(roster.contains("fra-1"));
    drop((agent, other));
}

#[cfg(feature = "lab")]
mod acts {
    use std::collections::BTreeMap;
    use std::path::PathBuf;
    use std::time::{Duration, Instant};

    use nats_watchdog::lab::{AgentSpec, Lab, LabSpec, What, get_json};

    use crate::bench::SOON;

    #[tokio::test]
    async fn without_a_ledger_a_reset_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let state = format!("state.directory = \"{}\"", file.join("state").display());
        let mut agents = AgentSpec::new("reset");
        agents.bin = PathBuf::from(env!("CARGO_BIN_EXE_watchdog"));
        agents.per_host_toml = BTreeMap::from([("fra-1".to_owned(), state)]);
        let server = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(".tools/servers/2.15.1/nats-server");
        let lab = Lab::start(LabSpec {
            regions: ["iad", "fra", "nrt"].map(String::from).to_vec(),
            per_region: 1,
            agents: Some(agents),
            ..LabSpec::new(server)
        })
        .await
        .unwrap();
        let url = format!("http://{}/api/v1/status", lab.host("fra-1").unwrap().agent_http);
        let until = |what: &'static str, is: fn(&serde_json::Value) -> bool| {
            let url = url.clone();
            async move {
                let deadline = Instant::now() + SOON;
                loop {
                    let status = get_json(&url).await.unwrap_or_default();
                    if is(&status) {
                        return status;
                    }
                    assert!(Instant::now() < deadline, "{what}: {status}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        };
        until("well", |s| {
            s["agent"]["health"] == "ok" && s["agent"]["roster"] == 3 && s["server"]["peers_connected"] == 2
        })
        .await;
        // A server that has just started is left alone for ten seconds, with and without a ledger.
        lab.stall("iad-1", "fra-1", What::Messages).unwrap();
        let status = until("refused", |s| {
            s["remediation"]["blocked"]["ledger_not_kept"].as_u64() >= Some(1)
        })
        .await;
        let started = |s: &serde_json::Value| {
            let actions = s["remediation"]["actions"].as_array().cloned().unwrap_or_default();
            actions
                .iter()
                .any(|a| a["outcome"] == "started" || a["outcome"] == "healed")
        };
        assert!(!started(&status), "{status}");
        let blocking = status["remediation"]["blocking"].to_string();
        assert!(blocking.contains("ledger of acts cannot be written"), "{blocking}");
    }
}
