//! What the receivers got, read from their journals while the test runs: each body and
//! signature is judged at once, and what is needed for the comparison is kept.
//!
//! Journals are files, because a receiver may be killed. The last line of one that was may
//! be cut: that call had no answer and is made again.

use std::collections::BTreeMap;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use base64::prelude::{Engine, BASE64_STANDARD};
use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::super::support::Received;
use super::hooks::{row_content, Hook, Issued, Shape};
use super::scene::{lock, Scene};

const READ_EVERY: Duration = Duration::from_millis(200);

/// Read at a time of one journal, so that nobody waits long for what is locked meanwhile.
const READ_BYTES: u64 = 4 << 20;

/// A worker that is stopped just then may use a secret so much later or earlier than it was
/// replaced, with the overlap.
const LATE_S: u64 = 20;

/// Of a content so much is kept, and a hash of it all.
const KEPT_CHARS: usize = 60;

/// One call.
pub struct Arrival {
    /// Which change it is about, as [`brief`] says it.
    pub change: String,
    pub message_id: String,
    pub attempt: u32,
    /// When the request was complete, and when the call was made as its id says;
    /// microseconds since 1970.
    pub received_at_us: u64,
    pub called_at_us: u64,
    order: (usize, u64),
}

#[derive(Default)]
pub struct Arrivals {
    journals: Vec<Journal>,
    by_path: BTreeMap<String, Vec<Arrival>>,
}

struct Journal {
    file: PathBuf,
    read_bytes: u64,
}

impl Arrivals {
    pub fn read_also(&mut self, file: PathBuf) {
        self.journals.push(Journal {
            file,
            read_bytes: 0,
        });
    }

    /// In order of arrival.
    pub fn at(&mut self, path: &str) -> &[Arrival] {
        let Some(arrivals) = self.by_path.get_mut(path) else {
            return &[];
        };
        arrivals.sort_by_key(|arrival| arrival.order);
        arrivals
    }
}

/// Reads on until `done`.
pub fn collect(scene: &Scene, done: &AtomicBool) {
    while !done.load(Ordering::Relaxed) {
        if collect_some(scene) == 0 {
            thread::sleep(READ_EVERY);
        }
    }
}

/// Reads what is there.
pub fn collect_rest(scene: &Scene) {
    while collect_some(scene) > 0 {}
}

/// Reads a piece of each journal; returns how many lines there were.
fn collect_some(scene: &Scene) -> usize {
    let mut arrivals = lock(&scene.arrivals);
    let mut lines = 0;
    for place in 0..arrivals.journals.len() {
        let text = arrivals.journals[place].read_lines();
        // Locked while secrets change: a new one is known before its first signature is judged.
        let hooks = scene.hooks();
        for line in text.lines() {
            lines += 1;
            let received: Received = match serde_json::from_str(line) {
                Ok(received) => received,
                Err(error) => {
                    scene
                        .findings
                        .add(format!("a journal holds {line:?}: {error}"));
                    continue;
                }
            };
            let judged = judge(scene, &hooks, &received);
            match judged {
                Ok(change) => arrivals.keep(&received, change, place),
                Err(finding) => scene.findings.add(finding),
            }
        }
    }
    scene.progress.received.fetch_add(lines, Ordering::Relaxed);
    lines
}

impl Arrivals {
    fn keep(&mut self, received: &Received, change: String, place: usize) {
        let arrival = Arrival {
            change,
            message_id: received.message_id().to_owned(),
            attempt: received.attempt(),
            received_at_us: received.received_at_us,
            called_at_us: made_at_us(received.header("webhook-call-id")),
            order: (place, received.seq),
        };
        self.by_path
            .entry(received.path.clone())
            .or_default()
            .push(arrival);
    }
}

impl Journal {
    /// The whole lines that came since, as far as they are read at once.
    fn read_lines(&mut self) -> String {
        let mut file = File::open(&self.file).expect("a receiver made its journal");
        file.seek(SeekFrom::Start(self.read_bytes))
            .expect("a file can be read from anywhere");
        let mut bytes = Vec::new();
        file.take(READ_BYTES)
            .read_to_end(&mut bytes)
            .expect("a journal can be read");
        let whole = bytes
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |end| end + 1);
        bytes.truncate(whole);
        self.read_bytes += whole as u64;
        String::from_utf8(bytes).expect("a journal is text")
    }
}

/// Which change a call is about, if all else of it is right.
fn judge(scene: &Scene, hooks: &[Hook], received: &Received) -> Result<String, String> {
    let path = &received.path;
    let hook = hooks.iter().find(|hook| hook.paths.contains(path));
    let hook = hook.ok_or_else(|| format!("a call to {path}, which is no URL of the soak"))?;
    let of_hook = |what: String| format!("{path}: {what}");
    judge_signature(hook, received).map_err(of_hook)?;
    if let Shape::Template = hook.plan.shape {
        return Ok(brief(&received.body().to_string()));
    }
    judge_default(scene, hook, received).map_err(of_hook)
}

fn judge_signature(hook: &Hook, received: &Received) -> Result<(), String> {
    let at: u64 = received.header("webhook-timestamp").parse().unwrap_or(0);
    let signatures: Vec<&str> = received.header("webhook-signature").split(' ').collect();
    let valid =
        |issued: &&Issued| issued.from <= at + LATE_S && at <= issued.until.saturating_add(LATE_S);
    let expected: Vec<String> = hook
        .issued
        .iter()
        .filter(valid)
        .map(|issued| sign(&issued.secret, received))
        .collect();
    let strangers = signatures
        .iter()
        .filter(|s| !expected.iter().any(|e| e == *s))
        .count();
    if strangers == 0 {
        Ok(())
    } else {
        Err(format!(
            "{strangers} of {} signatures are wrong",
            signatures.len()
        ))
    }
}

/// Written from the specification of Standard Webhooks, not with the product's code.
fn sign(secret: &str, received: &Received) -> String {
    let encoded = secret
        .strip_prefix("whsec_")
        .expect("a secret says what it is");
    let key = BASE64_STANDARD.decode(encoded).expect("a secret is base64");
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("HMAC takes a key of any length");
    for part in [
        received.message_id(),
        ".",
        received.header("webhook-timestamp"),
        ".",
        &received.raw,
    ] {
        mac.update(part.as_bytes());
    }
    format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()))
}

/// The envelope of the default payload; returns its row.
fn judge_default(scene: &Scene, hook: &Hook, received: &Received) -> Result<String, String> {
    const KEYS: [&str; 9] = [
        "eventId",
        "messageId",
        "webhookId",
        "accountId",
        "secret",
        "eventDate",
        "eventType",
        "objectName",
        "data",
    ];
    let body = received.body();
    let keys: Vec<&str> = body
        .as_object()
        .into_iter()
        .flat_map(|o| o.keys())
        .map(String::as_str)
        .collect();
    let text = |name: &str| body[name].as_str().unwrap_or_default();
    let (table, kind) = hook
        .events
        .get(text("eventId"))
        .ok_or_else(|| format!("no event {}", text("eventId")))?;
    let (record, event_type) = (record_text(&received.raw), format!("table.record{kind}"));
    let findings = [
        ("keys", keys == KEYS),
        ("messageId", text("messageId") == received.message_id()),
        ("webhookId", text("webhookId") == hook.id),
        ("accountId", text("accountId") == scene.account),
        (
            "secret",
            hook.issued
                .iter()
                .any(|issued| issued.token == text("secret")),
        ),
        ("eventDate", text("eventDate").ends_with('Z')),
        ("eventType", text("eventType") == event_type),
        ("objectName", text("objectName") == table),
        (
            "data",
            body["data"].as_array().is_some_and(|rows| rows.len() == 1),
        ),
    ];
    match findings.iter().find(|(_, is_right)| !is_right) {
        Some((name, _)) => Err(format!("{name} is wrong in {}", brief(&received.raw))),
        None => Ok(brief(&row_content(table, kind, record))),
    }
}

/// The row byte for byte.
fn record_text(raw: &str) -> &str {
    let data = raw.split_once(",\"data\":[").map_or("", |(_, data)| data);
    data.strip_suffix("]}").unwrap_or(data)
}

/// A short text for a content, another one for another content.
pub fn brief(content: &str) -> String {
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    let head: String = content.chars().take(KEPT_CHARS).collect();
    format!("{head}… #{:016x}", hasher.finish())
}

/// The time in a UUID of version 7.
fn made_at_us(id: &str) -> u64 {
    let digits: String = id.chars().filter(|c| *c != '-').take(12).collect();
    u64::from_str_radix(&digits, 16).expect("a call id is a UUID") * 1000
}
