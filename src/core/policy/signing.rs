//! Signatures after Standard Webhooks 1.0.
//!
//! The signed text is `id.timestamp.body`, the body byte for byte as sent.
//! Pure: the time is an argument. Nothing here can fail or print a key.

use std::fmt;
use std::hint::black_box;

use base64::engine::general_purpose::STANDARD;
use base64::Engine;
use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::core::policy::secret::Secret;

/// Marks a symmetric signature.
const VERSION: &str = "v1,";

/// HMAC state keyed once per secret: a message costs no key set-up.
#[derive(Clone)]
pub struct Signer {
    keyed: Hmac<Sha256>,
}

impl Signer {
    pub fn new(secret: &Secret) -> Self {
        let keyed = Hmac::new_from_slice(secret.key_bytes()).expect("HMAC takes any key length");
        Self { keyed }
    }

    /// Appends `v1,` and the signature in base64.
    pub fn sign_into(&self, id: &str, timestamp_s: &str, body: &[u8], out: &mut String) {
        let mut mac = self.keyed.clone();
        mac.update(id.as_bytes());
        mac.update(b".");
        mac.update(timestamp_s.as_bytes());
        mac.update(b".");
        mac.update(body);
        out.push_str(VERSION);
        STANDARD.encode_string(mac.finalize().into_bytes(), out);
    }
}

impl Drop for Signer {
    /// The keyed state is enough to sign.
    fn drop(&mut self) {
        self.keyed = Hmac::new_from_slice(&[]).expect("HMAC takes any key length");
        // It is never read again, so without this the compiler would drop the line above.
        black_box(&mut self.keyed);
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer")
    }
}

/// The value of `webhook-signature`: one signature per valid secret, newest
/// first as given, separated by spaces.
pub fn signature_header<'s>(
    signers: impl IntoIterator<Item = &'s Signer>,
    id: &str,
    timestamp_s: u64,
    body: &[u8],
) -> String {
    let timestamp = timestamp_s.to_string();
    let mut value = String::with_capacity(64);
    for signer in signers {
        if !value.is_empty() {
            value.push(' ');
        }
        signer.sign_into(id, &timestamp, body, &mut value);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conformance() -> Vec<serde_json::Value> {
        let text = include_str!("../../../tests/conformance/signing.json");
        let file: serde_json::Value = serde_json::from_str(text).unwrap();
        file["sign"].as_array().unwrap().clone()
    }

    fn field<'c>(case: &'c serde_json::Value, name: &str) -> &'c str {
        case[name].as_str().unwrap()
    }

    fn signer(text: &str) -> Signer {
        Signer::new(&Secret::parse(text).unwrap())
    }

    #[test]
    fn the_reference_libraries_agree() {
        assert!(conformance().len() >= 2);
        for case in conformance() {
            let found = signature_header(
                [&signer(field(&case, "secret"))],
                field(&case, "id"),
                case["timestamp"].as_u64().unwrap(),
                field(&case, "body").as_bytes(),
            );
            assert_eq!(found, field(&case, "signature"));
        }
    }

    #[test]
    fn each_valid_secret_signs() {
        let cases = conformance();
        let signers = [
            signer(field(&cases[0], "secret")),
            signer(field(&cases[1], "secret")),
        ];
        let both = signature_header(&signers, "id", 1, b"{}");
        let each = signers
            .each_ref()
            .map(|s| signature_header([s], "id", 1, b"{}"));
        assert_eq!(both, format!("{} {}", each[0], each[1]));
        assert_eq!(signature_header([], "id", 1, b"{}"), "");
    }

    #[test]
    fn a_signer_is_not_used_up() {
        let signer = Signer::new(&Secret::from_random([1; 32]));
        let first = signature_header([&signer], "id", 1, b"body");
        assert_eq!(signature_header([&signer], "id", 1, b"body"), first);
        assert_ne!(signature_header([&signer], "id", 2, b"body"), first);
        assert_eq!(format!("{signer:?}"), "Signer");
    }
}
