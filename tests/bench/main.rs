//! `make bench`: the product against its targets, on this machine, in one run.
//!
//! Every target is a ratio of two things measured side by side, because machines
//! differ and are noisy. Prints one table and writes it as JSON. Measures, and
//! fails nothing: a missed target is a line that says so.

#[path = "../it/support/mod.rs"]
mod support;

#[path = "../../src/core/mod.rs"]
#[allow(dead_code, unused_imports)]
mod core;

mod capture;
mod delivery;
mod rendering;
mod report;

use report::Report;
use support::ready_cluster;

fn main() {
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|w| w == name);
    let mut report = Report::default();
    let measures: &[(&str, report::Measure)] = &[
        ("P1", capture::bulk),
        ("P2", capture::oltp),
        ("P3", capture::filtered_out),
        ("P4", delivery::latency),
        ("P5", delivery::drain),
        ("R", rendering::rendering),
    ];
    for (name, measure) in measures {
        if is_wanted(name) {
            eprintln!("measuring {name} …");
            let (cluster, receiver) = ready_cluster(&format!("bench-{name}"));
            measure(&cluster, &receiver, &mut report);
        }
    }
    report.print();
}
