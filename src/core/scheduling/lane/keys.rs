//! What a lane that keeps the order of each key may start next.
//!
//! Messages with the same key go one after the other, others overlap ('key'). A message whose key
//! is on the wire waits in memory, up to [`LOOKAHEAD`] of them; those behind it may pass if their
//! keys are free. A message that failed and will be repeated waits in the retry table, and its
//! keys are *blocked* from that moment: a message with a blocked key is *held back*, which means
//! that it becomes a row of the retry table, too, without a date. So memory does not depend on how
//! many messages wait. What waits there is ordered by id: the first of its keys gets a date when nothing
//! else of them is under way ([`Lane::keys_to_ask`]), and is loaded with those that follow it.
//!
//! Why the order is right: of two messages with a common key the later one starts only if the
//! earlier one is neither in memory, nor on the wire, nor in the table. In memory the one with the
//! lower id goes first; what is in memory follows what is in the table, because a blocked key lets
//! nothing pass. A message with two keys (an update that changed the key) waits for both, and
//! blocks both. The table alone knows what waits there, since other sessions redeliver and cancel:
//! until the lane was told ([`Lane::learn_blocked_keys`]) it starts nothing.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use super::order::Source;
use super::{Entry, Finished, Lane};
use crate::core::messages::order_keys::OrderKeys;

mod next;
mod table;

/// Messages in memory that wait for a key on the wire: a key that is busy for a while must not
/// stop the others, and the durable state lists each of them.
pub(super) const LOOKAHEAD: usize = 256;
/// Messages that were held back and are not written: they wait for a transaction.
const UNWRITTEN_AT_MOST: usize = 1_000;
/// Blocked keys that a lane knows. With more it takes no messages from its queue.
pub const BLOCKED_AT_MOST: usize = if cfg!(feature = "fault_injection") {
    50
} else {
    10_000
};

/// What is under way of a key that is blocked.
#[derive(Clone, Copy, Debug, Default)]
struct Blocked {
    /// Its retries in memory, on the wire, or with an outcome that is not written.
    loaded: usize,
    /// Its messages that wait for a retry or behind one, and are not written.
    unwritten: usize,
}

/// A key as the retry table has it, by which it sorts.
pub fn as_stored(key: u64) -> i64 {
    i64::from_ne_bytes(key.to_ne_bytes())
}

impl Blocked {
    fn is_quiet(self) -> bool {
        self.loaded == 0 && self.unwritten == 0
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct KeyOrder {
    on_wire: HashMap<u64, usize>,
    blocked: HashMap<u64, Blocked>,
    /// Blocked keys of which nothing is under way: the table says what is next.
    to_ask: BTreeSet<u64>,
    /// Nothing starts until the table was asked which keys are blocked.
    is_unknown: bool,
    /// The table has more blocked keys than are known here.
    is_cut: bool,
    /// From here on they are still to be asked about.
    unknown_from: Option<i64>,
    is_retry_capped: bool,
    /// A key was blocked, or a message came back, since messages in memory were looked at.
    has_news: bool,
    unwritten: usize,
    blocked_at_most: usize,
    next: Source,
    /// Keys of messages in memory that go before the one that is looked at.
    before: HashSet<u64>,
}

impl KeyOrder {
    fn new() -> Self {
        Self {
            on_wire: HashMap::new(),
            blocked: HashMap::new(),
            to_ask: BTreeSet::new(),
            is_unknown: true,
            is_cut: false,
            unknown_from: None,
            is_retry_capped: false,
            has_news: true,
            unwritten: 0,
            blocked_at_most: BLOCKED_AT_MOST,
            next: Source::Nowhere,
            before: HashSet::new(),
        }
    }

    pub fn next(&self) -> Source {
        self.next
    }

    pub fn is_free(&self) -> bool {
        !self.is_unknown && self.blocked.is_empty()
    }

    /// How many of these do not wait for a key on the wire.
    pub fn count_off_wire<M>(&self, entries: &VecDeque<Entry<M>>) -> usize {
        let is_on_wire = |key| self.on_wire.contains_key(&key);
        let off_wire = |entry: &&Entry<M>| !entry.keys.iter().any(is_on_wire);
        entries.iter().filter(off_wire).count()
    }

    pub fn starts(&mut self, keys: OrderKeys) {
        for key in keys.iter() {
            *self.on_wire.entry(key).or_default() += 1;
        }
    }

    pub fn leaves_wire(&mut self, keys: OrderKeys) {
        for key in keys.iter() {
            if let Some(count) = self.on_wire.get_mut(&key) {
                *count -= 1;
                if *count == 0 {
                    self.on_wire.remove(&key);
                }
            }
        }
    }

    /// A message goes back to the others: what is next has to be found again.
    pub fn comes_back(&mut self, keys: OrderKeys) {
        self.leaves_wire(keys);
        self.next = Source::Nowhere;
        self.has_news = true;
    }

    /// A retry is under way.
    pub fn is_loaded(&mut self, keys: OrderKeys) {
        for key in keys.iter() {
            self.block(key).loaded += 1;
            self.to_ask.remove(&key);
        }
    }

    /// It is no more.
    pub fn is_unloaded(&mut self, keys: OrderKeys) {
        self.release(keys, |blocked| &mut blocked.loaded);
    }

    /// A message will be a row of the retry table that waits.
    pub fn will_wait(&mut self, keys: OrderKeys) {
        for key in keys.iter() {
            self.block(key).unwritten += 1;
            self.to_ask.remove(&key);
        }
    }

    fn block(&mut self, key: u64) -> &mut Blocked {
        let is_new = !self.blocked.contains_key(&key);
        self.has_news |= is_new;
        self.blocked.entry(key).or_default()
    }

    pub fn is_written(&mut self, finished: &Finished) {
        if finished.is_retry {
            self.is_unloaded(finished.keys);
        }
        if finished.waits {
            self.release(finished.keys, |blocked| &mut blocked.unwritten);
        }
        if finished.is_held_back {
            self.unwritten = self.unwritten.saturating_sub(1);
        }
    }

    fn release(&mut self, keys: OrderKeys, count: impl Fn(&mut Blocked) -> &mut usize) {
        for key in keys.iter() {
            let Some(blocked) = self.blocked.get_mut(&key) else {
                continue;
            };
            let count = count(blocked);
            *count = count.saturating_sub(1);
            if blocked.is_quiet() {
                self.to_ask.insert(key);
            }
        }
    }

    fn is_blocked(&self, keys: OrderKeys) -> bool {
        keys.iter().any(|key| self.blocked.contains_key(&key))
    }

    /// Whether the message waits for one on the wire, or in memory before it.
    fn is_behind(&self, keys: OrderKeys) -> bool {
        keys.iter()
            .any(|key| self.on_wire.contains_key(&key) || self.before.contains(&key))
    }

    /// Whether a message of one of these keys waits for a retry and is not written yet: until
    /// then the table does not say what goes first.
    fn has_unwritten(&self, keys: OrderKeys) -> bool {
        let mut blocked = keys.iter().filter_map(|key| self.blocked.get(&key));
        blocked.any(|blocked| blocked.unwritten > 0)
    }

    fn count_blocked(&mut self) {
        let most = self.blocked_at_most;
        if self.blocked.len() >= most {
            self.is_retry_capped = true;
        } else if self.is_retry_capped && self.blocked.len() < most - most / 10 {
            self.is_retry_capped = false;
            self.is_unknown |= std::mem::take(&mut self.is_cut);
        }
    }
}

impl<M> Lane<M> {
    /// From now on, or still, the order of each key is kept; nothing starts until it is known
    /// which keys are blocked.
    pub(super) fn order_keys(&mut self) {
        let mut keys = KeyOrder::new();
        if let Some(before) = &self.keys {
            keys.blocked_at_most = before.blocked_at_most;
        }
        for entry in self.flying.values() {
            keys.starts(entry.keys);
            if entry.is_retry {
                keys.is_loaded(entry.keys);
            }
        }
        for entry in &self.due_retries {
            keys.is_loaded(entry.keys);
        }
        for finished in self.unsettled.iter().chain(&self.settling) {
            if finished.is_retry {
                keys.is_loaded(finished.keys);
            }
            if finished.waits {
                keys.will_wait(finished.keys);
            }
            keys.unwritten += usize::from(finished.is_held_back);
        }
        self.keys = Some(Box::new(keys));
    }

    pub fn orders_keys(&self) -> bool {
        self.keys.is_some()
    }

    /// So many keys wait for a retry that nothing is taken from the queue.
    pub fn is_retry_capped(&self) -> bool {
        self.keys.as_ref().is_some_and(|keys| keys.is_retry_capped)
    }

    #[cfg(test)]
    pub(super) fn know_at_most(&mut self, blocked_at_most: usize) {
        if let Some(keys) = &mut self.keys {
            keys.blocked_at_most = blocked_at_most;
        }
    }
}

impl KeyOrder {
    /// Whether messages that had no call may be looked at.
    fn may_take(&self) -> bool {
        !self.is_retry_capped && !self.is_unknown && self.unwritten < UNWRITTEN_AT_MOST
    }
}
