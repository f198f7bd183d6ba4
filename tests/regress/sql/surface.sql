-- What \df, \dv, \dt, \ds and \dT show of schema webhook is for users. All else is in webhook_internal, but for what a
-- session with the library of 0.1.0 names when it captures, and what a dump of 0.1.0 restores.
create extension webhook_ext;

create temporary table meant (kind text, name text, why text);
insert into meant values
    ('view', 'activity', 'users'),
    ('view', 'calls', 'users'),
    ('view', 'changes', 'users'),
    ('view', 'events', 'users'),
    ('view', 'messages', 'users'),
    ('view', 'metrics', 'users'),
    ('view', 'cluster_queue', 'users'),
    ('view', 'cluster_worker', 'users'),
    ('view', 'cluster_metrics', 'users'),
    ('view', 'queue', 'users'),
    ('view', 'webhooks', 'users'),
    ('view', 'worker', 'users'),
    ('table', 'webhook_def', 'capture of 0.1.0 reads it, and its owner; dumps'),
    ('table', 'event_def', 'capture of 0.1.0 reads it; dumps'),
    ('table', 'secret_def', 'capture of 0.1.0 listens to it; dumps'),
    ('table', 'url_def', 'capture of 0.1.0 listens to it; dumps'),
    ('table', 'control', 'capture of 0.1.0 reads it'),
    ('table', 'outbox_0', 'capture of 0.1.0 writes it'),
    ('table', 'outbox_1', 'capture of 0.1.0 writes it'),
    ('table', 'outbox_2', 'capture of 0.1.0 writes it'),
    ('table', 'outbox_3', 'capture of 0.1.0 writes it'),
    ('table', 'def_origin', 'dumps: pg_dump orders by schema and name, and it has to come before the definitions'),
    ('sequence', 'outbox_flush_seq', 'capture of 0.1.0 draws from it'),
    ('sequence', 'definition_key_seq', 'dumps'),
    ('function', 'capture', 'triggers on tables of users show it'),
    ('function', 'columns_present', 'capture of 0.1.0 calls it'),
    ('function', 'present_columns', 'capture of 0.1.0 calls it'),
    ('function', 'create_webhook', 'users'),
    ('function', 'update_webhook', 'users'),
    ('function', 'drop_webhook', 'users'),
    ('function', 'pause_webhook', 'users'),
    ('function', 'resume_webhook', 'users'),
    ('function', 'regenerate_secret', 'users'),
    ('function', 'reveal_secret', 'users'),
    ('function', 'create_event', 'users'),
    ('function', 'update_event', 'users'),
    ('function', 'drop_event', 'users'),
    ('function', 'preview_payload', 'users'),
    ('function', 'template_parameters', 'users'),
    ('function', 'explain_event', 'users'),
    ('function', 'enable_cluster', 'users'),
    ('function', 'drain_node', 'users'),
    ('function', 'message', 'users'),
    ('function', 'test_webhook', 'users'),
    ('function', 'redeliver', 'users: a message, and a span of time'),
    ('function', 'redeliver_failed', 'users'),
    ('function', 'retry_now', 'users'),
    ('function', 'cancel', 'users'),
    ('function', 'cancel_pending', 'users'),
    ('function', 'wait_idle', 'users'),
    ('function', 'start_worker', 'users'),
    ('function', 'stop_worker', 'users'),
    ('function', 'adopt', 'users'),
    ('function', 'rest', 'users'),
    ('function', 'duration_quantile', 'users'),
    ('function', 'prometheus', 'users'),
    ('function', 'version', 'users'),
    ('function', 'status_page', 'users'),
    ('function', 'grant_to', 'users'),
    ('function', 'revoke_from', 'users'),
    ('function', 'create_worker_role', 'users'),
    ('type', 'text/html', 'users: PostgREST');

create temporary view shown as
select case c.relkind when 'r' then 'table' when 'v' then 'view' when 'S' then 'sequence' else c.relkind::text end as kind,
       c.relname::text as name
from pg_class c
where c.relnamespace = 'webhook'::regnamespace
  and c.relkind not in ('i', 'c')
union
select 'function', p.proname
from pg_proc p
where p.pronamespace = 'webhook'::regnamespace
union
select 'type', t.typname
from pg_type t
where t.typnamespace = 'webhook'::regnamespace
  and t.typrelid = 0
  and t.typelem = 0;

select kind, name as not_meant from shown except select kind, name from meant order by 1, 2;
select kind, name as not_shown from meant except select kind, name from shown order by 1, 2;
-- Those that are not for users say so.
select m.kind, m.name as not_internal
from meant m
join pg_class c on c.relname = m.name and c.relnamespace = 'webhook'::regnamespace
where m.kind in ('table', 'sequence')
  and obj_description(c.oid, 'pg_class') not like 'Internal: %';

drop view shown;
drop table meant;
drop extension webhook_ext;
