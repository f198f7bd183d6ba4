//! Lanes that left the tail read their own backlog, tick by tick; due retries are read
//! here too.

use std::collections::HashMap;
use std::sync::Arc;

use super::engine::{Engine, MessageEntry, MessageLane};
use super::locks::Work;
use super::message::Message;
use crate::core::lane::{Feed, Lane};
use crate::core::next_window::{next_window, Next, NextTick, TailPlace};
use crate::core::position::{Coordinate, Position, Window};
use crate::pg::{clock, tx};
use crate::store::outbox::StoredMessage;
use crate::store::settlement::DueRetry;
use crate::store::window_reader::WindowReader;

/// A lane with fewer undispatched messages reads its next page.
const LOW_WATER: usize = 1000;
/// Pages read in one transaction, all lanes together: it must stay short.
const PAGES_A_LOOK: usize = 4;
/// Empty windows that one lane may pass in one transaction.
const WINDOWS_A_LOOK: usize = 64;
/// Retries loaded at once.
const RETRIES_A_LOOK: usize = 500;
/// A lane does not load more due retries than this ahead.
const RETRIES_PER_LANE: usize = 64;
/// Due retries that found no room are looked at again after this.
pub(super) const RETRY_LOOK_MICROS: i64 = 100_000;

impl Engine {
    /// In a transaction, each part for itself: what is locked stops nothing that is not. `true`
    /// if there may be more for the tail.
    pub fn read_what_is_due(&mut self, tail_is_due: bool) -> bool {
        let wants_tail = tail_is_due || self.standbys.wants_tail(self.ticker.now());
        // Also what standbys have confirmed is not known any more if this fails.
        let mut more = wants_tail;
        if tail_is_due || self.wants_outbox() {
            let read = self.try_part(Work::Outbox, |engine| {
                // Before anything that comes after them.
                engine.requeue_interrupted();
                engine.read_bodies();
                wants_tail && engine.read_tail(tail_is_due)
            });
            let Some(tail_has_more) = read else {
                return more;
            };
            more = tail_has_more;
        }
        if self.wants_backlog() {
            self.try_part(Work::Backlogs, Self::read_backlogs);
        }
        // Last: what was read above may be a reason to ask.
        if self.may_read_retries() {
            self.try_part(Work::Retries, |engine| {
                if engine.wants_retries(clock::now()) {
                    engine.read_due_retries();
                }
                engine.read_waiting();
            });
            if std::mem::take(&mut self.retries_are_locked) {
                self.locks.failed(Work::Retries, self.ticker.now());
            }
        }
        more
    }

    /// Whether something of the outbox is to be read, but for what may have been committed.
    pub fn wants_outbox(&self) -> bool {
        !self.bodiless.is_empty()
            || self.wants_interrupted()
            || self.standbys.wants_tail(self.ticker.now())
    }

    pub fn may_read_retries(&self) -> bool {
        let wanted = self.wants_retries(clock::now()) || self.may_read_waiting();
        wanted && self.may_try(Work::Retries)
    }

    pub fn may_read_waiting(&self) -> bool {
        self.wants_waiting(clock::now()) && self.may_try(Work::Retries)
    }

    /// Whether a lane wants to read for itself.
    pub fn wants_backlog(&self) -> bool {
        !self.queued.is_exhausted() && self.standbys.has_passed_barrier() && self.any_wants_page()
    }

    /// Lanes that stand still must not keep those from reading that could go on.
    pub fn make_room_for_backlogs(&mut self) {
        if self.queued.is_exhausted() && self.any_wants_page() {
            self.make_room();
        }
    }

    fn any_wants_page(&self) -> bool {
        self.lanes.values().any(|lane| self.wants_page(lane))
    }

    fn wants_page(&self, lane: &Lane<Arc<Message>>) -> bool {
        lane.hold.is_none()
            && !lane.is_at_tail()
            && lane.queued() < LOW_WATER
            && lane.stands_until().is_none()
            && (lane.queued() == 0 || lane.silent_until(self.ticker.now()).is_none())
            && !self.unroutable.blocks(lane.url_key)
    }

    /// Gives lagging lanes their next pages. In a transaction. `true` if some still want more.
    pub fn read_backlogs(&mut self) -> bool {
        let hungry: Vec<i32> = self
            .lanes
            .values()
            .filter(|lane| self.wants_page(lane))
            .map(|lane| lane.url_key)
            .collect();
        let count = hungry.len();
        let mut pages = PAGES_A_LOOK;
        for i in 0..count {
            if pages == 0 || self.queued.is_exhausted() {
                break;
            }
            let url_key = hungry[(i + self.first_lane) % count];
            if self.read_backlog_of(url_key) {
                pages -= 1;
            }
        }
        self.first_lane = self.first_lane.wrapping_add(1);
        self.wants_backlog()
    }

    /// `true` if a page was read.
    fn read_backlog_of(&mut self, url_key: i32) -> bool {
        for _ in 0..WINDOWS_A_LOOK {
            let Some(mut reader) = self.backlog_reader(url_key) else {
                return false;
            };
            let outbox = &self.stores.outbox;
            if !self.shared_windows.prepare(outbox, &mut reader) {
                self.readers.insert(url_key, reader);
                return true;
            }
            let withdrawn = self.withdrawals.cover_window(url_key, &reader.window().to);
            let page = self.stores.outbox.next_page(&mut reader, !withdrawn);
            let window = Arc::clone(reader.window());
            self.make_durable(&page, &window);
            let read_something = !page.is_empty();
            let stopped = self.give_page(url_key, page, &reader);
            let has_more = !reader.is_done();
            if stopped {
                return true;
            }
            if has_more {
                self.readers.insert(url_key, reader);
            }
            if read_something || has_more {
                return true;
            }
        }
        true
    }

    /// `true` if the lane stops before a message of the page that cannot be routed.
    fn give_page(
        &mut self,
        url_key: i32,
        mut page: Vec<StoredMessage>,
        reader: &WindowReader,
    ) -> bool {
        let window = reader.window();
        page.retain(|stored| !self.withdrawals.cover_all_of(url_key, stored.at.xid));
        let mut end = reader.position();
        let stops_at = page.iter().position(|stored| !self.is_routable(stored));
        if let Some(place) = stops_at {
            let stored = &page[place];
            end = Position {
                window: Arc::clone(window),
                id: stored.at.id - 1,
            };
            self.block(url_key, stored.event_key);
            page.truncate(place);
        }
        let entries: Vec<MessageEntry> = page
            .into_iter()
            .filter_map(|stored| self.entry(stored, Some(window), 0, false))
            .collect();
        if !entries.is_empty() {
            self.oldest_behind.remove(&url_key);
        }
        for entry in &entries {
            self.queued.add(&entry.message);
        }
        if let Some(lane) = self.lanes.get_mut(&url_key) {
            lane.take_page(entries, end);
        }
        stops_at.is_some()
    }

    fn is_routable(&self, stored: &StoredMessage) -> bool {
        self.routes.events.contains_key(&stored.event_key)
    }

    fn entry(
        &self,
        stored: StoredMessage,
        window: Option<&Arc<Window>>,
        attempts: u32,
        is_retry: bool,
    ) -> Option<MessageEntry> {
        let event = self.routes.events.get(&stored.event_key)?;
        Some(MessageEntry {
            at: stored.at,
            window: window.cloned(),
            message: Message::new(stored, event),
            attempts,
            is_retry,
        })
    }

    /// The reader of a lane's present window, or of its next one. `None` once it has
    /// caught up: then the tail feeds it.
    fn backlog_reader(&mut self, url_key: i32) -> Option<WindowReader> {
        if let Some(reader) = self.readers.remove(&url_key) {
            return Some(reader);
        }
        let lane = self.lanes.get(&url_key)?;
        let webhook_key = lane.webhook_key;
        let Feed::Own(position) = lane.feed().clone() else {
            return None;
        };
        if !position.window_is_done() {
            return Some(WindowReader::new(&position, Some(webhook_key)));
        }
        match self.after(&position, webhook_key) {
            Next::Window(window) => Some(WindowReader::new(
                &Position::start_of(window),
                Some(webhook_key),
            )),
            Next::Join => {
                self.lanes.get_mut(&url_key)?.join_tail();
                self.oldest_behind.remove(&url_key);
                None
            }
            Next::Wait => None,
        }
    }

    fn after(&self, position: &Position, webhook_key: i32) -> Next {
        let tail = TailPlace {
            position: &self.tail.position,
            last_tick: self.tail.last_tick,
            last_tick_snapshot: self.tail.last_tick_snapshot.as_ref(),
            has_seen: self.tail.has_seen(webhook_key),
        };
        next_window(position, &tail, |tick| {
            let found = self.stores.ledger.next_tick(tick, webhook_key);
            found.map(|(number, snapshot, before)| NextTick {
                number,
                snapshot,
                before,
            })
        })
    }

    /// Messages that were busy when the last worker ended go first. In a transaction.
    pub fn requeue_interrupted(&mut self) {
        if !self.standbys.has_passed_barrier() {
            return;
        }
        let with_some = self.interrupted.keys().copied();
        let url_keys: Vec<i32> = with_some
            .filter(|url_key| !self.unroutable.blocks(*url_key))
            .collect();
        for url_key in url_keys {
            // They leave the list once they are read: reading may fail.
            let coordinates = &self.interrupted[&url_key];
            let found = self.stores.outbox.at(coordinates, false);
            self.interrupted.remove(&url_key);
            for stored in in_order(found) {
                let (at, event_key) = (stored.at, stored.event_key);
                let Some(entry) = self.entry(stored, None, 0, false) else {
                    // It stays what the last worker left, until it can be routed.
                    self.interrupted.entry(url_key).or_default().push(at);
                    self.block(url_key, event_key);
                    continue;
                };
                if let Some(lane) = self.lanes.get_mut(&url_key) {
                    self.queued.add(&entry.message);
                    lane.requeue(entry);
                }
            }
        }
    }

    pub fn wants_retries(&self, now_pg: i64) -> bool {
        self.next_retry_at.is_some_and(|at| at <= now_pg) || self.has_room_for_retries()
    }

    /// Loads the retries that are due. In a transaction.
    pub fn read_due_retries(&mut self) {
        let (now, ticks) = (clock::now(), self.ticker.now());
        let blocked = self.unroutable.blocked_urls();
        let takes_retries = |lane: &&MessageLane| {
            lane.hold.is_none() && !lane.keeps_order() && !blocked.contains(&lane.url_key)
        };
        let url_keys: Vec<i32> = self
            .lanes
            .values()
            .filter(takes_retries)
            .filter(|lane| lane.silent_until(ticks).is_none())
            .filter(|lane| lane.retries_loaded() < RETRIES_PER_LANE)
            .map(|lane| lane.url_key)
            .collect();
        let mut due = self.stores.settlement.due(now, &url_keys, RETRIES_A_LOOK);
        due.retain(|retry| self.may_repeat(retry));
        self.load_retries(due);
        let next = self.stores.settlement.next_due(&url_keys).map(|at| {
            // What is due but already loaded is no reason to spin.
            at.max(now + RETRY_LOOK_MICROS)
        });
        let lanes = self.lanes.values().filter(takes_retries);
        let silence_ends = lanes
            .clone()
            .filter_map(|lane| lane.silent_until(ticks))
            .min()
            .map(|until| now + i64::try_from((until - ticks) / 1000).unwrap_or(i64::MAX / 4));
        self.next_retry_at = next.into_iter().chain(silence_ends).min();
        self.crowded = lanes
            .filter(|lane| lane.retries_loaded() >= RETRIES_PER_LANE)
            .map(|lane| lane.url_key)
            .collect();
    }

    /// A lane that had as many retries as it may has sent most of them.
    fn has_room_for_retries(&self) -> bool {
        self.crowded.iter().any(|url_key| {
            let lane = self.lanes.get(url_key);
            lane.is_some_and(|lane| lane.retries_loaded() < RETRIES_PER_LANE / 2)
        })
    }

    /// Hands retries to their lanes, in this order. In a transaction.
    pub fn load_retries(&mut self, due: Vec<DueRetry>) {
        if due.is_empty() {
            return;
        }
        let coordinates: Vec<Coordinate> = due.iter().map(|retry| retry.at).collect();
        let stored = self.stores.outbox.at(&coordinates, false);
        let found: HashMap<Coordinate, StoredMessage> = stored
            .into_iter()
            .map(|message| (message.at, message))
            .collect();
        let mut lost = Vec::new();
        for retry in due {
            let mut stored = found.get(&retry.at).cloned();
            if let Some(stored) = &mut stored {
                stored.accepted_at = retry.accepted_at;
            }
            let attempts = u32::try_from(retry.attempts).unwrap_or(0);
            if let Some(stored) = stored.as_ref().filter(|stored| !self.is_routable(stored)) {
                self.block(retry.url_key, stored.event_key);
                continue;
            }
            let Some(entry) = stored.and_then(|stored| self.entry(stored, None, attempts, true))
            else {
                lost.push((retry.url_key, retry.at));
                continue;
            };
            if let Some(lane) = self.lanes.get_mut(&retry.url_key) {
                let message = Arc::clone(&entry.message);
                if lane.retry(entry) {
                    self.queued.add(&message);
                }
            }
        }
        self.give_up(&lost);
    }

    /// Somebody emptied the outbox: what cannot be sent any more must not hold what can.
    fn give_up(&mut self, lost: &[(i32, Coordinate)]) {
        if lost.is_empty() {
            return;
        }
        let why = "the message or its event is no longer there";
        match tx::part(|| self.stores.settlement.give_up(lost, why)) {
            Ok(()) => pgrx::warning!(
                "{} calls of webhook messages are not repeated: their messages are no longer in webhook.outbox",
                lost.len()
            ),
            Err(failure) if failure.is_lock_not_available() => {
                self.retries_are_locked = true;
                return;
            }
            Err(failure) => failure.raise(),
        }
        for (url_key, _) in lost {
            if let Some(lane) = self.lanes.get_mut(url_key) {
                lane.retry_ended();
            }
        }
    }
}

fn in_order(mut messages: Vec<StoredMessage>) -> Vec<StoredMessage> {
    messages.sort_unstable_by_key(|message| message.at.id);
    messages
}
