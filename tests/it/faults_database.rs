//! The extension or the database is dropped while calls are in flight (fault 9).

use std::time::Duration;

use super::support::stalls;
use super::support::watched::{insert_statement, watch_items_in};
use super::support::worker::{cluster_restarts, wait_until_gone, worker_of};
use super::support::{ready_cluster, Cluster, Receiver, PATIENCE};

const FOR_EVER: &str = ", timeout_ms => 600000";

/// PostgreSQL gives other sessions of a database five seconds to leave; the rest is the
/// command's own work on a busy machine.
const COMMAND_LIMIT: Duration = Duration::from_secs(6);

/// A database `doomed` whose worker has calls at a receiver that does not answer, and
/// more to send than it can.
fn sending_database(name: &str) -> (Cluster, Receiver, i32) {
    let (cluster, receiver) = ready_cluster(name);
    // The postmaster says on this level what becomes of its workers.
    cluster.configure("log_min_messages", "debug1");
    cluster.reload();
    cluster.sql("create database doomed");
    cluster.sql_in("doomed", "create extension webhook_ext");
    watch_items_in(&cluster, "doomed", &receiver, "/hang/a", FOR_EVER);
    watch_items_in(&cluster, "doomed", &receiver, "/slow/20/b", "");
    cluster.sql_in("doomed", &insert_statement(1..=2000));
    receiver.wait_for(PATIENCE, "/hang/a", 16);
    receiver.wait_for(PATIENCE, "/slow", 16);
    let worker = worker_of(&cluster, "doomed");
    (cluster, receiver, worker)
}

fn assert_quick(cluster: &Cluster, database: &str, command: &str) {
    stalls::assert_within(COMMAND_LIMIT, command, || cluster.sql_in(database, command));
}

#[test]
fn drop_extension_ends_the_worker_and_leaves_the_tables_writable() {
    let (cluster, receiver, worker) = sending_database("dropextension");
    // This session knows the tables that go and where its worker was.
    let mut session = cluster.connect("doomed");
    let mut insert = |ids| session.batch_execute(&insert_statement(ids)).unwrap();
    insert(2901..=2910);
    assert_quick(&cluster, "doomed", "drop extension webhook_ext cascade");
    wait_until_gone(&cluster, COMMAND_LIMIT, worker);
    insert(3001..=3010);

    // It may come back, and then works as ever.
    cluster.sql_in("doomed", "create extension webhook_ext");
    watch_items_in(&cluster, "doomed", &receiver, "/ok/c", "");
    insert(3011..=3020);
    receiver.wait_for(PATIENCE, "/ok/c", 10);
    assert_ne!(worker_of(&cluster, "doomed"), worker);
    assert_eq!(cluster_restarts(&cluster), 0, "{}", cluster.log());
}

#[test]
fn drop_database_finds_the_worker_gone() {
    let (cluster, _receiver, worker) = sending_database("dropdatabase");
    assert_quick(&cluster, "postgres", "drop database doomed");
    wait_until_gone(&cluster, COMMAND_LIMIT, worker);
    assert_no_worker_comes_back(&cluster);
}

#[test]
fn drop_database_with_force_finds_the_worker_gone() {
    let (cluster, _receiver, worker) = sending_database("dropforce");
    assert_quick(&cluster, "postgres", "drop database doomed with (force)");
    wait_until_gone(&cluster, COMMAND_LIMIT, worker);
    assert_no_worker_comes_back(&cluster);
}

/// The postmaster tries the worker again after a second, once, and then forgets it.
fn assert_no_worker_comes_back(cluster: &Cluster) {
    let forgotten = "unregistering background worker \"webhook_ext worker of database";
    cluster.wait_until(PATIENCE, "the postmaster to forget the worker", || {
        if cluster.log().contains(forgotten) {
            Ok(())
        } else {
            Err("it may still try".to_owned())
        }
    });
    assert_eq!(cluster_restarts(cluster), 0, "{}", cluster.log());
    // The worker of the other database has not suffered.
    worker_of(cluster, "postgres");
}

#[test]
fn a_database_that_is_sending_can_be_copied_and_both_go_on() {
    let (cluster, receiver, before) = sending_database("template");
    receiver.behave("/slow/20/b", "/ok");
    assert_quick(&cluster, "postgres", "create database copy template doomed");
    cluster.exempt_from_bookkeeping("the copy has the messages of its original, not their calls");

    cluster.sql_in("doomed", &insert_statement(3001..=3010));
    wait_for_item(&cluster, &receiver, 3010);
    assert_ne!(worker_of(&cluster, "doomed"), before);
    cluster.sql_in("copy", "select webhook.adopt('forget')");
    cluster.sql_in("copy", &insert_statement(4001..=4010));
    wait_for_item(&cluster, &receiver, 4010);
    assert_ne!(
        worker_of(&cluster, "copy"),
        worker_of(&cluster, "doomed"),
        "one worker serves two databases"
    );
    assert_eq!(cluster_restarts(&cluster), 0, "{}", cluster.log());
}

fn wait_for_item(cluster: &Cluster, receiver: &Receiver, id: i64) {
    let wanted = format!("\"id\":{id},");
    let mut seen = 0;
    cluster.wait_until(PATIENCE, &format!("item {id}"), || {
        let new = receiver.received_since(seen);
        seen = new.last().map_or(seen, |request| request.seq);
        if new.iter().any(|request| request.raw.contains(&wanted)) {
            Ok(())
        } else {
            Err(format!("{seen} requests, not this one"))
        }
    });
}
