//! A copy of a database captures and sends nothing until it is adopted (fault 12); what only
//! looks like a copy goes on (fault 11).

use postgres::error::SqlState;

use super::support::copies::{dump, restore};
use super::support::watched::{
    assert_items_delivered, insert_items, insert_statement, watch_items, watch_items_in,
};
use super::support::{ready_cluster, Cluster, Receiver, StopMode, PATIENCE};

const HELD: &str = "held: copy of another database";

/// Waits until the database says that it is held; a change that is made there is not captured.
fn assert_held(cluster: &Cluster, database: &str) {
    let mut session = cluster.connect(database);
    let messages = "select count(*) from webhook.messages";
    let before: i64 = session.query_one(messages, &[]).unwrap().get(0);
    session
        .batch_execute("insert into items values (999999); delete from items where id = 999999")
        .unwrap();
    let after: i64 = session.query_one(messages, &[]).unwrap().get(0);
    assert_eq!(before, after, "{database} captures");
    cluster.wait_until(PATIENCE, "the worker of a copy to say so", || {
        let detail = session.query_one("select pid is not null, detail from webhook.worker", &[]);
        let detail = detail.map_err(|error| error.to_string())?;
        let (runs, detail): (bool, Option<String>) = (detail.get(0), detail.get(1));
        let detail = detail.unwrap_or_default();
        assert!(detail.starts_with(HELD), "{database}: {detail}");
        let logged = cluster.log().contains(&format!("WARNING:  {HELD}"));
        if runs && logged {
            Ok(())
        } else {
            Err(format!("runs: {runs}, logged: {logged}"))
        }
    });
    let checks = session
        .query(
            "select x.ok, x.detail
             from webhook.events e
             cross join webhook.explain_event(e.id) x
             where x.check_name = 'identity'",
            &[],
        )
        .unwrap();
    assert!(!checks.is_empty());
    for check in checks {
        assert!(!check.get::<_, bool>(0));
        assert!(check.get::<_, &str>(1).starts_with(HELD));
    }
}

fn assert_not_held(cluster: &Cluster, database: &str) {
    let mut session = cluster.connect(database);
    let detail = session.query_one("select detail from webhook.worker", &[]);
    assert_eq!(detail.unwrap().get::<_, Option<String>>(0), None);
}

/// How often the item of this id has come to `path`.
fn arrivals(receiver: &Receiver, path: &str, ids: std::ops::RangeInclusive<i64>) -> usize {
    let received = receiver.received_at(path);
    let ids_received = received
        .iter()
        .filter_map(|request| request.body()["data"][0]["id"].as_i64());
    ids_received.filter(|id| ids.contains(id)).count()
}

fn wait_for_arrivals(
    cluster: &Cluster,
    receiver: &Receiver,
    path: &str,
    ids: std::ops::RangeInclusive<i64>,
) {
    let wanted = ids.clone().count();
    cluster.wait_until(
        PATIENCE,
        &format!("items {ids:?} at {path}"),
        || match arrivals(receiver, path, ids.clone()) {
            seen if seen >= wanted => Ok(()),
            seen => Err(format!("{seen} of {wanted}")),
        },
    );
}

#[test]
fn a_restored_dump_captures_and_sends_nothing_until_it_is_adopted() {
    let (cluster, receiver) = ready_cluster("restored");
    watch_items(&cluster, &receiver, "/ok/a");
    insert_items(&cluster, 1..=5);
    assert_items_delivered(&cluster, &receiver, "/ok/a", PATIENCE);
    let script = dump(&cluster, "postgres", &[]);
    let place = |table: &str| {
        let copied = script.find(&format!("COPY webhook.{table} "));
        copied.unwrap_or_else(|| panic!("{table} is not in the dump"))
    };
    assert!(
        place("def_origin") < place("webhook_def"),
        "definitions would be there before it is known that they are of another database"
    );
    cluster.sql("create database copy");
    restore(&cluster, "copy", &script);
    assert_held(&cluster, "copy");
    cluster.sql_in("copy", &insert_statement(101..=110));

    let mut copy = cluster.connect("copy");
    let refused = |session: &mut postgres::Client, statement: &str, code: &SqlState| {
        let error = session.batch_execute(statement).unwrap_err();
        assert_eq!(error.code(), Some(code), "{statement}: {error:?}");
        assert!(error.as_db_error().unwrap().hint().is_some(), "{error:?}");
    };
    for call in [
        "select * from webhook.test_webhook('/ok/a')",
        "select webhook.redeliver(gen_random_uuid())",
        "select webhook.redeliver_failed('/ok/a')",
    ] {
        refused(&mut copy, call, &SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
    }
    for wrong in ["'send'", "''", "null"] {
        let call = format!("select webhook.adopt({wrong})");
        refused(&mut copy, &call, &SqlState::INVALID_PARAMETER_VALUE);
    }
    cluster.sql("create role clerk login in role webhook_admin");
    refused(
        &mut cluster.connect_as("clerk", "copy"),
        "select webhook.adopt()",
        &SqlState::INSUFFICIENT_PRIVILEGE,
    );

    // The same session that has just written without being captured.
    copy.batch_execute("select webhook.adopt()").unwrap();
    copy.batch_execute(&insert_statement(201..=210)).unwrap();
    wait_for_arrivals(&cluster, &receiver, "/ok/a", 201..=210);
    assert_not_held(&cluster, "copy");
    insert_items(&cluster, 6..=10);
    wait_for_arrivals(&cluster, &receiver, "/ok/a", 6..=10);
    assert_eq!(arrivals(&receiver, "/ok/a", 101..=110), 0);
    assert_eq!(receiver.count("/ok/a").requests, 20);
    // A second time there is nothing to do, nor is there in the original.
    copy.batch_execute("select webhook.adopt('forget')")
        .unwrap();
    cluster.sql("select webhook.adopt()");
    insert_items(&cluster, 11..=12);
    wait_for_arrivals(&cluster, &receiver, "/ok/a", 11..=12);
}

#[test]
fn each_kind_of_dump_brings_definitions_that_are_held() {
    let (cluster, receiver) = ready_cluster("kinds_of_dump");
    watch_items(&cluster, &receiver, "/ok/a");
    insert_items(&cluster, 1..=5);
    assert_items_delivered(&cluster, &receiver, "/ok/a", PATIENCE);
    let schema = dump(&cluster, "postgres", &["--schema-only"]);
    let data = dump(&cluster, "postgres", &["--data-only"]);
    let clean = dump(&cluster, "postgres", &["--clean", "--if-exists"]);

    // A schema alone has no definitions: the database makes its own.
    cluster.sql("create database schema");
    restore(&cluster, "schema", &schema);
    assert_not_held(&cluster, "schema");
    // Other keys than those in the dump, which comes beside them later.
    cluster.sql_in(
        "schema",
        "select setval('webhook.definition_key_seq', 1000)",
    );
    watch_items_in(&cluster, "schema", &receiver, "/ok/own", "");
    cluster.sql_in("schema", &insert_statement(21..=25));
    wait_for_arrivals(&cluster, &receiver, "/ok/own", 21..=25);

    // Its triggers fire for the data, and the definitions come with it.
    cluster.sql("create database data");
    restore(&cluster, "data", &schema);
    restore(&cluster, "data", &data);
    assert_held(&cluster, "data");

    // Beside definitions of its own.
    cluster.sql_in("schema", "truncate items");
    restore(
        &cluster,
        "schema",
        &data.replace(
            "SELECT pg_catalog.setval('webhook.definition_key_seq'",
            "-- ",
        ),
    );
    assert_held(&cluster, "schema");

    // Over a database that has all this already.
    restore(&cluster, "data", &clean);
    assert_held(&cluster, "data");

    // Over the database that it came from: nothing was copied.
    restore(&cluster, "postgres", &clean);
    insert_items(&cluster, 31..=35);
    wait_for_arrivals(&cluster, &receiver, "/ok/a", 31..=35);
    assert_not_held(&cluster, "postgres");
    assert_eq!(receiver.count("/ok/a").requests, 10);
    // The items in the dump were a change of the tables that the own event watches.
    assert_eq!(arrivals(&receiver, "/ok/own", 21..=25), 5);
}

/// A database `shop` with five messages that wait for their first call, and five for another.
fn shop_with_pending(cluster: &Cluster, receiver: &Receiver) {
    cluster.sql("create database shop");
    cluster.sql_in("shop", "create extension webhook_ext");
    watch_items_in(cluster, "shop", receiver, "/ok/new", "");
    watch_items_in(cluster, "shop", receiver, "/status/503/again", "");
    cluster.sql_in("shop", "select webhook.pause_webhook('/ok/new')");
    cluster.sql_in("shop", &insert_statement(1..=5));
    receiver.wait_for(PATIENCE, "/status/503", 5);
    let waiting = "select count(*) from webhook_internal.retry where state = 'waiting'";
    cluster.wait_until(PATIENCE, "five retries", || {
        let row = cluster.connect("shop").query_one(waiting, &[]);
        match row.unwrap().get::<_, i64>(0) {
            5 => Ok(()),
            other => Err(format!("{other} retries")),
        }
    });
    cluster.sql_in("shop", "select webhook.pause_webhook('/status/503/again')");
}

#[test]
fn a_copy_made_with_template_keeps_or_forgets_what_is_pending() {
    let (cluster, receiver) = ready_cluster("template_copy");
    shop_with_pending(&cluster, &receiver);
    for copy in ["kept", "forgotten"] {
        cluster.sql(&format!("create database {copy} template shop"));
        assert_held(&cluster, copy);
    }
    receiver.behave("/status/503/again", "/ok");
    let adopt = |copy: &str, pending: &str| {
        cluster.sql_in(copy, &format!("select webhook.adopt('{pending}')"));
        cluster.sql_in(copy, "select webhook.resume_webhook('/ok/new')");
        cluster.sql_in(copy, "select webhook.resume_webhook('/status/503/again')");
    };
    let before = receiver.count("/status/503").requests;
    adopt("forgotten", "forget");
    cluster.sql_in("forgotten", &insert_statement(51..=55));
    wait_for_arrivals(&cluster, &receiver, "/ok/new", 51..=55);
    wait_for_arrivals(&cluster, &receiver, "/status/503/again", 51..=55);
    assert_eq!(arrivals(&receiver, "/ok/new", 1..=5), 0);
    assert_eq!(receiver.count("/status/503").requests, before + 5);
    cluster.sql_in("forgotten", "select webhook.wait_idle('2 minutes')");
    let statuses = "select string_agg(status || ' ' || n, ', ' order by status)
                    from (select status, count(*) n from webhook.messages group by 1) s";
    let statuses: String = cluster
        .connect("forgotten")
        .query_one(statuses, &[])
        .unwrap()
        .get(0);
    assert_eq!(statuses, "canceled 10, delivered 10");

    adopt("kept", "keep");
    wait_for_arrivals(&cluster, &receiver, "/ok/new", 1..=5);
    let kept = receiver.count("/status/503").requests;
    cluster.wait_until(PATIENCE, "the retries of the kept copy", || match receiver
        .count("/status/503")
        .requests
    {
        seen if seen >= before + 10 => Ok(()),
        seen => Err(format!("{seen}, {kept}")),
    });
    // The original has gone on all the time.
    cluster.sql_in("shop", "select webhook.resume_webhook('/ok/new')");
    cluster.wait_until(PATIENCE, "the original's messages", || {
        match arrivals(&receiver, "/ok/new", 1..=5) {
            seen if seen >= 10 => Ok(()),
            seen => Err(format!("{seen}")),
        }
    });
}

#[test]
fn a_base_backup_is_told_from_its_original_by_the_identity_alone() {
    let original = Cluster::builder("identity")
        .set("shared_preload_libraries", "webhook_ext")
        .set("webhook.allowed_networks", "127.0.0.0/8")
        .start();
    original.sql("create extension webhook_ext");
    let receiver = Receiver::start();
    watch_items(&original, &receiver, "/ok/a");
    insert_items(&original, 1..=5);
    assert_items_delivered(&original, &receiver, "/ok/a", PATIENCE);

    let copy = original.base_backup("identity_copy", &[]);
    copy.configure("webhook.identity", "staging");
    copy.start_again();
    assert_held(&copy, "postgres");
    let mut session = copy.connect("postgres");
    session.batch_execute(&insert_statement(101..=105)).unwrap();
    // A name that is taken away: worker and sessions hear of it at the reload. Nothing tells
    // the copy from a server that was restored in place of the original.
    copy.configure("webhook.identity", "");
    copy.reload();
    copy.wait_for_text(
        PATIENCE,
        "select coalesce(detail, 'none') from webhook.worker",
        "none",
    );
    copy.wait_until(PATIENCE, "the session to hear of the reload", || {
        let shown = session.query_one("show webhook.identity", &[]).unwrap();
        match shown.get::<_, &str>(0) {
            "" => Ok(()),
            other => Err(other.to_owned()),
        }
    });
    session.batch_execute(&insert_statement(201..=205)).unwrap();
    wait_for_arrivals(&copy, &receiver, "/ok/a", 201..=205);
    assert_eq!(arrivals(&receiver, "/ok/a", 101..=105), 0);
    drop(copy);

    // The original gets a name: it is adopted under it, and copies without the name are held.
    original.configure("webhook.identity", "production");
    original.reload();
    original.wait_for_text(PATIENCE, "show webhook.identity", "production");
    assert_held(&original, "postgres");
    original.sql("select webhook.adopt()");
    insert_items(&original, 301..=305);
    wait_for_arrivals(&original, &receiver, "/ok/a", 301..=305);
    let nameless = original.base_backup("identity_nameless", &[]);
    nameless.configure("webhook.identity", "");
    nameless.start_again();
    assert_held(&nameless, "postgres");
    let twin = original.base_backup("identity_twin", &[]);
    original.stop(StopMode::Fast);
    twin.start_again();
    insert_items(&twin, 401..=405);
    wait_for_arrivals(&twin, &receiver, "/ok/a", 401..=405);
}

#[test]
fn recovery_to_a_point_in_time_is_no_copy() {
    let original = Cluster::builder("pitr")
        .set("shared_preload_libraries", "webhook_ext")
        .set("webhook.allowed_networks", "127.0.0.0/8")
        .start();
    original.sql("create extension webhook_ext");
    let receiver = Receiver::start();
    watch_items(&original, &receiver, "/ok/a");
    original.sql("select webhook.pause_webhook('/ok/a')");
    let recovered = original.base_backup("pitr_recovered", &[]);
    insert_items(&original, 1..=10);
    original.sql("select pg_create_restore_point('here')");
    insert_items(&original, 11..=20);
    original.stop(StopMode::Fast);

    let wal = original.data_directory().join("pg_wal");
    recovered.configure("restore_command", &format!("cp {}/%f %p", wal.display()));
    recovered.configure("recovery_target_name", "here");
    recovered.configure("recovery_target_action", "promote");
    std::fs::write(recovered.data_directory().join("recovery.signal"), "").unwrap();
    recovered.start_again();
    recovered.wait_for_text(PATIENCE, "select pg_is_in_recovery()::text", "false");
    assert_not_held(&recovered, "postgres");
    recovered.sql("select webhook.resume_webhook('/ok/a')");
    assert_items_delivered(&recovered, &receiver, "/ok/a", PATIENCE);
    assert_eq!(receiver.count("/ok/a").requests, 10);
}
