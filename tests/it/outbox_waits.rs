//! Sessions that are ended, or fail and go on, while an index entry of an outbox row waits.

use std::thread;

use postgres::Client;

use super::support::watched::watch_items;
use super::support::worker::cluster_restarts;
use super::support::{ready_cluster, Cluster, PATIENCE};

const TEST: &str = "select from webhook.test_webhook('/ok/a')";

fn pid_of(session: &mut Client) -> i32 {
    session
        .query_one("select pg_backend_pid()", &[])
        .unwrap()
        .get(0)
}

fn ready(name: &str) -> Cluster {
    let (cluster, receiver) = ready_cluster(name);
    cluster.configure("webhook.delivery", "off");
    cluster.reload();
    watch_items(&cluster, &receiver, "/ok/a");
    cluster.sql("create extension amcheck");
    cluster
}

#[test]
fn a_session_is_ended_or_fails_while_an_index_entry_waits_for_another_transaction() {
    let cluster = ready("outbox-waits");
    cluster.sql("create unique index added on webhook.outbox_0 (webhook_key)");
    cluster.sql("select brin_summarize_new_values('webhook.outbox_0_time')");
    let commits = [
        ("alone", "insert into items values (1, 'alone')".to_owned()),
        ("many", "insert into items select n, 'x' from generate_series(1, 300) n".to_owned()),
        ("early", "begin; insert into items select n, repeat('x', 1000000) from generate_series(1, 6) n; commit".to_owned()),
        ("prepared", "begin; insert into items values (1, 'p'); prepare transaction 'p'".to_owned()),
        ("procedure", "do $$ begin insert into items values (1, 'c'); commit; end $$".to_owned()),
    ];
    for end in ["pg_terminate_backend", "pg_cancel_backend"] {
        for (name, commit) in &commits {
            let context = format!("{name}, {end}");
            let mut holder = cluster.connect("postgres");
            holder.batch_execute(&format!("begin; {TEST}")).unwrap();
            let mut victim = cluster.connect("postgres");
            let pid = pid_of(&mut victim);
            let commit = commit.clone();
            let thread = thread::spawn(move || {
                let result = victim.batch_execute(&commit);
                (victim, result)
            });
            cluster.wait_for_text(
                PATIENCE,
                &format!("select wait_event from pg_stat_activity where pid = {pid}"),
                "transactionid",
            );
            cluster.sql(&format!("select {end}({pid})"));
            let (mut victim, result) = thread.join().unwrap();
            result.expect_err(&context);
            holder.batch_execute("rollback").unwrap();
            if end == "pg_cancel_backend" {
                victim.batch_execute("rollback").unwrap();
                // The session writes on, and what it writes is undone again.
                victim
                    .batch_execute(&format!("begin; {TEST}; rollback"))
                    .unwrap_or_else(|error| panic!("{context}: {error:?}"));
            }
        }
    }
    // A part fails, the transaction goes on.
    let mut holder = cluster.connect("postgres");
    holder.batch_execute(&format!("begin; {TEST}")).unwrap();
    let mut session = cluster.connect("postgres");
    session
        .batch_execute(
            "set lock_timeout = '100ms';
             begin;
             do $$ begin
               for n in 1..20 loop
                 begin
                   insert into items select 1000 * n + i, repeat('x', 1000000) from generate_series(1, 6) i;
                 exception when lock_not_available then
                   null;
                 end;
               end loop;
             end $$;
             insert into items values (7, 'in the end')",
        )
        .unwrap();
    holder.batch_execute("rollback").unwrap();
    session.batch_execute("commit").unwrap();
    assert_eq!(cluster.value::<i64>("select count(*) from items"), 1);
    assert_eq!(
        cluster.value::<i64>("select count(*) from webhook.outbox_0"),
        1
    );
    cluster.sql("select bt_index_check('webhook.outbox_0_position', true), bt_index_check('webhook.added', true)");
    assert_eq!(cluster_restarts(&cluster), 0, "{}", cluster.log());
    let log = cluster.log();
    let odd: Vec<&str> = log
        .lines()
        .filter(|line| {
            line.contains("leak")
                || line.contains("PANIC")
                || line.contains("TRAP")
                || line.contains("panicked")
        })
        .collect();
    assert!(odd.is_empty(), "{odd:?}");
}

#[test]
fn rows_are_found_whose_range_is_summarised_and_forgotten_while_they_are_written() {
    let cluster = ready("outbox-summaries");
    let writers: Vec<_> = (0..2)
        .map(|writer| {
            let mut session = cluster.connect("postgres");
            thread::spawn(move || {
                for n in 0..150i64 {
                    let from = (writer as i64 * 150 + n) * 100;
                    session
                        .batch_execute(&format!(
                            "insert into items select i, 'x' from generate_series({from}, {from} + 99) i"
                        ))
                        .unwrap();
                }
            })
        })
        .collect();
    let mut session = cluster.connect("postgres");
    while !writers.iter().all(|writer| writer.is_finished()) {
        session
            .batch_execute(
                "select brin_summarize_new_values('webhook.outbox_0_time');
                 select brin_desummarize_range('webhook.outbox_0_time', b::bigint)
                 from generate_series(0, pg_relation_size('webhook.outbox_0') / 8192, 32) b where random() < 0.5;",
            )
            .unwrap();
    }
    for writer in writers {
        writer.join().unwrap();
    }
    session
        .batch_execute(
            "select brin_summarize_new_values('webhook.outbox_0_time');
             create extension pageinspect;
             create temp table lost as
             with items as (
                 select i.blknum, i.attnum, i.placeholder,
                        split_part(trim(both '{}' from i.value), ' .. ', 1) as low,
                        split_part(trim(both '{}' from i.value), ' .. ', 2) as high
                 from generate_series(2, pg_relation_size('webhook.outbox_0_time') / 8192 - 1) p,
                      lateral (select get_raw_page('webhook.outbox_0_time', p::int) as page) g,
                      lateral brin_page_items(g.page, 'webhook.outbox_0_time') i
                 where brin_page_type(g.page) = 'regular' and i.value is not null),
             rows as (
                 select ((ctid::text::point)[0]::bigint / 32) * 32 as blknum,
                        min(message_id::text collate \"C\") as low_id, max(message_id::text collate \"C\") as high_id,
                        min(captured_at) as low_time, max(captured_at) as high_time
                 from webhook.outbox_0 group by 1)
             select r.blknum, i.attnum, i.low, i.high, r.low_id, r.high_id, r.low_time, r.high_time
             from rows r left join items i on i.blknum = r.blknum
             where i.blknum is null or i.placeholder
                or case when i.attnum = 1 then not (i.low collate \"C\" <= r.low_id and i.high collate \"C\" >= r.high_id)
                        else not (i.low::timestamptz <= r.low_time and i.high::timestamptz >= r.high_time) end",
        )
        .unwrap();
    let row = session
        .query_one(
            "select (select count(*) from lost), (select count(*) from webhook.outbox_0)",
            &[],
        )
        .unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (0, 30_000));
}
