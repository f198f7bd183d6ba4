//! The schemas `webhook` and `webhook_internal` and what is in them belong to the extension, or nothing of it is
//! used.

use postgres::error::DbError;

use super::support::definitions::{create_event, create_webhook, records_at, wait_idle};
use super::support::worker::{wait_until_gone, worker_of};
use super::support::{ready_cluster, Cluster, PATIENCE};

/// A role that may create schemas in database `postgres`, and a trap: what it caught ran as that role.
const TENANT: &str = "
create role tenant login;
grant create on database postgres to tenant;
create table public.caught (who text, what text);
grant insert on public.caught to public;";

fn refusal(cluster: &Cluster, role: &str, statement: &str) -> DbError {
    let mut session = cluster.connect_as(role, "postgres");
    let refused = session.batch_execute(statement).expect_err(statement);
    refused.as_db_error().expect("the server answered").clone()
}

fn as_tenant(cluster: &Cluster, statements: &str) {
    cluster
        .connect_as("tenant", "postgres")
        .batch_execute(statements)
        .unwrap_or_else(|error| panic!("{statements}: {error:?}"));
}

fn assert_not_installed(cluster: &Cluster, sqlstate: &str, says: &str) {
    let refused = refusal(cluster, "postgres", "create extension webhook_ext");
    assert_eq!(refused.code().code(), sqlstate, "{refused:?}");
    assert!(refused.message().contains(says), "{refused:?}");
    assert!(refused.hint().is_some(), "{refused:?}");
    let installed: i64 =
        cluster.value("select count(*) from pg_extension where extname = 'webhook_ext'");
    assert_eq!(installed, 0);
}

#[test]
fn a_schema_that_another_role_made_beforehand_is_refused() {
    let cluster = Cluster::start("schema_of_tenant");
    cluster.sql(TENANT);
    as_tenant(&cluster, "create schema webhook");
    assert_not_installed(&cluster, "42501", "belongs to role \"tenant\"");
    // Given away, it still holds what its maker put there.
    as_tenant(
        &cluster,
        "create function webhook.present_columns(regclass, oid, text[], smallint[]) returns text[]
         language sql as 'select null::text[]'",
    );
    cluster.sql("alter schema webhook owner to postgres");
    assert_not_installed(&cluster, "55000", "it holds function present_columns(");
    cluster.sql("drop schema webhook cascade; create extension webhook_ext");
}

#[test]
fn a_schema_with_any_object_in_it_is_refused_and_an_empty_one_is_taken_without_its_grants() {
    let cluster = Cluster::start("schema_with_objects");
    cluster.sql(TENANT);
    for (create, says) in [
        (
            "create table webhook.other (id integer)",
            "it holds table other",
        ),
        (
            "create type webhook.mood as enum ('a')",
            "it holds type mood",
        ),
        (
            "create operator webhook.= (leftarg = text, rightarg = text, function = texteq)",
            "it holds operator",
        ),
        ("create extension pg_trgm schema webhook", "pg_trgm"),
    ] {
        cluster.sql(&format!("create schema webhook; {create}"));
        assert_not_installed(&cluster, "55000", says);
        cluster.sql("drop schema webhook cascade");
    }
    cluster.sql(
        "create role other superuser;
         create schema webhook authorization other;
         grant all on schema webhook to tenant with grant option;
         set role tenant;
         grant all on schema webhook to public;
         reset role;
         create extension webhook_ext",
    );
    let left: String = cluster.value(
        "select concat_ws(' ', has_schema_privilege('tenant', 'webhook', 'create'),
                               has_schema_privilege('tenant', 'webhook', 'usage'))",
    );
    assert_eq!(left, "f f");
}

/// What capture and the triggers on definitions would find there, if they looked.
const OF_TENANT: &str = "
create schema webhook_internal;
grant usage on schema webhook_internal to public;
create function webhook_internal.catch(what text) returns text language plpgsql as $$
begin
    insert into public.caught values (current_user, what);
    return null;
end $$;
create view webhook_internal.event_owner as
    select e as event_key, webhook_internal.catch('event_owner') as lost_rights from generate_series(1, 100) e;
create view webhook_internal.definition_change as
    select null::integer as webhook_key where webhook_internal.catch('definition_change') is null;
grant all on all tables in schema webhook_internal to public;";

/// The extension makes it: unlike schema `webhook`, no dump holds it.
#[test]
fn a_schema_for_internals_that_is_there_already_is_refused_whoever_made_it() {
    let cluster = Cluster::start("schema_of_internals");
    cluster.sql(TENANT);
    as_tenant(&cluster, OF_TENANT);
    let of_tenant = "schema webhook_internal belongs to role \"tenant\"";
    assert_not_installed(&cluster, "42501", of_tenant);
    // Beside 0.1.0 it is in nobody's way until the update.
    cluster.sql("create extension webhook_ext version '0.1.0'");
    cluster.exempt_from_bookkeeping("its history is written by hand");
    let data = include_str!("../upgrade/data-0.1.0.sql");
    cluster.sql(&data.replace("RECEIVER", "https://127.0.0.1:1/"));
    let messages = "select count(*) from webhook.messages";
    let before: i64 = cluster.value(messages);
    cluster.sql("insert into items (id) values (1000001); truncate webhook.secret_def");
    assert_eq!(cluster.value::<i64>(messages), before + 1);
    let update = "alter extension webhook_ext update";
    let refused = refusal(&cluster, "postgres", update);
    assert_eq!(refused.code().code(), "42501", "{refused:?}");
    assert!(refused.message().contains(of_tenant), "{refused:?}");
    assert!(refused.hint().is_some(), "{refused:?}");
    assert_eq!(caught(&cluster), "nothing");
    cluster.sql("drop schema webhook_internal cascade; create schema webhook_internal");
    let refused = refusal(&cluster, "postgres", update);
    assert!(
        refused.message().contains("belongs to role \"postgres\""),
        "{refused:?}"
    );
    cluster.sql("drop schema webhook_internal");
    cluster.sql(update);
    assert_eq!(cluster.value::<i64>(messages), before + 1);
}

/// Replacements of the worker's relations: each records who read it.
const REPLACE: &str = "
alter schema webhook rename to aside;
create schema webhook;
create function webhook.catch(what text) returns boolean language plpgsql as $$
begin
    insert into public.caught values (current_user, what);
    return false;
end $$;
create view webhook.control as
    select webhook.catch('control') as worker_stopped, 0::smallint as outbox_number, null::bigint as state_system,
           null::oid as state_database, null::text as state_identity, null::integer as state_server;
create view webhook.webhook_def as select 1 as webhook_key, null::timestamptz as dropped_at where webhook.catch('webhook_def');
create view webhook.event_def as
    select null::regclass as object_name, 1 as event_key, 'x' as id where webhook.catch('event_def');
create view webhook.def_origin as
    select 1::bigint as system_identifier, 1::oid as database_oid, '' as identity where webhook.catch('def_origin');
create view webhook.outbox_0 as select 1 where webhook.catch('outbox');";

const PUT_BACK: &str = "
drop schema webhook cascade;
alter schema aside rename to webhook;
alter schema webhook owner to postgres";

fn detail(cluster: &Cluster) -> String {
    cluster.value(
        "select coalesce(string_agg(query, ''), '') from pg_stat_activity where backend_type = 'webhook_ext'",
    )
}

fn wait_for_detail(cluster: &Cluster, says: &str) {
    cluster.wait_until(
        PATIENCE,
        "the worker to say why it idles",
        || match detail(cluster) {
            text if text.contains(says) => Ok(()),
            text => Err(text),
        },
    );
    assert!(
        cluster.log().contains(says),
        "in the log\n{}",
        cluster.log()
    );
}

fn caught(cluster: &Cluster) -> String {
    cluster.value("select coalesce(string_agg(distinct who || ' ' || what, ', '), 'nothing') from public.caught")
}

#[test]
fn a_worker_and_functions_run_nothing_in_a_schema_that_took_the_place_of_the_extensions() {
    let (cluster, receiver) = ready_cluster("replaced_schema");
    cluster.sql(TENANT);
    cluster.sql("create table items (id integer primary key, name text)");
    create_webhook(&cluster, "hook", &[receiver.url("/ok")], "");
    create_event(&cluster, "hook", "items", "Insert", "");
    cluster.sql("insert into items values (1, 'before')");
    wait_idle(&cluster);
    // However the tenant came to own it.
    cluster.sql("alter schema webhook owner to tenant");
    as_tenant(&cluster, REPLACE);
    wait_for_detail(&cluster, "is not the schema of extension webhook_ext");
    // A worker that starts now reads nothing either.
    let worker = worker_of(&cluster, "postgres");
    cluster.sql(&format!("select pg_terminate_backend({worker})"));
    wait_until_gone(&cluster, PATIENCE, worker);
    wait_for_detail(&cluster, "is not the schema of extension webhook_ext");
    for call in [
        "select aside.pause_webhook('hook')",
        "select aside.start_worker()",
        "select * from aside.worker",
        "insert into items values (2, 'meanwhile')",
    ] {
        let refused = refusal(&cluster, "postgres", call);
        assert_eq!(refused.code().code(), "55000", "{call}: {refused:?}");
        assert!(refused.hint().is_some(), "{call}: {refused:?}");
    }
    assert_eq!(caught(&cluster), "nothing");
    cluster.sql(PUT_BACK);
    cluster.sql("insert into items values (3, 'after')");
    receiver.wait_for(PATIENCE, "/ok", 2);
    wait_idle(&cluster);
    assert_eq!(
        records_at(&receiver, "/ok"),
        [
            r#"Insert {"id":1,"name":"before"}"#,
            r#"Insert {"id":3,"name":"after"}"#
        ]
    );
    assert_eq!(
        cluster.value::<Option<String>>("select detail from webhook.worker"),
        None
    );
}

#[test]
fn what_stands_in_the_place_of_one_of_the_extensions_objects_is_not_used() {
    let (cluster, receiver) = ready_cluster("replaced_objects");
    cluster.sql(TENANT);
    create_webhook(&cluster, "hook", &[receiver.url("/ok")], "");
    let cases = [
        (
            "alter schema webhook owner to tenant",
            "schema webhook belongs to role \"tenant\"",
            "alter schema webhook owner to postgres",
        ),
        (
            "alter schema webhook_internal owner to tenant",
            "schema webhook_internal belongs to role \"tenant\"",
            "alter schema webhook_internal owner to postgres",
        ),
        (
            "alter schema webhook_internal rename to aside; create schema webhook_internal",
            "schema webhook_internal is no member of extension webhook_ext",
            "drop schema webhook_internal; alter schema aside rename to webhook_internal",
        ),
        (
            "alter table webhook_internal.retry owner to tenant",
            "webhook_internal.retry belongs to role \"tenant\"",
            "alter table webhook_internal.retry owner to postgres",
        ),
        (
            "alter view webhook_internal.place rename to aside;
             create view webhook_internal.place as select * from webhook_internal.aside",
            "webhook_internal.place is no member of extension webhook_ext",
            "drop view webhook_internal.place; alter view webhook_internal.aside rename to place",
        ),
        (
            "create function webhook.present_columns(oid, oid, text[], smallint[]) returns text[]
             language sql as 'select null::text[]'",
            "function webhook.present_columns is no member of extension webhook_ext",
            "drop function webhook.present_columns(oid, oid, text[], smallint[])",
        ),
        (
            "create function public.tell() returns trigger language plpgsql as 'begin return null; end';
             alter function public.tell() owner to tenant;
             create trigger tell after insert on webhook_internal.settlement for each row execute function public.tell()",
            "webhook_internal.settlement has a trigger \"tell\" of role \"tenant\"",
            "drop trigger tell on webhook_internal.settlement; drop function public.tell()",
        ),
    ];
    for (change, says, undo) in cases {
        cluster.sql(change);
        // Of most of these nobody is told: a reload makes everything be looked at again.
        cluster.reload();
        wait_for_detail(&cluster, says);
        let refused = refusal(&cluster, "postgres", "select webhook.pause_webhook('hook')");
        assert_eq!(refused.code().code(), "55000", "{change}: {refused:?}");
        assert!(refused.message().contains(says), "{change}: {refused:?}");
        assert!(refused.hint().is_some(), "{change}: {refused:?}");
        cluster.sql(undo);
        cluster.reload();
        cluster.wait_until(PATIENCE, "the worker to go on", || match detail(&cluster) {
            text if text == "waiting for changes" => Ok(()),
            text => Err(text),
        });
        cluster.sql("select webhook.resume_webhook('hook')");
    }
}

/// Every relation of the extension that a statement may name is looked at.
#[test]
fn the_list_of_relations_that_are_looked_at_is_complete() {
    let cluster = Cluster::start("listed_relations");
    cluster.sql("create extension webhook_ext");
    let source = include_str!("../../src/pg/members.rs");
    let mut session = cluster.connect("postgres");
    let members = session
        .query(
            "select c.relname::text
             from pg_depend d
             join pg_class c on d.classid = 'pg_class'::regclass and c.oid = d.objid
             where d.refclassid = 'pg_extension'::regclass
               and d.refobjid = (select oid from pg_extension where extname = 'webhook_ext')
               and d.deptype = 'e' and c.relkind in ('r', 'v', 'S')
             order by 1",
            &[],
        )
        .unwrap();
    assert!(members.len() > 30, "{} relations", members.len());
    let missing: Vec<String> = members
        .iter()
        .map(|row| row.get::<_, String>(0))
        .filter(|name| !source.contains(&format!("c\"{name}\"")))
        .collect();
    assert!(missing.is_empty(), "not in src/pg/members.rs: {missing:?}");
}
