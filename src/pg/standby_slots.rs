//! How much of the log a standby has flushed, by its physical replication slot.

use std::ffi::CString;

use pgrx::pg_sys;

/// What a slot says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotState {
    Missing,
    /// A logical slot says nothing about a standby.
    Logical,
    Invalidated,
    /// The standby has the log up to `position` (0: nothing is known).
    Physical {
        position: u64,
        is_active: bool,
    },
}

/// Reads a slot in shared memory: no statement, no transaction.
pub fn look(name: &str) -> SlotState {
    let Ok(wanted) = CString::new(name) else {
        return SlotState::Missing;
    };
    // SAFETY: slots stay in shared memory as long as the server. The search takes the lock
    // of the slots for a moment; a slot may be dropped or used again after that, so what
    // it is now is read under its spinlock, where only loads happen.
    let (is_in_use, active_pid, data) = unsafe {
        let slot = pg_sys::SearchNamedReplicationSlot(wanted.as_ptr(), true);
        if slot.is_null() {
            return SlotState::Missing;
        }
        let mutex = &raw mut (*slot).mutex;
        pg_sys::SpinLockAcquire(mutex);
        let is_in_use = (&raw const (*slot).in_use).read_volatile();
        let active_pid = (&raw const (*slot).active_pid).read_volatile();
        let data = (&raw const (*slot).data).read_volatile();
        pg_sys::SpinLockRelease(mutex);
        (is_in_use, active_pid, data)
    };
    let found: Vec<u8> = data
        .name
        .data
        .iter()
        .map(|byte| *byte as u8)
        .take_while(|byte| *byte != 0)
        .collect();
    if !is_in_use || found != wanted.as_bytes() {
        SlotState::Missing
    } else if data.database != pg_sys::InvalidOid {
        SlotState::Logical
    } else if is_invalidated(&data) {
        SlotState::Invalidated
    } else {
        SlotState::Physical {
            position: data.restart_lsn,
            is_active: active_pid != 0,
        }
    }
}

#[cfg(feature = "pg15")]
fn is_invalidated(data: &pg_sys::ReplicationSlotPersistentData) -> bool {
    data.restart_lsn == 0 && data.invalidated_at != 0
}

#[cfg(any(feature = "pg16", feature = "pg17", feature = "pg18"))]
fn is_invalidated(data: &pg_sys::ReplicationSlotPersistentData) -> bool {
    data.invalidated != pg_sys::ReplicationSlotInvalidationCause::RS_INVAL_NONE
}
