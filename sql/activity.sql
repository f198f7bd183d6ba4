-- What happened in each minute, kept for thirty days.

-- Names and operators below are PostgreSQL's own, whatever else the schema may hold.
set local search_path = pg_catalog, pg_temp;

-- A ring of tables as the call log: one is written for ten days at most, and what is past thirty days is
-- emptied as a whole. One row for what a run of counting saw of a URL in a minute: a worker begins a run when it
-- starts and when it writes another table, and writes its row again until the minute is over.
-- durations: see src/core/values/durations.rs.
create table webhook_internal.activity_0 (
    minute           timestamptz not null,
    url_key          integer not null,
    run              bigint not null,
    messages         bigint not null,
    calls            bigint not null,
    connect_failures bigint not null,
    tls_failures     bigint not null,
    timeouts         bigint not null,
    http_4xx         bigint not null,
    http_5xx         bigint not null,
    other_failures   bigint not null,
    durations        text not null,
    max_ms           double precision not null,
    pending          bigint not null,
    -- a table in a publication needs a key
    primary key (url_key, minute, run)
);
create table webhook_internal.activity_1 (like webhook_internal.activity_0 including all);
create table webhook_internal.activity_2 (like webhook_internal.activity_0 including all);
create table webhook_internal.activity_3 (like webhook_internal.activity_0 including all);
create index activity_0_minute on webhook_internal.activity_0 (minute);
create index activity_1_minute on webhook_internal.activity_1 (minute);
create index activity_2_minute on webhook_internal.activity_2 (minute);
create index activity_3_minute on webhook_internal.activity_3 (minute);

-- How long the calls of a URL took, since the URL was made. bound: a place in the list that
-- webhook.metrics has, from 0 on; the row after the last is for what took longer. seconds: a part of the sum
-- of all durations.
create table webhook_internal.call_duration (
    url_key integer not null,
    bound   integer not null,
    calls   bigint not null,
    seconds double precision not null,
    primary key (url_key, bound)
);

-- One row: how often the worker has started, and for how long locks of other sessions held it up.
create table webhook_internal.worker_total (
    only_row        boolean primary key default true check (only_row),
    starts          bigint not null,
    blocked_seconds double precision not null
);
insert into webhook_internal.worker_total values (true, 0, 0);

-- In milliseconds: what a part of the calls did not exceed, 6 % at most off; null without calls.
create function webhook.duration_quantile(durations text, part double precision, max_ms double precision)
returns double precision
language c
immutable
strict
parallel safe
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'duration_quantile_wrapper';

create view webhook_internal.activity_row as
    select * from webhook_internal.activity_0
    union all select * from webhook_internal.activity_1
    union all select * from webhook_internal.activity_2
    union all select * from webhook_internal.activity_3;

-- Grouped after the joins, so that a webhook, an hour or both are found by an index.
create view webhook.activity as
select a.minute,
       w.id as webhook_id,
       case
           when (select has_function_privilege('webhook.drop_webhook(text)', 'execute')) then u.url
           else webhook_internal.masked_url(u.url)
       end as outgoing_url,
       sum(a.messages)::bigint as messages,
       sum(a.calls)::bigint as calls,
       sum(
           a.connect_failures + a.tls_failures + a.timeouts + a.http_4xx + a.http_5xx + a.other_failures
       )::bigint as failures,
       webhook.duration_quantile(string_agg(a.durations, ' '), 0.5, max(a.max_ms)) as p50_ms,
       webhook.duration_quantile(string_agg(a.durations, ' '), 0.95, max(a.max_ms)) as p95_ms,
       case when sum(a.calls) > 0 then max(a.max_ms) end as max_ms,
       (array_agg(a.pending order by a.run desc))[1] as pending,
       w.name as webhook_name,
       sum(a.connect_failures)::bigint as connect_failures,
       sum(a.tls_failures)::bigint as tls_failures,
       sum(a.timeouts)::bigint as timeouts,
       sum(a.http_4xx)::bigint as http_4xx,
       sum(a.http_5xx)::bigint as http_5xx,
       sum(a.other_failures)::bigint as other_failures,
       string_agg(a.durations, ' ') as durations
from webhook_internal.activity_row a
join webhook.url_def u on u.url_key = a.url_key
join webhook.webhook_def w on w.webhook_key = u.webhook_key
group by a.minute, u.url_key, w.webhook_key;

set local search_path = webhook, pg_temp;
