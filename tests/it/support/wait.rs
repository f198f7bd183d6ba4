//! Waiting for a condition instead of sleeping.

use std::thread;
use std::time::{Duration, Instant};

/// Short against everything that is waited for, long against the cost of a look.
const POLL_EVERY: Duration = Duration::from_millis(5);

/// Looks until `look` succeeds and returns what it found. After `limit` it
/// panics with `what` was waited for and what the last look saw instead.
pub fn wait_until<T>(limit: Duration, what: &str, look: impl FnMut() -> Result<T, String>) -> T {
    try_until(limit, look).unwrap_or_else(|seen| panic!("{}", failure(limit, what, &seen)))
}

/// The same without the panic: the error is what the last look saw.
pub fn try_until<T>(
    limit: Duration,
    mut look: impl FnMut() -> Result<T, String>,
) -> Result<T, String> {
    let started = Instant::now();
    loop {
        match look() {
            Ok(found) => return Ok(found),
            Err(seen) if started.elapsed() >= limit => return Err(seen),
            Err(_) => thread::sleep(POLL_EVERY),
        }
    }
}

pub fn failure(limit: Duration, what: &str, seen: &str) -> String {
    format!("waited {limit:?} for {what}; last seen: {seen}")
}
