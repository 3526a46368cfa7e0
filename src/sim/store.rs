//! The register of permits, with its faults.

use crate::core::permit::document::Document;
use crate::core::permit::{Revision, StoreError, Stored};

/// One compare-and-swap register.
#[derive(Debug, Default)]
pub(super) struct Store {
    pub(super) stored: Option<Stored>,
    /// The same, as it reads.
    document: Document,
    /// Faults that make it not answer.
    pub(super) down: u16,
    /// Faults that make its answers to writes be lost.
    pub(super) loses: u16,
}

fn silent() -> StoreError {
    StoreError::Unreachable("no answer in time".to_owned())
}

impl Store {
    pub(super) fn read(&self, reachable: bool) -> Result<Option<Stored>, StoreError> {
        if self.down > 0 || !reachable {
            return Err(silent());
        }
        Ok(self.stored.clone())
    }

    pub(super) fn write(
        &mut self,
        bytes: Vec<u8>,
        expect: Option<Revision>,
        reachable: bool,
    ) -> Result<Revision, StoreError> {
        if self.down > 0 || !reachable {
            return Err(silent());
        }
        if self.stored.as_ref().map(|s| s.revision) != expect {
            return Err(StoreError::Conflict);
        }
        let revision = Revision(expect.map_or(1, |r| r.0 + 1));
        self.document = Document::decode(&bytes).unwrap_or_default();
        self.stored = Some(Stored { revision, bytes });
        if self.loses > 0 { Err(silent()) } else { Ok(revision) }
    }

    /// What stands in it.
    pub(super) fn document(&self) -> &Document {
        &self.document
    }

    /// An operator's command: read, change, swap. False = it did not answer, or there was nothing to do.
    pub(super) fn change(&mut self, change: impl FnOnce(&Document) -> Option<Document>) -> bool {
        let expect = self.stored.as_ref().map(|s| s.revision);
        match change(&self.document).map(|next| next.encode()) {
            Some(Ok(bytes)) => self.write(bytes, expect, true).is_ok(),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_writes_from_an_old_revision_changes_nothing() {
        let mut s = Store::default();
        let first = s.write(b"a".to_vec(), None, true).unwrap();
        assert_eq!(s.write(b"b".to_vec(), None, true), Err(StoreError::Conflict));
        assert!(s.write(b"c".to_vec(), Some(first), true).is_ok());
        assert_eq!(s.read(true).unwrap().unwrap().bytes, b"c");
    }

    #[test]
    fn an_answer_that_is_lost_leaves_the_write_done() {
        let mut s = Store {
            loses: 1,
            ..Store::default()
        };
        assert!(s.write(b"a".to_vec(), None, true).is_err());
        assert_eq!(s.read(true).unwrap().unwrap().bytes, b"a");
    }
}
