-- match: values that columns of the row must have. The worker stays away, so that nothing moves.
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

create type mood as enum ('sad', 'ok');
create domain tenant as integer check (value > 0);
create domain big_tenant as tenant check (value < 1000);
create collation loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
create domain feeling as mood;
create table orders (
    id bigint, small smallint, tenant_id integer, owner big_tenant, status text, code varchar(5), region char(4),
    reference uuid, active boolean, placed date, at_time time, local_time timestamp, stamp timestamptz, mood mood,
    label name, number oid, amount numeric, ratio double precision, payload jsonb, tags text[], addr inet,
    loose text collate loose, nick name collate loose, feeling feeling
);
select id as webhook from webhook.create_webhook('Orders', array['https://example.com/']) \gset

-- Each type by one value, and as it is stored.
select id as event
from webhook.create_event(
    'Orders', 'orders', 'table.recordInsert',
    match => '{"id": 9007199254740993, "small": "-7", "tenant_id": 42, "owner": [7, "8", 7], "status": "paid", "code": "ab",
               "region": "de", "reference": "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "active": "yes",
               "placed": "2026-02-03", "at_time": "10:20", "local_time": "2026-02-03 04:05:06.5",
               "stamp": "2026-02-03 04:05:06+02", "mood": "ok", "label": "x", "number": 16384}'
)
\gset
select key, value from webhook.events e cross join jsonb_each(e.match) where e.id = :'event' order by key;
select cardinality(match_keys) as combinations, match_fields, match_kinds from webhook.event_def where id = :'event';

-- NULL, lists, and what takes it away
select count(*) from webhook.update_event(:'event', match => '{"tenant_id": [1, null, 2, "1"], "status": null}');
select match from webhook.events where id = :'event';
select count(*) from webhook.update_event(:'event', payload_fields => array['id']);
select match from webhook.events where id = :'event';
select count(*) from webhook.update_event(:'event', match => '{}');
select match is null as taken_away from webhook.events where id = :'event';
select count(*) from webhook.update_event(:'event', match => '{"tenant_id": 1}', condition => 'new.id > 1');
select match, condition from webhook.events where id = :'event';
select count(*) from webhook.update_event(:'event', condition => '');

-- The same event, and one for other values
\set VERBOSITY sqlstate
select webhook.create_event('Orders', 'orders', 'table.recordInsert', payload_fields => array['id'], match => '{"tenant_id": "1"}');
select count(*) from webhook.create_event('Orders', 'orders', 'table.recordInsert', payload_fields => array['id'], match => '{"tenant_id": 2}');
select webhook.update_event(:'event', match => '{"tenant_id": 2}');
select webhook.create_event('Orders', 'orders', 'table.recordInsert', payload_fields => array['id'], match => '{"tenant_id": [1]}');
select webhook.update_event(:'event', match => '{"tenant_id": ["2", 2]}');
\set VERBOSITY default

-- All share one trigger.
select regexp_replace(pg_get_triggerdef(oid), 'webhook_insert_[a-z0-9]{6}', '<trigger>') from pg_trigger where tgrelid = 'orders'::regclass;

-- Types whose equal values are stored in more than one way
select webhook.create_event('Orders', 'orders', 'table.recordUpdate', match => '{"amount": 1}');
\echo :LAST_ERROR_SQLSTATE
select webhook.create_event('Orders', 'orders', 'table.recordUpdate', match => '{"ratio": 1}');
select webhook.create_event('Orders', 'orders', 'table.recordUpdate', match => '{"payload": "{}"}');
select webhook.create_event('Orders', 'orders', 'table.recordUpdate', match => '{"tags": "{}"}');
select webhook.create_event('Orders', 'orders', 'table.recordUpdate', match => '{"addr": "127.0.0.1"}');
select webhook.create_event('Orders', 'orders', 'table.recordUpdate', match => '{"loose": "a"}');
select webhook.create_event('Orders', 'orders', 'table.recordUpdate', match => '{"nick": "a"}');

-- Values that do not fit, and other mistakes
select webhook.create_event('Orders', 'orders', 'table.recordUpdate', match => '{"tenant_id": "many"}');
\echo :LAST_ERROR_SQLSTATE
select webhook.create_event('Orders', 'orders', 'table.recordUpdate', match => '{"tenant_id": 42.5}');
select webhook.create_event('Orders', 'orders', 'table.recordUpdate', match => '{"small": 40000}');
select webhook.create_event('Orders', 'orders', 'table.recordUpdate', match => '{"code": "too long"}');
select webhook.create_event('Orders', 'orders', 'table.recordUpdate', match => '{"mood": "merry"}');
select webhook.create_event('Orders', 'orders', 'table.recordUpdate', match => '{"reference": "x"}');
select webhook.create_event('Orders', 'orders', 'table.recordUpdate', match => '{"tenant": 42}');
\echo :LAST_ERROR_SQLSTATE
select webhook.create_event('Orders', 'orders', 'table.recordUpdate', match => '{"tenant_id": []}');
select webhook.create_event('Orders', 'orders', 'table.recordUpdate', match => '{"tenant_id": {"a": 1}}');
select webhook.create_event('Orders', 'orders', 'table.recordUpdate', match => '[1]');
select webhook.create_event('Orders', 'orders', 'table.recordUpdate', match => 'null');
select webhook.create_event('Orders', 'orders', 'table.recordUpdate', match => jsonb_build_object('status', repeat('x', 1001)));
select webhook.create_event('Orders', 'orders', 'table.recordUpdate',
                            match => jsonb_build_object('id', (select jsonb_agg(n) from generate_series(1, 10001) n)));
select webhook.create_event('Orders', 'orders', 'table.recordUpdate',
                            match => (select jsonb_build_object('id', jsonb_agg(n), 'tenant_id', jsonb_agg(n)) from generate_series(1, 101) n));
select webhook.create_event('Orders', 'orders', 'table.recordUpdate',
                            match => (select jsonb_object_agg('c' || n, n) from generate_series(1, 33) n));
select count(*) from webhook.events;

-- A rename is followed.
alter table orders rename column tenant_id to customer;
select match from webhook.events where id = :'event';
-- A wider integer is compared as before; another type switches the event off.
alter table orders alter column customer type bigint;
select status, detail, match from webhook.events where id = :'event';
alter table orders alter column customer type text;
select status, detail from webhook.events where id = :'event';
select ok, replace(detail, :'event', '<event>') as detail from webhook.explain_event(:'event') where check_name in ('match', 'columns');
select count(*) from webhook.update_event(:'event', match => '{"customer": "1"}');
select status, detail, match from webhook.events where id = :'event';
select ok, detail from webhook.explain_event(:'event') where check_name = 'match';
alter table orders drop column customer;
select status, detail, match from webhook.events where id = :'event';

-- A value of an enum gets another name.
select id as of_mood
from webhook.create_event('Orders', 'orders', 'table.recordInsert', match => '{"mood": ["ok", null], "feeling": ["sad", "ok"]}') \gset
alter type mood rename value 'ok' to 'fine';
select status, detail from webhook.events where id = :'of_mood';
select ok, replace(detail, :'of_mood', '<event>') as detail from webhook.explain_event(:'of_mood') where check_name = 'match';
alter type mood rename value 'sad' to 'blue';
select status, detail from webhook.events where id = :'of_mood';
select count(*) from webhook.update_event(:'of_mood', match => '{"mood": "fine", "feeling": ["fine", null]}');
select status, detail from webhook.events where id = :'of_mood';
select ok from webhook.explain_event(:'of_mood') where check_name = 'match';
select count(webhook.drop_event(:'of_mood'));

-- A preview shows a row that makes a message.
select id as previewed from webhook.create_event('Orders', 'orders', 'table.recordUpdate', payload_fields => array['status', 'placed'],
                                                 match => '{"status": ["sent", "paid"], "placed": "2026-02-03"}') \gset
select webhook.preview_payload(:'previewed')::json -> 'data';
select webhook.preview_payload(:'previewed', '{"status": "paid", "placed": null}')::json -> 'data';

-- REST
select status, body -> 'Match' as match
from webhook.rest('POST', '/v3/outgoingWebhooks/' || :'webhook' || '/events',
                  '{"EventType": "table.recordDelete", "ObjectName": "orders", "Match": {"active": true}}');
select e.id as on_delete from webhook.events e where e.event_type = 'table.recordDelete' \gset
select status, body -> 'Match' as match
from webhook.rest('PUT', '/v3/outgoingWebhooks/' || :'webhook' || '/events/' || :'on_delete', '{"Match": {"active": [false, null]}}');
select status, body
from webhook.rest('PUT', '/v3/outgoingWebhooks/' || :'webhook' || '/events/' || :'on_delete', '{"Match": {"actve": 1}}');
select status, body
from webhook.rest('PUT', '/v3/outgoingWebhooks/' || :'webhook' || '/events/' || :'on_delete', '{"Match": 1}');
select status, body -> 'Match' as match
from webhook.rest('PUT', '/v3/outgoingWebhooks/' || :'webhook' || '/events/' || :'on_delete', '{"Match": null}');

-- Readers see it without further rights.
create role a_reader in role webhook_reader;
set role a_reader;
select count(*) filter (where match is not null) as matched from webhook.events;
reset role;

set client_min_messages = warning;
drop extension webhook_ext cascade;
drop table orders;
drop domain big_tenant, tenant;
drop domain feeling;
drop type mood;
drop collation loose;
drop role a_reader;
