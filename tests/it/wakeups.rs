//! The worker hears at once of what is committed, also where no signal tells it or where the
//! signal gets lost.

use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::support::definitions::wait_idle;
use super::support::wait::try_until;
use super::support::watched::{insert_items, watch_items};
use super::support::worker::worker_of;
use super::support::{Cluster, Receiver, PATIENCE};

const ROUNDS: usize = 9;

fn now_us() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(now.as_micros()).unwrap()
}

/// How long after `since_us` the newest request came, in milliseconds.
fn lateness_ms(receiver: &Receiver, wanted: u64, since_us: u64) -> f64 {
    receiver.wait_for(PATIENCE, "/ok", wanted);
    let received = receiver.received_at("/ok");
    let newest = received.iter().map(|call| call.received_at_us).max();
    newest.unwrap().saturating_sub(since_us) as f64 / 1000.0
}

fn cluster_that_prepares(name: &str) -> (Cluster, Receiver) {
    let cluster = Cluster::builder(name)
        .set("webhook.allowed_networks", "127.0.0.0/8")
        .set("max_prepared_transactions", 5)
        .start();
    cluster.sql("create extension webhook_ext");
    let receiver = Receiver::start();
    watch_items(&cluster, &receiver, "/ok");
    insert_items(&cluster, 1..=1);
    wait_idle(&cluster);
    (cluster, receiver)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[test]
fn a_transaction_that_its_session_prepared_and_committed_is_sent_at_once() {
    let (cluster, receiver) = cluster_that_prepares("prepared_same");
    let mut session = cluster.connect("postgres");
    let mut late = Vec::new();
    for round in 0..ROUNDS {
        session
            .batch_execute(&format!(
                "begin; insert into items values ({}); prepare transaction 'p'",
                10 + round
            ))
            .unwrap();
        // Longer than between two looks, and at no fixed distance from them.
        thread::sleep(Duration::from_millis(130 + 17 * round as u64));
        session.batch_execute("commit prepared 'p'").unwrap();
        late.push(lateness_ms(&receiver, 2 + round as u64, now_us()));
    }
    println!("ms after COMMIT PREPARED by the same session: {late:?}");
    assert!(median(late) <= 200.0);
    cluster.sql("begin; insert into items values (99); prepare transaction 'p'");
    cluster.sql("rollback prepared 'p'");
    insert_items(&cluster, 100..=100);
    wait_idle(&cluster);
    assert_eq!(receiver.count("/ok").requests, 2 + ROUNDS as u64);
}

#[test]
fn a_transaction_that_another_session_commits_is_sent_soon() {
    let (cluster, receiver) = cluster_that_prepares("prepared_other");
    let mut late = Vec::new();
    for round in 0..ROUNDS {
        cluster.sql(&format!(
            "begin; insert into items values ({}); prepare transaction 'p'",
            10 + round
        ));
        // A session that has never heard of the extension.
        let mut other = cluster.connect("postgres");
        other.batch_execute("select 1").unwrap();
        thread::sleep(Duration::from_millis(130 + 17 * round as u64));
        other.batch_execute("commit prepared 'p'").unwrap();
        late.push(lateness_ms(&receiver, 2 + round as u64, now_us()));
    }
    println!("ms after COMMIT PREPARED by another session: {late:?}");
    assert!(median(late) <= 500.0);
}

/// Each round the worker waits for a lock inside its own transaction when a COMMIT wakes it.
#[test]
fn a_commit_is_not_forgotten_while_the_worker_waits_for_a_lock() {
    let (cluster, receiver) = cluster_that_prepares("swallowed");
    let worker = worker_of(&cluster, "postgres");
    let mut blocker = cluster.connect("postgres");
    let mut session = cluster.connect("postgres");
    let mut late = Vec::new();
    let mut waited = 0;
    for round in 0..ROUNDS as u64 {
        let mut locked = blocker.transaction().unwrap();
        locked
            .batch_execute("lock table webhook_internal.settlement in exclusive mode")
            .unwrap();
        let id = 10 + 2 * round as i64;
        insert_items(&cluster, id..=id);
        receiver.wait_for(PATIENCE, "/ok", 2 + 2 * round);
        // Now the worker wants to write what became of it.
        let waits = "select exists (select from pg_locks where pid = $1 and not granted)";
        let is_waiting = try_until(Duration::from_secs(1), || {
            let row = session.query_one(waits, &[&worker]).unwrap();
            row.get::<_, bool>(0).then_some(()).ok_or_else(String::new)
        });
        waited += usize::from(is_waiting.is_ok());
        insert_items(&cluster, id + 1..=id + 1);
        let committed = Instant::now();
        // The signal must have been there, and be gone, before the lock is.
        thread::sleep(Duration::from_millis(50));
        locked.rollback().unwrap();
        let released_us = now_us();
        late.push(lateness_ms(&receiver, 3 + 2 * round, released_us));
        assert!(committed.elapsed() < PATIENCE);
        wait_idle(&cluster);
    }
    println!(
        "the worker waited in {waited} of {ROUNDS} rounds; ms after the lock was gone: {late:?}"
    );
    assert!(late.iter().all(|ms| *ms <= 1000.0), "{late:?}");
}
