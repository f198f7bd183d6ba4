//! Commits in two phases: sent at once, also those that Citus ends after a crash, and nothing that was rolled back.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::super::support::nodes::Nodes;
use super::super::support::{Cluster, PATIENCE};

const ROUNDS: usize = 20;
/// What is promised after COMMIT PREPARED, and after one that Citus ended later.
const SENT_WITHIN: Duration = Duration::from_millis(200);
const RECOVERED_WITHIN: Duration = Duration::from_millis(500);

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

/// How long after `committed` the last request with a number above `seq` came.
fn latest(nodes: &Nodes, seq: u64, committed: Duration) -> Duration {
    let received = nodes.receiver.received_since(seq);
    let at = received.iter().map(|received| received.received_at_us);
    Duration::from_micros(at.max().expect("requests came")).saturating_sub(committed)
}

fn last_seq(nodes: &Nodes) -> u64 {
    let received = nodes.receiver.received();
    received.last().map_or(0, |received| received.seq)
}

fn with_orders(name: &str, table: &str) -> Nodes {
    let nodes = Nodes::start(name, 2);
    nodes.watch("w", "");
    nodes.coordinator().sql(&format!(
        "{table}; select create_distributed_table('orders', 'id')"
    ));
    nodes.events("w", "orders");
    nodes
}

#[test]
#[ignore = "needs Citus: make test-citus"]
fn messages_of_several_nodes_are_sent_within_a_fifth_of_a_second_after_their_commit() {
    let nodes = with_orders(
        "citus-latency",
        "create table orders (id bigint primary key, n integer)",
    );
    let mut session = nodes.coordinator().connect("postgres");
    let mut insert = |round: usize| {
        let first = round * 100 + 1;
        let statement = format!(
            "insert into orders select g, 0 from generate_series({first}, {}) g",
            first + 7
        );
        session.batch_execute(&statement).unwrap();
        now()
    };
    // Workers start and connect.
    insert(0);
    nodes.receiver.wait_for(PATIENCE, "/ok", 8);
    let mut taken: Vec<Duration> = (1..=ROUNDS)
        .map(|round| {
            let seq = last_seq(&nodes);
            let committed = insert(round);
            let wanted = 8 * (round as u64 + 1);
            nodes.receiver.wait_for(PATIENCE, "/ok", wanted);
            latest(&nodes, seq, committed)
        })
        .collect();
    taken.sort();
    println!(
        "COMMIT to the last of 8 calls: median {:?}, slowest {:?}",
        taken[ROUNDS / 2],
        taken[ROUNDS - 1]
    );
    // The machine may be busy for a moment.
    assert!(taken[ROUNDS * 9 / 10 - 1] <= SENT_WITHIN, "{taken:?}");
}

#[test]
#[ignore = "needs Citus: make test-citus"]
fn a_transaction_that_one_node_refuses_to_prepare_is_sent_by_none() {
    let nodes = with_orders(
        "citus-refused",
        "create table orders (id bigint, n integer, primary key (id) deferrable initially deferred)",
    );
    let coordinator = nodes.coordinator();
    coordinator.sql("insert into orders values (1, 0)");
    // The second row with this key is noticed when its node prepares; others may have done so.
    let refused = coordinator.connect("postgres").batch_execute(
        "begin; insert into orders select g, 0 from generate_series(100, 120) g;
         insert into orders values (1, 1); commit",
    );
    assert_eq!(refused.unwrap_err().code().unwrap().code(), "23505");
    coordinator.sql("insert into orders select g, 0 from generate_series(2, 9) g");
    nodes.wait_idle();
    let wanted: Vec<String> = (1..=9).map(|id| format!("Insert {id}")).collect();
    assert_eq!(nodes.lines_of("orders"), wanted);
}

/// Leaves a transaction prepared on a node, as a coordinator that crashed in mid-commit does; gives its id.
fn leave_prepared(nodes: &Nodes, worker: &Cluster, number: i64) -> i64 {
    let port = worker.port();
    let mut asked = nodes.coordinator().connect("postgres");
    let row = asked
        .query_one(
            &format!(
                "select p.shardid, g.id::bigint
                 from pg_dist_shard_placement p
                 join pg_dist_shard s using (shardid)
                 join generate_series({number}, {number} + 1000) g (id)
                   on get_shard_id_for_distribution_column('orders', g.id) = p.shardid
                 where s.logicalrelid = 'orders'::regclass and p.nodeport = {port}
                 order by g.id limit 1"
            ),
            &[],
        )
        .unwrap();
    let (shard, id): (i64, i64) = (row.get(0), row.get(1));
    worker.sql(&format!(
        "set citus.enable_manual_changes_to_shards = on; begin;
         insert into orders_{shard} values ({id}, 0); prepare transaction 'citus_0_99_{number}_0'"
    ));
    id
}

#[test]
#[ignore = "needs Citus: make test-citus"]
fn what_citus_ends_after_a_crash_is_sent_within_half_a_second_if_it_was_committed() {
    let nodes = with_orders(
        "citus-recovered",
        "create table orders (id bigint primary key, n integer)",
    );
    let coordinator = nodes.coordinator();
    let worker = &nodes.all[1];
    // Citus asks for it every minute by itself, and is not to come between.
    coordinator.configure("citus.recover_2pc_interval", "-1");
    coordinator.reload();
    let is_off = "select current_setting('citus.recover_2pc_interval')";
    coordinator.wait_for_text(PATIENCE, is_off, "-1");
    let lost = leave_prepared(&nodes, worker, 10_000);
    let kept = leave_prepared(&nodes, worker, 20_000);
    // Nothing is sent of what is only prepared, though others of the node are.
    coordinator.sql("insert into orders select g, 0 from generate_series(1, 8) g");
    nodes.receiver.wait_for(PATIENCE, "/ok", 8);
    coordinator.sql(&format!(
        "insert into pg_dist_transaction (groupid, gid)
         select groupid, 'citus_0_99_20000_0' from pg_dist_node where nodeport = {}",
        worker.port()
    ));
    let seq = last_seq(&nodes);
    assert_eq!(nodes.receiver.count("/ok").requests, 8);
    coordinator.sql("select recover_prepared_transactions()");
    let ended = now();
    nodes.receiver.wait_for(PATIENCE, "/ok", 9);
    let taken = latest(&nodes, seq, ended);
    println!("COMMIT PREPARED by Citus to the call: {taken:?}");
    coordinator.sql("select recover_prepared_transactions()");
    nodes.wait_idle();
    let left: i64 = worker.value("select count(*) from pg_prepared_xacts");
    assert_eq!(left, 0);
    let lines = nodes.lines_of("orders");
    assert!(lines.contains(&format!("Insert {kept}")), "{lines:?}");
    assert!(!lines.contains(&format!("Insert {lost}")), "{lines:?}");
    assert_eq!(lines.len(), 9, "{lines:?}");
    assert!(taken <= RECOVERED_WITHIN, "{taken:?}");
}
