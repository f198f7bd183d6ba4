//! Many events with `match` on one table: what a row costs, and what defining them takes.

use std::time::Instant;

use super::capture::{fill, seconds, BULK_ROWS, COLUMNS};
use super::report::{median, Line, Report, Target};
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
        let time = |table: &str| seconds(cluster, &format!("truncate {table}"), &fill(table));
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
