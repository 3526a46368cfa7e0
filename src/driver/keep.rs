//! State on disk: read once at start, written off the loop.

use std::path::Path;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use anyhow::Result;
use tracing::{info, warn};

use crate::adapters::store::state::{LEDGER, ROSTER, StateDir, StateError};
use crate::core::agent::Restored;
use crate::core::agent::event::RosterEntry;
use crate::core::remedy::ledger::Ledger;
use crate::core::view::Record;

/// Records that may wait for a slow disk; more are dropped from the file, never from the log.
const WAITING: usize = 1024;

/// The state directory and the thread that appends to history.
pub(super) struct Keeper {
    dir: std::sync::Arc<StateDir>,
    records: Mutex<Option<SyncSender<Record>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
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
        }
    }

    /// Reads roster and ledger.
    pub(super) fn restore(&self, restored: &mut Restored) {
        match self.dir.read_json::<Vec<RosterEntry>>(ROSTER) {
            Ok(roster) => restored.roster = roster.unwrap_or_default(),
            Err(e) => warn!("the roster is learned anew: {e}"),
        }
        restored.ledger = match self.dir.read_json::<Ledger>(LEDGER) {
            Ok(ledger) => ledger.map(Ok),
            Err(e) => {
                warn!("all limits count as used for an hour: {e}");
                Some(Err(e.to_string()))
            }
        };
        info!(hosts = restored.roster.len(), "state restored");
    }

    /// Appends to history, later.
    pub(super) fn append(&self, record: Record) {
        if let Ok(records) = self.records.lock()
            && let Some(tx) = records.as_ref()
        {
            let _ = tx.try_send(record);
        }
    }

    /// Writes the ledger, durably.
    pub(super) fn ledger(&self, ledger: &Ledger) -> Result<(), String> {
        self.dir.write_json(LEDGER, ledger).map_err(|e| e.to_string())
    }

    /// Writes the roster.
    pub(super) fn roster(&self, roster: &[RosterEntry]) -> Result<(), String> {
        self.dir.write_json(ROSTER, &roster).map_err(|e| e.to_string())
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
