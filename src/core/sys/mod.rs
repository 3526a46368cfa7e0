//! The system account's traffic: what the local server counts of it, and what a healthy mesh of its shape would make.

pub mod model;
pub mod reading;
pub mod roll;
mod size;
pub mod version;
