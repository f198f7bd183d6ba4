//! Changes of a webhook that is there.
//!
//! As the extension's owner; the webhook's row is locked by the statement that found it. What
//! already waits follows the new definition: a URL that is taken away gets nothing
//! more, one that is added gets what is captured from now on.

use pgrx::datum::{Interval, TimestampWithTimeZone};
use pgrx::{JsonB, PgSqlErrorCode};
use zeroize::Zeroizing;

use super::change_log::{self, Action};
use super::rows::{execute, first, first_with};
use super::webhook_definitions::{self, name_is_taken, refuse_id_as_name};
use crate::core::error::Result;
use crate::pg::owner::as_owner;
use crate::pg::report::translated;

/// Checked values; `None` leaves what is there.
pub struct WebhookChanges {
    pub name: Option<String>,
    pub outgoing_urls: Option<Vec<String>>,
    /// Empty takes it away.
    pub description: Option<String>,
    /// `Some(None)` lifts the limit.
    pub call_throttling: Option<Option<i32>>,
    /// Also sets the status of all its events.
    pub enabled: Option<bool>,
    pub headers: Option<JsonB>,
    pub timeout_ms: Option<i32>,
    pub max_attempts: Option<i32>,
    pub max_age: Option<Interval>,
    pub max_in_flight: Option<i32>,
    pub delivery_order: Option<&'static str>,
    pub log_level: Option<&'static str>,
    /// `Some(None)`: never.
    pub disable_after: Option<Option<Interval>>,
}

/// The webhook as it is now.
pub struct ChangedWebhook {
    pub id: String,
    pub name: String,
    pub description: Option<String>,
    pub outgoing_urls: Vec<String>,
    pub call_throttling: Option<i32>,
    pub enabled: bool,
    pub modified_at: Option<TimestampWithTimeZone>,
    pub modified_by: Option<String>,
}

const NAME_TAKEN: &str = "
select true
from webhook.webhook_def
where name = $1
  and webhook_key <> $2
  and dropped_at is null";

/// `passed` has the headers, which may be credentials.
const UPDATE: &str = "
update webhook.webhook_def
set name = coalesce($2, name),
    description = case when $3 is null then description else nullif($3, '') end,
    call_throttling = case when $4 then $5 else call_throttling end,
    enabled = coalesce($6, enabled),
    headers = coalesce((select p.value::pg_catalog.jsonb from passed p), headers),
    timeout_ms = coalesce($7, timeout_ms),
    max_attempts = coalesce($8, max_attempts),
    max_age = coalesce($9, max_age),
    max_in_flight = coalesce($10, max_in_flight),
    delivery_order = coalesce($11, delivery_order),
    log_level = coalesce($12, log_level),
    disable_after = case when $14 then $15 else disable_after end,
    modified_at = pg_catalog.clock_timestamp(),
    modified_by = $13
where webhook_key = $1
returning webhook_key";

const SET_EVENTS: &str = "
update webhook.event_def
set enabled = $2,
    modified_at = pg_catalog.clock_timestamp(),
    modified_by = $3
where webhook_key = $1
  and dropped_at is null
  and enabled <> $2";

/// What waits for a retry there is canceled; what the worker holds goes with the lane.
const DROP_URLS: &str = "
with dropped as (
    update webhook.url_def
    set dropped_at = pg_catalog.clock_timestamp()
    where webhook_key = $1
      and dropped_at is null
      and url <> all ($2)
    returning url_key
)
update webhook_internal.retry r
set state = 'canceled', next_at = null, changed_at = pg_catalog.clock_timestamp()
from dropped d
where r.url_key = d.url_key
  and r.state in ('waiting', 'canceling')";

const PLACE_URLS: &str = "
update webhook.url_def d
set position = u.position
from pg_catalog.unnest($2) with ordinality as u (url, position)
where d.webhook_key = $1
  and d.dropped_at is null
  and d.url = u.url
  and d.position <> u.position";

const INSERT_NEW_URLS: &str = "
insert into webhook.url_def (webhook_key, position, url)
select $1, u.position, u.url
from pg_catalog.unnest($2) with ordinality as u (url, position)
where not exists (
    select
    from webhook.url_def d
    where d.webhook_key = $1
      and d.dropped_at is null
      and d.url = u.url
)";

const AS_IT_IS: &str = "
select w.id, w.name, w.description,
       array(
           select u.url
           from webhook.url_def u
           where u.webhook_key = w.webhook_key
             and u.dropped_at is null
           order by u.position
       ),
       w.call_throttling, w.enabled, w.modified_at, w.modified_by
from webhook.webhook_def w
where w.webhook_key = $1";

/// Writes the changes.
///
/// # Errors
/// `42710` if another webhook has the name.
pub fn apply(webhook_key: i32, changes: WebhookChanges, by: &str) -> Result<ChangedWebhook> {
    as_owner(|| {
        refuse_taken_name(webhook_key, changes.name.as_deref())?;
        let (urls, enabled) = (changes.outgoing_urls.clone(), changes.enabled);
        let headers = changes.headers.as_ref();
        let headers_differ =
            headers.is_some_and(|JsonB(given)| *given != webhook_definitions::headers(webhook_key));
        let before = change_log::webhook_state(webhook_key);
        update_row(webhook_key, changes, by);
        if let Some(enabled) = enabled {
            change_log::events_enabled(webhook_key, enabled, by);
            execute(SET_EVENTS, &[webhook_key.into(), enabled.into(), by.into()]);
        }
        if let Some(urls) = urls {
            for statement in [DROP_URLS, PLACE_URLS, INSERT_NEW_URLS] {
                execute(statement, &[webhook_key.into(), urls.clone().into()]);
            }
        }
        change_log::webhook_changed(webhook_key, Action::Update, &before, headers_differ, by);
        Ok(as_it_is(webhook_key))
    })
}

fn refuse_taken_name(webhook_key: i32, name: Option<&str>) -> Result<()> {
    let Some(name) = name else {
        return Ok(());
    };
    match first(NAME_TAKEN, &[name.into(), webhook_key.into()], |_| ()) {
        None => refuse_id_as_name(name, Some(webhook_key)),
        Some(()) => Err(name_is_taken(name)),
    }
}

fn update_row(webhook_key: i32, changes: WebhookChanges, by: &str) {
    let name = changes.name.clone().unwrap_or_default();
    let headers = changes.headers.map(|headers| headers.0.to_string());
    let headers = headers.map(Zeroizing::new);
    let arguments = [
        webhook_key.into(),
        changes.name.into(),
        changes.description.into(),
        changes.call_throttling.is_some().into(),
        changes.call_throttling.flatten().into(),
        changes.enabled.into(),
        changes.timeout_ms.into(),
        changes.max_attempts.into(),
        changes.max_age.into(),
        changes.max_in_flight.into(),
        changes.delivery_order.into(),
        changes.log_level.into(),
        by.into(),
        changes.disable_after.is_some().into(),
        changes.disable_after.flatten().into(),
    ];
    // The unique index decides between two who take one name at the same time.
    translated(
        || {
            let passed = headers.as_ref().map(|headers| headers.as_str());
            first_with(UPDATE, &arguments, passed, |_| ());
        },
        |refusal| {
            (refusal.code == PgSqlErrorCode::ERRCODE_UNIQUE_VIOLATION).then(|| name_is_taken(&name))
        },
    );
}

fn as_it_is(webhook_key: i32) -> ChangedWebhook {
    first(AS_IT_IS, &[webhook_key.into()], |row| ChangedWebhook {
        id: row.value(1),
        name: row.value(2),
        description: row.get(3),
        outgoing_urls: row.value(4),
        call_throttling: row.get(5),
        enabled: row.value(6),
        modified_at: row.get(7),
        modified_by: row.get(8),
    })
    .expect("a locked row does not go away")
}
