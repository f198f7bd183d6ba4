//! Sending again what waits or has ended, many messages in one statement.
//!
//! As the extension's owner. The worker hears of it when the transaction commits.

use pgrx::datum::TimestampWithTimeZone;

use super::citus;
use super::deliveries::change;
use super::redelivery_parts::{due, keys};
use super::rows::{first, query};
use crate::pg::owner::as_owner;

/// URLs of webhook $1 that are in use; those with the address $2, if that is given.
const URLS: &str = "
select u.url_key
from webhook.url_def u
where u.webhook_key = $1
  and u.dropped_at is null
  and ($2 is null or u.url = $2)";

/// The worker ends its pauses when it reads this.
const REOPEN: &str = "
update webhook.url_def
set reopened_at = pg_catalog.clock_timestamp()
where url_key = any ($1)
returning url_key";

/// One that waits for another message of its key is due after that.
const RETRY_NOW: &str = "
with due as (
    update webhook_internal.retry r
    set next_at = pg_catalog.clock_timestamp(), changed_at = pg_catalog.clock_timestamp()
    where r.url_key = any ($1)
      and r.state = 'waiting'
      and r.next_at > pg_catalog.clock_timestamp()
      and r.next_at < 'infinity'
    returning 1
)
select pg_catalog.count(*)
from due";

/// The URLs in use of a webhook, or the one with this address.
pub fn urls_in_use(webhook_key: i32, outgoing_url: Option<&str>) -> Vec<i32> {
    as_owner(|| {
        let arguments = [webhook_key.into(), outgoing_url.map(str::to_owned).into()];
        query(URLS, &arguments, |row| row.value(1))
    })
}

/// The receivers of these URLs are back: what waits for a retry is due now. Gives its number.
pub fn retry_now(webhook_key: i32, url_keys: &[i32]) -> i64 {
    change(Some(webhook_key), || {
        // On each node of a cluster by itself.
        citus::applying(|| query(REOPEN, &[url_keys.to_vec().into()], |_| ()));
        first(RETRY_NOW, &[url_keys.to_vec().into()], |row| row.value(1)).unwrap_or(0)
    })
}

/// What may be sent again.
#[derive(Clone, Copy)]
pub struct Window<'a> {
    pub webhook_key: i32,
    pub since: TimestampWithTimeZone,
    /// `None`: everything up to now.
    pub until: Option<TimestampWithTimeZone>,
    /// Of failed, delivered and canceled.
    pub statuses: &'a [&'static str],
    pub url_keys: &'a [i32],
}

/// Dates of messages of webhook $1, from $2 on and before $3, that end a part of $4 messages each.
const PART_ENDS: &str = "
select distinct s.captured_at
from (
    select o.captured_at, pg_catalog.row_number() over (order by o.captured_at) as place
    from webhook_internal.outbox o
    where o.webhook_key = $1
      and o.captured_at >= $2
      and ($3 is null or o.captured_at < $3)
) s
where s.place % $4 = 0
order by s.captured_at";

/// Messages of webhook $1 with dates from $2 to $3, where these count if $4 and $5 say so, that had one of
/// the statuses in $6 at one of the URLs in $7. What becomes of a message at a URL is told as in
/// webhook.messages. A message that is older than a URL was never meant for it.
const PART: &str = concat!(
    "
with in_use as materialized (
    select u.url_key, u.created_at, w.delivery_order = 'key' as by_key,
           p.taken_before, p.taken_within, p.taken_up_to, p.canceled_before
    from webhook.url_def u
    join webhook.webhook_def w on w.webhook_key = u.webhook_key
    join webhook_internal.place p on p.url_key = u.url_key
    where u.url_key = any ($7)
      and u.dropped_at is null
),
busy as materialized (
    select b.url_key, b.xid, b.id, b.is_canceled
    from webhook_internal.busy b
    where b.url_key = any ($7)
),
found as materialized (
    select u.url_key, u.by_key, o.xid, o.id, o.message_id, o.webhook_key, o.event_key, o.captured_at, o.changed,
           r.state,
           case
               when r.state = 'waiting' then 'pending'
               when r.state = 'canceling' then 'canceled'
               when r.state is not null then r.state
               when b.url_key is not null then case when b.is_canceled then 'canceled' else 'pending' end
               when not t.is_taken then case
                                            when pg_catalog.pg_visible_in_snapshot(o.xid, u.canceled_before) then 'canceled'
                                            else 'pending'
                                        end
               when exists (
                   select
                   from webhook_internal.cancellation c
                   where c.url_key = u.url_key
                     and pg_catalog.pg_visible_in_snapshot(o.xid, c.before)
                     and not (
                         pg_catalog.pg_visible_in_snapshot(o.xid, c.taken_before)
                         or (pg_catalog.pg_visible_in_snapshot(o.xid, c.taken_within) and o.id <= c.taken_up_to)
                     )
                     and not c.in_flight
                             @> pg_catalog.jsonb_build_array(pg_catalog.jsonb_build_array(o.xid::pg_catalog.text, o.id::pg_catalog.text))
               ) then 'canceled'
               else 'delivered'
           end as status
    from webhook_internal.outbox o
    cross join in_use u
    left join webhook_internal.retry r on r.url_key = u.url_key and r.id = o.id and r.xid = o.xid
    left join busy b on b.url_key = u.url_key and b.id = o.id and b.xid = o.xid
    cross join lateral (
        select pg_catalog.pg_visible_in_snapshot(o.xid, u.taken_before)
               or (pg_catalog.pg_visible_in_snapshot(o.xid, u.taken_within) and o.id <= u.taken_up_to) as is_taken
    ) t
    where o.webhook_key = $1
      and o.captured_at >= $2
      and (o.captured_at > $2 or $4)
      and ($3 is null or o.captured_at <= $3)
      and ($3 is null or o.captured_at < $3 or $5)
      and o.captured_at >= u.created_at
),
wanted as materialized (
    select f.*, k.key_hash, k.other_key_hash
    from found f
    cross join lateral (
        select",
    keys!("f"),
    "
    ) k (key_hash, other_key_hash)
    where f.status = any ($6)
),
again as (
    update webhook_internal.retry r
    set state = 'waiting',
        attempts = 0,
        next_at = ",
    due!("w.by_key", "r.key_hash"),
    ",
        accepted_at = pg_catalog.clock_timestamp(),
        changed_at = pg_catalog.clock_timestamp()
    from wanted w
    where w.state <> 'canceling' and r.url_key = w.url_key and r.id = w.id and r.xid = w.xid
    returning 1
),
released as (
    delete from webhook_internal.retry r
    using wanted w
    where w.state = 'canceling' and r.url_key = w.url_key and r.id = w.id and r.xid = w.xid
    returning 1
),
added as (
    insert into webhook_internal.retry (url_key, xid, id, message_id, webhook_key, event_key, event_date,
                               attempts, state, next_at, accepted_at, key_hash, other_key_hash)
    select w.url_key, w.xid, w.id, w.message_id, w.webhook_key, w.event_key, w.captured_at,
           0, 'waiting', ",
    due!("w.by_key", "w.key_hash"),
    ", pg_catalog.clock_timestamp(), w.key_hash, w.other_key_hash
    from wanted w
    where w.state is null
    on conflict (url_key, id, xid) do nothing
    returning 1
)
select (select pg_catalog.count(*) from again) + (select pg_catalog.count(*) from released)
     + (select pg_catalog.count(*) from added)"
);

/// Sends the messages of the window again, in parts of about `part`; `progress` hears how many calls
/// are queued so far. Each part can be canceled like any statement.
pub fn redeliver_window(window: &Window<'_>, part: i64, mut progress: impl FnMut(i64)) -> i64 {
    change(Some(window.webhook_key), || {
        let key = window.webhook_key;
        let arguments = [
            key.into(),
            window.since.into(),
            window.until.into(),
            part.into(),
        ];
        let mut ends: Vec<Option<TimestampWithTimeZone>> =
            query(PART_ENDS, &arguments, |row| Some(row.value(1)));
        ends.push(None);
        let (mut total, mut from) = (0, None);
        for end in ends {
            total += redeliver_part(window, from, end);
            progress(total);
            from = end;
        }
        total
    })
}

/// What comes after `after` up to `end`; within the window, where these are not given.
fn redeliver_part(
    window: &Window<'_>,
    after: Option<TimestampWithTimeZone>,
    end: Option<TimestampWithTimeZone>,
) -> i64 {
    let statuses: Vec<String> = window.statuses.iter().map(|s| (*s).to_owned()).collect();
    let arguments = [
        window.webhook_key.into(),
        after.unwrap_or(window.since).into(),
        end.or(window.until).into(),
        after.is_none().into(),
        end.is_some().into(),
        statuses.into(),
        window.url_keys.to_vec().into(),
    ];
    first(PART, &arguments, |row| row.value(1)).unwrap_or(0)
}
