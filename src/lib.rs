//! watchdog: finds stalled paths in NATS clusters and heals what it can.
#[cfg(feature = "lab")]
pub mod lab;
