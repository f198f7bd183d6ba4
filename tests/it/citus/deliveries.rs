//! Single messages and waiting calls, which one node has, from the coordinator.

use super::super::support::nodes::Nodes;
use super::super::support::{Cluster, PATIENCE};

/// A distributed table with events whose calls fail, and so many rows with a message each.
fn failing(name: &str, rows: u64) -> Nodes {
    let nodes = Nodes::start(name, 2);
    for node in &nodes.all {
        node.configure("webhook.retry_schedule", "1h");
        node.reload();
        node.wait_for_text(PATIENCE, "show webhook.retry_schedule", "1h");
    }
    nodes.coordinator().sql("create table orders (id bigint primary key, n integer); select create_distributed_table('orders', 'id')");
    nodes.watch("w", "max_attempts => 2");
    nodes.events("w", "orders");
    // No sign of an outage, for which the URL would be left alone.
    nodes.receiver.behave("/ok", "/status/422");
    nodes.coordinator().sql(&format!(
        "insert into orders select g, g from generate_series(1, {rows}) g"
    ));
    nodes.receiver.wait_for(PATIENCE, "/ok", rows);
    let retrying = "select sum(retrying)::text from webhook.cluster_queue";
    let coordinator = nodes.coordinator();
    coordinator.wait_for_text(PATIENCE, retrying, &rows.to_string());
    nodes
}

/// A call that waited for what its own transaction holds on the nodes would never end.
fn retry_now(coordinator: &Cluster) -> i64 {
    let mut session = coordinator.connect("postgres");
    session
        .batch_execute("set statement_timeout = '30s'")
        .unwrap();
    let due = session.query_one("select webhook.retry_now('w')", &[]);
    due.expect("the call ends").get(0)
}

#[test]
#[ignore = "needs Citus: make test-citus"]
fn a_node_with_calls_that_wait_for_a_retry_is_not_drained() {
    let nodes = failing("citus-drain-retries", 12);
    let coordinator = nodes.coordinator();
    let pending: Vec<i64> = nodes.all[1..]
        .iter()
        .map(|node| {
            coordinator.value(&format!(
                "select webhook.drain_node('127.0.0.1:{}')",
                node.port()
            ))
        })
        .collect();
    assert_eq!(pending.iter().sum::<i64>(), 12, "{pending:?}");
    assert!(pending.iter().all(|of_node| *of_node > 0), "{pending:?}");
    // Another node has its calls made by itself.
    nodes.receiver.behave_normally("/ok");
    for (node, pending) in nodes.all[1..].iter().zip(pending) {
        assert_eq!(retry_now(node), pending);
    }
    nodes.wait_idle();
}

#[test]
#[ignore = "needs Citus: make test-citus"]
fn a_message_is_canceled_by_the_node_that_has_it() {
    let nodes = failing("citus-cancel", 12);
    let coordinator = nodes.coordinator();
    let ids: Vec<String> = nodes.messages().keys().cloned().collect();
    assert_eq!(ids.len(), 12);
    for id in &ids[..6] {
        let is_canceled: bool = coordinator.value(&format!("select webhook.cancel('{id}')"));
        assert!(is_canceled, "{id}");
    }
    assert!(!coordinator.value::<bool>(&format!("select webhook.cancel('{}')", ids[0])));
    nodes.receiver.behave_normally("/ok");
    assert_eq!(retry_now(coordinator), 6);
    nodes.wait_idle();
    let statuses: Vec<String> = ids
        .iter()
        .map(|id| {
            let answers = nodes.all.iter().map(|node| {
                node.value::<Option<String>>(&format!(
                    "select min(status) from webhook.messages where message_id = '{id}'"
                ))
            });
            answers.flatten().collect::<Vec<_>>().join(",")
        })
        .collect();
    assert!(
        statuses[..6].iter().all(|status| status == "canceled"),
        "{statuses:?}"
    );
    assert!(
        statuses[6..].iter().all(|status| status == "delivered"),
        "{statuses:?}"
    );
    assert_eq!(nodes.receiver.count("/ok").requests, 18);
}

#[test]
#[ignore = "needs Citus: make test-citus"]
fn failed_messages_of_all_nodes_are_redelivered_under_their_ids() {
    let nodes = failing("citus-failed", 12);
    let coordinator = nodes.coordinator();
    assert_eq!(retry_now(coordinator), 12);
    nodes.receiver.wait_for(PATIENCE, "/ok", 24);
    let failed = "select sum(failed)::text from webhook.cluster_queue";
    coordinator.wait_for_text(PATIENCE, failed, "12");
    let before: Vec<String> = nodes.messages().keys().cloned().collect();
    nodes.receiver.behave_normally("/ok");
    assert_eq!(
        coordinator.value::<i64>("select webhook.redeliver_failed('w')"),
        12
    );
    nodes.receiver.wait_for(PATIENCE, "/ok", 36);
    nodes.wait_idle();
    let after: Vec<String> = nodes.messages().keys().cloned().collect();
    assert_eq!(after, before);
    assert_eq!(
        coordinator.value::<i64>("select webhook.redeliver_failed('w')"),
        0
    );
}

#[test]
#[ignore = "needs Citus: make test-citus"]
fn waiting_until_idle_waits_for_every_node() {
    let nodes = Nodes::start("citus-idle", 2);
    let coordinator = nodes.coordinator();
    coordinator.sql("create table orders (id bigint primary key, n integer); select create_distributed_table('orders', 'id')");
    nodes.watch("w", "");
    nodes.events("w", "orders");
    nodes.receiver.behave("/ok", "/hold");
    // One row, so that one node has something to do and the others do not.
    coordinator.sql("insert into orders values (1, 1)");
    nodes.receiver.wait_for(PATIENCE, "/ok", 1);
    assert!(!coordinator.value::<bool>("select webhook.wait_idle('500 milliseconds')"));
    nodes.receiver.behave_normally("/ok");
    assert!(coordinator.value::<bool>("select webhook.wait_idle('60 seconds')"));
    assert_eq!(nodes.receiver.count("/ok").requests, 1);
}

#[test]
#[ignore = "needs Citus: make test-citus"]
fn an_event_is_explained_for_each_node() {
    let nodes = Nodes::start("citus-explain", 2);
    let coordinator = nodes.coordinator();
    coordinator.sql("create table orders (id bigint primary key, n integer); select create_distributed_table('orders', 'id')");
    nodes.watch("w", "");
    let event: String = coordinator
        .value("select id from webhook.create_event('w', 'orders', 'table.recordInsert')");
    let not_ok = format!(
        "select coalesce(string_agg(check_name || ': ' || detail, E'\\n'), '')
         from webhook.explain_event('{event}') where not ok"
    );
    coordinator.wait_for_text(PATIENCE, &not_ok, "");
    // Someone disables the trigger of one shard by hand.
    let worker = &nodes.all[2];
    let port = worker.port();
    let shard: String = coordinator.value(&format!(
        "select 'orders_' || min(p.shardid) from pg_dist_shard_placement p join pg_dist_shard s using (shardid)
         where s.logicalrelid = 'orders'::regclass and p.nodeport = {port}"
    ));
    worker.sql(&format!(
        "set citus.enable_manual_changes_to_shards = on; set citus.override_table_visibility = off;
         alter table {shard} disable trigger all"
    ));
    let found: String = coordinator.value(&not_ok);
    assert!(found.contains(&format!("127.0.0.1:{port}")), "{found}");
}
