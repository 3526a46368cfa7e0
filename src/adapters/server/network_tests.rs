use std::net::Ipv4Addr;

use tokio::net::TcpListener;

use super::*;
use crate::adapters::server::real::{Server, VERSIONS};

const LIMIT: Duration = Duration::from_secs(3);

#[tokio::test]
async fn a_running_server_shows_its_info_on_route_and_gateway_port() {
    for version in VERSIONS {
        let server = Server::start(version, false).await;
        for port in server.ports() {
            let Found { check, connect } = check(&port, Some(Ipv4Addr::LOCALHOST.into()), LIMIT).await;
            assert!(check.info_seen());
            assert!(connect < LIMIT, "{connect:?}");
            let NetworkCheck::Info(info) = check else {
                panic!("{version} {port}: {check:?}")
            };
            assert_eq!(info.server_id, server.varz.server_id);
            assert_eq!(info.version, version);
            assert_eq!(info.cluster.as_deref(), Some("A"));
        }
    }
}

#[tokio::test]
async fn a_tls_server_is_seen_to_run_without_a_certificate() {
    for version in VERSIONS {
        let server = Server::start(version, true).await;
        for port in server.ports() {
            assert_eq!(check(&port, None, LIMIT).await.check, NetworkCheck::Tls, "{version}");
        }
    }
}

#[tokio::test]
async fn a_frozen_server_connects_and_says_nothing() {
    for (version, tls) in [("2.9.10", false), ("2.15.1", false), ("2.15.1", true)] {
        let server = Server::start(version, tls).await;
        let [port, _] = server.ports();
        assert!(check(&port, None, LIMIT).await.check.info_seen());
        server.freeze();
        let frozen = check(&port, None, Duration::from_millis(600)).await.check;
        assert_eq!(frozen, NetworkCheck::NoInfo { connected: true }, "{version}");
        assert!(!frozen.info_seen());
        server.signal("-CONT");
        assert!(
            check(&port, None, LIMIT).await.check.info_seen(),
            "the check has not harmed it"
        );
    }
}

/// A port that says `first` to whoever connects, then stays silent or closes.
async fn says(first: &'static [u8], close: bool) -> (String, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let port = tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(first).await;
            if !close {
                open.push(stream);
            }
        }
    });
    (addr, port)
}

#[tokio::test]
async fn whoever_is_no_nats_server_is_not_taken_for_one() {
    let short = Duration::from_millis(600);
    let silent = NetworkCheck::NoInfo { connected: true };
    let closed = NetworkCheck::NoInfo { connected: false };
    for (first, close, expected) in [
        (&b""[..], false, &silent),
        (b"", true, &closed),
        (b"SSH-2.0-OpenSSH_9.2\r\n", false, &NetworkCheck::NotNats),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", true, &NetworkCheck::NotNats),
        (b"INFO {}\r\n", false, &NetworkCheck::NotNats),
        (b"INFO nonsense\r\n", false, &NetworkCheck::NotNats),
        (b"INFO\n", false, &NetworkCheck::NotNats),
        (b"INFO {\"server_id\":", true, &NetworkCheck::NotNats),
        (b"INFO {\"server_id\":", false, &silent),
        (&[b' '; 100], false, &NetworkCheck::NotNats),
    ] {
        let (addr, port) = says(first, close).await;
        assert_eq!(
            &check(&addr, None, short).await.check,
            expected,
            "{:?}",
            String::from_utf8_lossy(first)
        );
        port.abort();
    }
}

#[test]
fn an_endless_info_line_ends() {
    let mut line = b"INFO ".to_vec();
    line.resize(MAX_INFO, b' ');
    assert_eq!(recognise(&line), None);
    line.resize(MAX_INFO + 1, b' ');
    assert_eq!(recognise(&line), Some(NetworkCheck::NotNats));
}

#[tokio::test]
async fn a_name_is_tried_at_all_its_addresses() {
    let server = Server::start("2.10.26", false).await;
    let [port, _] = server.ports();
    let by_name = port.replace("127.0.0.1", "localhost");
    assert!(check(&by_name, None, LIMIT).await.check.info_seen());
}

#[tokio::test]
async fn a_closed_port_is_refused_and_an_unknown_name_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    drop(listener);
    assert_eq!(check(&addr, None, LIMIT).await.check, NetworkCheck::Refused);
    for bad in ["no-such-host.invalid:1", "127.0.0.1", "", "127.0.0.1:99999"] {
        let check = check(bad, None, LIMIT).await.check;
        assert!(matches!(check, NetworkCheck::Unreachable(_)), "{bad}: {check:?}");
    }
}

#[tokio::test]
async fn the_local_address_is_used_where_it_can_be() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = listener.local_addr().unwrap();
    for (from, seen) in [
        ("127.0.0.9", "127.0.0.9"),
        ("0.0.0.0", "127.0.0.1"),
        ("::1", "127.0.0.1"),
        ("192.0.2.7", "127.0.0.1"),
    ] {
        let stream = connect(to, Some(from.parse().unwrap())).await.unwrap();
        assert_eq!(stream.local_addr().unwrap().ip().to_string(), seen);
    }
}

/// A port whose queue of connections that are not yet accepted is full: the kernel drops what asks for one more.
async fn full_backlog() -> (TcpListener, Vec<TcpStream>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let addr = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    while let Ok(stream) = tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(addr)).await {
        queued.push(stream.unwrap());
        assert!(queued.len() < 16, "the queue is never full");
    }
    (listener, queued)
}

#[tokio::test]
async fn a_full_backlog_times_out() {
    let (listener, _queued) = full_backlog().await;
    let to = listener.local_addr().unwrap().to_string();
    let found = check(&to, None, Duration::from_millis(300)).await;
    assert_eq!(found.check, NetworkCheck::TimedOut);
}

#[tokio::test]
async fn a_syn_that_was_lost_shows_in_the_time_that_tcp_took() {
    let (listener, queued) = full_backlog().await;
    let to = listener.local_addr().unwrap().to_string();
    let checked = tokio::spawn(async move { check(&to, None, LIMIT * 3).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    for _ in &queued {
        listener.accept().await.unwrap();
    }
    let (mut stream, _) = listener.accept().await.unwrap();
    stream
        .write_all(b"INFO {\"server_id\":\"N\",\"version\":\"2.10.26\"}\r\n")
        .await
        .unwrap();
    let found = checked.await.unwrap();
    assert!(found.check.info_seen(), "{found:?}");
    assert!(found.connect >= Duration::from_millis(900), "{found:?}");
}
