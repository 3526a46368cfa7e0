//! Resets against real nats-servers that share one address: what is destroyed, and above all what is not.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod nats;

use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nats::{Server, eventually};
use nats_watchdog::adapters::host::sockets::{Match, ServerEndpoint, SocketError, capability, destroy, find};

const OLD: &str = "2.9.10";
const POOLED: &str = "2.10.26";
const NEWEST: &str = "2.15.1";

async fn may_destroy() -> bool {
    let capability = capability().await;
    if let Err(e) = &capability {
        eprintln!("skipped: {e}");
    }
    capability.is_ok()
}

/// Three servers; b and c dial a.
struct Cluster {
    a: Server,
    b: Server,
    c: Server,
}

impl Cluster {
    fn start(version: &str, runner: &[&str]) -> Self {
        let a = Server::start(version, "a", &cluster(None), runner);
        let seed = Some(a.cluster());
        let b = Server::start(version, "b", &cluster(seed), runner);
        let c = Server::start(version, "c", &cluster(seed), runner);
        let each = if version == OLD { 1 } else { 4 };
        for (server, peers) in [(&a, [&b, &c]), (&b, [&a, &c]), (&c, [&a, &b])] {
            eventually("the mesh is whole", || {
                peers.iter().all(|p| server.rids(p).len() == each).then_some(())
            });
        }
        Self { a, b, c }
    }
}

fn cluster(seed: Option<SocketAddr>) -> String {
    let routes = seed.map(|s| format!("routes: [\"nats://{s}\"]")).unwrap_or_default();
    format!("cluster {{ name: test, listen: \"127.0.0.1:-1\", {routes} }}")
}

async fn one_route_is_reset_and_nothing_else(version: &str) {
    let Cluster { a, b, c } = Cluster::start(version, &[]);
    let mut clients = [a.client(), b.client(), c.client()];
    let before = (a.rids(&b), a.rids(&c), b.rids(&c));
    let route = a.routes_to(&b).remove(0);

    let found = find(&a.endpoint(), &Match::One(route.remote)).await.unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(destroy(&found).await.unwrap().destroyed.len(), 1);

    let after = eventually("the route is made anew", || {
        let rids = a.rids(&b);
        (!rids.contains(&route.rid) && rids.len() == before.0.len()).then_some(rids)
    });
    let kept = before.0.intersection(&after).count();
    assert_eq!(kept, before.0.len() - 1, "the other connections to the same peer stay");
    assert_eq!((a.rids(&c), b.rids(&c)), (before.1, before.2), "other peers stay");
    clients.iter_mut().for_each(nats::Client::assert_alive);
}

#[tokio::test]
async fn the_only_route_of_an_old_server_is_reset() {
    if may_destroy().await {
        one_route_is_reset_and_nothing_else(OLD).await;
    }
}

#[tokio::test]
async fn one_pooled_route_of_four_is_reset() {
    if may_destroy().await {
        one_route_is_reset_and_nothing_else(POOLED).await;
    }
}

#[tokio::test]
async fn one_pooled_route_of_the_newest_server_is_reset() {
    if may_destroy().await {
        one_route_is_reset_and_nothing_else(NEWEST).await;
    }
}

/// Where this server dialled, `/routez` shows the peer's listening port for all four connections.
#[tokio::test]
async fn a_whole_peer_is_reset_and_a_third_server_with_the_same_address_keeps_its_routes() {
    if !may_destroy().await {
        return;
    }
    let Cluster { a, b, c } = Cluster::start(POOLED, &[]);
    let mut clients = [a.client(), b.client(), c.client()];
    let (old, kept) = (b.rids(&a), (a.rids(&c), b.rids(&c)));

    let refused = find(&b.endpoint(), &Match::One(a.cluster())).await.unwrap_err();
    assert!(matches!(refused, SocketError::NotOne { count: 4, .. }), "{refused}");
    let found = find(&b.endpoint(), &Match::AnyOf(vec![a.cluster()])).await.unwrap();
    assert_eq!(found.len(), 4, "c has four to the same address and port: {found:?}");
    assert_eq!(destroy(&found).await.unwrap().destroyed.len(), 4);

    eventually("all four are made anew", || {
        let rids = b.rids(&a);
        (rids.len() == 4 && rids.is_disjoint(&old)).then_some(())
    });
    assert_eq!((a.rids(&c), b.rids(&c)), kept);
    clients.iter_mut().for_each(nats::Client::assert_alive);
}

/// nats-server before 2.10.16 waits for ever for the first INFO, and shows that connection nowhere.
#[tokio::test]
async fn a_gateway_that_waits_for_ever_dials_again() {
    if !may_destroy().await {
        return;
    }
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let remote = silent.local_addr().unwrap();
    let gateways = format!(
        "gateway {{ name: here, listen: \"127.0.0.1:-1\", gateways: [{{ name: there, urls: [\"nats://{remote}\"] }}] }}"
    );
    let server = Server::start(OLD, "g", &gateways, &[]);
    silent.set_nonblocking(true).unwrap();
    let _waiting = eventually("the gateway dials", || silent.accept().ok());

    let found = find(&server.endpoint(), &Match::AnyOf(vec![remote])).await.unwrap();
    assert_eq!(found.len(), 1, "its own end only, not ours: {found:?}");
    assert_eq!(destroy(&found).await.unwrap().destroyed.len(), 1);
    eventually("the gateway dials again", || silent.accept().ok());
}

/// Set for the child that runs one of the tests below with less privilege.
const AS_CHILD: &str = "WATCHDOG_TEST_SOCKETS";

/// Runs this test binary's `test` as user 65534 with these capabilities only.
fn as_nobody(caps: &str, test: &str, server: &ServerEndpoint, remote: SocketAddr) {
    let dir = tempfile::tempdir().unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(dir.path(), open).unwrap();
    let copy = dir.path().join("test");
    std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .args([format!("--inh-caps=-all{caps}"), format!("--ambient-caps=-all{caps}")])
        .arg(format!("--bounding-set=-all{caps}"))
        .arg(&copy)
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env(AS_CHILD, format!("{} {} {remote}", server.host, server.port))
        .current_dir("/")
        .uid(0)
        .output()
        .expect("setpriv (util-linux) is needed");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}\n{errors}");
}

fn task() -> (ServerEndpoint, SocketAddr) {
    let text = std::env::var(AS_CHILD).expect("run by its parent test");
    let mut words = text.split(' ').map(str::to_owned);
    let mut next = || words.next().unwrap();
    let server = ServerEndpoint {
        host: next(),
        port: next().parse().unwrap(),
    };
    (server, next().parse().unwrap())
}

#[tokio::test]
async fn without_privilege_the_missing_capability_is_named() {
    if !may_destroy().await {
        return;
    }
    let Cluster { a, b, c: _c } = Cluster::start(POOLED, &[]);
    let (before, route) = (a.rids(&b), a.routes_to(&b).remove(0));
    as_nobody("", "child_without_privilege", &a.endpoint(), route.remote);
    assert_eq!(a.rids(&b), before);
}

#[tokio::test]
#[ignore = "run by without_privilege_the_missing_capability_is_named"]
async fn child_without_privilege() {
    let (server, remote) = task();
    let refused = capability().await.unwrap_err();
    assert!(matches!(refused, SocketError::NotPermitted), "{refused}");
    assert!(refused.to_string().contains("CAP_NET_ADMIN"));
    let found = find(&server, &Match::One(remote)).await.unwrap();
    assert_eq!(found.len(), 1, "looking needs no privilege");
    let refused = destroy(&found).await.unwrap_err();
    assert!(matches!(refused, SocketError::NotPermitted), "{refused}");
}

/// As the shipped unit runs: `CAP_NET_ADMIN` and no more, the server under another user, so that `/proc` is closed.
#[tokio::test]
async fn the_capability_alone_resets_a_route_of_another_users_server() {
    if !may_destroy().await {
        return;
    }
    let nats = ["setpriv", "--reuid=65533", "--regid=65533", "--clear-groups"];
    let Cluster { a, b, c } = Cluster::start(POOLED, &nats);
    let route = a.routes_to(&b).remove(0);
    let (before, kept) = (a.rids(&b), a.rids(&c));
    as_nobody(",+net_admin", "child_with_the_capability", &a.endpoint(), route.remote);
    eventually("the route is made anew", || {
        let rids = a.rids(&b);
        let same = before.intersection(&rids).count();
        (rids.len() == 4 && same == 3 && !rids.contains(&route.rid)).then_some(())
    });
    assert_eq!(a.rids(&c), kept);
}

#[tokio::test]
#[ignore = "run by the_capability_alone_resets_a_route_of_another_users_server"]
async fn child_with_the_capability() {
    let (server, remote) = task();
    capability().await.unwrap();
    let found = find(&server, &Match::One(remote)).await.unwrap();
    assert_eq!(destroy(&found).await.unwrap().destroyed.len(), 1);
}
