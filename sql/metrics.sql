-- The state of everything as numbers, for a monitoring system that reads a query.

set local search_path = pg_catalog, pg_temp;

create view webhook.metrics as
select counted.name,
       jsonb_build_object('webhook_id', w.id, 'webhook', w.name, 'event_id', e.id) as labels,
       coalesce(counted.value, 0)::double precision as value
from webhook.event_def e
join webhook.webhook_def w on w.webhook_key = e.webhook_key
left join webhook.event_count k on k.event_key = e.event_key
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
        ('webhook_url_backing_off', (q.state = 'backing_off')::integer::numeric)
) as waiting (name, value)
union all
select 'webhook_worker_up', '{}', (w.pid is not null)::integer::double precision
from webhook.worker w
union all
select stored.name, '{}', sum(pg_total_relation_size(c.oid))::double precision
from pg_class c
join pg_namespace n on n.oid = c.relnamespace and n.nspname = 'webhook'
join (
    values ('webhook_outbox_bytes', '^outbox_[0-9]$'), ('webhook_call_log_bytes', '^call_log_[0-9]$')
) as stored (name, pattern) on c.relname ~ stored.pattern
where c.relkind = 'r'
group by stored.name;

set local search_path = webhook, pg_temp;
