//! Configuration errors: all of them at once, each with its place, its key and an example.

use std::fmt;
use std::path::PathBuf;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A line of a file.
    File(PathBuf, usize),
    /// A file as a whole.
    Whole(PathBuf),
    /// An environment variable.
    Env(String),
    /// Built in.
    Default,
}

impl Origin {
    /// The order in which people look: by file as read, by line, then variables.
    pub(super) fn position(&self, files: &[PathBuf]) -> (usize, usize, String) {
        let file = |path| files.iter().position(|f| f == path).unwrap_or(files.len());
        match self {
            Self::Default => (0, 0, String::new()),
            Self::Whole(path) => (file(path), 0, String::new()),
            Self::File(path, line) => (file(path), *line, String::new()),
            Self::Env(variable) => (usize::MAX, 0, variable.clone()),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Whole(path) => write!(f, "{}", path.display()),
            Self::Env(variable) => write!(f, "${variable}"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{origin}: {key}{separator}{message}", separator = if key.is_empty() { "" } else { ": " })]
pub struct ConfigError {
    /// Where.
    pub origin: Origin,
    /// Which key; empty where it is about a whole file.
    pub key: String,
    /// What was found, what was expected, an example.
    pub message: String,
}

/// Everything that is wrong, in the order of reading.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}
