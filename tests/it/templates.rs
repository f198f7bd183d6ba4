//! Custom payloads the whole way: from a definition through capture to the receiver.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde::Deserialize;
use serde_json::{json, Map, Value};

use super::payload_types::{conformance, Case, CONTRACT, FURTHER_TYPES, ODD_SETTINGS};
use super::support::definitions::wait_idle;
use super::support::{ready_cluster, Cluster, Received, Receiver};

/// The first example of a custom payload in the documentation of the hosted product.
const OBJECT_EXAMPLE: &str = r#"{ "eventId": "[@out-hook:eventId]", "messageId": "[@out-hook:messageId]",
    "webhookId": "[@out-hook:webhookId]", "accountId": "[@out-hook:accountId]",
    "secret": "[@out-hook:secret]", "eventDate": "[@out-hook:eventDate]",
    "eventType": "[@out-hook:eventType]", "objectName": "[@out-hook:objectName]",
    "data": [ { "PK_ID": "[@field:PK_ID]", "First_Name": "[@field:First_Name]",
    "Last_Name": "[@field:Last_Name]", "Number": "[@field:Number]", "Form": "[@field:Form]",
    "Number2": "[@field:Number2]", "PersonPicture": "[@field:PersonPicture]" } ] }"#;

/// The second one: an array at top level.
const ARRAY_EXAMPLE: &str = r#"[ { "objectId": 1246965, "propertyName": "lifecyclestage", "propertyValue": "subscriber",
    "changeSource": "ACADEMY", "eventId": 3816279340, "subscriptionId": 25, "portalId": 33, "appId": 1160452,
    "occurredAt": 1462216307945, "eventType":"contact.propertyChange", "attemptNumber": 0 },
    { "objectId": 1246978, "changeSource": "IMPORT", "eventId": 3816279480, "subscriptionId": 22,
    "portalId": 33, "appId": 1160452, "occurredAt": 1462216307945, "eventType": "contact.creation",
    "attemptNumber": 0 } ]"#;

fn create_webhook(cluster: &Cluster, receiver: &Receiver) {
    cluster.sql(&format!(
        "select webhook.create_webhook(name => 'custom', outgoing_urls => array['{}'])",
        receiver.url("/ok")
    ));
}

/// Creates an event of webhook `custom` and returns its id.
fn create_event(cluster: &Cluster, table: &str, kind: &str, template: &str) -> String {
    let mut client = cluster.connect("postgres");
    let row = client.query_one(
        "select id from webhook.create_event('custom', $1::text::regclass, $2, payload_template => $3)",
        &[&table, &format!("table.record{kind}"), &template],
    );
    row.unwrap_or_else(|error| panic!("{template}: {error:?}\n{}", cluster.log()))
        .get(0)
}

fn bodies(receiver: &Receiver) -> Vec<String> {
    receiver.received().into_iter().map(|r| r.raw).collect()
}

#[derive(Deserialize)]
struct TemplateCases {
    templates: Vec<TemplateCase>,
}

#[derive(Deserialize)]
struct TemplateCase {
    template: String,
    row: BTreeMap<String, String>,
    types: BTreeMap<String, String>,
    json: Option<String>,
    json_any_order: Option<String>,
}

#[test]
fn the_templates_of_the_contract_arrive_as_it_says() {
    let (cluster, receiver) = ready_cluster("contract_templates");
    create_webhook(&cluster, &receiver);
    let cases: TemplateCases = serde_json::from_str(CONTRACT).unwrap();
    assert_eq!(cases.templates.len(), 2, "the file was read");
    for case in cases.templates {
        let columns: Vec<String> = case
            .types
            .iter()
            .map(|(name, column_type)| format!("{name} {column_type}"))
            .collect();
        let names: Vec<&str> = case.row.keys().map(String::as_str).collect();
        let values: Vec<&str> = case.row.values().map(String::as_str).collect();
        cluster.sql(&format!(
            "drop table if exists rows; create table rows ({})",
            columns.join(", ")
        ));
        create_event(&cluster, "rows", "Insert", &case.template);
        receiver.reset();
        cluster.sql(&format!(
            "insert into rows ({}) values ({})",
            names.join(", "),
            values.join(", ")
        ));
        wait_idle(&cluster);
        let found = bodies(&receiver);
        assert_eq!(found.len(), 1);
        if let Some(expected) = case.json {
            assert_eq!(found[0], expected);
        }
        if let Some(expected) = case.json_any_order {
            let parsed = |text: &str| serde_json::from_str::<Value>(text).unwrap();
            assert_eq!(parsed(&found[0]), parsed(&expected));
        }
    }
}

#[test]
fn the_documented_examples_of_custom_payloads_arrive() {
    let (cluster, receiver) = ready_cluster("examples");
    create_webhook(&cluster, &receiver);
    cluster.sql(
        r#"create table people ("PK_ID" integer, "First_Name" text, "Last_Name" text, "Number" numeric,
                                "Form" text, "Number2" numeric, "PersonPicture" bytea, "Salary" numeric)"#,
    );
    let event = create_event(&cluster, "people", "Insert", OBJECT_EXAMPLE);
    cluster.sql(
        r#"insert into people values (7, 'Ann "A"', null, 12.50, '', null, '\x00ff10', 99999)"#,
    );
    wait_idle(&cluster);
    let received = receiver.received().remove(0);
    let body = received.body();
    let keys: Vec<&String> = body.as_object().unwrap().keys().collect();
    assert_eq!(
        keys,
        [
            "eventId",
            "messageId",
            "webhookId",
            "accountId",
            "secret",
            "eventDate",
            "eventType",
            "objectName",
            "data"
        ]
    );
    assert_eq!(body["eventId"], event);
    assert_eq!(body["messageId"], received.message_id());
    assert_eq!(body["eventType"], "table.recordInsert");
    assert_eq!(body["objectName"], "people");
    assert_eq!(
        body["secret"],
        cluster.value::<String>("select token from webhook.reveal_secret('custom')")
    );
    assert!(
        received.raw.ends_with(
            r#""data":[{"PK_ID":7,"First_Name":"Ann \"A\"","Last_Name":"","Number":12.50,"Form":"","Number2":null,"PersonPicture":"AP8Q"}]}"#
        ),
        "{}",
        received.raw
    );

    let literal: Value = serde_json::from_str(ARRAY_EXAMPLE).unwrap();
    let with_parameters = ARRAY_EXAMPLE
        .replace("1246965", "\"[@field:PK_ID]\"")
        .replace("\"subscriber\"", "\"[@field:First_Name]\"")
        .replace("1246978", "\"[@old:PK_ID]\"")
        .replace("\"contact.creation\"", "\"contact.[@field:PK_ID]\"");
    create_event(&cluster, "people", "Update", ARRAY_EXAMPLE);
    create_event(&cluster, "people", "Update", &with_parameters);
    receiver.reset();
    cluster.sql(r#"update people set "PK_ID" = 8"#);
    wait_idle(&cluster);
    let mut filled = literal.clone();
    filled[0]["objectId"] = json!(8);
    filled[0]["propertyValue"] = json!("Ann \"A\"");
    filled[1]["objectId"] = json!(7);
    filled[1]["eventType"] = json!("contact.8");
    let mut found = bodies(&receiver);
    let mut expected = vec![literal.to_string(), filled.to_string()];
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected);
}

#[test]
fn every_type_keeps_its_json_as_a_value_and_is_text_in_a_string() {
    for (name, file) in [
        ("contract_typed", CONTRACT),
        ("further_typed", FURTHER_TYPES),
    ] {
        let (cluster, receiver) = ready_cluster(name);
        create_webhook(&cluster, &receiver);
        let file = conformance(file);
        for statement in &file.setup {
            cluster.sql(statement);
        }
        let cases: Vec<&Case> = file.cases.iter().chain(&file.keyed).collect();
        for (number, case) in cases.iter().enumerate() {
            let template = format!(
                r#"{{"case": {number}, "typed": "[@field:f]", "text": "<[@field:f]>", "end": 1.50}}"#
            );
            cluster.sql(&format!(
                "create table case_{number} (f {});
                 select webhook.create_event('custom', 'case_{number}', 'table.recordInsert',
                                             payload_template => '{template}',
                                             null_style => '{}', list_style => '{}')",
                case.column_type, case.null_style, case.list_style
            ));
        }
        let inserts = cases
            .iter()
            .enumerate()
            .map(|(number, case)| format!("insert into case_{number} values ({});", case.sql));
        cluster.sql(&format!("{ODD_SETTINGS} {}", inserts.collect::<String>()));
        wait_idle(&cluster);
        let found = bodies(&receiver);
        assert_eq!(found.len(), cases.len());
        let mut client = cluster.connect("postgres");
        for (number, case) in cases.iter().enumerate() {
            let start = format!(r#"{{"case":{number},"typed":{},"text":"<"#, case.json);
            let body = found.iter().find(|body| body.starts_with(&start));
            let body = body.unwrap_or_else(|| panic!("{case:?}: nothing starts with {start}"));
            let row = client
                .query_one(
                    "select $1::text::json ->> 'end', ($1::text::json -> 'text')::text",
                    &[body],
                )
                .unwrap_or_else(|error| panic!("{case:?}: {error:?} in {body}"));
            assert_eq!(row.get::<_, String>(0), "1.50");
            let text: String = row.get(1);
            assert_eq!(text, format!("\"<{}>\"", as_text(&case.json)), "{case:?}");
        }
    }
}

/// What a JSON value becomes inside a longer string.
fn as_text(json: &str) -> String {
    match json.trim().as_bytes() {
        b"null" => String::new(),
        [b'"', .., b'"'] => json.trim()[1..json.trim().len() - 1].to_owned(),
        [b'{' | b'[', ..] => {
            let quoted = Value::String(json.trim().to_owned()).to_string();
            quoted[1..quoted.len() - 1].to_owned()
        }
        _ => json.trim().to_owned(),
    }
}

#[test]
fn old_values_changes_and_who_made_them_are_those_of_the_change() {
    let (cluster, receiver) = ready_cluster("old_values");
    create_webhook(&cluster, &receiver);
    cluster.sql(
        "create table accounts (id integer primary key, owner text, balance numeric(10, 2), note text);
         alter table accounts alter note set storage external;
         create role clerk;
         grant all on accounts to clerk",
    );
    let template = r#"{"type": "[@out-hook:eventType]", "new": "[@field:balance]", "old": "[@old:balance]",
        "text": "[@old:owner]→[@field:owner]", "changed": "[@out-hook:changedFields]",
        "list": "<[@out-hook:changedFields]>", "fields": "[@out-hook:objectFields]",
        "actor": "[@out-hook:actor]", "source": "[@out-hook:source]", "url": "[@sys:IntegrationURL]"}"#;
    for kind in ["Insert", "Update", "Delete"] {
        create_event(&cluster, "accounts", kind, template);
    }
    cluster.sql(
        "set role clerk;
         set webhook.source = 'REST \"API\"';
         insert into accounts values (1, 'Ann', 1.50, repeat('x', 10000));
         update accounts set balance = 2.00, owner = 'Bob';
         update accounts set id = 2, note = note;
         delete from accounts",
    );
    wait_idle(&cluster);
    let expected = |kind: &str, new: &str, old: &str, text: &str, changed: &str| {
        let list = changed.replace(['[', ']', '"'], "");
        format!(
            "{{\"type\":\"table.record{kind}\",\"new\":{new},\"old\":{old},\"text\":\"{text}\",\
             \"changed\":{changed},\"list\":\"<{list}>\",\"fields\":[],\"actor\":\"clerk\",\
             \"source\":\"REST \\\"API\\\"\",\"url\":\"\"}}"
        )
    };
    let mut found = bodies(&receiver);
    let mut wanted = vec![
        expected("Insert", "1.50", "null", "→Ann", "[]"),
        expected(
            "Update",
            "2.00",
            "1.50",
            "Ann→Bob",
            r#"["owner","balance"]"#,
        ),
        expected("Update", "2.00", "2.00", "Bob→Bob", r#"["id"]"#),
        expected("Delete", "2.00", "2.00", "Bob→Bob", "[]"),
    ];
    found.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(found, wanted);
}

#[test]
fn only_what_the_template_names_is_stored() {
    const HASH: &str = "never to be seen";
    let (cluster, receiver) = ready_cluster("only_needed");
    create_webhook(&cluster, &receiver);
    cluster.sql("create table users (id integer, name text, password_hash text)");
    create_event(
        &cluster,
        "users",
        "Update",
        r#"["[@field:id]", "[@old:name]"]"#,
    );
    cluster.sql(&format!(
        "insert into users values (1, 'Ann', '{HASH} 1');
         update users set name = 'Bob', password_hash = '{HASH} 2'"
    ));
    wait_idle(&cluster);
    assert_eq!(bodies(&receiver), [r#"[1,"Ann"]"#]);

    let mut client = cluster.connect("postgres");
    let stored = client
        .query_one(
            "select record, old_record, changed from webhook.outbox",
            &[],
        )
        .unwrap();
    assert_eq!(stored.get::<_, String>(0), r#"{"id":1}"#);
    assert_eq!(stored.get::<_, String>(1), r#"{"name":"Ann"}"#);
    assert_eq!(stored.get::<_, Option<String>>(2), None);
    let tables = client
        .query(
            "select c.oid::regclass::text from pg_class c
             where c.relnamespace = 'webhook'::regnamespace and c.relkind = 'r'",
            &[],
        )
        .unwrap();
    assert!(tables.len() > 10, "our tables were found");
    for table in tables {
        let table: String = table.get(0);
        let query = format!("select count(*) from {table} t where t::text like '%{HASH}%'");
        assert_eq!(
            client.query_one(&query, &[]).unwrap().get::<_, i64>(0),
            0,
            "{table}"
        );
    }
}

#[test]
fn renames_and_edits_apply_to_what_is_pending() {
    let (cluster, receiver) = ready_cluster("renames");
    create_webhook(&cluster, &receiver);
    cluster.sql("create table t (gone integer, id integer, name text); alter table t drop gone");
    let event = create_event(
        &cluster,
        "t",
        "Insert",
        r#"{"id": "[@field:id]", "n": "[@field:name]"}"#,
    );
    let edit = |template: &str| {
        cluster.sql(&format!(
            "select webhook.update_event('{event}', payload_template => '{template}')"
        ));
    };
    cluster.sql("select webhook.pause_webhook('custom')");
    cluster.sql("insert into t values (1, 'before')");
    cluster.sql("alter table t rename name to label; alter table t rename id to name");
    cluster.sql("insert into t values (2, 'after')");
    edit(r#"{"edited": "[@field:name]", "label": "[@field:label]"}"#);
    cluster.sql("insert into t values (3, 'edited')");
    cluster.sql("select webhook.resume_webhook('custom')");
    wait_idle(&cluster);
    let mut found = bodies(&receiver);
    found.sort_unstable();
    assert_eq!(
        found,
        [
            // Kept under the names that the template had when they were captured.
            r#"{"edited":"after","label":null}"#,
            r#"{"edited":"before","label":null}"#,
            r#"{"edited":3,"label":"edited"}"#,
        ]
    );
}

#[test]
fn what_is_captured_with_an_edit_is_sent_with_it() {
    let (cluster, receiver) = ready_cluster("edits");
    create_webhook(&cluster, &receiver);
    cluster.sql("create table t (a integer, b integer)");
    let event = create_event(&cluster, "t", "Insert", r#"{"a": "[@field:a]"}"#);
    cluster.sql("insert into t values (0, 0)");
    wait_idle(&cluster);
    let mut expected = vec![r#"{"a":0}"#.to_owned()];
    // The worker is woken by a commit before it hears what else the commit changed.
    for number in 1..=20 {
        let (field, other) = if number % 2 == 0 {
            ("a", "b")
        } else {
            ("b", "a")
        };
        cluster.sql(&format!(
            "select webhook.update_event('{event}', payload_template => '{{\"{other}\": \"[@field:{field}]\"}}');
             insert into t values ({number}, {number})"
        ));
        wait_idle(&cluster);
        expected.push(format!("{{\"{other}\":{number}}}"));
    }
    assert_eq!(bodies(&receiver), expected);
}

#[test]
fn a_partition_sends_what_its_root_names_whatever_its_own_columns_are_numbered() {
    let (cluster, receiver) = ready_cluster("partitions");
    create_webhook(&cluster, &receiver);
    cluster.sql(
        "create table parted (id integer, name text) partition by list (id);
         create table odd (x integer, name text, y integer, id integer);
         alter table odd drop x, drop y;
         alter table parted attach partition odd for values in (1)",
    );
    create_event(
        &cluster,
        "parted",
        "Insert",
        r#"["[@out-hook:objectName]", "[@field:name]", "[@field:id]"]"#,
    );
    cluster.sql("insert into parted values (1, 'a'); insert into odd (id, name) values (1, 'b')");
    wait_idle(&cluster);
    let mut found = bodies(&receiver);
    found.sort_unstable();
    assert_eq!(found, [r#"["parted","a",1]"#, r#"["parted","b",1]"#]);
}

/// Ids and dates differ from message to message.
fn without_what_differs(received: &Received) -> String {
    let body = received.raw.clone();
    let date = received.body()["date"].as_str().unwrap().to_owned();
    body.replace(
        received.message_id(),
        "00000000-0000-0000-0000-000000000000",
    )
    .replace(
        received.header("webhook-call-id"),
        "00000000-0000-0000-0000-000000000000",
    )
    .replace(&date, "DATE")
}

#[test]
fn a_preview_is_what_is_sent() {
    let (cluster, receiver) = ready_cluster("previews");
    create_webhook(&cluster, &receiver);
    cluster.sql(
        "create table p (gone text, id integer, sample text, n numeric(10, 2), tags text[], j json);
         alter table p drop gone;
         create table default_p (like p)",
    );
    let template = r#"{"date": "[@out-hook:eventDate]", "ids": "[@out-hook:messageId] [@out-hook:callId]",
        "secret": "[@out-hook:secret]", "id": "[@field:id]", "n": "[@field:n]", "was": "[@old:n]",
        "text": "[@field:sample]/[@old:sample]", "tags": "[@field:tags]", "j": "[@field:j]",
        "changed": "[@out-hook:changedFields]", "who": "[@out-hook:actor] at [@out-hook:source]"}"#;
    let update = create_event(&cluster, "p", "Update", template);
    let delete = create_event(&cluster, "p", "Delete", template);
    let mut client = cluster.connect("postgres");
    let mut preview = |event: &str, record: Option<&str>| -> String {
        let row = client.query_one(
            "select webhook.preview_payload($1, $2::text::jsonb)",
            &[&event, &record],
        );
        let body: String = row.unwrap_or_else(|error| panic!("{error:?}")).get(0);
        let parsed: Value = serde_json::from_str(&body).unwrap();
        body.replace(parsed["date"].as_str().unwrap(), "DATE")
    };
    let nulls: Value = serde_json::from_str(&preview(&update, None)).unwrap();
    assert_eq!(nulls["n"], Value::Null);
    assert_eq!(nulls["text"], "/");
    cluster.sql(r#"insert into p values (1, 'a"b', 1.50, array['x', null], '{"k": [1.0]}')"#);
    let change = r#"{"n": 2.5, "tags": ["y\"z"]}"#;
    let expected = [
        preview(&update, Some(change)),
        preview(&delete, Some(change)),
    ];
    cluster.sql("update p set n = 2.5, tags = array['y\"z']; delete from p");
    wait_idle(&cluster);
    let received = receiver.received();
    let mut found: Vec<String> = received.iter().map(without_what_differs).collect();
    // Bodies are told apart by the changed fields, which a deleted row does not have.
    found.sort_unstable_by_key(|body| body.contains("\"changed\":[]"));
    assert_eq!(found, expected);
}

/// Any row of the table: text as hostile as it can be stored, numbers, json, a list.
fn any_row() -> impl Strategy<Value = (Option<String>, String, i64, f64, Option<bool>, Vec<String>)>
{
    let text = || {
        prop_oneof![
            "[^\u{0}]{0,20}",
            "[\"\\\\{}\\[\\],:@\u{1}-\u{1f}]{0,10}",
            Just("\",\"injected\":\"x".to_owned()),
            Just("[@field:b] \\u0041 \\".to_owned()),
        ]
    };
    (
        prop::option::of(text()),
        text(),
        any::<i64>(),
        prop::num::f64::NORMAL | prop::num::f64::ZERO,
        prop::option::of(any::<bool>()),
        prop::collection::vec(text(), 0..4),
    )
}

#[test]
fn any_row_arrives_as_valid_json_with_each_value_in_its_place() {
    const ROWS: usize = 300;
    let (cluster, receiver) = ready_cluster("any_row");
    create_webhook(&cluster, &receiver);
    cluster.sql(
        "create table r (id integer, a text, \"b \"\"q\"\"\" text, i bigint, f float8, t boolean, l text[], j jsonb)",
    );
    let template = json!({
        "id": "[@field:id]", "a": "[@field:a]", "text": "<[@field:b \"q\"]|[@field:a]>", "i": "[@field:i]",
        "f": "[@field:f]", "t": "[@field:t]", "l": ["[@field:l]"], "j": {"in": "[@field:j]"}, "end": 1.50,
    });
    create_event(&cluster, "r", "Insert", &template.to_string());
    let mut runner = TestRunner::deterministic();
    let mut client = cluster.connect("postgres");
    let mut transaction = client.transaction().unwrap();
    let mut expected: BTreeMap<i64, Value> = BTreeMap::new();
    for id in 0..ROWS as i32 {
        let (a, b, i, f, t, l) = any_row().new_tree(&mut runner).unwrap().current();
        // jsonb holds no NUL; it sorts keys, so one is enough.
        let j = json!({ b.clone(): [i, a] });
        transaction
            .execute(
                "insert into r values ($1, $2, $3, $4, $5, $6, $7, $8)",
                &[&id, &a, &b, &i, &f, &t, &l, &j],
            )
            .unwrap();
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let boolean = t.map_or(json!(""), Value::from);
        expected.insert(
            id.into(),
            json!({
                "id": id, "a": text(&a), "text": format!("<{b}|{}>", text(&a)), "i": i, "f": f,
                "t": boolean, "l": [l], "j": {"in": j}, "end": 1.50,
            }),
        );
    }
    transaction.commit().unwrap();
    wait_idle(&cluster);
    let received = receiver.received();
    assert_eq!(received.len(), ROWS);
    for request in received {
        let mut body: Map<String, Value> = serde_json::from_str(&request.raw).unwrap();
        let again: Value = serde_json::from_str(&Value::Object(body.clone()).to_string()).unwrap();
        assert_eq!(again, Value::Object(body.clone()));
        let mut wanted = expected.remove(&body["id"].as_i64().unwrap()).unwrap();
        // The same number may be spelled in two ways.
        let f = body.remove("f").unwrap().as_f64();
        assert_eq!(
            f,
            wanted
                .as_object_mut()
                .unwrap()
                .remove("f")
                .unwrap()
                .as_f64()
        );
        assert_eq!(Value::Object(body), wanted);
        let agrees = client.query_one(
            "select $1::text::jsonb - 'f' = $2::jsonb",
            &[&request.raw, &wanted],
        );
        assert!(agrees.unwrap().get::<_, bool>(0), "{}", request.raw);
    }
}
