//! The register of permits, read and written in tasks of their own; both have a limit.

use super::Driver;
use crate::adapters::store::register::Register as _;
use crate::core::agent::event::Event;
use crate::core::permit::{Revision, StoreError};

impl Driver {
    pub(super) fn read_permits(&self, ask: u64) {
        let register = self.permits.clone();
        self.later(async move {
            let result = match register {
                Some(register) => register.get().await,
                None => Err(nothing()),
            };
            Event::PermitsRead { ask, result }
        });
    }

    pub(super) fn write_permits(&self, ask: u64, bytes: Vec<u8>, expect: Option<Revision>) {
        let register = self.permits.clone();
        self.later(async move {
            let result = match register {
                Some(register) => register.compare_and_swap(bytes, expect).await,
                None => Err(nothing()),
            };
            Event::PermitsWritten { ask, result }
        });
    }
}

fn nothing() -> StoreError {
    StoreError::Unreachable("no store is configured".to_owned())
}
