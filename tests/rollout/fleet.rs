//! Real nats-servers in one cluster, each with a small agent: beacons, hearing and control are real, and a restart
//! restarts the real process. What it says of its server is read from that server.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt;
use nats_watchdog::adapters::nats::control::{Service, verify};
use nats_watchdog::core::canary::beacon::{Beacon, Health};
use nats_watchdog::core::control::{Answer, Hearing, HostStatus, LastCommand, NonceMemory, Stage, Verb};
use nats_watchdog::core::ids::{HostName, Region, Wall};
use nats_watchdog::core::view::Verdict;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

pub(crate) const PREFIX: &str = "wd";
const INTERVAL: Duration = Duration::from_millis(300);
const STALL: Duration = Duration::from_millis(1500);

/// One nats-server process, restartable in place.
pub(crate) struct Server {
    binary: PathBuf,
    args: Vec<String>,
    pub(crate) client: u16,
    monitor: u16,
    child: Mutex<Option<Child>>,
}

impl Server {
    pub(crate) fn start(&self) {
        let child = Command::new(&self.binary)
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        *self.child.lock().unwrap() = Some(child);
    }

    pub(crate) async fn stop(&self) {
        let child = self.child.lock().unwrap().take();
        if let Some(mut child) = child {
            child.kill().await.unwrap();
        }
    }

    /// A good answer's body; 500 counts, since `/healthz` says what is wrong with it.
    pub(crate) async fn get(&self, path: &str) -> Option<Value> {
        let read = async {
            let mut tcp = TcpStream::connect(("127.0.0.1", self.monitor)).await.ok()?;
            let request = format!("GET /{path} HTTP/1.0\r\nHost: x\r\n\r\n");
            tcp.write_all(request.as_bytes()).await.ok()?;
            let mut text = String::new();
            tcp.read_to_string(&mut text).await.ok()?;
            serde_json::from_str(text.split_once("\r\n\r\n")?.1).ok()
        };
        tokio::time::timeout(Duration::from_secs(1), read).await.ok()?
    }

    pub(crate) async fn id(&self) -> Option<String> {
        let varz = self.get("varz").await?;
        Some(varz["server_id"].as_str()?.to_owned())
    }
}

/// How a host behaves when it is told to restart.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Nature {
    Good,
    /// The old server goes, no new one comes.
    NeverBack,
}

struct Agent {
    host: HostName,
    region: Region,
    nature: Nature,
    server: Arc<Server>,
    heard: BTreeMap<HostName, Instant>,
    last: Arc<Mutex<Option<LastCommand>>>,
}

/// The most that were down at one time, and which ever were.
pub(crate) type Down = (usize, BTreeSet<usize>);

pub(crate) struct Fleet {
    pub(crate) servers: Vec<Arc<Server>>,
    agents: Vec<JoinHandle<()>>,
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for agent in &self.agents {
            agent.abort();
        }
    }
}

pub(crate) fn host(i: usize) -> HostName {
    HostName::new(&format!("h{i}")).unwrap()
}

pub(crate) fn now() -> Wall {
    Wall(SystemTime::now().duration_since(UNIX_EPOCH).unwrap())
}

fn ports(n: usize) -> Vec<u16> {
    let held: Vec<TcpListener> = (0..n).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    held.iter().map(|l| l.local_addr().unwrap().port()).collect()
}

/// Starts a server per nature with an agent each, and returns when all hear all. All obey `operators`.
pub(crate) async fn fleet(version: &str, natures: &[Nature], operators: &[String]) -> Fleet {
    let root = env!("CARGO_MANIFEST_DIR");
    let binary = PathBuf::from(format!("{root}/.tools/servers/{version}/nats-server"));
    assert!(binary.exists(), "no {}: run tools/servers.sh", binary.display());
    let n = natures.len();
    let free = ports(3 * n);
    let routes: Vec<String> = free[2 * n..].iter().map(|p| format!("nats://127.0.0.1:{p}")).collect();
    let servers: Vec<Arc<Server>> = (0..n)
        .map(|i| {
            let args = format!(
                "-a 127.0.0.1 -p {} -m {} -n s{i} --cluster_name C --cluster {} --routes {}",
                free[i],
                free[n + i],
                routes[i],
                routes.join(",")
            );
            Arc::new(Server {
                binary: binary.clone(),
                args: args.split(' ').map(str::to_owned).collect(),
                client: free[i],
                monitor: free[n + i],
                child: Mutex::new(None),
            })
        })
        .collect();
    servers.iter().for_each(|s| s.start());
    let mut agents = Vec::new();
    for (i, server) in servers.iter().enumerate() {
        let agent = Agent {
            host: host(i),
            region: Region::new(["fra", "iad"][i % 2]).unwrap(),
            nature: natures[i],
            server: server.clone(),
            heard: BTreeMap::new(),
            last: Arc::default(),
        };
        agents.push(tokio::spawn(agent.run(operators.to_vec())));
    }
    let fleet = Fleet { servers, agents };
    fleet.settled().await;
    fleet
}

impl Fleet {
    /// A client of the whole fleet, as an operator has one.
    pub(crate) async fn client(&self) -> async_nats::Client {
        let urls: Vec<async_nats::ServerAddr> = self
            .servers
            .iter()
            .map(|s| format!("nats://127.0.0.1:{}", s.client).parse().unwrap())
            .collect();
        async_nats::ConnectOptions::new()
            .reconnect_delay_callback(|_| Duration::from_millis(100))
            .connect(urls)
            .await
            .unwrap()
    }

    async fn settled(&self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let mut whole = true;
            for server in &self.servers {
                let peers = server.get("routez").await.map(|r| peers(&r).len());
                whole &= peers == Some(self.servers.len() - 1);
            }
            if whole && self.all_hear_all().await {
                return;
            }
            assert!(Instant::now() < deadline, "the cluster does not form");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn all_hear_all(&self) -> bool {
        use nats_watchdog::adapters::nats::control::read;
        let client = self.client().await;
        for by in 0..self.servers.len() {
            for of in 0..self.servers.len() {
                let verb = Verb::Hears { source: host(of) };
                let answer = read(&client, PREFIX, &host(by), verb, Duration::from_secs(1)).await;
                let hears = matches!(answer, Ok(Answer::Hears(h)) if h.verdict == Some(Verdict::Ok));
                if by != of && !hears {
                    return false;
                }
            }
        }
        true
    }

    pub(crate) async fn ids(&self) -> Vec<Option<String>> {
        let mut ids = Vec::new();
        for server in &self.servers {
            ids.push(server.id().await);
        }
        ids
    }

    /// Watches all servers until dropped: the most that refused connections at one time, and which ever did.
    pub(crate) fn watch_down(&self) -> (JoinHandle<()>, Arc<Mutex<Down>>) {
        let ports: Vec<u16> = self.servers.iter().map(|s| s.client).collect();
        let seen = Arc::new(Mutex::new((0, BTreeSet::new())));
        let write = seen.clone();
        let task = tokio::spawn(async move {
            loop {
                let mut down = BTreeSet::new();
                for (i, port) in ports.iter().enumerate() {
                    if TcpStream::connect(("127.0.0.1", *port)).await.is_err() {
                        down.insert(i);
                    }
                }
                {
                    let mut seen = write.lock().unwrap();
                    seen.0 = seen.0.max(down.len());
                    seen.1.extend(down);
                }
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
        });
        (task, seen)
    }
}

fn peers(routez: &Value) -> BTreeSet<String> {
    let routes = routez["routes"].as_array().cloned().unwrap_or_default();
    routes
        .iter()
        .filter_map(|r| Some(r["remote_id"].as_str()?.to_owned()))
        .collect()
}

impl Agent {
    async fn run(mut self, operators: Vec<String>) {
        let client = async_nats::ConnectOptions::new()
            .retry_on_initial_connect()
            .ignore_discovered_servers()
            .reconnect_delay_callback(|_| Duration::from_millis(100))
            .connect(format!("nats://127.0.0.1:{}", self.server.client))
            .await
            .unwrap();
        let mut canaries = client.subscribe(format!("{PREFIX}.canary.>")).await.unwrap();
        let mut control = Service::listen(client.clone(), PREFIX, &self.host).await.unwrap();
        // As if it had started a minute ago, so that it takes commands at once.
        let start = Wall(now().0.saturating_sub(Duration::from_secs(60)));
        let mut nonces = NonceMemory::new(start);
        let mut tick = tokio::time::interval(INTERVAL);
        let mut seq = 0;
        loop {
            tokio::select! {
                _ = tick.tick() => {
                    seq += 1;
                    let subject = Beacon::subject(PREFIX, &self.region, &self.host);
                    // A pinned agent does not store beacons for later: what is old proves nothing.
                    if client.connection_state() == async_nats::connection::State::Connected {
                        let _ = client.publish(subject, self.beacon(seq).encode().into()).await;
                    }
                }
                Some(m) = canaries.next() => {
                    if let Ok((source, _)) = Beacon::decode(PREFIX, &m.subject, &m.payload) {
                        self.heard.insert(source.host, Instant::now());
                    }
                }
                Some(request) = control.next() => {
                    let taken = verify(&request.payload, now(), &operators, &mut nonces, &self.host);
                    let answer = match taken {
                        Err(refusal) => Answer::refused(&refusal),
                        Ok(taken) => match taken.command.verb {
                            Verb::Status => Answer::Status(Box::new(self.status().await)),
                            Verb::Hears { source } => Answer::Hears(self.hears(&source)),
                            Verb::Restart => self.restart(taken.command.rollout),
                            Verb::Open { .. } | Verb::Close | Verb::Resume => Answer::Accepted {
                                rollout: taken.command.rollout,
                            },
                            Verb::Rollout => Answer::Rollout(None),
                            Verb::History { .. } => unreachable!("nobody asks for it here"),
                        },
                    };
                    let _ = request.answer(answer).await;
                }
            }
        }
    }

    fn beacon(&self, seq: u64) -> Beacon {
        Beacon {
            seq,
            interval: 300,
            cluster: "C".to_owned(),
            ..Beacon::new(self.host.clone(), self.region.clone())
        }
    }

    fn hears(&self, source: &HostName) -> Hearing {
        let age = self.heard.get(source).map(Instant::elapsed);
        Hearing {
            source: source.clone(),
            verdict: age.map(|a| if a < STALL { Verdict::Ok } else { Verdict::Stalled }),
            age_ms: age.map(|a| u64::try_from(a.as_millis()).unwrap()),
            lane: "main".to_owned(),
        }
    }

    fn restart(&self, rollout: String) -> Answer {
        let (server, last, nature) = (self.server.clone(), self.last.clone(), self.nature);
        let say = move |rollout: &str, state| {
            *last.lock().unwrap() = Some(LastCommand {
                rollout: rollout.to_owned(),
                state,
                detail: String::new(),
            });
        };
        say(&rollout, Stage::Accepted);
        let accepted = Answer::Accepted {
            rollout: rollout.clone(),
        };
        tokio::spawn(async move {
            // Lets the answer out before the connection it goes over is cut.
            tokio::time::sleep(Duration::from_millis(100)).await;
            say(&rollout, Stage::Restarting);
            server.stop().await;
            tokio::time::sleep(Duration::from_millis(300)).await;
            if nature == Nature::Good {
                server.start();
            }
            let deadline = Instant::now() + Duration::from_secs(60);
            while server.id().await.is_none() && Instant::now() < deadline {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            say(&rollout, Stage::Done);
        });
        accepted
    }

    async fn status(&self) -> HostStatus {
        let varz = self.server.get("varz").await;
        let health = self.server.get("healthz").await;
        let routes = self.server.get("routez").await;
        let text = |key: &str| {
            let value = varz.as_ref().and_then(|v| v[key].as_str());
            value.unwrap_or_default().to_owned()
        };
        let unheard = self
            .heard
            .keys()
            .filter(|h| self.hears(h).verdict == Some(Verdict::Stalled))
            .cloned()
            .collect();
        HostStatus {
            host: self.host.clone(),
            region: self.region.clone(),
            cluster: "C".to_owned(),
            server_id: text("server_id"),
            server_name: text("server_name"),
            version: text("version"),
            start_ms: None,
            age_ms: Some(0),
            up: varz.is_some(),
            healthy: health.as_ref().map(|h| h["status"] == "ok"),
            health_detail: String::new(),
            lame_duck: false,
            peers: routes.as_ref().map(|r| peers(r).len()),
            peer_names: vec![],
            gateways: Some(vec![]),
            clients: varz.as_ref().and_then(|v| v["connections"].as_u64()),
            pool_size: varz.as_ref().and_then(|v| v["cluster"]["pool_size"].as_i64()),
            pinned: None,
            active_accounts: None,
            gossiped_routes: None,
            agent_health: Health::Ok,
            unheard,
            roster: self.heard.len(),
            sys_bytes: None,
            brownout: None,
            busy: None,
            last_command: self.last.lock().unwrap().clone(),
            restart: Default::default(),
        }
    }
}
