//! Wires the owners together: what one gives, another takes.
//!
//! Owns nothing but the owners and the words that `webhook.worker` shows. Each file is one step of
//! the loop: `definitions` what has changed, `read` messages and retries, `calls` what starts and
//! ends, `settle` what is written, `maintain` the rest.

#![forbid(unsafe_code)]

mod calls;
mod definitions;
mod main_loop;
mod maintain;
mod read;
mod settle;

pub(super) use main_loop::Loop;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::definitions::Definitions;
use super::locks::{Locks, Work};
use super::maintenance::Maintenance;
use super::notices::{Notices, Topic};
use super::reading::Reader;
use super::scheduling::Scheduler;
use super::sending::Sender;
use super::settling::Settler;
use super::time::Ticker;
use crate::core::health::UrlHealth;
use crate::core::policy::retry::{Schedule, MAX_RETRY_AFTER};
use crate::core::scheduling::lane::Feed;
use crate::delivery::pool::Wake;
use crate::pg::settings::Delivery;
use crate::pg::wake::Notes;
use crate::pg::{clock, tx};
use crate::store::settlement_log::Restored;

/// What the reading transaction writes, all of it about the order of keys.
#[derive(Default)]
struct KeyWrites {
    /// URLs of which the first messages that waited are due.
    told: Vec<i32>,
    /// URLs whose messages wait for no others any more: the next transaction sees that they are
    /// due.
    released: Vec<i32>,
}

/// See the module.
pub(super) struct Engine {
    definitions: Definitions,
    reader: Reader,
    scheduler: Scheduler,
    sender: Sender,
    settler: Settler,
    maintenance: Maintenance,
    /// Work that other sessions' locks hold up.
    locks: Locks,
    /// What `webhook.worker.detail` says.
    notices: Notices,
    delivery_is_on: bool,
    retry_schedule: Schedule,
    /// A retry that cannot be sent any more could not be given up.
    retries_are_locked: bool,
    key_writes: KeyWrites,
    /// Webhooks with messages that could not be released, because another session had locked them.
    release_again: BTreeSet<i32>,
    release_not_before: Instant,
    /// Operational events made messages that are not read.
    made_messages: bool,
    ticker: Ticker,
}

impl Engine {
    /// `wake` runs in delivery threads.
    pub(super) fn new(
        settings: &Delivery,
        restored: Restored,
        wake: Wake,
        notes: Notes,
    ) -> Result<Self, String> {
        let ticker = Ticker::start();
        let mut engine = Self {
            definitions: Definitions::new(settings),
            reader: Reader::new(settings, &restored.tail, ticker),
            scheduler: Scheduler::new(settings, ticker),
            sender: Sender::new(settings, wake, notes, ticker),
            settler: Settler::new(restored.tail.seq, ticker),
            maintenance: Maintenance::new(settings, ticker),
            locks: Locks::new(),
            notices: Notices::default(),
            delivery_is_on: settings.on,
            retry_schedule: settings.retry_schedule.clone(),
            retries_are_locked: false,
            key_writes: KeyWrites::default(),
            release_again: BTreeSet::new(),
            release_not_before: Instant::now(),
            made_messages: false,
            ticker,
        };
        engine.restore_lanes(restored)?;
        Ok(engine)
    }

    fn restore_lanes(&mut self, restored: Restored) -> Result<(), String> {
        let now_pg = clock::now();
        for lane in restored.lanes {
            let (state, durable) = (&lane.state, lane.state.durable()?);
            let health = UrlHealth {
                failing_since: state.since,
                last_success_at: state.ok_at,
                last_error_at: state.error_at,
                error: state.error.clone().filter(|_| state.since.is_some()),
            };
            if let Some(since) = health.failing_since {
                let error = health.error.as_deref().unwrap_or_default();
                self.settler.fails_since(state.u, since, error);
            }
            self.scheduler.remember_health(state.u, health);
            if lane.is_idle {
                continue;
            }
            let feed = durable.position.map_or(Feed::Tail, Feed::Own);
            let backoff_until = state
                .until
                .map(|until| self.ticker.now() + backoff_left(until, now_pg));
            self.scheduler.restore(state.u, lane.webhook_key, feed);
            self.scheduler
                .recover(state.u, durable.busy, state.oldest, backoff_until);
        }
        Ok(())
    }

    /// SIGHUP: new settings for all owners.
    fn reconfigure(&mut self, settings: &Delivery) {
        self.delivery_is_on = settings.on;
        self.retry_schedule = settings.retry_schedule.clone();
        self.sender.reconfigure(settings);
        self.scheduler.reconfigure(settings);
        self.maintenance.reconfigure(settings);
        if self.reader.reconfigure(settings) {
            self.scheduler.drop_all_queues();
            self.notices.set(Topic::StandbySlots, None);
        }
        self.definitions.reconfigure(settings);
    }

    /// Whether no lock was in the way of such work a moment ago.
    fn may_try(&self, work: Work) -> bool {
        self.locks.may_try(work, self.ticker.now())
    }

    /// Runs `f` as a part of the running transaction, so that a lock which it waits for in vain
    /// stops nothing else. `None` if it could not be done now.
    fn try_part<T>(&mut self, work: Work, f: impl FnOnce(&mut Self) -> T) -> Option<T> {
        if !self.may_try(work) {
            return None;
        }
        match tx::part(|| f(self)) {
            Ok(done) => {
                self.locks.succeeded(work);
                Some(done)
            }
            Err(failure) if failure.is_lock_not_available() => {
                self.locks.failed(work, self.ticker.now());
                None
            }
            Err(failure) => failure.raise(),
        }
    }

    /// Nothing may be sent and nothing is on the wire: what is new can wait to be counted.
    fn nobody_waits(&self) -> bool {
        self.sender.in_flight() == 0
            && (!self.delivery_is_on
                || (self.reader.is_only_counting() && !self.definitions.any_sends()))
    }

    /// How long the loop may sleep for the owners' sake.
    fn sleep_limit(&self, longest: Duration) -> Duration {
        let now = self.ticker.now();
        let may_read_retries = self.locks.may_try(Work::Retries, now) && !self.recovered_go_first();
        let next_try = self.locks.next_try(now);
        [
            self.scheduler.due_in(clock::now(), may_read_retries),
            self.settler.due_in(),
            self.sender.due_in(),
            self.reader.standbys_due_in(),
            next_try.map(|at| Duration::from_nanos(at.saturating_sub(now))),
        ]
        .into_iter()
        .flatten()
        .fold(longest, Duration::min)
    }
}

/// How much is left of a pause that the last worker kept, in nanoseconds. Not more than
/// there can be, if the clock went back meanwhile.
fn backoff_left(until: i64, now: i64) -> u64 {
    let left = Duration::from_micros(u64::try_from(until.saturating_sub(now)).unwrap_or(0));
    u64::try_from(left.min(MAX_RETRY_AFTER).as_nanos()).unwrap_or(u64::MAX / 2)
}
