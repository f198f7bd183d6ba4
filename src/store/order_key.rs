//! The columns by whose values the messages of an event are kept in order: those of `order_key`,
//! else those of its table's key.

use std::collections::HashSet;

use pgrx::pg_sys;

use super::rows::{first, query};
use super::user_table::UserTable;
use crate::core::definitions::event::Fields;
use crate::core::definitions::webhook::shown;
use crate::core::error::{Error, Result};
use crate::pg::owner::as_owner;
use crate::pg::row_json::order_key::is_hashable;
use crate::pg::text::Param;

/// The columns of a table's primary key, else of its replica identity index, with their types.
pub const TABLE_KEY: &str = "
select a.attname::pg_catalog.text, a.atttypid, pg_catalog.format_type(a.atttypid, a.atttypmod)
from (
    select i.indkey, i.indnkeyatts
    from pg_catalog.pg_index i
    where i.indrelid = $1
      and (i.indisprimary or i.indisreplident)
    order by i.indisprimary desc
    limit 1
) i
cross join lateral pg_catalog.unnest(i.indkey) with ordinality as k (number, place)
join pg_catalog.pg_attribute a on a.attrelid = $1 and a.attnum = k.number
where k.place <= i.indnkeyatts
order by k.place";

/// The columns with numbers $2.
const NUMBERED: &str = "
select a.attname::pg_catalog.text, a.atttypid, pg_catalog.format_type(a.atttypid, a.atttypmod)
from pg_catalog.unnest($2) with ordinality as k (number, place)
join pg_catalog.pg_attribute a on a.attrelid = $1 and a.attnum = k.number
where not a.attisdropped
order by k.place";

const ORDERS_BY_KEY: &str = "
select true
from webhook.webhook_def w
where w.webhook_key = $1
  and w.delivery_order = 'key'";

/// $1 a webhook or $2 an event. Tables that were dropped have no rows to order.
const EVENTS: &str = "
select e.id, b.object_text, c.oid, pg_catalog.cardinality(e.order_key),
       array(
           select a.attnum
           from unnest(e.order_key, e.order_key_attnums) with ordinality as f (name, number, place)
           join pg_catalog.pg_attribute a on a.attrelid = c.oid
           where a.attnum > 0
             and not a.attisdropped
             and case when e.object_oid = c.oid then a.attnum = f.number else a.attname = f.name end
           order by f.place
       )
from webhook.event_def e
join webhook_internal.event_label b on b.event_key = e.event_key
join pg_catalog.pg_class c on c.oid = e.object_name
where (e.webhook_key = $1 or e.event_key = $2)
  and e.dropped_at is null
order by e.event_key";

/// The key of an event's rows, as capture needs it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct OrderKey {
    /// The event's table, or the root of its partition tree: events on a partition and on the root
    /// are about the same rows.
    pub table: pg_sys::Oid,
    /// By their present names; `None` if the table has lost its key.
    pub columns: Option<Vec<String>>,
}

impl OrderKey {
    /// The numbers of the columns in a table of the event's partition tree.
    pub fn numbers(&self, number: impl Fn(&str) -> Option<i16>) -> Option<Vec<i16>> {
        let columns = self.columns.as_ref()?;
        columns.iter().map(|name| number(name)).collect()
    }
}

struct KeyColumn {
    name: String,
    type_oid: pg_sys::Oid,
    type_name: String,
}

/// Why the rows of a table have no key.
pub enum NoKey {
    Missing,
    ColumnDropped,
    NotHashable { column: String, type_name: String },
}

impl NoKey {
    /// As a clause that follows the table's name.
    pub fn reason(&self) -> String {
        match self {
            Self::Missing => "has neither a primary key nor a replica identity index".to_owned(),
            Self::ColumnDropped => "has lost a column of order_key".to_owned(),
            Self::NotHashable { column, type_name } => format!(
                "has key column \"{}\", whose type {type_name} has no hash operator class",
                shown(column)
            ),
        }
    }
}

/// The names of a key's columns.
pub type Key = std::result::Result<Vec<String>, NoKey>;

struct OrderedEvent {
    id: String,
    table: String,
    object: pg_sys::Oid,
    /// How many columns `order_key` had, and the numbers of those that are there.
    recorded: Option<i32>,
    present: Vec<i16>,
}

impl OrderedEvent {
    fn key(&self) -> Key {
        let Some(recorded) = self.recorded else {
            return key_of_table(self.object);
        };
        if usize::try_from(recorded) != Ok(self.present.len()) {
            return Err(NoKey::ColumnDropped);
        }
        key_of_columns(self.object, &self.present)
    }
}

fn events(webhook_key: Option<i32>, event_key: Option<i32>) -> Vec<OrderedEvent> {
    query(EVENTS, &[webhook_key.into(), event_key.into()], |row| {
        OrderedEvent {
            id: row.value(1),
            table: row.value(2),
            object: row.value(3),
            recorded: row.get(4),
            present: row.value(5),
        }
    })
}

fn key_of_table(table: pg_sys::Oid) -> Key {
    hashable(columns(TABLE_KEY, &[table.into()]))
}

fn key_of_columns(table: pg_sys::Oid, numbers: &[i16]) -> Key {
    let numbers = Some(numbers.to_vec());
    hashable(columns(NUMBERED, &[table.into(), numbers.into()]))
}

fn columns(statement: &str, arguments: &[Param]) -> Vec<KeyColumn> {
    query(statement, arguments, |row| KeyColumn {
        name: row.value(1),
        type_oid: row.value(2),
        type_name: row.value(3),
    })
}

fn hashable(columns: Vec<KeyColumn>) -> Key {
    if columns.is_empty() {
        return Err(NoKey::Missing);
    }
    let mut names = Vec::with_capacity(columns.len());
    for column in columns {
        if !is_hashable(column.type_oid) {
            return Err(NoKey::NotHashable {
                column: column.name,
                type_name: column.type_name,
            });
        }
        names.push(column.name);
    }
    Ok(names)
}

/// The names of the columns of an event's key. `None` if its table was dropped.
pub fn of_event(event_key: i32) -> Option<Key> {
    as_owner(|| events(None, Some(event_key)).pop().map(|event| event.key()))
}

/// # Errors
/// `22023` if a type in `order_key` has no hash operator class, or if there is no `order_key` and
/// the webhook needs a key that the table does not have.
pub fn check_event(webhook_key: i32, table: &UserTable, order_key: Option<&Fields>) -> Result<()> {
    as_owner(|| {
        if let Some(fields) = order_key {
            let found = key_of_columns(table.oid, &fields.numbers);
            return found.map(drop).map_err(|no_key| not_usable(&no_key));
        }
        if first(ORDERS_BY_KEY, &[webhook_key.into()], |_| ()).is_none() {
            return Ok(());
        }
        let found = key_of_table(table.oid);
        found.map(drop).map_err(|no_key| {
            Error::invalid(format!(
                "order_key is missing: table \"{}\" {}",
                table.label,
                no_key.reason()
            ))
            .with_hint(match no_key {
                NoKey::Missing => format!(
                    "its webhook keeps the order of keys: name columns in order_key, or give table \
                     {} a primary key",
                    table.quoted
                ),
                _ => "its webhook keeps the order of keys: name other columns in order_key"
                    .to_owned(),
            })
        })
    })
}

fn not_usable(no_key: &NoKey) -> Error {
    let said = match no_key {
        NoKey::NotHashable { column, type_name } => format!(
            "order_key cannot use column \"{}\" of type {type_name}",
            shown(column)
        ),
        // Dropped by another session since its columns were read.
        NoKey::Missing | NoKey::ColumnDropped => {
            "order_key names a column that does not exist".to_owned()
        }
    };
    Error::invalid(said)
        .with_detail("the values of a key are hashed, which needs a hash operator class")
        .with_hint("name other columns in order_key")
}

/// # Errors
/// `22023` if an event of the webhook has no key.
pub fn check_webhook(webhook_key: i32) -> Result<()> {
    // A webhook may have thousands of events on a table.
    let mut checked = HashSet::new();
    for event in as_owner(|| events(Some(webhook_key), None)) {
        pgrx::check_for_interrupts!();
        if !checked.insert((event.object, event.recorded, event.present.clone())) {
            continue;
        }
        if let Err(no_key) = as_owner(|| event.key()) {
            let OrderedEvent { id, table, .. } = &event;
            return Err(Error::invalid(format!(
                "delivery_order cannot be \"key\": event \"{id}\" has no key, because its table \
                 \"{table}\" {}",
                no_key.reason()
            ))
            .with_hint(format!(
                "call webhook.update_event('{id}', order_key => array[…]) with columns of table \
                 \"{table}\"{}",
                match no_key {
                    NoKey::Missing => ", or give the table a primary key",
                    NoKey::ColumnDropped | NoKey::NotHashable { .. } => "",
                }
            )));
        }
    }
    Ok(())
}
