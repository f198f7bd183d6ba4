//! `webhook.drop_webhook` and `webhook.drop_event`.

use pgrx::prelude::*;

use crate::core::error::Result;
use crate::core::webhook::required;
use crate::pg::owner::current_role;
use crate::pg::report::ok_or_raise;
use crate::store::{event_definitions, webhook_definitions};

#[pg_extern(sql = false)]
fn drop_webhook(webhook: Option<&str>) {
    let dropped = || -> Result<()> {
        let (key, _) = webhook_definitions::find(required("webhook", webhook)?)?;
        let by = current_role();
        for event in event_definitions::of_webhook(key) {
            event_definitions::drop(event, &by);
        }
        webhook_definitions::drop(key, &by);
        Ok(())
    };
    ok_or_raise(dropped());
}

#[pg_extern(sql = false)]
fn drop_event(event: Option<&str>) {
    let dropped = || -> Result<()> {
        let key = event_definitions::find(required("event", event)?)?;
        event_definitions::drop(key, &current_role());
        Ok(())
    };
    ok_or_raise(dropped());
}
