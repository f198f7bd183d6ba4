//! Messages whose event or webhook is not found.
//!
//! A row that was dropped leaves a tombstone; one that is missing was deleted by hand, or could
//! not be read. Nothing may pass a message whose row is missing: it would count as delivered.
//! So the URL's lane stops before it, with a reason, until the row is there again or the webhook
//! is dropped. A webhook without any URL that is known gets a lane that only keeps the place.
//! Definitions are read again before this is taken for certain, and now and then afterwards.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::engine::{Engine, MessageLane};
use super::notices::Topic;
use crate::core::lane::{Feed, Hold};
use crate::core::position::{Position, Window};
use crate::pg::invalidation;
use crate::store::outbox::StoredMessage;

/// A row that comes back by hand tells the worker; one that could not be read does not.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// What goes on is logged so often.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Default)]
pub struct Unroutable {
    /// URLs that stopped before a message of this event.
    blocked: BTreeMap<i32, i32>,
    /// Webhooks of new messages whose row is missing.
    webhooks: BTreeSet<i32>,
    /// Events for whose sake the definitions were read again.
    looked_for: HashSet<i32>,
    /// Webhooks that are not live: whether they were dropped.
    dropped: HashMap<i32, bool>,
    look_again: Option<Instant>,
    said: Option<(String, Instant)>,
}

impl Unroutable {
    /// The event for whose row the URL waits.
    pub fn event_of(&self, url_key: i32) -> Option<i32> {
        self.blocked.get(&url_key).copied()
    }

    pub fn blocks(&self, url_key: i32) -> bool {
        self.blocked.contains_key(&url_key)
    }

    pub fn blocked_urls(&self) -> HashSet<i32> {
        self.blocked.keys().copied().collect()
    }

    /// Whether the definitions were read for this event's sake, and it was not among them.
    pub fn was_looked_for(&self, event_key: i32) -> bool {
        self.looked_for.contains(&event_key)
    }
}

/// The lane that keeps the place of a webhook's messages while no URL of it is known.
pub fn place_keeper(webhook_key: i32) -> i32 {
    -webhook_key
}

/// The webhook whose place this lane keeps, if it is such a lane.
pub fn kept_webhook(url_key: i32) -> Option<i32> {
    (url_key < 0).then(|| -url_key)
}

impl Engine {
    /// The lane stops before a message of this event.
    pub fn block(&mut self, url_key: i32, event_key: i32) {
        self.unroutable.blocked.insert(url_key, event_key);
        if self.unroutable.looked_for.insert(event_key) {
            invalidation::mark_stale();
        }
        if let Some(lane) = self.lanes.get_mut(&url_key) {
            lane.dirty = true;
        }
        let now = self.ticker.now();
        self.settlement.be_due(now);
    }

    /// The definitions were read: lanes that stopped try again.
    pub fn unblock_all(&mut self) {
        let events = &self.routes.events;
        let unroutable = &mut self.unroutable;
        for url_key in std::mem::take(&mut unroutable.blocked).into_keys() {
            if let Some(lane) = self.lanes.get_mut(&url_key) {
                lane.dirty = true;
            }
        }
        unroutable
            .looked_for
            .retain(|event_key| !events.contains_key(event_key));
        unroutable.dropped.clear();
        let live = &self.routes.webhooks;
        let has_urls = |key: &i32| live.get(key).is_some_and(|w| !w.url_keys.is_empty());
        unroutable.webhooks.retain(|key| !has_urls(key));
        // What waits for retries may be routed now.
        self.next_retry_at = Some(i64::MIN);
    }

    /// Whether a webhook that is not live was dropped. In a transaction.
    pub fn was_dropped(&mut self, webhook_key: i32) -> bool {
        let routing = &self.stores.routing;
        *self
            .unroutable
            .dropped
            .entry(webhook_key)
            .or_insert_with(|| routing.was_dropped(webhook_key))
    }

    /// The message's webhook, or its URLs, are not live: whatever keeps its place stops before
    /// it, unless it was dropped. In a transaction.
    pub fn keep_place(&mut self, stored: &StoredMessage, window: &Arc<Window>) {
        let webhook_key = stored.webhook_key;
        if self.was_dropped(webhook_key) {
            return;
        }
        self.unroutable.webhooks.insert(webhook_key);
        let keeper = place_keeper(webhook_key);
        let mut lanes: Vec<i32> = self
            .lanes
            .values()
            .filter(|lane| lane.webhook_key == webhook_key)
            .map(|lane| lane.url_key)
            .collect();
        if lanes.is_empty() {
            let mut lane = MessageLane::new(keeper, webhook_key, Feed::Tail);
            lane.hold = Some(Hold::Disabled);
            self.lanes.insert(keeper, lane);
            self.vanished.insert(keeper);
            lanes.push(keeper);
        }
        for url_key in lanes {
            self.leave_tail_before(url_key, stored, window);
        }
    }

    /// The lane reads for itself from this message on, unless it does so already.
    pub fn leave_tail_before(
        &mut self,
        url_key: i32,
        stored: &StoredMessage,
        window: &Arc<Window>,
    ) {
        let Some(lane) = self.lanes.get_mut(&url_key) else {
            return;
        };
        self.settlement.change_backlog(url_key, 1);
        let oldest = self.oldest_behind.entry(url_key);
        oldest.or_insert(stored.captured_at);
        if lane.is_at_tail() {
            lane.leave_tail(Position {
                window: Arc::clone(window),
                id: stored.at.id - 1,
            });
        }
    }

    /// URLs whose rows are gone without a tombstone: their lanes stay, and wait. In a
    /// transaction.
    pub fn find_vanished(&mut self) {
        let gone: Vec<(i32, i32)> = self
            .lanes
            .values()
            .filter(|lane| !self.routes.urls.contains_key(&lane.url_key))
            .map(|lane| (lane.url_key, lane.webhook_key))
            .collect();
        self.vanished.clear();
        if gone.is_empty() {
            return;
        }
        let keys: Vec<i32> = gone.iter().map(|(url_key, _)| *url_key).collect();
        let dropped = self.stores.routing.dropped_urls(&keys);
        for (url_key, webhook_key) in gone {
            // A place that was kept is taken over by the URLs of the webhook.
            let is_over = match self.routes.webhooks.get(&webhook_key) {
                Some(webhook) => kept_webhook(url_key).is_some() && !webhook.url_keys.is_empty(),
                None => self.was_dropped(webhook_key),
            };
            if !is_over && !dropped.contains(&url_key) {
                self.vanished.insert(url_key);
            }
        }
    }

    /// Says what waits for a missing row, and has the definitions read again.
    pub fn mind_unroutable(&mut self) {
        let text = self.unroutable_text();
        self.notices.set(Topic::UnknownEvents, text.clone());
        let Some(text) = text else {
            self.unroutable.look_again = None;
            self.unroutable.said = None;
            return;
        };
        let now = Instant::now();
        let said = &mut self.unroutable.said;
        let is_news = said
            .as_ref()
            .is_none_or(|(last, at)| *last != text || now.duration_since(*at) >= SAY_AGAIN);
        if is_news {
            pgrx::warning!("webhook worker holds messages that it cannot route: {text}");
            *said = Some((text, now));
        }
        let look_again = self.unroutable.look_again.get_or_insert(now + LOOK_AGAIN);
        if *look_again <= now {
            *look_again = now + LOOK_AGAIN;
            invalidation::mark_stale();
        }
    }

    fn unroutable_text(&self) -> Option<String> {
        let Unroutable {
            blocked, webhooks, ..
        } = &self.unroutable;
        if !webhooks.is_empty() {
            return Some(format!(
                "webhook.webhook_def or webhook.url_def has no row with webhook_key {}: \
                 its messages wait until the row is there again",
                listed(webhooks.iter())
            ));
        }
        let events: BTreeSet<&i32> = blocked.values().collect();
        // While definitions are read for their sake for the first time it is not certain.
        (!events.is_empty()).then(|| {
            format!(
                "webhook.event_def has no row with event_key {}: {} URLs wait until the row is there again, \
                 or webhook.cancel_pending() or webhook.drop_webhook() gives up what waits",
                listed(events.into_iter()),
                blocked.len()
            )
        })
    }
}

fn listed<'a>(keys: impl Iterator<Item = &'a i32>) -> String {
    let keys: Vec<String> = keys.take(10).map(ToString::to_string).collect();
    keys.join(", ")
}
