//! Pausing, waiting, and the worker by hand.

use std::time::{Duration, Instant};

use pgrx::datum::{Interval, TimestampWithTimeZone};
use pgrx::prelude::*;

use super::{adopt, everywhere};
use crate::core::error::{Error, Result};
use crate::pg::arguments::{required_word, TextArgument};
use crate::pg::local_settings::with_settings;
use crate::pg::owner::current_role;
use crate::pg::report::ok_or_raise;
use crate::pg::{commit_start, liveness, poll, recovery, registration, settings, wake};
use crate::store::{change_log, identity, idleness, webhook_definitions, worker_switch};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
/// Short beside what a call takes, long beside what a look costs.
const PAUSE: Duration = Duration::from_millis(5);
/// Long enough for a worker to start, and to end if it cannot.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// The worker ends within this even if receivers hang.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// A worker that this session has registered runs by then, or does not start.
const STARTS_WITHIN: Duration = Duration::from_secs(10);

pub const DAY_MICROS: i128 = 86_400_000_000;

/// An interval as PostgreSQL compares it: a month has 30 days.
pub fn micros(interval: &Interval) -> i128 {
    i128::from(interval.months()) * 30 * DAY_MICROS
        + i128::from(interval.days()) * DAY_MICROS
        + i128::from(interval.micros())
}

#[pg_extern(sql = false)]
fn pause_webhook(webhook: Option<TextArgument>) {
    set_paused(webhook, true);
}

#[pg_extern(sql = false)]
fn resume_webhook(webhook: Option<TextArgument>) {
    set_paused(webhook, false);
}

fn set_paused(webhook: Option<TextArgument>, paused: bool) {
    let found =
        required_word(webhook, "webhook").and_then(|webhook| webhook_definitions::find(&webhook));
    let (key, _) = ok_or_raise(found);
    webhook_definitions::set_paused(key, paused, &current_role());
}

#[pg_extern(sql = false)]
fn wait_idle(timeout: Option<Interval>) -> bool {
    let limit = ok_or_raise(checked_timeout(timeout));
    let began = Instant::now();
    let mut asked_at: Option<Instant> = None;
    let mut look = || {
        if idleness::is_idle() {
            return true;
        }
        // The worker may sleep until its next look, may not run, or may end during the wait.
        if asked_at.is_none_or(|at| at.elapsed() >= ASK_AGAIN_AFTER) {
            asked_at = Some(Instant::now());
            ok_or_raise(adopt::check_is_not_held("wait: nothing is sent"));
            ok_or_raise(ensure_worker());
        }
        false
    };
    // Compiling the look would take longer than a thousand of them.
    with_settings(&[(c"jit", "off")], || {
        let is_idle = poll::poll_until(limit, PAUSE, &mut look);
        if let Some((calls, next)) = is_idle.then(idleness::later).flatten() {
            pgrx::notice!("{calls} calls wait for a retry, the next one is due at {next}");
        }
        let left = limit.saturating_sub(began.elapsed());
        is_idle
            && everywhere::all(&format!(
                "webhook.wait_idle('{} milliseconds')",
                left.as_millis()
            ))
    })
}

/// The worker of this database, if it is alive.
fn live_worker() -> Option<i32> {
    wake::running_worker().filter(|pid| liveness::is_alive(*pid))
}

/// Wakes the worker, or starts it unless it was stopped by hand.
fn ensure_worker() -> Result<()> {
    if live_worker().is_some() {
        wake::wake_worker();
    } else if !worker_switch::is_stopped() {
        wake::start_worker()?;
    }
    Ok(())
}

fn checked_timeout(timeout: Option<Interval>) -> Result<Duration> {
    let Some(timeout) = timeout else {
        return Ok(DEFAULT_TIMEOUT);
    };
    match u64::try_from(micros(&timeout)) {
        Ok(micros) => Ok(Duration::from_micros(micros)),
        Err(_) => Err(
            Error::invalid(format!("timeout \"{timeout}\" is negative or too long"))
                .with_hint("use an interval like '30 seconds'"),
        ),
    }
}

#[pg_extern(sql = false)]
fn start_worker() -> bool {
    ok_or_raise(recovery::check_is_over(wake::CANNOT_START));
    if worker_switch::set_stopped(false) {
        change_log::worker_switched("start", &current_role());
        let absent = live_worker().is_none();
        commit_start::start_worker_at_commit();
        return absent;
    }
    ok_or_raise(wake::start_worker())
}

#[pg_extern(sql = false)]
fn stop_worker() -> bool {
    if worker_switch::set_stopped(true) {
        change_log::worker_switched("stop", &current_role());
    }
    let Some(pid) = live_worker() else {
        return false;
    };
    worker_switch::terminate(pid);
    poll::poll_until(STOP_LIMIT, PAUSE, || !liveness::is_alive(pid));
    true
}

#[pg_extern(sql = false)]
fn worker_process() -> TableIterator<
    'static,
    (
        name!(pid, Option<i32>),
        name!(started_at, Option<TimestampWithTimeZone>),
    ),
> {
    let rows = worker_switch::process().map(|(pid, started_at)| (Some(pid), Some(started_at)));
    TableIterator::new(rows)
}

#[pg_extern(sql = false)]
fn worker_detail() -> Option<String> {
    worker_switch::detail().or_else(identity::copy_notice)
}

#[pg_extern(sql = false)]
fn worker_absence() -> Option<&'static str> {
    absence()
}

/// Why no worker runs, in the words that `webhook.worker` knows.
fn absence() -> Option<&'static str> {
    let attempt = registration::last_attempt().filter(|(at, _)| at.elapsed() < STARTS_WITHIN);
    if worker_switch::is_stopped() {
        Some("stopped")
    } else if recovery::is_in_progress() {
        Some("recovery")
    } else if live_worker().is_some()
        || wake::launcher_runs()
        || attempt.is_some_and(|(_, done)| done)
    {
        Some("starting")
    } else if attempt.is_some() {
        Some("no slot")
    } else {
        Some("absent")
    }
}

/// A standby shows what its primary knows.
#[pg_extern(sql = false)]
fn delivery_hold() -> Option<&'static str> {
    if !settings::delivery_is_on() || identity::copy_notice().is_some() {
        return Some("delivery_off");
    }
    let runs = live_worker().is_some() || matches!(absence(), Some("recovery" | "starting"));
    (!runs).then_some("no_worker")
}
