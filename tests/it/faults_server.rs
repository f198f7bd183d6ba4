//! The whole server crashes, stops or starts again (faults 5, 6 and 10).

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread;
use std::time::Duration;

use super::support::ending::SetOnDrop;
use super::support::listener::FullListener;
use super::support::stalls;
use super::support::watched::{
    assert_items_delivered, committed_items, insert_items, wait_idle, watch_items, watch_items_in,
};
use super::support::worker::{wait_until_gone, wait_until_up, worker_of};
use super::support::{ready_cluster, Cluster, Receiver, StopMode, PATIENCE};

const FOR_EVER: &str = ", timeout_ms => 600000";

/// What a fast shutdown may take, whatever receivers do.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// Nobody stays behind for long when the postmaster is gone.
const ORPHAN_LIMIT: Duration = Duration::from_secs(5);

/// Between two attempts at a server that is not up.
const RECONNECT_EVERY: Duration = Duration::from_millis(10);

fn assert_stops_in_time(cluster: &Cluster, mode: StopMode) {
    let took = stalls::timed(|| cluster.stop(mode));
    assert!(took <= STOP_LIMIT, "{mode:?}: {took:?}\n{}", cluster.log());
}

/// A cluster whose worker has ten calls at a receiver that does not answer.
fn hanging_cluster(name: &str) -> (Cluster, Receiver) {
    let (cluster, receiver) = ready_cluster(name);
    watch_items_in(&cluster, "postgres", &receiver, "/hang/a", FOR_EVER);
    watch_items(&cluster, &receiver, "/ok/b");
    insert_items(&cluster, 1..=10);
    receiver.wait_for(PATIENCE, "/hang/a", 10);
    assert_eq!(receiver.count("/hang/a").in_flight, 10);
    (cluster, receiver)
}

/// The server is up again: what was pending goes out, and what comes now.
fn assert_nothing_lost(cluster: &Cluster, receiver: &Receiver, next: i64) {
    receiver.behave("/hang/a", "/ok");
    insert_items(cluster, next..=next + 9);
    for path in ["/hang/a", "/ok/b"] {
        assert_items_delivered(cluster, receiver, path, PATIENCE);
    }
}

#[test]
fn the_worker_ends_with_a_killed_postmaster_and_everything_is_sent_after_the_restart() {
    let (cluster, receiver) = hanging_cluster("postmaster");
    let worker = worker_of(&cluster, "postgres");
    cluster.kill9_postmaster();
    wait_until_gone(&cluster, ORPHAN_LIMIT, worker);
    cluster.start_again();
    assert!(cluster.log().contains("automatic recovery in progress"));
    assert_nothing_lost(&cluster, &receiver, 11);
}

#[test]
fn a_fast_stop_does_not_wait_for_receivers_that_hang() {
    let (cluster, receiver) = hanging_cluster("faststop");
    assert_stops_in_time(&cluster, StopMode::Fast);
    assert_eq!(cluster.postmaster_pid(), None);
    cluster.start_again();
    assert_nothing_lost(&cluster, &receiver, 11);
}

#[test]
fn a_fast_stop_does_not_wait_for_a_connection_that_is_not_accepted() {
    let (cluster, receiver) = ready_cluster("connecting");
    watch_items(&cluster, &receiver, "/ok/b");
    let full = FullListener::new();
    cluster.sql(&format!(
        "select webhook.create_webhook(
             name => 'full', outgoing_urls => array['http://127.0.0.1:{}/']{FOR_EVER});
         select webhook.create_event(
             webhook => 'full', object_name => 'items', event_type => 'table.recordInsert')",
        full.port
    ));
    insert_items(&cluster, 1..=10);
    receiver.wait_for(PATIENCE, "/ok/b", 10);
    let in_flight = "select count(*) > 0 from webhook.queue where webhook_name = 'full'
                     and pending = 10 and state = 'active'";
    cluster.wait_for_text(PATIENCE, &format!("select ({in_flight})::text"), "true");
    assert_stops_in_time(&cluster, StopMode::Fast);
    assert!(
        !cluster.log().contains("terminated by signal"),
        "{}",
        cluster.log()
    );
    assert!(cluster.log().contains("database system is shut down"));
    cluster.start_again();
    insert_items(&cluster, 11..=20);
    receiver.wait_for(PATIENCE, "/ok/b", 20);
}

#[test]
fn an_immediate_stop_loses_nothing() {
    let (cluster, receiver) = hanging_cluster("immediate");
    assert_stops_in_time(&cluster, StopMode::Immediate);
    cluster.start_again();
    assert!(cluster.log().contains("automatic recovery in progress"));
    assert_nothing_lost(&cluster, &receiver, 11);
}

#[test]
fn restarts_under_load_lose_nothing_and_invent_nothing() {
    let (cluster, receiver) = hanging_cluster("restarts");
    let (next, done) = (AtomicI64::new(100), AtomicBool::new(false));
    thread::scope(|scope| {
        let _ending = SetOnDrop(&done);
        for _ in 0..4 {
            scope.spawn(|| write_until(&cluster, &next, &done));
        }
        for (number, mode) in [StopMode::Fast, StopMode::Immediate, StopMode::Fast]
            .into_iter()
            .enumerate()
        {
            let target = next.load(Ordering::Relaxed) + 200;
            cluster.wait_until(PATIENCE, "the writers to go on", || {
                match next.load(Ordering::Relaxed) {
                    seen if seen >= target => Ok(()),
                    seen => Err(format!("{seen} of {target}")),
                }
            });
            assert_stops_in_time(&cluster, mode);
            if number == 2 {
                // Now, because the writers start the worker before we can say it.
                receiver.behave("/hang/a", "/ok");
            }
            cluster.start_again();
        }
    });
    assert_nothing_lost(&cluster, &receiver, 1_000_000);
}

/// Commits rows one by one, over as many connections as that takes. What a broken
/// connection left open the table will tell.
fn write_until(cluster: &Cluster, next: &AtomicI64, done: &AtomicBool) {
    while !done.load(Ordering::Relaxed) {
        let Ok(mut session) = cluster.try_connect_as("postgres", "postgres") else {
            thread::sleep(RECONNECT_EVERY);
            continue;
        };
        while !done.load(Ordering::Relaxed) {
            let id = next.fetch_add(1, Ordering::Relaxed);
            let written = session.execute("insert into items values ($1, 'load')", &[&id]);
            if written.is_err() {
                break;
            }
        }
    }
}

#[test]
fn what_was_sent_of_an_asynchronous_commit_survives_a_crash() {
    let cluster = Cluster::builder("async")
        .durable()
        .set("webhook.allowed_networks", "127.0.0.0/8")
        .set("wal_writer_delay", "10s")
        .set("bgwriter_lru_maxpages", 0)
        .set("autovacuum", "off")
        .start();
    cluster.sql("create extension webhook_ext");
    let receiver = Receiver::start();
    watch_items(&cluster, &receiver, "/ok/a");
    insert_items(&cluster, 1..=1);
    wait_idle(&cluster, PATIENCE);

    // From here on nobody writes the log to disk but he who needs it there.
    let wal_writer: i32 =
        cluster.value("select pid from pg_stat_activity where backend_type = 'walwriter'");
    cluster.signal(wal_writer, "STOP");
    let mut session = cluster.connect("postgres");
    session
        .batch_execute("set synchronous_commit = off")
        .unwrap();
    for id in 2..=20_i64 {
        session
            .execute("insert into items values ($1, 'sent')", &[&id])
            .unwrap();
        receiver.wait_for(PATIENCE, "/ok/a", id as u64);
    }
    let worker = worker_of(&cluster, "postgres");
    cluster.signal(worker, "STOP");
    session
        .batch_execute("insert into items values (21, 'seen by nobody')")
        .unwrap();
    let postmaster = cluster.postmaster_pid().expect("the server runs");
    cluster.signal(postmaster, "KILL");
    wait_until_gone(&cluster, PATIENCE, postmaster);
    cluster.signal(worker, "KILL");
    cluster.signal(wal_writer, "KILL");
    cluster.start_again();

    let committed = committed_items(&cluster);
    assert!(
        !committed.contains("recordInsert 21"),
        "the crash cost no commit, so it proves nothing"
    );
    for id in 1..=20 {
        let change = format!("recordInsert {id}");
        assert!(committed.contains(&change), "{change} was sent and is lost");
    }
    insert_items(&cluster, 31..=40);
    assert_items_delivered(&cluster, &receiver, "/ok/a", PATIENCE);
}

#[test]
fn a_worker_that_starts_at_the_very_beginning_of_a_log_segment_delivers() {
    let (cluster, receiver) = ready_cluster("segment");
    watch_items(&cluster, &receiver, "/ok/a");
    insert_items(&cluster, 1..=10);
    wait_idle(&cluster, PATIENCE);
    let worker = worker_of(&cluster, "postgres");
    cluster.signal(worker, "TERM");
    wait_until_gone(&cluster, STOP_LIMIT, worker);
    cluster.sql("select pg_switch_wal()");
    assert_ne!(worker_of(&cluster, "postgres"), worker);
    let wait = "select webhook.wait_idle('5 seconds')::text";
    cluster.wait_for_text(PATIENCE, wait, "true");
    assert!(!cluster.log().contains("flush"), "{}", cluster.log());
    wait_until_up(&cluster);
    insert_items(&cluster, 11..=20);
    assert_items_delivered(&cluster, &receiver, "/ok/a", PATIENCE);
}
