//! `make bench`: the product against its targets, on this machine, in one run.
//!
//! Every target is a ratio of two things measured side by side, because machines
//! differ and are noisy. Prints one table and writes it as JSON. A missed target is
//! a line that says so; only a measure that could not be taken, or found messages
//! missing, makes the run fail, after all others were taken.

#[path = "../it/support/mod.rs"]
mod support;

#[path = "../../src/core/mod.rs"]
#[allow(dead_code, unused_imports)]
mod core;

mod backlog;
mod call_log;
mod capture;
mod delivery;
mod disk;
mod distance;
mod footprint;
mod key_order;
mod large_bodies;
mod logging;
mod many;
mod many_lag;
mod neighbours;
mod old_snapshot;
mod peers;
mod rendering;
mod report;
mod subscribers;
mod throttling;
mod waiting;

use std::panic::{catch_unwind, AssertUnwindSafe};

use report::{Measure, Report};
use support::ready_cluster;

/// Each measure with the names it is asked for by: some are taken on the way of others.
const MEASURES: &[(&[&str], Measure)] = &[
    (&["P1"], capture::bulk),
    (&["P2"], capture::oltp),
    (&["P3"], capture::filtered_out),
    (&["P4"], delivery::latency),
    (&["P5"], delivery::drain),
    (&["P6", "P12"], backlog::backlog),
    (&["P7"], old_snapshot::old_snapshot),
    (&["P8"], neighbours::bad_neighbour),
    (&["P9"], many::many_webhooks),
    (&["P10"], throttling::throttle),
    (&["P12"], large_bodies::large_bodies),
    (&["P12"], large_bodies::large_bodies_of_many_urls),
    (&["P13"], logging::log_level),
    (&["P14"], disk::disk),
    (&["P15", "P17"], subscribers::capture),
    (&["P16", "P17"], subscribers::sending),
    (&["P18"], distance::distance),
    (&["P20"], many_lag::many_lag),
    (&["P19"], key_order::key_order),
    (&["L"], call_log::look_ups),
    (&["R"], rendering::rendering),
    (&["Q"], peers::queues),
];

fn main() {
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let is_wanted = |names: &[&str]| {
        wanted.is_empty() || names.iter().any(|name| wanted.iter().any(|w| w == name))
    };
    let mut report = Report::default();
    let mut failed = Vec::new();
    for (names, measure) in MEASURES.iter().filter(|(names, _)| is_wanted(names)) {
        let title = names.join(" ");
        eprintln!("measuring {title} …");
        // The panic has printed what was wrong; what was measured before must not be lost.
        let taken = catch_unwind(AssertUnwindSafe(|| {
            let (cluster, receiver) = ready_cluster(&format!("bench-{}", names[0]));
            measure(&cluster, &receiver, &mut report);
        }));
        if taken.is_err() {
            failed.push(title);
        }
    }
    report.print();
    if !failed.is_empty() {
        eprintln!("could not be measured: {}", failed.join(", "));
        std::process::exit(1);
    }
}
