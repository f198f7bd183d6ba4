//! Definitions are made on the coordinator and are the same on all nodes.

use super::super::support::definitions::create_webhook;
use super::super::support::nodes::Nodes;
use super::super::support::{Cluster, PATIENCE};

/// What a node has, without what differs by node.
const DEFINITIONS: &str = "
    select string_agg(concat_ws('|', w.id, w.name, w.paused, w.call_throttling, u.url, s.secret, e.id, e.object_name,
                                e.event_type, e.object_fields, e.condition is not null), E'\\n' order by w.id, u.url, s.secret, e.id)
    from webhook.webhook_def w
    left join webhook.url_def u on u.webhook_key = w.webhook_key and u.dropped_at is null
    left join webhook.secret_def s on s.webhook_key = w.webhook_key
    left join webhook.event_def e on e.webhook_key = w.webhook_key and e.dropped_at is null
    where w.dropped_at is null";

fn definitions(node: &Cluster) -> String {
    node.value::<Option<String>>(DEFINITIONS)
        .unwrap_or_default()
}

fn refusal(node: &Cluster, statement: &str) -> String {
    let error = node
        .connect("postgres")
        .batch_execute(statement)
        .unwrap_err();
    let error = error.as_db_error().expect("the server answered");
    format!("{} {}", error.code().code(), error.message())
}

#[test]
#[ignore = "needs Citus: make test-citus"]
fn all_nodes_have_the_definitions_of_the_coordinator() {
    let mut nodes = Nodes::start("citus-definitions", 2);
    let coordinator = nodes.coordinator();
    coordinator.sql(
        "create schema s; create function s.large(n integer) returns boolean language sql immutable as 'select n > 5';
         create table orders (id bigint primary key, gone text, n integer);
         alter table orders drop column gone;
         select create_distributed_table('orders', 'id')",
    );
    nodes.watch(
        "w",
        "call_throttling => 30, headers => '{\"X-Key\": \"k\"}'",
    );
    coordinator.sql(
        "set search_path = s, public;
         select webhook.create_event('w', 'orders', 'table.recordInsert', match => '{\"n\": [1, 2]}');
         select webhook.create_event('w', 'orders', 'table.recordUpdate', object_fields => array['n'], condition => 'large(new.n)')",
    );
    let same = |nodes: &Nodes| {
        let wanted = definitions(nodes.coordinator());
        for node in &nodes.all[1..] {
            assert_eq!(definitions(node), wanted);
        }
        wanted
    };
    let first = same(&nodes);
    assert_eq!(first.lines().count(), 2, "{first}");
    coordinator.sql("select webhook.update_webhook('w', name => 'x', outgoing_urls => array['http://127.0.0.1:9/a', 'http://127.0.0.1:9/b'])");
    coordinator.sql("select webhook.regenerate_secret('x'); select webhook.pause_webhook('x')");
    let second = same(&nodes);
    assert_eq!(second.lines().count(), 8, "{second}");
    // What is rolled back, is nowhere.
    coordinator.sql("begin; select webhook.drop_webhook('x'); rollback");
    assert_eq!(same(&nodes), second);

    let worker = &nodes.all[1];
    let refused = "55000 webhooks of a cluster are defined on its coordinator";
    assert_eq!(
        refusal(worker, "select webhook.pause_webhook('x')"),
        refused
    );
    assert_eq!(
        refusal(worker, "select webhook.resume_webhook('x')"),
        refused
    );
    // The name of a session proves nothing.
    let as_citus = "set application_name = 'citus_mine'; select webhook.create_webhook('y', array['http://127.0.0.1:9/'])";
    assert_eq!(refusal(worker, as_citus), refused);
    assert_eq!(
        refusal(
            worker,
            "select webhook.create_webhook('y', array['http://127.0.0.1:9/'])"
        ),
        refused
    );
    assert_eq!(
        refusal(worker, "select webhook.enable_cluster()"),
        "55000 cannot enable a cluster: this node is not the coordinator of its cluster"
    );

    // A node that comes later has them when its worker has started.
    let another = Nodes::another("citus-definitions");
    nodes.add(&another);
    nodes
        .coordinator()
        .sql("select replicate_reference_tables('block_writes')");
    another.wait_until(PATIENCE, "the definitions", || {
        let found = definitions(&another);
        if found == second {
            Ok(())
        } else {
            Err(found)
        }
    });
    nodes.all.push(another);

    nodes.coordinator().sql("select webhook.drop_webhook('x')");
    assert_eq!(same(&nodes), "");
}

#[test]
#[ignore = "needs Citus: make test-citus"]
fn a_cluster_has_one_account_and_takes_no_node_with_webhooks_of_its_own() {
    let nodes = Nodes::start("citus-account", 1);
    let coordinator = nodes.coordinator();
    coordinator.sql("create table orders (id bigint primary key); select create_distributed_table('orders', 'id')");
    nodes.watch("w", "");
    nodes.events("w", "orders");
    coordinator.sql("create table plain (id bigint primary key)");
    nodes.events("w", "plain");
    coordinator
        .sql("insert into orders select generate_series(1, 8); insert into plain values (9)");
    nodes.wait_idle();
    let mut accounts: Vec<String> = nodes
        .receiver
        .received_at("/ok")
        .iter()
        .map(|received| received.body()["accountId"].to_string())
        .collect();
    assert_eq!(accounts.len(), 9);
    accounts.dedup();
    assert_eq!(accounts.len(), 1, "{accounts:?}");

    let other = Nodes::another("citus-account");
    other.sql("create extension webhook_ext");
    create_webhook(&other, "own", &["http://127.0.0.1:9/".to_owned()], "");
    nodes.add(&other);
    let refused = refusal(coordinator, "select webhook.enable_cluster()");
    assert!(refused.contains("has 1 webhooks of its own"), "{refused}");
    other.exempt_from_bookkeeping("it is not of the cluster");
}

#[test]
#[ignore = "needs Citus: make test-citus"]
fn a_node_that_was_away_takes_names_that_have_changed_hands() {
    let nodes = Nodes::start("citus-names", 1);
    let (coordinator, node) = (nodes.coordinator(), &nodes.all[1]);
    for webhook in ["a", "b", "c"] {
        nodes.watch(webhook, "");
    }
    // As a copy of the table comes: no trigger fires.
    node.psql(
        "do $$ begin execute (
             select 'alter table webhook_internal.cluster_document_' || shardid || ' disable trigger all'
             from pg_dist_shard where logicalrelid = 'webhook_internal.cluster_document'::regclass); end $$",
    );
    let rename = |from: &str, to: &str| {
        coordinator.sql(&format!(
            "select webhook.update_webhook('{from}', name => '{to}')"
        ));
    };
    node.sql("select webhook.stop_worker()");
    rename("a", "d");
    rename("b", "a");
    rename("d", "b");
    // No trace of it is left when another one takes its name.
    coordinator.sql("delete from webhook.webhook_def where name = 'c'");
    nodes.watch("c", "");
    assert_ne!(definitions(node), definitions(coordinator));
    node.sql("select webhook.start_worker()");
    let end = std::time::Instant::now() + PATIENCE;
    while definitions(node) != definitions(coordinator) && std::time::Instant::now() < end {
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    assert_eq!(definitions(node), definitions(coordinator));
}
