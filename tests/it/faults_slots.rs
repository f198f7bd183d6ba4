//! No process is left for the worker (fault 31).

use super::support::watched::{
    assert_items_delivered, insert_items, insert_statement, watch_items,
};
use super::support::worker::{cluster_restarts, worker_of};
use super::support::{Cluster, Receiver, PATIENCE};

const WORKER: &str = "select concat_ws(' ', state, coalesce(last_error, 'no error'))
                      from webhook.worker";

const HINT: &str = "not running no worker runs: call webhook.start_worker(), which says if no \
                    worker slot is free";

#[test]
fn without_a_free_slot_changes_wait_and_go_out_once_there_is_one() {
    // PostgreSQL's logical replication launcher has one of the two.
    let cluster = Cluster::builder("slots")
        .set("webhook.allowed_networks", "127.0.0.1")
        .set("max_worker_processes", 2)
        .start();
    cluster.sql("create database other");
    cluster.sql_in("other", "create extension webhook_ext");
    worker_of(&cluster, "other");
    cluster.sql("create extension webhook_ext");
    let receiver = Receiver::start();
    watch_items(&cluster, &receiver, "/ok/a");
    let mut session = cluster.connect("postgres");
    session.batch_execute(&insert_statement(1..=50)).unwrap();
    insert_items(&cluster, 51..=100);

    cluster.wait_for_text(PATIENCE, WORKER, HINT);
    let refusal = session
        .batch_execute("select webhook.start_worker()")
        .unwrap_err();
    let refusal = refusal.as_db_error().expect("the server answered");
    assert_eq!(refusal.code().code(), "55000");
    assert!(refusal
        .message()
        .contains("no background worker slot is free"));
    assert!(refusal
        .hint()
        .is_some_and(|hint| hint.contains("max_worker_processes")));
    let waiting: i64 = cluster.value("select sum(pending)::bigint from webhook.queue");
    assert_eq!(waiting, 100, "what waits is shown");
    assert_eq!(receiver.count("/ok/a").requests, 0);

    cluster.sql_in("other", "select webhook.stop_worker()");
    // A session that has failed to start one tries again a second later.
    let mut id = 100;
    cluster.wait_until(PATIENCE, "a change to start the worker", || {
        id += 1;
        session.batch_execute(&insert_statement(id..=id)).unwrap();
        match receiver.count("/ok/a").requests {
            0 => Err(format!("nothing came after {id} rows")),
            _ => Ok(()),
        }
    });
    assert_items_delivered(&cluster, &receiver, "/ok/a", PATIENCE);
    cluster.wait_for_text(PATIENCE, WORKER, "running no error");
    assert_eq!(cluster_restarts(&cluster), 0, "{}", cluster.log());
}
