//! Has a transaction that is visible also told what it invalidates?
//!
//! COMMIT makes a transaction visible first, then sends its invalidations, then gives its
//! locks back. Until the last step its changes of definitions may be unknown to a process
//! that already sees its rows. Every transaction holds a lock on its own id.

use pgrx::pg_sys;

/// Waits, for the moment it may take, until these committed transactions have sent their
/// invalidations; a caller that accepts them then knows what they changed. In a transaction.
pub fn wait_for_invalidations(xids: impl Iterator<Item = u64>) {
    for xid in xids {
        let xid = pg_sys::TransactionId::from(xid as u32);
        // SAFETY: the id of another transaction, called in a transaction of this process; what
        // is locked for the look is given back at once.
        unsafe {
            if !has_given_its_lock_back(xid) {
                pg_sys::XactLockTableWait(
                    xid,
                    std::ptr::null_mut(),
                    std::ptr::null_mut(),
                    pg_sys::XLTW_Oper::XLTW_None,
                );
            }
        }
    }
}

#[cfg(not(feature = "pg18"))]
unsafe fn has_given_its_lock_back(xid: pg_sys::TransactionId) -> bool {
    // SAFETY: as the caller's.
    unsafe { pg_sys::ConditionalXactLockTableWait(xid) }
}

#[cfg(feature = "pg18")]
unsafe fn has_given_its_lock_back(xid: pg_sys::TransactionId) -> bool {
    // SAFETY: as the caller's.
    unsafe { pg_sys::ConditionalXactLockTableWait(xid, false) }
}
