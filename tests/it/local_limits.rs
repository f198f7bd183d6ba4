//! What the server's machine lacks is no failure of a receiver: no call is logged, no attempt
//! is counted, no URL backs off.

use std::fs;

use super::support::definitions::{create_event, create_webhook, wait_idle};
use super::support::worker::{wait_until_gone, worker_of};
use super::support::{ready_cluster_with, Cluster, Receiver, PATIENCE};

const WEBHOOKS: i64 = 40;
const ITEMS: i64 = 30;
const CALLS: i64 = WEBHOOKS * ITEMS;

/// Many more calls could be on the wire than a small limit of open files allows.
fn cluster_with_many_webhooks(name: &str) -> (Cluster, Receiver) {
    let settings = [
        ("webhook.connections", "1000"),
        ("webhook.retry_schedule", "1h"),
    ];
    let (cluster, receiver) = ready_cluster_with(name, &settings);
    cluster.sql("create table items (id integer)");
    for n in 0..WEBHOOKS {
        let url = receiver.url(&format!("/slow/300/{n}"));
        create_webhook(&cluster, &format!("w{n}"), &[url], "timeout_ms => 60000");
        create_event(&cluster, &format!("w{n}"), "items", "Insert", "");
    }
    (cluster, receiver)
}

/// Asks as the server's account: root need not have the right.
fn limit_open_files(cluster: &Cluster, pid: i32, limits: &str) {
    let prlimit = format!("prlimit --pid {pid} --nofile={limits}");
    let done = cluster.shell_as_server(&prlimit).status();
    assert!(done.expect("a shell runs").success(), "{prlimit}");
}

fn soft_limit(pid: i32) -> usize {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("the process runs");
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().nth(3));
    soft.and_then(|soft| soft.parse().ok()).expect("a number")
}

/// A worker that was started under these limits.
fn restarted_under(cluster: &Cluster, limits: &str) -> i32 {
    let worker = worker_of(cluster, "postgres");
    limit_open_files(
        cluster,
        cluster.postmaster_pid().expect("the server runs"),
        limits,
    );
    cluster.sql(&format!("select pg_terminate_backend({worker})"));
    wait_until_gone(cluster, PATIENCE, worker);
    worker_of(cluster, "postgres")
}

fn assert_each_call_succeeded_at_once(cluster: &Cluster, receiver: &Receiver, calls: i64) {
    wait_idle(cluster);
    let logged = cluster.psql(
        "select status, attempt, min(detail), count(*) from webhook.calls group by 1, 2 order by 1, 2",
    );
    assert_eq!(logged, format!("Success|1||{calls}\n"));
    assert_eq!(receiver.count("/slow").requests as i64, calls);
    let queue =
        cluster.psql("select state, sum(retrying), sum(failed) from webhook.queue group by 1");
    assert_eq!(queue, "active|0|0\n");
}

#[test]
fn calls_keep_within_a_limit_of_open_files_that_cannot_be_raised() {
    let (cluster, receiver) = cluster_with_many_webhooks("few_files");
    restarted_under(&cluster, "256:256");
    cluster.sql(&format!(
        "insert into items select generate_series(1, {ITEMS})"
    ));
    assert_each_call_succeeded_at_once(&cluster, &receiver, CALLS);
    let most = receiver.count("/slow").most_in_flight;
    assert!((10..=64).contains(&most), "{most} calls at a time");
    let detail: Option<String> = cluster.value("select detail from webhook.worker");
    let detail = detail.expect("the worker says what holds it up");
    assert!(detail.contains("may open only 256 files"), "{detail}");
    let log = cluster.log();
    assert_eq!(log.matches("may open only 256 files").count(), 1, "{log}");
    assert!(!log.contains("lacks a resource"), "{log}");
}

#[test]
fn the_limit_of_open_files_is_raised_where_that_is_allowed() {
    let (cluster, receiver) = cluster_with_many_webhooks("raised");
    let worker = restarted_under(&cluster, "256:16384");
    cluster.sql(&format!(
        "insert into items select generate_series(1, {ITEMS})"
    ));
    assert_each_call_succeeded_at_once(&cluster, &receiver, CALLS);
    let soft = soft_limit(worker);
    assert!(soft > 2000, "{soft}");
    let most = receiver.count("/slow").most_in_flight;
    assert!(most > 64, "{most} calls at a time");
    let detail: Option<String> = cluster.value("select detail from webhook.worker");
    assert_eq!(detail, None);
}

#[test]
fn calls_wait_while_no_descriptor_is_free() {
    let (cluster, receiver) = ready_cluster_with("no_files", &[("webhook.retry_schedule", "1h")]);
    cluster.sql("create table items (id integer)");
    let url = receiver.url("/slow/1/webhook-fault-descriptor");
    create_webhook(&cluster, "w", &[url], "");
    create_event(&cluster, "w", "items", "Insert", "");
    cluster.sql(&format!(
        "insert into items select generate_series(1, {ITEMS})"
    ));
    let detail =
        "select substring(detail from 'calls wait: Too many open files') from webhook.worker";
    cluster.wait_for_text(PATIENCE, detail, "calls wait: Too many open files");
    assert_each_call_succeeded_at_once(&cluster, &receiver, ITEMS);
    let log = cluster.log();
    assert_eq!(
        log.matches("WARNING:  webhook calls wait").count(),
        1,
        "{log}"
    );
    cluster.wait_until(PATIENCE, "the end of the shortage", || {
        match cluster.value::<Option<String>>("select detail from webhook.worker") {
            None => Ok(()),
            Some(detail) => Err(detail),
        }
    });
}
