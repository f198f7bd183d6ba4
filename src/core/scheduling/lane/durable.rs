//! What is written of a lane, so that it survives a crash, and when that is done.
//!
//! A message stays busy until its outcome is settled: the worker after a crash sends again
//! exactly what was taken and is not settled.

use std::sync::Arc;

use super::{DurableLane, Feed, Lane};
use crate::core::messages::position::{Cursor, MessagePosition};

/// A lane at the tail may hold so many undispatched messages and still have them
/// listed one by one in its durable state; beyond, it is written as a position.
pub(super) const LISTED_AT_MOST: usize = 64;

impl<M> Lane<M> {
    /// The outcomes of these calls are being written.
    pub fn begin_settling(&mut self) {
        self.dirty |= !self.unsettled.is_empty();
        self.settling.append(&mut self.unsettled);
    }

    /// They are written.
    pub fn settled(&mut self) {
        for finished in self.settling.drain(..) {
            if finished.is_retry {
                self.retries.remove(&finished.at);
            }
            if let Some(keys) = &mut self.keys {
                keys.is_written(&finished);
            }
        }
        self.dirty = false;
        self.advance();
    }

    /// The lane's state was written, but not its outcomes: what they are of stays busy.
    pub fn written(&mut self) {
        self.dirty = false;
    }

    /// They could not be written and will be tried again.
    pub fn settling_failed(&mut self) {
        self.settling.append(&mut self.unsettled);
        std::mem::swap(&mut self.settling, &mut self.unsettled);
        self.dirty = true;
    }

    /// Whether outcomes of its calls are not written.
    pub fn has_unwritten_outcomes(&self) -> bool {
        !self.unsettled.is_empty() || !self.settling.is_empty()
    }

    /// Nothing is on its way or known that a lane at the tail without any history lacks, but how
    /// fast its receiver is.
    pub fn is_idle(&self, now: u64) -> bool {
        self.is_at_tail()
            && !self.dirty
            && !self.has_unwritten_outcomes()
            && self.waiting().next().is_none()
            && self.flying.is_empty()
            && self.retries.is_empty()
            && self.runs == 0
            && self.backoff_until <= now
            && self.is_free()
    }

    /// What has to be written with the outcomes that are being settled.
    pub fn durable(&self) -> DurableLane {
        let mut busy: Vec<MessagePosition> = self
            .flying
            .values()
            .filter(|entry| !entry.is_retry)
            .map(|entry| entry.at)
            .chain(
                self.unsettled
                    .iter()
                    .filter(|finished| !finished.is_retry && !finished.is_held_back)
                    .map(|finished| finished.at),
            )
            .collect();
        busy.extend(self.listed());
        let position = match &self.feed {
            Feed::Tail if self.queue.len() <= LISTED_AT_MOST => None,
            Feed::Tail => self.before_queue(),
            Feed::Own(position) => self.before_queue().or_else(|| Some(position.clone())),
        };
        DurableLane { position, busy }
    }

    /// What [`Lane::durable`] lists as busy, but what still waits for its call.
    pub fn listed(&self) -> Vec<MessagePosition> {
        let is_listed = self.is_at_tail() && self.queue.len() <= LISTED_AT_MOST;
        let queue = self.queue.iter().filter(|_| is_listed);
        let waiting = self.requeued.iter().chain(queue);
        let held_back = self.unsettled.iter().filter(|ended| ended.is_held_back);
        let held_back = held_back.map(|ended| ended.at);
        waiting.map(|entry| entry.at).chain(held_back).collect()
    }

    /// The position before the first undispatched message.
    pub(super) fn before_queue(&self) -> Option<Cursor> {
        let first = self.queue.front()?;
        let window = first.window.as_ref()?;
        Some(Cursor {
            window: Arc::clone(window),
            id: first.at.id - 1,
        })
    }
}
