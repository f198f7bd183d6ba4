//! What waits for a URL that keeps the order of each key (`webhook.retry` with keys).
//!
//! The first message of a key that waits has a date, all behind it have none (`infinity`). Rows
//! that another session has locked are passed over and tried again. For the worker, in a
//! transaction.

use super::retries::DueRetry;
use crate::core::messages::order_keys::OrderKeys;
use crate::core::messages::position::MessagePosition;
use crate::core::scheduling::lane::keys::as_stored;
use crate::pg::spi::{Arg, Query, Row};

/// The URL of a row that waits. The indexes of keys are on this expression, so that a plan made while
/// the table was empty, or had one key, cannot go through all that waits for the URL.
macro_rules! waits_for {
    ($row:literal) => {
        concat!(
            "(case when ",
            $row,
            ".state = 'waiting' then ",
            $row,
            ".url_key end)"
        )
    };
}

/// Whether a row of the same URL that waits goes before row `$row` for a key of it.
macro_rules! is_behind {
    ($row:literal) => {
        concat!(
            "(",
            is_behind!($row, "key_hash", "key_hash"),
            " or ",
            is_behind!($row, "key_hash", "other_key_hash"),
            " or ",
            is_behind!($row, "other_key_hash", "key_hash"),
            " or ",
            is_behind!($row, "other_key_hash", "other_key_hash"),
            ")"
        )
    };
    ($row:literal, $key:literal, $other:literal) => {
        concat!(
            "exists (select from webhook.retry e where ",
            waits_for!("e"),
            " = ",
            $row,
            ".url_key and e.",
            $other,
            " = ",
            $row,
            ".",
            $key,
            " and (e.id, e.xid) < (",
            $row,
            ".id, ",
            $row,
            ".xid))"
        )
    };
}

/// The row that has this position, if it waits: by its primary key, whatever a plan that was made
/// while the table was empty prefers.
macro_rules! waiting_row {
    ($url_key:literal, $row:literal, $date:literal) => {
        concat!(
            "
    cross join lateral (
        select r.url_key, r.id, r.xid
        from webhook.retry r
        where r.url_key = ",
            $url_key,
            " and r.id = ",
            $row,
            ".id and r.xid = ",
            $row,
            ".xid
          and r.state || '' = 'waiting'",
            $date,
            "
        for update skip locked
    ) l"
        )
    };
}

/// The keys of URL $1 that messages wait for, from key $2 on, the first $3 of them: one index
/// look-up a key.
macro_rules! keys_of {
    ($column:literal) => {
        concat!(
            "
    (select r.",
            $column,
            "
     from webhook.retry r
     where ",
            waits_for!("r"),
            " = $1 and r.",
            $column,
            " >= $2
     order by r.",
            $column,
            "
     limit 1)
    union all
    select n.key
    from ",
            $column,
            "s k
    cross join lateral (
        select r.",
            $column,
            " as key
        from webhook.retry r
        where ",
            waits_for!("r"),
            " = $1 and r.",
            $column,
            " > k.key
        order by r.",
            $column,
            "
        limit 1
    ) n"
        )
    };
}

const BLOCKED_KEYS: &str = concat!(
    "
with recursive key_hashs (key) as (",
    keys_of!("key_hash"),
    "
), other_key_hashs (key) as (",
    keys_of!("other_key_hash"),
    "
)
select b.key
from (
    select a.key from (select k.key from key_hashs k limit $3) a
    union
    select o.key from (select k.key from other_key_hashs k limit $3) o
) b
order by b.key
limit $3"
);

/// Of each of the keys $2 of URL $1 the first row that waits: it is due now, unless it has a date
/// or is behind another one for its other key. Gives the keys that are waited for, whether
/// the row could not be changed, and whether any is due now.
const ASK: &str = concat!(
    "
with first as (
    select k.key, w.id, w.xid, w.next_at, w.is_behind
    from pg_catalog.unnest($2) as k (key)
    cross join lateral (
        select c.id, c.xid, c.next_at,
               ",
    is_behind!("c"),
    " as is_behind
        from (
            select m.*
            from (
                (select r.url_key, r.id, r.xid, r.next_at, r.key_hash, r.other_key_hash
                 from webhook.retry r
                 where ",
    waits_for!("r"),
    " = $1 and r.key_hash = k.key
                 order by r.id, r.xid
                 limit 1)
                union all
                (select r.url_key, r.id, r.xid, r.next_at, r.key_hash, r.other_key_hash
                 from webhook.retry r
                 where ",
    waits_for!("r"),
    " = $1 and r.other_key_hash = k.key
                 order by r.id, r.xid
                 limit 1)
            ) m
            order by m.id, m.xid
            limit 1
        ) c
    ) w
),
free as (
    select l.url_key, l.id, l.xid
    from first f",
    waiting_row!("$1", "f", " and not pg_catalog.isfinite(r.next_at)"),
    "
    where f.next_at = 'infinity' and not f.is_behind
),
due as (
    update webhook.retry r
    set next_at = pg_catalog.clock_timestamp(), changed_at = pg_catalog.clock_timestamp()
    from free f
    where r.url_key = f.url_key and r.id = f.id and r.xid = f.xid
    returning r.id, r.xid
)
select f.key,
       f.next_at = 'infinity' and not f.is_behind
           and not exists (select from due d where d.id = f.id and d.xid = f.xid),
       exists (select from due)
from first f"
);

/// Of each URL in $2 the first retries that are due at $1, at most $3 a URL. One that is behind
/// another for a key is not: it has no date from now on, and the statement says so.
const DUE: &str = concat!(
    "
with due as (
    select w.*, ",
    is_behind!("w"),
    " as is_behind
    from pg_catalog.unnest($2) as u (url_key)
    cross join lateral (
        select r.url_key, r.xid, r.id, r.attempts, r.accepted_at, r.next_at, r.key_hash, r.other_key_hash
        from webhook.retry r
        where r.url_key = u.url_key
          and r.state = 'waiting'
          and r.next_at <= $1
        order by r.next_at
        limit $3
    ) w
),
behind as (
    select l.url_key, l.id, l.xid
    from due d",
    waiting_row!("d.url_key", "d", ""),
    "
    where d.is_behind
),
undated as (
    update webhook.retry r
    set next_at = 'infinity', changed_at = pg_catalog.clock_timestamp()
    from behind b
    where r.url_key = b.url_key and r.id = b.id and r.xid = b.xid
)
select d.url_key, d.xid, d.id, d.attempts, d.accepted_at, d.key_hash, d.other_key_hash, d.is_behind
from due d
order by d.next_at"
);

/// Of URLs $1 and their keys $2 what waits behind the rows with ids $3 and $4, at most $6 each, and
/// what of it may be sent after them: up to the first with another key, or with a date after $5.
const FOLLOWING: &str = concat!(
    "
select w.url_key, w.xid, w.id, w.attempts, w.accepted_at, w.key_hash, w.other_key_hash
from rows from (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4))
    as u (url_key, key, id, xid)
left join lateral (
    select r.id, r.xid
    from webhook.retry r
    where ",
    waits_for!("r"),
    " = u.url_key
      and r.other_key_hash = u.key
      and (r.id, r.xid) > (u.id, u.xid)
    order by r.id, r.xid
    limit 1
) b on true
cross join lateral (
    select f.*,
           pg_catalog.bool_and(f.other_key_hash is null and (f.next_at = 'infinity' or f.next_at <= $5))
               over (order by f.id, f.xid rows unbounded preceding) as may_follow
    from (
        select r.url_key, r.xid, r.id, r.attempts, r.accepted_at, r.key_hash, r.other_key_hash, r.next_at
        from webhook.retry r
        where ",
    waits_for!("r"),
    " = u.url_key
          and r.key_hash = u.key
          and (r.id, r.xid) > (u.id, u.xid)
        order by r.id, r.xid
        limit $6
    ) f
) w
where w.may_follow
  and (b.id is null or (w.id, w.xid) < (b.id, b.xid))
order by w.url_key, w.id, w.xid"
);

const HOLDING_BACK: &str = "
select u.url_key
from pg_catalog.unnest($1) as u (url_key)
cross join lateral (
    select
    from webhook.retry r
    where r.url_key = u.url_key and r.state = 'waiting' and r.next_at >= 'infinity'
    order by r.next_at
    limit 1
) h";

/// At most $2 messages of the URLs $1, which do not keep the order of keys any more, that waited
/// for others.
const RELEASE: &str = "
with held_back as (
    select l.url_key, l.id, l.xid
    from pg_catalog.unnest($1) as u (url_key)
    cross join lateral (
        select r.url_key, r.id, r.xid
        from webhook.retry r
        where r.url_key = u.url_key and r.state = 'waiting' and r.next_at >= 'infinity'
        order by r.next_at
        limit $2
        for update skip locked
    ) l
    limit $2
)
update webhook.retry r
set next_at = pg_catalog.clock_timestamp(), changed_at = pg_catalog.clock_timestamp()
from held_back h
where r.url_key = h.url_key and r.id = h.id and r.xid = h.xid";

/// What the table says of keys that were asked for.
#[derive(Default)]
pub struct Answer {
    /// Keys that messages wait for.
    pub waited_for: Vec<u64>,
    /// Keys whose first row could not be changed: they are to be asked for again.
    pub locked: Vec<u64>,
    /// Messages are due now.
    pub any_due: bool,
}

/// A row that is due by its date.
pub struct DueByKey {
    pub retry: DueRetry,
    /// It is behind another one, and has no date from now on.
    pub is_behind: bool,
}

/// Kept plans of this file's statements.
pub struct KeyOrderStore {
    blocked_keys: Query,
    ask: Query,
    due: Query,
    following: Query,
    holding_back: Query,
    release: Query,
}

impl KeyOrderStore {
    pub fn new() -> Self {
        Self {
            blocked_keys: Query::new(BLOCKED_KEYS),
            ask: Query::new(ASK),
            due: Query::new(DUE),
            following: Query::new(FOLLOWING),
            holding_back: Query::new(HOLDING_BACK),
            release: Query::new(RELEASE),
        }
    }

    /// Keys that messages wait for, in the table's order, `from` this one on.
    pub fn blocked_keys(&self, url_key: i32, from: i64, most: usize) -> Vec<u64> {
        let mut keys = Vec::new();
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        self.blocked_keys.read(
            &[Arg::I32(url_key), Arg::I64(from), Arg::I64(most)],
            |row| keys.extend(row.i64(0).map(as_read)),
        );
        keys
    }

    /// Has the first message that waits for each of these keys be due.
    pub fn ask(&self, url_key: i32, keys: &[u64]) -> Answer {
        let mut answer = Answer::default();
        if keys.is_empty() {
            return answer;
        }
        let keys: Vec<i64> = keys.iter().copied().map(as_stored).collect();
        self.ask
            .write_returning(&[Arg::I32(url_key), Arg::I64Array(&keys)], |row| {
                let key = row.i64(0).map(as_read);
                let is_locked = row.bool(1) == Some(true);
                answer.waited_for.extend(key);
                answer.locked.extend(key.filter(|_| is_locked));
                answer.any_due |= row.bool(2) == Some(true);
            });
        answer
    }

    /// Retries of these URLs that are due at `now`, at most `of_each` of a URL.
    pub fn due(&self, now: i64, url_keys: &[i32], of_each: usize) -> Vec<DueByKey> {
        let of_each = i64::try_from(of_each).unwrap_or(i64::MAX);
        let mut due = Vec::new();
        let arguments = [
            Arg::Timestamp(Some(now)),
            Arg::I32Array(url_keys),
            Arg::I64(of_each),
        ];
        self.due.write_returning(&arguments, |row| {
            due.push(DueByKey {
                retry: due_retry(row)?,
                is_behind: row.bool(7)?,
            });
            Some(())
        });
        due
    }

    /// What may be sent one after the other once these were, at most `of_each` a key.
    pub fn following(&self, now: i64, heads: &[DueRetry], of_each: usize) -> Vec<DueRetry> {
        let of_each = i64::try_from(of_each).unwrap_or(i64::MAX);
        let by_key = || {
            let of_head = |head| std::iter::repeat(head).zip(keys_of(head));
            heads.iter().flat_map(of_head)
        };
        let urls: Vec<i32> = by_key().map(|(head, _)| head.url_key).collect();
        if urls.is_empty() {
            return Vec::new();
        }
        let keys: Vec<i64> = by_key().map(|(_, key)| as_stored(key)).collect();
        let ids: Vec<i64> = by_key().map(|(head, _)| head.at.id).collect();
        let xids: Vec<u64> = by_key().map(|(head, _)| head.at.xid).collect();
        let mut following = Vec::new();
        self.following.read(
            &[
                Arg::I32Array(&urls),
                Arg::I64Array(&keys),
                Arg::I64Array(&ids),
                Arg::XidArray(&xids),
                Arg::Timestamp(Some(now)),
                Arg::I64(of_each),
            ],
            |row| following.extend(due_retry(row)),
        );
        following
    }

    /// Which of these URLs have messages that wait for others.
    pub fn holding_back(&self, url_keys: &[i32]) -> Vec<i32> {
        let mut found = Vec::new();
        self.holding_back
            .read(&[Arg::I32Array(url_keys)], |row| found.extend(row.i32(0)));
        found
    }

    /// Messages of these URLs do not wait for others any more; gives how many there were, at most
    /// `limit`.
    pub fn release(&self, url_keys: &[i32], limit: i64) -> u64 {
        self.release
            .write(&[Arg::I32Array(url_keys), Arg::I64(limit)])
    }
}

fn keys_of(retry: &DueRetry) -> impl Iterator<Item = u64> {
    retry.keys.iter()
}

/// The first seven columns.
fn due_retry(row: &Row<'_>) -> Option<DueRetry> {
    let key = row.i64(5).map(as_read);
    let keys = key.map(|key| OrderKeys::new(key, row.i64(6).map(as_read)));
    Some(DueRetry {
        url_key: row.i32(0)?,
        at: MessagePosition {
            xid: row.xid(1)?,
            id: row.i64(2)?,
        },
        attempts: row.i32(3)?,
        accepted_at: row.i64(4),
        keys: keys.unwrap_or_default(),
    })
}

fn as_read(stored: i64) -> u64 {
    u64::from_ne_bytes(stored.to_ne_bytes())
}
