-- webhook.changes: who changed what, with old and new values, and without credentials. webhook.webhooks and the
-- REST API show all settings of a webhook.
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
create role an_operator in role webhook_admin;
create role a_looker in role webhook_reader;
create table items (id integer primary key, note text);
\pset format unaligned
\pset tuples_only

create table looked as select max(change_id) as seen from webhook_internal.change_log;
-- Everything that was done since the last look, in order. Ids differ from run to run.
create view news as
select c.changed_by, c.action, c.kind, c.id is not null as has_id, c.name, c.old, c.new
from webhook.changes c
join webhook_internal.change_log l using (changed_at)
where l.change_id > (select seen from looked)
order by l.change_id;
create function look() returns void language sql as
    'update looked set seen = (select max(change_id) from webhook_internal.change_log)';
select * from webhook.changes where action <> 'stop';

select count(*) from webhook.create_webhook('Shop', array['https://example.com/a?token=hush-hush'], headers => '{"X-Api-Key": "hush-hush", "X-Env": "test"}');
select * from news; select look();
select headers, timeout_ms, max_attempts, max_age, max_in_flight, delivery_order, log_level from webhook.webhooks;

-- An update tells what it changed, and nothing else; one that changes nothing is none.
set role an_operator;
select count(*) from webhook.update_webhook('Shop', name => 'Store', timeout_ms => 500, max_age => '1 day');
select count(*) from webhook.update_webhook('Store', timeout_ms => 500, headers => '{"X-Api-Key": "***", "X-Env": "test"}');
select webhook.pause_webhook('Store');
select webhook.resume_webhook('Store');
select count(*) from webhook.regenerate_secret('Store', '1 hour');
reset role;
select * from news; select look();
select headers from webhook.webhook_def;

-- A credential that changes is told of, and not shown.
select count(*) from webhook.update_webhook('Store', headers => '{"X-Api-Key": "hush-again"}');
select action, old, new from news; select look();
select headers from webhook.webhook_def;
select webhook.update_webhook('Store', headers => '{"X-Other": "***"}');
\echo :LAST_ERROR_SQLSTATE
select webhook.create_webhook('Other', array['https://example.com/'], headers => '{"X-Other": "***"}');
\echo :LAST_ERROR_SQLSTATE
select look();

-- Events
select id as event from webhook.create_event('Store', 'items', 'table.recordInsert', condition => 'new.id > 0') \gset
select id as other from webhook.create_event('Store', 'items', 'table.recordDelete') \gset
select count(*) from webhook.update_event(:'event', payload_template => '{"id": "[@field:id]"}', condition => '');
select count(*) from webhook.update_event(:'event', payload_template => '{"id": "[@field:id]"}');
select count(*) from webhook.update_webhook('Store', enabled => false);
select * from news; select look();
select count(*) from webhook.update_webhook('Store', enabled => true);
select look();

-- Messages, through the REST API too, and what is rolled back was not done.
insert into items values (1), (2);
select message_id as message from webhook.messages limit 1 \gset
select webhook.cancel(:'message');
select webhook.cancel(:'message');
select webhook.redeliver(:'message');
select webhook.cancel_pending('Store');
select webhook.redeliver_failed('Store', since => '2026-01-01 00:00:00+00');
select webhook.retry_now('Store', 'https://example.com/a?token=hush-hush');
select count(*) from webhook.test_webhook('Store');
begin;
select webhook.pause_webhook('Store');
rollback;
select id as webhook from webhook.webhooks \gset
select status from webhook.rest('PUT', '/v3/outgoingWebhooks/' || :'webhook', '{"MaxAttempts": 3, "MaxAge": "2 days 06:00:00", "Headers": {"X-Api-Key": "***"}, "LogLevel": "errors"}');
select jsonb_pretty(body - 'Id' - 'DateCreated' - 'LastModified') from webhook.rest('GET', '/v3/outgoingWebhooks/' || :'webhook');
select status, body from webhook.rest('PUT', '/v3/outgoingWebhooks/' || :'webhook', '{"MaxAge": "soon"}');
select status, body from webhook.rest('PUT', '/v3/outgoingWebhooks/' || :'webhook', '{"Headers": {"X-New": "***"}}');
select status, body from webhook.rest('PUT', '/v3/outgoingWebhooks/' || :'webhook', '{"MaxInFlight": 0}');
select status, body -> 'TimeoutMs', body -> 'DeliveryOrder', body -> 'MaxInFlight' from webhook.rest('POST', '/v3/outgoingWebhooks', '{"Name": "All", "OutgoingUrls": ["https://example.com/"], "TimeoutMs": 7, "DeliveryOrder": "fifo", "MaxInFlight": 2}');
select * from news; select look();

-- What a reader sees.
set role a_looker;
select old, new from webhook.changes where kind = 'webhook' and action = 'create' and name = 'Shop';
select name, headers from webhook.webhooks order by name;
reset role;
select count(*) as headers_with_credentials from webhook.changes where concat(old, new) like '%": "hush%';

-- Dropped: from then on the rows are kept as long as messages are.
select webhook.drop_event(:'other');
select bool_and(is_kept) as others_are_kept from webhook_internal.change_log where kind = 'event' and id = :'event';
select bool_or(is_kept) as is_kept from webhook_internal.change_log where id = :'other';
select webhook.drop_webhook('Store');
select * from news;
select bool_or(is_kept) as is_kept from webhook_internal.change_log where webhook_id = :'webhook';
select bool_and(is_kept) as is_kept from webhook_internal.change_log where name = 'All';

-- A reader may call what only reads, as far as it may read the table.
select count(*) from webhook.create_webhook('Readable', array['https://example.com/?token=hush-hush']);
select id as event from webhook.create_event('Readable', 'items', 'table.recordInsert', payload_template => '{"link": "https://example.com/?token=hush-hush", "secret": "[@out-hook:secret]"}') \gset
set role a_looker;
select count(*) > 5 as explained, bool_or(detail like '%hush%') as shows from webhook.explain_event(:'event');
select webhook.preview_payload(:'event');
\echo :LAST_ERROR_SQLSTATE
select count(*) from webhook.template_parameters('items');
\echo :LAST_ERROR_SQLSTATE
select webhook.rest('GET', '/v3/outgoingWebhooks');
\echo :LAST_ERROR_SQLSTATE
reset role;
grant select, trigger on items to a_looker;
set role a_looker;
select webhook.preview_payload(:'event');
select count(*) > 5 as told from webhook.template_parameters('items');
reset role;
select webhook.preview_payload(:'event') like '%hush-hush%' as in_full;

-- Monitoring systems read what they need, and nothing else.
create role a_monitor in role pg_monitor;
set role a_monitor;
select database = current_database() as here from webhook.worker;
select outgoing_url from webhook.queue where webhook_name = 'Readable';
select count(*) > 3 as has_metrics from webhook.metrics;
select count(*) from webhook.webhooks;
\echo :LAST_ERROR_SQLSTATE
select count(*) from webhook.changes;
\echo :LAST_ERROR_SQLSTATE
reset role;

drop view news;
drop function look();
drop table looked, items;
drop extension webhook_ext;
drop role an_operator, a_looker, a_monitor;
