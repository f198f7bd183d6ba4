//! Logical replication of all tables, the extension's own among them: functions that change
//! definitions go on, and a subscriber with the extension sends nothing twice.

use super::support::definitions::{records_at, wait_idle};
use super::support::items::{inserts, watch};
use super::support::{Cluster, Receiver, PATIENCE};

fn cluster(name: &str) -> Cluster {
    let cluster = Cluster::builder(name)
        .set("wal_level", "logical")
        .set("wal_retrieve_retry_interval", "200ms")
        .set("webhook.allowed_networks", "127.0.0.0/8")
        .set("webhook.retry_schedule", "1h")
        .start();
    cluster.sql("create extension webhook_ext; create table items (id integer primary key)");
    cluster
}

fn subscribe(publisher: &Cluster, subscriber: &Cluster, options: &str) {
    subscriber.sql(&format!(
        "create subscription s connection 'host={} port={} dbname=postgres user=postgres'
         publication everything{options}",
        publisher.directory().display(),
        publisher.port()
    ));
}

#[test]
fn definitions_change_and_messages_go_where_all_tables_are_published() {
    let (cluster, receiver) = (cluster("published"), Receiver::start());
    watch(&cluster, &receiver, "w", &["/ok"], "");
    watch(&cluster, &receiver, "other", &["/ok/other"], "");
    cluster.sql("create publication everything for all tables");
    cluster.sql("insert into items values (1)");
    wait_idle(&cluster);
    cluster.sql(
        "select webhook.regenerate_secret('w');
         select webhook.regenerate_secret('w', overlap => '0');
         select webhook.update_webhook('w', description => 'new', enabled => false);
         select webhook.update_webhook('w', enabled => true);
         select webhook.pause_webhook('w');
         insert into items values (2);
         select webhook.cancel_pending('w');
         select webhook.redeliver(message_id) from webhook.messages where webhook_id = (
             select id from webhook.webhooks where name = 'w') order by event_date desc limit 1;
         select webhook.resume_webhook('w');
         select webhook.drop_event(id) from webhook.events where webhook_name = 'other';
         select webhook.drop_webhook('other');
         insert into items values (3)",
    );
    wait_idle(&cluster);
    let mut received = records_at(&receiver, "/ok");
    received.sort();
    // The newest one that was committed was sent again.
    assert_eq!(received, inserts([1, 1, 2, 3]));
    cluster.sql("select webhook.drop_webhook('w')");
    // Whatever is deleted or updated in a table that is published needs a key.
    let without_key: String = cluster.value(
        "select coalesce(string_agg(c.relname, ', ' order by c.relname), '')
         from pg_class c
         where c.relnamespace::regnamespace::text in ('webhook', 'webhook_internal') and c.relkind = 'r' and c.relreplident = 'd'
           and c.relname !~ '^(outbox|call_log)_[0-3]$'
           and not exists (select from pg_index i where i.indrelid = c.oid and i.indisprimary)",
    );
    assert_eq!(without_key, "");
    assert!(
        !cluster.log().contains("replica identity"),
        "{}",
        cluster.log()
    );
}

/// A webhook on each side for the same table; the subscriber's takes what is applied, too.
fn both_sides(receiver: &Receiver) -> (Cluster, Cluster) {
    let (publisher, subscriber) = (cluster("publisher"), cluster("subscriber"));
    watch(&publisher, receiver, "w", &["/ok/published"], "");
    watch(&subscriber, receiver, "w", &["/ok/subscribed"], "");
    let trigger: String =
        subscriber.value("select trigger_name::text from webhook_internal.event_trigger");
    subscriber.sql(&format!(
        "alter table items enable always trigger {trigger}"
    ));
    publisher.sql(
        "insert into items values (1), (2); create publication everything for all tables;
         create publication application for table items",
    );
    wait_idle(&publisher);
    (publisher, subscriber)
}

fn assert_each_side_sent_once(receiver: &Receiver, ids: std::ops::RangeInclusive<i64>) {
    for path in ["/ok/published", "/ok/subscribed"] {
        let mut received = records_at(receiver, path);
        received.sort();
        assert_eq!(received, inserts(ids.clone()), "{path}");
    }
}

fn wait_for_refusal(subscriber: &Cluster) {
    subscriber.wait_until(PATIENCE, "the refusal in the log", || {
        let log = subscriber.log();
        let said = "of extension webhook_ext cannot be replicated";
        if log.contains(said) && log.contains("CREATE PUBLICATION ... FOR TABLES IN SCHEMA") {
            Ok(())
        } else {
            Err("it says nothing".to_owned())
        }
    });
}

/// What the refusal asks for: a publication that names the tables of the application.
fn follow_the_hint(subscriber: &Cluster) {
    subscriber.sql("alter subscription s set publication application");
}

#[test]
fn a_subscriber_with_the_extension_refuses_its_tables_and_sends_nothing_twice() {
    let receiver = Receiver::start();
    let (publisher, subscriber) = both_sides(&receiver);
    let definitions =
        "select id || url || secret from webhook.webhook_def join webhook.url_def using (webhook_key)
         join webhook.secret_def using (webhook_key)";
    let before: String = subscriber.value(definitions);
    subscribe(&publisher, &subscriber, "");
    publisher.sql("select webhook.regenerate_secret('w')");
    publisher.sql("insert into items values (3)");
    wait_for_refusal(&subscriber);
    follow_the_hint(&subscriber);
    let rows = "select count(*)::text from items";
    subscriber.wait_for_text(PATIENCE, rows, "3");
    publisher.sql("insert into items values (4)");
    subscriber.wait_for_text(PATIENCE, rows, "4");
    wait_idle(&publisher);
    wait_idle(&subscriber);
    // The initial copy fires triggers that are always enabled, too.
    assert_each_side_sent_once(&receiver, 1..=4);
    assert_eq!(subscriber.value::<String>(definitions), before);
    publisher.sql("select webhook.drop_webhook('w')");
    assert_eq!(subscriber.value::<String>(definitions), before);
    unsubscribe(&subscriber);
}

fn unsubscribe(subscriber: &Cluster) {
    subscriber.sql("alter subscription s disable");
    subscriber.sql("alter subscription s set (slot_name = none)");
    subscriber.sql("drop subscription s");
}

#[test]
fn without_the_initial_copy_nothing_of_the_extension_is_applied_either() {
    let receiver = Receiver::start();
    let (publisher, subscriber) = both_sides(&receiver);
    subscribe(&publisher, &subscriber, " with (copy_data = false)");
    publisher.sql("insert into items values (3)");
    wait_for_refusal(&subscriber);
    assert_eq!(receiver.count("/ok/subscribed").requests, 0);
    follow_the_hint(&subscriber);
    subscriber.wait_for_text(PATIENCE, "select count(*)::text from items", "1");
    receiver.wait_for(PATIENCE, "/ok/subscribed", 1);
    wait_idle(&subscriber);
    assert_eq!(records_at(&receiver, "/ok/subscribed"), inserts([3]));
    unsubscribe(&subscriber);
}
