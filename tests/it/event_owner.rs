//! An event has an owner, and sends no rows that this role, or the one that redirects them, may
//! not read.

use postgres::error::DbError;
use postgres::Client;

use super::support::definitions::{create_webhook, records_at, wait_idle};
use super::support::{ready_cluster, Cluster, Receiver};

/// alice owns items; boss is an administrator who may read it and made the event; clerk is an
/// administrator who may not.
fn scene(name: &str) -> (Cluster, Receiver, String) {
    let (cluster, receiver) = ready_cluster(name);
    cluster.sql(
        "create role alice login; create role boss login in role webhook_admin;
         create role clerk login in role webhook_admin;
         grant create on schema public to alice",
    );
    run(
        &cluster,
        "alice",
        "create table items (id integer primary key, name text);
         grant select, trigger on items to boss",
    );
    create_webhook(
        &cluster,
        "hook",
        &[receiver.url("/ok")],
        "max_in_flight => 1",
    );
    let event = text(
        &mut cluster.connect_as("boss", "postgres"),
        "select id from webhook.create_event('hook', 'items', 'table.recordInsert')",
    );
    (cluster, receiver, event)
}

fn run(cluster: &Cluster, role: &str, statements: &str) {
    let mut session = cluster.connect_as(role, "postgres");
    session
        .batch_execute(statements)
        .unwrap_or_else(|error| panic!("{role}: {statements}: {error:?}"));
}

fn text(session: &mut Client, query: &str) -> String {
    let row = session.query_one(query, &[]);
    row.unwrap_or_else(|error| panic!("{query}: {error:?}"))
        .get(0)
}

fn refusal(session: &mut Client, statement: &str) -> DbError {
    let error = session.batch_execute(statement).expect_err(statement);
    error.as_db_error().expect("the server answered").clone()
}

fn assert_refused(session: &mut Client, statement: &str) {
    let error = refusal(session, statement);
    assert_eq!(error.code().code(), "42501", "{statement}: {error:?}");
    assert!(error.hint().is_some(), "{statement}: {error:?}");
}

fn state(cluster: &Cluster) -> String {
    cluster.value(
        "select status || ', ' || coalesce(detail, '-') || ', ' || owner from webhook.events",
    )
}

#[test]
fn who_may_not_read_a_table_does_not_send_its_rows_elsewhere() {
    let (cluster, receiver, event) = scene("elsewhere");
    run(&cluster, "alice", "insert into items values (1, 'a')");
    wait_idle(&cluster);
    let message: String = cluster.value("select message_id::text from webhook.messages");
    let own = receiver.url("/ok");
    let other = receiver.url("/ok/clerk");
    let mut clerk = cluster.connect_as("clerk", "postgres");
    let redirect =
        format!("select webhook.update_webhook('hook', outgoing_urls => array['{other}'])");
    let add = format!(
        "select webhook.update_webhook('hook', outgoing_urls => array['{own}', '{other}'])"
    );
    for statement in [
        redirect.as_str(),
        add.as_str(),
        "select webhook.update_webhook('hook', headers => '{\"x-tenant\": \"clerk\"}')",
    ] {
        assert_refused(&mut clerk, statement);
    }
    let answer = text(
        &mut clerk,
        &format!(
            "select status || ' ' || body::text
             from webhook.rest('PUT', '/v3/outgoingWebhooks/' || (select id from webhook.webhooks),
                               '{{\"OutgoingUrls\": [\"{other}\"]}}')"
        ),
    );
    assert!(
        answer.starts_with("400 ") && answer.contains("may not read"),
        "{answer}"
    );
    // What sends nothing elsewhere needs no right on the table.
    clerk
        .batch_execute(&format!(
            "select webhook.update_webhook('hook', description => 'mine', headers => '{{}}', enabled => true,
                                           outgoing_urls => array['{own}']);
             select webhook.redeliver('{message}'); select webhook.pause_webhook('hook');
             select webhook.resume_webhook('hook'); select webhook.update_event('{event}', enabled => false);
             select webhook.test_webhook('hook'); select webhook.cancel_pending('hook')"
        ))
        .unwrap();
    assert_refused(
        &mut clerk,
        &format!("select webhook.update_event('{event}', enabled => true)"),
    );
    assert_refused(
        &mut clerk,
        "select webhook.update_webhook('hook', enabled => true)",
    );

    // SELECT on the table is enough, and so is membership in the event's owner.
    cluster.sql("grant select on items to clerk");
    clerk.batch_execute(&add).unwrap();
    cluster.sql("revoke select on items from clerk");
    // The message is older than the URL that was added.
    assert_refused(
        &mut clerk,
        &format!("select webhook.redeliver('{message}')"),
    );
    cluster.sql("grant boss to clerk");
    clerk
        .batch_execute(&format!(
            "select webhook.redeliver('{message}'); select webhook.update_event('{event}', enabled => true)"
        ))
        .unwrap();
    wait_idle(&cluster);
    assert_eq!(
        records_at(&receiver, "/ok/clerk"),
        [r#"Insert {"id":1,"name":"a"}"#]
    );
    // But not in an owner that has lost the right itself.
    let redirect = redirect.replace("/ok/clerk", "/ok/another");
    cluster.sql("revoke select on items from boss");
    assert_refused(&mut clerk, &redirect);
    assert_refused(&mut cluster.connect_as("boss", "postgres"), &redirect);
    // A dropped event counts while its messages wait.
    clerk
        .batch_execute("select webhook.pause_webhook('hook')")
        .unwrap();
    cluster.sql("grant select on items to boss; insert into items values (2, 'b')");
    cluster.sql(&format!(
        "revoke boss from clerk; select webhook.drop_event('{event}')"
    ));
    assert_refused(&mut clerk, &redirect);
    clerk
        .batch_execute("select webhook.cancel_pending('hook')")
        .unwrap();
    clerk
        .batch_execute("select webhook.resume_webhook('hook')")
        .unwrap();
    wait_idle(&cluster);
    clerk.batch_execute(&redirect).unwrap();
    assert_refused(
        &mut clerk,
        &format!("select webhook.redeliver('{message}')"),
    );
}

#[test]
fn an_event_stops_with_the_rights_of_its_owner_and_no_writer_fails() {
    let (cluster, receiver, event) = scene("revoked");
    let mut alice = cluster.connect_as("alice", "postgres");
    alice
        .batch_execute("insert into items values (1, 'a')")
        .unwrap();
    assert_eq!(state(&cluster), "Active, -, boss");
    cluster.sql("revoke select on items from boss");
    alice
        .batch_execute(
            "begin; insert into items values (2, 'a'); insert into items values (3, 'a'); commit",
        )
        .unwrap();
    let lost = "its owner boss may not SELECT from the table";
    assert_eq!(state(&cluster), format!("Inactive, {lost}, boss"));
    let explained = format!(
        "select detail from webhook.explain_event('{event}') where check_name = 'owner' and not ok"
    );
    assert!(cluster.value::<String>(&explained).starts_with(lost));
    cluster.sql("grant select on items to boss");
    alice
        .batch_execute("insert into items values (4, 'a')")
        .unwrap();
    // The right may come with a membership, and go with it.
    cluster.sql(
        "revoke select on items from boss; create role readers; grant select on items to readers; grant readers to boss",
    );
    alice
        .batch_execute("insert into items values (5, 'a')")
        .unwrap();
    cluster.sql("revoke readers from boss");
    alice
        .batch_execute("insert into items values (6, 'a')")
        .unwrap();
    let warning = format!("WARNING:  webhook event \"{event}\" captures nothing: {lost}");
    assert_eq!(
        cluster.log().matches(&warning).count(),
        1,
        "{}",
        cluster.log()
    );
    // One who has the right takes the event over.
    let enable = format!("select webhook.update_event('{event}', enabled => true)");
    assert_refused(&mut cluster.connect_as("boss", "postgres"), &enable);
    cluster.sql("grant select, trigger on items to clerk");
    run(&cluster, "clerk", &enable);
    assert_eq!(state(&cluster), "Active, -, clerk");
    alice
        .batch_execute("insert into items values (7, 'a')")
        .unwrap();
    wait_idle(&cluster);
    let ids: Vec<String> = [1, 4, 5, 7]
        .map(|id| format!(r#"Insert {{"id":{id},"name":"a"}}"#))
        .into();
    assert_eq!(records_at(&receiver, "/ok"), ids);
}

#[test]
fn an_owner_keeps_its_event_under_another_name_and_leaves_it_when_it_is_dropped() {
    let (cluster, receiver, _event) = scene("renamed");
    let mut alice = cluster.connect_as("alice", "postgres");
    cluster.sql("alter role boss rename to \"Big Boss\"");
    alice
        .batch_execute("insert into items values (1, 'a')")
        .unwrap();
    assert_eq!(state(&cluster), "Active, -, Big Boss");
    cluster.sql("drop owned by \"Big Boss\"; drop role \"Big Boss\"; create role boss superuser");
    alice
        .batch_execute("insert into items values (2, 'a')")
        .unwrap();
    assert_eq!(
        state(&cluster),
        "Inactive, its owner boss was dropped, boss"
    );
    cluster.configure("webhook.recheck_privileges", "off");
    cluster.reload();
    let setting = "select current_setting('webhook.recheck_privileges')";
    cluster.sql("load 'webhook_ext'");
    cluster.wait_for_text(super::support::PATIENCE, setting, "off");
    let mut alice = cluster.connect_as("alice", "postgres");
    alice
        .batch_execute("insert into items values (3, 'a')")
        .unwrap();
    assert_eq!(state(&cluster), "Active, -, boss");
    wait_idle(&cluster);
    let ids: Vec<String> = [1, 3]
        .map(|id| format!(r#"Insert {{"id":{id},"name":"a"}}"#))
        .into();
    assert_eq!(records_at(&receiver, "/ok"), ids);
}

#[test]
fn an_event_of_a_table_with_row_security_needs_its_owner_or_bypassrls() {
    let (cluster, receiver, _event) = scene("row_security");
    let mut alice = cluster.connect_as("alice", "postgres");
    alice
        .batch_execute(
            "insert into items values (1, 'a');
             alter table items enable row level security;
             create policy nothing on items using (false);
             insert into items values (2, 'a')",
        )
        .unwrap();
    assert_eq!(
        state(&cluster),
        "Inactive, the row security of the table applies to its owner boss, boss"
    );
    let mut boss = cluster.connect_as("boss", "postgres");
    let create = "select webhook.create_event('hook', 'items', 'table.recordDelete')";
    assert_refused(&mut boss, create);
    assert_refused(
        &mut boss,
        "select webhook.update_webhook('hook', headers => '{\"a\": \"b\"}')",
    );
    cluster.sql("alter role boss bypassrls");
    alice
        .batch_execute("insert into items values (3, 'a')")
        .unwrap();
    boss.batch_execute(create).unwrap();
    cluster.sql("alter role boss nobypassrls");
    alice
        .batch_execute("insert into items values (4, 'a')")
        .unwrap();
    // The table's owner.
    cluster.sql("grant webhook_admin to alice; drop owned by boss");
    alice
        .batch_execute("select webhook.create_event('hook', 'items', 'table.recordUpdate'); update items set name = 'b' where id = 4")
        .unwrap();
    wait_idle(&cluster);
    assert_eq!(
        records_at(&receiver, "/ok"),
        [
            r#"Insert {"id":1,"name":"a"}"#,
            r#"Insert {"id":3,"name":"a"}"#,
            r#"Update {"id":4,"name":"b"}"#,
        ]
    );
}

#[test]
fn a_partition_stops_with_the_rights_on_the_table_of_the_event() {
    let (cluster, receiver, _event) = scene("partition_rights");
    let mut alice = cluster.connect_as("alice", "postgres");
    alice
        .batch_execute(
            "create table parts (id integer) partition by range (id);
             create table part partition of parts for values from (0) to (100);
             grant select, trigger on parts, part to boss",
        )
        .unwrap();
    run(
        &cluster,
        "boss",
        "select webhook.create_event('hook', 'parts', 'table.recordInsert')",
    );
    alice.batch_execute("insert into part values (1)").unwrap();
    cluster.sql("revoke select on parts from boss");
    alice.batch_execute("insert into part values (2)").unwrap();
    cluster.sql("grant select on parts to boss");
    alice.batch_execute("insert into part values (3)").unwrap();
    wait_idle(&cluster);
    assert_eq!(
        records_at(&receiver, "/ok"),
        [r#"Insert {"id":1}"#, r#"Insert {"id":3}"#]
    );
}

#[test]
fn a_restored_event_belongs_to_the_role_of_that_name_or_to_the_tables_owner() {
    let (cluster, _receiver, _event) = scene("restored_owner");
    let mut dump = cluster.client_program("pg_dump", "postgres");
    let output = dump.output().unwrap();
    assert!(output.status.success());
    let script = String::from_utf8(output.stdout).unwrap();
    for (database, prepare, owner) in [
        ("same", "", "boss"),
        ("other", "alter role boss rename to former", "alice"),
    ] {
        cluster.sql(&format!("create database {database}"));
        cluster.sql(&format!("select 1; {prepare}"));
        let script = format!("\\connect {database}\n\\set ON_ERROR_STOP 0\n{script}");
        let seen = cluster.psql(&format!(
            "{script}\nselect 'owner: ' || owner from webhook.events;"
        ));
        assert!(
            seen.contains(&format!("owner: {owner}\n")),
            "{database}: {seen}"
        );
    }
}
