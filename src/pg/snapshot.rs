//! The active snapshot as a value of the pure half.

use pgrx::pg_sys;

use crate::core::messages::snapshot::Snapshot;

/// The active snapshot with full transaction ids. Costs no SQL statement, so an
/// idle look stays one statement.
pub fn current() -> Snapshot {
    // SAFETY: called inside a transaction with an active snapshot; the arrays hold
    // `xcnt` ids. Ids of a snapshot lie within 2^31 of the next id, so the
    // epoch follows from comparing with it.
    unsafe {
        let snapshot = &*pg_sys::GetActiveSnapshot();
        let next = pg_sys::ReadNextFullTransactionId().value;
        let widen = |xid: pg_sys::TransactionId| widen(xid.into_inner(), next);
        let running: Vec<u64> = (0..snapshot.xcnt as usize)
            .map(|i| widen(*snapshot.xip.add(i)))
            .collect();
        Snapshot::new(widen(snapshot.xmin), widen(snapshot.xmax), running)
    }
}

/// A 32-bit id below `next` (or equal to it) with its epoch.
pub(super) fn widen(xid: u32, next: u64) -> u64 {
    let same_epoch = (next & !0xffff_ffff) | u64::from(xid);
    if same_epoch > next {
        same_epoch - (1 << 32)
    } else {
        same_epoch
    }
}
