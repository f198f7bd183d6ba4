//! Many webhooks at once: a thousand with one URL each share a backlog.

use std::time::{Duration, Instant};

use super::backlog::milliseconds;
use super::report::{Line, Report, Target};
use super::support::{Cluster, Receiver};
use super::waiting::Waiting;

const WEBHOOKS: u64 = 1000;
const MESSAGES: u64 = 100_000;
const PATIENCE: Duration = Duration::from_secs(300);
/// All their URLs lie below it.
const PATH: &str = "/count/many";

/// Each webhook has a table of its own: a thousand triggers on one table would measure those.
fn create_webhooks(cluster: &Cluster, receiver: &Receiver) {
    let url = receiver.url(PATH);
    cluster.sql(&format!(
        "do $$
         begin
             for i in 1..{WEBHOOKS} loop
                 execute format('create table many_%s (id bigint)', i);
                 perform from webhook.create_webhook('many ' || i, array['{url}/' || i]);
                 perform from webhook.create_event(
                     'many ' || i, ('many_' || i)::regclass, 'table.recordInsert');
                 -- Locks of all tables at once would be more than there is room for.
                 commit;
             end loop;
         end $$"
    ));
}

/// Every transaction brings each webhook one message.
fn load(cluster: &Cluster) {
    cluster.sql(&format!(
        "do $$
         begin
             for n in 1..{MESSAGES} / {WEBHOOKS} loop
                 for i in 1..{WEBHOOKS} loop
                     execute format('insert into many_%s values (%s)', i, n);
                 end loop;
                 commit;
             end loop;
         end $$"
    ));
}

fn wait_until_seen(cluster: &Cluster) {
    let unseen = "select (not exists (select from webhook_internal.unseen))::text";
    cluster.wait_for_text(PATIENCE, unseen, "true");
}

fn set_delivery(cluster: &Cluster, on_or_off: &str) {
    cluster.configure("webhook.delivery", on_or_off);
    cluster.reload();
    cluster.wait_for_text(
        PATIENCE,
        "select current_setting('webhook.delivery')",
        on_or_off,
    );
}

/// Calls a second until everything that waits has arrived.
fn drained_per_second(receiver: &Receiver, let_go: impl FnOnce()) -> f64 {
    receiver.reset();
    let started = Instant::now();
    let_go();
    receiver.wait_for(PATIENCE, PATH, MESSAGES);
    MESSAGES as f64 / started.elapsed().as_secs_f64()
}

/// Each webhook has called as often as it had messages, `rounds` times over.
fn check(cluster: &Cluster, receiver: &Receiver, rounds: u64) {
    let idle: bool = cluster.value("select webhook.wait_idle('120 seconds')");
    assert!(idle, "everything was settled");
    let received = receiver.count(PATH).requests;
    let each = rounds * MESSAGES / WEBHOOKS;
    let exact: i64 = cluster.value(&format!(
        "select count(*) from webhook.webhooks
         where name like 'many %' and messages = {each} and calls = {each} and errors = 0"
    ));
    assert_eq!(
        (received, exact),
        (MESSAGES, WEBHOOKS as i64),
        "received, and webhooks with {each} messages and calls: found (left) and expected"
    );
}

pub fn many_webhooks(cluster: &Cluster, receiver: &Receiver, report: &mut Report) {
    let mut one = Waiting::new(cluster, receiver, "item", "");
    one.load(MESSAGES);
    let reference = one.drain().per_second;
    create_webhooks(cluster, receiver);
    let show = |report: &mut Report, what: &str, rate: f64, target| {
        report.add(Line {
            name: "P9",
            what: format!("{MESSAGES} over {WEBHOOKS} webhooks, {what} / to one"),
            ours: rate,
            compared_with: reference,
            unit: "calls/s",
            ratio: rate / reference,
            target,
        });
    };
    set_delivery(cluster, "off");
    load(cluster);
    wait_until_seen(cluster);
    let look = milliseconds(cluster, "select * from webhook.queue");
    let rate = drained_per_second(receiver, || set_delivery(cluster, "on"));
    check(cluster, receiver, 1);
    show(report, "was off", rate, Some(Target::AtLeast(0.5)));
    // A worker that starts reads the tail for all at once; before, each lane read for itself.
    cluster.sql("select webhook.stop_worker()");
    load(cluster);
    let rate = drained_per_second(receiver, || cluster.sql("select webhook.start_worker()"));
    check(cluster, receiver, 2);
    show(report, "no worker", rate, None);
    if let Some(ours) = look {
        report.add(Line::limited(
            "P9",
            format!("look at webhook.queue, {WEBHOOKS} webhooks waiting"),
            ours,
            "ms",
            Target::OursAtMost(50.0),
        ));
    }
}
