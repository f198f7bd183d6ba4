//! What the call log costs.

use super::report::{median, Line, Report, Target};
use super::support::{Cluster, Receiver};
use super::waiting::Waiting;

const MESSAGES: u64 = 200_000;
const ROUNDS: usize = 3;

pub fn log_level(cluster: &Cluster, receiver: &Receiver, report: &mut Report) {
    let mut logged = Waiting::new(cluster, receiver, "logged", ", log_level => 'all'");
    let mut unlogged = Waiting::new(cluster, receiver, "unlogged", ", log_level => 'none'");
    let (mut all, mut none) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        for (waiting, rates) in [(&mut unlogged, &mut none), (&mut logged, &mut all)] {
            waiting.load(MESSAGES);
            rates.push(waiting.drain().per_second);
        }
    }
    let rows: i64 = cluster.value("select count(*) from webhook.calls");
    assert_eq!(rows, (ROUNDS as u64 * MESSAGES) as i64, "rows in the log");
    let (all, none) = (median(all), median(none));
    report.add(Line {
        name: "P13",
        what: format!("drain of {MESSAGES}, log_level all / none"),
        ours: all,
        compared_with: none,
        unit: "calls/s",
        ratio: all / none,
        target: Some(Target::AtLeast(0.7)),
    });
}
