//! The background worker: one process per database.
//!
//! One loop: sleep on latch, bell and timer; read what is new in one short
//! transaction; hand messages to the delivery threads; write what became of them.
//! No transaction is open while anything is on the wire. It gets out of the way
//! of DROP EXTENSION, DROP DATABASE, a reload and a shutdown, and it ends only
//! with status 0 (for good) or 1 (the postmaster starts it again).

mod backlog;
mod dispatch;
mod engine;
mod fifo;
mod message;
mod recount;
mod routes;
mod settle;
mod settled_rows;
mod tail;
mod time;
mod upkeep;
mod wall_clock;
mod withdrawals;

use std::time::{Duration, Instant};

use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::core::error::{Error, Kind};
use crate::delivery::pool::Pool;
use crate::pg::wait::{self, Waiter};
use crate::pg::{clock, invalidation, process, report, settings, tx};
use crate::store::lifecycle::{Lifecycle, Standing};
use engine::{Engine, Stores};

/// Without any wake-up the outbox is looked at this often: COMMIT PREPARED wakes nobody.
const SAFETY_LOOK: Duration = Duration::from_secs(10);
/// DROP DATABASE waits five seconds for us: often enough to be well within.
const LOOK_AROUND: Duration = Duration::from_secs(1);
/// Where each URL stood is lost with these tables. The outbox still has the messages, so
/// that the way out repeats some and loses none.
const BEGIN_ANEW: &str = "if somebody emptied its tables, this sends everything again that is in \
    webhook.outbox: truncate webhook.fold, webhook.ledger, webhook.lane, webhook.tick; \
    insert into webhook.fold values (true, 0, '3:3:', '3:3:', 0, 0)";

/// Right after the start a commit may come that could not know us yet: looks follow one
/// another at growing intervals, from here up to [`SAFETY_LOOK`].
const FIRST_LOOK: Duration = Duration::from_millis(2);
/// CREATE EXTENSION starts us just before it commits: we wait so long for it.
const WAIT_FOR_EXTENSION: Duration = Duration::from_secs(10);
/// A worker that is to leave does so within its next look around and a shutdown.
const WAIT_FOR_PREDECESSOR: Duration = Duration::from_secs(4);
const WAIT_STEP: Duration = Duration::from_millis(10);
/// Fast shutdown has to be over in five seconds, whatever receivers do.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(2);
/// After an error the loop rests, so that a lasting one does not fill the log.
const REST_AFTER_ERROR: Duration = Duration::from_secs(1);

/// While nothing may be sent anyway (delivery off, everything paused), commits are
/// counted this much later, together: each on its own would cost the writers a core.
const NAP: Duration = Duration::from_millis(20);

/// While memory is short, readers look again after this.
const WAIT_FOR_ROOM: Duration = Duration::from_millis(1);

/// What every statement of the worker runs under: nothing waits for the disk (the
/// outbox keeps the promise), no plan looks at statistics that change under it, no
/// lock is waited for long, and in a deadlock it is the worker that gives way.
const SESSION: &[(&std::ffi::CStr, &std::ffi::CStr)] = &[
    (c"search_path", c"pg_catalog, pg_temp"),
    (c"synchronous_commit", c"off"),
    (c"plan_cache_mode", c"force_generic_plan"),
    (c"enable_seqscan", c"off"),
    (c"enable_bitmapscan", c"off"),
    (c"jit", c"off"),
    (c"lock_timeout", c"2s"),
    (c"deadlock_timeout", c"50ms"),
    (c"statement_timeout", c"0"),
    (c"idle_in_transaction_session_timeout", c"0"),
    (c"default_transaction_isolation", c"read committed"),
    (c"default_transaction_read_only", c"off"),
    (c"session_replication_role", c"origin"),
];

/// The entry point that PostgreSQL calls; `database` is the argument of the
/// registration.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn webhook_worker_main(database: pg_sys::Datum) {
    process::connect(pg_sys::Oid::from(database.value() as u32));
    wait_for_predecessor();
    for (name, value) in SESSION {
        process::set_session(name, value);
    }
    invalidation::listen_once(crate::store::lifecycle::concerns);
    let lifecycle = Lifecycle::new();
    match wait_for_extension(&lifecycle) {
        Standing::Ready => {}
        Standing::Stopped | Standing::Gone | Standing::Replaced => process::exit_for_good(),
        Standing::Unfit => idle_until_it_fits(&lifecycle),
    }
    match run(&lifecycle) {
        End::ForGood => process::exit_for_good(),
        End::ToBeRestarted => process::exit_to_be_restarted(),
    }
}

/// Two sessions may start a worker at once; and after DROP and CREATE EXTENSION the old
/// one may need a moment to leave. Whoever waits in vain is not needed.
fn wait_for_predecessor() {
    let started = Instant::now();
    while !process::become_the_only_worker() {
        if started.elapsed() > WAIT_FOR_PREDECESSOR || process::shutdown_requested() {
            process::exit_for_good();
        }
        process::sleep(WAIT_STEP);
    }
}

enum End {
    ForGood,
    ToBeRestarted,
}

/// `None` if it could not be read; that may pass.
fn standing(lifecycle: &Lifecycle) -> Option<Standing> {
    match tx::transaction(|| lifecycle.standing()) {
        Ok(standing) => Some(standing),
        Err(failure) => {
            pgrx::warning!("webhook worker cannot read its tables: {}", failure.message);
            process::sleep(REST_AFTER_ERROR);
            None
        }
    }
}

fn wait_for_extension(lifecycle: &Lifecycle) -> Standing {
    let started = Instant::now();
    loop {
        let standing = standing(lifecycle).unwrap_or(Standing::Gone);
        let over = started.elapsed() > WAIT_FOR_EXTENSION;
        if standing != Standing::Gone || over || process::shutdown_requested() {
            return standing;
        }
        process::sleep(WAIT_STEP);
    }
}

/// Versions differ: the worker stays, so that captures do not start others, and does
/// nothing but look again now and then. A process has its library for life, so that a
/// new one needs a new process.
fn idle_until_it_fits(lifecycle: &Lifecycle) {
    let mut next_look = Instant::now() + SAFETY_LOOK;
    loop {
        process::sleep(LOOK_AROUND);
        if process::shutdown_requested() || process::database_is_wanted() {
            process::exit_to_be_restarted();
        }
        if Instant::now() >= next_look {
            next_look = Instant::now() + SAFETY_LOOK;
            if standing(lifecycle) != Some(Standing::Unfit) {
                process::exit_to_be_restarted();
            }
        }
    }
}

fn run(lifecycle: &Lifecycle) -> End {
    let (ring, bell) = match wait::bell() {
        Ok(pair) => pair,
        Err(error) => {
            pgrx::warning!("webhook worker cannot make its bell: {error}");
            return End::ToBeRestarted;
        }
    };
    let settings = settings::delivery();
    let pool = Pool::new(Engine::client_config(&settings), ring);
    pool.set_limit(settings.connections);
    let stores = Stores::new();
    let restored = tx::transaction(|| stores.ledger.restore());
    let engine = match restored {
        Ok(Ok(restored)) => Engine::new(stores, settings, pool, &restored),
        Ok(Err(reason)) => Err(reason),
        Err(failure) => Err(failure.message),
    };
    match engine {
        Ok(engine) => Loop::new(engine, bell).run(lifecycle),
        Err(reason) => {
            report::warn(
                Error::new(
                    Kind::NotInPrerequisiteState,
                    format!("webhook worker cannot restore its state: {reason}"),
                )
                .with_hint(BEGIN_ANEW),
            );
            process::sleep(REST_AFTER_ERROR);
            End::ToBeRestarted
        }
    }
}

struct Loop {
    engine: Engine,
    waiter: Waiter,
    /// The generation under which the extension was found in order.
    checked: u64,
    /// The generation of the definitions that are loaded.
    loaded: u64,
    look_interval: Duration,
    next_look: Instant,
    next_look_around: Instant,
    tail_is_due: bool,
    shown_busy: Option<bool>,
    /// Why the last reading failed. Worth a word only if the extension is still there.
    trouble: Option<String>,
}

impl Loop {
    fn new(engine: Engine, bell: std::os::unix::net::UnixStream) -> Self {
        Self {
            engine,
            waiter: Waiter::new(bell),
            checked: 0,
            loaded: 0,
            look_interval: FIRST_LOOK,
            next_look: Instant::now(),
            next_look_around: Instant::now() + LOOK_AROUND,
            tail_is_due: true,
            shown_busy: None,
            trouble: None,
        }
    }

    fn run(mut self, lifecycle: &Lifecycle) -> End {
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
            self.engine.take_outcomes();
            self.engine.hold_gone();
            self.engine.dispatch();
            self.read();
            self.engine.dispatch();
            self.engine.settle_if_due();
            self.engine.upkeep_if_due();
            self.engine.recount_if_due();
            self.sleep();
        }
    }

    /// Once a second: does somebody want the database, or is the extension gone?
    fn look_around(&mut self, lifecycle: &Lifecycle) -> Option<End> {
        if Instant::now() >= self.next_look_around {
            self.next_look_around = Instant::now() + LOOK_AROUND;
            if process::database_is_wanted() {
                self.finish();
                return Some(End::ToBeRestarted);
            }
            invalidation::accept();
        }
        let generation = invalidation::generation();
        if self.checked == generation && self.trouble.is_none() {
            return None;
        }
        match standing(lifecycle).unwrap_or(Standing::Ready) {
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
        let now = clock::now();
        let engine = &mut self.engine;
        engine.make_room_for_backlogs();
        let wanted = loaded != invalidation::generation()
            || self.tail_is_due
            || engine.wants_backlog()
            || engine.wants_retries(now)
            || engine.wants_waiting(now)
            || !engine.bodiless.is_empty();
        if !wanted {
            return;
        }
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
                engine.requeue_interrupted();
            }
            if !engine.bodiless.is_empty() {
                engine.read_bodies();
            }
            let more = tail_is_due && engine.read_tail();
            if engine.wants_backlog() {
                engine.read_backlogs();
            }
            if engine.wants_retries(now) {
                engine.read_due_retries();
            }
            // Last: what was read above may be a reason to ask.
            engine.read_waiting();
            Some(more)
        });
        match read {
            // First a look at whether the extension is still in order.
            Ok(None) => {}
            Ok(Some(more)) => {
                self.loaded = checked;
                self.tail_is_due = more;
                let now = self.engine.ticker.now();
                self.engine.settlement.notice_counts(now);
            }
            Err(failure) => self.trouble = Some(failure.message),
        }
    }

    fn sleep(&mut self) {
        let more = self.tail_is_due
            || self.checked != invalidation::generation()
            || self.loaded != self.checked
            || self.engine.wants_backlog()
            || self.engine.wants_waiting(clock::now())
            || !self.engine.bodiless.is_empty();
        let limit = if self.engine.queued.is_exhausted() {
            // The tail waits for lanes that move: their outcomes ring.
            WAIT_FOR_ROOM
        } else if more {
            Duration::ZERO
        } else {
            let until_look = self.next_look.saturating_duration_since(Instant::now());
            let around = self
                .next_look_around
                .saturating_duration_since(Instant::now());
            let around = around.min(self.engine.upkeep_due_in());
            self.engine
                .sleep_limit(clock::now(), until_look.min(around))
        };
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

    /// pg_stat_activity says whether we deliver or sleep.
    fn show(&mut self, limit: Duration) {
        let busy = self.engine.pool.in_flight() > 0 || limit.is_zero();
        if self.shown_busy != Some(busy) {
            self.shown_busy = Some(busy);
            let text = if busy {
                c"delivering webhooks"
            } else {
                c"waiting for changes"
            };
            process::report_activity(text, busy);
        }
    }

    /// An orderly end: interrupts the calls, writes what is known. What is on the wire
    /// stays busy in the durable state and is sent again by the next worker.
    fn finish(&mut self) {
        self.engine.take_outcomes();
        self.engine.pool.shutdown(SHUTDOWN_DEADLINE);
        self.engine.take_outcomes();
        self.engine.settle();
    }
}
