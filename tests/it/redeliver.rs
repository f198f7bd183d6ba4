//! Sending again: single messages, and those that failed.

use std::collections::BTreeSet;

use super::support::definitions::{records_at, wait_idle};
use super::support::items::{
    attempts, cluster_with, insert, inserts, message, redeliver, statuses, watch, COUNTERS, QUEUE,
};
use super::support::PATIENCE;

/// So many failed messages are taken up between two notices, as the function's comment says.
const TELLS_AFTER: i64 = 100_000;

#[test]
fn a_delivered_message_is_sent_again_to_every_url_under_its_id() {
    let (cluster, receiver) = cluster_with("redeliver", "1h");
    watch(&cluster, &receiver, "both", &["/ok/a", "/ok/b"], "");
    insert(&cluster, 1..=2);
    wait_idle(&cluster);
    let id = message(&cluster, 1);
    assert_eq!(
        redeliver(&cluster, &id),
        2,
        "calls queued, one for each URL"
    );
    wait_idle(&cluster);
    for path in ["/ok/a", "/ok/b"] {
        let mut received = receiver.received_at(path);
        received.retain(|call| call.message_id() == id);
        assert_eq!(attempts(&received), [1, 1], "{path}");
        assert_eq!(received[0].raw, received[1].raw, "{path}");
        assert_ne!(
            received[0].header("webhook-call-id"),
            received[1].header("webhook-call-id")
        );
        assert_eq!(receiver.received_at(path).len(), 3, "the other came once");
    }
    assert_eq!(statuses(&cluster), "delivered, delivered");
    assert_eq!(cluster.value::<String>(COUNTERS), "2 6 0");
    assert_eq!(cluster.value::<String>(QUEUE), "0 0 0, 0 0 0");
    assert_eq!(
        cluster.psql("select count(*) from webhook_internal.retry"),
        "0\n",
        "a redelivery leaves nothing behind"
    );

    // Rolled back: nothing is sent again.
    cluster.sql(&format!(
        "begin; select webhook.redeliver('{id}'); rollback; insert into items values (3)"
    ));
    wait_idle(&cluster);
    assert_eq!(receiver.received_at("/ok/a").len(), 4);
}

#[test]
fn the_age_and_attempts_of_a_redelivered_message_start_over() {
    let (cluster, receiver) = cluster_with("start_over", "100ms");
    let options = "max_attempts => 2, max_age => '10 seconds'";
    watch(&cluster, &receiver, "late", &["/ok"], options);
    receiver.behave("/ok", "/status/500");
    insert(&cluster, 1..=1);
    cluster.wait_for_text(PATIENCE, QUEUE, "0 0 1");
    cluster.wait_for_text(
        PATIENCE,
        "select (clock_timestamp() - event_date > interval '10 seconds')::text
         from webhook.messages where status = 'failed'",
        "true",
    );
    let id = message(&cluster, 1);
    assert_eq!(redeliver(&cluster, &id), 1);
    receiver.wait_for(PATIENCE, "/ok", 4);
    cluster.wait_for_text(PATIENCE, QUEUE, "0 0 1");
    assert_eq!(statuses(&cluster), "failed");

    receiver.behave_normally("/ok");
    assert_eq!(redeliver(&cluster, &id), 1);
    cluster.wait_for_text(PATIENCE, QUEUE, "0 0 0");
    assert_eq!(attempts(&receiver.received_at("/ok")), [1, 2, 1, 2, 1]);
    assert_eq!(statuses(&cluster), "delivered");
    assert_eq!(cluster.value::<String>(COUNTERS), "1 5 4");
}

#[test]
fn redeliver_failed_sends_again_what_failed_between_two_moments_and_nothing_else() {
    let (cluster, receiver) = cluster_with("redeliver_failed", "1h");
    watch(
        &cluster,
        &receiver,
        "a",
        &["/ok/a", "/ok/b", "/ok/fine"],
        "max_attempts => 1",
    );
    watch(
        &cluster,
        &receiver,
        "other",
        &["/ok/other"],
        "max_attempts => 1",
    );
    let failing = ["/ok/a", "/ok/b", "/ok/other"];
    for path in failing {
        receiver.behave(path, "/status/500");
    }
    for id in 1..=3 {
        insert(&cluster, id..=id);
        wait_idle(&cluster);
    }
    cluster.wait_for_text(PATIENCE, QUEUE, "0 0 3, 0 0 3, 0 0 0, 0 0 3");
    for path in failing {
        receiver.behave_normally(path);
    }
    let dates = |id: i64| -> String {
        cluster.value(&format!(
            "select min(captured_at)::text from webhook_internal.outbox where record = '{{\"id\":{id}}}'"
        ))
    };
    let (second, third) = (dates(2), dates(3));
    let between =
        format!("select webhook.redeliver_failed('a', since => '{second}', until => '{third}')");
    assert_eq!(
        cluster.value::<i64>(&between),
        2,
        "since included, until not; two URLs"
    );
    wait_idle(&cluster);
    assert_eq!(cluster.value::<i64>(&between), 0, "they failed no more");
    cluster.wait_for_text(PATIENCE, QUEUE, "0 0 2, 0 0 2, 0 0 0, 0 0 3");
    assert_eq!(
        cluster.value::<i64>("select webhook.redeliver_failed('a')"),
        4
    );
    wait_idle(&cluster);
    cluster.wait_for_text(PATIENCE, QUEUE, "0 0 0, 0 0 0, 0 0 0, 0 0 3");
    for path in ["/ok/a", "/ok/b"] {
        let again: BTreeSet<String> = records_at(&receiver, path)[4..].iter().cloned().collect();
        assert_eq!(records_at(&receiver, path)[3], inserts([2])[0], "{path}");
        assert_eq!(again, inserts([1, 3]).into_iter().collect(), "{path}");
        assert_eq!(attempts(&receiver.received_at(path)), [1; 6], "{path}");
    }
    assert_eq!(receiver.received_at("/ok/fine").len(), 3);
    assert_eq!(receiver.received_at("/ok/other").len(), 3);
    assert_eq!(cluster.value::<String>(COUNTERS), "3 15 6, 3 3 3");
}

#[test]
fn redeliver_failed_says_how_far_it_is_when_there_are_many() {
    let (cluster, receiver) = cluster_with("many_failed", "1h");
    watch(&cluster, &receiver, "many", &["/ok"], "");
    // Rolled back: these rows have no messages.
    let script = format!(
        "begin;
         insert into webhook_internal.retry (url_key, xid, id, message_id, webhook_key, event_key, event_date, attempts, state)
         select u.url_key, '3', n, gen_random_uuid(), u.webhook_key, null,
                timestamptz '2026-01-01' + n * interval '1 second', 1, 'failed'
         from webhook.url_def u, generate_series(1, {}) as n;
         select webhook.redeliver_failed('many', until => timestamptz '2026-01-01' + {} * interval '1 second');
         select count(*) from webhook_internal.retry where state = 'failed';
         rollback;",
        2 * TELLS_AFTER + 50_000,
        2 * TELLS_AFTER + 10_000
    );
    let output = cluster
        .client_program("psql", "postgres")
        .args([
            "-X",
            "-q",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-c",
            &script,
        ])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    // Until is not included.
    assert_eq!(String::from_utf8_lossy(&output.stdout), "209999\n40001\n");
    let notices: Vec<&str> = said.lines().collect();
    assert_eq!(notices.len(), 2, "{said}");
    for (notice, at_least) in notices.iter().zip([TELLS_AFTER, 2 * TELLS_AFTER]) {
        let count = notice
            .strip_prefix("NOTICE:  ")
            .and_then(|rest| rest.strip_suffix(" failed messages queued so far"))
            .and_then(|number| number.parse::<i64>().ok());
        let near = at_least..at_least + TELLS_AFTER / 2;
        assert!(count.is_some_and(|count| near.contains(&count)), "{notice}");
    }
}
