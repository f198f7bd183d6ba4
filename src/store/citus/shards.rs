//! The logical table of a shard.

use pgrx::pg_sys;

use super::is_here;
use crate::core::definitions::shard_names::number_of;
use crate::core::explain::Shards;
use crate::pg::owner::as_owner;
use crate::pg::relation_name;
use crate::pg::spi::{connected, Arg, Query};
use crate::store::rows::query;

/// What a relation is to the events of its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Logical {
    /// The table that users see: of a shard the one it is part of, else the relation itself.
    pub table: pg_sys::Oid,
    /// Changes of several placements of one shard are captured on one of them.
    pub is_captured_here: bool,
}

/// $1 shard, $2 and $3 schema and name of the relation. The name is compared as Citus makes it: another
/// relation may end in a number, too. Names over 63 bytes hold a hash.
const SHARD: &str = "
select s.logicalrelid::pg_catalog.oid,
       coalesce((
           select pg_catalog.min(p.groupid)
           from pg_catalog.pg_dist_placement p
           where p.shardid = s.shardid
             and p.shardstate = 1
       ) = (select l.groupid from pg_catalog.pg_dist_local_group l), true)
from pg_catalog.pg_dist_shard s
join pg_catalog.pg_class c on c.oid = s.logicalrelid
where s.shardid = $1
  and c.relnamespace = $2
  and pg_catalog.shard_name(s.logicalrelid, s.shardid) in (
      pg_catalog.quote_ident($3), pg_catalog.format('%s.%I', c.relnamespace::pg_catalog.regnamespace, $3)
  )";

/// Also of a partition.
const IS_SHARDED: &str = "
select true
from pg_catalog.pg_dist_partition p
where p.logicalrelid = $1::pg_catalog.regclass";

/// Of the table of event $1 and its partitions: the name of each shard that is on this node, whether its changes
/// are captured by another one, and whether it has the trigger. `shard_name` leaves out the schema public, which is
/// not searched here.
const SHARDS_OF_EVENT: &str = "
select r.shard::pg_catalog.text,
       f.captured_by <> l.groupid,
       exists (
           select
           from pg_catalog.pg_trigger k
           where k.tgrelid = r.shard
             and k.tgfoid = 'webhook.capture()'::pg_catalog.regprocedure
             and k.tgenabled <> 'D'
             and (k.tgname = t.trigger_name or pg_catalog.starts_with(k.tgname::pg_catalog.text, t.trigger_name || '_'))
       )
from webhook.event_def e
join webhook_internal.event_trigger t on t.event_key = e.event_key
cross join lateral (
    select e.object_name::pg_catalog.oid as relid
    union
    select p.relid::pg_catalog.oid
    from pg_catalog.pg_partition_tree(e.object_name) p
    where p.isleaf
) a
join pg_catalog.pg_dist_shard s on s.logicalrelid = a.relid::pg_catalog.regclass
cross join pg_catalog.pg_dist_local_group l
cross join lateral (
    select pg_catalog.min(p.groupid) as captured_by,
           pg_catalog.count(*) filter (where p.groupid = l.groupid) > 0 as is_here
    from pg_catalog.pg_dist_placement p
    where p.shardid = s.shardid
      and p.shardstate = 1
) f
cross join lateral (
    select pg_catalog.shard_name(s.logicalrelid, s.shardid) as name
) n
cross join lateral (
    select case
        when f.is_here then coalesce(pg_catalog.to_regclass(n.name), pg_catalog.to_regclass('public.' || n.name))
    end as shard
) r
where e.event_key = $1
order by s.shardid";

/// So many shards are told of by name.
const NAMED_SHARDS: usize = 10;

const ROOT_OF: &str = "
select coalesce(pg_catalog.pg_partition_root($1::pg_catalog.regclass)::pg_catalog.oid, $1)";

thread_local! {
    static ROOT: Query = const { Query::new(ROOT_OF) };
    static SHARDED: Query = const { Query::new(IS_SHARDED) };
    static OF_SHARD: Query = const { Query::new(SHARD) };
}

/// Whether Citus keeps this table in shards, of whatever kind. As the owner.
pub fn is_sharded(table: pg_sys::Oid) -> bool {
    connected(|| {
        let mut is_sharded = false;
        if is_here() {
            SHARDED.with(|query| query.read(&[Arg::Oid(table)], |_| is_sharded = true));
        }
        is_sharded
    })
}

/// Whether the running transaction has created a relation and, of a partition, also the table at its root: a new
/// partition of an older table is filled by users.
pub fn is_new_with_root(relation: pg_sys::Oid) -> bool {
    relation_name::is_new(as_owner(|| connected(|| root_of(relation))))
}

/// Of a partition the table at its root, else the relation itself.
fn root_of(relation: pg_sys::Oid) -> pg_sys::Oid {
    let mut root = relation;
    ROOT.with(|query| {
        query.read(&[Arg::Oid(relation)], |row| {
            root = row.oid(0).unwrap_or(relation)
        })
    });
    root
}

/// As the owner and connected.
pub fn logical(relation: pg_sys::Oid) -> Logical {
    of_shard(relation)
        .or_else(|| of_new_partition(relation))
        .unwrap_or(Logical {
            table: relation,
            is_captured_here: true,
        })
}

/// Another session of a distributed transaction may have made a partition, which is not known as a shard yet. Its
/// changes are those of the table that it is a partition of.
fn of_new_partition(relation: pg_sys::Oid) -> Option<Logical> {
    if !relation_name::is_new(relation) || !is_here() {
        return None;
    }
    let root = root_of(relation);
    (root != relation).then(|| of_shard(root)).flatten()
}

fn of_shard(relation: pg_sys::Oid) -> Option<Logical> {
    let (schema, name) = relation_name::of(relation)?;
    let number = number_of(&name)?;
    if !is_here() {
        return None;
    }
    let mut found = None;
    let arguments = [Arg::I64(number), Arg::Oid(schema), Arg::Text(Some(&name))];
    OF_SHARD.with(|query| {
        query.read(&arguments, |row| {
            found = row.oid(0).map(|table| Logical {
                table,
                is_captured_here: row.bool(1).unwrap_or(true),
            });
        });
    });
    found
}

struct FoundShard {
    /// Of the one on this node.
    name: Option<String>,
    is_elsewhere: bool,
    has_trigger: bool,
}

/// The shards of an event's table; `None` if it has none. As the owner.
pub fn of_event(event_key: i32) -> Option<Shards> {
    if !connected(is_here) {
        return None;
    }
    let found = query(SHARDS_OF_EVENT, &[event_key.into()], |row| FoundShard {
        name: row.get(1),
        is_elsewhere: row.get(2).unwrap_or(false),
        has_trigger: row.value(3),
    });
    if found.is_empty() {
        return None;
    }
    let mut shards = Shards::default();
    let mut deaf = Vec::new();
    for shard in found {
        shards.here += i64::from(shard.name.is_some());
        shards.elsewhere += i64::from(shard.is_elsewhere);
        deaf.extend(shard.name.filter(|_| !shard.has_trigger));
    }
    if deaf.len() > NAMED_SHARDS {
        let others = deaf.len() - NAMED_SHARDS;
        deaf.truncate(NAMED_SHARDS);
        deaf.push(format!("and {others} more"));
    }
    shards.deaf = (!deaf.is_empty()).then(|| deaf.join(", "));
    Some(shards)
}
