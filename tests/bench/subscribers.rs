//! Many webhooks, each with an event of its own on one table: what a row costs, what sending for
//! one of them costs, and what defining them takes.

use std::fs;
use std::time::{Duration, Instant};

use super::capture::{fill, seconds, BULK_ROWS, COLUMNS};
use super::delivery::latencies;
use super::footprint::private_kb;
use super::report::{median, percentile, Line, Report, Target};
use super::support::worker::worker_of;
use super::support::{Cluster, Receiver};

const ROUNDS: usize = 5;
/// The first is what the others are compared with.
const EVENTS: [i64; 4] = [1, 100, 10_000, 100_000];
/// Values whose first rows are timed, with an event and without.
const UNSEEN: i64 = 200;
/// Pairs of a webhook and an event that are timed.
const PAIRS: i64 = 1_000;

pub fn capture(cluster: &Cluster, receiver: &Receiver, report: &mut Report) {
    cluster.configure("webhook.delivery", "off");
    cluster.reload();
    let url = receiver.url("/count");
    cluster.sql(&format!(
        "select from webhook.create_webhook('bench', array['{url}'])"
    ));
    // Rows of `bare` have the same column and no event.
    for table in ["bare", "captured"] {
        cluster.sql(&format!(
            "create table {table} {COLUMNS}; alter table {table} add column tenant integer default 1"
        ));
    }
    let mut defined = 0;
    let mut of_one = 0.0;
    for count in EVENTS {
        define(cluster, defined + 1, count);
        defined = count;
        let extra = extra_a_row(cluster);
        if of_one == 0.0 {
            of_one = extra;
        }
        report.add(Line {
            name: "P15",
            what: format!("{count} events with match, one of them matches: extra time a row"),
            ours: extra,
            compared_with: of_one,
            unit: "us/row",
            ratio: extra / of_one,
            target: (count > 1).then_some(Target::AtMost(1.5)),
        });
        for (what, from) in [("has an event", 2), ("has none", 1_000_000)] {
            let first = first_row(cluster, from, count);
            report.add(Line::limited(
                "P15",
                format!("{count} events: first row of a value that {what}: extra time"),
                first,
                "ms",
                Target::OursAtMost(0.2),
            ));
        }
    }
    pairs(cluster, report);
}

/// Each for a tenant of its own.
fn define(cluster: &Cluster, from: i64, to: i64) {
    cluster.sql(&format!(
        "select count(*)
         from generate_series({from}, {to}) n
         cross join webhook.create_event('bench', 'captured', 'table.recordInsert',
                                         match => jsonb_build_object('tenant', n));
         analyze webhook.event_def"
    ));
}

fn extra_a_row(cluster: &Cluster) -> f64 {
    let mut extra = Vec::new();
    for _ in 0..ROUNDS {
        let time = |table: &str| seconds(cluster, &[&format!("truncate {table}")], &fill(table));
        let bare = time("bare");
        extra.push((time("captured") - bare) * 1e6 / BULK_ROWS as f64);
    }
    median(extra)
}

/// Milliseconds that the first row of a value takes longer than the second.
fn first_row(cluster: &Cluster, from: i64, count: i64) -> f64 {
    let mut session = cluster.connect("postgres");
    session
        .batch_execute("truncate captured; insert into captured (id) values (0)")
        .expect("the preparation works");
    let insert = session
        .prepare("insert into captured (id, tenant) values ($1, $2)")
        .expect("the statement is valid");
    let mut extra = Vec::new();
    for step in 0..UNSEEN {
        // With few events, their values are soon all seen: those after them have none.
        let tenant = (from + step * (count / UNSEEN).max(1)) as i32;
        let mut time = |id: i64| {
            let start = Instant::now();
            session
                .execute(&insert, &[&id, &tenant])
                .expect("the row is inserted");
            start.elapsed().as_secs_f64() * 1e3
        };
        let first = time(2 * step + 1);
        extra.push(first - time(2 * step + 2));
    }
    median(extra)
}

/// In one transaction, while another session writes to the table.
fn pairs(cluster: &Cluster, report: &mut Report) {
    let mut writer = cluster.connect("postgres");
    writer
        .batch_execute("begin; insert into captured (id) values (-1)")
        .expect("the row is inserted");
    let start = Instant::now();
    cluster.sql(&format!(
        "do $$
         begin
             for n in 1..{PAIRS} loop
                 perform webhook.create_webhook('pair ' || n, array['https://example.com/' || n]);
                 perform webhook.create_event('pair ' || n, 'captured', 'table.recordInsert',
                                              match => jsonb_build_object('tenant', -n));
             end loop;
         end
         $$"
    ));
    let rate = PAIRS as f64 / start.elapsed().as_secs_f64();
    writer.batch_execute("rollback").expect("it ends");
    report.add(Line::limited(
        "P17",
        format!(
            "webhooks with an event, defined beside {} events and a writer",
            EVENTS[EVENTS.len() - 1]
        ),
        rate,
        "pairs/s",
        Target::OursAtLeast(1_000.0),
    ));
}

/// Webhooks that are defined beside the one that is used.
const DEFINED: u64 = 100_000;
const DEFINED_A_TRANSACTION: u64 = 1_000;
/// Messages that are timed one by one.
const SAMPLES: i64 = 2_000;
const IDLE: Duration = Duration::from_secs(30);
const UPDATES: i64 = 100;
const PATIENCE: Duration = Duration::from_secs(600);
/// Of the processor times in /proc.
const TICKS_A_SECOND: f64 = 100.0;
const PATH: &str = "/ok/used";

/// What sending for one webhook takes of the worker.
struct Sending {
    p50_ms: f64,
    p99_ms: f64,
    cpu_us_a_message: f64,
    idle_cpu_percent: f64,
    private_mb: f64,
}

/// Sending for one webhook alone, and beside many others that are defined.
pub fn sending(cluster: &Cluster, receiver: &Receiver, report: &mut Report) {
    let url = receiver.url(PATH);
    cluster.sql(&format!(
        "create table used (id bigint primary key, name text);
         create table others (id bigint primary key, tenant integer);
         select from webhook.create_webhook('used', array['{url}']);
         select from webhook.create_event('used', 'used', 'table.recordInsert')"
    ));
    let alone = measure(cluster, receiver, 0);
    define_others(cluster, receiver);
    let beside = measure(cluster, receiver, SAMPLES);
    for (what, ours, compared_with, unit) in [
        ("p50", beside.p50_ms, alone.p50_ms, "ms"),
        ("p99", beside.p99_ms, alone.p99_ms, "ms"),
        (
            "worker CPU a message",
            beside.cpu_us_a_message,
            alone.cpu_us_a_message,
            "us",
        ),
    ] {
        report.add(Line {
            name: "P16",
            what: format!("{DEFINED} webhooks defined, one used: {what} / alone"),
            ours,
            compared_with,
            unit,
            ratio: ours / compared_with,
            target: Some(Target::AtMost(2.0)),
        });
    }
    report.add(Line::limited(
        "P16",
        format!("{DEFINED} webhooks: CPU of the worker without changes"),
        beside.idle_cpu_percent,
        "% of a core",
        Target::OursAtMost(0.2),
    ));
    report.add(Line::limited(
        "P16",
        format!(
            "{DEFINED} webhooks: private memory of the worker (alone {:.1})",
            alone.private_mb
        ),
        beside.private_mb,
        "MB",
        Target::OursAtMost(150.0),
    ));
    updates(cluster, receiver, report);
}

fn measure(cluster: &Cluster, receiver: &Receiver, first: i64) -> Sending {
    let worker = worker_of(cluster, "postgres");
    // Connections and plans are made.
    let path = PATH;
    receiver.reset();
    latencies(cluster, receiver, ("used", path), -first - 100, 100);
    receiver.reset();
    let before = cpu_seconds(worker);
    let mut times = latencies(cluster, receiver, ("used", path), first + 1, SAMPLES);
    let cpu_us_a_message = (cpu_seconds(worker) - before) * 1e6 / SAMPLES as f64;
    let idle: bool = cluster.value("select webhook.wait_idle('60 seconds')");
    assert!(idle, "everything was settled");
    let before = cpu_seconds(worker);
    std::thread::sleep(IDLE);
    let idle_cpu_percent = (cpu_seconds(worker) - before) / IDLE.as_secs_f64() * 100.0;
    Sending {
        p50_ms: percentile(&mut times, 0.5),
        p99_ms: percentile(&mut times, 0.99),
        cpu_us_a_message,
        idle_cpu_percent,
        private_mb: private_kb(worker) as f64 / 1024.0,
    }
}

fn define_others(cluster: &Cluster, receiver: &Receiver) {
    let url = receiver.url("/ok/others");
    cluster.sql(&format!(
        "do $$
         begin
             for n in 1..{DEFINED} loop
                 perform webhook.create_webhook('other ' || n, array['{url}/' || n]);
                 perform webhook.create_event('other ' || n, 'others', 'table.recordInsert',
                                              match => jsonb_build_object('tenant', n));
                 if n % {DEFINED_A_TRANSACTION} = 0 then
                     commit;
                 end if;
             end loop;
         end $$"
    ));
}

/// From the commit of a change of the webhook to the receipt of the first message after it, which
/// has to show the change.
fn updates(cluster: &Cluster, receiver: &Receiver, report: &mut Report) {
    let mut session = cluster.connect("postgres");
    let mut times = Vec::new();
    let before = receiver.count(PATH).requests;
    for round in 1..=UPDATES {
        session
            .batch_execute(&format!(
                "select webhook.update_webhook('used', headers => '{{\"x-round\": \"{round}\"}}')"
            ))
            .expect("the webhook is changed");
        let start = Instant::now();
        session
            .batch_execute(&format!(
                "insert into used values ({}, 'x')",
                -1_000_000 - round
            ))
            .expect("the row is inserted");
        receiver.wait_for(PATIENCE, PATH, before + round as u64);
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    let received = receiver.received_at(PATH);
    let last = received.iter().rev().take(UPDATES as usize).rev();
    for (round, post) in (1..).zip(last) {
        assert_eq!(
            post.header("x-round"),
            i64::to_string(&round),
            "the change took effect"
        );
    }
    report.add(Line::limited(
        "P17",
        format!("{DEFINED} webhooks: commit of update_webhook -> POST of the first message, p50"),
        percentile(&mut times, 0.5),
        "ms",
        Target::OursAtMost(20.0),
    ));
}

/// Processor time of a process with all its threads.
fn cpu_seconds(pid: i32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process is there");
    let (_, fields) = stat.rsplit_once(')').expect("a name in parentheses");
    // utime and stime are the 14th and 15th fields; the first after the name is the third.
    let ticks = fields.split_whitespace().skip(11).take(2);
    ticks
        .filter_map(|field| field.parse::<f64>().ok())
        .sum::<f64>()
        / TICKS_A_SECOND
}
