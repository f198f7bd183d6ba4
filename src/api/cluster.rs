//! A cluster of Citus: `webhook.enable_cluster`, `webhook.drain_node`, and the trigger that applies definitions.

use pgrx::prelude::*;

use crate::core::definitions::limits::WORD_CHARS;
use crate::core::definitions::webhook::{required, shown};
use crate::core::error::{self, Error, Kind};
use crate::pg::arguments::{text, TextArgument};
use crate::pg::identity::is_superuser;
use crate::pg::owner::as_owner;
use crate::pg::report::ok_or_raise;
use crate::pg::text::{JsonText, Text};
use crate::pg::{recovery, settings};
use crate::store::citus::{self, Document, Position};
use crate::store::version;

/// A trigger that fires after a row has none to return.
type NoRow<'a> = Option<PgHeapTuple<'a, pgrx::AllocatedByPostgres>>;

#[pg_extern(sql = false)]
fn enable_cluster() {
    ok_or_raise(enable());
}

fn enable() -> error::Result<()> {
    recovery::check_is_over("a cluster cannot be enabled")?;
    if !is_superuser() {
        return Err(Error::new(
            Kind::InsufficientPrivilege,
            "permission denied to enable a cluster",
        )
        .with_hint("let a superuser call it"));
    }
    version::check()?;
    let may_coordinate = as_owner(Position::may_coordinate);
    match may_coordinate {
        None => Err(
            not_possible("the extension citus is not installed in this database").with_hint(
                "create extension citus, add the nodes, then call it on the coordinator",
            ),
        ),
        Some(false) => Err(
            not_possible("this node is not the coordinator of its cluster").with_hint(format!(
                "call it on the coordinator, {}",
                as_owner(citus::coordinator).unwrap_or_default()
            )),
        ),
        Some(true) => as_owner(publish_here),
    }
}

/// Again and again: what has gone out of line is put right.
fn publish_here() -> error::Result<()> {
    if let Some(answer) = citus::other_nodes_without(&version::of_library()) {
        return Err(answer);
    }
    citus::distribute_documents();
    citus::publish_all(&settings::account_id());
    Ok(())
}

fn not_possible(why: &str) -> Error {
    Error::new(
        Kind::NotInPrerequisiteState,
        format!("cannot enable a cluster: {why}"),
    )
}

#[pg_extern(sql = false)]
fn drain_node(node: Option<TextArgument>) -> i64 {
    let pending = || -> error::Result<i64> {
        let node = required("node", text(node, "node", WORD_CHARS)?)?;
        citus::pending_of(&node).ok_or_else(|| {
            Error::new(
                Kind::UndefinedObject,
                format!(
                    "node \"{}\" does not exist or does not answer",
                    shown(&node)
                ),
            )
            .with_hint(
                "give the name and port of a node, as the view webhook.cluster_worker shows it",
            )
        })
    };
    ok_or_raise(pending())
}

/// On each placement of the table of documents.
#[pg_trigger(sql = false)]
fn cluster_document_changed<'a>(trigger: &'a PgTrigger<'a>) -> Result<NoRow<'a>, PgTriggerError> {
    let is_removed = matches!(trigger.op()?, PgTriggerOperation::Delete);
    let row = if is_removed {
        trigger.old()
    } else {
        trigger.new()
    };
    let document = row.and_then(|row| {
        let body: Option<JsonText> = row.get_by_name("doc").ok().flatten();
        let version: Option<i64> = row.get_by_name("version").ok().flatten();
        Some(Document {
            kind: row.get_by_name::<Text>("kind").ok().flatten()?.0,
            key: row.get_by_name("key").ok().flatten()?,
            body: body.map(|body| body.0).zip(version).filter(|_| !is_removed),
        })
    });
    if let Some(document) = document {
        citus::apply(&document);
    }
    Ok(None)
}
