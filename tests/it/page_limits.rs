//! What the worker reads at once is bounded, whichever column of the outbox holds much.

use super::support::watched::{assert_all_received, insert_items, wait_idle, watch_items};
use super::support::worker::{peak, private_kb, worker_of};
use super::support::{ready_cluster, PATIENCE};

const ROWS: i64 = 1000;
const WORKER_LIMIT_KB: u64 = 150 * 1024;

/// Rows that an earlier version or a superuser wrote.
#[test]
fn long_texts_beside_the_records_take_no_more_memory_than_records() {
    let (cluster, receiver) = ready_cluster("pages");
    watch_items(&cluster, &receiver, "/ok/a");
    cluster.sql("select webhook.pause_webhook('/ok/a')");
    insert_items(&cluster, 1..=ROWS);
    cluster.sql(
        "update webhook.outbox_0
         set changed = '[\"' || repeat('c', 900000) || '\"]',
             source = repeat('s', 1000000),
             actor = repeat('a', 8000)",
    );
    let worker = worker_of(&cluster, "postgres");
    let peak_kb = peak(worker, private_kb, || {
        cluster.sql("select webhook.resume_webhook('/ok/a')");
        receiver.wait_for(PATIENCE, "/ok/a", ROWS as u64);
        wait_idle(&cluster, PATIENCE);
    });
    println!("the worker had {peak_kb} kB");
    assert_all_received(&cluster, &receiver.received_at("/ok/a"));
    assert!(peak_kb < WORKER_LIMIT_KB, "the worker grew to {peak_kb} kB");
}
