//! `match`: an event makes a message only of rows with its values, whatever their type, and
//! sessions learn which events these are.

use postgres::Client;

use super::support::copies::{dump, restore};
use super::support::definitions::{
    create_event, create_webhook, records_at, sorted_records_at, wait_idle,
};
use super::support::{ready_cluster, Cluster, Receiver, PATIENCE};

/// One call at a time: messages arrive in the order of the changes.
const IN_ORDER: &str = "max_in_flight => 1";

fn with_webhook(name: &str, table: &str) -> (Cluster, Receiver) {
    let (cluster, receiver) = ready_cluster(name);
    create_webhook(&cluster, "crm", &[receiver.url("/ok")], IN_ORDER);
    cluster.sql(table);
    (cluster, receiver)
}

fn run(session: &mut Client, statements: &str) {
    session
        .batch_execute(statements)
        .unwrap_or_else(|error| panic!("{statements}: {error:?}"));
}

/// The ids in the received rows, sorted, once nothing is pending.
fn received_ids(cluster: &Cluster, receiver: &Receiver) -> Vec<i64> {
    wait_idle(cluster);
    let received = receiver.received_at("/ok");
    let id = |body: serde_json::Value| body["data"][0]["id"].as_i64().expect("a row has an id");
    let mut ids: Vec<i64> = received.iter().map(|message| id(message.body())).collect();
    ids.sort_unstable();
    ids
}

const TYPES: &str = "
create type mood as enum ('sad', 'ok');
create domain tenant as integer;
create table things (
    id integer, small smallint, whole integer, big bigint, tenant tenant, label text, code varchar(20), fixed char(6),
    reference uuid, active boolean, placed date, clock time, local timestamp, stamp timestamptz, mood mood, word name,
    number oid
);";

/// A column, a value that matches and as JSON, and one that does not.
const VALUES: &[(&str, &str, &str, &str)] = &[
    ("small", "-7", "-7", "7"),
    ("whole", "2147483647", "2147483647", "-1"),
    (
        "big",
        "-9007199254740993",
        "-9007199254740993",
        "-9007199254740992",
    ),
    ("tenant", "42", "42", "43"),
    ("label", "'Grün'", "\"Grün\"", "'grün'"),
    ("code", "'a '", "\"a \"", "'a'"),
    ("fixed", "'ab'", "\"ab  \"", "'b'"),
    (
        "reference",
        "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'",
        "\"A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11\"",
        "'b0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'",
    ),
    ("active", "true", "true", "false"),
    ("placed", "'2026-02-03'", "\"2026-02-03\"", "'2026-02-04'"),
    ("clock", "'10:20'", "\"10:20:00\"", "'10:21'"),
    (
        "local",
        "'2026-02-03 04:05'",
        "\"2026-02-03 04:05\"",
        "'2026-02-03 04:06'",
    ),
    (
        "stamp",
        "'2026-02-03 04:05+00'",
        "\"2026-02-03 06:05+02\"",
        "'2026-02-03 06:05+00'",
    ),
    ("mood", "'ok'", "\"ok\"", "'sad'"),
    ("word", "'x'", "\"x\"", "'y'"),
    ("number", "4294967295", "4294967295", "1"),
];

#[test]
fn values_of_every_type_match_their_equals_and_nothing_else() {
    let (cluster, receiver) = with_webhook("match_types", TYPES);
    let mut expected = Vec::new();
    for (place, (column, equal, json, other)) in VALUES.iter().enumerate() {
        let options = format!("match => '{{\"{column}\": {json}}}', payload_fields => array['id']");
        create_event(&cluster, "crm", "things", "Insert", &options);
        let id = place as i64 * 10;
        cluster.sql(&format!(
            "insert into things (id, {column}) values ({}, {equal}), ({}, {other}), ({}, null)",
            id + 1,
            id + 2,
            id + 3,
        ));
        expected.push(id + 1);
    }
    assert_eq!(received_ids(&cluster, &receiver), expected);
}

#[test]
fn lists_and_null_match_any_of_them_and_all_columns_must() {
    let (cluster, receiver) = with_webhook(
        "match_lists",
        "create table things (id integer, tenant integer, status text)",
    );
    let listed = "match => '{\"tenant\": [1, 2, null], \"status\": [\"paid\", null]}'";
    create_event(&cluster, "crm", "things", "Insert", listed);
    cluster.sql(
        "insert into things values (1, 1, 'paid'), (2, 2, null), (3, null, 'paid'), (4, null, null),
             (5, 3, 'paid'), (6, 1, 'new'), (7, null, 'new'), (8, 1, ''), (9, 0, null)",
    );
    assert_eq!(received_ids(&cluster, &receiver), [1, 2, 3, 4]);
}

#[test]
fn the_new_row_of_an_update_and_the_old_one_of_a_delete_count() {
    let (cluster, receiver) = with_webhook(
        "match_changes",
        "create table things (id integer, status text, note text)",
    );
    for kind in ["Insert", "Update", "Delete"] {
        create_event(
            &cluster,
            "crm",
            "things",
            kind,
            "match => '{\"status\": \"paid\"}'",
        );
    }
    let watched = "match => '{\"status\": \"sent\"}', object_fields => array['note']";
    create_event(&cluster, "crm", "things", "Update", watched);
    let both = "match => '{\"status\": \"lost\"}', condition => 'new.id > 1'";
    create_event(&cluster, "crm", "things", "Update", both);
    cluster.sql("insert into things values (1, 'new', ''), (2, 'paid', '')");
    cluster.sql("update things set status = 'paid' where id = 1");
    cluster.sql("update things set status = 'new' where id = 2");
    cluster.sql("update things set status = 'sent'");
    cluster.sql("update things set note = 'x'");
    cluster.sql("update things set status = 'lost'");
    cluster.sql("update things set note = 'y', status = 'gone'");
    cluster.sql("delete from things where id = 1");
    cluster.sql("update things set status = 'paid'; delete from things");
    wait_idle(&cluster);
    assert_eq!(
        records_at(&receiver, "/ok"),
        [
            r#"Insert {"id":2,"status":"paid","note":""}"#,
            r#"Update {"id":1,"status":"paid","note":""}"#,
            r#"Update {"id":1,"status":"sent","note":"x"}"#,
            r#"Update {"id":2,"status":"sent","note":"x"}"#,
            r#"Update {"id":2,"status":"lost","note":"x"}"#,
            r#"Update {"id":2,"status":"paid","note":"y"}"#,
            r#"Delete {"id":2,"status":"paid","note":"y"}"#,
        ]
    );
}

/// What is stored compressed or out of line is the same value.
#[test]
fn the_way_a_value_is_stored_does_not_count() {
    let (cluster, receiver) = with_webhook(
        "match_storage",
        "create table things (id integer, label text, fixed char(900), filler text, late integer default 7);
         alter table things alter column filler set storage plain",
    );
    let long = "x".repeat(1000);
    let options = format!(
        "match => '{{\"label\": \"{long}\", \"fixed\": \"y\"}}', payload_fields => array['id']"
    );
    create_event(&cluster, "crm", "things", "Insert", &options);
    create_event(
        &cluster,
        "crm",
        "things",
        "Update",
        "match => '{\"late\": 7}', payload_fields => array['id']",
    );
    cluster.sql(
        "insert into things select n, repeat('x', 1000), 'y', repeat('f', 3000 * n) from generate_series(0, 2) n;
         insert into things values (3, repeat('x', 1001), 'y'), (4, repeat('x', 1000000), 'y'), (5, repeat('x', 1000), 'z')",
    );
    // The value of a column that came later is in no tuple.
    cluster.sql("alter table things add column later integer default 8");
    create_event(
        &cluster,
        "crm",
        "things",
        "Delete",
        "match => '{\"later\": 8}', payload_fields => array['id']",
    );
    cluster.sql("delete from things where id < 2");
    assert_eq!(received_ids(&cluster, &receiver), [0, 0, 1, 1, 2]);
}

#[test]
fn one_of_two_thousand_events_makes_exactly_one_message() {
    let (cluster, receiver) = with_webhook(
        "match_many",
        "create table things (id integer, tenant integer)",
    );
    cluster.sql(
        "select count(*)
         from generate_series(1, 2000) n
         cross join webhook.create_event('crm', 'things', 'table.recordInsert',
                                         match => jsonb_build_object('tenant', n))",
    );
    cluster.sql("insert into things values (1, 1777), (2, 2001), (3, null)");
    assert_eq!(received_ids(&cluster, &receiver), [1]);
    let counted: String = cluster.value(
        "select string_agg(match::text || ' ' || messages, ', ') from webhook.events where messages > 0",
    );
    assert_eq!(counted, "{\"tenant\": 1777} 1");
    let triggers: i64 =
        cluster.value("select count(*) from pg_trigger where tgrelid = 'things'::regclass");
    assert_eq!(triggers, 1);
}

/// A session that has learned that nobody matches a value hears of an event that does.
#[test]
fn what_a_session_has_learned_is_forgotten_when_definitions_change() {
    let (cluster, receiver) = with_webhook(
        "match_learned",
        "create table things (id integer, tenant integer)",
    );
    let matched = |tenant: i32| format!("match => '{{\"tenant\": {tenant}}}'");
    create_event(&cluster, "crm", "things", "Insert", &matched(1));
    let mut session = cluster.connect("postgres");
    run(&mut session, "insert into things values (1, 1), (2, 2)");
    let second = create_event(&cluster, "crm", "things", "Insert", &matched(2));
    run(&mut session, "insert into things values (3, 2)");
    cluster.sql(&format!(
        "select webhook.update_event('{second}', match => '{{\"tenant\": 3}}')"
    ));
    run(&mut session, "insert into things values (4, 2), (5, 3)");
    cluster.sql(&format!(
        "select webhook.update_event('{second}', enabled => false)"
    ));
    run(&mut session, "insert into things values (6, 3)");
    cluster.sql(&format!(
        "select webhook.update_event('{second}', enabled => true)"
    ));
    run(&mut session, "insert into things values (7, 3)");
    cluster.sql(&format!("select webhook.drop_event('{second}')"));
    run(&mut session, "insert into things values (8, 3), (9, 1)");
    assert_eq!(received_ids(&cluster, &receiver), [1, 3, 5, 7, 9]);
}

#[test]
fn an_event_of_the_same_transaction_counts_and_one_that_is_rolled_back_leaves_nothing() {
    let (cluster, receiver) = with_webhook(
        "match_own",
        "create table things (id integer, tenant integer)",
    );
    let mut session = cluster.connect("postgres");
    let create = |tenant: i32| {
        format!("select webhook.create_event('crm', 'things', 'table.recordInsert', match => '{{\"tenant\": {tenant}}}')")
    };
    run(&mut session, &create(1));
    run(&mut session, "insert into things values (1, 1), (2, 2)");
    run(
        &mut session,
        &format!(
            "begin; {}; insert into things values (3, 2); rollback",
            create(2)
        ),
    );
    run(&mut session, "insert into things values (4, 2)");
    run(&mut session, &format!("begin; savepoint s; {}; insert into things values (5, 2); rollback to s; insert into things values (6, 2); commit", create(2)));
    run(
        &mut session,
        &format!(
            "begin; {}; insert into things values (7, 2); commit",
            create(2)
        ),
    );
    run(&mut session, "insert into things values (8, 2)");
    assert_eq!(received_ids(&cluster, &receiver), [1, 7, 8]);
}

/// The snapshot of the writer's transaction may be older than an event.
#[test]
fn an_event_that_is_younger_than_a_snapshot_is_not_missed_afterwards() {
    let (cluster, receiver) = with_webhook(
        "match_snapshots",
        "create table things (id integer, tenant integer)",
    );
    create_event(
        &cluster,
        "crm",
        "things",
        "Insert",
        "match => '{\"tenant\": 1}'",
    );
    for (level, id) in [("repeatable read", 10), ("serializable", 20)] {
        let mut session = cluster.connect("postgres");
        run(
            &mut session,
            &format!("begin isolation level {level}; select count(*) from things"),
        );
        let options = format!("match => '{{\"tenant\": {id}}}'");
        create_event(&cluster, "crm", "things", "Insert", &options);
        run(
            &mut session,
            &format!("insert into things values ({id}, {id}); commit"),
        );
        run(
            &mut session,
            &format!("insert into things values ({id} + 1, {id})"),
        );
    }
    assert_eq!(received_ids(&cluster, &receiver), [10, 11, 20, 21]);
}

#[test]
fn a_rename_is_followed_and_a_dropped_or_retyped_column_switches_the_event_off() {
    let (cluster, receiver) = with_webhook(
        "match_columns",
        "create table things (id integer, tenant integer, status text)",
    );
    create_event(
        &cluster,
        "crm",
        "things",
        "Insert",
        "match => '{\"tenant\": 1}'",
    );
    create_event(
        &cluster,
        "crm",
        "things",
        "Insert",
        "match => '{\"status\": \"paid\"}'",
    );
    let mut session = cluster.connect("postgres");
    run(&mut session, "insert into things values (1, 1, '')");
    cluster.sql("alter table things rename column tenant to customer; alter table things add column tenant integer");
    run(
        &mut session,
        "insert into things values (2, 1, '', 2), (3, 2, '', 1)",
    );
    cluster.sql("alter table things alter column customer type bigint");
    run(&mut session, "insert into things values (4, 1, '')");
    cluster.sql("alter table things alter column customer type text");
    run(
        &mut session,
        "insert into things values (5, '1', ''), (6, '1', 'paid')",
    );
    cluster.sql("alter table things drop column status");
    run(&mut session, "insert into things values (7, '1')");
    assert_eq!(received_ids(&cluster, &receiver), [1, 2, 4, 6]);
    assert_eq!(
        cluster.psql("select status, detail from webhook.events order by detail"),
        "Inactive|column in match has another type: customer\nInactive|column was dropped: status\n"
    );
}

/// Values of an enum have other numbers in the copy, columns too.
#[test]
fn a_dump_carries_what_events_match() {
    let (cluster, receiver) = with_webhook(
        "match_dump",
        "create type mood as enum ('sad', 'ok');
         create table things (gone integer, id integer, tenant integer, mood mood);
         alter table things drop column gone",
    );
    let options = "match => '{\"tenant\": [1, 2], \"mood\": \"ok\"}'";
    let event = create_event(&cluster, "crm", "things", "Insert", options);
    create_event(
        &cluster,
        "crm",
        "things",
        "Insert",
        "match => '{\"tenant\": 3}', condition => 'new.id > 5'",
    );
    let script = dump(&cluster, "postgres", &[]);
    cluster.sql("create database copy");
    restore(&cluster, "copy", &script);
    cluster.sql_in("copy", "select webhook.adopt()");
    let mut session = cluster.connect("copy");
    run(
        &mut session,
        "insert into things values (1, 1, 'ok'), (2, 2, 'ok'), (3, 1, 'sad'), (4, 3, 'ok'), (6, 3, 'ok')",
    );
    // An update of something else renumbers the columns and leaves the values.
    run(
        &mut session,
        &format!("select webhook.update_event('{event}', enabled => true)"),
    );
    run(
        &mut session,
        "insert into things values (7, 1, 'ok'), (8, 1, 'sad')",
    );
    run(
        &mut session,
        "alter table things rename column mood to state; insert into things values (9, 2, 'ok')",
    );
    cluster.wait_until(PATIENCE, "the messages of the copy", || {
        let mut ids: Vec<i64> = receiver
            .received_at("/ok")
            .iter()
            .filter_map(|message| message.body()["data"][0]["id"].as_i64())
            .collect();
        ids.sort_unstable();
        (ids == [1, 2, 6, 7, 9])
            .then_some(())
            .ok_or(format!("{ids:?}"))
    });
}

#[test]
fn partitions_with_other_columns_are_matched_by_name() {
    let (cluster, receiver) = with_webhook(
        "match_partitions",
        "create table things (id integer, tenant integer, status text) partition by list (status);
         create table paid partition of things for values in ('paid');
         create table other (gone text, status text, tenant integer, id integer);
         alter table other drop column gone;
         alter table things attach partition other default",
    );
    create_event(
        &cluster,
        "crm",
        "things",
        "Insert",
        "match => '{\"tenant\": 1}', payload_fields => array['id']",
    );
    create_event(&cluster, "crm", "things", "Update", "match => '{\"tenant\": 1, \"status\": [\"new\", \"paid\"]}', payload_fields => array['id']");
    create_event(
        &cluster,
        "crm",
        "other",
        "Insert",
        "match => '{\"tenant\": 2}', payload_fields => array['id']",
    );
    cluster.sql(
        "insert into things values (1, 1, 'paid'), (2, 1, 'new'), (3, 2, 'paid'), (4, 2, 'new')",
    );
    cluster.sql("insert into other (id, tenant) values (5, 1)");
    cluster.sql("update things set id = id + 10");
    wait_idle(&cluster);
    assert_eq!(
        sorted_records_at(&receiver, "/ok"),
        [
            r#"Insert {"id":1}"#,
            r#"Insert {"id":2}"#,
            r#"Insert {"id":4}"#,
            r#"Insert {"id":5}"#,
            r#"Update {"id":11}"#,
            r#"Update {"id":12}"#,
        ]
    );
}

/// A value keeps its number and gets another label.
#[test]
fn an_enum_counts_by_its_label_in_every_session() {
    let (cluster, receiver) = with_webhook(
        "match_labels",
        "create type mood as enum ('sad', 'ok');
         create table things (id integer, mood mood)",
    );
    let event = create_event(
        &cluster,
        "crm",
        "things",
        "Insert",
        "match => '{\"mood\": \"ok\"}'",
    );
    let mut session = cluster.connect("postgres");
    run(&mut session, "insert into things values (1, 'ok')");
    cluster.sql("alter type mood rename value 'ok' to 'fine'");
    run(&mut session, "insert into things values (2, 'fine')");
    cluster.sql("insert into things values (3, 'fine')");
    cluster.sql(&format!(
        "select webhook.update_event('{event}', match => '{{\"mood\": \"fine\"}}')"
    ));
    run(&mut session, "insert into things values (4, 'fine')");
    cluster.sql("alter type mood rename value 'sad' to 'ok'");
    run(&mut session, "insert into things values (5, 'ok')");
    cluster.sql("alter type mood add value 'merry' before 'ok'");
    run(
        &mut session,
        "insert into things values (6, 'merry'), (7, 'fine')",
    );
    assert_eq!(received_ids(&cluster, &receiver), [1, 4, 7]);
}

/// Column numbers of a copy count again for events that were updated there, and a rename is then
/// followed by these alone.
#[test]
fn events_of_a_copy_match_each_its_own_column() {
    let (cluster, receiver) = with_webhook(
        "match_copied_columns",
        "create table things (gone integer, id integer, tenant integer);
         alter table things drop column gone",
    );
    let matched = "match => '{\"tenant\": 1}'";
    create_event(&cluster, "crm", "things", "Insert", matched);
    let updated = create_event(
        &cluster,
        "crm",
        "things",
        "Insert",
        &format!("{matched}, payload_template => '{{\"data\": [{{\"id\": \"[@field:id]\", \"updated\": true}}]}}'"),
    );
    let script = dump(&cluster, "postgres", &[]);
    cluster.sql("create database copy");
    restore(&cluster, "copy", &script);
    cluster.sql_in("copy", "select webhook.adopt()");
    let mut session = cluster.connect("copy");
    run(
        &mut session,
        &format!(
            "select webhook.update_event('{updated}', enabled => true);
             alter table things rename column tenant to customer;
             alter table things add column tenant integer"
        ),
    );
    run(
        &mut session,
        "insert into things (id, customer, tenant) values (1, 1, 0), (2, 0, 1), (3, 1, 1)",
    );
    let expected = ["1 true", "2 null", "3 null", "3 true"];
    cluster.wait_until(PATIENCE, "the messages of the copy", || {
        let row = |body: serde_json::Value| {
            let data = &body["data"][0];
            format!("{} {}", data["id"], data["updated"])
        };
        let received = receiver.received_at("/ok");
        let mut rows: Vec<String> = received.iter().map(|message| row(message.body())).collect();
        rows.sort_unstable();
        (rows == expected).then_some(()).ok_or(format!("{rows:?}"))
    });
}

/// What a session learns is bounded, and what it has forgotten it learns again.
#[test]
fn more_values_than_a_session_keeps_are_matched_all_the_same() {
    let (cluster, receiver) = with_webhook(
        "match_forgotten",
        "create table things (id integer, label text)",
    );
    let options = "match => '{\"label\": \"x\"}', payload_fields => array['id']";
    create_event(&cluster, "crm", "things", "Insert", options);
    // Each is close to the length of what can be matched: some 5,000 fill the memory.
    let mut session = cluster.connect("postgres");
    run(
        &mut session,
        "insert into things values (1, 'x');
         insert into things select 0, lpad(n::text, 990, 'y') from generate_series(1, 6000) n;
         insert into things values (2, 'x')",
    );
    assert_eq!(received_ids(&cluster, &receiver), [1, 2]);
}

/// The look-up waits for a lock on the definitions, and its session is ended or its statement
/// canceled there.
#[test]
fn a_session_that_ends_while_it_looks_for_events_does_no_harm() {
    let (cluster, receiver) = with_webhook(
        "match_interrupted",
        "create table things (id integer, tenant integer)",
    );
    create_event(
        &cluster,
        "crm",
        "things",
        "Insert",
        "match => '{\"tenant\": [1, 2]}'",
    );
    let mut ended = cluster.connect("postgres");
    let mut canceled = cluster.connect("postgres");
    for session in [&mut ended, &mut canceled] {
        run(session, "insert into things values (1, 1)");
        run(session, "begin; savepoint s");
    }
    let mut locking = cluster.connect("postgres");
    run(
        &mut locking,
        "begin; lock table webhook.event_def in access exclusive mode",
    );
    std::thread::scope(|scope| {
        let of_ended = scope.spawn(|| ended.batch_execute("insert into things values (2, 2)"));
        let of_canceled =
            scope.spawn(|| canceled.batch_execute("insert into things values (3, 2)"));
        let waiting =
            "from pg_stat_activity where wait_event_type = 'Lock' and query ~ 'insert into things'";
        cluster.wait_for_text(PATIENCE, &format!("select count(*)::text {waiting}"), "2");
        cluster.sql(&format!(
            "select pg_terminate_backend(pid) {waiting} and query ~ '2, 2'"
        ));
        cluster.sql(&format!(
            "select pg_cancel_backend(pid) {waiting} and query ~ '3, 2'"
        ));
        assert!(of_ended.join().expect("the thread ends").is_err());
        assert!(of_canceled.join().expect("the thread ends").is_err());
    });
    run(&mut locking, "rollback");
    run(
        &mut canceled,
        "rollback to s; insert into things values (4, 2), (5, 3); commit",
    );
    run(&mut canceled, "insert into things values (6, 2)");
    assert_eq!(received_ids(&cluster, &receiver), [1, 1, 4, 6]);
}
