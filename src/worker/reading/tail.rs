//! The tail reader: sees each new message once.

use std::collections::HashSet;
use std::sync::Arc;

use super::standbys::TailEnd;
use super::Reader;
use crate::core::messages::position::{Cursor, Window};
use crate::core::messages::snapshot::Snapshot;
use crate::pg::{commit_end, invalidation, snapshot, wal};
use crate::store::outbox::StoredMessage;
use crate::store::settlement_log::TailState as StoredTail;
use crate::store::ticks::EVERY_WEBHOOK;
use crate::store::window_reader::WindowReader;

/// Not more than ten ticks a second.
const TICK_EVERY_NANOS: u64 = 100_000_000;
/// Ticks only spare lagging lanes some reading: a lock on their table is looked at this often.
const NO_TICK_NANOS: u64 = 1_000_000_000;
/// When no URL was to send any message for so long, nobody waits for the next ones either.
const UNAWAITED_AFTER_NANOS: u64 = 1_000_000_000;

/// Where the tail stands.
pub(super) struct Tail {
    pub position: Cursor,
    reader: Option<WindowReader>,
    /// The last stored tick, if it is known in memory.
    pub last_tick: i64,
    pub last_tick_snapshot: Option<Arc<Snapshot>>,
    ticked_at: u64,
    /// Webhooks with messages since the last tick.
    seen: HashSet<i32>,
    /// After a restart nobody knows what was seen since the last tick.
    seen_everything: bool,
    /// Transactions below have been checked for durability.
    durable_below: u64,
    /// No lane took any message of the last page.
    is_unwanted: bool,
    /// Since when no URL will send what comes.
    unawaited_since: Option<u64>,
}

/// New messages, and what is to be done with them before the tail goes on.
pub struct TailPage {
    pub messages: Vec<StoredMessage>,
    pub window: Arc<Window>,
    has_bodies: bool,
    reader: WindowReader,
}

/// Where the tail stands, to be written, and the tick that is stored with it.
pub struct TailState {
    pub position: Cursor,
    pub tick: Option<Tick>,
}

/// See [`crate::store::ticks`].
pub struct Tick {
    number: i64,
    snapshot: Arc<Snapshot>,
    webhook_keys: Vec<i32>,
}

impl Tail {
    pub fn restored(state: &StoredTail) -> Self {
        let (from, to) = (Arc::new(state.from.clone()), Arc::new(state.to.clone()));
        Self {
            position: Cursor {
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
            is_unwanted: false,
            unawaited_since: None,
        }
    }

    pub fn has_seen(&self, webhook_key: i32) -> bool {
        self.seen_everything || self.seen.contains(&webhook_key)
    }

    /// The next window, up to `end`, or what is left of the present one; `None` if nothing
    /// committed.
    fn take_reader(&mut self, end: impl FnOnce() -> Option<Arc<Snapshot>>) -> Option<WindowReader> {
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
        Some(WindowReader::new(&Cursor::start_of(window), None))
    }
}

impl Reader {
    /// The next page of new messages. `is_due`: not only because standbys have caught up. In a
    /// transaction.
    pub fn tail_page(&mut self, is_due: bool, delivery_is_on: bool) -> Option<TailPage> {
        let now = self.ticker.now();
        let standbys = &mut self.standbys;
        let mut reader = match standbys.tail_end(is_due, now) {
            TailEnd::Any => self
                .tail
                .take_reader(|| Some(Arc::new(snapshot::current()))),
            TailEnd::Nothing => None,
            TailEnd::Confirmed => self.tail.take_reader(|| standbys.confirmed_end(now)),
        }?;
        // Without bodies where nobody takes them.
        let is_wanted = delivery_is_on && !self.tail.is_unwanted;
        let messages = self.outbox.next_page(&mut reader, is_wanted);
        // A transaction may change definitions and rows: what it forbids holds for its own
        // messages, too.
        let unchecked = self.tail.durable_below;
        let recent = messages.iter().map(|stored| stored.at.xid);
        let xids: HashSet<u64> = recent.filter(|xid| *xid >= unchecked).collect();
        commit_end::wait_for_invalidations(xids.into_iter());
        invalidation::accept();
        let window = Arc::clone(reader.window());
        self.make_durable(&messages, &window);
        Some(TailPage {
            messages,
            window,
            has_bodies: is_wanted,
            reader,
        })
    }

    /// Reads the bodies of a page that seemed to be only counted. In a transaction.
    pub fn read_bodies(&self, page: &mut TailPage) {
        if page.has_bodies {
            return;
        }
        let positions: Vec<_> = page.messages.iter().map(|stored| stored.at).collect();
        page.messages = self.outbox.at(&positions, false);
        page.messages.sort_unstable_by_key(|stored| stored.at.id);
        page.has_bodies = true;
    }

    /// A message must not leave before its commit is on disk.
    pub(super) fn make_durable(&mut self, page: &[StoredMessage], window: &Window) {
        let tail = &mut self.tail;
        if tail.durable_below == 0 {
            // What committed before the worker started is checked once, as a whole.
            wal::make_everything_durable();
            tail.durable_below = snapshot::current().xmin;
        }
        let unchecked = tail.durable_below;
        let xids: HashSet<u64> = page
            .iter()
            .map(|stored| stored.at.xid)
            .filter(|xid| *xid >= unchecked)
            .collect();
        wal::make_durable(xids.into_iter());
        tail.durable_below = unchecked.max(window.from.xmin);
    }

    /// The page is routed. `accepted`: whether a lane took any of its messages, and whether a URL
    /// will send any; `None` if there were none. `true` if there may be more.
    pub fn finish_tail_page(
        &mut self,
        page: TailPage,
        webhooks: impl IntoIterator<Item = i32>,
        accepted: Option<(bool, bool)>,
    ) -> bool {
        let now = self.ticker.now();
        let tail = &mut self.tail;
        tail.seen.extend(webhooks);
        if let Some((is_taken, is_awaited)) = accepted {
            tail.is_unwanted = !is_taken;
            let since = tail.unawaited_since.unwrap_or(now);
            tail.unawaited_since = (!is_awaited).then_some(since);
        }
        tail.position = page.reader.position();
        if !page.reader.is_done() {
            tail.reader = Some(page.reader);
        }
        !tail.position.window_is_done()
    }

    /// Whether new messages are only counted of late: no URL will send any.
    pub fn is_only_counting(&self) -> bool {
        let now = self.ticker.now();
        let since = self.tail.unawaited_since;
        since.is_some_and(|since| now.saturating_sub(since) >= UNAWAITED_AFTER_NANOS)
    }

    /// How far the tail has got.
    pub fn tail_position(&self) -> &Cursor {
        &self.tail.position
    }

    /// What is to be written of the tail. A window that is done shrinks to its end, so that
    /// nobody has to look through it again to find what is new. A tick is worth storing only
    /// while some lane lags, and only between two windows.
    pub fn tail_state(&self, may_tick: bool) -> TailState {
        let tail = &self.tail;
        let window = &tail.position.window;
        let is_done = tail.position.window_is_done();
        let tick = (may_tick
            && is_done
            && (tail.seen_everything || !tail.seen.is_empty())
            && self.ticker.now().saturating_sub(tail.ticked_at) >= TICK_EVERY_NANOS)
            .then(|| Tick {
                number: tail.last_tick + 1,
                snapshot: Arc::clone(&window.to),
                webhook_keys: match tail.seen_everything {
                    true => vec![EVERY_WEBHOOK],
                    false => tail.seen.iter().copied().collect(),
                },
            });
        let number = tick.as_ref().map_or(window.tick, |tick| tick.number);
        let position = if is_done {
            Cursor::end_of(Window::ending(Arc::clone(&window.to), number))
        } else {
            Cursor {
                window: Window::new(Arc::clone(&window.from), Arc::clone(&window.to), number),
                id: tail.position.id,
            }
        };
        TailState { position, tick }
    }

    /// In the transaction that writes the state.
    pub fn store_tick(&self, state: &TailState) {
        if let Some(tick) = &state.tick {
            self.ticks
                .store(tick.number, &tick.snapshot, &tick.webhook_keys);
        }
    }

    /// The state is written.
    pub fn tail_is_written(&mut self, state: TailState) {
        let now = self.ticker.now();
        let tail = &mut self.tail;
        if let Some(tick) = state.tick {
            tail.last_tick = tick.number;
            tail.last_tick_snapshot = Some(tick.snapshot);
            tail.ticked_at = now;
            tail.seen.clear();
            tail.seen_everything = false;
        }
        tail.position = state.position;
    }

    /// Another session has the ticks locked.
    pub fn ticks_are_locked(&mut self) {
        self.tail.ticked_at = self.ticker.now() + NO_TICK_NANOS;
    }

    /// The last tick, which lanes that have read everything before it do not need.
    pub fn last_tick(&self) -> i64 {
        self.tail.last_tick
    }
}
