//! Signatures judged by the reference: the PyPI package `standardwebhooks`.

use std::env;
use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::json;

use super::Received;

const SCRIPT: &str = include_str!("verify_signature.py");

/// Where scripts/setup makes the Python environment, unless WEBHOOK_PYTHON says otherwise.
const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/venv/bin/python");

/// The interpreter with the packages that tests use.
pub fn python() -> String {
    env::var("WEBHOOK_PYTHON").unwrap_or_else(|_| PYTHON.into())
}

/// The raw body and headers as they came over the wire, checked with `secret`.
pub fn verify(received: &Received, secret: &str) -> Result<(), String> {
    let python = python();
    let mut child = Command::new(&python)
        .args(["-c", SCRIPT])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{python}: {error}; run scripts/setup"));
    let request = json!({
        "secret": secret,
        "headers": received.headers,
        "body": received.raw,
    });
    let mut input = child.stdin.take().expect("stdin is piped");
    input.write_all(request.to_string().as_bytes()).unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        Ok(())
    } else if complaint.contains("WebhookVerificationError") {
        Err(complaint.trim().lines().last().unwrap_or_default().into())
    } else {
        panic!("{python} could not judge the signature:\n{complaint}");
    }
}
