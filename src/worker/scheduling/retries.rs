//! Retries on their way into the lanes.
//!
//! A lane that keeps the order stands still while one of its messages waits for a retry. Which
//! one is first, and whether any waits at all, only the table knows: it is asked after each
//! settlement in which a retry of the lane ended, and whenever its definitions are read. Until
//! then the lane stands.

use std::collections::{BTreeSet, HashMap};

use super::url::MessageEntry;
use super::Scheduler;
use crate::store::outbox::StoredMessage;
use crate::store::retries::DueRetry;
use crate::worker::message::Message;

/// Due retries that found no room are looked at again after this.
pub const RETRY_LOOK_MICROS: i64 = 100_000;
/// A lane that stands still for longer gives its messages back: it reads them again.
const SHORT_WAIT_MICROS: i64 = 1_000_000;

/// What became of a retry that was handed to its lane.
pub enum Loaded {
    Taken,
    /// Its event has no row.
    Blocked {
        webhook_key: i32,
        event_key: i32,
    },
    /// Its message is not in the outbox any more.
    Lost,
}

impl Scheduler {
    /// Whether retries are to be read.
    pub fn wants_retries(&self, now_pg: i64) -> bool {
        let next = self.urls.agenda.next_retry_at();
        next.is_some_and(|at| at <= now_pg)
    }

    /// The URLs whose retries are due, the longest due first.
    pub fn retries_due(&self, now_pg: i64, most: usize) -> Vec<i32> {
        self.urls.agenda.retries_due(now_pg, most)
    }

    /// When the next retry of each of these URLs is due, after those that are were loaded.
    pub fn learn_next_retries(&mut self, url_keys: &[i32], next: &HashMap<i32, i64>, now_pg: i64) {
        for url_key in url_keys {
            let next_at = next.get(url_key).copied();
            self.urls.change(*url_key, |url, _| {
                // What is due but already loaded is no reason to spin; one that finds no room
                // is due as soon as there is some.
                let is_full = url.is_full_of_retries();
                url.next_retry_at = next_at.map(|at| match is_full {
                    true => at,
                    false => at.max(now_pg + RETRY_LOOK_MICROS),
                });
            });
        }
    }

    /// Retries of these URLs may have come or gone: `next` has those that wait.
    pub fn expect_retries(&mut self, next: &HashMap<i32, i64>, url_keys: &[i32]) {
        for url_key in url_keys {
            let next_at = next.get(url_key).copied();
            self.urls
                .change(*url_key, |url, _| url.next_retry_at = next_at);
        }
    }

    /// A call failed, or a message was redelivered: its retry is due then.
    pub fn expect_retry(&mut self, url_key: i32, at: i64) {
        self.urls.change(url_key, |url, _| {
            url.next_retry_at = Some(url.next_retry_at.map_or(at, |known| known.min(at)));
        });
    }

    /// Whether a lane that keeps the order has to be told what of it waits, or what waits is due.
    pub fn any_asking(&self, now_pg: i64) -> bool {
        self.urls.agenda.any_asking(now_pg)
    }

    pub fn asking(&self, now_pg: i64) -> BTreeSet<i32> {
        self.urls.agenda.asking(now_pg)
    }

    /// When the first waiting retry of a lane that keeps the order is due. `true` if the views do
    /// not know it yet.
    pub fn tell_what_waits(&mut self, url_key: i32, first: Option<i64>, now_pg: i64) -> bool {
        let told = self.urls.change(url_key, |url, _| {
            let is_news = url.lane.learn_waiting(first);
            url.next_retry_at = first;
            let until = url.lane.blocked_until();
            (
                is_news,
                until.is_some_and(|at| at > now_pg + SHORT_WAIT_MICROS),
            )
        });
        // What stands still for a while must not fill the memory of the others.
        if told.is_some_and(|(_, for_long)| for_long) {
            self.urls.drop_queue(url_key);
        }
        told.is_some_and(|(is_news, _)| is_news)
    }

    /// Hands a retry to its lane.
    pub fn load_retry(&mut self, retry: &DueRetry, stored: Option<StoredMessage>) -> Loaded {
        let loaded = self.urls.change(retry.url_key, |url, memory| {
            let Some(mut stored) = stored else {
                return Loaded::Lost;
            };
            let events = url.route.as_ref().map(|route| &route.events);
            let Some(event) = events.and_then(|events| events.get(&stored.event_key)) else {
                url.blocked_by = Some(stored.event_key);
                url.lane.dirty = true;
                return Loaded::Blocked {
                    webhook_key: stored.webhook_key,
                    event_key: stored.event_key,
                };
            };
            stored.accepted_at = retry.accepted_at;
            let entry = MessageEntry {
                at: stored.at,
                window: None,
                message: Message::new(stored, event),
                attempts: u32::try_from(retry.attempts).unwrap_or(0),
                is_retry: true,
            };
            let message = entry.message.clone();
            if url.lane.retry(entry) {
                memory.add(&message);
            }
            Loaded::Taken
        });
        loaded.unwrap_or(Loaded::Taken)
    }

    /// The retry was given up: its message is gone.
    pub fn retry_is_lost(&mut self, url_key: i32) {
        self.urls.change(url_key, |url, _| url.lane.retry_ended());
    }
}
