//! The edges: everything that touches NATS, the host, a store or the network.
pub mod host;
