//! Whether the caller may send rows of a webhook's events to another place.
//!
//! A URL, a header or a switch decides where rows go. So who changes one needs what reading the
//! rows needs: SELECT on the table of each event, which row security does not limit, or
//! membership in the role that owns the event and has these rights itself. An event that was
//! dropped counts as long as messages of it may wait. A superuser may do anything.

use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys;
use zeroize::Zeroizing;

use super::rows::{first, first_with};
use super::webhook_changes::WebhookChanges;
use crate::core::error::{Error, Kind, Result};
use crate::pg::owner::{as_owner, current_role, current_role_oid};

/// An event of webhook $1 that messages may come from or wait of, or event $2 alone, whose rows role
/// $3 may not read.
const OUT_OF_REACH: &str = "
select e.id, coalesce(b.object_text, '(dropped)')
from webhook.event_def e
join webhook_internal.event_owner o on o.event_key = e.event_key
left join webhook_internal.event_label b on b.event_key = e.event_key
left join pg_catalog.pg_class c on c.oid = e.object_name
cross join (select r.rolsuper, r.rolbypassrls from pg_catalog.pg_roles r where r.oid = $3) caller
where (e.event_key = $2
       or e.webhook_key = $1
           and (e.dropped_at is null or exists (
               select
               from webhook.queue q
               join webhook.webhook_def w on w.id = q.webhook_id
               where w.webhook_key = $1
                 and (q.pending > 0 or q.retrying > 0)
                 and coalesce(q.oldest_pending <= e.dropped_at, true)
           )))
  and pg_catalog.starts_with(e.event_type, 'table.')
  and not caller.rolsuper
  and (c.oid is null
       or not pg_catalog.has_table_privilege($3, c.oid, 'SELECT')
       or c.relrowsecurity and not caller.rolbypassrls and not pg_catalog.pg_has_role($3, c.relowner, 'USAGE'))
  and (o.owner_oid is null
       or o.lost_rights is not null
       or not pg_catalog.pg_has_role($3, o.owner_oid, 'MEMBER'))
order by e.dropped_at is not null, e.event_key
limit 1";

/// Whether a webhook's rows go to another place, or go again, once it has URLs $2, the headers in
/// `passed` and is switched on ($3); null leaves what is there.
const SENDS_ELSEWHERE: &str = "
select coalesce($2 && array(
           select n.url
           from pg_catalog.unnest($2) n (url)
           where n.url not in (
               select u.url
               from webhook.url_def u
               where u.webhook_key = $1
                 and u.dropped_at is null
           )
       ), false)
       or coalesce((select p.value::pg_catalog.jsonb from passed p) <> w.headers, false)
       or coalesce($3, false)
           and (not w.enabled or exists (
               select
               from webhook.event_def e
               where e.webhook_key = $1
                 and e.dropped_at is null
                 and not e.enabled
           ))
from webhook.webhook_def w
where w.webhook_key = $1";

/// Whether webhook $1 has a URL that is newer than a message captured at $2.
const HAS_NEWER_URL: &str = "
select true
from webhook.url_def u
where u.webhook_key = $1
  and u.dropped_at is null
  and u.created_at > $2
limit 1";

/// # Errors
/// `42501` if the changes send rows to another place and the caller may not read one of the
/// webhook's tables.
pub fn check_changes(webhook_key: i32, changes: &WebhookChanges) -> Result<()> {
    let headers = changes.headers.as_ref();
    let headers = headers.map(|headers| Zeroizing::new(headers.0.to_string()));
    let elsewhere: Option<bool> = as_owner(|| {
        let arguments = [
            webhook_key.into(),
            changes.outgoing_urls.clone().into(),
            changes.enabled.into(),
        ];
        let passed = headers.as_ref().map(|headers| headers.as_str());
        first_with(SENDS_ELSEWHERE, &arguments, passed, |row| row.value(1))
    });
    if elsewhere == Some(true) {
        check(Some(webhook_key), None)
    } else {
        Ok(())
    }
}

/// # Errors
/// `42501` if the caller may not read the table of the event.
pub fn check_event(event_key: i32) -> Result<()> {
    check(None, Some(event_key))
}

/// A message that is sent again may go to a URL that it was never meant for.
///
/// # Errors
/// `42501` if it does and the caller may not read the table of its event.
pub fn check_message(
    webhook_key: i32,
    event_key: i32,
    captured_at: TimestampWithTimeZone,
) -> Result<()> {
    let arguments = [webhook_key.into(), captured_at.into()];
    match as_owner(|| first(HAS_NEWER_URL, &arguments, |_| ())) {
        Some(()) => check(None, Some(event_key)),
        None => Ok(()),
    }
}

fn check(webhook_key: Option<i32>, event_key: Option<i32>) -> Result<()> {
    let caller: pg_sys::Oid = current_role_oid();
    let arguments = [webhook_key.into(), event_key.into(), caller.into()];
    let found: Option<(String, String)> =
        as_owner(|| first(OUT_OF_REACH, &arguments, |row| (row.value(1), row.value(2))));
    let Some((event, table)) = found else {
        return Ok(());
    };
    Err(Error::new(
        Kind::InsufficientPrivilege,
        format!(
            "event \"{event}\" sends rows of table \"{table}\", which role \"{}\" may not read",
            current_role()
        ),
    )
    .with_hint(
        "this would send them elsewhere: it needs SELECT on the table (with row security also BYPASSRLS), \
         or membership in the role that webhook.events.owner names",
    ))
}
