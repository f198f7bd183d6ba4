-- The state of everything as numbers, for a monitoring system that reads a query.

set local search_path = pg_catalog, pg_temp;

create view webhook.metrics as
select counted.name,
       jsonb_build_object('webhook_id', w.id, 'webhook', w.name, 'event_id', e.id) as labels,
       coalesce(counted.value, 0)::double precision as value
from webhook.event_def e
join webhook.webhook_def w on w.webhook_key = e.webhook_key
left join webhook_internal.event_count k on k.event_key = e.event_key
cross join lateral (
    values
        ('webhook_messages_total', k.messages),
        ('webhook_calls_total', k.calls),
        ('webhook_call_errors_total', k.errors)
) as counted (name, value)
where e.dropped_at is null
union all
select waiting.name,
       jsonb_build_object('webhook_id', q.webhook_id, 'webhook', q.webhook_name, 'outgoing_url', q.outgoing_url),
       waiting.value::double precision
from webhook.queue q
cross join lateral (
    values
        ('webhook_pending_messages', q.pending::numeric),
        ('webhook_retrying_messages', q.retrying::numeric),
        ('webhook_failed_messages', q.failed::numeric),
        ('webhook_oldest_pending_seconds',
         coalesce(greatest(extract(epoch from clock_timestamp() - q.oldest_pending), 0), 0)),
        ('webhook_url_disabled', (q.state = 'disabled')::integer::numeric),
        ('webhook_url_backing_off', (q.state = 'backing_off')::integer::numeric),
        ('webhook_since_success_seconds', greatest(extract(epoch from clock_timestamp() - q.last_success_at), 0))
) as waiting (name, value)
-- A URL that never answered has no time since it did.
where waiting.value is not null
union all
-- A trigger of the extension whose event is not known here: its changes would be lost.
select 'webhook_unknown_triggers', '{}', count(*)::double precision
from pg_trigger t
where t.tgfoid = 'webhook.capture()'::regprocedure
  and t.tgparentid = 0
  and not exists (
          select from webhook.event_def e
          where e.id = substring(t.tgname::text from '^webhook_(?:insert_|update_|delete_)?([a-z0-9]{6})(?:_[0-9]+)?$')
      )
union all
-- What decides whether an enabled event makes messages is the same for all events of a group, of which
-- there are few, whatever is defined.
select 'webhook_event_disabled',
       jsonb_build_object('webhook_id', w.id, 'webhook', w.name, 'event_id', e.id),
       coalesce(s.is_stopped, false)::integer::double precision
from webhook.event_def e
join webhook.webhook_def w on w.webhook_key = e.webhook_key
left join (
    select k.event_key, n.is_stopped
    from (
        select min(d.event_key) as first, array_agg(d.event_key) as event_keys
        from webhook.event_def d
        join webhook.webhook_def h on h.webhook_key = d.webhook_key
        where d.dropped_at is null
          and d.enabled
          and h.enabled
        group by d.object_name, d.object_oid, d.event_type, d.owner_oid, d.owner_name,
                 d.object_fields, d.object_attnums, d.payload_fields, d.payload_attnums,
                 d.template_fields, d.template_attnums, d.match_fields, d.match_attnums, d.match_kinds,
                 d.order_key, d.order_key_attnums, h.delivery_order,
                 case when d.condition is not null then d.event_key end
    ) g
    cross join lateral (
        select not v.active as is_stopped
        from webhook_internal.event_now v
        where v.event_key = g.first
        offset 0
    ) n
    cross join lateral unnest(g.event_keys) as k (event_key)
    where n.is_stopped
) s on s.event_key = e.event_key
where e.dropped_at is null
union all
select 'webhook_worker_up', '{}', (w.pid is not null)::integer::double precision
from webhook.worker w
union all
select total.name, '{}', total.value
from webhook_internal.worker_total t
cross join lateral (
    values
        ('webhook_worker_starts_total', t.starts::double precision),
        ('webhook_worker_blocked_seconds_total', t.blocked_seconds)
) as total (name, value)
union all
select 'webhook_delivery_enabled', '{}', current_setting('webhook.delivery', true)::boolean::integer::double precision
union all
-- URLs that were dropped count, too: what is counted only grows.
select counted.name,
       counted.labels || jsonb_build_object('webhook_id', w.id, 'webhook', w.name),
       counted.value
from (
    select u.webhook_key, sum(d.calls) as calls, sum(d.seconds) as seconds
    from webhook_internal.call_duration d
    join webhook.url_def u on u.url_key = d.url_key
    group by u.webhook_key
) h
join webhook.webhook_def w on w.webhook_key = h.webhook_key
cross join lateral (
    select 'webhook_call_duration_seconds_count' as name, '{}'::jsonb as labels, h.calls::double precision as value
    union all
    select 'webhook_call_duration_seconds_sum', '{}', h.seconds
    union all
    select 'webhook_call_duration_seconds_bucket', jsonb_build_object('le', b.le), coalesce((
        select sum(d.calls)::double precision
        from webhook.url_def u
        join webhook_internal.call_duration d on d.url_key = u.url_key
        where u.webhook_key = h.webhook_key
          and d.bound < b.place
    ), 0)
    from unnest(array[
        '0.005', '0.01', '0.025', '0.05', '0.1', '0.25', '0.5', '1.0', '2.5', '5.0', '10.0', '30.0', '60.0', '600.0', '+Inf'
    ]) with ordinality as b (le, place)
) counted
where w.dropped_at is null
union all
select stored.name, '{}', sum(pg_total_relation_size(c.oid))::double precision
from pg_class c
join pg_namespace n on n.oid = c.relnamespace and n.nspname in ('webhook', 'webhook_internal')
join (
    values
        ('webhook_outbox_bytes', '^outbox_[0-9]$'),
        ('webhook_call_log_bytes', '^call_log_[0-9]$'),
        ('webhook_activity_bytes', '^activity_[0-9]$')
) as stored (name, pattern) on c.relname ~ stored.pattern
where c.relkind = 'r'
group by stored.name;

set local search_path = webhook, pg_temp;
