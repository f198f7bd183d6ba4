//! A superuser empties internal tables while messages are on their way (fault 32): the
//! server goes on, the user's transactions go on, and so does delivery of what is new,
//! or the log says what to do.

use super::support::definitions::{create_event, create_webhook};
use super::support::watched::{
    assert_all_received, insert_items, insert_statement, wait_until_nothing_is_left, watch_items,
};
use super::support::worker::{cluster_restarts, wait_until_gone, worker_of};
use super::support::{
    ready_cluster, ready_cluster_with, ready_cluster_without_retries, Cluster, Receiver, PATIENCE,
};

/// Emptying these is harmless beyond what they held.
const SPARE: &[&str] = &[
    "webhook.outbox_0",
    "webhook.outbox_1",
    "webhook_internal.tick",
    "webhook_internal.retry",
    "webhook_internal.settlement",
    "webhook_internal.counter",
    "webhook_internal.counter_day",
    "webhook_internal.lane",
    "webhook_internal.call_log_0",
    "webhook_internal.call_log_3",
];

/// A receiver that takes its time and one that fails: messages are on the wire, wait in
/// memory, wait in the outbox, and wait for a retry.
fn busy_cluster(name: &str) -> (Cluster, Receiver) {
    let (cluster, receiver) = ready_cluster_with(name, &[("webhook.retry_schedule", "500ms")]);
    cluster.exempt_from_bookkeeping("a superuser takes rows away that were counted");
    watch_items(&cluster, &receiver, "/ok/a");
    watch_items(&cluster, &receiver, "/slow/20/b");
    watch_items(&cluster, &receiver, "/status/503/c");
    cluster.sql("create table marks (id bigint)");
    create_webhook(&cluster, "marks", &[receiver.url("/ok/marks")], "");
    create_event(&cluster, "marks", "marks", "Insert", "");
    insert_items(&cluster, 1..=3000);
    receiver.wait_for(PATIENCE, "/slow/20/b", 20);
    receiver.wait_for(PATIENCE, "/status/503/c", 5);
    (cluster, receiver)
}

/// A change that is made now is captured and sent.
fn assert_goes_on(cluster: &Cluster, receiver: &Receiver, mark: i64, after: &str) {
    cluster.sql(&format!("insert into marks values ({mark})"));
    let wanted = format!("\"data\":[{{\"id\":{mark}}}]");
    cluster.wait_until(PATIENCE, &format!("mark {mark} after {after}"), || {
        let received = receiver.received_at("/ok/marks");
        if received.iter().any(|request| request.raw.contains(&wanted)) {
            Ok(())
        } else {
            Err(format!(
                "{} marks\n{}",
                received.len(),
                cluster.psql("select * from webhook.worker")
            ))
        }
    });
    assert_eq!(cluster_restarts(cluster), 0, "{}", cluster.log());
}

fn restart_worker(cluster: &Cluster) {
    let worker = worker_of(cluster, "postgres");
    cluster.signal(worker, "TERM");
    wait_until_gone(cluster, PATIENCE, worker);
}

#[test]
fn a_superuser_who_empties_a_table_of_the_engine_stops_nothing_that_is_new() {
    let (cluster, receiver) = busy_cluster("emptied");
    let (mut mark, mut id) = (0, 3000);
    for how in ["truncate", "delete from"] {
        for table in SPARE {
            let statement = format!("{how} {table}");
            cluster.sql(&insert_statement(id + 1..=id + 50));
            id += 50;
            cluster.sql(&statement);
            mark += 1;
            assert_goes_on(&cluster, &receiver, mark, &statement);
        }
        restart_worker(&cluster);
        mark += 1;
        assert_goes_on(&cluster, &receiver, mark, "a restart");
    }
}

const EMPTY_THE_OUTBOX: &str =
    "truncate webhook.outbox_0, webhook.outbox_1, webhook.outbox_2, webhook.outbox_3";

fn pending_of(path: &str) -> String {
    format!("select pending::text from webhook.queue where webhook_name = '{path}'")
}

/// What nobody will ever come to is not pending, for a URL that lags as for one that is paused;
/// and before and after, what is pending is what has no call yet.
#[test]
fn messages_that_a_superuser_emptied_are_pending_no_longer_and_the_rest_is_counted_exactly() {
    let (cluster, receiver) = ready_cluster("phantoms");
    let (slow, paused) = ("/slow/20/a", "/ok/paused");
    watch_items(&cluster, &receiver, slow);
    watch_items(&cluster, &receiver, paused);
    cluster.sql(&format!("select webhook.pause_webhook('{paused}')"));
    insert_items(&cluster, 1..=6000);
    receiver.wait_for(PATIENCE, slow, 20);
    cluster.wait_for_text(PATIENCE, &pending_of(paused), "6000");
    // What nobody has seen yet was never counted.
    cluster.wait_for_text(
        PATIENCE,
        "select count(*)::text from webhook_internal.unseen",
        "0",
    );
    cluster.sql(EMPTY_THE_OUTBOX);
    cluster.wait_for_text(PATIENCE, &pending_of(paused), "0");
    cluster.wait_for_text(PATIENCE, &pending_of(slow), "0");
    assert_pending_is_exact_while_writing(&cluster, 6001);

    let counted = "select string_agg(distinct messages::text, ' ') from webhook.webhooks";
    cluster.wait_for_text(PATIENCE, counted, "8400");
    cluster.wait_for_text(PATIENCE, &pending_of(paused), "2400");
    cluster.sql(&format!("select webhook.resume_webhook('{paused}')"));
    receiver.wait_for(PATIENCE, paused, 2400);
    cluster.wait_for_text(PATIENCE, &pending_of(paused), "0");
    cluster.wait_for_text(PATIENCE, &pending_of(slow), "0");
}

/// Writes 2,400 items for longer than the worker takes to look twice, and holds the sum against
/// the messages all the time.
fn assert_pending_is_exact_while_writing(cluster: &Cluster, first: i64) {
    let differing = "
        select coalesce(string_agg(concat_ws(' ', q.webhook_name, q.pending, m.pending), ', '), '')
        from webhook.queue q
        join (
            select n.webhook_id, count(*) filter (where n.status = 'pending') as pending
            from webhook.messages n
            group by n.webhook_id
        ) m on m.webhook_id = q.webhook_id
        where m.pending <> q.pending";
    for step in 0..24 {
        let from = first + step * 100;
        insert_items(cluster, from..=from + 99);
        assert_eq!(cluster.value::<String>(differing), "", "after {from}");
        std::thread::sleep(std::time::Duration::from_millis(400));
    }
}

/// More retries than are read at once, and none of them can be sent any more.
#[test]
fn retries_whose_messages_are_gone_make_way_for_those_that_can_be_sent() {
    let (cluster, receiver) = ready_cluster_without_retries("orphans");
    watch_items(&cluster, &receiver, "/status/400/a");
    insert_items(&cluster, 1..=1200);
    let parked = "select count(*)::text from webhook_internal.retry where state = 'waiting'";
    cluster.wait_for_text(PATIENCE, parked, "1200");
    cluster.sql(EMPTY_THE_OUTBOX);
    // These fail, too, and so wait for a retry behind all the others.
    insert_items(&cluster, 2001..=2020);
    let new = "select count(*)::text from webhook_internal.retry r join webhook_internal.outbox o using (message_id)";
    cluster.wait_for_text(PATIENCE, new, "20");
    let seen = receiver.received().last().map_or(0, |request| request.seq);
    receiver.behave("/status/400/a", "/ok");
    // All fall due at once, those that can never be sent first.
    cluster.sql(
        "update webhook_internal.retry r set next_at = clock_timestamp() - interval '1 min'
         where not exists (select from webhook_internal.outbox o where o.message_id = r.message_id);
         update webhook_internal.retry set next_at = clock_timestamp() where next_at > clock_timestamp()",
    );
    restart_worker(&cluster);
    let wanted: Vec<String> = (2001..=2020).map(|id| format!("\"id\":{id},")).collect();
    cluster.wait_until(PATIENCE, "what is new to be repeated", || {
        let repeated = receiver.received_since(seen);
        let missing = wanted
            .iter()
            .filter(|id| !repeated.iter().any(|one| one.raw.contains(*id)));
        match missing.count() {
            0 => Ok(()),
            missing => Err(format!("{missing} are missing")),
        }
    });
    let left = "select count(*)::text from webhook_internal.retry where state = 'waiting'";
    cluster.wait_for_text(PATIENCE, left, "0");
    assert_eq!(cluster_restarts(&cluster), 0, "{}", cluster.log());
}

/// The definitions are gone. Writers are unaffected, and new definitions work.
#[test]
fn a_superuser_who_empties_the_definitions_stops_no_writer_and_may_define_them_again() {
    let (cluster, receiver) = busy_cluster("undefined");
    let mut writer = cluster.connect("postgres");
    let mut write = |ids| writer.batch_execute(&insert_statement(ids)).unwrap();
    for (round, statement) in [
        "delete from webhook.event_def",
        "delete from webhook.secret_def",
        "truncate webhook.url_def",
        "delete from webhook.webhook_def",
        "truncate webhook.webhook_def cascade",
    ]
    .iter()
    .enumerate()
    {
        let (first, name) = (10_000 * (1 + round as i64), format!("/ok/again{round}"));
        write(first..=first + 49);
        cluster.sql(statement);
        write(first + 50..=first + 99);
        watch_items(&cluster, &receiver, &name);
        write(first + 100..=first + 149);
        receiver.wait_for(PATIENCE, &name, 50);
        let mut session = cluster.connect("postgres");
        session
            .batch_execute(&insert_statement(first + 150..=first + 160))
            .unwrap();
        receiver.wait_for(PATIENCE, &name, 61);
        assert_eq!(cluster_restarts(&cluster), 0, "{}", cluster.log());
    }
    worker_of(&cluster, "postgres");
}

/// Without its one row a table of the engine cannot be worked with: the log and the errors
/// say what to do, and then it goes on.
#[test]
fn where_a_lone_row_is_missing_it_is_said_what_to_do() {
    let (cluster, receiver) = busy_cluster("lonerows");
    cluster.sql("delete from webhook.control");
    let mut session = cluster.connect("postgres");
    let refused = session.batch_execute(&insert_statement(5001..=5001));
    let refused = refused.unwrap_err();
    let refused = refused.as_db_error().expect("the server answered");
    assert!(
        refused.message().contains("webhook.control has no row"),
        "{refused:?}"
    );
    cluster.sql("insert into webhook.control default values");
    assert_goes_on(&cluster, &receiver, 1, "webhook.control was mended");

    for path in ["/slow/20/b", "/status/503/c"] {
        receiver.behave(path, "/ok");
    }
    cluster.sql("delete from webhook_internal.compaction; delete from webhook_internal.settlement");
    assert_goes_on(
        &cluster,
        &receiver,
        2,
        "webhook_internal.compaction was emptied",
    );
    // So far it has its state in memory. The next one has none.
    cluster.sql("select webhook.stop_worker()");
    cluster.sql("delete from webhook_internal.settlement");
    cluster.sql("select webhook.start_worker()");
    let hint = cluster.wait_until(PATIENCE, "the worker to say what to do", || {
        let log = cluster.log();
        log.lines()
            .find_map(|line| line.split_once("webhook_internal.outbox: "))
            .map(|(_, statements)| statements.to_owned())
            .ok_or("it does not".to_owned())
    });
    assert!(cluster
        .log()
        .contains("webhook_internal.compaction has no row"));
    cluster.sql(&hint);
    assert_goes_on(&cluster, &receiver, 4, "the state was made again");
    wait_until_nothing_is_left(&cluster, PATIENCE);
    for path in ["/ok/a", "/slow/20/b", "/status/503/c"] {
        assert_all_received(&cluster, &receiver.received_at(path));
    }
}
