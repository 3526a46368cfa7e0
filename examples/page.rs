//! Serves the page, the API and /metrics of a made-up agent: `cargo run --example page [ADDRESS]`.

#[allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "shared with tests")]
#[path = "../tests/common/sample.rs"]
mod sample;

use std::sync::Arc;
use std::time::Duration;

use nats_watchdog::adapters::http;
use tokio::sync::watch;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let listener = http::bind(address.parse()?).await?;
    println!("http://{}", listener.local_addr()?);
    let mut snapshot = sample::full();
    let (sender, snapshots) = watch::channel(Arc::new(snapshot.clone()));
    tokio::spawn(async move {
        while sender.send(Arc::new(snapshot.clone())).is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
            sample::tick(&mut snapshot);
        }
    });
    http::serve(listener, snapshots, async {
        let _ = tokio::signal::ctrl_c().await;
    })
    .await;
    Ok(())
}
