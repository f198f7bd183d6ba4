-- The worker starts as soon as CREATE EXTENSION is committed.

update webhook.control
set state_system = s.system_identifier,
    state_database = d.oid,
    state_identity = coalesce(pg_catalog.current_setting('webhook.identity', true), ''),
    state_server = pg_catalog.current_setting('server_version_num')::integer operator(pg_catalog./) 10000
from pg_catalog.pg_control_system() s
cross join pg_catalog.pg_database d
where d.datname operator(pg_catalog.=) pg_catalog.current_database();

select webhook_internal.extension_installed();
