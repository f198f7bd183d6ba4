//! Nodes that end without warning, under load.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{collections::BTreeSet, thread};

use super::super::support::nodes::Nodes;
use super::super::support::StopMode;

const WRITERS: i64 = 3;
const ROUNDS: usize = 4;

#[test]
#[ignore = "needs Citus: make test-citus"]
fn killed_nodes_lose_and_invent_nothing() {
    let nodes = Nodes::start("citus-outages", 2);
    let coordinator = nodes.coordinator();
    nodes.watch("w", "");
    coordinator.sql("create table orders (id bigint primary key, n integer); select create_distributed_table('orders', 'id')");
    nodes.events("w", "orders");
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for writer in 1..=WRITERS {
            let stop = &stop;
            scope.spawn(move || {
                let mut id = writer * 1_000_000;
                while !stop.load(Ordering::Relaxed) {
                    let Ok(mut session) = coordinator.try_connect_as("postgres", "postgres") else {
                        thread::sleep(Duration::from_millis(50));
                        continue;
                    };
                    // Rows for several nodes: their commits need two phases.
                    while !stop.load(Ordering::Relaxed) {
                        let statement = format!(
                            "insert into orders select g, 0 from generate_series({id}, {}) g",
                            id + 4
                        );
                        id += 5;
                        if session.batch_execute(&statement).is_err() {
                            break;
                        }
                    }
                }
            });
        }
        for round in 0..ROUNDS {
            let node = &nodes.all[1 + round % 2];
            thread::sleep(Duration::from_secs(2));
            node.kill9_postmaster();
            node.start_again();
            // Not by KILL: in a commit, Citus ends such a process with PANIC.
            thread::sleep(Duration::from_secs(2));
            coordinator.stop(StopMode::Immediate);
            coordinator.start_again();
        }
        thread::sleep(Duration::from_secs(1));
        stop.store(true, Ordering::Relaxed);
    });
    // What the crashes have left prepared is ended by Citus; only then it is known what was committed.
    coordinator.wait_until(Duration::from_secs(120), "no prepared transaction", || {
        coordinator.sql("select recover_prepared_transactions()");
        let left: i64 = nodes
            .all
            .iter()
            .map(|node| node.value::<i64>("select count(*) from pg_prepared_xacts"))
            .sum();
        if left == 0 {
            Ok(())
        } else {
            Err(left.to_string())
        }
    });
    nodes.wait_idle();
    let mut session = coordinator.connect("postgres");
    let committed: BTreeSet<i64> = session
        .query("select id from orders", &[])
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    let messages = nodes.messages();
    let sent: BTreeSet<i64> = messages.values().map(|(_, _, id)| *id).collect();
    println!(
        "{} rows committed, {} messages",
        committed.len(),
        messages.len()
    );
    assert_eq!(committed.difference(&sent).count(), 0, "lost");
    assert_eq!(sent.difference(&committed).count(), 0, "invented");
    assert_eq!(messages.len(), sent.len(), "one change, two ids");
}
