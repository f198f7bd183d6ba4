//! A worker without work sleeps: hardly a statement, hardly a cycle.

use std::time::Duration;

use super::support::definitions::wait_idle;
use super::support::watched::{insert_items, watch_items};
use super::support::worker::{cpu_ticks, worker_of};
use super::support::{Cluster, Receiver};

/// Two safety looks and one to spare.
const MOST_STATEMENTS: i64 = 3;

/// Ticks of 10 ms. A thousandth of a core would be two; the rest is a debug build.
const MOST_CPU_TICKS: u64 = 6;

const IDLE_S: u64 = 20;

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
    // What it wrote is folded ten seconds later, and then nothing is left to do.
    cluster.wait_for_text(
        Duration::from_secs(30),
        "select count(*)::text from webhook.unfolded",
        "0",
    );
    let worker = worker_of(&cluster, "postgres");
    // A session's first statements fill its caches; later it only looks at its own view.
    let mut session = cluster.connect("postgres");
    session
        .batch_execute("select pg_stat_statements_reset()")
        .unwrap();
    let before = cpu_ticks(worker);
    // Nothing to wait for: that nothing happens in this time is the point.
    std::thread::sleep(Duration::from_secs(IDLE_S));
    let used = cpu_ticks(worker) - before;
    let ran: i64 = session.query_one(statements, &[]).unwrap().get(0);
    let listed = cluster.psql("select calls, query from pg_stat_statements order by 1 desc");
    assert!(
        ran <= MOST_STATEMENTS,
        "{ran} statements in {IDLE_S} s:\n{listed}"
    );
    assert!(used <= MOST_CPU_TICKS, "{used} ticks of CPU in {IDLE_S} s");
    assert_eq!(worker_of(&cluster, "postgres"), worker);
    assert_eq!(
        cluster
            .psql("select state, query from pg_stat_activity where backend_type = 'webhook_ext'"),
        "idle|waiting for changes\n"
    );
}
