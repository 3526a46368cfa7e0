//! The system account's traffic: what the local server counts of it, what a healthy mesh of its shape would make, and
//! whether the one is far above the other.
//!
//! `reading` is what edges bring, `rates` makes flows of it, `model` and `expect` say what is usual, `explain` what
//! excuses more, `detect` judges with `baseline`'s help; `scope` sums hosts up; `memory` and `churn` watch beside it.

pub mod baseline;
pub mod churn;
pub mod detect;
pub mod expect;
pub mod explain;
pub mod memory;
pub mod model;
pub mod rates;
pub mod reading;
pub mod roll;
pub mod scope;
mod size;
pub mod version;
pub mod view;
pub mod window;
