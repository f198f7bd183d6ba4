//! The triggers on the definition tables that make caches stale.
//!
//! They fire for every change of a definition: our functions, a restore, or an administrator by hand.
//! The one for statements invalidates what sessions and the worker have cached; the one for rows
//! says which webhook the worker reads again.

use pgrx::prelude::*;

use crate::pg::commit_start::tell_worker_at_commit;
use crate::store::{definition_changes, definition_log};

/// A trigger that fires after a statement has no row to return.
type NoRow<'a> = Option<PgHeapTuple<'a, pgrx::AllocatedByPostgres>>;

#[pg_trigger(sql = false)]
fn definitions_changed<'a>(trigger: &'a PgTrigger<'a>) -> Result<NoRow<'a>, PgTriggerError> {
    // Rows that are emptied out are not told one by one.
    if matches!(trigger.op()?, PgTriggerOperation::Truncate) {
        definition_log::add_everything();
    }
    definition_changes::tell_everyone();
    tell_worker_at_commit();
    Ok(None)
}

#[pg_trigger(sql = false)]
fn definition_row_changed<'a>(
    trigger: &'a PgTrigger<'a>,
) -> Result<NoRow<'a>, std::convert::Infallible> {
    let key = |row: &PgHeapTuple<'_, pgrx::AllocatedByPostgres>| {
        row.get_by_name::<i32>("webhook_key").ok().flatten()
    };
    let before = trigger.old().and_then(|row| key(&row));
    let after = trigger.new().and_then(|row| key(&row));
    for webhook_key in before
        .into_iter()
        .chain(after.filter(|key| before != Some(*key)))
    {
        definition_log::add(webhook_key);
    }
    Ok(None)
}
