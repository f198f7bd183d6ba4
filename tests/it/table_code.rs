//! Code of a table's owner that functions of the extension evaluate: it runs as that owner.

use super::support::definitions::{create_event, create_webhook};
use super::support::{ready_cluster, Cluster, Receiver, PATIENCE};

/// Functions of mallory's that make her a superuser if one runs them.
const TRAP: &str = "
create function gain() returns boolean language plpgsql as $$
begin
    execute 'alter role mallory superuser';
    return true;
exception when insufficient_privilege then
    return true;
end $$;";

fn scene(name: &str) -> (Cluster, Receiver) {
    let (cluster, receiver) = ready_cluster(name);
    cluster.sql(
        "create role mallory login; create role boss login in role webhook_admin;
         grant create on schema public to mallory",
    );
    create_webhook(&cluster, "hook", &[receiver.url("/ok")], "");
    run_as(&cluster, "mallory", TRAP);
    (cluster, receiver)
}

fn run_as(cluster: &Cluster, role: &str, statements: &str) {
    let mut session = cluster.connect_as(role, "postgres");
    session
        .batch_execute(statements)
        .unwrap_or_else(|error| panic!("{role}: {statements}: {error:?}"));
}

/// The preview of a superuser, and whether mallory is one after it.
fn preview(cluster: &Cluster, event: &str, record: &str) -> (String, bool) {
    let body = cluster.value(&format!(
        "select webhook.preview_payload('{event}'{record}) || ' ' || current_user"
    ));
    (body, mallory_is_superuser(cluster))
}

fn mallory_is_superuser(cluster: &Cluster) -> bool {
    cluster.value("select rolsuper from pg_roles where rolname = 'mallory'")
}

#[test]
fn a_preview_runs_the_check_of_a_domain_as_the_tables_owner() {
    let (cluster, _receiver) = scene("domain_check");
    run_as(
        &cluster,
        "mallory",
        "create domain trap as integer check (gain());
         create table items (id integer, caught trap)",
    );
    let event = create_event(&cluster, "hook", "items", "Insert", "");
    let (body, gained) = preview(&cluster, &event, ", '{\"id\": 7, \"caught\": 1}'");
    assert!(!gained, "mallory is a superuser after the preview");
    assert!(
        body.ends_with(r#""data":[{"id":7,"caught":1}]} postgres"#),
        "{body}"
    );
}

#[test]
fn a_preview_runs_a_policy_as_the_tables_owner_or_not_at_all() {
    let (cluster, _receiver) = scene("policy");
    run_as(
        &cluster,
        "mallory",
        "create function who() returns boolean language plpgsql as $$
         begin
             if current_user <> 'mallory' then raise exception 'run by %', current_user; end if;
             return true;
         end $$;
         create table items (id integer);
         insert into items values (7);
         grant select, trigger on items to boss;
         grant execute on function who() to public",
    );
    let event = create_event(&cluster, "hook", "items", "Insert", "");
    run_as(
        &cluster,
        "mallory",
        "alter table items enable row level security;
         alter table items force row level security;
         create policy trap on items using (who())",
    );
    let preview = format!("select webhook.preview_payload('{event}')");
    for (role, id) in [("boss", "null"), ("postgres", "7")] {
        let mut session = cluster.connect_as(role, "postgres");
        let body: String = session.query_one(&preview, &[]).unwrap().get(0);
        assert!(
            body.ends_with(&format!(r#""data":[{{"id":{id}}}]}}"#)),
            "{role}: {body}"
        );
    }
}

#[test]
fn a_preview_shows_no_rows_that_row_security_hides_from_its_caller() {
    let (cluster, _receiver) = scene("hidden_rows");
    run_as(
        &cluster,
        "mallory",
        "create table items (id integer, secret text);
         insert into items values (1, 'of another tenant');
         grant select, trigger on items to boss",
    );
    let event = create_event(&cluster, "hook", "items", "Insert", "");
    run_as(
        &cluster,
        "mallory",
        "alter table items enable row level security;
         create policy nothing on items using (false)",
    );
    let mut boss = cluster.connect_as("boss", "postgres");
    let preview = format!("select webhook.preview_payload('{event}')");
    let body: String = boss.query_one(&preview, &[]).unwrap().get(0);
    assert!(
        body.ends_with(r#""data":[{"id":null,"secret":""}]}"#),
        "{body}"
    );
    cluster.sql("revoke select on items from boss");
    let error = boss.query_one(&preview, &[]).unwrap_err();
    let error = error.as_db_error().unwrap();
    assert_eq!(error.code().code(), "42501", "{error:?}");
    assert!(error.hint().is_some(), "{error:?}");
}

#[test]
fn a_preview_runs_no_code_of_a_type_with_rights_that_its_owner_lacks() {
    let (cluster, _receiver) = scene("foreign_type");
    run_as(
        &cluster,
        "mallory",
        "create domain trap as integer check (gain()); grant usage on type trap to public",
    );
    cluster.sql(
        "create type pair as (id integer, caught trap);
         create table items (id integer, pairs pair[]);
         grant select, trigger on items to boss; grant webhook_admin to mallory",
    );
    let event = create_event(&cluster, "hook", "items", "Insert", "");
    let preview =
        format!("select webhook.preview_payload('{event}', '{{\"pairs\": [{{\"caught\": 1}}]}}')");
    for role in ["boss", "postgres"] {
        let error = cluster
            .connect_as(role, "postgres")
            .query_one(&preview, &[])
            .expect_err(role);
        let error = error.as_db_error().expect("the server answered");
        assert_eq!(error.code().code(), "42501", "{role}: {error:?}");
        assert!(error.hint().is_some(), "{role}: {error:?}");
        assert!(!mallory_is_superuser(&cluster), "{role}");
    }
    cluster.sql("alter table items owner to mallory");
    cluster.sql(&preview);
    assert!(!mallory_is_superuser(&cluster));
}

#[test]
fn a_session_that_is_ended_in_the_tables_code_takes_nothing_with_it() {
    let (cluster, _receiver) = scene("ended_in_code");
    run_as(
        &cluster,
        "mallory",
        "create function wait() returns boolean language plpgsql as $$
         begin perform pg_sleep(600); return true; end $$;
         create domain trap as integer check (wait());
         create table items (id integer, caught trap)",
    );
    let event = create_event(&cluster, "hook", "items", "Insert", "");
    let mut session = cluster.connect("postgres");
    let pid: i32 = session
        .query_one("select pg_backend_pid()", &[])
        .unwrap()
        .get(0);
    let previewing = std::thread::spawn(move || {
        session.batch_execute(&format!(
            "select webhook.preview_payload('{event}', '{{\"caught\": 1}}')"
        ))
    });
    let sleeps = format!("select wait_event from pg_stat_activity where pid = {pid}");
    cluster.wait_for_text(PATIENCE, &sleeps, "PgSleep");
    cluster.sql(&format!("select pg_terminate_backend({pid})"));
    let error = previewing.join().unwrap().unwrap_err();
    // The driver may see the end of the connection before it reads why.
    assert!(
        error.code().is_none_or(|code| code.code() == "57P01"),
        "{error:?}"
    );
    cluster.wait_for_text(
        PATIENCE,
        &format!("select count(*)::text from pg_stat_activity where pid = {pid}"),
        "0",
    );
    cluster.sql("drop table items; drop domain trap");
    assert!(!mallory_is_superuser(&cluster));
}

#[test]
fn an_error_of_the_tables_code_gives_the_caller_back() {
    let (cluster, _receiver) = scene("code_error");
    run_as(
        &cluster,
        "mallory",
        "create function fail() returns boolean language plpgsql as $$
         begin
             if current_user <> 'mallory' then raise exception 'run by %', current_user; end if;
             perform set_config('search_path', 'nowhere', false);
             raise exception 'refused';
         end $$;
         create domain trap as integer check (fail());
         create table items (id integer, caught trap)",
    );
    let event = create_event(&cluster, "hook", "items", "Insert", "");
    let mut session = cluster.connect("postgres");
    let preview = format!("select webhook.preview_payload('{event}', '{{\"caught\": 1}}')");
    let error = session.query_one(&preview, &[]).unwrap_err();
    assert_eq!(error.as_db_error().unwrap().message(), "refused");
    // Within a subtransaction, too.
    session
        .batch_execute(&format!(
            "do $$ begin perform webhook.preview_payload('{event}', '{{\"caught\": 1}}');
                   exception when others then null; end $$"
        ))
        .unwrap();
    let row = session
        .query_one(
            "select current_user::text, current_setting('search_path')",
            &[],
        )
        .unwrap();
    let seen: (String, String) = (row.get(0), row.get(1));
    assert_eq!(seen, ("postgres".into(), "\"$user\", public".into()));
    // In a security-restricted operation the owner's code cannot change roles either.
    run_as(
        &cluster,
        "mallory",
        "create or replace function fail() returns boolean language plpgsql as $$
         begin execute 'reset session authorization'; return true; end $$",
    );
    let error = session.query_one(&preview, &[]).unwrap_err();
    let error = error.as_db_error().unwrap();
    assert_eq!(error.code().code(), "42501", "{error:?}");
    assert!(!mallory_is_superuser(&cluster));
}
