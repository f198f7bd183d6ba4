//! Large bodies: read when a call could start, within one budget for all URLs.
//!
//! Lanes wait for their share in turn, so that a large body is not passed by smaller ones for
//! ever. What a lane has in memory and cannot send now goes back when another one waits.

use std::collections::{HashSet, VecDeque};

use super::engine::Engine;
use crate::core::budget::{Budget, Share};
use crate::core::position::Coordinate;

/// All large bodies in memory: as stored, and as a thread has written them for its call.
const BODY_BYTES: usize = 96 << 20;
/// A statement's result stays until its transaction ends: so much is read in one.
const READ_AT_ONCE: usize = 16 << 20;

/// The rest goes only to lanes that have no call on the wire: a receiver that hangs must not
/// take all of it.
const UNRESERVED_BYTES: usize = BODY_BYTES / 4 * 3;

/// See the module.
#[derive(Default)]
pub struct Bodies {
    budget: Budget,
    /// Lanes whose next message has no body yet, in turn.
    waiting: VecDeque<i32>,
    /// The same lanes, and those that have a share already.
    known: HashSet<i32>,
    /// Lanes that may hold a body that is not on the wire.
    loaded: HashSet<i32>,
}

/// A body that is to be read.
pub struct Wanted {
    pub url_key: i32,
    pub at: Coordinate,
    pub size: usize,
    pub share: Share,
}

impl Bodies {
    /// The lane could send, had its next message its body.
    pub fn want(&mut self, url_key: i32) {
        if self.known.insert(url_key) {
            self.waiting.push_back(url_key);
        }
    }
}

impl Engine {
    /// Gives shares to the lanes that wait for one, in turn.
    pub fn grant_bodies(&mut self) {
        let mut has_reclaimed = false;
        let mut place = 0;
        while let Some(url_key) = self.bodies.waiting.get(place).copied() {
            if self.pool.in_flight() + self.bodiless.len() >= self.settings.connections {
                return;
            }
            let Some((at, size)) = self.next_without_body(url_key) else {
                self.bodies.waiting.remove(place);
                self.bodies.known.remove(&url_key);
                continue;
            };
            let has_calls = self
                .lanes
                .get(&url_key)
                .is_some_and(|lane| lane.in_flight() > 0);
            let limit = if has_calls {
                UNRESERVED_BYTES
            } else {
                BODY_BYTES
            };
            if let Some(share) = self.bodies.budget.reserve(size.saturating_mul(2), limit) {
                self.bodies.waiting.remove(place);
                self.bodiless.push_back(Wanted {
                    url_key,
                    at,
                    size,
                    share,
                });
            } else if has_calls {
                // Its turn is kept until one of its calls has ended.
                place += 1;
            } else if has_reclaimed {
                return;
            } else {
                has_reclaimed = true;
                self.reclaim_bodies();
            }
        }
    }

    /// The message that the lane could send now, if its body is not in memory.
    fn next_without_body(&mut self, url_key: i32) -> Option<(Coordinate, usize)> {
        let now = self.ticker.now();
        if !self.could_send(url_key, now) {
            return None;
        }
        let entry = self.lanes.get_mut(&url_key)?.peek()?;
        let message = &entry.message;
        (!message.is_ready()).then_some((entry.at, message.size))
    }

    fn could_send(&mut self, url_key: i32, now: u64) -> bool {
        let webhook_key = self.lanes.get(&url_key).map(|lane| lane.webhook_key);
        let throttle = webhook_key.and_then(|key| self.throttles.get_mut(&key));
        throttle.is_none_or(|throttle| throttle.may_take(now).is_ok())
            && self.has_connection(url_key, now)
    }

    /// Takes bodies out of memory that cannot be sent now: those of lanes that back off, are
    /// throttled or have another message to send first.
    fn reclaim_bodies(&mut self) {
        let now = self.ticker.now();
        for url_key in std::mem::take(&mut self.bodies.loaded) {
            let could_send = self.could_send(url_key, now);
            let Some(lane) = self.lanes.get_mut(&url_key) else {
                continue;
            };
            let next = lane.peek().filter(|_| could_send).map(|entry| entry.at);
            let (kept, idle): (Vec<_>, Vec<_>) = lane
                .waiting_mut()
                .filter(|entry| entry.message.has_share())
                .partition(|entry| Some(entry.at) == next);
            let is_loaded = !kept.is_empty();
            for entry in idle {
                entry.message = entry.message.without_body();
            }
            if is_loaded {
                self.bodies.loaded.insert(url_key);
            }
        }
    }

    /// Reads the bodies of large messages that are about to be sent. In a transaction.
    pub fn read_bodies(&mut self) {
        let mut bytes = 0;
        while bytes < READ_AT_ONCE {
            let Some(wanted) = self.bodiless.pop_front() else {
                return;
            };
            self.bodies.known.remove(&wanted.url_key);
            bytes += wanted.size;
            self.read_body(wanted);
        }
    }

    fn read_body(&mut self, wanted: Wanted) {
        let (url_key, at) = (wanted.url_key, wanted.at);
        let body = self.stores.outbox.at(&[at], true).pop();
        let Some(lane) = self.lanes.get_mut(&url_key) else {
            return;
        };
        let Some(entry) = lane.peek().filter(|entry| entry.at == at) else {
            return;
        };
        match body {
            Some(stored) => {
                entry.message = entry.message.with_body(stored, wanted.share);
                self.bodies.loaded.insert(url_key);
            }
            None => {
                self.queued.remove(&entry.message);
                // Its row is gone: somebody emptied the table. Nothing can be sent.
                if !entry.is_retry {
                    self.settlement.change_backlog(url_key, -1);
                }
                lane.skip();
            }
        }
    }
}
