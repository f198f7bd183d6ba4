//! Is a commit on disk yet?
//!
//! A transaction with `synchronous_commit = off` is visible before it is durable.
//! A message must not leave the server for a change that a crash could undo.

use pgrx::pg_sys;

/// Makes the commits of these transactions durable, flushing the log only if one
/// of them is not yet. All must have ended after the server's start.
pub fn make_durable(xids: impl Iterator<Item = u64>) {
    let latest = xids
        .map(|xid| {
            // SAFETY: the id is that of a recent, committed transaction.
            unsafe { pg_sys::TransactionIdGetCommitLSN(pg_sys::TransactionId::from(xid as u32)) }
        })
        .max()
        .unwrap_or(0);
    flush_to(latest);
}

/// Makes everything written so far durable; returns nothing to wait for afterwards.
pub fn make_everything_durable() {
    // SAFETY: not called during recovery: the worker starts after it.
    flush_to(unsafe { pg_sys::GetXLogInsertRecPtr() });
}

fn flush_to(position: pg_sys::XLogRecPtr) {
    // SAFETY: a position that was handed out by the log itself.
    unsafe {
        if position != 0 && pg_sys::XLogNeedsFlush(position) {
            pg_sys::XLogFlush(position);
        }
    }
}
