use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use super::*;

/// A listener of this process stands in for the server: the kernel's part is the same.
fn listen(address: &str) -> (TcpListener, ServerEndpoint) {
    let listener = TcpListener::bind(address).unwrap();
    let local = listener.local_addr().unwrap();
    let host = local.ip().to_canonical().to_string();
    (
        listener,
        ServerEndpoint {
            host,
            port: local.port(),
        },
    )
}

fn dial(server: &ServerEndpoint) -> TcpStream {
    let stream = TcpStream::connect((server.host.as_str(), server.port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream
}

async fn may_destroy() -> bool {
    let capability = capability().await;
    if let Err(e) = &capability {
        eprintln!("skipped: {e}");
    }
    capability.is_ok()
}

async fn one_connection_dies_and_its_neighbour_lives(address: &str) {
    let (listener, server) = listen(address);
    let (mut doomed, neighbour) = (dial(&server), dial(&server));
    let (_a, _) = listener.accept().unwrap();
    let (mut other_end, _) = listener.accept().unwrap();
    let wanted = Match::One(doomed.local_addr().unwrap());

    let found = find(&server, &wanted).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].remote, doomed.local_addr().unwrap());
    let outcome = destroy(&found).await.unwrap();
    assert_eq!(
        (outcome.destroyed.len(), outcome.gone.len(), outcome.failed.len()),
        (1, 0, 0)
    );

    let error = doomed.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    std::io::Write::write_all(&mut &neighbour, b"x").unwrap();
    assert_eq!(other_end.read(&mut [0]).unwrap(), 1);
    assert_eq!(find(&server, &wanted).await.unwrap(), []);
}

#[tokio::test]
async fn an_ipv4_connection_is_destroyed_alone() {
    if may_destroy().await {
        one_connection_dies_and_its_neighbour_lives("127.0.0.1:0").await;
    }
}

#[tokio::test]
async fn an_ipv6_connection_is_destroyed_alone() {
    if may_destroy().await {
        one_connection_dies_and_its_neighbour_lives("[::1]:0").await;
    }
}

#[tokio::test]
async fn an_ipv4_connection_of_an_ipv6_socket_is_destroyed_alone() {
    if may_destroy().await {
        one_connection_dies_and_its_neighbour_lives("[::ffff:127.0.0.1]:0").await;
    }
}

#[tokio::test]
async fn a_connection_that_has_gone_takes_no_listener_with_it() {
    if !may_destroy().await {
        return;
    }
    let (listener, server) = listen("127.0.0.1:0");
    let stream = dial(&server);
    let (_accepted, _) = listener.accept().unwrap();
    let found = find(&server, &Match::One(stream.local_addr().unwrap())).await.unwrap();
    assert_eq!(destroy(&found).await.unwrap().destroyed.len(), 1);

    let again = destroy(&found).await.unwrap();
    assert_eq!((again.destroyed.len(), again.gone.len(), again.failed.len()), (0, 1, 0));
    let _still_served = dial(&server);
    listener.accept().unwrap();
}

#[tokio::test]
async fn several_connections_with_one_remote_are_refused_as_one() {
    let (listener, server) = listen("127.0.0.1:0");
    let (_a, _b) = (dial(&server), dial(&server));
    let remote = listener.local_addr().unwrap();
    let refused = find(&server, &Match::One(remote)).await.unwrap_err();
    assert!(matches!(refused, SocketError::NotOne { count: 2, .. }), "{refused}");
    let elsewhere = "127.0.0.1:1".parse().unwrap();
    let all = find(&server, &Match::AnyOf(vec![remote, elsewhere])).await.unwrap();
    assert_eq!(all.len(), 2);
    assert!(all.iter().all(|s| s.state == TcpState::Established));
}

#[tokio::test]
async fn without_the_servers_listener_nothing_is_found() {
    let (listener, server) = listen("127.0.0.1:0");
    drop(listener);
    let refused = find(&server, &Match::AnyOf(vec![])).await.unwrap_err();
    assert!(matches!(refused, SocketError::NoListener { .. }), "{refused}");
}

#[test]
fn two_listeners_are_not_guessed_between() {
    let server = ServerEndpoint {
        host: "::".into(),
        port: 4222,
    };
    let listeners = [
        Socket::fake("0.0.0.0:4222", "0.0.0.0:0", TcpState::Listen, 1, 1),
        Socket::fake("[::]:4222", "[::]:0", TcpState::Listen, 2, 2),
    ];
    let refused = Owner::of(&server, &listeners).unwrap_err();
    let text = refused.to_string();
    assert!(text.contains("0.0.0.0:4222 (uid 1), [::]:4222 (uid 2)"), "{text}");
}

#[test]
fn a_user_owns_neither_our_sockets_nor_those_of_another_cgroup_nor_orphans() {
    let owner = Owner::User {
        uid: 7,
        cgroup: Some(1),
        ours: HashSet::from([9]),
    };
    let socket = |uid, inode, cgroup| {
        let mut fake = Socket::fake("10.0.0.1:1", "10.0.0.2:6222", TcpState::Established, uid, inode);
        fake.cgroup = cgroup;
        fake
    };
    assert!(owner.owns(&socket(7, 8, Some(1))));
    assert!(!owner.owns(&socket(8, 8, Some(1))), "another user");
    assert!(!owner.owns(&socket(7, 9, Some(1))), "ours");
    assert!(!owner.owns(&socket(7, 8, Some(2))), "another unit");
    assert!(!owner.owns(&socket(7, 0, Some(1))), "an orphan");
}

#[test]
fn a_listener_never_matches() {
    let owner = Owner::Process {
        inodes: HashSet::from([1]),
    };
    let listener = Socket::fake("0.0.0.0:4222", "0.0.0.0:0", TcpState::Listen, 0, 1);
    let wanted = Match::AnyOf(vec!["0.0.0.0:0".parse().unwrap()]);
    assert_eq!(wanted.select(&owner, vec![listener]).unwrap(), []);
}
