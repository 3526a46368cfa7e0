//! Adapters: everything that touches the world outside.

pub mod nats;
