//! Custom payloads of changes: old values and who made them, what is stored for a template, what
//! becomes of it when the table or the template changes, and what a preview says beforehand.

use serde_json::Value;

use super::support::custom::{bodies, create_event, create_webhook};
use super::support::definitions::wait_idle;
use super::support::{ready_cluster, Received};

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
            "select record, old_record, changed from webhook_internal.outbox",
            &[],
        )
        .unwrap();
    assert_eq!(stored.get::<_, String>(0), r#"{"id":1}"#);
    assert_eq!(stored.get::<_, String>(1), r#"{"name":"Ann"}"#);
    assert_eq!(stored.get::<_, Option<String>>(2), None);
    let tables = client
        .query(
            "select c.oid::regclass::text from pg_class c
             where c.relnamespace::regnamespace::text in ('webhook', 'webhook_internal') and c.relkind = 'r'",
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
