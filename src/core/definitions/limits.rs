//! How much each argument may hold, and the errors beyond.
//!
//! Pure. The limits leave room for anything people write and keep every call short: an
//! argument is measured before it is copied, and no check costs more than its length.

use super::webhook::shown;
use crate::core::error::{Error, Result};

/// Names, ids and words of which only a few are known. Longer than any of them, so that one
/// that is merely unknown is answered as such.
pub const WORD_CHARS: usize = 1_000;
pub const DESCRIPTION_CHARS: usize = 10_000;
/// A condition is part of a trigger, which PostgreSQL keeps parsed in each session.
pub const CONDITION_CHARS: usize = 10_000;
pub const SEARCH_PATH_CHARS: usize = 10_000;
/// A template is copied into each message.
pub const TEMPLATE_CHARS: usize = 1_000_000;
/// Of a request: as long as a URL may be.
pub const PATH_CHARS: usize = 2_048;
/// An event source is kept with each message.
pub const SOURCE_CHARS: usize = 200;
/// Each change is compared with all of them.
pub const EVENT_SOURCES: usize = 1_000;
/// As many as a table can have columns.
pub const FIELDS: usize = 1_600;
/// A group of events is an entry of an index by the numbers of its columns.
pub const MATCH_COLUMNS: usize = 32;
/// As many as an index can have.
pub const ORDER_KEY_COLUMNS: usize = 32;
/// Each is a key of an index.
pub const MATCH_COMBINATIONS: usize = 10_000;
/// A value of a row that is longer is not looked at.
pub const MATCH_VALUE_BYTES: usize = 1_000;
/// All elements of a list together.
pub const LIST_BYTES: usize = 1 << 20;
pub const JSON_BYTES: usize = 1 << 20;
/// Readers of JSON recurse.
pub const JSON_DEPTH: usize = 64;

pub fn check_text<'a>(argument: &str, text: &'a str, most_chars: usize) -> Result<&'a str> {
    // A character has at least a byte.
    if text.len() > most_chars && text.chars().nth(most_chars).is_some() {
        return Err(too_long(argument, most_chars));
    }
    Ok(text)
}

/// `webhook.source`, whatever its encoding.
pub fn check_source(text: &str) -> Result<&str> {
    check_text("webhook.source", text, SOURCE_CHARS)
}

pub fn too_long(argument: &str, most_chars: usize) -> Error {
    Error::invalid(format!("{argument} is longer than {most_chars} characters"))
        .with_hint(format!("use at most {most_chars} characters"))
}

/// The same for an element of a list, which is shown.
pub fn check_element(argument: &str, element: &str, most_chars: usize) -> Result<()> {
    check_text(argument, element, most_chars)
        .map(drop)
        .map_err(|error| {
            Error::invalid(format!(
                "{argument} contains a text of more than {most_chars} characters: \"{}\"",
                shown(element)
            ))
            .with_hint(error.hint.unwrap_or_default())
        })
}

pub fn check_count(argument: &str, count: usize, most: usize) -> Result<()> {
    if count > most {
        return Err(
            Error::invalid(format!("{argument} has {count} elements, more than {most}"))
                .with_hint(format!("give at most {most} elements")),
        );
    }
    Ok(())
}

pub fn list_too_large(argument: &str) -> Error {
    Error::invalid(format!(
        "{argument} holds more than {} kB",
        LIST_BYTES / 1024
    ))
    .with_hint("give fewer or shorter elements")
}

pub fn many_dimensions(argument: &str, dimensions: i32) -> Error {
    Error::invalid(format!("{argument} has {dimensions} dimensions"))
        .with_hint("give a list of one dimension, as in array['a', 'b']")
}

pub fn json_too_large(argument: &str) -> Error {
    Error::invalid(format!(
        "{argument} holds more than {} kB of JSON",
        JSON_BYTES / 1024
    ))
    .with_hint("give a smaller JSON value")
}

pub fn json_too_deep(argument: &str) -> Error {
    Error::invalid(format!("{argument} nests deeper than {JSON_DEPTH} levels")).with_hint(format!(
        "give a JSON value of at most {JSON_DEPTH} levels of arrays and objects"
    ))
}

/// Of a value that no server stores.
pub fn json_unreadable(argument: &str) -> Error {
    Error::invalid(format!("{argument} is not valid JSON")).with_hint("give another JSON value")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_count_and_not_bytes() {
        let longest = "ä".repeat(SOURCE_CHARS);
        assert!(check_text("a", &longest, SOURCE_CHARS).is_ok());
        let error = check_text("condition", &format!("{longest}x"), SOURCE_CHARS).unwrap_err();
        assert_eq!(error.message, "condition is longer than 200 characters");
        assert!(error.hint.is_some());
    }

    #[test]
    fn an_element_that_is_too_long_is_cut_where_it_is_shown() {
        let error = check_element("event_sources", &"x".repeat(5_000), 200).unwrap_err();
        assert!(error.message.len() < 300, "{}", error.message);
        assert!(error.message.starts_with("event_sources "));
        assert!(error.hint.is_some());
    }
}
