//! `ALTER EXTENSION webhook_ext UPDATE` from the first release: the same catalog as a fresh
//! installation, nothing lost.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread;

use super::support::catalog::{describe, difference};
use super::support::ending::SetOnDrop;
use super::support::wait::wait_until;
use super::support::watched::{
    assert_items_delivered, insert_items, insert_statement, watch_items,
};
use super::support::worker::cluster_restarts;
use super::support::{ready_cluster, Cluster, Receiver, PATIENCE};

/// The first release; its schema is fixed.
const FIRST: &str = "0.1.0";

fn create_first(cluster: &Cluster, database: &str) {
    cluster.sql_in(
        database,
        &format!("create extension webhook_ext version '{FIRST}'"),
    );
}

#[test]
fn an_upgraded_schema_is_the_same_as_a_fresh_one() {
    let cluster = Cluster::start("upgraded_schema");
    cluster.sql("create database fresh");
    cluster.sql("create database upgraded");
    cluster.sql_in("fresh", "create extension webhook_ext");
    create_first(&cluster, "upgraded");
    let before = describe(&cluster, "upgraded");
    cluster.sql_in("upgraded", "alter extension webhook_ext update");
    let (fresh, upgraded) = (describe(&cluster, "fresh"), describe(&cluster, "upgraded"));
    assert_ne!(before, upgraded, "the update changed something");
    let difference = difference(&fresh, &upgraded);
    assert!(
        difference.is_empty(),
        "sql/*.sql and sql/webhook_ext--0.1.0--0.2.0.sql differ:\n{difference}"
    );
}

/// Sessions that have the library of the first release loaded go on writing after the update.
#[test]
fn an_upgrade_leaves_the_tables_that_writers_append_to_as_they_are() {
    let cluster = Cluster::start("same_outbox");
    cluster.sql("create database fresh");
    cluster.sql("create database first");
    cluster.sql_in("fresh", "create extension webhook_ext");
    create_first(&cluster, "first");
    let of_outbox = |database: &str| {
        let mut lines = describe(&cluster, database);
        lines.retain(|line| {
            line.starts_with("column: webhook.outbox_")
                || line.starts_with("index: CREATE INDEX outbox_")
        });
        lines
    };
    let (fresh, first) = (of_outbox("fresh"), of_outbox("first"));
    assert!(
        fresh.len() > 44,
        "four tables of eleven columns: {fresh:#?}"
    );
    assert_eq!(difference(&fresh, &first), "");
}

/// Everything that a user has in the first release, and what the database shows of it.
const HISTORY: &str = "
select string_agg(line, E'\n' order by line)
from (
    select to_jsonb(w)::text as line
    from (select webhook_key, id, name, description, enabled, headers, timeout_ms, max_attempts, max_age,
                 max_in_flight, delivery_order, log_level, created_at, created_by, dropped_at
          from webhook.webhook_def) w
    union all
    select to_jsonb(s)::text
    from (select webhook_key, secret, created_at, expires_at from webhook.secret_def) s
    union all
    select to_jsonb(u)::text
    from (select url_key, webhook_key, position, url, disabled_at, dropped_at from webhook.url_def) u
    union all
    select to_jsonb(e)::text
    from (select event_key, id, webhook_key, event_type, object_name, enabled, null_style, list_style,
                 created_at from webhook.event_def) e
    union all
    select to_jsonb(l)::text
    from (select call_id, called_at, message_id, url_key, event_key, attempt, success, http_code, http_response
          from CALL_LOG where called_at < 'SINCE') l
) lines";

fn history(cluster: &Cluster, call_log: &str, since: &str) -> String {
    let query = HISTORY.replace("CALL_LOG", call_log);
    cluster.value(&query.replace("SINCE", since))
}

/// A cluster with the tables, the definitions and the history of the first release.
fn first_release(name: &str, receiver: &Receiver) -> Cluster {
    let cluster = Cluster::builder(name)
        .set("webhook.allowed_networks", "127.0.0.0/8")
        .start();
    cluster.exempt_from_bookkeeping("its history is written by hand");
    create_first(&cluster, "postgres");
    let data = include_str!("../upgrade/data-0.1.0.sql");
    cluster.sql(&data.replace("RECEIVER", &receiver.url("/ok/a")));
    cluster
}

fn pending(cluster: &Cluster) -> i64 {
    cluster.value("select count(*) from webhook.messages where status = 'pending'")
}

fn wait_for_mismatch(cluster: &Cluster) {
    let activity = "select query from pg_stat_activity where backend_type = 'webhook_ext' limit 1";
    let mut session = cluster.connect("postgres");
    cluster.wait_until(PATIENCE, "the worker to say that versions differ", || {
        let row = session.query_opt(activity, &[]).unwrap();
        let query: String = row.map(|row| row.get(0)).unwrap_or_default();
        if query.contains("but the library is") {
            Ok(())
        } else {
            Err(query)
        }
    });
    let warning = "is installed in this database, but the library is";
    assert!(cluster.log().contains(warning));
}

/// What `webhook.worker` and the log say of it.
const UPDATE: &str = "run ALTER EXTENSION webhook_ext UPDATE in this database";
const RELOAD: &str =
    "reconnect, and restart the server if shared_preload_libraries names webhook_ext";

fn assert_refused(cluster: &Cluster, call: &str, way_out: &str) {
    let error = cluster.connect("postgres").batch_execute(call).unwrap_err();
    let error = error.as_db_error().expect("the server answered");
    assert_eq!(error.code().code(), "55000", "{error}");
    assert!(
        error.hint().is_some_and(|hint| hint.contains(way_out)),
        "{error:?}"
    );
}

#[test]
fn an_upgrade_under_load_loses_neither_messages_nor_history_nor_definitions() {
    let receiver = Receiver::start();
    let cluster = first_release("upgrade", &receiver);
    // The new library with the old schema: changes are captured, nothing is sent.
    insert_items(&cluster, 1..=10);
    assert_eq!(pending(&cluster), 10);
    wait_for_mismatch(&cluster);
    assert_refused(
        &cluster,
        "select webhook.create_webhook('new', array['https://example.com/'])",
        UPDATE,
    );
    assert_refused(&cluster, "select webhook.pause_webhook('first')", UPDATE);
    assert!(cluster.log().contains(UPDATE));
    assert_eq!(receiver.count("/ok/a").requests, 0);
    let since: String = cluster.value("select now()::text");
    let before = history(&cluster, "webhook.call_log", &since);

    let written = AtomicI64::new(1000);
    let updated = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut session = cluster.connect("postgres");
                let mut after = 0;
                while after < 50 {
                    let id = written.fetch_add(1, Ordering::Relaxed);
                    session
                        .batch_execute(&insert_statement(id..=id))
                        .expect("a writer goes on");
                    after += i32::from(updated.load(Ordering::Relaxed));
                }
            });
        }
        wait_until(PATIENCE, "writers to write", || {
            match written.load(Ordering::Relaxed) {
                seen if seen > 1050 => Ok(()),
                seen => Err(seen.to_string()),
            }
        });
        let _done = SetOnDrop(&updated);
        cluster.sql("alter extension webhook_ext update");
    });
    let received = assert_items_delivered(&cluster, &receiver, "/ok/a", PATIENCE);
    assert!(received.len() >= 200, "{} items", received.len());
    let after = history(&cluster, "webhook_internal.call_log", &since);
    assert_eq!(after, before);
    let detail: Option<String> = cluster.value("select detail from webhook.worker");
    assert_eq!(detail, None);
    let counted: String = cluster.value(
        "select messages - (select count(*) from items) || ' ' || calls - (select count(*) from items) || ' ' || errors
         from webhook.events",
    );
    assert_eq!(counted, "40 45 5");
    cluster.sql("select webhook.pause_webhook('first')");
    assert_eq!(cluster_restarts(&cluster), 0, "{}", cluster.log());
}

/// A prepared transaction keeps its lock on the outbox for as long as it likes.
#[test]
fn an_upgrade_that_waits_lets_writers_through() {
    let cluster = Cluster::builder("upgrade_waits")
        .set("max_prepared_transactions", "2")
        .start();
    create_first(&cluster, "postgres");
    let data = include_str!("../upgrade/data-0.1.0.sql");
    cluster.sql(&data.replace("RECEIVER", "http://127.0.0.1:9/"));
    cluster.sql("begin; insert into items values (1); prepare transaction 'p'");
    let mut session = cluster.connect("postgres");
    let update = thread::spawn(move || session.batch_execute("alter extension webhook_ext update"));
    let waiting = "select count(*)::text from pg_locks where not granted and locktype = 'relation'";
    cluster.wait_for_text(PATIENCE, waiting, "1");
    let mut writer = cluster.connect("postgres");
    writer.batch_execute("set lock_timeout = '5 s'").unwrap();
    for id in 2..=20 {
        writer
            .batch_execute(&insert_statement(id..=id))
            .expect("a writer goes on");
    }
    assert!(!update.is_finished());
    cluster.sql("commit prepared 'p'");
    update
        .join()
        .unwrap()
        .expect("the update goes on once the lock is gone");
    assert_eq!(pending(&cluster), 20);
    let timeout: String = cluster.value("show lock_timeout");
    assert_eq!(timeout, "0");
}

/// A session that reads a view locks the view first, then its tables.
#[test]
fn an_upgrade_among_readers_of_the_views_harms_neither() {
    let cluster = Cluster::start("upgrade_readers");
    let views = [
        "webhooks", "events", "messages", "calls", "queue", "worker", "metrics",
    ];
    let reading: String = views
        .iter()
        .map(|view| format!("select count(*) from webhook.{view};"))
        .collect();
    // One that comes through by chance proves nothing.
    for round in 1..=3 {
        let database = format!("readers{round}");
        cluster.sql(&format!("create database {database}"));
        create_first(&cluster, &database);
        let (rounds, updated) = (AtomicI64::new(0), AtomicBool::new(false));
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut session = cluster.connect(&database);
                    while !updated.load(Ordering::Relaxed) {
                        session.batch_execute(&reading).expect("a reader goes on");
                        rounds.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            wait_until(PATIENCE, "readers to read", || {
                match rounds.load(Ordering::Relaxed) {
                    seen if seen > 10 => Ok(()),
                    seen => Err(seen.to_string()),
                }
            });
            let _done = SetOnDrop(&updated);
            cluster.sql_in(&database, "alter extension webhook_ext update");
        });
    }
}

/// Also those on functions that the new release replaces.
#[test]
fn an_upgrade_tells_of_every_privilege_that_it_takes_away() {
    let cluster = Cluster::start("upgrade_grants");
    create_first(&cluster, "postgres");
    let replaced = [
        "webhook.create_event(text,regclass,text,text[],text[],text[],text,text,boolean,text,text,text)",
        "webhook.update_event(text,text[],text[],text[],text,text,boolean,text,text,text)",
        "webhook.drop_event(text)",
    ];
    cluster.sql("create role integrator");
    for function in replaced {
        cluster.sql(&format!(
            "grant execute on function {function} to integrator"
        ));
    }
    let output = cluster
        .client_program("psql", "postgres")
        .args([
            "-X",
            "-q",
            "-v",
            "ON_ERROR_STOP=1",
            "-c",
            "alter extension webhook_ext update",
        ])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    for function in replaced {
        let name = function.trim_start_matches("webhook.");
        let told =
            format!("WARNING:  done by this update: revoke all on function {name} from integrator");
        assert!(said.contains(&told), "{told}: {said}");
    }
    let left: i64 = cluster.value(
        "select count(*)
         from pg_proc p, aclexplode(p.proacl) a
         where p.pronamespace = 'webhook'::regnamespace and a.grantee = 'integrator'::regrole",
    );
    assert_eq!(left, 0);
}

/// With a schema of this release.
fn assert_version(cluster: &Cluster, library: &str) {
    let said: String = cluster.value("select webhook.version()");
    let major: i32 = cluster.value("select current_setting('server_version_num')::integer / 10000");
    let schema = env!("CARGO_PKG_VERSION");
    let start = format!("webhook_ext {library}, schema {schema}, commit ");
    let end = format!(", for PostgreSQL {major}");
    assert!(said.starts_with(&start) && said.ends_with(&end), "{said}");
}

#[test]
fn a_library_that_is_older_than_the_tables_captures_and_waits() {
    let (cluster, receiver) = ready_cluster("older_library");
    watch_items(&cluster, &receiver, "/ok/a");
    insert_items(&cluster, 1..=5);
    assert_items_delivered(&cluster, &receiver, "/ok/a", PATIENCE);
    cluster.configure("webhook.fault", "version 0.1.0");
    cluster.reload();
    cluster.wait_for_text(PATIENCE, "show webhook.fault", "version 0.1.0");
    wait_for_mismatch(&cluster);
    insert_items(&cluster, 6..=10);
    let detail: String = cluster.value("select detail from webhook.worker");
    assert!(detail.contains("but the library is 0.1.0"), "{detail}");
    assert!(detail.contains(RELOAD), "{detail}");
    assert!(cluster.log().contains(RELOAD));
    assert_version(&cluster, "0.1.0");
    assert_refused(&cluster, "select webhook.pause_webhook('/ok/a')", RELOAD);
    assert_eq!(pending(&cluster), 5);

    cluster.configure("webhook.fault", "");
    cluster.reload();
    cluster.wait_for_text(PATIENCE, "show webhook.fault", "");
    assert_version(&cluster, env!("CARGO_PKG_VERSION"));
    assert_items_delivered(&cluster, &receiver, "/ok/a", PATIENCE);
    assert_eq!(cluster_restarts(&cluster), 0, "{}", cluster.log());
}
