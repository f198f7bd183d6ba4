//! Messages whose event or webhook has no row any more, though nobody dropped it: they wait,
//! the reason is shown, and they are sent once the row is back. Others go on.

use super::support::definitions::{create_event, records_at, sorted_records_at, wait_idle};
use super::support::items::{cluster_with, insert, inserts, statuses, stop_worker, watch, QUEUE};
use super::support::worker::{wait_until_gone, worker_of};
use super::support::{Cluster, Receiver, PATIENCE};

const MESSAGES: i64 = 25;

/// Two webhooks, and messages that no worker has seen when rows of the first one go.
fn cluster_without(name: &str, statements: &str) -> (Cluster, Receiver) {
    let (cluster, receiver) = cluster_with(name, "1h");
    watch(&cluster, &receiver, "w", &["/ok/w"], "");
    watch(&cluster, &receiver, "other", &["/ok/other"], "");
    stop_worker(&cluster);
    insert(&cluster, 1..=MESSAGES);
    cluster.sql(
        "create table w as select webhook_key from webhook.webhook_def where name = 'w';
         create table webhooks as select * from webhook.webhook_def natural join w;
         create table secrets as select * from webhook.secret_def natural join w;
         create table urls as select * from webhook.url_def natural join w;
         create table events as select * from webhook.event_def natural join w",
    );
    cluster.sql(statements);
    cluster.sql("select webhook.start_worker()");
    receiver.wait_for(PATIENCE, "/ok/other", MESSAGES as u64);
    (cluster, receiver)
}

fn statuses_of(cluster: &Cluster, webhook: &str) -> String {
    cluster.value(&format!(
        "select string_agg(distinct m.status, ' ')
         from webhook.messages m
         join webhook_internal.outbox o using (message_id)
         join webhooks w on w.webhook_key = o.webhook_key and w.name = '{webhook}'"
    ))
}

fn wait_for_detail(cluster: &Cluster, pattern: &str) {
    let query = format!(
        "select coalesce(string_agg(detail, ' '), 'none') ~ '{pattern}' from webhook.worker"
    );
    let mut session = cluster.connect("postgres");
    cluster.wait_until(PATIENCE, pattern, || {
        let row = session.query_one(&query, &[]).unwrap();
        if row.get(0) {
            return Ok(());
        }
        Err(cluster.psql(
            "select detail from webhook.worker;
             select state, pending, last_error from webhook.queue;
             select status, count(*) from webhook.messages group by 1",
        ))
    });
}

fn restart_worker(cluster: &Cluster) {
    let worker = worker_of(cluster, "postgres");
    cluster.signal(worker, "TERM");
    wait_until_gone(cluster, PATIENCE, worker);
    worker_of(cluster, "postgres");
}

fn assert_others_go_on(cluster: &Cluster, receiver: &Receiver, id: i64) {
    let before = receiver.count("/ok/other").requests;
    insert(cluster, id..=id);
    receiver.wait_for(PATIENCE, "/ok/other", before + 1);
}

const QUEUE_OF_W: &str = "select concat_ws(' ', state, pending, last_error)
                          from webhook.queue where webhook_name = 'w'";

#[test]
fn messages_of_an_event_without_a_row_wait_until_it_is_back_and_others_go_on() {
    let (cluster, receiver) = cluster_without(
        "no_event",
        "delete from webhook.event_def using w where event_def.webhook_key = w.webhook_key",
    );
    wait_for_detail(&cluster, "webhook.event_def has no row");
    cluster.wait_for_text(
        PATIENCE,
        &format!("select regexp_replace(({QUEUE_OF_W}), '[0-9]+$', 'N')"),
        &format!("blocked {MESSAGES} webhook.event_def has no row with event_key N"),
    );
    assert_eq!(statuses_of(&cluster, "w"), "pending");
    assert!(
        cluster
            .log()
            .contains("holds messages that it cannot route"),
        "{}",
        cluster.log()
    );
    assert_others_go_on(&cluster, &receiver, 100);

    restart_worker(&cluster);
    wait_for_detail(&cluster, "webhook.event_def has no row");
    assert_others_go_on(&cluster, &receiver, 101);
    assert_eq!(statuses_of(&cluster, "w"), "pending");
    assert_eq!(receiver.count("/ok/w").requests, 0);

    cluster.sql(&restore("event_def", "events"));
    receiver.wait_for(PATIENCE, "/ok/w", MESSAGES as u64);
    wait_idle(&cluster);
    let mut received = records_at(&receiver, "/ok/w");
    let mut expected = inserts(1..=MESSAGES);
    received.sort();
    expected.sort();
    assert_eq!(received, expected);
    wait_for_detail(&cluster, "none");
    cluster.wait_for_text(PATIENCE, QUEUE, "0 0 0, 0 0 0");
    assert_eq!(statuses_of(&cluster, "w"), "delivered");
}

/// `insert … select` of the rows that were kept, by the columns of the table.
fn restore(table: &str, kept: &str) -> String {
    format!(
        "do $$
         declare
             columns text := (select string_agg(quote_ident(attname), ', ' order by attnum)
                              from pg_attribute
                              where attrelid = 'webhook.{table}'::regclass and attnum > 0
                                and not attisdropped);
         begin
             execute format('insert into webhook.{table} (%1$s) select %1$s from {kept}', columns);
         end $$"
    )
}

#[test]
fn what_waits_for_an_event_without_a_row_may_be_canceled() {
    let (cluster, receiver) = cluster_without(
        "event_gone",
        "delete from webhook.event_def using w where event_def.webhook_key = w.webhook_key",
    );
    wait_for_detail(&cluster, "webhook.event_def has no row");
    assert_eq!(
        cluster.value::<i64>("select webhook.cancel_pending('w')"),
        MESSAGES
    );
    wait_for_detail(&cluster, "none");
    create_event(
        &cluster,
        "w",
        "items",
        "Insert",
        "condition => 'new.id > 0'",
    );
    insert(&cluster, 200..=200);
    receiver.wait_for(PATIENCE, "/ok/w", 1);
    wait_idle(&cluster);
    assert_eq!(records_at(&receiver, "/ok/w"), inserts([200]));
    assert_eq!(statuses_of(&cluster, "w"), "canceled delivered");
}

#[test]
fn messages_of_a_webhook_without_a_row_wait_until_it_is_back_and_others_go_on() {
    let (cluster, receiver) = cluster_without(
        "no_webhook",
        "delete from webhook.webhook_def using w where webhook_def.webhook_key = w.webhook_key",
    );
    wait_for_detail(
        &cluster,
        "webhook.webhook_def or webhook.url_def has no row",
    );
    assert_others_go_on(&cluster, &receiver, 100);
    // Its place is kept over a restart, while others are written to disk.
    cluster.wait_for_text(
        PATIENCE,
        "select count(*)::text from webhook_internal.unseen",
        "0",
    );
    restart_worker(&cluster);
    assert_others_go_on(&cluster, &receiver, 101);
    for (table, kept) in [
        ("webhook_def", "webhooks"),
        ("secret_def", "secrets"),
        ("url_def", "urls"),
        ("event_def", "events"),
    ] {
        cluster.sql(&restore(table, kept));
    }
    receiver.wait_for(PATIENCE, "/ok/w", MESSAGES as u64);
    wait_idle(&cluster);
    let mut received = records_at(&receiver, "/ok/w");
    let mut expected = inserts(1..=MESSAGES);
    received.sort();
    expected.sort();
    assert_eq!(received, expected);
    wait_for_detail(&cluster, "none");
    assert_eq!(statuses_of(&cluster, "w"), "delivered");
}

/// The row stays as a tombstone, so that what was captured is delivered.
#[test]
fn what_a_dropped_event_captured_is_delivered() {
    let (cluster, receiver) = cluster_with("event_dropped", "1h");
    watch(&cluster, &receiver, "w", &["/ok/w"], "");
    stop_worker(&cluster);
    insert(&cluster, 1..=3);
    cluster.sql("select webhook.drop_event(id) from webhook.events");
    cluster.sql("select webhook.start_worker()");
    wait_idle(&cluster);
    assert_eq!(sorted_records_at(&receiver, "/ok/w"), inserts([1, 2, 3]));
    assert_eq!(statuses(&cluster), "delivered, delivered, delivered");
}
