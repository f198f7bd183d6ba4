//! Starting or waking the worker once this transaction has committed.
//!
//! A worker that is started earlier would still read that it was stopped, and leave;
//! one that is woken earlier would not see what there is to do.

use std::cell::Cell;
use std::ffi::c_void;

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::{process, wake};

thread_local! {
    static REGISTERED: Cell<bool> = const { Cell::new(false) };
    static WANTED: Cell<bool> = const { Cell::new(false) };
    static WAKE: Cell<bool> = const { Cell::new(false) };
}

/// Starts a worker for this database when the transaction commits. One too many leaves
/// by itself.
pub fn start_worker_at_commit() {
    WANTED.set(true);
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
    // SAFETY: a static callback without an argument, registered once.
    unsafe { pg_sys::RegisterXactCallback(Some(on_xact), std::ptr::null_mut()) }
}

/// An error after COMMIT would take the cluster down: registering a worker fills a slot
/// in shared memory and reports with `false` that there is none. The view
/// webhook.worker then shows that nothing runs.
#[pg_guard]
unsafe extern "C-unwind" fn on_xact(event: pg_sys::XactEvent::Type, _arg: *mut c_void) {
    use pg_sys::XactEvent::*;
    match event {
        XACT_EVENT_COMMIT => {
            if WANTED.replace(false) {
                process::register_worker();
            }
            if WAKE.replace(false) {
                wake::wake_worker();
            }
        }
        XACT_EVENT_ABORT | XACT_EVENT_PREPARE => {
            WANTED.set(false);
            WAKE.set(false);
        }
        _ => {}
    }
}
