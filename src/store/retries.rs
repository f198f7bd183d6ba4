//! The retry table: messages whose calls failed, were given up or canceled. Written in batches.
//! For the worker, in a transaction.

use std::collections::HashMap;

use uuid::Uuid;

use crate::core::messages::order_keys::OrderKeys;
use crate::core::messages::position::MessagePosition;
use crate::core::scheduling::lane::keys::as_stored;
use crate::pg::spi::{Arg, Query};

/// Of the retries of a lane that keeps the order so many are looked at together: they
/// follow one another.
const WAITING_AT_MOST: i64 = 64;

/// What becomes of a message that was not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryState {
    /// For its next call.
    Waiting,
    /// Given up, until it is redelivered.
    Failed,
    /// Canceled by a user.
    Canceled,
}

impl RetryState {
    fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
        }
    }
}

/// A message that failed or was canceled.
pub struct RetryRow {
    pub url_key: i32,
    pub at: MessagePosition,
    pub keys: OrderKeys,
    pub message_id: Uuid,
    pub webhook_key: i32,
    pub event_key: i32,
    pub event_date: i64,
    pub attempts: i32,
    pub state: RetryState,
    /// When its next call is due.
    pub next_at: Option<i64>,
    pub last_error: Option<String>,
}

/// When a message is due that waits for an earlier one of its keys: 'infinity'.
pub const AFTER_ANOTHER: i64 = i64::MAX;

impl RetryRow {
    /// It waits for an earlier message of one of its keys, and was not called.
    pub fn is_held_back(&self) -> bool {
        self.state == RetryState::Waiting && self.next_at == Some(AFTER_ANOTHER)
    }
}

/// A retry that is due.
#[derive(Clone, Debug)]
pub struct DueRetry {
    pub url_key: i32,
    pub at: MessagePosition,
    pub attempts: i32,
    /// Since when its age counts, if it was redelivered.
    pub accepted_at: Option<i64>,
    /// Of a URL that keeps the order of each key.
    pub keys: OrderKeys,
}

/// A retry of a lane that keeps the order.
pub struct WaitingRetry {
    pub retry: DueRetry,
    pub next_at: i64,
}

/// What waits although it was canceled was redelivered since.
const UPSERT: &str = "
insert into webhook_internal.retry as r (url_key, xid, id, message_id, webhook_key, event_key, event_date,
                                attempts, state, next_at, last_error, key_hash, other_key_hash)
select u.url_key, u.xid, u.id, u.message_id, u.webhook_key, u.event_key, u.event_date,
       u.attempts, u.state, u.next_at, u.last_error, u.key_hash, u.other_key_hash
from rows from (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3),
                pg_catalog.unnest($4), pg_catalog.unnest($5), pg_catalog.unnest($6),
                pg_catalog.unnest($7), pg_catalog.unnest($8), pg_catalog.unnest($9),
                pg_catalog.unnest($10), pg_catalog.unnest($11), pg_catalog.unnest($12),
                pg_catalog.unnest($13))
    as u (url_key, xid, id, message_id, webhook_key, event_key, event_date, attempts, next_at, last_error,
          state, key_hash, other_key_hash)
on conflict (url_key, id, xid) do update
set attempts = case
                   when excluded.state = 'canceled' and r.state = 'waiting' then r.attempts
                   else excluded.attempts
               end,
    state = case
                when r.state in ('canceled', 'canceling') then 'canceled'
                when excluded.state = 'canceled' and r.state = 'waiting' then 'waiting'
                else excluded.state
            end,
    next_at = case
                  when r.state in ('canceled', 'canceling') then null
                  when excluded.state = 'canceled' and r.state = 'waiting' then r.next_at
                  else excluded.next_at
              end,
    last_error = excluded.last_error,
    key_hash = excluded.key_hash,
    other_key_hash = excluded.other_key_hash,
    changed_at = pg_catalog.clock_timestamp()";

/// Where the URL's backlog was canceled once, the row stays: it tells that this message of it
/// was redelivered.
const DELIVERED: &str = "
with done as (
    select d.url_key, d.xid, d.id, exists (
               select from webhook_internal.cancellation k where k.url_key = d.url_key
           ) as is_kept
    from rows from (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3))
        as d (url_key, xid, id)
),
kept as (
    update webhook_internal.retry r
    set state = 'delivered', next_at = null, changed_at = pg_catalog.clock_timestamp()
    from done d
    where d.is_kept and r.url_key = d.url_key and r.id = d.id and r.xid = d.xid
)
delete from webhook_internal.retry r
using done d
where not d.is_kept and r.url_key = d.url_key and r.id = d.id and r.xid = d.xid";

/// Of each URL in $2 the first retries that are due at $1, at most $3 a URL and $4 in all.
const DUE: &str = "
select w.url_key, w.xid, w.id, w.attempts, w.accepted_at
from pg_catalog.unnest($2) as u (url_key)
cross join lateral (
    select r.url_key, r.xid, r.id, r.attempts, r.accepted_at, r.next_at
    from webhook_internal.retry r
    where r.url_key = u.url_key
      and r.state = 'waiting'
      and r.next_at <= $1
    order by r.next_at
    limit $3
) w
order by w.next_at";

const NEXT_DUE: &str = "
select u.url_key, w.next_at
from pg_catalog.unnest($1) as u (url_key)
cross join lateral (
    select r.next_at
    from webhook_internal.retry r
    where r.url_key = u.url_key
      and r.state = 'waiting'
    order by r.next_at
    limit 1
) w";

/// The URLs that have waiting retries, one index look-up each.
const WAITING_URLS: &str = "
with recursive waiting as (
    (select r.url_key
     from webhook_internal.retry r
     where r.state = 'waiting'
     order by r.url_key
     limit 1)
    union all
    select n.url_key
    from waiting w
    cross join lateral (
        select r.url_key
        from webhook_internal.retry r
        where r.state = 'waiting'
          and r.url_key > w.url_key
        order by r.url_key
        limit 1
    ) n
)
select w.url_key, d.webhook_key
from waiting w
join webhook.url_def d on d.url_key = w.url_key";

/// The first retries of each URL in the order of ids, due or not.
const WAITING: &str = "
select w.url_key, w.xid, w.id, w.attempts, w.next_at, w.accepted_at
from pg_catalog.unnest($1) as u (url_key)
cross join lateral (
    select r.url_key, r.xid, r.id, r.attempts, r.next_at, r.accepted_at
    from webhook_internal.retry r
    where r.url_key = u.url_key
      and r.state = 'waiting'
    order by r.id, r.xid
    limit $2
) w
order by w.url_key, w.id, w.xid";

const GIVE_UP: &str = "
update webhook_internal.retry r
set state = 'failed', next_at = null, last_error = $4, changed_at = pg_catalog.clock_timestamp()
from rows from (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3)) as d (url_key, xid, id)
where r.url_key = d.url_key
  and r.id = d.id
  and r.xid = d.xid
  and r.state || '' = 'waiting'";

/// Retries that were written after $1, so by a clock that has been set back since: they are due
/// as long after $1 as they were to wait. The index has none that were due by then.
const BRING_FORWARD: &str = "
update webhook_internal.retry r
set next_at = $1 + (r.next_at - r.changed_at),
    changed_at = $1
from (
    select w.url_key, w.id, w.xid
    from webhook_internal.retry w
    where w.state = 'waiting' and w.next_at >= $1 and w.next_at < 'infinity' and w.changed_at > $1
    limit $2
) a
where r.url_key = a.url_key
  and r.id = a.id
  and r.xid = a.xid
  and r.state || '' = 'waiting'";

/// Kept plans of this file's statements.
pub struct RetryStore {
    upsert: Query,
    delivered: Query,
    due: Query,
    next_due: Query,
    waiting_urls: Query,
    waiting: Query,
    give_up: Query,
    bring_forward: Query,
}

impl RetryStore {
    pub fn new() -> Self {
        Self {
            upsert: Query::new(UPSERT),
            delivered: Query::new(DELIVERED),
            due: Query::new(DUE),
            next_due: Query::new(NEXT_DUE),
            waiting_urls: Query::new(WAITING_URLS),
            waiting: Query::new(WAITING),
            give_up: Query::new(GIVE_UP),
            bring_forward: Query::new(BRING_FORWARD),
        }
    }

    /// Failed calls: the message waits for its next one, or is given up.
    pub fn upsert<'a>(&self, retries: impl IntoIterator<Item = &'a RetryRow>) {
        let retries: Vec<&RetryRow> = retries.into_iter().collect();
        if retries.is_empty() {
            return;
        }
        macro_rules! column {
            ($value:expr) => {
                retries.iter().map($value).collect::<Vec<_>>()
            };
        }
        self.upsert.write(&[
            Arg::I32Array(&column!(|r| r.url_key)),
            Arg::XidArray(&column!(|r| r.at.xid)),
            Arg::I64Array(&column!(|r| r.at.id)),
            Arg::UuidArray(&column!(|r| r.message_id)),
            Arg::I32Array(&column!(|r| r.webhook_key)),
            Arg::I32Array(&column!(|r| r.event_key)),
            Arg::TimestampArray(&column!(|r| Some(r.event_date))),
            Arg::I32Array(&column!(|r| r.attempts)),
            Arg::TimestampArray(&column!(|r| r.next_at)),
            Arg::TextArray(&column!(|r| r.last_error.as_deref())),
            Arg::TextArray(&column!(|r| Some(r.state.name()))),
            Arg::I64OptionArray(&column!(|r| r.keys.iter().next().map(as_stored))),
            Arg::I64OptionArray(&column!(|r| r.keys.iter().nth(1).map(as_stored))),
        ]);
    }

    /// Retries that succeeded at last.
    pub fn delivered(&self, retries: &[(i32, MessagePosition)]) {
        if retries.is_empty() {
            return;
        }
        let urls: Vec<_> = retries.iter().map(|(url_key, _)| *url_key).collect();
        let xids: Vec<_> = retries.iter().map(|(_, at)| at.xid).collect();
        let ids: Vec<_> = retries.iter().map(|(_, at)| at.id).collect();
        self.delivered.write(&[
            Arg::I32Array(&urls),
            Arg::XidArray(&xids),
            Arg::I64Array(&ids),
        ]);
    }

    /// Retries of these URLs that are due at `now`, the oldest first, at most `of_each` of a URL.
    pub fn due(&self, now: i64, url_keys: &[i32], of_each: usize) -> Vec<DueRetry> {
        let of_each = i64::try_from(of_each).unwrap_or(i64::MAX);
        let mut due = Vec::new();
        self.due.read(
            &[
                Arg::Timestamp(Some(now)),
                Arg::I32Array(url_keys),
                Arg::I64(of_each),
            ],
            |row| {
                due.push(DueRetry {
                    url_key: row.i32(0)?,
                    at: MessagePosition {
                        xid: row.xid(1)?,
                        id: row.i64(2)?,
                    },
                    attempts: row.i32(3)?,
                    accepted_at: row.i64(4),
                    keys: OrderKeys::default(),
                });
                Some(())
            },
        );
        due
    }

    /// What waits for these URLs, sorted by URL and order, the first [`WAITING_AT_MOST`] of
    /// each.
    pub fn waiting(&self, url_keys: &[i32]) -> Vec<WaitingRetry> {
        let mut waiting = Vec::new();
        self.waiting.read(
            &[Arg::I32Array(url_keys), Arg::I64(WAITING_AT_MOST)],
            |row| {
                let at = MessagePosition {
                    xid: row.xid(1)?,
                    id: row.i64(2)?,
                };
                waiting.push(WaitingRetry {
                    retry: DueRetry {
                        url_key: row.i32(0)?,
                        at,
                        attempts: row.i32(3)?,
                        accepted_at: row.i64(5),
                        keys: OrderKeys::default(),
                    },
                    // One without a time is due.
                    next_at: row
                        .i64(4)
                        .filter(|at| *at != AFTER_ANOTHER)
                        .unwrap_or(i64::MIN),
                });
                Some(())
            },
        );
        waiting
    }

    /// Retries that cannot be sent any more are failures, for this reason.
    pub fn give_up(&self, retries: &[(i32, MessagePosition)], why: &str) {
        if retries.is_empty() {
            return;
        }
        let urls: Vec<_> = retries.iter().map(|(url_key, _)| *url_key).collect();
        let xids: Vec<_> = retries.iter().map(|(_, at)| at.xid).collect();
        let ids: Vec<_> = retries.iter().map(|(_, at)| at.id).collect();
        self.give_up.write(&[
            Arg::I32Array(&urls),
            Arg::XidArray(&xids),
            Arg::I64Array(&ids),
            Arg::Text(Some(why)),
        ]);
    }

    /// At most `limit` of the retries that were written when the clock was ahead of `now`, which
    /// it says after it was set back. Returns how many there were.
    pub fn bring_forward(&self, now: i64, limit: i64) -> u64 {
        self.bring_forward
            .write(&[Arg::Timestamp(Some(now)), Arg::I64(limit)])
    }

    /// When the next retry of each of these URLs is due; without those that have none.
    pub fn next_due(&self, url_keys: &[i32]) -> HashMap<i32, i64> {
        let mut next = HashMap::new();
        self.next_due.read(&[Arg::I32Array(url_keys)], |row| {
            // One without a time is due.
            next.insert(row.i32(0)?, row.i64(1).unwrap_or(i64::MIN));
            Some(())
        });
        next
    }

    /// The URLs that have waiting retries, with their webhooks.
    pub fn waiting_urls(&self) -> Vec<(i32, i32)> {
        let mut found = Vec::new();
        self.waiting_urls
            .read(&[], |row| found.extend(row.i32(0).zip(row.i32(1))));
        found
    }
}
