//! Headers of stored values, and jsonb arguments: what the functions that users call read of an
//! argument's bytes, up to the value that is checked.

use serde_json::Value;

use super::fuzz;
use super::targets::JSON_WORDS;
use crate::core::definitions::limits::JSON_DEPTH;
use crate::core::values::json_text::push_escaped;
use crate::core::values::json_value::{self, Unreadable};
use crate::core::values::jsonb_image::{self, Token};
use crate::core::values::number_text::push_numeric;
use crate::core::values::varlena_header::{plain_within, read, Header};

const LONGEST_SHORT: usize = 126;

fn long(len: usize, form: usize) -> Vec<u8> {
    let word = u32::try_from(((len + 4) << 2) | form).unwrap();
    word.to_le_bytes().to_vec()
}

#[test]
fn a_value_of_variable_length_is_read_as_it_was_written() {
    let seeds = ["\u{1}\u{12}", "\u{3}", "\u{10}\0\0\0abcd", "\u{12}\0\0\0ab"];
    let words = ["\u{1}", "\u{2}", "\u{3}", "\0\0\0\0", "\u{7f}"];
    fuzz("varlena", &seeds, &words, |input| {
        // Whatever the bytes are, what is read lies within them.
        if let Some(bytes) = plain_within(input) {
            let start = bytes.as_ptr() as usize - input.as_ptr() as usize;
            assert!(start == 1 || start == 4, "{start}");
            assert!(start + bytes.len() <= input.len());
        }
        if let Some((first, rest)) = input.split_first() {
            let mut word = [0; 4];
            let len = rest.len().min(3);
            word[0] = *first;
            word[1..=len].copy_from_slice(&rest[..len]);
            let is_short = first & 1 != 0;
            let header = read(*first, || {
                assert!(!is_short, "a short header has no word");
                u32::from_le_bytes(word)
            });
            match header {
                Header::Plain { start: 1, len } => assert!(is_short && len <= LONGEST_SHORT),
                Header::Plain { start, len } => assert!(start == 4 && len < 1 << 30 && !is_short),
                Header::Compressed { stored } => assert!(stored < 1 << 30 && first & 3 == 2),
                Header::External => assert_eq!(*first, 1),
            }
        }
        // Each form of a value with these bytes.
        let len = input.len();
        let mut image = long(len, 0);
        image.extend_from_slice(input);
        assert_eq!(plain_within(&image), Some(input));
        assert_eq!(
            plain_within(&image[..image.len() - usize::from(len > 0)]).is_some(),
            len == 0
        );
        let compressed = long(len, 2);
        let word = u32::from_le_bytes(compressed[..4].try_into().unwrap());
        assert_eq!(
            read(compressed[0], || word),
            Header::Compressed { stored: len + 4 }
        );
        if len <= LONGEST_SHORT {
            let mut image = vec![u8::try_from(((len + 1) << 1) | 1).unwrap()];
            image.extend_from_slice(input);
            assert_eq!(plain_within(&image), Some(input));
        }
    });
}

/// The text of a stored jsonb as `pg/row_json/documents.rs` writes it; `None` if it is damaged.
fn text_of(image: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let walked = jsonb_image::walk(image, |token| {
        match token {
            Token::Plain(bytes) => out.extend_from_slice(bytes),
            Token::String(bytes) => {
                out.push(b'"');
                push_escaped(&mut out, bytes);
                out.push(b'"');
            }
            Token::Number(image) => {
                let number = plain_within(image).ok_or(())?;
                if !push_numeric(&mut out, number) {
                    out.extend_from_slice(b"null");
                }
            }
        }
        Ok::<(), ()>(())
    });
    walked?.ok()?;
    Some(out)
}

const STRING: u32 = 0;
const NUMERIC: u32 = 0x1000_0000;
const FALSE: u32 = 0x2000_0000;
const TRUE: u32 = 0x3000_0000;
const NULL: u32 = 0x4000_0000;
const CONTAINER: u32 = 0x5000_0000;
const SCALAR: u32 = 0x1000_0000;
const OBJECT: u32 = 0x2000_0000;
const ARRAY: u32 = 0x4000_0000;

/// Kind and bytes of a value, as an entry of a container has them. Numbers are small integers.
fn entry(value: &Value, at: usize) -> (u32, Vec<u8>) {
    let padded = |bytes: Vec<u8>| {
        let mut all = vec![0; at.next_multiple_of(4) - at];
        all.extend(bytes);
        all
    };
    match value {
        Value::Null => (NULL, vec![]),
        Value::Bool(true) => (TRUE, vec![]),
        Value::Bool(false) => (FALSE, vec![]),
        Value::String(text) => (STRING, text.clone().into_bytes()),
        Value::Number(number) => {
            let digit = u16::try_from(number.as_u64().unwrap_or(0) % 10_000).unwrap();
            // Short form, no decimals, the one digit of 10,000; zero has none.
            let mut image = long(if digit == 0 { 2 } else { 4 }, 0);
            image.extend(0x8000_u16.to_ne_bytes());
            if digit != 0 {
                image.extend(digit.to_ne_bytes());
            }
            (NUMERIC, padded(image))
        }
        Value::Array(_) | Value::Object(_) => (CONTAINER, padded(stored(value))),
    }
}

/// A jsonb as PostgreSQL stores it, with lengths and no offsets.
fn stored(value: &Value) -> Vec<u8> {
    let alone = [value.clone()];
    let (flags, keys, values): (u32, Vec<String>, Vec<&Value>) = match value {
        Value::Array(items) => (ARRAY, vec![], items.iter().collect()),
        Value::Object(members) => (
            OBJECT,
            members.keys().cloned().collect(),
            members.values().collect(),
        ),
        _ => (ARRAY | SCALAR, vec![], alone.iter().collect()),
    };
    let count = u32::try_from(values.len()).unwrap();
    let mut entries = (flags | count).to_ne_bytes().to_vec();
    let mut data = Vec::new();
    for key in keys {
        entries.extend((STRING | u32::try_from(key.len()).unwrap()).to_ne_bytes());
        data.extend(key.into_bytes());
    }
    for value in values {
        let (kind, bytes) = entry(value, data.len());
        entries.extend((kind | u32::try_from(bytes.len()).unwrap()).to_ne_bytes());
        data.extend(bytes);
    }
    entries.extend(data);
    entries
}

/// Numbers as `stored` writes them.
fn with_small_numbers(value: &mut Value) {
    match value {
        Value::Number(number) => *value = (number.as_u64().unwrap_or(0) % 10_000).into(),
        Value::Array(items) => items.iter_mut().for_each(with_small_numbers),
        Value::Object(members) => members.values_mut().for_each(with_small_numbers),
        _ => {}
    }
}

fn depth_of(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth_of).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth_of).max().unwrap_or(0),
        _ => 0,
    }
}

#[test]
fn a_jsonb_argument_is_refused_or_read_as_it_was_given() {
    let seeds = [
        r#"{"X-Api-Key":"k","n":[1,2,{"a":null}],"t":true}"#,
        r#"["a",1.50,[[[[]]]],{"$serde_json::private::Number":"1"}]"#,
        r#"{"$serde_json::private::RawValue":7}"#,
        "\u{1}\0\0P\u{3}\0\0\0abc",
        "\u{1}\0\0P\u{8}\0\0\u{10}\u{18}\0\0\0\0\u{0}\u{1}\0",
    ];
    // Words of the stored form beside those of the text.
    let image_words = ["\0\0\0P", "\0\0\0\u{10}", "\u{1}\0\0@"];
    let words = [JSON_WORDS, &image_words[..]].concat();
    fuzz("jsonb_arguments", &seeds, &words, |input| {
        // As bytes of a jsonb, damaged or not: they are read to an end.
        if let Some(text) = text_of(input) {
            let _ = json_value::read(&String::from_utf8_lossy(&text), JSON_DEPTH);
        }
        // As the JSON of a value that is stored, and read again.
        let text = String::from_utf8_lossy(input);
        let Ok(mut value) = json_value::read(&text, 4 * JSON_DEPTH) else {
            return;
        };
        with_small_numbers(&mut value);
        let written = text_of(&stored(&value)).expect("it is not damaged");
        let written = String::from_utf8(written).expect("it is UTF-8");
        match json_value::read(&written, JSON_DEPTH) {
            Ok(read) => assert_eq!(read, value),
            Err(error) => {
                assert_eq!(error, Unreadable::TooDeep, "{written}");
                assert!(depth_of(&value) > JSON_DEPTH, "{written}");
            }
        }
    });
}
