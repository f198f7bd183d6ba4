//! What an operator does on the coordinator, and sees there of all nodes.

use super::super::support::nodes::Nodes;
use super::super::support::{StopMode, PATIENCE};

#[test]
#[ignore = "needs Citus: make test-citus"]
fn operations_act_on_all_nodes() {
    let nodes = Nodes::start("citus-operations", 2);
    let coordinator = nodes.coordinator();
    coordinator.sql("create table orders (id bigint primary key, n integer); select create_distributed_table('orders', 'id')");
    nodes.watch("w", "");
    nodes.events("w", "orders");
    // In a transaction of its own: sessions of one transaction commit one after another on a node, and the worker may
    // see rows before the pause.
    coordinator.sql("select webhook.pause_webhook('w')");
    coordinator.sql("insert into orders select g, g from generate_series(1, 20) g");
    let pending = "select count(distinct node) filter (where pending > 0)::text || ' ' || sum(pending) from webhook.cluster_queue";
    coordinator.wait_for_text(PATIENCE, pending, "2 20");
    assert_eq!(
        coordinator.value::<i64>("select webhook.cancel_pending('w')"),
        20
    );
    coordinator.sql("select webhook.resume_webhook('w'); insert into orders select g, g from generate_series(21, 30) g");
    nodes.wait_idle();
    let wanted: Vec<String> = (21..=30).map(|id| format!("Insert {id}")).collect();
    assert_eq!(nodes.lines_of("orders"), wanted);

    // A message is sent again by the node that has it.
    let id = nodes.messages().keys().next().expect("a message").clone();
    assert_eq!(
        coordinator.value::<i32>(&format!("select webhook.redeliver('{id}')")),
        1
    );
    nodes.receiver.wait_for(PATIENCE, "/ok", 11);
    let unknown = coordinator
        .connect("postgres")
        .batch_execute("select webhook.redeliver('01a205d0-0000-7000-8000-000000000000')");
    assert_eq!(unknown.unwrap_err().code().unwrap().code(), "42704");
    let again: i64 = coordinator.value(
        "select webhook.redeliver('w', now() - interval '1 hour', status => array['delivered'])",
    );
    assert_eq!(again, 10);
    nodes.receiver.wait_for(PATIENCE, "/ok", 21);
    nodes.wait_idle();
}

#[test]
#[ignore = "needs Citus: make test-citus"]
fn a_node_that_is_down_is_a_row_that_says_so() {
    let nodes = Nodes::start("citus-down", 2);
    let coordinator = nodes.coordinator();
    let down = &nodes.all[2];
    let port = down.port();
    down.stop(StopMode::Fast);
    let of = |view: &str, column: &str| -> String {
        coordinator.value(&format!(
            "select string_agg({column}, ',') from webhook.{view} where node = '127.0.0.1:{port}'"
        ))
    };
    assert_eq!(of("cluster_queue", "state"), "unreachable");
    assert_eq!(of("cluster_worker", "state"), "unreachable");
    assert_eq!(
        of("cluster_metrics", "name || ' ' || value"),
        "webhook_node_answers 0"
    );
    let why = of("cluster_queue", "last_error");
    assert!(why.contains("connect"), "{why}");
    let answers: i64 =
        coordinator.value("select count(*) from webhook.cluster_worker where state = 'running'");
    assert_eq!(answers, 2);
    let unknown = coordinator
        .connect("postgres")
        .batch_execute(&format!("select webhook.drain_node('127.0.0.1:{port}')"));
    assert_eq!(unknown.unwrap_err().code().unwrap().code(), "42704");
    down.start_again();
}

#[test]
#[ignore = "needs Citus: make test-citus"]
fn nodes_share_the_rate_of_a_webhook() {
    let nodes = Nodes::start("citus-throttle", 2);
    let coordinator = nodes.coordinator();
    coordinator.sql("create table orders (id bigint primary key, n integer); select create_distributed_table('orders', 'id')");
    nodes.watch("w", "call_throttling => 11");
    nodes.events("w", "orders");
    let began = std::time::Instant::now();
    coordinator.sql("insert into orders select g, g from generate_series(1, 80) g");
    nodes.wait_idle();
    println!("80 calls at 11 a second took {:?}", began.elapsed());
    let mut at: Vec<u64> = nodes
        .receiver
        .received_at("/ok")
        .iter()
        .map(|received| received.received_at_us)
        .collect();
    at.sort_unstable();
    assert_eq!(at.len(), 80);
    // Of any twelve in a row the last one comes a second after the first.
    for pair in at.windows(12) {
        assert!(pair[11] - pair[0] >= 980_000, "{} µs", pair[11] - pair[0]);
    }
}

#[test]
#[ignore = "needs Citus: make test-citus"]
fn a_source_reaches_the_shards_with_set_local() {
    let nodes = Nodes::start("citus-source", 2);
    let coordinator = nodes.coordinator();
    coordinator.sql("create table orders (id bigint primary key, n integer); select create_distributed_table('orders', 'id')");
    nodes.watch("w", "");
    coordinator.sql("select webhook.create_event('w', 'orders', 'table.recordInsert', event_sources => array['shop'])");
    coordinator.psql(
        "insert into orders values (1, 1);
         begin; set citus.propagate_set_commands = 'local'; set local webhook.source = 'shop';
         insert into orders values (2, 1), (3, 1), (4, 1), (5, 1); commit;
         begin; set citus.propagate_set_commands = 'local'; set local webhook.source = 'other';
         insert into orders values (6, 1); commit",
    );
    nodes.wait_idle();
    assert_eq!(
        nodes.lines_of("orders"),
        ["Insert 2", "Insert 3", "Insert 4", "Insert 5"]
    );
}
