//! Whose rights count, whose code runs, and where a secret may stand.

use super::support::definitions::{
    create_event, create_events, create_webhook, records_at, wait_idle,
};
use super::support::{contents, ready_cluster, Cluster};

/// One call at a time: messages arrive in the order of the changes.
const IN_ORDER: &str = "max_in_flight => 1";

fn run_as(cluster: &Cluster, role: &str, statements: &str) {
    let mut session = cluster.connect_as(role, "postgres");
    session
        .batch_execute(statements)
        .unwrap_or_else(|error| panic!("{role}: {statements}: {error:?}"));
}

fn roles(cluster: &Cluster) {
    cluster.sql(
        "create role alice login; create role bob login; create role boss login;
         grant webhook_admin to boss; grant create on schema public to alice",
    );
    run_as(
        cluster,
        "alice",
        "create table items (id integer primary key, name text);
         grant insert, update, delete on items to bob;
         grant select, trigger on items to boss",
    );
}

#[test]
fn a_role_that_may_change_a_table_has_its_changes_captured_without_rights_on_the_extension() {
    let (cluster, receiver) = ready_cluster("rights");
    roles(&cluster);
    create_webhook(&cluster, "boss", &[receiver.url("/ok")], IN_ORDER);
    let mut boss = cluster.connect_as("boss", "postgres");
    boss.batch_execute("select webhook.create_event('boss', 'items', 'table.recordInsert')")
        .unwrap();
    run_as(
        &cluster,
        "alice",
        "insert into items values (1, 'by its owner')",
    );
    run_as(
        &cluster,
        "bob",
        "insert into items values (2, 'by a grantee')",
    );
    run_as(
        &cluster,
        "alice",
        "create function add(id integer) returns void language sql security definer
         as $$ insert into items values (id, 'by a definer') $$",
    );
    run_as(&cluster, "bob", "select add(3)");
    run_as(
        &cluster,
        "alice",
        "begin; insert into items values (4, 'then read only'); set transaction read only; commit",
    );
    wait_idle(&cluster);
    assert_eq!(
        records_at(&receiver, "/ok"),
        [
            r#"Insert {"id":1,"name":"by its owner"}"#,
            r#"Insert {"id":2,"name":"by a grantee"}"#,
            r#"Insert {"id":3,"name":"by a definer"}"#,
            r#"Insert {"id":4,"name":"then read only"}"#,
        ]
    );
    assert_eq!(
        cluster.psql("select actor from webhook_internal.outbox order by id"),
        "alice\nbob\nbob\nalice\n"
    );
    for role in ["alice", "bob"] {
        let mut session = cluster.connect_as(role, "postgres");
        for query in [
            "select * from webhook_internal.outbox",
            "select * from webhook.secret_def",
            "select * from webhook.messages",
            "select webhook.wait_idle()",
            "insert into webhook.outbox_0 default values",
            "select nextval('webhook.outbox_flush_seq')",
        ] {
            let error = session.batch_execute(query).expect_err(query);
            let code = error.code().expect("the server refused").code();
            assert_eq!(code, "42501", "{role}: {query}");
        }
    }
    let secrets = boss.batch_execute("select * from webhook.secret_def");
    assert!(secrets.is_err(), "an administrator asks reveal_secret()");
}

/// Operators and functions in a schema before pg_catalog, each of which tells on its caller.
const HOSTILE: &str = "
create schema evil;
create table evil.caught (what text);
grant usage on schema evil to public;
grant insert on evil.caught to public;
create function evil.catch(what text) returns text language sql security definer
    as $$ insert into evil.caught values (what) returning what $$;
do $$
declare
    t record;
begin
    for t in select unnest(array['text', 'name', 'integer', 'bigint', 'oid', 'boolean', 'xid8', 'timestamptz',
                                 'smallint', 'text[]', 'smallint[]', 'uuid', '\"char\"', 'regclass', 'jsonb']) as type
    loop
        execute format('create function evil.same(%1$s, %1$s) returns boolean language plpgsql as
                        $f$ begin perform evil.catch(%2$L); return false; end $f$', t.type, 'operator on ' || t.type);
        execute format('create operator evil.= (leftarg = %1$s, rightarg = %1$s, function = evil.same)', t.type);
        execute format('create operator evil.<> (leftarg = %1$s, rightarg = %1$s, function = evil.same)', t.type);
        execute format('create operator evil.< (leftarg = %1$s, rightarg = %1$s, function = evil.same)', t.type);
        execute format('create operator evil.> (leftarg = %1$s, rightarg = %1$s, function = evil.same)', t.type);
        execute format('create operator evil.>= (leftarg = %1$s, rightarg = %1$s, function = evil.same)', t.type);
    end loop;
    for t in select * from (values
        ('lower(text)', 'text'), ('unnest(text[])', 'setof text'), ('clock_timestamp()', 'timestamptz'),
        ('now()', 'timestamptz'), ('format(text, text)', 'text'), ('current_setting(text)', 'text'),
        ('pg_partition_ancestors(regclass)', 'setof regclass'), ('nextval(regclass)', 'bigint'),
        ('has_table_privilege(oid, text)', 'boolean'), ('current_database()', 'name'),
        ('pg_current_snapshot()', 'pg_snapshot'), ('jsonb_build_array(integer)', 'jsonb'),
        ('to_jsonb(text)', 'jsonb'), ('row_to_json(record)', 'json'), ('array_length(text[], integer)', 'integer')
    ) v (signature, result)
    loop
        execute format('create function evil.%s returns %s language plpgsql as
                        $f$ begin perform evil.catch(%L); return%s; end $f$',
                       t.signature, t.result, t.signature,
                       case when t.result like 'setof%%' then '' else ' null' end);
    end loop;
    for t in select unnest(array['pg_class', 'pg_namespace', 'pg_attribute', 'pg_trigger', 'pg_extension',
                                 'event_def', 'webhook_def', 'outbox_0', 'control']) as name
    loop
        execute format('create view evil.%I as select evil.catch(%L), null::oid as oid, null::name as relname',
                       t.name, 'relation ' || t.name);
    end loop;
end
$$;
grant select on all tables in schema evil to public;
alter database postgres set search_path = evil, pg_catalog, public;";

#[test]
fn a_hostile_search_path_has_no_effect() {
    let (cluster, receiver) = ready_cluster("hostile");
    roles(&cluster);
    cluster.sql(HOSTILE);
    // The trap works: unqualified names are the hostile ones now.
    cluster.sql("select lower('X'), 'a'::text = 'b'::text, * from pg_class");
    assert_eq!(
        cluster.psql("select what from caught order by what collate pg_catalog.\"C\""),
        "lower(text)\noperator on text\nrelation pg_class\n"
    );
    cluster.sql("truncate caught; alter table caught add check (what is null)");

    let url = receiver.url("/ok");
    let mut boss = cluster.connect_as("boss", "postgres");
    boss.batch_execute(&format!(
        "select webhook.create_webhook('hostile', array['{url}'], max_in_flight => 1);
         select webhook.create_event('hostile', 'public.items', 'table.recordInsert', event_sources => array['Cluster Test']);
         select webhook.create_event('hostile', 'public.items', 'table.recordUpdate',
                                     object_fields => array['name'], payload_fields => array['name']);
         select webhook.create_event('hostile', 'public.items', 'table.recordDelete')"
    ))
    .unwrap();
    run_as(
        &cluster,
        "alice",
        "insert into public.items values (1, 'a');
         update public.items set name = 'b';
         delete from public.items",
    );
    let idle: bool = boss
        .query_one("select webhook.wait_idle('60 seconds')", &[])
        .unwrap()
        .get(0);
    assert!(idle, "not idle\n{}", cluster.log());
    assert_eq!(
        records_at(&receiver, "/ok"),
        [
            r#"Insert {"id":1,"name":"a"}"#,
            r#"Update {"name":"b"}"#,
            r#"Delete {"id":1,"name":"b"}"#,
        ]
    );
    for statement in [
        "select * from webhook.webhooks",
        "select * from webhook.events",
        "select * from webhook.messages",
        "select * from webhook.calls",
        "select * from webhook.queue",
        "select * from webhook.worker",
        "select webhook.pause_webhook('hostile')",
        "select webhook.resume_webhook('hostile')",
        "select webhook.regenerate_secret('hostile')",
        "select webhook.reveal_secret('hostile')",
        "select webhook.stop_worker()",
        "select webhook.start_worker()",
        "select webhook.drop_webhook('hostile')",
    ] {
        boss.batch_execute(statement)
            .unwrap_or_else(|error| panic!("{statement}: {error:?}"));
    }
    assert_eq!(
        cluster.psql("select pg_catalog.count(*) from evil.caught"),
        "0\n"
    );
}

#[test]
fn a_secret_stands_in_its_table_and_in_the_answer_to_its_owner_and_nowhere_else() {
    let (cluster, receiver) = ready_cluster("secrets");
    for (name, value) in [
        ("log_statement", "all"),
        ("log_min_duration_statement", "0"),
        ("log_min_messages", "debug2"),
        ("debug_print_plan", "off"),
        ("log_parameter_max_length_on_error", "-1"),
    ] {
        cluster.configure(name, value);
    }
    cluster.reload();
    cluster.sql("create table items (id integer, name text)");
    let urls = [
        receiver.url("/ok"),
        receiver.url("/status/500"),
        receiver.url("/hang"),
    ];
    let first = create_webhook(&cluster, "secret", &urls, "timeout_ms => 5000");
    create_events(&cluster, "secret", "items", "");
    let second: String = cluster.value("select webhook.regenerate_secret('secret')");
    assert!(first.starts_with("whsec_") && second.starts_with("whsec_") && first != second);
    cluster
        .sql("insert into items values (1, 'a'); update items set name = 'b'; delete from items");
    let seen_in_activity = cluster.psql("select query from pg_stat_activity");
    wait_idle(&cluster);
    assert_eq!(receiver.received_at("/ok").len(), 3);
    // Errors around it: a name that is taken, a bad argument, a lock that is not given.
    let mut holder = cluster.connect("postgres");
    holder
        .batch_execute("begin; lock table webhook.secret_def in exclusive mode")
        .unwrap();
    let mut session = cluster.connect("postgres");
    session.batch_execute("set lock_timeout = '50ms'").unwrap();
    for refused in [
        "select webhook.create_webhook('secret', array['https://example.com'])",
        "select webhook.regenerate_secret('secret', overlap => '-1 s')",
        "select webhook.regenerate_secret('secret')",
        "select webhook.create_webhook('another', array['https://example.com'])",
    ] {
        session.batch_execute(refused).expect_err(refused);
    }
    holder.batch_execute("rollback").unwrap();

    let log = cluster.log();
    for secret in [&first, &second] {
        let key = secret.strip_prefix("whsec_").unwrap();
        assert_eq!(contents::tables_with(&cluster, key), ["webhook.secret_def"]);
        let logged: Vec<&str> = log.lines().filter(|line| line.contains(key)).collect();
        assert!(logged.is_empty(), "in the server log: {logged:#?}");
        assert!(!seen_in_activity.contains(key), "in pg_stat_activity");
        for view in ["webhooks", "events", "messages", "calls", "queue", "worker"] {
            let seen = cluster.psql(&format!("select * from webhook.{view}"));
            assert!(!seen.contains(key), "in webhook.{view}");
        }
        for call in receiver.received() {
            assert!(!format!("{call:?}").contains(key), "in a request");
        }
    }
}

#[test]
fn an_event_needs_the_callers_rights_on_the_table() {
    let (cluster, receiver) = ready_cluster("needs_rights");
    roles(&cluster);
    create_webhook(&cluster, "hook", &[receiver.url("/ok")], "");
    let mut boss = cluster.connect_as("boss", "postgres");
    let create = "select webhook.create_event('hook', 'items', 'table.recordInsert')";
    for right in ["select", "trigger"] {
        cluster.sql(&format!("revoke {right} on items from boss"));
        let error = boss.batch_execute(create).expect_err(right);
        assert_eq!(error.code().unwrap().code(), "42501", "without {right}");
        cluster.sql(&format!("grant {right} on items to boss"));
    }
    boss.batch_execute(create).unwrap();
    run_as(&cluster, "alice", "insert into items values (1, 'a')");
    wait_idle(&cluster);
    assert_eq!(receiver.received_at("/ok").len(), 1);
    // A role that may create triggers on its own table still cannot borrow the event.
    let event = create_event(&cluster, "hook", "items", "Delete", "");
    cluster.sql("grant create on schema public to bob; grant usage on schema webhook to bob");
    let mut bob = cluster.connect_as("bob", "postgres");
    bob.batch_execute("create table own (id integer)").unwrap();
    let error = bob
        .batch_execute(&format!(
            "create trigger webhook_{event} after delete on own for each row
             execute function webhook.capture('{event}')"
        ))
        .expect_err("bob may not execute webhook.capture()");
    assert_eq!(error.code().unwrap().code(), "42501");
}
