//! Whether anything is due or in flight.

use crate::pg::owner::as_owner;
use crate::pg::spi::{connected, with_snapshot, Query};

/// What is paused, switched off, backing off or waits for a later retry does not count;
/// what a lane has taken and not settled does, unless the lane is held.
const IDLE: &str = "
with recursive first_of_key as (
    (select r.url_key, r.key_hash, r.other_key_hash, r.id, r.xid, r.next_at
     from webhook_internal.retry r
     where (case when r.state = 'waiting' then r.url_key end) is not null and r.key_hash is not null
     order by (case when r.state = 'waiting' then r.url_key end), r.key_hash, r.id, r.xid
     limit 1)
    union all
    select n.*
    from first_of_key f
    cross join lateral (
        select r.url_key, r.key_hash, r.other_key_hash, r.id, r.xid, r.next_at
        from webhook_internal.retry r
        where (case when r.state = 'waiting' then r.url_key end) is not null
          and r.key_hash is not null
          and ((case when r.state = 'waiting' then r.url_key end), r.key_hash)
              > (f.url_key, f.key_hash)
        order by (case when r.state = 'waiting' then r.url_key end), r.key_hash, r.id, r.xid
        limit 1
    ) n
),
-- What waits for no other message of its keys any more.
free as (
    select f.url_key
    from first_of_key f
    where f.next_at = 'infinity'
      and not exists (
          select
          from webhook_internal.retry e
          where (case when e.state = 'waiting' then e.url_key end) = f.url_key and e.other_key_hash = f.key_hash
            and (e.id, e.xid) < (f.id, f.xid)
      )
      and not exists (
          select
          from webhook_internal.retry e
          where (case when e.state = 'waiting' then e.url_key end) = f.url_key and e.key_hash = f.other_key_hash
            and (e.id, e.xid) < (f.id, f.xid)
      )
      and not exists (
          select
          from webhook_internal.retry e
          where (case when e.state = 'waiting' then e.url_key end) = f.url_key and e.other_key_hash = f.other_key_hash
            and (e.id, e.xid) < (f.id, f.xid)
      )
)
select not exists (select from webhook_internal.unseen)
   and not exists (
       select
       from webhook_internal.lane_now n
       join webhook.webhook_def w on w.webhook_key = n.webhook_key
       where n.pending > 0
         and n.disabled_at is null
         and not w.paused
         and w.dropped_at is null
         and (coalesce(n.state ->> 'state', 'active') <> 'backing_off'
              or (n.state ->> 'next')::timestamptz <= pg_catalog.clock_timestamp()))
   and not exists (
       select
       from webhook_internal.retry r
       join webhook_internal.lane_now n on n.url_key = r.url_key
       join webhook.webhook_def w on w.webhook_key = n.webhook_key
       where r.state = 'waiting'
         and (r.next_at <= pg_catalog.clock_timestamp()
              or r.next_at = 'infinity' and r.url_key in (select f.url_key from free f))
         and n.disabled_at is null
         and not w.paused
         and w.dropped_at is null
         and (coalesce(n.state ->> 'state', 'active') <> 'backing_off'
              or (n.state ->> 'next')::timestamptz <= pg_catalog.clock_timestamp()))";

/// What waits for later and will be sent without anybody's doing. Most often nothing waits at all, which
/// is found out without a look at each URL.
const LATER: &str = "
select sum(q.pending + q.retrying)::pg_catalog.int8, min(q.next_attempt_at)::pg_catalog.timestamptz(0)::pg_catalog.text
from webhook.queue q
where q.next_attempt_at is not null
  and (exists (select from webhook_internal.retry r where r.state = 'waiting')
       or exists (select from webhook_internal.lane n where n.pending <> 0)
       or exists (select from webhook_internal.uncompacted))";

thread_local! {
    static QUERY: Query = const { Query::new(IDLE) };
    static LATER_QUERY: Query = const { Query::new(LATER) };
}

/// Whether nothing was due or in flight in the active snapshot.
pub fn is_idle() -> bool {
    let mut idle = false;
    as_owner(|| {
        connected(|| QUERY.with(|query| query.read(&[], |row| idle = row.bool(0) == Some(true))));
    });
    idle
}

/// How many calls wait for later, and when the next one is due, if any do.
pub fn later() -> Option<(i64, String)> {
    let mut later = None;
    as_owner(|| {
        with_snapshot(|| {
            connected(|| {
                LATER_QUERY.with(|query| {
                    query.read(&[], |row| later = row.i64(0).zip(row.text(1)));
                });
            });
        });
    });
    later
}
