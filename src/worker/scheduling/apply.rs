//! What changed definitions mean for the URLs that something is known of.

use std::sync::Arc;

use super::accept::{kept_webhook, place_keeper};
use super::url::{Presence, UrlState};
use super::urls::QueuedMemory;
use super::{Scheduler, UrlRoute, WebhookRoute};
use crate::core::definitions::words::DeliveryOrder;
use crate::core::messages::position::MessagePosition;
use crate::core::scheduling::lane::Feed;
use crate::worker::definitions::Known;

/// What has to be asked of the tables after definitions were applied.
#[derive(Default)]
pub struct Applied {
    /// URLs whose retries and single cancellations may have changed, with their webhooks.
    pub urls: Vec<(i32, i32)>,
}

impl Scheduler {
    /// The webhook was read.
    pub fn apply(&mut self, webhook_key: i32, known: &Known, applied: &mut Applied) {
        match known {
            Known::Live(route) => {
                self.hand_over_place(route);
                self.throttles
                    .apply(route, self.urls.has_webhook(webhook_key));
                for url in &route.urls {
                    applied.urls.push((url.url_key, webhook_key));
                    if self.urls.get(url.url_key).is_some() {
                        // It is not known while the URL's row is missing.
                        self.urls.set_webhook(url.url_key, webhook_key);
                        self.apply_to_url(route, url);
                    }
                }
                for url_key in self.urls.of_webhook(webhook_key) {
                    if route.url(url_key).is_none() {
                        let is_over = kept_webhook(url_key).is_some() && !route.urls.is_empty();
                        let is_dropped = is_over || route.dropped_urls.contains(&url_key);
                        self.apply_absence(url_key, is_dropped);
                    }
                }
            }
            Known::Dropped | Known::Absent => {
                let is_dropped = matches!(known, Known::Dropped);
                for url_key in self.urls.of_webhook(webhook_key) {
                    self.apply_absence(url_key, is_dropped);
                }
            }
        }
    }

    /// While the webhook's URLs had no rows a lane kept their place: they go on from there.
    fn hand_over_place(&mut self, route: &Arc<WebhookRoute>) {
        let keeper = self.urls.get(place_keeper(route.webhook_key));
        let Some(position) = keeper.and_then(|keeper| keeper.own_position().cloned()) else {
            return;
        };
        for url in &route.urls {
            if self.urls.get(url.url_key).is_none() {
                self.urls.add(url.url_key, route.webhook_key, Feed::Tail);
            }
            self.urls.change(url.url_key, |url, _| {
                // The lane did not know its webhook, so nothing was kept for it.
                if url.lane.is_at_tail() {
                    url.lane.leave_tail(position.clone());
                }
            });
        }
    }

    pub(super) fn apply_to_url(&mut self, route: &Arc<WebhookRoute>, definition: &UrlRoute) {
        let delivery_is_on = self.rules.delivery_is_on;
        self.urls.change(definition.url_key, |url, memory| {
            url.route = Some(Arc::clone(route));
            url.target.clone_from(&definition.target);
            if definition.disabled {
                url.target = None;
            }
            url.presence = Presence::Live;
            url.cancellations
                .before
                .clone_from(&definition.canceled_before);
            url.throttled_until = 0;
            url.reopen_if_told(definition.reopened_at);
            url.fit(delivery_is_on, route.max_in_flight, route.order, memory);
        });
    }

    fn apply_absence(&mut self, url_key: i32, is_dropped: bool) {
        self.urls.change(url_key, |url, memory| {
            url.presence = match is_dropped {
                true => Presence::Dropped,
                false => Presence::Vanished,
            };
            url.target = None;
            url.fit(true, 1, DeliveryOrder::None, memory);
        });
    }

    /// The receiver wants no more: the URL gets no more, though that is not written yet.
    pub fn hold_gone(&mut self, url_key: i32) {
        let delivery_is_on = self.rules.delivery_is_on;
        self.urls.change(url_key, |url, _| {
            url.is_gone = true;
            let hold = url.hold(delivery_is_on);
            if url.lane.hold != hold {
                url.lane.hold = hold;
                url.lane.dirty = true;
            }
        });
    }

    /// It is written: the URL's row says so from now on.
    pub fn gone_is_written(&mut self, url_key: i32) {
        self.urls.change(url_key, |url, _| url.is_gone = false);
    }

    /// Something of the URL is in tables: from now on it is known.
    pub fn know(&mut self, url_key: i32, known: Option<&Known>) {
        let route = known.and_then(Known::live);
        if let Some((route, url)) = route.and_then(|route| Some((route, route.url(url_key)?))) {
            self.ensure(route, url);
        }
    }

    /// Which single messages of these URLs were canceled was read again.
    pub fn forget_singles(&mut self, url_keys: &[i32]) {
        for url_key in url_keys {
            self.urls
                .change(*url_key, |url, _| url.cancellations.single.clear());
        }
    }

    /// A message of the URL was canceled while the URL's lane has not come to it.
    pub fn cancel_single(&mut self, url_key: i32, at: MessagePosition) {
        self.urls.change(url_key, |url, _| {
            url.cancellations.single.insert(at);
        });
    }

    /// Everything that the URL has was canceled: what waits leaves memory.
    pub fn apply_cancellation(&mut self, url_key: i32) {
        self.urls.drop_queue(url_key);
        self.urls.change(url_key, |url, _| url.oldest_behind = None);
    }

    /// Whether the message was canceled while it waited for its first call.
    pub fn is_canceled(&self, url_key: i32, at: MessagePosition) -> bool {
        let url = self.urls.get(url_key);
        url.is_some_and(|url| url.cancellations.contains(at))
    }

    /// Whether it was canceled with everything else: a single one may have been redelivered since, as
    /// its row says.
    pub fn is_canceled_with_all(&self, url_key: i32, at: MessagePosition) -> bool {
        let url = self.urls.get(url_key);
        url.is_some_and(|url| url.cancellations.contains_all_of(at.xid))
    }

    /// A single message needs no watching any more.
    pub fn forget_single(&mut self, url_key: i32, at: MessagePosition) {
        let is_known = self
            .urls
            .get(url_key)
            .is_some_and(|url| url.cancellations.single.contains(&at));
        if is_known {
            self.urls.change(url_key, |url, _| {
                url.cancellations.single.remove(&at);
            });
        }
    }
}

impl UrlState {
    /// A user said that the receiver is back: pauses end, unless a call has failed since.
    fn reopen_if_told(&mut self, reopened_at: Option<i64>) {
        if self.reopened_at == reopened_at {
            return;
        }
        self.reopened_at = reopened_at;
        if reopened_at > self.health.last_error_at {
            self.lane.reopen();
        }
    }

    /// Fits the lane to its definition. Retries that are loaded may have been canceled, and
    /// others may be due at once: they are read again.
    fn fit(
        &mut self,
        delivery_is_on: bool,
        max_in_flight: usize,
        order: DeliveryOrder,
        memory: &mut QueuedMemory,
    ) {
        if self.blocked_by.take().is_some() {
            self.lane.dirty = true;
        }
        let hold = self.hold(delivery_is_on);
        self.ask_at = None;
        let lane = &mut self.lane;
        lane.max_in_flight = max_in_flight;
        memory.remove_all(&lane.keep_order(order));
        memory.remove_all(&lane.unload_retries());
        if lane.hold.is_some() && hold.is_none() {
            lane.reopen();
        }
        if lane.hold != hold {
            lane.hold = hold;
            lane.dirty = true;
        }
        if hold.is_some() {
            self.note_oldest();
            memory.remove_all(&self.lane.drop_queue());
            self.reader = None;
        }
    }
}
