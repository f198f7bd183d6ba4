//! Rows that are on several nodes, that go with others, or whose table gets new partitions.

use super::super::support::nodes::Nodes;

#[test]
#[ignore = "needs Citus: make test-citus"]
fn a_table_with_two_placements_of_each_shard_makes_one_message_for_a_change() {
    let nodes = Nodes::start("citus-replicated", 2);
    let coordinator = nodes.coordinator();
    nodes.watch("w", "");
    coordinator.sql(
        "set citus.shard_replication_factor = 2;
         create table orders (id bigint primary key, n integer);
         select create_distributed_table('orders', 'id')",
    );
    nodes.events("w", "orders");
    coordinator.sql("insert into orders select g, g from generate_series(1, 12) g");
    coordinator.sql("update orders set n = 0 where id <= 4; delete from orders where id > 10");
    nodes.wait_idle();
    let mut wanted: Vec<String> = (1..=12).map(|id| format!("Insert {id}")).collect();
    wanted.extend((1..=4).map(|id| format!("Update {id}")));
    wanted.extend(["Delete 11".to_owned(), "Delete 12".to_owned()]);
    wanted.sort();
    assert_eq!(nodes.lines_of("orders"), wanted);
}

#[test]
#[ignore = "needs Citus: make test-citus"]
fn a_reference_table_written_from_any_node_makes_one_message_for_a_change() {
    let nodes = Nodes::start("citus-reference", 2);
    let coordinator = nodes.coordinator();
    nodes.watch("w", "");
    coordinator.sql(
        "create table kinds (id bigint primary key, n integer); select create_reference_table('kinds')",
    );
    nodes.events("w", "kinds");
    for (number, node) in nodes.all.iter().enumerate() {
        node.sql(&format!(
            "insert into kinds values ({number}, 0), ({number} + 10, 0); update kinds set n = 1 where id = {number};
             delete from kinds where id = {number} + 10"
        ));
    }
    nodes.wait_idle();
    let mut wanted = Vec::new();
    for number in 0..nodes.all.len() {
        wanted.extend([
            format!("Insert {number}"),
            format!("Insert {}", number + 10),
            format!("Update {number}"),
            format!("Delete {}", number + 10),
        ]);
    }
    wanted.sort();
    assert_eq!(nodes.lines_of("kinds"), wanted);
}

#[test]
#[ignore = "needs Citus: make test-citus"]
fn rows_that_a_foreign_key_takes_along_make_one_message_each() {
    let nodes = Nodes::start("citus-cascades", 2);
    let coordinator = nodes.coordinator();
    nodes.watch("w", "");
    // Citus wants them in transactions of their own.
    for statement in [
        "create table kinds (id bigint primary key)",
        "create table orders (id bigint primary key, kind bigint)",
        "create table parts (id bigint, order_id bigint, primary key (id, order_id))",
        "select create_reference_table('kinds')",
        "select create_distributed_table('orders', 'id')",
        "select create_distributed_table('parts', 'order_id', colocate_with => 'orders')",
        "alter table orders add constraint of_kind foreign key (kind) references kinds on delete cascade",
        "alter table parts add constraint of_order foreign key (order_id) references orders on delete cascade",
        "insert into kinds values (1), (2)",
        "insert into orders select g, 1 + g % 2 from generate_series(1, 8) g",
        "insert into parts select g + 100, g from generate_series(1, 8) g",
    ] {
        coordinator.sql(statement);
    }
    for table in ["kinds", "orders", "parts"] {
        nodes.events("w", table);
    }
    coordinator.sql("delete from orders where id = 1");
    coordinator.sql("delete from kinds where id = 1");
    nodes.wait_idle();
    let deleted = |ids: &[i64]| -> Vec<String> {
        let mut lines: Vec<String> = ids.iter().map(|id| format!("Delete {id}")).collect();
        lines.sort();
        lines
    };
    // Orders of the first kind have even numbers.
    assert_eq!(nodes.lines_of("kinds"), deleted(&[1]));
    assert_eq!(nodes.lines_of("orders"), deleted(&[1, 2, 4, 6, 8]));
    assert_eq!(nodes.lines_of("parts"), deleted(&[101, 102, 104, 106, 108]));
}

#[test]
#[ignore = "needs Citus: make test-citus"]
fn partitions_that_come_after_the_event_are_captured_and_those_that_leave_are_not() {
    let nodes = Nodes::start("citus-partitions", 2);
    let coordinator = nodes.coordinator();
    nodes.watch("w", "");
    coordinator.sql(
        "create table log (id bigint, day integer, primary key (id, day)) partition by range (day);
         create table log_1 partition of log for values from (0) to (10);
         select create_distributed_table('log', 'id')",
    );
    nodes.events("w", "log");
    for statement in [
        "create table log_2 partition of log for values from (10) to (20)",
        "create table log_3 (id bigint, day integer, primary key (id, day))",
        "insert into log_3 select g + 30, 25 from generate_series(1, 4) g",
        "select create_distributed_table('log_3', 'id', colocate_with => 'log')",
        "alter table log attach partition log_3 for values from (20) to (30)",
    ] {
        coordinator.sql(statement);
    }
    coordinator.sql("insert into log select g, 3 * g from generate_series(1, 9) g");
    coordinator.sql("insert into log_3 values (50, 21)");
    // A row that changes its partition.
    coordinator.sql("update log set day = 15 where id = 1");
    coordinator.sql("alter table log detach partition log_3");
    coordinator.sql("insert into log_3 values (51, 21)");
    nodes.wait_idle();
    let mut wanted: Vec<String> = (1..=9).map(|id| format!("Insert {id}")).collect();
    wanted.extend(["Insert 50", "Delete 1", "Insert 1"].map(str::to_owned));
    wanted.sort();
    assert_eq!(nodes.lines_of("log"), wanted);
    assert_eq!(nodes.messages().len(), wanted.len());
}
