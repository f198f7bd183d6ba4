//! The file descriptors that the worker's threads may take.
//!
//! They compete with PostgreSQL's own files in this process, and a log segment that cannot be
//! opened stops the whole server. PostgreSQL closes files that it has not used recently before it
//! exceeds its share, so that a smaller share costs only time.

use std::cell::Cell;

use pgrx::pg_sys;

/// For whatever neither keeps to its share: pipes, wait sets, a file that is read at once.
const RESERVE: usize = 32;

/// PostgreSQL itself refuses to start with less than 48.
const SERVER_AT_LEAST: usize = 64;

thread_local! {
    /// PostgreSQL's share as it found it at its start.
    static SERVER_SHARE: Cell<Option<usize>> = const { Cell::new(None) };
}

/// How the descriptors of this process are shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptors {
    /// Of the whole process.
    pub limit: usize,
    /// Of its threads.
    pub available: usize,
}

/// Raises the limit of this process as far as `wanted` descriptors for threads need it and the
/// system allows; where that is not enough, PostgreSQL's share becomes smaller.
pub fn make_room(wanted: usize) -> Descriptors {
    let whole_share = SERVER_SHARE.get().unwrap_or_else(|| {
        // SAFETY: the postmaster has set it, and only this function writes to it.
        let found = unsafe { (&raw const pg_sys::max_safe_fds).read() };
        usize::try_from(found).unwrap_or(SERVER_AT_LEAST)
    });
    SERVER_SHARE.set(Some(whole_share));
    let needed = whole_share.saturating_add(RESERVE).saturating_add(wanted);
    let limit = raise_limit(needed);
    let share = if limit >= needed {
        whole_share
    } else {
        whole_share.min((limit / 2).max(SERVER_AT_LEAST))
    };
    // SAFETY: PostgreSQL looks at it whenever it opens a file, in this thread.
    unsafe { (&raw mut pg_sys::max_safe_fds).write(share as i32) };
    Descriptors {
        limit,
        available: limit.saturating_sub(share + RESERVE),
    }
}

/// The limit of open files of this process, raised to `needed` if that is allowed.
fn raise_limit(needed: usize) -> usize {
    let mut limits = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: reads and writes limits of this process through a local struct.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limits) != 0 {
            return 0;
        }
        let wanted = limits.rlim_max.min(needed as libc::rlim_t);
        if wanted > limits.rlim_cur {
            let raised = libc::rlimit {
                rlim_cur: wanted,
                ..limits
            };
            if libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) == 0 {
                limits = raised;
            }
        }
    }
    usize::try_from(limits.rlim_cur).unwrap_or(usize::MAX)
}
