//! `match`: the values that columns of a row must have.
//!
//! Pure. Reads the shape of the argument and hashes values. Values are compared by a
//! canonical form of their stored bytes, so the columns' types are those of which equal
//! values have one stored form ([`MatchKind`]). An event is found by hashes: one for each
//! combination of the values that it lists.

use serde_json::Value;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::limits;
use super::webhook::shown;
use crate::core::error::{Error, Result};
use crate::core::values::time_text::{push_date, push_time, push_timestamp, Fraction};

/// How the values of a column are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatchKind {
    /// Of any width.
    Integer,
    Boolean,
    /// `text` and `varchar`, without a nondeterministic collation.
    Text,
    /// `char(n)`: trailing spaces do not count.
    Character,
    Name,
    Uuid,
    Oid,
    Date,
    Time,
    Timestamp,
    Timestamptz,
    /// By its label, which survives a dump.
    Enum,
}

impl MatchKind {
    /// As the definition of an event names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Integer => "integer",
            Self::Boolean => "boolean",
            Self::Text => "text",
            Self::Character => "character",
            Self::Name => "name",
            Self::Uuid => "uuid",
            Self::Oid => "oid",
            Self::Date => "date",
            Self::Time => "time",
            Self::Timestamp => "timestamp",
            Self::Timestamptz => "timestamptz",
            Self::Enum => "enum",
        }
    }

    /// `None` for a word that a later version has written.
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "integer" => Self::Integer,
            "boolean" => Self::Boolean,
            "text" => Self::Text,
            "character" => Self::Character,
            "name" => Self::Name,
            "uuid" => Self::Uuid,
            "oid" => Self::Oid,
            "date" => Self::Date,
            "time" => Self::Time,
            "timestamp" => Self::Timestamp,
            "timestamptz" => Self::Timestamptz,
            "enum" => Self::Enum,
            _ => return None,
        })
    }
}

/// What `match` says of one column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedColumn {
    pub name: String,
    /// Texts as the type's input function takes them; `None` is NULL.
    pub values: Vec<Option<String>>,
    /// One value, and no list of one.
    pub is_scalar: bool,
}

/// Reads the argument; `None` if it is `{}`.
///
/// # Errors
/// `22023` if it is not an object of values and lists, or larger than it may be.
pub fn read(argument: &Value) -> Result<Option<Vec<WantedColumn>>> {
    let Some(members) = argument.as_object() else {
        return Err(Error::invalid("match is not a JSON object")
            .with_hint("give columns and their values, as in '{\"tenant_id\": 42}'"));
    };
    limits::check_count("match", members.len(), limits::MATCH_COLUMNS)?;
    let columns = members.iter().map(|(name, value)| column(name, value));
    let columns = columns.collect::<Result<Vec<_>>>()?;
    Ok((!columns.is_empty()).then_some(columns))
}

fn column(name: &str, value: &Value) -> Result<WantedColumn> {
    let Value::Array(items) = value else {
        return Ok(WantedColumn {
            name: name.to_owned(),
            values: vec![scalar(name, value)?],
            is_scalar: true,
        });
    };
    if items.is_empty() {
        return Err(Error::invalid(format!(
            "match: the list of column \"{}\" is empty, so no row could match",
            shown(name)
        ))
        .with_hint("give at least one value, or leave the column out"));
    }
    if items.len() > limits::MATCH_COMBINATIONS {
        return Err(too_many_combinations());
    }
    let values = items.iter().map(|item| scalar(name, item));
    Ok(WantedColumn {
        name: name.to_owned(),
        values: values.collect::<Result<_>>()?,
        is_scalar: false,
    })
}

fn scalar(name: &str, value: &Value) -> Result<Option<String>> {
    let text = match value {
        Value::Null => return Ok(None),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        Value::Array(_) | Value::Object(_) => {
            return Err(Error::invalid(format!(
                "match: a value of column \"{}\" is a list or an object",
                shown(name)
            ))
            .with_hint("give a number, a text, true, false, null, or a list of these"))
        }
    };
    if text.len() > limits::MATCH_VALUE_BYTES {
        return Err(Error::invalid(format!(
            "match: a value of column \"{}\" has more than {} bytes",
            shown(name),
            limits::MATCH_VALUE_BYTES
        ))
        .with_hint("use a shorter value, or a condition"));
    }
    Ok(Some(text))
}

fn too_many_combinations() -> Error {
    Error::invalid(format!(
        "match lists more than {} combinations of values",
        limits::MATCH_COMBINATIONS
    ))
    .with_hint("create several events, or use a condition")
}

/// A value in its canonical form; `None` is NULL.
pub type Canonical = Option<Vec<u8>>;

/// Sorts the values of a column and drops repetitions: NULL first, numbers and times by size.
pub fn sort(kind: MatchKind, values: &mut Vec<Canonical>) {
    let number = |bytes: &[u8]| -> i64 {
        let short = || bytes.try_into().map_or(0, i32::from_le_bytes);
        match kind {
            MatchKind::Integer
            | MatchKind::Time
            | MatchKind::Timestamp
            | MatchKind::Timestamptz => bytes.try_into().map_or(0, i64::from_le_bytes),
            MatchKind::Date => short().into(),
            MatchKind::Oid => short().cast_unsigned().into(),
            MatchKind::Boolean
            | MatchKind::Text
            | MatchKind::Character
            | MatchKind::Name
            | MatchKind::Uuid
            | MatchKind::Enum => 0,
        }
    };
    values.sort_by(|left, right| {
        let numbers = (left.as_deref().map(number), right.as_deref().map(number));
        numbers.0.cmp(&numbers.1).then_with(|| left.cmp(right))
    });
    values.dedup();
}

/// A value as `webhook.events.match` shows it.
pub fn value(kind: MatchKind, canonical: &[u8]) -> Value {
    let integer = || canonical.try_into().map_or(0, i64::from_le_bytes);
    let short = || canonical.try_into().map_or(0, i32::from_le_bytes);
    match kind {
        MatchKind::Integer => integer().into(),
        MatchKind::Boolean => (canonical != [0]).into(),
        MatchKind::Text | MatchKind::Character | MatchKind::Name | MatchKind::Enum => {
            String::from_utf8_lossy(canonical).into()
        }
        MatchKind::Uuid => Uuid::from_slice(canonical)
            .unwrap_or_default()
            .to_string()
            .into(),
        MatchKind::Oid => short().cast_unsigned().into(),
        MatchKind::Date => time(
            i64::from(short()),
            i64::from(i32::MIN),
            i64::from(i32::MAX),
            |out| {
                push_date(out, short());
            },
        ),
        MatchKind::Time => time(integer(), i64::MIN, i64::MAX, |out| {
            push_time(out, integer())
        }),
        MatchKind::Timestamp | MatchKind::Timestamptz => {
            time(integer(), i64::MIN, i64::MAX, |out| {
                push_timestamp(out, integer(), Fraction::IfNotZero);
                if kind == MatchKind::Timestamptz {
                    out.push(b'Z');
                }
            })
        }
    }
}

/// The ends of the range stand for infinity.
fn time(value: i64, lowest: i64, highest: i64, push: impl FnOnce(&mut Vec<u8>)) -> Value {
    if value == lowest {
        return "-infinity".into();
    }
    if value == highest {
        return "infinity".into();
    }
    let mut out = Vec::new();
    push(&mut out);
    String::from_utf8_lossy(&out).into()
}

/// The identity of events that look at the same columns of a table.
pub fn group(table_oid: u32, event_type: &str, columns: &[(i16, &str, &str)]) -> Uuid {
    let mut hash = Sha256::new();
    hash.update(b"group");
    hash.update(table_oid.to_le_bytes());
    update_with_length(&mut hash, event_type.as_bytes());
    for (number, name, kind) in columns {
        hash.update(number.to_le_bytes());
        update_with_length(&mut hash, name.as_bytes());
        update_with_length(&mut hash, kind.as_bytes());
    }
    first_half(hash)
}

/// The key of one combination of values.
pub fn key<'a>(group: Uuid, values: impl Iterator<Item = Option<&'a [u8]>>) -> Uuid {
    let mut hash = Sha256::new();
    hash.update(group.as_bytes());
    for value in values {
        match value {
            None => hash.update([0]),
            Some(bytes) => {
                hash.update([1]);
                update_with_length(&mut hash, bytes);
            }
        }
    }
    first_half(hash)
}

/// The keys of every combination of the columns' values.
///
/// # Errors
/// `22023` if they are too many.
pub fn keys(group: Uuid, columns: &[Vec<Canonical>]) -> Result<Vec<Uuid>> {
    let counts = columns.iter().map(Vec::len);
    let count = counts.fold(1_usize, usize::saturating_mul);
    if count > limits::MATCH_COMBINATIONS {
        return Err(too_many_combinations());
    }
    let combination = |mut number: usize| {
        let chosen = columns.iter().map(move |values| {
            let value = &values[number % values.len()];
            number /= values.len();
            value.as_deref()
        });
        key(group, chosen)
    };
    Ok((0..count).map(combination).collect())
}

fn update_with_length(hash: &mut Sha256, bytes: &[u8]) {
    hash.update((bytes.len() as u64).to_le_bytes());
    hash.update(bytes);
}

/// 128 bits: two different combinations never have the same.
fn first_half(hash: Sha256) -> Uuid {
    let digest = hash.finalize();
    let mut half = [0; 16];
    half.copy_from_slice(&digest[..16]);
    Uuid::from_bytes(half)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_and_lists_are_read_as_texts() {
        let read = read(&json!({"tenant": 42, "status": ["paid", null, true]}));
        let read = read.unwrap().unwrap();
        assert_eq!(read[0].values, [Some("42".to_owned())]);
        assert!(read[0].is_scalar);
        assert_eq!(
            read[1].values,
            [Some("paid".to_owned()), None, Some("true".to_owned())]
        );
        assert!(!read[1].is_scalar);
    }

    #[test]
    fn an_empty_object_is_none_and_other_shapes_are_refused() {
        assert_eq!(read(&json!({})), Ok(None));
        for (argument, said) in [
            (json!([1]), "match is not a JSON object"),
            (json!(null), "match is not a JSON object"),
            (json!({"a": []}), "the list of column \"a\" is empty"),
            (json!({"a": {}}), "is a list or an object"),
            (json!({"a": [[1]]}), "is a list or an object"),
            (json!({"a": "x".repeat(1001)}), "more than 1000 bytes"),
        ] {
            let error = read(&argument).expect_err(said);
            assert!(error.message.contains(said), "{}", error.message);
            assert!(error.hint.is_some());
        }
    }

    #[test]
    fn each_combination_has_its_own_key() {
        let group = group(
            7,
            "table.recordInsert",
            &[(1, "a", "text"), (2, "b", "text")],
        );
        let text = |text: &str| Some(text.as_bytes().to_vec());
        let columns = [vec![text("x"), text("y"), None], vec![text("x"), None]];
        let mut found = keys(group, &columns).unwrap();
        assert_eq!(found.len(), 6);
        let wanted = key(group, [Some(b"y".as_slice()), None].into_iter());
        assert!(found.contains(&wanted));
        // What follows a value is never taken for part of it.
        found.push(key(
            group,
            [Some(b"xx".as_slice()), Some(b"".as_slice())].into_iter(),
        ));
        found.sort_unstable();
        found.dedup();
        assert_eq!(found.len(), 7);
    }

    #[test]
    fn values_are_sorted_by_size_without_repetitions() {
        let number = |number: i64| Some(number.to_le_bytes().to_vec());
        let mut values = vec![number(256), number(-1), None, number(1), number(256)];
        sort(MatchKind::Integer, &mut values);
        assert_eq!(values, [None, number(-1), number(1), number(256)]);
    }

    #[test]
    fn values_are_shown_as_json() {
        for (kind, canonical, shown) in [
            (
                MatchKind::Integer,
                (-42_i64).to_le_bytes().to_vec(),
                json!(-42),
            ),
            (MatchKind::Boolean, vec![1], json!(true)),
            (MatchKind::Text, b"paid".to_vec(), json!("paid")),
            (
                MatchKind::Date,
                0_i32.to_le_bytes().to_vec(),
                json!("2000-01-01T00:00:00"),
            ),
            (
                MatchKind::Date,
                i32::MAX.to_le_bytes().to_vec(),
                json!("infinity"),
            ),
            (
                MatchKind::Timestamptz,
                500_000_i64.to_le_bytes().to_vec(),
                json!("2000-01-01T00:00:00.500000Z"),
            ),
            (
                MatchKind::Oid,
                u32::MAX.to_le_bytes().to_vec(),
                json!(4_294_967_295_u32),
            ),
        ] {
            assert_eq!(value(kind, &canonical), shown);
        }
    }

    #[test]
    fn too_many_combinations_are_refused() {
        let group = group(7, "table.recordInsert", &[]);
        let values: Vec<Canonical> = (0..200_u32)
            .map(|n| Some(n.to_le_bytes().to_vec()))
            .collect();
        assert!(keys(group, std::slice::from_ref(&values)).is_ok());
        assert!(keys(group, &[values.clone(), values]).is_err());
    }
}
