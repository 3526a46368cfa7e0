//! The core: decides everything and does nothing. No runtime, no clock, no entropy, no file, no socket.

pub mod agent;
pub mod audit;
pub mod canary;
pub mod control;
pub mod ids;
pub mod mesh;
pub mod permit;
pub mod policy;
pub mod remedy;
pub mod rollout;
pub mod server;
pub mod sys;
pub mod view;
