//! The register as a file: for all agents of one host, and for tests. Not for a shared file system: its locks are only as
//! good as that file system's.
//!
//! The first line is the revision, the rest the document. A writer has the lock file beside it for itself, writes a new
//! file, syncs it, and renames it over the old one: a crash leaves the old one or the new one.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use super::register::Register;
use crate::core::permit::{Revision, StoreError, Stored};

const HEAD: &str = "# watchdog permits, revision ";
/// Of a larger file no more is read: it is no document anyway.
const MOST: u64 = 1024 * 1024;

/// A file that is a register.
#[derive(Debug, Clone)]
pub struct FileRegister {
    path: PathBuf,
}

impl FileRegister {
    /// The register at `path`, which need not exist.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    fn read(&self) -> io::Result<Option<Stored>> {
        let mut bytes = Vec::new();
        match File::open(&self.path).and_then(|f| f.take(MOST).read_to_end(&mut bytes)) {
            Ok(_) => Ok(Some(parse(bytes))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn swap(&self, bytes: &[u8], expect: Option<Revision>) -> io::Result<Option<Revision>> {
        let dir = self
            .path
            .parent()
            .filter(|d| !d.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        let mut lock = self.path.clone().into_os_string();
        lock.push(".lock");
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(lock)?;
        lock.lock()?;
        let now = self.read()?.map(|s| s.revision);
        if now != expect {
            return Ok(None);
        }
        let next = Revision(now.map_or(0, |r| r.0) + 1);
        let mut file = tempfile::Builder::new().prefix(".permits-").tempfile_in(dir)?;
        writeln!(file, "{HEAD}{}", next.0)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(&self.path).map_err(|e| e.error)?;
        File::open(dir)?.sync_all()?;
        Ok(Some(next))
    }

    fn explain(&self, doing: &str, e: &io::Error) -> StoreError {
        StoreError::Unreachable(format!("cannot {doing} {}: {e}", self.path.display()))
    }
}

/// What somebody else put there is no document, and is left as it is.
fn parse(bytes: Vec<u8>) -> Stored {
    let head = bytes.iter().position(|b| *b == b'\n').map(|end| (end, &bytes[..end]));
    let revision = head.and_then(|(end, line)| {
        let number = std::str::from_utf8(line).ok()?.strip_prefix(HEAD)?;
        // The last number leaves no room for a next one, so no register wrote it.
        Some((end, number.parse().ok().filter(|n| *n < u64::MAX)?))
    });
    match revision {
        Some((end, revision)) => Stored {
            revision: Revision(revision),
            bytes: bytes[end + 1..].to_vec(),
        },
        None => Stored {
            revision: Revision(0),
            bytes,
        },
    }
}

impl Register for FileRegister {
    async fn get(&self) -> Result<Option<Stored>, StoreError> {
        let this = self.clone();
        let read = tokio::task::spawn_blocking(move || this.read());
        match read.await {
            Ok(result) => result.map_err(|e| self.explain("read", &e)),
            Err(e) => Err(StoreError::Unreachable(e.to_string())),
        }
    }

    async fn compare_and_swap(&self, bytes: Vec<u8>, expect: Option<Revision>) -> Result<Revision, StoreError> {
        let this = self.clone();
        let write = tokio::task::spawn_blocking(move || this.swap(&bytes, expect));
        match write.await {
            Ok(Ok(Some(revision))) => Ok(revision),
            Ok(Ok(None)) => Err(StoreError::Conflict),
            Ok(Err(e)) => Err(self.explain("write", &e)),
            Err(e) => Err(StoreError::Unreachable(e.to_string())),
        }
    }
}
