//! What a large backlog costs: how fast it drains, how quick the views stay meanwhile,
//! and what it takes of the worker's memory.

use std::time::Instant;

use super::footprint::with_peak_private_mb;
use super::report::{median, Line, Report, Target};
use super::support::worker::worker_of;
use super::support::{Cluster, Receiver};
use super::waiting::Waiting;

/// Messages waiting, unless WEBHOOK_BENCH_BACKLOG names another number for a quick trial.
const LARGEST: u64 = 5_000_000;
const SIZE_VARIABLE: &str = "WEBHOOK_BENCH_BACKLOG";
const SMALLER: [u64; 2] = [10_000, 1_000_000];
/// The last so many of the largest backlog are compared with so many that wait alone.
const REFERENCE: u64 = 100_000;
const REFERENCE_ROUNDS: usize = 3;
const MEMORY_LIMIT_MB: f64 = 64.0;
/// What a person who looks at a view does not notice.
const LOOK_LIMIT_MS: f64 = 50.0;
const LOOK_ROUNDS: usize = 3;
/// A look that takes longer is broken off and shown with this time.
const LOOK_GIVEN_UP_MS: u32 = 60_000;

fn largest() -> u64 {
    let Ok(text) = std::env::var(SIZE_VARIABLE) else {
        return LARGEST;
    };
    let size = text.parse();
    size.unwrap_or_else(|_| panic!("{SIZE_VARIABLE} must be a number of messages, not {text:?}"))
}

pub fn backlog(cluster: &Cluster, receiver: &Receiver, report: &mut Report) {
    let mut waiting = Waiting::new(cluster, receiver, "item", "");
    let reference = median(
        (0..REFERENCE_ROUNDS)
            .map(|_| {
                waiting.load(REFERENCE);
                waiting.drain().per_second
            })
            .collect(),
    );
    let show = |report: &mut Report, size: u64, rate: f64| {
        report.add(Line {
            name: "P6",
            what: format!("drain rate, {size} messages waiting"),
            ours: rate,
            compared_with: reference,
            unit: "calls/s",
            ratio: rate / reference,
            target: None,
        });
    };
    show(report, REFERENCE, reference);
    let largest = largest();
    for size in SMALLER.into_iter().filter(|size| *size < largest) {
        waiting.load(size);
        show(report, size, waiting.drain().per_second);
    }
    let worker = worker_of(cluster, "postgres");
    let (drained, peak_mb) = with_peak_private_mb(worker, || {
        waiting.load(largest);
        look_at_views(cluster, largest, report);
        waiting.drain_and_time_last(REFERENCE)
    });
    show(report, largest, drained.per_second);
    report.add(Line {
        name: "P6",
        what: format!("drain rate of the last {REFERENCE} of {largest} / of {REFERENCE}"),
        ours: drained.last_per_second,
        compared_with: reference,
        unit: "calls/s",
        ratio: drained.last_per_second / reference,
        target: Some(Target::AtLeast(0.9)),
    });
    report.add(Line::limited(
        "P12",
        format!("peak private memory of the worker, {largest} messages"),
        peak_mb,
        "MB",
        Target::OursAtMost(MEMORY_LIMIT_MB),
    ));
}

fn look_at_views(cluster: &Cluster, waiting: u64, report: &mut Report) {
    let message_id: String = cluster.value(&format!(
        "select message_id::text from webhook_internal.outbox offset {} limit 1",
        waiting / 2
    ));
    let looks = [
        ("webhook.queue", "select * from webhook.queue".to_owned()),
        ("webhook.worker", "select * from webhook.worker".to_owned()),
        (
            "webhook.webhooks",
            "select * from webhook.webhooks".to_owned(),
        ),
        (
            "webhook.metrics",
            "select * from webhook.metrics".to_owned(),
        ),
        (
            "webhook.messages limit 100",
            "select * from webhook.messages limit 100".to_owned(),
        ),
        (
            "webhook.messages of one message_id",
            format!("select * from webhook.messages where message_id = '{message_id}'"),
        ),
        (
            "webhook.calls of one message_id",
            format!("select * from webhook.calls where message_id = '{message_id}'"),
        ),
    ];
    for (what, query) in looks {
        if let Some(ours) = milliseconds(cluster, &query) {
            report.add(Line::limited(
                "P6",
                format!("look at {what}, {waiting} waiting"),
                ours,
                "ms",
                Target::OursAtMost(LOOK_LIMIT_MS),
            ));
        }
    }
}

/// `None`: there is no such view in this version.
pub fn milliseconds(cluster: &Cluster, query: &str) -> Option<f64> {
    let mut session = cluster.connect("postgres");
    let limit = format!("set statement_timeout = {LOOK_GIVEN_UP_MS}");
    session.batch_execute(&limit).expect("the limit can be set");
    let mut times = Vec::new();
    for _ in 0..LOOK_ROUNDS {
        let started = Instant::now();
        match session.simple_query(query) {
            Ok(_) => times.push(started.elapsed().as_secs_f64() * 1000.0),
            Err(error) => match error.code().map(|code| code.code()) {
                Some("57014") => return Some(f64::from(LOOK_GIVEN_UP_MS)),
                Some("42P01") => return None,
                _ => panic!("{query}: {error:?}"),
            },
        }
    }
    Some(median(times))
}
