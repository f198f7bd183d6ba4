//! Whether anything is due or in flight.

use crate::pg::owner::as_owner;
use crate::pg::spi::{connected, Query};

/// What is paused, switched off, backing off or waits for a later retry does not count;
/// what a lane has taken and not settled does, unless the lane is held.
const IDLE: &str = "
select not exists (select from webhook.unseen)
   and not exists (
       select
       from webhook.lane_now n
       join webhook.webhook_def w on w.webhook_key = n.webhook_key
       where n.pending > 0
         and n.disabled_at is null
         and not w.paused
         and w.dropped_at is null
         and (coalesce(n.state ->> 'state', 'active') <> 'backing_off'
              or (n.state ->> 'next')::timestamptz <= pg_catalog.clock_timestamp()))
   and not exists (
       select
       from webhook.retry r
       join webhook.lane_now n on n.url_key = r.url_key
       join webhook.webhook_def w on w.webhook_key = n.webhook_key
       where r.state = 'waiting'
         and r.next_at <= pg_catalog.clock_timestamp()
         and n.disabled_at is null
         and not w.paused
         and w.dropped_at is null
         and (coalesce(n.state ->> 'state', 'active') <> 'backing_off'
              or (n.state ->> 'next')::timestamptz <= pg_catalog.clock_timestamp()))";

thread_local! {
    static QUERY: Query = const { Query::new(IDLE) };
}

/// Whether nothing was due or in flight in the active snapshot.
pub fn is_idle() -> bool {
    let mut idle = false;
    as_owner(|| {
        connected(|| QUERY.with(|query| query.read(&[], |row| idle = row.bool(0) == Some(true))));
    });
    idle
}
