//! The HTTP adapter over real sockets: what it answers, and what a bad client cannot do to it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Served, get, raw, sample};
use nats_watchdog::adapters::http::{self, Limits};
use nats_watchdog::core::canary::beacon::Health;
use nats_watchdog::core::view::Snapshot;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, advance, sleep, timeout};

fn short() -> Limits {
    Limits {
        connections: 3,
        header: Duration::from_millis(300),
        lifetime: Duration::from_millis(900),
        drain: Duration::from_millis(100),
    }
}

/// Time until the server closes `stream`.
async fn until_closed(mut stream: TcpStream) -> Duration {
    let start = Instant::now();
    let mut rest = Vec::new();
    let end = timeout(Duration::from_secs(10), stream.read_to_end(&mut rest)).await;
    assert!(end.is_ok(), "still open after 10 s");
    start.elapsed()
}

#[tokio::test]
async fn every_path_answers_with_its_own_type() {
    let served = Served::start(sample::full()).await;
    for (path, kind) in [
        ("/", "text/html"),
        ("/metrics", "text/plain; version=0.0.4"),
        ("/livez", "text/plain"),
        ("/readyz", "text/plain"),
        ("/api/v1/status", "application/json"),
        ("/api/v1/matrix?now", "application/json"),
        ("/api/v1/faults", "application/json"),
        ("/api/v1/history", "application/json"),
    ] {
        let answer = get(served.address, path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        assert!(
            answer.head.contains(&format!("content-type: {kind}")),
            "{path}: {}",
            answer.head
        );
        assert!(answer.head.contains("nosniff"), "{path}");
    }
}

#[tokio::test]
async fn the_page_loads_nothing_from_elsewhere_and_never_reads_names_as_markup() {
    let served = Served::start(sample::full()).await;
    let page = get(served.address, "/").await;
    for bad in [
        "://",
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "src=",
    ] {
        assert!(!page.body.contains(bad), "{bad}");
    }
    assert!(
        page.head.contains("content-security-policy: default-src 'none'"),
        "{}",
        page.head
    );
}

#[tokio::test]
async fn status_is_the_whole_snapshot_but_for_sources_and_history() {
    let sample = sample::full();
    let served = Served::start(sample.clone()).await;
    let body = get(served.address, "/api/v1/status").await.body;
    let status: Snapshot = serde_json::from_str(&body).unwrap();
    let expected = Snapshot {
        sources: Vec::new(),
        history: Vec::new(),
        ..sample.clone()
    };
    assert_eq!(status, expected);
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(
        keys(&serde_json::from_str(&body).unwrap()),
        keys(&serde_json::to_value(&sample).unwrap())
    );
}

#[tokio::test]
async fn matrix_faults_and_history_hold_what_their_names_say() {
    let sample = sample::full();
    let served = Served::start(sample.clone()).await;
    for (path, key, expected) in [
        ("/api/v1/matrix", "matrix", serde_json::to_value(&sample.matrix)),
        ("/api/v1/matrix", "sources", serde_json::to_value(&sample.sources)),
        ("/api/v1/faults", "faults", serde_json::to_value(&sample.faults)),
        ("/api/v1/history", "history", serde_json::to_value(&sample.history)),
    ] {
        let body: Value = serde_json::from_str(&get(served.address, path).await.body).unwrap();
        assert_eq!(body[key], expected.unwrap(), "{path}");
        assert_eq!(body["at"], sample.at, "{path}");
    }
}

#[tokio::test]
async fn readers_see_the_newest_snapshot() {
    let served = Served::start(sample::full()).await;
    let mut next = sample::full();
    next.at += 17.0;
    served.snapshots.send(Arc::new(next.clone())).unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let body: Value = serde_json::from_str(&get(served.address, "/api/v1/faults").await.body).unwrap();
        if body["at"] == next.at {
            return;
        }
        assert!(Instant::now() < deadline, "still shows {}", body["at"]);
    }
}

#[tokio::test]
async fn what_is_not_there_or_not_allowed_says_what_is() {
    let served = Served::start(sample::full()).await;
    let lost = get(served.address, "/metrix").await;
    assert_eq!(lost.status, 404);
    assert!(
        lost.body.contains("/metrix") && lost.body.contains("/api/v1/status"),
        "{}",
        lost.body
    );
    let post = raw(
        served.address,
        b"POST /api/v1/status HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}",
    )
    .await;
    assert_eq!(post.status, 405);
    assert!(post.head.contains("allow: get, head"), "{}", post.head);
    assert!(post.body.contains("read only"), "{}", post.body);
}

#[tokio::test]
async fn head_gives_the_header_only() {
    let served = Served::start(sample::full()).await;
    let whole = get(served.address, "/api/v1/history").await;
    let head = raw(served.address, b"HEAD /api/v1/history HTTP/1.0\r\n\r\n").await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert!(
        head.head.contains(&format!("content-length: {}", whole.body.len())),
        "{}",
        head.head
    );
}

#[tokio::test]
async fn a_loop_that_hangs_is_neither_alive_nor_ready() {
    let served = Served::start(sample::full()).await;
    assert_eq!(get(served.address, "/livez").await.status, 200);
    tokio::time::pause();
    advance(http::FRESH + Duration::from_secs(1)).await;
    tokio::time::resume();
    let answer = get(served.address, "/livez").await;
    assert_eq!(answer.status, 503);
    assert!(answer.body.contains("no new state for 6."), "{}", answer.body);
    assert_eq!(get(served.address, "/readyz").await.status, 503);
    served.snapshots.send(Arc::new(sample::full())).unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    while get(served.address, "/livez").await.status != 200 {
        assert!(Instant::now() < deadline, "not alive again after a new snapshot");
    }
}

#[tokio::test]
async fn not_ready_names_every_reason() {
    let served = Served::start(sample::fresh()).await;
    let answer = get(served.address, "/readyz").await;
    assert_eq!(answer.status, 503);
    for reason in [
        "has not been looked at",
        "no lane is connected",
        "default: still connecting",
        "warming up: started 2 s ago",
    ] {
        assert!(answer.body.contains(reason), "{reason} is missing in {}", answer.body);
    }
}

#[tokio::test]
async fn a_sick_agent_with_its_server_known_down_is_ready() {
    let mut s = sample::full();
    s.agent.health = Health::Sick;
    s.server.up = false;
    s.server.error = Some("connection refused".to_owned());
    let served = Served::start(s).await;
    assert_eq!(get(served.address, "/readyz").await.status, 200);
}

#[tokio::test]
async fn garbage_is_a_bad_request_and_the_next_client_is_served() {
    let served = Served::start(sample::full()).await;
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(100_000));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(500));
    for (garbage, status) in [
        (&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], &[400][..]),
        (b"hello?\r\n\r\n", &[400]),
        (b"GET / HTTP/9.9\r\n\r\n", &[400]),
        (b"GET /\xff\x00 HTTP/1.1\r\n\r\n", &[400]),
        (long.as_bytes(), &[414, 431, 400]),
        (many.as_bytes(), &[431]),
    ] {
        let answer = raw(served.address, garbage).await;
        let shown = String::from_utf8_lossy(&garbage[..garbage.len().min(30)]).into_owned();
        assert!(status.contains(&answer.status), "{shown:?} gave {}", answer.status);
    }
    assert_eq!(get(served.address, "/livez").await.status, 200);
}

#[tokio::test]
async fn a_slow_loris_is_closed_and_so_is_an_idle_connection() {
    let served = Served::within(short(), sample::full()).await;
    let mut loris = TcpStream::connect(served.address).await.unwrap();
    loris.write_all(b"GET / HTTP/1.1\r\nX-Slow: ").await.unwrap();
    let mut idle = TcpStream::connect(served.address).await.unwrap();
    idle.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let (loris, idle) = tokio::join!(until_closed(loris), until_closed(idle));
    for (what, time) in [("slow", loris), ("idle", idle)] {
        assert!(time < Duration::from_millis(800), "{what}: closed after {time:?}");
        assert!(time > Duration::from_millis(200), "{what}: closed after {time:?}");
    }
}

#[tokio::test]
async fn a_client_that_keeps_asking_is_closed_at_the_end_of_its_life() {
    let served = Served::within(short(), sample::full()).await;
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    let start = Instant::now();
    let mut buffer = [0; 4096];
    let asks = async {
        loop {
            if stream
                .write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
                .await
                .is_err()
                || stream.read(&mut buffer).await.unwrap_or(0) == 0
            {
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_secs(10), asks)
        .await
        .expect("closed within 10 s");
    assert!(start.elapsed() >= Duration::from_millis(850), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_client_that_never_reads_does_not_stay() {
    let served = Served::within(short(), sample::large(4)).await;
    let mut greedy = TcpStream::connect(served.address).await.unwrap();
    // Pipelined requests for far more than socket buffers hold.
    let _ = greedy
        .write_all("GET /api/v1/matrix HTTP/1.1\r\nHost: x\r\n\r\n".repeat(40).as_bytes())
        .await;
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        sleep(Duration::from_millis(100)).await;
        if greedy.write_all(b"x").await.is_err() {
            return;
        }
        assert!(Instant::now() < deadline, "still open after 10 s");
    }
}

#[tokio::test]
async fn clients_beyond_the_limit_wait_until_a_place_is_free() {
    let limits = Limits {
        header: Duration::from_secs(1),
        ..short()
    };
    let served = Served::within(limits, sample::full()).await;
    let mut holders = Vec::new();
    for _ in 0..limits.connections {
        let mut holder = TcpStream::connect(served.address).await.unwrap();
        holder
            .write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .unwrap();
        let mut first = [0; 1];
        holder.read_exact(&mut first).await.unwrap();
        holders.push(holder);
    }
    let mut waiting = tokio::spawn(async move { get(served.address, "/livez").await.status });
    assert!(
        timeout(Duration::from_millis(200), &mut waiting).await.is_err(),
        "served beyond the limit"
    );
    drop(holders);
    let status = timeout(Duration::from_secs(5), waiting)
        .await
        .expect("served after a place is free");
    assert_eq!(status.unwrap(), 200);
}

#[tokio::test]
async fn shutdown_ends_at_once_with_idle_clients_about() {
    let listener = http::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (_snapshots, received) = watch::channel(Arc::new(sample::full()));
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(http::serve(listener, received, async {
        let _ = stopped.await;
    }));
    let mut idle = TcpStream::connect(address).await.unwrap();
    idle.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    idle.read_exact(&mut [0; 1]).await.unwrap();
    stop.send(()).unwrap();
    timeout(Duration::from_secs(1), task)
        .await
        .expect("ends within 1 s")
        .unwrap();
    assert!(TcpStream::connect(address).await.is_err(), "still listens");
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let held = http::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = held.local_addr().unwrap();
    let error = http::bind(address).await.unwrap_err().to_string();
    assert!(
        error.contains(&address.to_string()) && error.contains("http.listen"),
        "{error}"
    );
}
