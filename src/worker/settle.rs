//! Writes what is known and not yet written (`unsettled`).
//!
//! Together, at most a thousand outcomes or five milliseconds late, in one transaction.

use std::sync::Arc;

use super::engine::Engine;
use crate::core::lane::Hold;
use crate::core::position::Position;
use crate::pg::tx;
use crate::store::ledger::LedgerRow;

/// After a failed write (a full disk, say) the next try comes after this.
const WRITE_AGAIN_NANOS: u64 = 1_000_000_000;
/// Not more than ten ticks a second.
const TICK_EVERY_NANOS: u64 = 100_000_000;

impl Engine {
    /// A URL whose receiver wants no more gets no more, though it is not written yet.
    pub fn hold_gone(&mut self) {
        for url_key in &self.settlement.gone {
            let Some(lane) = self.lanes.get_mut(url_key) else {
                continue;
            };
            if lane.hold != Some(Hold::Disabled) {
                lane.hold = Some(Hold::Disabled);
                lane.dirty = true;
            }
        }
    }

    /// Writes what is due. Opens a transaction of its own.
    pub fn settle_if_due(&mut self) {
        let now = self.ticker.now();
        if self.settlement.is_due(now) {
            self.settle();
        }
        if self.settlement.fold_is_due(now) {
            self.fold();
        }
    }

    /// Writes everything that is known.
    pub fn settle(&mut self) {
        for lane in self.lanes.values_mut() {
            lane.begin_settling();
        }
        self.mind_what_is_unwritten();
        let now = self.ticker.now();
        match tx::transaction(|| self.write_settlement(now)) {
            Ok(written) => self.after_settlement(written, now),
            Err(failure) => {
                pgrx::warning!("could not write what was delivered: {}", failure.message);
                for lane in self.lanes.values_mut() {
                    lane.settling_failed();
                }
                self.settlement.not_before = now + WRITE_AGAIN_NANOS;
            }
        }
    }

    fn write_settlement(&self, now: u64) -> Written {
        let settlement = &self.settlement;
        self.stores
            .settlement
            .log_calls(self.upkeep.log_number, &self.call_rows());
        self.stores.settlement.park(&self.retry_rows());
        self.stores.settlement.park(&settlement.withdrawn);
        for standpoint in self.withdrawals.noted() {
            self.stores.withdrawals.note(standpoint);
        }
        self.stores.settlement.delivered(&self.delivered_retries());
        self.disable_gone();
        let tick = self.store_tick_if_due(now);
        let position = self.tail.durable_position(tick);
        let lanes = self.dirty_lanes(now);
        let entries = settlement.counts.len() + settlement.backlog.len() + lanes.len() + 1;
        self.stores.ledger.append(&LedgerRow {
            seq: settlement.seq + 1,
            tail: &position,
            counts: &self.settlement.counts_json(),
            backlog: &self.settlement.backlog_json(),
            lanes: &serde_json::to_string(&lanes).unwrap_or_else(|_| "[]".to_owned()),
        });
        Written {
            tick,
            position,
            entries,
            lanes: lanes.len(),
        }
    }

    fn after_settlement(&mut self, written: Written, now: u64) {
        for lane in self.lanes.values_mut() {
            lane.settled();
        }
        self.learn_next_retry();
        let gone = !self.settlement.gone.is_empty();
        self.settlement.gone.clear();
        for settled in &self.settlement.outcomes {
            self.withdrawals.forget(settled.url_key, settled.at);
        }
        self.withdrawals.settled();
        self.settlement.withdrawn.clear();
        self.settlement.outcomes.clear();
        self.settlement.counts.clear();
        self.settlement.backlog.clear();
        self.settlement.waiting_since = None;
        self.settlement.changed_lanes = written.lanes as u64;
        self.settlement.seq += 1;
        self.settlement.unfolded += written.entries;
        self.settlement.unfolded_since.get_or_insert(now);
        if let Some(tick) = written.tick {
            self.tail.last_tick = tick;
            self.tail.last_tick_snapshot = Some(Arc::clone(&written.position.window.to));
            self.tail.ticked_at = now;
            self.tail.seen.clear();
            self.tail.seen_everything = false;
        }
        self.tail.position = written.position;
        if gone {
            crate::pg::invalidation::mark_stale();
        }
        self.forget_retired();
        self.upkeep_soon();
    }

    fn learn_next_retry(&mut self) {
        let soonest = self
            .settlement
            .outcomes
            .iter()
            .filter_map(|settled| settled.next_at)
            .min();
        if let Some(at) = soonest {
            self.next_retry_at = Some(self.next_retry_at.map_or(at, |known| known.min(at)));
        }
    }

    fn fold(&mut self) {
        let oldest_tick = self
            .lanes
            .values()
            .filter_map(|lane| lane.durable().position)
            .map(|position| position.window.tick)
            .min()
            .unwrap_or(self.tail.last_tick);
        let seq = self.settlement.seq;
        match tx::transaction(|| self.stores.ledger.fold(seq, oldest_tick)) {
            Ok(()) => {
                self.settlement.unfolded = 0;
                self.settlement.unfolded_since = None;
            }
            Err(failure) => {
                pgrx::warning!("could not fold the webhook ledger: {}", failure.message);
                self.settlement.unfolded_since = Some(self.ticker.now());
                self.settlement.unfolded = 0;
            }
        }
    }

    /// A tick is worth storing only while somebody lags, and only between two windows.
    fn store_tick_if_due(&self, now: u64) -> Option<i64> {
        let tail = &self.tail;
        let due = tail.position.window_is_done()
            && (tail.seen_everything || !tail.seen.is_empty())
            && now.saturating_sub(tail.ticked_at) >= TICK_EVERY_NANOS
            && self.any_lagging();
        due.then(|| {
            let tick = tail.last_tick + 1;
            let webhooks: Vec<i32> = if tail.seen_everything {
                self.routes.webhooks.keys().copied().collect()
            } else {
                tail.seen.iter().copied().collect()
            };
            self.stores
                .ledger
                .store_tick(tick, &tail.position.window.to, &webhooks);
            tick
        })
    }

    fn disable_gone(&self) {
        for url_key in &self.settlement.gone {
            self.stores
                .routing
                .disable_url(*url_key, "the receiver answered 410 Gone");
        }
    }
}

/// What a settlement wrote.
struct Written {
    tick: Option<i64>,
    position: Position,
    entries: usize,
    lanes: usize,
}
