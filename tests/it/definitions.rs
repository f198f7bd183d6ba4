//! Definitions are cached in every session: a change of one acts at once in all of
//! them, and a trigger only works for the event and the table it was made for.

use postgres::Client;

use super::support::definitions::{create_event, create_webhook, records_at, wait_idle};
use super::support::{ready_cluster, Cluster, Receiver};

/// One call at a time: messages arrive in the order of the changes.
const IN_ORDER: &str = "max_in_flight => 1";

fn with_webhook(name: &str) -> (Cluster, Receiver) {
    let (cluster, receiver) = ready_cluster(name);
    create_webhook(&cluster, "crm", &[receiver.url("/ok")], IN_ORDER);
    cluster.sql("create table items (id integer, name text)");
    (cluster, receiver)
}

fn run(session: &mut Client, statements: &str) {
    session
        .batch_execute(statements)
        .unwrap_or_else(|error| panic!("{statements}: {error:?}"));
}

fn insert(session: &mut Client, id: i32) {
    run(session, &format!("insert into items values ({id})"));
}

/// The ids in the received rows, in order of arrival, once nothing is pending.
fn received_ids(cluster: &Cluster, receiver: &Receiver) -> Vec<i64> {
    wait_idle(cluster);
    let received = receiver.received_at("/ok");
    let ids = received
        .iter()
        .map(|message| message.body()["data"][0]["id"].as_i64());
    ids.map(|id| id.expect("a row has an id")).collect()
}

fn set_enabled(cluster: &Cluster, enabled: bool) {
    cluster.sql(&format!("update webhook.event_def set enabled = {enabled}"));
}

#[test]
fn what_another_session_creates_switches_or_drops_acts_at_once() {
    let (cluster, receiver) = with_webhook("definitions");
    let mut session = cluster.connect("postgres");
    insert(&mut session, 1);
    let event = create_event(&cluster, "crm", "items", "Insert", "");
    insert(&mut session, 2);
    set_enabled(&cluster, false);
    insert(&mut session, 3);
    set_enabled(&cluster, true);
    insert(&mut session, 4);
    cluster.sql("update webhook.webhook_def set enabled = false");
    insert(&mut session, 5);
    cluster.sql("update webhook.webhook_def set enabled = true");
    insert(&mut session, 6);
    cluster.sql("begin; update webhook.event_def set enabled = false; rollback");
    insert(&mut session, 7);
    cluster.sql(&format!("select webhook.drop_event('{event}')"));
    insert(&mut session, 8);
    create_event(&cluster, "crm", "items", "Insert", "");
    insert(&mut session, 9);
    cluster.sql("select webhook.drop_webhook('crm')");
    insert(&mut session, 10);
    create_webhook(&cluster, "crm", &[receiver.url("/ok")], IN_ORDER);
    create_event(&cluster, "crm", "items", "Insert", "");
    insert(&mut session, 11);
    let received = received_ids(&cluster, &receiver);
    // 9 may still be pending when its webhook is dropped.
    let expected: &[i64] = if received.contains(&9) {
        &[2, 4, 6, 7, 9, 11]
    } else {
        &[2, 4, 6, 7, 11]
    };
    assert_eq!(received, expected);
}

#[test]
fn a_change_acts_in_the_middle_of_a_transaction_from_its_next_statement() {
    let (cluster, receiver) = with_webhook("mid_transaction");
    let mut session = cluster.connect("postgres");
    let prepared = session
        .prepare("insert into items select $1::integer")
        .unwrap();
    let mut transaction = session.transaction().unwrap();
    transaction.execute(&prepared, &[&0]).unwrap();
    transaction.commit().unwrap();

    let mut transaction = session.transaction().unwrap();
    transaction.execute("select 1", &[]).unwrap();
    create_event(&cluster, "crm", "items", "Insert", "");
    for id in 1..=6 {
        // The odd ones are captured.
        set_enabled(&cluster, id % 2 == 1);
        transaction.execute(&prepared, &[&id]).unwrap();
    }
    transaction.commit().unwrap();
    assert_eq!(received_ids(&cluster, &receiver), [1, 3, 5]);
}

#[test]
fn the_transaction_that_creates_an_event_is_the_first_with_messages_and_a_rollback_leaves_none() {
    let (cluster, receiver) = with_webhook("own_transaction");
    let mut session = cluster.connect("postgres");
    let create = "select webhook.create_event('crm', 'items', 'table.recordInsert')";
    run(&mut session, &format!("begin; {create}"));
    insert(&mut session, 1);
    run(&mut session, "rollback");
    insert(&mut session, 2);
    run(
        &mut session,
        &format!("begin; savepoint s; {create}; rollback to s"),
    );
    insert(&mut session, 3);
    run(&mut session, create);
    insert(&mut session, 4);
    run(&mut session, "commit");
    assert_eq!(received_ids(&cluster, &receiver), [4]);
    assert_eq!(
        cluster.psql("select count(*) from pg_trigger where tgname like 'webhook\\_%'"),
        "1\n"
    );
}

#[test]
fn a_trigger_made_by_hand_for_an_event_of_another_table_captures_nothing() {
    let (cluster, receiver) = with_webhook("borrowed");
    let event = create_event(&cluster, "crm", "items", "Insert", "");
    cluster.sql("create table secrets (id integer); create table items_2 (like items)");
    let borrow = |name: &str, change: &str, table: &str, argument: &str| {
        cluster.sql(&format!(
            "create trigger {name} after {change} on {table}
             for each row execute function webhook.capture({argument})"
        ));
    };
    let own = format!("webhook_{event}");
    let id = format!("'{event}'");
    borrow(&own, "insert", "secrets", &id);
    borrow(&own, "insert", "items_2", &id);
    borrow("webhook_nobody", "insert", "items", "'nobody'");
    borrow("another_name", "insert", "items", &id);
    borrow("without", "insert", "items", "");
    borrow("with_two", "insert", "items", &format!("{id}, {id}"));
    cluster.sql("insert into secrets values (100)");
    cluster.sql("insert into items_2 values (200)");
    cluster.sql("insert into items values (1)");
    // The right name on the right table, for a change the event is not about.
    cluster.sql(&format!(
        "drop trigger webhook_insert_{event} on items; drop trigger webhook_nobody on items"
    ));
    borrow(&own, "delete", "items", &id);
    borrow(&format!("webhook_insert_{event}"), "update", "items", "");
    cluster.sql("delete from items");
    cluster.sql("insert into items values (2)");
    assert_eq!(received_ids(&cluster, &receiver), [1]);
    assert_eq!(cluster.psql("select count(*) from webhook.messages"), "1\n");
}

#[test]
fn a_rename_of_table_column_or_schema_is_followed() {
    let (cluster, receiver) = with_webhook("rename");
    create_event(
        &cluster,
        "crm",
        "items",
        "Update",
        "object_fields => array['name'], payload_fields => array['id', 'name']",
    );
    let mut session = cluster.connect("postgres");
    run(&mut session, "insert into items values (1, 'a')");
    run(&mut session, "update items set name = 'b'");
    wait_idle(&cluster);
    cluster.sql("alter table items rename to goods");
    run(&mut session, "update goods set name = 'c'");
    wait_idle(&cluster);
    cluster.sql("alter table goods rename column name to title");
    // The old name now belongs to a column that the event is not about.
    cluster.sql("alter table goods add column name text");
    run(&mut session, "update goods set title = 'd'");
    run(&mut session, "update goods set name = 'not watched'");
    cluster.sql("create schema shop; alter table goods set schema shop");
    run(&mut session, "update shop.goods set title = 'e'");
    wait_idle(&cluster);
    cluster.sql("alter schema shop rename to store");
    run(&mut session, "update store.goods set title = 'f'");
    wait_idle(&cluster);

    let names = receiver.received_at("/ok");
    let names = names
        .iter()
        .map(|message| message.body()["objectName"].as_str().map(str::to_owned));
    let names: Vec<String> = names
        .map(|name| name.expect("a table has a name"))
        .collect();
    assert_eq!(names[..2], ["items", "goods"]);
    assert_eq!(names[3..], ["shop.goods", "store.goods"]);
    assert_eq!(
        records_at(&receiver, "/ok"),
        [
            r#"Update {"id":1,"name":"b"}"#,
            r#"Update {"id":1,"name":"c"}"#,
            r#"Update {"id":1,"title":"d"}"#,
            r#"Update {"id":1,"title":"e"}"#,
            r#"Update {"id":1,"title":"f"}"#,
        ]
    );
    assert_eq!(
        cluster.psql("select object_name, status, detail is null from webhook.events"),
        "store.goods|Active|t\n"
    );
}

#[test]
fn a_dropped_column_or_table_switches_its_events_off_and_hinders_nobody() {
    let (cluster, receiver) = with_webhook("dropped");
    let fields = "object_fields => array['name']";
    create_event(&cluster, "crm", "items", "Update", fields);
    let fields = "payload_fields => array['id', 'name']";
    create_event(&cluster, "crm", "items", "Delete", fields);
    create_event(&cluster, "crm", "items", "Insert", "");
    cluster.sql("create table other (id integer)");
    create_event(&cluster, "crm", "other", "Insert", "");
    let mut session = cluster.connect("postgres");
    run(
        &mut session,
        "insert into items values (1, 'a'); insert into other values (2)",
    );
    run(&mut session, "update items set name = 'b'");
    cluster.sql("alter table items drop column name");
    run(
        &mut session,
        "update items set id = 3; insert into items values (4)",
    );
    run(&mut session, "delete from items where id = 4");
    cluster.sql("drop table other");
    assert_eq!(received_ids(&cluster, &receiver), [1, 2, 1, 4]);
    assert_eq!(
        cluster.psql(
            "select object_name, event_type, status, detail from webhook.events order by 1, 2"
        ),
        "items|table.recordDelete|Inactive|column was dropped: name\n\
         items|table.recordInsert|Active|\n\
         items|table.recordUpdate|Inactive|column was dropped: name\n\
         other|table.recordInsert|Inactive|its table was dropped\n"
    );
}
