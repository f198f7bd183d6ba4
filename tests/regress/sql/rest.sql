-- webhook.rest answers as the REST API: status and body.
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

create table "MyCustomers" (id integer primary key, name text, balance numeric);
create schema shop;
create table shop.orders (id integer);
-- Ids, secrets and times differ from run to run.
create function without_chance(body jsonb) returns jsonb language sql as $$
    select case jsonb_typeof(body)
        when 'array' then (select jsonb_agg(without_chance(item)) from jsonb_array_elements(body) as item)
        else (
            select jsonb_object_agg(key, case
                when key in ('Id', 'Secret', 'DateCreated', 'LastModified') and value <> 'null' then '"…"'
                else value
            end)
            from jsonb_each(body)
        )
    end
$$;
\pset format unaligned
\pset tuples_only

select body ->> 'Id' as webhook, body ->> 'Secret' as secret, body ->> 'DateCreated' as created,
       status as created_status, jsonb_pretty(without_chance(body)) as created_body
from webhook.rest('POST', '/v3/outgoingWebhooks', '{
    "Name": "MyTestWebhook",
    "Description": "Send messages whenever changes in table MyCustomers occur",
    "OutgoingUrls": ["https://www.test.com/89lnuuy6999ss", "https://www.test.com/79hjy76788hbk"],
    "CallThrottling": 8
}')
\gset
\echo :created_status :created_body
select :'secret' = secret, :'created' ~ '^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$' from webhook.reveal_secret(:'webhook');
select '/v3/outgoingWebhooks/' || :'webhook' as one, '/v2/outgoingWebhooks/' || :'webhook' || '/events' as events \gset
select status, jsonb_pretty(without_chance(body)) from webhook.rest('GET', '/v2/outgoingWebhooks');
select status, jsonb_pretty(without_chance(body)) from webhook.rest('get', :'one');
select status, without_chance(body) from webhook.rest('PUT', :'one', '{"Name": "Renamed", "Description": null, "CallThrottling": 0, "Enabled": false}');
select status, body -> 'OutgoingUrls', body -> 'Status' from webhook.rest('PUT', :'one', '{"OutgoingUrls": ["https://www.test.com/new"], "Enabled": true}');

-- Events
select status as created_status, body ->> 'Id' as event, without_chance(body) as created_body
from webhook.rest('POST', :'events', '{
    "EventType": "table.recordUpdate",
    "ObjectName": "MyCustomers",
    "ObjectFields": ["balance"],
    "EventSources": ["REST API"],
    "CustomPayloadFields": ["id", "balance"]
}')
\gset
\echo :created_status :created_body
select status, without_chance(body) from webhook.rest('POST', :'events', '{"EventType": "table.recordInsert", "ObjectName": "shop.orders", "Enabled": false}');
select status, body -> 0 -> 'ObjectName', body -> 1 -> 'ObjectName', jsonb_array_length(body) from webhook.rest('GET', :'events');
select :'events' || '/' || :'event' as one_event \gset
select status, without_chance(body) from webhook.rest('PUT', :'one_event', '{"ObjectFields": null, "EventSources": [], "CustomPayloadFields": ["name"], "Enabled": false}');
select status, without_chance(body) from webhook.rest('GET', :'one_event');

-- Bad input
select * from webhook.rest('POST', '/v3/outgoingWebhooks');
select * from webhook.rest('POST', '/v3/outgoingWebhooks', '[]');
select * from webhook.rest('POST', '/v3/outgoingWebhooks', '{"OutgoingUrls": ["https://www.test.com/"]}');
select * from webhook.rest('POST', '/v3/outgoingWebhooks', '{"Name": "New"}');
select * from webhook.rest('POST', '/v3/outgoingWebhooks', '{"Name": "Renamed", "OutgoingUrls": ["https://www.test.com/"]}');
select * from webhook.rest('POST', '/v3/outgoingWebhooks', '{"Name": "New", "OutgoingUrls": ["ftp://www.test.com/"]}');
select * from webhook.rest('POST', '/v3/outgoingWebhooks', '{"Name": "New", "OutgoingUrls": "https://www.test.com/"}');
select * from webhook.rest('POST', '/v3/outgoingWebhooks', '{"Name": "New", "OutgoingUrls": ["https://www.test.com/"], "Color": "red"}');
select * from webhook.rest('PUT', :'one', '{"CallThrottling": -8}');
select * from webhook.rest('PUT', :'one', '{"Secret": "mine"}');
select * from webhook.rest('POST', :'events', '{"EventType": "table.recordInsert"}');
select * from webhook.rest('POST', :'events', '{"EventType": "table.recordInsert", "ObjectName": "mycustomers"}');
select * from webhook.rest('POST', :'events', '{"EventType": "record.insert", "ObjectName": "MyCustomers"}');
select * from webhook.rest('POST', :'events', '{"EventType": "table.recordUpdate", "ObjectName": "MyCustomers", "ObjectFields": ["balnce"]}');
select * from webhook.rest('POST', :'events', '{"EventType": "table.recordUpdate", "ObjectName": "webhook.webhooks"}');
select * from webhook.rest('PUT', :'one_event', '{"ObjectName": "shop.orders"}');
select status, body ->> 'Message' ~ '^event "[a-z0-9]{6}" of this webhook is the same; ' from webhook.rest('POST', :'events', '{"EventType": "table.recordInsert", "ObjectName": "shop.orders"}');

-- What is not there
select * from webhook.rest('GET', '/v3/outgoingWebhooks/nobody');
select status from webhook.rest('GET', '/v3/outgoingWebhooks/Renamed');
select status from webhook.rest('GET', '/v3/outgoingWebhooks/nobody/events');
select * from webhook.rest('GET', :'events' || '/nobody');
select * from webhook.rest('GET', '/v1/outgoingWebhooks');
select * from webhook.rest('GET', '/');
select * from webhook.rest('DELETE', '/v3/outgoingWebhooks');
select * from webhook.rest('POST', :'one', '{}');
select status from webhook.rest(null, '/v3/outgoingWebhooks');
-- An event is found below its own webhook only.
select id as other from webhook.create_webhook('Other', array['https://www.test.com/']) \gset
select status from webhook.rest('GET', '/v3/outgoingWebhooks/' || :'other' || '/events/' || :'event');
select status from webhook.rest('DELETE', '/v3/outgoingWebhooks/' || :'other' || '/events/' || :'event');

select status, body is null from webhook.rest('DELETE', :'one_event');
select status from webhook.rest('DELETE', :'one_event');
select status, body is null from webhook.rest('DELETE', :'one');
select status from webhook.rest('GET', :'one');
select count(*) from webhook.events;
select count(*) from pg_trigger where tgrelid = '"MyCustomers"'::regclass;

set client_min_messages = warning;
drop extension webhook_ext cascade;
drop table "MyCustomers";
drop schema shop cascade;
drop function without_chance;
