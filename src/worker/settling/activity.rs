//! What happened in each minute, by URL: the figures of `webhook.activity`.
//!
//! Counted in memory and written every ten seconds, and when a minute is over, in a transaction of
//! its own: a lock on the history holds nothing else up. A row is what one run of counting saw of a
//! URL in a minute; it is written again with the sums until the minute is over, so nothing is counted
//! twice when the outcome of a commit is not known. A crash loses what was not written.

use std::collections::BTreeMap;

use crate::core::values::durations::{bound_of, Durations, BOUNDS_S};
use crate::delivery::failure_class::FailureClass;
use crate::pg::clock;
use crate::pg::tx::{self, Failure};
use crate::store::activity::{ActivityRow, ActivityStore, DurationRow};
use crate::worker::settled::Settled;

const MINUTE_MICROS: i64 = 60_000_000;
/// What was counted is written after this …
const WRITE_AFTER_NANOS: u64 = 10_000_000_000;
/// … or when so many rows are in memory, which are then forgotten before their minute is over.
const KEPT_AT_MOST: usize = 20_000;
/// In one go: about ten milliseconds, in which no call starts.
const ROWS_A_WRITE: usize = 1_000;
/// While nothing can be written, more URLs and minutes than this are not counted.
const UNWRITTEN_AT_MOST: usize = 50_000;
/// After a failed write.
const WRITE_AGAIN_NANOS: u64 = 1_000_000_000;

/// One URL in one minute.
#[derive(Default)]
struct Minute {
    messages: i64,
    calls: i64,
    failures: Failures,
    durations: Durations,
    max_ms: f64,
    is_changed: bool,
}

#[derive(Clone, Copy, Default)]
struct Failures {
    connect: i64,
    tls: i64,
    timeout: i64,
    http_4xx: i64,
    http_5xx: i64,
    other: i64,
}

impl Failures {
    fn add(&mut self, class: FailureClass) {
        *match class {
            FailureClass::Connect => &mut self.connect,
            FailureClass::Tls => &mut self.tls,
            FailureClass::Timeout => &mut self.timeout,
            FailureClass::Http4xx => &mut self.http_4xx,
            FailureClass::Http5xx => &mut self.http_5xx,
            FailureClass::Other => &mut self.other,
        } += 1;
    }
}

/// What is to be added to the histogram of a URL.
#[derive(Default)]
struct Histogram {
    counts: [i64; BOUNDS_S.len() + 1],
    seconds: f64,
}

/// See the module.
pub(super) struct Activity {
    store: ActivityStore,
    /// By the minute's begin and URL.
    minutes: BTreeMap<(i64, i32), Minute>,
    changed_since: Option<u64>,
    /// A part is written: the rest follows at once.
    is_writing: bool,
    histograms: BTreeMap<i32, Histogram>,
    /// The run of counting that rows belong to.
    run: i64,
    /// The table that is written, and the one that is to be.
    number: usize,
    next_number: usize,
    is_start_counted: bool,
    blocked_seconds: f64,
    not_before: u64,
}

impl Activity {
    pub fn new() -> Self {
        Self {
            store: ActivityStore::new(),
            minutes: BTreeMap::new(),
            changed_since: None,
            is_writing: false,
            histograms: BTreeMap::new(),
            run: clock::now(),
            number: 0,
            next_number: 0,
            is_start_counted: false,
            blocked_seconds: 0.0,
            not_before: 0,
        }
    }

    /// The table of the ring that is written from now on.
    pub fn write_to(&mut self, number: usize) {
        self.next_number = number;
        if self.minutes.is_empty() {
            self.number = number;
        }
    }

    pub fn count_arrival(&mut self, url_key: i32, now: u64) {
        if let Some(minute) = self.minute(url_key, now) {
            minute.messages += 1;
        }
    }

    /// A call has ended.
    pub fn add(&mut self, settled: &Settled, now: u64) {
        let outcome = &settled.outcome;
        let Some(minute) = self.minute(settled.url_key, now) else {
            return;
        };
        minute.calls += 1;
        minute.durations.add(outcome.duration);
        minute.max_ms = minute.max_ms.max(outcome.duration.as_secs_f64() * 1000.0);
        if let Some(class) = outcome.failure_class {
            minute.failures.add(class);
        }
        let histogram = self.histograms.entry(settled.url_key).or_default();
        histogram.counts[bound_of(outcome.duration)] += 1;
        histogram.seconds += outcome.duration.as_secs_f64();
    }

    /// Time in which locks of other sessions held work up.
    pub fn add_blocked(&mut self, seconds: f64, now: u64) {
        self.blocked_seconds += seconds;
        self.changed_since.get_or_insert(now);
    }

    fn minute(&mut self, url_key: i32, now: u64) -> Option<&mut Minute> {
        let pg_now = clock::now();
        let key = (pg_now - pg_now.rem_euclid(MINUTE_MICROS), url_key);
        if self.minutes.len() >= UNWRITTEN_AT_MOST && !self.minutes.contains_key(&key) {
            return None;
        }
        self.changed_since.get_or_insert(now);
        let minute = self.minutes.entry(key).or_default();
        minute.is_changed = true;
        Some(minute)
    }

    fn due_at(&self) -> Option<u64> {
        let at = match self.changed_since {
            None if self.is_start_counted => return None,
            None => 0,
            Some(_) if self.is_writing || self.minutes.len() >= KEPT_AT_MOST => 0,
            Some(since) => since + WRITE_AFTER_NANOS,
        };
        Some(at.max(self.not_before))
    }

    pub fn is_due(&self, now: u64) -> bool {
        self.due_at().is_some_and(|at| at <= now)
    }

    pub fn due_in_nanos(&self, now: u64) -> Option<u64> {
        self.due_at().map(|at| at.saturating_sub(now))
    }

    pub fn has_unwritten(&self) -> bool {
        self.changed_since.is_some()
    }

    /// Writes what has changed, or a part of it. Opens a transaction.
    ///
    /// # Errors
    /// It is tried again later; what was counted stays.
    pub fn write(&mut self, now: u64) -> Result<(), Failure> {
        let changed = self.minutes.iter().filter(|(_, minute)| minute.is_changed);
        let keys: Vec<_> = changed.map(|(key, _)| *key).take(ROWS_A_WRITE).collect();
        let urls = self.histograms.keys().copied().take(ROWS_A_WRITE);
        let urls: Vec<_> = urls.collect();
        let written = tx::transaction(|| self.store(&keys, &urls));
        if written.is_err() {
            self.not_before = now + WRITE_AGAIN_NANOS;
            self.changed_since.get_or_insert(now);
            return written;
        }
        for key in &keys {
            if let Some(minute) = self.minutes.get_mut(key) {
                minute.is_changed = false;
            }
        }
        self.histograms
            .retain(|url, _| urls.binary_search(url).is_err());
        self.is_start_counted = true;
        self.blocked_seconds = 0.0;
        self.is_writing = keys.len() == ROWS_A_WRITE || !self.histograms.is_empty();
        if !self.is_writing {
            self.changed_since = None;
            self.forget_written();
        }
        Ok(())
    }

    /// Everything is written: of past minutes nothing more comes.
    fn forget_written(&mut self) {
        if self.number != self.next_number || self.minutes.len() >= KEPT_AT_MOST {
            self.minutes.clear();
            self.run = clock::now().max(self.run + 1);
            self.number = self.next_number;
        } else {
            let past = clock::now() - MINUTE_MICROS;
            self.minutes.retain(|(begin, _), _| *begin > past);
        }
    }

    fn store(&self, keys: &[(i64, i32)], urls: &[i32]) {
        let rows = keys.iter().filter_map(|key| {
            let minute = self.minutes.get(key)?;
            Some(self.row(key.0, key.1, minute))
        });
        self.store.write(self.number, &rows.collect::<Vec<_>>());
        let histograms = urls.iter().filter_map(|url_key| {
            let histogram = self.histograms.get(url_key)?;
            Some(DurationRow {
                url_key: *url_key,
                counts: histogram.counts.to_vec(),
                seconds: histogram.seconds,
            })
        });
        self.store.add_durations(&histograms.collect::<Vec<_>>());
        if !self.is_start_counted || self.blocked_seconds > 0.0 {
            let starts = i64::from(!self.is_start_counted);
            self.store.add_totals(starts, self.blocked_seconds);
        }
    }

    fn row(&self, begin: i64, url_key: i32, minute: &Minute) -> ActivityRow {
        let Failures {
            connect,
            tls,
            timeout,
            http_4xx,
            http_5xx,
            other,
        } = minute.failures;
        ActivityRow {
            minute: begin,
            url_key,
            run: self.run,
            messages: minute.messages,
            calls: minute.calls,
            failures: [connect, tls, timeout, http_4xx, http_5xx, other],
            durations: minute.durations.text(),
            max_ms: minute.max_ms,
        }
    }
}
