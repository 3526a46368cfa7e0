//! `[permits]`: what the operator allows the fleet to do at once.

use std::time::Duration;

/// What says who may act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arbiter {
    /// No register: time slots, see [`crate::core::permit::slots`].
    Slots,
    /// A register: JetStream KV, etcd, a file.
    Register,
}

/// `[permits]`, as far as the core decides by it. All hosts of a scope must have the same.
#[derive(Debug, Clone, PartialEq)]
pub struct Permits {
    /// `store`
    pub arbiter: Arbiter,
    /// `slots`: hosts that may hold a permit at once, default 1.
    pub slots: u32,
    /// `slots_per_region`, default 1.
    pub per_region: u32,
    /// `slots_per_cluster`, default 1.
    pub per_cluster: u32,
    /// `spacing`: between one host's release and the next grant, default 10 s.
    pub spacing: Duration,
    /// `per_hour`: grants to automation in any hour, fleet-wide, default 20; what operators order does not count.
    pub per_hour: u32,
    /// `lease`: a holder that has not renewed for so long has vanished, default 5 min.
    pub lease: Duration,
    /// `slot_length`: length of a time slot, default 2 s.
    pub slot_length: Duration,
}

impl Default for Permits {
    fn default() -> Self {
        Self {
            arbiter: Arbiter::Slots,
            slots: 1,
            per_region: 1,
            per_cluster: 1,
            spacing: Duration::from_secs(10),
            per_hour: 20,
            lease: Duration::from_secs(300),
            slot_length: Duration::from_secs(2),
        }
    }
}
