//! What is wrong at start, and what a running agent is told by signals.

use std::io::Write;

use crate::bench::{Bench, eventually, fails};

#[test]
fn all_errors_of_a_configuration_are_said_at_once() {
    let bench = Bench::new();
    let path = bench.dir.path().join("watchdog.toml");
    std::fs::write(&path, "[canary]\nintervall = \"1s\"\n[server]\ntimeout = \"fast\"\n").unwrap();
    let (code, said) = fails(&path);
    assert_eq!(code, Some(2), "{said}");
    for wrong in ["canary.intervall", "server.timeout", "fast", "host.region"] {
        assert!(said.contains(wrong), "{wrong} is not in: {said}");
    }
    assert!(said.contains("watchdog.toml:2"), "no line: {said}");
}

#[test]
fn credentials_that_cannot_be_read_are_a_configuration_error() {
    let bench = Bench::new();
    let junk = bench.dir.path().join("junk.creds");
    std::fs::write(&junk, "nothing of use").unwrap();
    for creds in [junk, bench.dir.path().join("absent.creds")] {
        let path = bench.dir.path().join("watchdog.toml");
        let text = format!("host.region = \"iad\"\nnats.creds = \"{}\"\n", creds.display());
        std::fs::write(&path, text).unwrap();
        let (code, said) = fails(&path);
        assert_eq!(code, Some(2), "{said}");
        assert!(
            said.contains("nats.creds") && said.contains(creds.to_str().unwrap()),
            "{said}"
        );
    }
}

#[tokio::test]
async fn an_http_address_in_use_ends_the_agent_in_clear_words() {
    let bench = Bench::new();
    let config = bench.config("iad-1", bench.address(), bench.address());
    let _taken = std::net::TcpListener::bind(config.http).unwrap();
    let (code, said) = config.fails();
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains(&config.http.to_string()) && said.contains("http.listen"),
        "{said}"
    );
}

#[tokio::test]
async fn a_second_agent_on_one_state_directory_ends_and_names_the_first() {
    let bench = Bench::new();
    let server = bench.server();
    let first = bench.config("iad-1", server.client, server.monitor);
    let mut agent = first.start();
    agent.ready().await;
    let mut second = bench.config("iad-2", server.client, server.monitor);
    second.state.clone_from(&first.state);
    let (code, said) = second.fails();
    assert_eq!(code, Some(1), "{said}");
    let process = format!("process {}", agent.pid());
    assert!(
        said.contains("in use by another agent") && said.contains(&process),
        "{said}"
    );
    assert!(agent.is_alive());
}

#[tokio::test]
async fn hangup_with_a_bad_file_changes_nothing_and_with_a_good_one_the_mode() {
    let bench = Bench::new();
    let server = bench.server();
    let mut config = bench.config("iad-1", server.client, server.monitor);
    let mut agent = config.start();
    agent.ready().await;
    let mode = || agent.status()["remediation"]["mode"].as_str().map(str::to_owned);
    assert_eq!(mode().as_deref(), Some("observe"));

    config.more = "remediation.mode = \"reset\"\ncanary.stall_after = \"soon\"".to_owned();
    config.write();
    agent.signal("HUP");
    eventually("said that nothing changed", || agent.log().contains("nothing changed")).await;
    assert!(agent.log().contains("canary.stall_after"));
    let sent = || agent.status()["lanes"][0]["sent"].as_u64().unwrap_or_default();
    let before = sent();
    eventually("beacons go on", || sent() > before + 1).await;
    assert_eq!(mode().as_deref(), Some("observe"));

    config.more = "remediation.mode = \"reset\"".to_owned();
    config.write();
    agent.signal("HUP");
    eventually("mode is reset", || mode().as_deref() == Some("reset")).await;
    let told = agent.recorded("agent");
    assert!(told.iter().any(|t| t.contains("mode reset")), "{told:?}");
    assert!(agent.is_alive());
}

#[tokio::test]
async fn a_file_cut_short_while_it_is_read_again_changes_nothing() {
    let bench = Bench::new();
    let server = bench.server();
    let config = bench.config("iad-1", server.client, server.monitor);
    let mut agent = config.start();
    agent.ready().await;
    let mut file = std::fs::File::create(&config.path).unwrap();
    file.write_all(b"host = { name = \"iad").unwrap();
    agent.signal("HUP");
    eventually("said that nothing changed", || agent.log().contains("nothing changed")).await;
    assert_eq!(agent.status()["agent"]["host"], "iad-1");
    assert!(agent.is_alive());
}
