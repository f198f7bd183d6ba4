//! Outbox and call log as rings of tables, as small as can be: with `webhook.log_max_size` at its
//! least, 1 MB, each ring may have 512 kB, and a table is closed at 128 kB: a few hundred messages.

use std::time::Duration;

use super::watched::insert_items;
use super::{Cluster, Receiver};

/// Rotation happens once a second, and what is in the way is tried again after ten.
pub const ROTATED_LIMIT: Duration = Duration::from_secs(180);

/// A cluster whose rings are as small as can be, with this `webhook.log_retention`.
pub fn small_cluster(name: &str, retention: &str) -> (Cluster, Receiver) {
    small_cluster_with(name, retention, "1s")
}

/// The same with this `webhook.retry_schedule`.
pub fn small_cluster_with(name: &str, retention: &str, schedule: &str) -> (Cluster, Receiver) {
    let cluster = Cluster::builder(name)
        .set("webhook.allowed_networks", "127.0.0.0/8")
        .set("webhook.log_max_size", "1MB")
        .set("webhook.log_retention", retention)
        .set("webhook.retry_schedule", schedule)
        .set("max_prepared_transactions", 2)
        .start();
    cluster.sql("create extension webhook_ext");
    (cluster, Receiver::start())
}

/// The relation files of a ring: TRUNCATE gives a table a new one.
pub fn files(cluster: &Cluster, ring: &str) -> Vec<i64> {
    let files: String = cluster.value(&format!(
        "select string_agg(pg_relation_filenode(oid)::bigint::text, ' ' order by relname)
         from pg_class
         where relnamespace::regnamespace::text in ('webhook', 'webhook_internal') and relname ~ '^{ring}_[0-9]$'"
    ));
    files.split(' ').map(|file| file.parse().unwrap()).collect()
}

pub fn kilobytes(cluster: &Cluster) -> i64 {
    cluster.value(
        "select (sum(value) / 1024)::bigint
         from webhook.metrics where name in ('webhook_outbox_bytes', 'webhook_call_log_bytes')",
    )
}

pub fn written(cluster: &Cluster) -> i16 {
    cluster.value("select outbox_number from webhook.control")
}

/// Writes messages, a few hundred at a time, until the outbox is written to another table.
/// `next` is the id of the next item.
pub fn rotate(cluster: &Cluster, next: &mut i64) {
    let before = written(cluster);
    cluster.wait_until(ROTATED_LIMIT, "another outbox table", || {
        insert_items(cluster, *next..=*next + 99);
        *next += 100;
        match written(cluster) {
            now if now != before => Ok(()),
            now => Err(format!("table {now} is written after {next} items")),
        }
    });
}

/// Rotates until the table with this number has been emptied; its file is then another one.
pub fn rotate_until_emptied(cluster: &Cluster, number: usize, next: &mut i64) {
    let before = files(cluster, "outbox")[number];
    cluster.wait_until(ROTATED_LIMIT, "the table to be emptied", || {
        insert_items(cluster, *next..=*next + 49);
        *next += 50;
        if files(cluster, "outbox")[number] == before {
            Err(cluster.psql("select * from webhook_internal.segment order by kind, number"))
        } else {
            Ok(())
        }
    });
}

pub fn count(cluster: &Cluster, relation: &str) -> i64 {
    cluster.value(&format!("select count(*) from {relation}"))
}
