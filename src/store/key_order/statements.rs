//! The statements about messages that wait for their key.

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
            "exists (select from webhook_internal.retry e where ",
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
        from webhook_internal.retry r
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
     from webhook_internal.retry r
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
        from webhook_internal.retry r
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

pub(super) const BLOCKED_KEYS: &str = concat!(
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
pub(super) const ASK: &str = concat!(
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
                 from webhook_internal.retry r
                 where ",
    waits_for!("r"),
    " = $1 and r.key_hash = k.key
                 order by r.id, r.xid
                 limit 1)
                union all
                (select r.url_key, r.id, r.xid, r.next_at, r.key_hash, r.other_key_hash
                 from webhook_internal.retry r
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
    update webhook_internal.retry r
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
pub(super) const DUE: &str = concat!(
    "
with due as (
    select w.*, ",
    is_behind!("w"),
    " as is_behind
    from pg_catalog.unnest($2) as u (url_key)
    cross join lateral (
        select r.url_key, r.xid, r.id, r.attempts, r.accepted_at, r.next_at, r.key_hash, r.other_key_hash
        from webhook_internal.retry r
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
    update webhook_internal.retry r
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
pub(super) const FOLLOWING: &str = concat!(
    "
select w.url_key, w.xid, w.id, w.attempts, w.accepted_at, w.key_hash, w.other_key_hash
from rows from (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4))
    as u (url_key, key, id, xid)
left join lateral (
    select r.id, r.xid
    from webhook_internal.retry r
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
        from webhook_internal.retry r
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

pub(super) const HOLDING_BACK: &str = "
select u.url_key
from pg_catalog.unnest($1) as u (url_key)
cross join lateral (
    select
    from webhook_internal.retry r
    where r.url_key = u.url_key and r.state = 'waiting' and r.next_at >= 'infinity'
    order by r.next_at
    limit 1
) h";

/// At most $2 messages of the URLs $1, which do not keep the order of keys any more, that waited
/// for others.
pub(super) const RELEASE: &str = "
with held_back as (
    select l.url_key, l.id, l.xid
    from pg_catalog.unnest($1) as u (url_key)
    cross join lateral (
        select r.url_key, r.id, r.xid
        from webhook_internal.retry r
        where r.url_key = u.url_key and r.state = 'waiting' and r.next_at >= 'infinity'
        order by r.next_at
        limit $2
        for update skip locked
    ) l
    limit $2
)
update webhook_internal.retry r
set next_at = pg_catalog.clock_timestamp(), changed_at = pg_catalog.clock_timestamp()
from held_back h
where r.url_key = h.url_key and r.id = h.id and r.xid = h.xid";
