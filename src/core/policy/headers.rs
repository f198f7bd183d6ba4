//! A webhook's own request headers.
//!
//! They come from users, so nothing in them may change the framing of the
//! request, forge what we say ourselves, or start another line. Pure; a bad
//! header is the user's error when the webhook is created.

use std::collections::HashSet;

use serde_json::Value;

use crate::core::error::{Error, Result};

/// What each request says of itself.
pub const CONTENT_TYPE: &str = "application/json";
pub const USER_AGENT: &str = concat!("webhook_ext/", env!("CARGO_PKG_VERSION"));

/// All of them together must leave room for our own in one 16 kB buffer.
const MAX_TOTAL_BYTES: usize = 8 * 1024;
const MAX_HEADERS: usize = 50;

/// How much of a refused name an error message repeats.
const SHOWN_CHARS: usize = 100;

/// Framing and connection control (RFC 9110 section 7.6.1), and what we set.
const REFUSED: &[&str] = &[
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
    "host",
    "content-length",
    "content-type",
    "user-agent",
];

/// The whole name space of Standard Webhooks, also what it may add later.
const REFUSED_PREFIX: &str = "webhook-";

/// Checks the `headers` argument: a JSON object of name → text.
///
/// # Errors
/// Not an object, a value that is not text, a name that is no HTTP token or is
/// reserved, the same name twice (case does not count), a value with anything
/// but visible ASCII and inner spaces, or too many or too long ones.
pub fn validate(headers: &Value) -> Result<Vec<(String, String)>> {
    let Value::Object(map) = headers else {
        return Err(Error::invalid("headers is not a JSON object")
            .with_hint("write headers like {\"X-Api-Key\": \"…\"}"));
    };
    let mut seen = HashSet::new();
    let mut checked = Vec::with_capacity(map.len());
    for (name, value) in map {
        check_name(name)?;
        let value = check_value(name, value)?;
        if !seen.insert(name.to_ascii_lowercase()) {
            return Err(refuse(
                name,
                "is given twice",
                "names differ only in case: keep one",
            ));
        }
        checked.push((name.clone(), value.to_owned()));
    }
    check_sizes(&checked)?;
    Ok(checked)
}

fn check_name(name: &str) -> Result<()> {
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err(refuse(
            name,
            "is not a valid header name",
            "use letters, digits and hyphens",
        ));
    }
    let lower = name.to_ascii_lowercase();
    if REFUSED.contains(&lower.as_str()) || lower.starts_with(REFUSED_PREFIX) {
        return Err(refuse(
            name,
            "is reserved",
            "leave this header out: it is set for each call",
        ));
    }
    Ok(())
}

fn check_value<'v>(name: &str, value: &'v Value) -> Result<&'v str> {
    let Value::String(text) = value else {
        return Err(refuse(
            name,
            "has a value that is not text",
            "quote the value",
        ));
    };
    // The value may be a credential, so it is never repeated.
    if !text.bytes().all(|b| (0x20..0x7f).contains(&b)) {
        return Err(refuse(
            name,
            "has a value with characters that are not visible ASCII",
            "leave out line breaks and control characters, and encode other characters",
        ));
    }
    if text.starts_with(' ') || text.ends_with(' ') {
        return Err(refuse(
            name,
            "has a value that begins or ends with a space",
            "take the space away: receivers ignore it",
        ));
    }
    Ok(text)
}

fn check_sizes(headers: &[(String, String)]) -> Result<()> {
    if headers.len() > MAX_HEADERS {
        return Err(Error::invalid(format!(
            "headers holds {} headers, more than {MAX_HEADERS}",
            headers.len()
        ))
        .with_hint("send fewer headers, or put the values into the payload"));
    }
    let total: usize = headers
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    if total > MAX_TOTAL_BYTES {
        return Err(Error::invalid(format!(
            "headers holds {total} bytes, more than {MAX_TOTAL_BYTES}"
        ))
        .with_hint("shorten the values, or put them into the payload"));
    }
    Ok(())
}

fn refuse(name: &str, reason: &str, hint: &str) -> Error {
    let shown: String = name
        .chars()
        .take(SHOWN_CHARS)
        .flat_map(char::escape_debug)
        .collect();
    Error::invalid(format!("headers: \"{shown}\" {reason}")).with_hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn ordinary_headers_pass_unchanged_and_in_order() {
        let given = json!({"X-Api-Key": "k 1", "authorization": "Bearer abc", "empty": ""});
        let expected = [
            ("X-Api-Key", "k 1"),
            ("authorization", "Bearer abc"),
            ("empty", ""),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(validate(&given).unwrap(), expected);
        assert_eq!(validate(&json!({})).unwrap(), []);
    }

    #[test]
    fn reserved_names_are_refused_in_any_case() {
        for name in REFUSED
            .iter()
            .copied()
            .chain(["webhook-id", "webhook-anything"])
        {
            for name in [name.to_owned(), name.to_ascii_uppercase()] {
                let error = validate(&json!({ &name: "x" })).unwrap_err();
                assert!(error.message.contains(&name), "{}", error.message);
            }
        }
    }

    #[test]
    fn what_could_start_another_line_is_refused() {
        for value in [
            "a\r\nb", "a\nb", "a\rb", "a\0b", "a\tb", "\u{7f}", "ä", " a", "a ",
        ] {
            let error = validate(&json!({"x-a": value})).unwrap_err();
            assert!(error.message.contains("x-a"), "{value:?}");
            assert!(error.hint.is_some());
        }
        for name in ["", "a b", "a:b", "a\r\nb", "ä", "a\0"] {
            assert!(validate(&json!({ name: "x" })).is_err(), "{name:?}");
        }
    }

    #[test]
    fn other_shapes_are_refused() {
        for headers in [
            json!([]),
            json!("x: y"),
            json!(null),
            json!({"a": 1}),
            json!({"a": null}),
        ] {
            assert!(validate(&headers).is_err(), "{headers}");
        }
        assert!(validate(&json!({"X-A": "1", "x-a": "2"}))
            .unwrap_err()
            .message
            .contains("twice"));
        let long = "v".repeat(MAX_TOTAL_BYTES);
        assert!(validate(&json!({"x-a": long}))
            .unwrap_err()
            .message
            .contains("bytes"));
        let many: Value = (0..=MAX_HEADERS)
            .map(|n| (format!("x-{n}"), json!("v")))
            .collect();
        assert!(validate(&many)
            .unwrap_err()
            .message
            .contains("headers holds 51"));
    }

    #[test]
    fn a_refused_value_is_not_repeated() {
        let error = validate(&json!({"x-key": "hunter2\n"})).unwrap_err();
        assert!(!format!("{error:?}").contains("hunter2"));
    }

    proptest! {
        #[test]
        fn what_passes_cannot_break_a_line(name in "\\PC{0,12}|[a-z-]{1,9}", value in any::<String>()) {
            if let Ok(checked) = validate(&json!({ name: value })) {
                let (name, value) = &checked[0];
                let line = format!("{name}: {value}");
                prop_assert!(line.bytes().all(|b| (0x20..0x7f).contains(&b)));
                prop_assert_eq!(line.split_once(": ").unwrap().0, name);
            }
        }
    }
}
