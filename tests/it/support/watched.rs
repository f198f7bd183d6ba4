//! A table whose changes go to a URL: what most fault tests begin with, and the
//! comparison they end with.
//!
//! Truth is what the table holds afterwards: a session that lost its connection
//! while it committed does not know.

use std::collections::BTreeSet;
use std::time::Duration;

use super::cluster::Cluster;
use super::compare::{assert_delivered, changes};
use super::receiver::{Received, Receiver};

/// A webhook, named as its URL's path, that gets each INSERT into `items`; makes the table unless it is there.
pub fn watch_items(cluster: &Cluster, receiver: &Receiver, path: &str) {
    watch_items_in(cluster, "postgres", receiver, path, "");
}

/// The same in any database, with further arguments of `create_webhook` (`, timeout_ms => 600000`).
pub fn watch_items_in(
    cluster: &Cluster,
    database: &str,
    receiver: &Receiver,
    path: &str,
    options: &str,
) {
    cluster.sql_in(
        database,
        &watch_statements(path, &receiver.url(path), options),
    );
}

/// The same for any URL.
pub fn watch_items_at(cluster: &Cluster, name: &str, url: &str, options: &str) {
    cluster.sql(&watch_statements(name, url, options));
}

fn watch_statements(name: &str, url: &str, options: &str) -> String {
    format!(
        "create table if not exists items (id bigint primary key, note text);
         select webhook.create_webhook(
             name => '{name}', outgoing_urls => array['{url}']{options});
         select webhook.create_event(
             webhook => '{name}', object_name => 'items', event_type => 'table.recordInsert')"
    )
}

pub fn insert_items(cluster: &Cluster, ids: std::ops::RangeInclusive<i64>) {
    cluster.sql(&insert_statement(ids));
}

pub fn insert_statement(ids: std::ops::RangeInclusive<i64>) -> String {
    format!(
        "insert into items select n, 'item ' || n from generate_series({}, {}) as n",
        ids.start(),
        ids.end()
    )
}

/// The inserts that are committed, as [`assert_delivered`] names them.
pub fn committed_items(cluster: &Cluster) -> BTreeSet<String> {
    let mut session = cluster.connect("postgres");
    let rows = session.query("select id from items", &[]);
    let rows = rows.expect("items can be read");
    changes("recordInsert", rows.iter().map(|row| row.get(0)))
}

/// Waits until nothing is due or in flight.
pub fn wait_idle(cluster: &Cluster, limit: Duration) {
    let query = format!("select webhook.wait_idle('{} seconds')", limit.as_secs());
    assert!(
        cluster.value::<bool>(&query),
        "not idle after {limit:?}\n{}\n{}",
        what_is_left(cluster),
        cluster.log()
    );
}

/// What waits, who works on it, and the last calls, with the time to compare them with.
fn what_is_left(cluster: &Cluster) -> String {
    cluster.psql(
        "select * from webhook.queue;
         select clock_timestamp(), * from webhook.worker;
         select pid, state, wait_event, query from pg_stat_activity where backend_type = 'webhook_ext';
         select called_at, duration_ms, attempt, status, http_code, outgoing_url, detail
         from webhook.calls order by called_at desc limit 20;",
    )
}

/// Waits until nothing is left to be sent, however often receivers have failed: unlike
/// [`wait_idle`] also for what waits for a later retry or a receiver that is down.
pub fn wait_until_nothing_is_left(cluster: &Cluster, limit: Duration) {
    let left = "select coalesce(sum(pending + retrying), 0)::text from webhook.queue";
    cluster.wait_for_text(limit, left, "0");
}

/// Every committed insert was received, no other was, each under one message id.
pub fn assert_all_received(cluster: &Cluster, received: &[Received]) {
    assert_delivered(&committed_items(cluster), received);
}

/// Waits until nothing is pending, then: every committed insert was received at
/// `path`, no other was, each under one message id. Returns what was received.
pub fn assert_items_delivered(
    cluster: &Cluster,
    receiver: &Receiver,
    path: &str,
    limit: Duration,
) -> Vec<Received> {
    wait_idle(cluster, limit);
    let received = receiver.received_at(path);
    assert_delivered(&committed_items(cluster), &received);
    received
}
