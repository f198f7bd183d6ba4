//! What happens around a capturing transaction's commit: other extensions that write then, the
//! extension that goes, roles and outbox tables that change under a session.

use postgres::Client;

use super::support::rings::{rotate, small_cluster, written};
use super::support::watched::{assert_items_delivered, insert_items, wait_idle, watch_items};
use super::support::{ready_cluster_with, Cluster, Receiver, PATIENCE};

fn ready(name: &str) -> (Cluster, Receiver) {
    let (cluster, receiver) = ready_cluster_with(name, &[("max_prepared_transactions", "4")]);
    watch_items(&cluster, &receiver, "/ok/a");
    (cluster, receiver)
}

fn run_all(session: &mut Client, statements: &[&str]) {
    for sql in statements {
        session
            .batch_execute(sql)
            .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }
}

/// The fault's callback was registered before the extension's own, so it runs after it.
#[test]
fn what_another_extension_writes_at_commit_is_sent_too() {
    let (cluster, receiver) = ready("latewriter");
    let mut session = cluster.connect("postgres");
    let late = |sql: &str| format!("set local webhook.fault = 'commit: {sql}'");
    run_all(
        &mut session,
        &[
            "load 'webhook_ext'",
            // The transaction's only change, and one among others.
            "begin",
            &late("insert into items values (1, $x$late$x$)"),
            "commit",
            "begin",
            "insert into items values (2, 'early')",
            &late("insert into items select n, $x$late$x$ from generate_series(3, 8) n"),
            "commit",
            // Beyond what the buffer holds.
            "begin",
            &late(
                "do $x$ begin
                     insert into items values (9, null);
                     insert into items select n, repeat(chr(120), 1000000)
                     from generate_series(11, 16) n;
                 end $x$",
            ),
            "commit",
            "begin",
            "insert into items values (20, 'early')",
            &late("insert into items values (21, $x$late$x$)"),
            "prepare transaction 'p'",
            "commit prepared 'p'",
            // The next transaction buffers as ever.
            "begin; insert into items values (22, null); rollback",
            "insert into items values (23, null)",
        ],
    );
    let committed: i64 = cluster.value("select count(*) from items");
    assert_eq!(committed, 8 + 7 + 2 + 1);
    receiver.wait_for(PATIENCE, "/ok/a", committed as u64);
    let received = assert_items_delivered(&cluster, &receiver, "/ok/a", PATIENCE);
    assert_eq!(received.len() as i64, committed);
}

#[test]
fn a_transaction_that_drops_the_extension_after_its_changes_commits() {
    let (cluster, receiver) = ready("dropped");
    insert_items(&cluster, 1..=3);
    wait_idle(&cluster, PATIENCE);
    let mut session = cluster.connect("postgres");
    // Undone, the messages are sent.
    run_all(
        &mut session,
        &[
            "begin",
            "insert into items values (4, null)",
            "savepoint s",
            "drop extension webhook_ext cascade",
            "rollback to s",
            "insert into items values (5, null)",
            "commit",
        ],
    );
    let received = assert_items_delivered(&cluster, &receiver, "/ok/a", PATIENCE);
    assert_eq!(received.len(), 5);

    let large = "insert into items select n, repeat('x', 1000000) from generate_series(10, 15) n";
    run_all(
        &mut session,
        &[
            "begin",
            large,
            "insert into items values (6, null)",
            "drop extension webhook_ext cascade",
            "insert into items values (7, null)",
            "commit",
        ],
    );
    assert_eq!(cluster.value::<i64>("select count(*) from items"), 13);

    // Another extension takes nothing from the one before it.
    run_all(&mut session, &["create extension webhook_ext"]);
    watch_items(&cluster, &receiver, "/ok/b");
    run_all(
        &mut session,
        &[
            "begin",
            "insert into items values (100, null)",
            "drop extension webhook_ext cascade",
            "create extension webhook_ext",
            "commit",
        ],
    );
    assert_eq!(
        cluster.value::<i64>("select count(*) from webhook_internal.outbox"),
        0
    );
    watch_items(&cluster, &receiver, "/ok/c");
    run_all(&mut session, &["insert into items values (101, null)"]);
    wait_idle(&cluster, PATIENCE);
    assert_eq!(receiver.received_at("/ok/b").len(), 0);
    assert_eq!(receiver.received_at("/ok/c").len(), 1);
}

#[test]
fn a_renamed_role_acts_under_its_new_name_in_sessions_that_go_on() {
    let (cluster, _receiver) = ready("renamed");
    cluster.sql(
        "create role anna login; create role clerk; grant clerk to anna;
         grant insert on items to anna, clerk",
    );
    let mut session = cluster.connect_as("anna", "postgres");
    run_all(&mut session, &["insert into items values (1, null)"]);
    cluster.sql("alter role anna rename to berta");
    run_all(
        &mut session,
        &[
            "insert into items values (2, null)",
            "set role clerk",
            "insert into items values (3, null)",
        ],
    );
    cluster.sql("alter role clerk rename to chief");
    run_all(
        &mut session,
        &[
            "begin",
            "insert into items values (4, null)",
            "reset role",
            "insert into items values (5, null)",
            "commit",
        ],
    );
    let actors: String =
        cluster.value("select string_agg(actor, ' ' order by id) from webhook_internal.outbox");
    assert_eq!(actors, "anna berta clerk chief berta");
}

#[test]
fn a_session_that_only_tests_webhooks_follows_the_rotation() {
    let (cluster, receiver) = small_cluster("testrotation", "1h");
    watch_items(&cluster, &receiver, "/ok/a");
    let mut session = cluster.connect("postgres");
    let mut next = 1;
    for _ in 0..3 {
        let row = session
            .query_one(
                "select message_id::text from webhook.test_webhook('/ok/a')",
                &[],
            )
            .unwrap();
        let message: String = row.get(0);
        let number = written(&cluster);
        let there: i64 = cluster.value(&format!(
            "select count(*) from webhook.outbox_{number} where message_id = '{message}'"
        ));
        assert_eq!(there, 1, "message {message} is not in outbox_{number}");
        rotate(&cluster, &mut next);
    }
}
