-- What users see of their webhooks, events, messages and calls, and of the worker.

-- Names and operators below are PostgreSQL's own, whatever else the schema may hold.
set local search_path = pg_catalog, pg_temp;

-- Query values that look like credentials, and userinfo, as *** in all URLs of a text. Values of 20
-- characters or more that hold a digit count whatever their names are (credentials_in_url in
-- src/core/policy/redaction.rs has the same rule). A secret in the path, as in hooks of chats, cannot be told
-- from another path. Parts end at each ?, so that an answer of nothing else takes no quadratic time.
create function webhook_internal.masked_url(url text)
returns text
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select regexp_replace(
        regexp_replace(
            regexp_replace(url, '([a-z][a-z0-9+.-]*://)[^/?#[:space:]"''<>]*@', E'\\1***@', 'gi'),
            '([?&;][^?=&;#[:space:]"''<>]*(?:token|secret|sig|passw|pwd|auth|cred|session|jwt|key|code)[^?=&;#[:space:]"''<>]*=)[^&;#[:space:]"''<>]*',
            E'\\1***', 'gi'
        ),
        '([?&;](?:[^?=&;#[:space:]"''<>]*=|(?=[^?=&;#[:space:]"''<>]*(?:[?&;#[:space:]"''<>]|$))))(?=[^?&;#[:space:]"''<>]*[0-9])[^?&;#[:space:]"''<>]{20,}', E'\\1***', 'g'
    )
$$;

create view webhook.webhooks as
select w.id,
       w.name,
       case
           when (select has_function_privilege('webhook.drop_webhook(text)', 'execute')) then w.description
           else webhook_internal.masked_url(w.description)
       end as description,
       array(
           select case
                      when (select has_function_privilege('webhook.drop_webhook(text)', 'execute')) then u.url
                      else webhook_internal.masked_url(u.url)
                  end
           from webhook.url_def u
           where u.webhook_key = w.webhook_key
             and u.dropped_at is null
           order by u.position
       ) as outgoing_urls,
       w.call_throttling,
       case when not w.enabled then 'Inactive' when w.paused then 'Paused' else 'Active' end as status,
       c.events,
       coalesce(c.messages, 0) + coalesce(r.messages, 0) as messages,
       coalesce(c.calls, 0) + coalesce(r.calls, 0) as calls,
       coalesce(c.errors, 0) + coalesce(r.errors, 0) as errors,
       w.created_at,
       w.created_by,
       w.modified_at,
       w.modified_by,
       case
           when (select has_function_privilege('webhook.drop_webhook(text)', 'execute')) then w.detail
           else webhook_internal.masked_url(w.detail)
       end as detail,
       case when w.headers = '{}' then w.headers else webhook_internal.masked_headers(w.headers) end as headers,
       w.timeout_ms,
       w.max_attempts,
       w.max_age,
       w.max_in_flight,
       w.delivery_order,
       w.log_level,
       w.disable_after,
       coalesce(c.messages_30d, 0) + coalesce(r.messages, 0) as messages_30d,
       coalesce(c.calls_30d, 0) + coalesce(r.calls, 0) as calls_30d,
       coalesce(c.errors_30d, 0) + coalesce(r.errors, 0) as errors_30d
from webhook.webhook_def w
-- For the webhooks that are asked for, and not for all.
cross join lateral (
    select count(*) filter (where e.live) as events,
           sum(k.messages)::bigint as messages,
           sum(k.calls)::bigint as calls,
           sum(k.errors)::bigint as errors,
           sum(greatest(k.messages - b.messages, 0))::bigint as messages_30d,
           sum(greatest(k.calls - b.calls, 0))::bigint as calls_30d,
           sum(greatest(k.errors - b.errors, 0))::bigint as errors_30d
    from (
        select d.event_key, d.dropped_at is null
        from webhook.event_def d
        where d.webhook_key = w.webhook_key
        union all
        -- Test messages belong to no event.
        select -w.webhook_key, false
    ) e (event_key, live)
    left join webhook_internal.counter k on k.event_key = e.event_key
    left join lateral (
        select d.messages, d.calls, d.errors
        from webhook_internal.counter_day d
        where d.event_key = k.event_key
          and d.day > (now() at time zone 'UTC')::date - 30
        order by d.day
        limit 1
    ) b on true
) c
left join (
    select case when n.event_key < 0 then -n.event_key else d.webhook_key end as webhook_key,
           sum(n.messages)::bigint as messages,
           sum(n.calls)::bigint as calls,
           sum(n.errors)::bigint as errors
    from webhook_internal.recent_count n
    left join webhook.event_def d on d.event_key = n.event_key
    group by 1
) r on r.webhook_key = w.webhook_key
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
       case
           when (select has_function_privilege('webhook.drop_webhook(text)', 'execute')) then e.payload_template
           else webhook_internal.masked_url(e.payload_template)
       end as payload_template,
       case
           when (select has_function_privilege('webhook.drop_webhook(text)', 'execute')) then coalesce(e.condition_now, e.condition)
           else webhook_internal.masked_url(coalesce(e.condition_now, e.condition))
       end as condition,
       case when e.active then 'Active' else 'Inactive' end as status,
       case
           when (select has_function_privilege('webhook.drop_webhook(text)', 'execute')) then e.reason
           else webhook_internal.masked_url(e.reason)
       end as detail,
       coalesce(k.messages, 0) + coalesce(r.messages, 0) as messages,
       coalesce(k.calls, 0) + coalesce(r.calls, 0) as calls,
       coalesce(k.errors, 0) + coalesce(r.errors, 0) as errors,
       e.created_at,
       e.created_by,
       e.modified_at,
       e.modified_by,
       e.null_style,
       e.list_style,
       e.owner,
       e.match_now as match,
       e.order_key_now as order_key,
       coalesce(greatest(k.messages - b.messages, 0), 0) + coalesce(r.messages, 0) as messages_30d,
       coalesce(greatest(k.calls - b.calls, 0), 0) + coalesce(r.calls, 0) as calls_30d,
       coalesce(greatest(k.errors - b.errors, 0), 0) + coalesce(r.errors, 0) as errors_30d
from webhook_internal.event_now e
left join webhook_internal.counter k on k.event_key = e.event_key
left join lateral (
    select d.messages, d.calls, d.errors
    from webhook_internal.counter_day d
    where d.event_key = k.event_key
      and d.day > (now() at time zone 'UTC')::date - 30
    order by d.day
    limit 1
) b on true
left join webhook_internal.recent_count r on r.event_key = e.event_key
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
                          from webhook_internal.busy b
                          where not b.is_canceled
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
                                from webhook_internal.retry r
                                where r.url_key = l.url_key
                                  and r.xid = o.xid
                                  and r.id = o.id
                                  and r.state in ('canceled', 'canceling')
                            )
                      )
                      then case when w.dropped_at is null then 'pending' else 'canceled' end
                      when k.states && array['canceled', 'canceling'] then 'canceled'
                      when exists (
                          select
                          from webhook_internal.cancellation c
                          where c.webhook_key = o.webhook_key
                            and pg_visible_in_snapshot(o.xid, c.before)
                            and not (
                                pg_visible_in_snapshot(o.xid, c.taken_before)
                                or (pg_visible_in_snapshot(o.xid, c.taken_within) and o.id <= c.taken_up_to)
                            )
                            and not c.in_flight @> jsonb_build_array(jsonb_build_array(o.xid::text, o.id::text))
                      )
                      and ('delivered' = any (k.states)) is not true then 'canceled'
                      when (o.xid, o.id) in (select b.xid, b.id from webhook_internal.busy b where b.is_listed) then 'canceled'
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
           from (select array_agg(r.state) as states from webhook_internal.retry r where r.message_id = o.message_id) k
       ) as status
from webhook_internal.outbox o
left join (
    select a.webhook_key,
           array_agg(a.url_key) as url_keys,
           array_agg(a.taken_before) as taken_before,
           array_agg(a.taken_within) as taken_within,
           array_agg(a.taken_up_to) as taken_up_to,
           array_agg(a.canceled_before) as canceled_before,
           -- What is older was taken by each lane.
           (array_agg(pg_snapshot_xmin(a.taken_before) order by pg_snapshot_xmin(a.taken_before)))[1] as all_taken_before
    from webhook_internal.place a
    group by a.webhook_key
) p on p.webhook_key = o.webhook_key
left join webhook.webhook_def w on w.webhook_key = o.webhook_key
left join webhook_internal.event_label e on e.event_key = o.event_key;

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
       case
           when (select has_function_privilege('webhook.drop_webhook(text)', 'execute')) then u.url
           else webhook_internal.masked_url(u.url)
       end as outgoing_url,
       c.attempt,
       case when c.success then 'Success' else 'Failure' end as status,
       c.http_code,
       case
           when (select has_function_privilege('webhook.drop_webhook(text)', 'execute')) then c.http_response
           else webhook_internal.masked_url(c.http_response)
       end as http_response,
       case
           when (select has_function_privilege('webhook.drop_webhook(text)', 'execute')) then c.detail
           else webhook_internal.masked_url(c.detail)
       end as detail,
       c.message_size,
       c.duration_ms
from webhook_internal.call_log c
left join webhook.webhook_def w on w.id = c.webhook_id
left join webhook.url_def u on u.url_key = c.url_key
left join webhook_internal.event_label e on e.event_key = c.event_key;

create view webhook.queue as
select n.webhook_id,
       n.webhook_name,
       case
           when (select has_function_privilege('webhook.drop_webhook(text)', 'execute')) then n.url
           else webhook_internal.masked_url(n.url)
       end as outgoing_url,
       s.state,
       n.pending + r.held_back as pending,
       r.retrying,
       f.failed,
       case
           when n.pending > 0 or r.waiting > 0
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
           when s.state in ('active', 'throttled', 'failing', 'backing_off') or s.state = 'blocked' and s.is_retry_capped
           then case
                    when n.pending > 0 and not s.is_retry_capped or r.waiting > 0
                    then greatest(
                        statement_timestamp(),
                        s.silent_until,
                        case when n.pending = 0 or s.is_retry_capped then r.next_attempt_at end
                    )
                end
       end as next_attempt_at,
       case
           when (select has_function_privilege('webhook.drop_webhook(text)', 'execute')) then e.last_error
           else webhook_internal.masked_url(e.last_error)
       end as last_error,
       case
           when n.state ->> 'error' is not null
           then timestamptz '2000-01-01 00:00:00+00'
               + (n.state ->> 'since')::double precision * interval '1 microsecond'
       end as failing_since,
       timestamptz '2000-01-01 00:00:00+00' + n.last_success * interval '1 microsecond' as last_success_at,
       timestamptz '2000-01-01 00:00:00+00' + n.last_error * interval '1 microsecond' as last_error_at
from webhook_internal.lane_now n
-- Once, wherever the state is used.
cross join (select webhook_internal.delivery_hold() as hold offset 0) d
-- For the URLs that are asked for, and not for all.
cross join lateral (
    select count(*) as waiting,
           -- What waits for another message of its key, without a call of its own.
           count(*) filter (where a.next_at = 'infinity' and a.attempts = 0) as held_back,
           count(*) filter (where a.next_at is distinct from 'infinity' or a.attempts > 0) as retrying,
           nullif(min(a.next_at), 'infinity') as next_attempt_at,
           min(a.event_date) as oldest
    from webhook_internal.retry a
    where a.url_key = n.url_key
      and a.state = 'waiting'
) r
cross join lateral (
    select count(*) as failed
    from webhook_internal.retry a
    where a.url_key = n.url_key
      and a.state = 'failed'
) f
cross join lateral (
    select case
               when n.state ->> 'state' in ('backing_off', 'throttled') then (n.state ->> 'next')::timestamptz
           end as silent_until,
           coalesce((n.state -> 'retry_capped')::boolean, false) as is_retry_capped,
           coalesce((n.state -> 'probing')::boolean, false) as is_probing
) l
cross join lateral (
    select case
               when n.disabled_at is not null then 'disabled'
               when n.paused then 'paused'
               when d.hold is not null then d.hold
               when n.webhook_detail is not null or n.state ->> 'state' = 'blocked' then 'blocked'
               when n.state ->> 'state' = 'backing_off' and l.silent_until > statement_timestamp() or l.is_probing
               then 'backing_off'
               when n.state ->> 'error' is not null then 'failing'
               when n.state ->> 'state' = 'throttled' then 'throttled'
               else 'active'
           end as state,
           l.silent_until,
           l.is_retry_capped and n.webhook_detail is null as is_retry_capped
) s
cross join lateral (
    select case s.state
               when 'disabled' then n.detail
               when 'blocked' then coalesce(n.webhook_detail, n.state ->> 'blocked', n.state ->> 'error')
               else n.state ->> 'error'
           end as last_error
) e
where n.webhook_dropped_at is null;

create view webhook.worker as
select here.database,
       p.pid,
       case
           when p.pid is not null then 'running'
           when a.reason in ('stopped', 'starting') then a.reason
           else 'not running'
       end as state,
       p.started_at,
       x.extversion as version,
       case a.reason
           when 'recovery' then 'this server is in recovery: the worker starts after promotion'
           when 'no slot' then 'no background worker slot was free: raise max_worker_processes and restart the server'
           when 'absent' then 'no worker runs: call webhook.start_worker(), which says if no worker slot is free'
       end as last_error,
       case
           when (select has_function_privilege('webhook.drop_webhook(text)', 'execute')) then webhook_internal.worker_detail()
           else webhook_internal.masked_url(webhook_internal.worker_detail())
       end as detail
from (values (current_database()::text)) as here (database)
left join pg_extension x on x.extname = 'webhook_ext'
left join webhook_internal.worker_process() p on true
cross join lateral (select case when p.pid is null then webhook_internal.worker_absence() end) as a (reason);

-- Who changed what through the functions.

-- The texts in a row of webhook.changes as webhook_internal.masked_url() shows them.
create function webhook_internal.masked_values(shown jsonb)
returns jsonb
language sql
immutable
strict
parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select jsonb_object_agg(
               v.key,
               case jsonb_typeof(v.value)
                   when 'string' then to_jsonb(webhook_internal.masked_url(v.value #>> '{}'))
                   when 'array' then (
                       select coalesce(
                                  jsonb_agg(
                                      case jsonb_typeof(i.value)
                                          when 'string' then to_jsonb(webhook_internal.masked_url(i.value #>> '{}'))
                                          else i.value
                                      end
                                      order by i.place
                                  ),
                                  '[]'
                              )
                       from jsonb_array_elements(v.value) with ordinality as i (value, place)
                   )
                   else v.value
               end
           )
    from jsonb_each(case jsonb_typeof(shown) when 'object' then shown end) v
$$;

create view webhook.changes as
select c.changed_at,
       c.changed_by,
       c.action,
       c.kind,
       c.id,
       c.name,
       case
           when (select has_function_privilege('webhook.drop_webhook(text)', 'execute')) then c.old
           else webhook_internal.masked_values(c.old)
       end as old,
       case
           when (select has_function_privilege('webhook.drop_webhook(text)', 'execute')) then c.new
           else webhook_internal.masked_values(c.new)
       end as new,
       c.webhook_id
from webhook_internal.change_log c;

set local search_path = webhook, pg_temp;
