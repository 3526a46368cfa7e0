//! The rolling restart: which hosts in which order ([`plan`]), when one may be restarted ([`gate`]), and what happens
//! step by step ([`machine`]). Pure; the command drives it with answers from the hosts and the time.

pub mod advice;
pub mod cost;
pub mod filter;
pub mod gate;
pub mod machine;
pub mod plan;
mod proof;
pub mod report;
pub mod resume;
pub mod shape;
pub mod waves;

pub use filter::Filter;
pub use gate::Gate;
pub use machine::{Action, Adopted, Event, Limits, Machine};
pub use plan::{Exclude, Inventory, Plan, PlanError, Selection};
pub use report::{Halt, Outcome, Progress, Reason, Step};
pub use waves::Waves;
