//! The triggers on the definition tables that make caches stale.
//!
//! They fire for every change of a definition: our functions, a restore, or an administrator by hand.
//! The one for statements invalidates what sessions and the worker have cached; the one for rows
//! says which webhook the worker reads again.

use pgrx::prelude::*;

use crate::pg::commit_start::tell_worker_at_commit;
use crate::pg::report::ok_or_raise;
use crate::store::{citus, definition_changes, definition_log};

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
    ok_or_raise(citus::check_definitions_are_made_here());
    for webhook_key in before
        .into_iter()
        .chain(after.filter(|key| before != Some(*key)))
    {
        definition_log::add(webhook_key);
    }
    tell_cluster(trigger);
    Ok(None)
}

/// Of secrets a webhook has one document, of other definitions each its own.
fn tell_cluster<'a>(trigger: &'a PgTrigger<'a>) {
    let Ok(table) = trigger.table_name() else {
        return;
    };
    let key = match table.as_str() {
        "url_def" => "url_key",
        "event_def" => "event_key",
        _ => "webhook_key",
    };
    let row = trigger.new().or_else(|| trigger.old());
    let key = row.and_then(|row| row.get_by_name::<i32>(key).ok().flatten());
    if let Some(key) = key {
        citus::publish(&table, key);
    }
}
