//! What must not stand in the call log: a receiver may echo the request that it got, and who
//! reads the log need not know its credentials.
//!
//! Pure, cannot fail. Nothing here may print a value.

use std::fmt;

use url::form_urlencoded;
use zeroize::Zeroizing;

use crate::core::values::json_text::push_escaped;

/// Replaces the masked text.
pub const MASK: &str = "***";

/// A shorter value is a word that answers hold for other reasons.
const LEAST_BYTES: usize = 6;
/// At the end of an answer that was cut, the first part of a value is masked from so many bytes on.
const LEAST_PART_BYTES: usize = 4;

/// A value of a query is a credential if its name has one of these in it, or if it is as long as
/// this and holds a digit. `webhook_internal.masked_url` has the same rule.
const CREDENTIAL_NAMES: [&str; 11] = [
    "token", "secret", "sig", "passw", "pwd", "auth", "cred", "session", "jwt", "key", "code",
];
const LEAST_DRAWN_CHARS: usize = 20;

/// The credentials in a URL's query: as it has them, and as a receiver reads them.
pub fn credentials_in_url(url: &str) -> Vec<Zeroizing<String>> {
    let query = url.split_once('?').map_or("", |(_, query)| query);
    let mut found = Vec::new();
    for part in query.split(['&', ';', '?']) {
        let (name, value) = part.split_once('=').unwrap_or(("", part));
        if is_credential_name(&name.to_ascii_lowercase()) || looks_drawn(value) {
            let read = form_urlencoded::parse(value.as_bytes()).next();
            found.push(Zeroizing::new(value.to_owned()));
            found.extend(read.map(|(read, _)| Zeroizing::new(read.into_owned())));
        }
    }
    found
}

/// Whether a value of this name, in lower case, counts as a credential.
pub fn is_credential_name(name: &str) -> bool {
    CREDENTIAL_NAMES.iter().any(|word| name.contains(word))
}

/// Whether a value is as long as keys are, and not a word.
pub fn looks_drawn(value: &str) -> bool {
    value.chars().count() >= LEAST_DRAWN_CHARS && value.bytes().any(|b| b.is_ascii_digit())
}

/// Credentials of a webhook, in each spelling in which an answer may repeat them.
#[derive(Default)]
pub struct Redactions {
    /// Longest first: one may be part of another.
    spellings: Vec<Zeroizing<String>>,
}

impl Redactions {
    pub fn of<'v>(values: impl IntoIterator<Item = &'v str>) -> Self {
        let mut spellings: Vec<Zeroizing<String>> = Vec::new();
        for value in values {
            for part in [Some(value), credential_of(value)].into_iter().flatten() {
                if part.len() >= LEAST_BYTES {
                    spellings.extend(spellings_of(part));
                }
            }
        }
        spellings.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        spellings.dedup();
        Self { spellings }
    }

    /// Masks every value in the text, which gets no longer. `was_cut`: the text may end within one.
    pub fn mask(&self, text: &mut String, was_cut: bool) {
        for value in &self.spellings {
            if text.len() >= value.len() && text.contains(value.as_str()) {
                *text = text.replace(value.as_str(), MASK);
            }
        }
        if was_cut {
            self.mask_end(text);
        }
    }

    fn mask_end(&self, text: &mut String) {
        let parts = self.spellings.iter().filter_map(|value| {
            let longest = (value.len() - 1).min(text.len());
            (LEAST_PART_BYTES..=longest)
                .rev()
                .find(|&len| text.as_bytes().ends_with(&value.as_bytes()[..len]))
        });
        if let Some(len) = parts.max() {
            let at = text.len() - len;
            if text.is_char_boundary(at) {
                text.truncate(at);
                text.push_str(MASK);
            }
        }
    }
}

/// What follows the scheme in `Bearer …` and `Basic …`.
fn credential_of(value: &str) -> Option<&str> {
    value
        .split_once(' ')
        .map(|(_, credential)| credential.trim())
}

/// As it is, as JSON has it (some escape the slash, too), and as a URL has it.
fn spellings_of(value: &str) -> [Zeroizing<String>; 4] {
    let mut escaped = Vec::new();
    push_escaped(&mut escaped, value.as_bytes());
    let escaped = Zeroizing::new(String::from_utf8(escaped).unwrap_or_default());
    let with_slashes = Zeroizing::new(escaped.replace('/', "\\/"));
    let mut in_url = Zeroizing::new(String::with_capacity(3 * value.len()));
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            in_url.push(char::from(byte));
        } else {
            in_url.push_str(&format!("%{byte:02X}"));
        }
    }
    [
        Zeroizing::new(value.to_owned()),
        escaped,
        with_slashes,
        in_url,
    ]
}

impl fmt::Debug for Redactions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Redactions")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn masked(values: &[&str], text: &str, was_cut: bool) -> String {
        let mut text = text.to_owned();
        Redactions::of(values.iter().copied()).mask(&mut text, was_cut);
        text
    }

    #[test]
    fn each_spelling_of_a_value_is_masked() {
        let values = ["Bearer ab/cd+ef\"g=", "whsec_0123456789"];
        assert_eq!(
            masked(
                &values,
                "a Bearer ab/cd+ef\"g=, {\"k\": \"ab\\/cd+ef\\\"g=\", \"u\": \"ab%2Fcd%2Bef%22g%3D\"} whsec_0123456789!",
                false
            ),
            "a ***, {\"k\": \"***\", \"u\": \"***\"} ***!"
        );
        assert_eq!(masked(&["yes", ""], "yes, it is", true), "yes, it is");
    }

    #[test]
    fn a_part_at_the_cut_is_masked() {
        assert_eq!(masked(&["whsec_0123"], "key whsec_01", true), "key ***");
        assert_eq!(
            masked(&["whsec_0123"], "key whsec_01", false),
            "key whsec_01"
        );
        assert_eq!(masked(&["whsec_0123"], "key wh", true), "key wh");
    }

    #[test]
    fn what_a_url_holds_is_masked_in_an_answer_that_repeats_it() {
        let url = "https://example.com/hook?page=2&API_Key=ab%2Fcd%3Def&n=0123456789abcdefghij&z=long-but-without-digits";
        let found = credentials_in_url(url);
        let found: Vec<&str> = found.iter().map(|value| value.as_str()).collect();
        assert_eq!(
            found,
            [
                "ab%2Fcd%3Def",
                "ab/cd=ef",
                "0123456789abcdefghij",
                "0123456789abcdefghij"
            ]
        );
        assert_eq!(
            masked(
                &found,
                "Cannot POST /hook?page=2&API_Key=ab%2Fcd%3Def&n=0123456789abcdefghij {\"key\":\"ab/cd=ef\"}",
                false
            ),
            "Cannot POST /hook?page=2&API_Key=***&n=*** {\"key\":\"***\"}"
        );
        for plain in [
            "https://example.com/hook",
            "https://example.com/?",
            "https://example.com/?page=2",
        ] {
            assert_eq!(credentials_in_url(plain), [], "{plain}");
        }
    }

    #[test]
    fn debug_prints_nothing_of_it() {
        assert_eq!(
            format!("{:?}", Redactions::of(["whsec_0123"])),
            "Redactions"
        );
    }

    proptest! {
        #[test]
        fn no_value_is_left_and_nothing_grows(
            value in "[ -~]{6,20}", before in "\\PC{0,20}", after in "\\PC{0,20}", cut: bool
        ) {
            let text = format!("{before}{value}{after}{value}");
            let found = masked(&[&value], &text, cut);
            prop_assert!(!found.contains(&value), "{}", found);
            prop_assert!(found.len() <= text.len());
        }
    }
}
