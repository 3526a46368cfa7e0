//! The state directory: small JSON files that are whole or absent, whatever happens in between.
//!
//! A file is written beside its place, synced, renamed over it, and the directory synced, so that a crash leaves the old
//! one or the new one. One agent at a time has the directory, by an advisory lock that ends with its process.
//! Everything here blocks.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tempfile::NamedTempFile;

pub use super::error::StateError;

/// Who belongs to the fleet.
pub const ROSTER: &str = "roster.json";

/// What was done to this host's server, and when: the limits' memory.
pub const LEDGER: &str = "ledger.json";
/// The rollout that is open.
pub const ROLLOUT: &str = "rollout.json";

/// The newest command that was ever taken.
pub const CONTROL: &str = "control.json";

const LOCK: &str = "lock";
const STAGED: &str = ".staged-";

/// A state directory that this process has for itself until dropped.
#[derive(Debug)]
pub struct StateDir {
    dir: PathBuf,
    pub(super) history: Mutex<()>,
    _lock: File,
}

impl StateDir {
    /// Takes the directory, making it where it is missing, and removes what a crash has left half-written.
    ///
    /// # Errors
    /// Cannot be made or written, or another agent has it.
    pub fn open(dir: &Path) -> Result<Self, StateError> {
        fs::create_dir_all(dir).map_err(StateError::io("make the state directory", dir))?;
        let path = dir.join(LOCK);
        let mut lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(StateError::io("open", &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                // Only for the message; the lock itself is the truth.
                let _ = lock.take(32).read_to_string(&mut pid);
                return Err(StateError::Locked {
                    path: dir.to_owned(),
                    holder: pid.trim().parse().ok(),
                });
            }
            Err(TryLockError::Error(e)) => return Err(StateError::io("lock", path)(e)),
        }
        // Proves at start, and not at the first act, that this directory can be written.
        lock.set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| writeln!(lock, "{}", std::process::id()))
            .map_err(StateError::io("write", &path))?;
        let state = Self {
            dir: dir.to_owned(),
            history: Mutex::new(()),
            _lock: lock,
        };
        state.remove_staged()?;
        Ok(state)
    }

    /// Where `name` is kept.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// What was last written as `name`; `None` if nothing was.
    ///
    /// # Errors
    /// Not readable. A damaged file is moved aside and reported; the next read gives `None`.
    pub fn read_json<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, StateError> {
        self.read_or(name, |from, to| fs::rename(from, to))
    }

    /// The same for what must not be taken for absent by a process that comes before the next write: a damaged file is
    /// kept aside, and stays in its place too until a write replaces it.
    ///
    /// # Errors
    /// Not readable.
    pub fn read_vital_json<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, StateError> {
        // Not every file system has hard links.
        self.read_or(name, |from, to| {
            fs::hard_link(from, to).or_else(|_| fs::copy(from, to).map(drop))
        })
    }

    fn read_or<T: DeserializeOwned>(
        &self,
        name: &str,
        aside: impl FnOnce(&Path, &Path) -> std::io::Result<()>,
    ) -> Result<Option<T>, StateError> {
        let path = self.path(name);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(StateError::io("read", path)(e)),
        };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|e| set_aside(path, e.to_string(), aside))
    }

    /// Keeps `value` as `name`: after `Ok` it is on disk, after an error the old one still is.
    ///
    /// # Errors
    /// Cannot be written.
    pub fn write_json<T: Serialize>(&self, name: &str, value: &T) -> Result<(), StateError> {
        let path = self.path(name);
        let mut json = serde_json::to_vec_pretty(value).map_err(|e| StateError::Encode {
            path: path.clone(),
            error: e.to_string(),
        })?;
        json.push(b'\n');
        self.stage(&json)
            .map_err(StateError::io("write", &path))?
            .persist(&path)
            .map_err(|e| StateError::io("replace", &path)(e.error))?;
        self.sync()
    }

    /// Makes renames last.
    pub(super) fn sync(&self) -> Result<(), StateError> {
        File::open(&self.dir)
            .and_then(|dir| dir.sync_all())
            .map_err(StateError::io("sync", &self.dir))
    }

    fn stage(&self, bytes: &[u8]) -> std::io::Result<NamedTempFile> {
        let mut file = tempfile::Builder::new().prefix(STAGED).tempfile_in(&self.dir)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        Ok(file)
    }

    fn remove_staged(&self) -> Result<(), StateError> {
        let entries = fs::read_dir(&self.dir).map_err(StateError::io("list", &self.dir))?;
        for entry in entries.flatten() {
            if entry.file_name().to_string_lossy().starts_with(STAGED) {
                fs::remove_file(entry.path()).map_err(StateError::io("remove what a crash left at", entry.path()))?;
            }
        }
        Ok(())
    }
}

/// The stamp is the time of the damaged file's last write, which says more than the time of its discovery.
fn set_aside(path: PathBuf, error: String, how: impl FnOnce(&Path, &Path) -> std::io::Result<()>) -> StateError {
    let damaged = fs::metadata(&path).ok();
    let written = damaged
        .as_ref()
        .and_then(|m| m.modified().ok())
        .and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok())
        .map_or(0, |t| t.as_secs());
    let aside = |n: u32| {
        let mut name = path.file_name().unwrap_or_default().to_os_string();
        name.push(match n {
            0 => format!(".corrupt-{written}"),
            n => format!(".corrupt-{written}-{n}"),
        });
        path.with_file_name(name)
    };
    let file = |m: fs::Metadata| (m.dev(), m.ino());
    let itself = damaged.map(file);
    let already = |p: &PathBuf| itself.is_some() && fs::metadata(p).ok().map(file) == itself;
    // One place is always left: an older damaged file is evidence too.
    let Some(kept_as) = (0..u32::MAX).map(aside).find(|p| !p.exists() || already(p)) else {
        return StateError::io("keep aside", path)(std::io::ErrorKind::AlreadyExists.into());
    };
    if already(&kept_as) {
        return StateError::Corrupt { path, kept_as, error };
    }
    match how(&path, &kept_as) {
        Ok(()) => StateError::Corrupt { path, kept_as, error },
        Err(e) => StateError::io("keep aside the damaged", path)(e),
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
