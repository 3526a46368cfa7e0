//! The mesh: from who hears whom to the smallest set of faults that explains it.
//!
//! Order of explanation (design): a host, a gateway, a hole, a pool slot, a route, new interest only. What a larger
//! fault explains is not reported again. Receivers that are not credible (warming, sick, silent) are left out by the
//! caller: no statement is better than a doubtful one. Blind spot of this version: two faults that overlap completely
//! are seen as the larger one.

pub mod diagnose;
mod links;
#[cfg(test)]
mod truth_tests;

pub use diagnose::{End, Evidence, Fault, Place, SHARED, diagnose};
