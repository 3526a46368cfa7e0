//! NATS: the only place where its client's types are known.

pub mod control;
