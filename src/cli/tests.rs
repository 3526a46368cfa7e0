//! What people read, and what scripts rely on.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use clap::{CommandFactory as _, Parser as _};
use serde_json::json;

use super::words::Paint;
use super::{Cli, api, config, history, matrix, sample, status};
use crate::config::{Env, Settings};
use crate::core::view::Snapshot;

fn plain() -> Paint {
    Paint::new(false)
}

#[test]
fn status_of_a_host_in_trouble() {
    insta::assert_snapshot!(status::render(&sample::troubled(), plain()));
}

#[test]
fn status_of_a_host_that_is_well() {
    insta::assert_snapshot!(status::render(&sample::well(), plain()));
}

#[test]
fn status_of_a_host_in_the_dark() {
    insta::assert_snapshot!(status::render(&sample::dark(), plain()));
}

#[test]
fn matrix_by_region_and_by_host() {
    let s = sample::troubled();
    let text = matrix::regions(&s.matrix, plain()) + "\n" + &matrix::hosts(&s.sources, plain());
    insta::assert_snapshot!(text);
}

#[test]
fn a_matrix_without_faults_is_a_sentence() {
    let s = sample::well();
    assert_eq!(matrix::hosts(&s.sources, plain()), "The 1 path to this host is fine.\n");
    assert_eq!(matrix::hosts(&[], plain()), "No host has been heard yet.\n");
    assert_eq!(matrix::regions(&[], plain()), "No region has been heard yet.\n");
}

#[test]
fn history_of_a_host_in_trouble() {
    insta::assert_snapshot!(history::render(&sample::troubled().history, plain()));
}

#[test]
fn configuration_as_shown() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("watchdog.toml");
    std::fs::write(
        &file,
        "[host]\nname = \"iad-1\"\nregion = \"iad\"\n[nats]\nuser = \"w\"\npassword = \"secret\"\n",
    )
    .unwrap();
    let mut env = Env::default();
    env.variables.insert("WATCHDOG_REMEDIATION_MODE".into(), "reset".into());
    let loaded = Settings::load(Some(&file), &env).unwrap();
    let text = config::good(&loaded) + &config::table(&loaded.origins, plain());
    assert!(!text.contains("secret"));
    insta::assert_snapshot!(text.replace(dir.path().to_str().unwrap(), "DIR"));
}

#[test]
fn what_the_api_leaves_out_of_status_is_empty() {
    let mut value = serde_json::to_value(sample::troubled()).unwrap();
    let object = value.as_object_mut().unwrap();
    object.remove("history");
    object.remove("sources");
    let read: Snapshot = api::typed(value, &["history", "sources"]).unwrap();
    assert!(read.history.is_empty() && read.sources.is_empty());
    assert_eq!(read.faults, sample::troubled().faults);
}

#[test]
fn a_name_from_another_host_cannot_command_the_terminal() {
    let mut s = sample::troubled();
    s.faults[0].evidence = "\x1b[2J\x07gone".into();
    let read: Snapshot = api::typed(serde_json::to_value(s).unwrap(), &[]).unwrap();
    let text = status::render(&read, plain());
    assert!(text.contains("gone"));
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
}

#[test]
fn every_command_has_help_with_example_and_exit_codes() {
    fn walk(command: &clap::Command, path: &str) {
        for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
            let path = format!("{path} {}", sub.get_name());
            assert!(sub.get_about().is_some(), "{path} does not say what it does");
            let help = sub.get_after_help().map(ToString::to_string).unwrap_or_default();
            for part in ["Example:\n", path.as_str(), "Exit codes:\n"] {
                assert!(help.contains(part), "{path} --help has no {part:?}");
            }
            walk(sub, &path);
        }
    }
    let mut command = Cli::command();
    command.build();
    Cli::command().debug_assert();
    let mut top = Cli::command();
    top = top.subcommand_required(true);
    for sub in top.get_subcommands().filter(|sub| sub.get_name() == "config") {
        // The group's example is one of its commands'.
        assert!(sub.get_after_help().is_some());
    }
    walk(&command, "watchdog");
}

#[test]
fn wrong_usage_ends_with_code_2() {
    for wrong in [&["watchdog", "statsu"][..], &["watchdog", "status", "--output", "xml"]] {
        assert_eq!(Cli::try_parse_from(wrong).unwrap_err().exit_code(), 2);
    }
}

fn agent(url: String) -> api::Agent {
    api::Agent { url }
}

/// Answers one request with `answer` and gives back what was asked.
fn serve(answer: String) -> (String, std::thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut asked = Vec::new();
        let mut buffer = [0; 1024];
        while !asked.ends_with(b"\r\n\r\n") {
            let n = stream.read(&mut buffer).unwrap();
            assert_ne!(n, 0);
            asked.extend_from_slice(&buffer[..n]);
        }
        stream.write_all(answer.as_bytes()).unwrap();
        String::from_utf8(asked).unwrap()
    });
    (url, thread)
}

fn response(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn the_api_is_read_as_it_is() {
    let (url, asked) = serve(response("200 OK", r#"{"history":[]}"#));
    let value = agent(url).get("/api/v1/history").unwrap();
    assert_eq!(value, json!({"history": []}));
    assert!(asked.join().unwrap().starts_with("GET /api/v1/history HTTP/1.1\r\n"));
}

#[test]
fn an_agent_that_does_not_run_is_said_so() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = format!("{:#}", agent(url.clone()).get("/api/v1/status").unwrap_err());
    let expected = format!(
        "nothing listens at {url}: is the agent running? (systemctl status watchdog; another address with --agent)"
    );
    assert_eq!(error, expected);
}

#[test]
fn what_is_no_agent_is_said_so() {
    let error = |status: &str, body: &str| {
        let (url, asked) = serve(response(status, body));
        let error = agent(url).get("/api/v1/status").unwrap_err();
        asked.join().unwrap();
        format!("{error:#}")
    };
    let text = error("404 Not Found", "no such page\n");
    assert!(
        text.ends_with("/api/v1/status answered 404 Not Found: no such page"),
        "{text}"
    );
    let text = error("200 OK", "<html>");
    assert!(text.contains("is not JSON: is that the agent's address?"), "{text}");
    let text = format!("{:#}", agent("https://h".into()).get("/x").unwrap_err());
    assert!(text.contains("write http://127.0.0.1:9777"), "{text}");
}
