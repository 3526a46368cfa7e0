//! The rolling restart: which hosts in which order ([`plan`]), when one may be restarted ([`gate`]), and what happens
//! step by step ([`machine`]). Pure; the command drives it with answers from the hosts and the time.

pub mod advice;
pub mod cost;
pub mod gate;
pub mod machine;
pub mod plan;
mod proof;
pub mod report;
pub mod shape;

pub use gate::Gate;
pub use machine::{Action, Event, Limits, Machine};
pub use plan::{Inventory, Plan, PlanError, Selection};
pub use report::{Halt, Outcome, Progress, Reason, Step};
