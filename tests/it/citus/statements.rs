//! Every statement on every kind of table: each change makes one message.

use super::super::support::nodes::Nodes;
use super::super::support::PATIENCE;

/// The name as SQL needs it, and as payloads show it, and how it is made.
struct Kind {
    table: &'static str,
    label: &'static str,
    setup: &'static str,
}

const LONG: &str = "a_name_that_is_nearly_as_long_as_one_may_be_so_shards_hash";

const KINDS: &[Kind] = &[
    Kind {
        table: "orders",
        label: "orders",
        setup: "create table orders (id bigint primary key, n integer, note text);
                select create_distributed_table('orders', 'id')",
    },
    Kind {
        table: "countries",
        label: "countries",
        setup: "create table countries (id bigint primary key, n integer, note text);
                select create_reference_table('countries')",
    },
    Kind {
        table: "local_ones",
        label: "local_ones",
        setup: "create table local_ones (id bigint primary key, n integer, note text);
                select citus_add_local_table_to_metadata('local_ones')",
    },
    Kind {
        table: "plain",
        label: "plain",
        setup: "create table plain (id bigint primary key, n integer, note text)",
    },
    Kind {
        table: "parted",
        label: "parted",
        setup: "create table parted (id bigint primary key, n integer, note text) partition by range (id);
                create table parted_1 partition of parted for values from (0) to (12);
                create table parted_2 partition of parted for values from (12) to (10000);
                select create_distributed_table('parted', 'id')",
    },
    Kind {
        table: "\"My Schema\".\"Or.ders\"",
        label: "My Schema.\"Or.ders\"",
        setup: "create schema \"My Schema\";
                create table \"My Schema\".\"Or.ders\" (id bigint primary key, n integer, note text);
                select create_distributed_table('\"My Schema\".\"Or.ders\"', 'id')",
    },
    Kind {
        table: LONG,
        label: LONG,
        // Types of its shards would have one name, for which concurrent sessions wait.
        setup: "set citus.multi_shard_modify_mode = 'sequential';
                create table a_name_that_is_nearly_as_long_as_one_may_be_so_shards_hash (id bigint primary key, n integer, note text);
                select create_distributed_table('a_name_that_is_nearly_as_long_as_one_may_be_so_shards_hash', 'id')",
    },
    Kind {
        table: "tenant.things",
        label: "tenant.things",
        setup: "set citus.enable_schema_based_sharding = on;
                create schema tenant;
                create table tenant.things (id bigint primary key, n integer, note text)",
    },
    Kind {
        table: "orders_7",
        label: "orders_7",
        setup: "create table orders_7 (id bigint, n integer, note text, gone text, primary key (id));
                alter table orders_7 drop column gone;
                select create_distributed_table('orders_7', 'id')",
    },
];

/// The type of a change, and the ids of the rows.
type Changes = &'static [(&'static str, &'static [i64])];

/// Each statement, and what it changes.
const STATEMENTS: &[(&str, Changes)] = &[
    (
        "insert into TABLE select g, g, 'a' from generate_series(1, 9) g",
        &[("Insert", &[1, 2, 3, 4, 5, 6, 7, 8, 9])],
    ),
    ("insert into TABLE values (10, 10, 'b')", &[("Insert", &[10])]),
    (
        "insert into TABLE values (11, 11, 'b'), (12, 12, 'b'), (13, 13, 'b')",
        &[("Insert", &[11, 12, 13])],
    ),
    ("update TABLE set note = 'c' where id = 3", &[("Update", &[3])]),
    (
        "update TABLE set n = n + 100 where id < 6",
        &[("Update", &[1, 2, 3, 4, 5])],
    ),
    ("update TABLE set n = n where id = 6", &[]),
    (
        "insert into TABLE values (6, 6, 'd'), (14, 14, 'd') on conflict (id) do update set note = excluded.note",
        &[("Update", &[6]), ("Insert", &[14])],
    ),
    ("insert into TABLE values (6, 6, 'd') on conflict do nothing", &[]),
    ("delete from TABLE where id in (1, 2)", &[("Delete", &[1, 2])]),
    (
        "insert into TABLE select id + 100, n, note from TABLE where id between 10 and 12",
        &[("Insert", &[110, 111, 112])],
    ),
    (
        "begin; insert into TABLE values (200, 0, ''); savepoint a; insert into TABLE values (201, 0, '');
         rollback to a; insert into TABLE values (202, 0, ''); commit",
        &[("Insert", &[200, 202])],
    ),
    ("begin; insert into TABLE values (300, 0, ''); delete from TABLE where id = 3; rollback", &[]),
    (
        "begin; delete from TABLE where id = 4; insert into TABLE values (400, 0, ''); update TABLE set n = 0 where id = 5; commit",
        &[("Delete", &[4]), ("Insert", &[400]), ("Update", &[5])],
    ),
    (
        "with gone as (delete from TABLE where id = 7 returning id) select * from gone",
        &[("Delete", &[7])],
    ),
    ("truncate TABLE", &[]),
];

#[test]
#[ignore = "needs Citus: make test-citus"]
fn each_change_of_each_kind_of_table_makes_one_message() {
    let nodes = Nodes::start("citus-statements", 2);
    let coordinator = nodes.coordinator();
    nodes.watch("w", "");
    let mut unlike = Vec::new();
    for kind in KINDS {
        coordinator.sql(kind.setup);
        nodes.events("w", kind.table);
        let mut wanted = Vec::new();
        for (statement, changes) in STATEMENTS {
            coordinator.sql(&statement.replace("TABLE", kind.table));
            for (change, ids) in *changes {
                wanted.extend(ids.iter().map(|id| format!("{change} {id}")));
            }
        }
        coordinator.psql(&format!(
            "copy {} from stdin;\n500\t1\tx\n501\t1\ty\n\\.\n",
            kind.table
        ));
        wanted.extend(["Insert 500".to_owned(), "Insert 501".to_owned()]);
        wanted.sort();
        nodes.wait_idle();
        let found = nodes.lines_of(kind.label);
        println!("{}: {} messages", kind.label, found.len());
        if found != wanted {
            unlike.push(format!("{}: {found:?} in place of {wanted:?}", kind.label));
        }
    }
    assert!(unlike.is_empty(), "{}", unlike.join("\n"));
}

#[test]
#[ignore = "needs Citus: make test-citus"]
fn statements_of_several_tables_and_of_another_node() {
    let nodes = Nodes::start("citus-tables", 2);
    let coordinator = nodes.coordinator();
    nodes.watch("w", "");
    coordinator.sql(
        "create table orders (id bigint primary key, n integer);
         create table source (id bigint primary key, n integer);
         create table other (id bigint, n bigint primary key);
         select create_distributed_table('orders', 'id');
         select create_distributed_table('source', 'id', colocate_with => 'orders');
         select create_distributed_table('other', 'n', colocate_with => 'none');
         insert into source select g, g from generate_series(1, 6) g;
         insert into other select g + 50, g from generate_series(1, 6) g",
    );
    nodes.events("w", "orders");
    // Colocated, repartitioned, and by way of the coordinator.
    coordinator.sql("insert into orders select id, n from source where id <= 3");
    coordinator.sql("insert into orders select id, n from other");
    coordinator.sql("insert into orders select id + 20, n from source order by id limit 2");
    coordinator.sql(
        "merge into orders o using source s on o.id = s.id
         when matched then update set n = s.n + 1000
         when not matched then insert values (s.id, s.n)",
    );
    coordinator.sql("update orders o set n = s.n + 5 from source s where s.id = o.id and s.id = 6");
    // A client may be connected to any node.
    let worker = &nodes.all[1];
    worker.sql("insert into orders values (70, 1); update orders set n = 2 where id = 70");
    nodes.wait_idle();
    let mut wanted: Vec<String> = [1, 2, 3, 51, 52, 53, 54, 55, 56, 21, 22, 4, 5, 6, 70]
        .iter()
        .map(|id| format!("Insert {id}"))
        .collect();
    wanted.extend([1, 2, 3, 6, 70].iter().map(|id| format!("Update {id}")));
    wanted.sort();
    assert_eq!(nodes.lines_of("orders"), wanted);
}

#[test]
#[ignore = "needs Citus: make test-citus"]
fn commits_in_two_phases_are_sent_at_once() {
    let nodes = Nodes::start("citus-2pc", 2);
    let coordinator = nodes.coordinator();
    nodes.watch("w", "");
    coordinator.sql(
        "create table orders (id bigint primary key, n integer);
         select create_distributed_table('orders', 'id')",
    );
    nodes.events("w", "orders");
    coordinator.sql("insert into orders select g, g from generate_series(1, 8) g");
    nodes.receiver.wait_for(PATIENCE, "/ok", 8);
    let mut latest = Vec::new();
    for round in 0..20_u64 {
        let before = nodes.receiver.count("/ok").requests;
        let committed = std::time::Instant::now();
        coordinator.sql(&format!("update orders set n = {}", 1000 + round));
        nodes.receiver.wait_for(PATIENCE, "/ok", before + 8);
        latest.push(committed.elapsed());
    }
    latest.sort();
    println!(
        "UPDATE of all shards to the last of its calls: median {:?}, slowest {:?}",
        latest[10], latest[19]
    );
}
