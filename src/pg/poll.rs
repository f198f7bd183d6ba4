//! Waiting in a user's session for what other processes do.

use std::time::{Duration, Instant};

use pgrx::pg_sys;

/// Asks `condition` again and again, each time under a snapshot of its own, until it
/// holds (`true`) or `limit` is over (`false`). Cancelling works at any time.
pub fn poll_until(limit: Duration, pause: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let started = Instant::now();
    loop {
        if with_latest_snapshot(&mut condition) {
            return true;
        }
        let left = limit.saturating_sub(started.elapsed());
        if left.is_zero() {
            return false;
        }
        sleep(pause.min(left));
    }
}

/// Also in a REPEATABLE READ transaction the condition sees what was committed since.
fn with_latest_snapshot(condition: &mut impl FnMut() -> bool) -> bool {
    // SAFETY: push and pop are paired; an abort pops what an error left.
    unsafe {
        pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot());
        let result = condition();
        pg_sys::PopActiveSnapshot();
        result
    }
}

fn sleep(pause: Duration) {
    let events = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
    let pause_ms = pause.as_micros().div_ceil(1000) as std::ffi::c_long;
    // SAFETY: waits on this process's own latch, as any backend may.
    unsafe {
        let woken = pg_sys::WaitLatch(
            pg_sys::MyLatch,
            events as i32,
            pause_ms,
            pg_sys::PG_WAIT_EXTENSION,
        );
        if woken as u32 & pg_sys::WL_LATCH_SET != 0 {
            pg_sys::ResetLatch(pg_sys::MyLatch);
        }
    }
    pgrx::check_for_interrupts!();
}
