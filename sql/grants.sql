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

-- From every role but the owner: the installer's default privileges have given away what was
-- created until here.
revoke all on all tables in schema webhook from public;
revoke all on all sequences in schema webhook from public;
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
            select 'schema webhook', n.nspowner, coalesce(n.nspacl, pg_catalog.acldefault('n', n.nspowner))
            from pg_catalog.pg_namespace n
            where n.nspname operator(pg_catalog.=) 'webhook'
            union all
            select pg_catalog.format(
                       '%s webhook.%I', case when c.relkind operator(pg_catalog.=) 'S' then 'sequence' else 'table' end, c.relname),
                   c.relowner, c.relacl
            from member m
            join pg_catalog.pg_class c on c.oid operator(pg_catalog.=) m.objid
            where m.classid operator(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
            union all
            select pg_catalog.format('table webhook.%I', c.relname), c.relowner, a.attacl
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

grant usage on schema webhook to webhook_admin, webhook_reader;

grant select
    on webhook.webhooks, webhook.events, webhook.messages, webhook.calls, webhook.queue, webhook.worker,
       webhook.metrics
    to webhook_admin, webhook_reader;

-- A function in a view runs with the rights of whoever reads the view.
grant execute on function webhook.worker_process(), webhook.worker_detail(), webhook.unseen_messages(), webhook.busy_messages() to webhook_reader;
grant execute on function webhook.masked_url(text) to webhook_reader;

grant execute on all functions in schema webhook to webhook_admin;
revoke execute
    on function webhook.definitions_changed(), webhook.refuse_replicated(), webhook.grant_to(text, text),
       webhook.revoke_from(text), webhook.check_grantee(text), webhook.extension_installed()
    from webhook_admin;
