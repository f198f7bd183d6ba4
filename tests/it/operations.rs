//! What users do with single messages (redeliver, cancel), with those that failed, and the
//! numbers that webhook.metrics shows.

use std::collections::BTreeSet;

use super::support::definitions::{
    create_event, create_webhook, records_at, wait_idle, wait_until_heard,
};
use super::support::worker::{wait_until_gone, worker_of};
use super::support::{Cluster, Received, Receiver, PATIENCE};

/// So many failed messages are taken up between two notices, as the function's comment says.
const TELLS_AFTER: i64 = 100_000;

/// Receivers that hold a call must not see it end before they let go.
const FOR_EVER: &str = "timeout_ms => 600000";

/// The same, one call at a time.
const ONE_FOR_EVER: &str = "max_in_flight => 1, timeout_ms => 600000";

/// A cluster with this `webhook.retry_schedule`, and a table `items`.
fn cluster_with(name: &str, schedule: &str) -> (Cluster, Receiver) {
    let cluster = Cluster::builder(name)
        .set("webhook.allowed_networks", "127.0.0.0/8")
        .set("webhook.retry_schedule", schedule)
        .start();
    cluster.sql("create extension webhook_ext; create table items (id integer)");
    (cluster, Receiver::start())
}

fn watch(cluster: &Cluster, receiver: &Receiver, name: &str, paths: &[&str], options: &str) {
    let urls: Vec<String> = paths.iter().map(|path| receiver.url(path)).collect();
    create_webhook(cluster, name, &urls, options);
    create_event(cluster, name, "items", "Insert", "");
}

fn insert(cluster: &Cluster, ids: std::ops::RangeInclusive<i32>) {
    cluster.sql(&format!(
        "insert into items select generate_series({}, {})",
        ids.start(),
        ids.end()
    ));
}

/// The id of the message of the item that was inserted as number `place`, counted from 1.
fn message(cluster: &Cluster, place: i32) -> String {
    cluster.value(&format!(
        "select message_id::text
         from webhook.outbox o join webhook.webhook_def w using (webhook_key)
         where w.name <> 'ping'
         order by o.id offset {} limit 1",
        place - 1
    ))
}

fn cancel(cluster: &Cluster, message_id: &str) -> bool {
    cluster.value(&format!("select webhook.cancel('{message_id}')"))
}

fn redeliver(cluster: &Cluster, message_id: &str) -> i32 {
    cluster.value(&format!("select webhook.redeliver('{message_id}')"))
}

/// The statuses in the order of the messages.
fn statuses(cluster: &Cluster) -> String {
    cluster.value(
        "select coalesce(string_agg(m.status, ', ' order by o.id), '')
         from webhook.messages m
         join webhook.outbox o using (message_id)
         join webhook.webhook_def w using (webhook_key)
         where w.name <> 'ping'",
    )
}

const QUEUE: &str = "select string_agg(concat_ws(' ', pending, retrying, failed), ', '
                                       order by outgoing_url)
                     from webhook.queue where webhook_name <> 'ping'";

const COUNTERS: &str =
    "select string_agg(concat_ws(' ', messages, calls, errors), ', ' order by name)
     from webhook.webhooks where name <> 'ping'";

fn attempts(received: &[Received]) -> Vec<u32> {
    received.iter().map(Received::attempt).collect()
}

fn inserts(ids: impl IntoIterator<Item = i32>) -> Vec<String> {
    ids.into_iter()
        .map(|id| format!(r#"Insert {{"id":{id}}}"#))
        .collect()
}

fn stop_worker(cluster: &Cluster) {
    let worker = worker_of(cluster, "postgres");
    cluster.sql("select webhook.stop_worker()");
    wait_until_gone(cluster, PATIENCE, worker);
}

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
        cluster.psql("select count(*) from webhook.retry"),
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
fn a_redelivered_message_has_its_age_and_its_attempts_anew() {
    let (cluster, receiver) = cluster_with("anew", "100ms");
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
    let dates = |id: i32| -> String {
        cluster.value(&format!(
            "select min(captured_at)::text from webhook.outbox where record = '{{\"id\":{id}}}'"
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
         insert into webhook.retry (url_key, xid, id, message_id, webhook_key, event_key, event_date, attempts, state)
         select u.url_key, '3', n, gen_random_uuid(), u.webhook_key, null,
                timestamptz '2026-01-01' + n * interval '1 second', 1, 'failed'
         from webhook.url_def u, generate_series(1, {}) as n;
         select webhook.redeliver_failed('many', until => timestamptz '2026-01-01' + {} * interval '1 second');
         select count(*) from webhook.retry where state = 'failed';
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

fn pause(cluster: &Cluster) {
    cluster.sql("select webhook.pause_webhook('w')");
}

fn resume(cluster: &Cluster) {
    cluster.sql("select webhook.resume_webhook('w')");
}

#[test]
fn a_message_canceled_while_its_webhook_is_paused_is_not_sent_until_it_is_redelivered() {
    assert_canceled_while("cancel_paused", pause, resume);
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
    pause(&cluster);
    insert(&cluster, 1..=3);
    let id = message(&cluster, 2);
    assert!(cancel(&cluster, &id));
    assert_eq!(redeliver(&cluster, &id), 1);
    assert_eq!(statuses(&cluster), "pending, pending, pending");
    assert_eq!(cluster.value::<String>(QUEUE), "3 0 0");
    assert_eq!(redeliver(&cluster, &id), 0, "it waits for its first call");
    resume(&cluster);
    wait_idle(&cluster);
    let mut received = records_at(&receiver, "/ok");
    received.sort();
    assert_eq!(received, inserts([1, 2, 3]));
}

#[test]
fn messages_are_canceled_anywhere_in_the_backlog_of_a_lagging_url() {
    const MESSAGES: i32 = 4000;
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
               from webhook.outbox o
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
    wait_until_heard(&cluster);
    receiver.behave_normally("/ok/w");
    wait_idle(&cluster);
    let expected = inserts((1..=MESSAGES).filter(|id| !canceled.contains(id)));
    assert!(
        records_at(&receiver, "/ok/w") == expected,
        "each of the others once, in order"
    );
    assert_eq!(receiver.received_at("/ok/other").len(), MESSAGES as usize);
    assert_eq!(cluster.value::<String>(QUEUE), "0 0 0, 0 0 0");
    assert_eq!(
        cluster.psql(
            "select m.status, count(*)
             from webhook.messages m join webhook.webhooks w on w.id = m.webhook_id
             where w.name <> 'ping'
             group by 1 order by 1"
        ),
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
    wait_until_heard(&cluster);
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
    wait_until_heard(&cluster);
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
    wait_until_heard(&cluster);
    receiver.behave("/hold", "/ok");
    cluster.wait_for_text(PATIENCE, COUNTERS, "1 1 0");
    wait_idle(&cluster);
    cluster.wait_for_text(PATIENCE, "select count(*)::text from webhook.retry", "0");
    assert_eq!(statuses(&cluster), "delivered");
    assert_eq!(cluster.value::<String>(QUEUE), "0 0 0");
}

#[test]
fn the_metrics_show_every_number_to_a_reader() {
    let (cluster, receiver) = cluster_with("metrics", "1h");
    watch(&cluster, &receiver, "good", &["/ok"], "");
    watch(
        &cluster,
        &receiver,
        "bad",
        &["/status/500", "/status/410"],
        "",
    );
    insert(&cluster, 1..=3);
    wait_idle(&cluster);
    cluster.sql("select webhook.pause_webhook('good')");
    insert(&cluster, 4..=4);
    cluster.sql("create role a_reader login in role webhook_reader");
    let mut reader = cluster.connect_as("a_reader", "postgres");
    let rows = reader
        .query(
            "select name, coalesce(labels ->> 'webhook', ''),
                    coalesce(regexp_replace(labels ->> 'outgoing_url', '.*:[0-9]+', ''), ''), value
             from webhook.metrics order by 1, 2, 3",
            &[],
        )
        .unwrap();
    let of = |name: &str| -> Vec<String> {
        rows.iter()
            .filter(|row| row.get::<_, &str>(0) == name)
            .map(|row| {
                let place = [row.get::<_, &str>(1), row.get::<_, &str>(2)].concat();
                format!("{place} {}", row.get::<_, f64>(3))
            })
            .collect()
    };
    assert_eq!(of("webhook_messages_total"), ["bad 4", "good 4"]);
    assert_eq!(of("webhook_worker_up"), [" 1"]);
    assert_eq!(
        of("webhook_failed_messages"),
        ["bad/status/410 0", "bad/status/500 0", "good/ok 0"]
    );
    assert_eq!(
        of("webhook_url_disabled"),
        ["bad/status/410 1", "bad/status/500 0", "good/ok 0"]
    );
    let positive = |name: &str| {
        let found = of(name);
        assert_eq!(found.len(), 1, "{name}: {found:?}");
        assert!(!found[0].ends_with(" 0"), "{name}: {found:?}");
    };
    positive("webhook_outbox_bytes");
    positive("webhook_call_log_bytes");
    let names: BTreeSet<&str> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(names.len(), 12, "{names:?}");

    // The same numbers as the views that they are taken from.
    let difference = cluster.psql(
        "with viewed (name, label, value) as (
             select 'webhook_calls_total', id, calls from webhook.events
             union all select 'webhook_call_errors_total', id, errors from webhook.events
             union all select 'webhook_messages_total', id, messages from webhook.events
             union all select 'webhook_pending_messages', outgoing_url, pending from webhook.queue
             union all select 'webhook_retrying_messages', outgoing_url, retrying from webhook.queue
             union all select 'webhook_failed_messages', outgoing_url, failed from webhook.queue
             union all select 'webhook_url_backing_off', outgoing_url, (state = 'backing_off')::integer
                       from webhook.queue),
         measured (name, label, value) as (
             select name, coalesce(labels ->> 'outgoing_url', labels ->> 'event_id'), value
             from webhook.metrics
             where name in (select name from viewed))
         (select * from viewed except select * from measured)
         union all (select * from measured except select * from viewed)",
    );
    assert_eq!(difference, "");
    assert_eq!(of("webhook_pending_messages")[2], "good/ok 1");
    let waits: f64 = cluster.value(
        "select value from webhook.metrics
         where name = 'webhook_oldest_pending_seconds' and labels ->> 'webhook' = 'good'",
    );
    assert!(waits > 0.0 && waits < 60.0, "{waits} s");
    // Of a URL that refuses everything the message waits for its retry.
    assert!(of("webhook_retrying_messages")[1].starts_with("bad/status/500 "));
    assert_ne!(of("webhook_retrying_messages")[1], "bad/status/500 0");
}
