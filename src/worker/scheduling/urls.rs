//! The URLs that something is known of, and what their undispatched messages take in memory.
//!
//! Everything that changes a URL goes through [`Urls::change`], so that the agenda follows. A URL
//! that is not here is idle and at the tail.

use std::collections::{BTreeSet, HashMap};
use std::mem;
use std::sync::Arc;

use super::agenda::Agenda;
use super::url::{MessageEntry, UrlState};
use crate::core::health::UrlHealth;
use crate::core::messages::order_keys::OrderKeys;
use crate::core::messages::position::MessagePosition;
use crate::core::scheduling::lane::Feed;
use crate::worker::message::Message;
use crate::worker::time::Ticker;

/// Undispatched messages in memory, all lanes together.
const QUEUED_MESSAGES: usize = 20_000;
/// Their bodies.
const QUEUED_BYTES: usize = 24 << 20;

/// How much undispatched messages hold in memory.
#[derive(Default)]
pub(super) struct QueuedMemory {
    messages: usize,
    bytes: usize,
}

impl QueuedMemory {
    pub fn add(&mut self, message: &Message) {
        self.messages += 1;
        self.bytes += message.held_bytes();
    }

    pub fn remove(&mut self, message: &Message) {
        self.messages = self.messages.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(message.held_bytes());
    }

    pub fn remove_all(&mut self, entries: &[MessageEntry]) {
        entries.iter().for_each(|entry| self.remove(&entry.message));
    }

    pub fn is_exhausted(&self) -> bool {
        self.messages >= QUEUED_MESSAGES || self.bytes >= QUEUED_BYTES
    }
}

/// A message that waits for an earlier one of its keys, in the retry table from now on.
pub struct HeldBackMessage {
    pub url_key: i32,
    pub at: MessagePosition,
    pub keys: OrderKeys,
    pub message: Arc<Message>,
}

impl UrlState {
    /// After each change of a lane that keeps the order of each key.
    fn order_keys(&mut self, memory: &mut QueuedMemory, held_back: &mut Vec<HeldBackMessage>) {
        self.lane.advance();
        memory.remove_all(&self.lane.take_unloaded());
        if self.lane.is_retry_capped() && self.lane.queued() > 0 {
            // What sends nothing for a while must not fill the memory of the others.
            self.note_oldest();
            memory.remove_all(&self.lane.unread_queue());
            self.reader = None;
        }
        let url_key = self.lane.url_key;
        for entry in self.lane.take_held_back() {
            memory.remove(&entry.message);
            held_back.push(HeldBackMessage {
                url_key,
                at: entry.at,
                keys: entry.keys,
                message: entry.message,
            });
        }
    }

    /// The date of the oldest message that it has in memory, which is about to go.
    pub fn note_oldest(&mut self) {
        let oldest = self.lane.foremost().map(|entry| entry.message.captured_at);
        self.oldest_behind = oldest.chain(self.oldest_behind).min();
    }
}

/// See the module.
pub(super) struct Urls {
    all: HashMap<i32, UrlState>,
    by_webhook: BTreeSet<(i32, i32)>,
    pub agenda: Agenda,
    pub memory: QueuedMemory,
    /// To be written.
    pub held_back: Vec<HeldBackMessage>,
    /// Of URLs of which nothing else is known.
    health: HashMap<i32, UrlHealth>,
    ticker: Ticker,
    /// Counts up with each change.
    changes: u64,
}

impl Urls {
    pub fn new(ticker: Ticker) -> Self {
        Self {
            all: HashMap::new(),
            by_webhook: BTreeSet::new(),
            agenda: Agenda::default(),
            memory: QueuedMemory::default(),
            held_back: Vec::new(),
            health: HashMap::new(),
            ticker,
            changes: 0,
        }
    }

    pub fn get(&self, url_key: i32) -> Option<&UrlState> {
        self.all.get(&url_key)
    }

    pub fn iter(&self) -> impl Iterator<Item = (i32, &UrlState)> {
        self.all.iter().map(|(key, url)| (*key, url))
    }

    /// Changes what is known of a URL; `None` if nothing is. One that was dropped goes as soon as
    /// nothing of it is on the wire.
    pub fn change<T>(
        &mut self,
        url_key: i32,
        f: impl FnOnce(&mut UrlState, &mut QueuedMemory) -> T,
    ) -> Option<T> {
        let url = self.all.get_mut(&url_key)?;
        let result = f(url, &mut self.memory);
        if url.lane.orders_keys() {
            url.order_keys(&mut self.memory, &mut self.held_back);
        }
        self.changes += 1;
        url.used_at = self.changes;
        if url.is_retired() {
            self.remove(url_key);
        } else {
            self.agenda.list(url, self.ticker.now());
        }
        Some(result)
    }

    /// Its pauses are over, or it was deferred: what is to be done for it is worked out again.
    pub fn list_again(&mut self, url_keys: &[i32]) {
        let now = self.ticker.now();
        for url_key in url_keys {
            if let Some(url) = self.all.get_mut(url_key) {
                self.agenda.list(url, now);
            }
        }
    }

    /// It could start a call, but has to wait for others.
    pub fn defer(&mut self, url_key: i32) {
        if let Some(url) = self.all.get_mut(&url_key) {
            self.agenda.defer(url);
        }
    }

    /// From now on something is known of the URL.
    pub fn add(&mut self, url_key: i32, webhook_key: i32, feed: Feed) {
        let mut url = UrlState::new(url_key, webhook_key, feed);
        url.health = self.health.remove(&url_key).unwrap_or_default();
        self.by_webhook.insert((webhook_key, url_key));
        self.all.insert(url_key, url);
        self.change(url_key, |_, _| ());
    }

    /// Forgets a URL with what it has in memory.
    pub fn remove(&mut self, url_key: i32) {
        let Some(url) = self.all.remove(&url_key) else {
            return;
        };
        self.agenda.remove(&url);
        self.by_webhook.remove(&(url.lane.webhook_key, url_key));
        for entry in url.lane.waiting() {
            self.memory.remove(&entry.message);
        }
    }

    /// The URL belongs to this webhook.
    pub fn set_webhook(&mut self, url_key: i32, webhook_key: i32) {
        let Some(url) = self.all.get_mut(&url_key) else {
            return;
        };
        let before = std::mem::replace(&mut url.lane.webhook_key, webhook_key);
        if before != webhook_key {
            self.by_webhook.remove(&(before, url_key));
            self.by_webhook.insert((webhook_key, url_key));
        }
    }

    pub fn of_webhook(&self, webhook_key: i32) -> Vec<i32> {
        let all = (webhook_key, i32::MIN)..=(webhook_key, i32::MAX);
        self.by_webhook.range(all).map(|(_, url)| *url).collect()
    }

    pub fn has_webhook(&self, webhook_key: i32) -> bool {
        let all = (webhook_key, i32::MIN)..=(webhook_key, i32::MAX);
        self.by_webhook.range(all).next().is_some()
    }

    /// Every webhook of which a URL is known.
    pub fn webhooks(&self) -> BTreeSet<i32> {
        self.by_webhook
            .iter()
            .map(|(webhook, _)| *webhook)
            .collect()
    }

    /// Forgets URLs that are idle and too many.
    pub fn forget_idle(&mut self) {
        for url_key in self.agenda.idle_too_many() {
            let health = self
                .all
                .get_mut(&url_key)
                .map(|url| mem::take(&mut url.health));
            self.remove(url_key);
            self.remember_health(url_key, health.unwrap_or_default());
        }
    }

    /// For the time when something else is known of the URL again.
    pub fn remember_health(&mut self, url_key: i32, health: UrlHealth) {
        if health != UrlHealth::default() {
            self.health.insert(url_key, health);
        }
    }

    /// The base table has it of all URLs. Since when one fails only the worker knows.
    pub fn forget_health(&mut self) {
        self.health.retain(|_, health| health.is_failing());
    }

    /// Takes a lane's undispatched messages out of memory; it reads them again later.
    pub fn drop_queue(&mut self, url_key: i32) {
        self.change(url_key, |url, memory| {
            url.note_oldest();
            memory.remove_all(&url.lane.drop_queue());
            url.reader = None;
        });
    }
}
