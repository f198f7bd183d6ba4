//! Signals and threads.
//!
//! PostgreSQL's handlers belong on the main thread, and its wake-up (signalfd) is
//! lost when another thread takes the signal. So every thread is born with all
//! signals blocked; what it spawns inherits that.

use std::mem::MaybeUninit;

/// Runs `spawn` while this thread blocks every signal.
pub fn with_all_blocked<T>(spawn: impl FnOnce() -> T) -> T {
    let _restored_at_the_end = Blocked::new();
    spawn()
}

struct Blocked(libc::sigset_t);

impl Blocked {
    fn new() -> Self {
        let mut all = MaybeUninit::uninit();
        let mut before = MaybeUninit::uninit();
        // SAFETY: both sets are written by the calls before they are read.
        unsafe {
            libc::sigfillset(all.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_BLOCK, all.as_ptr(), before.as_mut_ptr());
            Self(before.assume_init())
        }
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: the set was filled by `new`.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &self.0, std::ptr::null_mut());
        }
    }
}
