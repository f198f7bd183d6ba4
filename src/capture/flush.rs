//! From the buffer to the outbox table.

use std::cell::Cell;

use super::buffer::{Buffer, Captured};
use super::BUFFER;
use crate::pg::append::{self, OutboxRow};
use crate::pg::wake;
use crate::store::outbox_tables;

thread_local! {
    /// Whether this transaction has written messages that the worker must hear of.
    static WRITTEN: Cell<bool> = const { Cell::new(false) };
}

/// Whether the transaction wrote messages; asked once, at its end.
pub fn take_written() -> bool {
    WRITTEN.replace(false)
}

/// PRE_COMMIT and PRE_PREPARE. May fail, and then the user's transaction does.
pub fn at_commit() {
    if !BUFFER.with_borrow(Buffer::is_empty) {
        write(true);
    }
}

/// The buffer is full in mid-transaction.
pub fn early() {
    write(false);
}

fn write(at_commit: bool) {
    ensure_worker();
    let number = append::next_value(outbox_tables::current().flush_sequence);
    BUFFER.with_borrow_mut(|buffer| buffer.assign_ids(number));
    BUFFER.with_borrow(|buffer| {
        let rows = buffer.writable();
        append::append(
            || outbox_tables::current().outbox,
            rows.iter().map(|row| outbox_row(buffer, row)),
            at_commit,
        );
    });
    BUFFER.with_borrow_mut(Buffer::written);
    WRITTEN.set(true);
}

fn outbox_row<'a>(buffer: &'a Buffer, row: &'a Captured) -> OutboxRow<'a> {
    OutboxRow {
        id: row.id,
        message_id: &row.message_id,
        event_key: row.event_key,
        webhook_key: row.webhook_key,
        captured_at: row.captured_at,
        source: row.source.as_deref().map(str::as_bytes),
        actor: row.actor.as_deref().map(str::as_bytes),
        changed: row.changed.as_ref().map(|range| buffer.slice(range)),
        record: row.record.as_ref().map(|range| buffer.slice(range)),
        old_record: row.old_record.as_ref().map(|range| buffer.slice(range)),
    }
}

/// A message is worth nothing without a worker: the first transaction that finds
/// none starts one. That no slot is free is not the user's fault; the message waits.
fn ensure_worker() {
    if wake::running_worker().is_none() && !outbox_tables::current().worker_stopped {
        let _ = wake::start_worker_now_and_then();
    }
}
