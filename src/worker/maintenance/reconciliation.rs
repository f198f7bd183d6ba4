//! Reconciles pending counts after outbox rows vanish.
//!
//! The count of a URL is kept as a sum of what came and what went. A superuser who empties the
//! outbox by hand takes messages away that the lane never meets, so that they would be counted
//! for ever. What a lane at the tail has pending is in memory, and so is what any lane has
//! pending while the outbox is empty: there the sum is compared with it now and then. If that
//! fails, the next look comes as usual.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::pg::tx;
use crate::store::segments;
use crate::store::settlement_log::SettlementLog;

/// Nobody empties the outbox often, and a look costs a statement or two.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// See the module.
pub(super) struct Reconciliation {
    log: SettlementLog,
    next_look: Instant,
    /// The settlement after which was looked last.
    seen: Option<i64>,
}

/// What is written down as pending.
pub struct Written {
    /// The outbox is empty: what is not in memory is nowhere any more.
    pub outbox_is_empty: bool,
    /// By URL, of those that have any or were counted of late.
    pub pending: HashMap<i32, i64>,
}

impl Reconciliation {
    pub fn new() -> Self {
        Self {
            log: SettlementLog::new(),
            next_look: Instant::now() + LOOK_EVERY,
            seen: None,
        }
    }

    /// Opens a transaction if it is time. While nothing is settled and nobody lags, all is as it
    /// was. `seq`: the last settlement.
    pub fn look_if_due(&mut self, any_lagging: bool, seq: i64) -> Option<Written> {
        let is_news = any_lagging || self.seen != Some(seq);
        if !is_news || Instant::now() < self.next_look {
            return None;
        }
        self.next_look = Instant::now() + LOOK_EVERY;
        let looked = tx::transaction(|| Written {
            outbox_is_empty: any_lagging && segments::outbox_is_empty(),
            pending: self.log.all_pending(),
        });
        match looked {
            Ok(written) => {
                self.seen = Some(seq);
                Some(written)
            }
            // Another session has a table of the outbox locked.
            Err(failure) if failure.is_lock_not_available() => None,
            Err(failure) => {
                pgrx::warning!(
                    "could not count what webhooks have pending: {}",
                    failure.message
                );
                None
            }
        }
    }
}
