//! The worker as a PostgreSQL process: connection, signals, how it ends.
//!
//! Exit status 0 unregisters a worker, 1 has it restarted after a while (see
//! [`super::registration`]); anything else restarts the whole cluster.

use std::cell::Cell;
use std::ffi::{c_int, CStr, CString};

use pgrx::pg_sys;
#[cfg(not(feature = "pg18"))]
use pgrx::pg_sys::pqsignal;
// A macro leads to this name from version 18 on.
#[cfg(feature = "pg18")]
use pgrx::pg_sys::pqsignal_be as pqsignal;
use pgrx::prelude::*;

use super::wake;

/// First key of the advisory lock that the only worker of a database holds ("webh").
const WORKER_LOCK_CLASS: u32 = 0x7765_6268;

/// Functions of SQL take advisory locks of the kinds 1 and 2: this one only a worker can hold.
const WORKER_LOCK_KIND: u16 = 3;
/// What a worker holds that waits to become the only one.
const WAITING_LOCK_KIND: u16 = 4;
/// What a worker of 0.1.0 holds, as pg_advisory_lock(int, int) does.
const FIRST_RELEASE_LOCK_KIND: u16 = 2;

extern "C-unwind" {
    // postmaster/interrupt.h. Only flags and the latch: as handlers they are
    // installed as they are, without pgrx's wrapper around them.
    fn SignalHandlerForConfigReload(signal: c_int);
    fn SignalHandlerForShutdownRequest(signal: c_int);
}

thread_local! {
    static CONNECTED: Cell<bool> = const { Cell::new(false) };
}

/// First steps of the worker: signals and connection.
///
/// A database that is gone ends the process with status 0, so that the postmaster
/// does not try again without end.
pub fn connect(database: pg_sys::Oid) {
    // SAFETY: called once, first thing in the worker's main function.
    unsafe {
        pg_sys::on_proc_exit(Some(forget_if_never_connected), pg_sys::Datum::from(0usize));
        take_signals();
        pg_sys::BackgroundWorkerInitializeConnectionByOid(database, pg_sys::InvalidOid, 0);
    }
    CONNECTED.set(true);
}

/// First steps of the launcher: it sees what all databases share, and no database.
pub fn connect_to_shared_catalogs() {
    // SAFETY: called once, first thing in the launcher's main function.
    unsafe {
        take_signals();
        pg_sys::BackgroundWorkerInitializeConnection(std::ptr::null(), std::ptr::null(), 0);
    }
}

/// # Safety
/// At the start of a background worker, which begins with its signals blocked.
unsafe fn take_signals() {
    // SAFETY: as the caller promises; the handlers set flags and the latch.
    unsafe {
        pqsignal(pg_sys::SIGHUP as c_int, Some(SignalHandlerForConfigReload));
        pqsignal(
            pg_sys::SIGTERM as c_int,
            Some(SignalHandlerForShutdownRequest),
        );
        pg_sys::BackgroundWorkerUnblockSignals();
        // PostgreSQL drops a SIGHUP that comes between its fork of us and here.
        (&raw mut pg_sys::ConfigReloadPending).write_volatile(1);
    }
}

/// PostgreSQL calls exit callbacks again from where it was when one of them exits.
#[pg_guard]
unsafe extern "C-unwind" fn forget_if_never_connected(code: c_int, _arg: pg_sys::Datum) {
    if code == 1 && !CONNECTED.get() {
        // SAFETY: we are inside proc_exit; a nested call goes on with the callbacks
        // that are left and exits with the new status.
        unsafe { pg_sys::proc_exit(0) }
    }
}

/// Ends the worker for good: the postmaster forgets it.
pub fn exit_for_good() -> ! {
    exit(0)
}

/// Ends the worker; the postmaster starts it again unless it is shutting down.
pub fn exit_to_be_restarted() -> ! {
    exit(1)
}

// The headers of version 18 say that proc_exit never returns in a way that the bindings miss.
#[allow(unreachable_code)]
fn exit(status: c_int) -> ! {
    // SAFETY: regular end of a process, all callbacks run.
    unsafe { pg_sys::proc_exit(status) };
    unreachable!("proc_exit does not return")
}

/// SIGTERM has come: fast shutdown, pg_terminate_backend, DROP DATABASE … FORCE.
/// Whether this process is a worker.
pub fn is_worker() -> bool {
    // SAFETY: a number that was set when the process started.
    wake::is_worker(unsafe { pg_sys::MyProcPid })
}

pub fn shutdown_requested() -> bool {
    // SAFETY: a flag that only the signal handler sets.
    unsafe { (&raw const pg_sys::ShutdownRequestPending).read_volatile() != 0 }
}

/// Reloads the configuration if SIGHUP has come; `true` if it did.
pub fn reload_if_requested() -> bool {
    // SAFETY: the flag is set by the signal handler only and reset here, before the
    // reload, so that a signal in between is not lost.
    unsafe {
        let pending = &raw mut pg_sys::ConfigReloadPending;
        if pending.read_volatile() == 0 {
            return false;
        }
        pending.write_volatile(0);
        pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP);
        true
    }
}

/// Another session needs exclusive access to the database: DROP DATABASE, or CREATE DATABASE with
/// it as the template. They wait at most 5 s for us to leave.
pub fn database_is_wanted() -> bool {
    // SAFETY: the tag is the one that both commands lock.
    let tag = unsafe {
        pg_sys::LOCKTAG {
            locktag_field1: 0,
            locktag_field2: pg_sys::DatabaseRelationId.to_u32(),
            locktag_field3: pg_sys::MyDatabaseId.to_u32(),
            locktag_field4: 0,
            locktag_type: pg_sys::LockTagType::LOCKTAG_OBJECT as u8,
            locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
        }
    };
    !try_lock(&tag, pg_sys::RowExclusiveLock, false)
}

/// Takes a lock if it is free, in a transaction without any statement: the lock
/// goes with it unless it is the session's.
fn try_lock(tag: &pg_sys::LOCKTAG, mode: u32, for_session: bool) -> bool {
    // SAFETY: called outside a transaction.
    unsafe {
        pg_sys::StartTransactionCommand();
        let result = pg_sys::LockAcquire(tag, mode as c_int, for_session, true);
        pg_sys::CommitTransactionCommand();
        result != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL
    }
}

/// Takes the lock that makes a worker the only one of its database; held until
/// the process ends.
pub fn become_the_only_worker() -> bool {
    #[cfg(feature = "fault_injection")]
    if super::fault::is_set("first_release_lock") {
        let tag = worker_lock(FIRST_RELEASE_LOCK_KIND);
        return try_lock(&tag, pg_sys::ExclusiveLock, true);
    }
    // Once it has the lock, it stays the only one of its kind while it waits for an older one.
    let tag = worker_lock(WORKER_LOCK_KIND);
    try_lock(&tag, pg_sys::ExclusiveLock, true) && !first_release_worker_runs()
}

/// Takes the lock that makes a process the only one that waits for the worker to end.
pub fn become_the_only_one_that_waits() -> bool {
    try_lock(&worker_lock(WAITING_LOCK_KIND), pg_sys::ExclusiveLock, true)
}

/// Gives that lock back.
pub fn let_another_one_wait() {
    // SAFETY: the lock is the session's, which took it before; it is released in a transaction
    // without any statement.
    unsafe {
        pg_sys::StartTransactionCommand();
        pg_sys::LockRelease(
            &worker_lock(WAITING_LOCK_KIND),
            pg_sys::ExclusiveLock as c_int,
            true,
        );
        pg_sys::CommitTransactionCommand();
    }
}

fn worker_lock(kind: u16) -> pg_sys::LOCKTAG {
    pg_sys::LOCKTAG {
        // SAFETY: reads the database this process is connected to.
        locktag_field1: unsafe { pg_sys::MyDatabaseId.to_u32() },
        locktag_field2: WORKER_LOCK_CLASS,
        locktag_field3: 1,
        locktag_field4: kind,
        locktag_type: pg_sys::LockTagType::LOCKTAG_ADVISORY as u8,
        locktag_lockmethodid: pg_sys::USER_LOCKMETHOD as u8,
    }
}

/// Whether a worker with the library of 0.1.0 runs in this database: it holds a lock that
/// any session can take, so that the holder has to be a worker.
fn first_release_worker_runs() -> bool {
    let tag = worker_lock(FIRST_RELEASE_LOCK_KIND);
    let is_it = |lock: &pg_sys::LockInstanceData| {
        let same = lock.locktag.locktag_field1 == tag.locktag_field1
            && lock.locktag.locktag_field2 == tag.locktag_field2
            && lock.locktag.locktag_field3 == tag.locktag_field3
            && lock.locktag.locktag_field4 == tag.locktag_field4
            && lock.locktag.locktag_type == tag.locktag_type
            && lock.locktag.locktag_lockmethodid == tag.locktag_lockmethodid;
        same && lock.holdMask != 0 && wake::is_worker(lock.pid)
    };
    // SAFETY: a copy of the lock table, allocated where the process may leave it; the array has
    // as many elements as it says.
    unsafe {
        let data = pg_sys::GetLockStatusData();
        let count = (*data).nelements as usize;
        let found = (0..count).any(|place| is_it(&*(*data).locks.add(place)));
        pg_sys::pfree((*data).locks.cast());
        pg_sys::pfree(data.cast());
        found
    }
}

/// In the worker's activity text: what follows says what holds it up.
pub const DETAIL_MARK: &str = "; detail: ";

/// What pg_stat_activity shows of the worker.
pub fn report_activity(text: &str, running: bool) {
    let state = if running {
        pg_sys::BackendState::STATE_RUNNING
    } else {
        pg_sys::BackendState::STATE_IDLE
    };
    let text = CString::new(text.replace('\0', " ")).unwrap_or_default();
    // SAFETY: the text is NUL-terminated and copied.
    unsafe { pg_sys::pgstat_report_activity(state, text.as_ptr()) }
}

/// The port this server listens on: no webhook may call it.
pub fn server_port() -> u16 {
    // SAFETY: a setting that is fixed when the server starts.
    u16::try_from(unsafe { pg_sys::PostPortNumber }).unwrap_or(0)
}

/// Sets a setting for this process. A setting that this PostgreSQL does not know is
/// a mistake of the extension and raises its own error.
pub fn set_session(name: &CStr, value: &CStr) {
    // SAFETY: both strings are NUL-terminated; the worker is a superuser's session.
    unsafe {
        pg_sys::SetConfigOption(
            name.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_SUSET,
            pg_sys::GucSource::PGC_S_SESSION,
        );
    }
}

/// A database may set `session_authorization` for everybody who connects: the worker stays who
/// it was started as.
pub fn be_who_we_are() {
    // SAFETY: in a transaction of its own, which the look-up of the name needs; a superuser may
    // always become who it was authenticated as.
    unsafe {
        pg_sys::StartTransactionCommand();
        let name = pg_sys::GetUserNameFromId(pg_sys::GetAuthenticatedUserId(), false);
        set_session(c"session_authorization", CStr::from_ptr(name));
        pg_sys::CommitTransactionCommand();
    }
}

/// Sleeps; a signal or the postmaster's death ends it.
pub fn sleep(duration: std::time::Duration) {
    let timeout_ms = duration.as_millis() as std::ffi::c_long;
    // SAFETY: waits on this process's own latch.
    unsafe {
        pg_sys::WaitLatch(
            pg_sys::MyLatch,
            (pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH) as c_int,
            timeout_ms,
            pg_sys::PG_WAIT_EXTENSION,
        );
        pg_sys::ResetLatch(pg_sys::MyLatch);
    }
    pgrx::check_for_interrupts!();
}
