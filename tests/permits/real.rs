//! Real stores on loopback; each process is stopped by its id.

use std::future::Future;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nats_watchdog::adapters::store::etcd;
use nats_watchdog::adapters::store::nats_kv::NatsKv;
use nats_watchdog::config::settings::Connect;
use serde_json::Value;
use tempfile::TempDir;

pub(crate) async fn eventually<F, R>(mut check: F)
where
    F: FnMut() -> R,
    R: Future<Output = Result<(), String>>,
{
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        match check().await {
            Ok(()) => return,
            Err(why) => assert!(Instant::now() < end, "not within a minute: {why}"),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

struct Process(Child);

impl Process {
    fn start(program: &std::path::Path, arguments: &[String]) -> Self {
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn ports(n: usize) -> Vec<u16> {
    let held: Vec<TcpListener> = (0..n).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    held.iter().map(|l| l.local_addr().unwrap().port()).collect()
}

pub(crate) struct Etcd {
    _process: Process,
    _dir: TempDir,
    url: String,
}

impl Etcd {
    /// `None` = there is no etcd on this machine.
    pub(crate) fn start() -> Option<Self> {
        let program = PathBuf::from("/usr/bin/etcd");
        if !program.exists() {
            eprintln!("SKIPPED: no etcd; tools/setup-tests.sh installs it");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let p = ports(2);
        let (url, peer) = (
            format!("http://127.0.0.1:{}", p[0]),
            format!("http://127.0.0.1:{}", p[1]),
        );
        let arguments = [
            "--name",
            "one",
            "--data-dir",
            dir.path().to_str().unwrap(),
            "--listen-client-urls",
            &url,
            "--advertise-client-urls",
            &url,
            "--listen-peer-urls",
            &peer,
            "--initial-advertise-peer-urls",
            &peer,
            "--initial-cluster",
            &format!("one={peer}"),
        ]
        .map(str::to_owned);
        let process = Process::start(&program, &arguments);
        let end = Instant::now() + Duration::from_secs(30);
        while std::net::TcpStream::connect(("127.0.0.1", p[0])).is_err() {
            assert!(Instant::now() < end, "etcd did not come up");
            std::thread::sleep(Duration::from_millis(100));
        }
        Some(Self {
            _process: process,
            _dir: dir,
            url,
        })
    }

    /// The first endpoint is dead: the second has to be found.
    pub(crate) fn register(&self, scope: &str) -> etcd::Etcd {
        let dead = format!("http://127.0.0.1:{}", ports(1)[0]);
        etcd::Etcd::new(vec![dead, self.url.clone()], None, scope, Duration::from_secs(10))
    }
}

pub(crate) struct JetStream {
    servers: Vec<(String, Process)>,
    clients: Vec<u16>,
    routes: Vec<u16>,
    _dir: TempDir,
}

pub(crate) async fn kv(urls: &[String], scope: &str) -> NatsKv {
    let connect = Connect {
        urls: urls.to_vec(),
        ..Connect::default()
    };
    NatsKv::open(&connect, "watchdog", scope, "test").await.unwrap()
}

impl JetStream {
    /// Another process may have taken a port that was free a moment ago: then all anew.
    pub(crate) fn start(version: &str, n: usize) -> Self {
        for _ in 0..5 {
            if let Some(up) = Self::try_start(version, n).all_up() {
                return up;
            }
        }
        panic!("{n} servers of {version} did not come up");
    }

    fn all_up(mut self) -> Option<Self> {
        let end = Instant::now() + Duration::from_secs(20);
        for port in self.clients.iter().chain(&self.routes) {
            while std::net::TcpStream::connect(("127.0.0.1", *port)).is_err() {
                let dead = self.servers.iter_mut().any(|(_, p)| p.0.try_wait().unwrap().is_some());
                if dead || Instant::now() > end {
                    return None;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        let alive = self.servers.iter_mut().all(|(_, p)| p.0.try_wait().unwrap().is_none());
        alive.then_some(self)
    }

    fn try_start(version: &str, n: usize) -> Self {
        let program = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!(".tools/servers/{version}/nats-server"));
        assert!(
            program.exists(),
            "{} is missing: run tools/servers.sh",
            program.display()
        );
        let dir = tempfile::tempdir().unwrap();
        let p = ports(2 * n);
        let (clients, routes) = (p[..n].to_vec(), p[n..].to_vec());
        let peers: Vec<String> = routes
            .iter()
            .map(|r| format!("\"nats-route://127.0.0.1:{r}\""))
            .collect();
        let mut servers = Vec::new();
        for i in 0..n {
            let conf = dir.path().join(format!("{i}.conf"));
            let mut text = format!(
                "server_name: n{i}\nlisten: \"127.0.0.1:{}\"\njetstream {{ store_dir: {:?} }}\n",
                clients[i],
                dir.path().join(format!("js{i}"))
            );
            if n > 1 {
                text += &format!(
                    "cluster {{ name: kv, listen: \"127.0.0.1:{}\", routes: [{}] }}\n",
                    routes[i],
                    peers.join(", ")
                );
            }
            std::fs::write(&conf, text).unwrap();
            let arguments = ["-c".to_owned(), conf.to_str().unwrap().to_owned()];
            servers.push((format!("n{i}"), Process::start(&program, &arguments)));
        }
        let routes = if n > 1 { routes } else { Vec::new() };
        Self {
            servers,
            clients,
            routes,
            _dir: dir,
        }
    }

    pub(crate) fn urls(&self) -> Vec<String> {
        self.clients.iter().map(|p| format!("nats://127.0.0.1:{p}")).collect()
    }

    pub(crate) async fn register(&self, scope: &str) -> NatsKv {
        kv(&self.urls(), scope).await
    }

    async fn info(&self) -> Value {
        let client = async_nats::connect(self.urls()).await.unwrap();
        let reply = client
            .request("$JS.API.STREAM.INFO.KV_watchdog", "".into())
            .await
            .unwrap();
        serde_json::from_slice(&reply.payload).unwrap()
    }

    pub(crate) async fn replicas(&self) -> u64 {
        self.info().await["config"]["num_replicas"].as_u64().unwrap()
    }

    /// The name of the server that led the stream.
    pub(crate) async fn kill_leader(&mut self) -> String {
        let leader = self.info().await["cluster"]["leader"].as_str().unwrap().to_owned();
        self.servers.retain(|(name, _)| *name != leader);
        leader
    }
}
