//! Which caches a change of the definitions makes stale.
//!
//! Worker and backends cache definitions and listen for relcache invalidations of
//! the tables they came from and, for an event, of the table it watches.

use pgrx::pg_sys;

use super::rows::query_any_version as query;
use crate::pg::owner::as_owner;

/// The definition tables that exist, and the tables with events that do.
const CONCERNED: &str = "
select c.oid
from pg_catalog.pg_class c
where c.relnamespace = 'webhook'::pg_catalog.regnamespace
  and c.relname in ('webhook_def', 'secret_def', 'url_def', 'event_def', 'control', 'def_origin')
union
select e.object_name::pg_catalog.oid
from webhook.event_def e
where e.object_name is not null";

/// Every relation whose invalidation drops a cached definition.
pub fn concerned_relations() -> Vec<pg_sys::Oid> {
    as_owner(|| query(CONCERNED, &[], |row| row.value(1)))
}
