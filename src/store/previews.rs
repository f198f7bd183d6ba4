//! What a preview needs: the event as its messages see it, and a row to show.

use pgrx::{pg_sys, JsonB, PgSqlErrorCode};
use zeroize::Zeroizing;

use super::rows::first;
use super::user_table::UserTable;
use crate::core::definitions::event::Column;
use crate::core::definitions::webhook::{shown, shown_up_to};
use crate::core::error::{Error, Kind};
use crate::pg::owner::{as_owner, as_table_owner, row_security_applies};
use crate::pg::report::{translated, Refusal};
use crate::pg::sample_row::{with_sample_row, SampleRow};

/// A message of PostgreSQL may repeat a value of any length.
const SHOWN_MESSAGE_CHARS: usize = 500;

/// An event and the constants of its payload.
pub struct PreviewedEvent {
    pub id: String,
    pub webhook_id: String,
    pub event_type: String,
    /// `None`: the table was dropped.
    pub object: Option<pg_sys::Oid>,
    /// The trigger fields by their present names.
    pub object_fields: Option<Vec<String>>,
    pub payload_template: Option<String>,
    /// By present names.
    pub matched: Option<JsonB>,
    pub secret: Zeroizing<String>,
}

const EVENT: &str = "
select e.id, w.id, e.event_type, c.oid,
       webhook.present_columns(e.object_name, e.object_oid, e.object_fields, e.object_attnums),
       e.payload_template, s.secret,
       (select n.match_now from webhook_internal.event_now n where n.event_key = e.event_key)
from webhook.event_def e
join webhook.webhook_def w using (webhook_key)
join webhook.secret_def s on s.webhook_key = w.webhook_key and s.expires_at is null
left join pg_catalog.pg_class c on c.oid = e.object_name
where e.id = $1
  and e.dropped_at is null";

/// A type that a row of table $1 is made of, and whose owner does not have the rights of the table's
/// owner: its code (the check of a domain, the canonical function of a range) would get them.
const FOREIGN_TYPE: &str = "
with recursive used (type) as (
    select a.atttypid
    from pg_catalog.pg_attribute a
    where a.attrelid = $1
      and a.attnum > 0
      and not a.attisdropped
    union
    select x.type
    from used u
    join pg_catalog.pg_type t on t.oid = u.type
    cross join lateral (
        select t.typbasetype
        union all
        select t.typelem
        union all
        select a.atttypid
        from pg_catalog.pg_attribute a
        where t.typrelid <> 0
          and a.attrelid = t.typrelid
          and a.attnum > 0
          and not a.attisdropped
        union all
        select r.rngsubtype
        from pg_catalog.pg_range r
        where t.oid in (r.rngtypid, r.rngmultitypid)
    ) x (type)
    where x.type <> 0
)
select t.typname::pg_catalog.text,
       pg_catalog.pg_get_userbyid(t.typowner)::pg_catalog.text,
       pg_catalog.pg_get_userbyid(c.relowner)::pg_catalog.text
from used u
join pg_catalog.pg_type t on t.oid = u.type
join pg_catalog.pg_class c on c.oid = $1
where t.oid >= 16384
  and not pg_catalog.pg_has_role(t.typowner, c.relowner, 'MEMBER')
order by 1
limit 1";

/// The event with this id.
///
/// # Errors
/// `42704` if there is none.
pub fn find(event: &str) -> Result<PreviewedEvent, Error> {
    let found = as_owner(|| {
        first(EVENT, &[event.into()], |row| PreviewedEvent {
            id: row.value(1),
            webhook_id: row.value(2),
            event_type: row.value(3),
            object: row.get(4),
            object_fields: row.get(5),
            payload_template: row.get(6),
            secret: Zeroizing::new(row.value(7)),
            matched: row.get(8),
        })
    });
    found.ok_or_else(|| {
        Error::new(
            Kind::UndefinedObject,
            format!("event \"{}\" does not exist", shown(event)),
        )
        .with_hint("the view webhook.events lists ids")
    })
}

/// # Errors
/// `42501` if code of a role without the rights of the table's owner would run with them.
pub fn check_types(table: &UserTable) -> Result<(), Error> {
    let foreign: Option<(String, String, String)> =
        first(FOREIGN_TYPE, &[table.oid.into()], |row| {
            (row.value(1), row.value(2), row.value(3))
        });
    let Some((name, owner, table_owner)) = foreign else {
        return Ok(());
    };
    Err(Error::new(
        Kind::InsufficientPrivilege,
        format!(
            "table \"{}\" has a column of type \"{name}\", whose code would run with the rights of role \"{table_owner}\"",
            table.label
        ),
    )
    .with_detail(format!("the type belongs to role \"{owner}\""))
    .with_hint("give the type to the owner of the table, or its owner membership in that role"))
}

/// Shows `f` a row of the table, or of nulls if it has none, before and after the
/// columns in `overrides` were set. The table's own code (checks of domains, policies, output
/// functions) runs as the table's owner, who sees what policies hide from the caller: then
/// the row is one of nulls, too. The caller may SELECT from the table.
pub fn with_sample<T>(
    table: &UserTable,
    columns: &[Column],
    overrides: JsonB,
    f: impl FnOnce(&mut SampleRow) -> T,
) -> T {
    let sql = statement(table, columns, !row_security_applies(table.oid));
    translated(
        || as_table_owner(table.oid, || with_sample_row(&sql, &[overrides.into()], f)),
        |refusal| does_not_fit(refusal, table),
    )
}

/// $1 overrides. A column may have any name, so the table's alias is one that none has.
fn statement(table: &UserTable, columns: &[Column], shows_rows: bool) -> String {
    let mut alias = "sample".to_owned();
    while columns.iter().any(|column| column.name == alias) {
        alias.push('_');
    }
    let table = &table.quoted;
    let made_up = format!("pg_catalog.jsonb_populate_record(null::{table}, '{{}}')");
    let row = if shows_rows {
        format!("coalesce((select {alias} from {table} as {alias} limit 1), {made_up})")
    } else {
        made_up
    };
    format!(
        "select b.r, pg_catalog.jsonb_populate_record(b.r, $1) \
         from (select {row} offset 0) as b (r)"
    )
}

/// A value that PostgreSQL cannot read (class 22) or whose domain forbids it (class 23).
fn does_not_fit(refusal: &Refusal, table: &UserTable) -> Option<Error> {
    use PgSqlErrorCode::*;
    let unreadable = refusal.is_of_class(ERRCODE_DATA_EXCEPTION)
        || refusal.is_of_class(ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION);
    unreadable.then(|| {
        Error::invalid(format!("record does not fit table \"{}\"", table.label))
            .with_detail(shown_up_to(&refusal.message, SHOWN_MESSAGE_CHARS))
            .with_hint("give each column a value that can be cast to its type, or leave it out")
    })
}
