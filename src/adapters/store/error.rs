//! Failures of the state directory, with what to do about each.

use std::io;
use std::path::PathBuf;

/// Why state was not kept or not read.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The system refused.
    #[error("cannot {doing} {}: {source}; {}", path.display(), advice(source))]
    Io {
        /// What was tried, as a verb.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// Another agent has this directory.
    #[error(
        "state directory {} is in use by another agent{}; stop that one, or give this one its own [state] directory",
        path.display(), holder.map(|pid| format!(" (process {pid})")).unwrap_or_default()
    )]
    Locked {
        /// The directory.
        path: PathBuf,
        /// Process id that the other agent wrote down.
        holder: Option<u32>,
    },
    /// A file that cannot be read as what it should be.
    #[error(
        "{} is damaged ({error}) and not used; it was kept as {}: look at it, then delete that",
        path.display(), kept_as.display()
    )]
    Corrupt {
        /// Where it was.
        path: PathBuf,
        /// Where it is now.
        kept_as: PathBuf,
        /// What is wrong with it.
        error: String,
    },
    /// What was to be kept cannot be written as JSON: a fault of the agent.
    #[error("cannot write {} as JSON: {error}; please report this", path.display())]
    Encode {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: String,
    },
}

impl StateError {
    pub(super) fn io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { doing, path, source }
    }
}

fn advice(error: &io::Error) -> &'static str {
    use io::ErrorKind as K;
    match error.kind() {
        K::StorageFull | K::QuotaExceeded => "free space (and inodes) on that file system",
        K::PermissionDenied => "let the agent's user write there (StateDirectory= in the unit, or chown)",
        K::ReadOnlyFilesystem => "mount it read-write, or set [state] directory to a place that is",
        K::NotADirectory | K::AlreadyExists | K::IsADirectory | K::NotFound => {
            "[state] directory has to be a directory of the agent's own"
        }
        _ => "look at that file system, or set [state] directory to another place",
    }
}
