//! What was committed against what was received.
//!
//! The promise is: at least once, never for a change that did not commit, the
//! same message id every time. A change is told apart by a key that the test
//! chooses, so one row may be inserted, updated and deleted.

use std::collections::{BTreeMap, BTreeSet};

use super::Received;

/// How many offenders of a kind a report names.
const NAMED: usize = 10;

/// `recordInsert 16`: what happened to which `id`. Fits tables whose primary key is `id`.
pub fn change_of(received: &Received) -> String {
    let body = received.body();
    let event_type = body["eventType"].as_str().unwrap_or("?");
    let operation = event_type.rsplit('.').next().unwrap_or(event_type);
    format!("{operation} {}", body["data"][0]["id"])
}

/// The keys [`change_of`] gives for these rows.
pub fn changes(operation: &str, ids: impl IntoIterator<Item = i64>) -> BTreeSet<String> {
    ids.into_iter()
        .map(|id| format!("{operation} {id}"))
        .collect()
}

/// Panics with a readable difference unless every committed change, and no
/// other, was received, each always under one message id that no other has.
pub fn assert_delivered(committed: &BTreeSet<String>, received: &[Received]) {
    if let Some(difference) = difference(committed, received, change_of) {
        panic!("{difference}");
    }
}

/// What is wrong with `received`, which must be the requests of one URL; `None` if nothing.
pub fn difference(
    committed: &BTreeSet<String>,
    received: &[Received],
    key: impl Fn(&Received) -> String,
) -> Option<String> {
    let calls = received
        .iter()
        .map(|request| (key(request), request.message_id()));
    difference_of_calls(committed, calls)
}

/// The same for calls of which only the key and the message id are known.
pub fn difference_of_calls<'a>(
    committed: &BTreeSet<String>,
    calls: impl Iterator<Item = (String, &'a str)>,
) -> Option<String> {
    let mut received = 0;
    let mut ids_of: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    let mut keys_of: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (key, id) in calls {
        received += 1;
        keys_of.entry(id).or_default().insert(key.clone());
        ids_of.entry(key).or_default().insert(id);
    }
    let lost = committed.iter().filter(|key| !ids_of.contains_key(*key));
    let invented = ids_of.keys().filter(|key| !committed.contains(*key));
    let renamed = ids_of.iter().filter(|(_, ids)| ids.len() > 1);
    let shared = keys_of.iter().filter(|(_, keys)| keys.len() > 1);
    let findings: Vec<String> = [
        report("lost", lost),
        report("received, but not committed", invented),
        report(
            "sent under more than one message id",
            renamed.map(|(key, ids)| format!("{key} {ids:?}")),
        ),
        report(
            "different changes under one message id",
            shared.map(|(id, keys)| format!("{id} {keys:?}")),
        ),
    ]
    .into_iter()
    .flatten()
    .collect();
    (!findings.is_empty()).then(|| {
        format!(
            "{} changes committed, {received} requests received\n{}",
            committed.len(),
            findings.join("\n")
        )
    })
}

fn report(what: &str, offenders: impl Iterator<Item = impl ToString>) -> Option<String> {
    let offenders: Vec<String> = offenders.map(|offender| offender.to_string()).collect();
    if offenders.is_empty() {
        return None;
    }
    let more = if offenders.len() > NAMED { ", …" } else { "" };
    let named = offenders[..offenders.len().min(NAMED)].join(", ");
    Some(format!("{what}: {} ({named}{more})", offenders.len()))
}
