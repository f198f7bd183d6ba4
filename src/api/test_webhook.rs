//! `webhook.test_webhook`.

use pgrx::prelude::*;
use serde_json::json;
use uuid::Uuid;

use super::adopt::check_is_not_held;
use crate::core::error::Result;
use crate::pg::arguments::{required_word, TextArgument};
use crate::pg::commit_start;
use crate::pg::owner::current_role;
use crate::pg::report::ok_or_raise;
use crate::pg::text::Text;
use crate::store::{change_log, test_message, webhook_definitions, worker_switch};

/// One message for all URLs, as a change makes one.
#[pg_extern(sql = false)]
fn test_webhook(
    webhook: Option<TextArgument>,
) -> TableIterator<'static, (name!(outgoing_url, Text), name!(message_id, pgrx::Uuid))> {
    let put = || -> Result<(Uuid, Vec<String>)> {
        let (key, _) = webhook_definitions::find(&required_word(webhook, "webhook")?)?;
        check_is_not_held("send a test message")?;
        let id = Uuid::now_v7();
        let urls = test_message::put(key, id);
        let details = json!({ "calls": urls.len() });
        change_log::message_happened(id, key, "test", details, &current_role());
        Ok((id, urls))
    };
    let (id, urls) = ok_or_raise(put());
    if !worker_switch::is_stopped() {
        commit_start::wake_worker_at_commit();
    }
    let id = pgrx::Uuid::from_bytes(*id.as_bytes());
    TableIterator::new(urls.into_iter().map(move |url| (url.into(), id)))
}
