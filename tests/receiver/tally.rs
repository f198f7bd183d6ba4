//! Which rows and messages came, and nothing else of them: a million requests in little memory.
//!
//! A request is about one row, `"data":[{"id":<number>…`, and one message, its `webhook-id`.
//! One that is not counts as unreadable.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard};

use serde_json::{json, Value};

use crate::behaviour::path_of;

/// What stands before the id of a row.
const BEFORE_ID: &[u8] = b"\"data\":[{\"id\":";

#[derive(Default)]
struct Rows {
    message_of: HashMap<u64, String>,
    /// Requests with a row that came under another message id before.
    renamed: u64,
    unreadable: u64,
}

/// What came to each path.
#[derive(Default)]
pub struct Tally {
    paths: Mutex<HashMap<String, Rows>>,
}

impl Tally {
    pub fn note(&self, target: &str, message_id: Option<String>, body: &[u8]) {
        let mut paths = lock(&self.paths);
        let rows = paths.entry(path_of(target).to_owned()).or_default();
        let (Some(row), Some(message_id)) = (row_of(body), message_id) else {
            rows.unreadable += 1;
            return;
        };
        match rows.message_of.get(&row) {
            Some(known) if *known != message_id => rows.renamed += 1,
            Some(_) => {}
            None => {
                rows.message_of.insert(row, message_id);
            }
        }
    }

    /// How many rows came to a path, the least and the greatest id, and under how many message ids.
    pub fn report(&self, path: &str) -> Value {
        let mut paths = lock(&self.paths);
        let rows = paths.entry(path.to_owned()).or_default();
        let messages: HashSet<&String> = rows.message_of.values().collect();
        json!({
            "rows": rows.message_of.len(),
            "least": rows.message_of.keys().min(),
            "greatest": rows.message_of.keys().max(),
            "messages": messages.len(),
            "renamed": rows.renamed,
            "unreadable": rows.unreadable,
        })
    }

    pub fn reset(&self) {
        lock(&self.paths).clear();
    }
}

fn row_of(body: &[u8]) -> Option<u64> {
    let at = body
        .windows(BEFORE_ID.len())
        .position(|window| window == BEFORE_ID)?;
    let digits = body[at + BEFORE_ID.len()..].iter();
    let digits: Vec<u8> = digits
        .copied()
        .take_while(|byte| byte.is_ascii_digit())
        .collect();
    std::str::from_utf8(&digits).ok()?.parse().ok()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .expect("no thread panics while it holds this lock")
}
