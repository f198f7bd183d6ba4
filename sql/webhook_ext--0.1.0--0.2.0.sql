-- From the schema of 0.1.0 to that of 0.2.0. A fresh installation of 0.2.0 and an upgraded one have the
-- same catalog; tests/it/upgrade.rs compares them and prints what differs:
--   PG_CONFIG=$(scripts/private-server test) cargo test --features tools --test it -- upgrade::
-- The tables webhook.outbox_N keep their columns: sessions with the library of 0.1.0 go on writing.

-- Sessions that write take locks on these tables in any order: all at once, or none and again. Only
-- the outbox is waited for, while nothing else is held: it is never free where many write.
do $$
begin
    for attempt in 1 .. 3000 loop
        begin
            lock table webhook.outbox_0, webhook.outbox_1, webhook.outbox_2, webhook.outbox_3
                in share row exclusive mode;
            lock table webhook.webhook_def, webhook.secret_def, webhook.url_def, webhook.event_def,
                       webhook.control, webhook.segment, webhook.retry, webhook.cancellation,
                       webhook.ledger, webhook.fold, webhook.lane, webhook.counter, webhook.tick
                in access exclusive mode nowait;
            return;
        exception when lock_not_available or deadlock_detected then
            perform pg_catalog.pg_sleep(0.01);
        end;
    end loop;
    raise exception using
        errcode = 'lock_not_available',
        message = 'the tables of webhook_ext are in use',
        hint = 'end the transactions that read or change them, then run ALTER EXTENSION webhook_ext UPDATE again';
end
$$;

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

-- Whether this database is a copy of another one.
create table webhook.def_origin (
    system_identifier bigint not null,
    database_oid      oid not null,
    identity          text not null,
    primary key (system_identifier, database_oid, identity)
);
alter table webhook.control
    add column state_system   bigint,
    add column state_database oid,
    add column state_identity text,
    add column state_server   integer;

insert into webhook.def_origin (system_identifier, database_oid, identity)
select s.system_identifier, d.oid, coalesce(pg_catalog.current_setting('webhook.identity', true), '')
from pg_catalog.pg_control_system() s
cross join pg_catalog.pg_database d
where d.datname operator(pg_catalog.=) pg_catalog.current_database()
  and exists (select from webhook.webhook_def w where w.dropped_at is null);
update webhook.control
set state_system = s.system_identifier,
    state_database = d.oid,
    state_identity = coalesce(pg_catalog.current_setting('webhook.identity', true), ''),
    state_server = pg_catalog.current_setting('server_version_num')::integer operator(pg_catalog./) 10000
from pg_catalog.pg_control_system() s
cross join pg_catalog.pg_database d
where d.datname operator(pg_catalog.=) pg_catalog.current_database();

create trigger definitions_changed
    after insert or update or delete or truncate on webhook.def_origin
    for each statement execute function webhook.definitions_changed();
alter table webhook.def_origin enable always trigger definitions_changed;
select pg_catalog.pg_extension_config_dump(
    'webhook.def_origin',
    'where exists (select from webhook.webhook_def where dropped_at is null)'
);

create function webhook.adopt(pending text default 'keep')
returns void
language c
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'adopt_wrapper';
revoke all on table webhook.def_origin from public;
revoke all on function webhook.adopt(text) from public;
grant execute on function webhook.adopt(text) to webhook_admin;
comment on function webhook.adopt(text) is
    'Makes a copy of a database (a restored dump, CREATE DATABASE ... TEMPLATE, a base backup with another '
    'webhook.identity) the one that captures and sends. Until then a copy captures and sends nothing. '
    'pending: keep = what is pending here is sent; forget = it is canceled. Where the database is no copy, '
    'nothing happens. Errors: 42501 not a superuser, 22023 another value of pending, 55000 during recovery.';
comment on table webhook.def_origin is
    'Internal: system identifier, database and webhook.identity under which the definitions were made. '
    'Where they differ from those of the database, it is a copy and sends nothing.';
comment on function webhook.update_webhook(text, text, text[], text, integer, boolean, jsonb, integer, integer, interval, integer, text, text) is
    'Changes a webhook, given by id or name, and returns it; null leaves a value as it is. description: an '
    'empty text takes it away. call_throttling: 0 lifts the limit. outgoing_urls: the whole list; one that '
    'is no longer in it gets nothing more, and what waited for it is withdrawn; a new one gets what is '
    'captured from now on, also if it was there before, and what the worker has not read yet. enabled: sets '
    'the status of all its events, too. headers: all of them, {} takes them away. The others as in '
    'webhook.create_webhook(). What waits goes by the new values. Errors: 42704 unknown webhook, 22023 bad '
    'argument, 42710 name or URL taken.';
comment on function webhook.test_webhook(text) is
    'Sends a message of type webhook.test without data to each URL of a webhook, given by id or name, when '
    'the transaction commits; returns the URLs and the id of the message. It is signed, throttled, repeated, '
    'logged and counted for the webhook like any message, and waits while the webhook is paused. Errors: '
    '42704 unknown webhook, 55000 in a copy of another database.';
comment on function webhook.redeliver(uuid) is
    'Sends a message again under its old id, whatever became of it, to each URL of its webhook; a retry '
    'that waits is due at once, and where the message still waits for its first call nothing changes. '
    'Attempts and age count anew; it is sent before what waits. Returns the number of calls queued. '
    'Errors: 22023 null, 42704 no such message (or past webhook.log_retention), 55000 its webhook was dropped, '
    'or the database is a copy that was not adopted.';
comment on function webhook.redeliver_failed(text, timestamptz, timestamptz) is
    'Sends the failed messages of a webhook, given by id or name, again: those whose event_date lies from '
    'since (null = the first) up to, not including, until (null = now); one call for each URL that a message '
    'failed for. Returns the number of calls queued; says after each 100,000 how far it is. Errors: 22023 '
    'null, 42704 unknown webhook, 55000 in a copy that was not adopted.';
comment on function webhook.wait_idle(interval) is
    'Waits until no message is due or in flight: true, or false after timeout (0 or more). What is '
    'paused, switched off, backing off or waits for a later retry does not count. Starts the worker '
    'unless it was stopped. Errors: 22023 negative timeout, 55000 no worker can run here, or messages wait in '
    'a copy that was not adopted.';
comment on table webhook.control is
    'Internal: one row, whether the worker was stopped, which outbox table is written to, and where outbox '
    'and log were written.';

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

-- Last: the worker of the new library waits for this.
select webhook.extension_installed();
