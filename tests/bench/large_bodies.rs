//! What large messages to a slow receiver take of the worker's memory.

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
