-- A database as 0.1.0 leaves it: definitions, history and a retry, written by hand, because
-- the library of 0.1.0 is no more. The trigger makes messages of what is inserted later.
create table items (id bigint primary key, note text);

insert into webhook.webhook_def (id, name, description, enabled, headers, timeout_ms, max_attempts, max_age,
                                 max_in_flight, delivery_order, log_level, created_by)
values ('hook01', 'first', 'made by 0.1.0', true, '{"x-team": "shop"}', 15000, 12, '3 days', 16, 'none', 'all',
        'postgres'),
       ('hook02', 'dropped', null, true, '{}', 15000, 12, '3 days', 16, 'fifo', 'errors', 'postgres');
update webhook.webhook_def set dropped_at = now() where id = 'hook02';
insert into webhook.secret_def (webhook_key, secret)
select w.webhook_key, 'whsec_' || encode(sha256('0.1.0'), 'base64')
from webhook.webhook_def w
where w.id = 'hook01';
insert into webhook.url_def (webhook_key, position, url)
select w.webhook_key, 1, 'RECEIVER'
from webhook.webhook_def w
where w.id = 'hook01';
insert into webhook.event_def (id, webhook_key, event_type, object_name, object_label, object_oid, enabled,
                               null_style, list_style, created_by)
select 'event1', w.webhook_key, 'table.recordInsert', 'items', 'items', 'items'::regclass, true,
       'typed', 'array', 'postgres'
from webhook.webhook_def w
where w.id = 'hook01';
create trigger webhook_event1 after insert on items
    for each row execute function webhook.capture('event1');

insert into webhook.counter (event_key, messages, calls, errors)
select e.event_key, 40, 45, 5
from webhook.event_def e
where e.id = 'event1';
insert into webhook.call_log_0 (call_id, called_at, message_id, url_key, event_key, event_date, attempt,
                                success, webhook_id, http_code, http_response, message_size, duration_ms)
select gen_random_uuid(), now() - n * interval '1 minute', gen_random_uuid(), u.url_key, e.event_key,
       now() - n * interval '1 minute', 1, n % 9 > 0, 'hook01', case when n % 9 > 0 then 200 else 500 end, 'ok',
       300, 1.5
from generate_series(1, 45) n, webhook.url_def u, webhook.event_def e;
