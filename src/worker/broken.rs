//! Webhooks whose rows cannot be used say so in their views.
//!
//! In transactions of their own: another session may have such a row locked. Then it is tried
//! again.

use super::engine::Engine;
use super::locks::Work;
use super::routes::WebhookRoute;
use crate::pg::tx;

impl Engine {
    /// Says in the views which webhooks cannot be used. Opens a transaction of its own.
    pub fn show_broken_if_due(&mut self) {
        let now = self.ticker.now();
        if !self.details_are_due || !self.locks.may_try(Work::Details, now) {
            return;
        }
        let changed = |webhook: &&WebhookRoute| webhook.broken != webhook.shown_detail;
        let changed: Vec<_> = self.routes.webhooks.values().filter(changed).collect();
        let mut locked = false;
        for webhook in changed {
            let reason = webhook.broken.as_deref();
            let shown = tx::transaction(|| {
                let routing = &self.stores.routing;
                routing.set_detail(webhook.webhook_key, reason);
            });
            match shown {
                Ok(()) => {}
                Err(failure) if failure.is_lock_not_available() => locked = true,
                Err(failure) => {
                    pgrx::warning!(
                        "could not say what is wrong with a webhook: {}",
                        failure.message
                    );
                }
            }
        }
        self.details_are_due = locked;
        if locked {
            self.locks.failed(Work::Details, now);
        } else {
            self.locks.succeeded(Work::Details);
        }
    }
}
