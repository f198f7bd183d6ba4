//! Finding and waking the worker of this database from any backend.
//!
//! The worker's latch lives in its PGPROC. It is looked for once per backend and
//! then only re-checked (same process, same database), so that a COMMIT costs two
//! loads and a `SetLatch`: no lock, no NOTIFY, no shared memory of our own.

use std::cell::Cell;
use std::ffi::CStr;
use std::time::{Duration, Instant};

use pgrx::pg_sys;

use super::{recovery, registration};
use crate::core::error::{Error, Kind, Result};

/// A backend that could not start a worker does not try again sooner: a server
/// without free slots must not pay for it at every transaction.
const START_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Of a standby.
pub const CANNOT_START: &str = "cannot start the webhook worker";

#[derive(Clone, Copy)]
struct Found {
    slot: u32,
    pid: i32,
}

thread_local! {
    static FOUND: Cell<Option<Found>> = const { Cell::new(None) };
    static LAST_START: Cell<Option<Instant>> = const { Cell::new(None) };
}

fn slot(index: u32) -> *mut pg_sys::PGPROC {
    // SAFETY: the array lives in shared memory as long as the server; callers keep
    // the index below allProcCount.
    unsafe { (*pg_sys::ProcGlobal).allProcs.add(index as usize) }
}

fn is_ours(found: Found) -> bool {
    let proc = slot(found.slot);
    // SAFETY: racy reads of three words; at worst a stranger's latch is set, which
    // every process must expect. A slot keeps the id of a process that has ended, but
    // such a process has given its latch back.
    unsafe {
        (&raw const (*proc).pid).read_volatile() == found.pid
            && (&raw const (*proc).procLatch.owner_pid).read_volatile() == found.pid
            && (&raw const (*proc).databaseId).read_volatile() == pg_sys::MyDatabaseId
    }
}

fn known() -> Option<Found> {
    FOUND.get().filter(|found| is_ours(*found))
}

/// Looks at every process of this database. Takes a lock for a moment; may be
/// called anywhere but in a COMMIT callback.
fn search() -> Option<Found> {
    // SAFETY: plain reads of shared memory.
    unsafe {
        (0..(*pg_sys::ProcGlobal).allProcCount).find_map(|index| {
            let pid = (&raw const (*slot(index)).pid).read_volatile();
            let found = Found { slot: index, pid };
            if pid == 0 || pid == pg_sys::MyProcPid || !is_ours(found) {
                return None;
            }
            is_worker(pid).then_some(found)
        })
    }
}

/// Whether the process is a worker, of whatever database.
pub(super) fn is_worker(pid: i32) -> bool {
    // SAFETY: the name is a static buffer of PostgreSQL that is compared at once.
    unsafe {
        let kind = pg_sys::GetBackgroundWorkerTypeByPid(pid);
        !kind.is_null() && CStr::from_ptr(kind) == registration::WORKER_TYPE
    }
}

/// The process id of this database's worker, if one runs.
pub fn running_worker() -> Option<i32> {
    let found = known().or_else(search);
    FOUND.set(found);
    found.map(|f| f.pid)
}

/// Wakes the worker if this backend knows where it is. Safe in a COMMIT callback.
pub fn wake_worker() {
    if let Some(found) = known() {
        // SAFETY: a latch in shared memory; setting it is always allowed.
        unsafe { pg_sys::SetLatch(&raw mut (*slot(found.slot)).procLatch) }
    }
}

/// Starts a worker for this database unless one runs already.
/// `Ok(true)` if one was started.
///
/// # Errors
/// `55000` during recovery or when no worker slot is free.
pub fn start_worker() -> Result<bool> {
    if running_worker().is_some() {
        return Ok(false);
    }
    recovery::check_is_over(CANNOT_START)?;
    LAST_START.set(Some(Instant::now()));
    if registration::register_worker() {
        return Ok(true);
    }
    Err(Error::new(
        Kind::NotInPrerequisiteState,
        "cannot start the webhook worker: no background worker slot is free",
    )
    .with_hint(
        "raise max_worker_processes (each database with webhooks needs one) and restart the server",
    ))
}

/// [`start_worker`] at most once a second per backend, for callers on a hot path.
pub fn start_worker_now_and_then() -> Result<bool> {
    let too_soon = LAST_START
        .get()
        .is_some_and(|at| at.elapsed() < START_AGAIN_AFTER);
    if too_soon {
        return Ok(false);
    }
    start_worker()
}
