//! A thousand webhooks that are behind in one stretch of messages, because no worker ran.

use std::time::{Duration, Instant};

use super::report::{Line, Report, Target};
use super::support::{Cluster, Receiver};

const WEBHOOKS: u64 = 1_000;
/// Unless WEBHOOK_BENCH_LAG names another number for a quick trial.
const MESSAGES: u64 = 2_000_000;
const SIZE_VARIABLE: &str = "WEBHOOK_BENCH_LAG";
const ROWS_A_TRANSACTION: u64 = 1_000;
/// The slowest rate that is waited for.
const SLOWEST_A_SECOND: u64 = 500;

fn messages() -> u64 {
    std::env::var(SIZE_VARIABLE).map_or(MESSAGES, |text| {
        let size = text.parse();
        size.unwrap_or_else(|_| {
            panic!("{SIZE_VARIABLE} must be a number of messages, not {text:?}")
        })
    })
}

pub fn many_lag(cluster: &Cluster, receiver: &Receiver, report: &mut Report) {
    let messages = messages();
    let one = stretch(cluster, receiver, "one", 1, messages);
    let many = stretch(cluster, receiver, "many", WEBHOOKS, messages);
    report.add(Line {
        name: "P20",
        what: format!("{WEBHOOKS} webhooks behind in {messages} messages, worker was away / one"),
        ours: many,
        compared_with: one,
        unit: "calls/s",
        ratio: many / one,
        target: Some(Target::AtLeast(0.5)),
    });
}

/// Calls a second from the start of the worker to the last of the messages.
fn stretch(
    cluster: &Cluster,
    receiver: &Receiver,
    name: &str,
    webhooks: u64,
    messages: u64,
) -> f64 {
    let path = format!("/count/{name}");
    let url = receiver.url(&path);
    cluster.sql(&format!(
        "create table {name} (id bigint, tenant integer, note text);
         do $$
         begin
             for n in 0..{webhooks} - 1 loop
                 perform webhook.create_webhook('{name} ' || n, array['{url}/' || n], max_in_flight => 16);
                 perform webhook.create_event('{name} ' || n, '{name}', 'table.recordInsert',
                                              match => jsonb_build_object('tenant', n));
             end loop;
         end $$;
         select webhook.stop_worker()"
    ));
    // A statement of its own, since it commits.
    cluster.sql(&format!(
        "do $$
         begin
             for at in 0..{messages} - 1 by {ROWS_A_TRANSACTION} loop
                 insert into {name}
                 select i, i % {webhooks}, 'a note'
                 from generate_series(at, least(at + {ROWS_A_TRANSACTION}, {messages}) - 1) i;
                 commit;
             end loop;
         end $$"
    ));
    let patience = Duration::from_secs(120 + messages / SLOWEST_A_SECOND);
    receiver.reset();
    let started = Instant::now();
    cluster.sql("select webhook.start_worker()");
    receiver.wait_for(patience, &path, messages);
    let rate = messages as f64 / started.elapsed().as_secs_f64();
    let idle: bool = cluster.value("select webhook.wait_idle('120 seconds')");
    assert!(idle, "everything was settled");
    assert_eq!(
        receiver.count(&path).requests,
        messages,
        "each message once"
    );
    rate
}
