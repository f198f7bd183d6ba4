//! The events of the user's transaction that capture needs, as plain functions.
//!
//! One raw callback per backend, registered once: pgrx's own registration
//! allocates per call and survives PREPARE. `pre_commit` may raise an error (the
//! transaction then fails); every other hook must neither fail nor allocate
//! through PostgreSQL: an error in a COMMIT callback takes the cluster down, and one at the
//! abort of a session that is ended leaves its locks behind.

use std::cell::Cell;
use std::ffi::c_void;

use pgrx::pg_sys;
use pgrx::prelude::*;

/// What a user of this module does at each event.
#[derive(Clone, Copy)]
pub struct Hooks {
    /// PRE_COMMIT and PRE_PREPARE: last chance to write and to fail.
    pub pre_commit: fn(),
    /// The transaction is committed and visible.
    pub committed: fn(),
    /// Aborted, or prepared: forget what belongs to it.
    pub ended: fn(),
    pub subxact_started: fn(),
    pub subxact_committed: fn(),
    pub subxact_aborted: fn(),
}

thread_local! {
    static HOOKS: Cell<Option<Hooks>> = const { Cell::new(None) };
}

/// Registers the hooks; later calls change nothing.
pub fn register_once(hooks: Hooks) {
    if HOOKS.get().is_some() {
        return;
    }
    HOOKS.set(Some(hooks));
    // SAFETY: both callbacks are static functions without an argument.
    unsafe {
        pg_sys::RegisterXactCallback(Some(on_xact), std::ptr::null_mut());
        pg_sys::RegisterSubXactCallback(Some(on_subxact), std::ptr::null_mut());
    }
}

/// How many subtransactions are open right now.
pub fn open_subtransactions() -> usize {
    // SAFETY: reads the state of the running transaction.
    let level = unsafe { pg_sys::GetCurrentTransactionNestLevel() };
    (level.max(1) - 1) as usize
}

/// The running transaction, which gets an id if it has none, and the subtransaction.
pub fn current_ids() -> (u64, u32) {
    // SAFETY: called in a transaction.
    unsafe {
        (
            pg_sys::GetTopFullTransactionId().value,
            pg_sys::GetCurrentSubTransactionId(),
        )
    }
}

/// Whether a transaction id, as rows have it, is of the running transaction or of a subtransaction that was not
/// rolled back.
pub fn is_current(xid: i64) -> bool {
    let Ok(xid) = u32::try_from(xid) else {
        return false;
    };
    // SAFETY: looks at the state of this backend's transaction. An id is a plain number in some versions, and a
    // type of its own in others.
    unsafe { pg_sys::TransactionIdIsCurrentTransactionId(xid.into()) }
}

/// Whether callbacks that were registered now could come too late for this transaction's
/// PRE_COMMIT. `true` is certain of nothing: PostgreSQL does not tell. While a client's statement
/// runs there is a portal; when its transaction commits there is none.
pub fn may_be_committing() -> bool {
    // SAFETY: reads variables of this process.
    unsafe { pg_sys::IsTransactionState() && pg_sys::ActivePortal.is_null() }
}

#[pg_guard]
unsafe extern "C-unwind" fn on_xact(event: pg_sys::XactEvent::Type, _arg: *mut c_void) {
    use pg_sys::XactEvent::*;
    let Some(hooks) = HOOKS.get() else { return };
    match event {
        XACT_EVENT_PRE_COMMIT | XACT_EVENT_PRE_PREPARE => (hooks.pre_commit)(),
        XACT_EVENT_COMMIT => (hooks.committed)(),
        XACT_EVENT_ABORT | XACT_EVENT_PREPARE => (hooks.ended)(),
        _ => {}
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn on_subxact(
    event: pg_sys::SubXactEvent::Type,
    _own: pg_sys::SubTransactionId,
    _parent: pg_sys::SubTransactionId,
    _arg: *mut c_void,
) {
    use pg_sys::SubXactEvent::*;
    let Some(hooks) = HOOKS.get() else { return };
    match event {
        SUBXACT_EVENT_START_SUB => (hooks.subxact_started)(),
        SUBXACT_EVENT_COMMIT_SUB => (hooks.subxact_committed)(),
        SUBXACT_EVENT_ABORT_SUB => (hooks.subxact_aborted)(),
        _ => {}
    }
}
