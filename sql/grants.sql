-- Who may do what. PUBLIC may do nothing but have its changes captured, which needs no
-- privilege: a trigger function runs without one.

do $$
begin
    if not exists (select from pg_catalog.pg_roles where rolname operator(pg_catalog.=) 'webhook_admin') then
        create role webhook_admin nologin;
    end if;
    if not exists (select from pg_catalog.pg_roles where rolname operator(pg_catalog.=) 'webhook_reader') then
        create role webhook_reader nologin;
    end if;
end
$$;

-- The role that the worker's statements run as: what they need, by name, and nothing else. Nobody is a
-- member of it. A function, because a role that was dropped has to come back with its privileges.

create function webhook.create_worker_role()
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    unfit record;
begin
    if not (select r.rolsuper from pg_roles r where r.rolname = current_user) then
        raise exception using
            errcode = 'insufficient_privilege',
            message = 'only a superuser may make the role of the worker',
            hint = 'let a superuser call it';
    end if;
    if not exists (select from pg_roles r where r.rolname = 'webhook_worker') then
        create role webhook_worker nologin;
    end if;
    select u.what, u.way_out
    into unfit
    from pg_roles r
    left join lateral (
        select g.rolname
        from pg_auth_members m
        join pg_roles g on g.oid = m.member
        where m.roleid = r.oid
        order by g.rolname
        limit 1
    ) m on true
    cross join lateral (values
        (r.rolsuper, 'is a superuser', 'alter role webhook_worker nosuperuser'),
        (r.rolcanlogin, 'may log in', 'alter role webhook_worker nologin'),
        (r.rolcreaterole or r.rolcreatedb or r.rolreplication or r.rolbypassrls,
         'has attributes that it does not need',
         'alter role webhook_worker nocreaterole nocreatedb noreplication nobypassrls'),
        (m.rolname is not null,
         'has the member ' || quote_ident(m.rolname), 'revoke webhook_worker from ' || quote_ident(m.rolname))
    ) u (is_so, what, way_out)
    where r.rolname = 'webhook_worker'
      and u.is_so
    limit 1;
    if found then
        raise exception using
            errcode = 'object_not_in_prerequisite_state',
            message = format('role "webhook_worker" %s', unfit.what),
            detail = 'The worker acts as this role, which reads secrets: nobody else may use it.',
            hint = format('look who made it so, then: %s', unfit.way_out);
    end if;

    -- Up to version 16 PostgreSQL leaves a role that was dropped among the initial privileges of an
    -- extension's objects. A dump would revoke from its number, which ends pg_upgrade.
    with cleaned as (
        select i.objoid, i.classoid, i.objsubid,
               array(
                   select e.item
                   from unnest(i.initprivs) as e (item)
                   where not exists (
                       select
                       from aclexplode(array[e.item]) a
                       where a.grantee <> 0 and not exists (select from pg_roles r where r.oid = a.grantee)
                   )
               ) as initprivs
        from (
            select d.classid, d.objid
            from pg_depend d
            join pg_extension x on x.oid = d.refobjid
            where x.extname = 'webhook_ext'
              and d.refclassid = 'pg_extension'::regclass
              and d.deptype = 'e'
            union all
            select 'pg_namespace'::regclass, 'webhook'::regnamespace
        ) o (classid, objid)
        join pg_init_privs i on i.classoid = o.classid and i.objoid = o.objid
    ),
    emptied as (
        delete from pg_init_privs i
        using cleaned c
        where i.objoid = c.objoid and i.classoid = c.classoid and i.objsubid = c.objsubid
          and cardinality(c.initprivs) = 0
    )
    update pg_init_privs i
    set initprivs = c.initprivs
    from cleaned c
    where i.objoid = c.objoid and i.classoid = c.classoid and i.objsubid = c.objsubid
      and cardinality(c.initprivs) between 1 and cardinality(i.initprivs) - 1;

    if not pg_has_role('webhook_worker', 'pg_read_all_stats', 'usage') then
        grant pg_read_all_stats to webhook_worker;
    end if;
    grant usage on schema webhook, webhook_internal to webhook_worker;
    grant select
        on webhook.webhook_def, webhook.secret_def, webhook.url_def, webhook.event_def, webhook.def_origin,
           webhook.control, webhook_internal.segment, webhook_internal.outbox, webhook_internal.tail,
           webhook_internal.uncompacted
        to webhook_worker;
    grant update (detail) on webhook.webhook_def to webhook_worker;
    grant update (disabled_at, detail) on webhook.url_def to webhook_worker;
    grant update (outbox_number) on webhook.control to webhook_worker;
    grant usage on sequence webhook.outbox_flush_seq to webhook_worker;
    grant update (opened_at, closed_at) on webhook_internal.segment to webhook_worker;
    grant select, insert, truncate
        on webhook.outbox_0, webhook.outbox_1, webhook.outbox_2, webhook.outbox_3
        to webhook_worker;
    grant select, insert, update, truncate
        on webhook_internal.activity_0, webhook_internal.activity_1, webhook_internal.activity_2, webhook_internal.activity_3
        to webhook_worker;
    grant select, insert, update on webhook_internal.call_duration, webhook_internal.worker_total to webhook_worker;
    grant insert, truncate
        on webhook_internal.call_log_0, webhook_internal.call_log_1, webhook_internal.call_log_2, webhook_internal.call_log_3
        to webhook_worker;
    grant select, insert, update, delete on webhook_internal.retry to webhook_worker;
    grant select, update (taken_before, taken_within, taken_up_to, in_flight), delete
        on webhook_internal.cancellation
        to webhook_worker;
    grant select, insert, delete on webhook_internal.settlement, webhook_internal.tick to webhook_worker;
    grant select, delete on webhook_internal.definition_change, webhook_internal.change_log to webhook_worker;
    grant select, insert, update on webhook_internal.lane, webhook_internal.counter to webhook_worker;
    grant select, insert, delete on webhook_internal.counter_day to webhook_worker;
    grant select, update on webhook_internal.compaction to webhook_worker;
    grant select, insert, update, delete on webhook_internal.stopped_event to webhook_worker;
    grant select on webhook_internal.event_now to webhook_worker;
    -- No function that runs with the rights of its owner.
    grant execute
        on function webhook.present_columns(regclass, oid, text[], smallint[]), webhook_internal.match_kind(oid, oid),
           webhook_internal.unknown_labels(oid, jsonb), webhook_internal.shared_trigger(oid, text)
        to webhook_worker;
end
$$;

-- From every role but the owner: the installer's default privileges have given away what was
-- created until here.
revoke all on all tables in schema webhook, webhook_internal from public;
revoke all on all sequences in schema webhook, webhook_internal from public;
do $$
declare
    statement pg_catalog.text;
begin
    for statement in
        with member as (
            select d.classid, d.objid
            from pg_catalog.pg_depend d
            join pg_catalog.pg_extension e on e.oid operator(pg_catalog.=) d.refobjid
            where e.extname operator(pg_catalog.=) 'webhook_ext'
              and d.refclassid operator(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass
              and d.deptype operator(pg_catalog.=) 'e'
        ),
        object (described, owner, acl) as (
            select pg_catalog.format('schema %I', n.nspname), n.nspowner,
                   coalesce(n.nspacl, pg_catalog.acldefault('n', n.nspowner))
            from pg_catalog.pg_namespace n
            where n.nspname operator(pg_catalog.=) any (array['webhook', 'webhook_internal'])
            union all
            select pg_catalog.format(
                       '%s %s.%I', case when c.relkind operator(pg_catalog.=) 'S' then 'sequence' else 'table' end,
                       c.relnamespace::pg_catalog.regnamespace, c.relname),
                   c.relowner, c.relacl
            from member m
            join pg_catalog.pg_class c on c.oid operator(pg_catalog.=) m.objid
            where m.classid operator(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
            union all
            select pg_catalog.format('table %s.%I', c.relnamespace::pg_catalog.regnamespace, c.relname), c.relowner, a.attacl
            from member m
            join pg_catalog.pg_class c on c.oid operator(pg_catalog.=) m.objid
            join pg_catalog.pg_attribute a on a.attrelid operator(pg_catalog.=) c.oid
            where m.classid operator(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
            union all
            select pg_catalog.format('function %s', p.oid::pg_catalog.regprocedure),
                   p.proowner, coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))
            from member m
            join pg_catalog.pg_proc p on p.oid operator(pg_catalog.=) m.objid
            where m.classid operator(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass
            union all
            select pg_catalog.format('type %s', t.oid::pg_catalog.regtype), t.typowner, t.typacl
            from member m
            join pg_catalog.pg_type t on t.oid operator(pg_catalog.=) m.objid
            where m.classid operator(pg_catalog.=) 'pg_catalog.pg_type'::pg_catalog.regclass
              and t.typrelid operator(pg_catalog.=) 0
        )
        select distinct pg_catalog.format(
                   'revoke all on %s from %s cascade', o.described, coalesce(pg_catalog.quote_ident(r.rolname), 'public'))
        from object o
        cross join pg_catalog.aclexplode(o.acl) x
        left join pg_catalog.pg_roles r on r.oid operator(pg_catalog.=) x.grantee
        where x.grantee operator(pg_catalog.<>) o.owner
    loop
        execute statement;
    end loop;
end
$$;

grant usage on schema webhook, webhook_internal to webhook_admin, webhook_reader;

grant select
    on webhook.webhooks, webhook.events, webhook.messages, webhook.calls, webhook.queue, webhook.worker,
       webhook.metrics, webhook.changes, webhook.activity, webhook.cluster_queue, webhook.cluster_worker,
       webhook.cluster_metrics
    to webhook_admin, webhook_reader;

-- A function in a view runs with the rights of the role that reads the view.
grant execute
    on function webhook_internal.worker_process(), webhook_internal.worker_detail(), webhook_internal.worker_absence(),
       webhook_internal.delivery_hold(), webhook_internal.unseen_messages(), webhook_internal.busy_messages(),
       webhook_internal.masked_url(text), webhook_internal.masked_headers(jsonb), webhook_internal.masked_values(jsonb),
       webhook_internal.match_kind(oid, oid), webhook_internal.unknown_labels(oid, jsonb),
       webhook_internal.shared_trigger(oid, text), webhook_internal.on_each_node(text), webhook_internal.is_cluster()
    to webhook_reader;
grant execute
    on function webhook.duration_quantile(text, double precision, double precision), webhook.prometheus(),
       webhook.status_page(interval), webhook.version()
    to webhook_reader;
-- What only reads. The functions check the caller's rights on tables, and mask what readers may not see.
grant execute
    on function webhook.message(uuid), webhook.explain_event(text), webhook.preview_payload(text, jsonb),
       webhook.template_parameters(regclass)
    to webhook_reader;

-- Monitoring systems are members of this role of PostgreSQL.
grant usage on schema webhook, webhook_internal to pg_monitor;
grant select on webhook.worker, webhook.queue, webhook.metrics, webhook.activity to pg_monitor;
grant execute
    on function webhook_internal.worker_process(), webhook_internal.worker_detail(), webhook_internal.worker_absence(),
       webhook_internal.delivery_hold(), webhook_internal.unseen_messages(), webhook_internal.busy_messages(),
       webhook_internal.masked_url(text), webhook_internal.match_kind(oid, oid),
       webhook_internal.unknown_labels(oid, jsonb), webhook_internal.shared_trigger(oid, text),
       webhook.duration_quantile(text, double precision, double precision), webhook.prometheus(), webhook.version()
    to pg_monitor;

grant execute on all functions in schema webhook, webhook_internal to webhook_admin;
revoke execute
    on function webhook.grant_to(text, text), webhook.revoke_from(text), webhook.create_worker_role(),
       webhook_internal.definitions_changed(), webhook_internal.definition_row_changed(),
       webhook_internal.refuse_replicated(), webhook_internal.check_grantee(text), webhook_internal.extension_installed(),
       webhook.enable_cluster(), webhook_internal.cluster_document_changed(),
       webhook_internal.apply_cluster_document(text, integer, jsonb), webhook_internal.find_tables_again(oid),
       webhook_internal.publish_cluster_document(text, integer)
    from webhook_admin;

select webhook.create_worker_role();
