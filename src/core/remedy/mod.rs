//! Remedies: what may be done about a fault, what holds it back, and how often it may happen.

pub mod case;
pub mod gate;
pub mod ledger;
pub mod memory;
