//! State on disk: read once at start, written off the loop.

use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::JoinHandle;

use anyhow::Result;
use tracing::{info, warn};

use crate::adapters::store::state::{CONTROL, LEDGER, ROLLOUT, ROSTER, StateDir, StateError};
use crate::core::agent::Restored;
use crate::core::agent::event::RosterEntry;
use crate::core::control::Watermark;
use crate::core::control::roll::Record as Rollout;
use crate::core::remedy::ledger::Ledger;
use crate::core::view::Record;

/// Records that may wait for a slow disk; more are dropped from the file, never from the log.
const WAITING: usize = 1024;
/// Records of earlier processes that readers still see.
const RESTORED: usize = 500;

/// The state directory and the thread that appends to history.
pub(super) struct Keeper {
    dir: std::sync::Arc<StateDir>,
    records: Mutex<Option<SyncSender<Record>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    /// Held while that file is written: on a disk that hangs, writes must neither pile up nor overtake each other.
    ledger: Mutex<()>,
    roster: Mutex<()>,
    rollout: Mutex<()>,
    wanted: Mutex<Option<Box<Rollout>>>,
    control: Mutex<()>,
}

/// Opens the state directory. The inner `Err` is a directory that cannot be used, which the agent survives.
///
/// # Errors
/// Another agent has the directory.
pub(super) fn open(dir: Option<&Path>) -> Result<std::result::Result<Option<Keeper>, String>> {
    let Some(dir) = dir else { return Ok(Ok(None)) };
    match StateDir::open(dir) {
        Ok(dir) => Ok(Ok(Some(Keeper::new(dir)))),
        Err(e @ StateError::Locked { .. }) => Err(e.into()),
        Err(e) => Ok(Err(e.to_string())),
    }
}

impl Keeper {
    fn new(dir: StateDir) -> Self {
        let dir = std::sync::Arc::new(dir);
        let (tx, rx) = sync_channel(WAITING);
        let to = dir.clone();
        let writer = std::thread::Builder::new()
            .name("history".to_owned())
            .spawn(move || write(&to, &rx))
            .ok();
        Self {
            dir,
            records: Mutex::new(Some(tx)),
            writer: Mutex::new(writer),
            ledger: Mutex::new(()),
            roster: Mutex::new(()),
            rollout: Mutex::new(()),
            wanted: Mutex::new(None),
            control: Mutex::new(()),
        }
    }

    /// Reads roster, ledger and the newest of the history.
    pub(super) fn restore(&self, restored: &mut Restored) {
        match self.dir.read_json::<Vec<RosterEntry>>(ROSTER) {
            Ok(roster) => restored.roster = roster.unwrap_or_default(),
            Err(e) => warn!("the roster is learned anew: {e}"),
        }
        restored.ledger = match self.dir.read_vital_json::<Ledger>(LEDGER) {
            Ok(ledger) => ledger.map(Ok),
            Err(e) => {
                warn!("what was done here before cannot be read, so all limits count as used: {e}");
                Some(Err(e.to_string()))
            }
        };
        match self.dir.read_json::<Option<Rollout>>(ROLLOUT) {
            Ok(rollout) => restored.rollout = rollout.flatten(),
            Err(e) => warn!("which rollout was open is not known any more: {e}"),
        }
        match self.dir.read_history(RESTORED) {
            Ok(history) => restored.history = history,
            Err(e) => warn!("history begins anew: {e}"),
        }
        info!(
            hosts = restored.roster.len(),
            records = restored.history.len(),
            "state restored"
        );
    }

    /// Appends to history, later; false = the disk is too slow for it.
    pub(super) fn append(&self, record: Record) -> bool {
        let Ok(records) = self.records.lock() else { return false };
        records.as_ref().is_none_or(|tx| tx.try_send(record).is_ok())
    }

    /// The newest command that was ever taken.
    pub(super) fn watermark(&self) -> Watermark {
        match self.dir.read_json(CONTROL) {
            Ok(taken) => taken.unwrap_or_default(),
            Err(e) => {
                warn!("commands of earlier processes are told by the clock alone: {e}");
                Watermark::default()
            }
        }
    }

    /// Writes it, durably.
    pub(super) fn taken(&self, taken: Watermark) -> Result<(), String> {
        let _alone = alone(&self.control)?;
        self.dir.write_json(CONTROL, &taken).map_err(|e| e.to_string())
    }

    /// Writes the ledger, durably.
    pub(super) fn ledger(&self, ledger: &Ledger) -> Result<(), String> {
        let _alone = alone(&self.ledger)?;
        self.dir.write_json(LEDGER, ledger).map_err(|e| e.to_string())
    }

    /// Writes the roster.
    pub(super) fn roster(&self, roster: &[RosterEntry]) -> Result<(), String> {
        let _alone = alone(&self.roster)?;
        self.dir.write_json(ROSTER, &roster).map_err(|e| e.to_string())
    }

    /// What [`Keeper::rollout`] is to write.
    pub(super) fn want_rollout(&self, rollout: Option<Box<Rollout>>) {
        *self.wanted.lock().unwrap_or_else(PoisonError::into_inner) = rollout;
    }

    /// Writes the record of the open rollout, or that there is none: the newest that is wanted, so that a late writer
    /// writes nothing old.
    pub(super) fn rollout(&self) -> Result<(), String> {
        let _alone = self.rollout.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.dir.write_json(ROLLOUT, &wanted).map_err(|e| e.to_string())
    }

    /// Waits until history is on disk.
    pub(super) fn finish(&self) {
        if let Ok(mut records) = self.records.lock() {
            records.take();
        }
        if let Ok(mut writer) = self.writer.lock()
            && let Some(writer) = writer.take()
        {
            let _ = writer.join();
        }
    }
}

fn alone(file: &Mutex<()>) -> Result<MutexGuard<'_, ()>, String> {
    match file.try_lock() {
        Ok(alone) => Ok(alone),
        // It guards no data that a panic could have left half done.
        Err(TryLockError::Poisoned(e)) => Ok(e.into_inner()),
        Err(TryLockError::WouldBlock) => {
            Err("the write before is still under way: the disk is slow or hangs".to_owned())
        }
    }
}

fn write(dir: &StateDir, records: &Receiver<Record>) {
    let mut failing = false;
    while let Ok(record) = records.recv() {
        let result = dir.append_history(&record);
        match &result {
            Err(e) if !failing => warn!("history is not kept: {e}"),
            Ok(()) if failing => info!("history is kept again"),
            _ => {}
        }
        failing = result.is_err();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_does_not_wait_behind_one_that_hangs_nor_overtake_it() {
        let dir = tempfile::tempdir().unwrap();
        let keeper = Keeper::new(StateDir::open(dir.path()).unwrap());
        let hangs = keeper.ledger.lock().unwrap();
        let error = keeper.ledger(&Ledger::default()).unwrap_err();
        assert!(error.contains("still under way"), "{error}");
        assert_eq!(keeper.roster(&[]), Ok(()));
        drop(hangs);
        assert_eq!(keeper.ledger(&Ledger::default()), Ok(()));
    }
}
