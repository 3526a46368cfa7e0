//! watchdog: finds stalled paths in NATS clusters, heals what it can, restarts servers without making a storm.
//!
//! The map of the house: [`core`] decides and does nothing; adapters touch the world; the driver reads the clock and
//! carries events in and actions out; `cli` is the only place that prints.

#[cfg(feature = "agent")]
pub mod adapters;
#[cfg(feature = "agent")]
pub mod cli;
#[cfg(not(feature = "agent"))]
#[path = "cli/simulator.rs"]
pub mod cli;
#[cfg(feature = "agent")]
pub mod config;
pub mod core;
#[cfg(feature = "agent")]
pub mod driver;
#[cfg(feature = "lab")]
pub mod lab;
pub mod sim;
#[cfg(feature = "agent")]
pub mod telemetry;
