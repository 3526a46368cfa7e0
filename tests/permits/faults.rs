//! Faults as decorators: a register that is one of the real ones, and behaves worse.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nats_watchdog::adapters::store::register::Register;
use nats_watchdog::core::permit::{Revision, StoreError, Stored};

/// What goes wrong, each for so many requests to come.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    /// Writes are done and their answers lost.
    pub lost_replies: AtomicU32,
    /// Writes are refused though nobody was first.
    pub conflicts: AtomicU32,
    /// Requests take a while.
    pub delays: AtomicU32,
    /// Reads give what was there one read before.
    pub stale_reads: AtomicU32,
    /// Requests are not answered and not done.
    pub gone: AtomicU32,
}

/// A register with faults.
pub(crate) struct Faulty<R> {
    pub inner: R,
    pub faults: Faults,
    before: Mutex<Option<Option<Stored>>>,
}

impl<R> Faulty<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self {
            inner,
            faults: Faults::default(),
            before: Mutex::new(None),
        }
    }
}

fn strikes(fault: &AtomicU32) -> bool {
    fault
        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1))
        .is_ok()
}

impl<R: Register> Faulty<R> {
    async fn weather(&self) -> Result<(), StoreError> {
        if strikes(&self.faults.delays) {
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        if strikes(&self.faults.gone) {
            return Err(StoreError::Unreachable("gone".to_owned()));
        }
        Ok(())
    }
}

impl<R: Register> Register for Faulty<R> {
    async fn get(&self) -> Result<Option<Stored>, StoreError> {
        self.weather().await?;
        let now = self.inner.get().await?;
        let mut before = self.before.lock().unwrap();
        if strikes(&self.faults.stale_reads)
            && let Some(old) = before.clone()
        {
            return Ok(old);
        }
        *before = Some(now.clone());
        Ok(now)
    }

    async fn compare_and_swap(&self, bytes: Vec<u8>, expect: Option<Revision>) -> Result<Revision, StoreError> {
        self.weather().await?;
        if strikes(&self.faults.conflicts) {
            return Err(StoreError::Conflict);
        }
        let written = self.inner.compare_and_swap(bytes, expect).await?;
        if strikes(&self.faults.lost_replies) {
            return Err(StoreError::Unreachable("the answer got lost".to_owned()));
        }
        Ok(written)
    }
}
