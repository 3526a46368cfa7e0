//! What the agents of a lab say over HTTP, in the shapes of [`crate::core::view`].

use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use super::{Host, Lab, LabError, Result, get_json};
use crate::core::view::{FaultView, Record, Snapshot, Verdict};

impl Lab {
    /// What is wrong or unknown in the agents' eyes; empty where every path of every agent is ok.
    pub async fn uneasy(&self) -> Vec<String> {
        let looks = self.hosts().iter().map(|host| uneasy(host, self.hosts().len()));
        futures_util::future::join_all(looks)
            .await
            .into_iter()
            .flatten()
            .collect()
    }

    /// Waits until every path of every agent is ok.
    ///
    /// # Errors
    /// Where that is not so in time; the error says what is not ok.
    pub async fn wait_until_easy(&self, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            let missing = self.uneasy().await.join("; ");
            if missing.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                let (seconds, dir) = (patience.as_secs(), self.dir().to_owned());
                return Err(LabError::NotWhole { seconds, missing, dir });
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

async fn uneasy(host: &Host, hosts: usize) -> Option<String> {
    let snapshot: Snapshot = match read(host, "status").await {
        Ok(snapshot) => snapshot,
        Err(error) => return Some(format!("agent of {}: {error}", host.name)),
    };
    let count = |verdict: Verdict| -> u64 {
        snapshot
            .regions
            .iter()
            .filter_map(|r| r.paths.get(verdict.name()))
            .sum()
    };
    let waiting = [Verdict::Warming, Verdict::Late, Verdict::Stalled]
        .map(count)
        .iter()
        .sum::<u64>();
    let (ok, others) = (count(Verdict::Ok), hosts as u64 - 1);
    if ok >= others && waiting == 0 && snapshot.faults.is_empty() {
        return None;
    }
    let faults: Vec<&str> = snapshot.faults.iter().map(|fault| fault.id.as_str()).collect();
    Some(format!(
        "agent of {}: {ok} of {others} paths ok, {waiting} warming, late or stalled, faults: [{}]",
        host.name,
        faults.join(", ")
    ))
}

/// The faults that this host's agent sees.
pub(crate) async fn faults(host: &Host) -> Result<Vec<FaultView>> {
    #[derive(serde::Deserialize)]
    struct Faults {
        faults: Vec<FaultView>,
    }
    Ok(read::<Faults>(host, "faults").await?.faults)
}

/// What this host's agent decided and did.
pub(crate) async fn history(host: &Host) -> Result<Vec<Record>> {
    #[derive(serde::Deserialize)]
    struct History {
        history: Vec<Record>,
    }
    Ok(read::<History>(host, "history").await?.history)
}

pub(crate) async fn read<T: DeserializeOwned>(host: &Host, what: &str) -> Result<T> {
    let url = format!("http://{}/api/v1/{what}", host.agent_http);
    let value = get_json(&url).await?;
    serde_json::from_value(value).map_err(|error| LabError::Http {
        url,
        why: format!("of another shape: {error}"),
    })
}
