//! What was committed against what every URL received, and what must hold besides.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::super::support::compare::difference_of_calls;
use super::super::support::locks::locks_of_the_dead;
use super::super::support::worker::{threads, worker_of};
use super::super::support::Cluster;
use super::arrivals::{brief, Arrival, Arrivals};
use super::hooks::{Hook, IN_ORDER, THROTTLED};
use super::scene::{lock, Scene};
use super::server_log;
use super::standby;
use super::truth::{self, Change};
use super::watcher::open_files;

const MOST_WORKER_KB: u64 = 150 << 10;

/// `webhook.connections` is at most 64 in this test; the rest are the main thread and resolvers.
const MOST_THREADS: u64 = 64 + 8;

/// Each thread keeps a connection to each of the two receivers; some are just being closed.
const MOST_SOCKETS: u64 = 3 * 64;

/// Files that PostgreSQL keeps open of all the tables and indexes that the worker uses.
const MOST_FILES: u64 = 400;

/// What may be on the wire or not settled when the worker ends, a URL: 16 calls at a time,
/// each in a run of 16.
const MOST_REPEATED: i64 = 16 * 16;

/// A request reaches the receiver so long after its call was made, or is on its way: a
/// receiver that waits for a processor notes it late, which is no fault of who sent it.
const ON_ITS_WAY_US: u64 = 15_000;

/// One second, but for the millisecond in which a call id tells the time.
const SECOND_US: u64 = 999_000;

/// Everything is settled and old by then; tables are looked at once a second.
const FORGOTTEN_LIMIT: Duration = Duration::from_secs(90);

/// Threads that have nothing to do end after a minute and close their connections.
const IDLE_LIMIT: Duration = Duration::from_secs(150);
const MOST_IDLE: u64 = 8;

/// Each ring has eight tables with indexes, each of which takes some pages when it is empty.
const FORGOTTEN_BYTES: f64 = (4 << 20) as f64;

pub fn judge(scene: &Scene) {
    let changes = truth::committed(&scene.cluster);
    let hooks = scene.hooks();
    let mut arrivals = lock(&scene.arrivals);
    for hook in hooks.iter() {
        let wanted = wanted(hook, &changes, &mut arrivals);
        judge_deliveries(scene, hook, &wanted, &mut arrivals);
        judge_repeats(scene, hook, &mut arrivals);
        if !hook.is_dropped {
            judge_counters(scene, hook, wanted.len() as i64);
        }
    }
    for hook in hooks
        .iter()
        .filter(|hook| IN_ORDER.contains(&hook.name.as_str()))
    {
        judge_order(scene, &changes, hook, &mut arrivals);
    }
    judge_throttle(scene, &hooks, &mut arrivals);
    judge_worker(scene);
    for lock in locks_of_the_dead(&mut scene.cluster.connect("postgres")) {
        scene.findings.add(lock);
    }
    standby::wait_until_caught_up(&scene.cluster, &scene.standby);
    judge_rest(scene);
    server_log::judge(scene);
    println!(
        "soak: {} changes were committed, the worker was ended {} times, {} calls redelivered; {}",
        changes.len(),
        scene.progress.ends.load(Ordering::Relaxed),
        hooks.iter().map(|hook| hook.redelivered).sum::<i64>(),
        scene.progress.summary()
    );
    let findings = scene.findings.all();
    assert!(findings.is_empty(), "SOAK_SEED={}\n{findings}", scene.seed);
}

/// What its URLs had to receive.
fn wanted<'a>(hook: &Hook, changes: &'a [Change], arrivals: &mut Arrivals) -> Vec<&'a Change> {
    let mut came: HashSet<String> = HashSet::new();
    for path in &hook.paths {
        came.extend(arrivals.at(path).iter().map(|a| a.change.clone()));
    }
    let wanted = changes.iter().filter(|change| hook.wants(change));
    wanted
        .filter(|change| !hook.may_miss(change) || came.contains(&brief(&hook.content(change))))
        .collect()
}

/// Each of its changes came to each of its URLs, nothing else did, each change always under
/// one message id. A webhook that was dropped may have sent less.
fn judge_deliveries(scene: &Scene, hook: &Hook, wanted: &[&Change], arrivals: &mut Arrivals) {
    let all: BTreeSet<String> = wanted.iter().map(|c| brief(&hook.content(c))).collect();
    if all.len() != wanted.len() {
        scene
            .findings
            .add(format!("{}: two changes look the same", hook.name));
    }
    let mut ids: HashMap<String, String> = HashMap::new();
    for path in &hook.paths {
        let received = arrivals.at(path);
        let came: BTreeSet<String> = received.iter().map(|a| a.change.clone()).collect();
        let expected = if hook.is_dropped {
            all.intersection(&came).cloned().collect()
        } else {
            all.clone()
        };
        let calls = received.iter().map(|a| (a.change.clone(), &*a.message_id));
        if let Some(difference) = difference_of_calls(&expected, calls) {
            scene.findings.add(format!("{path}: {difference}"));
        }
        for arrival in received {
            let id = ids
                .entry(arrival.change.clone())
                .or_insert_with(|| arrival.message_id.clone());
            if *id != arrival.message_id {
                let finding = format!(
                    "{path}: {} has another message id elsewhere",
                    arrival.change
                );
                scene.findings.add(finding);
            }
        }
    }
}

/// What comes again as the same attempt was not settled when the worker ended, or is sent
/// again on purpose.
fn judge_repeats(scene: &Scene, hook: &Hook, arrivals: &mut Arrivals) {
    let ends = scene.progress.ends.load(Ordering::Relaxed) as i64;
    let most = ends * MOST_REPEATED + hook.redelivered;
    for path in &hook.paths {
        let received = arrivals.at(path);
        let calls: HashSet<(&str, u32)> = received
            .iter()
            .map(|arrival| (&*arrival.change, arrival.attempt))
            .collect();
        let repeated = (received.len() - calls.len()) as i64;
        println!(
            "soak: {path}: {} calls, {repeated} of them repeated",
            received.len()
        );
        if repeated > most {
            let finding =
                format!("{path}: {repeated} calls were repeated, at most {most} are right");
            scene.findings.add(finding);
        }
    }
}

/// A message a change; and one success each URL, as often as it was ordered. How many calls
/// failed is known to nobody else: those of a killed worker count for nothing.
fn judge_counters(scene: &Scene, hook: &Hook, changes: i64) {
    let mut session = scene.cluster.connect("postgres");
    let row = session.query_one(
        "select messages, calls - errors from webhook.webhooks where name = $1",
        &[&hook.name],
    );
    let row = row.expect("webhooks can be read");
    let found: (i64, i64) = (row.get(0), row.get(1));
    let expected = (
        changes,
        changes * hook.paths.len() as i64 + hook.redelivered,
    );
    if found != expected {
        let finding = format!(
            "{}: messages and successes are {found:?}, not {expected:?}",
            hook.name
        );
        scene.findings.add(finding);
    }
}

/// The first arrivals of each row's changes are in the order in which they were made.
fn judge_order(scene: &Scene, changes: &[Change], hook: &Hook, arrivals: &mut Arrivals) {
    let mut place_of: HashMap<String, (i64, usize)> = HashMap::new();
    let mut made: BTreeMap<i64, usize> = BTreeMap::new();
    for change in changes.iter().filter(|change| hook.wants(change)) {
        let number = made.entry(change.row()).or_default();
        place_of.insert(brief(&hook.content(change)), (change.row(), *number));
        *number += 1;
    }
    let mut next: BTreeMap<i64, usize> = BTreeMap::new();
    let mut seen: HashSet<&str> = HashSet::new();
    let mut wrong: Vec<String> = Vec::new();
    for arrival in arrivals.at(&hook.paths[0]) {
        let Some((row, number)) = place_of.get(&arrival.change) else {
            continue;
        };
        if !seen.insert(&arrival.change) {
            continue;
        }
        let due = next.entry(*row).or_default();
        if number != due {
            wrong.push(format!(
                "row {row}: change {number} came when {due} was due"
            ));
        }
        *due = number + 1;
    }
    if let Some(first) = wrong.first() {
        let (name, count) = (&hook.name, wrong.len());
        let finding = format!("{name}: {count} changes came out of order: {first}");
        scene.findings.add(finding);
    }
}

/// No second holds more calls than the throttle allows, over both URLs, whatever became of
/// the worker.
fn judge_throttle(scene: &Scene, hooks: &[Hook], arrivals: &mut Arrivals) {
    let hook = hooks
        .iter()
        .find(|hook| hook.name == THROTTLED)
        .expect("it was made");
    let mut at: Vec<u64> = Vec::new();
    for path in &hook.paths {
        at.extend(arrivals.at(path).iter().map(arrived_at));
    }
    at.sort_unstable();
    let per_second: i32 = scene.cluster.value(&format!(
        "select call_throttling from webhook.webhooks where name = '{THROTTLED}'"
    ));
    let per_second = usize::try_from(per_second).expect("a rate is positive");
    let spans = at.iter().zip(at.iter().skip(per_second));
    let too_short: Vec<u64> = spans
        .map(|(first, beyond)| beyond - first)
        .filter(|took_us| *took_us < SECOND_US)
        .collect();
    if let Some(shortest_us) = too_short.iter().min() {
        scene.findings.add(format!(
            "{} times {} calls of {THROTTLED} within a second, once within {shortest_us} us",
            too_short.len(),
            per_second + 1
        ));
    }
}

fn arrived_at(arrival: &Arrival) -> u64 {
    arrival
        .received_at_us
        .min(arrival.called_at_us + ON_ITS_WAY_US)
}

/// Memory, threads and files stayed within limits, and what is idle is given back.
fn judge_worker(scene: &Scene) {
    let progress = &scene.progress;
    for (what, found, most) in [
        ("kB of memory", &progress.most_kb, MOST_WORKER_KB),
        ("threads", &progress.most_threads, MOST_THREADS),
        ("sockets", &progress.most_sockets, MOST_SOCKETS),
        ("open files", &progress.most_files, MOST_FILES),
    ] {
        let found = found.load(Ordering::Relaxed);
        if found == 0 || found > most {
            let finding = format!("the worker had {found} {what}; at most {most} are right");
            scene.findings.add(finding);
        }
    }
    let pid = worker_of(&scene.cluster, "postgres");
    let what = "the worker to end idle threads and connections";
    scene.cluster.wait_until(IDLE_LIMIT, what, || {
        let (threads, (sockets, files)) = (threads(pid).unwrap_or(0), open_files(pid));
        if (1..=MOST_IDLE).contains(&threads) && sockets <= MOST_IDLE {
            println!(
                "soak: idle, the worker has {threads} threads, {sockets} sockets, {files} files"
            );
            Ok(())
        } else {
            Err(format!(
                "{threads} threads, {sockets} sockets, {files} files"
            ))
        }
    });
}

/// Nothing has failed for good, and what was settled is forgotten.
fn judge_rest(scene: &Scene) {
    let cluster = &scene.cluster;
    let failed: i64 = cluster.value("select coalesce(sum(failed), 0)::bigint from webhook.queue");
    if failed != 0 {
        scene
            .findings
            .add(format!("{failed} messages failed for good"));
    }
    let off = cluster.psql("select name, status from webhook.webhooks where status <> 'Active'");
    if !off.is_empty() {
        scene
            .findings
            .add(format!("webhooks are not active: {off}"));
    }
    let events = cluster
        .psql("select webhook_name, status, detail from webhook.events where status <> 'Active'");
    if !events.is_empty() {
        scene
            .findings
            .add(format!("events are not active: {events}"));
    }
    wait_until_forgotten(cluster);
}

fn wait_until_forgotten(cluster: &Cluster) {
    let bytes = "select sum(value) from webhook.metrics
                 where name in ('webhook_outbox_bytes', 'webhook_call_log_bytes')";
    cluster.wait_until(FORGOTTEN_LIMIT, "outbox and call log to be emptied", || {
        let left: f64 = cluster.value(bytes);
        if left <= FORGOTTEN_BYTES {
            Ok(())
        } else {
            Err(format!(
                "{left} bytes\n{}",
                cluster.psql("select * from webhook_internal.segment")
            ))
        }
    });
}
