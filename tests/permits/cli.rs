//! `watchdog pause`, `resume` and `permits` as an operator runs them, on a machine without an agent.

use std::path::Path;
use std::process::Command;

use nats_watchdog::adapters::store::file::FileRegister;
use nats_watchdog::adapters::store::register::Register;
use nats_watchdog::core::ids::{HostName, Region, Wall};
use nats_watchdog::core::permit::document::Document;
use nats_watchdog::core::permit::policy::Permits;
use nats_watchdog::core::permit::rules::{self, Claim};

use crate::real::JetStream;

fn watchdog(config: &Path, words: &[&str]) -> (i32, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_watchdog"))
        .args(words)
        .arg("--config")
        .arg(config)
        .env("USER", "ann")
        .env_remove("SUDO_USER")
        .output()
        .unwrap();
    let text = [out.stdout, out.stderr].concat();
    (out.status.code().unwrap(), String::from_utf8(text).unwrap())
}

async fn all(config: &Path, register: &impl Register) {
    let (code, text) = watchdog(config, &["permits"]);
    assert_eq!(code, 0, "{text}");
    assert!(
        text.contains("nobody holds one") && text.contains("nothing is paused"),
        "{text}"
    );
    let (code, text) = watchdog(
        config,
        &["pause", "--region", "iad", "--reason", "network work", "--for", "2h"],
    );
    assert_eq!(code, 0, "{text}");
    assert!(
        text.contains("region iad is paused") && text.contains("ann@") && text.contains("network work"),
        "{text}"
    );
    assert_eq!(watchdog(config, &["pause", "--reason", " "]).0, 2);
    let (code, text) = watchdog(config, &["resume"]);
    assert!(code == 0 && text.contains("no pause of the fleet"), "{code}: {text}");
    let (code, text) = watchdog(config, &["resume", "--region", "iad"]);
    assert!(
        code == 0 && text.contains("The pause of region iad is over"),
        "{code}: {text}"
    );

    let now = Wall(
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap(),
    );
    let stored = register.get().await.unwrap().unwrap();
    let doc = Document::decode(&stored.bytes).unwrap();
    assert_eq!((doc.pauses.len(), doc.deeds.len()), (0, 3));
    let marks = doc.marks(&HostName::new("iad-1").unwrap(), &Region::new("iad").unwrap());
    assert_eq!(marks.len(), 2, "agents read from these that they may try again");
    let claim = Claim {
        host: HostName::new("iad-1").unwrap(),
        region: Region::new("iad").unwrap(),
        cluster: String::new(),
        why: "route:a>iad-1".to_owned(),
        ordered: false,
        part: None,
        token: "t".to_owned(),
    };
    let doc = rules::take(&doc, &claim, &Permits::default(), now).unwrap().unwrap();
    let doc = rules::fail(&doc, "t", "healthz says no", now).unwrap().unwrap();
    register
        .compare_and_swap(doc.encode().unwrap(), Some(stored.revision))
        .await
        .unwrap();
    let (_, text) = watchdog(config, &["permits", "list"]);
    assert!(
        text.contains("iad-1") && text.contains("failed") && text.contains("healthz says no"),
        "{text}"
    );
    assert_eq!(watchdog(config, &["permits", "release", "fra-1", "--reason", "x"]).0, 3);
    let (code, text) = watchdog(
        config,
        &[
            "permits",
            "release",
            "iad-1",
            "--reason",
            "it is well",
            "--output",
            "json",
        ],
    );
    assert_eq!(code, 0, "{text}");
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["document"]["holders"], serde_json::json!([]));
    assert_eq!(json["document"]["deeds"][3]["why"], "it is well");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_pauses_resumes_and_releases_in_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let (config, file) = (dir.path().join("w.toml"), dir.path().join("permits.json"));
    std::fs::write(&config, format!("[permits]\nstore = \"file\"\nfile = {file:?}\n")).unwrap();
    let register = FileRegister::new(&file);
    all(&config, &register).await;

    std::fs::write(&file, "{\"v\": 9}").unwrap();
    let (code, text) = watchdog(&config, &["pause", "--reason", "x"]);
    assert_eq!(code, 1);
    assert!(text.contains("version 9"), "{text}");
    assert_eq!(
        std::fs::read_to_string(&file).unwrap(),
        "{\"v\": 9}",
        "nothing is overwritten"
    );

    std::fs::write(&config, "").unwrap();
    let (code, text) = watchdog(&config, &["pause", "--reason", "x"]);
    assert_eq!(code, 2);
    assert!(text.contains("configure a store"), "{text}");
    let (code, text) = watchdog(&config, &["resume", "--host", "iad-1"]);
    assert_eq!(code, 2);
    assert!(text.contains("--operator FILE"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_pauses_resumes_and_releases_in_a_real_bucket() {
    let js = JetStream::start("2.15.1", 1);
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("w.toml");
    let text = format!(
        "[permits]\nstore = \"nats-kv\"\ntimeout = \"10s\"\n[permits.nats]\nurl = \"{}\"\n",
        js.urls()[0]
    );
    std::fs::write(&config, text).unwrap();
    let register = js.register("fleet").await;
    crate::real::eventually(|| async { register.get().await.map(|_| ()).map_err(|e| e.to_string()) }).await;
    all(&config, &register).await;
}
