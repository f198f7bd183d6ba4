-- The views add up what is captured and what the worker has written. The worker stays away;
-- its rows are written here by hand, so that each state is seen for itself.
create extension webhook_ext;
-- It starts when CREATE EXTENSION has committed; only then it can be stopped for good.
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
truncate webhook_internal.settlement;
update webhook_internal.compaction set compacted_seq = 0, tail_from = '3:3:', tail_to = '3:3:', tail_id = 0, tail_tick = 0;
select database = current_database() as here, pid, state, started_at, version is not null as version, last_error from webhook.worker;

create table customers (id integer primary key, first_name text);
select id as webhook from webhook.create_webhook('Views', array['https://example.com/a', 'https://example.com/b']) \gset
select count(*) as events
from unnest(array['table.recordInsert', 'table.recordUpdate', 'table.recordDelete']) as kind,
     webhook.create_event('Views', 'customers', kind);
select webhook_key from webhook.webhook_def where id = :'webhook' \gset
select event_key from webhook.event_def where event_type = 'table.recordInsert' \gset
select url_key as url_a from webhook.url_def where position = 1 \gset
select url_key as url_b from webhook.url_def where position = 2 \gset
set webhook.source = 'psql';

-- Captured, not seen by any worker: counted at once.
insert into customers values (1, 'Ada'), (2, 'Grace');
update customers set first_name = 'Grace H.' where id = 2;
update customers set first_name = first_name;
delete from customers where id = 1;
select event_type, object_name, source, status from webhook.messages order by event_date;
select event_type, messages, calls, errors from webhook.events order by created_at;
select events, messages, calls, errors from webhook.webhooks;
select outgoing_url, state, pending, retrying, failed, oldest_pending is not null as oldest, next_attempt_at, last_error
from webhook.queue
order by outgoing_url;
select webhook.wait_idle('0') as idle;

-- Rolled back: never there.
begin;
insert into customers values (3, 'Nobody');
rollback;
select messages from webhook.webhooks;

-- Everything seen and settled, one error.
insert into webhook_internal.settlement (seq, tail_from, tail_to, tail_id, tail_tick, counts, backlog, lanes)
select 1, pg_current_snapshot(), pg_current_snapshot(), 0, 0,
       jsonb_build_array(jsonb_build_array(:event_key, 2, 4, 1)), '[]', '[]';
select event_type, status from webhook.messages order by event_date;
select event_type, messages, calls, errors from webhook.events order by created_at;
select outgoing_url, pending from webhook.queue order by outgoing_url;
select webhook.wait_idle('0') as idle;

-- Compacted: the same counts from the base tables.
begin;
insert into webhook_internal.counter values (:event_key, 2, 4, 1);
update webhook_internal.compaction f
set compacted_seq = l.seq, tail_from = l.tail_from, tail_to = l.tail_to, tail_id = l.tail_id, tail_tick = l.tail_tick
from webhook_internal.settlement l;
commit;
select messages, calls, errors from webhook.webhooks;

-- One lane holds a message that is on the wire, the other has failed once.
insert into customers values (4, 'Edsger');
select xid, id, message_id from webhook_internal.outbox order by id desc limit 1 \gset
insert into webhook_internal.settlement (seq, tail_from, tail_to, tail_id, tail_tick, counts, backlog, lanes)
select 2, pg_current_snapshot(), pg_current_snapshot(), 0, 0,
       jsonb_build_array(jsonb_build_array(:event_key, 1, 1, 1)),
       jsonb_build_array(jsonb_build_array(:url_a, 1)),
       jsonb_build_array(jsonb_build_object(
           'u', :url_a, 'own', false, 'busy', jsonb_build_array(jsonb_build_array(:'xid', :'id')),
           'state', 'active', 'next', null, 'error', null, 'oldest', 826000000000000));
insert into webhook_internal.retry (url_key, xid, id, message_id, webhook_key, event_key, event_date, attempts, state, next_at, last_error)
values (:url_b, :'xid', :id, :'message_id', :webhook_key, :event_key, now(), 1, 'waiting', 'tomorrow', 'answered 503');
select status from webhook.messages where message_id = :'message_id';
select outgoing_url, state, pending, retrying, failed, oldest_pending is not null as oldest, next_attempt_at = 'tomorrow' as tomorrow, last_error
from webhook.queue
order by outgoing_url;
select messages, calls, errors from webhook.webhooks;
select webhook.wait_idle('0') as idle;

-- The first is delivered; the retry alone does not keep anybody waiting, until it is due.
insert into webhook_internal.settlement (seq, tail_from, tail_to, tail_id, tail_tick, counts, backlog, lanes)
select 3, tail_from, tail_to, tail_id, tail_tick, '[]', jsonb_build_array(jsonb_build_array(:url_a, -1)),
       jsonb_build_array(jsonb_build_object('u', :url_a, 'own', false, 'busy', '[]'::jsonb, 'state', 'active', 'next', null, 'error', null))
from webhook_internal.settlement
where seq = 2;
select status from webhook.messages where message_id = :'message_id';
-- A worker that starts, and ends because it was stopped, may make it tell of the retry.
set client_min_messages = warning;
select webhook.wait_idle('0') as idle;
reset client_min_messages;
update webhook_internal.retry set next_at = now();
select webhook.wait_idle('0') as idle;
update webhook_internal.retry set state = 'failed', next_at = null;
select status from webhook.messages where message_id = :'message_id';
select outgoing_url, retrying, failed, last_error from webhook.queue order by outgoing_url;
update webhook_internal.retry set state = 'canceled';
select status from webhook.messages where message_id = :'message_id';
delete from webhook_internal.retry;

-- A lane that has left the tail: what lies behind its position is pending.
select pg_current_snapshot() as before \gset
insert into customers values (5, 'Barbara');
insert into customers values (6, 'Donald');
insert into webhook_internal.tick values (7, pg_current_snapshot(), array[:webhook_key]);
insert into webhook_internal.settlement (seq, tail_from, tail_to, tail_id, tail_tick, counts, backlog, lanes)
select 4, pg_current_snapshot(), pg_current_snapshot(), 0, 7,
       jsonb_build_array(jsonb_build_array(:event_key, 2, 1, 1)),
       jsonb_build_array(jsonb_build_array(:url_b, 1)),
       jsonb_build_array(jsonb_build_object(
           'u', :url_b, 'own', true, 'from', :'before', 'to', pg_current_snapshot()::text, 'tick', 7,
           'id', min(id)::text, 'busy', '[]'::jsonb, 'state', 'backing_off', 'next', '2100-01-01 00:00:00+00', 'error', 'connection refused', 'oldest', 826000000000000))
from (select id from webhook_internal.outbox order by id desc limit 2) last;
select source, status from webhook.messages order by event_date desc limit 2;
select outgoing_url, state, pending, next_attempt_at = '2100-01-01 00:00:00+00' as next_century, oldest_pending is not null as oldest, last_error
from webhook.queue
order by outgoing_url;
select webhook.wait_idle('0') as idle;

-- A definition that is changed by hand counts from the next change on.
select messages from webhook.events where event_type = 'table.recordUpdate';
update customers set first_name = 'Don' where id = 6;
update webhook.event_def set enabled = false where event_type = 'table.recordUpdate';
update customers set first_name = 'Donald K.' where id = 6;
select messages from webhook.events where event_type = 'table.recordUpdate';
update webhook.event_def set enabled = true where event_type = 'table.recordUpdate';
update webhook.webhook_def set enabled = false;
update customers set first_name = 'Don' where id = 6;
update webhook.webhook_def set enabled = true;
update customers set first_name = 'Donald K.' where id = 6;
select messages from webhook.events where event_type = 'table.recordUpdate';

-- The log
insert into webhook_internal.call_log_0
values (gen_random_uuid(), '2026-03-06 09:30:38+00', :'message_id', :url_a, :event_key, '2026-03-06 09:30:37+00', 1, true, :'webhook', 200, 'ok', null, 350, 1.5);
insert into webhook_internal.call_log_1
values (gen_random_uuid(), '2026-03-06 09:30:39+00', :'message_id', :url_b, :event_key, '2026-03-06 09:30:37+00', 2, false, :'webhook', 503, null, 'answered 503', 350, 2.5);
select message_id = :'message_id' as message, webhook_id = :'webhook' as webhook, webhook_name, event_type, object_name, outgoing_url, attempt, status,
       http_code, http_response, detail, message_size, duration_ms
from webhook.calls
order by called_at;

-- A dropped webhook: no queue, what was pending is canceled, the log still names it.
select webhook.drop_webhook('Views');
select count(*) from webhook.queue;
select status, count(*) from webhook.messages group by status order by status;
select webhook_name, event_type, outgoing_url from webhook.calls order by called_at;

-- Views stand when the table is gone.
drop table customers;
select distinct event_type, object_name from webhook.messages order by 1;

drop extension webhook_ext;
