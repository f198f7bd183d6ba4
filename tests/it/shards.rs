//! Shards without Citus: tables and a function stand for its catalogs.

use super::support::definitions::wait_idle;
use super::support::{ready_cluster, Cluster, Receiver};

/// One table with two shards here, one of them with a placement on an earlier node. The table has lost a column
/// that shards never had.
const STAND_INS: &str = "
    set allow_system_table_mods = on;
    create table pg_catalog.pg_dist_shard (logicalrelid regclass, shardid bigint);
    create table pg_catalog.pg_dist_placement (shardid bigint, groupid integer, shardstate integer);
    create table pg_catalog.pg_dist_local_group (groupid integer);
    create table pg_catalog.pg_dist_partition (logicalrelid regclass);
    create function pg_catalog.shard_name(logical regclass, shard bigint) returns text language sql stable as $$
        select case when n.nspname = 'public' then quote_ident(c.relname || '_' || shard)
                    else format('%I.%I', n.nspname, c.relname || '_' || shard) end
        from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = logical
    $$;
    reset allow_system_table_mods;
    create schema \"My Shop\";
    create table \"My Shop\".orders (gone text, id bigint, note text, n integer);
    alter table \"My Shop\".orders drop column gone;
    create table \"My Shop\".orders_102008 (id bigint, note text, n integer);
    create table \"My Shop\".orders_102009 (id bigint, note text, n integer);
    create table \"My Shop\".orders_7 (id bigint, note text, n integer);
    create table public.orders_102008 (id bigint, note text, n integer);
    insert into pg_dist_local_group values (2);
    insert into pg_dist_shard select '\"My Shop\".orders', g from generate_series(102008, 102009) g;
    insert into pg_dist_placement values (102008, 2, 1), (102008, 3, 1), (102009, 1, 1), (102009, 2, 1)";

/// The tables that end in a number, with triggers as Citus names those of shards.
fn scene(name: &str) -> (Cluster, Receiver, String) {
    let (cluster, receiver) = ready_cluster(name);
    cluster.sql(STAND_INS);
    cluster.sql(&format!(
        "select webhook.create_webhook('w', array['{}'])",
        receiver.url("/ok")
    ));
    let event = |options: &str| -> String {
        cluster.value(&format!(
            "select id from webhook.create_event('w', '\"My Shop\".orders', {options})"
        ))
    };
    let shared = event("'table.recordInsert', payload_fields => array['n', 'id']");
    let own = event("'table.recordUpdate', object_fields => array['n'], condition => 'new.n > 5'");
    for (table, number) in [
        ("\"My Shop\".orders_102008", "102008"),
        ("\"My Shop\".orders_102009", "102009"),
        ("\"My Shop\".orders_7", "7"),
        ("public.orders_102008", "102008"),
    ] {
        cluster.sql(&format!(
            "create trigger webhook_insert_{shared}_{number} after insert on {table}
             for each row execute function webhook.capture();
             create trigger webhook_{own}_{number} after update on {table}
             for each row when (new.n > 5) execute function webhook.capture('{own}')"
        ));
    }
    (cluster, receiver, shared)
}

#[test]
fn a_change_of_a_shard_is_one_of_its_table() {
    let (cluster, receiver, _) = scene("shards");
    cluster.sql(
        "insert into \"My Shop\".orders_102008 values (1, 'a', 5), (2, 'b', 6);
         update \"My Shop\".orders_102008 set note = 'c';
         update \"My Shop\".orders_102008 set n = n + 1;
         insert into \"My Shop\".orders_102009 values (3, 'elsewhere', 9)",
    );
    wait_idle(&cluster);
    let mut found: Vec<String> = receiver
        .received_at("/ok")
        .iter()
        .map(|received| {
            let body = received.body();
            format!(
                "{} {} {}",
                body["eventType"], body["objectName"], body["data"][0]
            )
        })
        .collect();
    found.sort();
    assert_eq!(
        found,
        [
            r#""table.recordInsert" "My Shop.orders" {"n":5,"id":1}"#,
            r#""table.recordInsert" "My Shop.orders" {"n":6,"id":2}"#,
            r#""table.recordUpdate" "My Shop.orders" {"id":1,"note":"c","n":6}"#,
            r#""table.recordUpdate" "My Shop.orders" {"id":2,"note":"c","n":7}"#,
        ]
    );
    // Where the earlier node is no more, this one captures.
    cluster.sql(
        "delete from pg_dist_placement where groupid = 1;
         comment on table \"My Shop\".orders is 'as Citus, which invalidates what is cached of the table';
         insert into \"My Shop\".orders_102009 values (4, 'here', 9)",
    );
    wait_idle(&cluster);
    assert_eq!(receiver.received_at("/ok").len(), 5);
}

#[test]
fn a_trigger_without_an_event_is_told_of_once_a_session_and_counted() {
    let (cluster, receiver, event) = scene("shards-unknown");
    let warnings = || cluster.log().matches("captures nothing").count();
    let mut session = cluster.connect("postgres");
    for _ in 0..3 {
        // Neither is a shard of the table: another number, another schema.
        session
            .batch_execute(
                "insert into \"My Shop\".orders_7 values (1, 'a', 5);
                 insert into public.orders_102008 values (1, 'a', 5)",
            )
            .unwrap();
    }
    assert_eq!(warnings(), 2, "one a trigger");
    cluster.sql("insert into \"My Shop\".orders_7 values (1, 'a', 5)");
    assert_eq!(warnings(), 3, "one more in another session");
    let unknown =
        "select value::integer from webhook.metrics where name = 'webhook_unknown_triggers'";
    assert_eq!(cluster.value::<i32>(unknown), 0);
    cluster.sql(
        "create trigger webhook_insert_zzzzzz_9 after insert on \"My Shop\".orders_7
         for each row execute function webhook.capture()",
    );
    assert_eq!(cluster.value::<i32>(unknown), 1);
    // What remains of an event that was dropped is no loss.
    cluster.sql(&format!("select webhook.drop_event('{event}')"));
    cluster.sql("insert into \"My Shop\".orders_102008 values (1, 'a', 5)");
    assert_eq!(warnings(), 3);
    wait_idle(&cluster);
    assert_eq!(receiver.received_at("/ok").len(), 0);
}

#[test]
fn explain_event_looks_at_each_shard() {
    let (cluster, _receiver, event) = scene("shards-explain");
    let check = || -> (bool, String) {
        let row = cluster
            .connect("postgres")
            .query_one(
                &format!("select ok, detail from webhook.explain_event('{event}') where check_name = 'shards'"),
                &[],
            )
            .unwrap();
        (row.get(0), row.get(1))
    };
    let (ok, detail) = check();
    assert!(ok, "{detail}");
    assert!(
        detail.contains("on this node: 2") && detail.contains("by other nodes: 1"),
        "{detail}"
    );
    for change in [
        "alter table \"My Shop\".orders_102009 disable trigger all",
        "drop trigger \"webhook_insert_EVENT_102009\" on \"My Shop\".orders_102009",
    ] {
        cluster.sql(&change.replace("EVENT", &event));
        let (ok, detail) = check();
        assert!(!ok && detail.contains("orders_102009"), "{detail}");
        assert!(!detail.contains("orders_102008"), "{detail}");
    }
}

#[test]
fn rows_of_a_restore_in_one_transaction_need_no_event() {
    let (cluster, _receiver) = ready_cluster("shards-restore");
    cluster.sql(
        "begin;
         create table orders (id bigint);
         create trigger webhook_insert_zzzzzz after insert on orders for each row execute function webhook.capture();
         insert into orders values (1);
         commit",
    );
    assert_eq!(cluster.value::<i64>("select count(*) from orders"), 1);
    assert_eq!(cluster.log().matches("captures nothing").count(), 1);
}
