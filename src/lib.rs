//! watchdog: finds stalled paths in NATS clusters, heals what it can, restarts servers without making a storm.
//!
//! The map of the house: [`core`] decides and does nothing; adapters touch the world; the driver reads the clock and
//! carries events in and actions out; `cli` is the only place that prints.

pub mod adapters;
pub mod cli;
pub mod config;
pub mod core;
pub mod driver;
#[cfg(feature = "lab")]
pub mod lab;
pub mod sim;
pub mod telemetry;
