//! Many URLs with large messages: what the worker holds of all bodies together is bounded, and
//! each URL gets its turn.

use super::support::definitions::{create_event, create_webhook, wait_idle};
use super::support::worker::{peak, private_kb, worker_of};
use super::support::{ready_cluster_without_retries, Cluster, Receiver, PATIENCE};

const URLS: usize = 100;
const BODY_BYTES: usize = 3_000_000;
/// Stored and rendered they would be 600 MB.
const WORKER_LIMIT_KB: u64 = 220 * 1024;

fn watch_blobs(cluster: &Cluster, name: &str, urls: &[String], options: &str) {
    create_webhook(cluster, name, urls, options);
    create_event(cluster, name, "blobs", "Insert", "");
}

fn cluster_with_blobs(name: &str) -> Cluster {
    let (cluster, _) = ready_cluster_without_retries(name);
    cluster.sql("create table blobs (id integer, body text)");
    cluster
}

fn insert_blob(cluster: &Cluster, id: i32, bytes: usize) {
    cluster.sql(&format!(
        "insert into blobs values ({id}, repeat('0123456789', {bytes} / 10))"
    ));
}

#[test]
fn large_messages_of_a_hundred_urls_stay_within_one_budget() {
    let cluster = cluster_with_blobs("many_urls");
    let receiver = Receiver::start_keeping(1);
    for n in 0..URLS {
        let url = receiver.url(&format!("/slow/300/{n}"));
        watch_blobs(&cluster, &format!("w{n}"), &[url], "timeout_ms => 120000");
    }
    let worker = worker_of(&cluster, "postgres");
    let peak_kb = peak(worker, private_kb, || {
        insert_blob(&cluster, 1, BODY_BYTES);
        receiver.wait_for(PATIENCE, "/slow/300", URLS as u64);
        wait_idle(&cluster);
    });
    eprintln!("peak private memory of the worker: {peak_kb} kB");
    assert_eq!(receiver.count("/slow/300").requests, URLS as u64);
    assert!(peak_kb < WORKER_LIMIT_KB, "the worker grew to {peak_kb} kB");
}

#[test]
fn large_messages_get_their_turn_beside_those_of_a_busy_url_that_hangs() {
    let cluster = cluster_with_blobs("turns");
    let receiver = Receiver::start_keeping(1);
    watch_blobs(
        &cluster,
        "hanging",
        &[receiver.url("/hang")],
        "timeout_ms => 2000, max_attempts => 1",
    );
    watch_blobs(
        &cluster,
        "throttled",
        &[
            receiver.url("/ok/throttled"),
            receiver.url("/ok/throttled/2"),
        ],
        "call_throttling => 1",
    );
    watch_blobs(&cluster, "healthy", &[receiver.url("/ok/healthy")], "");
    for id in 1..=30 {
        insert_blob(&cluster, id, 9_000_000);
    }
    receiver.wait_for(PATIENCE, "/ok/healthy", 30);
    let throttled = receiver.count("/ok/throttled").requests;
    assert!(
        throttled < 60,
        "{throttled} of 60 throttled calls came before"
    );
}
