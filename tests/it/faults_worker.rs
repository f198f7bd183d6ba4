//! The worker is killed, stopped or panics (faults 2, 3, 4 and 7).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::support::stalls;
use super::support::watched::{
    assert_items_delivered, insert_items, wait_idle, wait_until_nothing_is_left, watch_items,
    watch_items_in,
};
use super::support::worker::{
    cluster_restarts, wait_for_restarts, wait_until_gone, worker_of, workers_in,
};
use super::support::{ready_cluster, ready_cluster_with, Cluster, Received, PATIENCE};

/// Receivers that hang must not end a call before the test wants it.
const FOR_EVER: &str = ", timeout_ms => 600000";

/// How long a worker that is asked to end may take.
const END_LIMIT: Duration = Duration::from_secs(5);

/// Each waits for the one before it to arrive. A worker that nobody wakes makes some thirteen
/// looks in its first ten seconds, each as late as all before it together, and then one in ten
/// seconds: these would take it a quarter of an hour.
const ROWS_IN_STEP: i64 = 100;

fn calls_of_each_message(received: &[Received]) -> BTreeMap<&str, usize> {
    let mut calls = BTreeMap::new();
    for request in received {
        *calls.entry(request.message_id()).or_default() += 1;
    }
    calls
}

#[test]
fn what_was_sent_but_not_settled_by_a_killed_worker_is_sent_again_under_the_same_id() {
    let (cluster, receiver) = ready_cluster("unsettled");
    watch_items(&cluster, &receiver, "/ok/a");
    insert_items(&cluster, 1..=1);
    wait_idle(&cluster, PATIENCE);

    // Settlements wait for this lock, so that the worker dies between an answer and its record.
    let mut locker = cluster.connect("postgres");
    locker
        .batch_execute("begin; lock table webhook_internal.settlement in exclusive mode")
        .unwrap();
    insert_items(&cluster, 2..=20);
    receiver.wait_for(PATIENCE, "/ok/a", 20);
    let settled: i64 = cluster.value("select count(*) from webhook.calls");
    assert_eq!(settled, 1, "the lock did not hold the settlement back");
    cluster.signal(worker_of(&cluster, "postgres"), "KILL");
    wait_for_restarts(&cluster, 1);

    let received = assert_items_delivered(&cluster, &receiver, "/ok/a", PATIENCE);
    let repeated = calls_of_each_message(&received)
        .into_values()
        .filter(|calls| *calls > 1)
        .count();
    assert_eq!(repeated, 19, "{received:#?}");
    insert_items(&cluster, 21..=30);
    assert_items_delivered(&cluster, &receiver, "/ok/a", PATIENCE);
}

#[test]
fn a_worker_that_is_terminated_in_mid_call_goes_at_once_and_its_successor_calls_again() {
    let (cluster, receiver) = ready_cluster("terminated");
    watch_items_in(&cluster, "postgres", &receiver, "/hang/a", FOR_EVER);
    insert_items(&cluster, 1..=10);
    receiver.wait_for(PATIENCE, "/hang/a", 10);
    receiver.behave("/hang/a", "/ok");
    let before = worker_of(&cluster, "postgres");
    cluster.signal(before, "TERM");
    wait_until_gone(&cluster, END_LIMIT, before);
    insert_items(&cluster, 11..=20);

    let received = assert_items_delivered(&cluster, &receiver, "/hang/a", PATIENCE);
    let calls = calls_of_each_message(&received);
    let repeated = calls.values().filter(|calls| **calls == 2).count();
    assert_eq!((calls.len(), repeated), (20, 10), "{received:#?}");
    assert_ne!(worker_of(&cluster, "postgres"), before);
    assert_eq!(cluster_restarts(&cluster), 0, "{}", cluster.log());
    // A call that we broke off ourselves is nobody's failure.
    assert_eq!(errors(&cluster), 0);
}

#[test]
fn a_worker_that_is_terminated_before_it_has_read_anything_loses_nothing() {
    let (cluster, receiver) = ready_cluster("hasty");
    watch_items_in(&cluster, "postgres", &receiver, "/hang/a", FOR_EVER);
    insert_items(&cluster, 1..=10);
    receiver.wait_for(PATIENCE, "/hang/a", 10);
    receiver.behave("/hang/a", "/ok");
    // The next worker cannot read what it is to do.
    let mut locker = cluster.connect("postgres");
    locker
        .batch_execute("begin; lock table webhook.webhook_def in access exclusive mode")
        .unwrap();
    let first = worker_of(&cluster, "postgres");
    cluster.signal(first, "TERM");
    wait_until_gone(&cluster, END_LIMIT, first);
    let waits = "select count(*)::text from pg_stat_activity
                 where backend_type = 'webhook_ext' and wait_event_type = 'Lock'";
    cluster.wait_for_text(PATIENCE, waits, "1");
    let second = worker_of(&cluster, "postgres");
    cluster.signal(second, "TERM");
    wait_until_gone(&cluster, END_LIMIT, second);
    locker.batch_execute("rollback").unwrap();

    let received = assert_items_delivered(&cluster, &receiver, "/hang/a", PATIENCE);
    assert_eq!(received.len(), 20, "{received:#?}");
    assert_eq!(cluster_restarts(&cluster), 0, "{}", cluster.log());
}

#[test]
fn workers_that_are_killed_or_terminated_under_load_lose_nothing() {
    let (cluster, receiver) = ready_cluster("underload");
    watch_items(&cluster, &receiver, "/ok/a");
    // Sixteen at a time take this one about four seconds: it reads its own backlog.
    watch_items(&cluster, &receiver, "/slow/15/b");
    let mut crashes = 0;
    for (round, signal) in ["KILL", "TERM", "KILL", "TERM", "TERM"].iter().enumerate() {
        let (first, seen) = (1000 * round as i64, receiver.count("/slow").requests);
        for part in 0..4 {
            insert_items(&cluster, first + part * 200..=first + part * 200 + 199);
        }
        receiver.wait_for(PATIENCE, "/slow", seen + 150);
        let worker = worker_of(&cluster, "postgres");
        cluster.signal(worker, signal);
        wait_until_gone(&cluster, END_LIMIT, worker);
        crashes += usize::from(*signal == "KILL");
        wait_for_restarts(&cluster, crashes);
    }
    assert_eq!(cluster_restarts(&cluster), 2, "{}", cluster.log());
    assert_items_delivered(&cluster, &receiver, "/ok/a", PATIENCE);
    assert_items_delivered(&cluster, &receiver, "/slow/15/b", PATIENCE);
}

#[test]
fn a_panic_in_the_loop_costs_a_restart_of_the_worker_and_nothing_else() {
    let (cluster, receiver) = ready_cluster("looppanic");
    watch_items(&cluster, &receiver, "/ok/a");
    watch_items_in(&cluster, "postgres", &receiver, "/hang/b", FOR_EVER);
    insert_items(&cluster, 1..=10);
    receiver.wait_for(PATIENCE, "/ok/a", 10);
    receiver.wait_for(PATIENCE, "/hang/b", 10);
    let before = worker_of(&cluster, "postgres");
    let mut bystander = cluster.connect("postgres");

    cluster.psql("load 'webhook_ext';\nalter system set webhook.fault = 'loop'");
    cluster.reload();
    wait_until_gone(&cluster, PATIENCE, before);
    assert!(
        cluster.log().contains("fault injected: loop"),
        "{}",
        cluster.log()
    );
    insert_items(&cluster, 11..=20);
    bystander
        .batch_execute("insert into items values (21, 'same session')")
        .unwrap();
    assert_eq!(receiver.count("/ok/a").requests, 10);

    receiver.behave("/hang/b", "/ok");
    cluster.psql("load 'webhook_ext';\nalter system reset webhook.fault");
    cluster.reload();
    for path in ["/ok/a", "/hang/b"] {
        assert_items_delivered(&cluster, &receiver, path, PATIENCE);
    }
    assert_eq!(cluster_restarts(&cluster), 0, "{}", cluster.log());
}

#[test]
fn a_panic_in_a_delivery_thread_is_a_failed_call_and_other_urls_go_on() {
    let schedule = ("webhook.retry_schedule", "100ms,1h");
    let (cluster, receiver) = ready_cluster_with("threadpanic", &[schedule]);
    watch_items(&cluster, &receiver, "/ok/webhook-fault-panic");
    watch_items(&cluster, &receiver, "/ok/healthy");
    insert_items(&cluster, 1..=1);
    let worker = worker_of(&cluster, "postgres");
    let panicked = "select count(*)::text from webhook.calls
                    where outgoing_url ~ 'panic' and status = 'Failure' and http_code is null";
    cluster.wait_for_text(PATIENCE, panicked, "2");
    insert_items(&cluster, 2..=200);

    receiver.wait_for(PATIENCE, "/ok/healthy", 200);
    assert_items_delivered(&cluster, &receiver, "/ok/healthy", PATIENCE);
    assert!(receiver.received_at("/ok/webhook-fault-panic").is_empty());
    assert!(errors(&cluster) > 2, "the later messages did not panic");
    let detail = cluster.psql("select distinct detail from webhook.calls where status = 'Failure'");
    assert!(detail.contains("a fault test asked for it"), "{detail}");
    assert_eq!(worker_of(&cluster, "postgres"), worker);
    assert_eq!(cluster_restarts(&cluster), 0, "{}", cluster.log());
}

/// Far longer than a session waits before it starts a worker where it found none (a second),
/// than a second worker would wait for the first (four), and than calls may take.
const STOPPED_FOR: Duration = Duration::from_secs(30);

#[test]
fn a_worker_that_is_stopped_gets_no_rival_and_goes_on_when_it_is_continued() {
    let settings = [
        ("webhook.retry_schedule", "200ms"),
        ("log_min_messages", "debug1"),
    ];
    let (cluster, receiver) = ready_cluster_with("sigstop", &settings);
    watch_items(&cluster, &receiver, "/ok/a");
    watch_items_in(
        &cluster,
        "postgres",
        &receiver,
        "/hang/b",
        ", timeout_ms => 3000",
    );
    insert_items(&cluster, 1..=20);
    receiver.wait_for(PATIENCE, "/ok/a", 20);
    receiver.wait_for(PATIENCE, "/hang/b", 16);
    // Once it has read the answers: after such a rest it would take them for late.
    let calls = "select calls::text from webhook.webhooks where name = '/ok/a'";
    cluster.wait_for_text(PATIENCE, calls, "20");
    let worker = worker_of(&cluster, "postgres");
    let registered = "registering background worker \"webhook_ext worker of database";
    let known = cluster.log().matches(registered).count();
    cluster.signal(worker, "STOP");
    let sent = receiver.count("/ok/a").requests;

    let (mut id, started) = (20, Instant::now());
    let mut watcher = cluster.connect("postgres");
    while started.elapsed() < STOPPED_FOR {
        id += 1;
        // Each in a session that does not know the worker yet.
        insert_items(&cluster, id..=id);
        assert!(!cluster.value::<bool>("select webhook.start_worker()"));
        assert_eq!(workers_in(&mut watcher, "postgres"), [worker]);
    }
    assert_eq!(receiver.count("/ok/a").requests, sent, "it was not stopped");
    assert_eq!(cluster.log().matches(registered).count(), known);

    receiver.behave("/hang/b", "/ok");
    cluster.signal(worker, "CONT");
    wait_until_nothing_is_left(&cluster, PATIENCE);
    for path in ["/ok/a", "/hang/b"] {
        assert_items_delivered(&cluster, &receiver, path, PATIENCE);
    }
    assert_eq!(receiver.received_at("/ok/a").len() as i64, id);
    assert_eq!(worker_of(&cluster, "postgres"), worker);
    assert_eq!(cluster_restarts(&cluster), 0, "{}", cluster.log());
}

fn errors(cluster: &Cluster) -> i64 {
    cluster.value("select sum(errors)::bigint from webhook.webhooks")
}

#[test]
fn a_session_that_knew_the_last_worker_wakes_its_successor() {
    let (cluster, receiver) = ready_cluster("samesession");
    watch_items(&cluster, &receiver, "/ok/a");
    cluster.sql("create database other");
    cluster.sql_in("other", "create extension webhook_ext");
    cluster.sql_in("other", "select webhook.stop_worker()");
    let mut session = cluster.connect("postgres");
    session
        .batch_execute("insert into items values (0, null)")
        .unwrap();
    receiver.wait_for(PATIENCE, "/ok/a", 1);

    let ended = worker_of(&cluster, "postgres");
    cluster.signal(ended, "TERM");
    wait_until_gone(&cluster, END_LIMIT, ended);
    // Takes the place among the processes that has just become free.
    cluster.sql_in("other", "select webhook.start_worker()");
    worker_of(&cluster, "other");
    assert_ne!(worker_of(&cluster, "postgres"), ended);

    stalls::assert_within(PATIENCE, "one row after the other", || {
        for id in 1..=ROWS_IN_STEP {
            session
                .execute("insert into items values ($1, null)", &[&id])
                .unwrap();
            receiver.wait_for(PATIENCE, "/ok/a", id as u64 + 1);
        }
    });
}
