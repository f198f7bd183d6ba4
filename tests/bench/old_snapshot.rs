//! What a snapshot costs that another session holds for hours (a dump, a forgotten
//! transaction): nothing that is dead can be cleaned away meanwhile.

use super::report::{median, Line, Report, Target};
use super::support::{ready_cluster, Cluster, Receiver};
use super::waiting::Waiting;

const MESSAGES: u64 = 200_000;
/// In turn with and without, in clusters of their own; what the snapshot keeps alive grows from
/// round to round.
const ROUNDS: usize = 3;

/// From now on nothing that is deleted in the cluster can be removed. Ends with the session.
pub fn hold(cluster: &Cluster) -> postgres::Client {
    let mut session = cluster.connect("postgres");
    session
        .batch_execute("begin isolation level repeatable read; select txid_current()")
        .expect("the transaction begins");
    session
}

pub fn old_snapshot(cluster: &Cluster, receiver: &Receiver, report: &mut Report) {
    let (held_cluster, held_receiver) = ready_cluster("bench-P7-held");
    let mut plain = Waiting::new(cluster, receiver, "item", "");
    let mut held = Waiting::new(&held_cluster, &held_receiver, "item", "");
    let _snapshot = hold(&held_cluster);
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        plain.load(MESSAGES);
        without.push(plain.drain().per_second);
        held.load(MESSAGES);
        with.push(held.drain().per_second);
    }
    let last = (with[ROUNDS - 1], without[ROUNDS - 1]);
    let (with, without) = (median(with), median(without));
    report.add(Line {
        name: "P7",
        what: format!("drain of {ROUNDS} x {MESSAGES} under an old snapshot / without"),
        ours: with,
        compared_with: without,
        unit: "calls/s",
        ratio: with / without,
        target: Some(Target::AtLeast(0.9)),
    });
    report.add(Line {
        name: "P7",
        what: format!("the last {MESSAGES} of them"),
        ours: last.0,
        compared_with: last.1,
        unit: "calls/s",
        ratio: last.0 / last.1,
        target: None,
    });
}
