//! Whether a process of this server is still there.

use pgrx::pg_sys;

/// Whether the backend with this process id runs. A slot keeps the id of a process that
/// has ended until the next one takes it; the list of running processes does not.
pub fn is_alive(pid: i32) -> bool {
    // SAFETY: takes a shared lock for the time of the look-up; the result is only compared.
    unsafe { !pg_sys::BackendPidGetProc(pid).is_null() }
}
