//! What a webhook's arguments may be.
//!
//! Pure. Each check takes what the user wrote and returns what is stored, or an
//! error that names the argument and the value.

use super::limits;
use crate::core::error::{Error, Kind, Result};
use crate::core::policy::endpoint::Endpoint;

/// As long as the hosted product allows.
const MAX_NAME_CHARS: usize = 100;
/// Each URL is a lane with its own state and connections.
pub const MAX_URLS: usize = 100;
/// How much of a refused value an error message repeats.
const SHOWN_CHARS: usize = 100;

/// An integer argument and what it may be.
pub struct Range {
    pub argument: &'static str,
    pub least: i32,
    pub most: i32,
}

/// Calls a second. Beyond the most there is nothing to hold back.
pub const CALL_THROTTLING: Range = Range {
    argument: "call_throttling",
    least: 1,
    most: 1_000_000,
};
/// Ten minutes: a receiver that works longer than this should answer first.
pub const TIMEOUT_MS: Range = Range {
    argument: "timeout_ms",
    least: 1,
    most: 600_000,
};
pub const MAX_ATTEMPTS: Range = Range {
    argument: "max_attempts",
    least: 1,
    most: 1_000,
};
/// Calls at a time; `webhook.connections` limits all URLs together.
pub const MAX_IN_FLIGHT: Range = Range {
    argument: "max_in_flight",
    least: 1,
    most: 1_000,
};

impl Range {
    pub fn check(&self, value: i32) -> Result<i32> {
        let Self {
            argument,
            least,
            most,
        } = self;
        if (*least..=*most).contains(&value) {
            return Ok(value);
        }
        Err(
            Error::invalid(format!("{argument} {value} is out of range"))
                .with_hint(format!("use {least} to {most}")),
        )
    }
}

/// `call_throttling` of an update: 0 lifts the limit.
pub fn changed_throttling(value: i32) -> Result<Option<i32>> {
    match value {
        0 => Ok(None),
        calls => CALL_THROTTLING
            .check(calls)
            .map(Some)
            .map_err(|error| error.with_hint("use 1 to 1000000, or 0 for no limit")),
    }
}

/// A value for an error message: cut, and without characters that would show it as another.
pub fn shown(value: &str) -> String {
    shown_up_to(value, SHOWN_CHARS)
}

/// As [`shown`], for a longer text.
pub fn shown_up_to(value: &str, most_chars: usize) -> String {
    let mut shown = String::new();
    for (place, c) in value.chars().enumerate() {
        if place == most_chars {
            shown.push('…');
            break;
        }
        if misleads(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// Control characters, and those that are invisible or turn the direction of writing: a text
/// that holds one may look like another.
pub fn misleads(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// The value of an argument that must be given.
pub fn required<T>(argument: &str, value: Option<T>) -> Result<T> {
    value.ok_or_else(|| {
        Error::invalid(format!("{argument} is null"))
            .with_hint(format!("give a value for {argument}"))
    })
}

/// Checks `name`.
pub fn name(value: &str) -> Result<&str> {
    let hint = format!(
        "use 1 to {MAX_NAME_CHARS} characters, none of them a control character, invisible, or one \
         that turns the direction of writing"
    );
    let length = value.chars().count();
    if value.trim().is_empty() || length > MAX_NAME_CHARS || value.chars().any(misleads) {
        return Err(
            Error::invalid(format!("name \"{}\" is not valid", shown(value)))
                .with_detail(format!("it has {length} characters"))
                .with_hint(hint),
        );
    }
    Ok(value)
}

/// Checks `description`.
pub fn description(value: String) -> Result<String> {
    limits::check_text("description", &value, limits::DESCRIPTION_CHARS)?;
    Ok(value)
}

/// Checks and normalises `outgoing_urls`.
pub fn outgoing_urls(values: &[Option<String>]) -> Result<Vec<String>> {
    let hint = format!("give 1 to {MAX_URLS} URLs, as in array['https://example.com/hook']");
    if values.is_empty() || values.len() > MAX_URLS {
        return Err(
            Error::invalid(format!("outgoing_urls has {} elements", values.len())).with_hint(hint),
        );
    }
    let mut urls: Vec<String> = Vec::with_capacity(values.len());
    for value in values {
        let value = value
            .as_deref()
            .ok_or_else(|| Error::invalid("outgoing_urls contains null").with_hint(hint.clone()))?;
        let url = Endpoint::parse(value)?.as_str().to_owned();
        if urls.contains(&url) {
            return Err(Error::new(
                Kind::DuplicateObject,
                format!("outgoing_urls contains \"{}\" twice", shown(&url)),
            )
            .with_hint("a URL is called once for each message: list it once"));
        }
        urls.push(url);
    }
    Ok(urls)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(values: &[&str]) -> Result<Vec<String>> {
        let values: Vec<_> = values.iter().map(|v| Some((*v).to_owned())).collect();
        outgoing_urls(&values)
    }

    #[test]
    fn names_of_1_to_100_characters_are_taken_as_they_are() {
        let longest = "ä".repeat(100);
        for good in ["a", "Order Sync", longest.as_str()] {
            assert_eq!(name(good), Ok(good));
        }
        let too_long = "ä".repeat(101);
        for bad in ["", "  ", "a\nb", too_long.as_str()] {
            let error = name(bad).expect_err("not a name");
            assert_eq!(error.kind, Kind::InvalidParameter);
            assert!(error.hint.is_some() && !error.message.contains('\n'));
        }
    }

    #[test]
    fn urls_are_normalised_and_unique() {
        assert_eq!(
            urls(&["HTTPS://Example.com:443/a"]),
            Ok(vec!["https://example.com/a".to_owned()])
        );
        let error = urls(&["https://example.com/", "https://EXAMPLE.com"]).expect_err("the same");
        assert_eq!(error.kind, Kind::DuplicateObject);
        assert!(urls(&[]).is_err());
        assert!(outgoing_urls(&[None]).is_err());
        assert!(urls(&["ftp://example.com/"]).is_err());
    }

    #[test]
    fn numbers_outside_their_range_name_argument_and_value() {
        assert_eq!(TIMEOUT_MS.check(15_000), Ok(15_000));
        let error = CALL_THROTTLING.check(0).expect_err("out of range");
        assert_eq!(error.message, "call_throttling 0 is out of range");
        assert_eq!(error.hint.as_deref(), Some("use 1 to 1000000"));
    }

    #[test]
    fn an_update_lifts_the_limit_with_0() {
        assert_eq!(changed_throttling(0), Ok(None));
        assert_eq!(changed_throttling(8), Ok(Some(8)));
        let error = changed_throttling(-1).expect_err("out of range");
        assert!(error
            .hint
            .is_some_and(|hint| hint.contains("0 for no limit")));
    }
}
