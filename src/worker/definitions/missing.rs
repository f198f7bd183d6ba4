//! Rows that messages name and that are not there.
//!
//! A row that was dropped leaves a tombstone; one that is missing was deleted by hand, or could
//! not be read. Nothing may pass a message whose row is missing: it would count as delivered. So
//! the URL's lane stops before it, with a reason, until the row is there again or the webhook is
//! dropped. Definitions are read again before this is taken for certain, and now and then
//! afterwards.

use std::collections::{BTreeSet, HashSet};
use std::time::{Duration, Instant};

use super::{Changes, Definitions, Known};

/// A row that comes back by hand tells the worker; one that could not be read does not.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// What goes on is logged so often.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Default)]
pub(super) struct Missing {
    /// Webhooks of new messages whose row, or whose URLs, are missing.
    webhooks: BTreeSet<i32>,
    /// Events for whose sake the definitions were read again.
    looked_for: HashSet<i32>,
    look_again: Option<Instant>,
    said: Option<(String, Instant)>,
}

impl Missing {
    /// `true` if definitions have not been read for this event's sake before.
    pub(super) fn look_for(&mut self, event_key: i32) -> bool {
        self.looked_for.insert(event_key)
    }

    pub(super) fn webhook_was_read(&mut self, webhook_key: i32, known: &Known) {
        match known {
            Known::Live(route) => {
                let found = |key: &i32| route.events.contains_key(key);
                self.looked_for.retain(|key| !found(key));
                if !route.urls.is_empty() {
                    self.webhooks.remove(&webhook_key);
                }
            }
            Known::Dropped => {
                self.webhooks.remove(&webhook_key);
            }
            Known::Absent => {}
        }
    }
}

/// URLs that stopped before a message whose event has no row.
pub struct Blocked {
    pub events: BTreeSet<i32>,
    pub webhooks: BTreeSet<i32>,
    pub urls: usize,
}

impl Definitions {
    /// A new message names this webhook, which has no row or no URL.
    pub fn webhook_is_missing(&mut self, webhook_key: i32) {
        self.missing.webhooks.insert(webhook_key);
    }

    /// A URL stops before a message of this event.
    pub fn event_is_missing(&mut self, webhook_key: i32, event_key: i32) {
        if self.missing.look_for(event_key) {
            self.read_again(Changes::of(webhook_key));
        }
    }

    /// What waits for a missing row, in words; has definitions read again now and then.
    pub fn mind_missing(&mut self, blocked: &Blocked) -> Option<String> {
        let text = self.missing.text(blocked);
        let missing = &mut self.missing;
        let Some(text) = text else {
            missing.look_again = None;
            missing.said = None;
            return None;
        };
        let now = Instant::now();
        let is_news = missing
            .said
            .as_ref()
            .is_none_or(|(last, at)| *last != text || now.duration_since(*at) >= SAY_AGAIN);
        if is_news {
            pgrx::warning!("webhook worker holds messages that it cannot route: {text}");
            missing.said = Some((text.clone(), now));
        }
        let look_again = missing.look_again.get_or_insert(now + LOOK_AGAIN);
        if *look_again <= now {
            *look_again = now + LOOK_AGAIN;
            let webhooks = missing.webhooks.union(&blocked.webhooks).copied().collect();
            self.read_again(Changes {
                everything: false,
                webhooks,
            });
        }
        Some(text)
    }
}

impl Missing {
    fn text(&self, blocked: &Blocked) -> Option<String> {
        if !self.webhooks.is_empty() {
            return Some(format!(
                "webhook.webhook_def or webhook.url_def has no row with webhook_key {}: \
                 its messages wait until the row is there again",
                listed(self.webhooks.iter())
            ));
        }
        // While definitions are read for their sake for the first time it is not certain.
        (!blocked.events.is_empty()).then(|| {
            format!(
                "webhook.event_def has no row with event_key {}: {} URLs wait until the row is there again, \
                 or webhook.cancel_pending() or webhook.drop_webhook() gives up what waits",
                listed(blocked.events.iter()),
                blocked.urls
            )
        })
    }
}

fn listed<'a>(keys: impl Iterator<Item = &'a i32>) -> String {
    let keys: Vec<String> = keys.take(10).map(ToString::to_string).collect();
    keys.join(", ")
}
