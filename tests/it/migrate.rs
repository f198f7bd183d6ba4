//! contrib/migrate: what it prints replaces the triggers of pg_net and Hasura. Tables and a function stand for theirs.

use std::path::{Path, PathBuf};

use super::support::definitions::wait_idle;
use super::support::{ready_cluster, Cluster, Receiver};

/// As Supabase's dashboard makes them: one with everything, one that is switched off, and what cannot be replaced.
const PG_NET: &str = r#"
create schema supabase_functions;
create function supabase_functions.http_request() returns trigger language plpgsql as $$
begin raise exception 'the old trigger ran'; end $$;
create table orders (id bigint primary key, "Total" numeric(10,2), note text, paid boolean, odd jsonb);
create trigger orders_changed after insert or update on orders for each row
execute function supabase_functions.http_request(
    'RECEIVER/ok/orders', 'POST', '{"Content-type": "application/json", "X-Key": "k''1"}', '{"a b": "c&d"}', '5000');
create trigger orders_gone after delete on orders for each row when (old.paid)
execute function supabase_functions.http_request(
    'RECEIVER/ok/orders', 'POST', '{"Content-type": "application/json", "X-Key": "k''1"}', '{"a b": "c&d"}', '5000');
create trigger note after update of note on orders for each row
execute function supabase_functions.http_request('RECEIVER/ok/note', 'POST', '{}', '{}', 'null');
alter table orders disable trigger note;
create trigger ping after insert on orders for each row
execute function supabase_functions.http_request('RECEIVER/ok/ping', 'GET', '{}', '{}', '1000');
alter table orders disable trigger ping;
create function by_hand() returns trigger language plpgsql as $$
begin perform net.http_post('x', '{}'); return null; end $$;
create trigger by_hand after insert on orders for each row execute function by_hand();
alter table orders disable trigger by_hand;
"#;

const HASURA: &str = r#"
create schema hdb_catalog;
create table hdb_catalog.hdb_metadata (id integer primary key, metadata json not null, resource_version integer not null default 1);
create table users (id integer primary key, name text, mail text);
insert into hdb_catalog.hdb_metadata (id, metadata) values (1, '{"version": 3, "sources": [{"name": "default", "kind": "postgres", "tables": [
    {"table": {"schema": "public", "name": "users"}, "event_triggers": [
        {"name": "user_changed",
         "definition": {"enable_manual": true, "insert": {"columns": "*"}, "update": {"columns": ["name", "mail"]}, "delete": {"columns": "*"}},
         "retry_conf": {"num_retries": 3, "interval_sec": 15, "timeout_sec": 20},
         "webhook": "RECEIVER/ok/users",
         "headers": [{"name": "X-Key", "value": "a''b"}, {"name": "X-Env", "value_from_env": "USERS_KEY"}, {"name": "Content-Type", "value": "x"}]},
        {"name": "from_env", "definition": {"insert": {"columns": "*"}},
         "retry_conf": {"num_retries": 0, "interval_sec": 10, "timeout_sec": 60}, "webhook_from_env": "USERS_URL"}]},
    {"table": {"schema": "public", "name": "gone"}, "event_triggers": [
        {"name": "lost", "definition": {"insert": {"columns": "*"}}, "webhook": "https://x.example.com/"}]},
    {"table": {"schema": "public", "name": "plain"}}]}]}');
"#;

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("contrib")
        .join(name)
}

fn psql(cluster: &Cluster, arguments: &[&str]) -> String {
    let mut psql = cluster.client_program("psql", "postgres");
    let output = psql.args(["-X", "-q"]).args(arguments).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// Prints the calls and runs them; gives what was printed.
fn migrate(cluster: &Cluster, name: &str, variables: &[&str]) -> String {
    let printed = psql(cluster, &["-f", &script(name).display().to_string()]);
    let calls = cluster.directory().join("webhooks.sql");
    std::fs::write(&calls, &printed).unwrap();
    let calls = calls.display().to_string();
    psql(cluster, &[variables, &["-f", &calls]].concat());
    printed
}

fn bodies(receiver: &Receiver, path: &str) -> Vec<String> {
    let mut bodies: Vec<String> = receiver
        .received_at(path)
        .into_iter()
        .map(|received| received.raw)
        .collect();
    bodies.sort();
    bodies
}

#[test]
fn triggers_of_pg_net_become_events_with_the_same_bodies() {
    let (cluster, receiver) = ready_cluster("migrate-pg-net");
    cluster.sql(&PG_NET.replace("RECEIVER", &receiver.url("")));
    let printed = migrate(&cluster, "migrate/pg_net.sql", &[]);
    assert!(
        printed.contains("-- Not replaced: trigger ping on public.orders calls"),
        "{printed}"
    );
    assert!(
        printed.contains("-- By hand: trigger by_hand on public.orders runs public.by_hand()"),
        "{printed}"
    );

    let found = cluster.psql(
        "select name, timeout_ms, headers from webhook.webhooks order by name;
         select webhook_name, event_type, object_fields, condition, status from webhook.events order by 1, 2",
    );
    assert_eq!(
        found,
        "note|1000|{}\n\
         orders_changed|5000|{\"X-Key\": \"***\"}\n\
         note|table.recordUpdate|{note}||Inactive\n\
         orders_changed|table.recordDelete||old.paid|Active\n\
         orders_changed|table.recordInsert|||Active\n\
         orders_changed|table.recordUpdate|||Active\n"
    );
    cluster.sql(
        r#"insert into orders values (1, 2.50, null, null, '{"a": [1]}');
           update orders set note = 'x"y', paid = true;
           delete from orders"#,
    );
    wait_idle(&cluster);
    let row = r#"{"id":1,"Total":2.50,"note":null,"paid":null,"odd":{"a": [1]}}"#;
    let later = r#"{"id":1,"Total":2.50,"note":"x\"y","paid":true,"odd":{"a": [1]}}"#;
    let body = |operation: &str, record: &str, old: &str| {
        format!(
            r#"{{"type":"{operation}","table":"orders","schema":"public","record":{record},"old_record":{old}}}"#
        )
    };
    let wanted = vec![
        body("DELETE", "null", later),
        body("INSERT", row, "null"),
        body("UPDATE", later, row),
    ];
    assert_eq!(bodies(&receiver, "/ok/orders?a%20b=c%26d"), wanted);
}

#[test]
fn event_triggers_of_hasura_become_events_with_the_same_bodies() {
    let (cluster, receiver) = ready_cluster("migrate-hasura");
    cluster.sql(&HASURA.replace("RECEIVER", &receiver.url("")));
    let url = format!("USERS_URL={}", receiver.url("/ok/env"));
    let printed = migrate(
        &cluster,
        "migrate/hasura.sql",
        &["-v", "USERS_KEY=it's", "-v", &url],
    );
    assert!(
        printed.contains("-- Not replaced: event trigger lost, whose table public.gone"),
        "{printed}"
    );

    let found =
        cluster.psql("select name, max_attempts, timeout_ms from webhook.webhooks order by name");
    assert_eq!(found, "from_env|1|60000\nuser_changed|4|20000\n");
    cluster.sql(
        "insert into users values (1, 'A', null);
         update users set id = 2;
         update users set name = 'B';
         delete from users",
    );
    wait_idle(&cluster);
    let received = receiver.received_at("/ok/users");
    assert_eq!(received[0].header("x-env"), "it's");
    assert_eq!(received[0].header("x-key"), "a'b");
    let events: Vec<String> = bodies(&receiver, "/ok/users")
        .iter()
        .map(|body| {
            body.split_once(r#""event":"#)
                .expect("it has an event")
                .1
                .to_owned()
        })
        .collect();
    let event = |operation: &str, old: &str, new: &str| {
        format!(
            r#"{{"op":"{operation}","session_variables":null,"data":{{"old":{old},"new":{new}}}}}}}"#
        )
    };
    let row = |id: i32, name: &str| format!(r#"{{"id":{id},"name":"{name}","mail":null}}"#);
    let mut wanted = [
        event("INSERT", "null", &row(1, "A")),
        event("UPDATE", &row(2, "A"), &row(2, "B")),
        event("DELETE", &row(2, "B"), "null"),
    ];
    let mut events = events;
    events.sort();
    wanted.sort();
    assert_eq!(events, wanted);
    assert_eq!(receiver.received_at("/ok/env").len(), 1);
}

/// As PostgREST calls it: the role, the headers and the raw body of the request; it reads `response.status`.
#[test]
fn the_function_for_postgrest_sets_the_status_of_the_answer() {
    let (cluster, _receiver) = ready_cluster("postgrest");
    psql(
        &cluster,
        &[
            "-f",
            &script("postgrest/webhook_rest.sql").display().to_string(),
        ],
    );
    cluster.sql("create role web; grant webhook_admin to web; create role stranger");
    let ask = |role: &str, method: &str, path: &str, body: &str| {
        cluster.psql(&format!(
            "begin;
             set local role {role};
             \\o /dev/null
             select set_config('request.headers', '{{\"x-webhook-method\": \"{method}\", \"x-webhook-path\": \"{path}\"}}', true);
             \\o
             select webhook_rest.rest('{body}') ->> 'Message', current_setting('response.status');
             commit;"
        ))
    };
    let webhooks = "/v3/outgoingWebhooks";
    let shop = r#"{"Name": "shop", "OutgoingUrls": ["https://shop.example.com/in"]}"#;
    assert_eq!(ask("web", "POST", webhooks, shop), "|201\n");
    assert!(ask("web", "POST", webhooks, shop).ends_with("|400\n"));
    assert!(ask("web", "POST", webhooks, "{").ends_with("|400\n"));
    assert!(ask("web", "GET", "/v3/nowhere", "").ends_with("|404\n"));
    assert!(ask("web", "PATCH", webhooks, "").ends_with("|405\n"));
    let id: String = cluster.value("select id from webhook.webhooks");
    assert_eq!(
        ask("web", "DELETE", &format!("{webhooks}/{id}"), ""),
        "|204\n"
    );
    let may: bool = cluster
        .value("select has_function_privilege('stranger', 'webhook_rest.rest(text)', 'execute')");
    assert!(!may);
}

/// Names are whatever a role with a table of its own likes, and a superuser runs what is printed.
#[test]
fn no_name_in_a_printed_comment_becomes_a_statement() {
    let (cluster, _receiver) = ready_cluster("migrate-names");
    cluster.sql(PG_NET);
    let name = "x\nalter role mallory superuser; --";
    let hasura = HASURA
        .replace("\"lost\"", r#""x\nalter role mallory superuser; --""#)
        .replace(
            "\"user_changed\"",
            r#""y\ralter role mallory superuser; --""#,
        );
    cluster.sql(&hasura);
    cluster.sql(&format!(
        "create role mallory;
         create table \"{name}\" (id integer primary key);
         alter table \"{name}\" owner to mallory;
         create trigger \"{name}\" after insert on \"{name}\" for each row execute function by_hand();
         create trigger \"{name} get\" after insert on \"{name}\" for each row
         execute function supabase_functions.http_request(E'http://x/\\r{name}', E'GET\\n', '{{}}', '{{}}', '1000');
         create trigger \"{name} statement\" after insert on \"{name}\"
         execute function supabase_functions.http_request('http://127.0.0.1:1/', 'POST', '{{}}', '{{}}', '1000');
         create trigger \"{name} row\" after insert on \"{name}\" for each row
         execute function supabase_functions.http_request('http://127.0.0.1:1/', 'POST', '{{}}', '{{}}', '1000');"
    ));
    let own = PG_NET
        .lines()
        .filter(|line| line.starts_with("create trigger"));
    for line in own {
        let trigger = line.split(' ').nth(2).unwrap();
        cluster.sql(&format!("drop trigger {trigger} on orders"));
    }
    let variables = ["-v", "USERS_KEY=k", "-v", "USERS_URL=http://127.0.0.1:1/"];
    for (script, variables) in [
        ("migrate/pg_net.sql", &[][..]),
        ("migrate/hasura.sql", &variables[..]),
    ] {
        let printed = psql(
            &cluster,
            &["-f", &self::script(script).display().to_string()],
        );
        assert!(
            printed.contains("alter role mallory superuser"),
            "{printed}"
        );
        let calls = cluster.directory().join("webhooks.sql");
        // Calls may refuse such names. Each statement has its chance.
        let all = printed
            .replace("\\set ON_ERROR_STOP on", "")
            .replace("begin;", "");
        std::fs::write(&calls, all).unwrap();
        let calls = calls.display().to_string();
        let _ = cluster
            .client_program("psql", "postgres")
            .args(["-X", "-q"])
            .args(variables)
            .args(["-f", &calls])
            .output()
            .unwrap();
        let is_superuser: bool =
            cluster.value("select rolsuper from pg_roles where rolname = 'mallory'");
        assert!(!is_superuser, "{printed}");
    }
}
