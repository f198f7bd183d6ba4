//! The active snapshot as a value of the pure half.

use pgrx::pg_sys;

use crate::core::messages::snapshot::{full_xid, Snapshot};

/// The active snapshot with full transaction ids. Costs no SQL statement, so an
/// idle look stays one statement.
pub fn current() -> Snapshot {
    // SAFETY: called inside a transaction with an active snapshot; the arrays hold
    // `xcnt` ids. Ids of a snapshot lie within 2^31 of the next id, so the
    // epoch follows from comparing with it.
    unsafe {
        let snapshot = &*pg_sys::GetActiveSnapshot();
        let next = pg_sys::ReadNextFullTransactionId().value;
        let widen = |xid: pg_sys::TransactionId| full_xid(xid.into_inner(), next);
        let running: Vec<u64> = (0..snapshot.xcnt as usize)
            .map(|i| widen(*snapshot.xip.add(i)))
            .collect();
        Snapshot::new(widen(snapshot.xmin), widen(snapshot.xmax), running)
    }
}
