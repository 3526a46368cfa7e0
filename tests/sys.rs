//! What watching the system account adds to it: nothing, by the counters of real servers.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::time::{Duration, Instant};

use nats_watchdog::{
    adapters::nats::{lane::Input, system},
    config::settings::{Auth, Connect},
    core::{agent::event::Event, ids::HostName},
    lab::{
        AgentSpec, Lab, LabSpec, get_json,
        plain::{Plain, PlainSpec},
    },
};
use tokio::{sync::mpsc, task::AbortHandle};

/// STATSZ comes every 10 s or 30 s, CONNS every 30 s: all that is regular goes into it whole times.
const SPAN: Duration = Duration::from_secs(30);
/// No server sends anything for so long where a span begins, so that none does where it ends.
const STILL: Duration = Duration::from_millis(1_200);
const PATIENCE: Duration = Duration::from_secs(90);
const OLD: &str = "2.9.10";

fn server(version: &str) -> std::path::PathBuf {
    format!("{}/.tools/servers/{version}/nats-server", env!("CARGO_MANIFEST_DIR")).into()
}

/// Until the time between two STATSZ of a server has doubled up to its interval.
fn settled(version: &str) -> Duration {
    Duration::from_secs(if version == OLD { 65 } else { 30 })
}

/// Deliveries of the system account, all servers.
async fn sent(lab: &Lab) -> u64 {
    let mut sum = 0;
    for host in lab.hosts() {
        let read = get_json(&format!("{}/accstatz?unused=1", host.monitor_url))
            .await
            .unwrap();
        let accounts = read["account_statz"].as_array().unwrap().clone();
        let system = accounts.iter().find(|a| a["acc"] == "SYS").unwrap();
        sum += system["sent"]["msgs"].as_u64().unwrap();
    }
    sum
}

/// Deliveries over a span that begins in a pause.
async fn over_a_span(lab: &Lab) -> u64 {
    let deadline = Instant::now() + PATIENCE;
    let mut before = sent(lab).await;
    loop {
        tokio::time::sleep(STILL).await;
        let now = sent(lab).await;
        if now == before {
            break;
        }
        assert!(Instant::now() < deadline, "system traffic never pauses");
        before = now;
    }
    tokio::time::sleep(SPAN).await;
    sent(lab).await - before
}

/// An ordinary client that stays; its account is an active one of its server then, as in any cluster that is used.
async fn client(url: &str, user: &str) -> async_nats::Client {
    let options = async_nats::ConnectOptions::with_user_and_password(user.to_owned(), user.to_owned());
    options.connect(url).await.unwrap()
}

async fn agents_add_nothing(version: &str) {
    let mut agents = AgentSpec::new("observe");
    agents.bin = env!("CARGO_BIN_EXE_watchdog").into();
    let lab = Lab::start(LabSpec {
        regions: vec!["iad".to_owned()],
        per_region: 3,
        accounts: vec!["logs".to_owned()],
        agents: Some(agents),
        ..LabSpec::new(server(version))
    })
    .await
    .unwrap();
    for host in lab.hosts() {
        lab.stop_agent(&host.name).await.unwrap();
    }
    let mut clients = Vec::new();
    for host in lab.hosts() {
        for user in ["watchdog", "logs"] {
            clients.push(client(&host.client_url, user).await);
        }
    }
    tokio::time::sleep(settled(version)).await;
    let without = over_a_span(&lab).await;
    for host in lab.hosts() {
        lab.start_agent(&host.name).unwrap();
    }
    lab.wait_until_easy(PATIENCE).await.unwrap();
    // That a client has connected is told at once, and again after 30 s.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let with = over_a_span(&lab).await;
    // Three servers, two others each: the STATSZ at least.
    let least = if version == OLD { 6 } else { 18 };
    assert!(without >= least, "{version}: {without} of at least {least}");
    assert_eq!(with, without, "{version}: deliveries of the system account in {SPAN:?}");
    println!("{version}: {without} deliveries in {SPAN:?} without agents, {with} with");
    drop(clients);
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_add_no_message_on_2_9() {
    agents_add_nothing(OLD).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_add_no_message_on_2_10() {
    agents_add_nothing("2.10.26").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_add_no_message_on_the_newest() {
    agents_add_nothing("2.15.1").await;
}

/// Messages that came over routes, all servers; before 2.10 there is one connection per peer, for all accounts.
async fn by_routes(mesh: &Plain) -> u64 {
    let mut sum = 0;
    for server in mesh.servers() {
        let read = get_json(&format!("{}/routez", server.monitor)).await.unwrap();
        let routes = read["routes"].as_array().unwrap().clone();
        sum += routes.iter().map(|r| r["in_msgs"].as_u64().unwrap()).sum::<u64>();
    }
    sum
}

async fn by_routes_in_a_span(mesh: &Plain) -> u64 {
    let deadline = Instant::now() + PATIENCE;
    let mut before = by_routes(mesh).await;
    loop {
        tokio::time::sleep(STILL).await;
        let now = by_routes(mesh).await;
        if now == before {
            break;
        }
        assert!(Instant::now() < deadline, "system traffic never pauses");
        before = now;
    }
    tokio::time::sleep(SPAN).await;
    by_routes(mesh).await - before
}

/// What the counting connection costs is what any client of an account costs that had none on that server: one CONNS to each
/// other server every 30 s. Its subscriptions cost nothing, and they see all that comes.
#[tokio::test(flavor = "multi_thread")]
async fn counting_on_2_9_adds_no_message_but_that_a_client_is_there() {
    let spec = PlainSpec {
        server: server(OLD),
        servers: 3,
        clusters: 1,
        clients: 0,
    };
    let mesh = Plain::start(spec, PATIENCE).await.unwrap();
    tokio::time::sleep(settled(OLD)).await;
    let bare = by_routes_in_a_span(&mesh).await;
    assert_eq!(bare, 6, "a STATSZ of each to each");
    let mut streams = Vec::new();
    for server in mesh.servers() {
        streams.push(idle_system_client(server.client.to_string()).await);
    }
    tokio::time::sleep(Duration::from_secs(32)).await;
    let connected = by_routes_in_a_span(&mesh).await;
    assert_eq!(
        connected, 12,
        "and a CONNS of each to each, because a client of the system account is there"
    );
    drop(streams);
    let (inputs, mut events) = mpsc::channel(64);
    let tasks: Vec<AbortHandle> = mesh
        .servers()
        .iter()
        .map(|server| {
            let connect = Connect {
                urls: vec![format!("nats://{}", server.client)],
                auth: Auth::User("SYS".to_owned(), "SYS".to_owned()),
                ..Connect::default()
            };
            let host = HostName::new(&server.name).unwrap();
            tokio::spawn(system::count(connect, host, inputs.clone())).abort_handle()
        })
        .collect();
    let newest = tokio::spawn(async move {
        let mut last = None;
        while let Some(Input::Event(Event::SysCounted {
            subscription,
            peers,
            pending,
        })) = events.recv().await
        {
            assert_eq!(subscription, 1);
            let statsz: u64 = peers.iter().filter(|(id, _)| id.len() == 56).map(|(_, t)| t.msgs).sum();
            last = last.max(Some((statsz, pending)));
        }
        last
    });
    tokio::time::sleep(Duration::from_secs(32)).await;
    let counting = by_routes_in_a_span(&mesh).await;
    assert_eq!(counting, connected, "the subscriptions bring nothing over the routes");
    for task in tasks {
        task.abort();
    }
    drop(inputs);
    // Three servers' STATSZ in 64 s at one in 30 s, the own one included.
    let (seen, pending) = newest.await.unwrap().unwrap();
    assert_eq!(pending, Some(0), "the own STATSZ tells what is queued for routes");
    assert!((6..=12).contains(&seen), "{seen} STATSZ counted");
}

/// A lab whose agents count, with a stream of three replicas. About one lab in twelve on a machine that has far too much to do
/// never places one ("no suitable peers", 2.10.26, the meta group whole): that is not what is tested here, so another is made.
async fn replicated() -> (Lab, async_nats::Client) {
    for _ in 0..3 {
        let mut agents = AgentSpec::new("observe");
        agents.bin = env!("CARGO_BIN_EXE_watchdog").into();
        agents.extra_toml = "[system]\nuser = \"sys\"\npassword = \"sys\"\n".to_owned();
        let lab = Lab::start(LabSpec {
            agents: Some(agents),
            per_region: 1,
            jetstream: true,
            ..LabSpec::new(server("2.10.26"))
        })
        .await
        .unwrap();
        let client = client(&lab.hosts()[0].client_url, "watchdog").await;
        let config = r#"{"name": "S", "subjects": ["js"], "num_replicas": 3, "storage": "memory"}"#;
        let deadline = Instant::now() + PATIENCE / 2;
        while Instant::now() < deadline {
            let answer = client.request("$JS.API.STREAM.CREATE.S", config.into()).await;
            let answer = answer.map(|m| String::from_utf8_lossy(&m.payload).into_owned());
            if answer.as_ref().is_ok_and(|text| !text.contains("error")) {
                return (lab, client);
            }
            eprintln!("no stream yet: {answer:?}");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        for host in lab.hosts() {
            eprintln!(
                "{}: {:?}",
                host.name,
                get_json(&format!("{}/jsz", host.monitor_url)).await
            );
        }
    }
    panic!("no stream in three labs");
}

/// JetStream's Raft groups speak in the system account: by the server's counters three replicas of a busy stream are
/// hundreds of messages a second. With `[system]` they are not in what is judged, and events still are.
#[tokio::test(flavor = "multi_thread")]
async fn replication_of_jetstream_is_not_taken_for_events_where_they_are_counted() {
    let (lab, client) = replicated().await;
    let before = sent(&lab).await;
    let until = Instant::now() + SPAN;
    let mut taken = 0;
    while Instant::now() < until {
        taken += usize::from(client.request("js", "x".into()).await.is_ok());
        tokio::time::sleep(Duration::from_millis(4)).await;
    }
    let replication = (sent(&lab).await - before) / SPAN.as_secs();
    eprintln!("{taken} publishes, {replication} deliveries a second in the system account");
    assert!(replication > 100, "{replication} deliveries a second show nothing");
    for host in lab.hosts() {
        let status = get_json(&format!("http://{}/api/v1/status", host.agent_http))
            .await
            .unwrap();
        let system = &status["sys"];
        assert_eq!(
            (&system["source"], &system["shared_with_jetstream"]),
            (&"counted".into(), &false.into())
        );
        assert!(system["received"]["messages"].as_f64().unwrap() < 5.0, "{system}");
        assert_eq!(status["brownout"][0]["on"], false, "{}", status["brownout"]);
    }
}

async fn idle_system_client(address: String) -> async_nats::Client {
    let options = async_nats::ConnectOptions::with_user_and_password("SYS".to_owned(), "SYS".to_owned());
    options.connect(format!("nats://{address}")).await.unwrap()
}
