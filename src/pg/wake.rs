//! Finding and waking the worker of this database from any backend.
//!
//! The worker's latch lives in its PGPROC. It is looked for once per backend and
//! then only re-checked (same process, same database), so that a COMMIT costs two
//! loads and a `SetLatch`: no lock, no NOTIFY, no shared memory of our own.
//!
//! A latch is a signal, not a memory: a lock wait inside the worker's own transaction resets
//! it. What a commit means for the worker is therefore noted beside it ([`Notes`]).

use std::cell::Cell;
use std::ffi::CStr;
use std::mem::offset_of;
use std::sync::atomic::{AtomicU8, Ordering::SeqCst};
use std::time::{Duration, Instant};

use pgrx::pg_sys;

use super::{recovery, registration};
use crate::core::error::{Error, Kind, Result};

/// A backend that could not start a worker does not try again sooner: a server
/// without free slots must not pay for it at every transaction.
const START_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Of a standby.
pub const CANNOT_START: &str = "cannot start the webhook worker";

/// Bytes of a latch that PostgreSQL neither reads nor writes: the padding between two of its
/// fields. A library that need not be preloaded has no shared memory that a commit could
/// write to without a look-up that may fail.
const NOTES_AT: usize = offset_of!(pg_sys::Latch, is_shared) + size_of::<bool>();
const COMMITTED: usize = NOTES_AT;
const FORBIDS: usize = NOTES_AT + 1;
const ACTIVE: usize = NOTES_AT + 2;
const _: () = assert!(ACTIVE < offset_of!(pg_sys::Latch, owner_pid));

/// What sessions tell the worker of what they have committed. Each is set before the latch.
#[derive(Clone, Copy)]
pub struct Notes {
    committed: &'static AtomicU8,
    forbids: &'static AtomicU8,
    /// The process is the one worker of its database, and not one that waits to become it.
    active: &'static AtomicU8,
}

impl Notes {
    /// # Safety
    /// The latch lies in shared memory.
    unsafe fn beside(latch: *mut pg_sys::Latch) -> Self {
        let latch = latch.cast::<u8>();
        // SAFETY: both bytes lie within the latch, which lives as long as the server, and
        // only this type touches them.
        unsafe {
            Self {
                committed: AtomicU8::from_ptr(latch.add(COMMITTED)),
                forbids: AtomicU8::from_ptr(latch.add(FORBIDS)),
                active: AtomicU8::from_ptr(latch.add(ACTIVE)),
            }
        }
    }

    /// Those of this process, for its main thread and any other.
    pub fn own() -> Self {
        // SAFETY: the latch of this process, which has a PGPROC.
        unsafe { Self::beside(&raw mut (*pg_sys::MyProc).procLatch) }
    }

    /// Sets whether sessions notify this process. What was committed before it says so is
    /// for it to read.
    pub fn set_active(&self, active: bool) {
        self.active.store(u8::from(active), SeqCst);
    }

    /// Whether anything was committed since [`Notes::take_committed`].
    pub fn has_committed(&self) -> bool {
        self.committed.load(SeqCst) != 0
    }

    pub fn take_committed(&self) -> bool {
        self.committed.swap(0, SeqCst) != 0
    }

    /// Whether something was committed since [`Notes::take_forbids`] that may forbid a call.
    /// True before the client of that session learns of its COMMIT.
    pub fn has_forbids(&self) -> bool {
        self.forbids.load(SeqCst) != 0
    }

    pub fn take_forbids(&self) -> bool {
        self.forbids.swap(0, SeqCst) != 0
    }
}

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

fn is_active(found: Found) -> bool {
    // SAFETY: a latch in shared memory.
    let notes = unsafe { Notes::beside(&raw mut (*slot(found.slot)).procLatch) };
    notes.active.load(SeqCst) != 0
}

fn known() -> Option<Found> {
    FOUND
        .get()
        .filter(|found| is_ours(*found) && is_active(*found))
}

/// Looks at every process of this database: the worker, else one that waits to become it.
/// Takes a lock for a moment, and raises nothing.
fn search() -> Option<Found> {
    // SAFETY: plain reads of shared memory.
    let count = unsafe { (*pg_sys::ProcGlobal).allProcCount };
    let mut waiting = None;
    for index in 0..count {
        // SAFETY: as above; the index is below the count.
        let (pid, own) = unsafe {
            (
                (&raw const (*slot(index)).pid).read_volatile(),
                pg_sys::MyProcPid,
            )
        };
        let found = Found { slot: index, pid };
        if pid == 0 || pid == own || !is_ours(found) || !is_worker(pid) {
            continue;
        }
        if is_active(found) {
            return Some(found);
        }
        waiting.get_or_insert(found);
    }
    waiting
}

/// Whether the process is a worker, of whatever database.
pub(super) fn is_worker(pid: i32) -> bool {
    is_of_type(pid, registration::WORKER_TYPE)
}

fn is_of_type(pid: i32, wanted: &CStr) -> bool {
    // SAFETY: the name is a static buffer of PostgreSQL that is compared at once.
    unsafe {
        let kind = pg_sys::GetBackgroundWorkerTypeByPid(pid);
        !kind.is_null() && CStr::from_ptr(kind) == wanted
    }
}

/// Whether the launcher is starting the workers of all databases.
pub fn launcher_runs() -> bool {
    // SAFETY: plain reads of shared memory; the index is below the count.
    unsafe {
        let count = (*pg_sys::ProcGlobal).allProcCount;
        (0..count)
            .map(|index| (&raw const (*slot(index)).pid).read_volatile())
            .any(|pid| pid != 0 && is_of_type(pid, registration::LAUNCHER_TYPE))
    }
}

/// The process id of this database's worker, if one runs.
pub fn running_worker() -> Option<i32> {
    let found = known().or_else(search);
    FOUND.set(found);
    found.map(|f| f.pid)
}

/// Wakes the worker, also one that was started since this backend looked for it last. Safe
/// in a COMMIT callback.
pub fn wake_worker() {
    find_and_wake(false);
}

/// Wakes the worker, which starts no further call until it has read what changed. Safe after
/// COMMIT.
pub fn forbid_and_wake_worker() {
    find_and_wake(true);
}

fn find_and_wake(forbids: bool) {
    let found = known().or_else(search);
    FOUND.set(found);
    if let Some(found) = found {
        wake(found, forbids);
    }
}

fn wake(found: Found, forbids: bool) {
    // SAFETY: a latch in shared memory; setting it is always allowed.
    unsafe {
        let latch = &raw mut (*slot(found.slot)).procLatch;
        let notes = Notes::beside(latch);
        if forbids {
            notes.forbids.store(1, SeqCst);
        }
        notes.committed.store(1, SeqCst);
        pg_sys::SetLatch(latch);
    }
}

/// Whether other sessions would find this process, if it is the worker. The postmaster may
/// need a moment to write down who it has started.
pub fn is_findable() -> bool {
    // SAFETY: reads the list of background workers under its lock.
    unsafe { !pg_sys::GetBackgroundWorkerTypeByPid(pg_sys::MyProcPid).is_null() }
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
