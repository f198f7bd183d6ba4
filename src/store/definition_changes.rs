//! Which caches a change of the definitions makes stale.
//!
//! Worker and backends cache definitions and listen for relcache invalidations of the tables
//! they came from. A change of rows invalidates one of these tables, once a subtransaction: a
//! session that defines thousands of webhooks would else plan its statements on the others again
//! after each, and fill the queue of invalidations for all sessions. Tables of users are not
//! invalidated either: their sessions would plan prepared statements again.

use std::cell::Cell;
use std::ffi::CStr;

use pgrx::pg_sys;

use crate::pg::spi::Query;
use crate::pg::{invalidation, owner, xact};

/// Those that exist in this version of the schema. A plan would keep the oid of a schema that is
/// written as one, also beyond DROP EXTENSION.
const DEFINITION_TABLES: &str = "
select c.oid
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where n.nspname = 'webhook'
  and c.relname in ('webhook_def', 'secret_def', 'url_def', 'event_def', 'control', 'def_origin')";

/// The table that stands for all of them. It has one row and few statements read it; sessions with
/// the library of 0.1.0 listen to it, too.
const SIGNAL: &CStr = c"control";

thread_local! {
    static TABLES: Query = const { Query::new(DEFINITION_TABLES) };
    /// The subtransaction that was the last to invalidate it.
    static TOLD_IN: Cell<Option<(u64, u32)>> = const { Cell::new(None) };
}

/// The definition tables, as the owner and connected.
pub fn definition_tables() -> Vec<pg_sys::Oid> {
    let mut tables = Vec::new();
    TABLES.with(|query| query.read(&[], |row| tables.extend(row.oid(0))));
    tables
}

/// Makes what is cached of definitions stale: here at once, elsewhere when the transaction
/// commits.
pub fn tell_everyone() {
    let here = xact::current_ids();
    if TOLD_IN.replace(Some(here)) != Some(here) {
        if let Some(signal) = owner::relation(SIGNAL) {
            invalidation::invalidate(signal);
        }
    }
    invalidation::mark_definitions_stale();
}
