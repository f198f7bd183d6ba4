//! `match` of an event against the columns of its table.

use pgrx::{pg_sys, JsonB};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::rows::query;
use super::user_table::UserTable;
use crate::core::definitions::event::{self, Column, Fields};
use crate::core::definitions::limits;
use crate::core::definitions::matching::{self, Canonical, MatchKind, WantedColumn};
use crate::core::definitions::webhook::{shown, shown_up_to};
use crate::core::definitions::words::EventType;
use crate::core::error::{Error, Result};
use crate::pg::encoding::was_read_exactly;
use crate::pg::owner::as_owner;
use crate::pg::report::{translated, Refusal};
use crate::pg::row_json::matched::{kind_of, read_value};

/// A message of PostgreSQL may repeat a value of any length.
const SHOWN_MESSAGE_CHARS: usize = 500;

/// Values that fit their columns, as an event stores them.
#[derive(Clone)]
pub struct CheckedMatch {
    /// As views show it, by the names of now.
    pub json: Value,
    pub fields: Fields,
    pub kinds: Vec<String>,
    pub group: Uuid,
    pub keys: Vec<Uuid>,
}

impl CheckedMatch {
    pub fn to_json(&self) -> JsonB {
        JsonB(self.json.clone())
    }

    /// Texts of uuids, for a parameter.
    pub fn key_texts(&self) -> Vec<String> {
        self.keys.iter().map(Uuid::to_string).collect()
    }
}

/// How the values of a column are compared and read.
struct ColumnType {
    number: i16,
    oid: pg_sys::Oid,
    modifier: i32,
    collation: pg_sys::Oid,
    name: String,
}

const TYPES: &str = "
select a.attnum, a.atttypid, a.atttypmod, a.attcollation,
       pg_catalog.format_type(a.atttypid, a.atttypmod)
from pg_catalog.pg_attribute a
where a.attrelid = $1
  and a.attnum > 0
  and not a.attisdropped";

fn types(table: &UserTable) -> Vec<ColumnType> {
    as_owner(|| {
        query(TYPES, &[table.oid.into()], |row| ColumnType {
            number: row.value(1),
            oid: row.value(2),
            modifier: row.value(3),
            collation: row.value(4),
            name: row.value(5),
        })
    })
}

/// Reads and checks `match`; `None` if it names no column.
///
/// # Errors
/// `22023` for values that do not fit or a type that cannot be compared, `42704` for a column that
/// does not exist, `42809` for a virtual generated one.
pub fn checked(
    argument: &Value,
    table: &UserTable,
    event_type: EventType,
    columns: &[Column],
) -> Result<Option<CheckedMatch>> {
    let Some(wanted) = matching::read(argument)? else {
        return Ok(None);
    };
    let names = wanted.iter().map(|column| column.name.clone()).collect();
    let numbers = event::numbered("match", names, columns)?.numbers;
    let mut wanted: Vec<(i16, WantedColumn)> = numbers.into_iter().zip(wanted).collect();
    wanted.sort_by_key(|(number, _)| *number);
    let types = types(table);
    let mut built = Building::default();
    for (number, column) in &wanted {
        let found = types.iter().find(|found| found.number == *number);
        let Some(found) = found else {
            // Dropped by another session since its columns were read.
            return Err(event::no_such_column("match", &column.name, columns));
        };
        built.add(column, found)?;
    }
    built.finish(table, event_type).map(Some)
}

#[derive(Default)]
struct Building {
    json: Map<String, Value>,
    fields: Fields,
    kinds: Vec<String>,
    values: Vec<Vec<Canonical>>,
}

impl Building {
    fn add(&mut self, column: &WantedColumn, found: &ColumnType) -> Result<()> {
        let Some(kind) = kind_of(found.oid, found.collation) else {
            return Err(not_comparable(column, found));
        };
        let mut values: Vec<Canonical> = Vec::new();
        for text in &column.values {
            pgrx::check_for_interrupts!();
            let value = match text {
                None => None,
                Some(text) => Some(canonical(column, found, kind, text)?),
            };
            values.push(value);
        }
        matching::sort(kind, &mut values);
        let shown = |value: &Canonical| match value {
            None => Value::Null,
            Some(bytes) => matching::value(kind, bytes),
        };
        let list = values.iter().map(shown);
        let json = match &values[..] {
            [only] if column.is_scalar => shown(only),
            _ => Value::Array(list.collect()),
        };
        self.json.insert(column.name.clone(), json);
        self.fields.names.push(column.name.clone());
        self.fields.numbers.push(found.number);
        self.kinds.push(kind.as_str().to_owned());
        self.values.push(values);
        Ok(())
    }

    fn finish(self, table: &UserTable, event_type: EventType) -> Result<CheckedMatch> {
        let Fields { names, numbers } = &self.fields;
        let columns = numbers.iter().zip(names).zip(&self.kinds);
        let columns: Vec<_> = columns
            .map(|((number, name), kind)| (*number, name.as_str(), kind.as_str()))
            .collect();
        let group = matching::group(table.oid.to_u32(), event_type.as_str(), &columns);
        Ok(CheckedMatch {
            keys: matching::keys(group, &self.values)?,
            json: Value::Object(self.json),
            fields: self.fields,
            kinds: self.kinds,
            group,
        })
    }
}

fn canonical(
    column: &WantedColumn,
    found: &ColumnType,
    kind: MatchKind,
    text: &str,
) -> Result<Vec<u8>> {
    if !was_read_exactly(text) {
        return Err(Error::invalid(format!(
            "match: a value of column \"{}\" is not UTF-8",
            shown(&column.name)
        ))
        .with_hint("give values in UTF-8, or use a condition"));
    }
    let value = translated(
        || read_value(kind, found.oid, found.modifier, text),
        |refusal| does_not_fit(refusal, column, found, text),
    );
    value.ok_or_else(|| {
        Error::invalid(format!(
            "match: a value of column \"{}\" has more than {} bytes",
            shown(&column.name),
            limits::MATCH_VALUE_BYTES
        ))
        .with_hint("use a shorter value, or a condition")
    })
}

/// A value that the type's input function cannot read (class 22).
fn does_not_fit(
    refusal: &Refusal,
    column: &WantedColumn,
    found: &ColumnType,
    text: &str,
) -> Option<Error> {
    use pgrx::PgSqlErrorCode::ERRCODE_DATA_EXCEPTION;
    refusal.is_of_class(ERRCODE_DATA_EXCEPTION).then(|| {
        Error::invalid(format!(
            "match: \"{}\" does not fit column \"{}\"",
            shown(text),
            shown(&column.name)
        ))
        .with_detail(shown_up_to(&refusal.message, SHOWN_MESSAGE_CHARS))
        .with_hint(format!("give values that type {} can hold", found.name))
    })
}

fn not_comparable(column: &WantedColumn, found: &ColumnType) -> Error {
    let name = shown(&column.name);
    Error::invalid(format!(
        "match cannot compare column \"{name}\" of type {}",
        found.name
    ))
    .with_detail("equal values of the type may be stored differently")
    .with_hint("use condition, as in condition => 'new.amount = 10'")
}
