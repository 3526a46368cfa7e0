//! The commands: a file per command, and the only place that prints.

pub mod restart;
