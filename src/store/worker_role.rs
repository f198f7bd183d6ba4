//! Whether the role of the worker may do what the worker's statements do.
//!
//! `webhook.create_worker_role()` grants it by name; the lists here are the same. Looked at
//! whenever something changed, so that the worker stops with one reason in place of a failing
//! statement here and there.

use pgrx::pg_sys;

use crate::core::error::Result;
use crate::pg::spi::{Arg, Query};
use crate::pg::worker_role::refusal;

const TABLES: &[(&str, &[&str])] = &[
    ("activity_0", &["SELECT", "INSERT", "UPDATE", "TRUNCATE"]),
    ("activity_1", &["SELECT", "INSERT", "UPDATE", "TRUNCATE"]),
    ("activity_2", &["SELECT", "INSERT", "UPDATE", "TRUNCATE"]),
    ("activity_3", &["SELECT", "INSERT", "UPDATE", "TRUNCATE"]),
    ("call_duration", &["SELECT", "INSERT", "UPDATE"]),
    ("call_log_0", &["INSERT", "TRUNCATE"]),
    ("call_log_1", &["INSERT", "TRUNCATE"]),
    ("call_log_2", &["INSERT", "TRUNCATE"]),
    ("call_log_3", &["INSERT", "TRUNCATE"]),
    ("cancellation", &["SELECT", "DELETE"]),
    ("change_log", &["SELECT", "DELETE"]),
    ("compaction", &["SELECT", "UPDATE"]),
    ("control", &["SELECT"]),
    ("counter", &["SELECT", "INSERT", "UPDATE"]),
    ("counter_day", &["SELECT", "INSERT", "DELETE"]),
    ("def_origin", &["SELECT"]),
    ("definition_change", &["SELECT", "DELETE"]),
    ("event_def", &["SELECT"]),
    ("event_now", &["SELECT"]),
    ("lane", &["SELECT", "INSERT", "UPDATE"]),
    ("outbox", &["SELECT"]),
    ("outbox_0", &["SELECT", "INSERT", "TRUNCATE"]),
    ("outbox_1", &["SELECT", "INSERT", "TRUNCATE"]),
    ("outbox_2", &["SELECT", "INSERT", "TRUNCATE"]),
    ("outbox_3", &["SELECT", "INSERT", "TRUNCATE"]),
    ("outbox_flush_seq", &["USAGE"]),
    ("retry", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    ("secret_def", &["SELECT"]),
    ("segment", &["SELECT"]),
    ("settlement", &["SELECT", "INSERT", "DELETE"]),
    ("stopped_event", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    ("tail", &["SELECT"]),
    ("tick", &["SELECT", "INSERT", "DELETE"]),
    ("uncompacted", &["SELECT"]),
    ("url_def", &["SELECT"]),
    ("webhook_def", &["SELECT"]),
    ("worker_total", &["SELECT", "INSERT", "UPDATE"]),
];

/// Columns that the worker updates in tables that are others' to change.
const UPDATED_COLUMNS: &[(&str, &[&str])] = &[
    (
        "cancellation",
        &["taken_before", "taken_within", "taken_up_to", "in_flight"],
    ),
    ("control", &["outbox_number"]),
    ("segment", &["opened_at", "closed_at"]),
    ("url_def", &["disabled_at", "detail"]),
    ("webhook_def", &["detail"]),
];

/// None that runs with the rights of its owner.
const FUNCTIONS: &[&str] = &[
    "match_kind",
    "present_columns",
    "shared_trigger",
    "unknown_labels",
];

/// What role $1 lacks of privileges $4 on relations $2, or their columns $3, and on functions $5.
/// An object that is gone is told of by the statement that needs it.
const LACKS: &str = "
select pg_catalog.concat('USAGE on schema ', s.nspname)
from pg_catalog.pg_namespace s
where s.nspname in ('webhook', 'webhook_internal')
  and not pg_catalog.has_schema_privilege($1, s.oid, 'USAGE')
union all
select pg_catalog.concat(n.privilege, '(' || n.part || ')', ' on ', n.nspname, '.', n.relation)
from (
    select c.oid, c.relkind, s.nspname, w.relation, w.part, w.privilege
    from rows from (pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4)) as w (relation, part, privilege)
    join pg_catalog.pg_class c on c.relname = w.relation
    join pg_catalog.pg_namespace s on s.oid = c.relnamespace and s.nspname in ('webhook', 'webhook_internal')
    -- Before anything is asked of columns: a table of the same name elsewhere has others.
    offset 0
) n
where not case
              when n.relkind = 'S' then pg_catalog.has_sequence_privilege($1, n.oid, n.privilege)
              when n.part is null then pg_catalog.has_table_privilege($1, n.oid, n.privilege)
              else pg_catalog.has_column_privilege($1, n.oid, n.part, n.privilege)
          end
union all
select pg_catalog.concat('EXECUTE on function ', s.nspname, '.', p.proname)
from pg_catalog.pg_proc p
join pg_catalog.pg_namespace s on s.oid = p.pronamespace and s.nspname in ('webhook', 'webhook_internal')
where p.proname = any ($5)
  and not pg_catalog.has_function_privilege($1, p.oid, 'EXECUTE')";

thread_local! {
    static LACKS_QUERY: Query = const { Query::new(LACKS) };
}

/// In a transaction. Reads catalogs alone.
///
/// # Errors
/// `55000` if a privilege is missing.
pub fn check_privileges(role: pg_sys::Oid) -> Result<()> {
    let tables = TABLES.iter().flat_map(|(relation, privileges)| {
        let needed = privileges.iter();
        needed.map(|privilege| (*relation, None, *privilege))
    });
    let columns = UPDATED_COLUMNS.iter().flat_map(|(relation, columns)| {
        let needed = columns.iter();
        needed.map(|column| (*relation, Some(*column), "UPDATE"))
    });
    let (mut relations, mut parts, mut privileges) = (Vec::new(), Vec::new(), Vec::new());
    for (relation, part, privilege) in tables.chain(columns) {
        relations.push(Some(relation));
        parts.push(part);
        privileges.push(Some(privilege));
    }
    let functions: Vec<Option<&str>> = FUNCTIONS.iter().copied().map(Some).collect();
    let mut lacks = Vec::new();
    LACKS_QUERY.with(|query| {
        let arguments = [
            Arg::Oid(role),
            Arg::TextArray(&relations),
            Arg::TextArray(&parts),
            Arg::TextArray(&privileges),
            Arg::TextArray(&functions),
        ];
        query.read(&arguments, |row| lacks.extend(row.text(0)));
    });
    match &lacks[..] {
        [] => Ok(()),
        [one] => Err(refusal(&format!("lacks {one}"))),
        [first, ..] => Err(refusal(&format!(
            "lacks {} privileges, among them {first}",
            lacks.len()
        ))),
    }
}
