//! Canaries: what is sent, and what is made of what comes.

pub mod beacon;
pub mod path;
pub mod probes;
