//! Webhooks and events as tests define them, and what came of them.

use std::time::Duration;

use super::{watched, Cluster, Received, Receiver};

/// As `webhook.wait_idle()` is asked: longer than anything takes that is not stuck.
const IDLE_LIMIT: Duration = Duration::from_secs(180);

/// Creates a webhook with these URLs, and further arguments of `create_webhook`
/// (`timeout_ms => 500`); returns its secret.
pub fn create_webhook(cluster: &Cluster, name: &str, urls: &[String], options: &str) -> String {
    cluster.value(&format!(
        "select secret from webhook.create_webhook(name => '{name}', outgoing_urls => array[{}]{})",
        quoted(urls),
        further(options)
    ))
}

/// Creates an event (`kind` is Insert, Update or Delete) with further arguments of
/// `create_event`; returns its id.
pub fn create_event(
    cluster: &Cluster,
    webhook: &str,
    table: &str,
    kind: &str,
    options: &str,
) -> String {
    cluster.value(&format!(
        "select id
         from webhook.create_event(webhook => '{webhook}', object_name => '{table}',
                                   event_type => 'table.record{kind}'{})",
        further(options)
    ))
}

/// An event for each kind of change.
pub fn create_events(cluster: &Cluster, webhook: &str, table: &str, options: &str) {
    for kind in ["Insert", "Update", "Delete"] {
        create_event(cluster, webhook, table, kind, options);
    }
}

fn quoted(urls: &[String]) -> String {
    let quoted: Vec<String> = urls.iter().map(|url| format!("'{url}'")).collect();
    quoted.join(", ")
}

fn further(options: &str) -> String {
    if options.is_empty() {
        String::new()
    } else {
        format!(", {options}")
    }
}

pub fn wait_idle(cluster: &Cluster) {
    watched::wait_idle(cluster, IDLE_LIMIT);
}

/// `Insert {"id":1}` for each request to `path`, in order of arrival; the row byte for byte.
pub fn records_at(receiver: &Receiver, path: &str) -> Vec<String> {
    let received = receiver.received_at(path);
    received.iter().map(record_of).collect()
}

/// The same where several connections may carry them, which keeps no order.
pub fn sorted_records_at(receiver: &Receiver, path: &str) -> Vec<String> {
    let mut records = records_at(receiver, path);
    records.sort();
    records
}

pub fn record_of(received: &Received) -> String {
    let body = received.body();
    let event_type = body["eventType"].as_str().expect("a message has a type");
    let kind = event_type
        .strip_prefix("table.record")
        .unwrap_or(event_type);
    let (_, data) = received
        .raw
        .split_once(",\"data\":[")
        .expect("a message has data");
    let record = data.strip_suffix("]}").expect("data comes last");
    format!("{kind} {record}")
}
