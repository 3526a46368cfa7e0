//! Configuration: raw files and variables, merged, then validated into [`Settings`].

pub mod settings;

pub use settings::Settings;
