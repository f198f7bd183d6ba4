//! A lane: the messages on their way to one URL.
//!
//! A lane that keeps up is fed by the tail reader. One that cannot (slow,
//! throttled, paused, down) leaves the tail, remembers its own position and reads
//! its backlog itself, until it has caught up. What must survive a crash is
//! small: the position, and the messages that were taken but not settled.
//!
//! A lane may keep the order of its messages ([`order`] says how, and why that is
//! the right one), or that of each key ([`keys`]); any other makes several calls at a
//! time, and what fails steps aside until its retry is due.
//!
//! Pure: messages are a type parameter, time is an argument in nanoseconds.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use crate::core::messages::order_keys::OrderKeys;
use crate::core::messages::position::{Cursor, MessagePosition, Window};
use keys::KeyOrder;
use order::Order;

mod calls;
mod durable;
pub mod keys;
mod order;
mod pace;

/// A message in a lane.
#[derive(Clone, Debug)]
pub struct Entry<M> {
    pub at: MessagePosition,
    /// The window it was read in; `None` for one that was named by its position.
    pub window: Option<Arc<Window>>,
    pub message: M,
    /// The keys of its order, where the lane keeps that of each key.
    pub keys: OrderKeys,
    /// Calls made before.
    pub attempts: u32,
    /// It has a row in the retry table, which survives by itself.
    pub is_retry: bool,
}

/// Who feeds the lane.
#[derive(Clone, Debug, PartialEq)]
pub enum Feed {
    /// The tail reader.
    Tail,
    /// The lane itself, from this position on.
    Own(Cursor),
}

/// What must be durable of a lane.
#[derive(Clone, Debug, PartialEq)]
pub struct DurableLane {
    /// `None`: everything the tail has passed was taken.
    pub position: Option<Cursor>,
    /// Taken, not settled.
    pub busy: Vec<MessagePosition>,
}

/// What a call says about its receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It took the message.
    Up,
    /// It cannot be reached, or answers that it cannot work (5xx, 429).
    Down,
    /// It refused this message; the next may fare better.
    Unknown,
}

/// Why a lane sends nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    Paused,
    Disabled,
}

#[derive(Clone, Copy, Debug)]
struct Finished {
    at: MessagePosition,
    keys: OrderKeys,
    is_retry: bool,
    /// It will be called again.
    waits: bool,
    /// It was not called: it waits for another one of its keys.
    is_held_back: bool,
}

/// See the module.
pub struct Lane<M> {
    pub url_key: i32,
    pub webhook_key: i32,
    pub max_in_flight: usize,
    pub hold: Option<Hold>,
    /// Something durable changed since the last settlement.
    pub dirty: bool,
    feed: Feed,
    queue: VecDeque<Entry<M>>,
    /// Busy when the worker ended, or back from a run that was stopped; they go first.
    requeued: VecDeque<Entry<M>>,
    due_retries: VecDeque<Entry<M>>,
    flying: HashMap<u64, Entry<M>>,
    /// Threads that are at it: each works through a run of messages, one at a time.
    runs: usize,
    /// How long calls take of late, smoothed.
    call_nanos: u64,
    /// Retries in memory or on the wire, until they are settled: they must not be
    /// loaded a second time.
    retries: HashSet<MessagePosition>,
    /// Outcome known, not written yet.
    unsettled: Vec<Finished>,
    /// Outcome in the settlement that is being written.
    settling: Vec<Finished>,
    failures: u32,
    backoff_until: u64,
    finished_at: u64,
    order: Order,
    /// Of a lane that keeps the order of each key.
    keys: Option<Box<KeyOrder>>,
    /// To be written as rows of the retry table.
    held_back: Vec<Entry<M>>,
    /// Retries that left memory, to be loaded again.
    unloaded: Vec<Entry<M>>,
}

impl<M> Lane<M> {
    pub fn new(url_key: i32, webhook_key: i32, feed: Feed) -> Self {
        Self {
            url_key,
            webhook_key,
            max_in_flight: 1,
            hold: None,
            dirty: true,
            feed,
            queue: VecDeque::new(),
            requeued: VecDeque::new(),
            due_retries: VecDeque::new(),
            flying: HashMap::new(),
            runs: 0,
            call_nanos: 0,
            retries: HashSet::new(),
            unsettled: Vec::new(),
            settling: Vec::new(),
            failures: 0,
            backoff_until: 0,
            finished_at: 0,
            order: Order::default(),
            keys: None,
            held_back: Vec::new(),
            unloaded: Vec::new(),
        }
    }

    pub fn feed(&self) -> &Feed {
        &self.feed
    }

    pub fn is_at_tail(&self) -> bool {
        self.feed == Feed::Tail
    }

    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Every message that is not on the wire.
    pub fn waiting(&self) -> impl Iterator<Item = &Entry<M>> {
        self.requeued
            .iter()
            .chain(&self.due_retries)
            .chain(&self.queue)
    }

    /// The same, to be exchanged for other forms of themselves.
    pub fn waiting_mut(&mut self) -> impl Iterator<Item = &mut Entry<M>> {
        self.requeued
            .iter_mut()
            .chain(&mut self.due_retries)
            .chain(&mut self.queue)
    }

    /// What was taken or waits in memory, but not retries; of the queue only the first.
    pub fn foremost(&self) -> impl Iterator<Item = &Entry<M>> {
        let flying = self.flying.values().filter(|entry| !entry.is_retry);
        flying.chain(&self.requeued).chain(self.queue.front())
    }

    /// Calls on the wire, at most.
    pub fn in_flight(&self) -> usize {
        self.runs
    }

    /// Retries in memory that wait for a connection, and not for a key on the wire.
    pub fn retries_loaded(&self) -> usize {
        match &self.keys {
            Some(keys) => keys.count_off_wire(&self.due_retries),
            None => self.due_retries.len(),
        }
    }

    /// Whether a call has ended since `moment`.
    pub fn moved_since(&self, moment: u64) -> bool {
        self.finished_at >= moment
    }

    /// A message from the tail. Only a lane at the tail takes one.
    pub fn offer(&mut self, entry: Entry<M>) {
        debug_assert!(self.is_at_tail(), "the tail feeds lanes at the tail");
        self.dirty = true;
        self.queue.push_back(entry);
        self.advance_to_new();
    }

    /// The lane cannot keep up: from `position` on it reads for itself.
    pub fn leave_tail(&mut self, position: Cursor) {
        self.dirty = true;
        self.feed = Feed::Own(position);
    }

    /// Its backlog is read: the tail feeds it again.
    pub fn join_tail(&mut self) {
        self.dirty = true;
        self.feed = Feed::Tail;
    }

    /// A page of the lane's own backlog, and where it ends.
    pub fn take_page(&mut self, entries: impl IntoIterator<Item = Entry<M>>, end: Cursor) {
        self.dirty = true;
        self.queue.extend(entries);
        self.feed = Feed::Own(end);
        self.advance_to_new();
    }

    /// Messages that were busy when the worker ended.
    pub fn requeue(&mut self, entry: Entry<M>) {
        self.dirty = true;
        self.put_first(entry);
        self.advance();
    }

    /// Before the queue, but after earlier messages that were put there: they may come
    /// one at a time, and from several runs. Returns its place.
    fn put_first(&mut self, entry: Entry<M>) -> usize {
        let place = self
            .requeued
            .partition_point(|earlier| earlier.at.id < entry.at.id);
        self.requeued.insert(place, entry);
        place
    }

    /// A message whose retry is due; one that is under way already is left alone, and so is one
    /// of a key whose order the retry table does not know yet.
    pub fn retry(&mut self, entry: Entry<M>) -> bool {
        let is_new = self.may_load(entry.keys) && self.retries.insert(entry.at);
        if is_new {
            if let Some(keys) = &mut self.keys {
                keys.is_loaded(entry.keys);
            }
            self.put_due(entry);
            self.advance();
        }
        is_new
    }

    /// Whether the message is loaded, on the wire or not settled as a retry.
    pub fn is_under_way(&self, at: MessagePosition) -> bool {
        self.retries.contains(&at)
    }

    /// Behind all others, or by id where the order of keys counts. Returns its place.
    fn put_due(&mut self, entry: Entry<M>) -> usize {
        let place = match self.keys {
            Some(_) => self.due_retries.partition_point(|earlier| {
                (earlier.at.id, earlier.at.xid) < (entry.at.id, entry.at.xid)
            }),
            None => self.due_retries.len(),
        };
        self.due_retries.insert(place, entry);
        place
    }

    /// A held lane keeps nothing in memory but what cannot be read again by position.
    /// Returns what was dropped.
    pub fn drop_queue(&mut self) -> Vec<Entry<M>> {
        let mut dropped = self.unread_queue();
        dropped.extend(self.unload_retries());
        self.hold_back_all();
        self.advance();
        dropped
    }

    /// What waits in the queue is read again later. Returns what was dropped.
    pub fn unread_queue(&mut self) -> Vec<Entry<M>> {
        let Some(position) = self.before_queue() else {
            return Vec::new();
        };
        self.dirty = true;
        self.feed = Feed::Own(position);
        let dropped = self.queue.drain(..).collect();
        self.advance();
        dropped
    }

    /// Messages of the lane's own that were taken and have no outcome yet: on the wire, or
    /// about to go there first.
    pub fn taken(&self) -> usize {
        let flying = self.flying.values().filter(|entry| !entry.is_retry);
        flying.count() + self.requeued.len()
    }

    /// Whether the message is in memory, on the wire, or has an outcome that is not settled.
    pub fn holds(&self, at: MessagePosition) -> bool {
        let unsettled = self.unsettled.iter().chain(&self.settling);
        self.waiting().any(|entry| entry.at == at)
            || self.flying.values().any(|entry| entry.at == at)
            || unsettled.into_iter().any(|finished| finished.at == at)
    }
}

#[cfg(test)]
mod tests;
