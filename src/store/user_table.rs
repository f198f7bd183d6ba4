//! A table that an event is to watch: what it is, its columns, the caller's rights.
//!
//! Reads the catalogs with the rights of the caller.

use pgrx::pg_sys;

use super::rows::{first, query};
use super::table_label::table_label;
use crate::core::definitions::event::Column;
use crate::core::definitions::webhook::shown;
use crate::core::error::{Error, Kind, Result};

/// A table that may have events.
pub struct UserTable {
    pub oid: pg_sys::Oid,
    /// As payloads and views show it: with its schema unless that is public.
    pub label: String,
    /// As SQL needs it.
    pub quoted: String,
    /// Its row security is enabled and applies to the caller. An owner of the table to whom it is
    /// forced can lift that, so it does not count.
    hides_rows: bool,
}

/// What the catalogs say of a relation.
struct Facts {
    table: UserTable,
    kind: String,
    /// `temporary`, `columnar` or nothing.
    storage: String,
    schema: String,
    may_create_trigger: bool,
    may_select: bool,
}

/// 16384 is the first oid that does not belong to PostgreSQL itself.
const FACTS: &str = concat!(
    "select ",
    table_label!(),
    ",
       pg_catalog.format('%I.%I', n.nspname, c.relname),
       c.relkind::pg_catalog.text,
       case when c.relpersistence = 't' then 'temporary' when m.amname = 'columnar' then 'columnar' else '' end,
       case when c.oid < 16384 then 'pg_catalog' else n.nspname::pg_catalog.text end,
       pg_catalog.has_table_privilege(c.oid, 'TRIGGER'),
       pg_catalog.has_table_privilege(c.oid, 'SELECT'),
       c.relrowsecurity
           and not pg_catalog.pg_has_role(c.relowner, 'USAGE')
           and not exists (
               select from pg_catalog.pg_roles r
               where r.rolname = current_user and (r.rolsuper or r.rolbypassrls)
           )
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
left join pg_catalog.pg_am m on m.oid = c.relam
where c.oid = $1"
);

const BY_LABEL: &str = concat!(
    "select c.oid
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where ",
    table_label!(),
    " = $1"
);

/// A trigger on a partitioned table is one on each partition.
const PARTITION_WITHOUT_TRIGGER: &str = concat!(
    "select ",
    table_label!(),
    ",
       pg_catalog.format('%I.%I', n.nspname, c.relname)
from pg_catalog.pg_partition_tree($1) p
join pg_catalog.pg_class c on c.oid = p.relid
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where p.relid <> $1
  and not pg_catalog.has_table_privilege(c.oid, 'TRIGGER')
order by 1
limit 1"
);

/// In UTF-8, whatever the encoding of the database.
const COLUMNS: &str = "
select pg_catalog.convert_to(a.attname::pg_catalog.text, 'UTF8'), a.attnum, a.attgenerated <> 'v'
from pg_catalog.pg_attribute a
where a.attrelid = $1
  and a.attnum > 0
  and not a.attisdropped
order by a.attnum";

/// The table, if it may have events and the caller may create them.
///
/// # Errors
/// `42704` if there is none, `42809` if it is of a kind that cannot have events, `42501`
/// if the caller lacks TRIGGER or SELECT on it.
pub fn watchable(oid: pg_sys::Oid) -> Result<UserTable> {
    let facts = facts(oid).ok_or_else(|| {
        Error::new(
            Kind::UndefinedObject,
            format!("object_name {} does not exist", oid.to_u32()),
        )
        .with_hint("give the name of a table")
    })?;
    check_kind(&facts)?;
    check_rights(&facts)?;
    Ok(facts.table)
}

/// The relation with this name, spelled as payloads and views show it.
///
/// # Errors
/// `42704` if there is none.
pub fn by_label(label: &str) -> Result<pg_sys::Oid> {
    first(BY_LABEL, &[label.into()], |row| row.value(1)).ok_or_else(|| {
        Error::new(
            Kind::UndefinedObject,
            format!("object_name \"{}\" does not exist", shown(label)),
        )
        .with_hint(
            "give the name of a table as it is spelled, with its schema unless that is public, and \
             in double quotes what holds a dot",
        )
    })
}

fn facts(oid: pg_sys::Oid) -> Option<Facts> {
    first(FACTS, &[oid.into()], |row| Facts {
        table: UserTable {
            oid,
            label: row.value(1),
            quoted: row.value(2),
            hides_rows: row.value(8),
        },
        kind: row.value(3),
        storage: row.value(4),
        schema: row.value(5),
        may_create_trigger: row.value(6),
        may_select: row.value(7),
    })
}

fn check_kind(facts: &Facts) -> Result<()> {
    let what = match (facts.schema.as_str(), facts.kind.as_str()) {
        ("pg_catalog" | "information_schema" | "pg_toast", _) => "a system table",
        ("webhook" | "webhook_internal", _) => "one of this extension's own tables",
        (_, "r" | "p") if facts.storage == "temporary" => "a temporary table",
        (_, "r" | "p") if facts.storage == "columnar" => {
            "a columnar table, which has no triggers for rows"
        }
        (_, "r" | "p") => return Ok(()),
        (_, "v") => "a view",
        (_, "m") => "a materialized view",
        (_, "f") => "a foreign table",
        (_, "S") => "a sequence",
        (_, "i" | "I") => "an index",
        _ => "no table",
    };
    let label = &facts.table.label;
    Err(Error::new(
        Kind::WrongObjectType,
        format!("object_name \"{label}\" is {what}"),
    )
    .with_hint("events need an ordinary or partitioned table; of a view, use the tables below it"))
}

fn check_rights(facts: &Facts) -> Result<()> {
    let missing = match (facts.may_create_trigger, facts.may_select) {
        (true, true) => return Ok(()),
        (false, _) => "TRIGGER",
        (true, false) => "SELECT",
    };
    let table = &facts.table;
    Err(Error::new(
        Kind::InsufficientPrivilege,
        format!(
            "object_name \"{}\": privilege {missing} is missing",
            table.label
        ),
    )
    .with_hint(format!(
        "its owner can say: grant select, trigger on {} to …",
        table.quoted
    )))
}

/// # Errors
/// `42501` if the caller lacks TRIGGER on a partition of the table.
pub fn check_partitions(table: &UserTable) -> Result<()> {
    let lacking: Option<(String, String)> =
        first(PARTITION_WITHOUT_TRIGGER, &[table.oid.into()], |row| {
            (row.value(1), row.value(2))
        });
    let Some((label, quoted)) = lacking else {
        return Ok(());
    };
    Err(Error::new(
        Kind::InsufficientPrivilege,
        format!(
            "object_name \"{}\": privilege TRIGGER is missing on its partition \"{label}\"",
            table.label
        ),
    )
    .with_hint(format!("its owner can say: grant trigger on {quoted} to …")))
}

/// # Errors
/// `42501` if the table's row security applies to the caller: an event sends every row.
pub fn check_row_security(table: &UserTable) -> Result<()> {
    if !table.hides_rows {
        return Ok(());
    }
    Err(Error::new(
        Kind::InsufficientPrivilege,
        format!(
            "object_name \"{}\": row security is enabled, and an event sends every row",
            table.label
        ),
    )
    .with_hint("let the table's owner or a role with BYPASSRLS do it"))
}

/// The live columns, in their order.
pub fn columns(table: &UserTable) -> Vec<Column> {
    query(COLUMNS, &[table.oid.into()], |row| Column {
        name: String::from_utf8_lossy(&row.value::<Vec<u8>>(1)).into_owned(),
        number: row.value(2),
        stored: row.value(3),
    })
}
