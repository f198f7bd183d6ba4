//! A message of a shard says what one of an ordinary table says.

use std::collections::BTreeMap;

use serde_json::Value;

use super::super::support::nodes::Nodes;
use super::super::support::Received;

const COLUMNS: &str = "id bigint primary key, gone text, mood mood, place place, price numeric(10, 2), at timestamptz,
    day date, took interval, tags text[], doc jsonb, raw bytea, long text, code varchar(5), nothing integer, flag boolean";

const STATEMENTS: &[&str] = &[
    "insert into TABLE (id, mood, place, price, at, day, took, tags, doc, raw, long, code, flag)
     select g, 'good', row('x', g)::place, 12.50, '2026-03-06 09:30:37.19+01', '2026-03-06', '1 day 2 hours',
            array['a', null, 'c,d'], '{\"b\": 1, \"a\": [1.0, null]}', '\\x00ff', repeat('long ', 20000), 'ab', g % 2 = 0
     from generate_series(1, 6) g",
    "update TABLE set price = price + 1 where id = 2",
    "update TABLE set doc = doc || '{\"c\": 2}', mood = 'bad' where id < 5",
    "update TABLE set long = null, flag = null where id = 3",
    "delete from TABLE where id = 6",
];

/// By type and record: what differs between tables and messages is left out.
fn comparable(received: &Received) -> Value {
    let mut body = received.body();
    let object = body.as_object_mut().expect("an object");
    for name in ["eventId", "messageId", "eventDate", "objectName"] {
        object.remove(name);
    }
    body
}

#[test]
#[ignore = "needs Citus: make test-citus"]
fn payloads_of_shards_are_those_of_ordinary_tables() {
    let nodes = Nodes::start("citus-payloads", 2);
    let coordinator = nodes.coordinator();
    nodes.watch("w", "");
    coordinator.sql("create type mood as enum ('good', 'bad'); create type place as (name text, number integer)");
    for table in ["plain", "orders"] {
        coordinator.sql(&format!(
            "create table {table} ({COLUMNS}); alter table {table} drop column gone"
        ));
    }
    coordinator.sql("select create_distributed_table('orders', 'id')");
    // A node whose columns have other numbers.
    coordinator.sql("alter table plain add column late integer default 7; alter table orders add column late integer default 7");
    let template = r#"{"t": "[@out-hook:eventType]", "new": "[@field:price]", "old": "[@old:price]", "doc": "[@old:doc]",
        "changed": "[@out-hook:changedFields]", "actor": "[@out-hook:actor]", "late": "[@field:late]", "place": "[@field:place]", "id": "[@field:id]"}"#;
    for table in ["plain", "orders"] {
        nodes.events("w", table);
        coordinator.sql(&format!(
            "select webhook.create_event('w', '{table}', 'table.recordUpdate', payload_template => '{template}',
                object_fields => array['price', 'doc']);
             select webhook.create_event('w', '{table}', 'table.recordUpdate', condition => 'new.mood = ''bad'' and old.mood <> new.mood',
                payload_fields => array['id', 'mood', 'late'], null_style => 'null');
             select webhook.create_event('w', '{table}', 'table.recordInsert', match => '{{\"flag\": true, \"code\": [\"ab\", \"zz\"]}}',
                payload_fields => array['id', 'tags'], list_style => 'keyed')"
        ));
    }
    let arrived = |table: &str| -> BTreeMap<String, u64> {
        let seq = nodes.receiver.received().last().map_or(0, |last| last.seq);
        for statement in STATEMENTS {
            // What a session prefers is not what a payload shows.
            coordinator.sql(&format!(
                "set timezone = 'Asia/Tokyo'; set bytea_output = 'escape'; set intervalstyle = 'sql_standard';
                 {}",
                statement.replace("TABLE", table)
            ));
        }
        nodes.wait_idle();
        let mut found = BTreeMap::new();
        for received in nodes.receiver.received_since(seq) {
            *found.entry(comparable(&received).to_string()).or_default() += 1;
        }
        found
    };
    let wanted = arrived("plain");
    let found = arrived("orders");
    println!("{} different payloads", wanted.len());
    let accounts: std::collections::BTreeSet<String> = nodes
        .receiver
        .received_at("/ok")
        .iter()
        .map(|received| {
            let body = received.body();
            format!("{} {}", body["objectName"], body["accountId"])
        })
        .collect();
    println!("{accounts:?}");
    let short = |map: &BTreeMap<String, u64>| -> Vec<String> {
        map.iter()
            .map(|(body, count)| format!("{count} {:.600}", body.replace("long long ", "")))
            .collect()
    };
    // 6 inserts, 3 of them with a flag; 6 updates, thrice with a template and 4 by condition; 1 delete.
    assert!(wanted.len() > 10, "{:#?}", short(&wanted));
    assert_eq!(short(&found), short(&wanted));
    assert!(found == wanted);
}
