-- Whoever changes a definition makes what worker and backends have cached stale, also by
-- hand and in a restore: always, whatever session_replication_role says.

create function webhook.definitions_changed()
returns trigger
language c
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'definitions_changed_wrapper';

create trigger definitions_changed
    after insert or update or delete or truncate on webhook.webhook_def
    for each statement execute function webhook.definitions_changed();
create trigger definitions_changed
    after insert or update or delete or truncate on webhook.secret_def
    for each statement execute function webhook.definitions_changed();
create trigger definitions_changed
    after insert or update or delete or truncate on webhook.url_def
    for each statement execute function webhook.definitions_changed();
create trigger definitions_changed
    after insert or update or delete or truncate on webhook.event_def
    for each statement execute function webhook.definitions_changed();
create trigger definitions_changed
    after insert or update or delete or truncate on webhook.control
    for each statement execute function webhook.definitions_changed();

alter table webhook.webhook_def enable always trigger definitions_changed;
alter table webhook.secret_def enable always trigger definitions_changed;
alter table webhook.url_def enable always trigger definitions_changed;
alter table webhook.event_def enable always trigger definitions_changed;
alter table webhook.control enable always trigger definitions_changed;

-- What a dump carries: the definitions that are in use. Outbox, ledger and log mean nothing
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
