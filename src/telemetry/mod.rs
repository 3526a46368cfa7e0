//! What the agent tells others about itself: metrics and log lines.

pub mod catalogue;
pub mod logging;
pub mod metrics;
