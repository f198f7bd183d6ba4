//! Who may do what with the objects of the extension, whatever the installer's default privileges
//! say. `object_privileges.txt` is the list.

use super::support::Cluster;

/// What an installer may have set, for all that he creates: in this schema and in any.
const DEFAULT_PRIVILEGES: &str = "
create role reporting;
create role app;
create schema if not exists webhook;
alter default privileges grant select on tables to reporting;
alter default privileges grant all on tables to app with grant option;
alter default privileges grant all on sequences to app, public;
alter default privileges grant execute on functions to app;
alter default privileges grant usage on types to app;
alter default privileges grant all on schemas to app;
alter default privileges in schema webhook grant all on tables to public;
alter default privileges in schema webhook grant all on functions to reporting;";

/// One line an object: what roles other than its owner may do with it.
const PRIVILEGES: &str = "
with member as (
    select d.classid, d.objid
    from pg_depend d
    where d.refclassid = 'pg_extension'::regclass
      and d.refobjid = (select oid from pg_extension where extname = 'webhook_ext')
      and d.deptype = 'e'
),
object (kind, name, schema, owner, acl) as (
    select 'schema', n.nspname::text, null, n.nspowner, coalesce(n.nspacl, acldefault('n', n.nspowner))
    from pg_namespace n
    where n.nspname in ('webhook', 'webhook_internal')
    union all
    select case c.relkind when 'S' then 'sequence' when 'v' then 'view' else 'table' end, c.relname, c.relnamespace,
           c.relowner,
           coalesce(c.relacl, acldefault((case c.relkind when 'S' then 's' else 'r' end)::\"char\", c.relowner))
    from member m
    join pg_class c on m.classid = 'pg_class'::regclass and c.oid = m.objid and c.relkind in ('r', 'v', 'm', 'S')
    union all
    select 'column', c.relname || '.' || a.attname, c.relnamespace, c.relowner, a.attacl
    from member m
    join pg_class c on m.classid = 'pg_class'::regclass and c.oid = m.objid
    join pg_attribute a on a.attrelid = c.oid
    where a.attacl is not null
    union all
    select 'function', p.proname || '(' || pg_get_function_identity_arguments(p.oid) || ')', p.pronamespace,
           p.proowner,
           coalesce(p.proacl, acldefault('f', p.proowner))
    from member m
    join pg_proc p on m.classid = 'pg_proc'::regclass and p.oid = m.objid
    union all
    select 'type', t.typname::text, t.typnamespace, t.typowner, coalesce(t.typacl, acldefault('T', t.typowner))
    from member m
    join pg_type t on m.classid = 'pg_type'::regclass and t.oid = m.objid and t.typrelid = 0 and t.typelem = 0
)
select format('%s %s%s: %s', o.kind, nullif(o.schema::regnamespace::text, 'webhook') || '.', o.name, coalesce(string_agg(g.role || ' ' || g.privileges, ', ' order by g.role), '-'))
from object o
left join lateral (
    select case x.grantee when 0 then 'public' else x.grantee::regrole::text end as role,
           lower(string_agg(x.privilege_type || case when x.is_grantable then '*' else '' end, '+' order by x.privilege_type)) as privileges
    from aclexplode(o.acl) x
    where x.grantee <> o.owner
    group by x.grantee
) g on true
group by o.kind, o.schema, o.name
order by o.kind, o.schema::regnamespace::text, o.name";

fn privileges(cluster: &Cluster, database: &str) -> String {
    let rows = cluster.connect(database).query(PRIVILEGES, &[]).unwrap();
    let lines: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert!(lines.len() > 60, "{} objects", lines.len());
    lines.join("\n") + "\n"
}

/// The list, without its explanation.
fn intended() -> String {
    let list = include_str!("object_privileges.txt").lines();
    list.filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| format!("{line}\n"))
        .collect()
}

fn assert_as_intended(cluster: &Cluster, database: &str) {
    let (found, intended) = (privileges(cluster, database), intended());
    let (found, intended): (Vec<&str>, Vec<&str>) =
        (found.lines().collect(), intended.lines().collect());
    let extra: Vec<_> = found
        .iter()
        .filter(|line| !intended.contains(line))
        .collect();
    let missing: Vec<_> = intended
        .iter()
        .filter(|line| !found.contains(line))
        .collect();
    assert!(
        extra.is_empty() && missing.is_empty(),
        "in {database}, not in tests/it/object_privileges.txt: {extra:#?}\nonly there: {missing:#?}"
    );
}

#[test]
fn the_default_privileges_of_the_installer_give_nobody_anything() {
    let cluster = Cluster::start("default_privileges");
    cluster.sql(DEFAULT_PRIVILEGES);
    cluster.sql("create extension webhook_ext");
    assert_as_intended(&cluster, "postgres");
}

#[test]
fn an_update_takes_back_what_default_privileges_gave_before() {
    let cluster = Cluster::start("default_privileges_before");
    cluster.sql(DEFAULT_PRIVILEGES);
    cluster.sql(
        "create extension webhook_ext version '0.1.0';
         grant select on webhook.secret_def to reporting;
         grant update (url) on webhook.url_def to app",
    );
    assert_ne!(privileges(&cluster, "postgres"), intended());
    cluster.sql("alter extension webhook_ext update");
    assert_as_intended(&cluster, "postgres");
}
