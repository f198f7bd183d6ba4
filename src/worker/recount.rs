//! Puts the count of what is pending right, where messages have gone that nobody will come to.
//!
//! The count of a URL is kept as a sum of what came and what went. A superuser who empties the
//! outbox by hand takes messages away that the lane never meets, so that they would be counted
//! for ever. What a lane at the tail has pending is in memory, and so is what any lane has
//! pending while the outbox is empty: there the sum is held against it now and then. If
//! that fails, the next look comes as usual.

use std::time::{Duration, Instant};

use super::engine::Engine;
use crate::pg::tx;
use crate::store::segments;

/// Nobody empties the outbox often, and a look costs a statement or two.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// See the module.
pub struct Recount {
    next_look: Instant,
    /// The settlement after which was looked last.
    seen: Option<i64>,
}

impl Recount {
    pub fn new() -> Self {
        Self {
            next_look: Instant::now() + LOOK_EVERY,
            seen: None,
        }
    }
}

impl Engine {
    /// Opens a transaction of its own. While nothing is settled and nobody lags, all is as
    /// it was.
    pub fn recount_if_due(&mut self) {
        let lagging = self.any_lagging();
        let news = lagging || self.recount.seen != Some(self.settlement.seq());
        if !news || Instant::now() < self.recount.next_look {
            return;
        }
        self.recount.next_look = Instant::now() + LOOK_EVERY;
        let looked = tx::transaction(|| {
            let emptied = lagging && segments::outbox_is_empty();
            (emptied, self.stores.ledger.all_pending())
        });
        match looked {
            Ok((emptied, written)) => {
                self.recount.seen = Some(self.settlement.seq());
                self.hold_against_memory(emptied, |url_key| {
                    written.get(&url_key).copied().unwrap_or(0)
                });
            }
            // Somebody has a table of the outbox locked.
            Err(failure) if failure.is_lock_not_available() => {}
            Err(failure) => {
                pgrx::warning!(
                    "could not count what webhooks have pending: {}",
                    failure.message
                );
            }
        }
    }

    /// `emptied`: what the tail has counted and is not in memory is nowhere any more.
    fn hold_against_memory(&mut self, emptied: bool, written: impl Fn(i32) -> i64) {
        let now = self.ticker.now();
        for (url_key, lane) in &self.lanes {
            if !lane.is_at_tail() && !emptied {
                continue;
            }
            let interrupted = self.interrupted.get(url_key).map_or(0, Vec::len);
            let held = lane.taken() + lane.queued() + interrupted;
            let held = i64::try_from(held).unwrap_or(i64::MAX);
            let counted = written(*url_key) + self.settlement.backlog_delta(*url_key);
            if held != counted {
                self.settlement.change_backlog(*url_key, held - counted);
                self.settlement.be_due(now);
            }
            if emptied {
                self.oldest_behind.remove(url_key);
            }
        }
    }
}
