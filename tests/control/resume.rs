//! `watchdog resume` without a store: a signed command to one host, by the command as an operator runs it.

use std::process::Command;

use super::Host;

/// Exit code and all that was said.
async fn resume(host: &Host, seed: &str) -> (i32, String) {
    let dir = host.bench.dir.path();
    let file = dir.join("seed");
    std::fs::write(&file, seed).unwrap();
    let config = dir.join("no-store.toml");
    std::fs::write(&config, "").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_watchdog"));
    command
        .args(["resume", "--host", "iad-1", "--reason", "cable replaced", "--config"])
        .arg(&config)
        .arg("--operator")
        .arg(&file)
        .args(["--server", &format!("nats://{}", host.server.client), "--no-context"]);
    let output = tokio::task::spawn_blocking(move || command.output())
        .await
        .unwrap()
        .unwrap();
    let said = [output.stdout, output.stderr].map(|b| String::from_utf8_lossy(&b).into_owned());
    (output.status.code().unwrap(), said.concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_memory_is_forgotten_on_a_signed_word_and_on_no_other() {
    let pair = nkeys::KeyPair::new_user();
    let seed = pair.seed().unwrap();
    let operator = nats_watchdog::adapters::nats::control::Operator::from_seed(&seed).unwrap();
    let control = format!("control.operators = [\"{}\"]\n", operator.public_key());
    let mut host = Host::with(&control, operator).await;
    let ledger = host.config.state.join("ledger.json");
    std::fs::write(&ledger, "{\"full_at\": {\"reset\":").unwrap();
    host.again().await;
    let unread = || std::fs::read_to_string(&ledger).is_ok_and(|text| text.contains("\"unread\""));
    super::eventually("the safe reading on disk", unread).await;
    host.again().await;
    assert!(unread(), "and over one more restart");
    host.old_enough().await;

    let (code, said) = resume(&host, &nkeys::KeyPair::new_user().seed().unwrap()).await;
    assert!(code == 3 && said.contains("iad-1 refused"), "{code}: {said}");
    assert!(unread());

    let (code, said) = resume(&host, &seed).await;
    assert!(
        code == 0 && said.contains("tries anew what it gave up"),
        "{code}: {said}"
    );
    super::eventually("that it is forgotten on disk", || !unread()).await;
    let said: Vec<String> = host.records().iter().map(|r| r["text"].to_string()).collect();
    assert!(
        said.iter()
            .any(|t| t.contains("cable replaced") && t.contains("what was tried before is forgotten")),
        "{said:?}"
    );
    assert_eq!(host.acts(), 0);
}
