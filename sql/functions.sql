-- What users call. They run with the caller's rights; only roles that may execute them
-- (see grants.sql) get at the tables, and only through them.

-- Webhooks

create function webhook.create_webhook(
    name            text,
    outgoing_urls   text[],
    description     text     default null,
    call_throttling integer  default null,
    enabled         boolean  default true,
    headers         jsonb    default '{}',
    timeout_ms      integer  default 15000,
    max_attempts    integer  default 12,
    max_age         interval default '3 days',
    max_in_flight   integer  default 16,
    delivery_order  text     default 'none',
    log_level       text     default 'all',
    secret          text     default null,
    disable_after   interval default null
)
returns table (
    id              text,
    name            text,
    description     text,
    outgoing_urls   text[],
    call_throttling integer,
    enabled         boolean,
    secret          text,
    token           text,
    created_at      timestamptz,
    created_by      text
)
language c
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'create_webhook_v2_wrapper';

create function webhook.update_webhook(
    webhook         text,
    name            text     default null,
    outgoing_urls   text[]   default null,
    description     text     default null,
    call_throttling integer  default null,
    enabled         boolean  default null,
    headers         jsonb    default null,
    timeout_ms      integer  default null,
    max_attempts    integer  default null,
    max_age         interval default null,
    max_in_flight   integer  default null,
    delivery_order  text     default null,
    log_level       text     default null,
    secret          text     default null,
    disable_after   interval default null
)
returns table (
    id              text,
    name            text,
    description     text,
    outgoing_urls   text[],
    call_throttling integer,
    enabled         boolean,
    modified_at     timestamptz,
    modified_by     text
)
language c
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'update_webhook_v2_wrapper';

create function webhook.drop_webhook(webhook text)
returns void
language c
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'drop_webhook_wrapper';

create function webhook.pause_webhook(webhook text)
returns void
language c
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'pause_webhook_wrapper';

create function webhook.resume_webhook(webhook text)
returns void
language c
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'resume_webhook_wrapper';

create function webhook.regenerate_secret(webhook text, overlap interval default '24 hours')
returns text
language c
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'regenerate_secret_wrapper';

create function webhook.reveal_secret(webhook text)
returns table (secret text, token text, expires_at timestamptz)
language c
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'reveal_secret_wrapper';

-- Events

-- condition_path carries the caller's search_path past the one this function runs with:
-- names in the condition mean what they mean to the caller.
create function webhook.create_event(
    webhook          text,
    object_name      regclass,
    event_type       text,
    object_fields    text[]  default null,
    event_sources    text[]  default null,
    payload_fields   text[]  default null,
    payload_template text    default null,
    condition        text    default null,
    enabled          boolean default true,
    null_style       text    default 'typed',
    list_style       text    default 'array',
    condition_path   text    default pg_catalog.current_setting('search_path'),
    match            jsonb   default null,
    order_key        text[]  default null
)
returns table (
    id               text,
    webhook_id       text,
    event_type       text,
    object_name      text,
    object_fields    text[],
    event_sources    text[],
    payload_fields   text[],
    payload_template text,
    condition        text,
    enabled          boolean,
    created_at       timestamptz,
    created_by       text
)
language c
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'create_event_v2_wrapper';

create function webhook.update_event(
    event            text,
    object_fields    text[]  default null,
    event_sources    text[]  default null,
    payload_fields   text[]  default null,
    payload_template text    default null,
    condition        text    default null,
    enabled          boolean default null,
    null_style       text    default null,
    list_style       text    default null,
    condition_path   text    default pg_catalog.current_setting('search_path'),
    match            jsonb   default null,
    order_key        text[]  default null
)
returns table (
    id               text,
    webhook_id       text,
    event_type       text,
    object_name      text,
    object_fields    text[],
    event_sources    text[],
    payload_fields   text[],
    payload_template text,
    condition        text,
    enabled          boolean,
    created_at       timestamptz,
    created_by       text
)
language c
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'update_event_v2_wrapper';

create function webhook.drop_event(event text)
returns void
language c
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'drop_event_wrapper';

create function webhook.preview_payload(event text, record jsonb default null)
returns text
language c
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'preview_payload_wrapper';

create function webhook.template_parameters(object_name regclass)
returns table (parameter text, meaning text)
language c
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'template_parameters_wrapper';

create function webhook.explain_event(event text)
returns table (check_name text, ok boolean, detail text)
language c
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'explain_event_wrapper';

-- Operating it

create function webhook.message(message_id uuid)
returns table (
    message_id         uuid,
    event_id           text,
    webhook_id         text,
    webhook_name       text,
    event_type         text,
    object_name        text,
    event_date         timestamptz,
    source             text,
    actor              text,
    status             text,
    record             jsonb,
    old_record         jsonb,
    changed            text[],
    headers            jsonb,
    body               text,
    deliveries         jsonb,
    definition_changed boolean,
    detail             text
)
language c
rows 1
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'message_wrapper';

create function webhook.test_webhook(webhook text)
returns table (outgoing_url text, message_id uuid)
language c
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'test_webhook_wrapper';

create function webhook.redeliver(message_id uuid)
returns integer
language c
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'redeliver_wrapper';

create function webhook.redeliver(
    webhook      text,
    since        timestamptz,
    until        timestamptz default null,
    status       text[]      default '{failed}',
    outgoing_url text        default null
)
returns bigint
language c
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'redeliver_window_wrapper';

create function webhook.redeliver_failed(
    webhook text,
    since   timestamptz default null,
    until   timestamptz default null
)
returns bigint
language c
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'redeliver_failed_wrapper';

create function webhook.retry_now(webhook text, outgoing_url text default null)
returns bigint
language c
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'retry_now_wrapper';

create function webhook.cancel(message_id uuid)
returns boolean
language c
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'cancel_wrapper';

create function webhook.cancel_pending(webhook text)
returns bigint
language c
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'cancel_pending_wrapper';

create function webhook.wait_idle(timeout interval default '30 seconds')
returns boolean
language c
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'wait_idle_wrapper';

create function webhook.start_worker()
returns boolean
language c
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'start_worker_wrapper';

create function webhook.stop_worker()
returns boolean
language c
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'stop_worker_wrapper';

create function webhook.adopt(pending text default 'keep')
returns void
language c
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'adopt_wrapper';

create function webhook.rest(method text, path text, body jsonb default null)
returns table (status integer, body jsonb)
language c
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'rest_wrapper';

-- Behind the view webhook.worker: a reader may not look into pg_stat_activity himself.
create function webhook_internal.worker_process()
returns table (pid integer, started_at timestamptz)
language c
rows 1
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'worker_process_wrapper';

-- Behind webhook.worker.detail, for the same reason.
create function webhook_internal.worker_detail()
returns text
language c
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'worker_detail_wrapper';

-- Behind webhook.worker: why no worker runs. stopped, recovery, starting, no slot or absent.
create function webhook_internal.worker_absence()
returns text
language c
stable
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'worker_absence_wrapper';

-- Behind webhook.queue: why nothing at all is sent. A state of the view.
create function webhook_internal.delivery_hold()
returns text
language c
stable
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'delivery_hold_wrapper';

-- A stored record as jsonb. What jsonb cannot hold (a NUL escape in a json column, a number or a depth beyond
-- its limits) comes as a JSON string.
create function webhook_internal.stored_json(stored text)
returns jsonb
language plpgsql
immutable
strict
set search_path = pg_catalog, pg_temp
as $$
begin
    return stored::jsonb;
exception when data_exception or program_limit_exceeded then
    return to_jsonb(stored);
end
$$;

-- Request headers without values that look like credentials. Written in C: a nested statement would show its
-- parameters to auto_explain.
create function webhook_internal.masked_headers(headers jsonb)
returns jsonb
language c
immutable
strict
parallel safe
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'masked_headers_wrapper';

-- Group roles with the privileges of webhook_admin or webhook_reader in this database alone.

-- The privileges that roles have on the objects of the extension, as GRANT names these.
create view webhook_internal.granted as
select pg_catalog.format('schema %I', n.nspname) as object, a.grantee, a.privilege_type as privilege
from pg_catalog.pg_namespace n
cross join lateral pg_catalog.aclexplode(n.nspacl) a
where n.nspname operator(pg_catalog.=) any (array['webhook', 'webhook_internal'])
union all
select pg_catalog.format(
           '%s %I.%I', case when c.relkind operator(pg_catalog.=) 'S' then 'sequence' else 'table' end, n.nspname, c.relname
       ),
       a.grantee, a.privilege_type
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid operator(pg_catalog.=) c.relnamespace
cross join lateral pg_catalog.aclexplode(c.relacl) a
where n.nspname operator(pg_catalog.=) any (array['webhook', 'webhook_internal'])
union all
select pg_catalog.format('function %s', p.oid::pg_catalog.regprocedure), a.grantee, a.privilege_type
from pg_catalog.pg_proc p
join pg_catalog.pg_namespace n on n.oid operator(pg_catalog.=) p.pronamespace
cross join lateral pg_catalog.aclexplode(p.proacl) a
where n.nspname operator(pg_catalog.=) any (array['webhook', 'webhook_internal']);

create function webhook.grant_to(role text, privileges text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    statement text;
begin
    if privileges is null or privileges not in ('admin', 'reader') then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = format('privileges "%s" is not one of admin, reader', left(privileges, 100)),
            hint = 'admin: those of webhook_admin; reader: those of webhook_reader';
    end if;
    perform webhook_internal.check_grantee(role);
    for statement in
        select format('grant %s on %s to %I', g.privilege, g.object, role)
        from webhook_internal.granted g
        join pg_roles r on r.oid = g.grantee
        where r.rolname = 'webhook_' || privileges
        order by g.object, g.privilege
    loop
        execute statement;
    end loop;
end
$$;

create function webhook.revoke_from(role text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    statement text;
begin
    perform webhook_internal.check_grantee(role);
    for statement in
        select format('revoke %s on %s from %I', g.privilege, g.object, role)
        from webhook_internal.granted g
        join pg_roles r on r.oid = g.grantee
        where r.rolname = role
        order by g.object, g.privilege
    loop
        execute statement;
    end loop;
end
$$;

create function webhook_internal.check_grantee(role text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    if not (select pg_has_role(e.extowner, 'usage') from pg_extension e where e.extname = 'webhook_ext') then
        raise exception using
            errcode = 'insufficient_privilege',
            message = 'only a superuser or the owner of the extension grants its privileges',
            hint = 'let one of them call it';
    end if;
    if role is null or role in ('webhook_admin', 'webhook_reader', 'webhook_worker')
        or exists (
            select
            from pg_extension e
            join pg_roles r on r.oid = e.extowner
            where e.extname = 'webhook_ext' and r.rolname = role
        )
    then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = case
                          when role is null then 'role is null'
                          else format('role "%s" has its privileges from the extension', role)
                      end,
            hint = 'name a role of yours';
    end if;
    if not exists (select from pg_roles r where r.rolname = role) then
        raise exception using
            errcode = 'undefined_object',
            message = format('role "%s" does not exist', left(role, 100)),
            hint = 'give the name of a role as pg_roles spells it';
    end if;
end
$$;

-- Works whatever the versions are, so that it can be asked when nothing else does.
create function webhook.version()
returns text
language c
stable
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'library_version_wrapper';

-- What the last statement of the installation calls.
create function webhook_internal.extension_installed()
returns void
language c
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'extension_installed_wrapper';
