//! Tables and shards that Citus converts and moves: their rows are no changes, and their events go on.

use super::super::support::nodes::Nodes;

#[test]
#[ignore = "needs Citus: make test-citus"]
fn events_go_on_through_conversions_and_moved_rows_make_no_messages() {
    let nodes = Nodes::start("citus-conversions", 2);
    let coordinator = nodes.coordinator();
    nodes.watch("w", "");
    coordinator.sql(
        "create table kinds (id bigint primary key); select create_reference_table('kinds');
         create table orders (id bigint primary key, n integer, kind bigint);
         insert into orders select g, g from generate_series(1, 50) g",
    );
    nodes.events("w", "orders");
    let mut next = 100;
    let mut wanted = Vec::new();
    let mut change = || {
        coordinator.sql(&format!(
            "insert into orders select g, g from generate_series({next}, {}) g;
             update orders set n = n + 1 where id = {next}; delete from orders where id = {}",
            next + 9,
            next + 9
        ));
        wanted.extend((next..next + 10).map(|id| format!("Insert {id}")));
        wanted.extend([format!("Update {next}"), format!("Delete {}", next + 9)]);
        wanted.sort();
        next += 10;
        nodes.wait_idle();
        assert_eq!(nodes.lines_of("orders"), wanted);
    };
    change();
    let conversions = [
        "select create_distributed_table('orders', 'id')",
        "select alter_distributed_table('orders', shard_count => 6)",
        "select citus_split_shard_by_split_points(
             (select min(shardid) from pg_dist_shard where logicalrelid = 'orders'::regclass),
             array[((select shardminvalue::integer + 1000000 from pg_dist_shard
                     where shardid = (select min(shardid) from pg_dist_shard where logicalrelid = 'orders'::regclass)))::text],
             array[(select min(nodeid) from pg_dist_node where groupid <> 0), (select max(nodeid) from pg_dist_node where groupid <> 0)],
             'block_writes')",
        "select undistribute_table('orders')",
        "alter table orders add constraint of_kind foreign key (kind) references kinds",
        "alter table orders drop constraint of_kind",
        "select create_reference_table('orders')",
        "select undistribute_table('orders')",
    ];
    for conversion in conversions {
        coordinator.psql(&format!(
            "set citus.enable_unsafe_triggers = on;
{conversion};"
        ));
        println!("{conversion}");
        change();
    }
    let stopped = "select count(*) from webhook_internal.stopped_event";
    for node in &nodes.all {
        assert_eq!(node.value::<i64>(stopped), 0);
    }
}

#[test]
#[ignore = "needs Citus: make test-citus"]
fn moves_of_shards_under_load_lose_and_invent_nothing() {
    let nodes = Nodes::start("citus-moves", 2);
    let coordinator = nodes.coordinator();
    nodes.watch("w", "");
    coordinator.sql("create table orders (id bigint primary key, n integer); select create_distributed_table('orders', 'id')");
    nodes.events("w", "orders");
    let stop = std::sync::atomic::AtomicBool::new(false);
    let written = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut session = coordinator.connect("postgres");
            let mut id = 0_i64;
            let mut committed = Vec::new();
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                id += 1;
                let statement = format!("insert into orders values ({id}, 0)");
                if session.batch_execute(&statement).is_ok() {
                    committed.push(id);
                }
            }
            committed
        });
        for mode in [
            "block_writes",
            "force_logical",
            "block_writes",
            "force_logical",
        ] {
            coordinator.sql(&format!(
                "select citus_move_shard_placement(p.shardid, p.nodename, p.nodeport, '127.0.0.1',
                     (select n.nodeport from pg_dist_node n where n.groupid <> 0 and n.nodeport <> p.nodeport limit 1), '{mode}')
                 from (
                     select p.shardid, p.nodename, p.nodeport from pg_dist_shard_placement p join pg_dist_shard s using (shardid)
                     where s.logicalrelid = 'orders'::regclass order by random() limit 1
                 ) p"
            ));
        }
        let another = Nodes::another("citus-moves");
        nodes.add(&another);
        coordinator
            .sql("select rebalance_table_shards('orders', shard_transfer_mode => 'force_logical')");
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let written = writer.join().unwrap();
        nodes.wait_idle();
        // It may go when it has nothing more to send.
        coordinator.sql(&format!(
            "select citus_drain_node('127.0.0.1', {}, 'force_logical')",
            another.port()
        ));
        let pending: i64 = coordinator.value(&format!(
            "select webhook.drain_node('127.0.0.1:{}')",
            another.port()
        ));
        assert_eq!(pending, 0);
        written
    });
    let mut wanted: Vec<String> = written.iter().map(|id| format!("Insert {id}")).collect();
    wanted.sort();
    println!("{} rows were written while shards moved", wanted.len());
    let found = nodes.lines_of("orders");
    assert_eq!(found.len(), wanted.len());
    assert_eq!(found, wanted);
}
