//! The trigger on the extension's tables that keeps logical replication out of them.
//!
//! A definition would be that of another database, and a message would be sent by both.

use pgrx::prelude::*;

use crate::core::error::{Error, Kind};
use crate::pg::report::ok_or_raise;
use crate::pg::session;

/// Neither of a statement nor after a row is there one to return.
type NoRow<'a> = Option<PgHeapTuple<'a, pgrx::AllocatedByPostgres>>;

#[pg_trigger(sql = false)]
fn refuse_replicated<'a>(trigger: &'a PgTrigger<'a>) -> Result<NoRow<'a>, PgTriggerError> {
    // Other sessions of the role "replica" restore a dump, for example.
    if session::applies_replication() {
        let (schema, table) = (trigger.table_schema()?, trigger.table_name()?);
        ok_or_raise::<()>(Err(Error::new(
            Kind::NotInPrerequisiteState,
            format!("table \"{schema}.{table}\" of extension webhook_ext cannot be replicated"),
        )
        .with_hint(
            "publish the tables of the application only: CREATE PUBLICATION ... FOR TABLES IN SCHEMA \
             or FOR TABLE in place of FOR ALL TABLES",
        )));
    }
    Ok(None)
}
