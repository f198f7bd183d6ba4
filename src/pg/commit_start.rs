//! Starting or waking the worker once this transaction has committed.
//!
//! A worker that is started earlier would still read that it was stopped, and leave;
//! one that is woken earlier would not see what there is to do. What is rolled back to
//! a savepoint asks for none.
//!
//! What forbids calls is told after the invalidations of the commit were sent and before the
//! client hears of it: a worker that looks later than the client knows finds either the note
//! or the change.
//!
//! A prepared transaction has no COMMIT of its own: its session remembers it, and tells the
//! worker at the first COMMIT that finds it ended, which is that of COMMIT PREPARED itself.

use std::cell::Cell;
use std::ffi::c_void;

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::{registration, wake};

/// So many prepared transactions are remembered. The worker looks for itself while there are
/// any, so the rest is found a little later.
const PREPARED_AT_MOST: usize = 256;

thread_local! {
    static REGISTERED: Cell<bool> = const { Cell::new(false) };
    /// The subtransaction that wants a worker started; [`NOBODY`] if none does.
    static WANTED_BY: Cell<pg_sys::SubTransactionId> = const { Cell::new(NOBODY) };
    /// One wake-up too many costs nothing, so no subtransaction is remembered.
    static WAKE: Cell<bool> = const { Cell::new(false) };
    /// Committed; the invalidations are still to be sent.
    static TELL: Cell<bool> = const { Cell::new(false) };
    /// What this session has prepared and what, as far as it knows, has not ended.
    static PREPARED: Cell<Vec<pg_sys::TransactionId>> = const { Cell::new(Vec::new()) };
}

/// `InvalidSubTransactionId`.
const NOBODY: pg_sys::SubTransactionId = 0;

/// Starts a worker for this database when the transaction commits. One too many leaves
/// by itself.
pub fn start_worker_at_commit() {
    // SAFETY: called in a transaction.
    let here = unsafe { pg_sys::GetCurrentSubTransactionId() };
    // What wanted it before still does, if this subtransaction is rolled back.
    if WANTED_BY.get() == NOBODY {
        WANTED_BY.set(here);
    }
    register_once();
}

/// Wakes the worker when the transaction commits; if none runs, starts one.
pub fn wake_worker_at_commit() {
    if wake::running_worker().is_none() {
        start_worker_at_commit();
    }
    tell_worker_at_commit();
}

/// Once the transaction has committed, a worker that runs starts no further call until it has
/// read what changed.
pub fn tell_worker_at_commit() {
    WAKE.set(true);
    register_once();
}

/// Registers the callbacks of this backend, so that what it prepares is remembered.
pub fn register_once() {
    if REGISTERED.replace(true) {
        return;
    }
    // SAFETY: static callbacks without an argument, registered once.
    unsafe {
        pg_sys::RegisterXactCallback(Some(on_xact), std::ptr::null_mut());
        pg_sys::RegisterSubXactCallback(Some(on_subxact), std::ptr::null_mut());
        pg_sys::RegisterResourceReleaseCallback(Some(on_release), std::ptr::null_mut());
    }
}

/// An error after COMMIT would take the cluster down: registering a worker fills a slot
/// in shared memory and reports with `false` that there is none. The view
/// webhook.worker then shows that nothing runs.
#[pg_guard]
unsafe extern "C-unwind" fn on_xact(event: pg_sys::XactEvent::Type, _arg: *mut c_void) {
    use pg_sys::XactEvent::*;
    match event {
        XACT_EVENT_PRE_COMMIT => forget_ended(),
        XACT_EVENT_COMMIT => {
            if WANTED_BY.replace(NOBODY) != NOBODY {
                registration::register_worker();
            }
            TELL.set(WAKE.replace(false));
        }
        XACT_EVENT_ABORT => forget(),
        XACT_EVENT_PREPARE => {
            // COMMIT PREPARED, of any session, runs no callback: a worker that is started now waits a little for
            // what it needs.
            if WANTED_BY.replace(NOBODY) != NOBODY {
                registration::register_worker();
            }
            forget();
            remember_prepared();
        }
        _ => {}
    }
}

fn forget() {
    WANTED_BY.set(NOBODY);
    WAKE.set(false);
    TELL.set(false);
}

/// The worker looks more often while a transaction is prepared.
fn remember_prepared() {
    // SAFETY: the transaction that is being prepared is still known here.
    let xid = unsafe { pg_sys::GetTopTransactionIdIfAny() };
    if xid == pg_sys::InvalidTransactionId {
        return;
    }
    let mut prepared = PREPARED.take();
    if prepared.len() < PREPARED_AT_MOST {
        prepared.push(xid);
    }
    PREPARED.set(prepared);
    wake::wake_worker();
}

/// Before COMMIT, where an error may still be raised.
fn forget_ended() {
    let mut prepared = PREPARED.take();
    if prepared.is_empty() {
        return;
    }
    let before = prepared.len();
    // SAFETY: looks at the running transactions under their lock.
    prepared.retain(|xid| unsafe { pg_sys::TransactionIdIsInProgress(*xid) });
    if prepared.len() < before {
        WAKE.set(true);
    }
    PREPARED.set(prepared);
}

#[pg_guard]
unsafe extern "C-unwind" fn on_release(
    phase: pg_sys::ResourceReleasePhase::Type,
    _is_commit: bool,
    _is_top_level: bool,
    _arg: *mut c_void,
) {
    // Set by COMMIT only, and the invalidations are sent before locks are released.
    if phase == pg_sys::ResourceReleasePhase::RESOURCE_RELEASE_AFTER_LOCKS && TELL.replace(false) {
        wake::forbid_and_wake_worker();
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
