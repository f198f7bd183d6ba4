//! `order_key`: values that their type calls equal are one key, whatever the type and wherever they
//! are stored.

use std::collections::BTreeMap;

use super::support::definitions::{create_event, create_events, create_webhook, wait_idle};
use super::support::order_keys::{run, stored, with_webhook_by_key, Stored, BY_KEY};
use super::support::{ready_cluster, PATIENCE};

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
    let (cluster, _receiver) = with_webhook_by_key("key_types", VALUES_TABLE);
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
    let (cluster, _receiver) = with_webhook_by_key(
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
fn long_values_count_as_one() {
    let (cluster, _receiver) = with_webhook_by_key(
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

#[test]
fn rows_with_equal_values_in_order_key_are_called_one_after_the_other() {
    const TOOK_US: u64 = 100_000;
    const PATH: &str = "/slow/100";
    let (cluster, receiver) = ready_cluster("key_equal_rows");
    create_webhook(&cluster, "crm", &[receiver.url(PATH)], BY_KEY);
    cluster.sql(
        "create extension citext;
         create table orders (id integer primary key, customer citext, amount numeric);",
    );
    let options = "order_key => array['customer', 'amount']";
    create_event(&cluster, "crm", "orders", "Insert", options);
    // Three keys, each spelled in several ways
    cluster.sql(
        "insert into orders
         select n,
                (array['Ann', 'ann', 'ANN', 'Bob', 'BOB', null])[1 + n % 6],
                (array[1, 1.0, 1.00, 1.000])[1 + n % 4]
         from generate_series(1, 24) n",
    );
    wait_idle(&cluster);
    let mut of_keys: BTreeMap<String, Vec<(i64, u64)>> = BTreeMap::new();
    for call in receiver.received_at(PATH) {
        let body = call.body();
        let row = &body["data"][0];
        let customer = row["customer"].as_str().unwrap_or_default().to_lowercase();
        let id = row["id"].as_i64().expect("a row has an id");
        let of_key = of_keys.entry(customer).or_default();
        of_key.push((id, call.received_at_us));
    }
    let counts: Vec<usize> = of_keys.values().map(Vec::len).collect();
    assert_eq!(counts, [4, 12, 8], "{of_keys:?}");
    for of_key in of_keys.values() {
        for pair in of_key.windows(2) {
            let [(first, came), (second, next)] = pair else {
                unreachable!("windows of two");
            };
            assert!(first < second && next - came >= TOOK_US, "{of_key:?}");
        }
    }
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
    let (cluster, _receiver) = with_webhook_by_key("key_functions", SLOW_HASH);
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
