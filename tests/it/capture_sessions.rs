//! Kinds of sessions and table changes that capture meets: procedures, chained transactions,
//! held cursors, serializable retries, inheritance, rewritten tables, apply workers.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicI64, Ordering};
use std::thread;

use postgres::Client;

use super::support::watched::{
    assert_items_delivered, insert_items, insert_statement, wait_idle, watch_items,
};
use super::support::{ready_cluster, ready_cluster_with, Cluster, Receiver, StopMode, PATIENCE};

fn ready(name: &str) -> (Cluster, Receiver) {
    let (cluster, receiver) = ready_cluster(name);
    watch_items(&cluster, &receiver, "/ok/a");
    (cluster, receiver)
}

/// Each statement by itself, as psql sends them.
fn run_all(session: &mut Client, statements: &[&str]) {
    for sql in statements {
        session
            .batch_execute(sql)
            .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }
}

/// Without a crash nothing is repeated: exactly what was committed.
fn assert_exactly_delivered(cluster: &Cluster, receiver: &Receiver, expected: usize) {
    let received = assert_items_delivered(cluster, receiver, "/ok/a", PATIENCE);
    assert_eq!(received.len(), expected);
}

#[test]
fn procedures_that_commit_and_roll_back_in_loops_send_what_they_committed() {
    let (cluster, receiver) = ready("procedures");
    cluster.sql(
        "create procedure load(first int) language plpgsql as $$
         begin
             for n in first..first + 29 loop
                 insert into items values (n, repeat('x', 300000));
                 begin
                     insert into items values (n + 1000, 'of a block');
                     if n % 2 = 0 then
                         raise exception division_by_zero;
                     end if;
                 exception when division_by_zero then null;
                 end;
                 if n % 3 = 0 then
                     rollback;
                 elsif n % 5 <> 0 then
                     commit;
                 end if;
             end loop;
         end $$",
    );
    let mut session = cluster.connect("postgres");
    run_all(
        &mut session,
        &[
            "call load(1)",
            "call load(31)",
            "do $$ begin call load(61); commit; end $$",
        ],
    );
    let committed: i64 = cluster.value("select count(*) from items");
    assert!(committed > 60, "{committed} rows were committed");
    assert_exactly_delivered(&cluster, &receiver, committed as usize);
}

#[test]
fn chained_transactions_send_what_each_of_them_committed() {
    let (cluster, receiver) = ready("chained");
    run_all(
        &mut cluster.connect("postgres"),
        &[
            "begin isolation level repeatable read",
            "insert into items values (1, null)",
            "commit and chain",
            "insert into items values (2, null)",
            "savepoint s",
            "insert into items values (3, null)",
            "rollback and chain",
            "insert into items values (4, null)",
            "savepoint s",
            "insert into items values (5, null)",
            "commit and chain",
            "commit and chain",
            "insert into items values (6, null)",
            "rollback",
            "insert into items values (7, null)",
        ],
    );
    assert_exactly_delivered(&cluster, &receiver, 4);
}

/// The rest of a held cursor's query runs when its transaction commits.
#[test]
fn what_a_held_cursor_changes_at_commit_is_sent() {
    let (cluster, receiver) = ready("held");
    cluster.sql(
        "create function insert_item(n int) returns int language sql as
         'insert into items values (n, null) returning id::int'",
    );
    run_all(
        &mut cluster.connect("postgres"),
        &[
            "begin",
            "declare c no scroll cursor with hold for select insert_item(n) from generate_series(1, 10) n",
            "fetch 3 from c",
            "commit",
            "insert into items values (11, null)",
            "fetch all from c",
            "close c",
            "begin",
            "declare c no scroll cursor with hold for select insert_item(n) from generate_series(20, 30) n",
            "fetch 3 from c",
            "rollback",
        ],
    );
    assert_exactly_delivered(&cluster, &receiver, 11);
}

#[test]
fn serializable_transactions_that_are_retried_send_each_commit_once() {
    let (cluster, receiver) = ready("serializable");
    insert_items(&cluster, 1..=4);
    let next = AtomicI64::new(1000);
    let failures = AtomicI64::new(0);
    // The deadline is only for failures: every transaction comes through at last.
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut session = cluster.connect("postgres");
                run_all(
                    &mut session,
                    &["set default_transaction_isolation = 'serializable'"],
                );
                for _ in 0..50 {
                    let id = next.fetch_add(1, Ordering::Relaxed);
                    // Each reads what the others write.
                    let sql = format!(
                        "begin; insert into items select {id}, count(*)::text from items; commit"
                    );
                    while let Err(error) = session.batch_execute(&sql) {
                        let code = error.code().expect("the server answered").code();
                        assert_eq!(code, "40001", "{error:?}");
                        failures.fetch_add(1, Ordering::Relaxed);
                        run_all(&mut session, &["rollback"]);
                    }
                }
            });
        }
    });
    assert!(
        failures.load(Ordering::Relaxed) > 0,
        "no transaction was ever in the way of another"
    );
    assert_exactly_delivered(&cluster, &receiver, 4 + 200);
}

/// PostgreSQL fires row triggers of the table that holds the row.
#[test]
fn an_event_of_a_parent_table_is_about_the_parents_own_rows() {
    let (cluster, receiver) = ready_cluster("inheritance");
    let (parent, child) = (receiver.url("/ok/parent"), receiver.url("/ok/child"));
    cluster.sql(&format!(
        "create table parent (id bigint primary key, note text);
         create table child (extra text, primary key (id)) inherits (parent);
         select webhook.create_webhook(name => 'p', outgoing_urls => array['{parent}']);
         select webhook.create_webhook(name => 'c', outgoing_urls => array['{child}']);
         select webhook.create_event(
             webhook => 'p', object_name => 'parent', event_type => 'table.recordUpdate');
         select webhook.create_event(
             webhook => 'c', object_name => 'child', event_type => 'table.recordUpdate');
         insert into parent select n, 'parent' from generate_series(1, 3) n;
         insert into child select n, 'child', 'extra' from generate_series(11, 15) n;
         update parent set note = 'of both'"
    ));
    wait_idle(&cluster, PATIENCE);
    assert_eq!(receiver.received_at("/ok/parent").len(), 3);
    let of_child = receiver.received_at("/ok/child");
    assert_eq!(of_child.len(), 5);
    for received in of_child {
        assert_eq!(received.body()["data"][0]["extra"], "extra");
    }
}

/// As pg_repack does it: a copy takes the place of the table's file.
fn swap_files(cluster: &Cluster) {
    run_all(
        &mut cluster.connect("postgres"),
        &[
            "set allow_system_table_mods = on",
            "begin",
            "lock table items in access exclusive mode",
            "create table copy (id bigint, note text)",
            "insert into copy select id, note from items",
            "with files as (
                 select oid, relfilenode, reltoastrelid,
                        first_value(relfilenode) over w as first, last_value(relfilenode) over w as last
                 from pg_class where oid in ('items'::regclass, 'copy'::regclass)
                 window w as (order by oid rows between unbounded preceding and unbounded following)
             )
             update pg_class c
             set relfilenode = case when f.relfilenode = f.first then f.last else f.first end,
                 reltoastrelid = (select o.reltoastrelid from files o where o.oid <> f.oid)
             from files f
             where c.oid = f.oid",
            "update pg_depend d
             set refobjid = case when d.refobjid = 'items'::regclass then 'copy'::regclass
                                 else 'items'::regclass end
             where d.classid = 'pg_class'::regclass and d.deptype = 'i'
               and d.refobjid in ('items'::regclass, 'copy'::regclass)
               and d.objid in (select reltoastrelid from pg_class)",
            "commit",
            "reindex table items",
            "drop table copy",
        ],
    );
}

#[test]
fn a_session_goes_on_capturing_a_table_that_is_rewritten_between_its_changes() {
    let (cluster, receiver) = ready("rewritten");
    let mut writer = cluster.connect("postgres");
    let mut id = 0;
    let mut next = |writer: &mut Client| {
        id += 3;
        run_all(
            writer,
            &[
                &format!("insert into items values ({}, repeat('y', 5000))", id - 2),
                "begin",
                &format!("insert into items values ({}, 'two')", id - 1),
                &format!("insert into items values ({id}, repeat('z', 100000))"),
                "commit",
            ],
        );
    };
    next(&mut writer);
    for change in [
        "cluster items using items_pkey",
        "vacuum full items",
        "alter table items add column extra int default 7",
        "alter table items drop column extra",
        "vacuum full items",
        "alter table items set unlogged",
        "alter table items set logged",
        "reindex table items",
        "create temp table kept as select * from items; truncate items;
         set session_replication_role = replica; insert into items select * from kept",
    ] {
        cluster.sql(change);
        next(&mut writer);
    }
    cluster.sql("vacuum full items");
    next(&mut writer);
    assert_exactly_delivered(&cluster, &receiver, 33);
}

#[test]
fn a_session_goes_on_capturing_a_table_whose_file_was_swapped() {
    let (cluster, receiver) = ready("swapped");
    let mut writer = cluster.connect("postgres");
    run_all(
        &mut writer,
        &["insert into items select n, repeat('x', 5000) from generate_series(1, 10) n"],
    );
    swap_files(&cluster);
    run_all(
        &mut writer,
        &[
            "insert into items select n, repeat('x', 5000) from generate_series(11, 20) n",
            "begin; insert into items values (21, null); savepoint s; insert into items values (22, null); commit",
        ],
    );
    assert_exactly_delivered(&cluster, &receiver, 22);
}

/// Each segment of pg_xact has 32 pages, each byte the state of four transactions.
const XIDS_PER_SEGMENT: u64 = 32 * 8192 * 4;

/// Every database, so that no row is older than the next id by more than half the circle.
fn freeze_all(cluster: &Cluster) {
    cluster.sql("alter database template0 with allow_connections true");
    for database in ["template0", "template1", "postgres"] {
        let mut session = cluster.connect(database);
        run_all(&mut session, &["vacuum freeze", "checkpoint"]);
    }
    cluster.sql("alter database template0 with allow_connections false");
}

fn pg_resetwal(cluster: &Cluster, arguments: &[&str]) {
    let output = cluster
        .server_program("pg_resetwal")
        .args(arguments)
        .arg("--pgdata")
        .arg(cluster.data_directory())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// The server of a stopped cluster goes on with this transaction id.
fn go_on_at(cluster: &Cluster, xid: u64) {
    let segment = cluster
        .data_directory()
        .join("pg_xact")
        .join(format!("{:04X}", xid / XIDS_PER_SEGMENT));
    if !segment.exists() {
        write_as_server(cluster, &segment);
    }
    pg_resetwal(cluster, &["-x", &xid.to_string()]);
}

fn write_as_server(cluster: &Cluster, segment: &Path) {
    fs::write(segment, vec![0; 32 * 8192]).unwrap();
    let owner = cluster.data_directory().join("PG_VERSION");
    let copied = Command::new("chown")
        .arg(format!("--reference={}", owner.display()))
        .arg(segment)
        .status()
        .unwrap();
    assert!(copied.success());
}

#[test]
fn messages_of_both_sides_of_an_epoch_boundary_are_sent() {
    let (cluster, receiver) = ready("epoch");
    insert_items(&cluster, 1..=20);
    assert_exactly_delivered(&cluster, &receiver, 20);
    for xid in [1_500_000_000, 3_000_000_000, 4_294_967_000] {
        freeze_all(&cluster);
        cluster.stop(StopMode::Fast);
        go_on_at(&cluster, xid);
        cluster.start_again();
    }
    // Some that wait, some that are delivered, and a transaction on the other side before one
    // on this side commits.
    cluster.sql("select webhook.pause_webhook('/ok/a')");
    let mut early = cluster.connect("postgres");
    run_all(&mut early, &["begin", &insert_statement(21..=25)]);
    let mut id = 100;
    let mut writer = cluster.connect("postgres");
    while cluster
        .value::<String>("select pg_snapshot_xmax(pg_current_snapshot())::text")
        .parse::<u64>()
        .unwrap()
        <= u64::from(u32::MAX) + 100
    {
        for _ in 0..50 {
            id += 1;
            run_all(&mut writer, &[&insert_statement(id..=id)]);
        }
        if id == 200 {
            cluster.sql("select webhook.resume_webhook('/ok/a')");
        }
    }
    run_all(&mut early, &["commit"]);
    run_all(&mut writer, &[&insert_statement(26..=30)]);
    let expected = 20 + 10 + (id - 100) as usize;
    receiver.wait_for(PATIENCE, "/ok/a", expected as u64);
    let both: String = cluster.value(
        "select string_agg(distinct (xid::text::numeric >= 4294967296)::text, ' ') from webhook_internal.outbox",
    );
    assert_eq!(both, "false true");
    assert_exactly_delivered(&cluster, &receiver, expected);
}

#[test]
fn pending_messages_survive_an_epoch_that_was_set_by_hand() {
    let (cluster, receiver) = ready("epochset");
    insert_items(&cluster, 1..=10);
    wait_idle(&cluster, PATIENCE);
    cluster.sql("select webhook.pause_webhook('/ok/a')");
    insert_items(&cluster, 11..=20);
    cluster.stop(StopMode::Fast);
    pg_resetwal(&cluster, &["-e", "1"]);
    cluster.start_again();
    insert_items(&cluster, 21..=30);
    cluster.sql("select webhook.resume_webhook('/ok/a')");
    insert_items(&cluster, 31..=40);
    receiver.wait_for(PATIENCE, "/ok/a", 40);
    assert_exactly_delivered(&cluster, &receiver, 40);
}

#[test]
fn an_apply_worker_captures_with_a_trigger_that_is_always_enabled() {
    let (cluster, receiver) = ready_cluster_with("applied", &[("wal_level", "logical")]);
    watch_items(&cluster, &receiver, "/ok/a");
    cluster.sql(
        "do $$
         declare event record;
         begin
             for event in select tgname from pg_trigger where tgrelid = 'items'::regclass loop
                 execute format('alter table items enable always trigger %I', event.tgname);
             end loop;
         end $$",
    );
    cluster.sql("create database source");
    cluster.sql_in(
        "source",
        "create table items (id bigint primary key, note text);
         insert into items select n, 'synchronised' from generate_series(1, 50) n;
         create publication p for table items",
    );
    cluster.sql_in(
        "source",
        "select pg_create_logical_replication_slot('s', 'pgoutput')",
    );
    cluster.sql(&format!(
        "create subscription s
         connection 'host={} port={} user=postgres dbname=source'
         publication p with (create_slot = false, slot_name = 's')",
        cluster.directory().display(),
        cluster.port()
    ));
    cluster.wait_for_text(PATIENCE, "select count(*)::text from items", "50");
    let mut source = cluster.connect("source");
    run_all(
        &mut source,
        &[
            "begin; insert into items select n, 'applied' from generate_series(51, 90) n; commit",
            "begin; insert into items values (91, null); rollback",
            "begin; insert into items values (92, null); savepoint s; insert into items values (93, null);
             rollback to s; insert into items values (94, null); commit",
        ],
    );
    receiver.wait_for(PATIENCE, "/ok/a", 92);
    assert_exactly_delivered(&cluster, &receiver, 92);
    cluster.sql("alter subscription s disable; alter subscription s set (slot_name = none); drop subscription s");
}
