//! The wall clock may be set back while messages wait for a retry.
//!
//! When a retry is due is written by the wall clock, because it must outlive the worker. One
//! that was written while the clock was ahead would wait as much longer as the clock went back.
//! Such a row says so itself: it was changed in the future. It is due its own delay after the
//! step was noticed. If that cannot be written, it is tried again.

use std::time::{Duration, Instant};

use crate::pg::{clock, tx};
use crate::store::retries::RetryStore;
use crate::worker::locks::{Locks, Work};
use crate::worker::time::Ticker;

/// Less makes no retry wait for long.
const LEAST_STEP_MICROS: i64 = 1_000_000;
/// So many retries are put right in one transaction: it must stay short.
const RETRIES_A_TURN: i64 = 5_000;
/// After an error it is tried again after this.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct WallClock {
    /// How far it is ahead of time that only passes, in microseconds.
    ahead: i64,
    /// What the clock said when it was found to have been set back, until all is put right.
    set_back_at: Option<i64>,
    not_before: Instant,
}

impl WallClock {
    /// While nobody looked it may have been set back, too.
    pub fn new(ticker: Ticker) -> Self {
        let now = clock::now();
        Self {
            ahead: now - passed(ticker),
            set_back_at: Some(now),
            not_before: Instant::now(),
        }
    }

    fn look(&mut self, ticker: Ticker) {
        let now = clock::now();
        let ahead = now - passed(ticker);
        if ahead < self.ahead - LEAST_STEP_MICROS {
            self.set_back_at = Some(now);
        }
        self.ahead = ahead;
    }
}

fn passed(ticker: Ticker) -> i64 {
    i64::try_from(ticker.now() / 1000).unwrap_or(i64::MAX)
}

impl WallClock {
    /// Has retries come as soon as they were meant to. Opens a transaction if the clock was set
    /// back. `true` if retries have another time now.
    pub fn adjust(&mut self, retries: &RetryStore, locks: &mut Locks, ticker: Ticker) -> bool {
        self.look(ticker);
        let Some(now) = self.set_back_at else {
            return false;
        };
        if !locks.may_try(Work::WallClock, ticker.now()) || Instant::now() < self.not_before {
            return false;
        }
        match tx::transaction(|| retries.bring_forward(now, RETRIES_A_TURN)) {
            Ok(count) => {
                locks.succeeded(Work::WallClock);
                if count < RETRIES_A_TURN.unsigned_abs() {
                    self.set_back_at = None;
                }
                count > 0
            }
            Err(failure) if failure.is_lock_not_available() => {
                locks.failed(Work::WallClock, ticker.now());
                false
            }
            Err(failure) => {
                pgrx::warning!(
                    "could not bring retries forward after the clock was set back: {}",
                    failure.message
                );
                self.not_before = Instant::now() + TRY_AGAIN;
                false
            }
        }
    }
}
