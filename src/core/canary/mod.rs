//! Canaries: what is sent, and what is made of what comes.

pub mod beacon;
