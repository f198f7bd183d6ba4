//! A worker without work sleeps: hardly a statement, hardly a cycle.

use std::thread;
use std::time::{Duration, Instant};

use super::support::definitions::wait_idle;
use super::support::watched::{insert_items, watch_items};
use super::support::worker::{cpu_ticks, sleeps, worker_of};
use super::support::{Cluster, Receiver, PATIENCE};

/// A statement in this time, and one to spare.
const SAFETY_LOOK_S: u64 = 10;

/// A look around a second, some other reasons to wake up, and threads that end for want of work.
const MOST_SLEEPS_A_SECOND: u64 = 5;

/// The worker may use as much CPU in all this time as a session needs for so many trivial
/// statements on this very machine: about a thousandth of a core in a release build.
const STATEMENTS_OF_A_SESSION: usize = 3000;

const IDLE_S: u64 = 20;

/// The CPU that a session uses for [`STATEMENTS_OF_A_SESSION`], in ticks.
fn ticks_of_a_session(cluster: &Cluster) -> u64 {
    let mut session = cluster.connect("postgres");
    let pid = session.query_one("select pg_backend_pid()", &[]);
    let pid = pid.unwrap().get(0);
    let before = cpu_ticks(pid);
    for _ in 0..STATEMENTS_OF_A_SESSION {
        session.simple_query("select 1").unwrap();
    }
    cpu_ticks(pid) - before
}

#[test]
fn an_idle_worker_runs_hardly_a_statement_and_uses_hardly_any_cpu() {
    let cluster = Cluster::builder("idle")
        .set("webhook.allowed_networks", "127.0.0.0/8")
        .set("shared_preload_libraries", "pg_stat_statements")
        .set("pg_stat_statements.track", "all")
        .set("autovacuum", "off")
        .start();
    cluster.sql("create extension pg_stat_statements; create extension webhook_ext");
    let receiver = Receiver::start();
    watch_items(&cluster, &receiver, "/ok");
    insert_items(&cluster, 1..=100);
    wait_idle(&cluster);
    let statements = "select coalesce(sum(calls), 0)::bigint from pg_stat_statements
                      where query !~ 'pg_stat_statements'";
    assert!(
        cluster.value::<i64>(statements) > 10,
        "the worker's statements are counted"
    );
    // What it wrote is compacted ten seconds later, and then nothing is left to do.
    cluster.wait_for_text(
        PATIENCE,
        "select count(*)::text from webhook_internal.uncompacted",
        "0",
    );
    let worker = worker_of(&cluster, "postgres");
    // A session's first statements fill its caches; later it only looks at its own view.
    let mut session = cluster.connect("postgres");
    session
        .batch_execute("select pg_stat_statements_reset()")
        .unwrap();
    let (ticks, slept, started) = (cpu_ticks(worker), sleeps(worker), Instant::now());
    // Nothing to wait for: that nothing happens in this time is the point.
    thread::sleep(Duration::from_secs(IDLE_S));
    let (ticks, slept) = (
        cpu_ticks(worker) - ticks,
        sleeps(worker).saturating_sub(slept),
    );
    let idle_s = started.elapsed().as_secs();
    let ran: i64 = session.query_one(statements, &[]).unwrap().get(0);
    let listed = cluster.psql("select calls, query from pg_stat_statements order by 1 desc");
    let most = idle_s / SAFETY_LOOK_S + 1;
    assert!(
        ran as u64 <= most,
        "{ran} statements in {idle_s} s:\n{listed}"
    );
    assert!(
        slept <= MOST_SLEEPS_A_SECOND * idle_s,
        "woken {slept} times in {idle_s} s"
    );
    let most = ticks_of_a_session(&cluster);
    assert!(
        ticks <= most,
        "{ticks} ticks of CPU in {idle_s} s, a session needs {most}"
    );
    assert_eq!(worker_of(&cluster, "postgres"), worker);
    assert_eq!(
        cluster
            .psql("select state, query from pg_stat_activity where backend_type = 'webhook_ext'"),
        "idle|waiting for changes\n"
    );
}
