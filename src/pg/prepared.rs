//! Prepared transactions of this database, without a statement.

use std::ffi::c_int;

use pgrx::pg_sys;

use crate::core::messages::snapshot::{full_xid, Snapshot};

extern "C" {
    // access/twophase.h. Fixed when the server starts.
    static max_prepared_xacts: c_int;
}

/// Whether a prepared transaction of this database runs for this snapshot, or was prepared
/// after it was taken.
pub fn any_runs(at: &Snapshot) -> bool {
    // SAFETY: each prepared transaction has a PGPROC of its own in shared memory, among these.
    // Racy reads: one that was just prepared or ended may be missed or found once too often.
    // One that has ended leaves its id behind, but runs for no snapshot.
    unsafe {
        let next = pg_sys::ReadNextFullTransactionId().value;
        (0..max_prepared_xacts.max(0) as usize).any(|index| {
            let proc = pg_sys::PreparedXactProcs.add(index);
            let xid = (&raw const (*proc).xid).read_volatile().into_inner();
            let is_ours = (&raw const (*proc).databaseId).read_volatile() == pg_sys::MyDatabaseId;
            xid != 0 && is_ours && !at.sees(full_xid(xid, next))
        })
    }
}
