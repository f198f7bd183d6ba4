-- The worker starts as soon as CREATE EXTENSION is committed.
create function webhook.extension_installed()
returns void
language c
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'extension_installed_wrapper';

revoke all on function webhook.extension_installed() from public;
comment on function webhook.extension_installed() is 'Called once by CREATE EXTENSION: starts the worker of this database when the transaction commits.';

select webhook.extension_installed();
