-- Operational events: what they take and refuse, and what the views, explain, preview and REST say of them.
create extension webhook_ext;
select webhook.stop_worker() is not null as stopped;
create table customers (id integer primary key);
select id as webhook from webhook.create_webhook('Ops', array['https://example.com/']) \gset
select id as event, event_type, object_name, payload_template, enabled
from webhook.create_event('Ops', null, 'webhook.urlFailing') \gset
select :'event_type' as event_type, :{?object_name} as has_object_name, :'enabled' as enabled;
select c.event_type, c.payload_template
from (values ('webhook.urlRecovered'), ('webhook.urlDisabled'), ('webhook.messageFailed')) t (event_type)
cross join lateral webhook.create_event('Ops', null, t.event_type,
    payload_template => '{"text": "[@field:webhook_name]: [@field:last_error]"}') c;

-- Refused
\set VERBOSITY sqlstate
select webhook.create_event('Ops', null, 'webhook.urlFailing');
\set VERBOSITY default
\echo :LAST_ERROR_SQLSTATE
select webhook.create_event('Ops', 'customers', 'webhook.urlFailing');
\echo :LAST_ERROR_SQLSTATE
select webhook.create_event('Ops', null, 'webhook.urlFailing', object_fields => array['id']);
\echo :LAST_ERROR_SQLSTATE
select webhook.create_event('Ops', null, 'webhook.urlFailing', condition => 'new.id > 0');
\echo :LAST_ERROR_SQLSTATE
select webhook.create_event('Ops', null, 'webhook.urlFailing', match => '{"id": 1}');
\echo :LAST_ERROR_SQLSTATE
select webhook.create_event('Ops', null, 'webhook.urlFailing', payload_template => '"[@field:id]"');
\echo :LAST_ERROR_SQLSTATE
select webhook.create_event('Ops', null, 'webhook.urlBroken');
\echo :LAST_ERROR_SQLSTATE
select webhook.create_event('Ops', null, 'table.recordInsert');
\echo :LAST_ERROR_SQLSTATE
select webhook.update_event(:'event', event_sources => array['psql']);
\echo :LAST_ERROR_SQLSTATE

-- Shown, changed and dropped
select event_type, object_name, payload_template, status, detail, owner = current_user as mine from webhook.events order by created_at;
select event_type, enabled from webhook.update_event(:'event', enabled => false);
select status, detail from webhook.events where id = :'event';
select event_type, payload_template from webhook.update_event(:'event', payload_template => '"[@field:outgoing_url]"', enabled => true);
select check_name, ok from webhook.explain_event(:'event');
select webhook.preview_payload(:'event');
select webhook.preview_payload(:'event', '{"outgoing_url": "https://mine.example/"}');
select webhook.preview_payload(:'event', '{"color": "red"}');
\echo :LAST_ERROR_SQLSTATE
select payload_template is null as taken_away from webhook.update_event(:'event', payload_template => '');
select webhook.preview_payload(:'event')::jsonb -> 'data' as data;
select action, kind, new ->> 'event_type' as event_type from webhook.changes where kind = 'event' order by changed_at;
select status, body ->> 'EventType' as event_type, body -> 'ObjectName' as object_name
from webhook.rest('POST', '/v3/outgoingWebhooks/' || :'webhook' || '/events',
                  '{"EventType": "webhook.urlFailing", "CustomPayloadTemplate": "\"failing\""}');
select status, body from webhook.rest('POST', '/v3/outgoingWebhooks/' || :'webhook' || '/events', '{"EventType": "webhook.other"}');
select count(*) from webhook.update_webhook('Ops', outgoing_urls => array['https://example.com/b'], delivery_order => 'key');
select webhook.drop_event(:'event');
select count(*) from webhook.events;
select webhook.drop_webhook('Ops');
set client_min_messages = warning;
drop extension webhook_ext cascade;
drop table customers;
