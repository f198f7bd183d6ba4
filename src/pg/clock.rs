//! PostgreSQL's clock.

extern "C" {
    // utils/timestamp.h. Raises nothing, so it needs no guard, which would cost a captured row
    // more than the call itself.
    fn GetCurrentTimestamp() -> i64;
}

/// Now, in microseconds since 2000-01-01 UTC (the scale of timestamptz).
pub fn now() -> i64 {
    // SAFETY: reads the system clock.
    unsafe { GetCurrentTimestamp() }
}
