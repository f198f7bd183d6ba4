//! What the worker sleeps on: its latch, a wakeup from other threads, a timer.
//!
//! Threads must not touch PostgreSQL, so they ring by writing to a socket. If the
//! postmaster dies while we sleep, PostgreSQL ends the process here.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use pgrx::pg_sys;

/// What ended a sleep.
#[derive(Clone, Copy, Debug, Default)]
pub struct Woken {
    /// A COMMIT with messages, a signal or a reload.
    pub by_latch: bool,
    /// A delivery thread has an outcome.
    pub by_wakeup: bool,
}

/// The wait set of the worker's main thread.
pub struct Waiter {
    set: *mut pg_sys::WaitEventSet,
    wakeups: UnixStream,
}

/// The receiving end, and what other threads call to wake the worker; a call never blocks or fails.
pub fn wakeup_pipe() -> std::io::Result<(Arc<dyn Fn() + Send + Sync>, UnixStream)> {
    let (ringer, listener) = UnixStream::pair()?;
    ringer.set_nonblocking(true)?;
    listener.set_nonblocking(true)?;
    // A full pipe means that a wakeup is pending already.
    let ring = move || {
        let _ = (&ringer).write(&[1]);
    };
    Ok((Arc::new(ring), listener))
}

impl Waiter {
    pub fn new(wakeups: UnixStream) -> Self {
        // SAFETY: the set lives as long as the process; the latch and the socket
        // outlive it.
        let set = unsafe {
            let set = create_wait_event_set(3);
            pg_sys::AddWaitEventToSet(
                set,
                pg_sys::WL_LATCH_SET,
                pg_sys::PGINVALID_SOCKET,
                pg_sys::MyLatch,
                std::ptr::null_mut(),
            );
            pg_sys::AddWaitEventToSet(
                set,
                pg_sys::WL_EXIT_ON_PM_DEATH,
                pg_sys::PGINVALID_SOCKET,
                std::ptr::null_mut(),
                std::ptr::null_mut(),
            );
            pg_sys::AddWaitEventToSet(
                set,
                pg_sys::WL_SOCKET_READABLE,
                wakeups.as_raw_fd(),
                std::ptr::null_mut(),
                std::ptr::null_mut(),
            );
            set
        };
        Self { set, wakeups }
    }

    /// Sleeps until something happens or `limit` is over, then handles interrupts.
    pub fn wait(&mut self, limit: Duration) -> Woken {
        let timeout_ms = limit.as_micros().div_ceil(1000) as std::ffi::c_long;
        let mut woken = Woken::default();
        // SAFETY: `events` has room for as many events as are asked for.
        unsafe {
            let mut events: [pg_sys::WaitEvent; 3] = std::mem::zeroed();
            let count = pg_sys::WaitEventSetWait(
                self.set,
                timeout_ms,
                events.as_mut_ptr(),
                events.len() as i32,
                pg_sys::PG_WAIT_EXTENSION,
            );
            for event in &events[..count.max(0) as usize] {
                woken.by_latch |= event.events & pg_sys::WL_LATCH_SET != 0;
                woken.by_wakeup |= event.events & pg_sys::WL_SOCKET_READABLE != 0;
            }
            if woken.by_latch {
                pg_sys::ResetLatch(pg_sys::MyLatch);
            }
            pgrx::check_for_interrupts!();
        }
        if woken.by_wakeup {
            self.silence();
        }
        woken
    }

    fn silence(&mut self) {
        let mut sink = [0; 256];
        loop {
            match self.wakeups.read(&mut sink) {
                Ok(n) if n == sink.len() => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                _ => return,
            }
        }
    }
}

#[cfg(any(feature = "pg15", feature = "pg16"))]
unsafe fn create_wait_event_set(events: i32) -> *mut pg_sys::WaitEventSet {
    // SAFETY: the caller keeps the set; it is allocated where nothing is reset.
    unsafe { pg_sys::CreateWaitEventSet(pg_sys::TopMemoryContext, events) }
}

#[cfg(any(feature = "pg17", feature = "pg18"))]
unsafe fn create_wait_event_set(events: i32) -> *mut pg_sys::WaitEventSet {
    // SAFETY: no resource owner: the set lives as long as the process.
    unsafe { pg_sys::CreateWaitEventSet(std::ptr::null_mut(), events) }
}
