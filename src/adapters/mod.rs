//! The edges: everything that touches the world. Types of the libraries used here do not leave here.

pub mod server;
pub mod store;
//! The edges: everything that touches the world. Each adapter turns the world into plain data for the core and back.
pub mod nats;
//! Adapters: everything that touches the world, each behind plain data of the core.
pub mod http;
//! The edges: everything that touches NATS, the host, a store or the network.
pub mod host;
