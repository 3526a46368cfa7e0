//! NATS: the only place where the client library's types are known.

pub mod connect;
pub mod control;
mod kept;
pub mod lane;
pub mod system;
