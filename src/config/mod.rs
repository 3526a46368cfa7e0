//! Configuration: raw files and variables, merged, then validated into [`Settings`].
//!
//! [`keys`] is the one table of what exists; parsing, `config show` and the documentation follow it.

pub mod context;
pub mod credentials;
#[cfg(test)]
mod docs_tests;
pub mod error;
mod key_table;
pub mod keys;
mod load;
mod nats;
pub mod permits;
mod reader;
pub mod settings;
mod source;
#[cfg(test)]
mod tests;
pub mod url;
mod value;

pub use error::{ConfigError, ConfigErrors, Origin};
pub use load::Loaded;
pub use reader::Shown;
pub use settings::Settings;
pub use source::{DEFAULT_PATH, Env};
