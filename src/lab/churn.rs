//! Clients that come and go as they do on a quiet day.

use std::time::Duration;

use async_nats::ConnectOptions;
use futures_util::StreamExt;

use super::Lab;

/// Lives of clients, seconds: most are short, some long.
const LIVES: [u64; 6] = [2, 5, 20, 60, 300, 900];

/// Connects `per_minute` clients a minute in the mean, at random moments on random hosts; each subscribes, says something
/// every ten seconds, for all to hear, and leaves. Runs until dropped; says how many came.
pub async fn churn(lab: &Lab, per_minute: f64, mut came: impl FnMut()) {
    let mut clients = tokio::task::JoinSet::new();
    loop {
        // Exponential gaps: arrivals of independent clients.
        let gap = -rand::random::<f64>().max(1e-9).ln() * 60.0 / per_minute.max(0.01);
        tokio::time::sleep(Duration::from_secs_f64(gap.min(600.0))).await;
        let host = &lab.hosts()[rand::random_range(0..lab.hosts().len())];
        let life = Duration::from_secs(LIVES[rand::random_range(0..LIVES.len())]);
        clients.spawn(client(host.client_url.clone(), life));
        came();
        while clients.try_join_next().is_some() {}
    }
}

async fn client(url: String, life: Duration) {
    let options = ConnectOptions::with_user_and_password("watchdog".to_owned(), "watchdog".to_owned());
    let Ok(client) = options.name("churn").connect(url).await else {
        return;
    };
    let Ok(mut heard) = client.subscribe("churn.>").await else {
        return;
    };
    let speak = async {
        let mut every = tokio::time::interval(Duration::from_secs(10));
        loop {
            every.tick().await;
            let _ = client.publish("churn.hello", "hello".into()).await;
        }
    };
    let listen = async { while heard.next().await.is_some() {} };
    let _ = tokio::time::timeout(life, futures_util::future::join(speak, listen)).await;
}
