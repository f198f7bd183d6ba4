//! Rows that users write to a relation in the transaction that made it are changes; rows that Citus moves are none.

use super::super::support::nodes::Nodes;

fn inserts(ids: &[i64]) -> Vec<String> {
    let mut lines: Vec<String> = ids.iter().map(|id| format!("Insert {id}")).collect();
    lines.sort();
    lines
}

#[test]
#[ignore = "needs Citus: make test-citus"]
fn rows_of_a_partition_made_in_the_same_transaction_are_changes() {
    let nodes = Nodes::start("citus-new-partition", 2);
    let coordinator = nodes.coordinator();
    nodes.watch("w", "");
    // One of them is none of Citus.
    for table in ["plain", "log"] {
        coordinator.sql(&format!(
            "create table {table} (id bigint, day integer, primary key (id, day)) partition by range (day);
             create table {table}_1 partition of {table} for values from (0) to (10)"
        ));
    }
    coordinator.sql("select create_distributed_table('log', 'id')");
    for table in ["plain", "log"] {
        nodes.events("w", table);
        coordinator.sql(&format!(
            "begin; create table {table}_2 partition of {table} for values from (10) to (20);
             insert into {table} select g, 15 from generate_series(1, 8) g; commit"
        ));
    }
    nodes.wait_idle();
    for table in ["plain", "log"] {
        let found = nodes.lines_of(table);
        assert_eq!(found, inserts(&[1, 2, 3, 4, 5, 6, 7, 8]), "{table}");
    }
}

#[test]
#[ignore = "needs Citus: make test-citus"]
fn an_event_that_a_session_of_the_transaction_cannot_see_is_an_error() {
    let nodes = Nodes::start("citus-new-table", 2);
    let coordinator = nodes.coordinator();
    nodes.watch("w", "");
    coordinator.sql(
        "begin; create table plain (id bigint primary key);
         select webhook.create_event('w', 'plain', 'table.recordInsert');
         insert into plain values (1), (2); commit",
    );
    // With several sessions on a node, of which one has made the event. A savepoint does not silence it.
    let all_at_once = "create table orders (id bigint primary key); select create_distributed_table('orders', 'id');
         select webhook.create_event('w', 'orders', 'table.recordInsert')";
    let rows = "insert into orders select g from generate_series(1, 8) g";
    let mut session = coordinator.connect("postgres");
    session
        .batch_execute(&format!("begin; {all_at_once}; savepoint s"))
        .unwrap();
    for _ in 0..2 {
        let error = session
            .batch_execute(rows)
            .expect_err("a session does not see the event");
        let error = error.as_db_error().expect("of the server");
        assert!(
            error.message().contains("is not visible to this session"),
            "{error}"
        );
        session.batch_execute("rollback to s").unwrap();
    }
    session.batch_execute("rollback").unwrap();
    // Nor does one under which the event was made.
    session
        .batch_execute(&format!("begin; savepoint s; {all_at_once}; release s"))
        .unwrap();
    assert!(session.batch_execute(rows).is_err());
    session.batch_execute("rollback").unwrap();
    session
        .batch_execute(&format!(
            "begin; set local citus.multi_shard_modify_mode = 'sequential'; {all_at_once}; {rows}; commit"
        ))
        .unwrap();
    nodes.wait_idle();
    assert_eq!(nodes.lines_of("plain"), inserts(&[1, 2]));
    assert_eq!(nodes.lines_of("orders"), inserts(&[1, 2, 3, 4, 5, 6, 7, 8]));
}
