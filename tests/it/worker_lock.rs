//! What makes a worker the only one of its database, and that nobody else can hold it.

use super::support::definitions::{sorted_records_at, wait_idle};
use super::support::items::{cluster_with, insert, inserts, watch};
use super::support::worker::{wait_until_gone, worker_of, workers_in};
use super::support::PATIENCE;

/// The numbers of the worker's lock in pg_locks.
const HELD_BY_WORKER: &str = "select string_agg(format('%s %s %s', classid, objid, objsubid), ', ')
    from pg_locks l join pg_stat_activity a using (pid)
    where l.locktype = 'advisory' and a.backend_type = 'webhook_ext'";

const HELD_BY_WORKER_KIND: &str = "select string_agg(objsubid::text, ', ')
    from pg_locks l join pg_stat_activity a using (pid)
    where l.locktype = 'advisory' and a.backend_type = 'webhook_ext'";

#[test]
fn no_login_role_can_keep_the_worker_away() {
    let (cluster, receiver) = cluster_with("lock", "1h");
    watch(&cluster, &receiver, "w", &["/ok"], "");
    cluster.sql("create role nobody login");
    let worker = worker_of(&cluster, "postgres");
    let held: String = cluster.value(HELD_BY_WORKER);
    let numbers: Vec<i64> = held
        .split(' ')
        .map(|number| number.parse().unwrap())
        .collect();
    let [class, object, _] = numbers[..] else {
        panic!("one lock: {held}")
    };
    let bigint = (class << 32) | object;
    let mut waiting = Vec::new();
    for lock in [format!("{class}, {object}"), bigint.to_string()] {
        let mut session = cluster.connect_as("nobody", "postgres");
        waiting.push(std::thread::spawn(move || {
            session
                .batch_execute(&format!("select pg_advisory_lock({lock})"))
                .map(|()| session)
        }));
    }
    cluster.wait_for_text(
        PATIENCE,
        "select count(*)::text from pg_locks l join pg_stat_activity a using (pid)
         where l.locktype = 'advisory' and a.usename = 'nobody'",
        "2",
    );
    cluster.sql(&format!("select pg_terminate_backend({worker})"));
    wait_until_gone(&cluster, PATIENCE, worker);
    insert(&cluster, 1..=1);
    receiver.wait_for(PATIENCE, "/ok", 1);
    let sessions: Vec<_> = waiting
        .into_iter()
        .map(|thread| thread.join().unwrap().unwrap())
        .collect();
    // And where it is held before the worker comes.
    let worker = worker_of(&cluster, "postgres");
    cluster.sql(&format!("select pg_terminate_backend({worker})"));
    wait_until_gone(&cluster, PATIENCE, worker);
    insert(&cluster, 2..=2);
    wait_idle(&cluster);
    assert_eq!(sorted_records_at(&receiver, "/ok"), inserts(1..=2));
    drop(sessions);
}

/// A worker whose library is that of 0.1.0 holds another lock.
#[test]
fn a_worker_of_the_first_release_keeps_a_new_one_away() {
    let (cluster, receiver) = cluster_with("older_worker", "1h");
    watch(&cluster, &receiver, "w", &["/ok"], "");
    let restart = |worker| {
        cluster.sql(&format!("select pg_terminate_backend({worker})"));
        wait_until_gone(&cluster, PATIENCE, worker);
        worker_of(&cluster, "postgres")
    };
    cluster.sql("alter database postgres set webhook.fault = 'first_release_lock'");
    let older = restart(worker_of(&cluster, "postgres"));
    cluster.wait_for_text(PATIENCE, HELD_BY_WORKER_KIND, "2");
    cluster.sql("alter database postgres reset webhook.fault");
    // The end of a stop starts one without a look at whether one runs.
    cluster.sql("update webhook.control set worker_stopped = true; select webhook.start_worker()");
    let mut session = cluster.connect("postgres");
    cluster.wait_until(PATIENCE, "a second worker", || {
        match workers_in(&mut session, "postgres").len() {
            2 => Ok(()),
            count => Err(format!("{count} workers")),
        }
    });
    insert(&cluster, 1..=100);
    assert_eq!(worker_of(&cluster, "postgres"), older, "the new one leaves");
    insert(&cluster, 101..=200);
    wait_idle(&cluster);
    assert_eq!(receiver.count("/ok").requests, 200, "one of them sends");
    restart(older);
    cluster.wait_for_text(PATIENCE, HELD_BY_WORKER_KIND, "3");
    insert(&cluster, 201..=201);
    receiver.wait_for(PATIENCE, "/ok", 201);
}
