-- Schema changes under live events: none fails because of us, what waits stays, and the events say what was
-- switched off and why. The worker stays away.
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

create table customers (id integer primary key, name text, balance numeric, note text, spare text);
select count(*) from webhook.create_webhook('Orders', array['https://example.com/']);
select id as on_any from webhook.create_event('Orders', 'customers', 'table.recordUpdate') \gset
select id as on_balance
from webhook.create_event('Orders', 'customers', 'table.recordUpdate', object_fields => array['balance'],
                          payload_fields => array['id', 'name'])
\gset
create view captured as
select case o.event_key
           when (select event_key from webhook.event_def order by event_key limit 1) then 'any'
           else 'balance'
       end as event,
       o.record
from webhook_internal.outbox o
-- Transaction by transaction; triggers of one row fire in the order of their names, which are random.
order by o.id >> 20, event, o.id;
create view live as
select case when object_fields is null then 'any' else 'balance' end as event,
       object_name, object_fields, payload_fields, status, detail
from webhook.events
order by created_at;

insert into customers values (1, 'Ann', 1, 'n', 's');
update customers set balance = 2;
table captured;

-- Renames: of a column, the table, its schema
alter table customers rename column balance to amount;
alter table customers rename column name to "Full Name";
alter table customers rename to clients;
create schema crm;
alter table clients set schema crm;
update crm.clients set amount = 3;
alter schema crm rename to sales;
update sales.clients set amount = 4;
table captured offset 2;
table live;
alter table sales.clients set schema public;
alter table clients rename to customers;

-- ADD COLUMN: in the payload of an all-fields event from the next row on, also within a transaction and with a default
begin;
update customers set amount = 5;
alter table customers add column vip boolean default true;
update customers set amount = 6;
commit;
table captured offset 6;

-- ALTER TYPE: of a watched, a sent and another column; the rewrite itself makes no message
alter table customers alter column amount type text using amount::text;
alter table customers alter column "Full Name" type varchar(20);
alter table customers alter column note type jsonb using '{}';
select count(*) from captured;
update customers set amount = '7';
table captured offset 10;
table live;

-- DROP COLUMN: one that nobody names, one that is sent, one that is watched
alter table customers drop column spare;
update customers set amount = '8';
table captured offset 12;
table live;
alter table customers drop column "Full Name";
update customers set amount = '9';
table captured offset 14;
table live;
alter table customers drop column amount;
update customers set vip = false;
table captured offset 15;
table live;
-- What waits is still there.
select count(*), count(record) from captured;
select status, count(*) from webhook.messages group by 1;
-- Other columns bring the event back.
select object_fields, payload_fields from webhook.update_event(:'on_balance', object_fields => array['vip'], payload_fields => array['id']);
update customers set vip = true;
table captured offset 16;
table live;
-- A new column of an old name is another column.
alter table customers drop column vip;
alter table customers add column vip boolean;
table live;
select object_fields from webhook.update_event(:'on_balance', object_fields => array['vip']);

-- DISABLE TRIGGER, DROP TRIGGER
alter table customers disable trigger all;
update customers set vip = true;
table live;
alter table customers enable trigger all;
update customers set vip = false;
table captured offset 18;
table live;

-- A column in a condition belongs to the trigger: PostgreSQL refuses to drop or retype it.
select condition from webhook.update_event(:'on_balance', condition => 'new.vip');
\set VERBOSITY terse
alter table customers drop column vip;
alter table customers alter column vip type text;
\set VERBOSITY default
select count(*) from webhook.update_event(:'on_balance', condition => '');
alter table customers alter column vip type text;

-- A column of a template: renamed it stays, dropped it switches the event off
create table badges (id integer, label text);
select id as on_badge
from webhook.create_event('Orders', 'badges', 'table.recordInsert', payload_template => '{"label": "[@field:label]"}')
\gset
alter table badges rename column label to text;
insert into badges values (1, 'a');
select record from webhook_internal.outbox o join webhook.event_def e using (event_key) where e.id = :'on_badge';
alter table badges drop column text;
insert into badges values (2);
select status, detail, messages from webhook.events where id = :'on_badge';
select status from webhook.update_event(:'on_badge', payload_template => '{"id": "[@field:id]"}') u, webhook.events e where e.id = u.id;
insert into badges values (3);
select status, detail, messages from webhook.events where id = :'on_badge';
select webhook.drop_event(:'on_badge');
drop table badges;

-- ATTACH and DETACH PARTITION
create table visits (id integer, day integer) partition by range (day);
create table visits_1 partition of visits for values from (0) to (10);
create table visits_2 (id integer, day integer);
select id as on_visit from webhook.create_event('Orders', 'visits', 'table.recordInsert') \gset
insert into visits values (1, 1);
insert into visits_2 values (2, 11);
alter table visits attach partition visits_2 for values from (10) to (20);
insert into visits values (3, 12);
insert into visits_2 values (4, 13);
alter table visits detach partition visits_1;
insert into visits_1 values (5, 2);
insert into visits_2 values (6, 14);
select record from webhook_internal.outbox o join webhook.event_def e using (event_key) where e.id = :'on_visit' order by o.id;
select object_name, status, detail from webhook.events where id = :'on_visit';
-- A partition whose columns stand in another order
create table visits_3 (day integer, gone text, id integer);
alter table visits_3 drop column gone;
alter table visits attach partition visits_3 for values from (20) to (30);
insert into visits values (7, 21);
select record from webhook_internal.outbox o join webhook.event_def e using (event_key) where e.id = :'on_visit' order by o.id desc limit 1;

-- DROP TABLE
drop table visits;
drop table customers;
select object_name, status, detail from webhook.events order by created_at;
select status, count(*) from webhook.messages group by 1;
select object_name, count(*) from webhook.messages group by 1 order by 1;

set client_min_messages = warning;
drop view captured, live;
drop extension webhook_ext cascade;
drop table visits_1;
drop schema sales;
