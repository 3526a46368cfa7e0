//! What outlives the process.

mod error;
pub mod history;
pub mod state;
