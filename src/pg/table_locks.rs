//! Locks around the triggers of a user's table.
//!
//! Whether a table has its shared trigger may only be relied on while nobody drops it. The
//! lock for that is not one on the table, which writers hold: it is of a kind that no SQL
//! function can take, held until the transaction ends.

use std::ffi::c_int;

use pgrx::pg_sys;

/// First key of the lock ("webi").
const TRIGGER_LOCK_CLASS: u32 = 0x7765_6269;
/// Kinds up to 4 are taken: `process`.
const TRIGGER_LOCK_KIND: u16 = 5;

fn trigger_lock(table: pg_sys::Oid) -> pg_sys::LOCKTAG {
    pg_sys::LOCKTAG {
        // SAFETY: reads the database this process is connected to.
        locktag_field1: unsafe { pg_sys::MyDatabaseId.to_u32() },
        locktag_field2: TRIGGER_LOCK_CLASS,
        locktag_field3: table.to_u32(),
        locktag_field4: TRIGGER_LOCK_KIND,
        locktag_type: pg_sys::LockTagType::LOCKTAG_ADVISORY as u8,
        locktag_lockmethodid: pg_sys::USER_LOCKMETHOD as u8,
    }
}

fn acquire(tag: &pg_sys::LOCKTAG, mode: u32, does_not_wait: bool) -> bool {
    // SAFETY: in a transaction, to whose end the lock belongs. A wait can be canceled, and ends
    // with lock_timeout.
    let result = unsafe { pg_sys::LockAcquire(tag, mode as c_int, false, does_not_wait) };
    result != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL
}

/// Until the transaction ends, no other session drops the shared triggers of the table. Waits for
/// one that has dropped them, up to `lock_timeout`.
pub fn keep_triggers(table: pg_sys::Oid) {
    acquire(&trigger_lock(table), pg_sys::ShareLock, false);
}

/// Whether this session may drop the shared triggers of the table: no other relies on them.
pub fn may_drop_triggers(table: pg_sys::Oid) -> bool {
    acquire(&trigger_lock(table), pg_sys::ExclusiveLock, true)
}

/// Gives the right back before the transaction ends, for one that has dropped nothing.
pub fn release_trigger_lock(table: pg_sys::Oid) {
    let tag = trigger_lock(table);
    // SAFETY: in the transaction that took it with [`may_drop_triggers`].
    unsafe { pg_sys::LockRelease(&raw const tag, pg_sys::ExclusiveLock as c_int, false) };
}

/// Waits until nobody writes to the table, as CREATE TRIGGER does.
pub fn lock_for_trigger(table: pg_sys::Oid) {
    // SAFETY: in a transaction, to whose end the lock belongs.
    unsafe { pg_sys::LockRelationOid(table, pg_sys::ShareRowExclusiveLock as c_int) }
}

/// Whether a statement of this session works with the table, or has left deferred triggers on it:
/// then its triggers cannot be dropped.
fn is_in_use_here(table: pg_sys::Oid) -> bool {
    // SAFETY: in a transaction that holds a lock on the table; null if the table is gone.
    unsafe {
        let relation = pg_sys::try_relation_open(table, pg_sys::NoLock as c_int);
        if relation.is_null() {
            return false;
        }
        let is_open_elsewhere = (*relation).rd_refcnt > 1;
        pg_sys::relation_close(relation, pg_sys::NoLock as c_int);
        is_open_elsewhere || pg_sys::AfterTriggerPendingOnRel(table)
    }
}

/// Locks the tables as DROP TRIGGER does, or none of them if one is in use.
pub fn try_lock_exclusively(tables: &[pg_sys::Oid]) -> bool {
    let mode = pg_sys::AccessExclusiveLock as c_int;
    for (place, table) in tables.iter().enumerate() {
        // SAFETY: in a transaction; a table that is gone can be locked, too.
        let is_locked = unsafe { pg_sys::ConditionalLockRelationOid(*table, mode) };
        if !is_locked || is_in_use_here(*table) {
            for locked in &tables[..place + usize::from(is_locked)] {
                // SAFETY: it was locked above, once.
                unsafe { pg_sys::UnlockRelationOid(*locked, mode) };
            }
            return false;
        }
    }
    true
}
