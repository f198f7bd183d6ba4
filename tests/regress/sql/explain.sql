-- webhook.explain_event: a check for each reason. The worker stays away, which is one.
create extension webhook_ext;
-- One that is on its way would be found later.
do $$
begin
    while not exists (select from webhook.worker where pid is not null) loop
        perform pg_sleep(0.01);
        perform pg_stat_clear_snapshot();
    end loop;
end
$$;
select webhook.stop_worker() is not null as stopped;
do $$
begin
    while exists (select from webhook.worker where pid is not null) loop
        perform pg_sleep(0.01);
        perform pg_stat_clear_snapshot();
    end loop;
end
$$;

create table customers (id integer primary key, name text, balance numeric);
select id as webhook
from webhook.create_webhook('Orders', array['https://example.com/a', 'http://example.com/b', 'https://10.0.0.1/c', 'http://127.0.0.1:9/d'])
\gset
select id as event
from webhook.create_event('Orders', 'customers', 'table.recordUpdate', object_fields => array['balance'],
                          event_sources => array['REST API'], condition => 'new.balance < 0')
\gset
\pset format unaligned
\pset tuples_only
set application_name = 'a session';
create function explained(event text) returns table (check_name text, ok boolean, detail text) language sql as $$
    select x.check_name, x.ok, replace(x.detail, event, '<event>') from webhook.explain_event(event) x
$$;

select * from explained(:'event');

-- One reason after the other: what fails
create function failing(event text) returns setof text language sql as $$
    select check_name || ': ' || detail from explained(event)
    where not ok and check_name not in ('worker', 'url_address', 'overall')
$$;
set webhook.source = 'rest api';
select count(*) from failing(:'event');
set webhook.capture = off;
select * from failing(:'event');
reset webhook.capture;
set session_replication_role = replica;
select * from failing(:'event');
reset session_replication_role;
select count(*) from webhook.update_event(:'event', enabled => false);
select * from failing(:'event');
select count(*) from webhook.update_webhook('Orders', enabled => false);
select * from failing(:'event');
select count(*) from webhook.update_webhook('Orders', enabled => true);
select webhook.pause_webhook('Orders');
select * from failing(:'event');
select webhook.resume_webhook('Orders');
update webhook.url_def set disabled_at = now(), detail = 'the receiver answered 410 Gone' where position = 1;
select * from failing(:'event');
select webhook.resume_webhook('Orders');
update webhook.webhook_def set detail = 'the webhook has no secret' where id = :'webhook';
-- What the worker sees of its URLs, it may have written by now or not.
select * from failing(:'event') f where f::text !~ 'url_state';
update webhook.webhook_def set detail = null where id = :'webhook';
alter table customers disable trigger user;
select * from failing(:'event');
alter table customers enable trigger user;
select count(*) from failing(:'event');
select count(*) from webhook.update_event(:'event', condition => '');
alter table customers drop column balance;
select * from failing(:'event');
drop table customers;
select * from failing(:'event');

-- Partitions
create table visits (id integer, day integer) partition by range (day);
create table visits_1 partition of visits for values from (0) to (10);
create table visits_2 partition of visits for values from (10) to (20);
select id as on_visit from webhook.create_event('Orders', 'visits', 'table.recordInsert') \gset
select id as on_part from webhook.create_event('Orders', 'visits_1', 'table.recordDelete') \gset
select detail from explained(:'on_visit') where check_name in ('partitions', 'object_fields');
select detail from explained(:'on_part') where check_name in ('partitions', 'object_fields');
select trigger_name as trigger from webhook_internal.event_trigger join webhook.event_def using (event_key) where id = :'on_visit' \gset
alter table visits_2 disable trigger :trigger;
select * from failing(:'on_visit');
alter table visits detach partition visits_2;
select detail from explained(:'on_visit') where check_name = 'partitions';

select webhook.explain_event('nobody');
\echo :LAST_ERROR_SQLSTATE
select webhook.explain_event(null);
\echo :LAST_ERROR_SQLSTATE

set client_min_messages = warning;
drop extension webhook_ext cascade;
drop function failing, explained;
drop table visits, visits_2;
