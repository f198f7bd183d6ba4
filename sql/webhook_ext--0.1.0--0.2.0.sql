-- From the schema of 0.1.0 to that of 0.2.0. A fresh installation of 0.2.0 and an upgraded one have the
-- same catalog; tests/it/upgrade.rs compares them and prints what differs:
--   PG_CONFIG=$(scripts/private-server test) cargo test --features tools --test it -- upgrade::
-- The tables webhook.outbox_N keep their columns: sessions with the library of 0.1.0 go on writing.
-- The section that revokes everything is for this upgrade alone: 0.1.0 had left the default privileges of
-- its installer in force. A later script revokes and grants on the objects that it creates. Repeated, the
-- section would take away what webhook.grant_to() has given.

-- Sessions of superusers use what they find in the schema: it belongs to the extension's owner.
do $$
declare
    owner pg_catalog.name;
begin
    select r.rolname
    into owner
    from pg_catalog.pg_namespace n
    join pg_catalog.pg_roles r on r.oid operator(pg_catalog.=) n.nspowner
    join pg_catalog.pg_extension e on e.extnamespace operator(pg_catalog.=) n.oid
    where e.extname operator(pg_catalog.=) 'webhook_ext'
      and not r.rolsuper
      and r.oid operator(pg_catalog.<>) e.extowner;
    if owner is not null then
        raise exception using
            errcode = 'insufficient_privilege',
            message = pg_catalog.format('schema webhook belongs to role "%s"', owner),
            hint = 'look for what that role changed in it, then ALTER SCHEMA webhook OWNER TO the owner of the extension';
    end if;
end
$$;

-- Sessions that write take locks on these tables in any order: all at once, or none and again. Only
-- the outbox is waited for, while nothing else is held: it is never free where many write. Writers wait behind
-- that lock, so it is given up soon, and they go on between two attempts. Views come next: what changes below
-- would wait for a session that holds a view and waits for a table. A statement locks a view before those that it
-- reads, so these come later; for transactions that read several, an attempt begins with what was in the way of
-- the one before.
do $$
declare
    give_up_at  constant timestamptz := pg_catalog.clock_timestamp()
        operator(pg_catalog.+) '30 s'::pg_catalog.interval;
    own_timeout constant text := pg_catalog.current_setting('lock_timeout');
    of_extension pg_catalog.regclass;
    in_the_way   pg_catalog.oid[] := '{}';
begin
    loop
        of_extension := null;
        begin
            perform pg_catalog.set_config('lock_timeout', '500ms', true);
            lock table webhook.outbox_0, webhook.outbox_1, webhook.outbox_2, webhook.outbox_3
                in share row exclusive mode;
            perform pg_catalog.set_config('lock_timeout', '200ms', true);
            for of_extension in
                select c.oid
                from pg_catalog.pg_class c
                where c.relnamespace operator(pg_catalog.=) 'webhook'::pg_catalog.regnamespace
                  and c.relkind operator(pg_catalog.=) 'v'
                order by pg_catalog.array_position(in_the_way, c.oid), c.oid desc
            loop
                -- Changes nothing. LOCK TABLE would lock what the view reads, catalogs included.
                execute pg_catalog.format('alter view %s reset (security_barrier)', of_extension);
            end loop;
            of_extension := null;
            lock table webhook.webhook_def, webhook.secret_def, webhook.url_def, webhook.event_def,
                       webhook.control, webhook.segment, webhook.retry, webhook.cancellation,
                       webhook.ledger, webhook.fold, webhook.lane, webhook.counter, webhook.tick,
                       webhook.call_log_0, webhook.call_log_1, webhook.call_log_2, webhook.call_log_3
                in access exclusive mode nowait;
            perform pg_catalog.set_config('lock_timeout', own_timeout, true);
            return;
        exception when lock_not_available or deadlock_detected then
            if pg_catalog.clock_timestamp() operator(pg_catalog.>) give_up_at then
                raise exception using
                    errcode = 'lock_not_available',
                    message = 'the tables of webhook_ext are in use',
                    hint = 'end the transactions that read or change them (pg_locks, pg_prepared_xacts), '
                        'then run ALTER EXTENSION webhook_ext UPDATE again';
            end if;
            if of_extension is not null then
                in_the_way := pg_catalog.array_prepend(
                    of_extension::pg_catalog.oid, pg_catalog.array_remove(in_the_way, of_extension::pg_catalog.oid)
                );
            end if;
            perform pg_catalog.pg_sleep(0.02);
        end;
    end loop;
end
$$;

-- What is not for users moves to a schema of its own. What is internal and stays in schema webhook is what the library
-- of 0.1.0 names when it captures, and what its dumps hold.
do $$
declare
    owner pg_catalog.name;
begin
    select r.rolname
    into owner
    from pg_catalog.pg_namespace n
    join pg_catalog.pg_roles r on r.oid operator(pg_catalog.=) n.nspowner
    where n.nspname operator(pg_catalog.=) 'webhook_internal';
    if owner is not null then
        raise exception using
            errcode = 'insufficient_privilege',
            message = pg_catalog.format('schema webhook_internal belongs to role "%s"', owner),
            hint = 'drop or rename it, then run ALTER EXTENSION webhook_ext UPDATE again: it makes the schema itself';
    end if;
end
$$;
create schema webhook_internal;
alter table webhook.segment set schema webhook_internal;
alter table webhook.tick set schema webhook_internal;
alter table webhook.retry set schema webhook_internal;
alter table webhook.cancellation set schema webhook_internal;
alter table webhook.ledger set schema webhook_internal;
alter table webhook.fold set schema webhook_internal;
alter table webhook.counter set schema webhook_internal;
alter table webhook.lane set schema webhook_internal;
alter table webhook.call_log_0 set schema webhook_internal;
alter table webhook.call_log_1 set schema webhook_internal;
alter table webhook.call_log_2 set schema webhook_internal;
alter table webhook.call_log_3 set schema webhook_internal;
alter view webhook.outbox set schema webhook_internal;
alter view webhook.call_log set schema webhook_internal;
alter view webhook.tail set schema webhook_internal;
alter view webhook.unfolded set schema webhook_internal;
alter view webhook.unseen set schema webhook_internal;
alter view webhook.event_count set schema webhook_internal;
alter view webhook.lane_now set schema webhook_internal;
alter view webhook.busy set schema webhook_internal;
alter view webhook.place set schema webhook_internal;
alter view webhook.event_label set schema webhook_internal;
alter view webhook.event_now set schema webhook_internal;
alter function webhook.unseen_messages() set schema webhook_internal;
alter function webhook.busy_messages() set schema webhook_internal;
alter function webhook.worker_process() set schema webhook_internal;
alter function webhook.definitions_changed() set schema webhook_internal;
alter function webhook.extension_installed() set schema webhook_internal;

-- The words that ARCHITECTURE.md uses.
alter table webhook_internal.ledger rename to settlement;
alter index webhook_internal.ledger_pkey rename to settlement_pkey;
alter table webhook_internal.fold rename to compaction;
alter table webhook_internal.compaction rename column folded_seq to compacted_seq;
alter index webhook_internal.fold_pkey rename to compaction_pkey;
alter table webhook_internal.compaction rename constraint fold_only_row_check to compaction_only_row_check;
-- From PostgreSQL 18 on NOT NULL has a name, too.
do $$
declare
    named record;
begin
    for named in
        select r.relname as table_name, k.conname as was,
               pg_catalog.concat(r.relname, '_', a.attname, '_not_null') as is_now
        from pg_catalog.pg_constraint k
        join pg_catalog.pg_class r on r.oid operator(pg_catalog.=) k.conrelid
        join pg_catalog.pg_attribute a
            on a.attrelid operator(pg_catalog.=) k.conrelid and a.attnum operator(pg_catalog.=) k.conkey[1]
        where k.contype operator(pg_catalog.=) 'n'
          and k.conrelid operator(pg_catalog.=) any (
              array['webhook_internal.settlement', 'webhook_internal.compaction']::pg_catalog.regclass[]::pg_catalog.oid[]
          )
    loop
        execute pg_catalog.format(
            'alter table webhook_internal.%I rename constraint %I to %I', named.table_name, named.was, named.is_now
        );
    end loop;
end
$$;
alter view webhook_internal.tail rename column folded_seq to compacted_seq;
alter view webhook_internal.unfolded rename to uncompacted;
alter table webhook_internal.retry drop constraint retry_state_check;
update webhook_internal.retry set state = 'canceling' where state operator(pg_catalog.=) 'withdrawn';
alter table webhook_internal.retry add constraint retry_state_check check (state operator(pg_catalog.=) any (
    array['waiting', 'failed', 'canceled', 'canceling', 'delivered']
));
drop index webhook_internal.retry_withdrawn;
create index retry_canceling on webhook_internal.retry (url_key, id, xid) where state operator(pg_catalog.=) 'canceling';
alter view webhook_internal.busy rename column is_withdrawn to is_canceled;
alter function webhook_internal.busy_messages() rename to busy_messages_of_first_release;

-- From here on internals are in webhook_internal under their new names.

-- These name their tables in a text.
create or replace function webhook_internal.unseen_messages()
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
set local search_path = pg_catalog, pg_temp;
create or replace view webhook_internal.busy as
select b.url_key, b.xid, b.id, b.is_listed, b.is_canceled
from webhook_internal.busy_messages() b;
drop function webhook_internal.busy_messages_of_first_release();
create or replace view webhook.messages as
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
set local search_path = webhook, pg_temp;

-- Texts without credentials for readers.

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

-- What holds the worker up.
create function webhook_internal.worker_detail()
returns text
language c
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'worker_detail_wrapper';

-- Behind webhook.worker: why no worker runs. stopped, recovery, starting, no slot or absent.
create function webhook_internal.worker_absence()
returns text
language c
stable
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'worker_absence_wrapper';

-- Behind webhook.queue: why nothing at all is sent. A state of the view.
create function webhook_internal.delivery_hold()
returns text
language c
stable
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'delivery_hold_wrapper';

set local search_path = pg_catalog, pg_temp;
create or replace view webhook.worker as
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
set local search_path = webhook, pg_temp;

revoke all on function webhook_internal.worker_detail(), webhook_internal.worker_absence(), webhook_internal.delivery_hold() from public;
grant execute
    on function webhook_internal.worker_detail(), webhook_internal.worker_absence(), webhook_internal.delivery_hold()
    to webhook_admin, webhook_reader;
comment on function webhook_internal.worker_detail() is
    'Internal: what holds the worker up, for the view webhook.worker.';
comment on function webhook_internal.worker_absence() is
    'Internal: why no worker runs, for the view webhook.worker.';
comment on function webhook_internal.delivery_hold() is
    'Internal: why nothing is sent, for the view webhook.queue.';
comment on column webhook.worker.state is
    'running; starting; stopped by webhook.stop_worker(); not running.';
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
    add column state_server   integer,
    add column account_id     text;

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
    for each statement execute function webhook_internal.definitions_changed();
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
    'Makes a copy of a database (a restored dump, a template copy, a base backup with another '
    'webhook.identity) the one that captures and sends. pending: keep = what is pending here is sent; forget '
    '= it is canceled. Errors: 42501 not a superuser, 22023 another value of pending, 55000 during recovery.';
comment on table webhook.def_origin is
    'Internal: system identifier, database and webhook.identity under which the definitions were made. '
    'Where they differ from those of the database, it is a copy and sends nothing.';
comment on function webhook.test_webhook(text) is
    'Sends a message of type webhook.test to each URL of a webhook, given by id or name, when the transaction '
    'commits; returns the URLs and the id of the message. It is signed, throttled, repeated, logged and '
    'counted as any message. Errors: 42704 unknown webhook, 55000 in a copy of another database.';
comment on function webhook.redeliver_failed(text, timestamptz, timestamptz) is
    'Sends the failed messages of a webhook (id or name) again: of event_date from since (null = the first) '
    'up to, not including, until (null = now); a call for each URL that a message failed for. Returns the '
    'calls queued. Errors: 22023 null, 42704 unknown webhook, 55000 in a copy that was not adopted.';
comment on function webhook.wait_idle(interval) is
    'Waits until no message is due or in flight: true, or false after timeout. What is paused, switched off, '
    'backing off or waits for a later retry does not count. Starts the worker unless it was stopped. Errors: '
    '22023 negative timeout, 55000 no worker can run, or messages wait in a copy not adopted.';
comment on table webhook.control is
    'Internal: one row, whether the worker was stopped, which outbox table is written to, and where outbox '
    'and log were written.';

-- Keys for publications of all tables, and no rows of other databases through subscriptions.
alter table webhook.secret_def add primary key (webhook_key, secret);
drop index webhook.secret_def_webhook;

-- The worker reads the definitions of the webhooks that are in use, and of those that have changed.
create index url_def_webhook on webhook.url_def (webhook_key);
create table webhook_internal.definition_change (
    change_id   bigint generated always as identity primary key,
    xid         xid8 not null default pg_catalog.pg_current_xact_id(),
    webhook_key integer
);
revoke all on webhook_internal.definition_change from public;
comment on table webhook_internal.definition_change is
    'Internal: which webhooks have changed since the worker read their definitions.';
revoke all on sequence webhook_internal.definition_change_change_id_seq from public;
comment on sequence webhook_internal.definition_change_change_id_seq is
    'Internal: numbers the rows of webhook_internal.definition_change.';
create index definition_change_xid on webhook_internal.definition_change (xid);
create function webhook_internal.definition_row_changed()
returns trigger
language c
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'definition_row_changed_wrapper';
revoke all on function webhook_internal.definition_row_changed() from public;
comment on function webhook_internal.definition_row_changed() is
    'Internal: the trigger that tells the worker which webhook a changed definition belongs to.';
create trigger definition_row_changed
    after insert or update or delete on webhook.webhook_def
    for each row execute function webhook_internal.definition_row_changed();
create trigger definition_row_changed
    after insert or update or delete on webhook.secret_def
    for each row execute function webhook_internal.definition_row_changed();
create trigger definition_row_changed
    after insert or update or delete on webhook.url_def
    for each row execute function webhook_internal.definition_row_changed();
create trigger definition_row_changed
    after insert or update or delete on webhook.event_def
    for each row execute function webhook_internal.definition_row_changed();
alter table webhook.webhook_def enable always trigger definition_row_changed;
alter table webhook.secret_def enable always trigger definition_row_changed;
alter table webhook.url_def enable always trigger definition_row_changed;
alter table webhook.event_def enable always trigger definition_row_changed;
-- Without it the worker's look-ups by URL never go through what waits for other URLs.
drop index webhook_internal.retry_due;
create index retry_due_url on webhook_internal.retry (url_key, next_at) where state operator(pg_catalog.=) 'waiting';
-- Where a URL keeps the order of each key, what waits is ordered by the keys of its row. The indexes are on an
-- expression, so that no other one serves these look-ups.
alter table webhook_internal.retry add column key_hash bigint, add column other_key_hash bigint;
create index retry_key on webhook_internal.retry ((case when state operator(pg_catalog.=) 'waiting' then url_key end), key_hash, id, xid)
    where (case when state operator(pg_catalog.=) 'waiting' then url_key end) is not null and key_hash is not null;
create index retry_other_key on webhook_internal.retry ((case when state operator(pg_catalog.=) 'waiting' then url_key end), other_key_hash, id, xid)
    where (case when state operator(pg_catalog.=) 'waiting' then url_key end) is not null and other_key_hash is not null;
comment on column webhook_internal.retry.key_hash is
    'Hash of its order key (delivery_order key); null: it is not ordered.';
comment on column webhook_internal.retry.other_key_hash is
    'Hash of the other key, if the change was one of the key.';
comment on column webhook_internal.retry.next_at is
    'When its next call is due; infinity: after an earlier message of one of its keys.';
create index cancellation_new on webhook_internal.cancellation (cancellation_id) where taken_before is null;
alter table webhook_internal.lane add column active boolean generated always as (
    state operator(pg_catalog.@>) '{"own": true}'
    or not coalesce(
        state operator(pg_catalog.->) 'busy', '[]') operator(pg_catalog.=) '[]'
    or state operator(pg_catalog.?) 'until'
) stored;
create index lane_active on webhook_internal.lane (url_key) where active;
create index lane_pending on webhook_internal.lane (url_key) where pending operator(pg_catalog.<>) 0;

-- Who changed what.
create table webhook_internal.change_log (
    change_id   bigint generated always as identity primary key,
    changed_at  timestamptz not null default pg_catalog.clock_timestamp(),
    changed_by  text not null,
    action      text not null,
    kind        text not null,
    id          text,
    name        text,
    webhook_id  text,
    webhook_key integer,
    event_key   integer,
    is_kept     boolean not null,
    old         jsonb,
    new         jsonb
);
create index change_log_time on webhook_internal.change_log (changed_at);
create index change_log_id on webhook_internal.change_log (id, changed_at);
create index change_log_expiring on webhook_internal.change_log (changed_at) where not is_kept;
create index change_log_webhook on webhook_internal.change_log (webhook_key) where is_kept;
create index change_log_event on webhook_internal.change_log (event_key) where is_kept and event_key is not null;
revoke all on webhook_internal.change_log from public;
revoke all on sequence webhook_internal.change_log_change_id_seq from public;
comment on table webhook_internal.change_log is
    'Internal: the rows of webhook.changes.';
comment on sequence webhook_internal.change_log_change_id_seq is
    'Internal: numbers the rows of webhook_internal.change_log.';

create function webhook_internal.refuse_replicated()
returns trigger
language c
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'refuse_replicated_wrapper';

revoke all on function webhook_internal.refuse_replicated() from public;
comment on function webhook_internal.refuse_replicated() is
    'Internal: the trigger that refuses rows of a subscription in tables of the extension.';

do $$
declare
    name text;
begin
    for name in
        select pg_catalog.format('%I.%I', n.nspname, c.relname)
        from pg_catalog.pg_class c
        join pg_catalog.pg_namespace n on n.oid operator(pg_catalog.=) c.relnamespace
        where n.nspname operator(pg_catalog.=) any (array['webhook', 'webhook_internal'])
          and c.relkind operator(pg_catalog.=) 'r'
        order by n.nspname, c.relname
    loop
        execute pg_catalog.format(
            'create trigger refuse_replicated before insert or truncate on %s'
            ' for each statement execute function webhook_internal.refuse_replicated()', name);
        execute pg_catalog.format(
            'create trigger refuse_replicated_rows after insert or update or delete on %s'
            ' for each row execute function webhook_internal.refuse_replicated()', name);
        execute pg_catalog.format('alter table %s enable replica trigger refuse_replicated', name);
        execute pg_catalog.format('alter table %s enable replica trigger refuse_replicated_rows', name);
    end loop;
end
$$;

-- A transaction that cancels what is pending keeps its own changes.
comment on function webhook.cancel_pending(text) is
    'Cancels everything that a webhook (id or name) has pending and that was committed before the call, '
    'retries included. A call that is on the wire ends and is not repeated. It takes as long for one message '
    'as for ten million. Returns their number. Errors: 22023 null, 42704 unknown webhook.';

-- Comments without characters that a database's encoding may not have.
comment on function webhook.rest(text, text, jsonb) is
    'The REST API: status and body of the answer to a request. GET, POST /v3/outgoingWebhooks and '
    '.../{webhookId}/events; GET, PUT, DELETE .../{webhookId} and .../events/{eventId}; /v2 is an alias. '
    'Answers 200, 201, 204, 400 with {"Message": ...}, 404, 405. Errors: 55P03 the table is in use.';
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

-- The owner of an event: the role whose rights on the table it needs. Who created the events that are
-- there is known by name alone, and that role may be another one by now: the table's owner is taken.
-- A URL that is there counts as old as its webhook.
alter table webhook.event_def
    add column owner_name text,
    add column owner_oid  oid;
update webhook.event_def e
set owner_name = r.rolname,
    owner_oid = r.oid
from pg_catalog.pg_class c
join pg_catalog.pg_roles r on r.oid operator(pg_catalog.=) c.relowner
where c.oid operator(pg_catalog.=) e.object_name;
alter table webhook.url_def
    add column created_at timestamptz not null default pg_catalog.clock_timestamp(),
    add column reopened_at timestamptz;
-- A URL that fails for so long is switched off.
alter table webhook.webhook_def add column disable_after interval;
update webhook.url_def u
set created_at = w.created_at
from webhook.webhook_def w
where w.webhook_key operator(pg_catalog.=) u.webhook_key;

-- Events match values of a row, and those without a condition share a trigger.
alter table webhook.event_def
    add column match         jsonb,
    add column match_fields  text[],
    add column match_attnums smallint[],
    add column match_kinds   text[],
    add column match_group   uuid,
    add column match_keys    uuid[],
    add column order_key     text[],
    add column order_key_attnums smallint[];
drop index webhook.event_def_object, webhook.event_def_webhook;
create index event_def_capture
    on webhook.event_def (object_name, event_type, match_group, object_oid, match_attnums)
    where dropped_at is null;
create index event_def_match on webhook.event_def using gin (match_keys) with (fastupdate = off)
    where dropped_at is null;
create index event_def_webhook on webhook.event_def (webhook_key, (match_keys[1]));

-- How the values of a column are compared with those of match: by their stored form, which only these
-- types have in one way for equal values. NULL: another type.
create function webhook_internal.match_kind(column_type oid, column_collation oid)
returns text
language c
stable
strict
as 'MODULE_PATHNAME', 'match_kind_wrapper';

-- Labels that match lists and the enum does not have, because it calls them otherwise now. With settings of its
-- own, so that it does not become a part of the views: their plans would look so costly that each is compiled.
create function webhook_internal.unknown_labels(column_type oid, listed jsonb)
returns text
language sql
stable
strict
set search_path = pg_catalog, pg_temp
as $$
    with recursive below (type_oid) as (
        select column_type
        union all
        select t.typbasetype
        from below
        join pg_type t on t.oid = below.type_oid
        where t.typtype = 'd'
    )
    select string_agg(v.label collate "default", ', ' order by v.label collate "C")
    from jsonb_array_elements_text(
        case jsonb_typeof(listed) when 'array' then listed else jsonb_build_array(listed) end
    ) as v (label)
    where v.label is not null
      and not exists (
              select
              from below
              join pg_enum n on n.enumtypid = below.type_oid
              where n.enumlabel::text collate "C" = v.label collate "C"
          )
$$;

-- The trigger of a table that captures all its events of one type that have no condition. 0.1.0 made
-- one trigger an event, webhook_<id>: the first of those counts, too. Of several, one that fires. Without
-- settings of its own, so that it becomes a part of the statements and views that name it.
create function webhook_internal.shared_trigger(object oid, type_of_event text)
returns table (trigger_oid oid)
language sql
stable
as $$
    select t.oid
    from pg_catalog.pg_trigger t
    cross join (
        values ('table.recordInsert', 5, 'webhook_insert_'),
               ('table.recordUpdate', 17, 'webhook_update_'),
               ('table.recordDelete', 9, 'webhook_delete_')
    ) as k (event_type, trigger_type, prefix)
    where k.event_type operator(pg_catalog.=) type_of_event
      and t.tgrelid operator(pg_catalog.=) object
      and t.tgfoid operator(pg_catalog.=) 'webhook.capture()'::pg_catalog.regprocedure
      and t.tgparentid operator(pg_catalog.=) 0::pg_catalog.oid
      and t.tgtype operator(pg_catalog.=) k.trigger_type
      and t.tgqual is null
      and t.tgattr::pg_catalog.text operator(pg_catalog.=) ''
      and (
            t.tgnargs operator(pg_catalog.=) 0 and pg_catalog.starts_with(t.tgname::pg_catalog.text, k.prefix)
            or t.tgnargs operator(pg_catalog.=) 1
               and pg_catalog.encode(t.tgargs, 'escape') operator(pg_catalog.=)
                   pg_catalog.concat(pg_catalog.substr(t.tgname::pg_catalog.text, 9), pg_catalog.chr(92), '000')
               and pg_catalog.starts_with(t.tgname::pg_catalog.text, 'webhook_')
      )
    order by pg_catalog.strpos('AORD', t.tgenabled::pg_catalog.text), t.oid
    limit 1
$$;

set local search_path = pg_catalog, pg_temp;
create view webhook_internal.event_owner as
select e.event_key,
       r.oid as owner_oid,
       coalesce(r.rolname::text, e.owner_name) collate "default" as owner,
       (case
           when c.oid is null then null
           when r.oid is null then 'its owner ' || coalesce(quote_ident(e.owner_name), 'role') || ' was dropped'
           when not has_table_privilege(r.oid, c.oid, 'select')
           then 'its owner ' || quote_ident(r.rolname) || ' may not SELECT from the table'
           when c.relrowsecurity and not r.rolsuper and not r.rolbypassrls and not pg_has_role(r.oid, c.relowner, 'usage')
           then 'the row security of the table applies to its owner ' || quote_ident(r.rolname)
       end) collate "default" as lost_rights
from webhook.event_def e
left join pg_class c on c.oid = e.object_name
left join pg_roles n on n.rolname::text = e.owner_name
left join pg_roles r
  on r.oid = case
                 when e.object_oid = e.object_name::oid and e.owner_oid is not null then e.owner_oid
                 else coalesce(n.oid, c.relowner)
             end;

-- The trigger that captures each event: its own if it has a condition, else the one that it shares.
create view webhook_internal.event_trigger as
select e.event_key,
       t.oid as trigger_oid,
       t.tgname as trigger_name,
       t.tgenabled as enabled,
       t.tgfoid = 'webhook.capture()'::regprocedure as is_ours
from webhook.event_def e
cross join lateral (
    select f.trigger_oid
    from webhook_internal.shared_trigger(e.object_name::oid, e.event_type) f
    where e.condition is null
    union all
    select o.oid
    from pg_trigger o
    where e.condition is not null
      and o.tgrelid = e.object_name
      and o.tgname = 'webhook_' || e.id
) as s (trigger_oid)
join pg_trigger t on t.oid = s.trigger_oid;

create or replace view webhook_internal.event_now as
select e.event_key, e.id, e.webhook_key, e.event_type, e.object_name, e.object_label, e.object_oid,
       e.object_fields, e.object_attnums, e.event_sources, e.payload_fields, e.payload_attnums,
       e.payload_template, e.condition, e.enabled, e.null_style, e.list_style, e.detail,
       e.created_at, e.created_by, e.modified_at, e.modified_by, e.dropped_at,
       e.template_fields, e.template_attnums,
       w.id as webhook_id,
       w.name as webhook_name,
       b.object_text,
       fields.missing as missing_columns,
       coalesce(fields.object_names, e.object_fields) as object_fields_now,
       coalesce(fields.payload_names, e.payload_fields) as payload_fields_now,
       case
           when e.object_name is null and not s.is_operational then 'its table is not on this node'
           when c.oid is null and not s.is_operational then 'its table was dropped'
           when fields.missing is not null then 'column was dropped: ' || fields.missing
           when fields.retyped is not null then 'column in match has another type: ' || fields.retyped
           when s.is_stopped then o.lost_rights
           when t.trigger_oid is null and not s.is_operational then 'its trigger was dropped'
           when t.enabled = 'D' then 'its trigger is disabled'
           when not e.enabled then 'it is not enabled'
           when not w.enabled then 'its webhook is not enabled'
           when fields.unknown is not null then 'enum value in match does not exist: ' || fields.unknown
           else coalesce(e.detail, w.detail)
       end as reason,
       w.enabled and e.enabled
           and (s.is_operational or c.oid is not null and fields.missing is null and fields.retyped is null
                                    and t.trigger_oid is not null and t.enabled <> 'D' and not s.is_stopped) as active,
       o.owner,
       fields.retyped as retyped_columns,
       fields.match as match_now,
       fields.order_names as order_key_now,
       fields.unknown as unknown_values,
       -- As its trigger has it, which follows renames.
       case
           when e.condition is not null
           then substring(pg_get_triggerdef(t.trigger_oid, true) from 'FOR EACH ROW WHEN \((.*)\) EXECUTE FUNCTION ')
       end as condition_now
from webhook.event_def e
join webhook.webhook_def w on w.webhook_key = e.webhook_key
-- Each part is looked up for the events that are asked for, and not for all.
cross join lateral (
    select k.object_text
    from webhook_internal.event_label k
    where k.event_key = e.event_key
    offset 0
) b
cross join lateral (
    select k.owner, k.lost_rights
    from webhook_internal.event_owner k
    where k.event_key = e.event_key
    offset 0
) o
cross join lateral (
    select o.lost_rights is not null
           and coalesce(nullif(current_setting('webhook.recheck_privileges', true), ''), 'on')::boolean,
           starts_with(e.event_type, 'webhook.')
) as s (is_stopped, is_operational)
left join pg_class c on c.oid = e.object_name
left join lateral (
    select k.trigger_oid, k.enabled
    from webhook_internal.event_trigger k
    where k.event_key = e.event_key
    offset 0
) t on true
left join lateral (
    select string_agg(distinct f.name, ', ' order by f.name) filter (
               -- what is not used may be missing
               where a.attname is null and (f.kind <> 'order' or w.delivery_order = 'key')
           ) as missing,
           array_agg(coalesce(a.attname::text, f.name) order by f.place) filter (where f.kind = 'object') as object_names,
           array_agg(coalesce(a.attname::text, f.name) order by f.place) filter (where f.kind = 'payload') as payload_names,
           string_agg(a.attname::text collate "default", ', ' order by a.attname) filter (
               where f.kind = 'match' and webhook_internal.match_kind(a.atttypid, a.attcollation) is distinct from f.compared_as
                 and a.attname is not null
           ) as retyped,
           jsonb_object_agg(coalesce(a.attname::text, f.name), e.match -> f.name) filter (where f.kind = 'match') as match,
           array_agg(coalesce(a.attname::text, f.name) order by f.place) filter (where f.kind = 'order') as order_names,
           string_agg(
               concat(a.attname, ' = ', webhook_internal.unknown_labels(a.atttypid, e.match -> f.name)) collate "default",
               ', ' order by a.attname
           ) filter (
               where case when f.compared_as = 'enum' then webhook_internal.unknown_labels(a.atttypid, e.match -> f.name) end is not null
           ) as unknown
    from (
        select 'object', o.name, o.number, o.place, null
        from unnest(e.object_fields, e.object_attnums) with ordinality as o (name, number, place)
        union all
        select 'payload', p.name, p.number, p.place, null
        from unnest(e.payload_fields, e.payload_attnums) with ordinality as p (name, number, place)
        union all
        select 'template', m.name, m.number, m.place, null
        from unnest(e.template_fields, e.template_attnums) with ordinality as m (name, number, place)
        union all
        select 'match', v.name, v.number, v.place, v.compared_as
        from unnest(e.match_fields, e.match_attnums, e.match_kinds)
            with ordinality as v (name, number, compared_as, place)
        union all
        select 'order', k.name, k.number, k.place, null
        from unnest(e.order_key, e.order_key_attnums) with ordinality as k (name, number, place)
    ) f (kind, name, number, place, compared_as)
    left join pg_attribute a
      on a.attrelid = e.object_name
     and a.attnum > 0
     and not a.attisdropped
     and case when e.object_oid = e.object_name::oid then a.attnum = f.number else a.attname = f.name end
) fields on true;

-- What webhook_internal.counter had before it was first changed on that day (UTC), for the last thirty days: what was
-- counted since is the difference.
create table webhook_internal.counter_day (
    event_key integer,
    day       date,
    messages  bigint not null,
    calls     bigint not null,
    errors    bigint not null,
    primary key (event_key, day)
);
create index counter_day_day on webhook_internal.counter_day (day);
revoke all on webhook_internal.counter_day from public;
comment on table webhook_internal.counter_day is
    'Internal: what webhook_internal.counter had before its first change of a day, for thirty days.';

-- Enabled events that make no messages because of what was done to their tables or to the rights of their
-- owners, once users were told.
create table webhook_internal.stopped_event (
    event_key integer primary key references webhook.event_def on delete cascade,
    reason    text not null,
    since     timestamptz not null default pg_catalog.clock_timestamp()
);
revoke all on webhook_internal.stopped_event from public;
comment on table webhook_internal.stopped_event is
    'Internal: enabled events that make no messages, once users were told.';

-- Counters are looked up for the events that are asked for, and not for all.
set local search_path = pg_catalog, pg_temp;
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

create or replace view webhook_internal.event_count as
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
set local search_path = webhook, pg_temp;

revoke all on table webhook_internal.recent_count from public;
comment on view webhook_internal.recent_count is
    'Internal: messages, calls and errors that are not in webhook_internal.counter yet, one row an event.';
set local search_path = pg_catalog, pg_temp;

create or replace view webhook.events as
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
set local search_path = webhook, pg_temp;

revoke all on table webhook_internal.event_owner from public;
comment on column webhook.events.owner is
    'Role whose rights on the table the event needs: the one that created it, or that took it over with '
    'webhook.update_event(). If it loses SELECT, or row security comes to apply to it, the event stops.';
comment on view webhook_internal.event_owner is
    'Internal: the role that owns each event, and the right on the table that it has lost.';

-- Request headers without values that look like credentials. Written in C: a nested statement would show its
-- parameters to auto_explain.
create function webhook_internal.masked_headers(headers jsonb)
returns jsonb
language c
immutable
strict
parallel safe
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'masked_headers_wrapper';
revoke all on function webhook_internal.masked_headers(jsonb) from public;
comment on function webhook_internal.masked_headers(jsonb) is
    'Internal: request headers without values that look like credentials.';

-- URLs, and what receivers and people write, without credentials for readers.
set local search_path = pg_catalog, pg_temp;
create or replace view webhook.webhooks as
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

-- The expressions of webhook_id and status are those of the indexes of the log.
create or replace view webhook.calls as
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

-- One webhook's URLs are found before all others are joined.
create or replace view webhook_internal.lane_now as
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

create or replace view webhook.queue as
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
-- What it shows is of the present.
comment on column webhook.queue.state is
    'active; failing: the last call failed, others go on; backing_off: the next call is a probe, or with fifo '
    'the retry that holds the others; throttled; paused; disabled: resume_webhook() opens it; delivery_off: '
    'webhook.delivery; no_worker: none runs; blocked: last_error says by what.';
comment on column webhook.queue.next_attempt_at is
    'Earliest moment at which something may be sent to it: the latest of back-off, Retry-After, throttle and '
    'due retry. Null: nothing waits, or nothing is sent unless a user does something.';
comment on column webhook.queue.last_error is
    'Why it is disabled or blocked, else why the last call failed; null once a call succeeds.';
comment on column webhook.queue.failing_since is
    'Start of the first call that failed after the last success; null unless the last call failed.';
comment on column webhook.queue.last_success_at is
    'Start of the last call that succeeded.';
comment on column webhook.queue.last_error_at is
    'Start of the last call that failed.';
set local search_path = webhook, pg_temp;

-- A secret of one's own. What they replace goes after the privileges on it were told of.
create function webhook.create_webhook(
    name            text,
    outgoing_urls   text[],
    description     text     default null,
    call_throttling integer  default null,
    enabled         boolean  default true,
    headers         jsonb    default '{}',
    timeout_ms      integer  default 15000,
    max_attempts    integer  default 12,
    max_age         interval default '3 days',
    max_in_flight   integer  default 16,
    delivery_order  text     default 'none',
    log_level       text     default 'all',
    secret          text     default null,
    disable_after   interval default null
)
returns table (
    id              text,
    name            text,
    description     text,
    outgoing_urls   text[],
    call_throttling integer,
    enabled         boolean,
    secret          text,
    token           text,
    created_at      timestamptz,
    created_by      text
)
language c
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'create_webhook_v2_wrapper';

create function webhook.update_webhook(
    webhook         text,
    name            text     default null,
    outgoing_urls   text[]   default null,
    description     text     default null,
    call_throttling integer  default null,
    enabled         boolean  default null,
    headers         jsonb    default null,
    timeout_ms      integer  default null,
    max_attempts    integer  default null,
    max_age         interval default null,
    max_in_flight   integer  default null,
    delivery_order  text     default null,
    log_level       text     default null,
    secret          text     default null,
    disable_after   interval default null
)
returns table (
    id              text,
    name            text,
    description     text,
    outgoing_urls   text[],
    call_throttling integer,
    enabled         boolean,
    modified_at     timestamptz,
    modified_by     text
)
language c
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'update_webhook_v2_wrapper';
comment on function webhook.create_webhook(text, text[], text, integer, boolean, jsonb, integer, integer, interval, integer, text, text, text, interval) is
    'Creates a webhook: a named set of URLs, a secret, a call rate. Returns it with its secret (the HMAC key) '
    'and token (stands in payloads). delivery_order: none, fifo or key; log_level: all, errors or none. '
    'Errors: 22023 bad argument, 42710 name or URL taken. docs/functions.md has each argument.';
comment on function webhook.update_webhook(text, text, text[], text, integer, boolean, jsonb, integer, integer, interval, integer, text, text, text, interval) is
    'Changes a webhook, given by id or name, and returns it; null leaves a value as it is, an empty text or '
    'list clears it. enabled sets the status of all its events. Errors: 42704 unknown webhook, 22023 bad '
    'argument, 42710 name or URL taken, 42501 privilege missing. docs/functions.md has each argument.';

-- A window of time again, whatever became of its messages.
create function webhook.redeliver(
    webhook      text,
    since        timestamptz,
    until        timestamptz default null,
    status       text[]      default '{failed}',
    outgoing_url text        default null
)
returns bigint
language c
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'redeliver_window_wrapper';
comment on function webhook.redeliver(text, timestamptz, timestamptz, text[], text) is
    'Sends messages of a webhook (id or name) again: of event_date from since up to, not including, until (null = '
    'now), that are failed, delivered or canceled as status lists, at all URLs or outgoing_url. Returns the calls '
    'queued. Errors: 22023, 42704 webhook or URL, 55000 a copy not adopted.';

-- A receiver is back.
create function webhook.retry_now(webhook text, outgoing_url text default null)
returns bigint
language c
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'retry_now_wrapper';
comment on function webhook.retry_now(text, text) is
    'A receiver is back: messages of a webhook (id or name) that wait for a retry are due at once, of all its URLs '
    'or of outgoing_url; back-off and Retry-After end. Returns their number. Errors: 22023 null, 42704 unknown '
    'webhook or URL.';

-- Group roles with the privileges of webhook_admin or webhook_reader in this database alone.

-- The privileges that roles have on the objects of the extension, as GRANT names these.
create view webhook_internal.granted as
select pg_catalog.format('schema %I', n.nspname) as object, a.grantee, a.privilege_type as privilege
from pg_catalog.pg_namespace n
cross join lateral pg_catalog.aclexplode(n.nspacl) a
where n.nspname operator(pg_catalog.=) any (array['webhook', 'webhook_internal'])
union all
select pg_catalog.format(
           '%s %I.%I', case when c.relkind operator(pg_catalog.=) 'S' then 'sequence' else 'table' end, n.nspname, c.relname
       ),
       a.grantee, a.privilege_type
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid operator(pg_catalog.=) c.relnamespace
cross join lateral pg_catalog.aclexplode(c.relacl) a
where n.nspname operator(pg_catalog.=) any (array['webhook', 'webhook_internal'])
union all
select pg_catalog.format('function %s', p.oid::pg_catalog.regprocedure), a.grantee, a.privilege_type
from pg_catalog.pg_proc p
join pg_catalog.pg_namespace n on n.oid operator(pg_catalog.=) p.pronamespace
cross join lateral pg_catalog.aclexplode(p.proacl) a
where n.nspname operator(pg_catalog.=) any (array['webhook', 'webhook_internal']);

create function webhook.grant_to(role text, privileges text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    statement text;
begin
    if privileges is null or privileges not in ('admin', 'reader') then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = format('privileges "%s" is not one of admin, reader', left(privileges, 100)),
            hint = 'admin: those of webhook_admin; reader: those of webhook_reader';
    end if;
    perform webhook_internal.check_grantee(role);
    for statement in
        select format('grant %s on %s to %I', g.privilege, g.object, role)
        from webhook_internal.granted g
        join pg_roles r on r.oid = g.grantee
        where r.rolname = 'webhook_' || privileges
        order by g.object, g.privilege
    loop
        execute statement;
    end loop;
end
$$;

create function webhook.revoke_from(role text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    statement text;
begin
    perform webhook_internal.check_grantee(role);
    for statement in
        select format('revoke %s on %s from %I', g.privilege, g.object, role)
        from webhook_internal.granted g
        join pg_roles r on r.oid = g.grantee
        where r.rolname = role
        order by g.object, g.privilege
    loop
        execute statement;
    end loop;
end
$$;

create function webhook_internal.check_grantee(role text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    if not (select pg_has_role(e.extowner, 'usage') from pg_extension e where e.extname = 'webhook_ext') then
        raise exception using
            errcode = 'insufficient_privilege',
            message = 'only a superuser or the owner of the extension grants its privileges',
            hint = 'let one of them call it';
    end if;
    if role is null or role in ('webhook_admin', 'webhook_reader', 'webhook_worker')
        or exists (
            select
            from pg_extension e
            join pg_roles r on r.oid = e.extowner
            where e.extname = 'webhook_ext' and r.rolname = role
        )
    then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = case
                          when role is null then 'role is null'
                          else format('role "%s" has its privileges from the extension', role)
                      end,
            hint = 'name a role of yours';
    end if;
    if not exists (select from pg_roles r where r.rolname = role) then
        raise exception using
            errcode = 'undefined_object',
            message = format('role "%s" does not exist', left(role, 100)),
            hint = 'give the name of a role as pg_roles spells it';
    end if;
end
$$;

revoke all on table webhook_internal.granted from public;
revoke all
    on function webhook_internal.masked_url(text), webhook.grant_to(text, text), webhook.revoke_from(text),
       webhook_internal.check_grantee(text)
    from public;
grant execute on function webhook_internal.masked_url(text) to webhook_admin, webhook_reader;
comment on function webhook.grant_to(text, text) is
    'Gives a role, in this database alone, the privileges of webhook_admin (privileges: admin) or '
    'webhook_reader (reader). Call it again after ALTER EXTENSION UPDATE. Errors: 42501 neither superuser nor '
    'owner of the extension, 22023 other privileges, null or a role of the extension, 42704 no such role.';
comment on function webhook.revoke_from(text) is
    'Takes from a role what webhook.grant_to() gave it, and any other privilege that it has on objects of the '
    'extension; not what it has by membership. Errors: 42501 another caller, 22023 null or a role of the '
    'extension, 42704 no such role.';
comment on function webhook_internal.check_grantee(text) is
    'Internal: the checks of webhook.grant_to() and webhook.revoke_from().';
comment on function webhook_internal.masked_url(text) is
    'Internal: a text whose URLs are without what looks like a credential, for roles that may not call '
    'webhook.drop_webhook().';
comment on view webhook_internal.granted is
    'Internal: privileges on objects of the extension, for webhook.grant_to() and webhook.revoke_from().';

-- match, and triggers that events share. What they replace goes after the privileges on it were told of.
-- condition_path carries the caller's search_path past the one this function runs with:
-- names in the condition mean what they mean to the caller.
create function webhook.create_event(
    webhook          text,
    object_name      regclass,
    event_type       text,
    object_fields    text[]  default null,
    event_sources    text[]  default null,
    payload_fields   text[]  default null,
    payload_template text    default null,
    condition        text    default null,
    enabled          boolean default true,
    null_style       text    default 'typed',
    list_style       text    default 'array',
    condition_path   text    default pg_catalog.current_setting('search_path'),
    match            jsonb   default null,
    order_key        text[]  default null
)
returns table (
    id               text,
    webhook_id       text,
    event_type       text,
    object_name      text,
    object_fields    text[],
    event_sources    text[],
    payload_fields   text[],
    payload_template text,
    condition        text,
    enabled          boolean,
    created_at       timestamptz,
    created_by       text
)
language c
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'create_event_v2_wrapper';

create function webhook.update_event(
    event            text,
    object_fields    text[]  default null,
    event_sources    text[]  default null,
    payload_fields   text[]  default null,
    payload_template text    default null,
    condition        text    default null,
    enabled          boolean default null,
    null_style       text    default null,
    list_style       text    default null,
    condition_path   text    default pg_catalog.current_setting('search_path'),
    match            jsonb   default null,
    order_key        text[]  default null
)
returns table (
    id               text,
    webhook_id       text,
    event_type       text,
    object_name      text,
    object_fields    text[],
    event_sources    text[],
    payload_fields   text[],
    payload_template text,
    condition        text,
    enabled          boolean,
    created_at       timestamptz,
    created_by       text
)
language c
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'update_event_v2_wrapper';

-- Of several triggers for one kind of change without a condition, the first one captures for all. The others
-- go where nobody writes to the table now, up to a thousand; those that stay do nothing. An event whose own
-- trigger was disabled made no messages, and the shared one would: it is switched off instead.
update webhook.event_def e
set enabled = false
from pg_catalog.pg_trigger t
where e.dropped_at is null
  and e.condition is null
  and t.tgrelid operator(pg_catalog.=) e.object_name
  and t.tgname operator(pg_catalog.=) pg_catalog.concat('webhook_', e.id)
  and t.tgfoid operator(pg_catalog.=) 'webhook.capture()'::pg_catalog.regprocedure
  and t.tgenabled operator(pg_catalog.=) 'D'
  and t.oid operator(pg_catalog.<>) (select s.trigger_oid from webhook_internal.shared_trigger(t.tgrelid, e.event_type) s);
do $$
declare
    shared record;
    superfluous pg_catalog.text;
    -- Each takes a place in the table of locks, and so does its copy on each partition.
    dropped_at_most pg_catalog.int8 := 1000;
begin
    for shared in
        select e.object_name::pg_catalog.regclass as object,
               (select greatest(1, pg_catalog.count(*)) from pg_catalog.pg_partition_tree(e.object_name)) as tables,
               pg_catalog.array_agg(t.tgname order by t.oid) as others
        from webhook.event_def e
        cross join lateral webhook_internal.shared_trigger(e.object_name, e.event_type) s
        join pg_catalog.pg_trigger t on t.tgrelid operator(pg_catalog.=) e.object_name
                                    and t.tgname operator(pg_catalog.=) pg_catalog.concat('webhook_', e.id)
        where e.dropped_at is null
          and e.condition is null
          and t.tgfoid operator(pg_catalog.=) 'webhook.capture()'::pg_catalog.regprocedure
          and t.oid operator(pg_catalog.<>) s.trigger_oid
        group by e.object_name, e.event_type
        order by e.object_name
    loop
        begin
            execute pg_catalog.format('lock table %s in access exclusive mode nowait', shared.object);
            foreach superfluous in array shared.others loop
                exit when dropped_at_most operator(pg_catalog.<) shared.tables;
                execute pg_catalog.format('drop trigger %I on %s', superfluous, shared.object);
                dropped_at_most := dropped_at_most operator(pg_catalog.-) shared.tables;
            end loop;
        exception when lock_not_available or object_in_use or undefined_table or undefined_object then
            null;
        end;
    end loop;
end
$$;

revoke all on table webhook_internal.event_trigger from public;
revoke all on function webhook_internal.match_kind(oid, oid), webhook_internal.shared_trigger(oid, text) from public;
grant execute on function webhook_internal.match_kind(oid, oid), webhook_internal.shared_trigger(oid, text) to webhook_admin, webhook_reader;
revoke all
    on function webhook.create_event(text, regclass, text, text[], text[], text[], text, text, boolean, text, text, text, jsonb, text[]),
       webhook.update_event(text, text[], text[], text[], text, text, boolean, text, text, text, jsonb, text[])
    from public;
grant execute
    on function webhook.create_event(text, regclass, text, text[], text[], text[], text, text, boolean, text, text, text, jsonb, text[]),
       webhook.update_event(text, text[], text[], text[], text, text, boolean, text, text, text, jsonb, text[])
    to webhook_admin;
comment on function webhook_internal.unknown_labels(oid, jsonb) is
    'Internal: values that match lists for a column and its enum does not have.';
comment on function webhook_internal.match_kind(oid, oid) is
    'Internal: how the values of a column of this type and collation are compared with those of match; null: '
    'they cannot be.';
comment on function webhook_internal.shared_trigger(oid, text) is
    'Internal: the trigger of a table that captures all its events of one type that have no condition.';
comment on view webhook_internal.event_trigger is
    'Internal: the trigger that captures each event.';
comment on column webhook.events.match is
    'Values that columns of the row must have, by their present names; null = any.';
comment on column webhook.events.order_key is
    'The columns that order_key names, by their present names; null = the table''s key. Used where delivery_order '
    'of the webhook is key.';
comment on column webhook.events.messages_30d is
    'Messages captured in the last thirty days, today (UTC) included.';
comment on column webhook.events.calls_30d is
    'HTTP requests made in the last thirty days.';
comment on column webhook.events.errors_30d is
    'Calls that failed in the last thirty days.';
comment on column webhook.events.id is
    'Six characters of [a-z0-9].';
comment on function webhook.drop_event(text) is
    'Drops an event, given by id. What it captured is still delivered. The trigger goes with the last event '
    'that shares it, unless the table is in use. Errors: 42704 unknown event, 55P03 the table of an event '
    'with a condition is in use for longer than lock_timeout (at most 5 s).';

-- Comments on functions that ask for more rights.
comment on function webhook.create_event(text, regclass, text, text[], text[], text[], text, text, boolean, text, text, text, jsonb, text[]) is
    'Creates an event: a rule which change of a table makes a message for a webhook (id or name). The caller '
    'needs TRIGGER and SELECT on the table and owns the event. Errors: 22023, 42704, 42710 the same event '
    'exists, 42501, 42809 not a table of this kind, 55P03. docs/functions.md has each argument.';
comment on function webhook.update_event(text, text[], text[], text[], text, text, boolean, text, text, text, jsonb, text[]) is
    'Changes an event, given by id, and returns it; null leaves a value as it is, an empty array or text, or '
    '{} for match, clears it. The caller needs the rights of webhook.create_event(). Errors: as there, and '
    '42704 unknown event, or its table was dropped. docs/functions.md has each argument.';
comment on function webhook.preview_payload(text, jsonb) is
    'The body that a message of an event would have; the ids of message and call are zeros. record: values of '
    'columns after the change; others are of some row, else null. The caller needs TRIGGER and SELECT on the '
    'table. Errors: 42704 unknown event or column, 22023 a value does not fit, 42501.';
comment on function webhook.redeliver(uuid) is
    'Sends a message again under its old id, whatever became of it, to each URL of its webhook, before queued '
    'ones; attempts and age start again. Returns the calls queued. Errors: 22023 null, 42704 no such message, '
    '55000 webhook dropped, or a copy not adopted, 42501 a URL is newer than the message.';

-- What arguments may hold.
comment on function webhook.regenerate_secret(text, interval) is
    'Gives a webhook, by id or name, a new secret and returns it. During overlap (0 to 3650 days) messages '
    'carry the signatures of both; at most 8 secrets sign at a time. Errors: 42704 unknown webhook, 22023 '
    'overlap out of range, or 8 secrets have not expired.';

-- Two tables never have one name: a part with a dot or a quote in it is quoted.
set local search_path = pg_catalog, pg_temp;
create or replace view webhook_internal.event_label as
select e.event_key,
       e.id,
       e.event_type,
       coalesce(
           -- a part that holds a dot or a quote is quoted, so that two tables never have one name
           case
               when n.nspname = 'public' then
                   case when c.relname ~ '[."]' then concat('"', replace(c.relname::text, '"', '""'), '"') else c.relname::text end
               when c.oid is not null then concat(
                   case when n.nspname ~ '[."]' then concat('"', replace(n.nspname::text, '"', '""'), '"') else n.nspname::text end,
                   '.',
                   case when c.relname ~ '[."]' then concat('"', replace(c.relname::text, '"', '""'), '"') else c.relname::text end
               )
           end,
           e.object_label
       ) as object_text
from webhook.event_def e
left join pg_class c on c.oid = e.object_name
left join pg_namespace n on n.oid = c.relnamespace;
set local search_path = webhook, pg_temp;

-- Ids stand in names of triggers.
alter table webhook.webhook_def add constraint webhook_def_id_check
    check (id collate pg_catalog."C" operator(pg_catalog.~) '^[a-z0-9]{6}$');
alter table webhook.event_def add constraint event_def_id_check
    check (id collate pg_catalog."C" operator(pg_catalog.~) '^[a-z0-9]{6}$');

-- Order by key.
alter table webhook.webhook_def drop constraint webhook_def_delivery_order_check;
alter table webhook.webhook_def add constraint webhook_def_delivery_order_check
    check (delivery_order operator(pg_catalog.=) any (array['none', 'fifo', 'key']));
comment on function webhook.resume_webhook(text) is
    'Ends a pause, and opens URLs again that were switched off (by an answer 410 Gone or disable_after). With '
    'delivery_order fifo or key, messages that wait for a retry are due at once. Takes id or name. Errors: 42704 '
    'unknown webhook.';

-- Operational events: they have no table.
alter table webhook.event_def drop constraint event_def_event_type_check;
alter table webhook.event_def add constraint event_def_event_type_check
    check (event_type operator(pg_catalog.=) any (
        array['table.recordInsert', 'table.recordUpdate', 'table.recordDelete',
              'webhook.urlFailing', 'webhook.urlRecovered', 'webhook.urlDisabled', 'webhook.messageFailed',
              'webhook.eventDisabled', 'webhook.backlogGrowing']
    ));
create index event_def_operational on webhook.event_def (event_type) where object_name is null and dropped_at is null;
comment on column webhook.events.event_type is
    'table.recordInsert, table.recordUpdate or table.recordDelete; operational events: webhook.urlFailing and others.';
comment on column webhook.events.object_name is
    'Its table, with the schema unless that is public; as it was called when it is gone. Null: an operational event.';

-- Everything about a message, who changed what, and all settings of a webhook.
create function webhook.message(message_id uuid)
returns table (
    message_id         uuid,
    event_id           text,
    webhook_id         text,
    webhook_name       text,
    event_type         text,
    object_name        text,
    event_date         timestamptz,
    source             text,
    actor              text,
    status             text,
    record             jsonb,
    old_record         jsonb,
    changed            text[],
    headers            jsonb,
    body               text,
    deliveries         jsonb,
    definition_changed boolean,
    detail             text
)
language c
rows 1
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'message_wrapper';
revoke all on function webhook.message(uuid) from public;
comment on function webhook.message(uuid) is
    'All about a message in one row: its change, the body and headers that were or will be sent, rendered '
    'now, and each URL with state, attempts, next attempt and give-up time. record, old_record and body: null for '
    'webhook_reader. Errors: 22023 null, 42704 none such (or past webhook.log_retention).';
-- A stored record as jsonb. What jsonb cannot hold (a NUL escape in a json column, a number or a depth beyond
-- its limits) comes as a JSON string.
create function webhook_internal.stored_json(stored text)
returns jsonb
language plpgsql
immutable
strict
set search_path = pg_catalog, pg_temp
as $$
begin
    return stored::jsonb;
exception when data_exception or program_limit_exceeded then
    return to_jsonb(stored);
end
$$;
revoke all on function webhook_internal.stored_json(text) from public;
comment on function webhook_internal.stored_json(text) is
    'Internal: a stored record as jsonb, or as a JSON string where jsonb cannot hold it.';
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
revoke all on function webhook_internal.masked_values(jsonb) from public;
comment on function webhook_internal.masked_values(jsonb) is
    'Internal: values in webhook.changes without what looks like a credential.';
set local search_path = pg_catalog, pg_temp;
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
revoke all on table webhook.changes from public;
comment on view webhook.changes is
    'Who changed what through the functions, and when, one row a change, written in its transaction. Rows about '
    'webhooks and events stay as long as these; others, and those of dropped ones, for webhook.log_retention.';
comment on column webhook.changes.changed_at is
    'When it was changed.';
comment on column webhook.changes.changed_by is
    'Role that changed it.';
comment on column webhook.changes.action is
    'create, update, drop, pause, resume, regenerate_secret, test; redeliver, redeliver_failed, retry_now, cancel, cancel_pending; start, stop, adopt.';
comment on column webhook.changes.kind is
    'webhook, event, message, worker or database.';
comment on column webhook.changes.id is
    'Id of the webhook, event or message.';
comment on column webhook.changes.name is
    'Name of its webhook at that time.';
comment on column webhook.changes.old is
    'What was there before: of an update the values that it changed, of a drop all of them. Never a secret; header values that look like credentials are ***.';
comment on column webhook.changes.new is
    'The same after it; how many messages or calls an action was about.';
comment on column webhook.changes.webhook_id is
    'Id of its webhook.';
comment on column webhook.webhooks.headers is
    'Extra request headers; values that look like credentials are ***.';
comment on column webhook.webhooks.timeout_ms is
    'Milliseconds that a call may take in all.';
comment on column webhook.webhooks.max_attempts is
    'Most calls per message and URL.';
comment on column webhook.webhooks.max_age is
    'A message older than this is given up.';
comment on column webhook.webhooks.max_in_flight is
    'Most calls at a time per URL.';
comment on column webhook.webhooks.delivery_order is
    'none, fifo or key; see webhook.create_webhook().';
comment on column webhook.webhooks.log_level is
    'Which calls are logged: all, errors or none.';
comment on column webhook.webhooks.disable_after is
    'A URL that fails for so long without one success is switched off; null = never.';
comment on column webhook.webhooks.messages_30d is
    'Messages captured in the last thirty days, today (UTC) included.';
comment on column webhook.webhooks.calls_30d is
    'HTTP requests made in the last thirty days.';
comment on column webhook.webhooks.errors_30d is
    'Calls that failed in the last thirty days.';

-- What happened in each minute.
alter table webhook_internal.segment drop constraint segment_kind_check;
alter table webhook_internal.segment add constraint segment_kind_check
    check (kind operator(pg_catalog.=) any (array['outbox', 'call_log', 'activity']));
insert into webhook_internal.segment (kind, number, opened_at)
select 'activity', n.number, case when n.number operator(pg_catalog.=) 0 then pg_catalog.clock_timestamp() end
from (values (0), (1), (2), (3)) as n (number);

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

do $$
declare
    name text;
begin
    for name in
        select pg_catalog.format('webhook_internal.%I', c.relname)
        from pg_catalog.pg_class c
        where c.relnamespace operator(pg_catalog.=) 'webhook_internal'::pg_catalog.regnamespace
          and c.relkind operator(pg_catalog.=) 'r'
          and c.relname operator(pg_catalog.~) '^(activity_[0-9]|call_duration|worker_total|counter_day|stopped_event)$'
        order by c.relname
    loop
        execute pg_catalog.format(
            'create trigger refuse_replicated before insert or truncate on %s'
            ' for each statement execute function webhook_internal.refuse_replicated()', name);
        execute pg_catalog.format(
            'create trigger refuse_replicated_rows after insert or update or delete on %s'
            ' for each row execute function webhook_internal.refuse_replicated()', name);
        execute pg_catalog.format('alter table %s enable replica trigger refuse_replicated', name);
        execute pg_catalog.format('alter table %s enable replica trigger refuse_replicated_rows', name);
    end loop;
end
$$;

comment on function webhook.duration_quantile(text, double precision, double precision) is
    'Milliseconds that a part of the calls (0.5, 0.95, ...) did not exceed, 6 % at most off, never above max_ms; '
    'null without calls. durations: of webhook.activity; those of several rows are joined by '
    'string_agg(durations, '' ''). Errors: 22023 longer than 32 million characters.';

comment on view webhook.activity is
    'What happened in each minute, one row a minute and URL that had messages or calls. Kept for 30 days, in '
    'blocks of ten. Written every ten seconds: a crash may lose what is younger.';
comment on column webhook.activity.minute is
    'Begin of the minute.';
comment on column webhook.activity.webhook_id is
    'Id of the webhook.';
comment on column webhook.activity.outgoing_url is
    'The URL.';
comment on column webhook.activity.messages is
    'Messages that came for the URL.';
comment on column webhook.activity.calls is
    'Calls that ended, retries included.';
comment on column webhook.activity.failures is
    'Those of them that failed.';
comment on column webhook.activity.p50_ms is
    'Half of the calls took no longer, in milliseconds, 6 % at most off.';
comment on column webhook.activity.p95_ms is
    '95 % of the calls took no longer, in milliseconds, 6 % at most off.';
comment on column webhook.activity.max_ms is
    'The longest call, in milliseconds.';
comment on column webhook.activity.pending is
    'Messages not settled when the row was last written, those that wait for a retry not counted.';
comment on column webhook.activity.webhook_name is
    'Name of the webhook.';
comment on column webhook.activity.connect_failures is
    'Failures: the name has no address, the port is closed, the connection broke.';
comment on column webhook.activity.tls_failures is
    'Failures: no secure connection, for example because of the certificate.';
comment on column webhook.activity.timeouts is
    'Failures: timeout_ms was over.';
comment on column webhook.activity.http_4xx is
    'Failures: answered 400 to 499.';
comment on column webhook.activity.http_5xx is
    'Failures: answered 500 to 599.';
comment on column webhook.activity.other_failures is
    'Failures: any other, as a redirect, a refused address or a message that is too large.';
comment on column webhook.activity.durations is
    'How many calls took how long, for webhook.duration_quantile().';

comment on table webhook_internal.activity_0 is
    'Internal: what happened in each minute, by URL; emptied as a whole.';
comment on table webhook_internal.activity_1 is
    'Internal: what happened in each minute, by URL; emptied as a whole.';
comment on table webhook_internal.activity_2 is
    'Internal: what happened in each minute, by URL; emptied as a whole.';
comment on table webhook_internal.activity_3 is
    'Internal: what happened in each minute, by URL; emptied as a whole.';
comment on table webhook_internal.call_duration is
    'Internal: how long the calls of each URL took.';
comment on table webhook_internal.worker_total is
    'Internal: one row, how often the worker has started, and how long locks held it up.';
comment on view webhook_internal.activity_row is
    'Internal: all tables of what happened in each minute.';

-- More metrics, and as text.
set local search_path = pg_catalog, pg_temp;

create or replace view webhook.metrics as
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

comment on view webhook.metrics is
    'Everything as numbers, one row a sample: webhook_messages_total, _calls_total, _call_errors_total, '
    '_event_disabled of each event; _pending_messages, _since_success_seconds, _url_disabled and more of each '
    'URL; _call_duration_seconds of each webhook; _worker_*, _delivery_enabled, _bytes.';
comment on function webhook.prometheus() is
    'All of webhook.metrics as text in the format of OpenMetrics 1.0, which Prometheus scrapes: with TYPE, UNIT and '
    'HELP of each metric, and # EOF at the end. Serve it as application/openmetrics-text.';

-- What is loaded and installed.

-- Works whatever the versions are, so that it can be asked when nothing else does.
create function webhook.version()
returns text
language c
stable
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'library_version_wrapper';

comment on function webhook.version() is
    'The versions of the library that this session has loaded and of the schema in this database, the commit that '
    'the library was built from, and the major version of PostgreSQL that it was built for. While library and '
    'schema differ, webhook.worker.detail says what to do.';

-- A page for people.

-- PostgREST serves what a function returns as this domain with the media type that the domain is named for.
create domain webhook."text/html" as pg_catalog.text;
revoke all on type webhook."text/html" from public;

create function webhook.status_page(refresh interval default '10 seconds')
returns webhook."text/html"
language c
set search_path = pg_catalog, pg_temp
set jit = off
as 'MODULE_PATHNAME', 'status_page_wrapper';

comment on domain webhook."text/html" is
    'A page, for what serves a result by the name of its type, as PostgREST does.';
comment on function webhook.status_page(interval) is
    'A page that shows how webhooks fare: one verdict, figures, the last hour, each URL with the statement '
    'that mends it, failures, last calls. refresh: the page loads itself again after so long, 0 = never. Only '
    'roles that may call webhook.drop_webhook() see answers. Errors: 22023 refresh out of range.';

-- A cluster of Citus: definitions are made on the coordinator and applied on every node.

-- Definitions as documents, one for each row of a definition table; of secrets, one for each webhook. Empty until
-- webhook.enable_cluster() has made a reference table of it; then the coordinator writes it with each change of a
-- definition, and a trigger on the placement of each node applies it there in the same distributed transaction.
create table webhook_internal.cluster_document (
    kind    text not null check (kind operator(pg_catalog.=) any (
        array['cluster', 'webhook_def', 'secret_def', 'url_def', 'event_def']
    )),
    key     integer not null,
    doc     jsonb not null,
    version bigint not null default 1,
    primary key (kind, key)
);

-- Which of them this node has applied. A document that came with a copy of the table has fired no trigger.
create table webhook_internal.cluster_applied (
    kind    text not null,
    key     integer not null,
    version bigint not null,
    primary key (kind, key)
);

-- Names and operators below are PostgreSQL's own, whatever else the schema may hold.
set local search_path = pg_catalog, pg_temp;

-- The present names of columns in the order of the recorded ones; null if one is gone.
create function webhook_internal.names_now(object regclass, recorded_for oid, names text[], numbers smallint[])
returns text[]
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
    select case
               when webhook.columns_present(object, recorded_for, names, numbers)
               then webhook.present_columns(object, recorded_for, names, numbers)
           end
$$;

-- The numbers of columns, null if there are no names or one is not there.
create function webhook_internal.column_numbers(object oid, names jsonb)
returns smallint[]
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
    select case when count(*) = count(a.attnum) and count(*) > 0 then array_agg(a.attnum order by f.place) end
    from jsonb_array_elements_text(case jsonb_typeof(names) when 'array' then names end) with ordinality as f (name, place)
    left join pg_attribute a
      on a.attrelid = object
     and a.attname = f.name
     and a.attnum > 0
     and not a.attisdropped
$$;

-- The documents of the definitions that are here. Tables and columns stand in them by the names that they have now.
create view webhook_internal.cluster_document_now as
select 'webhook_def' as kind, w.webhook_key as key, to_jsonb(w) as doc
from webhook.webhook_def w
union all
select 'secret_def', w.webhook_key,
       coalesce((
           select jsonb_agg(to_jsonb(s) order by s.created_at, s.secret)
           from webhook.secret_def s
           where s.webhook_key = w.webhook_key
       ), '[]')
from webhook.webhook_def w
union all
select 'url_def', u.url_key, to_jsonb(u)
from webhook.url_def u
union all
select 'event_def', e.event_key,
       to_jsonb(e) - array['object_oid', 'owner_oid', 'object_attnums', 'payload_attnums', 'template_attnums',
                           'match_attnums', 'order_key_attnums']
       || jsonb_build_object(
              'object_name', case when c.oid is not null then format('%I.%I', n.nspname, c.relname) end,
              'object_label', l.object_text,
              'owner_name', coalesce(o.owner, e.owner_name),
              'object_now', webhook_internal.names_now(e.object_name, e.object_oid, e.object_fields, e.object_attnums),
              'payload_now', webhook_internal.names_now(e.object_name, e.object_oid, e.payload_fields, e.payload_attnums),
              'template_now', webhook_internal.names_now(e.object_name, e.object_oid, e.template_fields, e.template_attnums),
              'match_now', webhook_internal.names_now(e.object_name, e.object_oid, e.match_fields, e.match_attnums),
              'order_now', webhook_internal.names_now(e.object_name, e.object_oid, e.order_key, e.order_key_attnums)
          )
from webhook.event_def e
join webhook_internal.event_label l on l.event_key = e.event_key
join webhook_internal.event_owner o on o.event_key = e.event_key
left join pg_class c on c.oid = e.object_name
left join pg_namespace n on n.oid = c.relnamespace;

-- Brings a definition of this node in line with its document; without one it is removed, unless it was
-- dropped: then its own log and outbox may still name it, and this node's worker removes it.
create function webhook_internal.apply_cluster_document(kind text, key integer, doc jsonb)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    key_column constant text := case kind when 'url_def' then 'url_key' when 'event_def' then 'event_key' else 'webhook_key' end;
    wanted jsonb := doc;
    object oid;
begin
    if kind = 'cluster' then
        update webhook.control
        set account_id = doc ->> 'account_id'
        where account_id is distinct from doc ->> 'account_id';
        return;
    end if;
    if kind = 'secret_def' then
        delete from webhook.secret_def s
        where s.webhook_key = key
          and not exists (
              select from jsonb_array_elements(coalesce(doc, '[]')) d where d ->> 'secret' = s.secret
          );
        insert into webhook.secret_def
        select r.*
        from jsonb_populate_recordset(null::webhook.secret_def, coalesce(doc, '[]')) r
        on conflict (webhook_key, secret) do update
        set created_at = excluded.created_at, expires_at = excluded.expires_at;
        return;
    end if;
    if doc is null then
        execute format('delete from webhook.%I where %I = $1 and dropped_at is null', kind, key_column) using key;
        return;
    end if;
    if kind = 'webhook_def' and doc ->> 'dropped_at' is null then
        -- Another webhook had the name here, and has another one or none in its own document, which comes later.
        update webhook.webhook_def w
        set name = concat(w.id, ' ', w.name)
        where w.name = doc ->> 'name'
          and w.webhook_key <> key
          and w.dropped_at is null;
    end if;
    if kind = 'event_def' then
        object := to_regclass(doc ->> 'object_name');
        wanted := doc || jsonb_build_object(
            'object_name', object::regclass,
            'object_oid', object,
            'owner_oid', (select r.oid from pg_roles r where r.rolname::text = doc ->> 'owner_name'),
            'object_attnums', webhook_internal.column_numbers(object, doc -> 'object_now'),
            'payload_attnums', webhook_internal.column_numbers(object, doc -> 'payload_now'),
            'template_attnums', webhook_internal.column_numbers(object, doc -> 'template_now'),
            'match_attnums', webhook_internal.column_numbers(object, doc -> 'match_now'),
            'order_key_attnums', webhook_internal.column_numbers(object, doc -> 'order_now')
        );
    end if;
    execute format(
        'insert into webhook.%1$I select r.* from jsonb_populate_record(null::webhook.%1$I, $1) r'
        ' on conflict (%2$I) do update set %3$s',
        kind, key_column,
        (
            select string_agg(format('%1$I = excluded.%1$I', a.attname), ', ')
            from pg_attribute a
            where a.attrelid = format('webhook.%I', kind)::regclass
              and a.attnum > 0
              and not a.attisdropped
              and a.attname <> key_column
        )
    ) using wanted;
end
$$;

-- Events whose table came to this node after them, or came back under its name with another number, as Citus does
-- it when it converts a table: they are about that table from now on. Gives how many; null is all tables.
create function webhook_internal.find_tables_again(only_table oid)
returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    changed bigint;
begin
    update webhook.event_def e
    set object_name = f.object,
        object_oid = f.object,
        object_attnums = webhook_internal.column_numbers(f.object, to_jsonb(e.object_fields)),
        payload_attnums = webhook_internal.column_numbers(f.object, to_jsonb(e.payload_fields)),
        template_attnums = webhook_internal.column_numbers(f.object, to_jsonb(e.template_fields)),
        match_attnums = webhook_internal.column_numbers(f.object, to_jsonb(e.match_fields)),
        order_key_attnums = webhook_internal.column_numbers(f.object, to_jsonb(e.order_key))
    from (
        select c.oid as object,
               c.relname,
               case
                   when n.nspname = 'public' then
                       case when c.relname ~ '[."]' then concat('"', replace(c.relname::text, '"', '""'), '"') else c.relname::text end
                   else concat(
                       case when n.nspname ~ '[."]' then concat('"', replace(n.nspname::text, '"', '""'), '"') else n.nspname::text end,
                       '.',
                       case when c.relname ~ '[."]' then concat('"', replace(c.relname::text, '"', '""'), '"') else c.relname::text end
                   )
               end as label
        from pg_class c
        join pg_namespace n on n.oid = c.relnamespace
        where c.relkind in ('r', 'p')
          and (only_table is null or c.oid = only_table)
    ) f
    where f.label = e.object_label
      -- The last part of the label, for the index.
      and f.relname = (case
              when right(e.object_label, 1) = '"' then
                  replace(substring(e.object_label from '(?:^|\.)"((?:[^"]|"")*)"$'), '""', '"')
              else substring(e.object_label from '[^.]*$')
          end)::name
      and e.dropped_at is null
      and not exists (select from pg_class c where c.oid = e.object_name);
    get diagnostics changed = row_count;
    -- A table that has left this node is none that was dropped: its coordinator has it.
    if only_table is null and webhook_internal.is_cluster() and (select l.groupid from pg_dist_local_group l) <> 0 then
        update webhook.event_def e
        set object_name = null, object_oid = null
        where e.object_name is not null
          and not exists (select from pg_class c where c.oid = e.object_name);
    end if;
    return changed;
end
$$;

-- Writes the document of one definition, if it has changed. On the coordinator.
create function webhook_internal.publish_cluster_document(of_kind text, of_key integer)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    wanted jsonb;
begin
    select n.doc into wanted
    from webhook_internal.cluster_document_now n
    where n.kind = of_kind
      and n.key = of_key;
    if wanted is null then
        delete from webhook_internal.cluster_document d where d.kind = of_kind and d.key = of_key;
    else
        insert into webhook_internal.cluster_document as d (kind, key, doc)
        values (of_kind, of_key, wanted)
        on conflict (kind, key) do update
        set doc = excluded.doc, version = d.version + 1
        where d.doc is distinct from excluded.doc;
    end if;
end
$$;

create function webhook_internal.cluster_document_changed()
returns trigger
language c
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'cluster_document_changed_wrapper';

create trigger cluster_document_changed
    after insert or update or delete on webhook_internal.cluster_document
    for each row execute function webhook_internal.cluster_document_changed();

-- The rows of a view on each node, with the rights of the caller there; without a cluster, here. Whoever may not
-- connect to a node gets no answer from it.
create function webhook_internal.on_each_node(of_view text)
returns table (node text, answered boolean, answer text)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    command text;
begin
    if of_view is null or of_view not in ('queue', 'worker', 'metrics') then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = 'of_view is none of queue, worker and metrics',
            hint = 'read webhook.cluster_queue, cluster_worker or cluster_metrics';
    end if;
    -- The search_path of a node's session is that of its user: each name has its schema.
    command := format(
        'select coalesce(pg_catalog.jsonb_agg(pg_catalog.to_jsonb(v)), ''[]'')::pg_catalog.text from webhook.%I v',
        of_view
    );
    if not webhook_internal.is_cluster() then
        node := 'here';
        answered := true;
        execute command into answer;
        return next;
        return;
    end if;
    return query
        select concat(n.nodename, ':', n.nodeport), r.success, r.result
        from run_command_on_all_nodes(command, true, true) r
        join pg_dist_node n on n.nodeid = r.nodeid
        order by n.groupid;
end
$$;

-- Whether webhook.enable_cluster() was called.
create function webhook_internal.is_cluster()
returns boolean
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
    if to_regclass('pg_catalog.pg_dist_partition') is null then
        return false;
    end if;
    return exists (
        select
        from pg_dist_partition p
        where p.logicalrelid = 'webhook_internal.cluster_document'::regclass
    );
end
$$;

create function webhook.enable_cluster()
returns void
language c
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'enable_cluster_wrapper';

create function webhook.drain_node(node text)
returns bigint
language c
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'drain_node_wrapper';

create view webhook.cluster_queue as
select n.node, v.*
from webhook_internal.on_each_node('queue') n
left join lateral jsonb_populate_recordset(
    null::webhook.queue,
    case when n.answered then n.answer::jsonb else jsonb_build_array(jsonb_build_object('state', 'unreachable', 'last_error', n.answer)) end
) v on true;

create view webhook.cluster_worker as
select n.node, v.*
from webhook_internal.on_each_node('worker') n
left join lateral jsonb_populate_recordset(
    null::webhook.worker,
    case when n.answered then n.answer::jsonb else jsonb_build_array(jsonb_build_object('state', 'unreachable', 'last_error', n.answer)) end
) v on true;

create view webhook.cluster_metrics as
select n.node, v.*
from webhook_internal.on_each_node('metrics') n
cross join lateral (
    select m.*
    from jsonb_populate_recordset(null::webhook.metrics, case when n.answered then n.answer::jsonb end) m
    union all
    select 'webhook_node_answers', '{}', n.answered::integer
) v;

set local search_path = webhook, pg_temp;

do $$
declare
    name text;
begin
    foreach name in array array['webhook_internal.cluster_applied', 'webhook_internal.cluster_document'] loop
        execute pg_catalog.format(
            'create trigger refuse_replicated before insert or truncate on %s'
            ' for each statement execute function webhook_internal.refuse_replicated()', name);
        execute pg_catalog.format(
            'create trigger refuse_replicated_rows after insert or update or delete on %s'
            ' for each row execute function webhook_internal.refuse_replicated()', name);
        execute pg_catalog.format('alter table %s enable replica trigger refuse_replicated', name);
        execute pg_catalog.format('alter table %s enable replica trigger refuse_replicated_rows', name);
    end loop;
end
$$;

comment on function webhook.enable_cluster() is
    'On the coordinator of a Citus cluster: from now on webhooks and events are defined there, and each node captures '
    'and sends what happens in its own shards. Again: puts right what a node lacks. For superusers. Errors: 55000 no '
    'Citus, not the coordinator, or a node is not fit, 42501.';
comment on function webhook.drain_node(text) is
    'How many messages a node of the cluster has still to send, by its name or name:port; at 0 it may be removed once '
    'its shards have gone. Errors: 22023 null, 42704 no such node, or it does not answer.';
comment on view webhook.cluster_queue is
    'webhook.queue of each node of a Citus cluster. A node that does not answer is one row with state unreachable and '
    'the reason as last_error. Without a cluster: of this database.';
comment on view webhook.cluster_worker is
    'webhook.worker of each node of a Citus cluster. A node that does not answer is one row with state unreachable and '
    'the reason as last_error. Without a cluster: of this database.';
comment on view webhook.cluster_metrics is
    'webhook.metrics of each node of a Citus cluster, and webhook_node_answers: 1, or 0 of a node that does not '
    'answer. Without a cluster: of this database.';
comment on table webhook_internal.cluster_document is
    'Internal: definitions of a Citus cluster as documents, secrets included: a reference table once webhook.enable_cluster() '
    'was called.';
comment on table webhook_internal.cluster_applied is
    'Internal: which documents this node of a cluster has applied.';
comment on view webhook_internal.cluster_document_now is
    'Internal: the documents of the definitions as they are now.';
comment on function webhook_internal.names_now(regclass, oid, text[], smallint[]) is
    'Present names of recorded columns; null if one is gone.';
comment on function webhook_internal.column_numbers(oid, jsonb) is
    'Numbers of columns by name; null if one is not there.';
comment on function webhook_internal.apply_cluster_document(text, integer, jsonb) is
    'Makes the definition of this node what its document says; null removes it.';
comment on function webhook_internal.find_tables_again(oid) is
    'Events whose table came later, or under another number, are about it from now on.';
comment on function webhook_internal.publish_cluster_document(text, integer) is
    'Writes the document of a definition that has changed.';
comment on function webhook_internal.cluster_document_changed() is
    'Trigger on each placement of webhook_internal.cluster_document: applies the document.';
comment on function webhook_internal.on_each_node(text) is
    'The rows of a view on each node of a cluster, with the rights of the caller.';
comment on function webhook_internal.is_cluster() is
    'Whether webhook.enable_cluster() was called.';

-- The role that the worker's statements run as: what they need, by name, and nothing else. Nobody is a
-- member of it. A function, because a role that was dropped has to come back with its privileges.

create function webhook.create_worker_role()
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    unfit record;
begin
    if not (select r.rolsuper from pg_roles r where r.rolname = current_user) then
        raise exception using
            errcode = 'insufficient_privilege',
            message = 'only a superuser may make the role of the worker',
            hint = 'let a superuser call it';
    end if;
    if not exists (select from pg_roles r where r.rolname = 'webhook_worker') then
        create role webhook_worker nologin;
    end if;
    select u.what, u.way_out
    into unfit
    from pg_roles r
    left join lateral (
        select g.rolname
        from pg_auth_members m
        join pg_roles g on g.oid = m.member
        where m.roleid = r.oid
        order by g.rolname
        limit 1
    ) m on true
    cross join lateral (values
        (r.rolsuper, 'is a superuser', 'alter role webhook_worker nosuperuser'),
        (r.rolcanlogin, 'may log in', 'alter role webhook_worker nologin'),
        (r.rolcreaterole or r.rolcreatedb or r.rolreplication or r.rolbypassrls,
         'has attributes that it does not need',
         'alter role webhook_worker nocreaterole nocreatedb noreplication nobypassrls'),
        (m.rolname is not null,
         'has the member ' || quote_ident(m.rolname), 'revoke webhook_worker from ' || quote_ident(m.rolname))
    ) u (is_so, what, way_out)
    where r.rolname = 'webhook_worker'
      and u.is_so
    limit 1;
    if found then
        raise exception using
            errcode = 'object_not_in_prerequisite_state',
            message = format('role "webhook_worker" %s', unfit.what),
            detail = 'The worker acts as this role, which reads secrets: nobody else may use it.',
            hint = format('look who made it so, then: %s', unfit.way_out);
    end if;

    -- Up to version 16 PostgreSQL leaves a role that was dropped among the initial privileges of an
    -- extension's objects. A dump would revoke from its number, which ends pg_upgrade.
    with cleaned as (
        select i.objoid, i.classoid, i.objsubid,
               array(
                   select e.item
                   from unnest(i.initprivs) as e (item)
                   where not exists (
                       select
                       from aclexplode(array[e.item]) a
                       where a.grantee <> 0 and not exists (select from pg_roles r where r.oid = a.grantee)
                   )
               ) as initprivs
        from (
            select d.classid, d.objid
            from pg_depend d
            join pg_extension x on x.oid = d.refobjid
            where x.extname = 'webhook_ext'
              and d.refclassid = 'pg_extension'::regclass
              and d.deptype = 'e'
            union all
            select 'pg_namespace'::regclass, 'webhook'::regnamespace
        ) o (classid, objid)
        join pg_init_privs i on i.classoid = o.classid and i.objoid = o.objid
    ),
    emptied as (
        delete from pg_init_privs i
        using cleaned c
        where i.objoid = c.objoid and i.classoid = c.classoid and i.objsubid = c.objsubid
          and cardinality(c.initprivs) = 0
    )
    update pg_init_privs i
    set initprivs = c.initprivs
    from cleaned c
    where i.objoid = c.objoid and i.classoid = c.classoid and i.objsubid = c.objsubid
      and cardinality(c.initprivs) between 1 and cardinality(i.initprivs) - 1;

    if not pg_has_role('webhook_worker', 'pg_read_all_stats', 'usage') then
        grant pg_read_all_stats to webhook_worker;
    end if;
    grant usage on schema webhook, webhook_internal to webhook_worker;
    grant select
        on webhook.webhook_def, webhook.secret_def, webhook.url_def, webhook.event_def, webhook.def_origin,
           webhook.control, webhook_internal.segment, webhook_internal.outbox, webhook_internal.tail,
           webhook_internal.uncompacted
        to webhook_worker;
    grant update (detail) on webhook.webhook_def to webhook_worker;
    grant update (disabled_at, detail) on webhook.url_def to webhook_worker;
    grant update (outbox_number) on webhook.control to webhook_worker;
    grant usage on sequence webhook.outbox_flush_seq to webhook_worker;
    grant update (opened_at, closed_at) on webhook_internal.segment to webhook_worker;
    grant select, insert, truncate
        on webhook.outbox_0, webhook.outbox_1, webhook.outbox_2, webhook.outbox_3
        to webhook_worker;
    grant select, insert, update, truncate
        on webhook_internal.activity_0, webhook_internal.activity_1, webhook_internal.activity_2, webhook_internal.activity_3
        to webhook_worker;
    grant select, insert, update on webhook_internal.call_duration, webhook_internal.worker_total to webhook_worker;
    grant insert, truncate
        on webhook_internal.call_log_0, webhook_internal.call_log_1, webhook_internal.call_log_2, webhook_internal.call_log_3
        to webhook_worker;
    grant select, insert, update, delete on webhook_internal.retry to webhook_worker;
    grant select, update (taken_before, taken_within, taken_up_to, in_flight), delete
        on webhook_internal.cancellation
        to webhook_worker;
    grant select, insert, delete on webhook_internal.settlement, webhook_internal.tick to webhook_worker;
    grant select, delete on webhook_internal.definition_change, webhook_internal.change_log to webhook_worker;
    grant select, insert, update on webhook_internal.lane, webhook_internal.counter to webhook_worker;
    grant select, insert, delete on webhook_internal.counter_day to webhook_worker;
    grant select, update on webhook_internal.compaction to webhook_worker;
    grant select, insert, update, delete on webhook_internal.stopped_event to webhook_worker;
    grant select on webhook_internal.event_now to webhook_worker;
    -- No function that runs with the rights of its owner.
    grant execute
        on function webhook.present_columns(regclass, oid, text[], smallint[]), webhook_internal.match_kind(oid, oid),
           webhook_internal.unknown_labels(oid, jsonb), webhook_internal.shared_trigger(oid, text)
        to webhook_worker;
end
$$;
comment on function webhook.create_worker_role() is
    'Makes the role webhook_worker, if it is missing, and grants it what the statements of the worker need in '
    'this database. Call it when the role was dropped or privileges of it were revoked. Errors: 42501 not a '
    'superuser, 55000 a role of this name can log in, has members or other attributes.';

-- Comments that changed since 0.1.0.
comment on function webhook_internal.busy_messages() is
    'Internal: messages taken by a lane and not settled, for the views.';
comment on schema webhook_internal is
    'What the extension webhook_ext keeps for itself. Nothing in it is for users, and any release may change it.';
comment on function webhook.explain_event(text) is
    'Why a message of an event, given by id, comes or does not come: one row a check, with what to do in '
    'detail, and a last one, overall. About a change made in this session, now; names in URLs are not '
    'resolved. Errors: 42704 unknown event.';
comment on column webhook.messages.status is
    'pending: a URL still has to get it, or is getting it; delivered: every URL that the webhook still has got '
    'it; failed: given up for a URL; canceled: for a URL, or with its webhook.';
comment on table webhook_internal.cancellation is
    'Internal: what webhook.cancel_pending() canceled.';
comment on sequence webhook_internal.cancellation_cancellation_id_seq is
    'Internal: keys of webhook_internal.cancellation.';
comment on table webhook_internal.retry is
    'Internal: calls that failed and will be repeated, were given up or canceled.';
comment on table webhook_internal.settlement is
    'Internal: what the worker has settled since the last compaction.';
comment on table webhook_internal.compaction is
    'Internal: one row, up to which settlement all are added up.';
comment on table webhook_internal.counter is
    'Internal: counts of messages, calls and errors up to the last compaction.';
comment on table webhook_internal.lane is
    'Internal: backlog and state of each URL up to the last compaction.';
comment on view webhook_internal.uncompacted is
    'Internal: the settlements since the last compaction.';

-- Privileges: none but those that are granted here, whatever default privileges the installer has.
-- Those that were granted by hand are told of.
revoke all on all tables in schema webhook, webhook_internal from public;
revoke all on all sequences in schema webhook, webhook_internal from public;
do $$
declare
    item record;
begin
    for item in
        with member as (
            select d.classid, d.objid
            from pg_catalog.pg_depend d
            join pg_catalog.pg_extension e on e.oid operator(pg_catalog.=) d.refobjid
            where e.extname operator(pg_catalog.=) 'webhook_ext'
              and d.refclassid operator(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass
              and d.deptype operator(pg_catalog.=) 'e'
        ),
        object (described, owner, acl) as (
            select pg_catalog.format('schema %I', n.nspname), n.nspowner,
                   coalesce(n.nspacl, pg_catalog.acldefault('n', n.nspowner))
            from pg_catalog.pg_namespace n
            where n.nspname operator(pg_catalog.=) any (array['webhook', 'webhook_internal'])
            union all
            select pg_catalog.format(
                       '%s %s.%I', case when c.relkind operator(pg_catalog.=) 'S' then 'sequence' else 'table' end,
                       c.relnamespace::pg_catalog.regnamespace, c.relname),
                   c.relowner, c.relacl
            from member m
            join pg_catalog.pg_class c on c.oid operator(pg_catalog.=) m.objid
            where m.classid operator(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
            union all
            select pg_catalog.format('table %s.%I', c.relnamespace::pg_catalog.regnamespace, c.relname), c.relowner, a.attacl
            from member m
            join pg_catalog.pg_class c on c.oid operator(pg_catalog.=) m.objid
            join pg_catalog.pg_attribute a on a.attrelid operator(pg_catalog.=) c.oid
            where m.classid operator(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
            union all
            select pg_catalog.format('function %s', p.oid::pg_catalog.regprocedure),
                   p.proowner, coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))
            from member m
            join pg_catalog.pg_proc p on p.oid operator(pg_catalog.=) m.objid
            where m.classid operator(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass
            union all
            select pg_catalog.format('type %s', t.oid::pg_catalog.regtype), t.typowner, t.typacl
            from member m
            join pg_catalog.pg_type t on t.oid operator(pg_catalog.=) m.objid
            where m.classid operator(pg_catalog.=) 'pg_catalog.pg_type'::pg_catalog.regclass
              and t.typrelid operator(pg_catalog.=) 0
        )
        select distinct
               pg_catalog.format(
                   'revoke all on %s from %s cascade', o.described, coalesce(pg_catalog.quote_ident(r.rolname), 'public')
               ) as statement,
               r.rolname operator(pg_catalog.!~) '^webhook_(admin|reader|worker)$' as is_other
        from object o
        cross join pg_catalog.aclexplode(o.acl) x
        left join pg_catalog.pg_roles r on r.oid operator(pg_catalog.=) x.grantee
        where x.grantee operator(pg_catalog.<>) o.owner
    loop
        if item.is_other then
            raise warning 'done by this update: %', item.statement;
        end if;
        execute item.statement;
    end loop;
end
$$;

drop function webhook.create_event(text, regclass, text, text[], text[], text[], text, text, boolean, text, text, text);
drop function webhook.create_webhook(text, text[], text, integer, boolean, jsonb, integer, integer, interval, integer, text, text);
drop function webhook.update_webhook(text, text, text[], text, integer, boolean, jsonb, integer, integer, interval, integer, text, text);
drop function webhook.update_event(text, text[], text[], text[], text, text, boolean, text, text, text);

grant usage on schema webhook, webhook_internal to webhook_admin, webhook_reader;
grant select
    on webhook.webhooks, webhook.events, webhook.messages, webhook.calls, webhook.queue, webhook.worker,
       webhook.metrics, webhook.changes, webhook.activity, webhook.cluster_queue, webhook.cluster_worker,
       webhook.cluster_metrics
    to webhook_admin, webhook_reader;
grant execute
    on function webhook_internal.worker_process(), webhook_internal.worker_detail(), webhook_internal.worker_absence(),
       webhook_internal.delivery_hold(), webhook_internal.unseen_messages(), webhook_internal.busy_messages(),
       webhook_internal.masked_url(text), webhook_internal.masked_headers(jsonb), webhook_internal.masked_values(jsonb),
       webhook_internal.match_kind(oid, oid), webhook_internal.unknown_labels(oid, jsonb),
       webhook_internal.shared_trigger(oid, text), webhook_internal.on_each_node(text), webhook_internal.is_cluster()
    to webhook_reader;
grant execute
    on function webhook.duration_quantile(text, double precision, double precision), webhook.prometheus(),
       webhook.status_page(interval), webhook.version()
    to webhook_reader;
-- What only reads. The functions check the caller's rights on tables, and mask what readers may not see.
grant execute
    on function webhook.message(uuid), webhook.explain_event(text), webhook.preview_payload(text, jsonb),
       webhook.template_parameters(regclass)
    to webhook_reader;

-- Monitoring systems are members of this role of PostgreSQL.
grant usage on schema webhook, webhook_internal to pg_monitor;
grant select on webhook.worker, webhook.queue, webhook.metrics, webhook.activity to pg_monitor;
grant execute
    on function webhook_internal.worker_process(), webhook_internal.worker_detail(), webhook_internal.worker_absence(),
       webhook_internal.delivery_hold(), webhook_internal.unseen_messages(), webhook_internal.busy_messages(),
       webhook_internal.masked_url(text), webhook_internal.match_kind(oid, oid),
       webhook_internal.unknown_labels(oid, jsonb), webhook_internal.shared_trigger(oid, text),
       webhook.duration_quantile(text, double precision, double precision), webhook.prometheus(), webhook.version()
    to pg_monitor;

grant execute on all functions in schema webhook, webhook_internal to webhook_admin;
revoke execute
    on function webhook.grant_to(text, text), webhook.revoke_from(text), webhook.create_worker_role(),
       webhook_internal.definitions_changed(), webhook_internal.definition_row_changed(),
       webhook_internal.refuse_replicated(), webhook_internal.check_grantee(text), webhook_internal.extension_installed(),
       webhook.enable_cluster(), webhook_internal.cluster_document_changed(),
       webhook_internal.apply_cluster_document(text, integer, jsonb), webhook_internal.find_tables_again(oid),
       webhook_internal.publish_cluster_document(text, integer)
    from webhook_admin;
select webhook.create_worker_role();

-- Last: the worker of the new library waits for this.
select webhook_internal.extension_installed();
