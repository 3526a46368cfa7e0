//! The edges: everything that touches the world. Each adapter turns the world into plain data for the core and back.

pub mod nats;
