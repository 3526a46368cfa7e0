//! Unsigned, wrongly signed, expired, replayed, for another host: refused, counted, nothing done.

use super::*;
use nats_watchdog::core::control::{Arg, Args};

/// What is wrong with a command, and the gate that says so.
fn wrong(operator: &Operator) -> Vec<(&'static str, Envelope)> {
    let change = |change: fn(&mut Command)| {
        let mut command = restart("n");
        change(&mut command);
        operator.sign(&command)
    };
    let good = operator.sign(&restart("n"));
    let envelope = |change: fn(&mut Envelope)| {
        let mut envelope = good.clone();
        change(&mut envelope);
        envelope
    };
    let mut theirs = stranger().sign(&restart("n"));
    let unknown = theirs.clone();
    theirs.key = operator.public_key();
    vec![
        ("unsigned", Envelope::unsigned(&restart("n"))),
        ("unsigned", envelope(|e| e.sig.clear())),
        ("unknown_key", unknown),
        // Signed by somebody else in an operator's name.
        ("bad_signature", theirs),
        // Changed on the way.
        (
            "bad_signature",
            envelope(|e| e.command = e.command.replace("rollout-n", "rollout-m")),
        ),
        ("other_host", change(|c| c.host = HostName::new("iad-2").unwrap())),
        (
            "expired",
            change(|c| (c.issued_ms, c.expires_ms) = (c.issued_ms - 90_000, c.issued_ms - 60_000)),
        ),
        (
            "clock",
            change(|c| (c.issued_ms, c.expires_ms) = (c.issued_ms + 60_000, c.expires_ms + 60_000)),
        ),
        ("lifetime", change(|c| c.expires_ms += 3_600_000)),
        ("lifetime", change(|c| c.expires_ms = 0)),
        ("nonce", change(|c| c.nonce.clear())),
        (
            "argument",
            change(|c| c.args = Args::default().with("no-such", Arg::Flag(true))),
        ),
        ("malformed", envelope(|e| e.command = "{\"verb\":\"erase\"}".to_owned())),
        ("future_version", envelope(|e| e.v = 9)),
    ]
}

#[tokio::test]
async fn what_is_not_an_operators_fresh_command_is_refused_and_counted_and_nothing_is_done() {
    let mut host = Host::start().await;
    let id = host.server_id();

    // In its first seconds an agent cannot know what the process before it has taken.
    assert_eq!(
        host.refused(&host.operator.sign(&restart("early"))).await,
        "before_memory"
    );
    host.old_enough().await;

    let mut expected = std::collections::BTreeMap::from([("before_memory", 1.0)]);
    for (gate, envelope) in wrong(&host.operator) {
        assert_eq!(host.refused(&envelope).await, gate, "{envelope:?}");
        *expected.entry(gate).or_insert(0.0) += 1.0;
    }
    // Garbage has no envelope at all; nobody waits for an answer that a request does not want.
    for garbage in ["", "\u{0}", "{}", "[1]"] {
        host.client
            .publish("watchdog.control.iad-1", garbage.into())
            .await
            .unwrap();
        *expected.entry("malformed").or_insert(0.0) += 1.0;
    }
    eventually("all are counted", || {
        expected.iter().all(|(gate, n)| host.counted(gate) == *n)
    })
    .await;
    assert_eq!((host.taken(), host.acts()), (0.0, 0), "{}", host.agent.log());
    assert_eq!(host.server_id(), id);
    // The lines that are not a line each are summed up later; the first ones are there, with who it claims to be.
    let records = host.records();
    let refused = records.iter().find(|r| r["why"] == "unknown_key").unwrap();
    assert_eq!(refused["who"]["kind"], "stranger");
    assert_eq!(refused["who"]["name"], "ada@desk");

    // The proof that all this could have been seen: the operator's own command acts, once.
    host.open("rollout-good").await;
    let good = host.operator.sign(&restart("good"));
    let answer = host.send(&good).await;
    assert!(matches!(answer, Answer::Accepted { .. }), "{answer:?}");
    eventually("the restart", || host.acts() == 1).await;
    assert_eq!(host.refused(&good).await, "replayed");
    // Readers see a state that is up to a second old.
    eventually("it is counted", || host.counted("replayed") == 1.0).await;
    assert_eq!((host.taken(), host.counted("replayed"), host.acts()), (1.0, 1.0, 1));

    // A captured command does not act on the next process either: neither at once nor when it is old enough to obey.
    host.again().await;
    assert_eq!(host.refused(&good).await, "before_memory");
    host.old_enough().await;
    assert_eq!(host.refused(&good).await, "before_memory");
    assert_eq!((host.taken(), host.acts()), (0.0, 1));
    assert_eq!(host.server_id(), id);

    // Nor when the clock was set back between the two: what is on disk tells.
    let kept = host.config.state.join("control.json");
    let taken: Value = serde_json::from_slice(&std::fs::read(&kept).unwrap()).unwrap();
    let command: Command = serde_json::from_str(&good.command).unwrap();
    assert_eq!(taken["issued_ms"], command.issued_ms);
    host.agent.kill();
    std::fs::write(&kept, format!("{{\"issued_ms\":{}}}", now_ms() + 3_600_000)).unwrap();
    host.again().await;
    host.old_enough().await;
    let fresh = host.operator.sign(&restart("fresh"));
    assert_eq!(host.refused(&fresh).await, "clock_went_back");
    // Readers see a state that is up to a second old.
    eventually("it is counted", || host.counted("clock_went_back") == 1.0).await;
    assert_eq!((host.counted("clock_went_back"), host.acts()), (1.0, 1));
}

#[tokio::test]
async fn without_operators_an_agent_takes_no_command_from_the_network() {
    let host = Host::with("", stranger()).await;
    host.old_enough().await;
    let id = host.server_id();
    assert_eq!(host.refused(&host.operator.sign(&restart("n"))).await, "no_operators");
    assert_eq!(host.refused(&Envelope::unsigned(&restart("n"))).await, "no_operators");
    // Readers see a state that is up to a second old.
    eventually("it is counted", || host.counted("no_operators") == 2.0).await;
    assert_eq!((host.counted("no_operators"), host.taken(), host.acts()), (2.0, 0.0, 0));
    assert_eq!(host.server_id(), id);
    // It may be looked at all the same.
    let status = Envelope::unsigned(&Command::read(HostName::new("iad-1").unwrap(), Verb::Status));
    assert!(matches!(host.send(&status).await, Answer::Status(_)));
}

#[tokio::test]
async fn a_flood_of_forged_commands_fills_neither_log_nor_disk_nor_network() {
    const FLOOD: usize = 2000;
    let host = Host::start().await;
    let mut events = host.client.subscribe("watchdog.event.>").await.unwrap();
    host.client.flush().await.unwrap();
    let forged = stranger().sign(&restart("n")).encode();
    for _ in 0..FLOOD {
        host.client
            .publish("watchdog.control.iad-1", forged.clone().into())
            .await
            .unwrap();
    }
    #[allow(clippy::cast_precision_loss, reason = "a count")]
    let flood = FLOOD as f64;
    eventually("all are counted", || host.counted("unknown_key") == flood).await;
    let lines = host.agent.log().matches("unknown_key").count();
    assert!((1..=12).contains(&lines), "{lines} lines in the log");
    let refused = host.records().iter().filter(|r| r["event"] == "refused").count();
    assert!((1..=12).contains(&refused), "{refused} records");
    let mut told = 0;
    while let Ok(Some(message)) =
        tokio::time::timeout(Duration::from_millis(500), futures_util::StreamExt::next(&mut events)).await
    {
        assert_eq!(message.subject.as_str(), "watchdog.event.iad.iad-1");
        told += 1;
    }
    assert!((1..=25).contains(&told), "{told} events");
    assert_eq!(host.acts(), 0);
}
