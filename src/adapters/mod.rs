//! The edges: everything that touches the world. Types of the libraries used here do not leave here.

pub mod server;
pub mod store;
