//! Writers and readers beside a rotation: none is in its way or loses anything.

use postgres::Client;

use super::support::definitions::wait_idle;
use super::support::rings::{files, rotate, small_cluster, ROTATED_LIMIT};
use super::support::watched::{
    assert_items_delivered, insert_items, insert_statement, watch_items,
};
use super::support::worker::worker_of;
use super::support::PATIENCE;

fn run_all(session: &mut Client, statements: &str) {
    session
        .batch_execute(statements)
        .unwrap_or_else(|error| panic!("{statements}: {error:?}"));
}

#[test]
fn writers_that_began_before_a_rotation_lose_nothing() {
    let (cluster, receiver) = small_cluster("rotation_writers", "1s");
    watch_items(&cluster, &receiver, "/ok/a");
    insert_items(&cluster, 1..=1);
    wait_idle(&cluster);
    // A snapshot, a table that is written early, and a transaction that is prepared.
    let mut repeatable = cluster.connect("postgres");
    run_all(
        &mut repeatable,
        "begin isolation level repeatable read; select count(*) from items",
    );
    let mut early = cluster.connect("postgres");
    run_all(
        &mut early,
        "begin; insert into items select n, repeat('x', 1000000) from generate_series(101, 106) n",
    );
    cluster.sql(&format!(
        "begin; {}; prepare transaction 'kept'",
        insert_statement(201..=203)
    ));
    let mut next = 1001;
    for _ in 0..3 {
        rotate(&cluster, &mut next);
    }
    run_all(
        &mut repeatable,
        &format!("{}; commit", insert_statement(301..=303)),
    );
    run_all(
        &mut early,
        &format!("{}; commit", insert_statement(107..=109)),
    );
    cluster.sql("commit prepared 'kept'");
    rotate(&cluster, &mut next);
    let expected = (next - 1001) as u64 + 1 + 9 + 3 + 3;
    receiver.wait_for(PATIENCE, "/ok/a", expected);
    let received = assert_items_delivered(&cluster, &receiver, "/ok/a", PATIENCE);
    assert_eq!(received.len() as u64, expected, "nothing was repeated");
    // What was written into a closed table does not hold it for ever.
    cluster.wait_until(
        ROTATED_LIMIT,
        "the early writer's messages to be forgotten",
        || match cluster.value::<i64>(
            "select count(*) from webhook_internal.outbox where length(record) > 100000",
        ) {
            0 => Ok(()),
            left => Err(format!(
                "{left} there\n{}",
                cluster.psql("select * from webhook_internal.segment order by 1, 2")
            )),
        },
    );
}

#[test]
fn a_reader_delays_the_emptying_and_blocks_no_writer() {
    let (cluster, receiver) = small_cluster("rotation_reader", "1s");
    watch_items(&cluster, &receiver, "/ok/a");
    insert_items(&cluster, 1..=10);
    wait_idle(&cluster);
    let mut reader = cluster.connect("postgres");
    run_all(&mut reader, "begin; select count(*) from webhook.messages");
    let before = files(&cluster, "outbox");
    let worker = worker_of(&cluster, "postgres");
    let mut writer = cluster.connect("postgres");
    run_all(&mut writer, "set statement_timeout = '5s'");
    let mut next = 11;
    cluster.wait_until(ROTATED_LIMIT, "three tables to be closed", || {
        run_all(&mut writer, &insert_statement(next..=next + 49));
        next += 50;
        // Nobody waits for the worker, and the worker for nobody.
        let waiting: i64 = cluster.value(&format!(
            "select count(*) from pg_locks where not granted and pid = {worker}"
        ));
        assert_eq!(waiting, 0, "the worker waits for a lock");
        match cluster.value::<i64>(
            "select count(*) from webhook_internal.segment where kind = 'outbox' and closed_at is not null",
        ) {
            3 => Ok(()),
            closed => Err(format!("{closed} closed")),
        }
    });
    assert_eq!(
        files(&cluster, "outbox"),
        before,
        "nothing is emptied meanwhile"
    );
    run_all(&mut reader, "commit");
    cluster.wait_until(ROTATED_LIMIT, "the first table to be emptied", || {
        if files(&cluster, "outbox")[0] == before[0] {
            Err("it is as it was".to_owned())
        } else {
            Ok(())
        }
    });
    let received = assert_items_delivered(&cluster, &receiver, "/ok/a", PATIENCE);
    assert_eq!(received.len() as i64, next - 1);
}
