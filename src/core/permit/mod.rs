//! Permits: who may disturb the fleet now. What a register offers is plain data here; adapters do the reading and writing.
//!
//! [`document`] is what the register holds, [`rules`] and [`rollout`] how it may change, [`machine`] one agent's way of
//! changing it, [`slots`] what stands in for it where there is no register. All of it is pure; the simulator runs the same code.

pub mod document;
pub mod machine;
pub mod policy;
pub mod rollout;
#[cfg(test)]
mod rollout_tests;
pub mod rules;
pub mod slots;
#[cfg(test)]
mod tests;

/// A version of the document in its register. A register counts upwards; what is lower than what was seen is a stale read.
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
