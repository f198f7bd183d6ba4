//! A cluster of Citus: which node this is, whose shard a relation is, and how definitions reach all nodes.
//!
//! Citus keeps its catalogs in `pg_catalog`. Statements name them only after [`is_here`], and through what
//! stands in this folder alone. It hides shards from statements that read `pg_class`, so a shard is
//! looked up by its name from PostgreSQL's caches.

mod documents;
mod nodes;
mod shards;

pub use documents::{
    account_id, apply, applying, catch_up, check_definitions_are_made_here, publish, publish_all,
    wait_for_events, Document,
};
pub use nodes::{
    coordinator, distribute_documents, on_other_nodes, other_nodes_without, pending_of, NodeAnswer,
    Position,
};
pub use shards::{is_new_with_root, is_sharded, logical, of_event};

use crate::pg::spi::Query;

/// By its catalog: tests have one that stands for it.
const IS_HERE: &str = "
select pg_catalog.to_regclass('pg_catalog.pg_dist_shard') is not null";

thread_local! {
    static HERE: Query = const { Query::new(IS_HERE) };
}

/// Whether this database is a node of a cluster, or could be. As the owner and connected.
fn is_here() -> bool {
    let mut is_here = false;
    HERE.with(|query| query.read(&[], |row| is_here = row.bool(0) == Some(true)));
    is_here
}
