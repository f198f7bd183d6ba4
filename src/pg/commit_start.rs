//! Starting or waking the worker once this transaction has committed.
//!
//! A worker that is started earlier would still read that it was stopped, and leave;
//! one that is woken earlier would not see what there is to do. What is rolled back to
//! a savepoint asks for none.

use std::cell::Cell;
use std::ffi::c_void;

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::{registration, wake};

thread_local! {
    static REGISTERED: Cell<bool> = const { Cell::new(false) };
    /// The subtransaction that wants a worker started; [`NOBODY`] if none does.
    static WANTED_BY: Cell<pg_sys::SubTransactionId> = const { Cell::new(NOBODY) };
    /// One wake-up too many costs nothing, so no subtransaction is remembered.
    static WAKE: Cell<bool> = const { Cell::new(false) };
}

/// `InvalidSubTransactionId`.
const NOBODY: pg_sys::SubTransactionId = 0;

/// Starts a worker for this database when the transaction commits. One too many leaves
/// by itself.
pub fn start_worker_at_commit() {
    // SAFETY: called in a transaction.
    let here = unsafe { pg_sys::GetCurrentSubTransactionId() };
    // Whoever wanted it before does so still, if this subtransaction is rolled back.
    if WANTED_BY.get() == NOBODY {
        WANTED_BY.set(here);
    }
    register_once();
}

/// Wakes the worker when the transaction commits; if none runs, starts one.
pub fn wake_worker_at_commit() {
    if wake::running_worker().is_none() {
        return start_worker_at_commit();
    }
    WAKE.set(true);
    register_once();
}

fn register_once() {
    if REGISTERED.replace(true) {
        return;
    }
    // SAFETY: static callbacks without an argument, registered once.
    unsafe {
        pg_sys::RegisterXactCallback(Some(on_xact), std::ptr::null_mut());
        pg_sys::RegisterSubXactCallback(Some(on_subxact), std::ptr::null_mut());
    }
}

/// An error after COMMIT would take the cluster down: registering a worker fills a slot
/// in shared memory and reports with `false` that there is none. The view
/// webhook.worker then shows that nothing runs.
#[pg_guard]
unsafe extern "C-unwind" fn on_xact(event: pg_sys::XactEvent::Type, _arg: *mut c_void) {
    use pg_sys::XactEvent::*;
    match event {
        XACT_EVENT_COMMIT => {
            if WANTED_BY.replace(NOBODY) != NOBODY {
                registration::register_worker();
            }
            if WAKE.replace(false) {
                wake::wake_worker();
            }
        }
        XACT_EVENT_ABORT | XACT_EVENT_PREPARE => {
            WANTED_BY.set(NOBODY);
            WAKE.set(false);
        }
        _ => {}
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn on_subxact(
    event: pg_sys::SubXactEvent::Type,
    own: pg_sys::SubTransactionId,
    parent: pg_sys::SubTransactionId,
    _arg: *mut c_void,
) {
    use pg_sys::SubXactEvent::*;
    if WANTED_BY.get() == own {
        match event {
            SUBXACT_EVENT_COMMIT_SUB => WANTED_BY.set(parent),
            SUBXACT_EVENT_ABORT_SUB => WANTED_BY.set(NOBODY),
            _ => {}
        }
    }
}
