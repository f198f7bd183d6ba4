//! From the buffer to the outbox table.
//!
//! A session may be ended in any call of PostgreSQL, and then nothing unwinds: the callbacks of
//! the abort run on top of it. So the rows are taken out of the buffer before the first call
//! that can fail, and no callback finds anything borrowed.

use std::cell::Cell;

use super::buffer::{Batch, Buffer, Captured};
use super::with_buffer;
use crate::pg::append::{self, OutboxRow};
use crate::pg::{commit_start, wake};
use crate::store::outbox_tables::{self, OutboxTables};

thread_local! {
    /// Whether this transaction has written messages that the worker must hear of.
    static WRITTEN: Cell<bool> = const { Cell::new(false) };
    /// Whether no flush follows in this transaction. Callbacks of other extensions may run after
    /// this one's, and what they change is written at once.
    static LAST_FLUSH_IS_OVER: Cell<bool> = const { Cell::new(false) };
}

/// The transaction is over; whether it wrote messages.
pub fn transaction_ended() -> bool {
    LAST_FLUSH_IS_OVER.set(false);
    WRITTEN.replace(false)
}

/// PRE_COMMIT and PRE_PREPARE. May fail, and then the user's transaction does.
pub fn at_commit() {
    LAST_FLUSH_IS_OVER.set(true);
    if !with_buffer(|buffer| buffer.is_empty()) {
        write(true);
    }
}

/// From now on nothing may wait in the buffer.
pub fn expect_no_other() {
    LAST_FLUSH_IS_OVER.set(true);
}

pub fn no_other_follows() -> bool {
    LAST_FLUSH_IS_OVER.get()
}

/// The buffer is full in mid-transaction, or no flush follows.
pub fn now() {
    write(false);
}

fn write(at_commit: bool) {
    let Some(tables) = outbox_tables::current() else {
        // The extension was dropped in this transaction: nobody waits for its messages.
        drop(with_buffer(Buffer::take_writable));
        return;
    };
    // So that a COMMIT PREPARED of these messages wakes the worker.
    commit_start::register_once();
    ensure_worker(&tables);
    let number = append::next_value(tables.flush_sequence);
    with_buffer(|buffer| buffer.assign_ids(number));
    let batch = with_buffer(Buffer::take_writable);
    let rows = batch.rows().iter();
    let of_this_extension = rows.filter(|row| row.extension == tables.extension);
    append::append(
        outbox_tables::current_outbox,
        of_this_extension.map(|row| outbox_row(&batch, row)),
        at_commit,
    );
    with_buffer(|buffer| buffer.reuse(batch));
    WRITTEN.set(true);
}

fn outbox_row<'a>(batch: &'a Batch, row: &'a Captured) -> OutboxRow<'a> {
    OutboxRow {
        id: row.id,
        message_id: &row.message_id,
        event_key: row.event_key,
        webhook_key: row.webhook_key,
        captured_at: row.captured_at,
        source: row.source.as_deref().map(str::as_bytes),
        actor: row.actor.as_deref().map(str::as_bytes),
        changed: row.changed.as_ref().map(|range| batch.slice(range)),
        record: row.record.as_ref().map(|range| batch.slice(range)),
        old_record: row.old_record.as_ref().map(|range| batch.slice(range)),
    }
}

/// A message is worth nothing without a worker: the first transaction that finds
/// none starts one. That no slot is free is not the user's fault; the message waits.
pub(super) fn ensure_worker(tables: &OutboxTables) {
    if wake::running_worker().is_none() && !tables.worker_stopped {
        let _ = wake::start_worker_now_and_then();
    }
}
