//! The trigger on the definition tables that makes caches stale.
//!
//! Fires for each statement, whoever changes a definition: our functions, a restore,
//! or an administrator by hand.

use pgrx::prelude::*;

use crate::pg::commit_start::tell_worker_at_commit;
use crate::pg::invalidation::invalidate;
use crate::store::definition_changes::concerned_relations;

/// A trigger that fires after a statement has no row to return.
type NoRow<'a> = Option<PgHeapTuple<'a, pgrx::AllocatedByPostgres>>;

#[pg_trigger(sql = false)]
fn definitions_changed<'a>(
    _trigger: &'a PgTrigger<'a>,
) -> Result<NoRow<'a>, std::convert::Infallible> {
    for relation in concerned_relations() {
        invalidate(relation);
    }
    tell_worker_at_commit();
    Ok(None)
}
