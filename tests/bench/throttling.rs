//! How exactly a throttle keeps its rate.

use std::time::Duration;

use super::report::{Line, Report, Target};
use super::support::{Cluster, Receiver};

/// Calls a second that are asked for.
const RATE: u64 = 50;
/// Twenty seconds of backlog.
const MESSAGES: u64 = 20 * RATE;
/// A throttle that holds calls back for longer is stuck.
const PATIENCE: Duration = Duration::from_secs(60);
const WINDOW_US: u64 = 1_000_000;
const PATH: &str = "/ok/throttled";

pub fn throttle(cluster: &Cluster, receiver: &Receiver, report: &mut Report) {
    let url = receiver.url(PATH);
    cluster.sql(&format!(
        "create table item (id bigint primary key);
         select from webhook.create_webhook('bench', array['{url}'], call_throttling => {RATE});
         select from webhook.create_event('bench', 'item', 'table.recordInsert');
         select webhook.pause_webhook('bench');
         insert into item select i from generate_series(1, {MESSAGES}) i;
         select webhook.resume_webhook('bench')"
    ));
    receiver.wait_for(PATIENCE, PATH, MESSAGES);
    let times: Vec<u64> = receiver
        .received_at(PATH)
        .iter()
        .map(|post| post.received_at_us)
        .collect();
    assert_eq!(times.len() as u64, MESSAGES, "each message comes once");
    report.add(Line::limited(
        "P10",
        format!("{RATE} calls/s asked: most of {MESSAGES} received in any second"),
        most_in_a_window(&times) as f64,
        "calls",
        Target::OursAtMost(RATE as f64),
    ));
    // A throttle that was at rest lets the calls of a second go at once; they stand at the
    // beginning of the time and fill none of it.
    let seconds = (times[times.len() - 1] - times[0]) as f64 / 1e6;
    report.add(Line::limited(
        "P10",
        format!("{RATE} calls/s asked: mean of {seconds:.1} s, without the first {RATE}"),
        (MESSAGES - RATE) as f64 / seconds,
        "calls/s",
        Target::OursAtLeast(RATE as f64 - 1.0),
    ));
}

/// Times in order of arrival; a window is open at its end.
fn most_in_a_window(times: &[u64]) -> usize {
    let in_window = |(place, first): (usize, &u64)| {
        times.partition_point(|time| *time < first + WINDOW_US) - place
    };
    times.iter().enumerate().map(in_window).max().unwrap_or(0)
}
