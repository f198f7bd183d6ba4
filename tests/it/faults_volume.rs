//! A great deal at once (fault 33): exact counts, bounded memory.

use std::io::Write;
use std::thread;
use std::time::Duration;

use super::support::watched::{
    assert_items_delivered, insert_statement, wait_idle, watch_items, watch_items_in,
};
use super::support::worker::{peak, private_kb, worker_of};
use super::support::{compare, ready_cluster, Cluster, Tally, PATIENCE};

/// Debug builds on a busy machine deliver a thousand a second and more.
const DRAIN_LIMIT: Duration = Duration::from_secs(900);

const WORKER_LIMIT_KB: u64 = 150 * 1024;

/// The buffer holds 4 MB; PostgreSQL's own list of rows whose trigger is due needs some
/// bytes a row.
const BACKEND_GROWTH_KB: u64 = 64 * 1024;

const COPIED_ROWS: i64 = 1_000_000;

fn assert_worker_stayed_small(peak_kb: u64) {
    assert!(peak_kb > 0, "the worker was not seen");
    assert!(peak_kb < WORKER_LIMIT_KB, "the worker grew to {peak_kb} kB");
}

/// Runs `statement` in a new session and checks how much memory that took.
fn assert_backend_stays_small(cluster: &Cluster, statement: &str) {
    let mut session = cluster.connect("postgres");
    let pid: i32 = session
        .query_one("select pg_backend_pid()", &[])
        .unwrap()
        .get(0);
    let before = private_kb(pid).expect("the session has a process");
    let peak_kb = peak(pid, private_kb, || {
        session.batch_execute(statement).unwrap()
    });
    let growth = peak_kb.saturating_sub(before);
    assert!(
        growth < BACKEND_GROWTH_KB,
        "the session grew by {growth} kB"
    );
}

#[test]
fn an_update_of_a_hundred_thousand_rows_is_sent_exactly() {
    let (cluster, receiver) = ready_cluster("update");
    cluster.sql(&format!(
        "create table items (id bigint primary key, note text);
         {};
         select webhook.create_webhook(name => 'w', outgoing_urls => array['{}']);
         select webhook.create_event(
             webhook => 'w', object_name => 'items', event_type => 'table.recordUpdate')",
        insert_statement(1..=100_000),
        receiver.url("/ok/a")
    ));
    let worker = worker_of(&cluster, "postgres");
    let peak_kb = peak(worker, private_kb, || {
        assert_backend_stays_small(&cluster, "update items set note = note || ' changed'");
        wait_idle(&cluster, DRAIN_LIMIT);
    });
    let received = receiver.received_at("/ok/a");
    compare::assert_delivered(&compare::changes("recordUpdate", 1..=100_000), &received);
    assert_eq!(received.len(), 100_000);
    assert_worker_stayed_small(peak_kb);
    let counted: i64 = cluster.value("select messages from webhook.webhooks");
    assert_eq!(counted, 100_000);
}

/// Copies so many rows in one transaction, in bounded memory of the session.
fn copy_items(cluster: &Cluster, rows: i64) {
    let mut session = cluster.connect("postgres");
    let pid: i32 = session
        .query_one("select pg_backend_pid()", &[])
        .unwrap()
        .get(0);
    let before = private_kb(pid).expect("the session has a process");
    let peak_kb = peak(pid, private_kb, || {
        let mut copy = session.copy_in("copy items from stdin").unwrap();
        for id in 1..=rows {
            writeln!(copy, "{id}\titem {id}").unwrap();
        }
        assert_eq!(copy.finish().unwrap(), rows as u64);
    });
    let growth = peak_kb.saturating_sub(before);
    assert!(
        growth < BACKEND_GROWTH_KB,
        "the session grew by {growth} kB"
    );
}

#[test]
fn a_copy_of_a_million_rows_is_sent_exactly_in_bounded_memory() {
    let (cluster, receiver) = ready_cluster("million");
    watch_items_in(&cluster, "postgres", &receiver, "/tally/a", "");
    let worker = worker_of(&cluster, "postgres");
    let peak_kb = peak(worker, private_kb, || {
        copy_items(&cluster, COPIED_ROWS);
        receiver.wait_for(DRAIN_LIMIT, "/tally/a", COPIED_ROWS as u64);
        wait_idle(&cluster, DRAIN_LIMIT);
    });
    assert_worker_stayed_small(peak_kb);
    // Nobody died, so that each came once: every row, no other, each as a message of its own.
    let rows = COPIED_ROWS as u64;
    assert_eq!(receiver.count("/tally/a").requests, rows);
    let expected = Tally {
        rows,
        least: Some(1),
        greatest: Some(rows),
        messages: rows,
        renamed: 0,
        unreadable: 0,
    };
    assert_eq!(receiver.tally("/tally/a"), expected);
    assert_eq!(
        cluster.psql("select messages, calls, errors from webhook.webhooks"),
        format!("{rows}|{rows}|0\n")
    );
    let written = cluster.psql(
        "select count(*), count(distinct message_id), count(distinct id), count(distinct xid)
         from webhook_internal.outbox",
    );
    assert_eq!(written, format!("{rows}|{rows}|{rows}|1\n"));
}

#[test]
fn sixty_four_writers_at_once_are_sent_exactly() {
    let (cluster, receiver) = ready_cluster("writers");
    watch_items(&cluster, &receiver, "/ok/a");
    let worker = worker_of(&cluster, "postgres");
    let peak_kb = peak(worker, private_kb, || {
        thread::scope(|scope| {
            for writer in 0..64 {
                let cluster = &cluster;
                scope.spawn(move || {
                    let mut session = cluster.connect("postgres");
                    for n in 0..50_i64 {
                        let first = (writer * 50 + n) * 2;
                        session
                            .batch_execute(&insert_statement(first..=first + 1))
                            .unwrap();
                    }
                });
            }
        });
        wait_idle(&cluster, PATIENCE);
    });
    let received = assert_items_delivered(&cluster, &receiver, "/ok/a", PATIENCE);
    assert_eq!(received.len(), 6400);
    assert_worker_stayed_small(peak_kb);
}
