//! The throttles of the webhooks, and when their calls arrived.

use std::collections::HashMap;
use std::mem;

use super::starting::AdmittedCall;
use crate::core::policy::throttle::{Throttle, ARRIVES_WITHIN_NS};
use crate::delivery::call::SentAt;
use crate::worker::definitions::WebhookRoute;
use crate::worker::time::Ticker;

/// Calls that the last worker made may have arrived until so long after the start of this one.
const AFTER_START_NANOS: u64 = 2_000_000_000;
/// A throttle that was not asked for this long counts nothing any more.
const IDLE_AFTER_NANOS: u64 = 60_000_000_000;
/// Throttles are looked through when there are so many more than at the last time.
const THROTTLES_AT_LEAST: usize = 1_000;

struct Known {
    throttle: Throttle,
    used_at: u64,
}

/// See the module.
pub(super) struct Throttles {
    by_webhook: HashMap<i32, Known>,
    /// Calls of throttled webhooks, by token, until it is known when they arrived.
    admitted: HashMap<u64, AdmittedCall>,
    ticker: Ticker,
    started_at: u64,
    looked_through: usize,
}

impl Throttles {
    pub fn new(ticker: Ticker) -> Self {
        Self {
            by_webhook: HashMap::new(),
            admitted: HashMap::new(),
            ticker,
            started_at: ticker.now(),
            looked_through: 0,
        }
    }

    /// The webhook was read. `may_have_called`: calls that were not throttled may have been made
    /// within the last second.
    pub fn apply(&mut self, route: &WebhookRoute, may_have_called: bool) {
        let Some(rate) = route.rate else {
            self.by_webhook.remove(&route.webhook_key);
            return;
        };
        let now = self.ticker.now();
        let is_early = now.saturating_sub(self.started_at) < AFTER_START_NANOS;
        let known = self.by_webhook.entry(route.webhook_key);
        let known = known.or_insert_with(|| Known {
            throttle: match is_early || may_have_called {
                true => Throttle::starting_full(rate, now),
                false => Throttle::new(rate),
            },
            used_at: now,
        });
        known.throttle.set_rate(rate);
    }

    /// Whether a call may go now, and whether a throttle counts it; else in how many nanoseconds
    /// it may. `only_asks`: it does not go yet.
    pub fn admit(&mut self, webhook_key: i32, now: u64, only_asks: bool) -> Result<bool, u64> {
        let Some(known) = self.by_webhook.get_mut(&webhook_key) else {
            return Ok(false);
        };
        known.used_at = now;
        let taken = match only_asks {
            true => known.throttle.may_take(now),
            false => known.throttle.try_take(now),
        };
        taken.map(|()| true)
    }

    /// The call goes now. Gives the note that its thread sets.
    pub fn watch(&mut self, token: u64, webhook_key: i32, at: u64) -> SentAt {
        let sent = SentAt::default();
        let call = AdmittedCall {
            webhook_key,
            at,
            sent: sent.clone(),
        };
        self.admitted.insert(token, call);
        sent
    }

    /// The call is over.
    pub fn ended(&mut self, token: u64, now: u64) {
        if let Some(call) = self.admitted.remove(&token) {
            self.count_as_sent(&call, now);
        }
    }

    /// The throttle counts a call from when it reached its receiver, not from when it was
    /// admitted. Of calls without an answer so far only those are known to have arrived that
    /// were written long enough ago.
    pub fn count_what_was_sent(&mut self, now: u64) {
        if self.admitted.is_empty() {
            return;
        }
        let mut admitted = mem::take(&mut self.admitted);
        admitted.retain(|_, call| {
            let arrives_by = self.arrives_by(call);
            let has_arrived = arrives_by.is_some_and(|at| at <= now);
            if has_arrived {
                self.count_as_sent(call, now);
            }
            !has_arrived
        });
        self.admitted = admitted;
    }

    fn arrives_by(&self, call: &AdmittedCall) -> Option<u64> {
        let sent_at = self.ticker.at(call.sent.at()?);
        Some(sent_at + ARRIVES_WITHIN_NS)
    }

    /// `answered_at`: now, where the call is over. What never was written stays counted
    /// from when it was admitted.
    fn count_as_sent(&mut self, call: &AdmittedCall, answered_at: u64) {
        let Some(arrives_by) = self.arrives_by(call) else {
            return;
        };
        if let Some(known) = self.by_webhook.get_mut(&call.webhook_key) {
            known.throttle.reached(call.at, arrives_by.min(answered_at));
        }
    }

    /// Frees throttles that count nothing any more, but for webhooks in use: others get a new one
    /// with their next message.
    pub fn forget_idle(&mut self, now: u64, is_in_use: impl Fn(i32) -> bool) {
        if self.by_webhook.len() < self.looked_through + THROTTLES_AT_LEAST {
            return;
        }
        self.by_webhook.retain(|key, known| {
            now.saturating_sub(known.used_at) < IDLE_AFTER_NANOS || is_in_use(*key)
        });
        self.looked_through = self.by_webhook.len();
    }
}
