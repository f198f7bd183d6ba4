//! Messages on their way into the lanes: from the tail, and from the backlog of a lane that lags.

use std::sync::Arc;

use super::url::{MessageEntry, Presence};
use super::{Scheduler, UrlRoute, WebhookRoute};
use crate::core::health::UrlHealth;
use crate::core::messages::position::{Cursor, MessagePosition, Window};
use crate::core::messages::snapshot::Snapshot;
use crate::core::scheduling::lane::Feed;
use crate::store::outbox::StoredMessage;
use crate::store::window_reader::WindowReader;
use crate::worker::message::{EventRoute, Message};

/// A lane at the tail holds at most so many undispatched messages: what a fast
/// receiver takes while the main thread is in a transaction.
const LANE_QUEUE: usize = 2000;

/// Where a lane that lags reads next.
pub struct Backlog {
    pub webhook_key: i32,
    pub position: Cursor,
    /// It is in the middle of this window.
    pub reader: Option<WindowReader>,
}

/// What URLs made of new messages.
#[derive(Clone, Copy, Debug, Default)]
pub struct Accepted {
    /// A lane took one into memory.
    pub is_taken: bool,
    /// A URL that is neither paused nor off will send one.
    pub is_awaited: bool,
}

impl Accepted {
    pub fn add(&mut self, other: Self) {
        self.is_taken |= other.is_taken;
        self.is_awaited |= other.is_awaited;
    }
}

/// How far a URL has got.
pub struct UrlProgress {
    /// `None`: as far as the tail.
    pub position: Option<Cursor>,
    /// Taken, and no outcome is written.
    pub busy: Vec<MessagePosition>,
    /// Messages of its own that were taken and have no outcome.
    pub taken: usize,
}

/// The lane that keeps the place of a webhook's messages while no URL of it is known.
pub(super) fn place_keeper(webhook_key: i32) -> i32 {
    -webhook_key
}

/// The webhook whose place this lane keeps, if it is such a lane.
pub(super) fn kept_webhook(url_key: i32) -> Option<i32> {
    (url_key < 0).then(|| -url_key)
}

impl Scheduler {
    /// A new message of a webhook that has URLs; `event` is `None` if its row is not there.
    /// `arrived` is told of each URL that it is pending for.
    pub fn accept(
        &mut self,
        route: &Arc<WebhookRoute>,
        event: Option<&Arc<EventRoute>>,
        stored: StoredMessage,
        window: &Arc<Window>,
        mut arrived: impl FnMut(i32),
    ) -> Accepted {
        let (at, captured_at, keys) = (stored.at, stored.captured_at, stored.keys);
        let message = event.map(|event| Message::new(stored, event));
        let mut accepted = Accepted::default();
        for url in &route.urls {
            let before = url.canceled_before.as_ref();
            if before.is_some_and(|before| before.sees(at.xid)) {
                continue;
            }
            arrived(url.url_key);
            self.ensure(route, url);
            let Some(message) = &message else {
                self.leave_tail_before(url.url_key, at, captured_at, window);
                continue;
            };
            let entry = MessageEntry {
                at,
                window: Some(Arc::clone(window)),
                message: Arc::clone(message),
                keys,
                attempts: 0,
                is_retry: false,
            };
            accepted.add(self.offer(url.url_key, entry));
        }
        accepted
    }

    /// Whether a lane would take a new message of this webhook into memory.
    pub fn takes(&self, route: &WebhookRoute) -> bool {
        route
            .urls
            .iter()
            .any(|url| match self.urls.get(url.url_key) {
                Some(url) => url.lane.is_at_tail() && url.lane.hold.is_none(),
                None => !route.paused && url.target.is_some() && !url.disabled,
            })
    }

    /// From now on something is known of the URL.
    pub(super) fn ensure(&mut self, route: &Arc<WebhookRoute>, url: &UrlRoute) {
        if self.urls.get(url.url_key).is_none() {
            self.urls.add(url.url_key, route.webhook_key, Feed::Tail);
            self.throttles.apply(route, false);
            self.apply_to_url(route, url);
            self.urls
                .change(url.url_key, |url, _| url.lane.dirty = false);
        }
    }

    fn offer(&mut self, url_key: i32, entry: MessageEntry) -> Accepted {
        let offered = self.urls.change(url_key, |url, memory| {
            let captured_at = entry.message.captured_at;
            let lane = &mut url.lane;
            let mut accepted = Accepted {
                is_taken: false,
                is_awaited: lane.hold.is_none(),
            };
            if !lane.is_at_tail() {
                url.oldest_behind.get_or_insert(captured_at);
                return accepted;
            }
            let is_blocked = lane.blocked_until().is_some() && lane.queued() == 0;
            if is_blocked
                || lane.is_retry_capped()
                || lane.hold.is_some()
                || lane.queued() >= LANE_QUEUE
            {
                url.oldest_behind = Some(captured_at);
                if let Some(window) = entry.window {
                    let id = entry.at.id - 1;
                    lane.leave_tail(Cursor { window, id });
                }
                return accepted;
            }
            memory.add(&entry.message);
            lane.offer(entry);
            accepted.is_taken = true;
            accepted
        });
        offered.unwrap_or_default()
    }

    /// A message whose webhook, or whose URLs, have no row or cannot be read now: what is known of
    /// its URLs stops before it, and a lane keeps the place of those that nothing is known of.
    pub fn keep_place(
        &mut self,
        stored: &StoredMessage,
        window: &Arc<Window>,
        mut arrived: impl FnMut(i32),
    ) {
        let webhook_key = stored.webhook_key;
        let keeper = place_keeper(webhook_key);
        if self.urls.get(keeper).is_none() {
            self.urls.add(keeper, webhook_key, Feed::Tail);
            self.urls.change(keeper, |url, _| {
                url.lane.hold = url.hold(true);
            });
        }
        for url_key in self.urls.of_webhook(webhook_key) {
            arrived(url_key);
            self.leave_tail_before(url_key, stored.at, stored.captured_at, window);
        }
    }

    /// The lane reads for itself from this message on, unless it does so already.
    fn leave_tail_before(
        &mut self,
        url_key: i32,
        at: MessagePosition,
        captured_at: i64,
        window: &Arc<Window>,
    ) {
        self.urls.change(url_key, |url, _| {
            url.oldest_behind.get_or_insert(captured_at);
            if url.lane.is_at_tail() {
                url.lane.leave_tail(Cursor {
                    window: Arc::clone(window),
                    id: at.id - 1,
                });
            }
        });
    }

    /// What the last worker knew of how calls to the URL end.
    pub fn remember_health(&mut self, url_key: i32, health: UrlHealth) {
        self.urls.remember_health(url_key, health);
    }

    /// The settlement log is compacted.
    pub fn forget_health(&mut self) {
        self.urls.forget_health();
    }

    /// The lane that left off here when the last worker ended.
    pub fn restore(&mut self, url_key: i32, webhook_key: Option<i32>, feed: Feed) {
        let webhook_key = webhook_key.or_else(|| kept_webhook(url_key)).unwrap_or(0);
        self.urls.add(url_key, webhook_key, feed);
    }

    /// What the lane had not finished when the last worker ended, and how long it backs off.
    pub fn recover(
        &mut self,
        url_key: i32,
        busy: Vec<MessagePosition>,
        oldest: Option<i64>,
        backoff_until: Option<u64>,
    ) {
        self.urls.change(url_key, |url, _| {
            url.recovered = busy;
            url.oldest_behind = oldest;
            if let Some(until) = backoff_until {
                url.lane.back_off_until(until);
            }
        });
    }

    /// Whether any lane reads its backlog now.
    pub fn wants_page(&self) -> bool {
        !self.urls.agenda.needs_page.is_empty()
    }

    /// The lanes that read their backlog next, at most so many, and how many there are.
    pub fn next_lagging(&self, most: usize) -> Vec<i32> {
        self.urls.agenda.needs_page.some(most)
    }

    /// Where the lane reads; it has had its turn.
    pub fn backlog(&mut self, url_key: i32) -> Option<Backlog> {
        self.urls.agenda.needs_page.pass(url_key);
        let backlog = self.urls.change(url_key, |url, _| {
            Some(Backlog {
                webhook_key: url.lane.webhook_key,
                position: url.own_position()?.clone(),
                reader: url.reader.take(),
            })
        });
        backlog.flatten()
    }

    /// The lane has read all that the tail has: the tail feeds it again.
    pub fn join_tail(&mut self, url_key: i32) {
        self.urls.change(url_key, |url, _| {
            url.lane.join_tail();
            url.oldest_behind = None;
        });
    }

    /// Whether all of the window was canceled for the URL.
    pub fn is_window_canceled(&self, url_key: i32, end: &Snapshot) -> bool {
        let url = self.urls.get(url_key);
        url.is_some_and(|url| url.cancellations.contains_window(end))
    }

    /// The window is being looked through, or has more pages.
    pub fn keep_reader(&mut self, url_key: i32, reader: WindowReader) {
        self.urls
            .change(url_key, |url, _| url.reader = Some(reader));
    }

    /// A page of the lane's backlog. Gives the event before whose message the lane stops, if it
    /// has no row.
    pub fn take_page(
        &mut self,
        url_key: i32,
        mut page: Vec<StoredMessage>,
        reader: &WindowReader,
    ) -> Option<i32> {
        let window = reader.window();
        let mut end = reader.position();
        let blocked_by = self.urls.change(url_key, |url, memory| {
            page.retain(|stored| !url.cancellations.contains_all_of(stored.at.xid));
            let events = url.route.as_ref().map(|route| &route.events);
            let event =
                |stored: &StoredMessage| events.and_then(|events| events.get(&stored.event_key));
            let stops_at = page.iter().position(|stored| event(stored).is_none());
            let blocked_by = stops_at.map(|place| {
                let stored = &page[place];
                end = Cursor {
                    window: Arc::clone(window),
                    id: stored.at.id - 1,
                };
                stored.event_key
            });
            page.truncate(stops_at.unwrap_or(page.len()));
            let entries: Vec<MessageEntry> = page
                .drain(..)
                .filter_map(|stored| {
                    let event = events?.get(&stored.event_key)?;
                    Some(MessageEntry {
                        at: stored.at,
                        window: Some(Arc::clone(window)),
                        keys: stored.keys,
                        message: Message::new(stored, event),
                        attempts: 0,
                        is_retry: false,
                    })
                })
                .collect();
            if !entries.is_empty() {
                url.oldest_behind = None;
            }
            entries.iter().for_each(|entry| memory.add(&entry.message));
            url.lane.take_page(entries, end);
            if blocked_by.is_some() {
                url.blocked_by = blocked_by;
                url.lane.dirty = true;
            }
            blocked_by
        });
        blocked_by.flatten()
    }

    /// Whether messages that were busy when the last worker ended are to be read.
    pub fn wants_recovered(&self) -> bool {
        !self.urls.agenda.recovered().is_empty()
    }

    /// They, by URL.
    pub fn recovered(&self) -> Vec<(i32, Vec<MessagePosition>)> {
        let urls = self.urls.agenda.recovered().iter();
        urls.filter_map(|url_key| Some((*url_key, self.urls.get(*url_key)?.recovered.clone())))
            .collect()
    }

    /// Messages that were busy when the last worker ended go first. Gives the events that have no
    /// row, with their webhooks: their messages stay what the last worker left, until they can be routed.
    pub fn requeue_recovered(
        &mut self,
        url_key: i32,
        found: Vec<StoredMessage>,
    ) -> Vec<(i32, i32)> {
        let missing = self.urls.change(url_key, |url, memory| {
            url.recovered.clear();
            let mut missing = Vec::new();
            for stored in found {
                let events = url.route.as_ref().map(|route| &route.events);
                let Some(event) = events.and_then(|events| events.get(&stored.event_key)) else {
                    missing.push((stored.webhook_key, stored.event_key));
                    url.recovered.push(stored.at);
                    url.blocked_by = Some(stored.event_key);
                    url.lane.dirty = true;
                    continue;
                };
                let entry = MessageEntry {
                    at: stored.at,
                    window: None,
                    keys: stored.keys,
                    message: Message::new(stored, event),
                    attempts: 0,
                    is_retry: false,
                };
                memory.add(&entry.message);
                url.lane.requeue(entry);
            }
            missing
        });
        missing.unwrap_or_default()
    }

    /// How far the URL has got; one of which nothing is known is at the tail.
    pub fn progress(&self, url_key: i32) -> UrlProgress {
        let url = self.urls.get(url_key);
        UrlProgress {
            position: url.and_then(|url| url.own_position().cloned()),
            busy: url.map(|url| url.busy()).unwrap_or_default(),
            taken: url.map_or(0, |url| url.lane.taken() + url.recovered.len()),
        }
    }

    /// Whether the message was handed to the URL and is neither in memory nor on the wire: it is
    /// done with. `tail`: how far the tail has got.
    pub fn is_done_with(&self, url_key: i32, at: MessagePosition, tail: &Cursor) -> bool {
        let Some(url) = self.urls.get(url_key) else {
            return tail.has_passed(at);
        };
        let position = url.own_position().unwrap_or(tail);
        position.has_passed(at) && !url.lane.holds(at) && !url.recovered.contains(&at)
    }

    /// The oldest tick that a lane reads from, if any lags.
    pub fn oldest_tick(&self) -> Option<i64> {
        let lagging = self.urls.agenda.lagging().iter();
        let positions =
            lagging.filter_map(|url_key| self.urls.get(*url_key)?.lane.durable().position);
        positions.map(|position| position.window.tick).min()
    }

    /// The webhook of a URL that something is known of.
    pub fn webhook_of(&self, url_key: i32) -> Option<i32> {
        self.urls.get(url_key).map(|url| url.lane.webhook_key)
    }

    /// The URL for the server log: by its webhook and its receiver, without a path, which may hold
    /// a credential.
    pub fn label(&self, url_key: i32) -> String {
        let url = self.urls.get(url_key);
        let name = url.and_then(|url| url.route.as_ref());
        let name = name.map_or_else(
            || "of an unknown name".to_owned(),
            |route| format!("\"{}\"", route.name),
        );
        let target = url.and_then(|url| url.target.as_ref());
        let receiver = target.map_or_else(String::new, |target| {
            format!(", {}:{}", target.url.host(), target.url.port())
        });
        format!("webhook {name}{receiver}")
    }

    /// Whether the URL is in use.
    pub fn is_live(&self, url_key: i32) -> bool {
        let url = self.urls.get(url_key);
        url.is_some_and(|url| url.presence == Presence::Live)
    }
}
