//! Objects of others around the extension: what looks like ours, or wants to be run by us.

use super::support::definitions::{
    create_event, create_webhook, records_at, sorted_records_at, wait_idle,
};
use super::support::{ready_cluster, Cluster};

/// One call at a time: messages arrive in the order of the changes.
const IN_ORDER: &str = "max_in_flight => 1";

/// Who ran what.
const CAUGHT: &str = "
create table public.caught (who text, what text);
grant insert on public.caught to public;";

fn caught(cluster: &Cluster) -> String {
    cluster.value(
        "select coalesce(string_agg(distinct who || ' ' || what, ', '), 'nothing') from public.caught",
    )
}

#[test]
fn casts_to_json_are_not_used() {
    let (cluster, receiver) = ready_cluster("json_casts");
    cluster.sql(CAUGHT);
    cluster.sql(
        "create type mood as enum ('happy', 'sad');
         create type point3 as (x integer, y integer);
         create function to_js(mood) returns json language plpgsql as $$
         begin
             insert into public.caught values (current_user, 'mood');
             return '{\"not\": \"asked\"}';
         end $$;
         create function to_js(point3) returns json language plpgsql as $$
         begin
             insert into public.caught values (current_user, 'point3');
             return '{\"not\": \"asked\"}';
         end $$;
         create cast (mood as json) with function to_js(mood);
         create cast (point3 as json) with function to_js(point3);
         create table items (id integer, m mood, ms mood[], p point3)",
    );
    // The trap works.
    let shown: String = cluster.value("select to_json('sad'::mood)::text");
    assert_eq!(shown, r#"{"not": "asked"}"#);
    cluster.sql("truncate caught");
    create_webhook(&cluster, "hook", &[receiver.url("/ok")], "");
    let event = create_event(&cluster, "hook", "items", "Insert", "");
    cluster.sql("insert into items values (1, 'happy', '{sad,happy}', '(1,2)')");
    wait_idle(&cluster);
    let row = r#"{"id":1,"m":"happy","ms":["sad","happy"],"p":{"x":1,"y":2}}"#;
    assert_eq!(records_at(&receiver, "/ok"), [format!("Insert {row}")]);
    let preview: String = cluster.value(&format!("select webhook.preview_payload('{event}')"));
    assert!(preview.contains(row), "{preview}");
    assert_eq!(caught(&cluster), "nothing");
}

#[test]
fn temporary_objects_stand_for_none_of_ours() {
    let (cluster, receiver) = ready_cluster("temporary_objects");
    cluster.sql(CAUGHT);
    cluster.sql(
        "create role boss login in role webhook_admin;
         create table items (id integer primary key);
         grant all on items to boss; grant create on schema public to boss",
    );
    let mut boss = cluster.connect_as("boss", "postgres");
    boss.batch_execute(
        "do $$
         declare
             name text;
         begin
             for name in
                 select unnest(array['pg_class', 'pg_namespace', 'pg_attribute', 'pg_trigger', 'pg_extension', 'pg_proc',
                                     'webhook_def', 'secret_def', 'url_def', 'event_def', 'control', 'def_origin',
                                     'outbox', 'outbox_0', 'retry', 'settlement', 'lane', 'segment'])
             loop
                 execute format('create temporary table %I (oid oid, id text, relname name)', name);
             end loop;
         end $$;
         create function pg_temp.lower(text) returns text language plpgsql as $$
         begin
             insert into public.caught values (current_user, 'lower');
             return $1;
         end $$;
         create function pg_temp.present_columns(regclass, oid, text[], smallint[]) returns text[] language plpgsql as $$
         begin
             insert into public.caught values (current_user, 'present_columns');
             return null;
         end $$;
         set search_path = pg_temp, public",
    )
    .unwrap();
    let url = receiver.url("/ok");
    boss.batch_execute(&format!(
        "select webhook.create_webhook('hook', array['{url}']);
         select webhook.create_event('hook', 'public.items', 'table.recordInsert', event_sources => array['CLUSTER TEST']);
         insert into public.items values (1);
         select webhook.pause_webhook('hook');
         select webhook.resume_webhook('hook');
         select webhook.explain_event(id), webhook.preview_payload(id) from webhook.events;
         select * from webhook.webhooks, webhook.queue, webhook.metrics;
         select webhook.redeliver_failed('hook'), webhook.cancel_pending('hook');
         insert into public.items values (2)"
    ))
    .unwrap();
    wait_idle(&cluster);
    let records = sorted_records_at(&receiver, "/ok");
    assert_eq!(
        records.last().map(String::as_str),
        Some(r#"Insert {"id":2}"#)
    );
    assert_eq!(caught(&cluster), "nothing");
}

#[test]
fn the_trigger_function_captures_for_its_own_trigger_on_its_own_table_only() {
    let (cluster, receiver) = ready_cluster("borrowed_function");
    cluster.sql(
        "create table items (id integer primary key); create table other (id integer primary key)",
    );
    create_webhook(&cluster, "hook", &[receiver.url("/ok")], IN_ORDER);
    let event = create_event(&cluster, "hook", "items", "Insert", "");
    for trigger in [
        format!("create trigger webhook_{event} after insert on other for each row execute function webhook.capture('{event}')"),
        format!("create trigger another after insert on items for each row execute function webhook.capture('{event}')"),
        format!("create trigger webhook_x after update on items for each row execute function webhook.capture('{event}')"),
        "create trigger unknown after insert on items for each row execute function webhook.capture('zzzzzz')".to_owned(),
        "create trigger bare after insert on items for each row execute function webhook.capture()".to_owned(),
    ] {
        cluster.sql(&trigger);
    }
    cluster
        .sql("insert into other values (1); insert into items values (2); update items set id = 3");
    // As it is meant to be called nowhere: refused or without effect, and the session goes on.
    for trigger in [
        format!("create trigger webhook_{event} before insert on wrong for each row execute function webhook.capture('{event}')"),
        format!("create trigger webhook_{event} after insert on wrong for each statement execute function webhook.capture('{event}')"),
    ] {
        let mut session = cluster.connect("postgres");
        session.batch_execute("create table wrong (id integer)").unwrap();
        session.batch_execute(&trigger).unwrap();
        let _ = session.batch_execute("insert into wrong values (1)");
        session.batch_execute("drop table wrong").unwrap();
    }
    wait_idle(&cluster);
    assert_eq!(records_at(&receiver, "/ok"), [r#"Insert {"id":2}"#]);
    assert_eq!(
        cluster.value::<i64>("select count(*) from webhook.messages"),
        1
    );
}

#[test]
fn a_definition_that_was_moved_to_another_table_by_hand_captures_nothing() {
    let (cluster, receiver) = ready_cluster("moved_definition");
    cluster.sql("create table items (id integer primary key); create table other (id integer primary key, secret text)");
    create_webhook(&cluster, "hook", &[receiver.url("/ok")], IN_ORDER);
    let event = create_event(&cluster, "hook", "items", "Insert", "");
    cluster.sql("update webhook.event_def set object_name = 'other'");
    cluster.sql("insert into items values (1); insert into other values (1, 'not for the hook')");
    let checks: String = cluster.value(&format!(
        "select coalesce(string_agg(detail, '; '), '') from webhook.explain_event('{event}') where not ok"
    ));
    assert!(checks.contains("trigger"), "{checks}");
    cluster.sql("update webhook.event_def set object_name = 'items'; insert into items values (2)");
    wait_idle(&cluster);
    assert_eq!(records_at(&receiver, "/ok"), [r#"Insert {"id":2}"#]);
}

#[test]
fn event_triggers_see_the_trigger_of_an_event_and_run_as_its_creator() {
    let (cluster, receiver) = ready_cluster("event_triggers");
    cluster.sql(CAUGHT);
    cluster.sql(
        "create role boss login in role webhook_admin;
         create table items (id integer primary key);
         grant select, trigger, insert on items to boss;
         create function note() returns event_trigger language plpgsql as $$
         begin
             insert into public.caught values (current_user, tg_tag);
         end $$;
         create event trigger note on ddl_command_end execute function note()",
    );
    let mut boss = cluster.connect_as("boss", "postgres");
    let url = receiver.url("/ok");
    boss.batch_execute(&format!(
        "select webhook.create_webhook('hook', array['{url}']);
         select webhook.create_event('hook', 'items', 'table.recordInsert');
         insert into items values (1)"
    ))
    .unwrap();
    wait_idle(&cluster);
    assert_eq!(records_at(&receiver, "/ok"), [r#"Insert {"id":1}"#]);
    assert_eq!(caught(&cluster), "boss CREATE TRIGGER");
    // One that refuses refuses the event, and nothing of it is left.
    cluster.sql(
        "drop event trigger note;
         create or replace function note() returns event_trigger language plpgsql as $$
         begin
             raise exception 'no DDL today';
         end $$;
         create event trigger note on ddl_command_end execute function note()",
    );
    let refused =
        boss.batch_execute("select webhook.create_event('hook', 'items', 'table.recordDelete')");
    let refused = refused.expect_err("the event trigger refuses");
    assert_eq!(refused.code().unwrap().code(), "P0001");
    assert_eq!(
        cluster.value::<i64>("select count(*) from webhook.events"),
        1
    );
    cluster.sql("drop event trigger note");
}

#[test]
fn tables_named_like_ours_are_tables_like_any_other() {
    let (cluster, receiver) = ready_cluster("same_names");
    cluster.sql(
        "create schema other;
         create table other.webhook_def (id integer primary key);
         create table public.outbox_0 (id integer primary key);
         create table public.control (id integer primary key)",
    );
    create_webhook(&cluster, "hook", &[receiver.url("/ok")], IN_ORDER);
    for table in ["other.webhook_def", "public.outbox_0", "public.control"] {
        create_event(&cluster, "hook", table, "Insert", "");
    }
    cluster.sql(
        "set search_path = other, public;
         insert into webhook_def values (1); insert into outbox_0 values (2); insert into control values (3);
         drop table control",
    );
    wait_idle(&cluster);
    assert_eq!(
        sorted_records_at(&receiver, "/ok"),
        [
            r#"Insert {"id":1}"#,
            r#"Insert {"id":2}"#,
            r#"Insert {"id":3}"#
        ]
    );
}
