//! The worker's loop: sleep on latch, bell and timer; read what is new in one short
//! transaction; hand messages to the delivery threads; write what became of them.
//!
//! No transaction waits for a call. The loop gets out of the way of DROP EXTENSION, DROP
//! DATABASE, a reload and a shutdown. What cannot be read is tried again.

use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::engine::Engine;
use super::locks::Work;
use super::{standing, End, LOOK_AROUND, REST_AFTER_ERROR, SAFETY_LOOK};
use crate::pg::wait::Waiter;
use crate::pg::{clock, invalidation, process, settings, tx};
use crate::store::lifecycle::{Lifecycle, Standing};

/// Right after the start a commit may come that could not know us yet: looks follow one
/// another at growing intervals, from here up to [`SAFETY_LOOK`].
const FIRST_LOOK: Duration = Duration::from_millis(2);
/// Fast shutdown has to be over in five seconds, whatever receivers do.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(2);

/// While nothing may be sent anyway (delivery off, everything paused), commits are
/// counted this much later, together: each on its own would cost the writers a core.
const NAP: Duration = Duration::from_millis(20);

/// What was canceled, paused or changed is known before the next call starts, and before
/// the end of one is judged. Were somebody to change things all the time, or the tables
/// unreadable, it goes on after this.
const STALE_AT_MOST: Duration = Duration::from_secs(1);

/// While memory is short, readers look again after this.
const WAIT_FOR_ROOM: Duration = Duration::from_millis(1);

/// See the module.
pub(super) struct Loop {
    engine: Engine,
    waiter: Waiter,
    /// The generation under which the extension was found in order.
    checked: u64,
    /// The last look could not be finished: the next look around tries again.
    unsure: bool,
    /// The generation of the definitions that are loaded.
    loaded: u64,
    /// Since when it is not the present one.
    stale_since: Option<Instant>,
    look_interval: Duration,
    next_look: Instant,
    next_look_around: Instant,
    tail_is_due: bool,
    shown_busy: Option<bool>,
    /// Why the last reading failed. Worth a word only if the extension is still there.
    trouble: Option<String>,
}

impl Loop {
    pub(super) fn new(engine: Engine, bell: UnixStream) -> Self {
        Self {
            engine,
            waiter: Waiter::new(bell),
            checked: 0,
            unsure: false,
            loaded: 0,
            stale_since: None,
            look_interval: FIRST_LOOK,
            next_look: Instant::now(),
            next_look_around: Instant::now() + LOOK_AROUND,
            tail_is_due: true,
            shown_busy: None,
            trouble: None,
        }
    }

    pub(super) fn run(mut self, lifecycle: &Lifecycle) -> End {
        // Which tables are written has to be known first.
        self.engine.upkeep_if_due();
        loop {
            if process::shutdown_requested() {
                self.finish();
                return End::ToBeRestarted;
            }
            #[cfg(feature = "fault_injection")]
            crate::pg::fault::panic_if("loop");
            if process::reload_if_requested() {
                self.engine.reload(settings::delivery());
                invalidation::mark_stale();
            }
            if let Some(end) = self.look_around(lifecycle) {
                return end;
            }
            self.engine.mind_the_wall_clock();
            invalidation::accept();
            self.take_and_dispatch();
            self.read();
            self.take_and_dispatch();
            self.engine.settle_if_due();
            self.engine.upkeep_if_due();
            self.engine.recount_if_due();
            self.engine.show_broken_if_due();
            self.engine.show_locks_if_due();
            self.sleep();
        }
    }

    /// What ended, and what may start in its place.
    fn take_and_dispatch(&mut self) {
        let knows_all = self.loaded == invalidation::generation();
        let stale_since = match self.stale_since {
            _ if knows_all => None,
            since => since.or_else(|| Some(Instant::now())),
        };
        self.stale_since = stale_since;
        if stale_since.is_none_or(|since| since.elapsed() >= STALE_AT_MOST) {
            self.engine.take_outcomes();
            self.engine.hold_gone();
            self.engine.dispatch();
        }
    }

    /// Once a second: does somebody want the database, or is the extension gone?
    fn look_around(&mut self, lifecycle: &Lifecycle) -> Option<End> {
        let mut tries_again = false;
        if Instant::now() >= self.next_look_around {
            self.next_look_around = Instant::now() + LOOK_AROUND;
            if process::database_is_wanted() {
                self.finish();
                return Some(End::ToBeRestarted);
            }
            invalidation::accept();
            tries_again = self.unsure;
        }
        let generation = invalidation::generation();
        let is_known = self.checked == generation && self.trouble.is_none() && !tries_again;
        if is_known {
            return None;
        }
        let found = standing(lifecycle);
        self.unsure = found.is_none();
        match found.unwrap_or(Standing::Ready) {
            Standing::Ready => {
                self.checked = generation;
                if let Some(trouble) = self.trouble.take() {
                    pgrx::warning!("webhook worker could not read: {trouble}");
                    process::sleep(REST_AFTER_ERROR);
                }
                None
            }
            Standing::Stopped => {
                self.finish();
                Some(End::ForGood)
            }
            // There is nothing left to write to.
            Standing::Gone => {
                self.engine.pool.shutdown(SHUTDOWN_DEADLINE);
                Some(End::ForGood)
            }
            Standing::Replaced | Standing::Unfit => {
                self.engine.pool.shutdown(SHUTDOWN_DEADLINE);
                Some(End::ToBeRestarted)
            }
        }
    }

    /// Everything that wants to be read, in one short transaction.
    fn read(&mut self) {
        let (checked, loaded) = (self.checked, self.loaded);
        self.engine.make_room_for_backlogs();
        if !self.wants_to_read() && !self.engine.may_read_retries() {
            return;
        }
        let engine = &mut self.engine;
        let tail_is_due = self.tail_is_due;
        let read = tx::transaction(|| {
            // With the snapshot in hand: what was changed before a message was committed
            // is known before the message is read.
            invalidation::accept();
            if checked != invalidation::generation() {
                return None;
            }
            if loaded != checked {
                engine.load_definitions();
            }
            Some(engine.read_what_is_due(tail_is_due))
        });
        match read {
            // First a look at whether the extension is still in order.
            Ok(None) => {}
            Ok(Some(more)) => {
                engine.locks.succeeded(Work::Definitions);
                self.loaded = checked;
                self.tail_is_due = more;
                let now = self.engine.ticker.now();
                self.engine.settlement.notice_counts(now);
            }
            Err(failure) if failure.is_lock_not_available() => {
                engine.locks.failed(Work::Definitions, engine.ticker.now());
            }
            Err(failure) => self.trouble = Some(failure.message),
        }
    }

    /// Whether anything is to be read at once, and no lock was in its way a moment ago. Retries
    /// have a time of their own.
    fn wants_to_read(&self) -> bool {
        let engine = &self.engine;
        let generation = invalidation::generation();
        if !engine.may_try(Work::Definitions) {
            return false;
        }
        self.checked != generation
            || self.loaded != generation
            || ((self.tail_is_due || !engine.bodiless.is_empty()) && engine.may_try(Work::Outbox))
            || (engine.wants_backlog() && engine.may_try(Work::Backlogs))
    }

    fn sleep(&mut self) {
        let limit = self.sleep_limit();
        self.show(limit);
        let woken = self.waiter.wait(limit);
        if woken.by_latch {
            if self.engine.nobody_waits() {
                // While we are not in a wait, a COMMIT sets the latch without a signal.
                std::thread::sleep(NAP);
            }
            self.tail_is_due = true;
        }
        if Instant::now() >= self.next_look {
            self.tail_is_due = true;
            self.look_interval = (self.look_interval * 2).min(SAFETY_LOOK);
            self.next_look = Instant::now() + self.look_interval;
        }
    }

    /// How long nothing is due, if nobody rings.
    fn sleep_limit(&self) -> Duration {
        let more = self.wants_to_read() || self.engine.may_read_waiting();
        if self.engine.queued.is_exhausted() {
            // The tail waits for lanes that move: their outcomes ring.
            return WAIT_FOR_ROOM;
        }
        if more {
            return Duration::ZERO;
        }
        let now = Instant::now();
        let until_look = self.next_look.saturating_duration_since(now);
        let around = self.next_look_around.saturating_duration_since(now);
        let longest = until_look.min(around).min(self.engine.upkeep_due_in());
        self.engine.sleep_limit(clock::now(), longest)
    }

    /// pg_stat_activity says whether we deliver or sleep.
    fn show(&mut self, limit: Duration) {
        let busy = self.engine.pool.in_flight() > 0 || limit.is_zero();
        if self.engine.notices.take_changed() || self.shown_busy != Some(busy) {
            self.shown_busy = Some(busy);
            let doing = if busy {
                "delivering webhooks"
            } else {
                "waiting for changes"
            };
            process::report_activity(&self.engine.notices.activity(doing), busy);
        }
    }

    /// An orderly end: interrupts the calls, writes what is known. What is on the wire
    /// stays busy in the durable state and is sent again by the next worker.
    fn finish(&mut self) {
        self.engine.take_outcomes();
        self.engine.pool.shutdown(SHUTDOWN_DEADLINE);
        self.engine.take_outcomes();
        self.engine.settle_at_last();
    }
}
