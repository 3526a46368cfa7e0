//! The register as a value of this process, for tests.

use std::sync::Mutex;

use super::register::Register;
use crate::core::permit::{Revision, StoreError, Stored};

/// A register in memory.
#[derive(Debug, Default)]
pub struct Memory(Mutex<Option<Stored>>);

impl Register for Memory {
    async fn get(&self) -> Result<Option<Stored>, StoreError> {
        let stored = self.0.lock().map_err(|e| StoreError::Unreachable(e.to_string()))?;
        Ok(stored.clone())
    }

    async fn compare_and_swap(&self, bytes: Vec<u8>, expect: Option<Revision>) -> Result<Revision, StoreError> {
        let mut stored = self.0.lock().map_err(|e| StoreError::Unreachable(e.to_string()))?;
        if stored.as_ref().map(|s| s.revision) != expect {
            return Err(StoreError::Conflict);
        }
        let revision = Revision(expect.map_or(0, |r| r.0) + 1);
        *stored = Some(Stored { revision, bytes });
        Ok(revision)
    }
}
