//! Withdrawing single messages, wherever they are: unseen, in a queue, behind the position of a
//! lagging URL, on the wire, before a retry.

use std::collections::BTreeSet;

use super::support::definitions::{records_at, wait_idle};
use super::support::items::{
    cluster_with, insert, inserts, message, pause, redeliver, resume, statuses, stop_worker, watch,
    COUNTERS, QUEUE,
};
use super::support::worker::worker_of;
use super::support::{Cluster, PATIENCE};

/// Receivers that hold a call must not see it end before they let go.
const FOR_EVER: &str = "timeout_ms => 600000";

/// The same, one call at a time.
const ONE_FOR_EVER: &str = "max_in_flight => 1, timeout_ms => 600000";

fn cancel(cluster: &Cluster, message_id: &str) -> bool {
    cluster.value(&format!("select webhook.cancel('{message_id}')"))
}

/// Three messages of which the second is canceled wherever `hold` keeps them; `release` lets
/// the others go.
fn assert_canceled_while(name: &str, hold: fn(&Cluster), release: fn(&Cluster)) {
    let (cluster, receiver) = cluster_with(name, "1h");
    watch(&cluster, &receiver, "w", &["/ok/a", "/ok/b"], "");
    worker_of(&cluster, "postgres");
    hold(&cluster);
    insert(&cluster, 1..=3);
    let id = message(&cluster, 2);
    assert_eq!(statuses(&cluster), "pending, pending, pending");
    assert!(cancel(&cluster, &id));
    assert_eq!(
        cluster.value::<String>(QUEUE),
        "2 0 0, 2 0 0",
        "right at once"
    );
    assert_eq!(statuses(&cluster), "pending, canceled, pending");
    assert!(!cancel(&cluster, &id), "it is canceled already");
    assert_eq!(cluster.value::<String>(QUEUE), "2 0 0, 2 0 0");

    release(&cluster);
    wait_idle(&cluster);
    for path in ["/ok/a", "/ok/b"] {
        let received: BTreeSet<String> = records_at(&receiver, path).into_iter().collect();
        assert_eq!(received, inserts([1, 3]).into_iter().collect(), "{path}");
    }
    assert_eq!(statuses(&cluster), "delivered, canceled, delivered");
    assert_eq!(cluster.value::<String>(QUEUE), "0 0 0, 0 0 0");
    assert_eq!(cluster.value::<String>(COUNTERS), "3 4 0");

    assert_eq!(redeliver(&cluster, &id), 2);
    wait_idle(&cluster);
    for path in ["/ok/a", "/ok/b"] {
        assert_eq!(records_at(&receiver, path)[2..], inserts([2]), "{path}");
    }
    assert_eq!(statuses(&cluster), "delivered, delivered, delivered");
    assert_eq!(cluster.value::<String>(QUEUE), "0 0 0, 0 0 0");
}

#[test]
fn a_message_canceled_while_its_webhook_is_paused_is_not_sent_until_it_is_redelivered() {
    assert_canceled_while(
        "cancel_paused",
        |cluster| pause(cluster, "w"),
        |cluster| resume(cluster, "w"),
    );
}

#[test]
fn a_message_canceled_while_no_worker_runs_is_not_sent_until_it_is_redelivered() {
    assert_canceled_while("cancel_unseen", stop_worker, |cluster| {
        cluster.sql("select webhook.start_worker()");
    });
}

#[test]
fn a_message_that_is_canceled_and_redelivered_before_its_turn_is_sent_once() {
    let (cluster, receiver) = cluster_with("changed_mind", "1h");
    watch(&cluster, &receiver, "w", &["/ok"], "");
    pause(&cluster, "w");
    insert(&cluster, 1..=3);
    let id = message(&cluster, 2);
    assert!(cancel(&cluster, &id));
    assert_eq!(redeliver(&cluster, &id), 1);
    assert_eq!(statuses(&cluster), "pending, pending, pending");
    assert_eq!(cluster.value::<String>(QUEUE), "3 0 0");
    assert_eq!(redeliver(&cluster, &id), 0, "it waits for its first call");
    resume(&cluster, "w");
    wait_idle(&cluster);
    let mut received = records_at(&receiver, "/ok");
    received.sort();
    assert_eq!(received, inserts([1, 2, 3]));
}

#[test]
fn messages_are_canceled_anywhere_in_the_backlog_of_a_lagging_url() {
    const MESSAGES: i64 = 4000;
    let (cluster, receiver) = cluster_with("cancel_lagging", "1h");
    watch(&cluster, &receiver, "w", &["/ok/w"], ONE_FOR_EVER);
    watch(&cluster, &receiver, "other", &["/ok/other"], "");
    receiver.behave_for("/ok/w", "/hold", 1);
    insert(&cluster, 1..=MESSAGES);
    receiver.wait_for(PATIENCE, "/ok/w", 1);
    // In the queue, at its end, behind the lane's position, and the last one.
    let canceled = [2, 50, 1999, 2001, 3000, MESSAGES];
    let said: String = cluster.value(
        "select string_agg(webhook.cancel(m.message_id)::text, ' ')
         from (select message_id
               from webhook_internal.outbox o
               join webhook.webhook_def w using (webhook_key)
               where w.name = 'w'
                 and o.record in (select format('{\"id\":%s}', n)
                                  from unnest(array[2, 50, 1999, 2001, 3000, 4000]) n)
               offset 0) m",
    );
    assert_eq!(said, ["true"; 6].join(" "), "each of them waits");
    assert_eq!(
        receiver.count("/ok/w").requests,
        1,
        "this is about what waits"
    );
    receiver.behave_normally("/ok/w");
    wait_idle(&cluster);
    let expected = inserts((1..=MESSAGES).filter(|id| !canceled.contains(id)));
    let received = records_at(&receiver, "/ok/w");
    let differs = expected.iter().zip(&received).position(|(e, r)| e != r);
    assert!(
        received == expected,
        "each of the others once, in order: {} of {} came, from {differs:?} on others: {:?}",
        received.len(),
        expected.len(),
        differs.map(|from| received.iter().skip(from).take(20).collect::<Vec<_>>())
    );
    assert_eq!(receiver.received_at("/ok/other").len(), MESSAGES as usize);
    assert_eq!(cluster.value::<String>(QUEUE), "0 0 0, 0 0 0");
    assert_eq!(
        cluster.psql("select status, count(*) from webhook.messages group by 1 order by 1"),
        format!("canceled|6\ndelivered|{}\n", 2 * MESSAGES - 6)
    );
}

#[test]
fn a_message_is_canceled_in_the_short_queue_of_a_slow_url() {
    let (cluster, receiver) = cluster_with("cancel_queued", "1h");
    watch(&cluster, &receiver, "w", &["/ok"], ONE_FOR_EVER);
    receiver.behave_for("/ok", "/hold", 1);
    insert(&cluster, 1..=5);
    receiver.wait_for(PATIENCE, "/ok", 1);
    cluster.wait_for_text(PATIENCE, QUEUE, "5 0 0");
    assert!(cancel(&cluster, &message(&cluster, 3)));
    assert_eq!(cluster.value::<String>(QUEUE), "4 0 0");
    assert_eq!(
        statuses(&cluster),
        "pending, pending, canceled, pending, pending"
    );
    receiver.behave_normally("/ok");
    wait_idle(&cluster);
    assert_eq!(records_at(&receiver, "/ok"), inserts([1, 2, 4, 5]));
    assert_eq!(
        statuses(&cluster),
        "delivered, delivered, canceled, delivered, delivered"
    );
    assert_eq!(cluster.value::<String>(QUEUE), "0 0 0");
}

#[test]
fn cancel_says_whether_the_message_was_pending_or_failed_anywhere() {
    let (cluster, receiver) = cluster_with("cancel_says", "1h");
    watch(
        &cluster,
        &receiver,
        "w",
        &["/ok/a", "/ok/b"],
        "max_attempts => 1",
    );
    insert(&cluster, 1..=1);
    wait_idle(&cluster);
    assert!(!cancel(&cluster, &message(&cluster, 1)), "it was delivered");
    assert_eq!(statuses(&cluster), "delivered");

    receiver.behave("/ok/b", "/status/500");
    insert(&cluster, 2..=2);
    cluster.wait_for_text(PATIENCE, QUEUE, "0 0 0, 0 0 1");
    let failed = message(&cluster, 2);
    assert!(cancel(&cluster, &failed), "it failed at one URL");
    assert_eq!(statuses(&cluster), "delivered, canceled");
    assert_eq!(cluster.value::<String>(QUEUE), "0 0 0, 0 0 0");
    assert_eq!(
        cluster.value::<i64>("select webhook.redeliver_failed('w')"),
        0
    );
    assert!(!cancel(&cluster, &failed));

    receiver.behave_normally("/ok/b");
    assert_eq!(redeliver(&cluster, &failed), 2);
    wait_idle(&cluster);
    assert_eq!(statuses(&cluster), "delivered, delivered");
    assert_eq!(receiver.received_at("/ok/a").len(), 3);
    assert_eq!(receiver.received_at("/ok/b").len(), 3);
}

#[test]
fn a_message_canceled_on_the_wire_or_before_a_retry_is_not_repeated() {
    let (cluster, receiver) = cluster_with("cancel_wire", "300ms");
    watch(&cluster, &receiver, "w", &["/ok"], FOR_EVER);
    receiver.behave("/ok", "/hold");
    insert(&cluster, 1..=1);
    receiver.wait_for(PATIENCE, "/ok", 1);
    let on_the_wire = message(&cluster, 1);
    assert!(cancel(&cluster, &on_the_wire));
    assert_eq!(cluster.value::<String>(QUEUE), "1 0 0", "the call goes on");
    assert_eq!(statuses(&cluster), "pending");
    receiver.behave("/ok", "/status/500");
    cluster.wait_for_text(PATIENCE, "select count(*)::text from webhook.calls", "1");
    cluster.wait_for_text(PATIENCE, QUEUE, "0 0 0");
    assert_eq!(statuses(&cluster), "canceled");

    // The next one is called and repeated, and again until it is canceled.
    insert(&cluster, 2..=2);
    receiver.wait_for(PATIENCE, "/ok", 3);
    let repeated = message(&cluster, 2);
    cluster.wait_for_text(PATIENCE, QUEUE, "0 1 0");
    assert!(cancel(&cluster, &repeated));
    // A call of it may have been on the wire just then.
    cluster.wait_for_text(PATIENCE, QUEUE, "0 0 0");
    receiver.behave_normally("/ok");
    insert(&cluster, 3..=3);
    wait_idle(&cluster);
    cluster.wait_for_text(PATIENCE, QUEUE, "0 0 0");
    assert_eq!(statuses(&cluster), "canceled, canceled, delivered");
    let received = receiver.received_at("/ok");
    let of = |id: &str| {
        received
            .iter()
            .filter(|call| call.message_id() == id)
            .count()
    };
    assert_eq!(of(&on_the_wire), 1);
    assert_eq!(of(&message(&cluster, 3)), 1);
    let errors = received.len() - 1;
    assert_eq!(
        cluster.value::<String>(COUNTERS),
        format!("3 {} {errors}", received.len())
    );
    assert_eq!(redeliver(&cluster, &on_the_wire), 1);
    wait_idle(&cluster);
    assert_eq!(statuses(&cluster), "delivered, canceled, delivered");
}

#[test]
fn a_message_canceled_on_the_wire_that_arrives_all_the_same_is_delivered() {
    let (cluster, receiver) = cluster_with("cancel_arrives", "1h");
    watch(&cluster, &receiver, "w", &["/hold"], FOR_EVER);
    insert(&cluster, 1..=1);
    receiver.wait_for(PATIENCE, "/hold", 1);
    assert!(cancel(&cluster, &message(&cluster, 1)));
    receiver.behave("/hold", "/ok");
    cluster.wait_for_text(PATIENCE, COUNTERS, "1 1 0");
    wait_idle(&cluster);
    cluster.wait_for_text(
        PATIENCE,
        "select count(*)::text from webhook_internal.retry",
        "0",
    );
    assert_eq!(statuses(&cluster), "delivered");
    assert_eq!(cluster.value::<String>(QUEUE), "0 0 0");
}
