//! What is known and not yet written: outcomes, counts, positions.
//!
//! Written together, at most a thousand outcomes or five milliseconds late, in
//! one transaction. A crash repeats what was not written, with the same ids.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use serde_json::json;
use uuid::Uuid;

use super::engine::Engine;
use super::message::Message;
use crate::core::lane::Hold;
use crate::core::position::{Coordinate, Position};
use crate::delivery::call::{Outcome, Verdict};
use crate::pg::tx;
use crate::store::ledger::LedgerRow;
use crate::store::settlement::{Parked, RetryRow};

/// So many outcomes are written at once, at most.
const OUTCOMES_A_BATCH: usize = 1000;
/// An outcome waits no longer than this for others.
const WRITE_AFTER_NANOS: u64 = 5_000_000;
/// Each lane that changed takes about this long to write down; with a thousand of them a write
/// is worth waiting for more outcomes …
const NANOS_A_LANE: u64 = 20_000;
/// … for so long at most.
const WRITE_AFTER_NANOS_AT_MOST: u64 = 20_000_000;
/// Counts alone are in less of a hurry.
const COUNT_AFTER_NANOS: u64 = 20_000_000;
/// After a failed write (a full disk, say) the next try comes after this.
const WRITE_AGAIN_NANOS: u64 = 1_000_000_000;
/// Not more than ten ticks a second.
const TICK_EVERY_NANOS: u64 = 100_000_000;
/// The ledger is folded after so many entries, so that the views stay quick …
const FOLD_AFTER_ENTRIES: usize = 5_000;
/// … or when it has been in use for so long.
const FOLD_AFTER_NANOS: u64 = 10_000_000_000;

/// A call that has ended, with what became of its message.
pub struct Settled {
    pub url_key: i32,
    pub webhook_key: i32,
    pub event_key: i32,
    pub at: Coordinate,
    pub message_id: Uuid,
    pub event_date: i64,
    /// Calls made, this one included.
    pub attempts: u32,
    pub is_retry: bool,
    /// When the next call is due, unless the message was delivered or given up.
    pub next_at: Option<i64>,
    pub outcome: Outcome,
}

#[derive(Default)]
struct Counts {
    messages: i64,
    calls: i64,
    errors: i64,
}

/// See the module.
pub struct Settlement {
    outcomes: Vec<Settled>,
    /// URLs whose receiver answered 410 Gone, until that is written.
    gone: HashSet<i32>,
    /// Canceled before their first call.
    withdrawn: Vec<RetryRow>,
    counts: BTreeMap<i32, Counts>,
    backlog: BTreeMap<i32, i64>,
    /// Since when there is something to write.
    waiting_since: Option<u64>,
    not_before: u64,
    /// How many lanes the last write was about.
    changed_lanes: u64,
    seq: i64,
    /// Entries of the ledger since the last fold.
    unfolded: usize,
    unfolded_since: Option<u64>,
}

impl Settlement {
    pub fn new(last_seq: i64) -> Self {
        Self {
            outcomes: Vec::new(),
            gone: HashSet::new(),
            withdrawn: Vec::new(),
            counts: BTreeMap::new(),
            backlog: BTreeMap::new(),
            waiting_since: None,
            not_before: 0,
            changed_lanes: 0,
            seq: last_seq,
            // What a former worker left is folded soon.
            unfolded: 1,
            unfolded_since: Some(0),
        }
    }

    pub fn count_message(&mut self, event_key: i32) {
        self.counts.entry(event_key).or_default().messages += 1;
    }

    pub fn change_backlog(&mut self, url_key: i32, by: i64) {
        *self.backlog.entry(url_key).or_default() += by;
    }

    /// What is still to be added to the written count, absolutely.
    pub fn set_backlog(&mut self, url_key: i32, delta: i64) {
        self.backlog.insert(url_key, delta);
    }

    /// By how much the written count changes with the next write.
    pub fn backlog_delta(&self, url_key: i32) -> i64 {
        self.backlog.get(&url_key).copied().unwrap_or(0)
    }

    /// There is something to write.
    pub fn be_due(&mut self, now: u64) {
        self.waiting_since.get_or_insert(now);
    }

    /// A message that was canceled before its first call. `due_at`: when it is due if somebody
    /// has redelivered it meanwhile; its row is then gone.
    pub fn withdraw(
        &mut self,
        url_key: i32,
        at: Coordinate,
        message: &Message,
        due_at: Option<i64>,
    ) {
        self.withdrawn.push(RetryRow {
            url_key,
            at,
            message_id: message.message_id,
            webhook_key: message.event.webhook_key,
            event_key: message.event.event_key,
            event_date: message.captured_at,
            attempts: 0,
            state: due_at.map_or(Parked::Canceled, |_| Parked::Waiting),
            next_at: due_at,
            last_error: None,
        });
    }

    pub fn add(&mut self, settled: Settled, now: u64) {
        let counts = self.counts.entry(settled.event_key).or_default();
        counts.calls += 1;
        if settled.outcome.verdict != Verdict::Delivered {
            counts.errors += 1;
        }
        if settled.outcome.verdict == Verdict::Gone {
            self.gone.insert(settled.url_key);
        }
        self.outcomes.push(settled);
        self.waiting_since.get_or_insert(now);
    }

    /// The calls that have ended since the last write.
    pub fn settled(&self) -> impl Iterator<Item = &Settled> {
        self.outcomes.iter()
    }

    /// The same, to be put right before they are written.
    pub fn unwritten(&mut self) -> impl Iterator<Item = &mut Settled> {
        self.outcomes.iter_mut()
    }

    /// Whether the URL is about to be switched off.
    pub fn is_gone(&self, url_key: i32) -> bool {
        self.gone.contains(&url_key)
    }

    /// The last row of the ledger.
    pub fn seq(&self) -> i64 {
        self.seq
    }

    pub fn outcomes(&self) -> usize {
        self.outcomes.len()
    }

    /// Counts wait for a write, too; called after the tail was read.
    pub fn notice_counts(&mut self, now: u64) {
        if !self.counts.is_empty() || !self.backlog.is_empty() {
            self.waiting_since.get_or_insert(now);
        }
    }

    fn due_at(&self) -> Option<u64> {
        let since = self.waiting_since?;
        let at = if self.outcomes.len() >= OUTCOMES_A_BATCH {
            0
        } else if self.outcomes.is_empty() {
            since + COUNT_AFTER_NANOS
        } else {
            let for_lanes = NANOS_A_LANE * self.changed_lanes;
            since + WRITE_AFTER_NANOS.max(for_lanes.min(WRITE_AFTER_NANOS_AT_MOST))
        };
        Some(at.max(self.not_before))
    }

    pub fn is_due(&self, now: u64) -> bool {
        self.due_at().is_some_and(|at| at <= now)
    }

    /// How long until something must be written or folded.
    pub fn due_in(&self, now: u64) -> Option<std::time::Duration> {
        let fold = self.unfolded_since.map(|since| since + FOLD_AFTER_NANOS);
        [self.due_at(), fold]
            .into_iter()
            .flatten()
            .min()
            .map(|at| std::time::Duration::from_nanos(at.saturating_sub(now)))
    }

    fn fold_is_due(&self, now: u64) -> bool {
        self.unfolded >= FOLD_AFTER_ENTRIES
            || self
                .unfolded_since
                .is_some_and(|since| now.saturating_sub(since) >= FOLD_AFTER_NANOS)
    }
}

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
            counts: &self.counts_json(),
            backlog: &self.backlog_json(),
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

    fn counts_json(&self) -> String {
        let counts = self.settlement.counts.iter();
        json!(counts
            .map(|(event, n)| json!([event, n.messages, n.calls, n.errors]))
            .collect::<Vec<_>>())
        .to_string()
    }

    fn backlog_json(&self) -> String {
        let backlog = self.settlement.backlog.iter();
        json!(backlog
            .filter(|(_, delta)| **delta != 0)
            .map(|(url, delta)| json!([url, delta]))
            .collect::<Vec<_>>())
        .to_string()
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
