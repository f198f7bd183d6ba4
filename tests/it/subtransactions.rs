//! Many rows, each in a subtransaction of its own: what a loop with an exception block makes.

use super::support::worker::cpu_ticks;
use super::support::{ready_cluster_with, Cluster};

/// Rows of a kilobyte, of which the buffer holds all.
const BUFFERED: i64 = 10_000;
/// Five times as many: half of them are written beyond what the buffer holds.
const MANY: i64 = 5 * BUFFERED;
/// Short rows that take more than the buffer holds of a transaction without subtransactions.
const SHORT_ROWS: i64 = 40_000;
/// Beyond the buffer a row is written by itself, which costs more, but not the more the more
/// rows wait.
const AT_MOST_TIMES: i64 = 15;

/// Loads so many rows, of which each tenth is rolled back, and returns the session's CPU time.
fn load(session: &mut postgres::Client, first: i64, rows: i64) -> i64 {
    let pid: i32 = session
        .query_one("select pg_backend_pid()", &[])
        .unwrap()
        .get(0);
    let before = cpu_ticks(pid);
    session
        .batch_execute(&format!("call load({first}, {rows})"))
        .unwrap();
    i64::try_from(cpu_ticks(pid) - before).unwrap()
}

fn loading_cluster(name: &str, note: &str) -> Cluster {
    let (cluster, _receiver) = ready_cluster_with(name, &[("webhook.delivery", "off")]);
    cluster.sql(&format!(
        "create table items (id bigint primary key, note text);
         select webhook.create_webhook('w', array['http://127.0.0.1:1/']);
         select webhook.create_event('w', 'items', 'table.recordInsert');
         create procedure load(first bigint, n bigint) language plpgsql as $$
         begin
             for id in first..first + n - 1 loop
                 begin
                     insert into items values (id, {note});
                     if id % 10 = 0 then
                         raise exception division_by_zero;
                     end if;
                 exception when division_by_zero then null;
                 end;
             end loop;
         end $$"
    ));
    cluster
}

fn flushes(cluster: &Cluster) -> i64 {
    cluster.value("select count(distinct id >> 20) from webhook_internal.outbox")
}

/// A flush for each row would cost several times what the row does.
#[test]
fn short_rows_in_subtransactions_of_their_own_are_written_together() {
    let cluster = loading_cluster("short_subxacts", "'item'");
    load(&mut cluster.connect("postgres"), 1, SHORT_ROWS);
    let committed: i64 = cluster.value("select count(*) from items");
    let captured: i64 = cluster.value("select count(*) from webhook_internal.outbox");
    assert_eq!((committed, captured), (SHORT_ROWS / 10 * 9, committed));
    assert_eq!(flushes(&cluster), 1);
}

#[test]
fn a_row_in_a_subtransaction_of_its_own_costs_no_more_the_more_rows_wait() {
    let cluster = loading_cluster("subxacts", "repeat('item ', 200)");
    let mut session = cluster.connect("postgres");
    load(&mut session, 1, 100);
    let few = load(&mut session, 1 + MANY, BUFFERED).max(1);
    let many = load(&mut session, 1 + 2 * MANY, MANY);

    // Exactly what survived, in its order.
    let committed: i64 = cluster.value("select count(*) from items");
    assert_eq!(committed, (100 + BUFFERED + MANY) / 10 * 9);
    let differing: i64 = cluster.value(
        "select count(*)
         from (select row_number() over (order by id) as place, (record::json ->> 'id')::bigint as id
               from webhook_internal.outbox) as o
         full join (select row_number() over (order by id) as place, id from items) as i using (place)
         where o.id is distinct from i.id",
    );
    assert_eq!(differing, 0);
    let flushes = flushes(&cluster);
    assert!(flushes > 1000, "{flushes} flushes: the buffer held them");
    println!("{BUFFERED} rows took {few} ticks, {MANY} rows {many} ({flushes} flushes)");
    assert!(
        many <= AT_MOST_TIMES * few,
        "{BUFFERED} rows took {few} ticks, {MANY} rows {many}"
    );
}
