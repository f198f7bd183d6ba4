-- Webhooks and events are changed: what is given changes, what is null stays. The worker stays away.
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

create table customers (id integer primary key, first_name text, balance numeric, note text);
select id as webhook
from webhook.create_webhook('Orders', array['https://example.com/a', 'https://example.com/b'],
                            description => 'first', call_throttling => 5)
\gset
select id as on_insert from webhook.create_event('Orders', 'customers', 'table.recordInsert') \gset
select id as on_update
from webhook.create_event('Orders', 'customers', 'table.recordUpdate', object_fields => array['balance'],
                          event_sources => array['psql'], condition => 'new.balance < 0')
\gset

-- A webhook: nothing given changes nothing but the stamp.
select name, description, outgoing_urls, call_throttling, enabled, modified_at is not null as stamped,
       modified_by = current_user as by_me
from webhook.update_webhook(:'webhook');
select id = :'webhook' as same_id, name, description, call_throttling
from webhook.update_webhook('Orders', name => 'Sales', description => '', call_throttling => 0);
select name, description, call_throttling from webhook.update_webhook('Sales', description => 'second', call_throttling => 8);
select name, call_throttling, enabled from webhook.update_webhook('Sales', 'Sales');
select count(*)
from webhook.update_webhook('Sales', headers => '{"X-Key": "1"}', timeout_ms => 100, max_attempts => 3,
                            max_age => '1 hour', max_in_flight => 2, delivery_order => 'fifo', log_level => 'errors');
select headers, timeout_ms, max_attempts, max_age, max_in_flight, delivery_order, log_level
from webhook.webhook_def
where id = :'webhook';

select count(*) from webhook.update_webhook('Sales', disable_after => '1 minute');
select count(*) from webhook.update_webhook('Sales');
select disable_after from webhook.webhooks;
select body ->> 'DisableAfter' as rest from webhook.rest('GET', '/v3/outgoingWebhooks/' || :'webhook');
select body ->> 'DisableAfter' as rest from webhook.rest('PUT', '/v3/outgoingWebhooks/' || :'webhook', '{"DisableAfter": "2 days"}');
select body -> 'Message' as rest from webhook.rest('PUT', '/v3/outgoingWebhooks/' || :'webhook', '{"DisableAfter": "1 second"}');
select body ->> 'DisableAfter' is null as null_again from webhook.rest('PUT', '/v3/outgoingWebhooks/' || :'webhook', '{"DisableAfter": null}');
select count(*) from webhook.update_webhook('Sales', disable_after => '3 days');
select count(*) from webhook.update_webhook('Sales', disable_after => '0');
select old ->> 'disable_after' as old, new ->> 'disable_after' as new
from webhook.changes
where coalesce(old, '{}') || new ? 'disable_after'
order by changed_at;

-- URLs: one stays, one goes, one comes, in the order given; what waited for the one that goes is canceled.
insert into webhook_internal.retry (url_key, xid, id, message_id, webhook_key, event_date, attempts, state, next_at)
select u.url_key, '3', u.url_key, gen_random_uuid(), u.webhook_key, now(), 1, 'waiting', now()
from webhook.url_def u;
select outgoing_urls from webhook.update_webhook('Sales', outgoing_urls => array['https://example.com/c', 'HTTPS://example.com/b']);
select u.url, u.dropped_at is not null as dropped, u.position, r.state
from webhook.url_def u
left join webhook_internal.retry r on r.url_key = u.url_key
order by u.url;
select outgoing_url, retrying from webhook.queue order by outgoing_url;
-- One that comes again is a new one.
select outgoing_urls from webhook.update_webhook('Sales', outgoing_urls => array['https://example.com/a', 'https://example.com/b']);
select outgoing_url, pending, retrying from webhook.queue order by outgoing_url;

-- The status of a webhook is that of all its events.
select enabled from webhook.update_webhook('Sales', enabled => false);
select status, detail from webhook.events order by created_at;
select enabled from webhook.update_webhook('Sales', enabled => true);
select status, modified_by = current_user as by_me from webhook.events order by created_at;
select enabled from webhook.update_event(:'on_insert', enabled => false);
select webhook_name, status from webhook.events order by created_at;
select status, events from webhook.webhooks;
select count(*) from webhook.update_webhook('Sales', enabled => true);
select status from webhook.events order by created_at;

-- What is wrong changes nothing.
select id as other from webhook.create_webhook('Other', array['https://example.com/']) \gset
select webhook.update_webhook('Sales', name => 'Other', description => 'lost');
\echo :LAST_ERROR_SQLSTATE
select webhook.update_webhook('Sales', name => '');
\echo :LAST_ERROR_SQLSTATE
select webhook.update_webhook('Sales', outgoing_urls => '{}');
\echo :LAST_ERROR_SQLSTATE
select webhook.update_webhook('Sales', call_throttling => -1);
\echo :LAST_ERROR_SQLSTATE
select webhook.update_webhook('Sales', headers => '{"Host": "x"}');
\echo :LAST_ERROR_SQLSTATE
select webhook.update_webhook('Sales', disable_after => '59 s');
\echo :LAST_ERROR_SQLSTATE
select webhook.update_webhook('Sales', max_age => '-1 day');
\echo :LAST_ERROR_SQLSTATE
select webhook.update_webhook('Sales', delivery_order => 'lifo');
\echo :LAST_ERROR_SQLSTATE
select webhook.update_webhook('Sales', log_level => 'some');
\echo :LAST_ERROR_SQLSTATE
select webhook.update_webhook('Nobody', enabled => false);
\echo :LAST_ERROR_SQLSTATE
select webhook.update_webhook(null);
\echo :LAST_ERROR_SQLSTATE
select name, description from webhook.webhooks order by created_at;

-- An event: what is given changes, an empty list or text takes away.
select object_fields, event_sources, payload_fields, condition, enabled, id = :'on_update' as same_id
from webhook.update_event(:'on_update', payload_fields => array['id', 'balance', 'id']);
select object_fields, event_sources, payload_fields, condition
from webhook.update_event(:'on_update', object_fields => '{}', event_sources => '{}', payload_fields => '{}');
select condition from webhook.update_event(:'on_update', condition => 'new.first_name is distinct from old.first_name');
select replace(pg_get_triggerdef(oid), :'on_update', '<id>') from pg_trigger where tgname = 'webhook_' || :'on_update';
select condition from webhook.update_event(:'on_update', condition => '');
select replace(pg_get_triggerdef(oid), :'on_update', '<id>') from pg_trigger where tgrelid = 'customers'::regclass and tgtype = 17;
select count(*) from webhook.update_event(:'on_update', null_style => 'null', list_style => 'keyed');
select null_style, list_style, modified_by = current_user as by_me from webhook.events where id = :'on_update';

-- A column that was renamed has its new name.
select object_fields from webhook.update_event(:'on_update', object_fields => array['first_name', 'balance']);
alter table customers rename column first_name to name;
select object_fields from webhook.events where id = :'on_update';
select object_fields, payload_fields from webhook.update_event(:'on_update', payload_fields => array['name']);

-- A trigger that somebody dropped comes back.
select trigger_name as trigger from webhook_internal.event_trigger join webhook.event_def using (event_key) where id = :'on_update' \gset
drop trigger :trigger on customers;
select status, detail from webhook.events where id = :'on_update';
select enabled from webhook.update_event(:'on_update', enabled => false);
select status, detail from webhook.events where id = :'on_update';
select enabled from webhook.update_event(:'on_update', enabled => true);
select status, detail from webhook.events where id = :'on_update';

-- Partitions get the new condition, too.
create table visits (id integer, day integer) partition by range (day);
create table visits_1 partition of visits for values from (0) to (10);
select id as on_visit from webhook.create_event('Sales', 'visits', 'table.recordInsert') \gset
select condition from webhook.update_event(:'on_visit', condition => 'new.id > 1');
select tgrelid::regclass, pg_get_triggerdef(oid) ~ 'id > 1' as has_condition
from pg_trigger
where tgname = 'webhook_' || :'on_visit'
order by 1;

-- What is wrong changes nothing.
select webhook.update_event(:'on_update', object_fields => array['nme']);
\echo :LAST_ERROR_SQLSTATE
select webhook.update_event(:'on_insert', object_fields => array['name']);
\echo :LAST_ERROR_SQLSTATE
select webhook.update_event(:'on_update', condition => 'new.nme is null');
\echo :LAST_ERROR_SQLSTATE
select webhook.update_event(:'on_update', condition => 'true) execute function f(');
\echo :LAST_ERROR_SQLSTATE
select webhook.update_event(:'on_update', null_style => 'empty');
\echo :LAST_ERROR_SQLSTATE
select webhook.update_event('nobody', enabled => true);
\echo :LAST_ERROR_SQLSTATE
select webhook.update_event(null);
\echo :LAST_ERROR_SQLSTATE
select id as on_insert_of_few from webhook.create_event('Sales', 'customers', 'table.recordInsert', payload_fields => array['id']) \gset
\set VERBOSITY sqlstate
select webhook.update_event(:'on_insert_of_few', payload_fields => '{}');
\set VERBOSITY default
select object_fields, payload_fields, condition, status from webhook.events where id = :'on_update';

-- Choosing what is sent asks for the rights on the table; switching off does not.
create role an_admin in role webhook_admin;
set role an_admin;
select enabled from webhook.update_event(:'on_insert', enabled => false);
select webhook.update_event(:'on_insert', payload_fields => array['note']);
\echo :LAST_ERROR_SQLSTATE
reset role;

-- A table that is gone can only be switched off.
drop table visits;
select enabled from webhook.update_event(:'on_visit', enabled => false);
\set VERBOSITY sqlstate
select webhook.update_event(:'on_visit', enabled => true);
\set VERBOSITY default

-- A test message waits like any other.
select outgoing_url, message_id is not null as has_id from webhook.test_webhook('Sales');
select count(distinct message_id) as ids, count(*) as calls from webhook.test_webhook(:'webhook');
select event_id, event_type, object_name, source, status from webhook.messages;
select name, events, messages from webhook.webhooks order by created_at;
begin;
select count(*) from webhook.test_webhook('Other');
rollback;
select name, messages from webhook.webhooks order by created_at;
select webhook.test_webhook('Nobody');
\echo :LAST_ERROR_SQLSTATE
select webhook.test_webhook(null);
\echo :LAST_ERROR_SQLSTATE

set client_min_messages = warning;
drop extension webhook_ext cascade;
drop table customers;
drop role an_admin;
