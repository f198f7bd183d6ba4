//! Outbox tables that their owner has changed: a write fails with a clear error, and nothing
//! worse happens.

use postgres::Client;

use super::support::watched::{assert_items_delivered, insert_items, watch_items};
use super::support::worker::cluster_restarts;
use super::support::{ready_cluster, Cluster, Receiver, PATIENCE};

fn ready(name: &str) -> (Cluster, Receiver) {
    let (cluster, receiver) = ready_cluster(name);
    watch_items(&cluster, &receiver, "/ok/a");
    insert_items(&cluster, 1..=3);
    (cluster, receiver)
}

/// The insert fails with 55000 and these words; the session goes on.
fn assert_refused(session: &mut Client, sql: &str, detail: &str) {
    let error = session.batch_execute(sql).expect_err(detail);
    let error = error
        .as_db_error()
        .unwrap_or_else(|| panic!("{detail}: the session was ended: {error:?}"));
    assert_eq!(error.code().code(), "55000", "{error:?}");
    assert_eq!(
        error.message(),
        "messages cannot be written to table webhook.outbox_0"
    );
    assert_eq!(error.detail(), Some(detail));
    assert!(error.hint().is_some(), "{error:?}");
    session.batch_execute("rollback").unwrap();
}

#[test]
fn a_changed_outbox_table_is_refused_and_taken_again_once_it_is_restored() {
    let (cluster, receiver) = ready("layout");
    let mut session = cluster.connect("postgres");
    // What takes its place is made a member of the extension: any other table is refused earlier.
    let cases = [
        (
            "create index odd on webhook.outbox_0 (lower(source))",
            "drop index webhook.odd",
            "its index \"odd\" has an expression",
        ),
        (
            "create index odd on webhook.outbox_0 (source) where source = 'a'",
            "drop index webhook.odd",
            "its index \"odd\" has a condition",
        ),
        (
            "alter table webhook.outbox_0 add constraint odd exclude using btree (id with =)",
            "alter table webhook.outbox_0 drop constraint odd",
            "its index \"odd\" belongs to an exclusion constraint",
        ),
        (
            "alter table webhook.outbox_0 add constraint odd unique (id) deferrable",
            "alter table webhook.outbox_0 drop constraint odd",
            "its index \"odd\" belongs to a deferrable constraint",
        ),
        (
            "alter table webhook.outbox_0 add column odd text not null default 'x'",
            "alter table webhook.outbox_0 drop column odd",
            "it has a column \"odd\" that the extension does not know",
        ),
        (
            "create access method heap2 type table handler heap_tableam_handler;
             alter table webhook.outbox_0 set access method heap2",
            "alter table webhook.outbox_0 set access method heap",
            "its access method is not heap",
        ),
        (
            "alter table webhook.outbox_0 rename to kept;
             create table webhook.outbox_0 (like webhook.kept) partition by range (id);
             alter extension webhook_ext add table webhook.outbox_0",
            "alter extension webhook_ext drop table webhook.outbox_0;
             drop table webhook.outbox_0; alter table webhook.kept rename to outbox_0",
            "it is not an ordinary table",
        ),
        (
            "create foreign data wrapper nothing; create server nowhere foreign data wrapper nothing;
             alter table webhook.outbox_0 rename to kept;
             create foreign table webhook.outbox_0 (id bigint) server nowhere;
             alter extension webhook_ext add foreign table webhook.outbox_0",
            "alter extension webhook_ext drop foreign table webhook.outbox_0;
             drop foreign table webhook.outbox_0; alter table webhook.kept rename to outbox_0",
            "it is not an ordinary table",
        ),
        (
            "alter table webhook.outbox_0 rename to kept;
             create table webhook.outbox_0 (id bigint);
             alter extension webhook_ext add table webhook.outbox_0",
            "alter extension webhook_ext drop table webhook.outbox_0;
             drop table webhook.outbox_0; alter table webhook.kept rename to outbox_0",
            "it lacks columns",
        ),
        (
            "alter table webhook.outbox_0 rename to kept;
             create table webhook.outbox_0 (like webhook.kept);
             alter table webhook.outbox_0 alter column id type int;
             alter extension webhook_ext add table webhook.outbox_0",
            "alter extension webhook_ext drop table webhook.outbox_0;
             drop table webhook.outbox_0; alter table webhook.kept rename to outbox_0",
            "its column \"id\" was changed or dropped",
        ),
    ];
    for (number, (change, undo, detail)) in cases.into_iter().enumerate() {
        let id = 100 + 20 * number;
        cluster.sql(change);
        let insert = format!("insert into items values ({id}, 'small')");
        assert_refused(&mut session, &insert, detail);
        let large = format!(
            "insert into items select n, repeat('x', 1000000) from generate_series({id}, {id} + 5) n"
        );
        assert_refused(&mut session, &large, detail);
        assert_refused(
            &mut session,
            "select * from webhook.test_webhook('/ok/a')",
            detail,
        );
        // Not even while it goes on in one transaction.
        session
            .batch_execute("begin; set constraints all immediate")
            .unwrap();
        assert_refused(&mut session, &format!("{insert}; commit"), detail);
        cluster.sql(undo);
        session.batch_execute(&insert).unwrap();
    }
    cluster.sql("alter table webhook.outbox_0 rename to kept");
    let error = session
        .batch_execute("insert into items values (4, null)")
        .unwrap_err();
    let error = error.as_db_error().expect("the session goes on");
    assert_eq!(error.code().code(), "55000", "{error:?}");
    assert_eq!(error.message(), "table webhook.outbox_0 does not exist");
    cluster.sql("alter table webhook.kept rename to outbox_0");

    insert_items(&cluster, 5..=7);
    let received = assert_items_delivered(&cluster, &receiver, "/ok/a", PATIENCE);
    assert_eq!(received.len(), 3 + 10 + 3);
    assert_eq!(cluster_restarts(&cluster), 0, "{}", cluster.log());
}

#[test]
fn an_index_of_plain_columns_and_a_dropped_column_are_no_reason_to_refuse() {
    let (cluster, receiver) = ready("plainindex");
    cluster.sql(
        "create unique index mine on webhook.outbox_0 (message_id, webhook_key);
         alter table webhook.outbox_0 add column odd text;
         alter table webhook.outbox_0 drop column odd",
    );
    cluster.sql("insert into items select n, repeat('x', 100 * n) from generate_series(4, 300) n");
    let received = assert_items_delivered(&cluster, &receiver, "/ok/a", PATIENCE);
    assert_eq!(received.len(), 300);
    let mut session = cluster.connect("postgres");
    session
        .batch_execute("set enable_seqscan = off; set enable_bitmapscan = off")
        .unwrap();
    for (index, condition) in [
        (
            "mine",
            "message_id > '00000000-0000-0000-0000-000000000000'",
        ),
        ("outbox_0_position", "xid > '0'"),
    ] {
        let query = format!("select count(*) from webhook.outbox_0 where {condition}");
        let plan = session.query(&format!("explain {query}"), &[]).unwrap();
        let plan: Vec<String> = plan.iter().map(|row| row.get(0)).collect();
        assert!(plan.join("\n").contains(index), "{plan:?}");
        let found: i64 = session.query_one(&query, &[]).unwrap().get(0);
        assert_eq!(found, 300, "entries of {index}");
    }
}

#[test]
fn a_server_whose_default_access_method_is_another_gets_heap_tables() {
    let cluster = Cluster::builder("accessmethod")
        .set("webhook.allowed_networks", "127.0.0.0/8")
        .start();
    let receiver = Receiver::start();
    cluster.sql("create access method heap2 type table handler heap_tableam_handler");
    cluster.configure("default_table_access_method", "heap2");
    cluster.reload();
    cluster.wait_for_text(PATIENCE, "show default_table_access_method", "heap2");
    cluster.sql("create extension webhook_ext");
    let methods: String = cluster.value(
        "select string_agg(a.amname, ' ' order by c.relname)
         from pg_class c join pg_am a on a.oid = c.relam
         where c.relnamespace::regnamespace::text in ('webhook', 'webhook_internal') and c.relname ~ '^(outbox_[0-9]|webhook_def)$'",
    );
    assert_eq!(methods, "heap heap heap heap heap2");
    watch_items(&cluster, &receiver, "/ok/a");
    insert_items(&cluster, 1..=20);
    let received = assert_items_delivered(&cluster, &receiver, "/ok/a", PATIENCE);
    assert_eq!(received.len(), 20);
}
