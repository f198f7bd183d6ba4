//! Turns a receiver's answer into log text and a verdict.
//!
//! Whatever the receiver sends, the text is valid UTF-8 without NUL and within its size limit.
//! Pure; cannot fail.

use super::call::Verdict;

/// Replaces bytes that are not valid text.
const REPLACEMENT: char = char::REPLACEMENT_CHARACTER;

/// The start of a body as text of at most `most_bytes` bytes. With `was_cut`, an incomplete
/// character at the end is dropped instead of replaced.
pub fn readable(body: &[u8], was_cut: bool, most_bytes: usize) -> String {
    let mut text = String::with_capacity(body.len().min(most_bytes));
    let mut chunks = body.utf8_chunks().peekable();
    while let Some(chunk) = chunks.next() {
        text.extend(
            chunk
                .valid()
                .chars()
                .map(|c| if c == '\0' { REPLACEMENT } else { c }),
        );
        let is_half_at_cut = was_cut && chunks.peek().is_none();
        if !chunk.invalid().is_empty() && !is_half_at_cut {
            text.push(REPLACEMENT);
        }
    }
    text.truncate(floor_char_boundary(&text, most_bytes));
    text
}

fn floor_char_boundary(text: &str, most_bytes: usize) -> usize {
    (0..=most_bytes.min(text.len()))
        .rev()
        .find(|&at| text.is_char_boundary(at))
        .unwrap_or(0)
}

/// The verdict for a status code, and the detail if it is not a success.
pub fn judge_status(code: u16) -> (Verdict, Option<String>) {
    let phrase = ureq::http::StatusCode::from_u16(code)
        .ok()
        .and_then(|status| status.canonical_reason())
        .map_or_else(String::new, |phrase| format!(" {phrase}"));
    match code {
        200..=299 => (Verdict::Delivered, None),
        300..=399 => (
            Verdict::Failed,
            Some(format!(
                "answered {code}{phrase}; redirects are not followed"
            )),
        ),
        410 => (Verdict::Gone, Some(format!("answered {code}{phrase}"))),
        _ => (Verdict::Failed, Some(format!("answered {code}{phrase}"))),
    }
}

/// Status codes whose `Retry-After` header is honored (RFC 9110, sections 10.2.3 and 15.6.4;
/// RFC 6585, section 4).
pub fn may_ask_to_wait(code: u16) -> bool {
    matches!(code, 429 | 503)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bad_bytes_and_nul_are_replaced() {
        assert_eq!(readable(b"a\0b\xffc", false, 100), "a\u{fffd}b\u{fffd}c");
        assert_eq!(readable(b"", false, 100), "");
    }

    #[test]
    fn a_cut_never_splits_a_character() {
        let text = "grün";
        assert_eq!(readable(&text.as_bytes()[..3], true, 3), "gr");
        assert_eq!(readable(&text.as_bytes()[..3], false, 100), "gr\u{fffd}");
        assert_eq!(readable(text.as_bytes(), false, 3), "gr");
        assert_eq!(readable(text.as_bytes(), false, 4), "grü");
    }

    #[test]
    fn each_status_has_its_verdict() {
        for (code, verdict) in [
            (200, Verdict::Delivered),
            (204, Verdict::Delivered),
            (299, Verdict::Delivered),
            (101, Verdict::Failed),
            (301, Verdict::Failed),
            (404, Verdict::Failed),
            (410, Verdict::Gone),
            (500, Verdict::Failed),
            (999, Verdict::Failed),
        ] {
            let (found, detail) = judge_status(code);
            assert_eq!(found, verdict, "{code}");
            assert_eq!(detail.is_none(), verdict == Verdict::Delivered, "{code}");
        }
        assert_eq!(
            judge_status(503).1.unwrap(),
            "answered 503 Service Unavailable"
        );
    }

    proptest! {
        #[test]
        fn any_bytes_become_text_within_the_bound(
            body in prop::collection::vec(any::<u8>(), 0..200), was_cut: bool, most in 0_usize..100
        ) {
            let text = readable(&body, was_cut, most);
            prop_assert!(text.len() <= most);
            prop_assert!(!text.contains('\0'));
        }
    }
}
