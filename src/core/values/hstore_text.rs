//! `hstore` as JSON: from the text that its output function prints,
//! `"a"=>"1", "b"=>NULL`, to `{"a":"1","b":null}`.
//!
//! Pure. A text of any other form is refused as a whole, so that the caller can
//! send it as a string; half an object is never written.

use super::json_text::push_string_bytes;

/// Appends the JSON object, or answers false and leaves `out` as it was.
#[must_use]
pub fn push_hstore(out: &mut Vec<u8>, text: &[u8]) -> bool {
    let start = out.len();
    let written = push_object(out, text).is_some();
    if !written {
        out.truncate(start);
    }
    written
}

fn push_object(out: &mut Vec<u8>, text: &[u8]) -> Option<()> {
    out.push(b'{');
    let mut rest = text;
    let mut unescaped = Vec::new();
    while !rest.is_empty() {
        rest = push_quoted(out, rest, &mut unescaped)?.strip_prefix(b"=>")?;
        out.push(b':');
        rest = match rest.strip_prefix(b"NULL") {
            Some(after) => {
                out.extend_from_slice(b"null");
                after
            }
            None => push_quoted(out, rest, &mut unescaped)?,
        };
        if !rest.is_empty() {
            rest = rest.strip_prefix(b", ").filter(|next| !next.is_empty())?;
            out.push(b',');
        }
    }
    out.push(b'}');
    Some(())
}

/// One `"…"` with `\` before what it escapes; returns what follows it.
fn push_quoted<'a>(out: &mut Vec<u8>, text: &'a [u8], unescaped: &mut Vec<u8>) -> Option<&'a [u8]> {
    let mut rest = text.strip_prefix(b"\"")?;
    unescaped.clear();
    loop {
        let plain = rest
            .iter()
            .position(|&byte| byte == b'"' || byte == b'\\')?;
        unescaped.extend_from_slice(&rest[..plain]);
        let escaped = rest[plain] == b'\\';
        rest = &rest[plain + 1..];
        if !escaped {
            push_string_bytes(out, unescaped);
            return Some(rest);
        }
        let (&byte, after) = rest.split_first()?;
        unescaped.push(byte);
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Option<String> {
        let mut out = b"before".to_vec();
        let written = push_hstore(&mut out, text.as_bytes());
        let out = String::from_utf8(out).expect("UTF-8 in, UTF-8 out");
        let object = out.strip_prefix("before").expect("only appends");
        assert_eq!(written, !object.is_empty(), "all or nothing");
        written.then(|| object.to_owned())
    }

    #[test]
    fn pairs_become_members_in_their_order() {
        assert_eq!(json("").as_deref(), Some("{}"));
        assert_eq!(
            json(r#""a"=>"1", "b"=>NULL, "c"=>"NULL""#).as_deref(),
            Some(r#"{"a":"1","b":null,"c":"NULL"}"#)
        );
        assert_eq!(
            json(r#""k\"\\"=>"=>, \"x\"""#).as_deref(),
            Some(r#"{"k\"\\":"=>, \"x\""}"#)
        );
    }

    #[test]
    fn any_other_text_is_left_alone() {
        for bad in [
            "x",
            "\"a\"",
            "\"a\"=>",
            "\"a\"=>\"1\",",
            "\"a\"=>\"1\", ",
            "\"a\"=>1",
            "\"a",
            "\"a\\",
        ] {
            assert_eq!(json(bad), None, "{bad}");
        }
    }
}
