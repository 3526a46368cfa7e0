//! An operator's change of the permit document: read, decide, swap; again where somebody was first.

use std::time::Duration;

use super::register::Register;
use crate::core::permit::StoreError;
use crate::core::permit::document::{BadDocument, Document};
use crate::core::permit::rules::NothingThere;

/// Tries; agents change the document too, a few times a minute.
const TRIES: u32 = 20;
/// Between two of them.
const PAUSE: Duration = Duration::from_millis(50);

/// Why the document was not changed.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// The store.
    #[error("{0}; check [permits] and the store; whether anything was changed is not known: `watchdog permits` tells")]
    Store(StoreError),
    /// Somebody else was first, each time.
    #[error("others change the permits all the time: nothing was changed; try again")]
    Busy,
    /// What is there is no document of ours.
    #[error(transparent)]
    Document(#[from] BadDocument),
    /// There is nothing to change.
    #[error(transparent)]
    Nothing(#[from] NothingThere),
}

/// What is there; nothing is an empty document.
///
/// # Errors
/// The store does not answer, or has something else there.
pub async fn read(register: &impl Register) -> Result<Document, EditError> {
    match register.get().await.map_err(EditError::Store)? {
        Some(stored) => Ok(Document::decode(&stored.bytes)?),
        None => Ok(Document::default()),
    }
}

/// Changes the document by `change`, which may be called several times. After a write without an answer it does not
/// try again: the operator looks first.
///
/// # Errors
/// Nothing was changed, or it is not known.
pub async fn edit<T>(
    register: &impl Register,
    mut change: impl FnMut(&Document) -> Result<(Document, T), NothingThere>,
) -> Result<(Document, T), EditError> {
    for n in 0..TRIES {
        let stored = register.get().await.map_err(EditError::Store)?;
        let revision = stored.as_ref().map(|s| s.revision);
        let doc = match stored {
            Some(stored) => Document::decode(&stored.bytes)?,
            None => Document::default(),
        };
        let (next, told) = change(&doc)?;
        match register.compare_and_swap(next.encode()?, revision).await {
            Ok(_) => return Ok((next, told)),
            Err(StoreError::Conflict) => tokio::time::sleep(PAUSE * (1 + n % 4)).await,
            Err(e) => return Err(EditError::Store(e)),
        }
    }
    Err(EditError::Busy)
}
