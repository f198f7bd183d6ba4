//! Webhooks, their URLs and secrets, as users define them.
//!
//! Everything here runs as the extension's owner; whether the caller may is
//! decided before. A dropped webhook stays as a tombstone, because messages and
//! calls still name it.

use pgrx::datum::{Interval, TimestampWithTimeZone};
use pgrx::{JsonB, PgSqlErrorCode};
use serde_json::Value;
use zeroize::Zeroizing;

use super::change_log::{self, Action};
use super::identity;
use super::rows::{execute, first, first_with, query};
use crate::core::definitions::webhook::shown;
use crate::core::error::{Error, Kind, Result};
use crate::core::policy::secret::Secret;
use crate::pg::owner::as_owner;
use crate::pg::report::translated;

/// A webhook before it is stored: every value is checked.
pub struct NewWebhook {
    pub id: String,
    pub name: String,
    pub description: Option<String>,
    pub outgoing_urls: Vec<String>,
    pub call_throttling: Option<i32>,
    pub enabled: bool,
    pub headers: JsonB,
    pub timeout_ms: i32,
    pub max_attempts: i32,
    pub max_age: Interval,
    pub max_in_flight: i32,
    pub delivery_order: &'static str,
    pub log_level: &'static str,
    pub disable_after: Option<Interval>,
    pub created_by: String,
}

/// Each adds a signature to a header, which receivers limit to some 8 kB.
const MAX_SECRETS: i64 = 8;

/// A secret as it is shown to those who may see it.
pub struct SecretRow {
    pub secret: Zeroizing<String>,
    pub expires_at: Option<TimestampWithTimeZone>,
}

/// An id that is a name would take its webhook's place where either is given.
const ID_TAKEN: &str = "
select true from webhook.webhook_def where id = $1
union all
select true from webhook.webhook_def where name = $1 and dropped_at is null";

const NAME_TAKEN: &str = "
select true from webhook.webhook_def where name = $1 and dropped_at is null";

/// Also one that was dropped: messages and calls still name it. $2 is the webhook itself.
const NAME_IS_ID: &str = "
select true from webhook.webhook_def where id = $1 and webhook_key is distinct from $2";

/// `passed` has the headers, which may be credentials.
const INSERT: &str = "
insert into webhook.webhook_def (id, name, description, call_throttling, enabled, headers, timeout_ms,
                                 max_attempts, max_age, max_in_flight, delivery_order, log_level, created_by,
                                 disable_after)
select $1, $2, $3, $4, $5, p.value::pg_catalog.jsonb, $6, $7, $8, $9, $10, $11, $12, $13
from passed p
returning webhook_key, created_at";

const INSERT_URLS: &str = "
insert into webhook.url_def (webhook_key, position, url)
select $1, u.position, u.url
from pg_catalog.unnest($2) with ordinality as u (url, position)";

/// `passed` has the secret. One that is there already, and about to expire, is the current one again.
const INSERT_SECRET: &str = "
insert into webhook.secret_def (webhook_key, secret)
select $1, p.value
from passed p
on conflict (webhook_key, secret) do update
set created_at = pg_catalog.clock_timestamp(), expires_at = null
returning webhook_key";

/// Locks the row, so that definitions of one webhook change one after the other.
/// An id goes before a name. One index at a time: a plan for both that was made while there were few
/// webhooks reads them all, and is kept.
const BY_ID_OR_NAME: &str = "
select w.webhook_key, w.id
from webhook.webhook_def w
where w.webhook_key = coalesce(
      (
          select i.webhook_key
          from webhook.webhook_def i
          where i.id = $1
            and i.dropped_at is null
      ),
      (
          select n.webhook_key
          from webhook.webhook_def n
          where n.name = $1
            and n.dropped_at is null
      )
  )
  and (w.id = $1 or w.name = $1)
  and w.dropped_at is null
for update";

/// The same without the lock, which a standby does not have.
const READ_BY_ID_OR_NAME: &str = "
select w.webhook_key
from webhook.webhook_def w
where w.webhook_key = coalesce(
      (
          select i.webhook_key
          from webhook.webhook_def i
          where i.id = $1
            and i.dropped_at is null
      ),
      (
          select n.webhook_key
          from webhook.webhook_def n
          where n.name = $1
            and n.dropped_at is null
      )
  )";

const HEADERS: &str = "
select w.headers
from webhook.webhook_def w
where w.webhook_key = $1";

const PAUSE: &str = "
update webhook.webhook_def
set paused = $2, modified_at = pg_catalog.clock_timestamp(), modified_by = $3
where webhook_key = $1";

/// The receivers are said to be back: how long they have failed counts from now.
const ENABLE_URLS: &str = "
update webhook.url_def
set disabled_at = null, detail = null, reopened_at = pg_catalog.clock_timestamp()
where webhook_key = $1
  and disabled_at is not null";

/// Where one message holds others it is worth a try at once. One that waits for another is due
/// after that.
const RETRY_NOW: &str = "
update webhook_internal.retry r
set next_at = pg_catalog.clock_timestamp(), changed_at = pg_catalog.clock_timestamp()
from webhook.webhook_def w
where w.webhook_key = $1
  and w.delivery_order = any (array['fifo', 'key'])
  and r.webhook_key = w.webhook_key
  and r.state = 'waiting'
  and r.next_at > pg_catalog.clock_timestamp()
  and r.next_at < 'infinity'";

const EXPIRE_SECRETS: &str = "
update webhook.secret_def
set expires_at = pg_catalog.clock_timestamp() + $2
where webhook_key = $1
  and (expires_at is null or expires_at > pg_catalog.clock_timestamp() + $2)";

const FORGET_EXPIRED: &str = "
delete from webhook.secret_def
where webhook_key = $1
  and expires_at <= pg_catalog.clock_timestamp()";

const COUNT_SECRETS: &str = "
select pg_catalog.count(*)
from webhook.secret_def
where webhook_key = $1";

const SECRETS: &str = "
select secret, expires_at
from webhook.secret_def
where webhook_key = $1
  and (expires_at is null or expires_at > pg_catalog.clock_timestamp())
order by created_at desc";

const DROP: &str = "
update webhook.webhook_def
set dropped_at = pg_catalog.clock_timestamp(),
    modified_at = pg_catalog.clock_timestamp(),
    modified_by = $2
where webhook_key = $1";

const DROP_URLS: &str = "
update webhook.url_def
set dropped_at = pg_catalog.clock_timestamp()
where webhook_key = $1
  and dropped_at is null";

const FORGET_SECRETS: &str = "
delete from webhook.secret_def
where webhook_key = $1";

const CANCEL_RETRIES: &str = "
update webhook_internal.retry
set state = 'canceled', next_at = null, changed_at = pg_catalog.clock_timestamp()
where webhook_key = $1
  and state in ('waiting', 'canceling')";

/// The error for a name that another webhook has.
pub fn name_is_taken(name: &str) -> Error {
    Error::new(
        Kind::DuplicateObject,
        format!("name \"{}\" is taken by another webhook", shown(name)),
    )
    .with_hint("choose another name, or drop the other webhook first")
}

/// # Errors
/// `22023` if the name is the id of another webhook than this one.
pub fn refuse_id_as_name(name: &str, webhook_key: Option<i32>) -> Result<()> {
    match first(NAME_IS_ID, &[name.into(), webhook_key.into()], |_| ()) {
        None => Ok(()),
        Some(()) => Err(Error::invalid(format!(
            "name \"{}\" is the id of another webhook",
            shown(name)
        ))
        .with_hint("choose another name: functions take an id or a name")),
    }
}

/// Whether any webhook, also a dropped one, has this id.
pub fn id_is_taken(id: &str) -> bool {
    as_owner(|| first(ID_TAKEN, &[id.into()], |_| ()).is_some())
}

/// Stores a webhook with its URLs and its first secret.
pub fn insert(webhook: NewWebhook, secret: &Secret) -> Result<TimestampWithTimeZone> {
    as_owner(|| {
        let name = webhook.name.clone();
        if first(NAME_TAKEN, &[name.as_str().into()], |_| ()).is_some() {
            return Err(name_is_taken(&name));
        }
        refuse_id_as_name(&name, None)?;
        identity::record_origin();
        let (urls, by) = (webhook.outgoing_urls.clone(), webhook.created_by.clone());
        // The unique index decides between two who take one name at the same time.
        let (key, created_at): (i32, TimestampWithTimeZone) = translated(
            || insert_row(webhook),
            |refusal| {
                (refusal.code == PgSqlErrorCode::ERRCODE_UNIQUE_VIOLATION)
                    .then(|| name_is_taken(&name))
            },
        );
        execute(INSERT_URLS, &[key.into(), urls.into()]);
        insert_secret(key, secret);
        change_log::webhook_created(key, &by);
        Ok(created_at)
    })
}

fn insert_secret(webhook_key: i32, secret: &Secret) {
    let args = [webhook_key.into()];
    first_with(INSERT_SECRET, &args, Some(secret.expose()), |_| ());
}

fn insert_row(webhook: NewWebhook) -> (i32, TimestampWithTimeZone) {
    let headers = Zeroizing::new(webhook.headers.0.to_string());
    first_with(
        INSERT,
        &[
            webhook.id.into(),
            webhook.name.into(),
            webhook.description.into(),
            webhook.call_throttling.into(),
            webhook.enabled.into(),
            webhook.timeout_ms.into(),
            webhook.max_attempts.into(),
            webhook.max_age.into(),
            webhook.max_in_flight.into(),
            webhook.delivery_order.into(),
            webhook.log_level.into(),
            webhook.created_by.into(),
            webhook.disable_after.into(),
        ],
        Some(&headers),
        |row| (row.value(1), row.value(2)),
    )
    .expect("an INSERT of one row returns it")
}

/// The key and id of a webhook that is given by id or name. Its row is locked.
pub fn find(webhook: &str) -> Result<(i32, String)> {
    as_owner(|| {
        first(BY_ID_OR_NAME, &[webhook.into()], |row| {
            (row.value(1), row.value(2))
        })
    })
    .ok_or_else(|| no_such_webhook(webhook))
}

const ID_OF: &str = "
select id from webhook.webhook_def where webhook_key = $1";

/// The id of a webhook that is there.
pub fn id_of(webhook_key: i32) -> String {
    as_owner(|| first(ID_OF, &[webhook_key.into()], |row| row.value(1))).unwrap_or_default()
}

/// The key of a webhook that is only read.
pub fn look_up(webhook: &str) -> Result<i32> {
    as_owner(|| first(READ_BY_ID_OR_NAME, &[webhook.into()], |row| row.value(1)))
        .ok_or_else(|| no_such_webhook(webhook))
}

fn no_such_webhook(webhook: &str) -> Error {
    Error::new(
        Kind::UndefinedObject,
        format!("webhook \"{}\" does not exist", shown(webhook)),
    )
    .with_hint("the view webhook.webhooks lists ids and names")
}

/// Its request headers, as they are sent.
pub fn headers(webhook_key: i32) -> Value {
    let stored = as_owner(|| first(HEADERS, &[webhook_key.into()], |row| row.value::<JsonB>(1)));
    stored.map(|JsonB(headers)| headers).unwrap_or_default()
}

/// Holds delivery, or lets it go on; the latter re-opens URLs that were switched off, and where
/// the order is kept the message that holds the others is due at once.
pub fn set_paused(webhook_key: i32, paused: bool, by: &str) {
    as_owner(|| {
        let before = change_log::webhook_state(webhook_key);
        execute(PAUSE, &[webhook_key.into(), paused.into(), by.into()]);
        if !paused {
            execute(ENABLE_URLS, &[webhook_key.into()]);
            execute(RETRY_NOW, &[webhook_key.into()]);
        }
        let action = match paused {
            true => Action::Pause,
            false => Action::Resume,
        };
        change_log::webhook_changed(webhook_key, action, &before, false, by);
    });
}

/// Makes `secret` the current one; those before it sign along for `overlap`.
///
/// # Errors
/// `22023` if as many secrets as may would sign along with it. Nothing has changed then, once
/// the error is raised.
pub fn replace_secret(webhook_key: i32, secret: &Secret, overlap: Interval) -> Result<()> {
    as_owner(|| {
        execute(EXPIRE_SECRETS, &[webhook_key.into(), overlap.into()]);
        execute(FORGET_EXPIRED, &[webhook_key.into()]);
        let left: i64 = first(COUNT_SECRETS, &[webhook_key.into()], |row| row.value(1))
            .expect("a count is one row");
        if left >= MAX_SECRETS {
            return Err(too_many_secrets());
        }
        insert_secret(webhook_key, secret);
        Ok(())
    })
}

fn too_many_secrets() -> Error {
    Error::invalid(format!(
        "webhook has {MAX_SECRETS} secrets that have not expired, and overlap would keep them"
    ))
    .with_hint(
        "wait until one expires (webhook.reveal_secret() shows when), or give a shorter overlap: \
         with '0' all of them end at once",
    )
}

/// The secrets that sign now, newest first.
pub fn secrets(webhook_key: i32) -> Vec<SecretRow> {
    as_owner(|| {
        query(SECRETS, &[webhook_key.into()], |row| SecretRow {
            secret: Zeroizing::new(row.value(1)),
            expires_at: row.get(2),
        })
    })
}

/// Leaves a tombstone, without secrets and with nothing to repeat.
pub fn drop(webhook_key: i32, by: &str) {
    as_owner(|| {
        change_log::webhook_dropped(webhook_key, by);
        execute(DROP, &[webhook_key.into(), by.into()]);
        for statement in [DROP_URLS, FORGET_SECRETS, CANCEL_RETRIES] {
            execute(statement, &[webhook_key.into()]);
        }
    });
}
