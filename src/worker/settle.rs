//! Writes what is known and not yet written (`unsettled`).
//!
//! Together, at most a thousand outcomes or five milliseconds late, in one transaction. If a lock
//! of another session is in the way, the URLs that need it are held (`held`) and all others are
//! written without them; the tail's position and what it has counted only add rows.

use std::sync::Arc;

use super::engine::Engine;
use super::locks::Work;
use super::unsettled::{Scope, Urls};
use crate::core::lane::Hold;
use crate::core::position::Position;
use crate::pg::tx::{self, Failure};
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

    /// Writes everything that is known, but for URLs that locks keep from it.
    pub fn settle(&mut self) {
        self.adjust_lock_timeout();
        self.mind_what_is_unwritten();
        let now = self.ticker.now();
        let aside = self.set_aside(now);
        let written = self.write(&Scope {
            tail: true,
            tick: true,
            urls: Urls::AllBut(&aside),
        });
        let is_written = match written {
            Ok(()) => true,
            Err(failure) if failure.is_lock_not_available() => self.settle_apart(&aside, now),
            Err(failure) => self.writing_failed(&failure, now),
        };
        if is_written {
            self.locks.succeeded(Work::Tail);
            if self.settlement.held.due_at().is_some_and(|at| at <= now) {
                self.try_held(now);
            }
        }
        self.settlement.count_held();
    }

    /// At an orderly end: those that are held are tried once more.
    pub fn settle_at_last(&mut self) {
        self.settlement.held.be_due();
        self.settle();
    }

    pub fn writing_failed(&mut self, failure: &Failure, now: u64) -> bool {
        pgrx::warning!("could not write what was delivered: {}", failure.message);
        self.settlement.not_before = now + WRITE_AGAIN_NANOS;
        false
    }

    /// One transaction, with what follows from its success or failure.
    pub fn write(&mut self, scope: &Scope<'_>) -> Result<(), Failure> {
        let now = self.ticker.now();
        for lane in self
            .lanes
            .values_mut()
            .filter(|lane| scope.has(lane.url_key))
        {
            lane.begin_settling();
        }
        match tx::transaction(|| self.write_settlement(*scope, now)) {
            Ok(written) => {
                self.after_settlement(*scope, written, now);
                Ok(())
            }
            Err(failure) => {
                for lane in self
                    .lanes
                    .values_mut()
                    .filter(|lane| scope.has(lane.url_key))
                {
                    lane.settling_failed();
                }
                Err(failure)
            }
        }
    }

    /// What may have to wait for a lock comes first: less is to be undone then.
    fn write_settlement(&self, scope: Scope<'_>, now: u64) -> Written {
        let settlement = &self.settlement;
        let stores = &self.stores;
        stores.settlement.park(&self.retry_rows(scope));
        stores.settlement.park(
            settlement
                .withdrawn
                .iter()
                .filter(|row| scope.has(row.url_key)),
        );
        let noted = self.withdrawals.noted().iter();
        for standpoint in noted.filter(|standpoint| scope.has(standpoint.url_key)) {
            stores.withdrawals.note(standpoint);
        }
        let outdated = settlement.outdated.iter();
        for (url_key, at) in outdated.filter(|(url_key, _)| scope.has(*url_key)) {
            stores.withdrawals.forget_single(*url_key, *at);
        }
        stores.settlement.delivered(&self.delivered_retries(scope));
        self.disable_gone(scope);
        stores
            .settlement
            .log_calls(self.upkeep.log_number, &self.call_rows(scope));
        let tick = (scope.tail && scope.tick)
            .then(|| self.store_tick_if_due(now))
            .flatten();
        let position = self.tail.durable_position(tick);
        let lanes = self.dirty_lanes(scope, now);
        let (counted, counts) = settlement.counts_json(scope);
        let (changed, backlog) = settlement.backlog_json(scope);
        stores.ledger.append(&LedgerRow {
            seq: settlement.seq + 1,
            tail: &position,
            counts: &counts,
            backlog: &backlog,
            lanes: &serde_json::to_string(&lanes).unwrap_or_else(|_| "[]".to_owned()),
        });
        Written {
            tick,
            position,
            entries: counted + changed + lanes.len() + 1,
            lanes: lanes.len(),
        }
    }

    fn after_settlement(&mut self, scope: Scope<'_>, written: Written, now: u64) {
        for lane in self.lanes.values_mut() {
            if scope.has(lane.url_key) {
                lane.settled();
            } else if scope.tail {
                lane.written();
            }
        }
        self.learn_next_retry(scope);
        let gone = self
            .settlement
            .gone
            .iter()
            .any(|url_key| scope.has(*url_key));
        for settled in self.settlement.settled(scope) {
            self.withdrawals.forget(settled.url_key, settled.at);
        }
        self.withdrawals.settled(|url_key| scope.has(url_key));
        self.settlement.forget(scope);
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

    fn learn_next_retry(&mut self, scope: Scope<'_>) {
        let soonest = self
            .settlement
            .settled(scope)
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
                self.locks.succeeded(Work::Fold);
                self.settlement.unfolded = 0;
                self.settlement.unfolded_since = None;
            }
            Err(failure) if failure.is_lock_not_available() => {
                self.locks.failed(Work::Fold, self.ticker.now());
                self.settlement.fold_not_before = self.locks.next_try_of(Work::Fold).unwrap_or(0);
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

    fn disable_gone(&self, scope: Scope<'_>) {
        let gone = self.settlement.gone.iter();
        for url_key in gone.filter(|url_key| scope.has(**url_key)) {
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
