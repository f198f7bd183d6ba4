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

/// Makes everything written so far durable; returns where it ends.
pub fn make_everything_durable() -> pg_sys::XLogRecPtr {
    let end = end_of_log();
    flush_to(end);
    end
}

/// Where the last record ends. PostgreSQL says where the next one will begin: at the
/// start of a page that is behind the page's header, which nobody has written yet, and
/// a flush up to there would fail.
fn end_of_log() -> pg_sys::XLogRecPtr {
    // SAFETY: not called during recovery: the worker starts after it.
    let (next, segment_bytes) = unsafe {
        (
            pg_sys::GetXLogInsertRecPtr(),
            pg_sys::wal_segment_size as u64,
        )
    };
    let in_page = next % u64::from(pg_sys::XLOG_BLCKSZ);
    let header_bytes = if next % segment_bytes == in_page {
        size_of::<pg_sys::XLogLongPageHeaderData>()
    } else {
        size_of::<pg_sys::XLogPageHeaderData>()
    };
    if in_page == header_bytes as u64 {
        next - in_page
    } else {
        next
    }
}

fn flush_to(position: pg_sys::XLogRecPtr) {
    // SAFETY: a position that was handed out by the log itself.
    unsafe {
        if position != 0 && pg_sys::XLogNeedsFlush(position) {
            pg_sys::XLogFlush(position);
        }
    }
}
