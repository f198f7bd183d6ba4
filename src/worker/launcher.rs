//! The launcher: a worker for every database when the server starts.
//!
//! Only where the library is preloaded. It runs once, after recovery, so on a standby when
//! that is promoted; looks which databases there are; starts a worker for each, which
//! leaves at once where it finds no extension; and ends. Databases that come later get
//! their worker from CREATE EXTENSION or from their first captured change.

use std::time::{Duration, Instant};

use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::core::error::{Error, Kind};
use crate::pg::registration::{self, Registered};
use crate::pg::{databases, process, report, settings, tx};

/// A worker that is not needed is gone by then. One database after the other, so that
/// a server with many of them needs no more slots than it has workers.
const DECIDES_WITHIN: Duration = Duration::from_millis(500);
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// So long for a free slot: workers that were not needed may be about to leave.
const WAIT_FOR_SLOT: Duration = Duration::from_secs(5);

/// Registers the launcher with the postmaster, if that is loading us at its start.
pub fn register_at_start() {
    if registration::is_preloading() && settings::database_workers() {
        registration::register_launcher();
    }
}

/// The entry point that PostgreSQL calls.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn webhook_launcher_main(_argument: pg_sys::Datum) {
    process::connect_to_shared_catalogs();
    match tx::as_process(databases::connectable) {
        Ok(databases) => {
            start_workers(&databases);
            process::exit_for_good();
        }
        Err(failure) => {
            pgrx::warning!(
                "webhook launcher cannot read pg_database: {}",
                failure.message
            );
            process::exit_to_be_restarted();
        }
    }
}

fn start_workers(databases: &[pg_sys::Oid]) {
    for (place, database) in databases.iter().enumerate() {
        let Some(worker) = register(*database) else {
            let left = databases.len() - place;
            report::warn(
                Error::new(
                    Kind::NotInPrerequisiteState,
                    format!(
                        "no background worker slot is free for the webhooks of {left} database(s)"
                    ),
                )
                .with_hint(
                    "raise max_worker_processes (one for each database with webhooks, one for \
                     the launcher while it starts them) and restart the server",
                ),
            );
            return;
        };
        wait_until(DECIDES_WITHIN, || worker.has_ended().then_some(()));
    }
}

fn register(database: pg_sys::Oid) -> Option<Registered> {
    wait_until(WAIT_FOR_SLOT, || registration::register_worker_of(database))
}

fn wait_until<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let started = Instant::now();
    loop {
        let seen = look();
        if seen.is_some() || started.elapsed() > limit {
            return seen;
        }
        if process::shutdown_requested() {
            process::exit_to_be_restarted();
        }
        process::sleep(LOOK_EVERY);
    }
}
