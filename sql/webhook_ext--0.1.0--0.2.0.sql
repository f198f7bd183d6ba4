-- From the schema of 0.1.0 to that of 0.2.0. A fresh installation of 0.2.0 and an upgraded one have the
-- same catalog; a test compares them.

-- What holds the worker up.
create function webhook.worker_detail()
returns text
language c
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'worker_detail_wrapper';

set local search_path = pg_catalog, pg_temp;
create or replace view webhook.worker as
select here.database,
       p.pid,
       case when p.pid is not null then 'running' when k.worker_stopped then 'stopped' else 'not running' end as state,
       p.started_at,
       x.extversion as version,
       case
           when p.pid is null and k.worker_stopped is not true and pg_is_in_recovery()
           then 'this server is in recovery: the worker starts after promotion'
           when p.pid is null and k.worker_stopped is not true
           then 'no worker runs: call webhook.start_worker(), and raise max_worker_processes if it finds no free slot'
       end as last_error,
       webhook.worker_detail() as detail
from (values (current_database()::text)) as here (database)
left join (select c.worker_stopped from webhook.control c limit 1) k on true
left join pg_extension x on x.extname = 'webhook_ext'
left join webhook.worker_process() p on true;
set local search_path = webhook, pg_temp;

revoke all on function webhook.worker_detail() from public;
grant execute on function webhook.worker_detail() to webhook_admin, webhook_reader;
comment on function webhook.worker_detail() is
    'Internal: what holds the worker up, for the view webhook.worker.';
comment on column webhook.worker.detail is
    'What holds the worker up, and how to end it: a lock and the process that holds it, a copy of another '
    'database, a standby that lags, too few file descriptors. NULL if nothing does.';
