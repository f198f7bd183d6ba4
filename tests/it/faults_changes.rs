//! Definitions and tables change while messages wait or are on their way (fault 30):
//! every statement succeeds, and what becomes of the messages is defined.
//!
//! What becomes of rows that were captured before their columns changed is in
//! `schema_changes`; of URLs that are replaced, in `updates`.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread;

use super::support::definitions::{create_event, create_webhook};
use super::support::ending::SetOnDrop;
use super::support::watched::{
    assert_all_received, assert_items_delivered, insert_items, wait_idle,
    wait_until_nothing_is_left, watch_items, watch_items_in,
};
use super::support::worker::{cluster_restarts, worker_of};
use super::support::{ready_cluster, signature, Cluster, Receiver, PATIENCE};

const FOR_EVER: &str = ", timeout_ms => 600000";

#[test]
fn what_a_dropped_webhook_had_pending_is_canceled_and_others_go_on() {
    let (cluster, receiver) = ready_cluster("dropped");
    watch_items(&cluster, &receiver, "/ok/stays");
    watch_items_in(&cluster, "postgres", &receiver, "/hang/flying", FOR_EVER);
    watch_items(&cluster, &receiver, "/status/503/retrying");
    watch_items(&cluster, &receiver, "/ok/paused");
    cluster.sql("select webhook.pause_webhook('/ok/paused')");
    insert_items(&cluster, 1..=40);
    receiver.wait_for(PATIENCE, "/hang/flying", 16);
    receiver.wait_for(PATIENCE, "/status/503/retrying", 5);
    receiver.wait_for(PATIENCE, "/ok/stays", 40);

    let mut session = cluster.connect("postgres");
    for (webhook, id) in [
        ("/hang/flying", 41),
        ("/status/503/retrying", 42),
        ("/ok/paused", 43),
    ] {
        let drop = format!("select webhook.drop_webhook('{webhook}')");
        session.batch_execute(&drop).unwrap();
        session
            .batch_execute(&format!("insert into items values ({id})"))
            .unwrap();
    }
    assert_items_delivered(&cluster, &receiver, "/ok/stays", PATIENCE);
    for path in ["/status/503/retrying", "/ok/paused", "/hang/flying"] {
        receiver.behave(path, "/ok");
    }
    let (flying, retrying) = (
        receiver.count("/hang/flying"),
        receiver.count("/status/503/retrying"),
    );
    insert_items(&cluster, 51..=60);
    assert_items_delivered(&cluster, &receiver, "/ok/stays", PATIENCE);
    assert_eq!(receiver.count("/hang/flying").requests, flying.requests);
    assert_eq!(
        receiver.count("/status/503/retrying").requests,
        retrying.requests
    );
    assert_eq!(receiver.count("/ok/paused").requests, 0);
    let statuses = cluster.psql(
        "select coalesce(w.name, 'dropped'), m.status, count(*)
         from webhook.messages m left join webhook.webhooks w on w.id = m.webhook_id
         where m.status <> 'delivered' group by 1, 2 order by 1, 2",
    );
    assert!(statuses.starts_with("dropped|canceled|"), "{statuses}");
    assert_eq!(statuses.lines().count(), 1, "{statuses}");
    let triggers: i64 = cluster.value(
        "select count(*) from pg_trigger where tgrelid = 'items'::regclass and tgname ~ '^webhook_'",
    );
    assert_eq!(triggers, 1, "the triggers of dropped events are gone");
    assert_eq!(cluster_restarts(&cluster), 0, "{}", cluster.log());
}

#[test]
fn what_waits_while_the_secret_changes_is_signed_with_both() {
    let (cluster, receiver) = ready_cluster("secretchange");
    cluster.sql("create table items (id bigint primary key, note text)");
    let old = create_webhook(&cluster, "w", &[receiver.url("/ok/a")], "");
    create_event(&cluster, "w", "items", "Insert", "");
    cluster.sql("select webhook.pause_webhook('w')");
    insert_items(&cluster, 1..=5);
    let new: String = cluster.value("select webhook.regenerate_secret('w')");
    insert_items(&cluster, 6..=10);
    cluster.sql("select webhook.resume_webhook('w')");
    let received = assert_items_delivered(&cluster, &receiver, "/ok/a", PATIENCE);
    let token: String = cluster.value("select token from webhook.reveal_secret('w') limit 1");
    for request in received {
        assert_eq!(signature::verify(&request, &old), Ok(()));
        assert_eq!(signature::verify(&request, &new), Ok(()));
        assert_eq!(request.body()["secret"], token.as_str());
    }
}

#[test]
fn what_waits_of_a_dropped_event_or_a_dropped_template_column_is_sent_as_it_was_captured() {
    let (cluster, receiver) = ready_cluster("dropevent");
    cluster.sql("create table customers (id integer primary key, name text)");
    create_webhook(
        &cluster,
        "w",
        &[receiver.url("/ok/a")],
        "max_in_flight => 1",
    );
    let plain = create_event(&cluster, "w", "customers", "Insert", "");
    let template =
        r#"payload_template => '{"who": "[@field:name]", "table": "[@out-hook:objectName]"}'"#;
    create_event(&cluster, "w", "customers", "Insert", template);
    cluster.sql("select webhook.pause_webhook('w')");
    cluster.sql("insert into customers values (1, 'Ann')");
    cluster.sql(&format!("select webhook.drop_event('{plain}')"));
    cluster.sql("alter table customers rename to clients");
    cluster.sql("insert into clients values (2, 'Bob')");
    cluster.sql("alter table clients drop column name");
    cluster.sql("insert into clients values (3)");
    cluster.sql("select webhook.resume_webhook('w')");
    wait_idle(&cluster, PATIENCE);
    let bodies: Vec<String> = receiver
        .received_at("/ok/a")
        .iter()
        .map(|request| match request.body()["data"][0].as_object() {
            Some(row) => format!("{} {}", row["id"], row["name"]),
            None => request.raw.clone(),
        })
        .collect();
    let expected = [
        "1 \"Ann\"",
        r#"{"who":"Ann","table":"clients"}"#,
        r#"{"who":"Bob","table":"clients"}"#,
    ];
    let mut sorted = bodies.clone();
    sorted.sort();
    assert_eq!(sorted, expected, "{bodies:?}");
    let shown = cluster.psql("select status, detail from webhook.events");
    assert_eq!(shown, "Inactive|column was dropped: name\n");
}

/// What is done to the table, one after the other, while rows keep coming.
const STORM: &[&str] = &[
    "create table extra (like readings including all)",
    "alter table readings attach partition extra for values from (2000000) to (3000000)",
    "alter table readings add column added text default 'x'",
    "alter table readings rename column note to remark",
    "alter table readings rename column remark to note",
    "alter table readings alter column added type varchar(10)",
    "alter table readings rename to measurements",
    "alter table measurements rename to readings",
    "alter table readings drop column added",
    "alter table readings detach partition extra",
    "create index on readings (note)",
    "drop table extra",
    "select webhook.regenerate_secret('readings')",
    "select webhook.update_webhook('readings', max_in_flight => 8, headers => '{\"x-a\": \"b\"}')",
    "alter table readings replica identity full",
    "vacuum full webhook.webhook_def",
    "analyze",
];

#[test]
fn statements_that_change_a_busy_table_succeed_and_cost_no_message() {
    let (cluster, receiver) = ready_cluster("storm");
    cluster.sql(
        "create table readings (id bigint primary key, note text) partition by range (id);
         create table near partition of readings for values from (0) to (1000000);
         create view items as select id, note from near",
    );
    create_webhook(&cluster, "readings", &[receiver.url("/ok/a")], "");
    create_event(
        &cluster,
        "readings",
        "readings",
        "Insert",
        "payload_fields => array['id']",
    );
    watch_other_table(&cluster, &receiver);
    let worker = worker_of(&cluster, "postgres");
    let (next, done) = (AtomicI64::new(1), AtomicBool::new(false));
    thread::scope(|scope| {
        let _ending = SetOnDrop(&done);
        for _ in 0..3 {
            scope.spawn(|| write_readings_until(&cluster, &next, &done));
        }
        let mut session = cluster.connect("postgres");
        for statement in STORM {
            let target = next.load(Ordering::Relaxed) + 20;
            cluster.wait_until(PATIENCE, "the writers to go on", || {
                match next.load(Ordering::Relaxed) {
                    seen if seen >= target => Ok(()),
                    seen => Err(format!("{seen} of {target}")),
                }
            });
            session
                .batch_execute(statement)
                .unwrap_or_else(|error| panic!("{statement}: {error:?}"));
        }
    });
    wait_until_nothing_is_left(&cluster, PATIENCE);
    let received = receiver.received_at("/ok/a");
    assert_all_received(&cluster, &received);
    assert!(received.len() > STORM.len() * 20, "{}", received.len());
    assert_eq!(receiver.count("/ok/b").requests, 1);
    assert_eq!(worker_of(&cluster, "postgres"), worker);
    assert_eq!(cluster_restarts(&cluster), 0, "{}", cluster.log());
}

fn watch_other_table(cluster: &Cluster, receiver: &Receiver) {
    cluster.sql("create table others (id bigint)");
    create_webhook(cluster, "others", &[receiver.url("/ok/b")], "");
    create_event(cluster, "others", "others", "Insert", "");
    cluster.sql("insert into others values (1)");
}

/// Each insert must succeed, whatever happens to the table meanwhile; in the moments in
/// which it has another name, a writer goes through its partition.
fn write_readings_until(cluster: &Cluster, next: &AtomicI64, done: &AtomicBool) {
    let mut session = cluster.connect("postgres");
    while !done.load(Ordering::Relaxed) {
        let id = next.fetch_add(1, Ordering::Relaxed);
        session
            .execute("insert into near (id) values ($1)", &[&id])
            .unwrap_or_else(|error| panic!("insert of {id}: {error:?}"));
    }
}
