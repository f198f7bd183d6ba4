//! Savepoints, and commits in another order than everything else (faults 15 and 16).

use postgres::Client;

use super::support::watched::{
    assert_items_delivered, insert_items, insert_statement, wait_idle, watch_items,
};
use super::support::worker::worker_of;
use super::support::{ready_cluster, Cluster, Receiver, PATIENCE};

/// Without a crash nothing is repeated: exactly what survived.
fn assert_exactly_delivered(cluster: &Cluster, receiver: &Receiver, expected: usize) {
    let received = assert_items_delivered(cluster, receiver, "/ok/a", PATIENCE);
    assert_eq!(received.len(), expected);
}

fn run_all(session: &mut Client, statements: &str) {
    session
        .batch_execute(statements)
        .unwrap_or_else(|error| panic!("{statements}: {error:?}"));
}

#[test]
fn savepoints_and_exception_blocks_send_exactly_what_survives() {
    let (cluster, receiver) = ready_cluster("savepoints");
    watch_items(&cluster, &receiver, "/ok/a");
    run_all(
        &mut cluster.connect("postgres"),
        "begin;
         insert into items values (1, 'kept');
         savepoint a;
         insert into items values (2, 'gone');
         savepoint b;
         insert into items values (3, 'gone with a');
         release b;
         rollback to a;
         insert into items values (4, 'kept');
         savepoint c;
         insert into items values (5, 'kept');
         release c;
         rollback to a;
         insert into items values (6, 'kept');
         savepoint d;
         savepoint e;
         insert into items values (7, 'kept');
         release d;
         commit;

         do $$
         begin
             insert into items values (11, 'kept');
             begin
                 insert into items values (12, 'gone');
                 begin
                     insert into items values (13, 'gone');
                     perform 1 / 0;
                 exception when division_by_zero then
                     insert into items values (14, 'gone with the outer one');
                 end;
                 insert into items values (11, 'taken');
             exception when unique_violation then
                 insert into items values (15, 'kept');
             end;
         end $$",
    );
    let committed: Vec<String> = cluster
        .connect("postgres")
        .query("select n.id::text from items n order by n.id", &[])
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert_eq!(committed, ["1", "6", "7", "11", "15"]);
    assert_exactly_delivered(&cluster, &receiver, 5);
}

#[test]
fn ten_thousand_subtransactions_send_exactly_what_survives() {
    let (cluster, receiver) = ready_cluster("subtransactions");
    watch_items(&cluster, &receiver, "/ok/a");
    cluster.sql(
        "do $$
         begin
             for n in 1..10000 loop
                 begin
                     insert into items values (n, 'one of many');
                     if n % 10 <> 0 then
                         raise exception 'not this one';
                     end if;
                 exception when raise_exception then
                     null;
                 end;
             end loop;
         end $$",
    );
    assert_exactly_delivered(&cluster, &receiver, 1000);
}

#[test]
fn rows_written_early_in_a_subtransaction_go_with_it() {
    let (cluster, receiver) = ready_cluster("earlyflush");
    watch_items(&cluster, &receiver, "/ok/a");
    // Six rows of a megabyte are more than the buffer holds.
    let large = |first: i64| {
        format!(
            "insert into items select n, repeat('x', 1000000)
             from generate_series({first}, {}) n;",
            first + 5
        )
    };
    let mut session = cluster.connect("postgres");
    run_all(
        &mut session,
        &format!(
            "begin;
             insert into items values (1, 'waits in the buffer');
             savepoint a;
             {gone}
             insert into items values (19, 'gone');
             rollback to a;
             insert into items values (20, 'kept');
             savepoint b;
             {kept}
             savepoint c;
             {gone_inner}
             rollback to c;
             insert into items values (49, 'kept');
             release b;
             savepoint d;
             {released}
             release d;
             rollback to a;
             insert into items values (60, 'kept');
             savepoint e;
             {kept_last}
             release e;
             insert into items values (80, 'kept');
             commit",
            gone = large(10),
            kept = large(21),
            gone_inner = large(31),
            released = large(51),
            kept_last = large(71),
        ),
    );
    // A transaction that is rolled back as a whole after it has written early.
    run_all(&mut session, &format!("begin; {} rollback", large(91)));
    run_all(&mut session, &insert_statement(100..=101));
    // 1, 60, 71 to 76, 80, 100 and 101.
    assert_exactly_delivered(&cluster, &receiver, 11);
}

#[test]
fn a_writer_that_stays_open_while_others_commit_is_not_skipped() {
    let (cluster, receiver) = ready_cluster("longwriter");
    watch_items(&cluster, &receiver, "/ok/a");
    watch_items(&cluster, &receiver, "/ok/paused");
    cluster.sql("select webhook.pause_webhook('/ok/paused')");
    let mut writers: Vec<Client> = (0..3).map(|_| cluster.connect("postgres")).collect();
    for (number, writer) in writers.iter_mut().enumerate() {
        let first = 1000 * (number as i64 + 1);
        // Its first rows are in the outbox long before it commits.
        run_all(
            writer,
            &format!(
                "begin;
                 insert into items select n, repeat('x', 1000000)
                 from generate_series({first}, {first} + 5) n;"
            ),
        );
    }
    // More subtransactions than a snapshot lists.
    let many = "begin;
                do $$ begin
                    for n in 30001..30200 loop
                        begin
                            insert into items values (n, 'in a subtransaction');
                        exception when division_by_zero then null;
                        end;
                    end loop;
                end $$";
    writers.push(cluster.connect("postgres"));
    run_all(writers.last_mut().expect("just added"), many);
    let mut others = cluster.connect("postgres");
    for id in 1..=300_i64 {
        run_all(&mut others, &insert_statement(id..=id));
        // In step with the worker, so that it reads in many small windows.
        receiver.wait_for(PATIENCE, "/ok/a", id as u64);
        if id == 150 {
            // What is open must survive in what the worker writes down; the answers to what was
            // sent it has read.
            let calls = "select calls::text from webhook.webhooks where name = '/ok/a'";
            cluster.wait_for_text(PATIENCE, calls, "150");
            cluster.signal(worker_of(&cluster, "postgres"), "TERM");
        }
        if id % 100 == 0 {
            let writer = &mut writers[id as usize / 100 - 1];
            run_all(
                writer,
                &insert_statement(2 * 10_000 + id..=2 * 10_000 + id + 9),
            );
        }
    }
    assert_eq!(receiver.count("/ok/a").requests, 300);
    for mut writer in writers {
        run_all(&mut writer, "commit");
    }
    wait_idle(&cluster, PATIENCE);
    assert!(receiver.received_at("/ok/paused").is_empty());
    cluster.sql("select webhook.resume_webhook('/ok/paused')");
    receiver.wait_for(PATIENCE, "/ok/paused", 548);
    for path in ["/ok/a", "/ok/paused"] {
        let received = assert_items_delivered(&cluster, &receiver, path, PATIENCE);
        assert_eq!(received.len(), 548, "{path}");
    }
}

#[test]
fn commits_in_the_reverse_order_of_their_ids_are_not_skipped() {
    let (cluster, receiver) = ready_cluster("reverse");
    watch_items(&cluster, &receiver, "/ok/a");
    let mut sessions: Vec<Client> = (0..40).map(|_| cluster.connect("postgres")).collect();
    for (number, session) in sessions.iter_mut().enumerate() {
        let id = 10 * number as i64;
        let large = if number.is_multiple_of(8) { 6 } else { 0 };
        run_all(
            session,
            &format!(
                "begin;
                 {};
                 insert into items select {id} + 1000 + n, repeat('x', 1000000)
                 from generate_series(1, {large}) n",
                insert_statement(id..=id)
            ),
        );
    }
    let mut expected = 0;
    while let Some(mut session) = sessions.pop() {
        let number = sessions.len();
        // Every fifth one gives up.
        if number % 5 == 4 {
            run_all(&mut session, "rollback");
            continue;
        }
        run_all(&mut session, "commit");
        expected += if number.is_multiple_of(8) { 7 } else { 1 };
        if number.is_multiple_of(3) {
            receiver.wait_for(PATIENCE, "/ok/a", expected);
        }
    }
    insert_items(&cluster, 5001..=5001);
    assert_exactly_delivered(&cluster, &receiver, expected as usize + 1);
}
