//! What an event's arguments may be, as far as that can be said without looking at
//! its table.
//!
//! Pure. An empty list or text means the same as none: no filter, no condition.

use std::collections::{HashMap, HashSet};

use super::limits;
use super::suggest::suggest;
use super::webhook::shown;
use super::words::EventType;
use crate::core::error::{Error, Kind, Result};

/// The event type of a test message, which belongs to no event.
pub const TEST_EVENT_TYPE: &str = "webhook.test";

/// The event key of a webhook's test messages; keys of events are positive.
pub fn test_event_key(webhook_key: i32) -> i32 {
    -webhook_key
}

/// A column of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    pub number: i16,
    /// Not so for a virtual generated column, which is computed when it is read: a
    /// captured row has no value of it.
    pub stored: bool,
}

/// Columns that an event names, by name and by number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields {
    pub names: Vec<String>,
    pub numbers: Vec<i16>,
}

/// The list without repetitions; `None` if it is empty.
fn list(
    argument: &str,
    values: Option<Vec<Option<String>>>,
    (most, most_chars): (usize, usize),
) -> Result<Option<Vec<String>>> {
    let values = values.unwrap_or_default();
    limits::check_count(argument, values.len(), most)?;
    let mut seen = HashSet::new();
    let mut kept: Vec<String> = Vec::new();
    for value in values {
        let value = value.filter(|v| !v.is_empty()).ok_or_else(|| {
            Error::invalid(format!("{argument} contains null or an empty text"))
                .with_hint(format!("leave it out of {argument}"))
        })?;
        limits::check_element(argument, &value, most_chars)?;
        if seen.insert(value.clone()) {
            kept.push(value);
        }
    }
    Ok((!kept.is_empty()).then_some(kept))
}

/// Checks `event_sources`. The case of a source does not count.
pub fn event_sources(values: Option<Vec<Option<String>>>) -> Result<Option<Vec<String>>> {
    let limits = (limits::EVENT_SOURCES, limits::SOURCE_CHARS);
    let Some(mut sources) = list("event_sources", values, limits)? else {
        return Ok(None);
    };
    let mut seen = HashSet::new();
    sources.retain(|source| seen.insert(source.to_lowercase()));
    Ok(Some(sources))
}

/// Checks `object_fields`: only an update has fields that changed.
pub fn object_fields(
    values: Option<Vec<Option<String>>>,
    event_type: EventType,
    columns: &[Column],
) -> Result<Option<Fields>> {
    let fields = fields("object_fields", values, columns)?;
    if fields.is_some() && event_type != EventType::Update {
        return Err(Error::invalid(format!(
            "object_fields cannot be used with event_type \"{}\"",
            event_type.as_str()
        ))
        .with_hint("leave object_fields out, or use 'table.recordUpdate'"));
    }
    Ok(fields)
}

/// Checks `order_key`.
pub fn order_key(
    values: Option<Vec<Option<String>>>,
    columns: &[Column],
) -> Result<Option<Fields>> {
    let limits = (limits::ORDER_KEY_COLUMNS, limits::WORD_CHARS);
    list("order_key", values, limits)?
        .map(|names| numbered("order_key", names, columns))
        .transpose()
}

/// Checks a list of fields against the table's columns.
pub fn fields(
    argument: &str,
    values: Option<Vec<Option<String>>>,
    columns: &[Column],
) -> Result<Option<Fields>> {
    list(argument, values, (limits::FIELDS, limits::WORD_CHARS))?
        .map(|names| numbered(argument, names, columns))
        .transpose()
}

/// Names that an argument holds, with their numbers.
///
/// # Errors
/// `42704` for a name that no column has, `42809` for a virtual generated column.
pub fn numbered(argument: &str, names: Vec<String>, columns: &[Column]) -> Result<Fields> {
    let by_name: HashMap<&str, &Column> = columns.iter().map(|c| (c.name.as_str(), c)).collect();
    let number = |name: &String| match by_name.get(name.as_str()) {
        Some(column) if column.stored => Ok(column.number),
        Some(_) => Err(not_stored(argument, name)),
        None => Err(no_such_column(argument, name, columns)),
    };
    let numbers = names.iter().map(number).collect::<Result<_>>()?;
    Ok(Fields { names, numbers })
}

/// `42704`, with the nearest name.
pub fn no_such_column(argument: &str, name: &str, columns: &[Column]) -> Error {
    let known = || columns.iter().map(|column| column.name.as_str());
    let hint = match suggest(name, known()) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => format!(
            "the columns are: {}",
            shown(&known().collect::<Vec<_>>().join(", "))
        ),
    };
    Error::new(
        Kind::UndefinedObject,
        format!(
            "{argument} names a column that does not exist: \"{}\"",
            shown(name)
        ),
    )
    .with_hint(hint)
}

fn not_stored(argument: &str, name: &str) -> Error {
    Error::new(
        Kind::WrongObjectType,
        format!(
            "{argument} names a virtual generated column, of which rows store no value: \"{}\"",
            shown(name)
        ),
    )
    .with_hint("name the columns it is generated from, or make it a stored one")
}

/// `condition` without surrounding space; `None` if it is empty.
pub fn condition(value: Option<&str>) -> Option<&str> {
    value.map(str::trim).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(values: &[&str]) -> Option<Vec<Option<String>>> {
        Some(values.iter().map(|v| Some((*v).to_owned())).collect())
    }

    fn columns() -> Vec<Column> {
        [("id", 1), ("first_name", 3)]
            .map(|(name, number)| Column {
                name: name.to_owned(),
                number,
                stored: true,
            })
            .to_vec()
    }

    #[test]
    fn a_column_without_stored_values_is_refused() {
        let mut columns = columns();
        columns[1].stored = false;
        let error = fields("object_fields", texts(&["first_name"]), &columns).unwrap_err();
        assert_eq!(error.kind, Kind::WrongObjectType);
        assert!(
            error.message.ends_with("\"first_name\""),
            "{}",
            error.message
        );
        assert!(fields("object_fields", texts(&["id"]), &columns).is_ok());
    }

    #[test]
    fn fields_get_their_numbers_and_lose_repetitions() {
        let found = fields(
            "payload_fields",
            texts(&["first_name", "id", "id"]),
            &columns(),
        );
        let found = found.unwrap().unwrap();
        assert_eq!(found.names, ["first_name", "id"]);
        assert_eq!(found.numbers, [3, 1]);
        assert_eq!(fields("payload_fields", texts(&[]), &columns()), Ok(None));
        assert!(fields("payload_fields", Some(vec![None]), &columns()).is_err());
    }

    #[test]
    fn an_unknown_field_is_answered_with_a_suggestion() {
        let error = fields("object_fields", texts(&["frist_name"]), &columns()).unwrap_err();
        assert_eq!(error.kind, Kind::UndefinedObject);
        assert_eq!(error.hint.as_deref(), Some("did you mean \"first_name\"?"));
        let error = fields("object_fields", texts(&["telephone"]), &columns()).unwrap_err();
        assert_eq!(
            error.hint.as_deref(),
            Some("the columns are: id, first_name")
        );
    }

    #[test]
    fn only_updates_have_trigger_fields() {
        let ask = |event_type| object_fields(texts(&["id"]), event_type, &columns());
        assert!(ask(EventType::Update).is_ok());
        assert_eq!(
            ask(EventType::Insert).unwrap_err().kind,
            Kind::InvalidParameter
        );
        assert_eq!(object_fields(None, EventType::Insert, &columns()), Ok(None));
    }

    #[test]
    fn sources_are_the_same_in_any_case() {
        assert_eq!(
            event_sources(texts(&["REST API", "rest api", "psql"])),
            Ok(Some(vec!["REST API".to_owned(), "psql".to_owned()]))
        );
    }

    #[test]
    fn an_empty_condition_is_none() {
        assert_eq!(condition(Some("  ")), None);
        assert_eq!(condition(Some(" new.id > 1 ")), Some("new.id > 1"));
    }
}
