//! The schema changes while messages wait: nothing fails, and what waits is sent as it was.

use super::support::definitions::wait_idle;
use super::support::{ready_cluster, Receiver};

fn rows_at(receiver: &Receiver, path: &str) -> Vec<String> {
    let received = receiver.received_at(path);
    let rows = received.iter().map(|r| r.body()["data"][0].to_string());
    let mut rows: Vec<String> = rows.collect();
    rows.sort();
    rows
}

#[test]
fn what_waits_is_sent_as_it_was_whatever_becomes_of_its_table() {
    let (cluster, receiver) = ready_cluster("schema");
    cluster.sql(&format!(
        "create table customers (id integer, name text, note text);
         select webhook.create_webhook('crm', array['{}']);
         select webhook.create_event('crm', 'customers', 'table.recordInsert');
         select webhook.pause_webhook('crm');
         insert into customers values (1, 'Ann', 'x');
         alter table customers drop column note;
         insert into customers values (2, 'Bob');
         alter table customers alter column name type integer using 7;
         insert into customers values (3, 8);
         alter table customers rename column name to number;
         insert into customers values (4, 9);
         alter table customers add column extra boolean default true;
         insert into customers values (5, 10);
         drop table customers;
         select webhook.resume_webhook('crm')",
        receiver.url("/ok/a")
    ));
    wait_idle(&cluster);
    let expected = [
        r#"{"id":1,"name":"Ann","note":"x"}"#,
        r#"{"id":2,"name":"Bob"}"#,
        r#"{"id":3,"name":8}"#,
        r#"{"id":4,"number":9}"#,
        r#"{"id":5,"number":10,"extra":true}"#,
    ];
    assert_eq!(rows_at(&receiver, "/ok/a"), expected);
    for received in receiver.received_at("/ok/a") {
        assert_eq!(received.body()["objectName"], "customers");
    }
    assert_eq!(
        cluster.psql("select status, detail, messages from webhook.events"),
        "Inactive|its table was dropped|5\n"
    );
}

#[test]
fn sessions_that_are_open_follow_the_schema() {
    let (cluster, receiver) = ready_cluster("open-session");
    cluster.sql(&format!(
        "create table customers (id integer primary key, name text, spare text);
         select webhook.create_webhook('crm', array['{}']);
         select webhook.create_event('crm', 'customers', 'table.recordUpdate', object_fields => array['name']);
         insert into customers values (1, 'a', 's')",
        receiver.url("/ok/a")
    ));
    // One session caches the definition; another changes what it rests on.
    let mut session = cluster.connect("postgres");
    let mut update = |statement: &str| {
        session.batch_execute(statement).unwrap();
    };
    update("update customers set name = 'b'");
    cluster.sql("alter table customers rename column name to title");
    update("update customers set title = 'c'");
    update("update customers set spare = 't'");
    cluster.sql("alter table customers add column vip boolean");
    update("update customers set title = 'd', vip = true");
    cluster
        .sql("alter table customers rename to clients; alter table clients disable trigger user");
    update("update clients set title = 'e'");
    cluster.sql("alter table clients enable trigger user");
    update("update clients set title = 'f'");
    cluster.sql("alter table clients drop column title");
    update("update clients set spare = 'u'");
    wait_idle(&cluster);
    let expected = [
        r#"{"id":1,"name":"b","spare":"s"}"#,
        r#"{"id":1,"title":"c","spare":"s"}"#,
        r#"{"id":1,"title":"d","spare":"t","vip":true}"#,
        r#"{"id":1,"title":"f","spare":"t","vip":true}"#,
    ];
    assert_eq!(rows_at(&receiver, "/ok/a"), expected);
    assert_eq!(
        cluster.psql("select status, detail from webhook.events"),
        "Inactive|column was dropped: name\n"
    );
}
