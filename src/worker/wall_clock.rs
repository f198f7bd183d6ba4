//! The wall clock may be set back while messages wait for a retry.
//!
//! When a retry is due is written by the wall clock, because it must outlive the worker. One
//! that was written while the clock was ahead would wait as much longer as the clock went back.
//! Such a row says so itself: it was changed in the future. It is due its own delay after the
//! step was noticed. If that cannot be written, it is tried again.

use std::time::{Duration, Instant};

use super::engine::Engine;
use super::locks::Work;
use super::time::Ticker;
use crate::pg::{clock, invalidation, tx};

/// Less makes no retry wait for long.
const LEAST_STEP_MICROS: i64 = 1_000_000;
/// So many retries are put right in one transaction: it must stay short.
const RETRIES_A_TURN: i64 = 5_000;
/// After an error it is tried again after this.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// See the module.
pub struct WallClock {
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

impl Engine {
    /// Has retries come as soon as they were meant to. Opens a transaction of its own if the
    /// clock was set back.
    pub fn mind_the_wall_clock(&mut self) {
        self.wall_clock.look(self.ticker);
        let Some(now) = self.wall_clock.set_back_at else {
            return;
        };
        let may_try = self.locks.may_try(Work::WallClock, self.ticker.now());
        if !may_try || Instant::now() < self.wall_clock.not_before {
            return;
        }
        match tx::transaction(|| self.stores.settlement.bring_forward(now, RETRIES_A_TURN)) {
            Ok(count) => {
                self.locks.succeeded(Work::WallClock);
                if count < RETRIES_A_TURN.unsigned_abs() {
                    self.wall_clock.set_back_at = None;
                }
                if count > 0 {
                    // What lanes know of their retries is read anew, and at once.
                    invalidation::mark_stale();
                }
            }
            Err(failure) if failure.is_lock_not_available() => {
                self.locks.failed(Work::WallClock, self.ticker.now());
            }
            Err(failure) => {
                pgrx::warning!(
                    "could not bring retries forward after the clock was set back: {}",
                    failure.message
                );
                self.wall_clock.not_before = Instant::now() + TRY_AGAIN;
            }
        }
    }

    /// What failed before the clock was set back and is written only now.
    pub fn mind_what_is_unwritten(&mut self) {
        let now = clock::now();
        let schedule = &self.settings.retry_schedule;
        for settled in self.settlement.unwritten() {
            let longest = schedule.delay(settled.attempts, u64::MAX);
            let longest = longest.max(settled.outcome.retry_after.unwrap_or_default());
            let longest = i64::try_from(longest.as_micros()).unwrap_or(i64::MAX / 4);
            settled.next_at = settled.next_at.map(|at| at.min(now + longest));
        }
    }
}
