-- What a definition is told when it is made: it is in order, and cannot work as it is.
create extension webhook_ext;
select webhook.stop_worker() is not null as stopped;
create table customers (id integer primary key, first_name text);

-- Addresses that no call may reach; the path may be a credential.
select name from webhook.create_webhook('Private', array[
    'https://10.0.0.1/hidden', 'https://169.254.169.254/latest/', 'https://[fe80::1]/', 'https://192.168.7.1:8443/a?token=hidden'
]);
-- What webhook.allowed_networks names, and names that are public as far as is known, are in order.
select name from webhook.create_webhook('Local', array[
    'http://127.0.0.1:9/', 'https://localhost/', 'https://example.com/', 'https://8.8.8.8/'
]);
-- Plain http.
select name from webhook.update_webhook('Local', outgoing_urls => array['http://8.8.8.8/hidden']);
select name from webhook.update_webhook('Local', description => 'as it was');
select status from webhook.rest('POST', '/v3/outgoingWebhooks', '{"Name": "REST", "OutgoingUrls": ["https://[::1]/"]}');

-- Placeholders of other template languages, and values before a change that an insert does not have.
select id as event from webhook.create_event('Local', 'customers', 'table.recordInsert',
    payload_template => '{"id": "{{ id }}", "before": "[@old:first_name]"}') \gset
select event_type from webhook.update_event(:'event', payload_template => '{"a": {"b": {"c": "[@field:id]"}}}');
select event_type from webhook.update_event(:'event', payload_template => '"no. {{id}}"');
select event_type from webhook.create_event('Local', 'customers', 'table.recordUpdate',
    payload_template => '{"before": "[@old:first_name]"}');
-- None of them stops anything.
select count(*) from webhook.events where status = 'Active';
set client_min_messages = warning;
drop extension webhook_ext cascade;
drop table customers;
