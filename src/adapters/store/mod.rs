//! What outlives the process: the state directory of this host, and the registers of permits that hosts share.

pub mod edit;
mod error;
pub mod etcd;
pub mod file;
pub mod history;
pub mod memory;
pub mod nats_kv;
pub mod register;
pub mod state;
