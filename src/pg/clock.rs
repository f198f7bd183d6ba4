//! PostgreSQL's clock.

use pgrx::pg_sys;

/// Now, in microseconds since 2000-01-01 UTC (the scale of timestamptz).
pub fn now() -> i64 {
    // SAFETY: reads the system clock.
    unsafe { pg_sys::GetCurrentTimestamp() }
}
