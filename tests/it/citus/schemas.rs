//! Tables that are renamed, altered and dropped, schemas that are distributed, and what is left when events go.

use super::super::support::nodes::Nodes;
use super::super::support::PATIENCE;

/// Also of shards, which Citus hides from a join.
const TRIGGERS: &str =
    "select count(*) from pg_trigger where tgname like 'webhook\\_%' and not tgisinternal
    and tgrelid <> coalesce(to_regclass('webhook_internal.cluster_document'), 0)";

#[test]
#[ignore = "needs Citus: make test-citus"]
fn nothing_is_left_of_events_that_were_dropped() {
    let nodes = Nodes::start("citus-dropped", 2);
    let coordinator = nodes.coordinator();
    nodes.watch("w", "");
    nodes.watch("x", "");
    coordinator.sql(
        "create table orders (id bigint primary key, n integer); select create_distributed_table('orders', 'id');
         create table kinds (id bigint primary key); select create_reference_table('kinds')",
    );
    for table in ["orders", "kinds"] {
        nodes.events("w", table);
        nodes.events("x", table);
    }
    let event: String = coordinator.value(
        "select id from webhook.create_event('w', 'orders', 'table.recordInsert', condition => 'new.n > 0')",
    );
    let found = || -> Vec<i64> { nodes.all.iter().map(|node| node.value(TRIGGERS)).collect() };
    assert!(found().iter().all(|count| *count > 0), "{:?}", found());
    coordinator.sql(&format!("select webhook.drop_event('{event}')"));
    coordinator.sql("select webhook.drop_webhook('w'); select webhook.drop_webhook('x')");
    coordinator.wait_until(PATIENCE, "no triggers", || {
        let left = found();
        if left.iter().sum::<i64>() == 0 {
            Ok(())
        } else {
            Err(format!("{left:?}"))
        }
    });
    coordinator.sql(
        "insert into orders select g, g from generate_series(1, 8) g; insert into kinds values (1)",
    );
    nodes.wait_idle();
    assert_eq!(nodes.receiver.count("/ok").requests, 0);
    for node in &nodes.all {
        assert!(!node.log().contains("has no rule"), "{}", node.log());
    }
}

#[test]
#[ignore = "needs Citus: make test-citus"]
fn events_follow_tables_and_columns_that_are_renamed_on_all_nodes() {
    let nodes = Nodes::start("citus-renamed", 2);
    let coordinator = nodes.coordinator();
    nodes.watch("w", "");
    coordinator.sql(
        "create table orders (id bigint primary key, extra text, n integer, note text);
         select create_distributed_table('orders', 'id')",
    );
    coordinator.sql("select webhook.create_event('w', 'orders', 'table.recordUpdate', object_fields => array['n'], payload_fields => array['id', 'n'])");
    coordinator.sql("insert into orders select g, '', g from generate_series(1, 8) g");
    coordinator.sql("alter table orders rename to purchases");
    coordinator.sql("alter table purchases drop column extra");
    coordinator.sql("alter table purchases rename column n to amount");
    coordinator.sql("update purchases set note = 'not watched'");
    coordinator.sql("update purchases set amount = amount + 1");
    coordinator.sql("create schema shop; alter table purchases set schema shop");
    coordinator.sql("update shop.purchases set amount = amount + 1 where id <= 4");
    nodes.wait_idle();
    let wanted =
        |last: i64| -> Vec<String> { (1..=last).map(|id| format!("Update {id}")).collect() };
    assert_eq!(nodes.lines_of("purchases"), wanted(8));
    assert_eq!(nodes.lines_of("shop.purchases"), wanted(4));
    let bodies = nodes.receiver.received_at("/ok");
    let records = bodies
        .iter()
        .map(|received| received.body()["data"][0].clone());
    for record in records {
        assert!(record.get("amount").is_some(), "{record}");
    }
}

#[test]
#[ignore = "needs Citus: make test-citus"]
fn events_go_on_while_their_schema_is_distributed_and_not() {
    let nodes = Nodes::start("citus-schema", 2);
    let coordinator = nodes.coordinator();
    nodes.watch("w", "");
    coordinator.sql(
        "create schema tenant;
         create table tenant.things (id bigint primary key, n integer);
         create table tenant.parts (id bigint primary key, thing bigint references tenant.things);
         insert into tenant.things select g, g from generate_series(1001, 1020) g",
    );
    nodes.events("w", "tenant.things");
    nodes.events("w", "tenant.parts");
    let mut wanted = Vec::new();
    let mut change = |id: i64, after: &str| {
        coordinator.sql(&format!(
            "insert into tenant.things values ({id}, 0); insert into tenant.parts values ({id}, {id});
             update tenant.things set n = 1 where id = {id}"
        ));
        nodes.wait_idle();
        wanted.extend([format!("Insert {id}"), format!("Update {id}")]);
        wanted.sort();
        assert_eq!(nodes.lines_of("tenant.things"), wanted, "{after}");
        assert_eq!(
            nodes.lines_of("tenant.parts").len() * 2,
            wanted.len(),
            "{after}"
        );
    };
    change(1, "a local schema");
    coordinator
        .sql("set citus.enable_unsafe_triggers = on; select citus_schema_distribute('tenant')");
    change(2, "a distributed schema");
    coordinator
        .sql("set citus.enable_unsafe_triggers = on; select citus_schema_undistribute('tenant')");
    change(3, "a local schema again");
}

#[test]
#[ignore = "needs Citus: make test-citus"]
fn an_event_whose_distributed_table_is_dropped_says_so_and_columnar_tables_are_refused() {
    let nodes = Nodes::start("citus-gone", 2);
    let coordinator = nodes.coordinator();
    nodes.watch("w", "");
    coordinator.sql(
        "create table orders (id bigint primary key, n integer); select create_distributed_table('orders', 'id')",
    );
    nodes.events("w", "orders");
    coordinator.sql("insert into orders select g, g from generate_series(1, 8) g");
    nodes.wait_idle();
    coordinator.sql("drop table orders");
    let inactive = "select count(*) filter (where status = 'Inactive' and detail is not null)::text from webhook.events";
    coordinator.wait_for_text(PATIENCE, inactive, "3");
    assert_eq!(nodes.lines_of("orders").len(), 8);

    coordinator.sql("create extension citus_columnar");
    coordinator.sql("create table facts (id bigint) using columnar; select create_distributed_table('facts', 'id')");
    let refused = coordinator
        .connect("postgres")
        .batch_execute("select webhook.create_event('w', 'facts', 'table.recordInsert')")
        .unwrap_err();
    let refused = refused.as_db_error().expect("the server answered");
    assert_eq!(refused.code().code(), "42809", "{}", refused.message());
    assert!(refused.hint().is_some(), "{}", refused.message());
}
