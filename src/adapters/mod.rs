//! Adapters: everything that touches the world, each behind plain data of the core.

pub mod http;
