//! The definitions of some webhooks as the worker needs them, many webhooks in one statement.

use pgrx::pg_sys;
use zeroize::Zeroizing;

use super::table_label::table_label;
use crate::pg::spi::{Arg, Query};

pub struct WebhookRow {
    pub webhook_key: i32,
    pub id: String,
    pub name: String,
    pub call_throttling: Option<i32>,
    pub paused: bool,
    pub headers: String,
    pub timeout_ms: i32,
    pub max_attempts: i32,
    pub max_age_us: i64,
    pub max_in_flight: i32,
    pub delivery_order: String,
    pub log_level: String,
    pub disable_after_us: Option<i64>,
    pub detail: Option<String>,
    /// It is a tombstone.
    pub dropped: bool,
}

pub struct SecretRow {
    pub webhook_key: i32,
    pub secret: Zeroizing<String>,
    /// Microseconds since 2000-01-01 UTC.
    pub expires_at: Option<i64>,
}

pub struct UrlRow {
    pub url_key: i32,
    pub webhook_key: i32,
    pub url: String,
    pub disabled: bool,
    /// It is a tombstone.
    pub dropped: bool,
    /// When a user said that its receiver is back, in microseconds since 2000-01-01 UTC.
    pub reopened_at: Option<i64>,
}

pub struct EventRow {
    pub event_key: i32,
    pub id: String,
    pub webhook_key: i32,
    pub event_type: String,
    /// Schema-qualified unless the schema is public; as it was called when it is gone.
    pub object_name: Option<String>,
    /// The trigger fields by their present names; none if any field triggers.
    pub object_fields: Vec<String>,
    pub payload_template: Option<String>,
    /// The table it watches, while that exists.
    pub table: Option<pg_sys::Oid>,
}

/// The definitions of the webhooks that were asked for. Dropped events stay while their webhook
/// lives: what they captured before is still delivered.
#[derive(Default)]
pub struct Definitions {
    pub webhooks: Vec<WebhookRow>,
    pub secrets: Vec<SecretRow>,
    pub urls: Vec<UrlRow>,
    pub events: Vec<EventRow>,
}

/// More than a bigint of microseconds holds would be an error, and nothing could be read. LEAST passes over a null.
const WEBHOOKS: &str = "
select webhook_key, id, call_throttling, paused, headers::pg_catalog.text, timeout_ms, max_attempts,
       (extract(epoch from least(max_age, '10000 years'::pg_catalog.interval)) * 1000000)::pg_catalog.int8,
       max_in_flight, log_level, detail,
       delivery_order, dropped_at is not null, name,
       case
           when disable_after is not null
           then (extract(epoch from least(disable_after, '10000 years'::pg_catalog.interval)) * 1000000)::pg_catalog.int8
       end
from webhook.webhook_def
where webhook_key = any ($1)";

/// Newest first: that is the order of the signatures in a request. No more than
/// webhook.regenerate_secret() lets a webhook have: a header that receivers refuse would fail
/// every call.
const SECRETS: &str = "
select s.webhook_key, s.secret, s.expires_at
from (
    select webhook_key, secret, expires_at, created_at,
           pg_catalog.row_number() over (
               partition by webhook_key
               order by expires_at is null desc, created_at desc
           ) as place
    from webhook.secret_def
    where webhook_key = any ($1)
      and (expires_at is null or expires_at > pg_catalog.now())
) s
where s.place <= 8
order by s.created_at desc";

const URLS: &str = "
select u.url_key, u.webhook_key, u.url, u.disabled_at is not null, u.dropped_at is not null, u.reopened_at
from webhook.url_def u
where u.webhook_key = any ($1)
order by u.url_key";

const EVENTS: &str = concat!(
    "select e.event_key, e.id, e.webhook_key, e.event_type,
       coalesce(
           case when c.oid is not null then ",
    table_label!(),
    " end,
           e.object_label
       ),
       webhook.present_columns(e.object_name, e.object_oid, e.object_fields, e.object_attnums),
       e.payload_template,
       c.oid
from webhook.event_def e
left join pg_catalog.pg_class c on c.oid = e.object_name
left join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where e.webhook_key = any ($1)"
);

/// Why a webhook's row cannot be used; shown in its view.
const SET_DETAIL: &str = "
update webhook.webhook_def
set detail = $2
where webhook_key = $1 and detail is distinct from $2";

/// A receiver answered 410 Gone, or has failed for too long.
const DISABLE_URL: &str = "
update webhook.url_def
set disabled_at = pg_catalog.clock_timestamp(), detail = $2
where url_key = $1 and disabled_at is null";

/// Kept plans of this file's statements.
pub struct RoutingStore {
    webhooks: Query,
    secrets: Query,
    urls: Query,
    events: Query,
    set_detail: Query,
    disable_url: Query,
}

impl RoutingStore {
    pub fn new() -> Self {
        Self {
            webhooks: Query::new(WEBHOOKS),
            secrets: Query::new(SECRETS),
            urls: Query::new(URLS),
            events: Query::new(EVENTS),
            set_detail: Query::new(SET_DETAIL),
            disable_url: Query::new(DISABLE_URL),
        }
    }

    /// Of these webhooks. In a transaction.
    pub fn load(&self, webhook_keys: &[i32]) -> Definitions {
        let keys = [Arg::I32Array(webhook_keys)];
        let mut all = Definitions::default();
        self.webhooks.read(&keys, |row| {
            all.webhooks.push(WebhookRow {
                webhook_key: row.i32(0)?,
                id: row.text(1)?,
                call_throttling: row.i32(2),
                paused: row.bool(3)?,
                headers: row.text(4)?,
                timeout_ms: row.i32(5)?,
                max_attempts: row.i32(6)?,
                max_age_us: row.i64(7)?,
                max_in_flight: row.i32(8)?,
                log_level: row.text(9)?,
                detail: row.text(10),
                delivery_order: row.text(11)?,
                dropped: row.bool(12)?,
                name: row.text(13)?,
                disable_after_us: row.i64(14),
            });
            Some(())
        });
        self.secrets.read(&keys, |row| {
            all.secrets.push(SecretRow {
                webhook_key: row.i32(0)?,
                secret: Zeroizing::new(row.text(1)?),
                expires_at: row.i64(2),
            });
            Some(())
        });
        self.urls.read(&keys, |row| {
            all.urls.push(UrlRow {
                url_key: row.i32(0)?,
                webhook_key: row.i32(1)?,
                url: row.text(2)?,
                disabled: row.bool(3)?,
                dropped: row.bool(4)?,
                reopened_at: row.i64(5),
            });
            Some(())
        });
        self.events.read(&keys, |row| {
            all.events.push(EventRow {
                event_key: row.i32(0)?,
                id: row.text(1)?,
                webhook_key: row.i32(2)?,
                event_type: row.text(3)?,
                object_name: row.text(4),
                object_fields: row.text_array(5).unwrap_or_default(),
                payload_template: row.text(6),
                table: row.oid(7),
            });
            Some(())
        });
        all
    }

    pub fn set_detail(&self, webhook_key: i32, detail: Option<&str>) {
        self.set_detail
            .write(&[Arg::I32(webhook_key), Arg::Text(detail)]);
    }

    /// Whether it was in use until now.
    pub fn disable_url(&self, url_key: i32, detail: &str) -> bool {
        self.disable_url
            .write(&[Arg::I32(url_key), Arg::Text(Some(detail))])
            > 0
    }
}
