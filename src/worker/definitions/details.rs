//! Webhooks whose rows cannot be used say so in their views.
//!
//! In transactions of their own: another session may have such a row locked. Then it is tried
//! again.

use std::collections::BTreeMap;

use super::Known;
use crate::pg::tx;
use crate::store::routing::RoutingStore;
use crate::worker::locks::{Locks, Work};
use crate::worker::time::Ticker;

/// What views have still to say of webhooks, by key.
#[derive(Default)]
pub(super) struct Details(BTreeMap<i32, Option<String>>);

impl Details {
    /// The webhook was read.
    pub(super) fn note(&mut self, webhook_key: i32, known: &Known) {
        self.0.remove(&webhook_key);
        let live = known.live();
        if let Some(route) = live.filter(|route| route.broken != route.shown_detail) {
            self.0.insert(webhook_key, route.broken.clone());
        }
    }

    /// Opens a transaction for each webhook.
    pub(super) fn show(&mut self, routing: &RoutingStore, locks: &mut Locks, ticker: Ticker) {
        let now = ticker.now();
        if self.0.is_empty() || !locks.may_try(Work::Details, now) {
            return;
        }
        self.0.retain(|webhook_key, reason| {
            let shown = tx::transaction(|| routing.set_detail(*webhook_key, reason.as_deref()));
            match shown {
                Ok(()) => false,
                Err(failure) if failure.is_lock_not_available() => true,
                Err(failure) => {
                    pgrx::warning!(
                        "could not say what is wrong with a webhook: {}",
                        failure.message
                    );
                    false
                }
            }
        });
        if self.0.is_empty() {
            locks.succeeded(Work::Details);
        } else {
            locks.failed(Work::Details, now);
        }
    }
}
