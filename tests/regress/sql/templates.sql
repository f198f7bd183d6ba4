-- Custom payloads: how they are checked, shown, explained and previewed.
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
create table customers (
    id integer primary key, first_name text, "Größe ""x""" numeric(10, 2), active boolean, tags text[], extra json
);
select id as webhook from webhook.create_webhook('Custom', array['https://example.com/']) \gset

-- Every parameter with its meaning.
select * from webhook.template_parameters('customers');
select webhook.template_parameters('webhook.events');
\echo :LAST_ERROR_SQLSTATE

-- Checked when it is made: JSON with line and column,
select webhook.create_event('Custom', 'customers', 'table.recordInsert', payload_template => '{"a": 1,}');
\echo :LAST_ERROR_SQLSTATE
select webhook.create_event('Custom', 'customers', 'table.recordInsert', payload_template => '{
  "größe": 1
  "b": 2
}');
\echo :LAST_ERROR_SQLSTATE
select webhook.create_event('Custom', 'customers', 'table.recordInsert', payload_template => '{"a": [@field:id]}');
\echo :LAST_ERROR_SQLSTATE
-- parameters,
select webhook.create_event('Custom', 'customers', 'table.recordInsert', payload_template => '{
  "id": "no. [@out-hook:eventid]"}');
\echo :LAST_ERROR_SQLSTATE
select webhook.create_event('Custom', 'customers', 'table.recordInsert', payload_template => '"[@Field:id]"');
\echo :LAST_ERROR_SQLSTATE
select webhook.create_event('Custom', 'customers', 'table.recordInsert', payload_template => '"[@field:id"');
\echo :LAST_ERROR_SQLSTATE
select webhook.create_event('Custom', 'customers', 'table.recordInsert', payload_template => '{"[@field:id]": 1}');
\echo :LAST_ERROR_SQLSTATE
-- columns.
select webhook.create_event('Custom', 'customers', 'table.recordInsert', payload_template => '"[@field:frist_name]"');
\echo :LAST_ERROR_SQLSTATE
select webhook.create_event('Custom', 'customers', 'table.recordInsert', payload_template => '"[@old:ID]"');
\echo :LAST_ERROR_SQLSTATE
select webhook.create_event('Custom', 'customers', 'table.recordInsert', payload_template => '1', payload_fields => array['id']);
\echo :LAST_ERROR_SQLSTATE

-- An event with a template.
select id as event
from webhook.create_event('Custom', 'customers', 'table.recordUpdate', array['first_name', 'active'], payload_template => '{
  "id": "[@field:id]", "name": "[@field:first_name]", "size": "[@field:Größe \"x\"]", "was": "[@old:Größe \"x\"]"}')
\gset
select payload_template
from webhook.create_event('Custom', 'customers', 'table.recordUpdate', payload_template => '{"id": "[@field:id]", "id": 1.50}');
select object_fields, payload_template from webhook.events order by created_at;
\set VERBOSITY sqlstate
select webhook.create_event('Custom', 'customers', 'table.recordUpdate', payload_template => '{"id": "[@field:id]", "id": 1.50}');
\set VERBOSITY default

-- A preview: of a row of nulls, of given values, of an existing row.
select webhook.preview_payload(:'event');
select webhook.preview_payload(:'event', '{"Größe \"x\"": 7.5}');
insert into customers values (7, 'Ann "A"', 12.50, true, array['a', null], '{"deep": [1.00, "\u00e9"]}');
select webhook.preview_payload(:'event');
select payload_template from webhook.update_event(:'event', object_fields => array['first_name', 'active'], payload_template => '[
    "[@field:id]", "[@field:first_name]", "[@field:active]", "[@field:tags]", "[@field:extra]",
    "<[@field:id] [@field:first_name] [@field:active] [@field:tags] [@field:extra]>",
    "[@old:first_name]", "[@out-hook:objectFields]", "[@out-hook:changedFields]", "[@out-hook:changedFields]!",
    "[@out-hook:eventType]", "[@out-hook:objectName]", "[@out-hook:messageId]", "[@out-hook:callId]",
    "[@out-hook:actor]", "[@out-hook:source]", "[@sys:IntegrationURL]"
]') as t;
select webhook.preview_payload(:'event', '{"first_name": "Bob\\", "tags": null, "active": null, "extra": null}');
select regexp_replace(webhook.preview_payload(id), '"eventDate":"[^"]*"|"[a-z]*Id":"[^"]*"|"secret":"[^"]*"', '…', 'g')
from webhook.create_event('Custom', 'customers', 'table.recordDelete', payload_fields => array['extra', 'id']);
select webhook.preview_payload('nobody');
\echo :LAST_ERROR_SQLSTATE
select webhook.preview_payload(:'event', '{"frist_name": 1}');
\echo :LAST_ERROR_SQLSTATE
select webhook.preview_payload(:'event', '[1]');
\echo :LAST_ERROR_SQLSTATE
select webhook.preview_payload(:'event', '{"id": "seven"}');
\echo :LAST_ERROR_SQLSTATE
select webhook.preview_payload(null);
\echo :LAST_ERROR_SQLSTATE

-- Template and fields of the default payload exclude each other; an empty text takes a template away.
select webhook.update_event(:'event', payload_fields => array['id']);
\echo :LAST_ERROR_SQLSTATE
select webhook.update_event(:'event', payload_template => '"[@field:nobody]"');
\echo :LAST_ERROR_SQLSTATE
select payload_template is null as without, payload_fields from webhook.update_event(:'event', payload_template => '', payload_fields => array['id']);
select webhook.update_event(:'event', payload_template => '1');
\echo :LAST_ERROR_SQLSTATE
select payload_template, payload_fields from webhook.update_event(:'event', payload_template => '"[@field:tags]"', payload_fields => '{}');

-- A column that a template names goes: the event says so. A rename does not matter.
alter table customers rename tags to labels;
select webhook.preview_payload(:'event');
select status, detail from webhook.events where id = :'event';
alter table customers drop column labels;
select status, detail from webhook.events where id = :'event';
insert into customers (id) values (8);
update customers set first_name = 'x' where id = 8;
select count(*) from webhook.messages;

drop table customers;
\set VERBOSITY sqlstate
select webhook.preview_payload(:'event');
\set VERBOSITY default
set client_min_messages = warning;
drop extension webhook_ext cascade;
