//! The transactions: what was delivered, and compaction of the settlement log.

use super::operational::Draft;
use super::pending_writes::Scope;
use super::{rows, Settler, Written};
use crate::pg::tx::{self, Failure};
use crate::store::call_log::CallRow;
use crate::store::retries::{RetryRow, AFTER_ANOTHER};
use crate::store::settlement_log::{LaneState, LogRow};
use crate::worker::reading::TailState;

impl Settler {
    /// Writes this part. `in_transaction` does what has to commit with the tail's position.
    /// Opens a transaction.
    ///
    /// # Errors
    /// Everything stays for the next write.
    pub fn write(
        &mut self,
        scope: Scope<'_>,
        tail: &TailState,
        lanes: &[LaneState],
        in_transaction: impl FnOnce(),
    ) -> Result<Written, Failure> {
        let now = self.ticker.now();
        let (switched_off, draft, entries) = tx::transaction(|| {
            let switched_off = self.write_outcomes(scope);
            in_transaction();
            let draft = self.write_operational(scope, &switched_off, now);
            (switched_off, draft, self.append(scope, tail, lanes))
        })?;
        let told = self.operational.committed(draft, now);
        self.notifications.extend(told.notifications);
        let pending = &mut self.pending;
        let in_scope = |url_key: &&i32| scope.has(**url_key);
        let settled = pending.settled(scope);
        let settled_retries =
            settled.filter_map(|settled| Some((settled.url_key, settled.next_at?)));
        // Canceled messages that were redelivered meanwhile.
        let uncalled = pending.uncalled.iter().filter(|row| scope.has(row.url_key));
        let redelivered = uncalled.filter_map(|row| Some((row.url_key, row.next_at?)));
        let redelivered = redelivered.filter(|(_, next_at)| *next_at != AFTER_ANOTHER);
        let written = Written {
            retries: settled_retries.chain(redelivered).collect(),
            done: pending
                .settled(scope)
                .map(|settled| (settled.url_key, settled.at))
                .collect(),
            gone: pending.gone.keys().filter(in_scope).copied().collect(),
            switched_off,
            made_messages: told.messages > 0,
        };
        for settled in pending.settled(scope) {
            if let Some(given_up) = rows::given_up(settled) {
                self.failures.add(given_up);
            }
        }
        pending.forget(scope);
        pending.changed_lanes = lanes.len() as u64;
        pending.seq += 1;
        pending.entries += entries;
        pending.most_entries = pending.most_entries.max(entries);
        pending.entries_since.get_or_insert(now);
        Ok(written)
    }

    /// What may have to wait for a lock comes first: less is to be undone then. Gives the URLs that
    /// this switches off.
    fn write_outcomes(&self, scope: Scope<'_>) -> Vec<(i32, String)> {
        let pending = &self.pending;
        let settled = || pending.settled(scope);
        let failed = settled().filter(|settled| rows::is_remembered(settled));
        let failed: Vec<RetryRow> = failed.map(rows::retry_row).collect();
        self.retries.upsert(&failed);
        let uncalled = pending.uncalled.iter();
        self.retries
            .upsert(uncalled.filter(|row| scope.has(row.url_key)));
        let notes = pending.notes.iter();
        for note in notes.filter(|note| scope.has(note.url_key)) {
            self.cancellations.note(note);
        }
        let outdated = pending.outdated.iter();
        for (url_key, at) in outdated.filter(|(url_key, _)| scope.has(*url_key)) {
            self.cancellations.forget_single(*url_key, *at);
        }
        let ended = settled().filter(|settled| rows::ends_retry(settled));
        let ended: Vec<_> = ended.map(|settled| (settled.url_key, settled.at)).collect();
        self.retries.delivered(&ended);
        let gone = pending.gone.iter();
        let switched_off = gone
            .filter(|(url_key, _)| scope.has(**url_key))
            .filter(|(url_key, why)| self.routing.disable_url(**url_key, why))
            .map(|(url_key, why)| (*url_key, why.clone()))
            .collect();
        let logged = settled().filter(|settled| rows::is_logged(settled));
        let calls: Vec<CallRow> = logged.map(rows::call_row).collect();
        self.calls.append(self.call_log_number, &calls);
        switched_off
    }

    fn write_operational(
        &self,
        scope: Scope<'_>,
        switched_off: &[(i32, String)],
        now: u64,
    ) -> Draft {
        let locked = &self.pending.locked;
        self.operational.write(
            self.pending.settled(scope),
            switched_off,
            |url_key| scope.has(url_key) && !locked.has(url_key),
            now,
        )
    }

    /// Gives how many entries the row has.
    fn append(&self, scope: Scope<'_>, tail: &TailState, lanes: &[LaneState]) -> usize {
        let (counted, counts) = self.pending.counts_json(scope);
        let (changed, backlog) = self.pending.backlog_json(scope);
        self.log.append(&LogRow {
            seq: self.pending.seq + 1,
            tail: &tail.position,
            counts: &counts,
            backlog: &backlog,
            lanes: &serde_json::to_string(lanes).unwrap_or_else(|_| "[]".to_owned()),
        });
        counted + changed + lanes.len() + 1
    }

    /// Adds the log up to its last row to the base tables. Opens a transaction.
    ///
    /// # Errors
    /// It is tried again, after a lock when [`Settler::compact_not_before`] says so.
    pub fn compact(&mut self, oldest_tick: i64) -> Result<(), Failure> {
        let seq = self.pending.seq;
        let compacted = tx::transaction(|| self.log.compact(seq, oldest_tick));
        match &compacted {
            Ok(()) => {
                self.pending.entries = 0;
                self.pending.most_entries = 0;
                self.pending.entries_since = None;
            }
            Err(failure) if failure.is_lock_not_available() => {}
            Err(failure) => {
                pgrx::warning!(
                    "could not compact the webhook settlement log: {}",
                    failure.message
                );
                self.pending.entries_since = Some(self.ticker.now());
                self.pending.entries = 0;
            }
        }
        compacted
    }
}
