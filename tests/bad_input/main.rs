//! Bad input, end to end: the built agent beside a real nats-server. Every case has a defined outcome in clear words,
//! and only a configuration error at start ends the agent.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod beacons;
mod bench;
mod disk;
mod start;
mod world;
