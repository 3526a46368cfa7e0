//! The edges: everything that touches the world. Each turns it into plain data for the core, and plain data into acts.

pub mod host;
pub mod http;
pub mod nats;
pub mod server;
pub mod store;
