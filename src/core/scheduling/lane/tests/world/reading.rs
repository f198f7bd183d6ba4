//! How the worker reads: tail, own backlog, retries, ticks.

use super::*;
use crate::core::scheduling::next_window::{next_window, Next, NextTick, TailPlace, TicksAhead};

/// Retries that are looked at together.
const RETRIES_AT_ONCE: usize = 3;
/// A lane that sends nothing for longer gives its messages back.
const SHORT_WAIT_MICROS: i64 = 100_000;

impl Tail {
    pub fn restored(position: Cursor) -> Self {
        Self {
            last_tick: position.window.tick,
            position,
            last_tick_snapshot: None,
            // Nobody knows what was seen since the last tick.
            has_seen_us: true,
            has_seen_any: true,
        }
    }

    pub fn durable_position(&self, tick: Option<i64>) -> Cursor {
        let window = &self.position.window;
        let tick = tick.unwrap_or(window.tick);
        if self.position.window_is_done() {
            return Cursor::end_of(Window::ending(Arc::clone(&window.to), tick));
        }
        Cursor {
            window: Window::new(Arc::clone(&window.from), Arc::clone(&window.to), tick),
            id: self.position.id,
        }
    }
}

impl World {
    pub fn read_tail(&mut self, size: usize, is_full: bool) {
        if self.tail.position.window_is_done() {
            let now = self.stream.snapshot();
            let from = Arc::clone(&self.tail.position.window.to);
            if from == now {
                return;
            }
            let window = Window::new(from, now, self.tail.last_tick);
            self.tail.position = Cursor::start_of(window);
        }
        let (page, end) = self.stream.page(&self.tail.position, size, false);
        let window = Arc::clone(&end.window);
        for at in page {
            self.route(at, &window, is_full);
        }
        self.tail.position = end;
    }

    fn route(&mut self, at: MessagePosition, window: &Arc<Window>, is_full: bool) {
        self.tail.has_seen_any = true;
        if !self.stream.is_ours(at) {
            return;
        }
        self.tail.has_seen_us = true;
        if !self.lane.is_at_tail() {
            return;
        }
        let stands = self.lane.blocked_until().is_some() && self.lane.queued() == 0;
        if stands || self.lane.is_retry_capped() || self.lane.hold.is_some() || is_full {
            self.lane.leave_tail(position(window, at.id - 1));
        } else {
            let keys = self.stream.keys(at);
            self.lane.offer(entry(at, Some(window), keys, 0, false));
        }
    }

    pub fn read_own(&mut self, size: usize) {
        let Feed::Own(mut position) = self.lane.feed().clone() else {
            return;
        };
        let stands = self.lane.blocked_until().is_some() || self.lane.is_retry_capped();
        if self.lane.hold.is_some() || stands {
            return;
        }
        if position.window_is_done() {
            match self.after(&position) {
                Next::Window(window) => position = Cursor::start_of(window),
                Next::Join => return self.lane.join_tail(),
                Next::Wait => return,
            }
        }
        let (page, end) = self.stream.page(&position, size, true);
        let entries = page
            .into_iter()
            .map(|at| entry(at, Some(&position.window), self.stream.keys(at), 0, false));
        self.lane.take_page(entries, end);
    }

    fn after(&self, position: &Cursor) -> Next {
        let tail = TailPlace {
            position: &self.tail.position,
            last_tick: self.tail.last_tick,
            last_tick_snapshot: self.tail.last_tick_snapshot.as_ref(),
            has_seen: self.tail.has_seen_us,
        };
        let ticks = &self.stored.ticks;
        next_window(position, &tail, |tick| {
            let mut later = ticks.iter().filter(|stored| stored.number > tick);
            let next = later.find(|stored| stored.names_us).map(|next| {
                let before = ticks
                    .iter()
                    .rfind(|stored| stored.number < next.number)
                    .filter(|_| next.number > tick + 1);
                NextTick {
                    number: next.number,
                    snapshot: (*next.snapshot).clone(),
                    before: before.map(|stored| (*stored.snapshot).clone()),
                }
            });
            TicksAhead {
                are_complete: ticks.iter().any(|stored| stored.number == tick + 1),
                next,
            }
        })
    }

    /// A tick is worth storing while a lane lags, between two windows.
    pub fn store_tick(&mut self, wanted: bool, others_lag: bool) -> Option<i64> {
        let tail = &mut self.tail;
        let is_lagging = others_lag || !self.lane.is_at_tail();
        let is_between = tail.position.window_is_done();
        if !(wanted && is_lagging && is_between && tail.has_seen_any) {
            return None;
        }
        let number = tail.last_tick + 1;
        let snapshot = Arc::clone(&tail.position.window.to);
        self.stored.ticks.push(Tick {
            number,
            snapshot: Arc::clone(&snapshot),
            names_us: tail.has_seen_us,
        });
        tail.last_tick = number;
        tail.last_tick_snapshot = Some(snapshot);
        tail.has_seen_us = false;
        tail.has_seen_any = false;
        Some(number)
    }

    /// Deletes the ticks that no lane needs, as far as the worker knows: what it knows may not be
    /// written.
    pub fn compact(&mut self, others_need: i64) {
        let others = self.tail.last_tick - others_need;
        let position = self.lane.durable().position;
        let ours = position.filter(|_| !self.lane.is_at_tail());
        let needed = ours.map_or(others, |position| others.min(position.window.tick));
        self.stored.ticks.retain(|tick| tick.number >= needed);
    }

    pub fn read_retries(&mut self) {
        let now = self.now_micros();
        if self.lane.hold.is_some() {
            return;
        }
        if self.rules.order == DeliveryOrder::Key {
            return self.read_retries_by_key();
        }
        let keeps_order = self.rules.order == DeliveryOrder::Fifo;
        let is_due = self.lane.blocked_until().is_some_and(|at| at <= now);
        if keeps_order && !self.lane.wants_answer() && !is_due {
            return;
        }
        let waiting: Vec<(MessagePosition, Waiting)> = self
            .stored
            .retries
            .iter()
            .map(|((id, xid), waiting)| (MessagePosition { xid: *xid, id: *id }, *waiting))
            .collect();
        if keeps_order {
            self.lane
                .learn_waiting(waiting.first().map(|(_, first)| first.next_at));
            let for_long = now + SHORT_WAIT_MICROS;
            if self.lane.blocked_until().is_some_and(|at| at > for_long) {
                drop(self.lane.drop_queue());
            }
            let due = waiting.iter().take_while(|(_, row)| row.next_at <= now);
            self.load(due.take(RETRIES_AT_ONCE));
        } else {
            self.load(waiting.iter().filter(|(_, row)| row.next_at <= now));
        }
    }

    fn load<'a>(&mut self, due: impl Iterator<Item = &'a (MessagePosition, Waiting)>) {
        for (at, waiting) in due {
            let keys = self.stream.keys(*at);
            self.lane
                .retry(entry(*at, None, keys, waiting.attempts, true));
        }
    }
}
