//! The background worker: one process per database.
//!
//! Here it starts and ends: it waits for its predecessor and for its extension,
//! restores the state that the last one left, and hands over to `engine`. It
//! ends only with status 0 (for good) or 1 (the postmaster starts it again).

#![cfg_attr(not(test), deny(clippy::cast_possible_truncation))]

mod definitions;
mod engine;
pub mod launcher;
mod locks;
mod maintenance;
mod message;
mod notices;
mod reading;
mod scheduling;
mod sending;
mod settled;
mod settling;
mod time;

use std::time::{Duration, Instant};

use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::core::error::{Error, Kind};
use crate::pg::registration::Assignment;
use crate::pg::{invalidation, memory, process, report, settings, tx, wait, wake};
use crate::store::blockers::BlockerStore;
use crate::store::lifecycle::{ExtensionStatus, Lifecycle};
use crate::store::settlement_log::{Restored, SettlementLog};
use engine::{Engine, Loop};

/// Without any wake-up the outbox is looked at this often.
const SAFETY_LOOK: Duration = Duration::from_secs(10);
/// DROP DATABASE waits five seconds for us: often enough to be well within.
const LOOK_AROUND: Duration = Duration::from_secs(1);
/// Where each URL stood is lost with these tables. The outbox still has the messages, so
/// that the way out repeats some and loses none.
const START_OVER: &str =
    "if its tables were emptied by hand, this sends everything again that is in \
    webhook_internal.outbox: truncate webhook_internal.compaction, webhook_internal.settlement, webhook_internal.lane, webhook_internal.tick; \
    insert into webhook_internal.compaction values (true, 0, '3:3:', '3:3:', 0, 0)";

/// CREATE EXTENSION starts us just before it commits: we wait so long for it.
const WAIT_FOR_EXTENSION: Duration = Duration::from_secs(10);
/// A worker that is to leave does so within its next look around and a shutdown.
const WAIT_FOR_PREDECESSOR: Duration = Duration::from_secs(4);
const WAIT_STEP: Duration = Duration::from_millis(10);
/// After an error the loop rests, so that a lasting one does not fill the log.
const REST_AFTER_ERROR: Duration = Duration::from_secs(1);

/// Between attempts to restore the state, which double their pause up to this.
const LONGEST_REST: Duration = Duration::from_secs(30);

/// Where the state of the last worker is read from.
const RESTORED_TABLES: &[&str] = &["settlement", "compaction", "lane"];
/// What goes on is logged once in this time.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// What every statement of the worker runs under, whatever the database or the role sets:
/// nothing waits for the disk (the outbox keeps the promise), no plan looks at statistics that
/// change under it, no lock is waited for long, in a deadlock it is the worker that gives way,
/// and no limit of time or space ends a statement.
const SESSION: &[(&std::ffi::CStr, &std::ffi::CStr)] = &[
    (c"exit_on_error", c"off"),
    (c"role", c"none"),
    (c"row_security", c"on"),
    (c"search_path", c"pg_catalog, pg_temp"),
    (c"standard_conforming_strings", c"on"),
    (c"session_replication_role", c"origin"),
    (c"synchronous_commit", c"off"),
    (c"plan_cache_mode", c"force_generic_plan"),
    (c"enable_indexscan", c"on"),
    (c"enable_indexonlyscan", c"on"),
    (c"enable_nestloop", c"on"),
    (c"enable_seqscan", c"off"),
    (c"enable_bitmapscan", c"off"),
    (c"jit", c"off"),
    (c"max_parallel_workers_per_gather", c"0"),
    #[cfg(feature = "pg15")]
    (c"force_parallel_mode", c"off"),
    #[cfg(not(feature = "pg15"))]
    (c"debug_parallel_query", c"off"),
    (c"lock_timeout", locks::LOCK_TIMEOUT),
    (c"deadlock_timeout", c"30ms"),
    (c"statement_timeout", c"0"),
    (c"idle_in_transaction_session_timeout", c"0"),
    (c"idle_session_timeout", c"0"),
    #[cfg(any(feature = "pg17", feature = "pg18"))]
    (c"transaction_timeout", c"0"),
    (c"temp_file_limit", c"-1"),
    (c"default_transaction_isolation", c"read committed"),
    (c"default_transaction_read_only", c"off"),
    (c"default_transaction_deferrable", c"off"),
    // webhook.worker shows what the worker says in pg_stat_activity, and autovacuum follows the
    // counts.
    (c"track_activities", c"on"),
    (c"track_counts", c"on"),
];

/// The entry point that PostgreSQL calls.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn webhook_worker_main(argument: pg_sys::Datum) {
    let assignment = Assignment::from_argument(argument);
    process::connect(assignment.database);
    let notes = wake::Notes::own();
    // Left by the process that had our place before.
    notes.set_active(false);
    // The launcher starts workers on suspicion: they wait for nothing.
    let (predecessor, extension) = if assignment.by_launcher {
        (Duration::ZERO, Duration::ZERO)
    } else {
        (WAIT_FOR_PREDECESSOR, WAIT_FOR_EXTENSION)
    };
    wait_for_predecessor(predecessor);
    // Before anything is read: what is committed from here on is told to us and to no other.
    notes.set_active(true);
    process::be_who_we_are();
    for (name, value) in SESSION {
        process::set_session(name, value);
    }
    wait_to_be_findable();
    invalidation::listen_once(crate::store::lifecycle::concerns);
    let lifecycle = Lifecycle::new();
    match wait_for_extension(&lifecycle, extension) {
        ExtensionStatus::Ready => {}
        ExtensionStatus::Stopped | ExtensionStatus::Gone | ExtensionStatus::Replaced => {
            process::exit_for_good()
        }
        ExtensionStatus::Unusable | ExtensionStatus::Held => idle_until_it_may_work(&lifecycle),
    }
    match run(&lifecycle) {
        End::ForGood => process::exit_for_good(),
        End::ToBeRestarted => process::exit_to_be_restarted(),
    }
}

/// Two sessions may start a worker at once; and after DROP and CREATE EXTENSION the old
/// one may need a moment to leave. One that waits in vain, or is not the first to wait, is not
/// needed.
fn wait_for_predecessor(limit: Duration) {
    let started = Instant::now();
    if process::become_the_only_worker() {
        return;
    }
    if !process::become_the_only_one_that_waits() {
        process::exit_for_good();
    }
    while !process::become_the_only_worker() {
        if started.elapsed() > limit || process::shutdown_requested() {
            process::exit_for_good();
        }
        process::sleep(WAIT_STEP);
    }
    process::let_another_one_wait();
}

/// What is committed from now on is told to us, so that all that was committed before may be
/// read now.
fn wait_to_be_findable() {
    while !wake::is_findable() && !process::shutdown_requested() {
        process::sleep(WAIT_STEP);
    }
}

enum End {
    ForGood,
    ToBeRestarted,
}

/// `None` if it could not be read; that may pass.
fn extension_status(lifecycle: &Lifecycle) -> Option<ExtensionStatus> {
    match tx::as_process(|| lifecycle.status()) {
        Ok(status) => Some(status),
        // The code that waits for it shows it.
        Err(failure) if failure.is_lock_not_available() => None,
        Err(failure) => {
            pgrx::warning!("webhook worker cannot read its tables: {}", failure.message);
            process::sleep(REST_AFTER_ERROR);
            None
        }
    }
}

fn wait_for_extension(lifecycle: &Lifecycle, limit: Duration) -> ExtensionStatus {
    let started = Instant::now();
    loop {
        let found = extension_status(lifecycle);
        // That it could not be read says nothing about whether it is there.
        let limit = found.map_or(WAIT_FOR_EXTENSION, |_| limit);
        let over = started.elapsed() > limit || process::shutdown_requested();
        match found.unwrap_or(ExtensionStatus::Gone) {
            ExtensionStatus::Gone if !over => process::sleep(WAIT_STEP),
            status => return status,
        }
    }
}

/// Versions differ, or this is a copy: the worker stays, so that captures do not start
/// others, says why, and looks again until it may work.
fn idle_until_it_may_work(lifecycle: &Lifecycle) {
    let mut found = ExtensionStatus::Unusable;
    let (mut seen, mut next_look) = (0, Instant::now());
    loop {
        let generation = invalidation::generation();
        if generation != seen || Instant::now() >= next_look {
            found = extension_status(lifecycle).unwrap_or(found);
            match found {
                ExtensionStatus::Ready => return,
                ExtensionStatus::Stopped | ExtensionStatus::Gone => process::exit_for_good(),
                ExtensionStatus::Replaced => process::exit_to_be_restarted(),
                ExtensionStatus::Unusable | ExtensionStatus::Held => {}
            }
            // The tables of another version are not watched.
            let pause = match found {
                ExtensionStatus::Unusable => LOOK_AROUND,
                _ => SAFETY_LOOK,
            };
            (seen, next_look) = (generation, Instant::now() + pause);
            let reason = lifecycle.reason().unwrap_or_default();
            process::report_activity(&format!("idle{}{reason}", process::DETAIL_MARK), false);
        }
        process::sleep(LOOK_AROUND);
        if process::shutdown_requested() || process::database_is_wanted() {
            process::exit_to_be_restarted();
        }
        process::reload_if_requested();
        invalidation::accept();
    }
}

/// What the last worker left. Waits while another session holds a lock on it; `None` if the
/// worker is to leave meanwhile.
fn restore() -> Option<Result<Result<Restored, String>, tx::Failure>> {
    let (log, blockers) = (SettlementLog::new(), BlockerStore::new());
    let mut logged = None;
    loop {
        match tx::transaction(|| log.restore()) {
            Err(failure) if failure.is_lock_not_available() => {}
            restored => return Some(restored),
        }
        if let Some(text) = locks::what_keeps_us(&blockers, RESTORED_TABLES) {
            let doing = format!("waiting to start{}{text}", process::DETAIL_MARK);
            process::report_activity(&doing, false);
            if logged.is_none_or(|at: Instant| at.elapsed() >= LOG_EVERY) {
                logged = Some(Instant::now());
                pgrx::warning!("webhook worker {text}");
            }
        }
        process::sleep(REST_AFTER_ERROR);
        if process::shutdown_requested() || process::database_is_wanted() {
            return None;
        }
    }
}

/// A worker that cannot begin keeps its place and tries again: one that ends is started again
/// every second.
fn run(lifecycle: &Lifecycle) -> End {
    memory::release_large_blocks();
    let mut pause = REST_AFTER_ERROR;
    loop {
        let reason = match begin() {
            Some(Ok(ready)) => return ready.run(lifecycle),
            Some(Err(reason)) => reason,
            None => return End::ToBeRestarted,
        };
        let error = Error::new(
            Kind::NotInPrerequisiteState,
            format!("webhook worker cannot restore its state: {reason}"),
        );
        let shown = format!("idle{}{}", process::DETAIL_MARK, error.message);
        process::report_activity(&shown, false);
        report::warn(error.with_hint(START_OVER));
        if !may_try_again(lifecycle, pause) {
            return End::ToBeRestarted;
        }
        pause = (pause * 2).min(LONGEST_REST);
    }
}

/// Waits; `false` if the worker must leave.
fn may_try_again(lifecycle: &Lifecycle, pause: Duration) -> bool {
    let started = Instant::now();
    while started.elapsed() < pause {
        process::sleep(LOOK_AROUND.min(pause));
        if process::shutdown_requested() || process::database_is_wanted() {
            return false;
        }
        process::reload_if_requested();
        invalidation::accept();
    }
    extension_status(lifecycle).is_none_or(|found| found == ExtensionStatus::Ready)
}

/// `None` if the worker is to leave.
fn begin() -> Option<Result<Loop, String>> {
    let restored = match restore()? {
        Ok(Ok(restored)) => restored,
        Ok(Err(reason)) => return Some(Err(reason)),
        Err(failure) => return Some(Err(failure.message)),
    };
    let (wake, wakeup) = match wait::wakeup_pipe() {
        Ok(pair) => pair,
        Err(error) => return Some(Err(format!("cannot make its wake-up pipe: {error}"))),
    };
    let notes = wake::Notes::own();
    let engine = Engine::new(&settings::delivery(), restored, wake, notes);
    Some(engine.map(|engine| Loop::new(engine, notes, wakeup)))
}
