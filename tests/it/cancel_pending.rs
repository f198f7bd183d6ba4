//! `webhook.cancel_pending()`: a backlog of any size is canceled at one moment. What was on the
//! wire then arrives, what commits later is sent, and the views say so at each point.

use std::collections::BTreeSet;

use super::support::definitions::{records_at, wait_idle};
use super::support::items::{
    cluster_with, insert, message, pause, redeliver, resume, stop_worker, watch,
};
use super::support::worker::{wait_for_restarts, wait_until_gone, worker_of};
use super::support::{Cluster, Receiver, PATIENCE};

/// Far more than a lane keeps in memory.
const BACKLOG: i64 = 20_000;

fn cancel_pending(cluster: &Cluster, webhook: &str) -> i64 {
    cluster.value(&format!("select webhook.cancel_pending('{webhook}')"))
}

fn pending(cluster: &Cluster, webhook: &str) -> i64 {
    cluster.value(&format!(
        "select sum(pending)::bigint from webhook.queue where webhook_name = '{webhook}'"
    ))
}

/// How many messages of a webhook have each status: `canceled 10, delivered 2`.
fn statuses(cluster: &Cluster, webhook: &str) -> String {
    cluster.value(&format!(
        "select coalesce(string_agg(status || ' ' || count, ', ' order by status), '')
         from (select m.status, count(*)
               from webhook.messages m
               join webhook.webhooks w on w.id = m.webhook_id
               where w.name = '{webhook}'
               group by m.status) s"
    ))
}

fn counters(cluster: &Cluster, webhook: &str) -> String {
    cluster.value(&format!(
        "select concat_ws(' ', messages, calls, errors) from webhook.webhooks where name = '{webhook}'"
    ))
}

fn received_ids(receiver: &Receiver, path: &str) -> Vec<i64> {
    records_at(receiver, path)
        .iter()
        .map(|record| {
            let number = record.trim_start_matches(r#"Insert {"id":"#);
            number.trim_end_matches('}').parse().expect("an id")
        })
        .collect()
}

/// After everything: what was received and what was canceled are together all there was.
fn assert_settled(
    cluster: &Cluster,
    receiver: &Receiver,
    webhook: &str,
    path: &str,
    messages: i64,
) {
    wait_idle(cluster);
    let received = received_ids(receiver, path);
    let distinct: BTreeSet<i64> = received.iter().copied().collect();
    assert_eq!(distinct.len(), received.len(), "each at most once");
    let delivered = received.len() as i64;
    assert_eq!(
        statuses(cluster, webhook),
        format!("canceled {}, delivered {delivered}", messages - delivered)
    );
    assert_eq!(pending(cluster, webhook), 0);
    assert_eq!(
        counters(cluster, webhook),
        format!("{messages} {delivered} 0")
    );
}

#[test]
fn a_backlog_at_a_throttled_url_is_canceled_while_another_webhook_is_busy() {
    let (cluster, receiver) = cluster_with("throttled_backlog", "1h");
    watch(
        &cluster,
        &receiver,
        "slow",
        &["/ok/slow"],
        "call_throttling => 1",
    );
    watch(&cluster, &receiver, "busy", &["/ok/busy"], "");
    insert(&cluster, 1..=BACKLOG);
    receiver.wait_for(PATIENCE, "/ok/slow", 2);
    let canceled = cancel_pending(&cluster, "slow");
    let left = pending(&cluster, "slow");
    assert!(left <= 2, "{left} pending right after the call");
    insert(&cluster, BACKLOG + 1..=BACKLOG + 4);
    let left = pending(&cluster, "slow");
    // Those that have arrived by now were perhaps not pending any more.
    let ids = received_ids(&receiver, "/ok/slow");
    let arrived = ids.iter().filter(|id| **id > BACKLOG).count() as i64;
    assert!(
        (4 - arrived..=6).contains(&left),
        "{left} pending after four new ones, {arrived} of which arrived"
    );
    wait_idle(&cluster);
    let received = received_ids(&receiver, "/ok/slow");
    let new: Vec<i64> = received
        .iter()
        .copied()
        .filter(|id| *id > BACKLOG)
        .collect();
    assert_eq!(new.len(), 4, "what commits later is sent: {new:?}");
    let old = received.len() as i64 - 4;
    assert!(
        (canceled - 2..=canceled).contains(&(BACKLOG - old)),
        "said {canceled} were canceled; {old} of {BACKLOG} arrived"
    );
    assert_settled(&cluster, &receiver, "slow", "/ok/slow", BACKLOG + 4);
    assert_eq!(receiver.received_at("/ok/busy").len() as i64, BACKLOG + 4);
    assert_eq!(
        statuses(&cluster, "busy"),
        format!("delivered {}", BACKLOG + 4)
    );
    assert_eq!(
        counters(&cluster, "busy"),
        format!("{0} {0} 0", BACKLOG + 4)
    );
}

#[test]
fn a_short_queue_of_a_slow_url_is_canceled_too() {
    let (cluster, receiver) = cluster_with("short_queue", "1h");
    watch(
        &cluster,
        &receiver,
        "slow",
        &["/hold"],
        "max_in_flight => 2, timeout_ms => 600000",
    );
    insert(&cluster, 1..=20);
    receiver.wait_for(PATIENCE, "/hold", 2);
    cluster.wait_for_text(PATIENCE, "select pending::text from webhook.queue", "20");
    assert_eq!(cancel_pending(&cluster, "slow"), 18);
    assert_eq!(pending(&cluster, "slow"), 2, "what is on the wire");
    assert_eq!(statuses(&cluster, "slow"), "canceled 18, pending 2");
    assert_eq!(cancel_pending(&cluster, "slow"), 0, "nothing was left");
    receiver.behave("/hold", "/ok");
    assert_settled(&cluster, &receiver, "slow", "/hold", 20);
    assert_eq!(receiver.received_at("/hold").len(), 2);
}

#[test]
fn each_url_of_a_webhook_loses_what_it_had_pending() {
    let (cluster, receiver) = cluster_with("two_urls", "1h");
    watch(
        &cluster,
        &receiver,
        "both",
        &["/ok/quick", "/ok/slow"],
        "max_in_flight => 4, timeout_ms => 600000",
    );
    receiver.behave("/ok/slow", "/hold");
    insert(&cluster, 1..=3000);
    receiver.wait_for(PATIENCE, "/ok/quick", 3000);
    receiver.wait_for(PATIENCE, "/ok/slow", 4);
    cluster.wait_for_text(
        PATIENCE,
        "select string_agg(pending::text, ' ' order by outgoing_url) from webhook.queue",
        "0 3000",
    );
    let canceled = cancel_pending(&cluster, "both");
    assert_eq!(canceled, 2996, "four are on the wire");
    pause(&cluster, "both");
    insert(&cluster, 3001..=3010);
    assert_eq!(pending(&cluster, "both"), 24);
    assert_eq!(
        cluster.value::<String>(
            "select pending::text from webhook.queue where outgoing_url ~ 'quick'"
        ),
        "10"
    );
    let canceled = cancel_pending(&cluster, "both");
    assert_eq!(canceled, 20, "a message counts once for each URL");
    insert(&cluster, 3011..=3012);
    receiver.behave_normally("/ok/slow");
    resume(&cluster, "both");
    wait_idle(&cluster);
    assert_eq!(received_ids(&receiver, "/ok/quick").len(), 3002);
    let slow = received_ids(&receiver, "/ok/slow");
    let new: BTreeSet<i64> = slow.iter().copied().filter(|id| *id > 3000).collect();
    assert_eq!(new, BTreeSet::from([3011, 3012]));
    let delivered = slow.len();
    assert_eq!(pending(&cluster, "both"), 0);
    assert_eq!(
        statuses(&cluster, "both"),
        format!("canceled {}, delivered {delivered}", 3012 - delivered),
        "canceled for one URL is canceled"
    );
}

#[test]
fn retries_that_wait_are_canceled_with_the_rest() {
    let (cluster, receiver) = cluster_with("retries", "1h");
    watch(
        &cluster,
        &receiver,
        "failing",
        &["/ok"],
        "max_in_flight => 1",
    );
    receiver.behave("/ok", "/status/500");
    insert(&cluster, 1..=3);
    cluster.wait_for_text(PATIENCE, "select retrying::text from webhook.queue", "3");
    pause(&cluster, "failing");
    insert(&cluster, 4..=10);
    assert_eq!(cancel_pending(&cluster, "failing"), 10);
    assert_eq!(
        cluster.psql("select pending, retrying, failed from webhook.queue"),
        "0|0|0\n"
    );
    assert_eq!(statuses(&cluster, "failing"), "canceled 10");
    receiver.behave_normally("/ok");
    insert(&cluster, 11..=11);
    resume(&cluster, "failing");
    wait_idle(&cluster);
    assert_eq!(received_ids(&receiver, "/ok"), [1, 2, 3, 11]);
    assert_eq!(statuses(&cluster, "failing"), "canceled 10, delivered 1");
    assert_eq!(counters(&cluster, "failing"), "11 4 3");

    // One by one they come back, and the others stay where they are.
    for place in [1, 7] {
        assert_eq!(redeliver(&cluster, &message(&cluster, place)), 1);
    }
    wait_idle(&cluster);
    let again: BTreeSet<i64> = received_ids(&receiver, "/ok")[4..]
        .iter()
        .copied()
        .collect();
    assert_eq!(again, BTreeSet::from([1, 7]));
    assert_eq!(statuses(&cluster, "failing"), "canceled 8, delivered 3");
    assert_eq!(pending(&cluster, "failing"), 0);
}

#[test]
fn what_is_rolled_back_withdraws_nothing() {
    let (cluster, receiver) = cluster_with("rolled_back", "1h");
    watch(&cluster, &receiver, "w", &["/ok"], "");
    pause(&cluster, "w");
    insert(&cluster, 1..=3000);
    let mut session = cluster.connect("postgres");
    let mut run = |statement: &str| session.batch_execute(statement).unwrap();
    run("begin; select webhook.cancel_pending('w')");
    assert_eq!(pending(&cluster, "w"), 3000, "not yet");
    run("rollback");
    run("begin; savepoint a; select webhook.cancel_pending('w'); rollback to a; commit");
    assert_eq!(pending(&cluster, "w"), 3000);
    assert_eq!(statuses(&cluster, "w"), "pending 3000");
    resume(&cluster, "w");
    wait_idle(&cluster);
    let received: BTreeSet<i64> = received_ids(&receiver, "/ok").into_iter().collect();
    assert_eq!(received, (1..=3000).collect());
    assert_eq!(statuses(&cluster, "w"), "delivered 3000");
}

#[test]
fn what_no_worker_has_seen_is_canceled_and_stays_so_when_one_starts() {
    let (cluster, receiver) = cluster_with("no_worker", "1h");
    watch(&cluster, &receiver, "w", &["/ok"], "");
    watch(&cluster, &receiver, "other", &["/ok/other"], "");
    stop_worker(&cluster);
    insert(&cluster, 1..=BACKLOG);
    assert_eq!(cancel_pending(&cluster, "w"), BACKLOG);
    assert_eq!(pending(&cluster, "w"), 0);
    assert_eq!(statuses(&cluster, "w"), format!("canceled {BACKLOG}"));
    assert_eq!(cancel_pending(&cluster, "w"), 0, "twice in a row");
    insert(&cluster, BACKLOG + 1..=BACKLOG + 5);
    assert_eq!(pending(&cluster, "w"), 5);
    assert_eq!(pending(&cluster, "other"), BACKLOG + 5);

    cluster.sql("select webhook.start_worker()");
    let mut most = 0;
    cluster.wait_until(PATIENCE, "the other webhook's messages to arrive", || {
        most = most.max(pending(&cluster, "w"));
        match receiver.count("/ok/other").requests as i64 {
            seen if seen == BACKLOG + 5 => Ok(()),
            seen => Err(format!("{seen} arrived")),
        }
    });
    assert!(
        most <= 5,
        "while the worker caught up, {most} were shown as pending"
    );
    assert_settled(&cluster, &receiver, "w", "/ok", BACKLOG + 5);
    let received: BTreeSet<i64> = received_ids(&receiver, "/ok").into_iter().collect();
    assert_eq!(received, (BACKLOG + 1..=BACKLOG + 5).collect());
}

#[test]
fn what_was_canceled_stays_so_when_the_worker_is_killed_right_after() {
    let (cluster, receiver) = cluster_with("killed", "1h");
    let options = "max_in_flight => 3, timeout_ms => 600000";
    watch(&cluster, &receiver, "w", &["/ok"], options);
    receiver.behave("/ok", "/hold");
    let worker = worker_of(&cluster, "postgres");
    insert(&cluster, 1..=BACKLOG);
    receiver.wait_for(PATIENCE, "/ok", 3);
    cluster.wait_for_text(
        PATIENCE,
        "select (pending > 19000)::text from webhook.queue",
        "true",
    );
    let mut session = cluster.connect("postgres");
    session
        .batch_execute("select webhook.cancel_pending('w')")
        .unwrap();
    cluster.signal(worker, "KILL");
    wait_until_gone(&cluster, PATIENCE, worker);
    wait_for_restarts(&cluster, 1);
    receiver.behave_normally("/ok");
    insert(&cluster, BACKLOG + 1..=BACKLOG + 5);
    wait_idle(&cluster);
    let received: BTreeSet<i64> = received_ids(&receiver, "/ok").into_iter().collect();
    let old = received.iter().filter(|id| **id <= BACKLOG).count();
    assert_eq!(
        old, 3,
        "what was on the wire arrived, and nothing else of it"
    );
    assert_eq!(received.len() - old, 5, "what came later arrives");
    assert_eq!(pending(&cluster, "w"), 0);
    let total: i64 = cluster.value("select messages from webhook.webhooks");
    assert_eq!(total, BACKLOG + 5);
    let shown = statuses(&cluster, "w");
    let delivered: i64 =
        cluster.value("select count(*) from webhook.messages where status = 'delivered'");
    assert!(!shown.contains("pending"), "{shown}");
    // A call of the killed worker is known to the receiver alone.
    assert!(
        delivered >= 5 && delivered <= received.len() as i64,
        "{delivered} shown as delivered, {} arrived",
        received.len()
    );
}

/// The first of three messages is on the wire when the worker ends `how`, and everything is
/// canceled while there is none; then the first one and another are wanted after all.
fn assert_redelivered_after(name: &str, how: fn(&Cluster)) {
    let (cluster, receiver) = cluster_with(name, "1h");
    watch(&cluster, &receiver, "w", &["/hang/a"], "max_in_flight => 1");
    insert(&cluster, 1..=3);
    receiver.wait_for(PATIENCE, "/hang/a", 1);
    let flying = "select count(*)::text from webhook_internal.busy where not is_listed";
    cluster.wait_for_text(PATIENCE, flying, "1");
    how(&cluster);
    let ids: String = cluster
        .value("select string_agg(message_id::text, ' ' order by id) from webhook_internal.outbox");
    cancel_pending(&cluster, "w");
    for id in ids.split(' ').take(2) {
        let calls: i32 = cluster.value(&format!("select webhook.redeliver('{id}')"));
        assert_eq!(calls, 1, "calls queued for {id} of {ids}");
    }
    receiver.behave("/hang/a", "/ok");
    cluster.sql("select webhook.start_worker()");
    wait_idle(&cluster);
    let mut received = received_ids(&receiver, "/hang/a");
    received.sort_unstable();
    assert_eq!(received, [1, 1, 2]);
    assert_eq!(statuses(&cluster, "w"), "canceled 1, delivered 2");
    assert_eq!(pending(&cluster, "w"), 0);
}

#[test]
fn what_was_on_the_wire_at_a_stop_and_canceled_since_can_be_redelivered_before_a_worker_is_there() {
    assert_redelivered_after("redeliver_stopped", |cluster| {
        cluster.sql("select webhook.stop_worker()");
    });
}

#[test]
fn what_was_on_the_wire_at_a_crash_and_canceled_since_can_be_redelivered_before_a_worker_is_there()
{
    assert_redelivered_after("redeliver_crashed", |cluster| {
        // It does not see that its successor is not wanted.
        let worker = worker_of(cluster, "postgres");
        cluster.signal(worker, "STOP");
        cluster.sql("update webhook.control set worker_stopped = true");
        cluster.signal(worker, "KILL");
        wait_for_restarts(cluster, 1);
    });
}

#[test]
fn what_was_canceled_one_by_one_before_counts_once() {
    let (cluster, receiver) = cluster_with("mixed", "1h");
    watch(&cluster, &receiver, "w", &["/ok"], "");
    pause(&cluster, "w");
    insert(&cluster, 1..=10);
    cluster.sql(
        "select webhook.cancel(message_id)
         from (select message_id from webhook_internal.outbox order by id offset 2 limit 3) m",
    );
    assert_eq!(pending(&cluster, "w"), 7);
    assert_eq!(cancel_pending(&cluster, "w"), 7);
    assert_eq!(pending(&cluster, "w"), 0);
    insert(&cluster, 11..=12);
    assert_eq!(pending(&cluster, "w"), 2);
    resume(&cluster, "w");
    assert_settled(&cluster, &receiver, "w", "/ok", 12);
    assert_eq!(received_ids(&receiver, "/ok").len(), 2);
}

#[test]
fn a_cancellation_with_an_older_snapshot_brings_nothing_back() {
    let (cluster, receiver) = cluster_with("older_snapshot", "1h");
    watch(&cluster, &receiver, "w", &["/ok"], "");
    pause(&cluster, "w");
    insert(&cluster, 1..=1);
    let mut older = cluster.connect("postgres");
    older
        .batch_execute("begin isolation level repeatable read; select count(*) from items")
        .unwrap();
    insert(&cluster, 2..=6);
    assert_eq!(cancel_pending(&cluster, "w"), 6);
    older
        .batch_execute("select webhook.cancel_pending('w'); commit")
        .unwrap();
    insert(&cluster, 7..=8);
    resume(&cluster, "w");
    assert_settled(&cluster, &receiver, "w", "/ok", 8);
    let received: BTreeSet<i64> = received_ids(&receiver, "/ok").into_iter().collect();
    assert_eq!(received, BTreeSet::from([7, 8]));
}
