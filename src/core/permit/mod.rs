//! Permits: who may disturb the fleet now. What a register offers is plain data here; adapters do the reading and writing.

/// A version of the document in its register; compared for equality only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

/// The register's content and its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Version to be given back with a write.
    pub revision: Revision,
    /// The document, as it is.
    pub bytes: Vec<u8>,
}

/// Why a register did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Somebody else wrote first: nothing was written. Read again.
    #[error("somebody else changed the permits first")]
    Conflict,
    /// No answer, or an error. After a write this does *not* mean that nothing was written.
    #[error("the store of permits does not answer: {0}")]
    Unreachable(String),
}
