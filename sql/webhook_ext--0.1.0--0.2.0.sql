-- From the schema of 0.1.0 to that of 0.2.0. A fresh installation of 0.2.0 and an upgraded one have the
-- same catalog; a test compares them.

-- What holds the worker up.
create function webhook.worker_detail()
returns text
language c
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'worker_detail_wrapper';

set local search_path = pg_catalog, pg_temp;
create or replace view webhook.worker as
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
       end as last_error,
       webhook.worker_detail() as detail
from (values (current_database()::text)) as here (database)
left join (select c.worker_stopped from webhook.control c limit 1) k on true
left join pg_extension x on x.extname = 'webhook_ext'
left join webhook.worker_process() p on true;
set local search_path = webhook, pg_temp;

revoke all on function webhook.worker_detail() from public;
grant execute on function webhook.worker_detail() to webhook_admin, webhook_reader;
comment on function webhook.worker_detail() is
    'Internal: what holds the worker up, for the view webhook.worker.';
comment on column webhook.worker.detail is
    'What holds the worker up, and how to end it: a lock and the process that holds it, a copy of another '
    'database, a standby that lags, too few file descriptors. NULL if nothing does.';

-- Keys for publications of all tables, and no rows of other databases through subscriptions.
alter table webhook.secret_def add primary key (webhook_key, secret);
drop index webhook.secret_def_webhook;

create function webhook.refuse_replicated()
returns trigger
language c
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'refuse_replicated_wrapper';

revoke all on function webhook.refuse_replicated() from public;
comment on function webhook.refuse_replicated() is
    'Internal: the trigger that refuses rows of a subscription in tables of the extension.';

do $$
declare
    name text;
begin
    for name in
        select c.relname
        from pg_catalog.pg_class c
        where c.relnamespace operator(pg_catalog.=) 'webhook'::pg_catalog.regnamespace
          and c.relkind operator(pg_catalog.=) 'r'
        order by c.relname
    loop
        execute pg_catalog.format(
            'create trigger refuse_replicated before insert or truncate on webhook.%I'
            ' for each statement execute function webhook.refuse_replicated()', name);
        execute pg_catalog.format(
            'create trigger refuse_replicated_rows after insert or update or delete on webhook.%I'
            ' for each row execute function webhook.refuse_replicated()', name);
        execute pg_catalog.format('alter table webhook.%I enable replica trigger refuse_replicated', name);
        execute pg_catalog.format('alter table webhook.%I enable replica trigger refuse_replicated_rows', name);
    end loop;
end
$$;

-- A transaction that cancels what is pending keeps its own changes.
comment on function webhook.cancel_pending(text) is
    'Withdraws everything that a webhook, given by id or name, has pending and that was committed before the '
    'call, its retries included: what commits later is sent, also what the calling transaction itself changes. '
    'A call that is on the wire ends, is logged, and is not repeated. Takes the '
    'same time for one message or ten million. Returns their number, a message counted once for each URL. '
    'Errors: 22023 null, 42704 unknown webhook.';

-- URLs that stop before a message that cannot be routed.
comment on column webhook.queue.state is
    'active; throttled: held by call_throttling; paused: by webhook.pause_webhook(); backing_off: it '
    'fails, the next call is a probe (with delivery_order fifo: the retry that holds the others); blocked: a message cannot be routed, last_error says why; disabled: switched off, webhook.resume_webhook() opens it again.';

-- Comments without characters that a database's encoding may not have.
comment on function webhook.rest(text, text, jsonb) is
    'The REST API for webhooks and events: status and body of the answer to a request, for a gateway that '
    'calls it. /v3/outgoingWebhooks, .../{webhookId}, .../{webhookId}/events and .../events/{eventId}; /v2 is an '
    'alias. GET, POST on lists; GET, PUT (what is left out stays), DELETE on one. Answers 200, 201, 204; 400 '
    'with {"Message": ...} on bad input or an unknown property, and nothing has changed; 404; 405. ObjectName '
    'is spelled as in payloads. Runs with the rights of the caller. Errors: 55P03 the table is in use.';
comment on column webhook.calls.attempt is
    '1 for the first call of the message to this URL, then 2, 3, ...';

-- Capture writes the outbox as heap tables. 0.1.0 took default_table_access_method.
do $$
declare
    outbox pg_catalog.regclass;
begin
    for outbox in
        select c.oid
        from pg_catalog.pg_class c
        join pg_catalog.pg_am a on a.oid operator(pg_catalog.=) c.relam
        where c.relnamespace operator(pg_catalog.=) 'webhook'::pg_catalog.regnamespace
          and c.relname operator(pg_catalog.~) '^outbox_[0-3]$'
          and c.relkind operator(pg_catalog.=) 'r'
          and a.amname operator(pg_catalog.<>) 'heap'
    loop
        execute pg_catalog.format('alter table %s set access method heap', outbox);
    end loop;
end
$$;
