//! Retries on their way into the lanes.
//!
//! A lane that keeps the order sends nothing while one of its messages waits for a retry. Which
//! one is first, and whether any waits at all, only the table knows: it is asked after each
//! settlement in which a retry of the lane ended, and whenever its definitions are read. Until
//! then the lane stands.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::starting::CanceledMessage;
use super::url::{MessageEntry, UrlState};
use super::urls::HeldBackMessage;
use super::Scheduler;
use crate::core::definitions::words::DeliveryOrder;
use crate::core::messages::order_keys::OrderKeys;
use crate::core::messages::position::MessagePosition;
use crate::core::scheduling::lane::keys::{as_stored, BLOCKED_AT_MOST};
use crate::pg::clock;
use crate::store::key_order::Answer;
use crate::store::outbox::StoredMessage;
use crate::store::retries::DueRetry;
use crate::worker::message::Message;

/// Due retries that found no room are looked at again after this.
pub const RETRY_LOOK_MICROS: i64 = 100_000;
/// Keys that the table is asked about in one statement.
pub const KEYS_AT_ONCE: usize = 1_000;
/// A lane that sends nothing for longer gives its messages back: it reads them again.
const SHORT_WAIT_MICROS: i64 = 1_000_000;

/// Crowded URLs are logged this often.
const SAY_EVERY_NANOS: u64 = 60_000_000_000;

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
        // What sends nothing for a while must not fill the memory of the others.
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
                keys: stored.keys,
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
    pub fn retry_is_lost(&mut self, url_key: i32, keys: OrderKeys) {
        self.urls.change(url_key, |url, _| {
            url.lane.retry_ended();
            url.lane.ask_again(keys);
        });
    }

    /// Whether a lane that keeps the order of each key is told of keys, and not of retries.
    pub fn orders_keys(&self, url_key: i32) -> bool {
        let url = self.urls.get(url_key);
        url.is_some_and(|url| url.lane.orders_keys())
    }

    /// How many blocked keys the lane wants to be told of, if it knows none.
    pub fn blocked_keys_wanted(&self, url_key: i32) -> Option<usize> {
        let lane = &self.urls.get(url_key)?.lane;
        lane.wants_blocked_keys()
            .then(|| lane.blocked_keys_wanted())
    }

    pub fn learn_blocked_keys(&mut self, url_key: i32, keys: Vec<u64>) {
        self.urls
            .change(url_key, |url, _| url.lane.learn_blocked_keys(keys));
    }

    /// The table is asked about keys of the lane, whatever was locked before.
    pub fn ask_now(&mut self, url_key: i32) {
        self.urls.change(url_key, |url, _| url.ask_at = None);
    }

    /// What was written with the table's answers is undone: the lane asks about all its keys again.
    pub fn forget_blocked_keys(&mut self, url_key: i32) {
        self.urls.change(url_key, |url, memory| {
            if url.lane.orders_keys() {
                memory.remove_all(&url.lane.keep_order(DeliveryOrder::Key));
                url.next_retry_at = Some(i64::MIN);
            }
        });
    }

    /// Keys of the lane that the table is asked about next.
    pub fn keys_to_ask(&self, url_key: i32) -> Vec<u64> {
        let url = self.urls.get(url_key);
        url.map(|url| url.lane.keys_to_ask(KEYS_AT_ONCE))
            .unwrap_or_default()
    }

    /// Where the keys begin that the table has and the lane does not keep, if there are any.
    pub fn unknown_keys_from(&self, url_key: i32) -> Option<i64> {
        self.urls.get(url_key)?.lane.unknown_keys_from()
    }

    /// A page of them was asked about; while rows of it are locked it is asked about again.
    pub fn asked_unknown_keys(&mut self, url_key: i32, page: &[u64], answer: &Answer) {
        if !answer.locked.is_empty() {
            return;
        }
        let last = page.last().filter(|_| page.len() >= KEYS_AT_ONCE);
        let next = last.and_then(|key| as_stored(*key).checked_add(1));
        self.urls
            .change(url_key, |url, _| url.lane.asked_unknown_keys(next));
    }

    /// What the table says of keys that were asked about. Those whose rows were locked are asked about
    /// again later.
    pub fn learn_keys(&mut self, url_key: i32, asked: &[u64], answer: &Answer, now_pg: i64) {
        let waited_for: HashSet<u64> = answer.waited_for.iter().copied().collect();
        self.urls.change(url_key, |url, _| {
            if answer.any_due {
                url.next_retry_at = Some(url.next_retry_at.map_or(now_pg, |at| at.min(now_pg)));
            }
            let is_known = |key: &u64| !answer.locked.contains(key);
            let known: Vec<u64> = asked.iter().copied().filter(is_known).collect();
            if known.len() < asked.len() {
                url.ask_at = Some(now_pg + RETRY_LOOK_MICROS);
            }
            url.lane.learn_keys(&known, |key| waited_for.contains(&key));
        });
    }

    /// A retry that is due by its date is behind another one of its keys.
    pub fn is_behind(&mut self, retry: &DueRetry) {
        self.urls
            .change(retry.url_key, |url, _| url.lane.ask_again(retry.keys));
    }

    /// Whether the retry is in memory, on the wire or not settled.
    pub fn is_under_way(&self, url_key: i32, at: MessagePosition) -> bool {
        let url = self.urls.get(url_key);
        url.is_some_and(|url| url.lane.is_under_way(at))
    }

    /// What was held back since the last call. What was canceled before is no part of it.
    pub fn take_held_back(&mut self) -> Vec<HeldBackMessage> {
        let mut held_back = std::mem::take(&mut self.urls.held_back);
        held_back.retain(|held| {
            let canceled = self.urls.change(held.url_key, |url, _| {
                url.take_cancellation(held.at, held.keys, &held.message)
            });
            let canceled = canceled.flatten();
            let is_canceled = canceled.is_some();
            self.canceled.extend(canceled);
            !is_canceled
        });
        held_back
    }

    /// Whether [`Scheduler::take_held_back`] has more.
    pub fn any_held_back(&self) -> bool {
        !self.urls.held_back.is_empty()
    }

    /// Why URLs take no new messages, if so many of their keys wait for a retry. Logged when it
    /// begins, and once a minute while it goes on.
    pub fn look_at_retry_capped(&mut self) -> Option<String> {
        let urls = self.urls.agenda.retry_capped().len();
        if urls == 0 {
            return None;
        }
        let (who, keys) = if urls == 1 {
            ("1 URL sends".to_owned(), "its order keys")
        } else {
            (format!("{urls} URLs send"), "the order keys of each")
        };
        let text =
            format!("{who} only retries until fewer than {BLOCKED_AT_MOST} of {keys} wait for one");
        let now = self.ticker.now();
        let since = self.warned_of_retry_capped_at;
        if since.is_none_or(|at| now.saturating_sub(at) >= SAY_EVERY_NANOS) {
            self.warned_of_retry_capped_at = Some(now);
            pgrx::warning!("webhook worker: {text}");
        }
        Some(text)
    }
}

impl UrlState {
    /// The message, if it was canceled while it waited for its first call.
    pub fn take_cancellation(
        &mut self,
        at: MessagePosition,
        keys: OrderKeys,
        message: &Arc<Message>,
    ) -> Option<CanceledMessage> {
        let cancellations = &mut self.cancellations;
        if !cancellations.contains(at) {
            return None;
        }
        let is_single = !cancellations.contains_all_of(at.xid);
        cancellations.single.remove(&at);
        let due_at = is_single.then(clock::now);
        self.next_retry_at = due_at.into_iter().chain(self.next_retry_at).min();
        Some(CanceledMessage {
            url_key: self.lane.url_key,
            at,
            keys,
            message: Arc::clone(message),
            due_at,
        })
    }
}
