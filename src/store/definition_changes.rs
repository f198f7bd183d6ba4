//! Which caches a change of the definitions makes stale.
//!
//! Worker and backends cache definitions and listen for relcache invalidations of
//! the tables they came from.

use pgrx::pg_sys;

use super::rows::query_any_version as query;
use crate::pg::owner::as_owner;

/// The definition tables that exist.
const CONCERNED: &str = "
select c.oid
from pg_catalog.pg_class c
where c.relnamespace = 'webhook'::pg_catalog.regnamespace
  and c.relname in ('webhook_def', 'secret_def', 'url_def', 'event_def', 'control', 'def_origin')";

/// Every relation whose invalidation drops cached definitions.
pub fn concerned_relations() -> Vec<pg_sys::Oid> {
    as_owner(|| query(CONCERNED, &[], |row| row.value(1)))
}
