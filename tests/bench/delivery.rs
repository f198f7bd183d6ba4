//! How soon and how fast messages leave.

use std::collections::HashMap;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::report::{percentile, Line, Report, Target};
use super::support::{Cluster, Receiver};

const SAMPLES: i64 = 1000;
const DRAINED: i64 = 200_000;
/// Calls in flight to one URL, and threads of the bare client beside it.
pub const THREADS: usize = 16;
/// Bytes of the body that the bare client sends: that of the drained messages.
const BODY_BYTES: usize = 330;
const PATIENCE: Duration = Duration::from_secs(120);

fn now_us() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |elapsed| elapsed.as_micros() as i64)
}

/// Milliseconds from COMMIT to the receipt of each message, one message at a time: a row
/// in `table` is a POST to `path`, which the receiver keeps. The rows' ids begin at `first`.
pub fn latencies(
    cluster: &Cluster,
    receiver: &Receiver,
    (table, path): (&str, &str),
    first: i64,
    samples: i64,
) -> Vec<f64> {
    let mut session = cluster.connect("postgres");
    let insert = session
        .prepare(&format!("insert into {table} values ($1, 'a name')"))
        .expect("the statement is valid");
    let before = receiver.count(path).requests;
    let mut committed = HashMap::new();
    for id in first..first + samples {
        session
            .execute(&insert, &[&id])
            .expect("the row is inserted");
        committed.insert(id, now_us());
        receiver.wait_for(PATIENCE, path, before + committed.len() as u64);
    }
    let received = receiver.received_at(path);
    let latencies: Vec<f64> = received
        .iter()
        .filter_map(|post| {
            let id = post.body()["data"][0]["id"].as_i64()?;
            Some((post.received_at_us as i64 - committed.get(&id)?) as f64 / 1000.0)
        })
        .collect();
    assert_eq!(latencies.len(), committed.len(), "each message comes once");
    latencies
}

pub fn latency(cluster: &Cluster, receiver: &Receiver, report: &mut Report) {
    let url = receiver.url("/ok");
    cluster.sql(&format!(
        "create table item (id bigint primary key, name text);
         select from webhook.create_webhook('bench', array['{url}']);
         select from webhook.create_event('bench', 'item', 'table.recordInsert')"
    ));
    let mut latencies = latencies(cluster, receiver, ("item", "/ok"), 0, SAMPLES);
    for (what, share, limit) in [("p50", 0.5, 0.5), ("p99", 0.99, 3.0)] {
        report.add(Line::limited(
            "P4",
            format!("COMMIT returned -> POST received, {what} of {SAMPLES}"),
            percentile(&mut latencies, share),
            "ms",
            Target::OursAtMost(limit),
        ));
    }
}

pub fn drain(cluster: &Cluster, receiver: &Receiver, report: &mut Report) {
    let url = receiver.url("/count");
    cluster.sql(&format!(
        "create table item (id bigint primary key, name text, note text);
         select from webhook.create_webhook('bench', array['{url}'], max_in_flight => {THREADS});
         select from webhook.create_event('bench', 'item', 'table.recordInsert');
         select webhook.pause_webhook('bench');
         insert into item select i, 'name ' || i, 'a note' from generate_series(1, {DRAINED}) i"
    ));
    let bare = bare_calls_per_second(&url);
    receiver.reset();
    let start = Instant::now();
    cluster.sql("select webhook.resume_webhook('bench')");
    receiver.wait_for(PATIENCE, "/count", DRAINED as u64);
    let ours = DRAINED as f64 / start.elapsed().as_secs_f64();
    cluster.wait_until(PATIENCE, "every call is logged", || {
        let logged: i64 = cluster.value("select count(*) from webhook.calls");
        if logged == DRAINED {
            Ok(())
        } else {
            Err(format!("{logged} logged"))
        }
    });
    report.add(Line {
        name: "P5",
        what: format!("drain of {DRAINED} messages to one URL, each call logged"),
        ours,
        compared_with: bare,
        unit: "calls/s",
        ratio: ours / bare,
        target: Some(Target::AtLeast(0.5)),
    });
}

/// The same requests from ureq alone, with a pinned resolver, in a process of its own.
fn bare_calls_per_second(url: &str) -> f64 {
    let output = Command::new(env!("CARGO_BIN_EXE_webhook-http-bench"))
        .args([url, &THREADS.to_string(), "3", &BODY_BYTES.to_string()])
        .output()
        .expect("the bare client runs");
    let line = String::from_utf8_lossy(&output.stdout).into_owned();
    let results: serde_json::Value = serde_json::from_str(line.trim())
        .unwrap_or_else(|error| panic!("not JSON ({error}): {line}"));
    results["bare_ureq_per_s"]
        .as_f64()
        .unwrap_or_else(|| panic!("no bare_ureq_per_s in {line}"))
}
