//! What the server log says of what the worker does by itself.

use super::support::watched::{insert_items, watch_items_at};
use super::support::{ready_cluster, Cluster, Receiver, PATIENCE};

fn wait_for_line(cluster: &Cluster, wanted: &str) {
    let found = || {
        let log = cluster.log();
        let line = log.lines().find(|line| line.contains(wanted));
        line.map(str::to_owned)
    };
    cluster.wait_until(PATIENCE, wanted, || found().ok_or_else(|| cluster.log()));
}

#[test]
fn messages_that_are_given_up_and_urls_that_are_switched_off_are_named_without_secrets() {
    let cluster = Cluster::builder("serverlog")
        .set("webhook.allowed_networks", "127.0.0.1")
        .set("webhook.retry_schedule", "10ms")
        .start();
    cluster.sql("create extension webhook_ext");
    let receiver = Receiver::start();
    let path = |status| receiver.url(&format!("/status/{status}/hidden-path?token=hidden-value"));
    watch_items_at(&cluster, "failing", &path(500), ", max_attempts => 2");
    watch_items_at(&cluster, "gone", &path(410), "");
    insert_items(&cluster, 1..=3);
    let port = receiver.port();
    wait_for_line(
        &cluster,
        &format!("webhook \"gone\", 127.0.0.1:{port}: this URL is off from now on, because the receiver answered 410 Gone"),
    );
    wait_for_line(
        &cluster,
        &format!("webhook \"failing\", 127.0.0.1:{port}: "),
    );
    wait_for_line(&cluster, "after call 2: answered 500 Internal Server Error");
    let log = cluster.log();
    assert!(!log.contains("hidden"), "{log}");
    assert_eq!(log.matches("this URL is off").count(), 1, "{log}");
}

#[test]
fn what_a_role_switches_off_and_on_is_named() {
    let (cluster, receiver) = ready_cluster("switched");
    watch_items_at(&cluster, "orders", &receiver.url("/ok"), "");
    cluster.sql(
        "create role operator login in role webhook_admin;
         set session authorization operator;
         select webhook.pause_webhook('orders');
         select webhook.resume_webhook('orders');
         select webhook.stop_worker();
         select webhook.start_worker();
         select webhook.drop_webhook('orders')",
    );
    for line in [
        "webhook \"orders\" is paused by role \"operator\"",
        "webhook \"orders\" is resumed by role \"operator\"",
        "the webhook worker of this database: stop by role \"operator\"",
        "the webhook worker of this database: start by role \"operator\"",
        "webhook \"orders\" is dropped by role \"operator\"",
    ] {
        wait_for_line(&cluster, line);
    }
}
