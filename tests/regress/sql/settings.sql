load 'webhook_ext';

select name, boot_val, unit, context, min_val, max_val
from pg_settings
where name like 'webhook.%'
  and name <> 'webhook.account_id'
order by name;

select name as without_description
from pg_settings
where name like 'webhook.%'
  and (short_desc is null or extra_desc is null);

-- Derived from the cluster, and the same each time.
select boot_val ~ '^[a-z0-9]{16}$' as looks_derived, context
from pg_settings
where name = 'webhook.account_id';

-- Lists are checked where they are set.
alter system set webhook.allowed_networks = '10.0.0.0/99';
alter system set webhook.allowed_networks = '169.254.0.0/16';
alter system set webhook.retry_schedule = '5s,soon';
alter system set webhook.synchronized_standby_slots = 'one', 'Two';
alter system set webhook.ca_file = 'roots.pem';
alter system set webhook.ca_file = '/nowhere/roots.pem';
alter system set webhook.ca_file = '/etc/passwd';
alter system set webhook.connections = 0;

-- Units are PostgreSQL's.
alter system set webhook.log_retention = '7 parsecs';

-- Anyone may name a source; only a superuser may switch capture off.
create role settings_user;
set role settings_user;
set webhook.source = 'REST API';
set webhook.capture = off;
reset role;
set webhook.capture = off;
show webhook.capture;
reset webhook.capture;
drop role settings_user;

-- A mistyped name is an error, not a setting.
set webhook.sorce = 'x';
