//! Real nats-servers in regions on this machine, with faults on demand: for the demo, the tests and the benchmarks.
//!
//! Every server has an address of its own in `127.0.0.0/8` and a *front* before its route port and its gateway port: a proxy
//! in this process that understands the protocol well enough to swallow frames of one kind in one direction while PING, PONG
//! and INFO pass. What NATS gossips are the fronts, so no connection between two servers goes around them. With
//! [`LabSpec::netns`] every host has a network namespace instead, and a cut is a silent black hole in the kernel.
//!
//! Nothing of a lab outlives it: children die with the [`Lab`] value, and with this process where `setpriv` exists.

mod agents;
mod board;
pub mod churn;
mod config;
mod control;
pub mod cost;
mod demo;
mod error;
mod faults;
mod frame;
mod front;
mod host;
pub mod load;
mod mesh;
mod monitor;
pub mod netns;
pub mod plain;
mod process;
mod processes;
pub mod record;
mod running;
mod spec;
pub mod staggers;
mod start;
pub mod storm;
pub mod storm_cost;
mod stream;
pub mod sys_table;
mod what;
mod whois;
mod wire;

pub use control::{Command, HostView, Reply, Status, send};
pub use demo::{Outcome, demo};
pub use error::LabError;
pub use host::Host;
pub use load::Load;
pub use monitor::get_json;
pub use running::Lab;
pub use spec::{AgentSpec, LabSpec, Routes, Topology};
pub use stream::{Flow, Gap};
pub use what::{FaultId, PoolSlot, Sticks, What};
pub use wire::ConnectionView;

/// Result of everything the lab does.
pub type Result<T> = std::result::Result<T, LabError>;
