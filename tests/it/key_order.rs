//! `delivery_order => 'key'`: changes with the same key arrive in order, one after the other, and a
//! message that fails holds those with its key alone.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use super::fifo::{
    assert_versions_in_order, attempts_at, cluster_with, ids_at, insert, number, wait_until_empty,
    while_rows_change, QUEUE, ROWS,
};
use super::support::definitions::{create_event, create_webhook};
use super::support::rings::{files, small_cluster_with};
use super::support::worker::{wait_until_gone, wait_until_up, worker_of};
use super::support::{Cluster, Received, Receiver, StopMode, PATIENCE};

/// Blocked keys that a lane keeps in a server with fault hooks.
const CROWD: i64 = 50;

/// A cluster with this `webhook.retry_schedule` and a table of versioned rows with a primary key.
fn keyed(name: &str, schedule: &str) -> (Cluster, Receiver) {
    let (cluster, receiver) = cluster_with(name, schedule);
    cluster.sql("alter table items add primary key (id)");
    (cluster, receiver)
}

/// A webhook of this path alone that keeps the order of each key, named as its path.
fn watch(cluster: &Cluster, receiver: &Receiver, path: &str, options: &str) {
    let options = format!("delivery_order => 'key', log_level => 'none'{options}");
    create_webhook(cluster, path, &[receiver.url(path)], &options);
    for kind in ["Insert", "Update"] {
        create_event(cluster, path, "items", kind, "");
    }
}

/// Each row gets its next version, one transaction each.
fn update(cluster: &Cluster, ids: std::ops::RangeInclusive<i64>) {
    let mut session = cluster.connect("postgres");
    for id in ids {
        let updated = session.execute(
            "update items set version = version + 1 where id = $1",
            &[&id],
        );
        assert_eq!(updated.expect("a row can be updated"), 1);
    }
}

/// The versions of each row as they came, repeated ones once.
fn versions(received: &[Received]) -> BTreeMap<i64, Vec<i64>> {
    let mut seen: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    for call in received {
        let versions = seen.entry(number(call, "id")).or_default();
        versions.push(number(call, "version"));
        versions.dedup();
    }
    seen
}

#[test]
fn a_refused_message_holds_those_of_its_key_alone_and_they_follow_it() {
    const PATH: &str = "/refuses/3";
    let (cluster, receiver) = keyed("keyalone", "1h");
    watch(&cluster, &receiver, PATH, "");
    insert(&cluster, 1..=5);
    for _ in 0..3 {
        update(&cluster, 1..=5);
    }
    // Four versions of four rows, and the first call of the fifth.
    receiver.wait_for(PATIENCE, PATH, 17);
    cluster.wait_for_text(PATIENCE, QUEUE, "active 3 1 0");
    let seen = versions(&receiver.received_at(PATH));
    assert_eq!(seen[&3], [1]);
    assert!(
        (1..=5).all(|id| id == 3 || seen[&id] == [1, 2, 3, 4]),
        "{seen:?}"
    );
    let pending = "select count(*)::text from webhook.messages where status = 'pending'";
    assert_eq!(cluster.value::<String>(pending), "4");
    assert!(
        cluster.value::<bool>("select webhook.wait_idle('2 s')"),
        "what waits for a later retry is not waited for, nor what is behind it"
    );

    receiver.behave(PATH, "/ok");
    cluster.sql(&format!("select webhook.resume_webhook('{PATH}')"));
    wait_until_empty(&cluster, PATIENCE);
    assert_eq!(versions(&receiver.received_at(PATH))[&3], [1, 2, 3, 4]);
    let attempts = receiver.received_at(PATH).into_iter();
    let attempts: Vec<_> = attempts
        .filter(|call| number(call, "id") == 3)
        .map(|call| (number(&call, "version"), call.attempt()))
        .collect();
    assert_eq!(attempts, [(1, 1), (1, 2), (2, 1), (3, 1), (4, 1)]);
    cluster.wait_for_text(PATIENCE, QUEUE, "active 0 0 0");
}

#[test]
fn rows_arrive_in_order_although_the_receiver_fails_and_the_worker_is_killed() {
    let (cluster, receiver) = keyed("keykilled", "20ms");
    watch(
        &cluster,
        &receiver,
        "/unsteady/10",
        ", max_attempts => 1000",
    );
    insert(&cluster, 1..=ROWS);
    let signals = ["KILL", "TERM", "KILL"];
    while_rows_change(&cluster, || {
        for signal in signals {
            let seen = receiver.count("/unsteady").requests;
            receiver.wait_for(PATIENCE, "/unsteady", seen + 150);
            let worker = worker_of(&cluster, "postgres");
            cluster.signal(worker, signal);
            wait_until_gone(&cluster, PATIENCE, worker);
            wait_until_up(&cluster);
        }
        let seen = receiver.count("/unsteady").requests;
        receiver.wait_for(PATIENCE, "/unsteady", seen + 150);
    });
    wait_until_empty(&cluster, PATIENCE * 2);
    let received = receiver.received();
    let failures: i64 = cluster.value("select errors from webhook.webhooks");
    assert!(failures > 20, "{failures} of {} failed", received.len());
    assert_versions_in_order(&cluster, &received, signals.len());
}

#[test]
fn different_keys_are_called_at_the_same_time_and_one_key_never() {
    const PATH: &str = "/slow/200";
    let (cluster, receiver) = keyed("keyparallel", "1h");
    watch(&cluster, &receiver, PATH, "");
    cluster.sql("insert into items select n, 1 from generate_series(1, 8) n");
    cluster.sql("update items set version = 2");
    wait_until_empty(&cluster, PATIENCE);
    let received = receiver.received_at(PATH);
    assert!(versions(&received).values().all(|of_row| of_row == &[1, 2]));
    let mut arrived: BTreeMap<i64, Vec<u64>> = BTreeMap::new();
    for call in &received {
        let of_row = arrived.entry(number(call, "id")).or_default();
        of_row.push(call.received_at_us);
    }
    let overlap = |of_row: &Vec<u64>| of_row[1] - of_row[0] < 200_000;
    assert!(!arrived.values().any(overlap), "{arrived:?}");
    let firsts = arrived.values().map(|of_row| of_row[0]);
    let spread = firsts.clone().max().unwrap() - firsts.min().unwrap();
    assert!(spread < 200_000, "the first eight came within {spread} µs");
}

#[test]
fn a_change_of_the_key_waits_for_both_and_both_wait_for_it() {
    const PATH: &str = "/refuses/2";
    let (cluster, receiver) = keyed("keychange", "1h");
    watch(&cluster, &receiver, PATH, "");
    insert(&cluster, 1..=3);
    receiver.wait_for(PATIENCE, PATH, 3);
    cluster.wait_for_text(PATIENCE, QUEUE, "active 0 1 0");
    // Row 1 becomes row 2's successor: its change waits for row 2, and what follows in row 1 for it.
    cluster
        .sql("delete from items where id = 2; update items set id = 2, version = 10 where id = 1");
    cluster.sql("insert into items values (1, 20)");
    update(&cluster, 3..=3);
    receiver.wait_for(PATIENCE, PATH, 4);
    cluster.wait_for_text(PATIENCE, QUEUE, "active 2 1 0");
    receiver.behave(PATH, "/ok");
    cluster.sql(&format!("select webhook.resume_webhook('{PATH}')"));
    wait_until_empty(&cluster, PATIENCE);
    let after = receiver.received_at(PATH);
    let after: Vec<_> = after[4..]
        .iter()
        .map(|call| (number(call, "id"), number(call, "version")))
        .collect();
    assert_eq!(after, [(2, 1), (2, 10), (1, 20)]);
}

#[test]
fn what_waits_survives_a_restart_and_keeps_its_place() {
    const PATH: &str = "/refuses/1";
    let (cluster, receiver) = keyed("keyrestart", "1h");
    watch(&cluster, &receiver, PATH, "");
    insert(&cluster, 1..=2);
    update(&cluster, 1..=2);
    receiver.wait_for(PATIENCE, PATH, 3);
    cluster.wait_for_text(PATIENCE, QUEUE, "active 1 1 0");
    cluster.stop(StopMode::Fast);
    cluster.start_again();
    receiver.behave(PATH, "/ok");
    update(&cluster, 1..=2);
    receiver.wait_for(PATIENCE, PATH, 4);
    cluster.wait_for_text(PATIENCE, QUEUE, "active 2 1 0");
    cluster.sql(&format!("select webhook.resume_webhook('{PATH}')"));
    wait_until_empty(&cluster, PATIENCE);
    let seen = versions(&receiver.received_at(PATH));
    assert_eq!(
        (&seen[&1][..], &seen[&2][..]),
        (&[1, 2, 3][..], &[1, 2, 3][..])
    );
}

#[test]
fn those_behind_go_on_when_what_waits_was_canceled_redelivered_given_up_or_is_gone() {
    const PATH: &str = "/ok/canceled";
    let (cluster, receiver) = keyed("keycancel", "1h");
    watch(&cluster, &receiver, PATH, "");
    insert(&cluster, 1..=1);
    receiver.wait_for(PATIENCE, PATH, 1);
    let fail = |count: u64, failed: i64| {
        receiver.behave_for(PATH, "/status/422", count);
        for pending in 0..2 {
            update(&cluster, 1..=1);
            let queue = format!("active {pending} 1 {failed}");
            cluster.wait_for_text(PATIENCE, QUEUE, &queue);
        }
    };
    let seen = || {
        let received = receiver.received_at(PATH);
        let versions = received.iter().map(|call| number(call, "version"));
        versions.collect::<Vec<i64>>()
    };
    let waits = "from webhook_internal.retry where state = 'waiting' and next_at < 'infinity'";
    fail(1, 0);
    cluster.sql(&format!("select webhook.cancel(message_id) {waits}"));
    wait_until_empty(&cluster, PATIENCE);
    assert_eq!(seen(), [1, 2, 3]);

    fail(1, 0);
    cluster.sql(&format!("select webhook.redeliver(message_id) {waits}"));
    wait_until_empty(&cluster, PATIENCE);
    assert_eq!(seen()[3..], [4, 4, 5]);

    // The one behind is canceled, then all.
    fail(1, 0);
    update(&cluster, 1..=1);
    cluster.wait_for_text(PATIENCE, QUEUE, "active 2 1 0");
    cluster.sql(
        "select webhook.cancel((select message_id from webhook_internal.retry where next_at = 'infinity' order by id limit 1))",
    );
    cluster.wait_for_text(PATIENCE, QUEUE, "active 1 1 0");
    let canceled: i64 = cluster.value(&format!("select webhook.cancel_pending('{PATH}')"));
    assert_eq!(canceled, 2);
    cluster.wait_for_text(PATIENCE, QUEUE, "active 0 0 0");
    update(&cluster, 1..=1);
    wait_until_empty(&cluster, PATIENCE);
    assert_eq!(seen()[6..], [6, 9]);

    // The row of a message that waits is gone: it can never be sent, and holds nothing.
    fail(1, 0);
    cluster.sql(&format!(
        "delete from webhook.outbox_0 where id = (select id {waits});
         select webhook.resume_webhook('{PATH}')"
    ));
    wait_until_empty(&cluster, PATIENCE);
    assert_eq!(seen()[8..], [10, 11]);
    cluster.wait_for_text(PATIENCE, QUEUE, "active 0 0 1");

    // At its last attempt the message is given up.
    cluster.sql(&format!(
        "select webhook.update_webhook('{PATH}', max_attempts => 2)"
    ));
    fail(2, 1);
    cluster.sql(&format!("select webhook.resume_webhook('{PATH}')"));
    wait_until_empty(&cluster, PATIENCE);
    assert_eq!(seen()[10..], [12, 12, 13]);
    cluster.wait_for_text(PATIENCE, QUEUE, "active 0 0 2");

    // What failed for good is sent again in its order.
    cluster.sql("delete from webhook_internal.retry where attempts = 1");
    receiver.behave_for(PATH, "/status/422", 2);
    cluster.sql(&format!(
        "select webhook.update_webhook('{PATH}', max_attempts => 1)"
    ));
    update(&cluster, 1..=1);
    update(&cluster, 1..=1);
    cluster.wait_for_text(PATIENCE, QUEUE, "active 0 0 3");
    let again: i64 = cluster.value(&format!("select webhook.redeliver_failed('{PATH}')"));
    assert_eq!(again, 3);
    wait_until_empty(&cluster, PATIENCE);
    assert_eq!(seen()[13..], [14, 15, 12, 14, 15]);
}

#[test]
fn a_url_that_is_gone_slow_down_or_paused_goes_on_in_order() {
    const PATH: &str = "/ok/gone";
    let (cluster, receiver) = keyed("keygone", "1h");
    watch(&cluster, &receiver, PATH, "");
    insert(&cluster, 1..=3);
    receiver.wait_for(PATIENCE, PATH, 3);
    receiver.behave_for(PATH, "/status/410", 1);
    update(&cluster, 1..=1);
    let state = "select state from webhook.queue";
    cluster.wait_for_text(PATIENCE, state, "disabled");
    update(&cluster, 1..=3);
    cluster.sql(&format!("select webhook.resume_webhook('{PATH}')"));
    wait_until_empty(&cluster, PATIENCE);
    let seen = versions(&receiver.received_at(PATH));
    assert_eq!(
        (&seen[&1][..], &seen[&2][..]),
        (&[1, 2, 3][..], &[1, 2][..])
    );

    cluster.sql(&format!("select webhook.pause_webhook('{PATH}')"));
    update(&cluster, 1..=3);
    update(&cluster, 1..=3);
    cluster.wait_for_text(PATIENCE, QUEUE, "paused 6 0 0");
    let before = receiver.count(PATH).requests;
    cluster.sql(&format!("select webhook.resume_webhook('{PATH}')"));
    receiver.wait_for(PATIENCE, PATH, before + 6);
    wait_until_empty(&cluster, PATIENCE);

    // Retry-After holds the whole URL.
    receiver.behave_for(PATH, "/status/503?retry-after=2", 1);
    let before = receiver.count(PATH).requests;
    update(&cluster, 1..=1);
    receiver.wait_for(PATIENCE, PATH, before + 1);
    cluster.wait_for_text(PATIENCE, state, "backing_off");
    update(&cluster, 1..=2);
    cluster.sql("update webhook_internal.retry set next_at = clock_timestamp() + interval '1 s' where next_at < 'infinity'");
    receiver.wait_for(PATIENCE, PATH, before + 2);
    let calls = receiver.received_at(PATH);
    let last = &calls[before as usize..];
    let waited = last[1].received_at_us - last[0].received_at_us;
    assert!(waited >= 1_900_000, "called after {waited} µs");
    cluster.sql(&format!("select webhook.resume_webhook('{PATH}')"));
    wait_until_empty(&cluster, PATIENCE);
    let seen = versions(&receiver.received_at(PATH));
    assert_eq!(seen[&1], [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(seen[&2], [1, 2, 3, 4, 5]);
    assert_eq!(seen[&3], [1, 2, 3, 4]);
}

#[test]
fn an_outage_burns_few_attempts_and_leaves_the_order() {
    const PATH: &str = "/ok/down";
    let (cluster, receiver) = keyed("keyoutage", "100ms");
    watch(
        &cluster,
        &receiver,
        PATH,
        ", max_attempts => 100, max_in_flight => 4",
    );
    receiver.behave(PATH, "/status/503");
    insert(&cluster, 1..=30);
    update(&cluster, 1..=30);
    receiver.wait_for(PATIENCE, PATH, 10);
    receiver.behave_normally(PATH);
    wait_until_empty(&cluster, PATIENCE);
    let received = receiver.received_at(PATH);
    let failed = received.len() - 60;
    assert!((10..20).contains(&failed), "{failed} calls failed");
    assert!(versions(&received).values().all(|of_row| of_row == &[1, 2]));
}

#[test]
fn an_edit_of_the_order_lets_go_what_waits_for_others_and_holds_what_comes() {
    const PATH: &str = "/refuses/1";
    let (cluster, receiver) = keyed("keyedit", "1h");
    watch(&cluster, &receiver, PATH, "");
    insert(&cluster, 1..=2);
    cluster.wait_for_text(PATIENCE, QUEUE, "active 0 1 0");
    update(&cluster, 1..=2);
    receiver.wait_for(PATIENCE, PATH, 3);
    cluster.wait_for_text(PATIENCE, QUEUE, "active 1 1 0");
    cluster.sql(&format!(
        "select webhook.update_webhook('{PATH}', delivery_order => 'none')"
    ));
    // What was behind is called, and refused as well.
    receiver.wait_for(PATIENCE, PATH, 4);
    cluster.wait_for_text(PATIENCE, QUEUE, "active 0 2 0");
    cluster.sql(&format!(
        "select webhook.update_webhook('{PATH}', delivery_order => 'key')"
    ));
    update(&cluster, 1..=2);
    receiver.wait_for(PATIENCE, PATH, 5);
    cluster.wait_for_text(PATIENCE, QUEUE, "active 1 2 0");
    receiver.behave(PATH, "/ok");
    cluster.sql(&format!("select webhook.resume_webhook('{PATH}')"));
    wait_until_empty(&cluster, PATIENCE);
    let of_first = versions(&receiver.received_at(PATH))[&1].clone();
    assert_eq!(of_first, [1, 2, 1, 2, 3]);
}

#[test]
fn a_url_with_too_many_waiting_keys_takes_no_more_and_says_so() {
    const PATH: &str = "/ok/capped";
    let (cluster, receiver) = keyed("keycrowd", "1h");
    watch(&cluster, &receiver, PATH, ", max_in_flight => 4");
    receiver.behave(PATH, "/status/422");
    let rows = 3 * CROWD;
    cluster.sql(&format!(
        "insert into items select n, 1 from generate_series(1, {rows}) n"
    ));
    cluster.wait_for_text(PATIENCE, "select state from webhook.queue", "blocked");
    let error: String = cluster.value("select last_error from webhook.queue");
    assert!(error.contains("keys wait for a retry"), "{error}");
    let detail = "select coalesce(detail, '') like '%only retries until%' from webhook.worker";
    cluster.wait_for_text(PATIENCE, &format!("select ({detail})::text"), "true");
    let called = receiver.count(PATH).requests as i64;
    assert!((CROWD..CROWD + 4).contains(&called), "{called} calls");
    let pending: i64 = cluster.value("select pending from webhook.queue");
    assert_eq!(pending, rows - called);
    // Also after a restart, with more waiting than a lane keeps.
    update(&cluster, 1..=10);
    cluster.stop(StopMode::Fast);
    cluster.start_again();
    receiver.behave(PATH, "/ok");
    cluster.sql("select webhook.start_worker()");
    cluster.wait_for_text(PATIENCE, "select state from webhook.queue", "blocked");
    thread::sleep(Duration::from_millis(300));
    assert_eq!(
        receiver.count(PATH).requests as i64,
        called,
        "nothing is due"
    );
    cluster.sql(&format!("select webhook.resume_webhook('{PATH}')"));
    wait_until_empty(&cluster, PATIENCE);
    let seen = versions(&receiver.received_at(PATH));
    assert_eq!(seen.len() as i64, rows);
    assert!((1..=10).all(|id| seen[&id] == [1, 2]), "{seen:?}");
    assert!(ids_at(&receiver, PATH).len() as i64 == rows + called + 10);
    assert!(attempts_at(&receiver, PATH)
        .iter()
        .all(|(_, attempt)| *attempt <= 2));
}

#[test]
fn thousands_behind_a_message_keep_their_table_and_catch_up_in_order() {
    const PATH: &str = "/refuses/1";
    const OTHERS: &str = "/refuses/0";
    const CHANGES: i64 = 1_500;
    let (cluster, receiver) = small_cluster_with("keydeep", "2s", "1h");
    cluster.sql("create table items (id bigint primary key, version integer)");
    watch(&cluster, &receiver, PATH, "");
    watch(&cluster, &receiver, OTHERS, "");
    insert(&cluster, 1..=2);
    cluster.sql(&format!(
        "do $$
         begin
             for n in 1..{CHANGES} loop
                 update items set version = version + 1;
                 commit;
             end loop;
         end $$"
    ));
    let expected: Vec<i64> = (1..=CHANGES + 1).collect();
    receiver.wait_for(PATIENCE, OTHERS, 2 * expected.len() as u64);
    receiver.wait_for(PATIENCE, PATH, 1 + expected.len() as u64);
    assert_eq!(versions(&receiver.received_at(PATH))[&2], expected);
    let waiting = format!("active {CHANGES} 1 0");
    let queue = format!(
        "select concat_ws(' ', state, pending, retrying, failed) from webhook.queue
         where webhook_name = '{PATH}'"
    );
    cluster.wait_for_text(PATIENCE, &queue, &waiting);
    // They are far more than a table may hold, and past retention; but they wait.
    let files_before = files(&cluster, "outbox");
    let looks =
        "select count(*)::text from webhook_internal.segment where closed_at < now() - interval '10 s'";
    cluster.wait_until(PATIENCE, "closed tables to be old", || {
        insert_and_delete(&cluster);
        match cluster.value::<String>(looks).as_str() {
            "0" => Err("none is".to_owned()),
            _ => Ok(()),
        }
    });
    assert_eq!(files_before[0], files(&cluster, "outbox")[0]);
    receiver.behave(PATH, "/ok");
    cluster.sql(&format!("select webhook.resume_webhook('{PATH}')"));
    cluster.wait_for_text(PATIENCE, &queue, "active 0 0 0");
    let received = receiver.received_at(PATH);
    assert_eq!(versions(&received)[&1], expected);
    assert!(received.iter().all(|call| call.attempt() <= 2));
    cluster.wait_until(PATIENCE, "the table to be emptied", || {
        match files(&cluster, "outbox")[0] == files_before[0] {
            true => Err("it is as before".to_owned()),
            false => Ok(()),
        }
    });
}

/// A message to a table that no webhook watches any more is none: only time passes.
fn insert_and_delete(cluster: &Cluster) {
    cluster.sql("insert into items values (1000, 1); delete from items where id = 1000");
}

#[test]
fn a_lock_on_what_is_next_holds_its_key_alone_until_it_is_gone() {
    const PATH: &str = "/refuses/1";
    let (cluster, receiver) = keyed("keylock", "1h");
    watch(&cluster, &receiver, PATH, "");
    insert(&cluster, 1..=2);
    cluster.wait_for_text(PATIENCE, QUEUE, "active 0 1 0");
    update(&cluster, 1..=1);
    cluster.wait_for_text(PATIENCE, QUEUE, "active 1 1 0");
    receiver.behave(PATH, "/ok");
    let mut session = cluster.connect("postgres");
    let behind =
        "select webhook.cancel(message_id) from webhook_internal.retry where next_at = 'infinity'";
    session
        .batch_execute(&format!("begin; {behind}"))
        .expect("a message is canceled");
    cluster.sql(
        "select webhook.cancel(message_id) from webhook_internal.retry where next_at < 'infinity'",
    );
    cluster.wait_for_text(PATIENCE, QUEUE, "active 1 0 0");
    update(&cluster, 2..=2);
    receiver.wait_for(PATIENCE, PATH, 3);
    session
        .batch_execute("rollback")
        .expect("the cancellation is taken back");
    wait_until_empty(&cluster, PATIENCE);
    let seen = versions(&receiver.received_at(PATH));
    assert_eq!((&seen[&1][..], &seen[&2][..]), (&[1, 2][..], &[1, 2][..]));
}
