//! Where the values lie in a stored record, found without building a tree.
//!
//! A record is a JSON object that capture wrote. Columns of type json may nest
//! deeper, and hold stranger escapes, than JSON libraries accept, so nothing here
//! recurses or reads escapes: it only finds ends. A text that is no such object
//! (the outbox was edited by hand) is `None`.

use crate::core::values::json_text::plain_prefix;

/// Finds the values of `keys` (each as written between its quotes). A key the
/// record does not have keeps what is in `found`.
pub(super) fn find_values<'r>(
    record: &'r [u8],
    keys: &[Vec<u8>],
    found: &mut [&'r [u8]],
) -> Option<()> {
    let mut at = after(record, 0, b'{')?;
    // Capture writes in the order of the template: the next key is nearly always it.
    let mut expected = 0;
    if after(record, at, b'}').is_some() {
        return Some(());
    }
    loop {
        let key_start = after(record, at, b'"')?;
        let key_end = string_end(record, key_start)?;
        let value_start = space_end(record, after(record, key_end + 1, b':')?);
        let value_end = value_end(record, value_start)?;
        let key = &record[key_start..key_end];
        if let Some(place) = place_of(key, keys, expected) {
            found[place] = &record[value_start..value_end];
            expected = place + 1;
        }
        match after(record, value_end, b',') {
            Some(next) => at = next,
            None => return after(record, value_end, b'}').map(|_| ()),
        }
    }
}

/// Whether the record has all these keys.
pub(super) fn names_all(record: &[u8], keys: &[Vec<u8>]) -> Option<bool> {
    const MISSING: &[u8] = b"";
    let mut found = vec![MISSING; keys.len()];
    find_values(record, keys, &mut found)?;
    Some(found.iter().all(|value| !value.is_empty()))
}

fn place_of(key: &[u8], keys: &[Vec<u8>], expected: usize) -> Option<usize> {
    if keys.get(expected).is_some_and(|next| next == key) {
        return Some(expected);
    }
    keys.iter().position(|other| other == key)
}

/// Appends the strings of an array of strings, as they stand between their quotes,
/// with commas between them.
pub(super) fn push_joined(out: &mut Vec<u8>, list: &[u8]) -> Option<()> {
    let mut at = after(list, 0, b'[')?;
    let mut first = true;
    while let Some(start) = after(list, at, b'"') {
        let end = string_end(list, start)?;
        if !first {
            out.push(b',');
        }
        first = false;
        out.extend_from_slice(&list[start..end]);
        at = after(list, end + 1, b',').unwrap_or(end + 1);
    }
    after(list, at, b']').map(|_| ())
}

fn space_end(text: &[u8], mut at: usize) -> usize {
    while text.get(at).is_some_and(u8::is_ascii_whitespace) {
        at += 1;
    }
    at
}

/// The place after the next byte, which must be `wanted`; white space does not count.
fn after(text: &[u8], at: usize, wanted: u8) -> Option<usize> {
    let at = space_end(text, at);
    (text.get(at) == Some(&wanted)).then_some(at + 1)
}

/// The closing quote of the string whose inside starts at `at`.
fn string_end(text: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at += plain_prefix(text.get(at..)?);
        match text.get(at)? {
            b'"' => return Some(at),
            b'\\' => at += 2,
            _ => return None,
        }
    }
}

/// The end of the value that starts at `at`.
fn value_end(text: &[u8], at: usize) -> Option<usize> {
    match text.get(at)? {
        b'"' => Some(string_end(text, at + 1)? + 1),
        b'{' | b'[' => nested_end(text, at),
        b',' | b'}' | b']' => None,
        _ => {
            let is_end =
                |byte: &u8| matches!(byte, b',' | b'}' | b']') || byte.is_ascii_whitespace();
            Some(
                text[at..]
                    .iter()
                    .position(is_end)
                    .map_or(text.len(), |len| at + len),
            )
        }
    }
}

fn nested_end(text: &[u8], mut at: usize) -> Option<usize> {
    let mut depth = 0usize;
    loop {
        match text.get(at)? {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            b'"' => at = string_end(text, at + 1)?,
            _ => {}
        }
        at += 1;
        if depth == 0 {
            return Some(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values<'r>(record: &'r str, keys: &[&str]) -> Option<Vec<&'r str>> {
        let keys: Vec<Vec<u8>> = keys.iter().map(|key| key.as_bytes().to_vec()).collect();
        let mut found: Vec<&[u8]> = vec![b"none"; keys.len()];
        find_values(record.as_bytes(), &keys, &mut found)?;
        let text = |value| std::str::from_utf8(value).unwrap();
        Some(found.into_iter().map(text).collect())
    }

    #[test]
    fn values_are_found_in_any_order_with_anything_between_them() {
        let record = r#"{"a":1,"b":"x\"},{\\","c": [{"a":"]"},[2]] ,"d":null,"a\"":true}"#;
        assert_eq!(
            values(record, &["a", "b"]),
            Some(vec!["1", r#""x\"},{\\""#])
        );
        assert_eq!(
            values(record, &["a\\\"", "c", "missing", "a"]),
            Some(vec!["true", r#"[{"a":"]"},[2]]"#, "none", "1"])
        );
        assert_eq!(values("{}", &["a"]), Some(vec!["none"]));
        assert_eq!(values(" { \"a\" : 5 } ", &["a"]), Some(vec!["5"]));
    }

    #[test]
    fn depth_and_strange_escapes_do_not_matter() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let record = format!(r#"{{"deep":{deep},"half":"\ud800\u0000","end":-1.50}}"#);
        assert_eq!(
            values(&record, &["end", "half", "deep"]),
            Some(vec!["-1.50", r#""\ud800\u0000""#, deep.as_str()])
        );
    }

    #[test]
    fn what_is_no_object_is_told() {
        let whole = r#"{"a":{"b":[1,"x\\"]},"c":2}"#;
        for end in 0..whole.len() {
            assert_eq!(values(&whole[..end], &["a"]), None, "{}", &whole[..end]);
        }
        for text in [
            "",
            "null",
            "[1]",
            "{1:2}",
            r#"{"a"}"#,
            r#"{"a":}"#,
            r#"{"a":1 2}"#,
        ] {
            assert_eq!(values(text, &["a"]), None, "{text}");
        }
    }

    #[test]
    fn lists_are_joined_as_they_are() {
        let joined = |list: &str| {
            let mut out = Vec::new();
            push_joined(&mut out, list.as_bytes()).map(|()| String::from_utf8(out).unwrap())
        };
        assert_eq!(joined("[]"), Some(String::new()));
        assert_eq!(joined(r#"["a","b\"c"]"#), Some(r#"a,b\"c"#.to_owned()));
        assert_eq!(joined(r#"["a"#), None);
        assert_eq!(joined("[1]"), None);
    }
}
