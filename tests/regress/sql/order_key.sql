-- delivery_order 'key' and order_key: the columns whose values are the key of a message. The worker stays
-- away, so that nothing moves.
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

create domain tenant as integer;
create type point_pair as (one integer, two point);
create table orders (
    tenant_id tenant, id bigint, amount numeric, payload json, place point, tags text[], documents json[], pair point_pair,
    period int4range, cost money, total numeric generated always as (amount * 2) stored,
    primary key (tenant_id, id)
);
create table keyless (id integer, code text not null);
select id as webhook from webhook.create_webhook('Orders', array['https://example.com/'], delivery_order => 'key') \gset
select delivery_order from webhook.webhook_def;

-- The key of the table, or the columns that the event names: shown by name
select id as by_table from webhook.create_event('Orders', 'orders', 'table.recordInsert') \gset
select id as by_columns
from webhook.create_event('Orders', 'orders', 'table.recordUpdate',
                          order_key => array['amount', 'tenant_id', 'amount', 'total', 'tags', 'period'])
\gset
select event_type, order_key from webhook.events order by created_at;
select count(*) from webhook.update_event(:'by_columns', payload_fields => array['id']);
select order_key from webhook.events where id = :'by_columns';
select count(*) from webhook.update_event(:'by_columns', order_key => array['id']);
select order_key from webhook.events where id = :'by_columns';
select count(*) from webhook.update_event(:'by_columns', order_key => '{}');
select order_key is null as taken_away from webhook.events where id = :'by_columns';
select count(*) from webhook.update_event(:'by_table', order_key => array['tenant_id', 'amount']);

-- What is not a key
\set VERBOSITY verbose
select webhook.create_event('Orders', 'orders', 'table.recordDelete', order_key => array['tenant']);
\set VERBOSITY default
select webhook.create_event('Orders', 'orders', 'table.recordDelete', order_key => array['id', null]);
select webhook.create_event('Orders', 'orders', 'table.recordDelete', order_key => array['id', '']);
select webhook.create_event('Orders', 'orders', 'table.recordDelete', order_key => array_fill('id'::text, array[33]));
select webhook.create_event('Orders', 'orders', 'table.recordDelete', order_key => array[['id']]);
select webhook.create_event('Orders', 'orders', 'table.recordDelete', order_key => array['ctid']);
select webhook.create_event('Orders', 'orders', 'table.recordDelete', order_key => array['payload']);
select webhook.create_event('Orders', 'orders', 'table.recordDelete', order_key => array['id', 'place']);
select webhook.create_event('Orders', 'orders', 'table.recordDelete', order_key => array['documents']);
select webhook.create_event('Orders', 'orders', 'table.recordDelete', order_key => array['pair']);
select webhook.update_event(:'by_columns', order_key => array['cost']);
select webhook.create_event('Orders', 'keyless', 'table.recordInsert');
\echo :LAST_ERROR_SQLSTATE
-- An event that differs in its key alone would send each change twice.
\set VERBOSITY sqlstate
select webhook.create_event('Orders', 'orders', 'table.recordInsert', order_key => array['id']);
\set VERBOSITY default

-- A replica identity index is a key, REPLICA IDENTITY FULL is none.
alter table keyless replica identity full;
select webhook.create_event('Orders', 'keyless', 'table.recordInsert');
create unique index keyless_code on keyless (code) include (id);
alter table keyless replica identity using index keyless_code;
select id as keyless from webhook.create_event('Orders', 'keyless', 'table.recordInsert') \gset
create function explained(event text) returns setof text language sql as $$
    select x.ok || ' ' || replace(x.detail, event, '<event>')
    from webhook.explain_event(event) x
    where x.check_name = 'order_key'
$$;
select explained(:'keyless');
select explained(:'by_table');
select explained(:'by_columns');
-- A key whose type cannot be hashed
create table prices (cost money primary key, id integer);
select webhook.create_event('Orders', 'prices', 'table.recordInsert');
select count(*) from webhook.create_event('Orders', 'prices', 'table.recordInsert', order_key => array['id']);

-- The key of the table goes: all messages of the event have one key.
drop index keyless_code;
select explained(:'keyless');
select status from webhook.events where id = :'keyless';
select webhook.update_event(:'keyless', order_key => '{}');
select count(*) from webhook.update_event(:'keyless', enabled => true);
-- A column that order_key names is renamed, gets another type, and is dropped.
alter table orders rename column tenant_id to customer;
select order_key from webhook.events where id = :'by_table';
alter table orders drop column total;
alter table orders alter column amount type json using null;
select explained(:'by_table');
select status from webhook.events where id = :'by_table';
alter table orders drop column amount;
select status, detail, order_key from webhook.events where id = :'by_table';
select explained(:'by_table');
select count(*) from webhook.update_event(:'by_table', order_key => array['id']);
select status, detail, order_key from webhook.events where id = :'by_table';

-- Without delivery_order 'key' it is kept and not used.
select id as other from webhook.create_webhook('Other', array['https://example.com/']) \gset
create table notes (id integer, body text, extra text);
select id as event from webhook.create_event('Other', 'notes', 'table.recordInsert', order_key => array['body', 'extra']) \gset
select count(*) from webhook.create_event('Other', 'notes', 'table.recordUpdate', order_key => array['id']);
select explained(:'event');
alter table notes drop column body;
select status, detail, order_key from webhook.events where id = :'event';
-- Until the webhook is to use it
\set VERBOSITY sqlstate
select webhook.update_webhook('Other', delivery_order => 'key');
\set VERBOSITY default
create function said(statement text) returns table (message text, hint text) language plpgsql as $$
begin
    execute statement;
exception when invalid_parameter_value then
    get stacked diagnostics message = message_text, hint = pg_exception_hint;
    message := regexp_replace(message, 'event "[a-z0-9]{6}"', 'event "<event>"');
    hint := regexp_replace(hint, '''[a-z0-9]{6}''', '''<event>''');
    return next;
end
$$;
\x
select * from said('select webhook.update_webhook(''Other'', delivery_order => ''key'')');
select count(*) from webhook.update_event(:'event', order_key => '{}');
select * from said('select webhook.update_webhook(''Other'', delivery_order => ''key'')');
\x
select delivery_order from webhook.webhook_def where name = 'Other';
alter table notes add primary key (id);
select count(*) from webhook.update_webhook('Other', delivery_order => 'key');
select delivery_order from webhook.webhook_def where name = 'Other';
-- The events of a table that was dropped have no rows.
drop table notes;
select count(*) from webhook.update_webhook('Other', delivery_order => 'fifo');
select count(*) from webhook.update_webhook('Other', delivery_order => 'key');

-- REST
create table items (id integer primary key, code text);
select x.status as made, x.body - 'Id' - 'DateCreated' as body, x.body ->> 'Id' as item
from webhook.rest('POST', '/v3/outgoingWebhooks/' || :'webhook' || '/events',
                  '{"EventType": "table.recordInsert", "ObjectName": "items", "OrderKey": ["code"]}') x
\gset
\echo :made :body
\set path '/v3/outgoingWebhooks/' :webhook '/events/' :item
select x.status, x.body -> 'OrderKey' as order_key from webhook.rest('GET', :'path') x;
select x.status, x.body -> 'OrderKey' as order_key from webhook.rest('PUT', :'path', '{"Enabled": true}') x;
select x.status, x.body -> 'OrderKey' as order_key from webhook.rest('PUT', :'path', '{"OrderKey": ["code", "id"]}') x;
select x.status, x.body -> 'OrderKey' as order_key from webhook.rest('PUT', :'path', '{"OrderKey": null}') x;
select x.status, x.body from webhook.rest('PUT', :'path', '{"OrderKey": ["kode"]}') x;
select x.status, x.body from webhook.rest('PUT', :'path', '{"OrderKey": "id"}') x;
select x.status, x.body
from webhook.rest('POST', '/v3/outgoingWebhooks/' || :'webhook' || '/events',
                  '{"EventType": "table.recordUpdate", "ObjectName": "keyless"}') x;

set client_min_messages = warning;
drop extension webhook_ext cascade;
drop table orders, keyless, prices, items;
drop type point_pair;
drop domain tenant;
drop function explained(text), said(text);
