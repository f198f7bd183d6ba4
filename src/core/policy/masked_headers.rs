//! A webhook's headers as views, the REST API and the log of changes show them.
//!
//! Pure. Nothing here may print a value. What looks like a credential becomes [`MASK`]. A client that
//! writes back what it has read must not store the mask, so [`unmasked`] puts the stored value in its
//! place.

use serde_json::{Map, Value};

use super::redaction::{credentials_in_url, is_credential_name, looks_drawn, MASK};
use crate::core::error::{Error, Result};

/// Names of headers, beside those that credentials in a query have.
const CREDENTIAL_HEADERS: [&str; 2] = ["cookie", "bearer"];
/// Schemes of `Authorization`, which some put into other headers.
const SCHEMES: [&str; 3] = ["basic ", "bearer ", "digest "];

/// The headers with [`MASK`] for each value that looks like a credential.
pub fn masked(headers: &Value) -> Value {
    let Value::Object(headers) = headers else {
        return Value::String(MASK.to_owned());
    };
    let shown = headers.iter().map(|(name, value)| {
        let value = match value {
            Value::String(text) if !is_credential(name, text) => text.as_str(),
            _ => MASK,
        };
        (name.clone(), Value::String(value.to_owned()))
    });
    Value::Object(shown.collect::<Map<_, _>>())
}

fn is_credential(name: &str, value: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let lower = value.to_ascii_lowercase();
    is_credential_name(&name)
        || CREDENTIAL_HEADERS.iter().any(|word| name.contains(word))
        || SCHEMES.iter().any(|scheme| lower.starts_with(scheme))
        || value.split([' ', ',', ';', '=', '"']).any(looks_drawn)
        || !credentials_in_url(value).is_empty()
        || has_userinfo(value)
}

fn has_userinfo(value: &str) -> bool {
    value.split("://").skip(1).any(|rest| {
        let host = rest.split(['/', '?', '#', ' ']).next();
        host.is_some_and(|host| host.contains('@'))
    })
}

/// The given headers, with the stored value for each mask of a header that is there.
///
/// # Errors
/// A mask of a header that is not there.
pub fn unmasked(given: Value, stored: &Value) -> Result<Value> {
    let Value::Object(headers) = given else {
        return Ok(given);
    };
    let of = |name: &str| {
        let stored = stored.as_object()?.iter();
        let mut stored = stored.filter(|(other, _)| other.eq_ignore_ascii_case(name));
        stored.next().map(|(_, value)| value.clone())
    };
    let headers = headers.into_iter().map(|(name, value)| {
        if value != MASK {
            return Ok((name, value));
        }
        let stored = of(&name).ok_or_else(|| refusal(&name))?;
        Ok((name, stored))
    });
    headers.collect::<Result<Map<_, _>>>().map(Value::Object)
}

/// # Errors
/// A value is a mask, where none is stored yet.
pub fn refuse_masks(headers: &Value) -> Result<()> {
    let mut given = headers.as_object().into_iter().flatten();
    match given.find(|(_, value)| *value == MASK) {
        Some((name, _)) => Err(refusal(name)),
        None => Ok(()),
    }
}

fn refusal(name: &str) -> Error {
    let shown: String = name
        .chars()
        .take(100)
        .flat_map(char::escape_debug)
        .collect();
    Error::invalid(format!(
        "headers: \"{shown}\" has the value {MASK}, which stands for one that is not shown"
    ))
    .with_hint("give the value of the header")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn what_looks_like_a_credential_is_masked() {
        for (name, value) in [
            ("Authorization", "x"),
            ("X-Api-Key", "short"),
            ("Cookie", "a=b"),
            ("X-Auth", "anything"),
            ("X-Forward", "Bearer abc"),
            ("X-Tenant", "0123456789abcdefghij"),
            ("X-Tenant", "id=0123456789abcdefghij, b"),
            ("X-Link", "https://me:pw@example.com/"),
            ("X-Link", "https://example.com/?token=abc"),
        ] {
            let headers = json!({ name: value });
            assert_eq!(masked(&headers), json!({ name: MASK }), "{name}: {value}");
        }
        for (name, value) in [
            ("X-Tenant", "acme"),
            ("X-Env", "production 2026-11-22"),
            ("Accept", "application/json"),
            ("X-Link", "https://example.com/a?page=2"),
            ("X-Text", "a longer text without any digits in it"),
        ] {
            let headers = json!({ name: value });
            assert_eq!(masked(&headers), headers);
        }
        assert_eq!(masked(&json!({"a": 7})), json!({"a": MASK}));
        assert_eq!(masked(&json!(["secret"])), json!(MASK));
    }

    #[test]
    fn a_mask_that_comes_back_leaves_the_stored_value() {
        let stored = json!({"X-Api-Key": "k-1", "X-Env": "test"});
        let given = json!({"x-api-key": MASK, "X-Env": "live", "X-New": "n"});
        assert_eq!(
            unmasked(given, &stored).unwrap(),
            json!({"x-api-key": "k-1", "X-Env": "live", "X-New": "n"})
        );
        let error = unmasked(json!({"X-Other": MASK}), &stored).unwrap_err();
        assert!(error.message.contains("X-Other"), "{}", error.message);
        assert!(refuse_masks(&json!({"X-Other": MASK})).is_err());
        assert!(refuse_masks(&stored).is_ok());
    }

    proptest! {
        #[test]
        fn what_was_read_can_be_written_back(
            headers in proptest::collection::btree_map("[a-z-]{1,12}", "[ -~]{0,40}", 0..5)
        ) {
            let stored = json!(headers);
            prop_assert_eq!(unmasked(masked(&stored), &stored).unwrap(), stored);
        }
    }
}
