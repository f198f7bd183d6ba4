//! Events on partitioned tables: changes made through the parent or straight on a
//! partition, partitions that differ from their parent, come later, leave, or swap rows.

use serde_json::Value;

use super::support::definitions::{
    create_event, create_events, create_webhook, record_of, records_at, wait_idle,
};
use super::support::{ready_cluster, witness, Cluster, Receiver};

/// One call at a time: messages arrive in the order of the changes.
const IN_ORDER: &str = "max_in_flight => 1";

/// Three levels; `south` has its columns in another order and a dropped one before them.
const TABLES: &str = "
create table readings (id integer, region text, value integer, primary key (id, region)) partition by list (region);
create table north partition of readings for values in ('north');
create table south (gone text, value integer, id integer not null, region text not null);
alter table south drop column gone;
alter table readings attach partition south for values in ('south');
create table far partition of readings for values in ('far', 'farther') partition by list (region);
create table farther partition of far for values in ('farther');";

fn watched_readings(name: &str) -> (Cluster, Receiver) {
    let (cluster, receiver) = ready_cluster(name);
    create_webhook(&cluster, "readings", &[receiver.url("/ok")], IN_ORDER);
    cluster.sql(TABLES);
    witness::watch(&cluster, "readings");
    create_events(&cluster, "readings", "readings", "null_style => 'null'");
    (cluster, receiver)
}

/// As [`witness::assert_received_in_order`], with the columns of a row in any order.
fn assert_received(cluster: &Cluster, receiver: &Receiver) {
    wait_idle(cluster);
    let parsed = |records: Vec<String>| -> Vec<(String, Value)> {
        let split = records.iter().map(|record| {
            let (kind, row) = record.split_once(' ').expect("a kind, a space and the row");
            (kind.to_owned(), serde_json::from_str(row).unwrap())
        });
        split.collect()
    };
    let received = receiver.received_at("/ok");
    assert_eq!(
        parsed(received.iter().map(record_of).collect()),
        parsed(witness::committed(cluster))
    );
    for message in received {
        assert_eq!(message.body()["objectName"], "readings");
    }
}

#[test]
fn changes_of_any_partition_are_captured_wherever_they_are_made() {
    let (cluster, receiver) = watched_readings("partitions");
    cluster.sql(
        "insert into readings values (1, 'north', 1), (2, 'south', 2), (3, 'farther', 3);
         insert into north values (4, 'north', 4);
         insert into south (id, region, value) values (5, 'south', 5);
         insert into farther values (6, 'farther', 6)",
    );
    cluster.psql("copy readings from stdin;\n7\tsouth\t7\n8\tfarther\t8\n\\.\n");
    cluster.psql("copy south (id, region, value) from stdin;\n9\tsouth\t9\n\\.\n");
    cluster.sql("update readings set value = value + 100 where id <= 5");
    cluster.sql("update readings set value = value");
    cluster.sql("update south set value = -value; update far set value = null");
    cluster.sql("delete from readings where id in (1, 2, 3); delete from farther");
    cluster.sql("truncate readings");
    assert_received(&cluster, &receiver);
    assert_eq!(
        receiver.received_at("/ok").len(),
        6 + 3 + 5 + (4 + 3) + 3 + 2
    );
}

#[test]
fn a_partition_that_differs_from_its_parent_has_its_fields_found_by_name() {
    let (cluster, receiver) = watched_readings("partition_columns");
    let filtered = [receiver.url("/ok/filtered")];
    create_webhook(&cluster, "filtered", &filtered, IN_ORDER);
    create_event(
        &cluster,
        "filtered",
        "readings",
        "Update",
        "object_fields => array['value'], payload_fields => array['id', 'value']",
    );
    create_event(
        &cluster,
        "filtered",
        "readings",
        "Insert",
        "condition => 'new.value > 10', payload_fields => array['region', 'id']",
    );
    cluster.sql("insert into readings values (1, 'south', 10), (2, 'south', 20), (3, 'north', 30)");
    cluster.sql("update readings set id = id + 100 where region = 'south'");
    cluster.sql("update readings set value = 7 where id = 102");
    cluster.sql("update south set value = 8 where id = 102");
    assert_received(&cluster, &receiver);
    assert_eq!(
        records_at(&receiver, "/ok/filtered"),
        [
            r#"Insert {"region":"south","id":2}"#,
            r#"Insert {"region":"north","id":3}"#,
            r#"Update {"id":102,"value":7}"#,
            r#"Update {"id":102,"value":8}"#,
        ]
    );
}

/// PostgreSQL moves a row by deleting it here and inserting it there, and fires those triggers.
#[test]
fn a_row_that_moves_to_another_partition_comes_as_a_delete_and_an_insert() {
    let (cluster, receiver) = watched_readings("row_movement");
    cluster.sql("insert into readings values (1, 'north', 1)");
    cluster.sql("update readings set region = 'south', value = 2");
    cluster.sql("update readings set region = 'farther' where id = 1");
    assert_received(&cluster, &receiver);
    let kinds: Vec<String> = records_at(&receiver, "/ok")
        .iter()
        .map(|record| record.split(' ').next().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(kinds, ["Insert", "Delete", "Insert", "Delete", "Insert"]);
}

#[test]
fn a_partition_attached_later_is_captured_and_a_detached_one_no_more() {
    let (cluster, receiver) = watched_readings("attach");
    // In one open session, which has the rules of the other partitions cached.
    let mut session = cluster.connect("postgres");
    let mut run = |statements: &str| {
        session
            .batch_execute(statements)
            .unwrap_or_else(|error| panic!("{statements}: {error}"));
    };
    run("insert into readings values (1, 'north', 1)");
    run("create table east (id integer not null, value integer, region text not null)");
    run("insert into east values (2, 2, 'east')");
    run("alter table readings attach partition east for values in ('east')");
    run("insert into east values (3, 3, 'east'); insert into readings values (4, 'east', 4)");
    run("create table west partition of readings default");
    run("insert into readings values (5, 'west', 5)");
    run("alter table readings detach partition north");
    run("insert into north values (6, 'north', 6); update north set value = 0");
    run("drop table west; alter table readings detach partition east");
    run("insert into east values (7, 7, 'east')");
    assert_received(&cluster, &receiver);
    assert_eq!(receiver.received_at("/ok").len(), 4);
}

#[test]
fn an_event_on_one_partition_is_about_that_partition_only() {
    let (cluster, receiver) = ready_cluster("one_partition");
    create_webhook(&cluster, "readings", &[receiver.url("/ok")], IN_ORDER);
    cluster.sql(TABLES);
    create_events(&cluster, "readings", "south", "");
    cluster.sql("insert into readings values (1, 'north', 1), (2, 'south', 2), (3, 'farther', 3)");
    cluster.sql("update readings set region = 'north' where id = 2");
    cluster.sql("update readings set region = 'south' where id = 3");
    wait_idle(&cluster);
    assert_eq!(
        records_at(&receiver, "/ok"),
        [
            r#"Insert {"value":2,"id":2,"region":"south"}"#,
            r#"Delete {"value":2,"id":2,"region":"south"}"#,
            r#"Insert {"value":3,"id":3,"region":"south"}"#,
        ]
    );
    for message in receiver.received_at("/ok") {
        assert_eq!(message.body()["objectName"], "south");
    }
}

#[test]
fn a_partition_without_the_trigger_right_is_named_with_what_to_do() {
    let (cluster, receiver) = ready_cluster("partition-rights");
    create_webhook(&cluster, "readings", &[receiver.url("/ok")], "");
    cluster.sql(TABLES);
    cluster.sql(
        "create role maker login in role webhook_admin;
         grant select, trigger on readings, north, far, farther to maker",
    );
    let mut maker = cluster.connect_as("maker", "postgres");
    let create = |when: &str| {
        format!("select webhook.create_event('readings', 'readings', 'table.recordInsert'{when})")
    };
    for condition in ["", ", condition => 'new.value > 0'"] {
        let error = maker.batch_execute(&create(condition)).unwrap_err();
        let error = error.as_db_error().expect("the server answered");
        assert_eq!(error.code().code(), "42501");
        assert_eq!(
            error.message(),
            "object_name \"readings\": privilege TRIGGER is missing on its partition \"south\""
        );
        assert_eq!(
            error.hint(),
            Some("its owner can say: grant trigger on public.south to …")
        );
    }
    cluster.sql("grant trigger on south to maker");
    maker.batch_execute(&create("")).unwrap();
}
