//! The worker's loop: sleep on latch, wake-up pipe and timer; read what is new in one short
//! transaction; hand messages to the delivery threads; write what became of them.
//!
//! No transaction waits for a call. The loop gets out of the way of DROP EXTENSION, DROP
//! DATABASE, a reload and a shutdown. What cannot be read is tried again.

use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::Engine;
use crate::pg::wait::Waiter;
use crate::pg::wake::Notes;
use crate::pg::{invalidation, prepared, process, settings, tx};
use crate::store::lifecycle::{ExtensionStatus, Lifecycle};
use crate::worker::locks::Work;
use crate::worker::notices::Topic;
use crate::worker::{extension_status, End, LOOK_AROUND, REST_AFTER_ERROR, SAFETY_LOOK};

/// Right after the start a commit may come that could not know us yet: looks follow one
/// another at growing intervals, from here up to [`SAFETY_LOOK`].
const FIRST_LOOK: Duration = Duration::from_millis(2);
/// Fast shutdown has to be over in five seconds, whatever receivers do.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(2);

/// While nothing may be sent anyway (delivery off, everything paused), commits are
/// counted this much later, together: each on its own would cost the writers a core.
const NAP: Duration = Duration::from_millis(20);

/// Definitions that have changed and cannot be read for longer than this are worth a word:
/// nothing is sent until then.
const SAY_STALE_AFTER: Duration = Duration::from_secs(1);

/// While a transaction of this database is prepared, any session may commit it, also one
/// that does not know this library.
const LOOK_WHILE_PREPARED: Duration = Duration::from_millis(100);

/// While memory is short, readers look again after this.
const WAIT_FOR_ROOM: Duration = Duration::from_millis(1);

/// See the module.
pub struct Loop {
    engine: Engine,
    notes: Notes,
    waiter: Waiter,
    /// The generation under which the extension was found in order, and that of the roles.
    checked: u64,
    checked_roles: u64,
    /// The last look could not be finished: the next look around tries again.
    unsure: bool,
    /// The generation of the definitions that are loaded.
    loaded: u64,
    /// Since when nothing may be sent, because something changed that is not read.
    stale_since: Option<Instant>,
    look_interval: Duration,
    next_look: Instant,
    next_look_around: Instant,
    tail_is_due: bool,
    /// A transaction of this database was prepared and has not ended, at the last look.
    any_prepared: bool,
    shown_busy: Option<bool>,
    /// Why the last reading failed. Worth a word only if the extension is still there.
    read_failure: Option<String>,
    /// The same, for as long as nothing may be sent.
    read_error: String,
}

impl Loop {
    pub(in crate::worker) fn new(engine: Engine, notes: Notes, wakeup: UnixStream) -> Self {
        Self {
            engine,
            notes,
            waiter: Waiter::new(wakeup),
            checked: 0,
            checked_roles: 0,
            unsure: false,
            loaded: 0,
            stale_since: None,
            look_interval: FIRST_LOOK,
            next_look: Instant::now(),
            next_look_around: Instant::now() + LOOK_AROUND,
            tail_is_due: true,
            any_prepared: false,
            shown_busy: None,
            read_failure: None,
            read_error: String::new(),
        }
    }

    pub(in crate::worker) fn run(mut self, lifecycle: &Lifecycle) -> End {
        // Which tables are written has to be known first.
        self.engine.maintain_if_due();
        // And which part of the rates is this node's.
        self.engine.apply_cluster_definitions();
        loop {
            if process::shutdown_requested() {
                self.finish();
                return End::ToBeRestarted;
            }
            #[cfg(feature = "fault_injection")]
            {
                crate::pg::fault::panic_if("loop");
                crate::pg::fault::delay_if("slow_loop", Duration::from_millis(300));
            }
            if process::reload_if_requested() {
                self.engine.reconfigure(&settings::delivery());
                // What waited for standbys need not wait any more.
                self.tail_is_due = true;
                invalidation::mark_stale();
            }
            if let Some(end) = self.look_around(lifecycle) {
                return end;
            }
            self.engine.adjust_for_clock_step();
            self.engine.release_what_was_locked();
            self.catch_up();
            self.take_and_dispatch();
            self.engine.look_at_standbys();
            self.read();
            self.take_and_dispatch();
            self.engine.settle_if_due();
            self.engine.apply_cluster_definitions();
            self.engine.look_at_events();
            self.tail_is_due |= std::mem::take(&mut self.engine.made_messages);
            self.engine.maintain_if_due();
            self.engine.reconcile_if_due();
            self.engine.say_what_is_wrong();
            self.sleep();
        }
    }

    /// What other sessions have told since. Calls wait until what changed is read.
    fn catch_up(&mut self) {
        if self.notes.has_forbids() {
            self.engine.sender.allowance().withdraw();
            self.notes.take_forbids();
        }
        self.tail_is_due |= self.notes.take_committed();
        invalidation::accept();
        if self.loaded == invalidation::generation() {
            self.engine.sender.allowance().give_again();
        } else {
            self.engine.sender.allowance().withdraw();
        }
        self.mind_staleness();
    }

    fn mind_staleness(&mut self) {
        if self.engine.sender.allowance().is_given() {
            if self.stale_since.take().is_some() {
                self.read_error.clear();
                self.engine.notices.set(Topic::Stale, None);
            }
            return;
        }
        let since = *self.stale_since.get_or_insert_with(Instant::now);
        if since.elapsed() >= SAY_STALE_AFTER {
            let mut text = "nothing is sent until changed definitions can be read".to_owned();
            if !self.read_error.is_empty() {
                text = format!("{text}: {}", self.read_error);
            }
            self.engine.notices.set(Topic::Stale, Some(text));
        }
    }

    /// What ended, and what may start in its place. What was canceled, paused or changed is
    /// known before the end of a call is judged.
    fn take_and_dispatch(&mut self) {
        if self.engine.sender.allowance().is_given() {
            self.engine.take_outcomes();
            self.engine.dispatch();
        } else {
            self.engine.scheduler.wake();
        }
    }

    /// Once a second: does another session need exclusive access to the database, or is the extension gone?
    fn look_around(&mut self, lifecycle: &Lifecycle) -> Option<End> {
        let mut tries_again = false;
        if Instant::now() >= self.next_look_around {
            self.next_look_around = Instant::now() + LOOK_AROUND;
            if process::database_is_wanted() {
                self.finish();
                return Some(End::ToBeRestarted);
            }
            self.engine.report_given_up();
            invalidation::accept();
            tries_again = self.unsure;
        }
        let generation = invalidation::generation();
        let roles = invalidation::role_generation();
        let is_known = (self.checked, self.checked_roles) == (generation, roles)
            && self.read_failure.is_none()
            && !tries_again;
        if is_known {
            return None;
        }
        let found = extension_status(lifecycle);
        self.unsure = found.is_none();
        match found.unwrap_or(ExtensionStatus::Ready) {
            ExtensionStatus::Ready => {
                (self.checked, self.checked_roles) = (generation, roles);
                if lifecycle.take_account_changed() {
                    self.engine.reconfigure(&settings::delivery());
                }
                if let Some(read_failure) = self.read_failure.take() {
                    pgrx::warning!("webhook worker could not read: {read_failure}");
                    process::sleep(REST_AFTER_ERROR);
                }
                None
            }
            ExtensionStatus::Stopped => {
                self.finish();
                Some(End::ForGood)
            }
            // There is nothing left to write to.
            ExtensionStatus::Gone => {
                self.engine.sender.shutdown(SHUTDOWN_DEADLINE);
                Some(End::ForGood)
            }
            // What calls have come to is still written: it belongs to the log of this copy.
            ExtensionStatus::Held => {
                self.finish();
                Some(End::ToBeRestarted)
            }
            ExtensionStatus::Replaced | ExtensionStatus::Unusable => {
                self.engine.sender.shutdown(SHUTDOWN_DEADLINE);
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
                engine.read_definitions();
            }
            Some(engine.read_what_is_due(tail_is_due))
        });
        match read {
            // First a look at whether the extension is still in order.
            Ok(None) => {}
            Ok(Some(more)) => {
                engine.reading_is_committed();
                engine.locks.succeeded(Work::Definitions);
                if loaded != checked {
                    self.loaded = checked;
                    self.engine.sender.allowance().give();
                    self.mind_staleness();
                }
                self.tail_is_due = more;
                if tail_is_due {
                    self.look_while_prepared();
                }
                self.engine.settler.notice_counts();
            }
            Err(failure) if failure.is_lock_not_available() => {
                engine.reading_failed();
                engine.locks.failed(Work::Definitions, engine.ticker.now());
            }
            Err(failure) => {
                engine.reading_failed();
                self.read_error.clone_from(&failure.message);
                self.read_failure = Some(failure.message);
                // What standbys have confirmed is not known any more.
                self.tail_is_due = true;
            }
        }
    }

    fn look_while_prepared(&mut self) {
        self.any_prepared = prepared::any_runs(&self.engine.reader.tail_position().window.to);
        if self.any_prepared {
            let soon = Instant::now() + LOOK_WHILE_PREPARED;
            self.next_look = self.next_look.min(soon);
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
            || ((self.tail_is_due || engine.wants_outbox()) && engine.may_try(Work::Outbox))
            || engine.may_read_owed()
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
            let interval = if self.any_prepared {
                self.look_interval.min(LOOK_WHILE_PREPARED)
            } else {
                self.look_interval
            };
            self.next_look = Instant::now() + interval;
        }
    }

    /// How long nothing is due, if nobody rings.
    fn sleep_limit(&self) -> Duration {
        let more = self.wants_to_read()
            || self.engine.may_read_waiting()
            // What came during our own transactions: a lock wait resets the latch.
            || self.notes.has_committed()
            || self.notes.has_forbids()
            || process::shutdown_requested();
        if self.engine.scheduler.memory_is_exhausted() {
            // The tail waits for lanes that move: their outcomes ring.
            return WAIT_FOR_ROOM;
        }
        if more {
            return Duration::ZERO;
        }
        let now = Instant::now();
        let until_look = self.next_look.saturating_duration_since(now);
        let around = self.next_look_around.saturating_duration_since(now);
        let longest = until_look.min(around).min(self.engine.maintenance.due_in());
        self.engine.sleep_limit(longest)
    }

    /// pg_stat_activity says whether we deliver or sleep.
    fn show(&mut self, limit: Duration) {
        let busy = self.engine.sender.in_flight() > 0 || limit.is_zero();
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
        self.engine.sender.shutdown(SHUTDOWN_DEADLINE);
        self.engine.take_outcomes();
        self.engine.settle_at_last();
    }
}
