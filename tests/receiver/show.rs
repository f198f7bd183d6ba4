//! Prints each request for a human, with the verdict on its signature.
//!
//! Verifies as a receiver of Standard Webhooks would: HMAC-SHA256 over
//! `id.timestamp.body`, compared with each `v1` signature. Written from the
//! specification, on purpose without the extension's own signing code.

use std::io::Write;
use std::{fs, io};

use base64::prelude::{Engine, BASE64_STANDARD};
use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::journal::Received;
use crate::options::Options;

const SECRET_PREFIX: &str = "whsec_";

pub struct Show {
    secrets: Vec<String>,
    secret_file: Option<String>,
}

impl Show {
    pub fn new(options: &Options) -> Self {
        Self {
            secrets: options.secrets.clone(),
            secret_file: options.secret_file.clone(),
        }
    }

    pub fn print(&self, received: &Received) {
        let header = |name| received.header(name).unwrap_or_else(|| "-".into());
        let text = format!(
            "--> {} {}  webhook-id: {}  webhook-timestamp: {}  webhook-attempt: {}\n    \
             webhook-signature: {}  signature verified: {}\n    {}\n",
            received.method,
            received.target,
            header("webhook-id"),
            header("webhook-timestamp"),
            header("webhook-attempt"),
            header("webhook-signature"),
            self.verdict(received),
            String::from_utf8_lossy(&received.body),
        );
        // One write, so that requests of different connections do not mix; a closed terminal is no fault.
        let mut out = io::stdout().lock();
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }

    fn verdict(&self, received: &Received) -> &'static str {
        if self.secrets.is_empty() && self.secret_file.is_none() {
            "not checked, no secret was given"
        } else if self.verifies(received) {
            "yes"
        } else {
            "no"
        }
    }

    fn verifies(&self, received: &Received) -> bool {
        let signatures = received.header("webhook-signature").unwrap_or_default();
        let wanted: Vec<Vec<u8>> = signatures
            .split(' ')
            .filter_map(|signature| BASE64_STANDARD.decode(signature.strip_prefix("v1,")?).ok())
            .collect();
        let file = self.secret_file.as_deref();
        let from_file = file.and_then(|file| fs::read_to_string(file).ok());
        let from_file = from_file.as_deref().unwrap_or_default().split_whitespace();
        self.secrets
            .iter()
            .map(String::as_str)
            .chain(from_file)
            .any(|secret| wanted.iter().any(|mac| is_mac(secret, received, mac)))
    }
}

fn is_mac(secret: &str, received: &Received, wanted: &[u8]) -> bool {
    let encoded = secret.strip_prefix(SECRET_PREFIX).unwrap_or(secret);
    let Ok(key) = BASE64_STANDARD.decode(encoded) else {
        return false;
    };
    let (Some(id), Some(timestamp)) = (
        received.header("webhook-id"),
        received.header("webhook-timestamp"),
    ) else {
        return false;
    };
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("HMAC takes a key of any length");
    mac.update(format!("{id}.{timestamp}.").as_bytes());
    mac.update(&received.body);
    mac.verify_slice(wanted).is_ok()
}
