//! Large bodies: read when a call could start, within one budget for all URLs.
//!
//! Lanes wait for their share in turn, so that a large body is not passed by smaller ones for
//! ever. What a lane has in memory and cannot send now goes back when another one waits.

use std::collections::{HashSet, VecDeque};

use super::Scheduler;
use crate::core::messages::position::MessagePosition;
use crate::core::policy::budget::{Budget, Share};
use crate::store::outbox::StoredMessage;

/// All large bodies in memory: as stored, and as a thread has written them for its call.
const BODY_BYTES: usize = 96 << 20;
/// The rest goes only to lanes that have no call on the wire: a receiver that hangs must not
/// take all of it.
const UNRESERVED_BYTES: usize = BODY_BYTES / 4 * 3;

/// See the module.
#[derive(Default)]
pub(super) struct Bodies {
    budget: Budget,
    /// Lanes whose next message has no body yet, in turn.
    waiting: VecDeque<i32>,
    /// Lanes that may hold a body that is not on the wire.
    loaded: HashSet<i32>,
    /// Bodies that are read next.
    wanted: VecDeque<WantedBody>,
}

/// A body that is to be read.
pub struct WantedBody {
    pub url_key: i32,
    pub at: MessagePosition,
    pub size: usize,
    share: Share,
}

impl Scheduler {
    /// The lane could send, had its next message its body.
    pub(super) fn want_body(&mut self, url_key: i32) {
        let is_new = self.urls.change(url_key, |url, _| {
            !std::mem::replace(&mut url.awaiting_body, true)
        });
        if is_new == Some(true) {
            self.bodies.waiting.push_back(url_key);
        }
    }

    /// Whether bodies are to be read.
    pub fn wants_bodies(&self) -> bool {
        !self.bodies.wanted.is_empty()
    }

    /// The next body to read.
    pub fn next_wanted_body(&mut self) -> Option<WantedBody> {
        let wanted = self.bodies.wanted.pop_front()?;
        self.urls
            .change(wanted.url_key, |url, _| url.awaiting_body = false);
        Some(wanted)
    }

    /// Gives shares to the lanes that wait for one, in turn.
    pub fn grant_bodies(&mut self, free_connections: usize) {
        let mut has_reclaimed = false;
        let mut place = 0;
        while let Some(url_key) = self.bodies.waiting.get(place).copied() {
            if self.bodies.wanted.len() >= free_connections {
                return;
            }
            let Some((at, size)) = self.next_without_body(url_key, free_connections) else {
                self.bodies.waiting.remove(place);
                self.urls
                    .change(url_key, |url, _| url.awaiting_body = false);
                continue;
            };
            let in_flight = self.urls.get(url_key).map(|url| url.lane.in_flight());
            let has_calls = in_flight.is_some_and(|calls| calls > 0);
            let limit = match has_calls {
                true => UNRESERVED_BYTES,
                false => BODY_BYTES,
            };
            if let Some(share) = self.bodies.budget.reserve(size.saturating_mul(2), limit) {
                self.bodies.waiting.remove(place);
                self.bodies.wanted.push_back(WantedBody {
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
                self.reclaim_bodies(free_connections);
            }
        }
    }

    /// The message that the lane could send now, if its body is not in memory.
    fn next_without_body(&mut self, url_key: i32, free: usize) -> Option<(MessagePosition, usize)> {
        let now = self.ticker.now();
        if !self.could_send(url_key, now, free) {
            return None;
        }
        let next = self.urls.change(url_key, |url, _| {
            let entry = url.lane.peek()?;
            let message = &entry.message;
            (!message.is_ready()).then_some((entry.at, message.size))
        });
        next.flatten()
    }

    fn could_send(&mut self, url_key: i32, now: u64, free_connections: usize) -> bool {
        let webhook_key = self.urls.get(url_key).map(|url| url.lane.webhook_key);
        webhook_key.is_some_and(|key| self.throttles.admit(key, now, true).is_ok())
            && self.has_connection(url_key, now, free_connections)
    }

    /// Takes bodies out of memory that cannot be sent now: those of lanes that back off, are
    /// throttled or have another message to send first.
    fn reclaim_bodies(&mut self, free_connections: usize) {
        let now = self.ticker.now();
        for url_key in std::mem::take(&mut self.bodies.loaded) {
            let could_send = self.could_send(url_key, now, free_connections);
            let is_loaded = self.urls.change(url_key, |url, _| {
                let lane = &mut url.lane;
                let next = lane.peek().filter(|_| could_send).map(|entry| entry.at);
                let (kept, idle): (Vec<_>, Vec<_>) = lane
                    .waiting_mut()
                    .filter(|entry| entry.message.has_share())
                    .partition(|entry| Some(entry.at) == next);
                let is_loaded = !kept.is_empty();
                for entry in idle {
                    entry.message = entry.message.without_body();
                }
                is_loaded
            });
            if is_loaded == Some(true) {
                self.bodies.loaded.insert(url_key);
            }
        }
    }

    /// A body was read; `None`: its row is gone. `true` if the message cannot be sent and was
    /// pending.
    pub fn give_body(&mut self, wanted: WantedBody, body: Option<StoredMessage>) -> bool {
        let url_key = wanted.url_key;
        let mut is_loaded = false;
        let is_lost = self.urls.change(url_key, |url, memory| {
            let lane = &mut url.lane;
            let entry = lane.peek().filter(|entry| entry.at == wanted.at)?;
            match body {
                Some(stored) => {
                    entry.message = entry.message.with_body(stored, wanted.share);
                    is_loaded = true;
                    None
                }
                None => {
                    memory.remove(&entry.message);
                    // Its row is gone: the table was emptied by hand. Nothing can be sent.
                    let was_pending = !entry.is_retry;
                    lane.skip();
                    Some(was_pending)
                }
            }
        });
        if is_loaded {
            self.bodies.loaded.insert(url_key);
        }
        is_lost.flatten() == Some(true)
    }
}
