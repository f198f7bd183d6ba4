//! What outbox and log take on disk while they rotate under steady load.

use std::time::Duration;

use super::report::{Line, Report, Target};
use super::support::{Cluster, Receiver};

/// Small, so that ten rotations come soon.
const LOG_MAX_SIZE: &str = "64MB";
const ROTATIONS: u32 = 10;
const ROWS_A_STEP: u64 = 10_000;
/// The receiver may be so many messages behind: the load is steady, not a backlog.
const BEHIND_AT_MOST: u64 = 20_000;
/// About thirty times the size from which on there is rotation.
const ROWS_AT_MOST: u64 = 4_000_000;
const PATIENCE: Duration = Duration::from_secs(120);
const PATH: &str = "/count/disk";

const OUTBOX_NUMBER: &str = "select outbox_number::integer from webhook.control";

const SIZE: &str = "
select sum(pg_total_relation_size(oid))::float8 / 1048576
from pg_class
where relnamespace::regnamespace::text in ('webhook', 'webhook_internal') and relkind = 'r' and relname ~ '^(outbox|call_log)_[0-9]+$'";

/// The rows that are there, once, in tables with the same indexes.
const COPY: &str = "
create table copied_outbox (like webhook.outbox_0 including all);
create table copied_log (like webhook_internal.call_log_0 including all);
insert into copied_outbox select * from webhook_internal.outbox;
insert into copied_log select * from webhook_internal.call_log";

const COPIED_SIZE: &str = "
select (pg_total_relation_size('copied_outbox') + pg_total_relation_size('copied_log'))::float8 / 1048576";

pub fn disk(cluster: &Cluster, receiver: &Receiver, report: &mut Report) {
    cluster.configure("webhook.log_max_size", LOG_MAX_SIZE);
    cluster.reload();
    let url = receiver.url(PATH);
    cluster.sql(&format!(
        "create table item (id bigint primary key, name text, note text);
         select from webhook.create_webhook('bench', array['{url}']);
         select from webhook.create_event('bench', 'item', 'table.recordInsert')"
    ));
    let (mut rotations, mut loaded, mut largest) = (0, 0, 0.0_f64);
    let mut number: i32 = cluster.value(OUTBOX_NUMBER);
    while rotations < ROTATIONS && loaded < ROWS_AT_MOST {
        cluster.sql(&format!(
            "insert into item select i, 'name ' || i, 'a note'
             from generate_series({loaded}, {loaded} + {ROWS_A_STEP} - 1) i"
        ));
        loaded += ROWS_A_STEP;
        receiver.wait_for(PATIENCE, PATH, loaded.saturating_sub(BEHIND_AT_MOST));
        let now: i32 = cluster.value(OUTBOX_NUMBER);
        rotations += u32::from(now != number);
        number = now;
        largest = largest.max(cluster.value(SIZE));
    }
    receiver.wait_for(PATIENCE, PATH, loaded);
    assert_eq!(
        receiver.count(PATH).requests,
        loaded,
        "each message comes once"
    );
    add_lines(cluster, rotations, loaded, largest, report);
}

fn add_lines(cluster: &Cluster, rotations: u32, loaded: u64, largest: f64, report: &mut Report) {
    let idle: bool = cluster.value("select webhook.wait_idle('60 seconds')");
    assert!(idle, "everything was settled");
    let size: f64 = cluster.value(SIZE);
    let rows: i64 = cluster.value("select count(*) from webhook_internal.outbox");
    cluster.sql(COPY);
    let copied: f64 = cluster.value(COPIED_SIZE);
    report.add(Line {
        name: "P14",
        what: format!("outbox + log after {rotations} rotations / its {rows} messages once"),
        ours: size,
        compared_with: copied,
        unit: "MB",
        ratio: size / copied,
        // Without the rotations that were waited for there is nothing to judge.
        target: (rotations >= ROTATIONS).then_some(Target::AtMost(1.3)),
    });
    let limit: f64 = cluster.value(&format!(
        "select pg_size_bytes('{LOG_MAX_SIZE}')::float8 / 1048576"
    ));
    report.add(Line {
        name: "P14",
        what: format!("largest size in {loaded} messages / log_max_size"),
        ours: largest,
        compared_with: limit,
        unit: "MB",
        ratio: largest / limit,
        target: None,
    });
}
