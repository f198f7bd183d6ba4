//! JSON text as a value, whatever its keys are called.
//!
//! Pure. serde_json gives the keys `$serde_json::private::Number` and
//! `$serde_json::private::RawValue` a meaning of their own when it makes a value: a user's
//! object with such a key would become another value, or an error. Here an object is an
//! object. It recurses, so the depth is limited.

use serde_json::{Map, Value};

/// Why a text is no value.
#[derive(Debug, PartialEq, Eq)]
pub enum Unreadable {
    TooDeep,
    NotJson,
}

type Read<T> = Result<T, Unreadable>;

/// Reads the whole text, with at most so many arrays and objects in one another.
pub fn read(text: &str, most_levels: usize) -> Read<Value> {
    let mut reader = Reader {
        text,
        at: 0,
        levels_left: most_levels,
    };
    let value = reader.value()?;
    reader.skip_space();
    if reader.at == text.len() {
        Ok(value)
    } else {
        Err(Unreadable::NotJson)
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    levels_left: usize,
}

impl<'a> Reader<'a> {
    fn value(&mut self) -> Read<Value> {
        self.skip_space();
        match self.byte()? {
            b'{' => self.nested(Self::object),
            b'[' => self.nested(Self::list),
            b'"' => self.string().map(Value::String),
            _ => self.scalar(),
        }
    }

    fn nested(&mut self, read: fn(&mut Self) -> Read<Value>) -> Read<Value> {
        self.levels_left = self.levels_left.checked_sub(1).ok_or(Unreadable::TooDeep)?;
        self.at += 1;
        let value = read(self)?;
        self.levels_left += 1;
        Ok(value)
    }

    fn object(&mut self) -> Read<Value> {
        let mut members = Map::new();
        if self.skip(b'}') {
            return Ok(Value::Object(members));
        }
        loop {
            self.skip_space();
            let key = self.string()?;
            self.expect(b':')?;
            let value = self.value()?;
            members.insert(key, value);
            if !self.skip(b',') {
                self.expect(b'}')?;
                return Ok(Value::Object(members));
            }
        }
    }

    fn list(&mut self) -> Read<Value> {
        let mut items = Vec::new();
        if self.skip(b']') {
            return Ok(Value::Array(items));
        }
        loop {
            items.push(self.value()?);
            if !self.skip(b',') {
                self.expect(b']')?;
                return Ok(Value::Array(items));
            }
        }
    }

    fn string(&mut self) -> Read<String> {
        let bytes = self.text.as_bytes();
        let mut end = self.at + 1;
        loop {
            match bytes.get(end).ok_or(Unreadable::NotJson)? {
                b'"' => break,
                b'\\' => end += 2,
                _ => end += 1,
            }
        }
        let quoted = &self.text[self.at..=end];
        self.at = end + 1;
        serde_json::from_str(quoted).map_err(|_| Unreadable::NotJson)
    }

    /// A number keeps its digits.
    fn scalar(&mut self) -> Read<Value> {
        let rest = &self.text[self.at..];
        let is_end = |byte: u8| matches!(byte, b',' | b'}' | b']') || byte.is_ascii_whitespace();
        let len = rest.bytes().position(is_end).unwrap_or(rest.len());
        self.at += len;
        serde_json::from_str(&rest[..len]).map_err(|_| Unreadable::NotJson)
    }

    fn byte(&self) -> Read<u8> {
        let byte = self.text.as_bytes().get(self.at);
        byte.copied().ok_or(Unreadable::NotJson)
    }

    fn skip_space(&mut self) {
        while self.byte().is_ok_and(|byte| byte.is_ascii_whitespace()) {
            self.at += 1;
        }
    }

    fn skip(&mut self, wanted: u8) -> bool {
        self.skip_space();
        let found = self.byte() == Ok(wanted);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, wanted: u8) -> Read<()> {
        if self.skip(wanted) {
            Ok(())
        } else {
            Err(Unreadable::NotJson)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn written(text: &str) -> Read<String> {
        read(text, 64).map(|value| value.to_string())
    }

    #[test]
    fn the_private_keys_of_serde_json_are_keys() {
        for text in [
            r#"{"$serde_json::private::Number":"1"}"#,
            r#"{"$serde_json::private::Number":"x"}"#,
            r#"{"$serde_json::private::RawValue":"[]"}"#,
            r#"[{"a":{"$serde_json::private::RawValue":7}}]"#,
        ] {
            assert_eq!(written(text).as_deref(), Ok(text));
        }
    }

    #[test]
    fn depth_is_limited_and_counts_what_is_open() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(read(&nested(64), 64).is_ok());
        assert_eq!(read(&nested(65), 64), Err(Unreadable::TooDeep));
        assert_eq!(read(&nested(100_000), 64), Err(Unreadable::TooDeep));
        let wide = format!("[{}]", ["[[1]]"; 100].join(","));
        assert!(read(&wide, 3).is_ok());
    }

    #[test]
    fn numbers_keep_their_digits() {
        let text = r#"[1e400,-0,12.50,100000000000000000000,true,null]"#;
        assert_eq!(
            written(text).as_deref(),
            Ok("[1e+400,-0,12.50,100000000000000000000,true,null]")
        );
    }

    #[test]
    fn what_is_no_json_is_told() {
        for text in [
            "",
            "[",
            "{",
            "[1",
            "[1 2]",
            "{\"a\"}",
            "{\"a\":}",
            "{1:2}",
            "\"a",
            "\"\\",
            "x",
            "1 2",
            "[,]",
            "{,}",
            "[1,]",
            "{\"a\":1,}",
            "]",
            "{a:1}",
            "{",
        ] {
            assert_eq!(read(text, 64), Err(Unreadable::NotJson), "{text}");
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                proptest::collection::hash_map(any::<String>(), inner, 0..6)
                    .prop_map(|members| json!(members)),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(value in any_json()) {
            prop_assert_eq!(read(&value.to_string(), 64), Ok(value));
        }

        #[test]
        fn no_text_makes_it_panic(text in "[\\[\\]{}\",:\\\\ 1a\\PC]{0,40}") {
            let ours = read(&text, 64).is_ok();
            prop_assert_eq!(ours, serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok());
        }
    }
}
