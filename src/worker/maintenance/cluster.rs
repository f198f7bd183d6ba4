//! On a node of a cluster: applies the definitions that came to it without firing a trigger.
//!
//! A node that is added gets them with a copy of the coordinator's table, and its worker starts when
//! the extension is created there. What was written while a node was away comes the same way.

use std::time::{Duration, Instant};

use crate::core::policy::throttle::Part;
use crate::pg::tx;
use crate::store::citus;
use crate::worker::locks::{Locks, Work};
use crate::worker::time::Ticker;

/// Between two looks, and most that a node goes on with an old part of the rates.
const PAUSE: Duration = Duration::from_secs(1);
/// The same where there is no Citus, which may come.
const LONG_PAUSE: Duration = Duration::from_secs(60);
/// Between two pages, so that messages are sent in between.
const NEXT_PAGE: Duration = Duration::from_millis(10);

/// See the module.
pub(super) struct ClusterDefinitions {
    /// Citus is installed, as of the last look.
    is_here: bool,
    next_look: Instant,
}

impl ClusterDefinitions {
    pub fn new() -> Self {
        Self {
            is_here: false,
            next_look: Instant::now(),
        }
    }

    pub fn due_in(&self) -> Duration {
        self.next_look.saturating_duration_since(Instant::now())
    }

    /// What comes next tells users of events without a table: one that was converted is found before.
    pub fn be_due(&mut self) {
        if self.is_here {
            self.next_look = Instant::now();
        }
    }

    /// Opens a transaction if it is time. Gives which part of each webhook's rate is this node's.
    pub fn look_if_due(&mut self, locks: &mut Locks, ticker: Ticker) -> Option<Part> {
        if !self.due_in().is_zero() {
            return None;
        }
        self.next_look = Instant::now() + PAUSE;
        match tx::transaction(citus::catch_up) {
            Ok(None) => {
                self.is_here = false;
                self.next_look = Instant::now() + LONG_PAUSE;
            }
            Ok(Some(found)) => {
                self.is_here = true;
                if found.more {
                    self.next_look = Instant::now() + NEXT_PAGE;
                }
                return Some(found.part);
            }
            Err(failure) if failure.is_lock_not_available() => {
                locks.failed(Work::Definitions, ticker.now());
            }
            Err(failure) => pgrx::warning!(
                "webhook worker could not apply definitions of the cluster: {}",
                failure.message
            ),
        }
        None
    }
}
