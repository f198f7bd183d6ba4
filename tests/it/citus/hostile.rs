//! What other roles have prepared on a node.

use super::super::support::nodes::Nodes;
use super::super::support::PATIENCE;

/// For each node, before it comes to the cluster.
const ROLE: &str = "create role mallory login; grant create on schema public to mallory";

#[test]
#[ignore = "needs Citus: make test-citus"]
fn functions_of_others_on_a_node_are_not_called() {
    let nodes = Nodes::start("citus-functions", 1);
    let (coordinator, node) = (nodes.coordinator(), &nodes.all[1]);
    coordinator.sql(ROLE);
    nodes.watch("w", "");
    coordinator.sql("create table orders (id bigint primary key); select create_distributed_table('orders', 'id')");
    nodes.events("w", "orders");
    // Each takes its argument as it is, where those of PostgreSQL take any type.
    node.psql(
        "set citus.enable_ddl_propagation = off;
         set role mallory;
         create function public.own(jsonb, jsonb) returns jsonb language plpgsql as $$
         begin raise exception 'called as %', current_user; end $$;
         create aggregate public.jsonb_agg(jsonb) (sfunc = public.own, stype = jsonb, initcond = '[]');
         create function public.concat(text, text, text) returns text language plpgsql as $$
         begin raise exception 'called as %', current_user; end $$;
         create function public.differ(text, text) returns boolean language plpgsql as $$
         begin raise exception 'called as %', current_user; end $$;
         create operator public.<> (leftarg = text, rightarg = text, function = public.differ)",
    );
    node.sql("alter role postgres set search_path = public, pg_catalog");
    for view in ["cluster_queue", "cluster_worker", "cluster_metrics"] {
        let failed: i64 = coordinator.value(&format!(
            "select count(*) from webhook.{view} v where to_jsonb(v)::text like any (array['%unreachable%', '%called as%'])"
        ));
        assert_eq!(failed, 0, "{view}");
    }
    let checks: String = coordinator.value(
        "select string_agg(c.detail, '; ') from webhook.events e, webhook.explain_event(e.id) c where c.check_name = 'node'",
    );
    assert!(!checks.contains("called as"), "{checks}");
    coordinator.sql("select webhook.retry_now('w'); select webhook.enable_cluster()");
    // What the test asks afterwards is its own.
    node.psql("alter role postgres reset search_path");
}

#[test]
#[ignore = "needs Citus: make test-citus"]
fn default_privileges_of_a_node_do_not_open_the_documents() {
    const GRANTED: &str =
        "create role reader; alter default privileges grant select on tables to reader, public";
    let readers = "select count(*)::text from pg_class c, aclexplode(c.relacl) a
        where c.relname ~ '^cluster_document_[0-9]+$' and a.grantee <> c.relowner";
    let placements =
        "select count(*) from pg_class c where c.relname ~ '^cluster_document_[0-9]+$'";
    let mut nodes = Nodes::start("citus-defaults", 1);
    let late = Nodes::another("citus-defaults");
    late.sql(GRANTED);
    nodes.watch("w", "");
    nodes.add(&late);
    nodes
        .coordinator()
        .sql("select replicate_reference_tables('block_writes')");
    nodes.all.push(late);
    for node in &nodes.all {
        node.sql("alter role postgres set citus.override_table_visibility = off");
        assert_eq!(node.value::<i64>(placements), 1);
        node.wait_for_text(PATIENCE, readers, "0");
    }
}
