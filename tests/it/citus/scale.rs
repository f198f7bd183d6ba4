//! Nodes send beside one another: nothing is asked of the coordinator for a message, and no lock is waited for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::super::support::definitions::create_webhook;
use super::super::support::nodes::Nodes;
use super::super::support::{Cluster, PATIENCE};

/// Of receivers that take 20 ms a node with 16 calls at a time gets 800 calls a second: the limit is the
/// calls at a time, not this machine.
const SLOW: &str = "/slow/20";
const ROWS_A_NODE: u64 = 4000;

struct Run {
    workers: usize,
    rate: f64,
    coordinator_transactions: i64,
    /// In how many looks a lock was waited for.
    waits: u64,
    looks: u64,
}

fn transactions(node: &Cluster) -> i64 {
    node.value(
        "select (xact_commit + xact_rollback) from pg_stat_database where datname = 'postgres'",
    )
}

fn run(workers: usize) -> Run {
    let nodes = Nodes::start(&format!("citus-scale-{workers}"), workers);
    let coordinator = nodes.coordinator();
    coordinator.sql(&format!(
        "set citus.shard_count = {}; create table orders (id bigint primary key, n integer);
         select create_distributed_table('orders', 'id')",
        4 * workers
    ));
    create_webhook(coordinator, "w", &[nodes.receiver.url(SLOW)], "");
    coordinator.sql("select webhook.create_event('w', 'orders', 'table.recordInsert'); select webhook.pause_webhook('w')");
    let rows = ROWS_A_NODE * workers as u64;
    coordinator.sql(&format!(
        "insert into orders select g, g from generate_series(1, {rows}) g"
    ));
    let pending = "select sum(pending)::text from webhook.cluster_queue";
    coordinator.wait_for_text(PATIENCE, pending, &rows.to_string());
    coordinator.sql("select webhook.resume_webhook('w')");
    // Threads and connections are made in the first moments.
    let first = rows / 10;
    nodes.receiver.wait_for(PATIENCE, SLOW, first);
    let (began, before) = (Instant::now(), transactions(coordinator));
    let counted_from = nodes.receiver.count(SLOW).requests;
    let is_over = AtomicBool::new(false);
    let (waits, looks) = thread::scope(|scope| {
        let watch = scope.spawn(|| {
            // The coordinator is left alone: what it does is counted.
            let mut sessions: Vec<_> = nodes.all[1..]
                .iter()
                .map(|node| node.connect("postgres"))
                .collect();
            let (mut waits, mut looks) = (0, 0);
            while !is_over.load(Ordering::Relaxed) {
                for session in &mut sessions {
                    let found =
                        session.query_one("select count(*) from pg_locks where not granted", &[]);
                    waits += u64::from(found.unwrap().get::<_, i64>(0) > 0);
                    looks += 1;
                }
                thread::sleep(Duration::from_millis(20));
            }
            (waits, looks)
        });
        nodes.receiver.wait_for(PATIENCE, SLOW, rows * 9 / 10);
        is_over.store(true, Ordering::Relaxed);
        watch.join().unwrap()
    });
    let sent = nodes.receiver.count(SLOW).requests - counted_from;
    let rate = sent as f64 / began.elapsed().as_secs_f64();
    let coordinator_transactions = transactions(coordinator) - before;
    nodes.wait_idle();
    assert_eq!(nodes.receiver.count(SLOW).requests, rows);
    Run {
        workers,
        rate,
        coordinator_transactions,
        waits,
        looks,
    }
}

#[test]
#[ignore = "needs Citus: make test-citus"]
fn nodes_send_beside_one_another() {
    let runs: Vec<Run> = (1..=3).map(run).collect();
    for run in &runs {
        println!(
            "{} nodes with shards: {:.0} calls/s, {} transactions on the coordinator meanwhile, a lock waited for in {} of {} looks",
            run.workers, run.rate, run.coordinator_transactions, run.waits, run.looks
        );
    }
    let alone = runs[0].rate;
    for run in &runs {
        let of_so_many = run.rate / alone / run.workers as f64;
        assert!(
            of_so_many > 0.7,
            "{} nodes: {of_so_many:.2} of what one does",
            run.workers
        );
        let messages = ROWS_A_NODE as i64 * run.workers as i64;
        // Its own worker looks at its own queue now and then.
        assert!(
            run.coordinator_transactions < messages / 20,
            "{}",
            run.coordinator_transactions
        );
        assert_eq!(run.waits, 0, "{} nodes", run.workers);
    }
}
