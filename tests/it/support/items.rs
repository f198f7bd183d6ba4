//! A table `items`, webhooks that get each of its rows, and what users do with single messages.

use std::ops::RangeInclusive;

use super::definitions::{create_event, create_webhook};
use super::worker::{wait_until_gone, worker_of};
use super::{Cluster, Received, Receiver, PATIENCE};

/// What waits at each URL: pending, retrying, failed.
pub const QUEUE: &str = "select string_agg(concat_ws(' ', pending, retrying, failed), ', '
                                           order by outgoing_url)
                         from webhook.queue";

pub const COUNTERS: &str =
    "select string_agg(concat_ws(' ', messages, calls, errors), ', ' order by name)
     from webhook.webhooks";

/// A cluster with this `webhook.retry_schedule`, and a table `items`.
pub fn cluster_with(name: &str, schedule: &str) -> (Cluster, Receiver) {
    let cluster = Cluster::builder(name)
        .set("webhook.allowed_networks", "127.0.0.0/8")
        .set("webhook.retry_schedule", schedule)
        .start();
    cluster.sql("create extension webhook_ext; create table items (id integer)");
    (cluster, Receiver::start())
}

/// A webhook with these paths that gets each INSERT into `items`.
pub fn watch(cluster: &Cluster, receiver: &Receiver, name: &str, paths: &[&str], options: &str) {
    let urls: Vec<String> = paths.iter().map(|path| receiver.url(path)).collect();
    create_webhook(cluster, name, &urls, options);
    create_event(cluster, name, "items", "Insert", "");
}

pub fn insert(cluster: &Cluster, ids: RangeInclusive<i64>) {
    cluster.sql(&format!(
        "insert into items select generate_series({}, {})",
        ids.start(),
        ids.end()
    ));
}

/// What [`super::definitions::records_at`] gives for these items.
pub fn inserts(ids: impl IntoIterator<Item = i64>) -> Vec<String> {
    ids.into_iter()
        .map(|id| format!(r#"Insert {{"id":{id}}}"#))
        .collect()
}

/// The id of the message of the item that was inserted as number `place`, counted from 1.
pub fn message(cluster: &Cluster, place: i64) -> String {
    cluster.value(&format!(
        "select message_id::text from webhook_internal.outbox order by id offset {} limit 1",
        place - 1
    ))
}

pub fn redeliver(cluster: &Cluster, message_id: &str) -> i32 {
    cluster.value(&format!("select webhook.redeliver('{message_id}')"))
}

/// The statuses in the order of the messages.
pub fn statuses(cluster: &Cluster) -> String {
    cluster.value(
        "select coalesce(string_agg(m.status, ', ' order by o.id), '')
         from webhook.messages m join webhook_internal.outbox o using (message_id)",
    )
}

pub fn attempts(received: &[Received]) -> Vec<u32> {
    received.iter().map(Received::attempt).collect()
}

pub fn pause(cluster: &Cluster, webhook: &str) {
    cluster.sql(&format!("select webhook.pause_webhook('{webhook}')"));
}

pub fn resume(cluster: &Cluster, webhook: &str) {
    cluster.sql(&format!("select webhook.resume_webhook('{webhook}')"));
}

pub fn stop_worker(cluster: &Cluster) {
    let worker = worker_of(cluster, "postgres");
    cluster.sql("select webhook.stop_worker()");
    wait_until_gone(cluster, PATIENCE, worker);
}
