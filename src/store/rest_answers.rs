//! Webhooks and events as the REST API shows them.
//!
//! As the extension's owner, from the views that users read.

use pgrx::JsonB;
use serde_json::Value;

use super::rows::first;
use crate::pg::local_settings::with_settings;
use crate::pg::owner::as_owner;
use crate::pg::text::Param;

/// In UTC, with all its digits.
macro_rules! time {
    ($column:literal) => {
        concat!(
            "pg_catalog.to_char(",
            $column,
            " at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"
        )
    };
}

/// $1 whether to count.
macro_rules! webhooks {
    ($which:literal) => {
        concat!(
            "select coalesce(pg_catalog.jsonb_agg(
        pg_catalog.jsonb_build_object(
            'Id', w.id,
            'Name', w.name,
            'Description', w.description,
            'OutgoingUrls', w.outgoing_urls,
            'CallThrottling', w.call_throttling,
            'Enabled', w.status <> 'Inactive',
            'Status', w.status,
            'Headers', w.headers,
            'TimeoutMs', w.timeout_ms,
            'MaxAttempts', w.max_attempts,
            'MaxAge', w.max_age::pg_catalog.text,
            'MaxInFlight', w.max_in_flight,
            'DeliveryOrder', w.delivery_order,
            'LogLevel', w.log_level,
            'DisableAfter', w.disable_after::pg_catalog.text,
            'DateCreated', ",
            time!("w.created_at"),
            ",
            'CreatedBy', w.created_by,
            'LastModified', ",
            time!("w.modified_at"),
            ",
            'ModifiedBy', w.modified_by
        ) || case when $1 then pg_catalog.jsonb_build_object(
            'Events', w.events,
            'Messages', w.messages,
            'Calls', w.calls,
            'Errors', w.errors,
            'Messages30Days', w.messages_30d,
            'Calls30Days', w.calls_30d,
            'Errors30Days', w.errors_30d
        ) else '{}' end
        order by w.created_at, w.id), '[]')
    from webhook.webhooks w",
            $which
        )
    };
}

// A statement each: one for both that was planned while there were few would read all of them.
const WEBHOOKS: &str = webhooks!("");
/// $2 id.
const WEBHOOK: &str = webhooks!(" where w.id = $2");

/// $1 id of the webhook.
macro_rules! events {
    ($which:literal) => {
        concat!(
            "select coalesce(pg_catalog.jsonb_agg(
        pg_catalog.jsonb_build_object(
            'Id', e.id,
            'Type', 'Table',
            'EventType', e.event_type,
            'ObjectName', e.object_name,
            'ObjectFields', e.object_fields,
            'EventSources', e.event_sources,
            'CustomPayloadFields', e.payload_fields,
            'CustomPayloadTemplate', e.payload_template,
            'Match', e.match,
            'OrderKey', e.order_key,
            'Enabled', d.enabled,
            'Status', e.status,
            'Messages', e.messages,
            'Calls', e.calls,
            'Errors', e.errors,
            'Messages30Days', e.messages_30d,
            'Calls30Days', e.calls_30d,
            'Errors30Days', e.errors_30d,
            'DateCreated', ",
            time!("e.created_at"),
            ",
            'CreatedBy', e.created_by,
            'LastModified', ",
            time!("e.modified_at"),
            ",
            'ModifiedBy', e.modified_by
        )
        order by e.created_at, e.id), '[]')
    from webhook.events e
    join webhook.event_def d on d.id = e.id
    where e.webhook_id = $1",
            $which
        )
    };
}

const EVENTS: &str = events!("");
/// $2 id of the event.
const EVENT: &str = events!(" and e.id = $2");

/// All webhooks, without their counts: a list has to be quick.
pub fn webhooks() -> Value {
    as_owner(|| with_intervals(|| list(WEBHOOKS, &[false.into()])))
}

/// One webhook with its counts.
pub fn webhook(id: &str) -> Option<Value> {
    as_owner(|| with_intervals(|| only(list(WEBHOOK, &[true.into(), id.into()]))))
}

/// The events of a webhook.
pub fn events(webhook: &str) -> Value {
    as_owner(|| list(EVENTS, &[webhook.into()]))
}

/// One event of a webhook.
pub fn event(webhook: &str, event: &str) -> Option<Value> {
    as_owner(|| only(list(EVENT, &[webhook.into(), event.into()])))
}

/// As a body of a request has them, whatever the session's IntervalStyle.
fn with_intervals<T>(f: impl FnOnce() -> T) -> T {
    with_settings(&[(c"intervalstyle", "postgres")], f)
}

fn list(sql: &str, arguments: &[Param]) -> Value {
    first(sql, arguments, |row| row.value::<JsonB>(1).0).expect("an aggregate gives one row")
}

fn only(list: Value) -> Option<Value> {
    match list {
        Value::Array(items) => items.into_iter().next(),
        _ => None,
    }
}
