//! The worker's clocks: PostgreSQL's microseconds, the system's time, and
//! nanoseconds that never step back.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub use crate::core::values::time_text::utc_text as text;

/// PostgreSQL's epoch, 2000-01-01, in Unix seconds.
const PG_EPOCH_UNIX_S: u64 = 946_684_800;

/// Microseconds since 2000-01-01 as system time; before 1970 is taken as 1970.
pub fn system_time(pg_micros: i64) -> SystemTime {
    let unix = pg_micros.saturating_add(PG_EPOCH_UNIX_S as i64 * 1_000_000);
    UNIX_EPOCH + Duration::from_micros(unix.max(0) as u64)
}

/// System time as microseconds since 2000-01-01.
pub fn pg_micros(time: SystemTime) -> i64 {
    let unix = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(unix.as_micros()).unwrap_or(i64::MAX) - PG_EPOCH_UNIX_S as i64 * 1_000_000
}

/// Nanoseconds since the worker started, for lanes and throttles.
#[derive(Clone, Copy, Debug)]
pub struct Ticker(Instant);

impl Ticker {
    pub fn start() -> Self {
        // A little past zero, so that "never" (0) lies before everything.
        Self(Instant::now() - Duration::from_secs(1))
    }

    pub fn now(self) -> u64 {
        self.at(Instant::now())
    }

    pub fn at(self, instant: Instant) -> u64 {
        let since_start = instant.saturating_duration_since(self.0);
        u64::try_from(since_start.as_nanos()).unwrap_or(u64::MAX)
    }
}
