-- What users see. The first half is not for them: it adds up the worker's ledger, its last
-- fold and what the worker has not seen yet, so that every view is exact at once.

-- Names and operators below are PostgreSQL's own, whatever else the schema may hold.
set local search_path = pg_catalog, pg_temp;

-- Where the tail reader stands; one row. Everything before tail_from, and everything between
-- tail_from and tail_to with an id up to tail_id, has been counted and routed. 3 is the first
-- normal transaction id: nothing has been read yet. The limit tells the planner that it is
-- one row; upper bounds of seq and xid further down tell it that few rows lie above.
create view webhook.tail as
select coalesce(l.tail_from, f.tail_from, '3:3:'::pg_snapshot) as tail_from,
       coalesce(l.tail_to, f.tail_to, '3:3:'::pg_snapshot) as tail_to,
       coalesce(l.tail_id, f.tail_id, 0) as tail_id,
       coalesce(f.folded_seq, 0) as folded_seq
from (values (true)) as always (only_row)
left join webhook.fold f on f.only_row = always.only_row
left join lateral (
    select n.tail_from, n.tail_to, n.tail_id
    from webhook.ledger n
    where n.seq > coalesce(f.folded_seq, 0)
    order by n.seq desc
    limit 1
) l on true
limit 1;

-- What the worker has settled since the last fold.
create view webhook.unfolded as
select l.seq, l.counts, l.backlog, l.lanes
from webhook.tail t
join webhook.ledger l on l.seq > t.folded_seq and l.seq <= 9223372036854775807;

-- Messages that the tail reader has not counted yet. A function, because it may say how many
-- rows it gives: from the size of the outbox the planner would expect so many that it compiled
-- the plan of every view for seconds.
create function webhook.unseen_messages()
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
    from webhook.tail t
    cross join lateral (
        select n.xid, n.id, n.message_id, n.event_key, n.webhook_key, n.captured_at
        from webhook.outbox n
        where n.xid >= pg_catalog.pg_snapshot_xmax(t.tail_from)
          and n.xid <= '18446744073709551615'::pg_catalog.xid8
        union all
        select n.xid, n.id, n.message_id, n.event_key, n.webhook_key, n.captured_at
        from pg_catalog.pg_snapshot_xip(t.tail_from) as running (xid)
        join webhook.outbox n on n.xid = running.xid
    ) o
    where not (pg_catalog.pg_visible_in_snapshot(o.xid, t.tail_to) and o.id <= t.tail_id)
$$;

create view webhook.unseen as
select u.xid, u.id, u.message_id, u.event_key, u.webhook_key, u.captured_at
from webhook.unseen_messages() u;

-- Exact counters, one row an event.
create view webhook.event_count as
select c.event_key,
       sum(c.messages)::bigint as messages,
       sum(c.calls)::bigint as calls,
       sum(c.errors)::bigint as errors
from (
    select k.event_key, k.messages, k.calls, k.errors
    from webhook.counter k
    union all
    select (entry -> 0)::integer, (entry -> 1)::bigint, (entry -> 2)::bigint, (entry -> 3)::bigint
    from webhook.unfolded l
    cross join jsonb_array_elements(l.counts) as entry
    union all
    select u.event_key, count(*), 0, 0
    from webhook.unseen u
    group by u.event_key
) c
group by c.event_key;

-- The newest state of each lane and what waits in it, one row a URL: those in use, and those
-- that were dropped together with their webhook.
create view webhook.lane_now as
select u.url_key,
       u.webhook_key,
       u.url,
       u.disabled_at,
       u.detail,
       coalesce(mention.state, l.state, '{}') as state,
       greatest(
           coalesce(l.pending, 0) + coalesce(backlog.pending, 0) + coalesce(unseen.pending, 0)
               - coalesce(canceled.pending, 0) - coalesce(passed.pending, 0)
               - case when withdrawn.coordinates is null then 0 else (
                     -- What is on the wire is pending until it ends.
                     select count(*)
                     from jsonb_array_elements(withdrawn.coordinates) as c (at)
                     where not (
                           coalesce(mention.state, l.state, '{}') @> jsonb_build_object('busy', jsonb_build_array(c.at))
                           and not coalesce(mention.state, l.state, '{}')
                                   @> jsonb_build_object('listed', jsonb_build_array(c.at))
                     )
                 ) end,
           0
       ) as pending,
       unseen.oldest as unseen_since
from webhook.url_def u
join webhook.webhook_def w on w.webhook_key = u.webhook_key
left join webhook.lane l on l.url_key = u.url_key
left join (
    select distinct on (entry -> 'u') (entry -> 'u')::integer as url_key, entry as state
    from webhook.unfolded n
    cross join jsonb_array_elements(n.lanes) as entry
    order by entry -> 'u', n.seq desc
) mention on mention.url_key = u.url_key
left join (
    select (entry -> 0)::integer as url_key, sum((entry -> 1)::bigint)::bigint as pending
    from webhook.unfolded n
    cross join jsonb_array_elements(n.backlog) as entry
    group by 1
) backlog on backlog.url_key = u.url_key
left join (
    select n.webhook_key, count(*) as pending, min(n.captured_at) as oldest
    from webhook.unseen n
    group by n.webhook_key
) unseen on unseen.webhook_key = u.webhook_key
left join (
    -- The worker has not heard of it yet.
    select k.url_key, sum(k.counted)::bigint as pending
    from webhook.cancellation k
    where k.taken_before is null
    group by k.url_key
) canceled on canceled.url_key = u.url_key
left join (
    -- The worker has heard of it, but the tail has not come to them yet.
    select h.url_key, count(*) as pending
    from (
        select distinct on (k.url_key) k.url_key, k.webhook_key, k.before
        from webhook.cancellation k
        where k.taken_before is not null
        order by k.url_key, pg_snapshot_xmax(k.before) desc, pg_snapshot_xmin(k.before) desc, length(k.before::text)
    ) h
    join webhook.unseen n on n.webhook_key = h.webhook_key and pg_visible_in_snapshot(n.xid, h.before)
    group by h.url_key
) passed on passed.url_key = u.url_key
left join (
    -- One by one; the lane has not come to them yet.
    select r.url_key, jsonb_agg(jsonb_build_array(r.xid::text, r.id::text)) as coordinates
    from webhook.retry r
    where r.state = 'withdrawn'
    group by r.url_key
) withdrawn on withdrawn.url_key = u.url_key
where u.dropped_at is null
   or u.dropped_at >= w.dropped_at;

-- Taken by a lane and not settled. What is listed still waits for its call, unless it was
-- withdrawn. A function for the same reason as webhook.unseen_messages().
create function webhook.busy_messages()
returns table (
    url_key      integer,
    xid          xid8,
    id           bigint,
    is_listed    boolean,
    is_withdrawn boolean
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
                   from webhook.retry r
                   where r.url_key = b.url_key
                     and r.xid = b.xid
                     and r.id = b.id
                     and r.state in ('canceled', 'withdrawn')
               )
               or exists (
                   select
                   from webhook.cancellation k
                   where k.url_key = b.url_key
                     and pg_catalog.pg_visible_in_snapshot(b.xid, k.before)
               )
           )
    from (
        select n.url_key,
               (entry ->> 0)::xid8 as xid,
               (entry ->> 1)::bigint as id,
               n.state @> pg_catalog.jsonb_build_object('listed', pg_catalog.jsonb_build_array(entry)) as is_listed
        from webhook.lane_now n
        cross join pg_catalog.jsonb_array_elements(coalesce(n.state -> 'busy', '[]')) as entry
    ) b
$$;

create view webhook.busy as
select b.url_key, b.xid, b.id, b.is_listed, b.is_withdrawn
from webhook.busy_messages() b;

-- How far each lane has got: everything visible in taken_before, and with an id up to taken_up_to
-- in taken_within, was taken. A lane at the tail (not own) has got as far as the tail. What is
-- visible in canceled_before is not sent any more.
create view webhook.place as
select n.url_key,
       n.webhook_key,
       n.pending,
       l.own,
       case when l.own then (n.state ->> 'from')::pg_snapshot else t.tail_from end as taken_before,
       case when l.own then (n.state ->> 'to')::pg_snapshot else t.tail_to end as taken_within,
       case when l.own then (n.state ->> 'id')::bigint else t.tail_id end as taken_up_to,
       k.before as canceled_before
from webhook.lane_now n
cross join webhook.tail t
cross join lateral (select coalesce((n.state -> 'own')::boolean, false)) as l (own)
left join lateral (
    select c.before
    from webhook.cancellation c
    where c.url_key = n.url_key
    -- The one that sees most: a transaction may cancel with an older snapshot than others before it.
    order by pg_snapshot_xmax(c.before) desc, pg_snapshot_xmin(c.before) desc, length(c.before::text)
    limit 1
) k on true;

create view webhook.call_log as
    select * from webhook.call_log_0
    union all select * from webhook.call_log_1
    union all select * from webhook.call_log_2
    union all select * from webhook.call_log_3;

-- What to call an event and its table now.
create view webhook.event_label as
select e.event_key,
       e.id,
       e.event_type,
       coalesce(
           case when n.nspname = 'public' then c.relname else n.nspname || '.' || c.relname end,
           e.object_label
       ) as object_text
from webhook.event_def e
left join pg_class c on c.oid = e.object_name
left join pg_namespace n on n.oid = c.relnamespace;

-- Each event with the name its table has now and the reason why it makes no messages.
-- Column numbers count while the table is the one they were recorded for, else the names.
create view webhook.event_now as
select e.*,
       w.id as webhook_id,
       w.name as webhook_name,
       b.object_text,
       fields.missing as missing_columns,
       coalesce(fields.object_names, e.object_fields) as object_fields_now,
       coalesce(fields.payload_names, e.payload_fields) as payload_fields_now,
       case
           when c.oid is null then 'its table was dropped'
           when fields.missing is not null then 'column was dropped: ' || fields.missing
           when t.oid is null then 'its trigger was dropped'
           when t.tgenabled = 'D' then 'its trigger is disabled'
           when not e.enabled then 'it is not enabled'
           when not w.enabled then 'its webhook is not enabled'
           else coalesce(e.detail, w.detail)
       end as reason,
       c.oid is not null and fields.missing is null and t.oid is not null and t.tgenabled <> 'D'
           and w.enabled and e.enabled as active
from webhook.event_def e
join webhook.event_label b on b.event_key = e.event_key
join webhook.webhook_def w on w.webhook_key = e.webhook_key
left join pg_class c on c.oid = e.object_name
left join pg_trigger t on t.tgrelid = e.object_name and t.tgname = 'webhook_' || e.id
left join lateral (
    select string_agg(distinct f.name, ', ' order by f.name) filter (where a.attname is null) as missing,
           array_agg(coalesce(a.attname::text, f.name) order by f.place) filter (where f.kind = 'object') as object_names,
           array_agg(coalesce(a.attname::text, f.name) order by f.place) filter (where f.kind = 'payload') as payload_names
    from (
        select 'object', o.name, o.number, o.place
        from unnest(e.object_fields, e.object_attnums) with ordinality as o (name, number, place)
        union all
        select 'payload', p.name, p.number, p.place
        from unnest(e.payload_fields, e.payload_attnums) with ordinality as p (name, number, place)
        union all
        select 'template', m.name, m.number, m.place
        from unnest(e.template_fields, e.template_attnums) with ordinality as m (name, number, place)
    ) f (kind, name, number, place)
    left join pg_attribute a
      on a.attrelid = e.object_name
     and a.attnum > 0
     and not a.attisdropped
     and case when e.object_oid = e.object_name::oid then a.attnum = f.number else a.attname = f.name end
) fields on true;

-- For users

create view webhook.webhooks as
select w.id,
       w.name,
       w.description,
       array(
           select u.url
           from webhook.url_def u
           where u.webhook_key = w.webhook_key
             and u.dropped_at is null
           order by u.position
       ) as outgoing_urls,
       w.call_throttling,
       case when not w.enabled then 'Inactive' when w.paused then 'Paused' else 'Active' end as status,
       coalesce(c.events, 0) as events,
       coalesce(c.messages, 0) as messages,
       coalesce(c.calls, 0) as calls,
       coalesce(c.errors, 0) as errors,
       w.created_at,
       w.created_by,
       w.modified_at,
       w.modified_by,
       w.detail
from webhook.webhook_def w
left join (
    select e.webhook_key,
           count(*) filter (where e.live) as events,
           sum(k.messages)::bigint as messages,
           sum(k.calls)::bigint as calls,
           sum(k.errors)::bigint as errors
    from (
        select d.webhook_key, d.event_key, d.dropped_at is null
        from webhook.event_def d
        union all
        -- Test messages belong to no event.
        select t.webhook_key, -t.webhook_key, false
        from webhook.webhook_def t
    ) e (webhook_key, event_key, live)
    left join webhook.event_count k on k.event_key = e.event_key
    group by e.webhook_key
) c on c.webhook_key = w.webhook_key
where w.dropped_at is null;

create view webhook.events as
select e.id,
       e.webhook_id,
       e.webhook_name,
       e.event_type,
       e.object_text as object_name,
       e.object_fields_now as object_fields,
       e.event_sources,
       e.payload_fields_now as payload_fields,
       e.payload_template,
       e.condition,
       case when e.active then 'Active' else 'Inactive' end as status,
       e.reason as detail,
       coalesce(k.messages, 0) as messages,
       coalesce(k.calls, 0) as calls,
       coalesce(k.errors, 0) as errors,
       e.created_at,
       e.created_by,
       e.modified_at,
       e.modified_by,
       e.null_style,
       e.list_style
from webhook.event_now e
left join webhook.event_count k on k.event_key = e.event_key
where e.dropped_at is null;

-- What a dropped webhook still had pending will not be sent: canceled. The lanes' places are
-- looked up once a query; each message is then held against those of its webhook.
create view webhook.messages as
select o.message_id,
       e.id as event_id,
       w.id as webhook_id,
       case when o.event_key < 0 then 'webhook.test' else e.event_type end as event_type,
       e.object_text as object_name,
       o.captured_at as event_date,
       o.source,
       (
           -- One look at the retries, and only if it must be at the places: asked for one by one,
           -- or in a hash table of all retries, they would take most of the time.
           select case
                      when 'failed' = any (k.states) then 'failed'
                      when 'waiting' = any (k.states)
                      or (o.xid, o.id) in (
                          select b.xid, b.id
                          from webhook.busy b
                          where not b.is_withdrawn
                      )
                      or o.xid >= p.all_taken_before
                      and exists (
                          select
                          from unnest(p.url_keys, p.taken_before, p.taken_within, p.taken_up_to, p.canceled_before)
                              as l (url_key, taken_before, taken_within, taken_up_to, canceled_before)
                          where not (
                                pg_visible_in_snapshot(o.xid, l.taken_before)
                                or (pg_visible_in_snapshot(o.xid, l.taken_within) and o.id <= l.taken_up_to)
                            )
                            and (l.canceled_before is null or not pg_visible_in_snapshot(o.xid, l.canceled_before))
                            and not exists (
                                select
                                from webhook.retry r
                                where r.url_key = l.url_key
                                  and r.xid = o.xid
                                  and r.id = o.id
                                  and r.state in ('canceled', 'withdrawn')
                            )
                      )
                      then case when w.dropped_at is null then 'pending' else 'canceled' end
                      when k.states && array['canceled', 'withdrawn'] then 'canceled'
                      when exists (
                          select
                          from webhook.cancellation c
                          where c.webhook_key = o.webhook_key
                            and pg_visible_in_snapshot(o.xid, c.before)
                            and not (
                                pg_visible_in_snapshot(o.xid, c.taken_before)
                                or (pg_visible_in_snapshot(o.xid, c.taken_within) and o.id <= c.taken_up_to)
                            )
                            and not c.in_flight @> jsonb_build_array(jsonb_build_array(o.xid::text, o.id::text))
                      )
                      and ('delivered' = any (k.states)) is not true then 'canceled'
                      when (o.xid, o.id) in (select b.xid, b.id from webhook.busy b where b.is_listed) then 'canceled'
                      when o.xid >= p.all_taken_before
                      and exists (
                          -- A cancellation that the worker has not heard of yet.
                          select
                          from unnest(p.taken_before, p.taken_within, p.taken_up_to, p.canceled_before)
                              as l (taken_before, taken_within, taken_up_to, canceled_before)
                          where pg_visible_in_snapshot(o.xid, l.canceled_before)
                            and not (
                                pg_visible_in_snapshot(o.xid, l.taken_before)
                                or (pg_visible_in_snapshot(o.xid, l.taken_within) and o.id <= l.taken_up_to)
                            )
                      ) then 'canceled'
                      else 'delivered'
                  end
           from (select array_agg(r.state) as states from webhook.retry r where r.message_id = o.message_id) k
       ) as status
from webhook.outbox o
left join (
    select a.webhook_key,
           array_agg(a.url_key) as url_keys,
           array_agg(a.taken_before) as taken_before,
           array_agg(a.taken_within) as taken_within,
           array_agg(a.taken_up_to) as taken_up_to,
           array_agg(a.canceled_before) as canceled_before,
           -- What is older was taken by each lane.
           (array_agg(pg_snapshot_xmin(a.taken_before) order by pg_snapshot_xmin(a.taken_before)))[1] as all_taken_before
    from webhook.place a
    group by a.webhook_key
) p on p.webhook_key = o.webhook_key
left join webhook.webhook_def w on w.webhook_key = o.webhook_key
left join webhook.event_label e on e.event_key = o.event_key;

-- The expressions of webhook_id and status are those of the indexes of the log.
create view webhook.calls as
select c.call_id,
       c.called_at,
       c.message_id,
       c.webhook_id,
       w.name as webhook_name,
       e.id as event_id,
       case when c.event_key < 0 then 'webhook.test' else e.event_type end as event_type,
       e.object_text as object_name,
       c.event_date,
       u.url as outgoing_url,
       c.attempt,
       case when c.success then 'Success' else 'Failure' end as status,
       c.http_code,
       c.http_response,
       c.detail,
       c.message_size,
       c.duration_ms
from webhook.call_log c
left join webhook.webhook_def w on w.id = c.webhook_id
left join webhook.url_def u on u.url_key = c.url_key
left join webhook.event_label e on e.event_key = c.event_key;

create view webhook.queue as
select w.id as webhook_id,
       w.name as webhook_name,
       n.url as outgoing_url,
       case
           when n.disabled_at is not null then 'disabled'
           when w.paused then 'paused'
           else coalesce(n.state ->> 'state', 'active')
       end as state,
       n.pending,
       coalesce(r.retrying, 0) as retrying,
       coalesce(f.failed, 0) as failed,
       case
           when n.pending > 0 or r.retrying > 0
           then least(
               case
                   when n.pending > 0
                   then timestamptz '2000-01-01 00:00:00+00'
                       + (n.state ->> 'oldest')::double precision * interval '1 microsecond'
               end,
               n.unseen_since,
               r.oldest
           )
       end as oldest_pending,
       case
           when n.state ->> 'state' = 'backing_off' then (n.state ->> 'next')::timestamptz
           else r.next_attempt_at
       end as next_attempt_at,
       coalesce(case when n.disabled_at is not null then n.detail end, n.state ->> 'error', r.last_error) as last_error
from webhook.lane_now n
join webhook.webhook_def w on w.webhook_key = n.webhook_key and w.dropped_at is null
left join (
    select a.url_key,
           count(*) as retrying,
           min(a.next_at) as next_attempt_at,
           min(a.event_date) as oldest,
           (array_agg(a.last_error order by a.changed_at desc))[1] as last_error
    from webhook.retry a
    where a.state = 'waiting'
    group by a.url_key
) r on r.url_key = n.url_key
left join (
    select a.url_key, count(*) as failed
    from webhook.retry a
    where a.state = 'failed'
    group by a.url_key
) f on f.url_key = n.url_key;

create view webhook.worker as
select here.database,
       p.pid,
       case when p.pid is not null then 'running' when k.worker_stopped then 'stopped' else 'not running' end as state,
       p.started_at,
       x.extversion as version,
       case
           when p.pid is null and k.worker_stopped is not true and pg_is_in_recovery()
           then 'this server is in recovery: the worker starts after promotion'
           when p.pid is null and k.worker_stopped is not true
           then 'no worker runs: call webhook.start_worker(), and raise max_worker_processes if it finds no free slot'
       end as last_error
from (values (current_database()::text)) as here (database)
left join (select c.worker_stopped from webhook.control c limit 1) k on true
left join pg_extension x on x.extname = 'webhook_ext'
left join webhook.worker_process() p on true;

set local search_path = webhook, pg_temp;
