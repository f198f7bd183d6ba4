//! The schemas of the extension as lines of text: two databases with the same lines have the same catalog.
//!
//! Nothing in a line depends on OIDs, on the order of creation or on how a statement was written.

use std::collections::BTreeSet;

use super::Cluster;

/// Each query gives lines; together they say everything that a client, pg_dump or the planner
/// can tell of the schema.
const DESCRIPTIONS: &[(&str, &str)] = &[
    ("member of the extension", MEMBERS),
    ("relation", RELATIONS),
    ("column", COLUMNS),
    ("constraint", CONSTRAINTS),
    ("index", INDEXES),
    ("trigger", TRIGGERS),
    ("view", VIEWS),
    ("sequence", SEQUENCES),
    ("function", FUNCTIONS),
    ("comment", COMMENTS),
    ("initial privilege", INITIAL_PRIVILEGES),
    ("in dumps", IN_DUMPS),
    ("schema", SCHEMA),
    ("rows", ROWS),
];

const MEMBERS: &str = "
select pg_describe_object(d.classid, d.objid, d.objsubid)
from pg_depend d
join pg_extension e on d.refclassid = 'pg_extension'::regclass and d.refobjid = e.oid
where e.extname = 'webhook_ext' and d.deptype = 'e'";

const RELATIONS: &str = "
select format('%s kind %s persistence %s options %s am %s security %s %s identity %s owner %s acl %s',
              c.oid::regclass, c.relkind, c.relpersistence, c.reloptions, a.amname, c.relrowsecurity,
              c.relforcerowsecurity, c.relreplident, c.relowner::regrole,
              (select array_agg(x::text order by x::text) from unnest(c.relacl) x))
from pg_class c
left join pg_am a on a.oid = c.relam
where c.relnamespace::regnamespace::text in ('webhook', 'webhook_internal')";

/// Their order counts, their numbers do not.
const COLUMNS: &str = "
select format('%s %s: %s %s %s not null %s default %s identity %s generated %s storage %s compression %s collation %s statistics %s acl %s',
              c.oid::regclass, row_number() over (partition by c.oid order by a.attnum), a.attname,
              format_type(a.atttypid, a.atttypmod), case when a.attinhcount > 0 then 'inherited' end,
              a.attnotnull, pg_get_expr(d.adbin, d.adrelid), a.attidentity, a.attgenerated, a.attstorage,
              a.attcompression, a.attcollation::regcollation, coalesce(a.attstattarget, -1),
              (select array_agg(x::text order by x::text) from unnest(a.attacl) x))
from pg_class c
join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
where c.relnamespace::regnamespace::text in ('webhook', 'webhook_internal')";

const CONSTRAINTS: &str = "
select format('%s %s: %s validated %s deferrable %s %s',
              k.conrelid::regclass, k.conname, pg_get_constraintdef(k.oid), k.convalidated,
              k.condeferrable, k.condeferred)
from pg_constraint k
where k.connamespace::regnamespace::text in ('webhook', 'webhook_internal')";

const INDEXES: &str = "
select format('%s valid %s clustered %s identity %s',
              pg_get_indexdef(i.indexrelid), i.indisvalid, i.indisclustered, i.indisreplident)
from pg_index i
join pg_class c on c.oid = i.indexrelid
where c.relnamespace::regnamespace::text in ('webhook', 'webhook_internal')";

/// Without those of foreign keys, whose names hold OIDs.
const TRIGGERS: &str = "
select format('%s enabled %s', pg_get_triggerdef(t.oid), t.tgenabled)
from pg_trigger t
join pg_class c on c.oid = t.tgrelid
where c.relnamespace::regnamespace::text in ('webhook', 'webhook_internal') and not t.tgisinternal";

const VIEWS: &str = "
select format('%s %s', c.oid::regclass, pg_get_viewdef(c.oid))
from pg_class c
where c.relnamespace::regnamespace::text in ('webhook', 'webhook_internal') and c.relkind in ('v', 'm')";

const SEQUENCES: &str = "
select format('%s %s start %s increment %s from %s to %s cache %s cycle %s owned by %s',
              s.seqrelid::regclass, s.seqtypid::regtype, s.seqstart, s.seqincrement, s.seqmin, s.seqmax,
              s.seqcache, s.seqcycle,
              (select array_agg(format('%s %s', pg_describe_object(d.refclassid, d.refobjid, d.refobjsubid), d.deptype))
               from pg_depend d
               where d.classid = 'pg_class'::regclass and d.objid = s.seqrelid and d.deptype in ('a', 'i')))
from pg_sequence s
join pg_class c on c.oid = s.seqrelid
where c.relnamespace::regnamespace::text in ('webhook', 'webhook_internal')";

const FUNCTIONS: &str = "
select format('%s rows %s cost %s support %s owner %s acl %s %s',
              p.oid::regprocedure, p.prorows, p.procost, p.prosupport, p.proowner::regrole,
              (select array_agg(x::text order by x::text) from unnest(p.proacl) x),
              pg_get_functiondef(p.oid))
from pg_proc p
where p.pronamespace::regnamespace::text in ('webhook', 'webhook_internal')";

const COMMENTS: &str = "
select format('%s: %s', pg_describe_object(d.classoid, d.objoid, d.objsubid), d.description)
from pg_description d
where exists (
    select
    from pg_depend m
    join pg_extension e on m.refclassid = 'pg_extension'::regclass and m.refobjid = e.oid
    where e.extname = 'webhook_ext' and m.classid = d.classoid and m.objid = d.objoid and m.deptype = 'e'
)
or d.objoid = (select oid from pg_extension where extname = 'webhook_ext')";

/// What pg_dump takes for granted.
const INITIAL_PRIVILEGES: &str = "
select format('%s: %s', pg_describe_object(p.classoid, p.objoid, p.objsubid),
              (select array_agg(x::text order by x::text) from unnest(p.initprivs) x))
from pg_init_privs p
join pg_depend m on m.classid = p.classoid and m.objid = p.objoid and m.deptype = 'e'
join pg_extension e on m.refclassid = 'pg_extension'::regclass and m.refobjid = e.oid
where e.extname = 'webhook_ext'";

const IN_DUMPS: &str = "
select format('%s %s', c.relation::regclass, c.condition)
from pg_extension e
cross join unnest(e.extconfig, e.extcondition) as c (relation, condition)
where e.extname = 'webhook_ext'";

const SCHEMA: &str = "
select format('%s owner %s acl %s', n.nspname, n.nspowner::regrole,
              (select array_agg(x::text order by x::text) from unnest(n.nspacl) x))
from pg_namespace n
where n.nspname in ('webhook', 'webhook_internal')
union all
select format('extension version %s relocatable %s', e.extversion, e.extrelocatable)
from pg_extension e
where e.extname = 'webhook_ext'";

/// Internal tables begin with the same number of rows; the worker writes settlements by itself.
const ROWS: &str = "
select format('%s has %s', c.oid::regclass,
              (xpath('/row/count/text()',
                     query_to_xml(format('select count(*) from %s', c.oid::regclass), false, true, '')))[1])
from pg_class c
where c.relnamespace::regnamespace::text in ('webhook', 'webhook_internal')
  and c.relkind = 'r'
  and c.relname not in ('settlement', 'tick')";

/// Everything there is in the schema, one line each.
pub fn describe(cluster: &Cluster, database: &str) -> BTreeSet<String> {
    let mut session = cluster.connect(database);
    // Names are written with their schema.
    session
        .batch_execute("set search_path = pg_catalog")
        .unwrap();
    let mut lines = BTreeSet::new();
    for (kind, query) in DESCRIPTIONS {
        let rows = session.query(*query, &[]);
        let rows = rows.unwrap_or_else(|error| panic!("{kind}: {error:?}"));
        assert!(!rows.is_empty(), "there is no {kind}");
        for row in rows {
            lines.insert(format!("{kind}: {}", row.get::<_, String>(0)));
        }
    }
    lines
}

/// What one has and the other has not, as a diff.
pub fn difference(fresh: &BTreeSet<String>, upgraded: &BTreeSet<String>) -> String {
    let missing = fresh
        .difference(upgraded)
        .map(|line| format!("only fresh:    {line}"));
    let extra = upgraded
        .difference(fresh)
        .map(|line| format!("only upgraded: {line}"));
    missing.chain(extra).collect::<Vec<_>>().join("\n")
}
