//! `webhook.drop_webhook` and `webhook.drop_event`.

use pgrx::prelude::*;

use crate::core::error::Result;
use crate::pg::arguments::{required_word, TextArgument};
use crate::pg::owner::current_role;
use crate::pg::report::ok_or_raise;
use crate::store::{event_definitions, webhook_definitions};

#[pg_extern(sql = false)]
fn drop_webhook(webhook: Option<TextArgument>) {
    let dropped = || -> Result<()> {
        let (key, _) = webhook_definitions::find(&required_word(webhook, "webhook")?)?;
        self::webhook(key);
        Ok(())
    };
    ok_or_raise(dropped());
}

/// Drops a webhook and its events.
pub fn webhook(key: i32) {
    let by = current_role();
    event_definitions::drop(&event_definitions::of_webhook(key), &by);
    webhook_definitions::drop(key, &by);
}

#[pg_extern(sql = false)]
fn drop_event(event: Option<TextArgument>) {
    let dropped = || -> Result<()> {
        let key = event_definitions::find(&required_word(event, "event")?)?;
        self::event(key);
        Ok(())
    };
    ok_or_raise(dropped());
}

/// Drops an event.
pub fn event(key: i32) {
    event_definitions::drop(&[key], &current_role());
}
