-- What an argument may hold: beyond it an error that names it, and nothing has changed.
create extension webhook_ext;
select webhook.stop_worker() is not null as stopped;
create table customers (id integer primary key, name text, payload jsonb, "$serde_json::private::Number" text);
select id as webhook from webhook.create_webhook('Known', array['https://example.com/']) \gset
select id as event from webhook.create_event('Known', 'customers', 'table.recordInsert') \gset

-- Any key is a key, and JSON has 64 levels.
select webhook.create_webhook('New', array['https://example.com/'], headers => '{"$serde_json::private::Number": "1"}');
\echo :LAST_ERROR_SQLSTATE
select webhook.create_webhook('New', array['https://example.com/'],
    headers => (repeat('[', 65) || repeat(']', 65))::jsonb);
\echo :LAST_ERROR_SQLSTATE
select webhook.create_webhook('New', array['https://example.com/'], headers => jsonb_build_object('x', repeat('y', 2000000)));
\echo :LAST_ERROR_SQLSTATE
select webhook.preview_payload(:'event', jsonb_build_object('payload', (repeat('[', 64) || repeat(']', 64))::jsonb));
\echo :LAST_ERROR_SQLSTATE
select webhook.preview_payload(:'event',
    '{"$serde_json::private::Number": "x", "payload": {"$serde_json::private::RawValue": "[]"}}')::jsonb -> 'data' as data;
select status, body from webhook.rest('POST', '/v3/outgoingWebhooks', '{"$serde_json::private::RawValue": "{}"}');
select status, body from webhook.rest('POST', '/v3/outgoingWebhooks', (repeat('[', 200) || repeat(']', 200))::jsonb);

-- Lists are measured before they are looked through.
select webhook.create_event('Known', 'customers', 'table.recordInsert',
    event_sources => array(select 's' || g from generate_series(1, 100000) g));
\echo :LAST_ERROR_SQLSTATE
select webhook.create_event('Known', 'customers', 'table.recordInsert', event_sources => array[repeat('s', 201)]);
\echo :LAST_ERROR_SQLSTATE
select webhook.create_event('Known', 'customers', 'table.recordInsert',
    payload_fields => array(select 's' || g from generate_series(1, 1601) g));
\echo :LAST_ERROR_SQLSTATE
select webhook.create_event('Known', 'customers', 'table.recordInsert', payload_fields => array[['id', 'name'], ['name', 'id']]);
\echo :LAST_ERROR_SQLSTATE
select webhook.create_webhook('New', array(select 'https://example.com/' || g from generate_series(1, 101) g));
\echo :LAST_ERROR_SQLSTATE
select webhook.create_webhook('New', array[repeat('x', 2000000)]);
\echo :LAST_ERROR_SQLSTATE
select webhook.create_webhook('New', array['https://example.com/'], description => repeat('d', 10001));
\echo :LAST_ERROR_SQLSTATE
select webhook.create_event('Known', 'customers', 'table.recordInsert', condition => 'true' || repeat(' ', 10000));
\echo :LAST_ERROR_SQLSTATE
select webhook.create_event('Known', 'customers', 'table.recordInsert', payload_template => repeat(' ', 1000001));
\echo :LAST_ERROR_SQLSTATE
select webhook.pause_webhook(repeat('x', 1000000));
\echo :LAST_ERROR_SQLSTATE

-- A condition is an expression over new and old, and its names have a path.
select webhook.create_event('Known', 'customers', 'table.recordInsert', condition => 'new.id > $1');
\echo :LAST_ERROR_SQLSTATE
select webhook.create_event('Known', 'customers', 'table.recordInsert', condition => 'new.id > 0', condition_path => '"unclosed');
\echo :LAST_ERROR_SQLSTATE
select webhook.create_event('Known', 'customers', 'table.recordDelete', condition_path => '"unclosed');
\echo :LAST_ERROR_SQLSTATE

-- A webhook has eight secrets that sign.
select count(distinct webhook.regenerate_secret('Known')) from generate_series(1, 7);
select webhook.regenerate_secret('Known');
\echo :LAST_ERROR_SQLSTATE
select count(*) from webhook.reveal_secret('Known');
select webhook.regenerate_secret('Known', overlap => '0') is not null as changed;
select count(*) from webhook.reveal_secret('Known');
select webhook.regenerate_secret('Known', overlap => '100000000 years');
\echo :LAST_ERROR_SQLSTATE

-- A source has 200 characters.
set webhook.source = 'REST API';
do $$
begin
    perform set_config('webhook.source', repeat('ä', 200), false);
    perform set_config('webhook.source', repeat('s', 201), false);
end
$$;
\echo :LAST_ERROR_SQLSTATE
select set_config('webhook.source', repeat('s', 1000000), false);
\echo :LAST_ERROR_SQLSTATE
show webhook.source;

-- Names look like what they are, and are no ids of others.
select webhook.create_webhook(E'gnp.\u202Eexe', array['https://example.com/']);
\echo :LAST_ERROR_SQLSTATE
select webhook.create_webhook(E'Known\u200B', array['https://example.com/']);
\echo :LAST_ERROR_SQLSTATE
\set VERBOSITY sqlstate
select webhook.create_webhook(:'webhook', array['https://example.com/']);
select id as other from webhook.create_webhook('Other', array['https://example.com/']) \gset
select webhook.update_webhook('Other', name => :'webhook');
\set VERBOSITY default
select name = :'other' as may_have_its_own from webhook.update_webhook('Other', name => :'other');

-- Two tables never have one name.
create schema payroll;
create schema "pay.roll";
create table payroll.salaries (id integer);
create table public."payroll.salaries" (id integer);
create table "pay.roll"."a""b" (id integer);
create table public."Plain Name" (id integer);
select object_name from webhook.create_event('Known', 'payroll.salaries', 'table.recordInsert');
select object_name from webhook.create_event('Known', 'public."payroll.salaries"', 'table.recordInsert');
select object_name from webhook.create_event('Known', '"pay.roll"."a""b"', 'table.recordInsert');
select object_name from webhook.create_event('Known', 'public."Plain Name"', 'table.recordInsert');
select object_name from webhook.events order by 1;
select e.object_name, webhook.preview_payload(e.id, '{"id": 1}')::jsonb ->> 'objectName' as previewed
from webhook.events e
order by 1;
select status, body ->> 'ObjectName' as object_name
from webhook.rest('POST', '/v3/outgoingWebhooks/' || :'webhook' || '/events',
    '{"ObjectName": "\"payroll.salaries\"", "EventType": "table.recordDelete"}');

-- Nothing of what was refused has left anything behind.
select count(*) from webhook.webhooks;

set client_min_messages = warning;
drop extension webhook_ext cascade;
drop table customers, payroll.salaries, public."payroll.salaries", "pay.roll"."a""b", public."Plain Name";
drop schema payroll, "pay.roll";
