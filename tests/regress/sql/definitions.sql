-- Webhooks and events are created, seen and dropped. The worker stays away, so that nothing moves.
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

create table customers (id integer primary key, first_name text, "Last Name" text, balance numeric);

-- A webhook

select id as webhook, secret as first_secret, token as first_token
from webhook.create_webhook(
    'Order Sync',
    array['https://example.com/hooks', 'HTTPS://Example.COM:443/more'],
    description => 'to the shop',
    call_throttling => 20
)
\gset
select :'webhook' ~ '^[a-z0-9]{6}$' as id,
       :'first_secret' ~ '^whsec_[A-Za-z0-9+/]{43}=$' as secret,
       :'first_token' ~ '^[a-z0-9]{32,}$' as token;
select name, description, outgoing_urls, call_throttling, status, events, messages, calls, errors,
       created_by = current_user as created_by_me, modified_by, detail
from webhook.webhooks;

-- Events: one trigger a kind, and one for a condition

select id as on_insert from webhook.create_event('Order Sync', 'customers', 'table.recordInsert') \gset
select id as on_update, object_name, object_fields, event_sources, payload_fields, condition, enabled, created_by = current_user as created_by_me
from webhook.create_event(
    :'webhook', 'customers', 'table.recordUpdate',
    object_fields => array['balance', 'Last Name', 'balance'],
    event_sources => array['REST API', 'rest api', 'psql'],
    payload_fields => array['id', 'balance'],
    condition => 'new.balance < 0 -- overdrawn',
    null_style => 'null',
    list_style => 'keyed'
)
\gset
select :'object_name' as object_name, :'object_fields' as object_fields, :'event_sources' as event_sources,
       :'payload_fields' as payload_fields, :'condition' as condition, :'enabled' as enabled, :'created_by_me' as created_by_me;
select id as on_delete from webhook.create_event('Order Sync', 'customers', 'table.recordDelete', enabled => false) \gset

select replace(replace(replace(pg_get_triggerdef(oid), :'on_insert', '<insert>'), :'on_update', '<update>'), :'on_delete', '<delete>')
from pg_trigger
where tgrelid = 'customers'::regclass
order by oid;
select event_type, object_name, object_fields, event_sources, payload_fields, condition, status, detail, null_style, list_style
from webhook.events
order by created_at;

-- An empty list is no filter.
select object_fields, event_sources, payload_fields, condition
from webhook.create_event('Order Sync', 'customers', 'table.recordUpdate',
                          object_fields => '{}', event_sources => '{}', payload_fields => '{}', condition => ' ');

-- A schema other than public shows, a partitioned table is fine, and names keep their spelling.
create schema shop;
create table shop."Big Orders" (id integer, placed date) partition by range (placed);
create table shop.orders_2026 partition of shop."Big Orders" for values from ('2026-01-01') to ('2027-01-01');
select id as on_orders, object_name as orders from webhook.create_event('Order Sync', 'shop."Big Orders"', 'table.recordInsert') \gset
select :'orders' as object_name;
select tgrelid::regclass as triggers_on
from pg_trigger
where tgname = 'webhook_insert_' || :'on_orders'
order by 1;

-- Names in a condition are the caller's.
create schema lib;
create function lib.is_large(numeric) returns boolean language sql immutable return $1 > 1000;
set search_path = public, lib;
select condition from webhook.create_event('Order Sync', 'customers', 'table.recordInsert', condition => 'is_large(new.balance)');
reset search_path;
select pg_get_triggerdef(oid) ~ 'lib\.is_large' as found_in_lib
from pg_trigger
where tgrelid = 'customers'::regclass
order by oid desc
limit 1;

-- Renames are followed; what is dropped switches its events off and fails nothing.
alter table customers rename to clients;
alter table clients rename column balance to amount;
select object_name, status, detail from webhook.events where id = :'on_update';
alter table clients drop column "Last Name";
select object_name, status, detail from webhook.events where id = :'on_update';
alter table clients disable trigger all;
select object_name, status, detail from webhook.events where id = :'on_insert';
alter table clients enable trigger all;
drop table shop."Big Orders" cascade;
select object_name, status, detail from webhook.events where id = :'on_orders';
set client_min_messages = warning;
drop function lib.is_large(numeric) cascade;
reset client_min_messages;
select object_name, status, detail from webhook.events where condition ~ 'is_large';

-- Pause and resume, by id and by name
select webhook.pause_webhook(:'webhook');
select status, modified_by = current_user as by_me, modified_at is not null as modified from webhook.webhooks;
select outgoing_url, state, pending from webhook.queue order by outgoing_url;
update webhook.url_def set disabled_at = now(), detail = 'answered 410 Gone' where position = 1;
select outgoing_url, state, last_error from webhook.queue order by outgoing_url;
select webhook.resume_webhook('Order Sync');
select outgoing_url, state, last_error from webhook.queue order by outgoing_url;
select status from webhook.webhooks;

-- Secrets: the old one goes on during the overlap
select webhook.regenerate_secret('Order Sync') as second_secret \gset
select secret = :'second_secret' as is_second, secret = :'first_secret' as is_first, token = :'first_token' as first_token,
       expires_at - now() between '23 hours' and '24 hours' as for_a_day
from webhook.reveal_secret('Order Sync');
select webhook.regenerate_secret('Order Sync', overlap => '0') as third_secret \gset
select secret = :'third_secret' as is_third, expires_at from webhook.reveal_secret(:'webhook');
select count(*) as secrets_stored from webhook.secret_def;

-- An id goes before a name, also where an earlier version let a name be an id; a name that was dropped is
-- free again.
select id as other from webhook.create_webhook('Other Sync', array['http://example.com/'], enabled => false) \gset
update webhook.webhook_def set name = :'webhook' where id = :'other';
select webhook.pause_webhook(:'webhook');
select name = 'Order Sync' as order_sync, status from webhook.webhooks order by created_at;
select webhook.drop_webhook(:'other');
select id as other from webhook.create_webhook('Other Sync', array['http://example.com/'], enabled => false) \gset
select count(*) from webhook.webhooks where id = :'other';

-- Dropping an event takes its trigger along; dropping a webhook takes everything.
select webhook.drop_event(:'on_insert');
select count(*) as triggers from pg_trigger where tgname = 'webhook_insert_' || :'on_insert';
select count(*) as seen from webhook.events where id = :'on_insert';
select webhook.drop_webhook('Order Sync');
select count(*) as triggers from pg_trigger where tgrelid = 'clients'::regclass;
select count(*) as webhooks, (select count(*) from webhook.events) as events, (select count(*) from webhook.queue) as urls
from webhook.webhooks
where id = :'webhook';
select count(*) as secrets_left from webhook.secret_def s join webhook.webhook_def w using (webhook_key) where w.id = :'webhook';

-- The extension takes its triggers along and leaves the tables.
select count(*) from webhook.create_event(:'other', 'clients', 'table.recordInsert');
set client_min_messages = warning;
drop extension webhook_ext cascade;
reset client_min_messages;
insert into clients values (1, 'Ada', 3);
drop table clients;
drop schema shop cascade;
drop schema lib;
