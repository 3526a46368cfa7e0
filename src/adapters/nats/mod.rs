//! NATS: the only place where the client library's types are known.

pub mod connect;
pub mod control;
pub mod lane;
pub mod system;
