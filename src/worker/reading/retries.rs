//! Retries that are due, with their messages.

use std::collections::{HashMap, HashSet};

use super::Reader;
use crate::core::messages::position::MessagePosition;
use crate::store::key_order::{Answer, DueByKey};
use crate::store::outbox::StoredMessage;
use crate::store::retries::{DueRetry, WaitingRetry};

/// Retries loaded at once, all URLs together …
const RETRIES_A_LOOK: usize = 500;
/// … and of one URL.
const RETRIES_A_URL: usize = 64;
/// Retries that are loaded behind others of their keys, all together …
const FOLLOWING_A_LOOK: usize = 500;
/// … and of one key.
const FOLLOWING_A_KEY: usize = 32;

impl Reader {
    /// Those of these URLs that are due, the oldest first, of each URL equally many. In a
    /// transaction.
    pub fn due_retries(&self, url_keys: &[i32], now_pg: i64) -> Vec<DueRetry> {
        let of_each = (RETRIES_A_LOOK / url_keys.len().max(1)).clamp(1, RETRIES_A_URL);
        let mut due = self.retries.due(now_pg, url_keys, of_each);
        due.retain(|retry| self.may_repeat(retry));
        due
    }

    /// Those of URLs that keep the order of each key. In a transaction; writes down what is behind
    /// others, and gives that as well.
    pub fn due_by_key(&self, url_keys: &[i32], now_pg: i64) -> (Vec<DueRetry>, Vec<DueRetry>) {
        let of_each = (RETRIES_A_LOOK / url_keys.len().max(1)).clamp(1, RETRIES_A_URL);
        let due = self.key_order.due(now_pg, url_keys, of_each);
        let (behind, due): (Vec<_>, Vec<_>) = due.into_iter().partition(|row| row.is_behind);
        let retries = |rows: Vec<_>| rows.into_iter().map(|row: DueByKey| row.retry);
        let due = retries(due).filter(|retry| self.may_repeat(retry));
        (due.collect(), retries(behind).collect())
    }

    /// What may be sent once these retries were, of each key in its order. In a transaction.
    pub fn following(&self, heads: &[DueRetry], now_pg: i64) -> Vec<DueRetry> {
        let of_each = (FOLLOWING_A_LOOK / heads.len().max(1)).clamp(1, FOLLOWING_A_KEY);
        let mut following = self.key_order.following(now_pg, heads, of_each);
        let mut stopped = HashSet::new();
        following.retain(|retry| {
            let of_key = (retry.url_key, retry.keys);
            if !self.may_repeat(retry) {
                stopped.insert(of_key);
            }
            !stopped.contains(&of_key)
        });
        following
    }

    /// Keys of the URL that messages wait for. In a transaction.
    pub fn blocked_keys(&self, url_key: i32, from: i64, most: usize) -> Vec<u64> {
        self.key_order.blocked_keys(url_key, from, most)
    }

    /// Has the first message that waits for each of these keys be due. In a transaction.
    pub fn ask_keys(&self, url_key: i32, keys: &[u64]) -> Answer {
        self.key_order.ask(url_key, keys)
    }

    /// Those of these URLs that have messages which wait for others of their keys. In a transaction.
    pub fn holding_back(&self, url_keys: &[i32]) -> Vec<i32> {
        self.key_order.holding_back(url_keys)
    }

    /// What waits for others of its keys is due, where their order is not kept any more. In a
    /// transaction; gives how many there were, at most `limit`.
    pub fn release(&self, url_keys: &[i32], limit: i64) -> u64 {
        self.key_order.release(url_keys, limit)
    }

    /// When the next retry of each of these URLs is due. In a transaction.
    pub fn next_due(&self, url_keys: &[i32]) -> HashMap<i32, i64> {
        self.retries.next_due(url_keys)
    }

    /// The URLs that have waiting retries, with their webhooks. In a transaction.
    pub fn urls_with_retries(&self) -> Vec<(i32, i32)> {
        self.retries.waiting_urls()
    }

    /// What waits for URLs that keep the order, sorted by URL and place in the order. In a
    /// transaction.
    pub fn waiting_retries(&self, url_keys: &[i32], not_before: i64) -> Vec<WaitingRetry> {
        let mut waiting = self.retries.waiting(url_keys);
        for row in &mut waiting {
            if !self.may_repeat(&row.retry) {
                row.next_at = row.next_at.max(not_before);
            }
        }
        waiting
    }

    /// The messages of these retries, as far as they are there. In a transaction.
    pub fn messages_of(&self, retries: &[DueRetry]) -> HashMap<MessagePosition, StoredMessage> {
        let positions: HashSet<MessagePosition> = retries.iter().map(|retry| retry.at).collect();
        let stored = self.outbox.at(&Vec::from_iter(positions), false);
        let found = stored.into_iter().map(|message| (message.at, message));
        found.collect()
    }

    /// Whether standbys have the message of a retry. One that was called before may be called
    /// again whatever they have; a message that was redelivered may never have been sent.
    fn may_repeat(&self, retry: &DueRetry) -> bool {
        !self.standbys.is_on()
            || retry.attempts > 0
            || (self.standbys.has_passed_barrier()
                && self.tail.position.window.to.sees(retry.at.xid))
    }

    /// Retries whose messages are gone are failures. In a transaction.
    pub fn give_up(&self, lost: &[(i32, MessagePosition)], why: &str) {
        self.retries.give_up(lost, why);
    }
}
