//! A webhook's secret, and the token that may be shown in its place.
//!
//! The secret signs; the token is part of payloads. Knowing the token does not
//! help to find the secret. Pure: the random bytes are an argument. Nothing
//! here may print a secret, not even in an error.

use std::fmt;

use base64::engine::general_purpose::STANDARD;
use base64::Engine;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::core::error::{Error, Result};

/// Standard Webhooks: what marks a symmetric secret.
const PREFIX: &str = "whsec_";

/// Standard Webhooks: a key has 24 to 64 bytes; ours have 32.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// The prefix and 64 bytes in base64.
const MAX_TEXT_BYTES: usize = PREFIX.len() + 88;

/// What is signed with the key to derive the token. Changing it changes every
/// token in use.
const TOKEN_CONTEXT: &[u8] = b"webhook token";

/// 40 digits to base 36 carry 206 of the 256 bits.
const TOKEN_CHARS: usize = 40;
const TOKEN_ALPHABET: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// The HMAC key of a webhook. `Debug` prints nothing of it, and its memory is wiped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    text: Zeroizing<String>,
    key: Zeroizing<Vec<u8>>,
}

impl Secret {
    pub fn from_random(bytes: [u8; 32]) -> Self {
        let key = Zeroizing::new(bytes);
        // A text that grew would leave its first part behind.
        let mut text = Zeroizing::new(String::with_capacity(MAX_TEXT_BYTES));
        text.push_str(PREFIX);
        STANDARD.encode_string(key.as_slice(), &mut text);
        Self {
            text,
            key: Zeroizing::new(key.to_vec()),
        }
    }

    /// Reads `whsec_` + base64 of the key.
    ///
    /// # Errors
    /// Anything else; the error does not repeat the text.
    pub fn parse(text: &str) -> Result<Self> {
        let key = text
            .strip_prefix(PREFIX)
            .and_then(|encoded| STANDARD.decode(encoded).ok().map(Zeroizing::new))
            .filter(|key| KEY_BYTES.contains(&key.len()));
        match key {
            Some(key) => Ok(Self {
                text: Zeroizing::new(text.to_owned()),
                key,
            }),
            None => Err(
                Error::invalid("secret is not whsec_ and base64 of 24 to 64 bytes")
                    .with_hint("use webhook.regenerate_secret() to make a new one"),
            ),
        }
    }

    /// The secret itself, for its owner's eyes and for storage.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// The key in base64.
    pub fn encoded_key(&self) -> &str {
        self.text.strip_prefix(PREFIX).unwrap_or(&self.text)
    }

    pub fn key_bytes(&self) -> &[u8] {
        &self.key
    }

    /// The value that payloads contain in place of the secret.
    ///
    /// HMAC-SHA256 of `webhook token` under the key, read as one big-endian
    /// number; its 40 lowest digits to base 36 (`0`–`9`, `a`–`z`), highest
    /// first. One-way: seeing it does not allow signing.
    pub fn token(&self) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes any key length");
        mac.update(TOKEN_CONTEXT);
        let mut number: [u8; 32] = mac.finalize().into_bytes().into();
        let mut digits = [0_u8; TOKEN_CHARS];
        for digit in digits.iter_mut().rev() {
            *digit = TOKEN_ALPHABET[usize::from(divide_by_36(&mut number))];
        }
        digits.iter().map(|&digit| char::from(digit)).collect()
    }
}

/// Divides a big-endian number in place and returns the remainder.
fn divide_by_36(number: &mut [u8]) -> u8 {
    let mut remainder = 0_u16;
    for byte in number {
        let value = remainder << 8 | u16::from(*byte);
        *byte = u8::try_from(value / 36).expect("the remainder is below 36");
        remainder = value % 36;
    }
    u8::try_from(remainder).expect("a remainder of 36 fits")
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_new_secret_has_the_promised_form() {
        let secret = Secret::from_random([7; 32]);
        assert_eq!(
            secret.expose(),
            "whsec_BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc="
        );
        assert_eq!(secret.expose().len(), 50);
        assert_eq!(Secret::parse(secret.expose()).unwrap(), secret);
    }

    #[test]
    fn the_token_is_the_documented_derivation() {
        // Computed apart from this code, in Python: int.from_bytes(hmac …, "big"), base 36.
        assert_eq!(Secret::from_random([7; 32]).token(), TOKEN_OF_SEVENS);
    }

    const TOKEN_OF_SEVENS: &str = "nx422m4wmall23aksg6k6e3fke6sf9fqlra98ftw";

    #[test]
    fn debug_prints_nothing_of_it() {
        let secret = Secret::from_random([7; 32]);
        assert_eq!(format!("{secret:?}"), "Secret");
    }

    #[test]
    fn other_texts_are_refused_without_repeating_them() {
        for text in [
            "",
            "whsec_",
            "whsec_Zm9v",
            "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "whsec_!!!!",
        ] {
            let error = Secret::parse(text).unwrap_err();
            assert!(text.is_empty() || text == "whsec_" || !error.message.contains(text));
        }
    }

    proptest! {
        #[test]
        fn tokens_are_40_characters_and_differ_with_the_key(a: [u8; 32], b: [u8; 32]) {
            let token = Secret::from_random(a).token();
            prop_assert_eq!(token.len(), TOKEN_CHARS);
            prop_assert!(token.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()));
            prop_assert_eq!(a == b, token == Secret::from_random(b).token());
        }
    }
}
