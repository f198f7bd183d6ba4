//! The tail reader: sees each new message once, counts it, and hands it to the
//! lanes that keep up.

use std::collections::HashSet;
use std::sync::Arc;

use super::engine::{Engine, MessageEntry, MessageLane};
use super::message::Message;
use crate::core::position::{Position, Window};
use crate::core::snapshot::Snapshot;
use crate::pg::{commit_end, invalidation, snapshot, wal};
use crate::store::ledger::TailState;
use crate::store::outbox::StoredMessage;
use crate::store::window_reader::WindowReader;

/// A lane at the tail holds at most so many undispatched messages: what a fast
/// receiver takes while the main thread is in a transaction.
const LANE_QUEUE: usize = 2000;
/// While memory is short the tail waits for lanes that have moved since this long.
const PATIENCE_NANOS: u64 = 50_000_000;

/// Where the tail stands.
pub struct Tail {
    pub position: Position,
    reader: Option<WindowReader>,
    /// The last stored tick, if it is known in memory.
    pub last_tick: i64,
    pub last_tick_snapshot: Option<Arc<Snapshot>>,
    pub ticked_at: u64,
    /// Webhooks with messages since the last tick.
    pub seen: HashSet<i32>,
    /// After a restart nobody knows what was seen since the last tick.
    pub seen_everything: bool,
    /// Transactions below have been checked for durability.
    durable_below: u64,
}

impl Tail {
    pub fn restored(state: &TailState) -> Self {
        let (from, to) = (Arc::new(state.from.clone()), Arc::new(state.to.clone()));
        Self {
            position: Position {
                window: Window::new(from, to, state.tick),
                id: state.id,
            },
            reader: None,
            last_tick: state.tick,
            last_tick_snapshot: None,
            ticked_at: 0,
            seen: HashSet::new(),
            seen_everything: true,
            durable_below: 0,
        }
    }

    /// The position to write down: a window that is done shrinks to its end, so that
    /// nobody has to look through it again to find what is new. `tick` is the tick that
    /// is being stored, if any.
    pub fn durable_position(&self, tick: Option<i64>) -> Position {
        let window = &self.position.window;
        let tick = tick.unwrap_or(window.tick);
        if self.position.window_is_done() {
            Position::end_of(Window::ending(Arc::clone(&window.to), tick))
        } else {
            Position {
                window: Window::new(Arc::clone(&window.from), Arc::clone(&window.to), tick),
                id: self.position.id,
            }
        }
    }

    pub fn has_seen(&self, webhook_key: i32) -> bool {
        self.seen_everything || self.seen.contains(&webhook_key)
    }

    /// The next window, up to `end`, or what is left of the present one; `None` if nothing
    /// committed.
    pub(super) fn reader(
        &mut self,
        end: impl FnOnce() -> Option<Arc<Snapshot>>,
    ) -> Option<WindowReader> {
        if let Some(reader) = self.reader.take() {
            return Some(reader);
        }
        if !self.position.window_is_done() {
            return Some(WindowReader::new(&self.position, None));
        }
        let now = end()?;
        if now == self.position.window.to {
            return None;
        }
        let from = Arc::clone(&self.position.window.to);
        let window = Window::new(from, now, self.last_tick);
        Some(WindowReader::new(&Position::start_of(window), None))
    }

    fn proceed(&mut self, reader: WindowReader) {
        self.position = reader.position();
        if !reader.is_done() {
            self.reader = Some(reader);
        }
    }
}

impl Engine {
    /// Reads the next page of new messages. `is_due`: not only because standbys have caught
    /// up. In a transaction. `true` if there may be more.
    pub fn read_tail(&mut self, is_due: bool) -> bool {
        if self.queued.is_exhausted() && !self.make_room() {
            return true;
        }
        let Some(mut reader) = self.next_of_tail(is_due) else {
            return false;
        };
        let wanted = self
            .lanes
            .values()
            .any(|lane| lane.is_at_tail() && lane.hold.is_none());
        let page = self.stores.outbox.next_page(&mut reader, wanted);
        self.learn_what_came_with(&page);
        self.make_durable(&page, reader.window());
        self.learn_events(&page);
        let window = Arc::clone(reader.window());
        for stored in page {
            self.route(stored, &window);
        }
        self.tail.proceed(reader);
        !self.tail.position.window_is_done()
    }

    /// A transaction may change definitions and rows: what it forbids holds for its own
    /// messages, too.
    fn learn_what_came_with(&mut self, page: &[StoredMessage]) {
        let unchecked = self.tail.durable_below;
        let recent = page
            .iter()
            .map(|stored| stored.at.xid)
            .filter(|xid| *xid >= unchecked);
        let xids: HashSet<u64> = recent.collect();
        let known = invalidation::generation();
        commit_end::wait_for_invalidations(xids.into_iter());
        invalidation::accept();
        if known != invalidation::generation() {
            self.load_definitions();
        }
    }

    /// A message must not leave before its commit is on disk.
    pub fn make_durable(&mut self, page: &[StoredMessage], window: &Window) {
        if self.tail.durable_below == 0 {
            // What committed before the worker started is checked once, as a whole.
            wal::make_everything_durable();
            self.tail.durable_below = snapshot::current().xmin;
        }
        let unchecked = self.tail.durable_below;
        let xids: HashSet<u64> = page
            .iter()
            .map(|stored| stored.at.xid)
            .filter(|xid| *xid >= unchecked)
            .collect();
        wal::make_durable(xids.into_iter());
        self.tail.durable_below = unchecked.max(window.from.xmin);
    }

    /// A message of an event that is not known yet, or not as it is now: its definition
    /// came with it. The worker is woken before it hears of the definition.
    fn learn_events(&mut self, page: &[StoredMessage]) {
        let is_known = |stored: &StoredMessage| match self.routes.events.get(&stored.event_key) {
            Some(event) => event.fits(stored),
            None => self.unroutable.was_looked_for(stored.event_key),
        };
        if !page.iter().all(is_known) {
            self.load_definitions();
        }
    }

    fn route(&mut self, stored: StoredMessage, window: &Arc<Window>) {
        self.settlement.count_message(stored.event_key);
        self.tail.seen.insert(stored.webhook_key);
        let webhook = self.routes.webhooks.get(&stored.webhook_key);
        let Some(webhook) = webhook.filter(|webhook| !webhook.url_keys.is_empty()) else {
            return self.keep_place(&stored, window);
        };
        let at = stored.at;
        let Some(event) = self.routes.events.get(&stored.event_key).cloned() else {
            // Each lane stops when it comes to it.
            for url_key in webhook.url_keys.clone() {
                if !self.withdrawals.cover_all_of(url_key, at.xid) {
                    self.leave_tail_before(url_key, &stored, window);
                }
            }
            return;
        };
        let message = Message::new(stored, &event);
        for url_key in &webhook.url_keys {
            let Some(lane) = self.lanes.get_mut(url_key) else {
                continue;
            };
            if self.withdrawals.cover_all_of(*url_key, at.xid) {
                continue;
            }
            self.settlement.count_arrival(*url_key);
            if !lane.is_at_tail() {
                self.oldest_behind
                    .entry(*url_key)
                    .or_insert(message.captured_at);
                continue;
            }
            let stands = lane.stands_until().is_some() && lane.queued() == 0;
            let stands = stands || lane.hold.is_some();
            if stands || lane.queued() >= LANE_QUEUE {
                self.oldest_behind.insert(*url_key, message.captured_at);
                lane.leave_tail(Position {
                    window: Arc::clone(window),
                    id: at.id - 1,
                });
                continue;
            }
            self.queued.add(&message);
            lane.offer(MessageEntry {
                at,
                window: Some(Arc::clone(window)),
                message: Arc::clone(&message),
                attempts: 0,
                is_retry: false,
            });
        }
    }

    /// Memory is short: lanes that stand still give their messages back. `false` while
    /// those that move should be waited for.
    pub fn make_room(&mut self) -> bool {
        let still: Vec<i32> = self
            .lanes
            .values()
            .filter(|lane| lane.queued() > 0 && self.stands_still(lane))
            .map(|lane| lane.url_key)
            .collect();
        for url_key in still {
            self.drop_queue(url_key);
        }
        !self.queued.is_exhausted()
    }

    /// Whether no call of the lane has ended of late. One that could start calls and has
    /// none on the wire only waits for a connection: as long as others give theirs back,
    /// its turn comes.
    fn stands_still(&self, lane: &MessageLane) -> bool {
        let now = self.ticker.now();
        let since = now.saturating_sub(PATIENCE_NANOS);
        let waits_its_turn = lane.in_flight() == 0
            && lane.may_start(now)
            && !self.throttled.contains(&lane.webhook_key)
            && self.lanes.values().any(|other| other.moved_since(since));
        !lane.moved_since(since) && !waits_its_turn
    }
}
