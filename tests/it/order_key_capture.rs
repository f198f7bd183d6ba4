//! `delivery_order => 'key'`: the hashes of a row's key that capture writes in front of the changed
//! fields.

use postgres::Client;
use serde_json::Value;

use super::support::definitions::{create_event, create_events, create_webhook, wait_idle};
use super::support::{ready_cluster, ready_cluster_with, Cluster, Receiver, PATIENCE};

const BY_KEY: &str = "delivery_order => 'key'";

/// A message as the outbox has it.
struct Stored {
    kind: String,
    record: String,
    keys: Vec<String>,
    /// What follows the keys.
    changed: String,
}

impl Stored {
    fn id(&self) -> i64 {
        let record: Value = serde_json::from_str(&self.record).expect("a record is JSON");
        record["id"].as_i64().expect("a row has an id")
    }

    fn key(&self) -> &str {
        match &self.keys[..] {
            [key] => key,
            keys => panic!("{} of {} has keys {keys:?}", self.kind, self.record),
        }
    }
}

/// The messages of a webhook, in their order.
fn stored(cluster: &Cluster, webhook: &str) -> Vec<Stored> {
    let query = "select e.event_type, coalesce(o.record, ''), coalesce(o.changed, '')
                 from webhook.outbox o
                 join webhook.event_def e using (event_key)
                 join webhook.webhook_def w on w.webhook_key = e.webhook_key
                 where w.name = $1
                 order by o.id";
    let rows = cluster.connect("postgres").query(query, &[&webhook]);
    let rows = rows.unwrap().into_iter();
    rows.map(|row| {
        let kind: String = row.get(0);
        let text: String = row.get(2);
        let (keys, changed) = split(&text);
        Stored {
            kind: kind.trim_start_matches("table.record").to_owned(),
            record: row.get(1),
            keys,
            changed,
        }
    })
    .collect()
}

fn split(text: &str) -> (Vec<String>, String) {
    match text.strip_prefix('k').and_then(|rest| rest.split_once(':')) {
        None => (Vec::new(), text.to_owned()),
        Some((keys, rest)) => {
            assert!(keys.len() == 16 || keys.len() == 32, "{text}");
            let keys = keys.as_bytes().chunks(16);
            let keys = keys.map(|key| String::from_utf8(key.to_vec()).unwrap());
            (keys.collect(), rest.to_owned())
        }
    }
}

/// The last message's only key.
fn last_key(cluster: &Cluster) -> String {
    let messages = stored(cluster, "crm");
    messages
        .last()
        .expect("there is a message")
        .key()
        .to_owned()
}

fn with_webhook(name: &str, tables: &str) -> (Cluster, Receiver) {
    let (cluster, receiver) = ready_cluster(name);
    create_webhook(&cluster, "crm", &[receiver.url("/ok")], BY_KEY);
    cluster.sql(tables);
    (cluster, receiver)
}

fn run(session: &mut Client, statements: &str) {
    session
        .batch_execute(statements)
        .unwrap_or_else(|error| panic!("{statements}: {error:?}"));
}

#[test]
fn each_kind_of_change_has_the_key_of_its_row_and_of_the_row_before() {
    let (cluster, receiver) = with_webhook(
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
    let (cluster, receiver) = with_webhook(
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

const VALUES_TABLE: &str = "
create extension citext;
create extension isn;
create collation loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
create type mood as enum ('sad', 'ok');
create type pair as (one numeric, two text);
create domain tenant as numeric check (value > 0);
create domain code as citext;
create table things (
    id integer primary key, small smallint, whole integer, big bigint, amount numeric, ratio double precision,
    part real, label text, loose text collate loose, lax citext, code code, fixed char(6), flag boolean,
    one \"char\", word name, reference uuid, raw bytea, placed date, clock timetz, stamp timestamptz, span interval,
    document jsonb, tags text[], amounts numeric[], period int4range, periods int4multirange, pair pair,
    mood mood, tenant tenant, address inet, book isbn13
);
alter table things alter column raw set storage external;";

/// A column, two equal values, and one that differs.
const VALUES: &[(&str, &str, &str, &str)] = &[
    ("small", "-7", "-7", "7"),
    ("whole", "2147483647", "2147483647", "-1"),
    ("big", "-1", "-1", "4294967297"),
    ("amount", "1.0", "1.00", "1.01"),
    ("ratio", "0.0", "'-0'", "1e-300"),
    ("part", "'nan'", "'nan'", "0"),
    ("label", "'a'", "'a'", "'A'"),
    (
        "label",
        "repeat('ab', 100000)",
        "repeat('ab', 100000)",
        "repeat('ab', 100001)",
    ),
    ("loose", "'Grün'", "'GRÜN'", "'Grun'"),
    ("lax", "'Grün'", "'GRÜN'", "'Grun'"),
    ("code", "'x'", "'X'", "'y'"),
    ("fixed", "'ab'", "'ab  '", "' ab'"),
    ("flag", "true", "true", "false"),
    ("one", "'a'", "'a'", "'b'"),
    ("word", "'a'", "'a'", "'b'"),
    (
        "reference",
        "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'",
        "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'",
        "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a12'",
    ),
    (
        "raw",
        "convert_to(repeat('x', 5000), 'UTF8')",
        "convert_to(repeat('x', 5000), 'UTF8')",
        "convert_to(repeat('x', 4999), 'UTF8')",
    ),
    ("placed", "'2026-02-03'", "'2026-02-03'", "'2026-02-04'"),
    ("clock", "'10:20+00'", "'10:20+00'", "'10:20+01'"),
    (
        "stamp",
        "'2026-02-03 04:05+00'",
        "'2026-02-03 06:05+02'",
        "'2026-02-03 06:05+00'",
    ),
    ("span", "'1 day'", "'24 hours'", "'25 hours'"),
    (
        "document",
        r#"'{"a": 1.0, "b": 2}'"#,
        r#"'{"b": 2, "a": 1.00}'"#,
        r#"'{"a": 1}'"#,
    ),
    ("tags", "array['a', null]", "array['a', null]", "array['a']"),
    ("amounts", "array[1.0, 2]", "array[1, 2.00]", "array[2, 1]"),
    ("period", "'[1,3)'", "'[1,2]'", "'[1,3]'"),
    (
        "periods",
        "'{[1,3), [5,6)}'",
        "'{[5,5], [1,2]}'",
        "'{[1,6)}'",
    ),
    ("pair", "row(1.0, null)", "row(1.000, null)", "row(1.0, '')"),
    ("mood", "'ok'", "'ok'", "'sad'"),
    ("tenant", "42.0", "42", "43"),
    ("address", "'10.0.0.1'", "'10.0.0.1/32'", "'10.0.0.1/31'"),
    (
        "book",
        "'978-0-393-04002-9'",
        "'9780393040029'",
        "'978-0-393-04003-6'",
    ),
];

#[test]
fn equal_values_of_every_type_have_one_key_and_others_have_another() {
    let (cluster, _receiver) = with_webhook("key_types", VALUES_TABLE);
    let event = create_event(
        &cluster,
        "crm",
        "things",
        "Insert",
        "payload_fields => array['id']",
    );
    // One session: what it knows of the event follows each change.
    let mut session = cluster.connect("postgres");
    for (place, (column, equal, too, other)) in VALUES.iter().enumerate() {
        let id = place as i64 * 10;
        run(
            &mut session,
            &format!(
                "select webhook.update_event('{event}', order_key => array['{column}']);
                 insert into things (id, {column})
                 values ({id}, {equal}), ({id} + 1, {too}), ({id} + 2, {other}), ({id} + 3, null), ({id} + 4, null)"
            ),
        );
        let of = |row: i64| format!("(select {column} from things where id = {})", id + row);
        let asked = format!("select {} = {}, {} = {}", of(0), of(1), of(0), of(2));
        let row = session.query_one(&asked, &[]).unwrap();
        assert_eq!((row.get(0), row.get(1)), (true, false), "{column} {equal}");
    }
    let messages = stored(&cluster, "crm");
    assert_eq!(messages.len(), 5 * VALUES.len());
    for (rows, (column, equal, ..)) in messages.chunks(5).zip(VALUES) {
        let keys: Vec<&str> = rows.iter().map(Stored::key).collect();
        assert_eq!(keys[0], keys[1], "{column} {equal}");
        assert_ne!(keys[0], keys[2], "{column} {equal}");
        assert_ne!(keys[0], keys[3], "{column} {equal}");
        assert_ne!(keys[2], keys[3], "{column} {equal}");
        assert_eq!(keys[3], keys[4], "{column} null");
    }
}

#[test]
fn all_columns_of_a_key_count_in_their_order_and_tables_differ() {
    let (cluster, _receiver) = with_webhook(
        "key_columns",
        "create table pairs (id integer, a integer, b integer, primary key (a, b, id));
         create table others (id integer, a integer, b integer);",
    );
    let options = "order_key => array['a', 'b'], payload_fields => array['id']";
    create_event(&cluster, "crm", "others", "Insert", options);
    let rows = [
        (1, "1, 2"),
        (2, "2, 1"),
        (3, "1, null"),
        (4, "null, 1"),
        (5, "null, null"),
        (6, "1, 2"),
        (7, "1, null"),
    ];
    for (id, values) in rows {
        cluster.sql(&format!("insert into others values ({id}, {values})"));
    }
    let options = "order_key => array['b', 'a'], payload_fields => array['id']";
    create_event(&cluster, "crm", "pairs", "Insert", options);
    cluster.sql("insert into pairs values (8, 2, 1), (9, 1, 2)");
    let messages = stored(&cluster, "crm");
    let keys: Vec<&str> = messages.iter().map(Stored::key).collect();
    assert_eq!((keys[5], keys[6]), (keys[0], keys[2]));
    let mut different = [&keys[..5], &keys[7..]].concat();
    different.sort_unstable();
    different.dedup();
    assert_eq!(different.len(), 7, "{keys:?}");
}

#[test]
fn partitions_whose_columns_lie_elsewhere_give_the_same_keys() {
    let (cluster, _receiver) = with_webhook(
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
fn a_key_follows_its_columns_and_a_table_without_one_has_one_for_all_rows() {
    let (cluster, _receiver) = with_webhook(
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
    let (cluster, _receiver) = with_webhook(
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
fn long_values_count_as_one_and_are_not_fetched() {
    let (cluster, _receiver) = with_webhook(
        "key_long",
        "create table documents (id integer primary key, body text, note text);
         alter table documents alter column body set storage external;",
    );
    let options = "order_key => array['body'], payload_fields => array['id']";
    create_events(&cluster, "crm", "documents", options);
    cluster.sql(
        "insert into documents values (1, repeat('a', 2000000)), (2, repeat('b', 3000000)), (3, repeat('b', 1000000)), (4, 'b');
         update documents set note = 'x';
         update documents set body = 'b' where id = 1;",
    );
    let messages = stored(&cluster, "crm");
    let keys: Vec<&str> = messages[..4].iter().map(Stored::key).collect();
    assert_eq!(keys[0], keys[1]);
    assert_ne!(keys[0], keys[2]);
    assert_ne!(keys[2], keys[3]);
    let of_updates: Vec<&str> = messages[4..8].iter().map(Stored::key).collect();
    assert_eq!(of_updates, keys);
    let mut both = messages[8].keys.clone();
    both.sort();
    let mut expected = [keys[0].to_owned(), keys[3].to_owned()];
    expected.sort();
    assert_eq!(both, expected);
}

/// A hash function that its superuser wrote, of a type that PostgreSQL has none for.
const SLOW_HASH: &str = "
create function hash_point(value point) returns integer language plpgsql immutable strict as $$
begin
    if value[0] = 13 then
        raise exception 'unlucky';
    elsif value[0] = 100 then
        perform pg_sleep(600);
    end if;
    return value[0]::integer;
end
$$;
create operator class point_hash default for type point using hash as
    operator 1 ~= (point, point),
    function 1 hash_point(point);
create table places (id integer primary key, place point);";

#[test]
fn a_hash_function_that_fails_or_hangs_or_goes_harms_its_statement_alone() {
    let (cluster, _receiver) = with_webhook("key_functions", SLOW_HASH);
    create_event(
        &cluster,
        "crm",
        "places",
        "Insert",
        "order_key => array['place']",
    );
    let mut session = cluster.connect("postgres");
    let place = |x: i32| format!("insert into places values ({x}, point({x}, 0))");
    run(&mut session, &place(1));
    let error = session.batch_execute(&place(13)).unwrap_err();
    assert!(
        error.as_db_error().unwrap().message() == "unlucky",
        "{error:?}"
    );
    run(&mut session, &format!("begin; savepoint a; {}", place(2)));
    assert!(session.batch_execute(&place(13)).is_err());
    run(
        &mut session,
        &format!("rollback to a; {}; commit", place(3)),
    );
    run(
        &mut session,
        "insert into places values (4, '(3, 0)'), (5, null)",
    );
    // FATAL in the middle of the call
    let victim: i32 = session
        .query_one("select pg_backend_pid()", &[])
        .unwrap()
        .get(0);
    let ended = std::thread::spawn(move || session.batch_execute(&place(100)));
    cluster.wait_for_text(
        PATIENCE,
        &format!("select wait_event from pg_stat_activity where pid = {victim}"),
        "PgSleep",
    );
    cluster.sql(&format!("select pg_terminate_backend({victim}, 60000)"));
    assert!(ended.join().unwrap().is_err());
    // The operator class goes while a session has the rule.
    let mut session = cluster.connect("postgres");
    run(&mut session, "insert into places values (6, '(1, 0)')");
    run(&mut session, "drop operator class point_hash using hash; insert into places values (7, '(1, 0)'), (8, '(2, 0)')");
    let messages = stored(&cluster, "crm");
    let ids: Vec<i64> = messages.iter().map(Stored::id).collect();
    assert_eq!(ids, [1, 3, 4, 5, 6, 7, 8]);
    let keys: Vec<&str> = messages.iter().map(Stored::key).collect();
    assert_eq!((keys[1], keys[4]), (keys[2], keys[0]));
    assert_ne!(keys[0], keys[1]);
    assert_ne!(keys[1], keys[3]);
    assert_eq!(keys[5], keys[6]);
}
