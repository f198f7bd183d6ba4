//! Operational events: webhooks that tell what happens to other webhooks.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use postgres::fallible_iterator::FallibleIterator;
use serde_json::Value;

use super::support::definitions::create_webhook;
use super::support::items::{cluster_with, insert, pause, resume, watch};
use super::support::wait::wait_until;
use super::support::worker::{wait_for_restarts, worker_of};
use super::support::{Cluster, Receiver, PATIENCE};

/// No outage is suspected, so that each retry is a call.
const FAILS: &str = "/status/404";
const KINDS: [&str; 4] = ["urlFailing", "urlRecovered", "urlDisabled", "messageFailed"];
/// Messages of operational events, however many there are.
const MADE: &str =
    "select count(*)::text from webhook_internal.outbox where source = 'webhook_ext'";

fn watch_operations(cluster: &Cluster, receiver: &Receiver, name: &str, path: &str, options: &str) {
    create_webhook(cluster, name, &[receiver.url(path)], options);
    for kind in KINDS {
        cluster.sql(&format!(
            "select webhook.create_event('{name}', null, 'webhook.{kind}')"
        ));
    }
}

/// Type and record of each message, in order of arrival.
fn told(receiver: &Receiver, path: &str) -> Vec<(String, Value)> {
    let received = receiver.received_at(path);
    let told = received.iter().map(|request| {
        let body = request.body();
        let kind = body["eventType"].as_str().unwrap().to_owned();
        (kind, body["data"][0].clone())
    });
    told.collect()
}

fn kinds(receiver: &Receiver, path: &str) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for (kind, _) in told(receiver, path) {
        *kinds.entry(kind).or_default() += 1;
    }
    kinds
}

fn wait_for_told(receiver: &Receiver, path: &str, kind: &str) -> Value {
    wait_until(PATIENCE, kind, || {
        let told = told(receiver, path);
        let found = told.iter().find(|(told, _)| told == kind);
        found
            .map(|(_, record)| record.clone())
            .ok_or_else(|| format!("{told:#?}"))
    })
}

#[test]
fn a_webhook_is_told_what_happens_to_the_others() {
    let (cluster, receiver) = cluster_with("operational", "200ms");
    watch_operations(&cluster, &receiver, "ops", "/ok/ops", "");
    let path = "/ok/a/hidden?token=hidden";
    watch(&cluster, &receiver, "crm", &[path], "max_attempts => 1000");
    let id: String = cluster.value("select id from webhook.webhooks where name = 'crm'");
    let mut listener = cluster.connect("postgres");
    listener.batch_execute("listen webhook").unwrap();

    receiver.behave("/ok/a/hidden", FAILS);
    insert(&cluster, 1..=1);
    let failing = wait_for_told(&receiver, "/ok/ops", "webhook.urlFailing");
    assert_eq!(failing["webhook_id"], id);
    assert_eq!(failing["webhook_name"], "crm");
    assert_eq!(
        failing["outgoing_url"],
        format!("http://127.0.0.1:{}", receiver.port())
    );
    assert_eq!(failing["last_error"], "answered 404 Not Found");
    let since = failing["since"].as_str().unwrap();
    let first_failure = format!(
        "select (min(called_at) = '{since}')::text from webhook.calls where status = 'Failure'"
    );
    assert_eq!(cluster.value::<String>(&first_failure), "true");

    receiver.behave_normally("/ok/a/hidden");
    let recovered = wait_for_told(&receiver, "/ok/ops", "webhook.urlRecovered");
    assert_eq!(recovered["since"], failing["since"]);
    assert!(recovered["last_error"].is_null());

    receiver.behave("/ok/a/hidden", "/status/410");
    insert(&cluster, 2..=2);
    let disabled = wait_for_told(&receiver, "/ok/ops", "webhook.urlDisabled");
    assert_eq!(disabled["last_error"], "the receiver answered 410 Gone");

    cluster.sql("select webhook.update_webhook('crm', max_attempts => 1)");
    receiver.behave("/ok/a/hidden", FAILS);
    resume(&cluster, "crm");
    let failed = wait_for_told(&receiver, "/ok/ops", "webhook.messageFailed");
    let message = failed["message_id"].as_str().unwrap();
    let status: String = cluster.value(&format!(
        "select status from webhook.messages where message_id = '{message}'"
    ));
    assert_eq!(status, "failed");
    assert_eq!(failed["messages"], 1);

    let mut received = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while received.len() < KINDS.len() && Instant::now() < deadline {
        let mut notifications = listener.notifications();
        let mut waiting = notifications.timeout_iter(Duration::from_secs(1));
        while let Some(notification) = waiting.next().unwrap() {
            assert_eq!(notification.channel(), "webhook");
            let told: Value = serde_json::from_str(notification.payload()).unwrap();
            assert!(!notification.payload().contains("hidden"), "{told}");
            assert_eq!(told["webhook_id"], id);
            received.push(told["event_type"].as_str().unwrap().to_owned());
        }
    }
    received.sort();
    let mut all: Vec<String> = KINDS.map(|kind| format!("webhook.{kind}")).into();
    all.sort();
    assert_eq!(received, all);
    assert!(!format!("{:?}", told(&receiver, "/ok/ops")).contains("hidden"));
    let counted: i64 = cluster.value("select messages from webhook.webhooks where name = 'ops'");
    assert_eq!(counted, 4);
}

#[test]
fn a_template_makes_the_body_and_what_is_switched_off_gets_nothing() {
    let (cluster, receiver) = cluster_with("operational-template", "1h");
    create_webhook(&cluster, "chat", &[receiver.url("/ok/chat")], "");
    create_webhook(&cluster, "off", &[receiver.url("/ok/off")], "");
    cluster.sql(
        r#"select webhook.create_event('chat', null, 'webhook.urlFailing',
               payload_template => '{"text": "[@field:webhook_name] fails: [@field:last_error]", "at": "[@field:attempts]"}');
           select webhook.create_event('off', null, 'webhook.urlFailing', enabled => false)"#,
    );
    watch(&cluster, &receiver, "crm", &["/status/500"], "");
    insert(&cluster, 1..=1);
    receiver.wait_for(PATIENCE, "/ok/chat", 1);
    let body = receiver.received_at("/ok/chat")[0].body();
    let text = "crm fails: answered 500 Internal Server Error";
    assert_eq!(body, serde_json::json!({ "text": text, "at": null }));
    assert_eq!(cluster.value::<String>(MADE), "1");
    assert!(receiver.received_at("/ok/off").is_empty());
}

#[test]
fn webhooks_that_watch_each_other_and_fail_keep_nobody_busy() {
    let (cluster, receiver) = cluster_with("operational-loop", "50ms");
    let options = "max_attempts => 3";
    for (name, path) in [("left", "/status/404/left"), ("right", "/status/404/right")] {
        watch_operations(&cluster, &receiver, name, path, options);
    }
    // It tells only the other one about itself.
    cluster.sql("select webhook.create_event('left', 'items', 'table.recordInsert')");
    insert(&cluster, 1..=1);
    let to_right = "select string_agg(e.event_type, ', ' order by e.event_type)
                    from webhook_internal.outbox o join webhook.event_def e using (event_key)
                    where o.source = 'webhook_ext'";
    let both = "webhook.messageFailed, webhook.urlFailing";
    cluster.wait_for_text(PATIENCE, to_right, both);
    let all_failed =
        "select (count(*) = 3 and bool_and(status = 'failed'))::text from webhook.messages";
    cluster.wait_for_text(PATIENCE, all_failed, "true");
    // What followed from that is settled as well once another message has been given up.
    insert(&cluster, 2..=2);
    let all_failed =
        "select (count(*) = 4 and bool_and(status = 'failed'))::text from webhook.messages";
    cluster.wait_for_text(PATIENCE, all_failed, "true");
    assert_eq!(cluster.psql(to_right), format!("{both}\n"));
    let carriers = cluster.psql(
        "select distinct w.name from webhook_internal.outbox o join webhook.webhook_def w using (webhook_key)
         where o.source = 'webhook_ext'",
    );
    assert_eq!(carriers, "right\n");
}

#[test]
fn a_url_that_comes_and_goes_is_told_of_once_a_minute() {
    let (cluster, receiver) = cluster_with("operational-rate", "50ms");
    watch_operations(&cluster, &receiver, "ops", "/ok/ops", "");
    watch(
        &cluster,
        &receiver,
        "crm",
        &["/ok/a"],
        "max_attempts => 1000",
    );
    let started = Instant::now();
    for id in 1..=5 {
        receiver.behave("/ok/a", FAILS);
        insert(&cluster, id..=id);
        let failing = "select state from webhook.queue where webhook_name = 'crm'";
        cluster.wait_for_text(PATIENCE, failing, "failing");
        receiver.behave_normally("/ok/a");
        cluster.wait_for_text(PATIENCE, failing, "active");
    }
    wait_for_told(&receiver, "/ok/ops", "webhook.urlRecovered");
    assert!(
        started.elapsed() < Duration::from_secs(50),
        "too slow to tell"
    );
    let once = BTreeMap::from([
        ("webhook.urlFailing".to_owned(), 1),
        ("webhook.urlRecovered".to_owned(), 1),
    ]);
    assert_eq!(kinds(&receiver, "/ok/ops"), once);
    assert_eq!(cluster.value::<String>(MADE), "2");
}

#[test]
fn a_worker_that_is_killed_before_it_has_written_what_happened_tells_it_after_that() {
    let (cluster, receiver) = cluster_with("operational-crash", "1h");
    watch_operations(&cluster, &receiver, "ops", "/ok/ops", "");
    watch(
        &cluster,
        &receiver,
        "crm",
        &["/status/500"],
        "max_attempts => 1",
    );
    // Settlements wait for this lock, so that the worker dies between an answer and its record.
    let mut locker = cluster.connect("postgres");
    locker
        .batch_execute("begin; lock table webhook_internal.settlement in exclusive mode")
        .unwrap();
    insert(&cluster, 1..=1);
    receiver.wait_for(PATIENCE, "/status/500", 1);
    assert_eq!(cluster.value::<String>(MADE), "0");
    cluster.signal(worker_of(&cluster, "postgres"), "KILL");
    wait_for_restarts(&cluster, 1);
    wait_for_told(&receiver, "/ok/ops", "webhook.urlFailing");
    wait_for_told(&receiver, "/ok/ops", "webhook.messageFailed");

    // One that was told of is not told of again by the next worker.
    cluster.signal(worker_of(&cluster, "postgres"), "KILL");
    wait_for_restarts(&cluster, 2);
    insert(&cluster, 2..=2);
    cluster.wait_for_text(
        PATIENCE,
        "select failed::text from webhook.queue where webhook_name = 'crm'",
        "2",
    );
    let made = cluster.psql(
        "select e.event_type, count(*)
         from webhook_internal.outbox o join webhook.event_def e using (event_key)
         where o.source = 'webhook_ext' and e.event_type = 'webhook.urlFailing'
         group by 1",
    );
    assert_eq!(made, "webhook.urlFailing|1\n");
}

#[test]
fn a_lock_on_the_definitions_delays_what_is_told_and_nothing_else() {
    let (cluster, receiver) = cluster_with("operational-lock", "1h");
    watch_operations(&cluster, &receiver, "ops", "/ok/ops", "");
    watch(&cluster, &receiver, "crm", &["/ok/a"], "max_attempts => 1");
    insert(&cluster, 1..=1);
    receiver.wait_for(PATIENCE, "/ok/a", 1);
    cluster.wait_for_text(PATIENCE, "select count(*)::text from webhook.calls", "1");
    receiver.behave("/ok/a", FAILS);
    let mut locker = cluster.connect("postgres");
    locker
        .batch_execute("begin; lock table webhook.event_def in access exclusive mode")
        .unwrap();
    insert_past_lock(&cluster);
    receiver.wait_for(PATIENCE, "/ok/a", 2);
    cluster.wait_for_text(
        PATIENCE,
        "select count(*)::text from webhook_internal.call_log",
        "2",
    );
    assert_eq!(cluster.value::<String>(MADE), "0");
    locker.batch_execute("commit").unwrap();
    wait_for_told(&receiver, "/ok/ops", "webhook.urlFailing");
    wait_for_told(&receiver, "/ok/ops", "webhook.messageFailed");
}

#[test]
fn a_backlog_that_is_old_and_grows_is_told_of() {
    // To this worker a second is five minutes.
    let cluster = Cluster::builder("operational-backlog")
        .set("webhook.allowed_networks", "127.0.0.0/8")
        .set("webhook.fault", "impatient")
        .start();
    cluster.sql("create extension webhook_ext; create table items (id integer)");
    let receiver = Receiver::start();
    create_webhook(&cluster, "ops", &[receiver.url("/ok/ops")], "");
    cluster.sql("select webhook.create_event('ops', null, 'webhook.backlogGrowing')");
    let slow = "max_in_flight => 1, timeout_ms => 600000";
    watch(&cluster, &receiver, "slow", &["/hang/a"], slow);
    watch(&cluster, &receiver, "paused", &["/ok/paused"], "");
    watch(&cluster, &receiver, "quick", &["/ok/quick"], "");
    pause(&cluster, "paused");
    let mut id = 0;
    wait_until(PATIENCE, "a message about the backlog", || {
        id += 1;
        insert(&cluster, id..=id);
        match receiver.received_at("/ok/ops").is_empty() {
            true => Err(format!("{id} rows")),
            false => Ok(()),
        }
    });
    let growing = wait_for_told(&receiver, "/ok/ops", "webhook.backlogGrowing");
    assert_eq!(growing["webhook_name"], "slow");
    let pending = growing["pending"].as_i64().unwrap();
    assert!((2..=id).contains(&pending), "{growing}");
    let oldest: String = cluster.value(&format!(
        "select (oldest_pending = '{}')::text from webhook.queue where webhook_name = 'slow'",
        growing["since"].as_str().unwrap()
    ));
    assert_eq!(oldest, "true");
    assert_eq!(cluster.value::<String>(MADE), "1");
}

/// A session that has not read the definitions would wait.
fn insert_past_lock(cluster: &Cluster) {
    cluster.sql(
        "insert into webhook.outbox_0 (xid, id, message_id, event_key, webhook_key, captured_at, record)
         select pg_current_xact_id(), nextval('webhook.outbox_flush_seq') << 20, gen_random_uuid(), event_key,
                webhook_key, clock_timestamp(), '{\"id\":2}'
         from webhook.outbox_0 limit 1",
    );
}

#[test]
fn an_event_that_makes_no_more_messages_is_told_of_once() {
    const KIND: &str = "webhook.eventDisabled";
    let (cluster, receiver) = cluster_with("operational-stopped", "1h");
    create_webhook(&cluster, "ops", &[receiver.url("/ok/ops")], "");
    cluster.sql(&format!(
        "select webhook.create_event('ops', null, '{KIND}')"
    ));
    cluster.sql(
        "create table orders (id bigint primary key, total numeric, note text);
         create table parts (id bigint primary key, name text)",
    );
    create_webhook(&cluster, "crm", &[receiver.url("/ok/crm")], "");
    let totals: String = cluster.value(
        "select id from webhook.create_event('crm', 'orders', 'table.recordUpdate',
                                                   object_fields => '{total}')",
    );
    let parts: String =
        cluster.value("select id from webhook.create_event('crm', 'parts', 'table.recordInsert')");
    // One that is switched off by a call is no news.
    cluster.sql(
        "select webhook.create_event('crm', 'orders', 'table.recordDelete', enabled => false);
         alter table orders drop column note",
    );
    cluster.sql("alter table orders drop column total");
    let stopped = wait_for_told(&receiver, "/ok/ops", KIND);
    assert_eq!(stopped["event_id"], totals);
    assert_eq!(stopped["object_name"], "orders");
    assert_eq!(stopped["webhook_name"], "crm");
    assert_eq!(stopped["last_error"], "column was dropped: total");
    assert!(stopped["outgoing_url"].is_null());
    let warned = format!(
        "event {totals} of webhook \"crm\" on orders makes no more messages: column was dropped: total"
    );
    assert!(cluster.log().contains(&warned), "{}", cluster.log());

    // The next worker knows that this was told.
    let last = worker_of(&cluster, "postgres");
    cluster.signal(last, "TERM");
    cluster.wait_until(PATIENCE, "the next worker", || {
        match worker_of(&cluster, "postgres") {
            pid if pid != last => Ok(()),
            pid => Err(format!("{pid}")),
        }
    });
    cluster.sql("drop table parts");
    receiver.wait_for(PATIENCE, "/ok/ops", 2);
    let told = told(&receiver, "/ok/ops");
    let about: Vec<(&Value, &Value)> = told
        .iter()
        .map(|(_, record)| (&record["event_id"], &record["last_error"]))
        .collect();
    let (totals, parts) = (Value::from(totals), Value::from(parts));
    let (column, table) = (
        Value::from("column was dropped: total"),
        Value::from("its table was dropped"),
    );
    assert_eq!(about, [(&totals, &column), (&parts, &table)]);

    // Mended.
    cluster.sql(
        "select webhook.update_event(id, object_fields => '{id}') from webhook.events
         where event_type = 'table.recordUpdate'",
    );
    let told_of = "select count(*)::text from webhook_internal.stopped_event";
    cluster.wait_for_text(PATIENCE, told_of, "1");
    assert!(cluster.log().contains("makes messages again"));
}

/// Tables are known once their events were read: one that changes in between counts, too.
#[test]
fn an_event_that_stops_while_the_worker_looks_at_it_is_told_of() {
    const KIND: &str = "webhook.eventDisabled";
    let (cluster, receiver) = cluster_with("operational-stopped-meanwhile", "1h");
    create_webhook(&cluster, "ops", &[receiver.url("/ok/ops")], "");
    create_webhook(&cluster, "crm", &[receiver.url("/ok/crm")], "");
    cluster.sql(&format!(
        "select webhook.create_event('ops', null, '{KIND}');
         create table orders (id bigint primary key, total numeric);
         create table parts (id bigint primary key, name text);
         select webhook.create_event('crm', 'orders', 'table.recordInsert', payload_fields => '{{total}}');
         select webhook.create_event('crm', 'parts', 'table.recordInsert', payload_fields => '{{name}}');
         select webhook.stop_worker()"
    ));
    cluster.wait_for_text(
        PATIENCE,
        "select coalesce(state, 'none') from webhook.worker",
        "stopped",
    );
    cluster.sql("alter table orders drop column total");
    cluster.configure("webhook.fault", "slow_look");
    cluster.reload();
    cluster.wait_for_text(PATIENCE, "show webhook.fault", "slow_look");
    cluster.sql("select webhook.start_worker()");
    // It has read both events and has not written yet that one of them has stopped.
    let looks = "select count(*)::text from pg_stat_activity
                 where backend_type = 'webhook_ext' and xact_start < clock_timestamp() - interval '0.5 s'";
    cluster.wait_for_text(PATIENCE, looks, "1");
    cluster.sql("alter table parts drop column name");
    receiver.wait_for(PATIENCE, "/ok/ops", 2);
    let errors: Vec<Value> = told(&receiver, "/ok/ops")
        .iter()
        .map(|(_, record)| record["last_error"].clone())
        .collect();
    assert_eq!(
        errors,
        ["column was dropped: total", "column was dropped: name"]
    );
}

/// More than two pages of them, and at first the worker may not write that it told.
#[test]
fn all_events_of_a_dropped_table_are_told_of_once_and_no_lock_there_stops_deliveries() {
    const EVENTS: usize = 50;
    let (cluster, receiver) = cluster_with("operational-stopped-many", "1h");
    create_webhook(&cluster, "ops", &[receiver.url("/ok/ops")], "");
    watch(&cluster, &receiver, "other", &["/ok/other"], "");
    create_webhook(&cluster, "crm", &[receiver.url("/ok/crm")], "");
    cluster.sql(&format!(
        "select webhook.create_event('ops', null, 'webhook.eventDisabled');
         create table orders (id bigint primary key, tenant integer);
         select webhook.create_event('crm', 'orders', 'table.recordInsert', match => jsonb_build_object('tenant', n))
         from generate_series(1, {EVENTS}) n"
    ));
    let mut lock = cluster.connect("postgres");
    lock.batch_execute("begin; lock table webhook_internal.stopped_event in exclusive mode")
        .unwrap();
    cluster.sql("drop table orders");
    let waits = "select (detail like '%waits for a lock on webhook_internal.stopped_event%')::text from webhook.worker";
    cluster.wait_for_text(PATIENCE, waits, "true");
    insert(&cluster, 1..=5);
    receiver.wait_for(PATIENCE, "/ok/other", 5);
    assert_eq!(told(&receiver, "/ok/ops"), []);
    lock.batch_execute("rollback").unwrap();
    receiver.wait_for(PATIENCE, "/ok/ops", EVENTS as u64);
    // The table may be looked at once more.
    insert(&cluster, 6..=6);
    receiver.wait_for(PATIENCE, "/ok/other", 6);
    let events = told(&receiver, "/ok/ops");
    let ids: BTreeMap<String, usize> =
        events.iter().fold(BTreeMap::new(), |mut ids, (_, record)| {
            *ids.entry(record["event_id"].to_string()).or_default() += 1;
            ids
        });
    assert_eq!(ids.len(), EVENTS);
    assert_eq!(events.len(), EVENTS, "{ids:?}");
}
