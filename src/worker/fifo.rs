//! Retries of lanes that keep the order.
//!
//! Such a lane stands still while one of its messages waits for a retry. Which one is
//! first, and whether any waits at all, only the table knows: it is asked after each
//! settlement in which a retry of the lane ended, and whenever the definitions are read.
//! If that fails the lane stands until it succeeds.

use super::backlog::RETRY_LOOK_MICROS;
use super::engine::{Engine, MessageLane};
use crate::pg::clock;
use crate::store::settlement::{DueRetry, WaitingRetry};

/// A lane that stands still for longer gives its messages back: it reads them again.
const SHORT_WAIT_MICROS: i64 = 1_000_000;

impl Engine {
    /// Whether a lane that keeps the order has to be told what of it waits, or what waits is
    /// due.
    pub fn wants_waiting(&self, now_pg: i64) -> bool {
        self.lanes
            .values()
            .any(|lane| self.wants_waiting_of(lane, now_pg))
    }

    /// When the next of the retries is due that lanes stand still for.
    pub fn next_waiting_at(&self) -> Option<i64> {
        self.lanes
            .values()
            .filter(|lane| lane.hold.is_none() && !self.unroutable.blocks(lane.url_key))
            .filter_map(MessageLane::stands_until)
            .min()
    }

    /// Asks the table, and loads what is due and first in the order. In a transaction.
    pub fn read_waiting(&mut self) {
        let now = clock::now();
        let url_keys: Vec<i32> = self
            .lanes
            .values()
            .filter(|lane| self.wants_waiting_of(lane, now))
            .map(|lane| lane.url_key)
            .collect();
        if url_keys.is_empty() {
            return;
        }
        let mut waiting = self.stores.settlement.waiting(&url_keys);
        for row in &mut waiting {
            if !self.may_repeat(&row.retry) {
                row.next_at = row.next_at.max(now + RETRY_LOOK_MICROS);
            }
        }
        for url_key in &url_keys {
            let first = waiting.iter().find(|row| row.retry.url_key == *url_key);
            self.tell_what_waits(*url_key, first, now);
        }
        let due = first_due(&waiting, now);
        self.load_retries(due);
    }

    fn wants_waiting_of(&self, lane: &MessageLane, now_pg: i64) -> bool {
        let is_due = lane.stands_until().is_some_and(|at| at <= now_pg);
        let is_held = lane.hold.is_some() || self.unroutable.blocks(lane.url_key);
        !is_held && (lane.wants_answer() || is_due)
    }

    fn tell_what_waits(&mut self, url_key: i32, first: Option<&WaitingRetry>, now_pg: i64) {
        let Some(lane) = self.lanes.get_mut(&url_key) else {
            return;
        };
        if lane.learn_waiting(first.map(|row| row.next_at)) {
            let now = self.ticker.now();
            self.settlement.be_due(now);
        }
        // What stands still for a while must not fill the memory of the others.
        if lane
            .stands_until()
            .is_some_and(|at| at > now_pg + SHORT_WAIT_MICROS)
        {
            self.drop_queue(url_key);
        }
    }
}

/// Of each URL those that are due before the first that is not. `waiting` is sorted by URL and
/// place in the order.
fn first_due(waiting: &[WaitingRetry], now_pg: i64) -> Vec<DueRetry> {
    let mut stopped_at = None;
    let mut due = Vec::new();
    for row in waiting {
        if stopped_at == Some(row.retry.url_key) {
            continue;
        }
        if row.next_at <= now_pg {
            due.push(row.retry.clone());
        } else {
            stopped_at = Some(row.retry.url_key);
        }
    }
    due
}
