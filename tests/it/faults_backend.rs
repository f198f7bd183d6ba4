//! A user's session is killed or panics within capture (faults 1 and 7).

use super::support::watched::{assert_items_delivered, insert_items, wait_idle, watch_items};
use super::support::worker::{cluster_restarts, wait_until_up};
use super::support::{ready_cluster, PATIENCE};

#[test]
fn a_session_killed_before_commit_sends_nothing_and_others_lose_nothing() {
    let (cluster, receiver) = ready_cluster("killed");
    watch_items(&cluster, &receiver, "/ok/a");
    insert_items(&cluster, 1..=50);

    let mut victim = cluster.connect("postgres");
    let pid: i32 = victim
        .query_one("select pg_backend_pid()", &[])
        .unwrap()
        .get(0);
    victim
        .batch_execute(
            "begin;
             insert into items select n, repeat('x', 1000000) from generate_series(1001, 1006) n;
             insert into items values (1007, 'small')",
        )
        .unwrap();
    // Part of it is beyond the buffer: rows that are in the outbox and never committed.
    let bytes: i64 = cluster.value(
        "select sum(pg_total_relation_size('webhook.outbox_' || n))::bigint
         from generate_series(0, 3) n",
    );
    assert!(bytes > 100_000, "nothing was written early: {bytes} bytes");
    cluster.signal(pid, "KILL");
    cluster.wait_until(
        PATIENCE,
        "the postmaster to notice",
        || match cluster_restarts(&cluster) {
            1 => Ok(()),
            seen => Err(format!("{seen} restarts")),
        },
    );
    wait_until_up(&cluster);
    assert!(victim.simple_query("commit").is_err());

    insert_items(&cluster, 51..=100);
    let received = assert_items_delivered(&cluster, &receiver, "/ok/a", PATIENCE);
    assert!(received.len() >= 100);
}

#[test]
fn a_panic_in_the_trigger_is_an_error_of_that_statement_alone() {
    let (cluster, receiver) = ready_cluster("triggerpanic");
    watch_items(&cluster, &receiver, "/ok/a");
    insert_items(&cluster, 1..=10);
    let mut session = cluster.connect("postgres");
    session
        .batch_execute("load 'webhook_ext'; set webhook.fault = 'trigger'")
        .unwrap();
    let error = session
        .batch_execute("insert into items values (11, null)")
        .unwrap_err();
    let error = error.as_db_error().expect("the server answered");
    assert_eq!(error.message(), "fault injected: trigger");

    // The session, a transaction with a savepoint and others go on.
    session
        .batch_execute(
            "begin;
             set local webhook.fault = '';
             insert into items values (12, null);
             savepoint s;
             set local webhook.fault = 'trigger'",
        )
        .unwrap();
    assert!(session
        .batch_execute("insert into items values (13, null)")
        .is_err());
    session
        .batch_execute("rollback to s; insert into items values (14, null); commit")
        .unwrap();
    insert_items(&cluster, 15..=20);
    wait_idle(&cluster, PATIENCE);

    let received = assert_items_delivered(&cluster, &receiver, "/ok/a", PATIENCE);
    assert_eq!(received.len(), 18, "{received:#?}");
    assert_eq!(cluster_restarts(&cluster), 0, "{}", cluster.log());
}
