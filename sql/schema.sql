-- Both schemas belong to the extension alone: webhook, for users, and webhook_internal. CREATE EXTENSION takes an
-- existing schema webhook, because a dump restores it first. The owner of a schema could later replace the
-- extension's objects, and sessions of others, superusers too, would run the replacements. Objects that it already
-- holds could shadow the extension's.

do $$
declare
    owner pg_catalog.name;
    found pg_catalog.text;
begin
    select r.rolname
    into owner
    from pg_catalog.pg_namespace n
    join pg_catalog.pg_roles r on r.oid operator(pg_catalog.=) n.nspowner
    join pg_catalog.pg_extension e on e.extnamespace operator(pg_catalog.=) n.oid
    where e.extname operator(pg_catalog.=) 'webhook_ext'
      and not r.rolsuper
      and r.oid operator(pg_catalog.<>) e.extowner;
    if owner is not null then
        raise exception using
            errcode = 'insufficient_privilege',
            message = pg_catalog.format('schema webhook belongs to role "%s"', owner),
            hint = 'drop or rename it: CREATE EXTENSION webhook_ext makes the schema itself';
    end if;

    select pg_catalog.pg_describe_object(d.classid, d.objid, d.objsubid)
    into found
    from pg_catalog.pg_depend d
    join pg_catalog.pg_extension e on e.extnamespace operator(pg_catalog.=) d.refobjid
    where e.extname operator(pg_catalog.=) 'webhook_ext'
      and d.refclassid operator(pg_catalog.=) 'pg_catalog.pg_namespace'::pg_catalog.regclass
      and d.classid operator(pg_catalog.<>) 'pg_catalog.pg_default_acl'::pg_catalog.regclass
      and not (d.classid operator(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass
               and d.objid operator(pg_catalog.=) e.oid)
    order by d.classid operator(pg_catalog.<>) 'pg_catalog.pg_extension'::pg_catalog.regclass, d.classid, d.objid
    limit 1;
    if found is not null then
        raise exception using
            errcode = 'object_not_in_prerequisite_state',
            message = pg_catalog.format('schema webhook is not empty: it holds %s', found),
            hint = 'move what it holds to another schema, or drop or rename it: CREATE EXTENSION webhook_ext makes the schema itself';
    end if;

    select r.rolname
    into owner
    from pg_catalog.pg_namespace n
    join pg_catalog.pg_roles r on r.oid operator(pg_catalog.=) n.nspowner
    where n.nspname operator(pg_catalog.=) 'webhook_internal';
    if owner is not null then
        raise exception using
            errcode = 'insufficient_privilege',
            message = pg_catalog.format('schema webhook_internal belongs to role "%s"', owner),
            hint = 'drop or rename it: CREATE EXTENSION webhook_ext makes the schema itself';
    end if;
end
$$;

-- No dump holds it: one that is there already is not the extension's.
create schema webhook_internal;

-- At once: no other role may create anything beside the script.
do $$
declare
    statement pg_catalog.text;
begin
    for statement in
        select distinct pg_catalog.format(
                   'revoke all on schema %I from %s cascade', n.nspname, coalesce(pg_catalog.quote_ident(r.rolname), 'public'))
        from pg_catalog.pg_namespace n
        cross join pg_catalog.aclexplode(n.nspacl) x
        left join pg_catalog.pg_roles r on r.oid operator(pg_catalog.=) x.grantee
        where n.nspname operator(pg_catalog.=) any (array['webhook', 'webhook_internal'])
          and x.grantee operator(pg_catalog.<>) n.nspowner
    loop
        execute statement;
    end loop;
end
$$;
