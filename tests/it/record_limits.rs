//! Rows that are larger than a message may be: capture stops at the limit, in time and memory
//! that the limit bounds, and the message fails with its size so far.

use std::fs;
use std::time::{Duration, Instant};

use postgres::Client;

use super::support::definitions::{
    create_event, create_webhook, record_of, sorted_records_at, wait_idle,
};
use super::support::worker::{cluster_restarts, worker_of};
use super::support::{ready_cluster_with, Cluster, Received, Receiver, PATIENCE};

const LIMIT_KB: u64 = 1024;
/// What is no text of the row: a conversion's room, pieces, catalogs.
const OTHER_KB: u64 = 2 * 1024;

/// A field of /proc/<pid>/status.
fn status_kb(pid: i32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status.lines().find(|line| line.starts_with(field));
    let kb = line.and_then(|line| line.split_whitespace().nth(1));
    kb.and_then(|kb| kb.parse().ok()).expect("it is a number")
}

/// The largest resident size a process had so far, in kB.
fn peak_kb(pid: i32) -> u64 {
    status_kb(pid, "VmHWM:")
}

/// Runs a statement; the time it took, and the most memory its session had so far.
fn measured(session: &mut Client, statement: &str) -> (Duration, u64) {
    let pid = session
        .query_one("select pg_backend_pid()", &[])
        .unwrap()
        .get(0);
    let begun = Instant::now();
    let done = session.batch_execute(statement);
    done.unwrap_or_else(|error| panic!("{statement}: {:?}", error.as_db_error()));
    (begun.elapsed(), peak_kb(pid))
}

/// The same row into `{table}` and into `plain_{table}`, which has no event. Memory beyond that
/// of the plain one must stay within the limit. Both sessions have loaded the extension.
fn assert_bounded(cluster: &Cluster, table: &str, values: &str, limit_kb: u64) {
    let into = |target: &str| {
        let mut session = cluster.connect("postgres");
        session
            .batch_execute(&format!(
                "begin; insert into {table} values (0, null); rollback"
            ))
            .unwrap();
        measured(
            &mut session,
            &format!("insert into {target} select {values}"),
        )
    };
    let (plain_time, plain_kb) = into(&format!("plain_{table}"));
    let (time, kb) = into(table);
    let more_kb = kb.saturating_sub(plain_kb);
    println!("{table}: {time:?} beside {plain_time:?}, {more_kb} kB more than {plain_kb} kB");
    assert!(
        more_kb <= 3 * limit_kb + OTHER_KB,
        "{table}: {kb} kB, without an event {plain_kb} kB"
    );
    // Far above the noise of a loaded machine, far below a row that is written in full.
    assert!(
        time < plain_time * 4 + Duration::from_secs(2),
        "{table}: {time:?}, without an event {plain_time:?}"
    );
}

/// Waits until as many messages have failed for their size, all others being delivered.
fn wait_for_failed(cluster: &Cluster, wanted: usize) {
    wait_idle(cluster);
    let failed: i64 =
        cluster.value("select count(*) from webhook.messages where status = 'failed'");
    let logged: i64 = cluster.value(
        "select count(*) from webhook.calls
         where status = 'Failure'
           and detail ~ '^the message has at least \\d+ bytes, webhook.max_message_size allows \\d+$'
           and substring(detail from 'at least (\\d+)')::int > 1024",
    );
    let calls = cluster.psql("select status, detail from webhook.calls");
    assert_eq!((failed, logged), (wanted as i64, wanted as i64), "{calls}");
}

fn watch(cluster: &Cluster, receiver: &Receiver, path: &str, tables: &[&str], options: &str) {
    create_webhook(cluster, path, &[receiver.url(&format!("/ok/{path}"))], "");
    for table in tables {
        create_event(cluster, path, table, "Insert", options);
    }
}

#[test]
fn a_record_of_a_gigabyte_is_never_built() {
    let (cluster, receiver) = ready_cluster_with("gigabyte", &[]);
    cluster.sql("create table t (id integer, x text); create table plain_t (id integer, x text)");
    watch(&cluster, &receiver, "a", &["t"], "");
    // Six bytes each in JSON: 2^30 and 6 more, 2^30 and some MB, and 1.14 GB.
    for count in [178_956_967, 179_500_000, 190_000_000] {
        let values = format!("1, repeat(e'\\x01', {count}) || 'abc'");
        assert_bounded(&cluster, "t", &values, 10 * 1024);
    }
    wait_for_failed(&cluster, 3);
    cluster.sql("insert into t values (2, 'small')");
    receiver.wait_for(PATIENCE, "/ok/a", 1);
    wait_idle(&cluster);
    assert_eq!(receiver.received_at("/ok/a").len(), 1);
    assert_eq!(cluster_restarts(&cluster), 0, "{}", cluster.log());
}

/// Tables by the type of their column, and a value of several MB of JSON.
const LARGE: &[(&str, &str, &str)] = &[
    ("t_text", "text", "repeat(e'\\x01', 4000000)"),
    ("t_json", "json", "to_json(repeat('x', 8000000))"),
    ("t_jsonb", "jsonb", "(select jsonb_agg(jsonb_build_object('k', n, 'v', array[e'a\\n\"', 'b'])) from generate_series(1, 60000) n)"),
    ("t_jsontext", "jsonb", "to_jsonb(repeat(e'\\x01', 1500000))"),
    ("t_xml", "xml", "xmlelement(name x, repeat('x', 8000000))"),
    ("t_bytea", "bytea", "decode(repeat('00ff', 4000000), 'hex')"),
    ("t_hstore", "hstore", "(select hstore(array_agg('k' || n), array_agg(repeat('\"', 50))) from generate_series(1, 40000) n)"),
    ("t_texts", "text[]", "array_fill(repeat(e'\\x02', 1000), array[2000])"),
    ("t_ints", "integer[]", "array_fill(1234567, array[2, 500000])"),
    ("t_nulls", "integer[]", "array_fill(null::integer, array[6000000])"),
    ("t_pair", "pair", "row(7, repeat(e'\\x03', 2000000))::pair"),
    ("t_pairs", "pair[]", "(select array_agg(row(n, repeat('y', 90))::pair) from generate_series(1, 60000) n)"),
    ("t_varbit", "varbit", "repeat('10', 2000000)::varbit"),
    ("t_path", "path", "(select ('[' || string_agg('(' || n || '.125,-' || n || ')', ',') || ']')::path from generate_series(1, 300000) n)"),
    ("t_tsvector", "tsvector[]", "(select array_agg(to_tsvector('simple', 'aaaa' || n)) from generate_series(1, 400000) n)"),
];

#[test]
fn every_type_stops_at_the_limit() {
    let (cluster, receiver) =
        ready_cluster_with("largetypes", &[("webhook.max_message_size", "1MB")]);
    cluster.sql("create extension hstore; create type pair as (n integer, note text)");
    for (table, kind, _) in LARGE {
        cluster.sql(&format!(
            "create table {table} (id integer, x {kind}); create table plain_{table} (id integer, x {kind})"
        ));
    }
    let tables: Vec<&str> = LARGE.iter().map(|(table, ..)| *table).collect();
    watch(&cluster, &receiver, "default", &tables, "");
    watch(
        &cluster,
        &receiver,
        "keyed",
        &["t_texts", "t_ints", "t_nulls", "t_pairs"],
        "list_style => 'keyed'",
    );
    watch(
        &cluster,
        &receiver,
        "template",
        &tables,
        "payload_template => '{\"x\": \"[@field:x]\"}'",
    );
    watch(
        &cluster,
        &receiver,
        "small",
        &tables,
        "payload_template => '{\"id\": \"[@field:id]\"}'",
    );
    for (table, _, value) in LARGE {
        assert_bounded(&cluster, table, &format!("1, {value}"), LIMIT_KB);
    }
    wait_for_failed(&cluster, LARGE.len() * 2 + 4);
    // A template that does not name the large column captures what it names.
    assert_eq!(receiver.received_at("/ok/small").len(), LARGE.len());
    assert_eq!(receiver.received().len(), LARGE.len());
}

#[test]
fn what_just_fits_is_delivered_whole() {
    const KINDS: &[(&str, &str, &str, &str)] = &[
        ("t_text", "text", "repeat(e'\\n', {n} / 2)", "to_json(x)::text"),
        ("t_json", "json", "to_json(repeat('j', {n} - 2))", "x::text"),
        ("t_jsonb", "jsonb", "to_jsonb(repeat('b', {n} - 2))", "x::text"),
        (
            "t_nested",
            "jsonb",
            "(select jsonb_build_object('l', jsonb_agg(jsonb_build_array(n, null, true, 'ü\"', '{}', 1.50)))
              from generate_series(1, {n} / 70) n)",
            "x::text",
        ),
        (
            "t_bytea",
            "bytea",
            "decode(repeat('00ff10', {n} / 4), 'hex')",
            "'\"' || translate(encode(x, 'base64'), e'\\n', '') || '\"'",
        ),
        (
            "t_hstore",
            "hstore",
            "(select hstore(array_agg('k\"' || n), array_agg(nullif(n, 7)::text)) from generate_series(1, {n} / 40) n)",
            "(select '{' || string_agg(to_json(k.k)::text || ':' || coalesce(to_json(x -> k.k)::text, 'null'), ',')
                    || '}' from skeys(x) k (k))",
        ),
        ("t_ints", "integer[]", "array_fill(1234567, array[{n} / 9])", "to_json(x)::text"),
        ("t_bits", "varbit", "(repeat('10', {n} / 2 - 5) || '1')::varbit", "'\"' || x::text || '\"'"),
    ];
    let (cluster, receiver) =
        ready_cluster_with("justfits", &[("webhook.max_message_size", "1MB")]);
    cluster.sql("create extension hstore");
    let tables: Vec<&str> = KINDS.iter().map(|(table, ..)| *table).collect();
    for (table, kind, _, _) in KINDS {
        cluster.sql(&format!("create table {table} (id integer, x {kind})"));
    }
    watch(&cluster, &receiver, "a", &tables, "");
    for (table, _, value, _) in KINDS {
        let value = value.replace("{n}", "1000000");
        cluster.sql(&format!("insert into {table} select 1, {value}"));
    }
    wait_idle(&cluster);
    let received = receiver.received_at("/ok/a");
    assert_eq!(received.len(), KINDS.len());
    for (table, _, _, json) in KINDS {
        let is_of_table = |message: &&Received| message.body()["objectName"] == **table;
        let message = received
            .iter()
            .find(is_of_table)
            .expect("each has a message");
        let wanted: String = cluster.value(&format!("select {json} from {table}"));
        let wanted = format!("{{\"id\":1,\"x\":{wanted}}}");
        let record = record_of(message);
        let record = record.strip_prefix("Insert ").expect("an insert");
        assert!(
            record == wanted,
            "{table}: {} and {} bytes",
            record.len(),
            wanted.len()
        );
    }

    // To the byte: what else a message holds has the same length in all.
    let other: i64 = cluster.value(
        "select message_size::bigint - (select length(to_json(x)::text) from t_text)
         from webhook.calls where object_name = 't_text'",
    );
    let fits = (1 << 20) - other - 2;
    for length in [fits, fits + 1] {
        cluster.sql(&format!(
            "insert into t_text values (2, repeat('x', {length}))"
        ));
    }
    wait_idle(&cluster);
    let calls = cluster.psql(
        "select status, message_size, detail from webhook.calls
         where object_name = 't_text' order by message_size desc limit 2",
    );
    assert_eq!(
        calls.trim(),
        "Failure|1048577|the message has 1048577 bytes, webhook.max_message_size allows 1048576\n\
         Success|1048576|"
    );
}

/// The worker's memory may grow by this for reasons of its own.
const WORKER_KB: u64 = 48 * 1024;

#[test]
fn a_large_stored_record_is_not_read_to_find_that_it_is_too_large() {
    let (cluster, receiver) =
        ready_cluster_with("storedlarge", &[("webhook.max_message_size", "1MB")]);
    cluster.sql("create table t (id integer, x text)");
    watch(&cluster, &receiver, "a", &["t"], "");
    watch(
        &cluster,
        &receiver,
        "b",
        &["t"],
        "payload_template => '{\"x\": \"[@field:x]\"}'",
    );
    cluster.sql("insert into t values (1, 'first')");
    wait_idle(&cluster);
    let worker = worker_of(&cluster, "postgres");
    let before_kb = peak_kb(worker);
    let by_hand = |record: &str, old_record: &str, changed: &str| {
        cluster.sql(&format!(
            "insert into webhook.outbox_0
             select pg_current_xact_id(), (nextval('webhook.outbox_flush_seq') << 20), gen_random_uuid(),
                    e.event_key, e.webhook_key, now(), null, null, {changed}, {record}, {old_record}
             from webhook.event_def e;
             insert into t values (2, 'next')"
        ));
    };
    by_hand(
        "'{\"x\": \"' || repeat('y', 300000000) || '\"}'",
        "null",
        "null",
    );
    by_hand(
        "'{\"x\": \"z\"}'",
        "repeat('y', 300000000)",
        "repeat('c', 100000000)",
    );
    by_hand("null", "null", "null");
    wait_idle(&cluster);
    let peak_kb = peak_kb(worker);
    println!("the worker had {before_kb} kB, at most {peak_kb} kB");
    assert!(
        peak_kb < before_kb + WORKER_KB,
        "{before_kb} kB, then {peak_kb} kB"
    );
    let calls = cluster.psql(
        "select status, regexp_replace(detail, '\\d+', 'N'), count(*) from webhook.calls
         group by 1, 2 order by 1, 2",
    );
    assert_eq!(
        calls.trim(),
        "Failure|the message has at least N bytes, webhook.max_message_size allows 1048576|4\n\
         Failure|the row of webhook_internal.outbox has no record|2\n\
         Success||8"
    );
    assert_eq!(worker_of(&cluster, "postgres"), worker);
}

#[test]
fn memory_that_runs_out_is_an_error_of_the_statement() {
    let (cluster, receiver) =
        ready_cluster_with("nomemory", &[("webhook.max_message_size", "512MB")]);
    cluster.sql("create table t (id integer, x text)");
    watch(&cluster, &receiver, "a", &["t"], "");
    let mut session = cluster.connect("postgres");
    session
        .batch_execute("insert into t values (1, 'first')")
        .unwrap();
    let pid: i32 = session
        .query_one("select pg_backend_pid()", &[])
        .unwrap()
        .get(0);
    let mapped_kb = status_kb(pid, "VmSize:");
    // 40 MB of text fit, 240 MB of JSON do not.
    let limit = (mapped_kb + 200 * 1024) * 1024;
    // By the server's account, whose process it is.
    cluster.sql(&format!(
        "copy (select) to program 'prlimit --pid={pid} --as={limit}'"
    ));
    let error = session
        .batch_execute("insert into t values (2, repeat(e'\\x01', 40000000))")
        .expect_err("there is no memory for it");
    let error = error.as_db_error().expect("the server answered");
    assert_eq!(error.code().code(), "53200", "{error:?}");
    session
        .batch_execute("insert into t values (3, 'next')")
        .unwrap();
    wait_idle(&cluster);
    assert_eq!(receiver.received_at("/ok/a").len(), 2);
    assert_eq!(cluster_restarts(&cluster), 0, "{}", cluster.log());
}

#[test]
fn a_type_nested_deeper_than_the_stack_is_captured() {
    let (cluster, receiver) = ready_cluster_with("deeptype", &[]);
    cluster.sql("create domain d0 as integer[]");
    // In several transactions: each type takes a lock. PostgreSQL 16 itself can make no more levels.
    cluster.sql(
        "do $$ begin
             for n in 1..4000 loop
                 execute format('create domain d%s as d%s[]', n, n - 1);
                 if n % 500 = 0 then commit; end if;
             end loop;
         end $$",
    );
    cluster.sql("create table t (id integer, x d4000)");
    watch(&cluster, &receiver, "a", &["t"], "");
    cluster.sql("insert into t values (1, null), (2, array[null]::d3999[])");
    wait_idle(&cluster);
    assert_eq!(
        sorted_records_at(&receiver, "/ok/a"),
        [
            r#"Insert {"id":1,"x":null}"#,
            r#"Insert {"id":2,"x":[null]}"#
        ]
    );
    assert_eq!(cluster_restarts(&cluster), 0, "{}", cluster.log());
}
