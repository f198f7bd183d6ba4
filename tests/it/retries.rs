//! What becomes of a message whose call fails: when it is repeated, under which
//! name, how it ends, and what views and counters say of it meanwhile.

use std::time::Duration;

use super::support::definitions::{records_at, wait_idle};
use super::support::items::{cluster_with, watch};
use super::support::stalls::{self, Stalls};
use super::support::{Received, PATIENCE};

/// From one end of a pause to the other, beside the pause itself and what the machine takes.
const SLACK: Duration = Duration::from_millis(700);

const QUEUE: &str = "select string_agg(concat_ws(' ', state, pending, retrying, failed), ', '
                                       order by outgoing_url)
                     from webhook.queue";

const STATUS: &str = "select string_agg(status, ', ' order by event_date) from webhook.messages";

/// The pauses between calls, each with how much of it the machine stood still.
fn pauses(received: &[Received], stalls: &Stalls) -> Vec<(Duration, Duration)> {
    let between = received.windows(2).map(|pair| {
        let (from_us, to_us) = (pair[0].received_at_us, pair[1].received_at_us);
        let pause = Duration::from_micros(to_us.saturating_sub(from_us));
        (pause, stalls.between(from_us, to_us))
    });
    between.collect()
}

/// One message under one id, called three times.
fn assert_repeated(received: &[Received]) {
    let attempts: Vec<u32> = received.iter().map(Received::attempt).collect();
    assert_eq!(attempts, [1, 2, 3]);
    assert!(received
        .iter()
        .all(|call| call.message_id() == received[0].message_id()));
    assert!(received.iter().all(|call| call.raw == received[0].raw));
    let call_ids: std::collections::BTreeSet<&str> = received
        .iter()
        .map(|call| call.header("webhook-call-id"))
        .collect();
    assert_eq!(call_ids.len(), 3);
}

#[test]
fn a_failed_message_is_repeated_on_schedule_under_its_id_until_it_is_taken() {
    let (cluster, receiver) = cluster_with("schedule", "1s, 2s");
    let paths = ["/flaky/2/a", "/flaky/2/b", "/flaky/2/c", "/flaky/2/d"];
    watch(&cluster, &receiver, "flaky", &paths, "");
    stalls::watched(|stalls| {
        cluster.sql("insert into items values (1)");
        cluster.wait_for_text(PATIENCE, STATUS, "delivered");
        for path in paths {
            let received = receiver.received_at(path);
            assert_repeated(&received);
            let pauses = pauses(&received, stalls);
            for ((pause, stood_still), scheduled_s) in pauses.into_iter().zip([1, 2]) {
                let scheduled = Duration::from_secs(scheduled_s);
                // Up to a fifth is added at random, nothing taken off.
                let longest = scheduled + scheduled / 5 + SLACK + stood_still;
                assert!(
                    (scheduled..longest).contains(&pause),
                    "{path} was called {pause:?} after a failure, scheduled were {scheduled:?}"
                );
            }
        }
    });
    let none = ["active 0 0 0"; 4].join(", ");
    cluster.wait_for_text(PATIENCE, QUEUE, &none);
    assert_eq!(
        cluster.psql("select messages, calls, errors from webhook.webhooks"),
        "1|12|8\n"
    );
}

/// By the tables, which show the schedule exactly: nothing is called again meanwhile.
#[test]
fn a_later_retry_is_pending_at_a_moment_up_to_a_fifth_later_than_scheduled() {
    const PATHS: usize = 20;
    let (cluster, receiver) = cluster_with("jitter", "1h");
    let paths: Vec<String> = (0..PATHS).map(|n| format!("/status/500/{n}")).collect();
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    watch(&cluster, &receiver, "failing", &paths, "");
    cluster.sql("insert into items values (1)");
    let all_retry = ["failing 0 1 0"; PATHS].join(", ");
    cluster.wait_for_text(PATIENCE, QUEUE, &all_retry);
    cluster.wait_for_text(PATIENCE, STATUS, "pending");
    assert!(
        cluster.value::<bool>("select webhook.wait_idle('500 ms')"),
        "a later retry is not waited for"
    );
    // In seconds after the call ended; its duration is logged in whole milliseconds.
    let delays = "select extract(epoch from r.next_at - c.called_at)::float8 - c.duration_ms / 1000.0::float8
                  from webhook_internal.retry r
                  join webhook.url_def u on u.url_key = r.url_key
                  join webhook.calls c on c.outgoing_url = u.url";
    let mut session = cluster.connect("postgres");
    let rows = session.query(delays, &[]).unwrap();
    let delays: Vec<f64> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(delays.len(), PATHS);
    assert!(
        delays.iter().all(|s| (3599.99..4320.01).contains(s)),
        "{delays:?}"
    );
    let most = delays.iter().copied().fold(0.0, f64::max);
    let least = delays.iter().copied().fold(f64::MAX, f64::min);
    assert!(most - least > 60.0, "no jitter: {delays:?}");
}

#[test]
fn a_message_whose_attempts_run_out_has_failed_and_is_called_no_more() {
    let (cluster, receiver) = cluster_with("exhausted", "300ms");
    let paths = ["/ok", "/status/500?body=broken"];
    watch(&cluster, &receiver, "short", &paths, "max_attempts => 3");
    cluster.sql("insert into items values (1)");
    cluster.wait_for_text(PATIENCE, QUEUE, "active 0 0 0, failing 0 0 1");
    cluster.wait_for_text(PATIENCE, STATUS, "failed");
    cluster.sql("insert into items values (2)");
    let failed = "select string_agg(failed::text, ' ' order by outgoing_url) from webhook.queue";
    cluster.wait_for_text(PATIENCE, failed, "0 2");
    cluster.wait_for_text(PATIENCE, STATUS, "failed, failed");

    let received = receiver.received_at(paths[1]);
    let attempts: Vec<u32> = received.iter().map(Received::attempt).collect();
    assert_eq!(attempts, [1, 2, 3, 1, 2, 3]);
    // The fifth failure made the URL back off: longer than the schedule says.
    let pause_us = received[5].received_at_us - received[4].received_at_us;
    assert!(pause_us >= 1_000_000, "{pause_us} us");
    assert_eq!(receiver.received_at("/ok").len(), 2);
    assert_eq!(
        cluster.psql("select messages, calls, errors from webhook.webhooks"),
        "2|8|6\n"
    );
    assert_eq!(
        cluster.psql("select messages, calls, errors from webhook.events"),
        "2|8|6\n"
    );
    assert_eq!(
        cluster.psql(
            "select attempt, status, http_code, http_response, detail
             from webhook.calls where outgoing_url ~ '500' order by called_at limit 3"
        ),
        (1..=3)
            .map(|n| format!("{n}|Failure|500|broken|answered 500 Internal Server Error\n"))
            .collect::<String>()
    );
    assert_eq!(
        cluster
            .psql("select last_error, next_attempt_at is null from webhook.queue where failed = 0"),
        "|t\n"
    );
}

#[test]
fn a_message_that_would_be_too_old_at_its_next_call_has_failed() {
    let (cluster, receiver) = cluster_with("max_age", "2s");
    watch(
        &cluster,
        &receiver,
        "old",
        &["/status/500"],
        "max_age => '1 second'",
    );
    cluster.sql("insert into items values (1)");
    cluster.wait_for_text(PATIENCE, QUEUE, "failing 0 0 1");
    cluster.wait_for_text(PATIENCE, STATUS, "failed");
    assert_eq!(receiver.count("/status/500").requests, 1);
}

/// Also where the message is given up, so that it does not hold the others itself.
#[test]
fn after_410_not_one_more_message_is_sent() {
    let (cluster, receiver) = cluster_with("gone_last", "1s");
    for order in ["none", "fifo"] {
        for round in 1..=10 {
            let path = format!("/ok/{order}{round}");
            let options =
                format!("max_attempts => 1, max_in_flight => 1, delivery_order => '{order}'");
            watch(&cluster, &receiver, &path, &[&path], &options);
            receiver.behave_for(&path, "/status/410", 1);
        }
    }
    cluster.sql("insert into items select generate_series(1, 20)");
    let states = "select string_agg(distinct concat_ws(' ', state, pending, failed), ', ') from webhook.queue";
    cluster.wait_for_text(PATIENCE, states, "disabled 19 1");
    for order in ["none", "fifo"] {
        for round in 1..=10 {
            let path = format!("/ok/{order}{round}");
            assert_eq!(receiver.received_at(&path).len(), 1, "{path}");
        }
    }
}

#[test]
fn a_url_that_is_gone_is_switched_off_until_it_is_resumed_and_loses_nothing() {
    let (cluster, receiver) = cluster_with("gone", "1s");
    watch(
        &cluster,
        &receiver,
        "gone",
        &["/ok/leaves", "/ok/stays"],
        "max_in_flight => 1",
    );
    receiver.behave("/ok/leaves", "/status/410");
    cluster.sql("insert into items values (1)");
    cluster.wait_for_text(
        PATIENCE,
        "select string_agg(state, ', ' order by outgoing_url) from webhook.queue",
        "disabled, active",
    );
    receiver.behave_normally("/ok/leaves");
    cluster.sql("insert into items select n from generate_series(2, 10) n");
    wait_idle(&cluster);
    assert_eq!(receiver.received_at("/ok/stays").len(), 10);
    assert_eq!(receiver.received_at("/ok/leaves").len(), 1);
    assert_eq!(
        cluster.psql("select pending, last_error from webhook.queue where state = 'disabled'"),
        "9|the receiver answered 410 Gone\n"
    );
    assert_eq!(
        cluster.psql("select status, count(*) from webhook.messages group by status"),
        "pending|10\n"
    );

    cluster.sql("select webhook.resume_webhook('gone')");
    cluster.wait_for_text(PATIENCE, QUEUE, "active 0 0 0, active 0 0 0");
    let mut received = records_at(&receiver, "/ok/leaves");
    // The first is a retry, and goes when it is due.
    received.sort();
    let mut expected: Vec<String> = (1..=10)
        .map(|id| format!(r#"Insert {{"id":{id}}}"#))
        .chain([r#"Insert {"id":1}"#.to_owned()])
        .collect();
    expected.sort();
    assert_eq!(received, expected);
    assert_eq!(
        cluster.psql("select messages, calls, errors from webhook.webhooks"),
        "10|21|1\n"
    );
    assert_eq!(
        cluster.psql("select status, count(*) from webhook.messages group by status"),
        "delivered|10\n"
    );
}

#[test]
fn thousands_of_retries_that_are_due_at_once_are_all_made() {
    const MESSAGES: u64 = 3000;
    let (cluster, receiver) = cluster_with("many", "1h");
    watch(
        &cluster,
        &receiver,
        "many",
        &["/ok/many"],
        "max_attempts => 1",
    );
    receiver.behave("/ok/many", "/status/400");
    cluster.sql(&format!(
        "insert into items select n from generate_series(1, {MESSAGES}) n"
    ));
    cluster.wait_for_text(PATIENCE, QUEUE, &format!("failing 0 0 {MESSAGES}"));
    receiver.behave_normally("/ok/many");
    let queued: i64 = cluster.value("select webhook.redeliver_failed('many')");
    assert_eq!(queued as u64, MESSAGES);
    // The worker looks for what is due by itself: nothing else happens here.
    cluster.wait_for_text(PATIENCE, QUEUE, "active 0 0 0");
    let ids: std::collections::BTreeSet<_> =
        records_at(&receiver, "/ok/many").into_iter().collect();
    assert_eq!(ids.len() as u64, MESSAGES);
    assert_eq!(receiver.count("/ok/many").requests, 2 * MESSAGES);
}
