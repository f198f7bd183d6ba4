-- Each change of a definition makes what worker and backends have cached stale, also one by
-- hand and in a restore: always, whatever session_replication_role says.

create function webhook_internal.definitions_changed()
returns trigger
language c
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'definitions_changed_wrapper';

create trigger definitions_changed
    after insert or update or delete or truncate on webhook.webhook_def
    for each statement execute function webhook_internal.definitions_changed();
create trigger definitions_changed
    after insert or update or delete or truncate on webhook.secret_def
    for each statement execute function webhook_internal.definitions_changed();
create trigger definitions_changed
    after insert or update or delete or truncate on webhook.url_def
    for each statement execute function webhook_internal.definitions_changed();
create trigger definitions_changed
    after insert or update or delete or truncate on webhook.event_def
    for each statement execute function webhook_internal.definitions_changed();
create trigger definitions_changed
    after insert or update or delete or truncate on webhook.control
    for each statement execute function webhook_internal.definitions_changed();
create trigger definitions_changed
    after insert or update or delete or truncate on webhook.def_origin
    for each statement execute function webhook_internal.definitions_changed();

alter table webhook.webhook_def enable always trigger definitions_changed;
alter table webhook.secret_def enable always trigger definitions_changed;
alter table webhook.url_def enable always trigger definitions_changed;
alter table webhook.event_def enable always trigger definitions_changed;
alter table webhook.control enable always trigger definitions_changed;
alter table webhook.def_origin enable always trigger definitions_changed;

-- Which webhook a row belongs to is told to the worker, which then reads that webhook alone.

create function webhook_internal.definition_row_changed()
returns trigger
language c
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'definition_row_changed_wrapper';

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

-- Rows of another database are neither definitions nor messages of this one: a subscription that
-- receives them ends with an error. A copy of a table fires triggers of statements, what follows
-- those of rows.

create function webhook_internal.refuse_replicated()
returns trigger
language c
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'refuse_replicated_wrapper';

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

-- What a dump carries: the definitions that are in use. Outbox, settlements and log mean nothing
-- in another cluster, because transaction ids do not.

select pg_catalog.pg_extension_config_dump('webhook.definition_key_seq', '');
select pg_catalog.pg_extension_config_dump('webhook.webhook_def', 'where dropped_at is null');
select pg_catalog.pg_extension_config_dump(
    'webhook.secret_def',
    'where webhook_key in (select webhook_key from webhook.webhook_def where dropped_at is null)'
);
select pg_catalog.pg_extension_config_dump(
    'webhook.url_def',
    'where dropped_at is null'
    ' and webhook_key in (select webhook_key from webhook.webhook_def where dropped_at is null)'
);
-- Without those whose table is gone: their regclass could not be read back.
select pg_catalog.pg_extension_config_dump(
    'webhook.event_def',
    'where dropped_at is null'
    ' and object_name::pg_catalog.oid in (select oid from pg_catalog.pg_class)'
    ' and webhook_key in (select webhook_key from webhook.webhook_def where dropped_at is null)'
);
-- pg_dump puts it first, because its name comes before those of the other tables: a restore knows
-- where the definitions were made before it has them.
select pg_catalog.pg_extension_config_dump(
    'webhook.def_origin',
    'where exists (select from webhook.webhook_def where dropped_at is null)'
);
