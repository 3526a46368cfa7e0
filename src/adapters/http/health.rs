//! What `/livez` and `/readyz` mean. Pure.
//!
//! Alive: the loop gave a snapshot within [`FRESH`]. Ready: alive, and the agent can do its work: the local server has
//! been looked at (up, or known to be down), at least one lane is connected, and warm-up is over. A sick agent is ready:
//! it sees that it is sick, and says so.

use std::time::Duration;

use crate::core::canary::beacon::Health;
use crate::core::view::Snapshot;

/// A snapshot older than this means that the loop hangs: it makes one every second.
pub const FRESH: Duration = Duration::from_secs(5);

/// Why the agent is not alive.
pub(super) fn live(age: Duration) -> Result<(), String> {
    if age <= FRESH {
        return Ok(());
    }
    Err(format!(
        "the agent's loop gave no new state for {:.1} s, at most {} s are normal; restart the agent if this lasts",
        age.as_secs_f64(),
        FRESH.as_secs()
    ))
}

/// Why the agent is not ready: all reasons.
pub(super) fn ready(snapshot: &Snapshot, age: Duration) -> Result<(), String> {
    let mut reasons: Vec<String> = live(age).err().into_iter().collect();
    let server = &snapshot.server;
    if !server.up && server.error.is_none() {
        reasons.push("the local server has not been looked at yet".to_owned());
    }
    if !snapshot.lanes.iter().any(|lane| lane.connected) {
        let errors: Vec<String> = snapshot
            .lanes
            .iter()
            .map(|lane| format!("{}: {}", lane.lane, lane.error.as_deref().unwrap_or("still connecting")))
            .collect();
        reasons.push(format!(
            "no lane is connected to the local server ({})",
            errors.join("; ")
        ));
    }
    if snapshot.agent.health == Health::Warming {
        let why = snapshot.agent.health_reasons.join("; ");
        reasons.push(if why.is_empty() {
            "warming up".to_owned()
        } else {
            format!("warming up: {why}")
        });
    }
    if reasons.is_empty() {
        Ok(())
    } else {
        Err(reasons.join("\n"))
    }
}
