//! Outbox and call log as rings of tables: what is past retention goes, what is pending stays,
//! and no writer or reader is in the way or loses anything.
//!
//! With `webhook.log_max_size` at its least, 1 MB, each ring may have 512 kB, and a table is
//! closed at 128 kB: a few hundred messages.

use std::thread;
use std::time::Duration;

use postgres::Client;

use super::support::definitions::wait_idle;
use super::support::watched::{
    assert_items_delivered, insert_items, insert_statement, watch_items, watch_items_in,
};
use super::support::worker::worker_of;
use super::support::{Cluster, Receiver, PATIENCE};

/// Rotation happens once a second, and what is in the way is tried again after ten.
const ROTATED_LIMIT: Duration = Duration::from_secs(180);

/// A cluster whose rings are as small as can be, with this `webhook.log_retention`.
fn small_cluster(name: &str, retention: &str) -> (Cluster, Receiver) {
    small_cluster_with(name, retention, "1s")
}

/// The same with this `webhook.retry_schedule`.
fn small_cluster_with(name: &str, retention: &str, schedule: &str) -> (Cluster, Receiver) {
    let cluster = Cluster::builder(name)
        .set("webhook.allowed_networks", "127.0.0.0/8")
        .set("webhook.log_max_size", "1MB")
        .set("webhook.log_retention", retention)
        .set("webhook.retry_schedule", schedule)
        .set("max_prepared_transactions", 2)
        .start();
    cluster.sql("create extension webhook_ext");
    (cluster, Receiver::start())
}

fn run_all(session: &mut Client, statements: &str) {
    session
        .batch_execute(statements)
        .unwrap_or_else(|error| panic!("{statements}: {error:?}"));
}

/// The relation files of a ring: TRUNCATE gives a table a new one.
fn files(cluster: &Cluster, ring: &str) -> Vec<i64> {
    let files: String = cluster.value(&format!(
        "select string_agg(pg_relation_filenode(oid)::bigint::text, ' ' order by relname)
         from pg_class
         where relnamespace = 'webhook'::regnamespace and relname ~ '^{ring}_[0-9]$'"
    ));
    files.split(' ').map(|file| file.parse().unwrap()).collect()
}

fn kilobytes(cluster: &Cluster) -> i64 {
    cluster.value(
        "select (sum(value) / 1024)::bigint
         from webhook.metrics where name in ('webhook_outbox_bytes', 'webhook_call_log_bytes')",
    )
}

fn written(cluster: &Cluster) -> i16 {
    cluster.value("select outbox_number from webhook.control")
}

/// Writes messages, a few hundred at a time, until the outbox is written to another table.
/// `next` is the id of the next item.
fn rotate(cluster: &Cluster, next: &mut i64) {
    let before = written(cluster);
    cluster.wait_until(ROTATED_LIMIT, "another outbox table", || {
        insert_items(cluster, *next..=*next + 99);
        *next += 100;
        match written(cluster) {
            now if now != before => Ok(()),
            now => Err(format!("table {now} is written after {next} items")),
        }
    });
}

/// Rotates until the table with this number has been emptied; its file is then another one.
fn rotate_until_emptied(cluster: &Cluster, number: usize, next: &mut i64) {
    let before = files(cluster, "outbox")[number];
    cluster.wait_until(ROTATED_LIMIT, "the table to be emptied", || {
        insert_items(cluster, *next..=*next + 49);
        *next += 50;
        if files(cluster, "outbox")[number] == before {
            Err(cluster.psql("select * from webhook.segment order by kind, number"))
        } else {
            Ok(())
        }
    });
}

fn count(cluster: &Cluster, what: &str) -> i64 {
    cluster.value(&format!("select count(*) from webhook.{what}"))
}

#[test]
fn under_steady_load_everything_arrives_once_while_the_tables_stay_small() {
    const ROTATIONS: usize = 5;
    let (cluster, receiver) = small_cluster("rotation", "1h");
    watch_items(&cluster, &receiver, "/ok/a");
    let (mut next, mut largest) = (1, 0);
    let (mut outbox, mut log) = (files(&cluster, "outbox"), files(&cluster, "call_log"));
    let (mut outbox_emptied, mut log_emptied) = (0, 0);
    let changed = |known: &mut Vec<i64>, ring: &str| {
        let now = files(&cluster, ring);
        let changed = now.iter().zip(&*known).filter(|(now, old)| now != old);
        let count = changed.count();
        *known = now;
        count
    };
    cluster.wait_until(
        3 * ROTATED_LIMIT,
        "tables of both rings to be emptied",
        || {
            insert_items(&cluster, next..=next + 49);
            next += 50;
            // The worker that delivers is the one that rotates: neither runs ahead of the other.
            receiver.wait_for(PATIENCE, "/ok/a", next as u64 - 1);
            largest = largest.max(kilobytes(&cluster));
            outbox_emptied += changed(&mut outbox, "outbox");
            log_emptied += changed(&mut log, "call_log");
            if outbox_emptied >= ROTATIONS && log_emptied >= ROTATIONS {
                Ok(())
            } else {
                Err(format!(
                    "{outbox_emptied} of the outbox, {log_emptied} of the log"
                ))
            }
        },
    );
    let received = assert_items_delivered(&cluster, &receiver, "/ok/a", PATIENCE);
    let items = next - 1;
    assert_eq!(received.len() as i64, items, "nothing was repeated");
    // Sizes are looked at once a second, while this writes as fast as it can; empty indexes
    // count, too. Without rotation it would be ten times the limit and more.
    assert!(largest < 4 * 1024, "outbox and log had {largest} kB");
    assert_eq!(
        cluster.psql("select messages, calls, errors from webhook.webhooks"),
        format!("{items}|{items}|0\n")
    );
    assert!(count(&cluster, "messages") < items, "old ones are gone");
    assert!(count(&cluster, "calls") < items, "old ones are gone");
    assert_eq!(
        cluster.psql("select distinct status from webhook.messages"),
        "delivered\n"
    );
}

#[test]
fn what_a_paused_webhook_has_pending_stays_until_it_was_sent() {
    let (cluster, receiver) = small_cluster("rotation_paused", "2s");
    watch_items(&cluster, &receiver, "/ok/a");
    watch_items(&cluster, &receiver, "/ok/paused");
    cluster.sql("select webhook.pause_webhook('/ok/paused')");
    let mut next = 1;
    // Once round the ring, and then some.
    for _ in 0..3 {
        rotate(&cluster, &mut next);
    }
    let oldest = files(&cluster, "outbox")[0];
    for _ in 0..10 {
        insert_items(&cluster, next..=next + 99);
        next += 100;
        wait_idle(&cluster);
    }
    assert_eq!(files(&cluster, "outbox")[0], oldest, "it is needed");
    assert_eq!(
        cluster.psql("select pending from webhook.queue where state = 'paused'"),
        format!("{}\n", next - 1)
    );
    cluster.sql("select webhook.resume_webhook('/ok/paused')");
    for path in ["/ok/paused", "/ok/a"] {
        let received = assert_items_delivered(&cluster, &receiver, path, PATIENCE);
        assert_eq!(
            received.len() as i64,
            next - 1,
            "{path}: nothing was repeated"
        );
    }
    // Nothing comes any more: by its age alone everything goes.
    cluster.wait_until(ROTATED_LIMIT, "the tables to be emptied", || {
        let (messages, calls) = (count(&cluster, "messages"), count(&cluster, "calls"));
        if messages == 0 && calls == 0 {
            Ok(())
        } else {
            Err(format!("{messages} messages, {calls} calls"))
        }
    });
    assert_eq!(
        cluster.psql("select distinct messages, calls, errors from webhook.webhooks"),
        format!("{0}|{0}|0\n", next - 1)
    );
}

#[test]
fn a_message_that_waits_for_a_retry_survives_the_emptying_of_its_table() {
    let (cluster, receiver) = small_cluster_with("rotation_retry", "2s", "1h");
    watch_items(&cluster, &receiver, "/ok/a");
    watch_items(&cluster, &receiver, "/ok/failing");
    receiver.behave_for("/ok/failing", "/status/500", 1);
    insert_items(&cluster, 1..=1);
    cluster.wait_for_text(
        PATIENCE,
        "select sum(retrying)::text from webhook.queue",
        "1",
    );
    let id: String = cluster.value("select message_id::text from webhook.retry");
    let mut next = 2;
    rotate(&cluster, &mut next);
    rotate_until_emptied(&cluster, 0, &mut next);
    assert_eq!(
        cluster.psql(&format!(
            "select status from webhook.messages where message_id = '{id}'"
        )),
        "pending\n"
    );
    assert_eq!(
        cluster.value::<i32>(&format!("select webhook.redeliver('{id}')")),
        1
    );
    let received = assert_items_delivered(&cluster, &receiver, "/ok/failing", PATIENCE);
    let calls: Vec<_> = received
        .iter()
        .filter(|call| call.message_id() == id)
        .collect();
    assert_eq!(calls.len(), 2);
    assert_eq!(calls[0].raw, calls[1].raw, "the same body");
    assert_eq!(received.len() as i64, next, "the others once");
    assert_eq!(receiver.received_at("/ok/a").len() as i64, next - 1);
    assert_eq!(
        cluster.psql("select sum(pending + retrying + failed) from webhook.queue"),
        "0\n"
    );
}

/// Delivered and failed messages, and their calls, go by themselves; counters stay.
fn assert_forgotten(name: &str, retention: &str) {
    let (cluster, receiver) = small_cluster(name, retention);
    watch_items(&cluster, &receiver, "/ok/a");
    watch_items_in(
        &cluster,
        "postgres",
        &receiver,
        "/status/400",
        ", max_attempts => 1",
    );
    insert_items(&cluster, 1..=20);
    receiver.wait_for(PATIENCE, "/status/400", 20);
    cluster.wait_until(ROTATED_LIMIT, "everything to be forgotten", || {
        let left = ["messages", "calls", "retry"].map(|what| count(&cluster, what));
        if left == [0; 3] {
            Ok(())
        } else {
            Err(format!("{left:?} messages, calls and retries"))
        }
    });
    assert_eq!(
        cluster.psql("select sum(pending + retrying + failed) from webhook.queue"),
        "0\n"
    );
    assert_eq!(
        cluster.psql("select name, messages, calls, errors from webhook.webhooks order by name"),
        "/ok/a|20|20|0\n/status/400|20|20|20\n"
    );
    insert_items(&cluster, 21..=21);
    let received = assert_items_delivered(&cluster, &receiver, "/ok/a", PATIENCE);
    assert_eq!(received.len(), 21);
}

#[test]
fn what_was_delivered_or_has_failed_is_forgotten_after_its_retention() {
    assert_forgotten("retention", "2s");
}

#[test]
fn without_retention_everything_is_forgotten_as_soon_as_it_is_settled() {
    assert_forgotten("no_retention", "0");
}

#[test]
fn what_was_canceled_stays_so_while_its_message_is_there() {
    let (cluster, receiver) = small_cluster("rotation_canceled", "2s");
    for path in ["/ok/a", "/ok/canceled", "/ok/holds"] {
        watch_items(&cluster, &receiver, path);
    }
    cluster.sql(
        "select webhook.pause_webhook('/ok/canceled');
         select webhook.pause_webhook('/ok/holds')",
    );
    insert_items(&cluster, 1..=10);
    let canceled: i64 = cluster.value("select webhook.cancel_pending('/ok/canceled')");
    assert_eq!(canceled, 10);
    // What this one has pending keeps the first table, while others come and go.
    cluster.sql(
        "select webhook.resume_webhook('/ok/canceled');
         select webhook.update_webhook('/ok/holds', enabled => false)",
    );
    let mut next = 11;
    rotate(&cluster, &mut next);
    let second = usize::try_from(written(&cluster)).unwrap();
    rotate_until_emptied(&cluster, second, &mut next);
    let statuses = "select w.name, m.status, count(*)
                    from webhook.messages m
                    join webhook.webhooks w on w.id = m.webhook_id
                    join webhook.outbox_0 o using (message_id)
                    where o.record ~ '\"id\":([1-9]|10),'
                    group by 1, 2 order by 1";
    assert_eq!(
        cluster.psql(statuses),
        "/ok/a|delivered|10\n/ok/canceled|canceled|10\n/ok/holds|pending|10\n"
    );
    assert_eq!(
        cluster.value::<i64>("select webhook.cancel_pending('/ok/holds')"),
        10
    );
    cluster.sql("select webhook.resume_webhook('/ok/holds')");
    rotate_until_emptied(&cluster, 0, &mut next);
    wait_idle(&cluster);
    let received = receiver.received_at("/ok/canceled");
    assert_eq!(received.len() as i64, next - 11, "what came later arrives");
    assert!(receiver.received_at("/ok/holds").is_empty());
    // Cancellations go with the messages that they are of.
    rotate(&cluster, &mut next);
    let now = usize::try_from(written(&cluster)).unwrap();
    rotate_until_emptied(&cluster, now, &mut next);
    assert_eq!(count(&cluster, "cancellation"), 0);
}

#[test]
fn writers_that_began_before_a_rotation_lose_nothing() {
    let (cluster, receiver) = small_cluster("rotation_writers", "1s");
    watch_items(&cluster, &receiver, "/ok/a");
    insert_items(&cluster, 1..=1);
    wait_idle(&cluster);
    // A snapshot, a table that is written early, and a transaction that is prepared.
    let mut repeatable = cluster.connect("postgres");
    run_all(
        &mut repeatable,
        "begin isolation level repeatable read; select count(*) from items",
    );
    let mut early = cluster.connect("postgres");
    run_all(
        &mut early,
        "begin; insert into items select n, repeat('x', 1000000) from generate_series(101, 106) n",
    );
    cluster.sql(&format!(
        "begin; {}; prepare transaction 'kept'",
        insert_statement(201..=203)
    ));
    let mut next = 1001;
    for _ in 0..3 {
        rotate(&cluster, &mut next);
    }
    run_all(
        &mut repeatable,
        &format!("{}; commit", insert_statement(301..=303)),
    );
    run_all(
        &mut early,
        &format!("{}; commit", insert_statement(107..=109)),
    );
    cluster.sql("commit prepared 'kept'");
    rotate(&cluster, &mut next);
    // COMMIT PREPARED wakes nobody: the worker looks every ten seconds.
    let expected = (next - 1001) as u64 + 1 + 9 + 3 + 3;
    receiver.wait_for(PATIENCE, "/ok/a", expected);
    let received = assert_items_delivered(&cluster, &receiver, "/ok/a", PATIENCE);
    assert_eq!(received.len() as u64, expected, "nothing was repeated");
    // What was written into a closed table does not hold it for ever.
    cluster.wait_until(
        ROTATED_LIMIT,
        "the early writer's messages to be forgotten",
        || match cluster
            .value::<i64>("select count(*) from webhook.outbox where length(record) > 100000")
        {
            0 => Ok(()),
            left => Err(format!(
                "{left} there\n{}",
                cluster.psql("select * from webhook.segment order by 1, 2")
            )),
        },
    );
}

#[test]
fn a_reader_delays_the_emptying_and_blocks_no_writer() {
    let (cluster, receiver) = small_cluster("rotation_reader", "1s");
    watch_items(&cluster, &receiver, "/ok/a");
    insert_items(&cluster, 1..=10);
    wait_idle(&cluster);
    let mut reader = cluster.connect("postgres");
    run_all(&mut reader, "begin; select count(*) from webhook.messages");
    let before = files(&cluster, "outbox");
    let worker = worker_of(&cluster, "postgres");
    let mut writer = cluster.connect("postgres");
    run_all(&mut writer, "set statement_timeout = '5s'");
    let mut next = 11;
    cluster.wait_until(ROTATED_LIMIT, "three tables to be closed", || {
        run_all(&mut writer, &insert_statement(next..=next + 49));
        next += 50;
        // Nobody waits for the worker, and the worker for nobody.
        let waiting: i64 = cluster.value(&format!(
            "select count(*) from pg_locks where not granted and pid = {worker}"
        ));
        assert_eq!(waiting, 0, "the worker waits for a lock");
        match cluster.value::<i64>(
            "select count(*) from webhook.segment where kind = 'outbox' and closed_at is not null",
        ) {
            3 => Ok(()),
            closed => Err(format!("{closed} closed")),
        }
    });
    assert_eq!(
        files(&cluster, "outbox"),
        before,
        "nothing is emptied meanwhile"
    );
    run_all(&mut reader, "commit");
    cluster.wait_until(ROTATED_LIMIT, "the first table to be emptied", || {
        if files(&cluster, "outbox")[0] == before[0] {
            Err("it is as it was".to_owned())
        } else {
            Ok(())
        }
    });
    let received = assert_items_delivered(&cluster, &receiver, "/ok/a", PATIENCE);
    assert_eq!(received.len() as i64, next - 1);
}

#[test]
fn a_message_is_found_by_its_id_without_reading_the_whole_outbox() {
    const MESSAGES: i64 = 60_000;
    let cluster = Cluster::builder("found_by_id")
        .set("webhook.allowed_networks", "127.0.0.0/8")
        .start();
    cluster.sql("create extension webhook_ext");
    let receiver = Receiver::start();
    watch_items(&cluster, &receiver, "/ok/a");
    cluster.sql("select webhook.pause_webhook('/ok/a')");
    for first in (0..MESSAGES).step_by(10_000) {
        insert_items(&cluster, first..=first + 9_999);
        thread::yield_now();
    }
    let ranges = "select count(*) from generate_series(0, (
                      select pg_relation_size('webhook.outbox_0') / 8192 / 32 - 1)) n";
    assert!(cluster.value::<i64>(ranges) > 20, "worth an index");
    cluster.sql("analyze webhook.outbox_0");
    let id: String = cluster
        .value("select message_id::text from webhook.outbox_0 order by id offset 30000 limit 1");
    let find = format!(
        "explain (analyze, costs off, timing off, summary off)
         select * from webhook.outbox where message_id = '{id}'"
    );
    // The worker summarises block ranges within a second or so.
    cluster.wait_until(PATIENCE, "the index to lead to few rows", || {
        let plan = cluster.psql(&find);
        let rechecked: i64 = plan
            .lines()
            .find_map(|line| line.trim().strip_prefix("Rows Removed by Index Recheck: "))
            .map_or(i64::MAX, |number| number.parse().unwrap());
        if plan.contains("outbox_0_time") && rechecked < MESSAGES / 10 {
            Ok(())
        } else {
            Err(plan)
        }
    });
    assert_eq!(
        cluster.psql(&format!(
            "select status from webhook.messages where message_id = '{id}'"
        )),
        "pending\n"
    );
    assert!(cluster.value::<bool>(&format!("select webhook.cancel('{id}')")));
}
