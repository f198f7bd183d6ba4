//! What the shards of the table and the other nodes of a cluster have to say.

use super::{fault, note, trigger_name, Check, EventFacts, NodeChecks, Shards};
use crate::core::values::sql_text::literal;

pub(super) fn shards(event: &EventFacts, shards: &Shards) -> Check {
    if let Some(deaf) = &shards.deaf {
        let bad = format!(
            "on some shards here the trigger is missing or disabled: {deaf}; on the coordinator: \
             alter table {} enable trigger {}, or drop and create the event {}",
            event.table_in_sql,
            trigger_name(event),
            literal(&event.id)
        );
        return fault("shards", bad);
    }
    note(
        "shards",
        format!(
            "shards on this node: {}, each with the trigger; captured by other nodes: {}",
            shards.here, shards.elsewhere
        ),
    )
}

pub(super) fn node((node, failed): &NodeChecks) -> Check {
    match failed {
        Ok(none) if none.is_empty() => note("node", format!("node {node}: all checks pass there")),
        Ok(failed) => fault("node", format!("node {node}: {failed}")),
        Err(why) => fault(
            "node",
            format!(
                "node {node} does not answer, its shards take no changes until it is back: {why}"
            ),
        ),
    }
}
