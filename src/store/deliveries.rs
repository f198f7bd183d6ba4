//! What users do with messages that are under way or have failed: redeliver, cancel.
//!
//! As the extension's owner. A message is found by its id (a block range index knows where it
//! can be); each URL of its webhook is then told by the lane's place whether it still waits
//! there. The worker hears of what was done when the transaction commits.

use pgrx::datum::TimestampWithTimeZone;
use pgrx::{pg_sys, Uuid};

use super::definition_log;
use super::redelivery_parts::{due, keys};
use super::rows::first;
use crate::pg::invalidation::invalidate;
use crate::pg::owner::as_owner;

/// A message that the outbox still holds.
pub struct FoundMessage {
    pub xid: i64,
    pub id: i64,
    pub webhook_key: i32,
    /// Its webhook was not dropped.
    pub is_live: bool,
    pub event_key: i32,
    pub captured_at: TimestampWithTimeZone,
}

/// xid8 has no Rust type; as text it loses nothing.
const FIND: &str = "
select o.xid::pg_catalog.text::pg_catalog.int8, o.id, o.webhook_key, w.dropped_at is null, o.event_key, o.captured_at
from webhook_internal.outbox o
join webhook.webhook_def w on w.webhook_key = o.webhook_key
where o.message_id = $1
limit 1";

/// URLs in use for which message ($1 xid, $2 id) of webhook $3 waits for its first call or has
/// it right now, as far as it is busy `but` …
macro_rules! waiting_urls {
    ($but:expr) => {
        concat!("
    select p.url_key
    from webhook_internal.place p
    join webhook.url_def u on u.url_key = p.url_key and u.dropped_at is null
    where p.webhook_key = $3
      and (
          (not (pg_catalog.pg_visible_in_snapshot($1::pg_catalog.text::pg_catalog.xid8, p.taken_before)
                or (pg_catalog.pg_visible_in_snapshot($1::pg_catalog.text::pg_catalog.xid8, p.taken_within)
                    and $2 <= p.taken_up_to))
           and (p.canceled_before is null
                or not pg_catalog.pg_visible_in_snapshot($1::pg_catalog.text::pg_catalog.xid8, p.canceled_before)))
          or exists (
              select
              from webhook_internal.busy b
              where b.url_key = p.url_key and b.xid = $1::pg_catalog.text::pg_catalog.xid8 and b.id = $2",
            $but,
            ")
      )"
        )
    };
}

/// … not what was canceled with everything else: whether it still has its first call, and how
/// that ends, only a worker could say. So it is queued again; if it arrives before, that is all.
macro_rules! but_canceling {
    () => {
        "
                and not exists (
                    select
                    from webhook_internal.cancellation k
                    where k.url_key = b.url_key
                      and pg_catalog.pg_visible_in_snapshot(b.xid, k.before))"
    };
}

const CANCEL: &str = concat!(
    "
with waiting_rows as (
    update webhook_internal.retry r
    set state = 'canceled', next_at = null, changed_at = pg_catalog.clock_timestamp()
    where r.message_id = $4 and r.state in ('waiting', 'failed')
    returning r.url_key
),
waiting as (",
    waiting_urls!(""),
    "
),
canceled_ahead as (
    insert into webhook_internal.retry (url_key, xid, id, message_id, webhook_key, event_key, event_date, attempts, state)
    select q.url_key, o.xid, o.id, o.message_id, o.webhook_key, o.event_key, o.captured_at, 0, 'canceling'
    from waiting q
    cross join (select * from webhook_internal.outbox m where m.message_id = $4 limit 1) o
    on conflict (url_key, id, xid) do nothing
    returning url_key
)
select (select pg_catalog.count(*) from waiting_rows) + (select pg_catalog.count(*) from canceled_ahead)"
);

const REDELIVER: &str = concat!(
    "
with in_use as (
    select u.url_key, w.delivery_order = 'key' as by_key
    from webhook.url_def u
    join webhook.webhook_def w on w.webhook_key = u.webhook_key
    where u.webhook_key = $3 and u.dropped_at is null
),
known as (
    select r.url_key, r.state
    from webhook_internal.retry r
    where r.message_id = $4
),
again as (
    update webhook_internal.retry r
    set state = 'waiting',
        attempts = case when r.state = 'waiting' then r.attempts else 0 end,
        next_at = ",
    due!("u.by_key", "r.key_hash"),
    ",
        accepted_at = pg_catalog.clock_timestamp(),
        changed_at = pg_catalog.clock_timestamp()
    from in_use u
    where r.message_id = $4 and r.url_key = u.url_key and r.state <> 'canceling'
    returning r.url_key
),
released as (
    delete from webhook_internal.retry r
    using in_use u
    where r.message_id = $4 and r.url_key = u.url_key and r.state = 'canceling'
    returning r.url_key
),
waiting as (",
    waiting_urls!(but_canceling!()),
    "
),
added as (
    insert into webhook_internal.retry (url_key, xid, id, message_id, webhook_key, event_key, event_date,
                               attempts, state, next_at, accepted_at, key_hash, other_key_hash)
    select u.url_key, o.xid, o.id, o.message_id, o.webhook_key, o.event_key, o.captured_at,
           0, 'waiting', ",
    due!("u.by_key", "o.key_hash"),
    ", pg_catalog.clock_timestamp(), o.key_hash, o.other_key_hash
    from in_use u
    cross join (
        select m.*, k.key_hash, k.other_key_hash
        from (select * from webhook_internal.outbox m where m.message_id = $4 limit 1) m
        cross join lateral (
            select",
    keys!("m"),
    "
        ) k (key_hash, other_key_hash)
    ) o
    where u.url_key not in (select url_key from waiting)
      and u.url_key not in (select url_key from known)
    on conflict (url_key, id, xid) do nothing
    returning url_key
)
select (select pg_catalog.count(*) from again) + (select pg_catalog.count(*) from released)
     + (select pg_catalog.count(*) from added)"
);

/// Where the next part of the failed messages of webhook $1 ends; $2 and $3 bound the messages'
/// dates, $4 is where the last part ended, $5 how many make a part.
const PART_END: &str = "
select f.event_date
from webhook_internal.retry f
where f.webhook_key = $1
  and f.state = 'failed'
  and ($2 is null or f.event_date >= $2)
  and ($3 is null or f.event_date < $3)
  and ($4 is null or f.event_date > $4)
order by f.event_date
offset $5
limit 1";

const REDELIVER_FAILED: &str = concat!(
    "
with again as (
    update webhook_internal.retry r
    set state = 'waiting',
        attempts = 0,
        next_at = ",
    due!("w.delivery_order = 'key'", "r.key_hash"),
    ",
        accepted_at = pg_catalog.clock_timestamp(),
        changed_at = pg_catalog.clock_timestamp()
    from webhook.url_def u
    join webhook.webhook_def w on w.webhook_key = u.webhook_key
    where r.webhook_key = $1
      and r.state = 'failed'
      and u.url_key = r.url_key
      and u.dropped_at is null
      and ($2 is null or r.event_date >= $2)
      and ($3 is null or r.event_date < $3)
      and ($4 is null or r.event_date > $4)
      and ($5 is null or r.event_date <= $5)
      and ($6 is null or r.url_key = any ($6))
    returning 1
)
select pg_catalog.count(*) from again"
);

/// What a URL has pending and not on its way. A snapshot does not list the transaction that
/// took it, whose changes are not committed either: here it is one that runs. The outbox
/// may hold messages of it that are in nobody's way.
const CANCEL_BACKLOG: &str = "
with own as (
    select pg_catalog.pg_current_snapshot() as snapshot, pg_catalog.pg_current_xact_id() as xid
),
moment as (
    select case
               when o.xid >= pg_catalog.pg_snapshot_xmax(o.snapshot) then o.snapshot
               else pg_catalog.concat(
                   least(o.xid, pg_catalog.pg_snapshot_xmin(o.snapshot)), ':',
                   pg_catalog.pg_snapshot_xmax(o.snapshot), ':',
                   (select pg_catalog.string_agg(r.xid::pg_catalog.text, ',' order by r.xid)
                    from (select pg_catalog.pg_snapshot_xip(o.snapshot)
                          union
                          select o.xid) as r (xid))
               )::pg_catalog.pg_snapshot
           end as before,
           (select pg_catalog.count(*)
            from webhook_internal.outbox n
            where n.webhook_key = $1
              and n.xid = o.xid) as own_messages
    from own o
),
canceled as (
    insert into webhook_internal.cancellation (url_key, webhook_key, before, counted)
    select n.url_key, n.webhook_key, m.before, n.pending - coalesce(b.calls, 0) - m.own_messages
    from webhook_internal.lane_now n
    cross join moment m
    join webhook.url_def u on u.url_key = n.url_key and u.dropped_at is null
    left join (
        select y.url_key, pg_catalog.count(*) as calls
        from webhook_internal.busy y
        where not y.is_listed
        group by y.url_key
    ) b on b.url_key = n.url_key
    where n.webhook_key = $1
      and n.pending > coalesce(b.calls, 0) + m.own_messages
    returning counted
)
select coalesce(sum(c.counted), 0)::pg_catalog.int8
from canceled c";

const CANCEL_RETRIES: &str = "
with canceled as (
    update webhook_internal.retry r
    set state = 'canceled', next_at = null, changed_at = pg_catalog.clock_timestamp()
    where r.webhook_key = $1
      and r.state = 'waiting'
    returning 1
)
select pg_catalog.count(*)
from canceled";

/// As [`CANCEL_BACKLOG`], of all webhooks. A URL whose messages were all on their way is
/// canceled as well: the worker takes them up again, and finds them canceled.
const FORGET_BACKLOG: &str = "
with canceled as (
    insert into webhook_internal.cancellation (url_key, webhook_key, before, counted)
    select n.url_key, n.webhook_key, pg_catalog.pg_current_snapshot(),
           greatest(n.pending - coalesce(b.calls, 0), 0)
    from webhook_internal.lane_now n
    join webhook.url_def u on u.url_key = n.url_key and u.dropped_at is null
    left join (
        select y.url_key, pg_catalog.count(*) as calls
        from webhook_internal.busy y
        where not y.is_listed
        group by y.url_key
    ) b on b.url_key = n.url_key
    where n.pending > 0
    returning url_key
)
select coalesce(sum(n.pending), 0)::pg_catalog.int8
from canceled c
join webhook_internal.lane_now n on n.url_key = c.url_key";

const FORGET_RETRIES: &str = "
with canceled as (
    update webhook_internal.retry r
    set state = 'canceled', next_at = null, changed_at = pg_catalog.clock_timestamp()
    where r.state = 'waiting'
    returning 1
)
select pg_catalog.count(*)
from canceled";

/// What is invalidated to tell the worker. A view, because VACUUM, ANALYZE and REINDEX invalidate
/// tables although nothing has changed, and may keep them locked.
const SIGNAL: &str = "
select 'webhook_internal.busy'::pg_catalog.regclass::pg_catalog.oid";

/// The message, unless it never was or is past retention.
pub fn find(message_id: Uuid) -> Option<FoundMessage> {
    as_owner(|| {
        first(FIND, &[message_id.into()], |row| FoundMessage {
            xid: row.value(1),
            id: row.value(2),
            webhook_key: row.value(3),
            is_live: row.value(4),
            event_key: row.value(5),
            captured_at: row.value(6),
        })
    })
}

/// For how many URLs the message was canceled.
pub fn cancel(message_id: Uuid, message: &FoundMessage) -> i64 {
    change(Some(message.webhook_key), || {
        count(CANCEL, message_id, message)
    })
}

/// For how many URLs the message is to be sent (again).
pub fn redeliver(message_id: Uuid, message: &FoundMessage) -> i64 {
    change(Some(message.webhook_key), || {
        count(REDELIVER, message_id, message)
    })
}

fn count(statement: &str, message_id: Uuid, message: &FoundMessage) -> i64 {
    let arguments = [
        message.xid.into(),
        message.id.into(),
        message.webhook_key.into(),
        message_id.into(),
    ];
    first(statement, &arguments, |row| row.value(1)).unwrap_or(0)
}

/// Failed messages of a webhook whose dates lie from `since` up to `until`, in parts of about
/// `part` messages, at all URLs or at these; `progress` hears how many there are so far.
pub fn redeliver_failed(
    webhook_key: i32,
    since: Option<TimestampWithTimeZone>,
    until: Option<TimestampWithTimeZone>,
    url_keys: Option<&[i32]>,
    part: i64,
    mut progress: impl FnMut(i64),
) -> i64 {
    change(Some(webhook_key), || {
        let (mut total, mut from) = (0, None);
        loop {
            let key = webhook_key.into();
            let arguments = [key, since.into(), until.into(), from.into(), part.into()];
            let end: Option<TimestampWithTimeZone> =
                first(PART_END, &arguments, |row| row.value(1));
            let key = webhook_key.into();
            let urls = url_keys.map(<[i32]>::to_vec).into();
            let arguments = [
                key,
                since.into(),
                until.into(),
                from.into(),
                end.into(),
                urls,
            ];
            total += first(REDELIVER_FAILED, &arguments, |row| row.value::<i64>(1)).unwrap_or(0);
            progress(total);
            if end.is_none() {
                return total;
            }
            from = end;
        }
    })
}

/// Everything a webhook has pending that was committed before, and its retries; a call that is
/// on its way counts for nothing. Changes of the caller's own transaction are not canceled,
/// whether it made them before or makes them later.
pub fn cancel_pending(webhook_key: i32) -> i64 {
    change(Some(webhook_key), || {
        let number = |statement| {
            first(statement, &[webhook_key.into()], |row| row.value::<i64>(1)).unwrap_or(0)
        };
        number(CANCEL_BACKLOG) + number(CANCEL_RETRIES)
    })
}

/// Everything that every webhook has pending; also what was on its way when the database was
/// copied. Not while the worker delivers.
pub fn forget_pending() -> i64 {
    change(None, || {
        let number = |statement| first(statement, &[], |row| row.value::<i64>(1)).unwrap_or(0);
        number(FORGET_BACKLOG) + number(FORGET_RETRIES)
    })
}

/// As the owner; the worker hears of it at COMMIT. `webhook_key`: whose messages it is about, or
/// those of all.
pub(super) fn change<T>(webhook_key: Option<i32>, what: impl FnOnce() -> T) -> T {
    as_owner(|| {
        let result = what();
        match webhook_key {
            Some(key) => definition_log::add(key),
            None => definition_log::add_everything(),
        }
        let signal: Option<pg_sys::Oid> = first(SIGNAL, &[], |row| row.value(1));
        signal.into_iter().for_each(invalidate);
        result
    })
}
