//! Many webhooks are defined and few are in use.

use super::support::definitions::wait_idle;
use super::support::items::stop_worker;
use super::support::{ready_cluster, ready_cluster_with, Cluster, PATIENCE};

/// Defined beside the one that is used.
const OTHERS: i64 = 1_000;

/// Webhooks with an event each on a table of their own, as `create_webhook` and `create_event`
/// would make them.
fn define_others(cluster: &Cluster) {
    cluster.sql(&format!(
        "create table others (id integer primary key);
         insert into webhook.webhook_def (id, name, enabled, headers, timeout_ms, max_attempts, max_age,
                                          max_in_flight, delivery_order, log_level, created_by)
         select lpad(n::text, 6, 'w'), 'other ' || n, true, '{{}}', 1000, 5, '1 day', 4, 'none', 'all', 'test'
         from generate_series(1, {OTHERS}) n;
         insert into webhook.secret_def (webhook_key, secret)
         select webhook_key, 'whsec_' || encode(decode(md5(id) || md5(name), 'hex'), 'base64')
         from webhook.webhook_def where name like 'other %';
         insert into webhook.url_def (webhook_key, position, url)
         select webhook_key, 1, 'http://127.0.0.1:9/' || id
         from webhook.webhook_def where name like 'other %';
         insert into webhook.event_def (id, webhook_key, event_type, object_name, enabled, null_style,
                                        list_style, created_by)
         select 'e' || substr(id, 2), webhook_key, 'table.recordInsert', 'others', true, 'typed', 'array', 'test'
         from webhook.webhook_def where name like 'other %'"
    ));
}

/// Each reading of a webhook's definitions reads its secrets, and nothing else does. Events are read, page by page,
/// also to see whether they have stopped.
fn definitions_read(cluster: &Cluster) -> i64 {
    cluster.value(
        "select coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)
         from pg_stat_all_tables
         where schemaname = 'webhook' and relname = 'secret_def'",
    )
}

#[test]
fn a_change_reads_the_webhook_that_changed_and_no_other() {
    // ANALYZE of a definition table has its definitions read again.
    let (cluster, receiver) = ready_cluster_with("many_webhooks", &[("autovacuum", "off")]);
    cluster.sql("create table customers (id integer primary key)");
    let url = receiver.url("/ok/used");
    cluster.sql(&format!(
        "select webhook.create_webhook('used', array['{url}']);
         select webhook.create_event('used', 'customers', 'table.recordInsert')"
    ));
    // Not first: definitions that no function has made look like those of another database.
    define_others(&cluster);
    cluster.sql("insert into customers values (0)");
    receiver.wait_for(PATIENCE, "/ok/used", 1);
    // A process reports what it has counted once a second at most, and the rest at its end.
    stop_worker(&cluster);
    let before = definitions_read(&cluster);
    cluster.sql("select webhook.start_worker()");

    for change in 1..=5 {
        cluster.sql(
            "update webhook.webhook_def set timeout_ms = timeout_ms + 1
             where webhook_key = (select max(webhook_key) from webhook.webhook_def)",
        );
        cluster.sql(&format!("insert into customers values ({change})"));
        receiver.wait_for(PATIENCE, "/ok/used", change + 1);
    }
    stop_worker(&cluster);
    let read = definitions_read(&cluster) - before;
    assert!(
        (1..OTHERS).contains(&read),
        "five changes of one webhook read {read} secrets"
    );
}

#[test]
fn a_webhook_that_was_idle_for_long_gets_its_messages_whatever_happened_to_it() {
    let (cluster, receiver) = ready_cluster("idle_webhooks");
    cluster.sql("create table customers (id integer primary key, name text)");
    let names = ["a", "b", "c", "d", "e"];
    for name in names {
        let url = receiver.url(&format!("/ok/{name}"));
        cluster.sql(&format!(
            "select webhook.create_webhook('{name}', array['{url}']);
             select webhook.create_event('{name}', 'customers', 'table.recordInsert')"
        ));
    }
    cluster.sql("insert into customers values (1)");
    wait_idle(&cluster);
    // With as many URLs as here the test's worker forgets those that are idle.
    cluster.sql(
        "select webhook.redeliver((select message_id from webhook.messages where webhook_id = (select id from webhook.webhooks where name = 'a')));
         select webhook.pause_webhook('b');
         select webhook.update_webhook('c', max_in_flight => 1, delivery_order => 'fifo')",
    );
    receiver.wait_for(PATIENCE, "/ok/a", 2);
    cluster.sql("insert into customers values (2)");
    for (name, count) in [("a", 3), ("c", 2), ("d", 2), ("e", 2)] {
        receiver.wait_for(PATIENCE, &format!("/ok/{name}"), count);
    }
    assert_eq!(receiver.received_at("/ok/b").len(), 1);
    cluster.sql("select webhook.cancel_pending('b'); select webhook.resume_webhook('b')");
    cluster.sql("insert into customers values (3)");
    receiver.wait_for(PATIENCE, "/ok/b", 2);
    wait_idle(&cluster);
    let pending: String = cluster.value("select string_agg(pending::text, ',') from webhook.queue");
    assert_eq!(pending, "0,0,0,0,0");
}
