//! What is known and not yet written: outcomes, counts, positions; and when it is to be.
//!
//! A crash repeats it, with the same ids.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use serde_json::json;
use uuid::Uuid;

use super::message::Message;
use crate::core::position::Coordinate;
use crate::delivery::call::{Outcome, Verdict};
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
pub struct Counts {
    messages: i64,
    calls: i64,
    errors: i64,
}

/// See the module.
pub struct Settlement {
    pub(super) outcomes: Vec<Settled>,
    /// URLs whose receiver answered 410 Gone, until that is written.
    pub(super) gone: HashSet<i32>,
    /// Canceled before their first call.
    pub(super) withdrawn: Vec<RetryRow>,
    pub(super) counts: BTreeMap<i32, Counts>,
    pub(super) backlog: BTreeMap<i32, i64>,
    /// Since when there is something to write.
    pub(super) waiting_since: Option<u64>,
    pub(super) not_before: u64,
    /// How many lanes the last write was about.
    pub(super) changed_lanes: u64,
    pub(super) seq: i64,
    /// Entries of the ledger since the last fold.
    pub(super) unfolded: usize,
    pub(super) unfolded_since: Option<u64>,
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
    pub fn due_in(&self, now: u64) -> Option<Duration> {
        let fold = self.unfolded_since.map(|since| since + FOLD_AFTER_NANOS);
        [self.due_at(), fold]
            .into_iter()
            .flatten()
            .min()
            .map(|at| Duration::from_nanos(at.saturating_sub(now)))
    }

    pub fn fold_is_due(&self, now: u64) -> bool {
        self.unfolded >= FOLD_AFTER_ENTRIES
            || self
                .unfolded_since
                .is_some_and(|since| now.saturating_sub(since) >= FOLD_AFTER_NANOS)
    }

    /// As the ledger takes them.
    pub fn counts_json(&self) -> String {
        let counts = self.counts.iter();
        json!(counts
            .map(|(event, n)| json!([event, n.messages, n.calls, n.errors]))
            .collect::<Vec<_>>())
        .to_string()
    }

    pub fn backlog_json(&self) -> String {
        let backlog = self.backlog.iter();
        json!(backlog
            .filter(|(_, delta)| **delta != 0)
            .map(|(url, delta)| json!([url, delta]))
            .collect::<Vec<_>>())
        .to_string()
    }
}
