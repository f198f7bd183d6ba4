-- The metrics as the text that Prometheus and its kin scrape.

set local search_path = pg_catalog, pg_temp;

-- In the format of OpenMetrics 1.0. A metric that is not listed here is shown without a help text.
create function webhook.prometheus()
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
set jit = off
as $$
    with listed (family, kind, unit, help) as (
        values
            ('webhook_messages', 'counter', null, 'Messages captured for an event.'),
            ('webhook_calls', 'counter', null, 'HTTP requests made for an event.'),
            ('webhook_call_errors', 'counter', null, 'HTTP requests of an event that failed.'),
            ('webhook_call_duration_seconds', 'histogram', 'seconds', 'How long the calls of a webhook took.'),
            ('webhook_pending_messages', 'gauge', null, 'Messages not settled for a URL, without those that wait for a retry.'),
            ('webhook_retrying_messages', 'gauge', null, 'Messages whose call failed and will be repeated.'),
            ('webhook_failed_messages', 'gauge', null, 'Messages that were given up.'),
            ('webhook_oldest_pending_seconds', 'gauge', 'seconds', 'Age of the oldest message that waits for a URL, 0 without any.'),
            ('webhook_since_success_seconds', 'gauge', 'seconds', 'Time since the last successful call of a URL.'),
            ('webhook_url_disabled', 'gauge', null, '1: the URL is switched off.'),
            ('webhook_url_backing_off', 'gauge', null, '1: the URL fails, the next call is a probe.'),
            ('webhook_event_disabled', 'gauge', null, '1: the event is enabled and makes no messages; webhook.events.detail says why.'),
            ('webhook_unknown_triggers', 'gauge', null, 'Triggers of the extension whose event is not known here: their changes make no messages.'),
            ('webhook_delivery_enabled', 'gauge', null, '1: webhook.delivery is on.'),
            ('webhook_worker_up', 'gauge', null, '1: the worker of this database runs.'),
            ('webhook_worker_starts', 'counter', null, 'Starts of the worker of this database.'),
            ('webhook_worker_blocked_seconds', 'counter', 'seconds', 'Time in which locks of other sessions held the worker up.'),
            ('webhook_outbox_bytes', 'gauge', 'bytes', 'Size of the outbox on disk.'),
            ('webhook_call_log_bytes', 'gauge', 'bytes', 'Size of the log of calls on disk.'),
            ('webhook_activity_bytes', 'gauge', 'bytes', 'Size of the figures of minutes on disk.')
    ),
    sample as (
        select m.name,
               m.labels,
               m.value,
               regexp_replace(m.name, '_(total|bucket|count|sum)$', '') as family
        from webhook.metrics m
    ),
    line as (
        select s.family,
               coalesce((s.labels - 'le')::text, '') as labelled,
               s.name,
               (s.labels ->> 'le')::double precision as le,
               concat(
                   s.name,
                   '{' || (
                       -- With a backslash, a quote and a line break escaped.
                       select string_agg(
                                  concat(
                                      l.key, '="',
                                      replace(replace(replace(l.value, E'\\', E'\\\\'), '"', E'\\"'), E'\n', E'\\n'), '"'
                                  ),
                                  ',' order by l.key
                              )
                       from jsonb_each_text(s.labels) as l (key, value)
                       where l.value is not null
                   ) || '}',
                   ' ',
                   replace(s.value::text, 'Infinity', '+Inf')
               ) as text
        from sample s
    ),
    family as (
        select concat(
                   '# TYPE ', l.family, ' ', coalesce(k.kind, case when min(l.name) ~ '_total$' then 'counter' else 'gauge' end), E'\n',
                   '# UNIT ' || l.family || ' ' || k.unit || E'\n',
                   '# HELP ' || l.family || ' ' || k.help || E'\n',
                   string_agg(l.text, E'\n' order by l.labelled collate "C", l.name collate "C", l.le), E'\n'
               ) as text,
               l.family as name
        from line l
        left join listed k on k.family = l.family
        group by l.family, k.kind, k.unit, k.help
    )
    select concat(string_agg(f.text, '' order by f.name collate "C"), E'# EOF\n')
    from family f
$$;

set local search_path = webhook, pg_temp;
