//! Functions of webhooks and messages in a transaction that captures changes itself: what they do
//! to its own messages, before and after.

use postgres::Client;

use super::support::definitions::{records_at, sorted_records_at, wait_idle};
use super::support::items::{cluster_with, insert, inserts, pause, resume, watch};
use super::support::{Cluster, Receiver, PATIENCE};

const PATH: &str = "/ok";

/// `canceled 1, pending 1` of all messages.
const STATUSES: &str =
    "select coalesce(string_agg(status || ' ' || count, ', ' order by status), '')
                        from (select status, count(*) from webhook.messages group by status) s";

fn paused_cluster(name: &str) -> (Cluster, Receiver) {
    let (cluster, receiver) = cluster_with(name, "1h");
    watch(&cluster, &receiver, "w", &[PATH], "");
    pause(&cluster, "w");
    (cluster, receiver)
}

fn run(session: &mut Client, statements: &str) {
    session
        .batch_execute(statements)
        .unwrap_or_else(|error| panic!("{statements}: {error:?}"));
}

fn number(session: &mut Client, query: &str) -> i64 {
    session.query_one(query, &[]).unwrap().get(0)
}

/// A transaction whose id is older than those of others that commit before it goes on.
fn begin_with_old_id(cluster: &Cluster, isolation: &str, others: &str) -> Client {
    let mut session = cluster.connect("postgres");
    run(
        &mut session,
        &format!("begin isolation level {isolation}; select pg_current_xact_id()"),
    );
    cluster.sql(others);
    session
}

/// Resumes, and compares what arrives and what became of all messages.
fn assert_arrives(
    cluster: &Cluster,
    receiver: &Receiver,
    ids: impl IntoIterator<Item = i64>,
    statuses: &str,
) {
    resume(cluster, "w");
    wait_idle(cluster);
    let mut received = records_at(receiver, PATH);
    received.sort();
    let mut expected = inserts(ids);
    expected.sort();
    assert_eq!(received, expected);
    assert_eq!(cluster.value::<String>(STATUSES), statuses);
    let queue = cluster.psql("select sum(pending), sum(retrying), sum(failed) from webhook.queue");
    assert_eq!(queue, "0|0|0\n");
}

/// Messages 1 and 2 are pending, 2 since the transaction has its id. A snapshot of a whole
/// transaction is older than that.
fn assert_own_changes_are_sent(name: &str, isolation: &str, before: &str, after: &str) {
    let (cluster, receiver) = paused_cluster(name);
    insert(&cluster, 1..=1);
    let mut session = begin_with_old_id(&cluster, isolation, "insert into items values (2)");
    run(&mut session, before);
    let canceled = number(&mut session, "select webhook.cancel_pending('w')");
    let sees = if isolation == "read committed" { 2 } else { 1 };
    assert_eq!(canceled, sees);
    run(&mut session, after);
    run(&mut session, "commit");
    let own = [(before, 3), (after, 4)].into_iter();
    let own = own.filter(|(sql, _)| !sql.is_empty()).map(|(_, id)| id);
    let left: Vec<i64> = (sees + 1..=2).chain(own).collect();
    assert_eq!(
        cluster.value::<i64>("select sum(pending)::bigint from webhook.queue"),
        left.len() as i64,
        "whether the worker has heard of it or not"
    );
    let statuses = format!("canceled {canceled}, delivered {}", left.len());
    assert_arrives(&cluster, &receiver, left, &statuses);
}

#[test]
fn cancel_pending_leaves_what_its_transaction_captures_afterwards() {
    let after = "insert into items values (4)";
    assert_own_changes_are_sent("own_later", "read committed", "", after);
}

#[test]
fn cancel_pending_leaves_what_its_transaction_captured_before() {
    let before = "insert into items values (3)";
    assert_own_changes_are_sent("own_earlier", "read committed", before, "");
}

#[test]
fn cancel_pending_leaves_both_under_repeatable_read_and_in_subtransactions() {
    assert_own_changes_are_sent(
        "own_subxacts",
        "repeatable read",
        "savepoint a; insert into items values (3); release a; savepoint b; insert into items values (9); rollback to b",
        "savepoint c; insert into items values (4); release c",
    );
}

#[test]
fn cancel_pending_of_a_serializable_transaction_spares_its_own() {
    let (cluster, receiver) = paused_cluster("serializable");
    insert(&cluster, 1..=1);
    let mut session = cluster.connect("postgres");
    // The snapshot comes first, the transaction's own id after others' ids.
    run(
        &mut session,
        "begin isolation level serializable; select count(*) from items",
    );
    insert(&cluster, 2..=2);
    assert_eq!(
        number(&mut session, "select webhook.cancel_pending('w')"),
        1
    );
    run(&mut session, "insert into items values (3); commit");
    assert_arrives(&cluster, &receiver, [2, 3], "canceled 1, delivered 2");
}

/// More than the buffer holds, so that rows of the running transaction lie in the outbox.
const FLUSHED: &str = "insert into items select generate_series(100001, 160000)";

#[test]
fn cancel_pending_neither_counts_nor_cancels_what_its_transaction_has_flushed() {
    let (cluster, receiver) = paused_cluster("own_flushed");
    let mut session = begin_with_old_id(&cluster, "read committed", "insert into items values (1)");
    run(&mut session, FLUSHED);
    let flushed = number(
        &mut session,
        "select count(*) from webhook_internal.outbox where xid = pg_current_xact_id()",
    );
    assert!(flushed > 0, "nothing was flushed early");
    assert_eq!(
        number(&mut session, "select webhook.cancel_pending('w')"),
        1
    );
    run(&mut session, "commit");
    assert_arrives(
        &cluster,
        &receiver,
        100_001..=160_000,
        "canceled 1, delivered 60000",
    );
}

#[test]
fn a_cancellation_that_is_rolled_back_to_a_savepoint_cancels_nothing() {
    let (cluster, receiver) = paused_cluster("savepoint");
    let mut session = begin_with_old_id(&cluster, "read committed", "insert into items values (1)");
    run(
        &mut session,
        "savepoint a; select webhook.cancel_pending('w'); insert into items values (2); rollback to a;
         insert into items values (3); commit",
    );
    assert_arrives(&cluster, &receiver, [1, 3], "delivered 2");
}

#[test]
fn cancel_and_redeliver_of_others_messages_leave_own_ones_alone() {
    let (cluster, receiver) = paused_cluster("cancel_one");
    insert(&cluster, 1..=2);
    let id = |place: i64| super::support::items::message(&cluster, place);
    let (first, second) = (id(1), id(2));
    let mut session = begin_with_old_id(&cluster, "read committed", "insert into items values (3)");
    run(
        &mut session,
        &format!(
            "insert into items values (4);
             select webhook.cancel('{first}'); select webhook.cancel('{second}');
             select webhook.redeliver('{second}');
             insert into items values (5); commit"
        ),
    );
    assert_arrives(&cluster, &receiver, 2..=5, "canceled 1, delivered 4");
}

#[test]
fn an_own_message_that_was_flushed_can_be_canceled_by_its_id() {
    let (cluster, receiver) = paused_cluster("cancel_own");
    let mut session = begin_with_old_id(&cluster, "read committed", "insert into items values (1)");
    run(&mut session, FLUSHED);
    run(
        &mut session,
        "create temporary table own on commit drop as
             select id, message_id from webhook_internal.outbox where xid = pg_current_xact_id() order by id limit 2;
         select webhook.cancel(message_id) from own where id = (select min(id) from own);
         select webhook.redeliver(message_id) from own where id = (select max(id) from own);
         commit",
    );
    let sent = [1].into_iter().chain(100_002..=160_000);
    assert_arrives(&cluster, &receiver, sent, "canceled 1, delivered 60000");
}

#[test]
fn messages_of_a_transaction_go_to_the_urls_that_it_leaves() {
    let (cluster, receiver) = paused_cluster("update_own");
    let mut session = begin_with_old_id(&cluster, "read committed", "insert into items values (1)");
    let other = receiver.url("/ok/other");
    // A new URL also gets what the worker has not come to yet.
    let counted = "select messages::text from webhook.webhooks";
    cluster.wait_for_text(PATIENCE, counted, "1");
    run(
        &mut session,
        &format!(
            "insert into items values (2);
             select webhook.update_webhook('w', outgoing_urls => array['{other}']);
             insert into items values (3); commit"
        ),
    );
    resume(&cluster, "w");
    wait_idle(&cluster);
    assert_eq!(
        records_at(&receiver, PATH),
        Vec::<String>::new(),
        "sent to the URL of before"
    );
    let mut received = records_at(&receiver, "/ok/other");
    received.sort();
    assert_eq!(received, inserts(2..=3));
}

#[test]
fn what_was_captured_before_its_transaction_disables_or_drops_the_webhook() {
    let (cluster, receiver) = cluster_with("drop_own", "1h");
    watch(&cluster, &receiver, "w", &[PATH], "");
    let mut session = begin_with_old_id(&cluster, "read committed", "insert into items values (1)");
    receiver.wait_for(PATIENCE, PATH, 1);
    run(
        &mut session,
        "insert into items values (2);
         select webhook.update_webhook('w', enabled => false);
         insert into items values (3); commit",
    );
    wait_idle(&cluster);
    assert_eq!(sorted_records_at(&receiver, PATH), inserts(1..=2));
    run(
        &mut session,
        "select webhook.update_webhook('w', enabled => true);
         begin; insert into items values (4); select webhook.drop_webhook('w');
         insert into items values (5); commit",
    );
    wait_idle(&cluster);
    assert_eq!(
        sorted_records_at(&receiver, PATH),
        inserts(1..=2),
        "a dropped webhook gets nothing"
    );
    assert_eq!(
        cluster.value::<i64>("select count(*) from webhook_internal.outbox"),
        3
    );
}

#[test]
fn a_pause_in_the_transaction_holds_what_it_captured_before_and_after() {
    let (cluster, receiver) = cluster_with("pause_own", "1h");
    watch(&cluster, &receiver, "w", &[PATH], "");
    let mut session = begin_with_old_id(&cluster, "read committed", "insert into items values (1)");
    receiver.wait_for(PATIENCE, PATH, 1);
    run(
        &mut session,
        "insert into items values (2); select webhook.pause_webhook('w'); insert into items values (3); commit",
    );
    cluster.wait_for_text(
        PATIENCE,
        "select sum(pending)::text from webhook.queue",
        "2",
    );
    assert_arrives(&cluster, &receiver, 1..=3, "delivered 3");
}
