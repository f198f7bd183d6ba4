//! What large messages take of the worker's memory: many to a slow URL, one to many slow URLs.

use std::time::Duration;

use super::footprint::with_peak_private_mb;
use super::report::{Line, Report, Target};
use super::support::worker::worker_of;
use super::support::{Cluster, Receiver};

const MESSAGES: u64 = 200;
/// Near the limit of a message's size.
const BODY_BYTES: u64 = 9_000_000;
/// The receiver takes so long for each answer: bodies pile up if anything lets them.
const PATH: &str = "/slow/200/large";
const LIMIT_MB: f64 = 300.0;
const PATIENCE: Duration = Duration::from_secs(300);

/// URLs, with the webhooks that share them out.
const MANY_URLS: [(u64, u64); 2] = [(200, 2), (1000, 10)];

pub fn large_bodies_of_many_urls(cluster: &Cluster, _: &Receiver, report: &mut Report) {
    let receiver = Receiver::start_keeping(1);
    cluster.sql("create table item (id bigint primary key, body text)");
    for (urls, webhooks) in MANY_URLS {
        cluster.sql(&format!(
            "select webhook.drop_webhook(name) from webhook.webhooks;
             truncate item;
             select from generate_series(1, {webhooks}) as n, webhook.create_webhook(
                 'bench' || n,
                 array(select '{}/' || n || '/' || m from generate_series(1, {urls} / {webhooks}) as m),
                 timeout_ms => 600000);
             select from webhook.webhooks as w, webhook.create_event(w.name, 'item', 'table.recordInsert')",
            receiver.url(&format!("{PATH}/{urls}"))
        ));
        let worker = worker_of(cluster, "postgres");
        let path = format!("{PATH}/{urls}");
        let ((), peak_mb) = with_peak_private_mb(worker, || {
            cluster.sql(&format!(
                "insert into item values (1, repeat('0123456789', {BODY_BYTES} / 10))"
            ));
            receiver.wait_for(PATIENCE * 2, &path, urls);
            let idle: bool = cluster.value("select webhook.wait_idle('60 seconds')");
            assert!(idle, "everything was answered");
        });
        assert_eq!(receiver.count(&path).requests, urls, "each URL got it once");
        report.add(Line::limited(
            "P12",
            format!("peak private memory, 9 MB to each of {urls} slow URLs"),
            peak_mb,
            "MB",
            Target::OursAtMost(LIMIT_MB),
        ));
    }
}

pub fn large_bodies(cluster: &Cluster, _: &Receiver, report: &mut Report) {
    // The requests of a path that is not just counted are kept: here that would be 2 GB.
    let receiver = Receiver::start_keeping(1);
    let url = receiver.url(PATH);
    cluster.sql(&format!(
        "create table item (id bigint primary key, body text);
         select from webhook.create_webhook('bench', array['{url}']);
         select from webhook.create_event('bench', 'item', 'table.recordInsert')"
    ));
    let worker = worker_of(cluster, "postgres");
    let ((), peak_mb) = with_peak_private_mb(worker, || {
        cluster.sql(&format!(
            "do $$
             begin
                 for id in 1..{MESSAGES} loop
                     insert into item values (id, repeat('0123456789', {BODY_BYTES} / 10));
                     commit;
                 end loop;
             end $$"
        ));
        receiver.wait_for(PATIENCE, PATH, MESSAGES);
        let idle: bool = cluster.value("select webhook.wait_idle('60 seconds')");
        assert!(idle, "everything was answered");
    });
    let delivered: i64 = cluster.value(&format!(
        "select count(*) from webhook.calls where status = 'Success' and message_size >= {BODY_BYTES}"
    ));
    let received = receiver.count(PATH).requests;
    assert_eq!(
        (received, delivered),
        (MESSAGES, MESSAGES as i64),
        "each message is received and logged once"
    );
    report.add(Line::limited(
        "P12",
        format!("peak private memory, {MESSAGES} x 9 MB to a slow URL"),
        peak_mb,
        "MB",
        Target::OursAtMost(LIMIT_MB),
    ));
}
