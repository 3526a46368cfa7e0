//! The lab itself, with real servers of three versions: what it says is broken is broken, and nothing else is.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::{
    fmt::Debug,
    future::Future,
    path::PathBuf,
    time::{Duration, Instant},
};

use async_nats::{Client, ConnectOptions, Subscriber};
use futures_util::StreamExt;
use nats_watchdog::lab::{Lab, LabSpec, PoolSlot, Routes, Sticks, Topology, What, get_json};
use serde_json::Value;
use tokio::time::timeout;

const OLD: &str = "2.9.10";
const POOLED: &str = "2.10.26";
const NEW: &str = "2.15.1";
/// Long against the milliseconds that a message takes here; what has not come by then is not coming.
const SILENCE: Duration = Duration::from_millis(700);
const SOON: Duration = Duration::from_secs(10);

fn spec(version: &str) -> LabSpec {
    let server = format!(".tools/servers/{version}/nats-server");
    let server = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(server);
    assert!(server.exists(), "{} is missing: run tools/servers.sh", server.display());
    LabSpec::new(server)
}

fn small(version: &str) -> LabSpec {
    let regions = ["iad", "fra", "nrt"].map(String::from).to_vec();
    LabSpec {
        regions,
        per_region: 1,
        ..spec(version)
    }
}

async fn client(lab: &Lab, host: &str, user: &str) -> Client {
    let options = ConnectOptions::with_user_and_password(user.into(), user.into());
    options.connect(&lab.host(host).unwrap().client_url).await.unwrap()
}

/// A subscription on `host` and whether messages from others get there.
struct Ear {
    subscriber: Subscriber,
    client: Client,
    subject: String,
}

impl Ear {
    async fn new(client: &Client) -> Self {
        let subject = client.new_inbox();
        let subscriber = client.subscribe(subject.clone()).await.unwrap();
        client.flush().await.unwrap();
        Self {
            subscriber,
            client: client.clone(),
            subject,
        }
    }

    /// Publishes until something arrives.
    async fn hears(&mut self, from: &Client) -> bool {
        let deadline = Instant::now() + SOON;
        while Instant::now() < deadline {
            if self.hears_one(from, Duration::from_millis(100)).await {
                return true;
            }
        }
        false
    }

    /// Publishes for a while and hears nothing of it.
    async fn is_deaf_to(&mut self, from: &Client) -> bool {
        let deadline = Instant::now() + SILENCE;
        while Instant::now() < deadline {
            if self.hears_one(from, Duration::from_millis(100)).await {
                return false;
            }
        }
        true
    }

    async fn hears_one(&mut self, from: &Client, patience: Duration) -> bool {
        let token = from.new_inbox();
        from.publish(self.subject.clone(), token.clone().into()).await.unwrap();
        from.flush().await.unwrap();
        let heard = async {
            while let Some(message) = self.subscriber.next().await {
                if message.payload == token {
                    return;
                }
            }
        };
        timeout(patience, heard).await.is_ok()
    }

    fn is_connected(&self) -> bool {
        self.client.connection_state() == async_nats::connection::State::Connected
    }
}

async fn eventually<F: Future<Output = Result<(), E>>, E: Debug>(patience: Duration, mut look: impl FnMut() -> F) {
    let deadline = Instant::now() + patience;
    while let Err(error) = look().await {
        assert!(Instant::now() < deadline, "not so after {patience:?}: {error:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn monitor(lab: &Lab, host: &str, what: &str) -> Value {
    get_json(&format!("{}/{what}", lab.host(host).unwrap().monitor_url))
        .await
        .unwrap()
}

/// The route connections of a server, as id of the peer and id of the connection.
async fn routes(lab: &Lab, host: &str) -> Vec<(String, u64)> {
    let routez = monitor(lab, host, "routez").await;
    let of = |route: &Value| {
        (
            route["remote_id"].as_str().unwrap().to_owned(),
            route["rid"].as_u64().unwrap(),
        )
    };
    let mut routes: Vec<_> = routez["routes"].as_array().unwrap().iter().map(of).collect();
    routes.sort();
    routes
}

async fn comes_up(version: &str) {
    for topology in [Topology::OneCluster, Topology::ClusterPerRegion] {
        for routes in [Routes::Full, Routes::Gossip] {
            let lab = Lab::start(LabSpec {
                topology,
                routes,
                ..spec(version)
            })
            .await
            .unwrap();
            let (a, b) = (
                client(&lab, "iad-2", "watchdog").await,
                client(&lab, "nrt-2", "watchdog").await,
            );
            let mut ear = Ear::new(&b).await;
            assert!(ear.hears(&a).await, "{version} {topology:?} {routes:?}");
            let unknown: Vec<_> = lab.connections().into_iter().filter(|c| c.dialler.is_none()).collect();
            assert!(unknown.is_empty(), "{version} {topology:?} {routes:?}: {unknown:?}");
        }
    }
}

#[tokio::test]
async fn a_mesh_of_2_9_comes_up_in_every_shape() {
    comes_up(OLD).await;
}

#[tokio::test]
async fn a_mesh_of_2_10_comes_up_in_every_shape() {
    comes_up(POOLED).await;
}

#[tokio::test]
async fn a_mesh_of_the_newest_comes_up_in_every_shape() {
    comes_up(NEW).await;
}

async fn stalls_one_way(version: &str) {
    let lab = Lab::start(small(version)).await.unwrap();
    let (iad, fra) = (
        client(&lab, "iad-1", "watchdog").await,
        client(&lab, "fra-1", "watchdog").await,
    );
    let nrt = client(&lab, "nrt-1", "watchdog").await;
    let mut at_iad = Ear::new(&iad).await;
    let mut at_fra = Ear::new(&fra).await;
    let mut at_nrt = Ear::new(&nrt).await;
    assert!(at_fra.hears(&iad).await && at_iad.hears(&fra).await && at_nrt.hears(&iad).await);
    let before = (routes(&lab, "iad-1").await, routes(&lab, "fra-1").await);

    let stall = lab.stall("iad-1", "fra-1", What::Messages).unwrap();
    assert!(at_fra.is_deaf_to(&iad).await, "{version}: iad -> fra flows");
    assert!(at_iad.hears(&fra).await, "{version}: fra -> iad does not flow");
    assert!(
        at_nrt.hears(&iad).await && at_fra.hears(&nrt).await,
        "{version}: other pairs do not flow"
    );
    let mut new_at_iad = Ear::new(&iad).await;
    assert!(new_at_iad.hears(&fra).await, "{version}: new interest does not travel");
    assert_eq!(
        (routes(&lab, "iad-1").await, routes(&lab, "fra-1").await),
        before,
        "{version}: reconnected"
    );

    lab.unstall(stall).unwrap();
    assert!(at_fra.hears(&iad).await, "{version}: unstall does not heal");

    lab.stall("iad-1", "fra-1", What::Messages).unwrap();
    assert!(at_fra.is_deaf_to(&iad).await);
    assert!(lab.reset("iad-1", "fra-1").unwrap() > 0);
    assert!(at_fra.hears(&iad).await, "{version}: a reset does not heal");
    assert!(at_fra.is_connected() && at_iad.is_connected());

    lab.wait_until_whole(SOON).await.unwrap();
    lab.stall_on("iad-1", "fra-1", What::Messages, Sticks::Pair).unwrap();
    lab.reset("iad-1", "fra-1").unwrap();
    lab.wait_until_whole(SOON).await.unwrap();
    assert!(
        at_fra.is_deaf_to(&iad).await,
        "{version}: a reset heals what sticks to the pair"
    );
    lab.clear();
    assert!(at_fra.hears(&iad).await);
}

#[tokio::test]
async fn messages_of_2_9_stall_in_one_direction_of_one_pair() {
    stalls_one_way(OLD).await;
}

#[tokio::test]
async fn messages_of_2_10_stall_in_one_direction_of_one_pair() {
    stalls_one_way(POOLED).await;
}

#[tokio::test]
async fn messages_of_the_newest_stall_in_one_direction_of_one_pair() {
    stalls_one_way(NEW).await;
}

#[tokio::test]
async fn a_stalled_route_still_passes_ping_and_pong() {
    let extra = "ping_interval: \"1s\"\nping_max: 2\n".to_owned();
    let lab = Lab::start(LabSpec {
        server_extra: extra,
        ..small(NEW)
    })
    .await
    .unwrap();
    lab.wait_until_whole(SOON).await.unwrap();
    let before = routes(&lab, "iad-1").await;
    lab.stall("iad-1", "fra-1", What::Messages).unwrap();
    lab.stall("iad-1", "fra-1", What::Interest).unwrap();
    // Two pings missed would close it.
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(routes(&lab, "iad-1").await, before);
    // The same time without PING and PONG closes it: the five seconds above prove something.
    lab.cut("iad-1", "fra-1").unwrap();
    eventually(SOON, || async {
        let now = routes(&lab, "iad-1").await;
        if now == before {
            Err("the routes of a cut pair are still there")
        } else {
            Ok(())
        }
    })
    .await;
}

#[tokio::test]
async fn new_interest_stalls_while_old_subscriptions_get_messages() {
    for version in [OLD, POOLED, NEW] {
        let lab = Lab::start(small(version)).await.unwrap();
        let (iad, fra) = (
            client(&lab, "iad-1", "watchdog").await,
            client(&lab, "fra-1", "watchdog").await,
        );
        let mut old = Ear::new(&iad).await;
        assert!(old.hears(&fra).await);
        let stall = lab.stall("iad-1", "fra-1", What::Interest).unwrap();
        let mut new = Ear::new(&iad).await;
        assert!(new.is_deaf_to(&fra).await, "{version}: new interest travels");
        assert!(old.hears(&fra).await, "{version}: an old subscription is deaf");
        let mut back = Ear::new(&fra).await;
        assert!(
            back.hears(&iad).await,
            "{version}: interest of the other side does not travel"
        );
        lab.unstall(stall).unwrap();
        let mut after = Ear::new(&iad).await;
        assert!(after.hears(&fra).await, "{version}: unstall does not heal");
    }
}

#[tokio::test]
async fn one_pool_connection_stalls_one_account_and_no_other() {
    for version in [POOLED, NEW] {
        let accounts = ["logs", "trades", "audit", "billing"].map(String::from).to_vec();
        let lab = Lab::start(LabSpec {
            accounts: accounts.clone(),
            ..small(version)
        })
        .await
        .unwrap();
        let (iad, mut ears) = (clients(&lab, "iad-1", &accounts).await, Vec::new());
        for fra in clients(&lab, "fra-1", &accounts).await {
            ears.push(Ear::new(&fra).await);
        }
        for (ear, from) in ears.iter_mut().zip(&iad) {
            assert!(ear.hears(from).await);
        }
        lab.stall("iad-1", "fra-1", What::Pool(PoolSlot::Account("logs".into())))
            .unwrap();
        let stalled: Vec<u32> = lab
            .connections()
            .iter()
            .filter(|c| !c.faults.is_empty())
            .map(|c| c.pool_index)
            .collect();
        assert_eq!(stalled.len(), 1, "{version}: {stalled:?}");
        assert!(ears[0].is_deaf_to(&iad[0]).await, "{version}: logs flows");
        let mut flowing = 0;
        for (ear, from) in ears.iter_mut().zip(&iad) {
            flowing += usize::from(!ear.is_deaf_to(from).await);
        }
        assert!(flowing > 0, "{version}: every account is dead");
        lab.clear();
        lab.stall("iad-1", "fra-1", What::Pool(PoolSlot::Index(stalled[0])))
            .unwrap();
        assert!(
            ears[0].is_deaf_to(&iad[0]).await,
            "{version}: the index is not the account's"
        );
    }
}

async fn clients(lab: &Lab, host: &str, accounts: &[String]) -> Vec<Client> {
    let mut clients = Vec::new();
    for account in accounts {
        clients.push(client(lab, host, account).await);
    }
    clients
}

#[tokio::test]
async fn between_clusters_a_stall_follows_the_senders_gateway() {
    for version in [OLD, NEW] {
        let lab = Lab::start(LabSpec {
            topology: Topology::ClusterPerRegion,
            ..spec(version)
        })
        .await
        .unwrap();
        let (iad, fra) = (
            client(&lab, "iad-1", "watchdog").await,
            client(&lab, "fra-2", "watchdog").await,
        );
        let other = client(&lab, "iad-2", "watchdog").await;
        let (mut at_fra, mut at_iad) = (Ear::new(&fra).await, Ear::new(&iad).await);
        assert!(at_fra.hears(&iad).await && at_iad.hears(&fra).await);
        lab.stall("iad-1", "fra-2", What::Messages).unwrap();
        assert!(at_fra.is_deaf_to(&iad).await, "{version}: iad-1 -> fra flows");
        assert!(at_fra.hears(&other).await, "{version}: iad-2 -> fra does not flow");
        assert!(at_iad.hears(&fra).await, "{version}: fra-2 -> iad-1 does not flow");
    }
}

#[tokio::test]
async fn a_cut_pair_passes_nothing_and_goes_on_when_mended() {
    let lab = Lab::start(small(NEW)).await.unwrap();
    let (iad, fra) = (
        client(&lab, "iad-1", "watchdog").await,
        client(&lab, "fra-1", "watchdog").await,
    );
    let (mut at_fra, mut at_iad) = (Ear::new(&fra).await, Ear::new(&iad).await);
    assert!(at_fra.hears(&iad).await && at_iad.hears(&fra).await);
    lab.cut("iad-1", "fra-1").unwrap();
    assert!(at_fra.is_deaf_to(&iad).await && at_iad.is_deaf_to(&fra).await);
    lab.mend("iad-1", "fra-1").unwrap();
    assert!(at_fra.hears(&iad).await && at_iad.hears(&fra).await);

    lab.cut("iad-1", "fra-1").unwrap();
    lab.restart_server("iad-1").await.unwrap();
    let missing = lab.missing().await.join("; ");
    assert!(missing.contains("routes to fra-1"), "{missing}");
    lab.mend("iad-1", "fra-1").unwrap();
    lab.wait_until_whole(SOON).await.unwrap();
}

#[tokio::test]
async fn a_gateway_of_2_9_waits_for_info_for_ever_and_a_newer_one_does_not_lose_its_others() {
    let lab = Lab::start(LabSpec {
        topology: Topology::ClusterPerRegion,
        ..small(OLD)
    })
    .await
    .unwrap();
    assert_eq!(lab.hold_gateway_info("iad-1", "fra").unwrap(), 1);
    eventually(SOON, || async {
        if has_gateway(&lab, "iad-1", "fra").await {
            Err("still there")
        } else {
            Ok(())
        }
    })
    .await;
    let deadline = Instant::now() + Duration::from_secs(22);
    while Instant::now() < deadline {
        assert!(!has_gateway(&lab, "iad-1", "fra").await, "the held gateway came back");
        assert!(has_gateway(&lab, "iad-1", "nrt").await, "the other gateway went away");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert!(has_gateway(&lab, "fra-1", "iad").await, "the other direction went away");
    lab.restart_server("iad-1").await.unwrap();
    lab.wait_until_whole(SOON).await.unwrap();
}

async fn has_gateway(lab: &Lab, host: &str, cluster: &str) -> bool {
    monitor(lab, host, "gatewayz").await["outbound_gateways"][cluster].is_object()
}

fn is_running(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ")
        .next()
        .is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

#[tokio::test]
async fn nothing_outlives_the_lab_not_even_a_frozen_server() {
    let lab = Lab::start(small(NEW)).await.unwrap();
    lab.freeze_server("fra-1").unwrap();
    let pids: Vec<u32> = lab.hosts().iter().map(|h| lab.server_pid(&h.name).unwrap()).collect();
    let dir = lab.dir().to_owned();
    assert!(pids.iter().all(|pid| is_running(*pid)) && dir.exists());
    drop(lab);
    assert!(!pids.iter().any(|pid| is_running(*pid)));
    assert!(!dir.exists());
}
