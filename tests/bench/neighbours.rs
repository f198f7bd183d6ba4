//! What a receiver that hangs does to the latency of another.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread;
use std::time::Duration;

use super::delivery::latencies;
use super::report::{percentile, Line, Report, Target};
use super::support::ending::SetOnDrop;
use super::support::wait::wait_until;
use super::support::{Cluster, Receiver};

const ROUNDS: i64 = 4;
/// Messages to the healthy URL, one at a time, in each round and under each condition.
const SAMPLES: i64 = 500;
/// The neighbour gets a message this often, each in a transaction of its own.
const STREAM_EVERY: Duration = Duration::from_millis(2);
/// Calls that hang are over after this, so that a round without them can begin.
const TIMEOUT_MS: u64 = 4000;
const PATIENCE: Duration = Duration::from_secs(30);

const HEALTHY: &str = "/ok/healthy";
const NEIGHBOUR: &str = "/hang/neighbour";

/// What the neighbour does meanwhile.
#[derive(Clone, Copy, PartialEq)]
enum Neighbour {
    Absent,
    Answers,
    Hangs,
}

pub fn bad_neighbour(cluster: &Cluster, receiver: &Receiver, report: &mut Report) {
    let (healthy, neighbour) = (receiver.url(HEALTHY), receiver.url(NEIGHBOUR));
    cluster.sql(&format!(
        "create table item (id bigint primary key, name text);
         create table stream (id bigint primary key, name text);
         select from webhook.create_webhook('healthy', array['{healthy}']);
         select from webhook.create_event('healthy', 'item', 'table.recordInsert');
         select from webhook.create_webhook('neighbour', array['{neighbour}'], 
             timeout_ms => {TIMEOUT_MS}, max_attempts => 1);
         select from webhook.create_event('neighbour', 'stream', 'table.recordInsert')"
    ));
    let streamed = AtomicI64::new(0);
    let conditions = [Neighbour::Absent, Neighbour::Answers, Neighbour::Hangs];
    let mut taken = [Vec::new(), Vec::new(), Vec::new()];
    for round in 0..ROUNDS {
        for (place, condition) in conditions.into_iter().enumerate() {
            let first = (round * conditions.len() as i64 + place as i64) * SAMPLES;
            let measure = || latencies(cluster, receiver, ("item", HEALTHY), first, SAMPLES);
            taken[place].extend(beside(cluster, receiver, condition, &streamed, measure));
        }
    }
    let count = ROUNDS * SAMPLES;
    let [absent, answers, hangs] = taken.map(|mut times| percentile(&mut times, 0.99));
    for (what, compared_with, target) in [
        ("no neighbour", absent, Some(Target::AtMost(2.0))),
        ("one that answers", answers, None),
    ] {
        report.add(Line {
            name: "P8",
            what: format!("p99 of {count} beside a hanging URL / {what}"),
            ours: hangs,
            compared_with,
            unit: "ms",
            ratio: hangs / compared_with,
            target,
        });
    }
}

/// Does `measure` while the neighbour behaves so and gets a stream of messages.
fn beside<T>(
    cluster: &Cluster,
    receiver: &Receiver,
    condition: Neighbour,
    streamed: &AtomicI64,
    measure: impl FnOnce() -> T,
) -> T {
    if condition == Neighbour::Absent {
        return measure();
    }
    match condition {
        Neighbour::Answers => receiver.behave(NEIGHBOUR, "/ok/neighbour"),
        _ => receiver.behave_normally(NEIGHBOUR),
    }
    let before = receiver.count(NEIGHBOUR).requests;
    let done = AtomicBool::new(false);
    let result = thread::scope(|scope| {
        scope.spawn(|| stream(cluster, streamed, &done));
        // Also when a measure panics the stream must end.
        let _done = SetOnDrop(&done);
        receiver.wait_for(PATIENCE, NEIGHBOUR, before + 1);
        measure()
    });
    quieten(cluster, receiver);
    result
}

fn stream(cluster: &Cluster, streamed: &AtomicI64, done: &AtomicBool) {
    let mut session = cluster.connect("postgres");
    let insert = session.prepare("insert into stream values ($1, 'a name')");
    let insert = insert.expect("the statement is valid");
    while !done.load(Ordering::Relaxed) {
        let id = streamed.fetch_add(1, Ordering::Relaxed);
        let inserted = session.execute(&insert, &[&id]);
        inserted.expect("the row is inserted");
        thread::sleep(STREAM_EVERY);
    }
}

/// Lets the neighbour take what waits for it. The pause makes its lane forget that it was
/// backing off; calls that hang end with their timeout.
fn quieten(cluster: &Cluster, receiver: &Receiver) {
    receiver.behave(NEIGHBOUR, "/ok/neighbour");
    cluster.sql("select webhook.pause_webhook('neighbour')");
    cluster.sql("select webhook.resume_webhook('neighbour')");
    wait_until(
        PATIENCE,
        "no call to the neighbour in flight",
        || match receiver.count(NEIGHBOUR).in_flight {
            0 => Ok(()),
            calls => Err(format!("{calls} in flight")),
        },
    );
    let idle: bool = cluster.value("select webhook.wait_idle('30 seconds')");
    assert!(idle, "the neighbour has taken what waited for it");
}
