//! Nodes that go away for a while, come back, or leave.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::super::support::nodes::Nodes;
use super::super::support::PATIENCE;

const ORDERS: &str = "create table orders (id bigint primary key, n integer); select create_distributed_table('orders', 'id')";

#[test]
#[ignore = "needs Citus: make test-citus"]
fn a_node_sends_what_it_had_when_it_comes_back_and_each_message_once_more_at_most() {
    let nodes = Nodes::start("citus-back", 2);
    let coordinator = nodes.coordinator();
    coordinator.sql(ORDERS);
    nodes.watch("w", "");
    nodes.events("w", "orders");
    coordinator.sql("select webhook.pause_webhook('w')");
    coordinator.sql("insert into orders select g, g from generate_series(1, 40) g");
    for worker in &nodes.all[1..] {
        worker.kill9_postmaster();
        worker.start_again();
    }
    coordinator.sql("select webhook.resume_webhook('w')");
    nodes.wait_idle();
    let mut wanted: Vec<String> = (1..=40).map(|id| format!("Insert {id}")).collect();
    wanted.sort();
    assert_eq!(nodes.lines_of("orders"), wanted);
}

#[test]
#[ignore = "needs Citus: make test-citus"]
fn a_definition_that_cannot_reach_a_node_changes_nowhere() {
    let nodes = Nodes::start("citus-away", 2);
    let coordinator = nodes.coordinator();
    coordinator.sql(ORDERS);
    nodes.watch("w", "");
    nodes.events("w", "orders");
    let state = "select string_agg(name || ' ' || paused || ' ' || coalesce(call_throttling, 0), ',' order by name)
                 from webhook.webhook_def where dropped_at is null";
    let before: String = coordinator.value(state);
    let away = &nodes.all[2];
    away.kill9_postmaster();
    let calls = [
        "select webhook.update_webhook('w', call_throttling => 5)",
        "select webhook.pause_webhook('w')",
        "select webhook.create_webhook('y', array['http://127.0.0.1:9/'])",
        "select webhook.create_event('w', 'orders', 'table.recordInsert')",
    ];
    for call in calls {
        let refused = coordinator.connect("postgres").batch_execute(call);
        assert!(refused.is_err(), "{call}");
    }
    assert_eq!(coordinator.value::<String>(state), before);
    away.start_again();
    for node in &nodes.all {
        node.wait_for_text(PATIENCE, state, &before);
    }
    coordinator.sql("select webhook.update_webhook('w', call_throttling => 500)");
    coordinator.sql("insert into orders select g, g from generate_series(1, 8) g");
    nodes.wait_idle();
    assert_eq!(nodes.lines_of("orders").len(), 8);
}

#[test]
#[ignore = "needs Citus: make test-citus"]
fn a_node_that_was_drained_leaves_and_events_go_on_without_it() {
    let mut nodes = Nodes::start("citus-leaves", 2);
    let coordinator = nodes.coordinator();
    coordinator.sql(ORDERS);
    nodes.watch("w", "");
    nodes.events("w", "orders");
    coordinator.sql("select webhook.pause_webhook('w')");
    coordinator.sql("insert into orders select g, g from generate_series(1, 40) g");
    let node = format!("127.0.0.1:{}", nodes.all[2].port());
    let port = nodes.all[2].port();
    coordinator.sql(&format!(
        "select citus_drain_node('127.0.0.1', {port}, 'block_writes')"
    ));
    // Its rows have left, what it has to send has not.
    let drained = format!("select webhook.drain_node('{node}')");
    assert!(coordinator.value::<i64>(&drained) > 0);
    coordinator.sql("select webhook.resume_webhook('w')");
    coordinator.wait_for_text(PATIENCE, &format!("{drained}::text"), "0");
    nodes.wait_idle();
    coordinator.sql(&format!("select citus_remove_node('127.0.0.1', {port})"));
    nodes.all[2].exempt_from_bookkeeping("it has left the cluster");
    let left = nodes.all.remove(2);
    let coordinator = nodes.coordinator();
    coordinator.sql("select webhook.update_webhook('w', call_throttling => 500)");
    coordinator.sql("insert into orders select g, g from generate_series(41, 60) g");
    nodes.wait_idle();
    let mut wanted: Vec<String> = (1..=60).map(|id| format!("Insert {id}")).collect();
    wanted.sort();
    assert_eq!(nodes.lines_of("orders"), wanted);
    let known: i64 = coordinator.value(&format!(
        "select count(*) from webhook.cluster_worker where node = '{node}'"
    ));
    assert_eq!(known, 0);
    drop(left);
}

#[test]
#[ignore = "needs Citus: make test-citus"]
fn a_node_that_was_removed_too_early_sends_what_it_has_while_it_runs() {
    let mut nodes = Nodes::start("citus-early", 2);
    let coordinator = nodes.coordinator();
    coordinator.sql(ORDERS);
    nodes.watch("w", "call_throttling => 20");
    nodes.events("w", "orders");
    coordinator.sql("insert into orders select g, g from generate_series(1, 60) g");
    let port = nodes.all[2].port();
    coordinator.sql(&format!(
        "select citus_drain_node('127.0.0.1', {port}, 'block_writes');
         select citus_remove_node('127.0.0.1', {port})"
    ));
    nodes.all[2].exempt_from_bookkeeping("it has left the cluster");
    let left = nodes.all.remove(2);
    let pending = "select (sum(pending + retrying) > 0)::text from webhook.queue";
    println!(
        "{} to send when it was removed",
        left.value::<String>("select sum(pending + retrying)::text from webhook.queue")
    );
    left.wait_for_text(PATIENCE, pending, "false");
    nodes.wait_idle();
    let mut wanted: Vec<String> = (1..=60).map(|id| format!("Insert {id}")).collect();
    wanted.sort();
    assert_eq!(nodes.lines_of("orders"), wanted);
}

/// Servers that list the plugins of logical decoding do not have that of Citus in the list.
fn allow_splits_without_blocking(nodes: &Nodes) {
    for node in &nodes.all {
        let plugins = "select coalesce(current_setting('output_plugin_libraries', true), '')";
        let plugins: String = node.value(plugins);
        if !plugins.is_empty() {
            let wanted = format!("{plugins}, citus");
            node.configure("output_plugin_libraries", &wanted);
            node.reload();
            node.wait_for_text(PATIENCE, "show output_plugin_libraries", &wanted);
        }
    }
}

#[test]
#[ignore = "needs Citus: make test-citus"]
fn splits_of_shards_under_load_lose_and_invent_nothing() {
    let nodes = Nodes::start("citus-splits", 2);
    let coordinator = nodes.coordinator();
    allow_splits_without_blocking(&nodes);
    coordinator.sql(ORDERS);
    nodes.watch("w", "");
    nodes.events("w", "orders");
    let split = |mode: &str| {
        format!(
            "select citus_split_shard_by_split_points(
                 s.shardid, array[((s.shardminvalue::bigint + s.shardmaxvalue::bigint) / 2)::text],
                 (select array_agg(nodeid::integer order by nodeid) from pg_dist_node where groupid <> 0), '{mode}')
             from (
                 select * from pg_dist_shard where logicalrelid = 'orders'::regclass order by shardid limit 1
             ) s"
        )
    };
    let steps = [
        split("block_writes"),
        split("force_logical"),
        "select isolate_tenant_to_new_shard('orders', 1, shard_transfer_mode => 'block_writes')"
            .to_owned(),
    ];
    let stop = AtomicBool::new(false);
    let (written, done) = thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut session = coordinator.connect("postgres");
            (1_i64..)
                .take_while(|_| !stop.load(Ordering::Relaxed))
                .filter(|id| {
                    let statement = format!("insert into orders values ({id}, 0)");
                    session.batch_execute(&statement).is_ok()
                })
                .collect::<Vec<_>>()
        });
        let mut session = coordinator.connect("postgres");
        let done: Vec<_> = steps
            .iter()
            .map(|step| session.batch_execute(step))
            .collect();
        stop.store(true, Ordering::Relaxed);
        (writer.join().unwrap(), done)
    });
    for (step, done) in steps.iter().zip(done) {
        assert!(done.is_ok(), "{step}: {done:?}");
    }
    nodes.wait_idle();
    let mut wanted: Vec<String> = written.iter().map(|id| format!("Insert {id}")).collect();
    wanted.sort();
    println!("{} rows were written while shards were split", wanted.len());
    let found = nodes.lines_of("orders");
    assert_eq!(found.len(), wanted.len());
    assert_eq!(found, wanted);
}
