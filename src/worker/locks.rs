//! Work that waits because another session holds a lock on our tables.
//!
//! Each kind of work is tried again after pauses of its own, so that one does not keep the
//! others. What is in the way is shown in `webhook.worker.detail` and logged once a minute.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::time::Duration;

use crate::pg::{process, tx};
use crate::store::blockers::{Blocker, BlockerStore};

/// How long a lock is waited for: long enough for autovacuum, which gives way when it sees that
/// another process waits, and short enough for the URLs that have to wait meanwhile …
pub const LOCK_TIMEOUT: &CStr = c"50ms";
/// … and if it was not to be had a moment ago.
const SHORT_LOCK_TIMEOUT: &CStr = c"5ms";
const FIRST_PAUSE_NANOS: u64 = 50_000_000;
const LONGEST_PAUSE_NANOS: u64 = 1_000_000_000;
/// Shorter waits are not worth a word.
const SHOWN_AFTER_NANOS: u64 = 500_000_000;
/// Work that is not tried for so long after its pause is not wanted any more.
const FORGOTTEN_AFTER_NANOS: u64 = 3_000_000_000;
const LOOK_EVERY_NANOS: u64 = 1_000_000_000;
const LOG_EVERY_NANOS: u64 = 60_000_000_000;

/// What may have to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Work {
    /// Those that have changed.
    Definitions,
    /// Webhooks that messages name.
    Webhooks,
    Outbox,
    Backlogs,
    Retries,
    /// Where the tail stands, and what it has counted.
    Tail,
    /// What became of calls.
    Outcomes,
    Compaction,
    Upkeep,
    DefinitionLog,
    Details,
    WallClock,
    Activity,
    StoppedEvents,
}

impl Work {
    /// The tables it needs, as patterns.
    fn tables(self) -> &'static [&'static str] {
        match self {
            Self::Definitions => &[
                "webhook_def",
                "secret_def",
                "url_def",
                "event_def",
                "control",
                "definition_change",
                "retry",
                "cancellation",
                "lane",
                "compaction",
                "settlement",
            ],
            Self::Webhooks => &[
                "webhook_def",
                "secret_def",
                "url_def",
                "event_def",
                "cancellation",
                "retry",
            ],
            Self::Outbox => &["outbox_%"],
            Self::Backlogs => &["outbox_%", "tick"],
            Self::Retries => &["retry", "outbox_%"],
            Self::Tail => &["settlement", "tick"],
            Self::Outcomes => &["retry", "cancellation", "url_def", "call_log_%"],
            Self::Compaction => &[
                "settlement",
                "compaction",
                "lane",
                "counter",
                "counter_day",
                "tick",
            ],
            Self::Upkeep => &["segment", "control", "outbox_%", "call_log_%", "activity_%"],
            Self::DefinitionLog => &["definition_change"],
            Self::Details => &["webhook_def"],
            Self::WallClock => &["retry"],
            Self::Activity => &["activity_%", "call_duration", "worker_total"],
            Self::StoppedEvents => &[
                "event_def",
                "webhook_def",
                "stopped_event",
                "control",
                "outbox_%",
            ],
        }
    }
}

struct Wait {
    since: u64,
    next_try: u64,
    pause: u64,
}

/// See the module.
pub struct Locks {
    blockers: BlockerStore,
    waits: BTreeMap<Work, Wait>,
    next_look: u64,
    next_log: u64,
    is_shown: bool,
    /// `lock_timeout` is short.
    is_impatient: bool,
    /// Up to when waits were counted, while work waits.
    counted_until: Option<u64>,
}

impl Locks {
    pub fn new() -> Self {
        Self {
            blockers: BlockerStore::new(),
            waits: BTreeMap::new(),
            next_look: 0,
            next_log: 0,
            is_shown: false,
            is_impatient: false,
            counted_until: None,
        }
    }

    pub fn may_try(&self, work: Work, now: u64) -> bool {
        self.waits
            .get(&work)
            .is_none_or(|wait| wait.next_try <= now)
    }

    /// A lock was in the way.
    pub fn failed(&mut self, work: Work, now: u64) {
        let wait = self.waits.entry(work).or_insert(Wait {
            since: now,
            next_try: now,
            pause: FIRST_PAUSE_NANOS / 2,
        });
        wait.pause = (wait.pause * 2).min(LONGEST_PAUSE_NANOS);
        wait.next_try = now + wait.pause;
    }

    pub fn succeeded(&mut self, work: Work) {
        self.waits.remove(&work);
    }

    /// When the next of the work that waits may be tried.
    pub fn next_try(&self, now: u64) -> Option<u64> {
        let pauses = self.waits.values().map(|wait| wait.next_try);
        pauses.filter(|next_try| *next_try > now).min()
    }

    /// For how long work has waited since the last call.
    pub fn take_blocked(&mut self, now: u64) -> Option<Duration> {
        let since = self.counted_until.take();
        if !self.waits.is_empty() {
            self.counted_until = Some(now);
        }
        since.map(|since| Duration::from_nanos(now.saturating_sub(since)))
    }

    /// Work that nobody wants any more waits for nothing.
    fn forget_unwanted(&mut self, now: u64) {
        self.waits
            .retain(|_, wait| wait.next_try + FORGOTTEN_AFTER_NANOS > now);
    }

    pub fn next_try_of(&self, work: Work) -> Option<u64> {
        self.waits.get(&work).map(|wait| wait.next_try)
    }

    /// The tables that are waited for, if for long enough to say so.
    fn shown(&self, now: u64) -> Vec<&'static str> {
        let long = |wait: &Wait| now.saturating_sub(wait.since) >= SHOWN_AFTER_NANOS;
        let waits = self.waits.iter().filter(|(_, wait)| long(wait));
        waits
            .flat_map(|(work, _)| work.tables().iter().copied())
            .collect()
    }
}

impl Locks {
    /// Where a lock was waited for in vain before, it is not worth waiting for again: it is
    /// looked at now and then. `is_held`: outcomes are held because of locks.
    pub fn adjust_lock_timeout(&mut self, is_held: bool) {
        let is_impatient = !self.waits.is_empty() || is_held;
        if is_impatient != self.is_impatient {
            self.is_impatient = is_impatient;
            let timeout = if is_impatient {
                SHORT_LOCK_TIMEOUT
            } else {
                LOCK_TIMEOUT
            };
            process::set_session(c"lock_timeout", timeout);
        }
    }

    /// What work waits for whom, in words; the outer `None`: as it was. May open a transaction, in
    /// which only catalogs are read.
    pub fn look_if_due(&mut self, now: u64) -> Option<Option<String>> {
        if now < self.next_look || (self.waits.is_empty() && !self.is_shown) {
            return None;
        }
        self.forget_unwanted(now);
        let tables = self.shown(now);
        let text = if tables.is_empty() {
            None
        } else {
            self.next_look = now + LOOK_EVERY_NANOS;
            // The lock may be gone before the work is tried again.
            what_keeps_us(&self.blockers, &tables)
        };
        self.is_shown = text.is_some();
        if let Some(text) = text.as_ref().filter(|_| now >= self.next_log) {
            self.next_log = now + LOG_EVERY_NANOS;
            pgrx::warning!("webhook worker {text}");
        }
        Some(text)
    }
}

/// Whose lock on one of these tables is in the way, in words. `None` if that cannot be told now.
pub fn what_keeps_us(blockers: &BlockerStore, tables: &[&str]) -> Option<String> {
    let found = tx::transaction(|| blockers.oldest(tables)).ok()?;
    found.as_ref().map(describe)
}

fn describe(blocker: &Blocker) -> String {
    let Blocker { table, since, .. } = blocker;
    match (blocker.pid, blocker.behind) {
        (None, _) => format!(
            "waits for a lock on {table} held by a prepared transaction; \
             see pg_prepared_xacts"
        ),
        (Some(pid), None) => format!(
            "waits for a lock on {table} held by process {pid} since {since}; \
             pg_terminate_backend({pid}) ends it"
        ),
        (Some(pid), Some(first)) => format!(
            "waits for a lock on {table} behind process {pid}, which waits for process \
             {first} since {since}; pg_terminate_backend({pid}) ends it"
        ),
    }
}
