//! What was decided and done, a JSON line each. The newest two files are kept, so the disk is never filled.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::PoisonError;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::state::{StateDir, StateError};

/// The file that is appended to.
pub const HISTORY: &str = "history.jsonl";

/// The file before it.
pub const HISTORY_OLD: &str = "history.1.jsonl";

/// A file that would grow beyond this becomes the old one.
pub const MAX_HISTORY: u64 = 4 * 1024 * 1024;

impl StateDir {
    /// Appends one record and syncs it.
    ///
    /// # Errors
    /// Cannot be written. A line that a full disk cut short is ended by the next append, and skipped by reads.
    pub fn append_history<T: Serialize>(&self, record: &T) -> Result<(), StateError> {
        let path = self.path(HISTORY);
        let mut line = serde_json::to_vec(record).map_err(|e| StateError::Encode {
            path: path.clone(),
            error: e.to_string(),
        })?;
        line.push(b'\n');
        // The lock guards nothing that a panic could leave half-done.
        let _one_writer = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        let length = fs::metadata(&path).map_or(0, |m| m.len());
        if length > 0 && length + line.len() as u64 > MAX_HISTORY {
            fs::rename(&path, self.path(HISTORY_OLD)).map_err(StateError::io("rotate", &path))?;
            self.sync()?;
        }
        append(&path, line).map_err(StateError::io("append to", &path))
    }

    /// The last `limit` records, oldest first. Lines that are cut off or of another shape are skipped.
    ///
    /// # Errors
    /// Not readable. No file is no history.
    pub fn read_history<T: DeserializeOwned>(&self, limit: usize) -> Result<Vec<T>, StateError> {
        read(&self.path(""), limit)
    }
}

/// [`StateDir::read_history`] of a directory that another process may have: it only reads.
///
/// # Errors
/// Not readable. No file is no history.
pub fn read<T: DeserializeOwned>(dir: &Path, limit: usize) -> Result<Vec<T>, StateError> {
    let mut newest_first = Vec::new();
    for name in [HISTORY, HISTORY_OLD] {
        let path = dir.join(name);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            Err(e) => return Err(StateError::io("read", path)(e)),
        };
        let wanted = limit - newest_first.len();
        let lines = bytes.rsplit(|b| *b == b'\n');
        let records = lines.filter_map(|line| serde_json::from_slice(line).ok());
        newest_first.extend(records.take(wanted));
    }
    newest_first.reverse();
    Ok(newest_first)
}

fn append(path: &Path, mut line: Vec<u8>) -> std::io::Result<()> {
    let mut file = OpenOptions::new().create(true).read(true).append(true).open(path)?;
    if !ends_a_line(&mut file)? {
        line.insert(0, b'\n');
    }
    file.write_all(&line)?;
    file.sync_data()
}

fn ends_a_line(file: &mut File) -> std::io::Result<bool> {
    if file.metadata()?.len() == 0 {
        return Ok(true);
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last == [b'\n'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_is_read_back_in_order_and_the_newest_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        assert_eq!(state.read_history::<u32>(5).unwrap(), Vec::<u32>::new());
        (0..10u32).for_each(|n| state.append_history(&n).unwrap());
        assert_eq!(state.read_history::<u32>(3).unwrap(), [7, 8, 9]);
        assert_eq!(state.read_history::<u32>(0).unwrap(), Vec::<u32>::new());
    }

    #[test]
    fn history_never_has_more_than_two_files_of_4_mib() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let half = "x".repeat(MAX_HISTORY as usize / 2);
        for n in 0..7u32 {
            state.append_history(&(n, &half)).unwrap();
            let size = |name| fs::metadata(state.path(name)).map_or(0, |m| m.len());
            assert!(size(HISTORY) <= MAX_HISTORY && size(HISTORY_OLD) <= MAX_HISTORY);
        }
        let kept = state.read_history::<(u32, String)>(100).unwrap();
        let kept: Vec<u32> = kept.into_iter().map(|(n, _)| n).collect();
        assert_eq!(kept, [5, 6], "one a file, the newest");
    }

    #[test]
    fn a_line_that_was_cut_short_costs_only_itself() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        state.append_history(&"first").unwrap();
        let mut file = OpenOptions::new().append(true).open(state.path(HISTORY)).unwrap();
        file.write_all(b"\"seco").unwrap();
        state.append_history(&"third").unwrap();
        assert_eq!(state.read_history::<String>(9).unwrap(), ["first", "third"]);
    }
}
