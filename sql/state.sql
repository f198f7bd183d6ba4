-- Where the worker stands: its last compaction, its settlements since and what it has not
-- seen yet, added up, so that every view upon it is exact at once.

-- Names and operators below are PostgreSQL's own, whatever else the schema may hold.
set local search_path = pg_catalog, pg_temp;

-- Where the tail reader stands; one row. Everything before tail_from, and everything between
-- tail_from and tail_to with an id up to tail_id, has been counted and routed. 3 is the first
-- normal transaction id: nothing has been read yet. The limit tells the planner that it is
-- one row; upper bounds of seq and xid further down tell it that few rows lie above.
create view webhook_internal.tail as
select coalesce(l.tail_from, f.tail_from, '3:3:'::pg_snapshot) as tail_from,
       coalesce(l.tail_to, f.tail_to, '3:3:'::pg_snapshot) as tail_to,
       coalesce(l.tail_id, f.tail_id, 0) as tail_id,
       coalesce(f.compacted_seq, 0) as compacted_seq
from (values (true)) as always (only_row)
left join webhook_internal.compaction f on f.only_row = always.only_row
left join lateral (
    select n.tail_from, n.tail_to, n.tail_id
    from webhook_internal.settlement n
    where n.seq > coalesce(f.compacted_seq, 0)
    order by n.seq desc
    limit 1
) l on true
limit 1;

-- What the worker has settled since the last compaction.
create view webhook_internal.uncompacted as
select l.seq, l.counts, l.backlog, l.lanes
from webhook_internal.tail t
join webhook_internal.settlement l on l.seq > t.compacted_seq and l.seq <= 9223372036854775807;

-- Messages that the tail reader has not counted yet. A function, because it may say how many
-- rows it gives: from the size of the outbox the planner would expect so many that it compiled
-- the plan of every view for seconds.
create function webhook_internal.unseen_messages()
returns table (
    xid         xid8,
    id          bigint,
    message_id  uuid,
    event_key   integer,
    webhook_key integer,
    captured_at timestamptz
)
language sql
stable
security definer
rows 100
set search_path = pg_catalog, pg_temp
set jit = off
as $$
    select o.xid, o.id, o.message_id, o.event_key, o.webhook_key, o.captured_at
    from webhook_internal.tail t
    cross join lateral (
        select n.xid, n.id, n.message_id, n.event_key, n.webhook_key, n.captured_at
        from webhook_internal.outbox n
        where n.xid >= pg_catalog.pg_snapshot_xmax(t.tail_from)
          and n.xid <= '18446744073709551615'::pg_catalog.xid8
        union all
        select n.xid, n.id, n.message_id, n.event_key, n.webhook_key, n.captured_at
        from pg_catalog.pg_snapshot_xip(t.tail_from) as running (xid)
        join webhook_internal.outbox n on n.xid = running.xid
    ) o
    where not (pg_catalog.pg_visible_in_snapshot(o.xid, t.tail_to) and o.id <= t.tail_id)
$$;

create view webhook_internal.unseen as
select u.xid, u.id, u.message_id, u.event_key, u.webhook_key, u.captured_at
from webhook_internal.unseen_messages() u;

-- What webhook_internal.counter does not hold yet, one row an event. There are few, whatever is defined.
create view webhook_internal.recent_count as
select c.event_key,
       sum(c.messages)::bigint as messages,
       sum(c.calls)::bigint as calls,
       sum(c.errors)::bigint as errors
from (
    select (entry -> 0)::integer, (entry -> 1)::bigint, (entry -> 2)::bigint, (entry -> 3)::bigint
    from webhook_internal.uncompacted l
    cross join jsonb_array_elements(l.counts) as entry
    union all
    select u.event_key, count(*), 0, 0
    from webhook_internal.unseen u
    group by u.event_key
) c (event_key, messages, calls, errors)
group by c.event_key;

-- Exact counters, one row an event.
create view webhook_internal.event_count as
select c.event_key,
       sum(c.messages)::bigint as messages,
       sum(c.calls)::bigint as calls,
       sum(c.errors)::bigint as errors
from (
    select k.event_key, k.messages, k.calls, k.errors
    from webhook_internal.counter k
    union all
    select r.event_key, r.messages, r.calls, r.errors
    from webhook_internal.recent_count r
) c
group by c.event_key;

-- The newest state of each lane and what waits in it, one row a URL: those in use, and those
-- that were dropped together with their webhook.
create view webhook_internal.lane_now as
select u.url_key,
       u.webhook_key,
       u.url,
       u.disabled_at,
       u.detail,
       coalesce(mention.state, l.state, '{}') as state,
       greatest(
           coalesce(l.pending, 0) + coalesce(backlog.pending, 0) + coalesce(unseen.pending, 0)
               - coalesce(canceled.pending, 0) - coalesce(passed.pending, 0)
               - case when one_by_one.positions is null then 0 else (
                     -- What is on the wire is pending until it ends.
                     select count(*)
                     from jsonb_array_elements(one_by_one.positions) as c (at)
                     where not (
                           coalesce(mention.state, l.state, '{}') @> jsonb_build_object('busy', jsonb_build_array(c.at))
                           and not coalesce(mention.state, l.state, '{}')
                                   @> jsonb_build_object('listed', jsonb_build_array(c.at))
                     )
                 ) end,
           0
       ) as pending,
       unseen.oldest as unseen_since,
       -- From here, so that one webhook's URLs are found before all others are joined.
       w.id as webhook_id,
       w.name as webhook_name,
       w.paused,
       w.dropped_at as webhook_dropped_at,
       w.detail as webhook_detail,
       -- A worker that has made no call since its start does not know when the last ones were.
       coalesce(mention.state -> 'ok', l.state -> 'ok')::bigint as last_success,
       coalesce(mention.state -> 'err', l.state -> 'err')::bigint as last_error
from webhook.url_def u
join webhook.webhook_def w on w.webhook_key = u.webhook_key
left join webhook_internal.lane l on l.url_key = u.url_key
left join (
    select distinct on (entry -> 'u') (entry -> 'u')::integer as url_key, entry as state
    from webhook_internal.uncompacted n
    cross join jsonb_array_elements(n.lanes) as entry
    order by entry -> 'u', n.seq desc
) mention on mention.url_key = u.url_key
left join (
    select (entry -> 0)::integer as url_key, sum((entry -> 1)::bigint)::bigint as pending
    from webhook_internal.uncompacted n
    cross join jsonb_array_elements(n.backlog) as entry
    group by 1
) backlog on backlog.url_key = u.url_key
left join (
    select n.webhook_key, count(*) as pending, min(n.captured_at) as oldest
    from webhook_internal.unseen n
    group by n.webhook_key
) unseen on unseen.webhook_key = u.webhook_key
left join (
    -- The worker has not heard of it yet.
    select k.url_key, sum(k.counted)::bigint as pending
    from webhook_internal.cancellation k
    where k.taken_before is null
    group by k.url_key
) canceled on canceled.url_key = u.url_key
left join (
    -- The worker has heard of it, but the tail has not come to them yet.
    select h.url_key, count(*) as pending
    from (
        select distinct on (k.url_key) k.url_key, k.webhook_key, k.before
        from webhook_internal.cancellation k
        where k.taken_before is not null
        order by k.url_key, pg_snapshot_xmax(k.before) desc, pg_snapshot_xmin(k.before) desc, length(k.before::text)
    ) h
    join webhook_internal.unseen n on n.webhook_key = h.webhook_key and pg_visible_in_snapshot(n.xid, h.before)
    group by h.url_key
) passed on passed.url_key = u.url_key
left join (
    -- Canceled one by one; the lane has not reached them.
    select r.url_key, jsonb_agg(jsonb_build_array(r.xid::text, r.id::text)) as positions
    from webhook_internal.retry r
    where r.state = 'canceling'
    group by r.url_key
) one_by_one on one_by_one.url_key = u.url_key
where u.dropped_at is null
   or u.dropped_at >= w.dropped_at;

-- Taken by a lane and not settled. What is listed still waits for its call, unless it was
-- canceled. A function for the same reason as webhook_internal.unseen_messages().
create function webhook_internal.busy_messages()
returns table (
    url_key     integer,
    xid         xid8,
    id          bigint,
    is_listed   boolean,
    is_canceled boolean
)
language sql
stable
security definer
rows 100
set search_path = pg_catalog, pg_temp
set jit = off
as $$
    select b.url_key, b.xid, b.id, b.is_listed,
           b.is_listed and (
               exists (
                   select
                   from webhook_internal.retry r
                   where r.url_key = b.url_key
                     and r.xid = b.xid
                     and r.id = b.id
                     and r.state in ('canceled', 'canceling')
               )
               or exists (
                   select
                   from webhook_internal.cancellation k
                   where k.url_key = b.url_key
                     and pg_catalog.pg_visible_in_snapshot(b.xid, k.before)
               )
           )
    from (
        select n.url_key,
               (entry ->> 0)::xid8 as xid,
               (entry ->> 1)::bigint as id,
               n.state @> pg_catalog.jsonb_build_object('listed', pg_catalog.jsonb_build_array(entry)) as is_listed
        from webhook_internal.lane_now n
        cross join pg_catalog.jsonb_array_elements(coalesce(n.state -> 'busy', '[]')) as entry
    ) b
$$;

create view webhook_internal.busy as
select b.url_key, b.xid, b.id, b.is_listed, b.is_canceled
from webhook_internal.busy_messages() b;

-- How far each lane has got: everything visible in taken_before, and with an id up to taken_up_to
-- in taken_within, was taken. A lane at the tail (not own) has got as far as the tail. What is
-- visible in canceled_before is not sent any more.
create view webhook_internal.place as
select n.url_key,
       n.webhook_key,
       n.pending,
       l.own,
       case when l.own then (n.state ->> 'from')::pg_snapshot else t.tail_from end as taken_before,
       case when l.own then (n.state ->> 'to')::pg_snapshot else t.tail_to end as taken_within,
       case when l.own then (n.state ->> 'id')::bigint else t.tail_id end as taken_up_to,
       k.before as canceled_before
from webhook_internal.lane_now n
cross join webhook_internal.tail t
cross join lateral (select coalesce((n.state -> 'own')::boolean, false)) as l (own)
left join lateral (
    select c.before
    from webhook_internal.cancellation c
    where c.url_key = n.url_key
    -- The one that sees most: a transaction may cancel with an older snapshot than others before it.
    order by pg_snapshot_xmax(c.before) desc, pg_snapshot_xmin(c.before) desc, length(c.before::text)
    limit 1
) k on true;

set local search_path = webhook, pg_temp;
