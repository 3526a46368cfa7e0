//! The stagger in use, why it is that, and what the restarts will cost in system traffic.

use std::time::Duration;

use serde_json::{Value, json};

use crate::cli::words::span;
use crate::core::rollout::advice::{bytes, number};
use crate::core::rollout::cost::Cost;

/// What is known of a roll before it begins.
pub(super) struct Forecast {
    /// From the proof of one host to the next.
    pub(super) stagger: Duration,
    /// It was found, not given.
    pub(super) auto: bool,
    /// The model's answer with notes on it, or why it has none.
    pub(super) cost: Result<(Cost, Vec<String>), String>,
}

impl Forecast {
    /// For people.
    pub(super) fn lines(&self) -> Vec<String> {
        let (cost, notes) = match &self.cost {
            Ok(known) => known,
            Err(why) => return vec![format!("What this costs in system traffic is not known: {why}.")],
        };
        let stagger = humantime::format_duration(self.stagger);
        let (each, mean, ceiling) = (
            bytes(cost.restart.into_each.bytes),
            bytes(cost.mean.bytes_per_second),
            bytes(cost.ceiling),
        );
        let why = match (self.auto, cost.keeps_ceiling()) {
            (true, _) => format!(
                "Stagger {stagger}, the least that keeps system traffic into each server under {ceiling}/s on average (it will be {mean}/s)."
            ),
            (false, true) => format!(
                "The stagger of {stagger} keeps system traffic into each server under {ceiling}/s on average (it will be {mean}/s)."
            ),
            (false, false) => format!(
                "The stagger of {stagger} is too short to keep system traffic into each server under {ceiling}/s on average; {}.",
                match &cost.least {
                    Ok(least) => format!("{} would do (--stagger auto)", humantime::format_duration(*least)),
                    Err(_) => "no stagger does, it is above that at rest".to_owned(),
                }
            ),
        };
        let what = format!(
            "Each restart sends {} system messages, {each}, into each other server ({} at rest), at most {} in one second; all of them \
             take about {}.",
            number(cost.restart.into_each.msgs),
            bytes(cost.quiet.received.bytes_per_second) + "/s",
            bytes(cost.peak.bytes_per_second),
            span(cost.duration.as_secs_f64()),
        );
        [why, what].into_iter().chain(notes.iter().cloned()).collect()
    }

    /// What the traffic into each server is to stay below, bytes a second.
    pub(super) fn ceiling(&self) -> Option<u64> {
        let (cost, _) = self.cost.as_ref().ok()?;
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rate of bytes: a cast saturates"
        )]
        Some(cost.ceiling.round() as u64)
    }

    /// For machines; null where nothing is known.
    pub(super) fn json(&self) -> Value {
        let Ok((cost, notes)) = &self.cost else {
            return Value::Null;
        };
        json!({
            "ceiling_bytes_per_second": cost.ceiling,
            "least_stagger_seconds": cost.least.as_ref().ok().map(Duration::as_secs_f64),
            "keeps_ceiling": cost.keeps_ceiling(),
            "restart_messages_into_each": cost.restart.into_each.msgs,
            "restart_bytes_into_each": cost.restart.into_each.bytes,
            "restart_bytes_total": cost.restart.total.bytes,
            "quiet_bytes_per_second": cost.quiet.received.bytes_per_second,
            "mean_bytes_per_second": cost.mean.bytes_per_second,
            "peak_bytes_per_second": cost.peak.bytes_per_second,
            "duration_seconds": cost.duration.as_secs_f64(),
            "notes": notes,
        })
    }
}
