//! A role that may write every table (`pg_write_all_data`) edits what the extension later puts
//! into statements: nobody runs its SQL.

use super::support::definitions::{create_event, create_webhook};
use super::support::{ready_cluster, Cluster};

/// A function whose calls by others than its owner are seen.
const TRAP: &str = "
create role writer login in role pg_write_all_data, pg_read_all_data;
grant create on schema public to writer;
create table items (id integer primary key);";

const TRAP_OF_WRITER: &str = "
create function public.trap() returns trigger language plpgsql as 'begin return null; end';
create function public.mark(what text) returns boolean language plpgsql as 'begin return true; end';";

fn refusal(cluster: &Cluster, role: &str, statement: &str) -> String {
    let mut session = cluster.connect_as(role, "postgres");
    let refused = session.batch_execute(statement).expect_err(statement);
    let refused = refused.as_db_error().expect("the server answered").clone();
    format!("{} {}", refused.code().code(), refused.message())
}

#[test]
fn an_id_that_is_none_cannot_be_written() {
    let (cluster, receiver) = ready_cluster("edited_ids");
    cluster.sql(TRAP);
    create_webhook(&cluster, "hook", &[receiver.url("/ok")], "");
    create_event(&cluster, "hook", "items", "Insert", "");
    cluster.sql("grant usage on schema webhook to writer");
    for table in ["webhook_def", "event_def"] {
        for id in [
            "a b",
            "abcde",
            "abcdefg",
            "ABCDEF",
            "abcde\n",
            "abc''de",
            "abcdé1",
            "",
            "x after insert on items for each row execute function trap() --",
        ] {
            let refused = refusal(
                &cluster,
                "writer",
                &format!("update webhook.{table} set id = '{id}'"),
            );
            assert!(
                refused.starts_with("23514 ") && refused.contains(&format!("{table}_id_check")),
                "{table} {id:?}: {refused}"
            );
        }
        cluster.sql(&format!("update webhook.{table} set id = 'az09az'"));
    }
}

/// Without the constraint, as after a superuser dropped it.
#[test]
fn an_id_that_was_edited_stands_quoted_in_the_statements_that_name_it() {
    let (cluster, receiver) = ready_cluster("quoted_ids");
    cluster.sql(TRAP);
    create_webhook(&cluster, "hook", &[receiver.url("/ok")], "");
    let event = create_event(&cluster, "hook", "items", "Insert", "");
    cluster.sql(
        "grant usage on schema webhook to writer;
         alter table webhook.event_def drop constraint if exists event_def_id_check",
    );
    let mut writer = cluster.connect_as("writer", "postgres");
    writer.batch_execute(TRAP_OF_WRITER).unwrap();
    for id in [
        "x after insert on items for each row execute function public.trap() --",
        "x\" after insert on items for each row execute function public.trap() --",
        "'\\); --",
    ] {
        writer
            .execute(
                "update webhook.event_def set id = $1, condition = 'new.id > 0'",
                &[&id],
            )
            .unwrap();
        let mut superuser = cluster.connect("postgres");
        // Without a condition the statement has one line.
        let updated = superuser.execute("select webhook.update_event($1, condition => '')", &[&id]);
        let borrowed: i64 = cluster.value(
            "select count(*) from pg_trigger where tgfoid <> 'webhook.capture()'::regprocedure and tgrelid = 'items'::regclass",
        );
        assert_eq!(borrowed, 0, "{id}: {updated:?}");
    }
    cluster.sql(&format!("update webhook.event_def set id = '{event}'"));
}

#[test]
fn a_condition_that_was_edited_stays_within_its_parentheses() {
    let (cluster, receiver) = ready_cluster("edited_conditions");
    cluster.sql(TRAP);
    create_webhook(&cluster, "hook", &[receiver.url("/ok")], "");
    let event = create_event(
        &cluster,
        "hook",
        "items",
        "Insert",
        "condition => 'new.id > 0'",
    );
    cluster.sql("grant usage on schema webhook to writer");
    let mut writer = cluster.connect_as("writer", "postgres");
    writer.batch_execute(TRAP_OF_WRITER).unwrap();
    // A missing trigger is recreated from the definition table.
    cluster.sql(&format!("drop trigger webhook_{event} on items"));
    for condition in [
        "true) execute function public.trap(); drop table items; --",
        "true) execute function public.trap('",
        "true) execute function public.trap() /*",
        "true) execute function public.trap($x$",
        "true) execute function public.trap(\"",
    ] {
        writer
            .execute("update webhook.event_def set condition = $1", &[&condition])
            .unwrap();
        let refused = refusal(
            &cluster,
            "postgres",
            &format!(
                "select webhook.update_event('{event}', null_style => 'null', enabled => true)"
            ),
        );
        assert!(refused.starts_with("22023 "), "{condition}: {refused}");
        let borrowed: i64 = cluster.value(
            "select count(*) from pg_trigger where tgfoid <> 'webhook.capture()'::regprocedure and tgrelid = 'items'::regclass",
        );
        assert_eq!(borrowed, 0, "{condition}");
    }
}
