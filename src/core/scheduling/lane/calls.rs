//! From the queue to the wire, and back.

use super::order::Source;
use super::{Entry, Finished, Health, Lane};

impl<M> Lane<M> {
    /// Whether a call may start now, as far as the lane itself is concerned.
    pub fn may_start(&self, now: u64) -> bool {
        let limit = if self.is_probing() {
            1
        } else {
            self.connections()
        };
        self.hold.is_none() && now >= self.backoff_until && self.runs < limit
    }

    /// A message of a run that was stopped comes back; it goes first. Where the order of keys
    /// counts, nothing starts before the next [`Lane::advance`].
    pub fn recall(&mut self, token: u64) -> Option<&Entry<M>> {
        let entry = self.flying.remove(&token)?;
        self.dirty = true;
        if let Some(keys) = &mut self.keys {
            keys.comes_back(entry.keys);
        }
        if !entry.is_retry {
            let place = self.put_first(entry);
            return self.requeued.get(place);
        }
        self.retry_came_back();
        if self.keys.is_some() {
            let place = self.put_due(entry);
            return self.due_retries.get(place);
        }
        self.due_retries.push_front(entry);
        self.due_retries.front()
    }

    pub fn has_next(&self) -> bool {
        self.source() != Source::Nowhere
    }

    /// The message to send next; [`Lane::start`] takes it.
    pub fn peek(&mut self) -> Option<&mut Entry<M>> {
        match self.source() {
            Source::Requeued(place) => self.requeued.get_mut(place),
            Source::DueRetries(place) => self.due_retries.get_mut(place),
            Source::Queue => self.queue.front_mut(),
            Source::Nowhere => None,
        }
    }

    /// Takes the message that [`Lane::peek`] showed: it is on the wire as `token`.
    pub fn start(&mut self, token: u64) -> Option<&Entry<M>> {
        let entry = self.pop()?;
        self.dirty = true;
        if let Some(keys) = &mut self.keys {
            keys.starts(entry.keys);
        }
        self.flying.insert(token, entry);
        self.advance();
        self.flying.get(&token)
    }

    /// Drops the message that [`Lane::peek`] showed: its row is gone.
    pub fn skip(&mut self) {
        self.dirty = true;
        if let Some(entry) = self.pop() {
            if entry.is_retry {
                self.forget_loaded(&[entry]);
                self.retry_ended();
            }
        }
        self.advance();
    }

    /// Drops the message that [`Lane::peek`] showed: it was canceled. It stays busy until that
    /// is written, so that a crash before it does not forget the message. `may_wait`: it may have
    /// been redelivered since, and is then a row of the retry table that waits.
    pub fn cancel(&mut self, may_wait: bool) {
        self.dirty = true;
        if let Some(entry) = self.pop() {
            if let Some(keys) = self.keys.as_mut().filter(|_| may_wait) {
                keys.will_wait(entry.keys);
            }
            self.unsettled.push(Finished {
                at: entry.at,
                keys: entry.keys,
                is_retry: entry.is_retry,
                waits: may_wait,
                is_held_back: false,
            });
            if entry.is_retry {
                self.retry_ended();
            }
        }
        self.advance();
    }

    fn pop(&mut self) -> Option<Entry<M>> {
        match self.source() {
            Source::Requeued(place) => self.requeued.remove(place),
            Source::DueRetries(place) => self.due_retries.remove(place),
            Source::Queue => self.queue.pop_front(),
            Source::Nowhere => None,
        }
    }

    /// The call ended. The message stays busy until the outcome is settled.
    pub fn finish(&mut self, token: u64, health: Health, now: u64) -> Option<Entry<M>> {
        let entry = self.flying.remove(&token)?;
        self.unsettled.push(Finished {
            at: entry.at,
            keys: entry.keys,
            is_retry: entry.is_retry,
            waits: false,
            is_held_back: false,
        });
        if let Some(keys) = &mut self.keys {
            keys.leaves_wire(entry.keys);
        }
        if entry.is_retry {
            self.retry_ended();
        }
        self.advance();
        self.dirty = true;
        self.finished_at = now;
        match health {
            Health::Up => self.failures = 0,
            Health::Down => self.count_failure(now),
            Health::Unknown => {}
        }
        Some(entry)
    }
}
