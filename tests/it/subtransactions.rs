//! Many rows, each in a subtransaction of its own: what a loop with an exception block makes.

use super::support::ready_cluster_with;
use super::support::worker::cpu_ticks;

/// Rows of which the buffer holds all.
const BUFFERED: i64 = 10_000;
/// Five times as many: most are written beyond what the buffer holds.
const MANY: i64 = 5 * BUFFERED;
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

#[test]
fn a_row_in_a_subtransaction_of_its_own_costs_no_more_the_more_rows_wait() {
    let (cluster, _receiver) = ready_cluster_with("subxacts", &[("webhook.delivery", "off")]);
    cluster.sql(
        "create table items (id bigint primary key, note text);
         select webhook.create_webhook('w', array['http://127.0.0.1:1/']);
         select webhook.create_event('w', 'items', 'table.recordInsert');
         create procedure load(first bigint, n bigint) language plpgsql as $$
         begin
             for id in first..first + n - 1 loop
                 begin
                     insert into items values (id, 'item ' || id);
                     if id % 10 = 0 then
                         raise exception division_by_zero;
                     end if;
                 exception when division_by_zero then null;
                 end;
             end loop;
         end $$",
    );
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
               from webhook.outbox) as o
         full join (select row_number() over (order by id) as place, id from items) as i using (place)
         where o.id is distinct from i.id",
    );
    assert_eq!(differing, 0);
    let flushes: i64 = cluster.value("select count(distinct id >> 20) from webhook.outbox");
    assert!(flushes > 1000, "{flushes} flushes: the buffer held them");
    println!("{BUFFERED} rows took {few} ticks, {MANY} rows {many} ({flushes} flushes)");
    assert!(
        many <= AT_MOST_TIMES * few,
        "{BUFFERED} rows took {few} ticks, {MANY} rows {many}"
    );
}
