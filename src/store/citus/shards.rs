//! The logical table of a shard.

use pgrx::pg_sys;

use super::is_here;
use crate::core::definitions::shard_names::number_of;
use crate::pg::owner::as_owner;
use crate::pg::relation_name;
use crate::pg::spi::{connected, Arg, Query};

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
    let mut root = relation;
    as_owner(|| {
        connected(|| {
            ROOT.with(|query| {
                query.read(&[Arg::Oid(relation)], |row| {
                    root = row.oid(0).unwrap_or(relation)
                })
            })
        });
    });
    relation_name::is_new(root)
}

/// As the owner and connected.
pub fn logical(relation: pg_sys::Oid) -> Logical {
    of_shard(relation).unwrap_or(Logical {
        table: relation,
        is_captured_here: true,
    })
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
