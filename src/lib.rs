//! watchdog: finds stalled paths in NATS clusters and heals what it can.
pub mod adapters;
#[cfg(feature = "lab")]
pub mod lab;
