//! `delivery_order => 'key'`: the hashes of a row's key that capture writes in front of the changed
//! fields.

use super::support::copies::{dump, restore};
use super::support::definitions::{create_event, create_events, create_webhook, wait_idle};
use super::support::order_keys::{
    last_key, run, stored, stored_in, with_webhook_by_key, Stored, BY_KEY,
};
use super::support::ready_cluster_with;

#[test]
fn each_kind_of_change_has_the_key_of_its_row_and_of_the_row_before() {
    let (cluster, receiver) = with_webhook_by_key(
        "key_kinds",
        "create table orders (id integer primary key, note text)",
    );
    let template =
        r#"payload_template => '{"id": "[@field:id]", "changed": "[@out-hook:changedFields]"}'"#;
    create_event(&cluster, "crm", "orders", "Insert", "");
    create_event(&cluster, "crm", "orders", "Update", template);
    create_event(&cluster, "crm", "orders", "Delete", "");
    for (name, order) in [("plain", "none"), ("sequence", "fifo")] {
        let options = format!("delivery_order => '{order}'");
        create_webhook(&cluster, name, &[receiver.url("/other")], &options);
        create_events(&cluster, name, "orders", "");
    }
    cluster.sql(
        "insert into orders values (1, 'a'), (2, 'a');
         update orders set note = 'b' where id = 1;
         update orders set id = 3 where id = 1;
         update orders set id = 3, note = 'c' where id = 3;
         delete from orders where id = 3;
         delete from orders where id = 2;",
    );
    let messages = stored(&cluster, "crm");
    let kinds: Vec<&str> = messages.iter().map(|m| m.kind.as_str()).collect();
    assert_eq!(
        kinds,
        ["Insert", "Insert", "Update", "Update", "Update", "Delete", "Delete"]
    );
    let (one, two) = (messages[0].key(), messages[1].key());
    assert_ne!(one, two);
    assert_eq!(messages[2].key(), one);
    let moved = &messages[3].keys;
    assert_eq!(moved.len(), 2);
    assert!(moved.contains(&one.to_owned()), "{moved:?} has not {one}");
    let three = moved.iter().find(|key| *key != one).unwrap();
    assert_eq!(messages[4].key(), three);
    assert_eq!(messages[5].key(), three);
    assert_eq!(messages[6].key(), two);
    let changed: Vec<&str> = messages.iter().map(|m| m.changed.as_str()).collect();
    assert_eq!(
        changed,
        ["", "", r#"["note"]"#, r#"["id"]"#, r#"["note"]"#, "", ""]
    );
    for other in ["plain", "sequence"] {
        let messages = stored(&cluster, other);
        assert_eq!(messages.len(), 7);
        assert!(messages
            .iter()
            .all(|m| m.keys.is_empty() && m.changed.is_empty()));
    }
    wait_idle(&cluster);
    let bodies = receiver.received_at("/ok");
    let mut bodies: Vec<String> = bodies.iter().map(|message| message.raw.clone()).collect();
    bodies.retain(|body| body.contains("changed"));
    bodies.sort();
    assert_eq!(
        bodies,
        [
            r#"{"id":1,"changed":["note"]}"#,
            r#"{"id":3,"changed":["id"]}"#,
            r#"{"id":3,"changed":["note"]}"#,
        ]
    );
}

#[test]
fn a_session_that_has_captured_hears_that_the_order_is_another_one() {
    let (cluster, receiver) = with_webhook_by_key(
        "key_switched",
        "create table orders (id integer primary key)",
    );
    create_webhook(&cluster, "other", &[receiver.url("/other")], "");
    create_event(&cluster, "other", "orders", "Insert", "");
    let mut session = cluster.connect("postgres");
    run(&mut session, "insert into orders values (1)");
    for (id, order) in [(2, "key"), (3, "fifo"), (4, "key"), (5, "none")] {
        cluster.sql(&format!(
            "select webhook.update_webhook('other', delivery_order => '{order}')"
        ));
        run(&mut session, &format!("insert into orders values ({id})"));
    }
    let messages = stored(&cluster, "other");
    let keys: Vec<(i64, usize)> = messages.iter().map(|m| (m.id(), m.keys.len())).collect();
    assert_eq!(keys, [(1, 0), (2, 1), (3, 0), (4, 1), (5, 0)]);
}

#[test]
fn partitions_whose_columns_lie_elsewhere_give_the_same_keys() {
    let (cluster, _receiver) = with_webhook_by_key(
        "key_partitions",
        "create table parts (gone integer, id integer, region text, note text, primary key (id, region))
             partition by list (region);
         alter table parts drop column gone;
         create table east partition of parts for values in ('east');
         create table west (note text, lost integer, region text not null, more integer, id integer not null);
         alter table west drop column lost, drop column more;
         alter table parts attach partition west for values in ('west');",
    );
    create_events(&cluster, "crm", "parts", "order_key => array['id']");
    cluster.sql(
        "insert into parts values (7, 'east', 'a'), (7, 'west', 'a'), (8, 'west', 'a');
         insert into west (id, region) values (9, 'west');
         insert into parts values (9, 'east');
         update parts set note = 'b' where id = 8;
         update parts set region = 'east' where id = 8;",
    );
    let messages = stored(&cluster, "crm");
    let key = |place: usize| messages[place].key();
    let kinds: Vec<(&str, i64)> = messages.iter().map(|m| (m.kind.as_str(), m.id())).collect();
    assert_eq!(
        kinds,
        [
            ("Insert", 7),
            ("Insert", 7),
            ("Insert", 8),
            ("Insert", 9),
            ("Insert", 9),
            ("Update", 8),
            ("Delete", 8),
            ("Insert", 8)
        ]
    );
    assert_eq!(key(0), key(1));
    assert_ne!(key(0), key(2));
    assert_eq!(key(3), key(4));
    assert_eq!([key(5), key(6), key(7)], [key(2); 3]);
    // By the key of the table, which has the region in it
    cluster.sql("select webhook.update_event(id, order_key => '{}') from webhook.events");
    cluster.sql("insert into parts values (10, 'east'), (10, 'west'); insert into west (id, region) values (11, 'west')");
    let messages = stored(&cluster, "crm");
    let [.., east, west, other] = &messages[..] else {
        panic!("there are messages");
    };
    assert_ne!(east.key(), west.key());
    assert_ne!(west.key(), other.key());
}

#[test]
fn events_on_a_partition_and_on_its_root_have_the_same_keys() {
    let (cluster, _receiver) = with_webhook_by_key(
        "key_roots",
        "create table parts (id integer, region text, primary key (region, id)) partition by list (region);
         create table middle partition of parts for values in ('east', 'west') partition by list (region);
         create table east partition of middle for values in ('east');
         create table later (id integer, region text, primary key (region, id));",
    );
    create_event(&cluster, "crm", "parts", "Insert", "");
    create_event(&cluster, "crm", "east", "Delete", "");
    create_event(&cluster, "crm", "later", "Delete", "");
    let mut session = cluster.connect("postgres");
    run(
        &mut session,
        "insert into parts values (1, 'east'), (2, 'east');
         delete from parts where id = 1;
         insert into later values (3, 'west');
         delete from later;
         alter table middle attach partition later for values in ('west');
         insert into parts values (3, 'west');
         delete from parts where id = 3;",
    );
    let messages = stored(&cluster, "crm");
    let keys: Vec<&str> = messages.iter().map(Stored::key).collect();
    let [one, two, gone, alone, three, gone_too] = keys[..] else {
        panic!("{} messages", keys.len());
    };
    assert_eq!((gone, gone_too), (one, three));
    assert!(one != two && two != three && alone != three);
}

#[test]
fn a_key_follows_its_columns_and_a_table_without_one_has_one_for_all_rows() {
    let (cluster, _receiver) = with_webhook_by_key(
        "key_schema",
        "create table orders (gone text, id integer, code text not null, constraint orders_key primary key (id));
         create table notes (id integer primary key);",
    );
    create_event(&cluster, "crm", "orders", "Insert", "");
    create_event(&cluster, "crm", "notes", "Insert", "");
    let by_code = create_event(
        &cluster,
        "crm",
        "orders",
        "Delete",
        "order_key => array['code']",
    );
    let mut session = cluster.connect("postgres");
    let mut key_of = |statements: &str, change: &str| {
        cluster.sql(statements);
        run(&mut session, change);
        last_key(&cluster)
    };
    let delete = |id: i32| format!("delete from orders where id = {id}");
    let first = key_of("", "insert into orders (id, code) values (1, 'x')");
    let second = key_of("", "insert into orders (id, code) values (2, 'x')");
    assert_ne!(first, second);
    let code = key_of("", &delete(2));
    assert_eq!(key_of("", &delete(1)), code);
    // A rename, a column that goes, and a type that has the same hashes
    let renamed = "alter table orders rename column id to number;
                   alter table orders rename column code to word;
                   alter table orders rename to purchases;
                   alter table purchases drop column gone;
                   alter table purchases alter column number type bigint;
                   alter table purchases alter column word type varchar(10);";
    assert_eq!(
        key_of(renamed, "insert into purchases values (1, 'x')"),
        first
    );
    assert_eq!(key_of("", "delete from purchases"), code);
    // Another key of the table, none, and the first one again
    let by_word = "alter table purchases drop constraint orders_key, add constraint orders_key primary key (word)";
    let word = key_of(by_word, "insert into purchases values (1, 'x')");
    assert_eq!(word, code);
    let replica =
        "alter table purchases drop constraint orders_key, alter column number set not null;
                   create unique index purchases_number on purchases (number);
                   alter table purchases replica identity using index purchases_number;";
    assert_eq!(
        key_of(replica, "insert into purchases values (2, 'x')"),
        second
    );
    let none =
        "alter table purchases replica identity full; alter table notes drop constraint notes_pkey";
    let common = key_of(none, "insert into purchases values (3, 'x')");
    assert_eq!(key_of("", "insert into purchases values (4, 'y')"), common);
    assert!(![&first, &second, &code].contains(&&common));
    let of_notes = key_of("", "insert into notes values (3)");
    assert_ne!(of_notes, common);
    assert_eq!(key_of("", "insert into notes values (4)"), of_notes);
    let again = "alter table purchases replica identity using index purchases_number";
    assert_eq!(
        key_of(again, "delete from purchases where number = 2"),
        code
    );
    assert_eq!(key_of("", "insert into purchases values (2, 'y')"), second);
    // A column of order_key that goes switches the event off.
    cluster.sql("alter table purchases drop column word");
    let before = stored(&cluster, "crm").len();
    run(&mut session, "delete from purchases");
    assert_eq!(stored(&cluster, "crm").len(), before);
    let detail: String = cluster.value(&format!(
        "select status || ': ' || detail from webhook.events where id = '{by_code}'"
    ));
    assert_eq!(detail, "Inactive: column was dropped: code");
}

#[test]
fn a_row_that_is_too_large_keeps_its_key() {
    let (cluster, receiver) =
        ready_cluster_with("key_oversize", &[("webhook.max_message_size", "10kB")]);
    create_webhook(&cluster, "crm", &[receiver.url("/ok")], BY_KEY);
    cluster.sql("create table orders (id integer primary key, note text)");
    let template = r#"payload_template => '["[@field:note]", "[@out-hook:changedFields]"]'"#;
    create_event(&cluster, "crm", "orders", "Insert", "");
    create_event(&cluster, "crm", "orders", "Update", template);
    cluster.sql(
        "insert into orders values (1, 'small');
         update orders set note = repeat('x', 20000);
         update orders set id = 2;
         update orders set note = 'small';",
    );
    let messages = stored(&cluster, "crm");
    let one = messages[0].key();
    assert_eq!(messages[1].key(), one);
    assert_eq!(messages[2].keys.len(), 2);
    assert!(messages[2].keys.contains(&one.to_owned()));
    let two = messages[2].keys.iter().find(|key| *key != one).unwrap();
    assert_eq!(messages[3].key(), two);
    for message in &messages[1..3] {
        assert_eq!(message.record, "");
        assert!(
            message.changed.starts_with(r#"{"at_least_bytes":"#),
            "{}",
            message.changed
        );
    }
    wait_idle(&cluster);
    let seen: String = cluster.value(
        "select string_agg(status || coalesce(': ' || left(detail, 11), ''), ', ' order by event_date) from webhook.calls",
    );
    assert_eq!(
        seen,
        "Success, Failure: the message, Failure: the message, Success"
    );
}

#[test]
fn events_with_a_condition_or_match_copy_and_savepoints_write_keys() {
    let (cluster, _receiver) = with_webhook_by_key(
        "key_ways",
        "create table orders (id integer primary key, tenant integer)",
    );
    create_event(&cluster, "crm", "orders", "Insert", "");
    let condition = "condition => 'new.id > 1'";
    create_event(&cluster, "crm", "orders", "Insert", condition);
    let matched = "match => '{\"tenant\": [1, 2]}'";
    create_event(&cluster, "crm", "orders", "Insert", matched);
    create_event(&cluster, "crm", "orders", "Update", "");
    cluster.psql("copy orders from stdin;\n1\t1\n2\t2\n3\t3\n\\.\n");
    cluster.sql(
        "begin;
         savepoint a;
         update orders set id = 4 where id = 1;
         savepoint b;
         update orders set id = 5 where id = 4;
         rollback to b;
         release a;
         savepoint c;
         update orders set id = 6 where id = 2;
         rollback to c;
         update orders set tenant = 1 where id = 2;
         commit;",
    );
    let messages = stored(&cluster, "crm");
    let inserts = messages.iter().filter(|m| m.kind == "Insert");
    let mut by_id = inserts.map(|m| (m.id(), m.key())).collect::<Vec<_>>();
    by_id.sort_unstable();
    let ids: Vec<i64> = by_id.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids, [1, 1, 2, 2, 2, 3, 3]);
    by_id.dedup();
    assert_eq!(
        by_id.len(),
        3,
        "the events of a row have one key: {by_id:?}"
    );
    let (one, two) = (by_id[0].1, by_id[1].1);
    let updates: Vec<&Stored> = messages.iter().filter(|m| m.kind == "Update").collect();
    assert_eq!(updates.len(), 2);
    assert!(updates[0].keys.len() == 2 && updates[0].keys.contains(&one.to_owned()));
    assert_eq!(updates[1].key(), two);
}

#[test]
fn rows_older_than_a_column_and_generated_columns_have_keys() {
    let (cluster, _receiver) = with_webhook_by_key(
        "key_columns_added",
        "create table orders (id integer primary key, note text);
         insert into orders values (1), (2);
         alter table orders add column region text not null default 'east',
             add column place bigint generated always as (id % 2) stored;",
    );
    let options = "order_key => array['region', 'place']";
    create_event(&cluster, "crm", "orders", "Update", options);
    create_event(&cluster, "crm", "orders", "Insert", options);
    cluster.sql(
        "update orders set note = 'a' where id = 1;
         update orders set note = 'b';
         insert into orders values (3, null, 'east'), (4, null, 'west');
         update orders set region = 'west' where id = 2;",
    );
    let messages = stored(&cluster, "crm");
    let ids: Vec<i64> = messages.iter().map(Stored::id).collect();
    assert_eq!(ids, [1, 2, 1, 3, 4, 2]);
    let (odd, even, west) = (messages[0].key(), messages[1].key(), messages[4].key());
    assert_eq!((messages[2].key(), messages[3].key()), (odd, odd));
    assert!(odd != even && odd != west && even != west);
    let mut both = messages[5].keys.clone();
    both.sort();
    let mut expected = [even.to_owned(), west.to_owned()];
    expected.sort();
    assert_eq!(both, expected);
}

#[test]
fn a_restored_event_finds_the_columns_of_its_key_by_name() {
    let (cluster, _receiver) = with_webhook_by_key(
        "key_copy",
        "create table orders (gone integer, note text, id integer primary key, code text);
         alter table orders drop column gone;",
    );
    let by_code = create_event(
        &cluster,
        "crm",
        "orders",
        "Insert",
        "order_key => array['code']",
    );
    create_event(&cluster, "crm", "orders", "Delete", "");
    let script = dump(&cluster, "postgres", &[]);
    cluster.sql("create database copy");
    restore(&cluster, "copy", &script);
    cluster.sql_in("copy", "select webhook.adopt()");
    let mut session = cluster.connect("copy");
    run(
        &mut session,
        "insert into orders values ('a', 1, 'x'), ('b', 2, 'x'), ('a', 3, 'y');
         delete from orders where id <= 2;",
    );
    // Renumbers the columns, after which a rename is followed.
    run(
        &mut session,
        &format!(
            "select webhook.update_event('{by_code}', event_sources => array['cluster test']);
             alter table orders rename code to word;
             insert into orders values ('c', 4, 'x');"
        ),
    );
    let messages = stored_in(&cluster, "copy", "crm");
    let ids: Vec<i64> = messages.iter().map(Stored::id).collect();
    assert_eq!(ids, [1, 2, 3, 1, 2, 4]);
    let keys: Vec<&str> = messages.iter().map(Stored::key).collect();
    assert_eq!((keys[1], keys[5]), (keys[0], keys[0]));
    assert_ne!(keys[2], keys[0]);
    assert_ne!(keys[3], keys[4]);
    assert!(stored(&cluster, "crm").is_empty());
}
