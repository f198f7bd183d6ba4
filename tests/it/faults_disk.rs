//! A disk that is full (fault 17), for sessions and for the worker.
//!
//! The disk of the WAL is none of these: without it PostgreSQL itself stops.

use std::time::Duration;

use super::support::small_disk::SmallDisk;
use super::support::watched::{assert_items_delivered, insert_items, watch_items};
use super::support::{ready_cluster_with, Cluster, Receiver, PATIENCE};

const SMALL: &str = "4m";
const LARGE: &str = "256m";

/// Once the disk has room, what failed is tried again within a minute.
const RECOVERY: Duration = Duration::from_secs(180);

/// More than fits on a small disk, as messages of 10 kB that cannot be compressed.
const TOO_MANY: i64 = 1000;

const OUTBOX: &[&str] = &[
    "webhook.outbox_0",
    "webhook.outbox_1",
    "webhook.outbox_2",
    "webhook.outbox_3",
];

/// For a part of what the worker writes of so many calls.
const ROOM_KB: u64 = 64;

/// What the worker writes of calls.
const OF_WORKER: &[&str] = &[
    "webhook_internal.call_log_0",
    "webhook_internal.call_log_1",
    "webhook_internal.call_log_2",
    "webhook_internal.call_log_3",
    "webhook_internal.settlement",
    "webhook_internal.retry",
];

fn insert(id: i64) -> String {
    format!(
        "insert into items
         select {id}, string_agg(md5(random()::text), '') from generate_series(1, 320)"
    )
}

fn cluster_with_small_disk(name: &str, tables: &[&str]) -> Option<(SmallDisk, Cluster, Receiver)> {
    let Some(disk) = SmallDisk::mount(SMALL) else {
        eprintln!("not run: mounting a tmpfs needs root");
        return None;
    };
    let (cluster, receiver) = ready_cluster_with(name, &[("webhook.retry_schedule", "100ms")]);
    watch_items(&cluster, &receiver, "/ok/a");
    disk.take(&cluster, tables);
    Some((disk, cluster, receiver))
}

#[test]
fn a_commit_that_finds_no_room_in_the_outbox_fails_alone_and_nothing_is_lost() {
    let Some((disk, cluster, receiver)) = cluster_with_small_disk("outbox-full", OUTBOX) else {
        return;
    };
    let mut session = cluster.connect("postgres");
    let mut refused = Vec::new();
    for id in 1..=TOO_MANY {
        // The change itself has room: it is the COMMIT that fails.
        session
            .batch_execute(&format!("begin; {}", insert(id)))
            .expect("the user's table is elsewhere");
        if let Err(error) = session.batch_execute("commit") {
            assert_eq!(
                error.code().map(|code| code.code()),
                Some("53100"),
                "{error}"
            );
            refused.push(id);
        }
    }
    assert!(
        refused.len() as i64 > TOO_MANY / 2,
        "only {} of {TOO_MANY} commits were refused",
        refused.len()
    );
    // What did find room is delivered meanwhile.
    assert_items_delivered(&cluster, &receiver, "/ok/a", RECOVERY);

    disk.resize(LARGE);
    for id in refused {
        session
            .batch_execute(&insert(id))
            .expect("there is room again");
    }
    let received = assert_items_delivered(&cluster, &receiver, "/ok/a", RECOVERY);
    assert_eq!(received.len() as i64, TOO_MANY);
}

#[test]
fn a_worker_that_finds_no_room_keeps_trying_and_sessions_go_on() {
    let Some((disk, cluster, receiver)) = cluster_with_small_disk("log-full", OF_WORKER) else {
        return;
    };
    disk.leave(ROOM_KB);
    let calls = "select count(*)::text from webhook.calls";
    insert_items(&cluster, 1..=TOO_MANY);
    cluster.wait_until(PATIENCE, "the worker to find no room", || {
        if cluster.log().contains("No space left on device") {
            Ok(())
        } else {
            Err(cluster.value(calls))
        }
    });
    insert_items(&cluster, TOO_MANY + 1..=2 * TOO_MANY);
    disk.resize(LARGE);
    assert_items_delivered(&cluster, &receiver, "/ok/a", RECOVERY);
}
