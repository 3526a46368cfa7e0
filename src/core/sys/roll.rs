//! What a rolling restart does to system traffic, and the stagger that keeps it under a ceiling.

use std::time::Duration;

use super::model::{Load, Shape, Volume, quiet, restart};

/// What the traffic into each server may be on average while servers are restarted one after the other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Ceiling {
    /// Payload bytes per second, quiet traffic among them.
    BytesPerSecond(f64),
    /// So many times the quiet bytes.
    TimesQuiet(f64),
}

/// A ceiling that no stagger keeps.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error(
    "no stagger keeps system traffic under {ceiling:.0} bytes/s into each server: it is {quiet:.0} at rest; raise the ceiling"
)]
pub struct Unkeepable {
    /// The ceiling, bytes per second.
    pub ceiling: f64,
    /// At rest, bytes per second.
    pub quiet: f64,
}

/// What it comes to when every server of the shape is restarted once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Roll {
    /// From the first to the last.
    pub duration: Duration,
    /// Highest into each server: quiet, and the burst of one restart; two, where one begins before the last one is over.
    pub peak: Load,
    /// Deliveries at all servers that the restarts add.
    pub total: Volume,
}

/// The least time between the starts of two restarts for which the traffic into each server stays under the ceiling on
/// average; never less than the time until a server that started tells of itself no more often than the others.
///
/// # Errors
/// The ceiling is not above the quiet traffic.
pub fn least_stagger(shape: &Shape, ceiling: Ceiling) -> Result<Duration, Unkeepable> {
    let quiet = quiet(shape).received.bytes_per_second;
    let ceiling = match ceiling {
        Ceiling::BytesPerSecond(bytes) => bytes,
        Ceiling::TimesQuiet(times) => quiet * times,
    };
    let room = ceiling - quiet;
    let cost = restart(shape);
    // Not a number is no room either.
    if room.is_nan() || room <= 0.0 {
        return Err(Unkeepable { ceiling, quiet });
    }
    let needed = Duration::try_from_secs_f64(cost.into_each.bytes / room).map_err(|_| Unkeepable { ceiling, quiet })?;
    Ok(needed.max(cost.lasts))
}

/// What a roll over all servers comes to: `stagger` from the proof of one to the start of the next, which itself takes
/// `per_restart`.
#[must_use]
pub fn roll(shape: &Shape, stagger: Duration, per_restart: Duration) -> Roll {
    let cost = restart(shape);
    let servers = shape.servers;
    let staggers = stagger.saturating_mul(servers.saturating_sub(1));
    let at_once = if stagger.saturating_add(per_restart) < Duration::from_secs(1) {
        2.0
    } else {
        1.0
    };
    Roll {
        duration: per_restart.saturating_mul(servers).saturating_add(staggers),
        peak: quiet(shape).received.plus(cost.peak.times(at_once)),
        total: cost.total.times(f64::from(servers)),
    }
}
