//! The throttles of the webhooks, and when their calls arrived.

use std::mem;

use super::engine::Engine;
use crate::core::throttle::{Throttle, ARRIVES_WITHIN_NS};
use crate::delivery::call::SentNote;

/// A call that a throttle let go.
pub struct LetGo {
    /// On the worker's ticker.
    pub at: u64,
    pub sent: SentNote,
}

impl Engine {
    /// One for each webhook that has a rate.
    pub fn fit_throttles(&mut self, now: u64) {
        let webhooks = &self.routes.webhooks;
        self.throttles
            .retain(|key, _| webhooks.get(key).is_some_and(|w| w.per_second.is_some()));
        for webhook in webhooks.values() {
            let Some(rate) = webhook.per_second else {
                continue;
            };
            self.throttles
                .entry(webhook.webhook_key)
                .or_insert_with(|| Throttle::starting_full(rate, now))
                .set_rate(rate);
        }
    }

    /// The throttle counts a call from when it reached its receiver, not from when it was
    /// let go. Of calls without an answer so far only those are known to have arrived that
    /// were written long enough ago.
    pub fn count_what_was_sent(&mut self) {
        if self.let_go.is_empty() {
            return;
        }
        let now = self.ticker.now();
        let mut let_go = mem::take(&mut self.let_go);
        let_go.retain(|token, call| {
            let arrives_by = self.arrives_by(call);
            let has_arrived = arrives_by.is_some_and(|at| at <= now);
            if has_arrived {
                self.count_as_sent(*token, call, now);
            }
            !has_arrived
        });
        self.let_go = let_go;
    }

    fn arrives_by(&self, call: &LetGo) -> Option<u64> {
        let sent_at = self.ticker.at(call.sent.at()?);
        Some(sent_at + ARRIVES_WITHIN_NS)
    }

    /// `answered_at`: now, where the call is over. What never was written stays counted
    /// from when it was let go.
    pub fn count_as_sent(&mut self, token: u64, call: &LetGo, answered_at: u64) {
        let Some(arrives_by) = self.arrives_by(call) else {
            return;
        };
        let url = self.routes.urls.get(&((token >> 32) as i32));
        if let Some(throttle) = url.and_then(|url| self.throttles.get_mut(&url.webhook_key)) {
            throttle.reached(call.at, arrives_by.min(answered_at));
        }
    }
}
