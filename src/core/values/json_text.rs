//! JSON as text, appended to a byte buffer: strings with their escapes, integers,
//! and the check whether a text is a JSON number.
//!
//! Pure and without failure. It writes exactly what serde_json would write for
//! the same value, but straight from borrowed bytes, because it runs once per
//! captured column value inside the user's transaction.

/// `\u00XX` digits, lower case as serde_json writes them.
const HEX_DIGITS: &[u8; 16] = b"0123456789abcdef";

/// The numbers below 100.
const DIGIT_PAIRS: &[u8; 200] = b"\
0001020304050607080910111213141516171819\
2021222324252627282930313233343536373839\
4041424344454647484950515253545556575859\
6061626364656667686970717273747576777879\
8081828384858687888990919293949596979899";

/// Appends `text` as a JSON string, quotes included.
pub fn push_string(out: &mut Vec<u8>, text: &str) {
    push_string_bytes(out, text.as_bytes());
}

/// As [`push_string`], for bytes that are known to be UTF-8 without a proof in
/// the type (text of a UTF-8 database).
pub fn push_string_bytes(out: &mut Vec<u8>, text: &[u8]) {
    out.reserve(text.len() + 2);
    out.push(b'"');
    push_escaped(out, text);
    out.push(b'"');
}

/// The inside of a JSON string: `text` with its escapes, without quotes.
pub fn push_escaped(out: &mut Vec<u8>, text: &[u8]) {
    let mut rest = text;
    loop {
        let plain = plain_prefix(rest);
        out.extend_from_slice(&rest[..plain]);
        let Some(&byte) = rest.get(plain) else {
            return;
        };
        push_escape(out, byte);
        rest = &rest[plain + 1..];
    }
}

/// How many bytes at the start of `text` need no escape.
pub(in crate::core) fn plain_prefix(text: &[u8]) -> usize {
    let mut at = 0;
    for word in text.chunks_exact(8) {
        let word = u64::from_le_bytes(word.try_into().expect("chunks of exactly 8 bytes"));
        let special = special_bytes(word);
        if special != 0 {
            return at + (special.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    text[at..]
        .iter()
        .position(|&byte| byte < 0x20 || byte == b'"' || byte == b'\\')
        .map_or(text.len(), |found| at + found)
}

/// Sets the high bit of each byte that is a control character, `"` or `\`.
/// A false hit is possible only above a true one, so the lowest one is exact.
fn special_bytes(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let is_zero = |bytes: u64| bytes.wrapping_sub(ONES) & !bytes;
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    let quote = is_zero(word ^ (ONES * u64::from(b'"')));
    let backslash = is_zero(word ^ (ONES * u64::from(b'\\')));
    (control | quote | backslash) & HIGHS
}

#[cold]
fn push_escape(out: &mut Vec<u8>, byte: u8) {
    let short = match byte {
        b'"' => b'"',
        b'\\' => b'\\',
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        0x08 => b'b',
        0x0c => b'f',
        _ => {
            let (high, low) = (usize::from(byte >> 4), usize::from(byte & 15));
            out.extend_from_slice(b"\\u00");
            out.extend_from_slice(&[HEX_DIGITS[high], HEX_DIGITS[low]]);
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

/// Appends a signed integer in decimal.
pub fn push_i64(out: &mut Vec<u8>, value: i64) {
    if value < 0 {
        out.push(b'-');
    }
    push_u64(out, value.unsigned_abs());
}

/// Appends an unsigned integer in decimal.
pub fn push_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Appends `value` with leading zeros to `width` digits; a longer value keeps all its digits.
pub fn push_padded(out: &mut Vec<u8>, value: u64, width: usize) {
    let mut limit = 1u64;
    for _ in 1..width {
        limit *= 10;
        if value < limit {
            out.push(b'0');
        }
    }
    push_u64(out, value);
}

/// Appends the two digits of a value below 100.
pub fn push_two(out: &mut Vec<u8>, value: u64) {
    let at = usize::try_from(value).map_or(0, |value| value * 2);
    out.extend_from_slice(&DIGIT_PAIRS[at..at + 2]);
}

/// Whether `text` is a number as JSON spells it (RFC 8259): no leading zero, no
/// plus sign, no bare point, nothing around it.
#[cfg(test)]
pub fn is_json_number(text: &[u8]) -> bool {
    let unsigned = text.strip_prefix(b"-").unwrap_or(text);
    let (integer, rest) = split_digits(unsigned);
    if integer.is_empty() || (integer.len() > 1 && integer[0] == b'0') {
        return false;
    }
    let rest = match rest.strip_prefix(b".") {
        Some(after) => {
            let (fraction, rest) = split_digits(after);
            if fraction.is_empty() {
                return false;
            }
            rest
        }
        None => rest,
    };
    match rest.split_first() {
        None => true,
        Some((b'e' | b'E', exponent)) => is_exponent(exponent),
        Some(_) => false,
    }
}

#[cfg(test)]
fn is_exponent(text: &[u8]) -> bool {
    let unsigned = match text.split_first() {
        Some((b'+' | b'-', rest)) => rest,
        _ => text,
    };
    !unsigned.is_empty() && unsigned.iter().all(u8::is_ascii_digit)
}

#[cfg(test)]
fn split_digits(text: &[u8]) -> (&[u8], &[u8]) {
    let len = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    text.split_at(len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn string_of(text: &str) -> String {
        let mut out = Vec::new();
        push_string(&mut out, text);
        String::from_utf8(out).expect("UTF-8 in, UTF-8 out")
    }

    fn padded(value: u64, width: usize) -> String {
        let mut out = Vec::new();
        push_padded(&mut out, value, width);
        String::from_utf8(out).expect("digits")
    }

    #[test]
    fn every_single_character_is_written_as_serde_json_does() {
        for code in (0..0x300).chain(0x1f380..0x1f3a0) {
            let text = char::from_u32(code).expect("no surrogate").to_string();
            assert_eq!(string_of(&text), serde_json::to_string(&text).unwrap());
        }
    }

    #[test]
    fn an_escape_is_found_at_every_place_of_a_long_text() {
        for special in ['"', '\\', '\n', '\u{1}', '\u{1f}'] {
            for place in 0..40 {
                let mut text: String = "ü".repeat(20);
                text.insert(text.char_indices().nth(place % 20).unwrap().0, special);
                let text = format!("{}{text}", "a".repeat(place));
                assert_eq!(string_of(&text), serde_json::to_string(&text).unwrap());
            }
        }
    }

    #[test]
    fn padding_fills_and_never_cuts() {
        assert_eq!(padded(0, 4), "0000");
        assert_eq!(padded(7, 4), "0007");
        assert_eq!(padded(1234, 4), "1234");
        assert_eq!(padded(12345, 4), "12345");
        assert_eq!(padded(9, 1), "9");
    }

    #[test]
    fn numbers_are_told_from_what_only_looks_like_one() {
        for good in [
            "0", "-0", "7", "-12.50", "1e+20", "1E-05", "10.0e3", "0.000",
        ] {
            assert!(is_json_number(good.as_bytes()), "{good}");
        }
        for bad in [
            "", "-", "+1", "01", "-01", ".5", "5.", "1e", "1e+", "NaN", "Infinity", " 1", "1 ",
            "1.2.3", "0x1", "1e5.0",
        ] {
            assert!(!is_json_number(bad.as_bytes()), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_written_as_serde_json_does(text in any::<String>()) {
            prop_assert_eq!(string_of(&text), serde_json::to_string(&text).unwrap());
        }

        #[test]
        fn texts_full_of_specials_are_written_as_serde_json_does(
            text in "([a-z ]{0,12}[\"\\\\\u{0}-\u{1f}\u{7f}\u{80}é🎉]{0,3}){0,6}"
        ) {
            prop_assert_eq!(string_of(&text), serde_json::to_string(&text).unwrap());
        }

        #[test]
        fn integers_are_written_in_full(value in any::<i64>()) {
            let mut out = Vec::new();
            push_i64(&mut out, value);
            prop_assert_eq!(String::from_utf8(out).unwrap(), value.to_string());
        }

        #[test]
        fn short_integers_are_written_in_full(value in -1000i64..1000) {
            let mut out = Vec::new();
            push_i64(&mut out, value);
            prop_assert_eq!(String::from_utf8(out).unwrap(), value.to_string());
        }

        #[test]
        fn a_number_is_what_serde_json_reads_as_one(text in "-?[0-9]{0,3}(\\.[0-9]{0,2})?([eE][+-]?[0-9]{0,2})?") {
            let read = serde_json::from_str::<serde_json::Value>(&text);
            prop_assert_eq!(is_json_number(text.as_bytes()), read.is_ok_and(|value| value.is_number()));
        }
    }
}
