//! Which webhooks have to be read again.
//!
//! Sessions say which webhook they change in a log that is read by snapshot, so that one change
//! costs one webhook. What no session can say (a table was renamed, settings were reloaded) comes
//! from invalidations and from the worker itself.

use std::collections::BTreeSet;

use super::Definitions;
use crate::core::messages::snapshot::Snapshot;
use crate::pg::{invalidation, snapshot, tx};
use crate::store::definition_log::Changed;
use crate::worker::locks::{Locks, Work};
use crate::worker::time::Ticker;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// It is not known what has not changed.
    pub everything: bool,
    pub webhooks: BTreeSet<i32>,
}

impl Changes {
    pub fn everything() -> Self {
        Self {
            everything: true,
            webhooks: BTreeSet::new(),
        }
    }

    pub fn of(webhook_key: i32) -> Self {
        Self {
            everything: false,
            webhooks: BTreeSet::from([webhook_key]),
        }
    }

    fn add(&mut self, other: Self) {
        self.everything |= other.everything;
        self.webhooks.extend(other.webhooks);
    }
}

impl Definitions {
    /// Webhooks whose tables have changed since the last call.
    pub fn noted(&mut self) -> Changes {
        let noted = invalidation::take_noted();
        let Some(relations) = noted.relations() else {
            return Changes::everything();
        };
        let watching = relations
            .iter()
            .filter_map(|table| self.by_table.get(table));
        Changes {
            everything: false,
            webhooks: watching.flatten().copied().collect(),
        }
    }

    /// Asks for these at the next reading of definitions.
    pub fn read_again(&mut self, changes: Changes) {
        self.to_read.add(changes);
        invalidation::mark_stale();
    }

    /// What has changed since the last call of [`Definitions::accept_changes`]. In a
    /// transaction.
    pub fn changes(&mut self) -> (Changes, Snapshot) {
        let noted = self.noted();
        self.to_read.add(noted);
        let now = snapshot::current();
        let since = self.read_up_to.as_ref();
        // Without a look before, everything is read anyway.
        match since.map_or(Changed::Everything, |before| self.log.since(before)) {
            Changed::Everything => {
                self.log_has_read_rows = true;
                self.to_read.add(Changes::everything());
            }
            Changed::Webhooks(keys) => {
                self.log_has_read_rows |= !keys.is_empty();
                self.to_read.webhooks.extend(keys);
            }
        }
        (self.to_read.clone(), now)
    }

    /// Reads what has changed: of everything, what `is_in_use`; the rest is forgotten. Gives the
    /// webhooks that were read. In a transaction.
    pub fn read_changes(&mut self, changes: &Changes, in_use: BTreeSet<i32>) -> BTreeSet<i32> {
        let mut keys = changes.webhooks.clone();
        if changes.everything {
            let cached: Vec<i32> = self.cached.keys().copied().collect();
            cached.into_iter().for_each(|key| self.forget(key));
            keys.extend(in_use);
        }
        self.load(&Vec::from_iter(keys.iter().copied()));
        keys
    }

    /// What was found by [`Definitions::changes`] is read and applied.
    pub fn accept_changes(&mut self, read_up_to: Snapshot) {
        self.to_read = Changes::default();
        self.read_up_to = Some(read_up_to);
    }

    /// What was noted until now is read once more by the next reading: the snapshot of this one
    /// may be older than the change.
    pub fn read_noted_again(&mut self, noted: Changes) {
        if noted.everything || !noted.webhooks.is_empty() {
            self.read_again(noted);
        }
    }

    /// Deletes the part of the log that was read. Opens a transaction if there is such a part.
    pub fn forget_changes(&mut self, locks: &mut Locks, ticker: Ticker) {
        let now = ticker.now();
        if !locks.may_try(Work::DefinitionLog, now) {
            return;
        }
        let Some(read_up_to) = self.read_up_to.as_ref().filter(|_| self.log_has_read_rows) else {
            return;
        };
        match tx::transaction(|| self.log.forget(read_up_to)) {
            Ok(()) => {
                self.log_has_read_rows = false;
                locks.succeeded(Work::DefinitionLog);
            }
            Err(failure) if failure.is_lock_not_available() => {
                locks.failed(Work::DefinitionLog, now);
            }
            Err(failure) => {
                pgrx::warning!(
                    "could not trim webhook_internal.definition_change: {}",
                    failure.message
                );
            }
        }
    }
}
