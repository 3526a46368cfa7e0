//! Real hosts in network namespaces: what a network does to a mesh, told apart from what NATS does to itself.
//! Needs root and `ip`; says so and passes where it has not.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const NEW: &str = "2.15.1";

/// A lab in namespaces, run as a program of its own.
struct Lab {
    child: Child,
    control: String,
    /// Host name and the address of its agent.
    hosts: Vec<(String, String)>,
    dir: tempfile::TempDir,
}

impl Lab {
    fn up(version: &str, more: &[&str]) -> Option<Self> {
        let probe = format!("wdprobe-{}", std::process::id());
        let ip = |args: &[&str]| Command::new("ip").args(args).output().is_ok_and(|o| o.status.success());
        if !ip(&["netns", "add", &probe]) {
            eprintln!("SKIPPED: network namespaces need root and `ip` (Debian: iproute2)");
            return None;
        }
        ip(&["netns", "del", &probe]);
        let dir = tempfile::tempdir().unwrap();
        let root = env!("CARGO_MANIFEST_DIR");
        let child = Command::new(env!("CARGO_BIN_EXE_watchdog-lab"))
            .args(["up", "--netns", "--server"])
            .arg(format!("{root}/.tools/servers/{version}/nats-server"))
            .args(["--agent-bin", env!("CARGO_BIN_EXE_watchdog"), "--dir"])
            .arg(dir.path())
            .args(more)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lab = Self {
            control: String::new(),
            hosts: Vec::new(),
            dir,
            child,
        };
        let lines = BufReader::new(lab.child.stdout.take().unwrap());
        for line in lines.lines().map_while(Result::ok) {
            let words: Vec<&str> = line.split_whitespace().collect();
            if let ["control", address] = words[..] {
                lab.control = address.to_owned();
            }
            if let Some((_, page)) = line.split_once("page http://") {
                let address = page.split('/').next().unwrap();
                lab.hosts.push((words[0].to_owned(), address.to_owned()));
            }
            if lab.hosts.len() == 6 {
                return Some(lab);
            }
        }
        panic!("the lab ended before it was up");
    }

    fn inside(&self, program: &str, args: &[&str]) -> String {
        let space = format!("wdlab-{}-ctl", self.child.id());
        let output = Command::new("ip")
            .args(["netns", "exec", &space, program])
            .args(args)
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn ctl(&self, args: &[&str]) -> String {
        let all = [&["ctl", "--addr", &self.control], args].concat();
        self.inside(env!("CARGO_BIN_EXE_watchdog-lab"), &all)
    }

    fn ask(&self, what: &str, host: &str) -> Value {
        let address = &self.hosts.iter().find(|h| h.0 == host).unwrap().1;
        let url = format!("http://{address}");
        let text = self.inside(
            env!("CARGO_BIN_EXE_watchdog"),
            &[what, "--agent", &url, "--output", "json"],
        );
        serde_json::from_str(&text).unwrap_or_default()
    }

    fn faults(&self, host: &str) -> Vec<(String, String)> {
        let field = |f: &Value, name: &str| f[name].as_str().unwrap_or_default().to_owned();
        let status = self.ask("status", host);
        let faults = status["faults"].as_array().cloned().unwrap_or_default();
        faults.iter().map(|f| (field(f, "id"), field(f, "kind"))).collect()
    }

    fn logged(&self, what: &str) -> Vec<String> {
        let logs = self
            .hosts
            .iter()
            .map(|(host, _)| self.dir.path().join(host).join("agent.log"));
        logs.flat_map(|log| {
            let text = std::fs::read_to_string(log).unwrap_or_default();
            text.lines()
                .filter(|l| l.contains(what))
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .collect()
    }

    fn healthy(&self) {
        eventually(Duration::from_secs(60), "all agents are well", || {
            self.hosts
                .iter()
                .all(|(host, _)| self.ask("status", host)["agent"]["health"] == "ok")
        });
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").args(["-s", "INT", &pid]).status();
        let end = Instant::now() + Duration::from_secs(20);
        while Instant::now() < end && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = (self.child.kill(), self.child.wait());
    }
}

fn eventually(limit: Duration, what: &str, mut check: impl FnMut() -> bool) {
    let end = Instant::now() + limit;
    while !check() {
        assert!(Instant::now() < end, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(300));
    }
}

#[test]
fn a_hole_left_by_a_long_cut_is_named_and_healed_without_a_restart() {
    let Some(lab) = Lab::up(NEW, &["--routes", "gossip", "--agents", "reset"]) else {
        return;
    };
    lab.healthy();
    lab.ctl(&["cut", "fra-1", "nrt-2"]);
    eventually(Duration::from_secs(150), "the hole is named", || {
        lab.faults("fra-1").iter().any(|f| f.0 == "hole:fra-1|nrt-2")
    });
    assert_eq!(
        lab.logged("event=\"act\""),
        Vec::<String>::new(),
        "something was done while the network was gone"
    );
    // The server's one redial, with its timeout of a second, must be over, or there is no hole to heal.
    std::thread::sleep(Duration::from_secs(15));
    lab.ctl(&["mend", "fra-1", "nrt-2"]);
    eventually(Duration::from_secs(60), "the mesh is whole", || {
        lab.ctl(&["missing"]).starts_with("nothing")
    });
    eventually(Duration::from_secs(30), "all faults are gone", || {
        lab.hosts.iter().all(|(host, _)| lab.faults(host).is_empty())
    });
    // On a busy machine the gossip may take longer than the first try is given.
    let acts = lab.logged("event=\"act\"");
    assert!(
        (1..=2).contains(&acts.len()) && acts.iter().all(|a| a.contains("to the common seed")),
        "{acts:?}"
    );
}

#[test]
fn a_peer_whose_network_is_gone_is_named_so_and_nothing_is_touched() {
    let Some(lab) = Lab::up(NEW, &["--agents", "restart"]) else {
        return;
    };
    lab.healthy();
    lab.ctl(&["isolate", "iad-2"]);
    let gone = ("host:iad-2".to_owned(), "network".to_owned());
    eventually(Duration::from_secs(45), "the others name the network", || {
        lab.faults("fra-1").contains(&gone)
    });
    eventually(Duration::from_secs(45), "the host itself names the network", || {
        lab.faults("iad-2").contains(&gone)
    });
    // Long enough for every confirm time, and for NATS to notice by itself.
    std::thread::sleep(Duration::from_secs(20));
    assert_eq!(lab.logged("event=\"act\""), Vec::<String>::new());
    lab.ctl(&["rejoin", "iad-2"]);
    eventually(Duration::from_secs(90), "all is well again", || {
        lab.hosts.iter().all(|(host, _)| lab.faults(host).is_empty())
    });
}

/// Drops what arrives at `to` from `from` on the connections that are there now; new ones pass.
fn half_open(lab: &Lab, from: &str, to: &str) {
    let prefix = format!("wdlab-{}", lab.child.id());
    let inside = |host: &str, program: &str, args: &[&str]| {
        let space = format!("{prefix}-{host}");
        let output = Command::new("ip")
            .args(["netns", "exec", &space, program])
            .args(args)
            .output()
            .unwrap();
        assert!(output.status.success(), "{program}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let addresses = inside(from, "ip", &["-4", "-o", "addr", "show", "dev", "eth0"]);
    let address = addresses.split_whitespace().nth(3).unwrap().split('/').next().unwrap();
    let sockets = inside(to, "ss", &["-Htn", "state", "established", "dst", address]);
    let mut dropped = 0;
    for line in sockets.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let port = |word: &str| word.rsplit(':').next().unwrap().to_owned();
        let (here, there) = (port(words[2]), port(words[3]));
        let rule = [
            "-w", "-A", "INPUT", "-i", "eth0", "-s", address, "-p", "tcp", "--sport", &there, "--dport", &here,
        ];
        inside(to, "iptables", &[&rule[..], &["-j", "DROP"]].concat());
        dropped += 1;
    }
    assert!(dropped > 0, "{to} has no connection with {from}: {sockets}");
}

#[test]
fn a_cut_network_is_left_alone_while_a_stalled_route_beside_it_is_healed() {
    let Some(lab) = Lab::up(NEW, &["--agents", "restart"]) else {
        return;
    };
    lab.healthy();
    lab.ctl(&["cut", "fra-1", "nrt-1"]);
    half_open(&lab, "iad-1", "nrt-2");
    let healed = || {
        let said = lab.logged("healed by reset");
        said.iter().any(|line| line.contains("route:iad-1>nrt-2"))
    };
    eventually(Duration::from_secs(60), "the stalled route is healed", healed);
    eventually(Duration::from_secs(60), "the cut is named the network's", || {
        let faults = lab.faults("nrt-1");
        faults
            .iter()
            .any(|(id, kind)| kind == "network" && id.contains("fra-1") && id.contains("nrt-1"))
    });
    // Long enough for every confirm time.
    std::thread::sleep(Duration::from_secs(20));
    let acts = lab.logged("event=\"act\"");
    // What is dropped takes the acknowledgements of the other direction with it, so that one may stall too.
    let right = |line: &String| {
        let stalled = line.contains("route:iad-1>nrt-2") || line.contains("route:nrt-2>iad-1");
        stalled && line.contains(" reset ")
    };
    assert!(!acts.is_empty() && acts.iter().all(right), "{acts:#?}");
    for cut in ["fra-1", "nrt-1"] {
        assert_eq!(lab.ask("status", cut)["remediation"]["last_restart"], Value::Null);
    }
}
