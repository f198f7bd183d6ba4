-- Who may do what: public, reader, admin, table owner, superuser.
create extension webhook_ext;
select webhook.stop_worker() is not null as stopped;
do $$
begin
    while exists (select from webhook.worker where pid is not null) loop
        perform pg_sleep(0.01);
        perform pg_stat_clear_snapshot();
    end loop;
end
$$;

create role anybody;
create role a_reader in role webhook_reader;
create role an_admin in role webhook_admin;
create role a_table_owner;
create table accounts (id integer, owner_note text);
alter table accounts owner to a_table_owner;
grant insert on accounts to anybody;

-- The matrix
select p.oid::regproc as function,
       has_function_privilege('anybody', p.oid, 'execute') as public,
       has_function_privilege('a_reader', p.oid, 'execute') as reader,
       has_function_privilege('an_admin', p.oid, 'execute') as admin,
       has_function_privilege('a_table_owner', p.oid, 'execute') as table_owner,
       p.prosecdef as security_definer
from pg_proc p
where p.pronamespace in ('webhook'::regnamespace, 'webhook_internal'::regnamespace)
order by p.pronamespace::regnamespace::text, p.proname;

select c.oid::regclass as relation,
       has_table_privilege('anybody', c.oid, 'select, insert, update, delete, truncate, references, trigger') as public,
       has_table_privilege('a_reader', c.oid, 'select') as reader_reads,
       has_table_privilege('a_reader', c.oid, 'insert, update, delete, truncate, references, trigger') as reader_writes,
       has_table_privilege('an_admin', c.oid, 'select') as admin_reads,
       has_table_privilege('an_admin', c.oid, 'insert, update, delete, truncate, references, trigger') as admin_writes,
       has_table_privilege('a_table_owner', c.oid, 'select, insert, update, delete, truncate, references, trigger') as table_owner
from pg_class c
where c.relnamespace in ('webhook'::regnamespace, 'webhook_internal'::regnamespace)
  and c.relkind in ('r', 'v')
order by c.relnamespace::regnamespace::text, c.relname;

select role,
       has_schema_privilege(role, 'webhook', 'usage') as usage,
       has_schema_privilege(role, 'webhook', 'create') as create,
       has_schema_privilege(role, 'webhook_internal', 'usage') as internal_usage,
       has_schema_privilege(role, 'webhook_internal', 'create') as internal_create,
       has_sequence_privilege(role, 'webhook.definition_key_seq', 'usage, select, update') as keys,
       has_sequence_privilege(role, 'webhook.outbox_flush_seq', 'usage, select, update') as order
from unnest(array['anybody', 'a_reader', 'an_admin', 'a_table_owner']) as role;

-- And in fact
set role anybody;
select webhook.create_webhook('Mine', array['https://example.com/']);
\echo :LAST_ERROR_SQLSTATE
select count(*) from webhook.webhooks;
\echo :LAST_ERROR_SQLSTATE

set role a_reader;
select count(*) from webhook.webhooks;
select count(*) from webhook.events;
select count(*) from webhook.messages;
select count(*) from webhook.calls;
select count(*) from webhook.queue;
select database = current_database() as here, state from webhook.worker;
select name, value from webhook.metrics where name = 'webhook_worker_up';
select webhook.create_webhook('Mine', array['https://example.com/']);
\echo :LAST_ERROR_SQLSTATE
select count(*) from webhook.webhook_def;
\echo :LAST_ERROR_SQLSTATE
select webhook.redeliver('00000000-0000-0000-0000-000000000000');
\echo :LAST_ERROR_SQLSTATE
select webhook.redeliver_failed('Mine');
\echo :LAST_ERROR_SQLSTATE
select webhook.cancel('00000000-0000-0000-0000-000000000000');
\echo :LAST_ERROR_SQLSTATE
select webhook.cancel_pending('Mine');
\echo :LAST_ERROR_SQLSTATE

set role an_admin;
select created_by from webhook.create_webhook('Admins', array['https://example.com/'], headers => '{"Authorization": "Bearer s3cret"}');
select count(*) from webhook.reveal_secret('Admins');
select count(*) from webhook.secret_def;
\echo :LAST_ERROR_SQLSTATE
update webhook.control set worker_stopped = false;
\echo :LAST_ERROR_SQLSTATE
-- An admin needs the table's privileges like anybody.
select webhook.create_event('Admins', 'accounts', 'table.recordInsert');
\echo :LAST_ERROR_SQLSTATE
set role a_table_owner;
grant trigger on accounts to an_admin;
select webhook.create_event('Admins', 'accounts', 'table.recordInsert');
\echo :LAST_ERROR_SQLSTATE
set role an_admin;
select webhook.create_event('Admins', 'accounts', 'table.recordInsert');
\echo :LAST_ERROR_SQLSTATE
set role a_table_owner;
grant select on accounts to an_admin;
set role an_admin;
select id as event, created_by from webhook.create_event('Admins', 'accounts', 'table.recordInsert') \gset
select :'created_by' as created_by;

-- Whoever may change the table has the change captured, without any right on the extension.
set role anybody;
insert into accounts values (1, 'from anybody');
set role a_reader;
select event_type, object_name, status from webhook.messages;
select messages from webhook.webhooks;

-- The functions leave the caller who he was, also after an error.
set role an_admin;
select current_user, count(*) from webhook.reveal_secret('Admins');
select webhook.drop_webhook('Unknown');
select current_user;
do $$
begin
    perform webhook.drop_event('nosuch');
exception when undefined_object then
    raise notice 'current_user is %', current_user;
end
$$;

-- An admin who owns nothing may drop the event again, trigger and all.
select webhook.drop_event(:'event');
reset role;
select count(*) as triggers from pg_trigger where tgrelid = 'accounts'::regclass;

-- No view shows a secret, a token or a request header, but webhook.webhooks, which masks them.
select v.relname as view_with_secret
from pg_class v
where v.relnamespace in ('webhook'::regnamespace, 'webhook_internal'::regnamespace)
  and v.relkind = 'v'
  and has_table_privilege('webhook_reader', v.oid, 'select')
  and v.relname <> 'webhooks'
  and (pg_get_viewdef(v.oid) ~* 'secret|headers'
       or exists (select from pg_attribute a where a.attrelid = v.oid and a.attname ~* 'secret|token|header'));

set client_min_messages = warning;
drop extension webhook_ext cascade;
drop table accounts;
drop role anybody, a_reader, an_admin, a_table_owner;
-- The roles stay, and a second installation finds them.
create extension webhook_ext;
drop extension webhook_ext;
