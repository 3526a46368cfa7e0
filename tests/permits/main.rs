//! One conformance suite for every register of permits, on the real thing: a file, a real etcd, a real JetStream of one
//! server and of three whose leader is killed in the middle. Faults are decorators around any of them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod cli;
mod faults;
mod real;
mod suite;

use std::time::Duration;

use nats_watchdog::adapters::store::file::FileRegister;
use nats_watchdog::adapters::store::memory::Memory;
use nats_watchdog::adapters::store::register::Register as _;
use real::{Etcd, JetStream, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn memory_conforms() {
    suite::conforms(Memory::default).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_conforms() {
    let dir = tempfile::tempdir().unwrap();
    let mut n = 0;
    suite::conforms(|| {
        n += 1;
        FileRegister::new(&dir.path().join(format!("{n}.json")))
    })
    .await;
}

#[tokio::test]
async fn what_somebody_put_into_the_file_is_read_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("permits.json");
    std::fs::write(&path, "by hand").unwrap();
    let stored = FileRegister::new(&path).get().await.unwrap().unwrap();
    assert_eq!(stored.bytes, b"by hand");
    let missing = FileRegister::new(&dir.path().join("no/such/p.json"));
    assert_eq!(missing.get().await, Ok(None));
    assert!(missing.compare_and_swap(b"x".to_vec(), None).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_etcd_conforms() {
    let Some(etcd) = Etcd::start() else { return };
    let mut n = 0;
    suite::conforms(|| {
        n += 1;
        etcd.register(&format!("s{n}"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_jetstream_conforms_on_three_versions() {
    for version in ["2.9.10", "2.10.26", "2.15.1"] {
        let js = JetStream::start(version, 1);
        let first = js.register("ready").await;
        eventually(|| async { first.get().await.map(|_| ()).map_err(|e| e.to_string()) }).await;
        let mut registers = Vec::new();
        for n in 0..suite::REGISTERS {
            registers.push(js.register(&format!("s{n}")).await);
        }
        suite::conforms(|| registers.pop().unwrap()).await;
    }
}

/// Many write at once while the stream's leader is killed: every write that was confirmed is in the history exactly once,
/// none is lost, and the register answers again.
#[tokio::test(flavor = "multi_thread")]
async fn three_servers_lose_no_confirmed_write_when_their_leader_is_killed() {
    let mut js = JetStream::start("2.10.26", 3);
    let register = js.register("fleet").await;
    eventually(|| async { register.get().await.map(|_| ()).map_err(|e| e.to_string()) }).await;
    assert_eq!(js.replicas().await, 3);
    let writers: Vec<_> = (0..4)
        .map(|w| {
            let js = js.urls();
            tokio::spawn(async move {
                let register = real::kv(&js, "fleet").await;
                suite::append(&register, w, Duration::from_secs(20)).await
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(4)).await;
    let killed = js.kill_leader().await;
    let mut confirmed = Vec::new();
    for w in writers {
        confirmed.extend(w.await.unwrap());
    }
    eventually(|| async { register.get().await.map(|_| ()).map_err(|e| e.to_string()) }).await;
    let there = suite::entries(&register.get().await.unwrap().unwrap().bytes);
    for c in &confirmed {
        assert_eq!(
            there.iter().filter(|t| *t == c).count(),
            1,
            "{c} after {killed} was killed"
        );
    }
    assert!(confirmed.len() > 50, "only {} writes", confirmed.len());
    eprintln!(
        "{} confirmed writes of 4 writers, leader {killed} killed, none lost",
        confirmed.len()
    );
}
