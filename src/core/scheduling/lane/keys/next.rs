//! What starts next, what waits in memory, and what is held back.

use super::{Finished, OrderKeys, Source, LOOKAHEAD};
use crate::core::scheduling::lane::{Entry, Lane};

impl<M> Lane<M> {
    /// Whether the lane may load retries of these keys now.
    pub(in crate::core::scheduling::lane) fn may_load(&self, of: OrderKeys) -> bool {
        let keys = self.keys.as_ref();
        keys.is_none_or(|keys| !keys.is_unknown && !keys.has_unwritten(of))
    }

    /// Retries that were loaded and share a key with a message that failed go behind it.
    pub(in crate::core::scheduling::lane) fn unload_behind(
        &mut self,
        of: OrderKeys,
    ) -> Vec<Entry<M>> {
        let shares = |entry: &Entry<M>| entry.keys.iter().any(|key| of.iter().any(|k| k == key));
        let (behind, rest): (Vec<_>, Vec<_>) = self.due_retries.drain(..).partition(shares);
        self.due_retries = rest.into();
        self.forget_loaded(&behind);
        behind
    }

    pub(in crate::core::scheduling::lane) fn forget_loaded(&mut self, entries: &[Entry<M>]) {
        for entry in entries {
            self.retries.remove(&entry.at);
            if let Some(keys) = &mut self.keys {
                keys.is_unloaded(entry.keys);
            }
        }
    }

    /// Messages that were held back since the last call: they are rows of the retry table with
    /// the next settlement.
    pub fn take_held_back(&mut self) -> Vec<Entry<M>> {
        std::mem::take(&mut self.held_back)
    }

    fn hold_back(&mut self, entry: Entry<M>) {
        let Some(keys) = &mut self.keys else {
            return;
        };
        keys.will_wait(entry.keys);
        keys.unwritten += 1;
        self.dirty = true;
        self.unsettled.push(Finished {
            at: entry.at,
            keys: entry.keys,
            is_retry: false,
            waits: true,
            is_held_back: true,
        });
        // The table does not know yet that they go behind it.
        if !self.due_retries.is_empty() {
            let behind = self.unload_behind(entry.keys);
            self.unloaded.extend(behind);
        }
        self.held_back.push(entry);
    }

    /// Nothing in memory has a blocked key: what is in the table is ordered by id.
    fn hold_back_blocked(&mut self) {
        while let Some(keys) = self.keys.as_mut().filter(|keys| keys.has_news) {
            keys.has_news = false;
            let mut place = 0;
            while let Some(entry) = self.requeued.get(place) {
                let keys = self.keys.as_ref();
                if !keys.is_some_and(|keys| keys.is_blocked(entry.keys)) {
                    place += 1;
                } else if let Some(entry) = self.requeued.remove(place) {
                    self.hold_back(entry);
                }
            }
        }
    }

    /// Retries that were unloaded since the last call, because a message goes before them.
    pub fn take_unloaded(&mut self) -> Vec<Entry<M>> {
        std::mem::take(&mut self.unloaded)
    }

    /// What waits in memory for a key is held back, so that the lane keeps nothing there.
    pub(in crate::core::scheduling::lane) fn hold_back_all(&mut self) {
        if self.keys.is_none() {
            return;
        }
        for entry in std::mem::take(&mut self.requeued) {
            if entry.keys.is_empty() {
                self.requeued.push_back(entry);
            } else {
                self.hold_back(entry);
            }
        }
    }

    /// Messages that wait in memory for a key on the wire.
    pub fn looked_ahead(&self) -> usize {
        match self.keys {
            Some(_) => self.requeued.len(),
            None => 0,
        }
    }

    /// More messages are in the queue.
    pub(in crate::core::scheduling::lane) fn advance_to_new(&mut self) {
        let is_full = self.requeued.len() >= LOOKAHEAD;
        let keys = self.keys.as_ref();
        if keys.is_some_and(|keys| keys.next == Source::Nowhere && !is_full) {
            self.advance();
        }
    }

    /// Finds the message to start next: retries, then what is in memory, then the queue, from
    /// which it takes what cannot start. After each change.
    pub fn advance(&mut self) {
        let Some(keys) = &mut self.keys else {
            return;
        };
        keys.next = Source::Nowhere;
        if keys.is_unknown {
            return;
        }
        loop {
            self.hold_back_blocked();
            self.find_next();
            // What was taken from the queue may have blocked keys of what was before it.
            if self.keys.as_ref().is_none_or(|keys| !keys.has_news) {
                return;
            }
        }
    }

    fn find_next(&mut self) {
        let Some(keys) = &mut self.keys else {
            return;
        };
        keys.count_blocked();
        if keys.is_unknown {
            return;
        }
        keys.before.clear();
        for (place, entry) in self.due_retries.iter().enumerate() {
            if !keys.is_behind(entry.keys) {
                keys.next = Source::DueRetries(place);
                return;
            }
            keys.before.extend(entry.keys.iter());
        }
        keys.before.clear();
        let next = match self.next_in_memory() {
            Some(place) => Source::Requeued(place),
            None if self.next_in_queue() => Source::Queue,
            None => Source::Nowhere,
        };
        if let Some(keys) = &mut self.keys {
            keys.next = next;
        }
    }

    fn next_in_memory(&mut self) -> Option<usize> {
        let keys = self.keys.as_mut().filter(|keys| keys.may_take())?;
        for (place, entry) in self.requeued.iter().enumerate() {
            if !keys.is_behind(entry.keys) {
                return Some(place);
            }
            keys.before.extend(entry.keys.iter());
        }
        None
    }

    fn next_in_queue(&mut self) -> bool {
        loop {
            let Some(keys) = self.keys.as_mut().filter(|keys| keys.may_take()) else {
                return false;
            };
            let Some(entry) = self.queue.front() else {
                return false;
            };
            let is_blocked = keys.is_blocked(entry.keys);
            if !is_blocked && !keys.is_behind(entry.keys) {
                return true;
            }
            if !is_blocked && self.requeued.len() >= LOOKAHEAD {
                return false;
            }
            keys.before.extend(entry.keys.iter());
            let Some(entry) = self.queue.pop_front() else {
                return false;
            };
            self.dirty = true;
            if is_blocked {
                self.hold_back(entry);
                if let Some(keys) = &mut self.keys {
                    keys.count_blocked();
                }
            } else {
                self.put_first(entry);
            }
        }
    }
}
