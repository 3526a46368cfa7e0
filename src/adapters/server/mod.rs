//! The nats-server beside the agent, and the network to its peers. Nothing here speaks NATS as a client.

mod lax;
pub mod monitor;
pub mod network;
pub mod parse;
#[cfg(test)]
mod real;
