//! A leaf node with an agent beside a hub of three, on real servers: what is said, and above all what is not done, when
//! the leaf connection stalls in one direction or in both.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::get;
use serde_json::Value;
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(30);
const HOSTS: [&str; 4] = ["hub-1", "hub-2", "hub-3", "leaf-1"];
const LEAF: usize = 3;

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sits on the leaf connection; what stands still is neither passed on nor closed.
#[derive(Default)]
struct Line {
    to_hub: AtomicBool,
    to_leaf: AtomicBool,
}

fn pass(mut from: TcpStream, mut to: TcpStream, still: impl Fn() -> bool) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        while still() {
            std::thread::sleep(Duration::from_millis(20));
        }
        if to.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
}

impl Line {
    fn start(listener: TcpListener, hub: u16) -> Arc<Self> {
        let line = Arc::new(Self::default());
        let this = line.clone();
        std::thread::spawn(move || {
            for leaf in listener.incoming().flatten() {
                let Ok(hub) = TcpStream::connect(("127.0.0.1", hub)) else {
                    continue;
                };
                let (l, h) = (leaf.try_clone().unwrap(), hub.try_clone().unwrap());
                let (one, other) = (this.clone(), this.clone());
                std::thread::spawn(move || pass(leaf, hub, || one.to_hub.load(Ordering::Relaxed)));
                std::thread::spawn(move || pass(h, l, || other.to_leaf.load(Ordering::Relaxed)));
            }
        });
        line
    }

    fn stall(&self, to_hub: bool, to_leaf: bool) {
        self.to_hub.store(to_hub, Ordering::Relaxed);
        self.to_leaf.store(to_leaf, Ordering::Relaxed);
    }
}

struct Fleet {
    _processes: Vec<Process>,
    agents: Vec<SocketAddr>,
    line: Arc<Line>,
    dir: TempDir,
}

impl Fleet {
    /// All may restart their servers, and do it at once: the sharpest that can be configured.
    fn start(version: &str) -> Self {
        let held: Vec<TcpListener> = (0..21).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let ports: Vec<u16> = held.iter().map(|l| l.local_addr().unwrap().port()).collect();
        let mut held = held.into_iter();
        let line = held.next().unwrap();
        drop(held);
        let (front, ports) = (ports[0], &ports[1..]);
        let port = |i: usize, k: usize| ports[5 * i + k];
        let line = Line::start(line, port(0, 4));
        let dir = tempfile::tempdir().unwrap();
        let server = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!(".tools/servers/{version}/nats-server"));
        assert!(server.exists(), "{} is missing: run tools/servers.sh", server.display());
        let routes: Vec<String> = (0..LEAF)
            .map(|i| format!("\"nats-route://127.0.0.1:{}\"", port(i, 2)))
            .collect();
        let mut processes = Vec::new();
        for (i, name) in HOSTS.iter().enumerate() {
            let [client, monitor, route, http, leaf] = [0, 1, 2, 3, 4].map(|k| port(i, k));
            let links = if i == LEAF {
                format!("leafnodes {{ remotes: [{{ url: \"nats-leaf://127.0.0.1:{front}\" }}] }}\n")
            } else {
                format!(
                    "cluster {{ name: hub, listen: \"127.0.0.1:{route}\", routes: [{}] }}\n\
                     leafnodes {{ listen: \"127.0.0.1:{leaf}\", no_advertise: true }}\n",
                    routes.join(", ")
                )
            };
            let text =
                format!("server_name: {name}\nlisten: \"127.0.0.1:{client}\"\nhttp: \"127.0.0.1:{monitor}\"\n{links}");
            let conf = dir.path().join(format!("{name}.conf"));
            std::fs::write(&conf, text).unwrap();
            processes.push(start(&server, &["-c", conf.to_str().unwrap()], dir.path(), name));
            let touched = dir.path().join(format!("{name}.restarted"));
            let text = format!(
                "[host]\nname = \"{name}\"\nregion = \"{}\"\n[nats]\nurl = \"nats://127.0.0.1:{client}\"\n\
                 [server]\nmonitor = \"http://127.0.0.1:{monitor}\"\nrestart_command = [\"touch\", {touched:?}]\n\
                 [remediation]\nmode = \"restart\"\npath_resets = false\nmax_sick_fraction = 1.0\n\
                 [http]\nlisten = \"127.0.0.1:{http}\"\n[state]\ndirectory = {:?}\n",
                name.split('-').next().unwrap(),
                dir.path().join(format!("{name}.state")),
            );
            let toml = dir.path().join(format!("{name}.toml"));
            std::fs::write(&toml, text).unwrap();
            let agent = Path::new(env!("CARGO_BIN_EXE_watchdog"));
            let arguments = ["agent", "--config", toml.to_str().unwrap()];
            processes.push(start(agent, &arguments, dir.path(), &format!("{name}.agent")));
        }
        Self {
            _processes: processes,
            agents: (0..4).map(|i| ([127, 0, 0, 1], port(i, 3)).into()).collect(),
            line,
            dir,
        }
    }

    async fn api(&self, i: usize, path: &str) -> Value {
        if TcpStream::connect(self.agents[i]).is_err() {
            return Value::Null;
        }
        serde_json::from_str(&get(self.agents[i], path).await.body).unwrap_or_default()
    }

    /// Ids of the faults that host `i` knows, and what is done about each.
    async fn faults(&self, i: usize) -> Vec<(String, String)> {
        let faults = self.api(i, "/api/v1/faults").await;
        let faults = faults["faults"]
            .as_array()
            .or(faults.as_array())
            .cloned()
            .unwrap_or_default();
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        faults.iter().map(|f| (text(&f["id"]), text(&f["remedy"]))).collect()
    }

    /// Until every agent hears the three others, and knows no fault.
    async fn whole(&self) {
        let end = Instant::now() + SOON;
        for (i, name) in HOSTS.iter().enumerate() {
            loop {
                let matrix = self.api(i, "/api/v1/matrix").await;
                let ok = matrix["sources"]
                    .as_array()
                    .map_or(0, |s| s.iter().filter(|s| s["verdict"] == "ok").count());
                if ok == 3 && self.faults(i).await.is_empty() {
                    break;
                }
                assert!(Instant::now() < end, "{name}: {matrix}; {}", self.logs());
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }

    fn restarted(&self) -> Vec<&str> {
        let made = |name: &&str| self.dir.path().join(format!("{name}.restarted")).exists();
        HOSTS.into_iter().filter(made).collect()
    }

    fn logs(&self) -> String {
        let log = |name: &str| std::fs::read_to_string(self.dir.path().join(format!("{name}.log"))).unwrap_or_default();
        HOSTS.iter().map(|name| log(&format!("{name}.agent"))).collect()
    }
}

fn start(program: &Path, arguments: &[&str], dir: &Path, name: &str) -> Process {
    let log = std::fs::File::create(dir.join(format!("{name}.log"))).unwrap();
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn();
    Process(child.unwrap())
}

#[tokio::test]
async fn a_leaf_connection_that_stalls_is_the_leafs_affair_and_no_hub_server_is_touched() {
    let fleet = Fleet::start("2.10.26");
    fleet.whole().await;
    // Longer than `mesh_confirm` (10 s) and the two tries of a receiver after it.
    for (to_hub, to_leaf) in [(true, true), (false, true), (true, false)] {
        fleet.line.stall(to_hub, to_leaf);
        let begin = Instant::now();
        let mut seen = std::collections::BTreeSet::new();
        while begin.elapsed() < Duration::from_secs(25) {
            for (i, name) in HOSTS.iter().enumerate() {
                for (id, remedy) in fleet.faults(i).await {
                    let remedy = remedy
                        .split(|c: char| c.is_ascii_digit())
                        .next()
                        .unwrap_or_default()
                        .to_owned();
                    seen.insert((*name, id, remedy));
                }
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        eprintln!(
            "to_hub {to_hub}, to_leaf {to_leaf}: {seen:#?}, restarted: {:?}",
            fleet.restarted()
        );
        fleet.line.stall(false, false);
        fleet.whole().await;
    }
    assert_eq!(fleet.restarted(), Vec::<&str>::new());
}
