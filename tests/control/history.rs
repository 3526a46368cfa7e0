//! The audit is read back: in the state directory, over NATS, by the command, after the agent's own restart.

use std::process::{Command as Run, Output, Stdio};

use futures_util::StreamExt as _;
use nats_watchdog::core::audit::Told;

use super::*;

fn history(arguments: &[&str]) -> Output {
    Run::new(env!("CARGO_BIN_EXE_watchdog"))
        .env_clear()
        .env("HOME", "/nonexistent")
        .arg("history")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn json_lines(output: &Output) -> Vec<Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn of_rollout(lines: &[Value]) -> Vec<(&str, &str)> {
    let ours = lines.iter().filter(|l| l["rollout"] == "rollout-h");
    ours.map(|l| (l["event"].as_str().unwrap(), l["outcome"].as_str().unwrap()))
        .collect()
}

#[tokio::test]
async fn an_order_is_found_again_with_who_and_why_everywhere_and_after_the_agents_own_restart() {
    let mut host = Host::start().await;
    let mut events = host.client.subscribe("watchdog.event.iad.iad-1").await.unwrap();
    host.client.flush().await.unwrap();
    host.old_enough().await;
    host.open("rollout-h").await;
    let answer = host.send(&host.operator.sign(&restart("h"))).await;
    assert!(matches!(answer, Answer::Accepted { .. }), "{answer:?}");

    // As an event, at once.
    let told = tokio::time::timeout(SOON, async {
        loop {
            let message = events.next().await.unwrap();
            let told = Told::decode("watchdog", &message.subject, &message.payload).unwrap();
            if told.record.event == "command" {
                return told;
            }
        }
    });
    let record = told.await.unwrap().record;
    let who = record.who.clone().unwrap();
    assert_eq!((who.name.as_str(), who.key), ("ada@desk", host.operator.public_key()));
    assert_eq!((record.why.as_str(), record.outcome.as_str()), ("to see", "accepted"));
    assert!(!record.act.is_empty());

    // From the agent, the state directory, and the fleet: the same line.
    let agent = format!("http://{}", host.config.http);
    let nats = host.config.url.clone();
    let state = host.config.state.to_str().unwrap().to_owned();
    let expected = [("command", "accepted")];
    let by_agent = json_lines(&history(&["--agent", &agent, "--output", "json"]));
    assert_eq!(of_rollout(&by_agent), expected);
    let by_fleet = json_lines(&history(&[
        "--fleet", "--server", &nats, "--output", "json", "--event", "command",
    ]));
    assert_eq!(of_rollout(&by_fleet), expected);
    assert_eq!(by_fleet[0]["host"], "iad-1");
    eventually("it is on disk", || {
        let lines = json_lines(&history(&["--state", &state, "--output", "json"]));
        of_rollout(&lines) == expected
    })
    .await;
    let text = history(&["--host", "iad-1", "--server", &nats]);
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(text.contains("ada@desk") && text.contains("to see"), "{text}");

    // A host that does not answer makes the answer incomplete, and that is said.
    let missing = history(&[
        "--host", "iad-1", "--host", "iad-9", "--server", &nats, "--within", "1s",
    ]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("iad-9"));
    assert!(String::from_utf8_lossy(&missing.stdout).contains("ada@desk"));

    // The agent's own end takes nothing away.
    host.again().await;
    let after = json_lines(&history(&["--agent", &agent, "--output", "json"]));
    assert_eq!(of_rollout(&after), expected);
}

#[tokio::test]
async fn events_are_followed_as_they_come_and_a_forged_one_is_not_believed() {
    let host = Host::start().await;
    let nats = host.config.url.clone();
    let mut follow = tokio::process::Command::new(env!("CARGO_BIN_EXE_watchdog"))
        .env_clear()
        .env("HOME", "/nonexistent")
        .args([
            "history", "--follow", "--server", &nats, "--output", "json", "--event", "refused",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    use tokio::io::AsyncBufReadExt as _;
    let mut out = tokio::io::BufReader::new(follow.stdout.take().unwrap()).lines();
    let mut err = tokio::io::BufReader::new(follow.stderr.take().unwrap()).lines();
    let deadline = tokio::time::Instant::now() + SOON;
    // Forged ones are sent until it listens; each is named and none is shown.
    let forged = r#"{"v":1,"host":"iad-2","region":"iad","at":1,"event":"refused","subject":"x","text":"forged"}"#;
    let said = loop {
        assert!(tokio::time::Instant::now() < deadline, "it does not follow");
        host.client
            .publish("watchdog.event.iad.iad-1", forged.into())
            .await
            .unwrap();
        let said = tokio::time::timeout(Duration::from_millis(200), err.next_line()).await;
        if let Ok(Ok(Some(line))) = said {
            break line;
        }
    };
    assert!(said.contains("iad-2"), "{said}");
    host.refused(&Envelope::unsigned(&restart("n"))).await;
    let line = tokio::time::timeout(SOON, out.next_line())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(
        (line["host"].as_str(), line["why"].as_str()),
        (Some("iad-1"), Some("unsigned"))
    );
    let pid = follow.id().unwrap().to_string();
    assert!(Run::new("kill").args(["-s", "INT", &pid]).status().unwrap().success());
    let status = tokio::time::timeout(SOON, follow.wait()).await.unwrap().unwrap();
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn a_json_log_has_every_field_of_a_record() {
    let bench = Bench::new();
    let server = bench.server();
    let config = bench.config("iad-1", server.client, server.monitor);
    let log = bench.dir.path().join("json.log");
    let child = Run::new(env!("CARGO_BIN_EXE_watchdog"))
        .env_clear()
        .args(["agent", "--log-format", "json", "--config"])
        .arg(config.write())
        .stdin(Stdio::null())
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let agent = Agent::of(child, log.clone(), config.http);
    agent.ready().await;
    let to = HostName::new("iad-1").unwrap();
    let unsigned = Envelope::unsigned(&restart("n"));
    ask(
        &server.client().await,
        "watchdog",
        &to,
        &unsigned,
        Duration::from_secs(5),
    )
    .await
    .unwrap();
    let find = || {
        let log = std::fs::read_to_string(&log).unwrap();
        let mut lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.find(|line| line["event"] == "refused")
    };
    eventually("the refusal in the log", || find().is_some()).await;
    let line = find().unwrap();
    assert_eq!(line["level"], "WARN");
    for (field, value) in [
        ("subject", "command"),
        ("why", "no_operators"),
        ("outcome", "refused"),
        ("who", "ada@desk"),
        ("kind", "stranger"),
    ] {
        assert_eq!(line[field], value, "{field}: {line}");
    }
}
