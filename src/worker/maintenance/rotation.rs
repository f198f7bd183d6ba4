//! Rotation and retention: closing, emptying and indexing the tables of outbox and call log.
//!
//! Now and then, in transactions of its own, which never wait for a lock: what cannot be had
//! now is tried again. Nothing that is pending is ever emptied.

use std::time::{Duration, Instant};

use crate::core::messages::rotation::{self, Growth, Limits, Plan, Segment};
use crate::pg::settings::Delivery;
use crate::pg::tx::{self, Failure};
use crate::store::change_log;
use crate::store::segments::{self, Ring};
use crate::worker::locks::{Locks, Work};
use crate::worker::time::Ticker;

/// While messages come and go, sizes are looked at this often, or sooner where little is left …
const WHILE_BUSY: Duration = Duration::from_secs(1);
/// … and otherwise this often at least: old messages go although nothing happens.
const WHILE_IDLE: Duration = Duration::from_secs(600);
/// While much is to be indexed and nobody waits for us.
const WHILE_BEHIND: Duration = Duration::from_millis(50);
/// Looks in the time that a message is kept, if that is short.
const LOOKS_A_RETENTION: u32 = 20;
/// A table in which something is pending is looked at again after this: the look may take long.
const NEEDED_AGAIN: Duration = Duration::from_secs(5);
/// One that a session reads just now may be free at the next look.
const LOCKED_AGAIN: Duration = Duration::from_secs(1);
/// Block ranges that are indexed in one look: 12 MB, a few milliseconds.
const RANGES_A_LOOK: i64 = 48;
/// Rows of the log of changes that are deleted in one look, and how often at most there is one.
const CHANGES_A_LOOK: i64 = 1_000;
const FORGET_CHANGES: Duration = Duration::from_secs(60);
/// Blocks of a table are of this size.
const BLOCK_BYTES: i64 = pgrx::pg_sys::BLCKSZ as i64;
/// Outbox and call log share webhook.log_max_size.
const SHARING_RINGS: i64 = 2;
const RINGS: usize = 3;
/// The figures of minutes are kept for so long …
const ACTIVITY_KEPT: Duration = Duration::from_secs(30 * 86_400);
/// … or until they take this part of webhook.log_max_size, in addition to it.
const ACTIVITY_PART: i64 = 10;
const TABLES: usize = 4;

/// See the module.
pub(super) struct Rotation {
    /// The tables that are written.
    call_log_number: usize,
    activity_number: usize,
    log_retention: Duration,
    log_max_bytes: Option<i64>,
    next_look: Instant,
    /// The settlement after which was looked last.
    seen: i64,
    /// More is to be indexed than one look does.
    is_behind: bool,
    /// Blocks of each outbox table that are in its time index.
    summarised: [i64; TABLES],
    growth: [Growth; RINGS],
    /// How long sizes need no look, at this growth.
    pause: Duration,
    /// Old rows of the log of changes are looked for.
    next_forget: Instant,
    /// Not before this is a table tried again that could not be emptied.
    blocked_until: [[Option<Instant>; TABLES]; RINGS],
}

impl Rotation {
    pub fn new(settings: &Delivery) -> Self {
        Self {
            call_log_number: 0,
            activity_number: 0,
            log_retention: settings.log_retention,
            log_max_bytes: settings.log_max_bytes,
            next_look: Instant::now(),
            seen: -1,
            is_behind: false,
            summarised: [0; TABLES],
            growth: Default::default(),
            pause: WHILE_BUSY,
            next_forget: Instant::now(),
            blocked_until: Default::default(),
        }
    }

    fn block(&mut self, ring: Ring, number: i16, pause: Duration) {
        self.blocked_until[ring as usize][place(number)] = Some(Instant::now() + pause);
    }

    fn is_blocked(&self, ring: Ring, number: i16) -> bool {
        self.blocked_until[ring as usize][place(number)].is_some_and(|until| Instant::now() < until)
    }
}

fn place(number: i16) -> usize {
    usize::try_from(number).unwrap_or(0) % TABLES
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

impl Rotation {
    /// When to look again at the latest, so that the loop wakes up.
    pub fn due_in(&self) -> Duration {
        self.next_look.saturating_duration_since(Instant::now())
    }

    /// SIGHUP.
    pub fn reconfigure(&mut self, settings: &Delivery) {
        self.log_retention = settings.log_retention;
        self.log_max_bytes = settings.log_max_bytes;
    }

    /// The call log table that is written.
    pub fn call_log_number(&self) -> usize {
        self.call_log_number
    }

    pub fn activity_number(&self) -> usize {
        self.activity_number
    }

    pub fn is_due(&self) -> bool {
        Instant::now() >= self.next_look
    }

    /// `seq`: the last settlement. `is_quiet`: nothing is on the wire. Opens transactions.
    pub fn look(&mut self, seq: i64, is_quiet: bool, locks: &mut Locks, ticker: Ticker) {
        self.is_behind = false;
        self.pause = WHILE_BUSY;
        self.look_after(Ring::Outbox, locks, ticker);
        self.look_after(Ring::CallLog, locks, ticker);
        self.look_after(Ring::Activity, locks, ticker);
        self.forget_changes();
        let busy = seq != self.seen || self.is_behind;
        self.seen = seq;
        let pause = match busy {
            _ if self.is_behind && is_quiet => WHILE_BEHIND,
            true => self.pause,
            false => WHILE_IDLE,
        };
        let short = (self.log_retention / LOOKS_A_RETENTION).max(WHILE_BUSY);
        self.next_look = Instant::now() + pause.min(short);
    }

    /// Something was settled: sizes are worth a look.
    pub fn be_due_soon(&mut self) {
        let soon = Instant::now() + self.pause;
        self.next_look = self.next_look.min(soon);
    }

    fn look_after(&mut self, ring: Ring, locks: &mut Locks, ticker: Ticker) {
        let looked = tx::transaction(|| (segments::all(ring), segments::now()));
        match &looked {
            Err(failure) if failure.is_lock_not_available() => {
                locks.failed(Work::Upkeep, ticker.now());
            }
            _ => locks.succeeded(Work::Upkeep),
        }
        let Some((tables, now)) = self.success(looked, "look at the tables of outbox and log")
        else {
            return;
        };
        if let Some(number) = rotation::written(&tables) {
            self.note_written(ring, number);
        }
        let plan = Plan::of(&tables, now, self.limits(ring, &tables, now));
        for number in plan.empty {
            self.empty(ring, number, &tables);
        }
        if plan.close {
            self.close(ring);
        }
        if ring == Ring::Outbox {
            self.summarise(&tables);
        }
    }

    /// Also learns how fast the ring grows, and when to look again.
    fn limits(&mut self, ring: Ring, tables: &[Segment], now: i64) -> Limits {
        let part = match ring {
            Ring::Outbox | Ring::CallLog => SHARING_RINGS,
            Ring::Activity => ACTIVITY_PART,
        };
        let max_bytes = self.log_max_bytes.map(|most| most / part);
        let growth = &mut self.growth[ring as usize];
        growth.look(tables, now);
        let longest = micros(WHILE_BUSY);
        let pause = max_bytes.map_or(longest, |most| growth.pause_micros(most, longest));
        let headroom_bytes = max_bytes.map_or(0, |most| growth.headroom_bytes(most, pause));
        let pause = Duration::from_micros(pause.unsigned_abs());
        self.pause = self.pause.min(pause);
        Limits {
            retention_micros: micros(match ring {
                Ring::Outbox | Ring::CallLog => self.log_retention,
                Ring::Activity => ACTIVITY_KEPT,
            }),
            max_bytes,
            headroom_bytes,
        }
    }

    fn empty(&mut self, ring: Ring, number: i16, tables: &[Segment]) {
        let Some(written) = rotation::written(tables).filter(|_| !self.is_blocked(ring, number))
        else {
            return;
        };
        let emptied = tx::transaction(|| {
            // First without the lock: that may take a while.
            let is_kept = || segments::too_many_wait() || segments::is_needed(number);
            if ring == Ring::Outbox && is_kept() {
                return false;
            }
            segments::lock(ring, number);
            if ring == Ring::Outbox {
                // A writer may have been at it until now.
                if segments::is_needed(number) {
                    return false;
                }
                segments::move_waiting_messages(number, written);
            }
            segments::truncate(ring, number);
            if ring == Ring::Outbox {
                segments::forget_cancellations();
            }
            true
        });
        match self.success(emptied, "empty an old table of outbox or log") {
            Some(true) => {
                if ring == Ring::Outbox {
                    self.summarised[place(number)] = 0;
                }
            }
            Some(false) => self.block(ring, number, NEEDED_AGAIN),
            None => self.block(ring, number, LOCKED_AGAIN),
        }
    }

    /// Closes the written table, if another one is free.
    fn close(&mut self, ring: Ring) {
        let turned = tx::transaction(|| {
            let next = rotation::next_free(&segments::all(ring))?;
            segments::write_to(ring, next);
            Some(next)
        });
        let turned = self.success(turned, "write outbox or log to another table");
        if let Some(Some(number)) = turned {
            self.note_written(ring, number);
        }
    }

    /// Writers of the outbox learn the number from webhook.control.
    fn note_written(&mut self, ring: Ring, number: i16) {
        match ring {
            Ring::Outbox => {}
            Ring::CallLog => self.call_log_number = place(number),
            Ring::Activity => self.activity_number = place(number),
        }
    }

    fn summarise(&mut self, tables: &[Segment]) {
        for table in tables {
            let done = self.summarised[place(table.number)];
            let ranges = segments::full_ranges(done, table.row_bytes / BLOCK_BYTES);
            if ranges == 0 {
                continue;
            }
            self.is_behind |= ranges > RANGES_A_LOOK;
            let ranges = ranges.min(RANGES_A_LOOK);
            let summarised = tx::transaction(|| segments::summarise(table.number, done, ranges));
            if let Some(done) = self.success(summarised, "index the outbox by time") {
                self.summarised[place(table.number)] = done;
            }
        }
    }

    /// Who changed what is kept as long as messages are, and longer where it is about what lives.
    fn forget_changes(&mut self) {
        if Instant::now() < self.next_forget {
            return;
        }
        let retention = micros(self.log_retention);
        let forgotten = tx::transaction(|| change_log::forget(retention, CHANGES_A_LOOK));
        let forgotten = self.success(forgotten, "forget old rows of the log of changes");
        let pause = match forgotten {
            Some(number) if number as i64 >= CHANGES_A_LOOK => WHILE_BUSY,
            _ => FORGET_CHANGES
                .min(self.log_retention / LOOKS_A_RETENTION)
                .max(WHILE_BUSY),
        };
        self.next_forget = Instant::now() + pause;
    }

    /// That a lock was not free is no trouble.
    fn success<T>(&self, result: Result<T, Failure>, what: &str) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(failure) if failure.is_lock_not_available() => None,
            Err(failure) => {
                pgrx::warning!("could not {what}: {}", failure.message);
                None
            }
        }
    }
}
