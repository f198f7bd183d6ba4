-- Each mistake has its SQLSTATE, names argument and value, and says what to do.
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
create table customers (id integer primary key, first_name text, balance numeric);
select id as webhook from webhook.create_webhook('Taken', array['https://example.com/']) \gset

-- 22023: webhooks
select webhook.create_webhook(null, array['https://example.com/']);
\echo :LAST_ERROR_SQLSTATE
select webhook.create_webhook('', array['https://example.com/']);
\echo :LAST_ERROR_SQLSTATE
select webhook.create_webhook(E'two\nlines', array['https://example.com/']);
\echo :LAST_ERROR_SQLSTATE
select webhook.create_webhook(repeat('x', 101), array['https://example.com/']);
\echo :LAST_ERROR_SQLSTATE
select webhook.create_webhook('New', null);
\echo :LAST_ERROR_SQLSTATE
select webhook.create_webhook('New', '{}');
\echo :LAST_ERROR_SQLSTATE
select webhook.create_webhook('New', array[null]);
\echo :LAST_ERROR_SQLSTATE
select webhook.create_webhook('New', array['ftp://example.com/']);
\echo :LAST_ERROR_SQLSTATE
select webhook.create_webhook('New', array['https://user:secret@example.com/']);
\echo :LAST_ERROR_SQLSTATE
select webhook.create_webhook('New', array['https://example.com/'], call_throttling => 0);
\echo :LAST_ERROR_SQLSTATE
select webhook.create_webhook('New', array['https://example.com/'], timeout_ms => -1);
\echo :LAST_ERROR_SQLSTATE
select webhook.create_webhook('New', array['https://example.com/'], max_attempts => 0);
\echo :LAST_ERROR_SQLSTATE
select webhook.create_webhook('New', array['https://example.com/'], max_in_flight => 100000);
\echo :LAST_ERROR_SQLSTATE
select webhook.create_webhook('New', array['https://example.com/'], max_age => '-1 day');
\echo :LAST_ERROR_SQLSTATE
select webhook.create_webhook('New', array['https://example.com/'], delivery_order => 'lifo');
\echo :LAST_ERROR_SQLSTATE
select webhook.create_webhook('New', array['https://example.com/'], log_level => 'debug');
\echo :LAST_ERROR_SQLSTATE
select webhook.create_webhook('New', array['https://example.com/'], headers => '[]');
\echo :LAST_ERROR_SQLSTATE
select webhook.create_webhook('New', array['https://example.com/'], headers => '{"Host": "elsewhere"}');
\echo :LAST_ERROR_SQLSTATE
select webhook.create_webhook('New', array['https://example.com/'], headers => '{"X-Key": "a\r\nb"}');
\echo :LAST_ERROR_SQLSTATE
select webhook.regenerate_secret('Taken', overlap => '-1 second');
\echo :LAST_ERROR_SQLSTATE
select webhook.wait_idle('-1 second');
\echo :LAST_ERROR_SQLSTATE

-- 22023: events
select webhook.create_event('Taken', 'customers', 'table.recordMerge');
\echo :LAST_ERROR_SQLSTATE
select webhook.create_event('Taken', 'customers', null);
\echo :LAST_ERROR_SQLSTATE
select webhook.create_event('Taken', 'customers', 'table.recordInsert', object_fields => array['id']);
\echo :LAST_ERROR_SQLSTATE
select webhook.create_event('Taken', 'customers', 'table.recordInsert', event_sources => array['a', null]);
\echo :LAST_ERROR_SQLSTATE
select webhook.create_event('Taken', 'customers', 'table.recordInsert', null_style => 'empty');
\echo :LAST_ERROR_SQLSTATE
select webhook.create_event('Taken', 'customers', 'table.recordInsert', list_style => 'list');
\echo :LAST_ERROR_SQLSTATE
select webhook.create_event('Taken', 'customers', 'table.recordInsert', condition => 'new.balance <');
\echo :LAST_ERROR_SQLSTATE
select webhook.create_event('Taken', 'customers', 'table.recordInsert', condition => 'new.balance');
\echo :LAST_ERROR_SQLSTATE
select webhook.create_event('Taken', 'customers', 'table.recordInsert', condition => 'old.balance > 0');
\echo :LAST_ERROR_SQLSTATE
select webhook.create_event('Taken', 'customers', 'table.recordInsert', condition => 'exists (select from customers)');
\echo :LAST_ERROR_SQLSTATE
select webhook.create_event('Taken', 'customers', 'table.recordInsert', condition => 'new.id = ''x''');
\echo :LAST_ERROR_SQLSTATE
-- A condition cannot smuggle in another statement.
select webhook.create_event('Taken', 'customers', 'table.recordInsert',
    condition => 'true) execute function webhook.capture(''aaaaaa''); create trigger t after insert on public.customers for each row when (true');
\echo :LAST_ERROR_SQLSTATE
select webhook.create_event('Taken', 'customers', 'table.recordInsert', condition => 'true) execute function webhook.capture(''aaaaaa'') --');
\echo :LAST_ERROR_SQLSTATE
\set VERBOSITY terse
select webhook.create_event('Taken', 'customers', 'table.recordInsert', condition => 'true /*');
\set VERBOSITY default
\echo :LAST_ERROR_SQLSTATE

-- 42704
select webhook.drop_webhook('Unknown');
\echo :LAST_ERROR_SQLSTATE
select webhook.pause_webhook('Unknown');
\echo :LAST_ERROR_SQLSTATE
select webhook.reveal_secret(repeat('x', 200));
\echo :LAST_ERROR_SQLSTATE
select webhook.drop_event('nosuch');
\echo :LAST_ERROR_SQLSTATE
select webhook.create_event('Unknown', 'customers', 'table.recordInsert');
\echo :LAST_ERROR_SQLSTATE
select webhook.create_event('Taken', 4294967295::oid::regclass, 'table.recordInsert');
\echo :LAST_ERROR_SQLSTATE
select webhook.create_event('Taken', 'customers', 'table.recordUpdate', object_fields => array['ballance']);
\echo :LAST_ERROR_SQLSTATE
select webhook.create_event('Taken', 'customers', 'table.recordInsert', payload_fields => array['telephone']);
\echo :LAST_ERROR_SQLSTATE
select webhook.create_event('Taken', 'customers', 'table.recordInsert', payload_fields => array['ctid']);
\echo :LAST_ERROR_SQLSTATE
select webhook.create_event('Taken', 'customers', 'table.recordInsert', condition => 'new.ballance > 0');
\echo :LAST_ERROR_SQLSTATE

-- 42710
select webhook.create_webhook('Taken', array['https://example.com/']);
\echo :LAST_ERROR_SQLSTATE
select webhook.create_webhook('New', array['https://example.com/a', 'HTTPS://EXAMPLE.com:443/a']);
\echo :LAST_ERROR_SQLSTATE
select count(*) from webhook.create_event('Taken', 'customers', 'table.recordUpdate', object_fields => array['balance']);
\set VERBOSITY sqlstate
select webhook.create_event('Taken', 'customers', 'table.recordUpdate', object_fields => array['balance']);
\set VERBOSITY default
select count(*) as events from webhook.events;

-- 42809
create view rich as select * from customers where balance > 1000;
create materialized view richer as select * from customers;
create temporary table visitors (id integer);
create sequence numbers;
create foreign data wrapper nowhere;
create server far foreign data wrapper nowhere;
create foreign table distant (id integer) server far;
select webhook.create_event('Taken', 'rich', 'table.recordInsert');
\echo :LAST_ERROR_SQLSTATE
select webhook.create_event('Taken', 'richer', 'table.recordInsert');
\echo :LAST_ERROR_SQLSTATE
select webhook.create_event('Taken', 'distant', 'table.recordInsert');
\echo :LAST_ERROR_SQLSTATE
select webhook.create_event('Taken', 'numbers', 'table.recordInsert');
\echo :LAST_ERROR_SQLSTATE
select webhook.create_event('Taken', 'customers_pkey', 'table.recordInsert');
\echo :LAST_ERROR_SQLSTATE
select webhook.create_event('Taken', 'pg_class', 'table.recordInsert');
\echo :LAST_ERROR_SQLSTATE
select webhook.create_event('Taken', 'information_schema.sql_features', 'table.recordInsert');
\echo :LAST_ERROR_SQLSTATE
select webhook.create_event('Taken', 'webhook_internal.retry', 'table.recordInsert');
select webhook.create_event('Taken', 'webhook.secret_def', 'table.recordInsert');
\echo :LAST_ERROR_SQLSTATE
\set VERBOSITY sqlstate
select webhook.create_event('Taken', 'visitors', 'table.recordInsert');
\set VERBOSITY default

-- 22023 and 42704: messages, and the webhooks whose messages are meant
select webhook.redeliver(null);
\echo :LAST_ERROR_SQLSTATE
select webhook.redeliver('00000000-0000-0000-0000-000000000000');
\echo :LAST_ERROR_SQLSTATE
select webhook.cancel(null);
\echo :LAST_ERROR_SQLSTATE
select webhook.cancel('00000000-0000-0000-0000-000000000000');
\echo :LAST_ERROR_SQLSTATE
select webhook.redeliver_failed(null);
\echo :LAST_ERROR_SQLSTATE
select webhook.redeliver_failed('Unknown', until => now());
\echo :LAST_ERROR_SQLSTATE
select webhook.cancel_pending(null);
\echo :LAST_ERROR_SQLSTATE
select webhook.cancel_pending('Unknown');
\echo :LAST_ERROR_SQLSTATE
select webhook.redeliver_failed('Taken', until => now()), webhook.cancel_pending('Taken');

-- 55000: a message whose webhook was dropped. Its id is in the text.
select name from webhook.create_webhook('Gone', array['https://example.com/gone']);
select event_type from webhook.create_event('Gone', 'customers', 'table.recordInsert');
insert into customers values (4711, 'Grace', 0);
select m.message_id
from webhook.messages m
join webhook.webhooks w on w.id = m.webhook_id
where w.name = 'Gone' \gset
select webhook.drop_webhook('Gone');
\set VERBOSITY sqlstate
select webhook.redeliver(:'message_id');
\set VERBOSITY default
select webhook.cancel(:'message_id');

-- Nothing of all this has left anything behind.
select name, events from webhook.webhooks;
select count(*) from pg_trigger where tgrelid = 'customers'::regclass;

set client_min_messages = warning;
drop extension webhook_ext cascade;
drop table customers, visitors cascade;
drop sequence numbers;
drop foreign data wrapper nowhere cascade;
