//! What the postmaster is told of our background workers.
//!
//! A worker per database, registered by the first session that finds none; and, where the library is
//! preloaded, one launcher that registers them all when the server starts.

use std::cell::Cell;
use std::ffi::{c_char, c_int, CStr};
use std::ptr;
use std::time::Instant;

use pgrx::pg_sys;

/// `bgw_type`: what pg_stat_activity shows, and how backends recognise the worker.
pub const WORKER_TYPE: &CStr = c"webhook_ext";
pub(super) const LAUNCHER_TYPE: &CStr = c"webhook_ext launcher";

/// After pg_terminate_backend or a crash of the cluster a process comes back this
/// soon. Short, because nothing is delivered meanwhile.
const RESTART_SECONDS: c_int = 1;

/// Beside the oid in a worker's argument: the launcher registered it.
const BY_LAUNCHER: u64 = 1 << 32;

thread_local! {
    static LAST_ATTEMPT: Cell<Option<(Instant, bool)>> = const { Cell::new(None) };
}

/// What a worker is told when it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assignment {
    pub database: pg_sys::Oid,
    /// Not known to be needed.
    pub by_launcher: bool,
}

impl Assignment {
    pub fn from_argument(argument: pg_sys::Datum) -> Self {
        let value = argument.value() as u64;
        Self {
            database: pg_sys::Oid::from(value as u32),
            by_launcher: value & BY_LAUNCHER != 0,
        }
    }

    fn argument(self) -> pg_sys::Datum {
        let flag = if self.by_launcher { BY_LAUNCHER } else { 0 };
        pg_sys::Datum::from(u64::from(self.database.to_u32()) | flag)
    }
}

/// A worker that was registered; good for the process that did so.
#[derive(Debug)]
pub struct Registered(*mut pg_sys::BackgroundWorkerHandle);

impl Registered {
    /// Whether it has ended for good.
    pub fn has_ended(&self) -> bool {
        let mut pid = 0;
        // SAFETY: the handle lives in TopMemoryContext as long as the process.
        let status = unsafe { pg_sys::GetBackgroundWorkerPid(self.0, &raw mut pid) };
        status == pg_sys::BgwHandleStatus::BGWH_STOPPED
    }
}

/// The last attempt of this session to have a worker started: when, and whether there was a slot.
pub fn last_attempt() -> Option<(Instant, bool)> {
    LAST_ATTEMPT.get()
}

/// Registers a worker for this database. Errors are left to the caller: `false`
/// means that no slot is free (max_worker_processes).
pub fn register_worker() -> bool {
    // SAFETY: reads the database this process is connected to.
    let database = unsafe { pg_sys::MyDatabaseId };
    let mut worker = worker_for(Assignment {
        database,
        by_launcher: false,
    });
    // SAFETY: the struct is filled; no process waits for the worker.
    let is_registered =
        unsafe { pg_sys::RegisterDynamicBackgroundWorker(&raw mut worker, ptr::null_mut()) };
    LAST_ATTEMPT.set(Some((Instant::now(), is_registered)));
    is_registered
}

/// Registers a worker for another database, which leaves at once where there is no
/// extension. `None`: no slot is free.
pub fn register_worker_of(database: pg_sys::Oid) -> Option<Registered> {
    let mut worker = worker_for(Assignment {
        database,
        by_launcher: true,
    });
    let mut handle = ptr::null_mut();
    // SAFETY: the struct is filled; the handle is allocated where it stays.
    let registered = unsafe {
        let before = pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext);
        let registered = pg_sys::RegisterDynamicBackgroundWorker(&raw mut worker, &raw mut handle);
        pg_sys::MemoryContextSwitchTo(before);
        registered
    };
    registered.then_some(Registered(handle))
}

/// Registers the launcher. Has an effect only while the postmaster preloads.
pub fn register_launcher() {
    let mut launcher = process(
        "webhook_ext launcher",
        LAUNCHER_TYPE,
        "webhook_launcher_main",
        pg_sys::Datum::from(0usize),
    );
    // SAFETY: the struct is filled; it is copied.
    unsafe { pg_sys::RegisterBackgroundWorker(&raw mut launcher) }
}

/// Whether the postmaster loads us from shared_preload_libraries, for real work.
pub fn is_preloading() -> bool {
    // SAFETY: two flags of this process. under pg_upgrade no process may write.
    unsafe { pg_sys::process_shared_preload_libraries_in_progress && !pg_sys::IsBinaryUpgrade }
}

fn worker_for(assignment: Assignment) -> pg_sys::BackgroundWorker {
    process(
        &format!(
            "webhook_ext worker of database {}",
            assignment.database.to_u32()
        ),
        WORKER_TYPE,
        "webhook_worker_main",
        assignment.argument(),
    )
}

fn process(
    name: &str,
    kind: &CStr,
    function: &str,
    argument: pg_sys::Datum,
) -> pg_sys::BackgroundWorker {
    // SAFETY: plain data, for which zero is a value.
    let mut process: pg_sys::BackgroundWorker = unsafe { std::mem::zeroed() };
    write_name(&mut process.bgw_name, name);
    write_name(&mut process.bgw_type, &kind.to_string_lossy());
    write_name(&mut process.bgw_library_name, "webhook_ext");
    write_name(&mut process.bgw_function_name, function);
    process.bgw_flags =
        (pg_sys::BGWORKER_SHMEM_ACCESS | pg_sys::BGWORKER_BACKEND_DATABASE_CONNECTION) as c_int;
    // On a standby that is after its promotion.
    process.bgw_start_time = pg_sys::BgWorkerStartTime::BgWorkerStart_RecoveryFinished;
    process.bgw_restart_time = RESTART_SECONDS;
    process.bgw_main_arg = argument;
    process
}

fn write_name<const N: usize>(field: &mut [c_char; N], text: &str) {
    for (to, from) in field.iter_mut().zip(text.bytes().take(N - 1)) {
        *to = from as c_char;
    }
}
