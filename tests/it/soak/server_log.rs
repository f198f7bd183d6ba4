//! What the server's log may not hold after all these faults.

use super::super::support::crashes::crashes_in;
use super::scene::Scene;

/// Nobody asked for it, whatever the process.
const NEVER: &str = "panicked at";

/// Of the worker's warnings and errors those that faults explain: its end was asked for, or
/// a crash elsewhere ended it, or it waits for what a fault holds; the ends of calls are no business of the log.
const EXPLAINED: &[&str] = &[
    "terminating connection because of crash of another server process",
    "terminating connection due to administrator command",
    "terminating background worker",
    "terminating connection due to unexpected postmaster exit",
    // Tables that were locked, and a standby that lagged, on purpose.
    "webhook worker waits for a lock",
    "new messages wait for webhook.synchronized_standby_slots",
    // So many keys failed at once, because receivers misbehaved.
    "only retries until fewer than",
];

/// As the test's clusters write a line: time, process, kind of process.
const OF_WORKER: &str = " webhook_ext ";

pub fn judge(scene: &Scene) {
    let log = scene.cluster.log();
    let killed = "terminated by signal 9";
    let kills = scene
        .progress
        .kills
        .load(std::sync::atomic::Ordering::Relaxed);
    let found = log.matches(killed).count();
    if found > kills {
        let finding = format!("{found} processes were {killed}, {kills} were killed on purpose");
        scene.findings.add(finding);
    }
    for line in crashes_in(&log) {
        scene.findings.add(format!("the server crashed: {line}"));
    }
    for line in log.lines() {
        if line.contains(NEVER) {
            scene.findings.add(format!("the log says: {line}"));
        } else if is_complaint_of_worker(line) {
            scene
                .findings
                .add(format!("the worker says: {}", without_time(line)));
        }
    }
}

fn is_complaint_of_worker(line: &str) -> bool {
    let complains = ["ERROR:", "FATAL:", "WARNING:"]
        .iter()
        .any(|level| line.contains(level));
    complains && line.contains(OF_WORKER) && !EXPLAINED.iter().any(|text| line.contains(text))
}

/// From the kind of process on, so that the same complaint counts as one finding.
fn without_time(line: &str) -> &str {
    line.find(OF_WORKER)
        .map_or(line, |place| line[place..].trim())
}
