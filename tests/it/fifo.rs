//! `delivery_order => 'fifo'`: what depends on one another arrives in order, through
//! failures, restarts, backlogs, giant transactions, throttling and pauses.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::support::definitions::{create_event, create_webhook};
use super::support::ending::SetOnDrop;
use super::support::worker::{wait_until_gone, wait_until_up, worker_of};
use super::support::{Cluster, Received, Receiver, StopMode, PATIENCE};

/// Rows that many sessions change at once.
pub(super) const ROWS: i64 = 20;
const SESSIONS: u32 = 8;
/// So that they do not make many more messages than one connection takes meanwhile.
const BETWEEN_CHANGES: Duration = Duration::from_millis(40);
/// One call at a time in a debug build on a machine that has much else to do: each call waits
/// for its turn several times. On an idle one it is some thousands.
const SLOWEST_PER_SECOND: u64 = 50;

pub(super) const QUEUE: &str =
    "select string_agg(concat_ws(' ', replace(state, 'failing', 'active'), pending, retrying, failed), ', '
                                       order by outgoing_url)
                     from webhook.queue";

/// A cluster with this `webhook.retry_schedule` and a table of versioned rows.
pub(super) fn cluster_with(name: &str, schedule: &str) -> (Cluster, Receiver) {
    let cluster = Cluster::builder(name)
        .set("webhook.allowed_networks", "127.0.0.0/8")
        .set("webhook.retry_schedule", schedule)
        .start();
    cluster.sql("create extension webhook_ext; create table items (id bigint, version integer)");
    (cluster, Receiver::start())
}

/// A webhook of this path alone that keeps the order, named as its path.
fn watch(cluster: &Cluster, receiver: &Receiver, path: &str, options: &str) {
    let options = format!("delivery_order => 'fifo', log_level => 'none'{options}");
    create_webhook(cluster, path, &[receiver.url(path)], &options);
    for kind in ["Insert", "Update"] {
        create_event(cluster, path, "items", kind, "");
    }
}

pub(super) fn insert(cluster: &Cluster, ids: std::ops::RangeInclusive<i64>) {
    let mut session = cluster.connect("postgres");
    for id in ids {
        let inserted = session.execute("insert into items values ($1, 1)", &[&id]);
        inserted.expect("a row can be inserted");
    }
}

pub(super) fn number(received: &Received, field: &str) -> i64 {
    let value = &received.body()["data"][0][field];
    value
        .as_i64()
        .unwrap_or_else(|| panic!("no {field} in {received:?}"))
}

pub(super) fn ids_at(receiver: &Receiver, path: &str) -> Vec<i64> {
    let received = receiver.received_at(path);
    received.iter().map(|call| number(call, "id")).collect()
}

pub(super) fn attempts_at(receiver: &Receiver, path: &str) -> Vec<(i64, u32)> {
    let received = receiver.received_at(path);
    received
        .iter()
        .map(|call| (number(call, "id"), call.attempt()))
        .collect()
}

/// The versions of each row came one after the other, from the first to the last. A version
/// may come again at once (its call failed), and as often as the worker was ended some that
/// were not settled come again, in order.
pub(super) fn assert_versions_in_order(cluster: &Cluster, received: &[Received], ends: usize) {
    let mut seen: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
    let mut steps_back: BTreeMap<i64, usize> = BTreeMap::new();
    for call in received {
        let (id, version) = (number(call, "id"), number(call, "version"));
        let (last, newest) = seen.entry(id).or_insert((0, 0));
        assert!(
            version <= *last + 1,
            "row {id}: version {version} came after {last}; {} calls",
            received.len()
        );
        if version < *last {
            *steps_back.entry(id).or_default() += 1;
        }
        *last = version;
        *newest = version.max(*newest);
    }
    assert!(
        steps_back.values().all(|steps| *steps <= ends),
        "the worker was ended {ends} times, rows went back {steps_back:?}"
    );
    let mut session = cluster.connect("postgres");
    let rows = session.query("select id, version::bigint from items order by id", &[]);
    let rows = rows.expect("items can be read");
    let committed: BTreeMap<i64, i64> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let newest = seen
        .into_iter()
        .map(|(id, (_, newest))| (id, newest))
        .collect();
    assert_eq!(committed, newest, "the newest version of each row");
}

/// Sessions that change random rows, one to three in a transaction, until `ending`.
/// Each in the order of ids, so that they do not lock one another out.
fn change_rows(cluster: &Cluster, ending: &AtomicBool) {
    let change = format!(
        "update items set version = version + 1
         where id in (select 1 + floor(random() * {ROWS})::bigint
                      from generate_series(1, 1 + floor(random() * 3)::integer))"
    );
    while !ending.load(Ordering::Relaxed) {
        // A killed worker takes all sessions with it, and two may deadlock.
        let Ok(mut session) = cluster.try_connect_as("postgres", "postgres") else {
            thread::sleep(Duration::from_millis(20));
            continue;
        };
        while !ending.load(Ordering::Relaxed) && session.batch_execute(&change).is_ok() {
            thread::sleep(BETWEEN_CHANGES);
        }
    }
}

/// What `meanwhile` does while [`SESSIONS`] change rows.
pub(super) fn while_rows_change(cluster: &Cluster, meanwhile: impl FnOnce()) {
    let ending = AtomicBool::new(false);
    thread::scope(|scope| {
        let _end = SetOnDrop(&ending);
        for _ in 0..SESSIONS {
            scope.spawn(|| change_rows(cluster, &ending));
        }
        meanwhile();
    });
}

/// Waits until nothing is left to deliver.
pub(super) fn wait_until_empty(cluster: &Cluster, limit: Duration) {
    cluster.wait_until(limit, "nothing to be pending", || {
        let left: String = cluster
            .value("select string_agg(concat_ws(' ', outgoing_url, state, pending, retrying), ', ') from webhook.queue");
        let pending: i64 = cluster.value("select sum(pending + retrying)::bigint from webhook.queue");
        let idle: bool = cluster.value("select webhook.wait_idle('5 seconds')");
        if pending == 0 && idle { Ok(()) } else { Err(left) }
    });
}

#[test]
fn a_failing_message_is_called_until_it_is_taken_before_the_next_one_is() {
    let (cluster, receiver) = cluster_with("fifoflaky", "20ms");
    watch(&cluster, &receiver, "/flaky/2", "");
    insert(&cluster, 1..=15);
    wait_until_empty(&cluster, PATIENCE);
    let expected: Vec<(i64, u32)> = (1..=15)
        .flat_map(|id| (1..=3).map(move |attempt| (id, attempt)))
        .collect();
    assert_eq!(attempts_at(&receiver, "/flaky/2"), expected);
}

#[test]
fn rows_arrive_in_order_although_the_receiver_fails_and_the_worker_is_killed() {
    let (cluster, receiver) = cluster_with("fifokilled", "20ms");
    watch(
        &cluster,
        &receiver,
        "/unsteady/10",
        ", max_attempts => 1000",
    );
    insert(&cluster, 1..=ROWS);
    let signals = ["KILL", "TERM", "KILL"];
    while_rows_change(&cluster, || {
        for signal in signals {
            let seen = receiver.count("/unsteady").requests;
            receiver.wait_for(PATIENCE, "/unsteady", seen + 150);
            let worker = worker_of(&cluster, "postgres");
            cluster.signal(worker, signal);
            wait_until_gone(&cluster, PATIENCE, worker);
            wait_until_up(&cluster);
        }
        let seen = receiver.count("/unsteady").requests;
        receiver.wait_for(PATIENCE, "/unsteady", seen + 150);
    });
    wait_until_empty(&cluster, PATIENCE * 2);
    let received = receiver.received();
    let failures: i64 = cluster.value("select errors from webhook.webhooks");
    assert!(failures > 20, "{failures} of {} failed", received.len());
    assert_versions_in_order(&cluster, &received, signals.len());
}

#[test]
fn a_backlog_arrives_in_order_after_a_pause_and_through_a_throttle() {
    let (cluster, receiver) = cluster_with("fifobacklog", "20ms");
    watch(&cluster, &receiver, "/unsteady/5", ", max_attempts => 1000");
    watch(
        &cluster,
        &receiver,
        "/ok/throttled",
        ", call_throttling => 400",
    );
    insert(&cluster, 1..=ROWS);
    cluster
        .sql("select webhook.pause_webhook('/unsteady/5'), webhook.pause_webhook('/ok/throttled')");
    while_rows_change(&cluster, || {
        let waits = "select (min(pending) > 600)::text from webhook.queue";
        cluster.wait_for_text(PATIENCE * 2, waits, "true");
        cluster.sql("select webhook.resume_webhook(name) from webhook.webhooks");
        receiver.wait_for(PATIENCE, "/ok/throttled", 300);
        cluster.sql("select webhook.pause_webhook('/ok/throttled')");
        receiver.wait_for(PATIENCE, "/unsteady/5", 600);
    });
    cluster.sql("select webhook.resume_webhook('/ok/throttled')");
    wait_until_empty(&cluster, PATIENCE * 4);
    for path in ["/unsteady/5", "/ok/throttled"] {
        assert_versions_in_order(&cluster, &receiver.received_at(path), 0);
    }
}

#[test]
fn a_giant_transaction_arrives_in_order_and_what_follows_it_after_it() {
    // Three steps of the look that is taken at a large window.
    const GIANT: u64 = 60_000;
    /// Two updates of every thousandth row.
    const UPDATES: u64 = 2 * (GIANT / 1000);
    let (cluster, receiver) = cluster_with("fifogiant", "20ms");
    watch(&cluster, &receiver, "/ok/giant", "");
    cluster.sql(&format!(
        "insert into items select n, 1 from generate_series(1, {GIANT}) n"
    ));
    cluster.sql("update items set version = 2 where id % 1000 = 0");
    cluster.sql("update items set version = 3 where id % 1000 = 0");
    let limit = Duration::from_secs(GIANT / SLOWEST_PER_SECOND);
    receiver.wait_for(limit, "/ok/giant", GIANT + UPDATES);
    let received = receiver.received_at("/ok/giant");
    let ids: Vec<i64> = received.iter().map(|call| number(call, "id")).collect();
    assert!(
        ids[..GIANT as usize].iter().copied().eq(1..=GIANT as i64),
        "the rows of one transaction come as they were written"
    );
    assert_versions_in_order(&cluster, &received, 0);
}

#[test]
fn what_is_given_up_or_too_large_lets_the_next_one_go() {
    let (cluster, receiver) = cluster_with("fifodead", "50ms");
    // A reload reaches the worker some time; a restart leaves no doubt.
    cluster.configure("webhook.max_message_size", "10kB");
    cluster.stop(StopMode::Fast);
    cluster.start_again();
    cluster.sql("alter table items add filler text");
    watch(&cluster, &receiver, "/ok/dead", ", max_attempts => 2");
    receiver.behave_for("/ok/dead", "/status/500", 2);
    insert(&cluster, 1..=2);
    cluster.sql("insert into items values (3, 1, repeat('x', 20000))");
    insert(&cluster, 4..=5);
    wait_until_empty(&cluster, PATIENCE);
    assert_eq!(ids_at(&receiver, "/ok/dead"), [1, 1, 2, 4, 5]);
    cluster.wait_for_text(PATIENCE, QUEUE, "active 0 0 2");
}

#[test]
fn a_waiting_message_holds_its_own_url_alone_also_after_a_restart_and_keeps_its_attempts() {
    let (cluster, receiver) = cluster_with("fiforestart", "1h");
    let urls = ["/ok/held", "/ok/other"].map(|path| receiver.url(path));
    create_webhook(&cluster, "two", &urls, "delivery_order => 'fifo'");
    create_event(&cluster, "two", "items", "Insert", "");
    receiver.behave_for("/ok/held", "/status/500", 2);
    insert(&cluster, 1..=5);
    receiver.wait_for(PATIENCE, "/ok/other", 5);
    cluster.wait_for_text(PATIENCE, QUEUE, "backing_off 4 1 0, active 0 0 0");
    let due = "select (next_attempt_at between now() + interval '50 min'
                                           and now() + interval '72 min')::text
               from webhook.queue where retrying = 1";
    cluster.wait_for_text(PATIENCE, due, "true");
    assert!(
        cluster.value::<bool>("select webhook.wait_idle('2 s')"),
        "what waits for a later retry is not waited for"
    );
    cluster.stop(StopMode::Fast);
    cluster.start_again();
    // No worker runs yet; the one that comes finds that the hour is nearly over.
    cluster.sql("update webhook_internal.retry set next_at = clock_timestamp() + interval '3 s'");
    let due_us: i64 = cluster.value(
        "select (extract(epoch from next_at) * 1000000)::bigint from webhook_internal.retry",
    );
    insert(&cluster, 6..=6);
    receiver.wait_for(PATIENCE, "/ok/other", 6);
    receiver.wait_for(PATIENCE, "/ok/held", 2);
    let second = &receiver.received_at("/ok/held")[1];
    assert!(second.received_at_us >= due_us as u64, "it was not due yet");
    // A failure that is written down after the call of resume_webhook() would hold it again.
    let failures = "select count(*)::text from webhook.calls where status <> 'Success'";
    cluster.wait_for_text(PATIENCE, failures, "2");
    cluster.wait_for_text(PATIENCE, QUEUE, "backing_off 5 1 0, active 0 0 0");
    cluster.sql("select webhook.resume_webhook('two')");
    wait_until_empty(&cluster, PATIENCE);
    let expected = [
        (1, 1),
        (1, 2),
        (1, 3),
        (2, 1),
        (3, 1),
        (4, 1),
        (5, 1),
        (6, 1),
    ];
    assert_eq!(attempts_at(&receiver, "/ok/held"), expected);
    assert_eq!(ids_at(&receiver, "/ok/other"), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn a_resumed_webhook_calls_the_message_that_holds_the_others_at_once() {
    let (cluster, receiver) = cluster_with("fiforesume", "1h");
    watch(&cluster, &receiver, "/ok/held", "");
    receiver.behave_for("/ok/held", "/status/500", 1);
    insert(&cluster, 1..=3);
    cluster.wait_for_text(PATIENCE, QUEUE, "backing_off 2 1 0");
    cluster.sql("select webhook.resume_webhook('/ok/held')");
    wait_until_empty(&cluster, PATIENCE);
    assert_eq!(ids_at(&receiver, "/ok/held"), [1, 1, 2, 3]);

    receiver.behave_for("/ok/held", "/status/410", 1);
    insert(&cluster, 4..=6);
    cluster.wait_for_text(PATIENCE, QUEUE, "disabled 2 1 0");
    cluster.sql("select webhook.resume_webhook('/ok/held')");
    wait_until_empty(&cluster, PATIENCE);
    assert_eq!(ids_at(&receiver, "/ok/held")[4..], [4, 4, 5, 6]);
}

#[test]
fn an_edit_of_the_order_holds_what_comes_and_lets_it_go() {
    let (cluster, receiver) = cluster_with("fifoedit", "1h");
    watch(&cluster, &receiver, "/ok/edited", "");
    cluster.sql("select webhook.update_webhook('/ok/edited', delivery_order => 'none')");
    receiver.behave_for("/ok/edited", "/status/500", 1);
    insert(&cluster, 1..=1);
    cluster.wait_for_text(PATIENCE, QUEUE, "active 0 1 0");
    insert(&cluster, 2..=2);
    receiver.wait_for(PATIENCE, "/ok/edited", 2);

    cluster.sql("select webhook.update_webhook('/ok/edited', delivery_order => 'fifo')");
    insert(&cluster, 3..=3);
    cluster.wait_for_text(PATIENCE, QUEUE, "backing_off 1 1 0");
    cluster.sql("select webhook.update_webhook('/ok/edited', delivery_order => 'none')");
    receiver.wait_for(PATIENCE, "/ok/edited", 3);
    cluster.wait_for_text(PATIENCE, QUEUE, "active 0 1 0");
    assert_eq!(ids_at(&receiver, "/ok/edited"), [1, 2, 3]);
}

#[test]
fn others_go_on_when_what_waits_was_canceled_redelivered_or_is_gone() {
    let (cluster, receiver) = cluster_with("fifocancel", "1h");
    watch(&cluster, &receiver, "/ok/canceled", "");
    for (failing, call) in [
        // It is canceled …
        (1, "webhook.cancel(message_id)"),
        // … or called again at once, and delivered.
        (3, "webhook.redeliver(message_id)"),
    ] {
        receiver.behave_for("/ok/canceled", "/status/500", 1);
        insert(&cluster, failing..=failing + 1);
        cluster.wait_for_text(PATIENCE, QUEUE, "backing_off 1 1 0");
        cluster.sql(&format!(
            "select {call} from webhook_internal.retry where state = 'waiting'"
        ));
        wait_until_empty(&cluster, PATIENCE);
    }
    // The third was called twice, and the fourth after it.
    assert_eq!(ids_at(&receiver, "/ok/canceled"), [1, 2, 3, 3, 4]);

    // The row of a message that waits is gone: it can never be sent, and holds nothing.
    receiver.behave_for("/ok/canceled", "/status/500", 1);
    insert(&cluster, 5..=5);
    cluster.wait_for_text(PATIENCE, QUEUE, "backing_off 0 1 0");
    cluster.sql("truncate webhook.outbox_0; select webhook.resume_webhook('/ok/canceled')");
    insert(&cluster, 6..=6);
    wait_until_empty(&cluster, PATIENCE);
    assert_eq!(ids_at(&receiver, "/ok/canceled")[5..], [5, 6]);
    cluster.wait_for_text(PATIENCE, QUEUE, "active 0 0 1");
}

#[test]
fn an_outage_burns_the_attempts_of_the_first_message_alone() {
    let (cluster, receiver) = cluster_with("fifooutage", "100ms");
    watch(&cluster, &receiver, "/ok/down", ", max_attempts => 100");
    receiver.behave("/ok/down", "/status/503");
    insert(&cluster, 1..=50);
    receiver.wait_for(PATIENCE, "/ok/down", 6);
    let looks_at_rest = retry_looks(&cluster);
    receiver.behave_normally("/ok/down");
    wait_until_empty(&cluster, PATIENCE);
    let attempts = attempts_at(&receiver, "/ok/down");
    let probes = attempts.iter().filter(|(id, _)| *id == 1).count();
    assert!((6..10).contains(&probes), "{attempts:?}");
    assert!(attempts[..probes].iter().all(|(id, _)| *id == 1));
    let rest: Vec<(i64, u32)> = (2..=50).map(|id| (id, 1)).collect();
    assert_eq!(attempts[probes..], rest);
    assert!(
        looks_at_rest < 20,
        "{looks_at_rest} looks in a second of silence"
    );
}

/// How often the worker looked at the retry table in a second.
fn retry_looks(cluster: &Cluster) -> i64 {
    let scans = "select coalesce(sum(idx_scan), 0)::bigint from pg_stat_user_indexes
                 where schemaname = 'webhook_internal' and relname = 'retry'";
    let before: i64 = cluster.value(scans);
    thread::sleep(Duration::from_secs(1));
    cluster.value::<i64>(scans) - before
}
