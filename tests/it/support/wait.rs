//! Waiting for a condition instead of sleeping.

use std::thread;
use std::time::{Duration, Instant};

/// Short against everything that is waited for, long against the cost of a look.
const POLL_EVERY: Duration = Duration::from_millis(5);

/// Every sleep ends a little late.
const USUALLY_LATE: Duration = Duration::from_millis(1);

/// Looks until `look` succeeds and returns what it found. After `limit` it
/// panics with `what` was waited for and what the last look saw instead.
pub fn wait_until<T>(limit: Duration, what: &str, look: impl FnMut() -> Result<T, String>) -> T {
    try_until(limit, look).unwrap_or_else(|seen| panic!("{}", failure(limit, what, &seen)))
}

/// The same without the panic: the error is what the last look saw. Time in which the machine
/// did not let us look does not count.
pub fn try_until<T>(
    limit: Duration,
    mut look: impl FnMut() -> Result<T, String>,
) -> Result<T, String> {
    let (started, mut stood_still) = (Instant::now(), Duration::ZERO);
    loop {
        let over = started.elapsed().saturating_sub(stood_still) >= limit;
        match look() {
            Ok(found) => return Ok(found),
            Err(seen) if over => return Err(seen),
            Err(_) => {}
        }
        let slept = Instant::now();
        thread::sleep(POLL_EVERY);
        stood_still += slept.elapsed().saturating_sub(POLL_EVERY + USUALLY_LATE);
    }
}

pub fn failure(limit: Duration, what: &str, seen: &str) -> String {
    format!("waited {limit:?} for {what}; last seen: {seen}")
}
