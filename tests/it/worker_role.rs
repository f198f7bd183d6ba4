//! The worker's statements run as the role `webhook_worker`, whatever code they come upon.

use postgres::error::DbError;
use postgres::Client;

use super::support::definitions::{create_event, create_webhook, records_at, wait_idle};
use super::support::worker::{wait_until_gone, worker_of};
use super::support::{ready_cluster, ready_cluster_with, Cluster, Receiver, PATIENCE};

/// Code of a superuser that PostgreSQL runs with the privileges of its caller. In a worker it records
/// the current role and which statements that role may execute.
const TRAP: &str = "
create role tenant;
create table public.salaries (id integer);
create table public.caught (place text, role text, attempt text, outcome text);
grant select, insert on public.caught to public;
create function public.trap(place text) returns boolean language plpgsql as $$
declare
    attempt text;
    outcome text;
begin
    if exists (select from public.caught c where c.place = trap.place)
       or not exists (select from pg_catalog.pg_stat_activity a
                      where a.pid = pg_catalog.pg_backend_pid() and a.backend_type = 'webhook_ext')
    then
        return true;
    end if;
    foreach attempt in array array[
        'set role postgres', 'set session authorization postgres', 'reset role',
        'alter role tenant superuser', 'create role another',
        'select id from public.salaries', 'insert into public.salaries values (1)',
        'copy (select 1) to program ''true''', 'create table public.taken ()', 'create temp table taken ()',
        'set session_replication_role = replica', 'select pg_catalog.pg_read_file(''PG_VERSION'')',
        'update webhook.url_def set url = url', 'update webhook.webhook_def set enabled = enabled',
        'delete from webhook.secret_def', 'update webhook.control set worker_stopped = false',
        'truncate webhook_internal.retry', 'drop table webhook.outbox_3', 'select webhook.reveal_secret(''hook'')',
        'grant webhook_worker to tenant'
    ] loop
        begin
            execute attempt;
            outcome := 'done';
        exception when others then
            outcome := sqlstate;
        end;
        insert into public.caught values (place, current_user, attempt, outcome);
    end loop;
    return true;
end $$;
create function public.trap() returns trigger language plpgsql as $$
begin
    perform public.trap('trigger on ' || tg_relid::regclass);
    return null;
end $$;
create trigger trap after insert on webhook_internal.settlement for each row execute function public.trap();
create trigger trap after update on webhook.url_def for each statement execute function public.trap();
create trigger trap after truncate on webhook_internal.call_log_0 for each statement execute function public.trap();
create or replace view webhook_internal.outbox as
    select * from webhook.outbox_0 where public.trap('view')
    union all select * from webhook.outbox_1
    union all select * from webhook.outbox_2
    union all select * from webhook.outbox_3;
create or replace function webhook.present_columns(object regclass, recorded_for oid, names text[], numbers smallint[])
returns text[] language plpgsql as 'begin perform public.trap(''function''); return null; end';";

const PLACES: &[&str] = &[
    "function",
    "trigger on webhook.url_def",
    "trigger on webhook_internal.call_log_0",
    "trigger on webhook_internal.settlement",
    "view",
];

/// What a trap could do, or did as another role.
fn trespasses(session: &mut Client) -> Vec<String> {
    let caught = "select format('%s as %s: %s: %s', place, role, attempt, outcome)
                  from public.caught
                  where role <> 'webhook_worker' or outcome <> '42501'
                  order by 1";
    let rows = session.query(caught, &[]).unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[test]
fn code_in_the_way_of_the_worker_runs_as_its_role_and_may_do_nothing() {
    let (cluster, receiver) =
        ready_cluster_with("trapped_worker", &[("webhook.log_retention", "2s")]);
    cluster.exempt_from_bookkeeping("what it counts is past retention soon");
    cluster.sql("create table items (id integer primary key, name text)");
    create_webhook(&cluster, "hook", &[receiver.url("/ok")], "");
    create_event(&cluster, "hook", "items", "Insert", "");
    create_webhook(&cluster, "gone", &[receiver.url("/status/410")], "");
    create_event(&cluster, "gone", "items", "Insert", "");
    cluster.sql(TRAP);
    cluster.sql("insert into items values (1, 'a')");
    let mut session = cluster.connect("postgres");
    let mut next = 1;
    cluster.wait_until(PATIENCE, "the worker to come upon all traps", || {
        next += 1;
        let insert = "insert into items values ($1, 'a')";
        session.execute(insert, &[&next]).unwrap();
        let trespasses = trespasses(&mut session);
        assert!(trespasses.is_empty(), "{trespasses:#?}");
        let places =
            "select coalesce(array_agg(distinct place order by place), '{}') from public.caught";
        let found: Vec<String> = session.query_one(places, &[]).unwrap().get(0);
        if found == PLACES {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    });
    let trespasses = trespasses(&mut session);
    assert!(trespasses.is_empty(), "{trespasses:#?}");
    // A function that runs as its owner would make its way around the role.
    let definer = "select coalesce(array_agg(oid::regprocedure::text), '{}') from pg_proc
                   where prosecdef and pronamespace::regnamespace::text in ('webhook', 'webhook_internal')
                     and has_function_privilege('webhook_worker', oid, 'execute')";
    let definers: Vec<String> = cluster.value(definer);
    assert!(definers.is_empty(), "{definers:?}");
    wait_idle(&cluster);
    assert_eq!(
        records_at(&receiver, "/ok").len(),
        usize::try_from(next).unwrap()
    );
}

/// What a session-level setting changed within a statement of the worker would change for all that
/// follow it.
#[test]
fn settings_that_code_in_the_way_changes_do_not_outlive_the_transaction() {
    let (cluster, receiver) = watched("trapped_settings");
    cluster.sql(
        "create table public.seen (path text);
         grant insert on public.seen to public;
         create function public.trap() returns trigger language plpgsql as $$
         begin
             insert into public.seen values (current_setting('search_path'));
             perform set_config('search_path', 'public', false);
             return null;
         end $$;
         create trigger trap after insert on webhook_internal.settlement for each row execute function public.trap()",
    );
    for id in 1..=3 {
        cluster.sql(&format!("insert into items values ({id}, 'a')"));
        wait_idle(&cluster);
    }
    receiver.wait_for(PATIENCE, "/ok", 3);
    let paths: Vec<String> = cluster.value("select array_agg(distinct path) from public.seen");
    assert_eq!(paths, ["pg_catalog, pg_temp"]);
}

fn watched(name: &str) -> (Cluster, Receiver) {
    let (cluster, receiver) = ready_cluster(name);
    cluster.sql("create table items (id integer primary key, name text)");
    create_webhook(&cluster, "hook", &[receiver.url("/ok")], "");
    create_event(&cluster, "hook", "items", "Insert", "");
    (cluster, receiver)
}

const DROP_ROLE: &str = "drop owned by webhook_worker; drop role webhook_worker";

fn wait_for_detail(cluster: &Cluster, says: &str) {
    cluster.wait_until(PATIENCE, &format!("the worker to say {says}"), || {
        let detail = "select coalesce(detail, 'nothing') from webhook.worker";
        match cluster.value::<String>(detail) {
            text if text.contains(says) => Ok(()),
            text => Err(text),
        }
    });
}

/// The privileges of the role on objects of the extension, in one database.
const GRANTED: &str = "
select (select count(*)
        from pg_class c cross join aclexplode(c.relacl) a
        where c.relnamespace::regnamespace::text in ('webhook', 'webhook_internal') and a.grantee = 'webhook_worker'::regrole)
     + (select count(*)
        from pg_class c
        join pg_attribute t on t.attrelid = c.oid
        cross join aclexplode(t.attacl) a
        where c.relnamespace::regnamespace::text in ('webhook', 'webhook_internal') and a.grantee = 'webhook_worker'::regrole)
     + (select count(*)
        from pg_proc p cross join aclexplode(p.proacl) a
        where p.pronamespace::regnamespace::text in ('webhook', 'webhook_internal') and a.grantee = 'webhook_worker'::regrole)
     + (select count(*)
        from pg_namespace n cross join aclexplode(n.nspacl) a
        where n.nspname in ('webhook', 'webhook_internal') and a.grantee = 'webhook_worker'::regrole)";

#[test]
fn without_its_role_the_worker_sends_nothing_says_so_and_goes_on_when_it_is_back() {
    let (cluster, receiver) = watched("missing_role");
    cluster.sql("insert into items values (1, 'a')");
    wait_idle(&cluster);
    let granted: i64 = cluster.value(GRANTED);
    assert!(granted > 40, "{granted} privileges");
    cluster.sql(DROP_ROLE);
    let missing = "role \"webhook_worker\" does not exist: a superuser runs select webhook.create_worker_role()";
    wait_for_detail(&cluster, missing);
    let idle = worker_of(&cluster, "postgres");
    cluster.sql("insert into items values (2, 'b')");
    // One that starts now neither sends nor ends.
    cluster.sql(&format!("select pg_terminate_backend({idle})"));
    wait_until_gone(&cluster, PATIENCE, idle);
    wait_for_detail(&cluster, missing);
    let idle = worker_of(&cluster, "postgres");
    // A role of this name without its privileges is as good as none; the worker counts what it lacks.
    cluster.sql("create role webhook_worker");
    wait_for_detail(
        &cluster,
        &format!("role \"webhook_worker\" lacks {granted} privileges"),
    );
    assert_eq!(
        worker_of(&cluster, "postgres"),
        idle,
        "it was not started again"
    );
    assert_eq!(
        records_at(&receiver, "/ok"),
        [r#"Insert {"id":1,"name":"a"}"#]
    );
    assert!(cluster.log().contains(missing), "{}", cluster.log());
    let dropped = cluster.log().matches(missing).count();
    assert!(dropped <= 4, "{dropped} warnings of two workers");
    cluster.sql("select webhook.create_worker_role()");
    receiver.wait_for(PATIENCE, "/ok", 2);
    wait_idle(&cluster);
    assert_eq!(
        records_at(&receiver, "/ok"),
        [
            r#"Insert {"id":1,"name":"a"}"#,
            r#"Insert {"id":2,"name":"b"}"#
        ]
    );
    assert_eq!(
        cluster.value::<Option<String>>("select detail from webhook.worker"),
        None
    );
    assert_eq!(cluster.value::<i64>(GRANTED), granted);
    cluster.sql("select webhook.create_worker_role()");
    // The number of the role that is gone would end a restore.
    let numbers: Vec<String> = dump(&cluster)
        .lines()
        .filter(|line| line.contains("FROM \""))
        .map(str::to_owned)
        .collect();
    assert!(numbers.is_empty(), "{numbers:#?}");
}

#[test]
fn a_privilege_that_was_revoked_is_named_and_comes_back_with_the_same_call() {
    let (cluster, receiver) = watched("revoked_privilege");
    cluster.sql("insert into items values (1, 'a')");
    wait_idle(&cluster);
    for (id, revoke, says) in [
        (
            2,
            "insert on webhook_internal.settlement",
            "lacks INSERT on webhook_internal.settlement",
        ),
        (
            3,
            "select on webhook.secret_def",
            "lacks SELECT on webhook.secret_def",
        ),
        (
            4,
            "usage on schema webhook",
            "lacks USAGE on schema webhook",
        ),
    ] {
        cluster.sql(&format!("revoke {revoke} from webhook_worker"));
        cluster.sql(&format!("insert into items values ({id}, 'a')"));
        wait_for_detail(&cluster, says);
        cluster.sql("select webhook.create_worker_role()");
        receiver.wait_for(PATIENCE, "/ok", id);
        wait_idle(&cluster);
    }
    assert_eq!(
        cluster.value::<Option<String>>("select detail from webhook.worker"),
        None
    );
}

fn refusal(cluster: &Cluster, database: &str, statement: &str) -> DbError {
    let mut session = cluster.connect(database);
    let refused = session.batch_execute(statement).expect_err(statement);
    refused.as_db_error().expect("the server answered").clone()
}

#[test]
fn a_role_that_others_may_use_is_not_taken_for_the_workers() {
    let cluster = Cluster::start("premade_role");
    cluster.sql("create role tenant login");
    for (create, says, undo) in [
        (
            "create role webhook_worker login",
            "may log in",
            "alter role webhook_worker nologin",
        ),
        (
            "grant webhook_worker to tenant",
            "has the member tenant",
            "revoke webhook_worker from tenant",
        ),
        (
            "alter role webhook_worker superuser",
            "is a superuser",
            "alter role webhook_worker nosuperuser",
        ),
        (
            "alter role webhook_worker bypassrls",
            "has attributes",
            "alter role webhook_worker nobypassrls",
        ),
    ] {
        cluster.sql(create);
        let refused = refusal(&cluster, "postgres", "create extension webhook_ext");
        assert_eq!(refused.code().code(), "55000", "{create}: {refused:?}");
        assert!(refused.message().contains(says), "{create}: {refused:?}");
        assert!(refused.hint().is_some(), "{create}: {refused:?}");
        cluster.sql(undo);
    }
    cluster.sql("create extension webhook_ext");
}

#[test]
fn the_role_serves_all_databases_of_a_cluster_and_outlives_an_extension() {
    let (cluster, receiver) = watched("role_of_databases");
    cluster.sql("create database other");
    cluster.sql_in("other", "create extension webhook_ext");
    let refused = refusal(&cluster, "other", "drop role webhook_worker");
    assert_eq!(refused.code().code(), "2BP01", "{refused:?}");
    // Of this database alone.
    cluster.sql_in("other", "drop owned by webhook_worker");
    cluster.sql("insert into items values (1, 'a')");
    receiver.wait_for(PATIENCE, "/ok", 1);
    cluster.sql_in(
        "other",
        "drop extension webhook_ext cascade; create extension webhook_ext",
    );
    cluster.sql("insert into items values (2, 'b')");
    receiver.wait_for(PATIENCE, "/ok", 2);
    wait_idle(&cluster);
    // Only a superuser restores it, and no group role gets its privileges taken or given.
    cluster.sql("create role an_admin login in role webhook_admin");
    let mut admin = cluster.connect_as("an_admin", "postgres");
    let refused = admin.batch_execute("select webhook.create_worker_role()");
    let refused = refused
        .expect_err("an administrator")
        .as_db_error()
        .unwrap()
        .clone();
    assert_eq!(refused.code().code(), "42501", "{refused:?}");
    for call in [
        "select webhook.grant_to('webhook_worker', 'admin')",
        "select webhook.revoke_from('webhook_worker')",
    ] {
        let refused = refusal(&cluster, "postgres", call);
        assert_eq!(refused.code().code(), "22023", "{call}: {refused:?}");
    }
}

fn dump(cluster: &Cluster) -> String {
    let dumped = cluster.client_program("pg_dump", "postgres").output();
    let dumped = dumped.unwrap();
    assert!(dumped.status.success(), "{dumped:?}");
    String::from_utf8(dumped.stdout).unwrap()
}

#[test]
fn a_dump_does_not_name_the_role() {
    let (cluster, _receiver) = watched("dumped_role");
    let dump = dump(&cluster);
    assert!(dump.contains("CREATE EXTENSION"), "{dump}");
    let lines: Vec<_> = dump
        .lines()
        .filter(|line| line.contains("webhook_worker"))
        .collect();
    assert!(lines.is_empty(), "{lines:#?}");
}
