//! A storm of system traffic in the middle of a rollout: it waits, says for what, and goes on when the storm is over.

use std::time::{Duration, Instant};

use async_nats::ConnectOptions;
use nats_watchdog::lab::{Lab, Topology};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::fleet::Fleet;

/// What every server takes in of others' events, five hundred times a second, until it is aborted.
async fn flood(lab: &Lab) -> JoinHandle<()> {
    let url = lab.hosts()[0].client_url.clone();
    let client = ConnectOptions::with_user_and_password("sys".into(), "sys".into())
        .connect(url)
        .await
        .unwrap();
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        loop {
            ticks.tick().await;
            for _ in 0..10 {
                // Not JSON: each server drops it when it has it.
                let _ = client
                    .publish("$SYS.SERVER.NSTORM.STATSZ", vec![b'x'; 2_000].into())
                    .await;
            }
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_waits_while_a_storm_is_on_and_goes_on_after_it() {
    let fleet: Fleet = super::fleet(1, Topology::OneCluster).await;
    let hosts = fleet.lab.hosts().len();
    let mut rolling = fleet.begin(&["--all", "--stagger", "8s", "--jitter", "0", "--timeout", "60s"]);
    let first = rolling.until("proved").await;
    // A server that has just started is flooded by all others: its agent judges no volume for half a minute.
    let flooding = flood(&fleet.lab).await;
    let held = rolling.until("held").await;
    let text = held["text"].as_str().unwrap();
    assert!(text.contains("brownout") && text.contains("it ends when"), "{held}");
    let before = fleet.ids().await;
    sleep(Duration::from_secs(20)).await;
    assert_eq!(fleet.ids().await, before, "a server was restarted in the storm");
    flooding.abort();
    let over = Instant::now();
    let (code, events) = rolling.end().await;
    assert_eq!(code, Some(0), "{events:?}");
    let proved = events.iter().filter(|e| e["event"] == "proved").count();
    assert_eq!(proved, hosts, "after {first}: {events:?}");
    let changed = fleet.ids().await.iter().filter(|(h, id)| before[*h] != **id).count();
    assert!(changed >= 1, "nothing was left to do after the storm: {events:?}");
    eprintln!("held: {text}; the rest took {:?} after the storm", over.elapsed());
    assert_eq!(fleet.open_rollouts().await, [""; 0]);
}
