//! The numbers that webhook.metrics shows.

use std::collections::BTreeSet;

use super::support::definitions::wait_idle;
use super::support::items::{cluster_with, insert, pause, watch};
use super::support::PATIENCE;

#[test]
fn the_metrics_show_every_number_to_a_reader() {
    let (cluster, receiver) = cluster_with("metrics", "1h");
    watch(&cluster, &receiver, "good", &["/ok"], "");
    watch(
        &cluster,
        &receiver,
        "bad",
        &["/status/500", "/status/410"],
        "",
    );
    insert(&cluster, 1..=3);
    wait_idle(&cluster);
    pause(&cluster, "good");
    insert(&cluster, 4..=4);
    let histograms = "select count(distinct labels ->> 'webhook')::text from webhook.metrics
                      where name = 'webhook_call_duration_seconds_count'";
    cluster.wait_for_text(PATIENCE, histograms, "2");
    cluster.sql("create role a_reader login in role webhook_reader");
    let mut reader = cluster.connect_as("a_reader", "postgres");
    let rows = reader
        .query(
            "select name, coalesce(labels ->> 'webhook', ''),
                    coalesce(regexp_replace(labels ->> 'outgoing_url', '.*:[0-9]+', ''), ''), value
             from webhook.metrics order by 1, 2, 3",
            &[],
        )
        .unwrap();
    let of = |name: &str| -> Vec<String> {
        rows.iter()
            .filter(|row| row.get::<_, &str>(0) == name)
            .map(|row| {
                let place = [row.get::<_, &str>(1), row.get::<_, &str>(2)].concat();
                format!("{place} {}", row.get::<_, f64>(3))
            })
            .collect()
    };
    assert_eq!(of("webhook_messages_total"), ["bad 4", "good 4"]);
    assert_eq!(of("webhook_worker_up"), [" 1"]);
    assert_eq!(
        of("webhook_failed_messages"),
        ["bad/status/410 0", "bad/status/500 0", "good/ok 0"]
    );
    assert_eq!(
        of("webhook_url_disabled"),
        ["bad/status/410 1", "bad/status/500 0", "good/ok 0"]
    );
    let positive = |name: &str| {
        let found = of(name);
        assert_eq!(found.len(), 1, "{name}: {found:?}");
        assert!(!found[0].ends_with(" 0"), "{name}: {found:?}");
    };
    positive("webhook_outbox_bytes");
    positive("webhook_call_log_bytes");
    let names: BTreeSet<&str> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(names.len(), 22, "{names:?}");

    assert_eq!(of("webhook_event_disabled"), ["bad 0", "good 0"]);

    // The same numbers as the views that they are taken from.
    let difference = cluster.psql(
        "with viewed (name, label, value) as (
             select 'webhook_calls_total', id, calls from webhook.events
             union all select 'webhook_call_errors_total', id, errors from webhook.events
             union all select 'webhook_messages_total', id, messages from webhook.events
             union all select 'webhook_pending_messages', outgoing_url, pending from webhook.queue
             union all select 'webhook_retrying_messages', outgoing_url, retrying from webhook.queue
             union all select 'webhook_failed_messages', outgoing_url, failed from webhook.queue
             union all select 'webhook_url_backing_off', outgoing_url, (state = 'backing_off')::integer
                       from webhook.queue),
         measured (name, label, value) as (
             select name, coalesce(labels ->> 'outgoing_url', labels ->> 'event_id'), value
             from webhook.metrics
             where name in (select name from viewed))
         (select * from viewed except select * from measured)
         union all (select * from measured except select * from viewed)",
    );
    assert_eq!(difference, "");
    assert_eq!(of("webhook_pending_messages")[2], "good/ok 1");
    let waits: f64 = cluster.value(
        "select value from webhook.metrics
         where name = 'webhook_oldest_pending_seconds' and labels ->> 'webhook' = 'good'",
    );
    assert!(waits > 0.0 && waits < 60.0, "{waits} s");
    // Of a URL that refuses everything the message waits for its retry.
    assert!(of("webhook_retrying_messages")[1].starts_with("bad/status/500 "));
    assert_ne!(of("webhook_retrying_messages")[1], "bad/status/500 0");
}

#[test]
fn an_event_that_ddl_has_switched_off_is_in_a_metric() {
    let (cluster, receiver) = cluster_with("metrics-disabled", "1h");
    watch(&cluster, &receiver, "w", &["/ok"], "");
    cluster.sql(
        "create table notes (id integer, text text);
         select webhook.create_event('w', 'notes', 'table.recordInsert');
         select webhook.create_event('w', 'notes', 'table.recordInsert', payload_fields => array['text']);
         select webhook.create_event('w', 'notes', 'table.recordUpdate', enabled => false)",
    );
    let disabled = "select coalesce(string_agg(concat_ws(' ', e.object_name, e.event_type, e.detail), ', ' order by e.detail), '')
                    from webhook.metrics m
                    join webhook.events e on e.id = m.labels ->> 'event_id'
                    where m.name = 'webhook_event_disabled' and m.value = 1";
    assert_eq!(cluster.value::<String>(disabled), "");
    cluster.sql("alter table notes drop column text");
    assert_eq!(
        cluster.value::<String>(disabled),
        "notes table.recordInsert column was dropped: text"
    );
    cluster.sql("drop table items; alter table notes disable trigger user");
    assert_eq!(
        cluster.value::<String>(disabled),
        "notes table.recordInsert column was dropped: text, \
         items table.recordInsert its table was dropped, notes table.recordInsert its trigger is disabled"
    );
}
