//! What is known and not yet written: outcomes, counts, positions; and when it is to be.
//!
//! A crash repeats it, with the same ids.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use serde_json::json;

use super::locked_urls::LockedUrls;
use crate::core::messages::position::MessagePosition;
use crate::delivery::call::Verdict;
use crate::store::cancellations::CancellationNote;
use crate::store::retries::{RetryRow, RetryState, AFTER_ANOTHER};
use crate::worker::scheduling::{CanceledMessage, HeldBackMessage};
use crate::worker::settled::Settled;

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
/// The settlement log is compacted after so many entries, so that the views stay quick …
const COMPACT_AFTER_ENTRIES: usize = 5_000;
/// … or so many rows of the log: with a thousand lanes a row has thousands of entries, and each
/// compaction updates as many rows …
const COMPACT_AFTER_ROWS: usize = 10;
/// … or when it has been in use for so long.
const COMPACT_AFTER_NANOS: u64 = 10_000_000_000;

#[derive(Default)]
struct Counts {
    messages: i64,
    calls: i64,
    errors: i64,
}

/// Which part of what is known a transaction writes: all that goes with the tail's position or
/// nothing of it, and what became of the messages of some URLs.
#[derive(Clone, Copy)]
pub struct Scope<'a> {
    /// The tail's position, what it has counted, and the state of every lane that changed.
    pub tail: bool,
    pub tick: bool,
    pub urls: Urls<'a>,
}

/// URLs whose outcomes are written.
#[derive(Clone, Copy)]
pub enum Urls<'a> {
    AllBut(&'a HashSet<i32>),
    Only(&'a HashSet<i32>),
}

impl<'a> Scope<'a> {
    /// The outcomes of these URLs, and nothing else.
    pub fn only(urls: &'a HashSet<i32>) -> Self {
        Self {
            tail: false,
            tick: false,
            urls: Urls::Only(urls),
        }
    }

    pub fn has(&self, url_key: i32) -> bool {
        match self.urls {
            Urls::AllBut(others) => !others.contains(&url_key),
            Urls::Only(urls) => urls.contains(&url_key),
        }
    }
}

/// See the module.
pub(super) struct PendingWrites {
    pub outcomes: Vec<Settled>,
    /// URLs that are switched off, and why, until that is written.
    pub gone: BTreeMap<i32, String>,
    /// Canceled before their first call, or held back behind others of their keys.
    pub uncalled: Vec<RetryRow>,
    /// Retries in state `canceling` of messages that had been delivered before.
    pub outdated: Vec<(i32, MessagePosition)>,
    /// Cancellations that the worker has read, with how far the lanes had come.
    pub notes: Vec<CancellationNote>,
    /// Messages that the tail has seen, by event, and by URL: written with its position.
    messages: BTreeMap<i32, i64>,
    arrived: BTreeMap<i32, i64>,
    /// What else changes the backlogs: written with the outcomes of the URL.
    backlog: BTreeMap<i32, i64>,
    /// URLs whose outcomes could not be written because of locks.
    pub locked: LockedUrls,
    /// Since when there is something to write.
    waiting_since: Option<u64>,
    pub not_before: u64,
    /// How many lanes the last write was about.
    pub changed_lanes: u64,
    /// The last row of the settlement log.
    pub seq: i64,
    /// Entries of the log since it was compacted last.
    pub entries: usize,
    /// Of one row, the most since then.
    pub most_entries: usize,
    pub entries_since: Option<u64>,
    pub compact_not_before: u64,
}

impl PendingWrites {
    pub fn new(last_seq: i64) -> Self {
        Self {
            outcomes: Vec::new(),
            gone: BTreeMap::new(),
            uncalled: Vec::new(),
            outdated: Vec::new(),
            notes: Vec::new(),
            messages: BTreeMap::new(),
            arrived: BTreeMap::new(),
            backlog: BTreeMap::new(),
            locked: LockedUrls::default(),
            waiting_since: None,
            not_before: 0,
            changed_lanes: 0,
            seq: last_seq,
            // What a former worker left is compacted soon.
            entries: 1,
            most_entries: 0,
            entries_since: Some(0),
            compact_not_before: 0,
        }
    }

    pub fn count_message(&mut self, event_key: i32) {
        *self.messages.entry(event_key).or_default() += 1;
    }

    /// The tail has seen a message for the URL.
    pub fn count_arrival(&mut self, url_key: i32) {
        *self.arrived.entry(url_key).or_default() += 1;
    }

    pub fn change_backlog(&mut self, url_key: i32, by: i64) {
        *self.backlog.entry(url_key).or_default() += by;
    }

    /// What is still to be added to the written count, absolutely.
    pub fn set_backlog(&mut self, url_key: i32, delta: i64) {
        let arrived = self.arrived.get(&url_key).copied().unwrap_or(0);
        self.backlog.insert(url_key, delta - arrived);
    }

    /// By how much the written count changes with the next write.
    pub fn backlog_delta(&self, url_key: i32) -> i64 {
        let parts = [&self.arrived, &self.backlog];
        parts.iter().filter_map(|part| part.get(&url_key)).sum()
    }

    /// There is something to write.
    pub fn be_due(&mut self, now: u64) {
        self.waiting_since.get_or_insert(now);
    }

    /// A message that was canceled before its first call.
    pub fn cancel(&mut self, canceled: CanceledMessage) {
        let CanceledMessage {
            url_key,
            at,
            keys,
            message,
            due_at,
        } = canceled;
        self.change_backlog(url_key, -1);
        self.uncalled.push(RetryRow {
            url_key,
            at,
            keys,
            message_id: message.message_id,
            webhook_key: message.event.webhook_key,
            event_key: message.event.event_key,
            event_date: message.captured_at,
            attempts: 0,
            state: due_at.map_or(RetryState::Canceled, |_| RetryState::Waiting),
            next_at: due_at,
            last_error: None,
        });
    }

    /// A message that waits for an earlier one of its keys.
    pub fn hold_back(&mut self, held: &HeldBackMessage) {
        self.change_backlog(held.url_key, -1);
        self.uncalled.push(RetryRow {
            url_key: held.url_key,
            at: held.at,
            keys: held.keys,
            message_id: held.message.message_id,
            webhook_key: held.message.event.webhook_key,
            event_key: held.message.event.event_key,
            event_date: held.message.captured_at,
            attempts: 0,
            state: RetryState::Waiting,
            next_at: Some(AFTER_ANOTHER),
            last_error: None,
        });
    }

    /// The row that canceled a message is of no use: the message had been delivered before.
    pub fn forget_single(&mut self, url_key: i32, at: MessagePosition) {
        if !self.outdated.contains(&(url_key, at)) {
            self.outdated.push((url_key, at));
        }
    }

    pub fn add(&mut self, settled: Settled, now: u64) {
        if let Some(why) = &settled.switches_off {
            self.gone.insert(settled.url_key, why.clone());
        }
        if self.locked.has(settled.url_key) {
            self.locked.outcomes += 1;
        } else {
            self.waiting_since.get_or_insert(now);
        }
        if !settled.is_retry {
            self.change_backlog(settled.url_key, -1);
        }
        self.outcomes.push(settled);
    }

    /// The calls that have ended since they were written last.
    pub fn settled<'a>(&'a self, scope: Scope<'a>) -> impl Iterator<Item = &'a Settled> {
        let outcomes = self.outcomes.iter();
        outcomes.filter(move |settled| scope.has(settled.url_key))
    }

    /// Every URL of which anything but the lane's state is to be written.
    pub fn concerned(&self) -> HashSet<i32> {
        let outcomes = self.outcomes.iter().map(|settled| settled.url_key);
        let uncalled = self.uncalled.iter().map(|row| row.url_key);
        let outdated = self.outdated.iter().map(|(url_key, _)| *url_key);
        outcomes
            .chain(uncalled)
            .chain(outdated)
            .chain(self.gone.keys().copied())
            .chain(self.backlog.keys().copied())
            .chain(self.notes.iter().map(|note| note.url_key))
            .collect()
    }

    /// URLs whose outcomes change rows that other sessions change, too. First calls that were
    /// answered well only add rows.
    pub fn lockable(&self) -> HashSet<i32> {
        let failed = self.outcomes.iter().filter(|settled| {
            settled.is_retry || settled.outcome.verdict != Verdict::Delivered || settled.is_canceled
        });
        failed
            .map(|settled| settled.url_key)
            .chain(self.uncalled.iter().map(|row| row.url_key))
            .chain(self.outdated.iter().map(|(url_key, _)| *url_key))
            .chain(self.notes.iter().map(|note| note.url_key))
            .chain(self.gone.keys().copied())
            .collect()
    }

    /// What of this part was to be written is written.
    pub fn forget(&mut self, scope: Scope<'_>) {
        self.outcomes.retain(|settled| !scope.has(settled.url_key));
        self.uncalled.retain(|row| !scope.has(row.url_key));
        self.notes.retain(|note| !scope.has(note.url_key));
        self.outdated.retain(|(url_key, _)| !scope.has(*url_key));
        self.gone.retain(|url_key, _| !scope.has(*url_key));
        self.backlog.retain(|url_key, _| !scope.has(*url_key));
        if scope.tail {
            self.messages.clear();
            self.arrived.clear();
            self.waiting_since = None;
        }
    }

    /// After the set of locked URLs has changed.
    pub fn count_locked(&mut self) {
        let locked = &self.locked;
        let outcomes = self.outcomes.iter().map(|settled| settled.url_key);
        let uncalled = self.uncalled.iter().map(|row| row.url_key);
        let count = outcomes
            .chain(uncalled)
            .filter(|url| locked.has(*url))
            .count();
        self.locked.outcomes = count;
    }

    /// Outcomes that no lock of one URL keeps from being written.
    pub fn outcomes(&self) -> usize {
        self.outcomes.len().saturating_sub(self.locked.outcomes)
    }

    /// Counts wait for a write, too; called after the tail was read.
    pub fn notice_counts(&mut self, now: u64) {
        let locked = &self.locked;
        let changed = self.backlog.keys().any(|url_key| !locked.has(*url_key));
        if changed || !self.messages.is_empty() || !self.outdated.is_empty() {
            self.waiting_since.get_or_insert(now);
        }
    }

    fn due_at(&self) -> Option<u64> {
        let since = self.waiting_since?;
        let at = if self.outcomes() >= OUTCOMES_A_BATCH {
            0
        } else if self.outcomes() == 0 && self.uncalled.is_empty() {
            since + COUNT_AFTER_NANOS
        } else {
            let for_lanes = NANOS_A_LANE * self.changed_lanes;
            since + WRITE_AFTER_NANOS.max(for_lanes.min(WRITE_AFTER_NANOS_AT_MOST))
        };
        Some(at.max(self.not_before))
    }

    pub fn is_due(&self, now: u64) -> bool {
        let due_at = [self.due_at(), self.locked_due_at()];
        due_at.into_iter().flatten().any(|at| at <= now)
    }

    fn locked_due_at(&self) -> Option<u64> {
        self.locked.due_at().map(|at| at.max(self.not_before))
    }

    /// How long until something must be written or compacted.
    pub fn due_in(&self, now: u64) -> Option<Duration> {
        let compact = self
            .entries_since
            .map(|since| (since + COMPACT_AFTER_NANOS).max(self.compact_not_before));
        [self.due_at(), self.locked_due_at(), compact]
            .into_iter()
            .flatten()
            .min()
            .map(|at| Duration::from_nanos(at.saturating_sub(now)))
    }

    pub fn compaction_is_due(&self, now: u64) -> bool {
        let since = self.entries_since;
        let most = COMPACT_AFTER_ENTRIES.max(COMPACT_AFTER_ROWS * self.most_entries);
        let is_old = since.is_some_and(|since| now.saturating_sub(since) >= COMPACT_AFTER_NANOS);
        now >= self.compact_not_before && (is_old || self.entries >= most)
    }

    /// As the settlement log takes them.
    pub fn counts_json(&self, scope: Scope<'_>) -> (usize, String) {
        let mut counts: BTreeMap<i32, Counts> = BTreeMap::new();
        for (event_key, messages) in self.messages.iter().filter(|_| scope.tail) {
            counts.entry(*event_key).or_default().messages = *messages;
        }
        for settled in self.settled(scope) {
            let counts = counts.entry(settled.event_key).or_default();
            counts.calls += 1;
            counts.errors += i64::from(settled.outcome.verdict != Verdict::Delivered);
        }
        let rows: Vec<_> = counts
            .iter()
            .map(|(event, n)| json!([event, n.messages, n.calls, n.errors]))
            .collect();
        (rows.len(), json!(rows).to_string())
    }

    pub fn backlog_json(&self, scope: Scope<'_>) -> (usize, String) {
        let arrived = self.arrived.iter().filter(|_| scope.tail);
        let gone = self
            .backlog
            .iter()
            .filter(|(url_key, _)| scope.has(**url_key));
        let mut backlog: BTreeMap<i32, i64> = BTreeMap::new();
        for (url_key, by) in arrived.chain(gone) {
            *backlog.entry(*url_key).or_default() += by;
        }
        let rows: Vec<_> = backlog
            .iter()
            .filter(|(_, delta)| **delta != 0)
            .map(|(url, delta)| json!([url, delta]))
            .collect();
        (rows.len(), json!(rows).to_string())
    }
}
