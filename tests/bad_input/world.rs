//! A world that is not as configured: no server, no nats-server, a server that goes, an agent that goes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use crate::bench::{Bench, Server, eventually};

#[tokio::test]
async fn an_agent_without_a_server_says_so_and_connects_when_it_comes() {
    let bench = Bench::new();
    let (client, monitor) = (bench.address(), bench.address());
    let mut agent = bench.config("iad-1", client, monitor).start();
    eventually("the lane's error is shown", || {
        let status = agent.status();
        let error = status["lanes"][0]["error"].as_str().unwrap_or_default();
        status["lanes"][0]["connected"] == false
            && error.contains(&format!("cannot connect to nats://{client}"))
            && error.contains("is the nats-server running")
    })
    .await;
    eventually("the server's error is shown", || {
        let error = agent.status()["server"]["error"].to_string();
        error.contains("cannot connect") && error.contains(&monitor.to_string())
    })
    .await;
    let (code, why) = agent.get("/readyz").unwrap();
    assert_eq!(code, 503);
    assert!(
        why.contains("no lane is connected") && why.contains(&client.to_string()),
        "{why}"
    );
    assert_eq!(agent.get("/livez").unwrap().0, 200);
    assert!(agent.is_alive());

    let _server = Server::at(client, monitor);
    agent.ready().await;
    assert_eq!(agent.metric("watchdog_server_up"), Some(1.0));
}

#[tokio::test]
async fn a_server_that_refuses_the_agent_is_said_and_asked_again() {
    let bench = Bench::new();
    let (client, monitor) = (bench.address(), bench.address());
    let server = Server::with(client, monitor, &["--user", "watchdog", "--pass", "right"]);
    let mut config = bench.config("iad-1", client, monitor);
    config.more = "nats.user = \"watchdog\"\nnats.password = \"wrong-and-secret\"".to_owned();
    let mut agent = config.start();
    eventually("the refusal is shown", || {
        let error = agent.status()["lanes"][0]["error"].to_string();
        error.contains("uthorization") && error.contains("credentials") && error.contains(&client.to_string())
    })
    .await;
    assert_eq!(agent.get("/readyz").unwrap().0, 503);
    assert_eq!(agent.metric("watchdog_server_up"), Some(1.0));
    assert!(!agent.log().contains("wrong-and-secret") && !agent.status().to_string().contains("wrong-and-secret"));
    server.stop();
    let _right = Server::with(client, monitor, &["--user", "watchdog", "--pass", "wrong-and-secret"]);
    agent.ready().await;
    assert!(agent.is_alive());
}

/// Answers every request with `body` as long as the process runs.
fn impostor(address: SocketAddr, kind: &'static str, body: &'static str) {
    let listener = TcpListener::bind(address).unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
            let _ = stream.read(&mut [0; 2048]);
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(answer.as_bytes());
        }
    });
}

#[tokio::test]
async fn a_monitoring_port_of_something_else_is_no_server_and_the_agent_goes_on() {
    for (kind, body) in [
        ("text/html", "<html><body>It works!</body></html>"),
        ("application/json", r#"{"status":"ok","service":"billing"}"#),
        ("application/json", "[]"),
        ("text/plain", ""),
    ] {
        let bench = Bench::new();
        let (server, monitor) = (bench.server(), bench.address());
        impostor(monitor, kind, body);
        let mut agent = bench.config("iad-1", server.client, monitor).start();
        agent.ready().await;
        eventually("the reason is shown", || {
            let error = agent.status()["server"]["error"].to_string();
            error.contains("does not answer like a nats-server")
        })
        .await;
        assert_eq!(agent.metric("watchdog_server_up"), Some(0.0));
        let sent = || agent.status()["lanes"][0]["sent"].as_u64().unwrap_or_default();
        let before = sent();
        eventually("beacons go on", || sent() > before + 1).await;
        assert_eq!(agent.status()["agent"]["health"], "ok", "{body}");
        assert!(agent.is_alive());
    }
}

#[tokio::test]
async fn a_server_that_dies_is_down_at_once_while_metrics_go_on_and_ages_grow() {
    let bench = Bench::new();
    let server = bench.server();
    let (client, monitor) = (server.client, server.monitor);
    let mut agent = bench.config("iad-1", client, monitor).start();
    let other = bench.config("fra-1", client, monitor).start();
    agent.ready().await;
    eventually("fra-1 is heard", || agent.verdict("fra-1").as_deref() == Some("ok")).await;
    server.stop();
    eventually("down", || agent.metric("watchdog_server_up") == Some(0.0)).await;
    let ages = || {
        let varz = agent.metric("watchdog_source_age_seconds{source=\"varz\"}");
        let canary = agent.metric("watchdog_canary_age_seconds{source_region=\"fra\",lane=\"main\"}");
        (varz.unwrap(), canary.unwrap())
    };
    let before = ages();
    eventually("ages grow", || ages().0 > before.0 + 4.0 && ages().1 > before.1 + 4.0).await;
    assert_eq!(
        agent.verdict("fra-1").as_deref(),
        Some("ok"),
        "an agent that is cut off accused another"
    );
    assert_eq!(agent.recorded("fault"), [""; 0]);
    assert!(agent.is_alive());

    let _server = Server::at(client, monitor);
    agent.ready().await;
    eventually("up again", || agent.metric("watchdog_server_up") == Some(1.0)).await;
    let (_, heard) = agent.source("fra-1").unwrap();
    eventually("fra-1 is heard again", || agent.source("fra-1").unwrap().1 > heard).await;
    assert_eq!(other.recorded("fault"), [""; 0]);
}

#[tokio::test]
async fn an_agent_that_is_told_to_stop_says_goodbye_and_is_seen_departed() {
    let bench = Bench::new();
    let server = bench.server();
    let mut leaver = bench.config("iad-1", server.client, server.monitor).start();
    let stayer = bench.config("fra-1", server.client, server.monitor).start();
    eventually("iad-1 is ok", || stayer.verdict("iad-1").as_deref() == Some("ok")).await;
    leaver.signal("TERM");
    assert_eq!(leaver.ended().code(), Some(0));
    assert!(leaver.log().contains("left in order"));
    eventually("departed", || stayer.verdict("iad-1").as_deref() == Some("departed")).await;
    let told = stayer.recorded("source");
    assert!(told.iter().any(|t| t.contains("said goodbye")), "{told:?}");
    assert_eq!(stayer.recorded("fault"), [""; 0]);
}

#[tokio::test]
async fn an_agent_that_is_killed_and_started_again_knows_its_roster_and_alarms_nobody() {
    let bench = Bench::new();
    let server = bench.server();
    let mut config = bench.config("iad-1", server.client, server.monitor);
    // The machine may be busy: the absence must end before it is a stall.
    config.more = "canary.interval = \"3s\"".to_owned();
    let mut agent = config.start();
    let mut other = bench.config("fra-1", server.client, server.monitor).start();
    eventually("both are ok", || {
        agent.verdict("fra-1").as_deref() == Some("ok") && other.verdict("iad-1").as_deref() == Some("ok")
    })
    .await;
    let roster = config.state.join("roster.json");
    eventually("the roster is on disk", || {
        std::fs::read_to_string(&roster).is_ok_and(|text| text.contains("fra-1"))
    })
    .await;
    agent.kill();
    let agent = config.start();
    eventually("restored", || agent.log().matches("state restored").count() == 2).await;
    assert!(
        agent
            .log()
            .lines()
            .any(|l| l.contains("state restored") && l.contains("hosts=1")),
        "{}",
        agent.log()
    );
    let (_, before) = other.source("iad-1").unwrap();
    eventually("the new one is ok", || {
        let (verdict, received) = other.source("iad-1").unwrap();
        verdict == "ok" && received >= before + 2
    })
    .await;
    assert_eq!(other.recorded("fault"), [""; 0]);
    let lost = "watchdog_canary_lost_total{source_region=\"iad\",lane=\"main\"}";
    assert_eq!(other.metric(lost), Some(0.0));

    // Without anybody else to learn from, the roster can only come from the disk.
    drop(agent);
    other.kill();
    let agent = config.start();
    eventually("the roster is known", || agent.status()["agent"]["roster"] == 2).await;
    assert_eq!(agent.source("fra-1"), Some(("warming".to_owned(), 0)));
}
