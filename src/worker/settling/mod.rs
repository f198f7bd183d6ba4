//! Writing what became of calls, counts and positions, in batches.
//!
//! Owns what is known and not yet written, and which URLs locks of other sessions keep from being
//! written. Takes ended calls, counts, the tail's position and the states of lanes; writes call
//! log, retries, cancellations and one row of the settlement log in one transaction, and compacts
//! that log now and then. If a write fails, all of it stays for the next one; a crash repeats it,
//! with the same ids.

#![forbid(unsafe_code)]

mod activity;
mod apart;
mod locked_urls;
mod operational;
mod pending_writes;
mod rows;
mod writing;

use std::time::Duration;

pub use apart::Refusal;
pub use pending_writes::{Scope, Urls};

use crate::core::health::given_up::{Failures, GivenUp};
use crate::core::health::news::Backlog;
use crate::core::messages::position::MessagePosition;
use crate::core::policy::retry::Schedule;
use crate::pg::clock;
use crate::pg::tx::Failure;
use crate::store::call_log::CallLogStore;
use crate::store::cancellations::{CancellationNote, CancellationStore};
use crate::store::retries::{RetryRow, RetryState, RetryStore};
use crate::store::routing::RoutingStore;
use crate::store::settlement_log::SettlementLog;
use crate::worker::scheduling::{CanceledMessage, HeldBackMessage};
use crate::worker::settled::Settled;
use crate::worker::time::Ticker;
use activity::Activity;
use operational::Operational;
use pending_writes::PendingWrites;

/// After a failed write (a full disk, say) the next try comes after this.
const WRITE_AGAIN_NANOS: u64 = 1_000_000_000;
/// With so many outcomes unwritten (the disk is full, say) nothing new is sent.
const UNWRITTEN_AT_MOST: usize = 5000;

/// See the module.
pub struct Settler {
    pending: PendingWrites,
    log: SettlementLog,
    retries: RetryStore,
    calls: CallLogStore,
    cancellations: CancellationStore,
    routing: RoutingStore,
    failures: Failures,
    operational: Operational,
    /// For sessions that listen.
    notifications: Vec<String>,
    /// The call log table that is written.
    call_log_number: usize,
    activity: Activity,
    ticker: Ticker,
}

/// What a transaction wrote, and what follows from it for URLs.
pub struct Written {
    /// Retries, and when they are due.
    pub retries: Vec<(i32, i64)>,
    /// Messages that need no watching for a cancellation any more.
    pub done: Vec<(i32, MessagePosition)>,
    /// URLs that get nothing more …
    pub gone: Vec<i32>,
    /// … and those of them that were switched off by this, and why.
    pub switched_off: Vec<(i32, String)>,
    /// Operational events made messages, which are to be read.
    pub made_messages: bool,
}

impl Settler {
    pub fn new(last_seq: i64, ticker: Ticker) -> Self {
        Self {
            pending: PendingWrites::new(last_seq),
            log: SettlementLog::new(),
            retries: RetryStore::new(),
            calls: CallLogStore::new(),
            cancellations: CancellationStore::new(),
            routing: RoutingStore::new(),
            failures: Failures::default(),
            operational: Operational::new(),
            notifications: Vec::new(),
            call_log_number: 0,
            activity: Activity::new(),
            ticker,
        }
    }

    /// Calls are logged in this table from now on.
    pub fn log_to(&mut self, call_log_number: usize) {
        self.call_log_number = call_log_number;
    }

    /// The tail has seen a message of the event.
    pub fn count_message(&mut self, event_key: i32) {
        self.pending.count_message(event_key);
    }

    /// The tail has seen a message for the URL.
    pub fn count_arrival(&mut self, url_key: i32) {
        self.pending.count_arrival(url_key);
        self.activity.count_arrival(url_key, self.ticker.now());
    }

    /// The tail was read, or bodies: counts wait for a write, too.
    pub fn notice_counts(&mut self) {
        self.pending.notice_counts(self.ticker.now());
    }

    /// Messages of the URL came or went otherwise.
    pub fn change_backlog(&mut self, url_key: i32, by: i64) {
        self.pending.change_backlog(url_key, by);
    }

    /// What the URL has pending, of which `written` is written.
    pub fn set_pending(&mut self, url_key: i32, pending: i64, written: i64) {
        self.pending.set_backlog(url_key, pending - written);
        self.be_due();
    }

    /// By how much the written count changes with the next write.
    pub fn pending_change(&self, url_key: i32) -> i64 {
        self.pending.backlog_delta(url_key)
    }

    /// There is something to write.
    pub fn be_due(&mut self) {
        self.pending.be_due(self.ticker.now());
    }

    /// A call has ended.
    pub fn add(&mut self, settled: Settled) {
        let now = self.ticker.now();
        self.activity.add(&settled, now);
        self.pending.add(settled, now);
    }

    /// A lane came to a message that was canceled.
    pub fn cancel(&mut self, canceled: CanceledMessage) {
        self.pending.cancel(canceled);
        self.be_due();
    }

    /// A message waits for an earlier one of its keys.
    pub fn hold_back(&mut self, held: &HeldBackMessage) {
        self.pending.hold_back(held);
        self.be_due();
    }

    /// Takes in what definitions say by now of messages that were held back and are not written:
    /// whether they are canceled, and whether they still wait for others.
    pub fn amend_held_back(
        &mut self,
        is_canceled: impl Fn(&RetryRow) -> bool,
        waits: impl Fn(i32) -> bool,
    ) {
        let uncalled = self.pending.uncalled.iter_mut();
        for row in uncalled.filter(|row| row.is_held_back()) {
            if is_canceled(row) {
                row.state = RetryState::Canceled;
                row.next_at = None;
            } else if !waits(row.url_key) {
                row.next_at = Some(clock::now());
            }
        }
    }

    /// The row that canceled a message is of no use: the message had been delivered before.
    pub fn forget_single(&mut self, url_key: i32, at: MessagePosition) {
        self.pending.forget_single(url_key, at);
    }

    /// How far a lane had come when the worker read a cancellation.
    pub fn note_cancellation(&mut self, note: CancellationNote) {
        self.pending.notes.push(note);
        self.be_due();
    }

    /// Whether a cancellation was noted and is not written.
    pub fn has_note(&self, cancellation_id: i64) -> bool {
        let mut notes = self.pending.notes.iter();
        notes.any(|note| note.cancellation_id == cancellation_id)
    }

    /// Takes in what definitions say by now of calls that have ended and are not written.
    pub fn amend(&mut self, amend: impl Fn(&mut Settled)) {
        self.pending.outcomes.iter_mut().for_each(amend);
    }

    /// The clock may have been set back since they failed: none waits longer than it was to.
    pub fn adjust_for_clock_step(&mut self, now_pg: i64, schedule: &Schedule) {
        for settled in &mut self.pending.outcomes {
            let longest = schedule.delay(settled.attempts, u64::MAX);
            let longest = longest.max(settled.outcome.retry_after.unwrap_or_default());
            let longest = i64::try_from(longest.as_micros()).unwrap_or(i64::MAX / 4);
            settled.next_at = settled.next_at.map(|at| at.min(now_pg + longest));
        }
    }

    /// What the server log is to say of messages that were given up.
    pub fn take_given_up(&mut self) -> Vec<GivenUp> {
        self.failures.take_due(self.ticker.now())
    }

    /// Whether so little is unwritten that calls may start.
    pub fn may_call_at_all(&self) -> bool {
        self.pending.outcomes() < UNWRITTEN_AT_MOST
    }

    /// Whether a URL may have calls that could not be written for now.
    pub fn may_call(&self, url_key: i32) -> bool {
        self.pending.locked.may_call(url_key)
    }

    /// Whether a lock of another session keeps the URL's outcomes from being written.
    pub fn is_locked(&self, url_key: i32) -> bool {
        self.pending.locked.has(url_key)
    }

    /// URLs that locks of other sessions keep from being written.
    pub fn has_locked(&self) -> bool {
        !self.pending.locked.is_empty()
    }

    pub fn is_due(&self) -> bool {
        let now = self.ticker.now();
        self.pending.is_due(now) || self.news_are_due_at().is_some_and(|at| at <= now)
    }

    /// From when on there is something to tell users.
    fn news_are_due_at(&self) -> Option<u64> {
        let due_at = self.operational.due_at(|url_key| self.is_locked(url_key))?;
        Some(due_at.max(self.pending.not_before))
    }

    pub fn compaction_is_due(&self) -> bool {
        self.pending.compaction_is_due(self.ticker.now())
    }

    /// How long until something must be written or compacted.
    pub fn due_in(&self) -> Option<Duration> {
        let now = self.ticker.now();
        let activity = self.activity.due_in_nanos(now).map(Duration::from_nanos);
        let news = self.news_are_due_at();
        let news = news.map(|at| Duration::from_nanos(at.saturating_sub(now)));
        let due = [self.pending.due_in(now), activity, news];
        due.into_iter().flatten().min()
    }

    /// The figures of minutes are written to this table of their ring from now on.
    pub fn record_activity_in(&mut self, number: usize) {
        self.activity.write_to(number);
    }

    /// Locks of other sessions have held work up for so long.
    pub fn add_blocked(&mut self, seconds: f64) {
        self.activity.add_blocked(seconds, self.ticker.now());
    }

    pub fn activity_is_due(&self) -> bool {
        self.activity.is_due(self.ticker.now())
    }

    pub fn has_activity(&self) -> bool {
        self.activity.has_unwritten()
    }

    /// Writes the figures of minutes. Opens a transaction.
    ///
    /// # Errors
    /// It is tried again later.
    pub fn write_activity(&mut self) -> Result<(), Failure> {
        self.activity.write(self.ticker.now())
    }

    /// The last row of the settlement log.
    pub fn seq(&self) -> i64 {
        self.pending.seq
    }

    /// The last worker wrote that the URL fails.
    pub fn fails_since(&mut self, url_key: i32, since: i64, error: &str) {
        self.operational.fails_since(url_key, since, error);
    }

    /// What waits at all URLs that are called.
    pub fn note_backlogs(&mut self, backlogs: &[Backlog]) {
        self.operational.note_backlogs(backlogs, self.ticker.now());
    }

    /// Sessions that listen are told this, too.
    pub fn tell(&mut self, notifications: Vec<String>) {
        self.notifications.extend(notifications);
    }

    /// Tells sessions that listen what was written. Opens a transaction: what keeps it from being
    /// committed keeps nothing else.
    pub fn notify(&mut self) {
        let notifications = std::mem::take(&mut self.notifications);
        if notifications.is_empty() {
            return;
        }
        if let Err(failure) = self.operational.notify(&notifications) {
            pgrx::log!("could not send NOTIFY webhook: {}", failure.message);
        }
    }

    /// Writing failed for another reason than a lock.
    pub fn writing_failed(&mut self, failure: &Failure) {
        pgrx::warning!("could not write what was delivered: {}", failure.message);
        self.pending.not_before = self.ticker.now() + WRITE_AGAIN_NANOS;
    }

    /// The tail's position is locked: nothing is written before then.
    pub fn wait_until(&mut self, not_before: u64) {
        self.pending.not_before = not_before;
    }

    /// Another session has the log locked.
    pub fn compact_not_before(&mut self, at: u64) {
        self.pending.compact_not_before = at;
    }
}
