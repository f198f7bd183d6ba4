//! The wall clock jumps (fault 27): no flood, no busy loop, nothing lost.

use std::thread;
use std::time::Duration;

use super::support::distortion::distorted;
use super::support::watched::{
    assert_all_received, insert_items, wait_until_nothing_is_left, watch_items, watch_items_in,
};
use super::support::worker::{cluster_restarts, cpu_ticks, worker_of};
use super::support::{Cluster, Receiver, PATIENCE, RECOVERY};

const HOUR_S: i64 = 3600;

const WATCHED_FOR: Duration = Duration::from_secs(3);

/// Of 300 in that time; a loop that does not sleep takes them all.
const MOST_CPU_TICKS: u64 = 60;

/// A lane that probes makes a call a second, and fewer with time; retries that all
/// fall due at once would make hundreds.
const MOST_CALLS: u64 = 25;

const PER_SECOND: usize = 10;

fn server_time_s(cluster: &Cluster) -> i64 {
    cluster.value("select extract(epoch from clock_timestamp())::bigint")
}

/// Three webhooks, one healthy, one throttled, and one whose receiver is down, while the
/// clock goes off by `jump_s` and comes back.
fn assert_indifferent_to(name: &str, jump_s: i64) {
    let builder = Cluster::builder(name)
        .set("webhook.allowed_networks", "127.0.0.1")
        .set("webhook.retry_schedule", "30s");
    let (cluster, distortion) = distorted(builder);
    cluster.sql("create extension webhook_ext");
    let receiver = Receiver::start();
    watch_items(&cluster, &receiver, "/ok/healthy");
    let throttled = format!(", call_throttling => {PER_SECOND}");
    watch_items_in(&cluster, "postgres", &receiver, "/ok/throttled", &throttled);
    watch_items_in(
        &cluster,
        "postgres",
        &receiver,
        "/ok/down",
        ", max_attempts => 1000",
    );
    receiver.behave("/ok/down", "/status/503");
    insert_items(&cluster, 1..=50);
    receiver.wait_for(PATIENCE, "/ok/down", 5);

    let before = server_time_s(&cluster);
    distortion.set_clock_ahead(jump_s);
    let jumped = server_time_s(&cluster) - before;
    assert!(
        (jumped - jump_s).abs() < 60,
        "the clock jumped by {jumped} s"
    );
    assert_calm(&cluster, &receiver);
    insert_items(&cluster, 51..=70);
    receiver.wait_for(PATIENCE, "/ok/healthy", 70);
    receiver.wait_for(PATIENCE, "/ok/throttled", 70);

    distortion.set_clock_ahead(0);
    assert_calm(&cluster, &receiver);
    insert_items(&cluster, 71..=80);
    receiver.behave_normally("/ok/down");
    // Nobody has to wait for the retries.
    distortion.set_clock_ahead(HOUR_S);
    wait_until_nothing_is_left(&cluster, RECOVERY);
    for path in ["/ok/healthy", "/ok/throttled", "/ok/down"] {
        assert_all_received(&cluster, &receiver.received_at(path));
    }
    assert_throttled(&receiver);
    assert_eq!(cluster_restarts(&cluster), 0, "{}", cluster.log());
}

/// Nothing to wait for: that hardly anything happens in this time is the point.
fn assert_calm(cluster: &Cluster, receiver: &Receiver) {
    let worker = worker_of(cluster, "postgres");
    let (ticks, calls) = (cpu_ticks(worker), receiver.count("/ok/down").requests);
    thread::sleep(WATCHED_FOR);
    let ticks = cpu_ticks(worker) - ticks;
    let calls = receiver.count("/ok/down").requests - calls;
    assert!(ticks <= MOST_CPU_TICKS, "{ticks} ticks in {WATCHED_FOR:?}");
    assert!(calls <= MOST_CALLS, "{calls} calls in {WATCHED_FOR:?}");
    assert_eq!(worker_of(cluster, "postgres"), worker);
}

/// By the receiver's clock, which is right. How exact a throttle is shows elsewhere; one
/// that went by a clock that jumps would let everything go at once.
fn assert_throttled(receiver: &Receiver) {
    let received = receiver.received_at("/ok/throttled");
    for pair in received.windows(2 * PER_SECOND) {
        let took_us = pair[2 * PER_SECOND - 1].received_at_us - pair[0].received_at_us;
        assert!(
            took_us >= 900_000,
            "{} calls in {took_us} us",
            2 * PER_SECOND
        );
    }
}

#[test]
fn a_clock_that_jumps_an_hour_ahead_and_back_floods_nobody_and_loses_nothing() {
    assert_indifferent_to("ahead", HOUR_S);
}

#[test]
fn a_clock_that_jumps_an_hour_back_and_ahead_floods_nobody_and_loses_nothing() {
    assert_indifferent_to("back", -HOUR_S);
}

/// What failed while the clock was an hour ahead is repeated after its own delay, not an hour
/// later; also if nobody was there to see the clock go back.
fn assert_retries_outlive_the_step(name: &str, order: &str, worker_sees_it: bool) {
    let builder = Cluster::builder(name)
        .set("webhook.allowed_networks", "127.0.0.1")
        .set("webhook.retry_schedule", "8s");
    let (cluster, distortion) = distorted(builder);
    cluster.sql("create extension webhook_ext");
    let receiver = Receiver::start();
    let options = format!(", delivery_order => '{order}'");
    watch_items_in(&cluster, "postgres", &receiver, "/ok/a", &options);
    receiver.behave_for("/ok/a", "/status/400", 1);
    distortion.set_clock_ahead(HOUR_S);
    insert_items(&cluster, 1..=1);
    let parked = "select count(*)::text from webhook_internal.retry where state = 'waiting'";
    cluster.wait_for_text(PATIENCE, parked, "1");
    if !worker_sees_it {
        cluster.sql("select webhook.stop_worker()");
    }
    distortion.set_clock_ahead(0);
    if !worker_sees_it {
        cluster.sql("select webhook.start_worker()");
    }
    wait_until_nothing_is_left(&cluster, PATIENCE);
    let received = receiver.received_at("/ok/a");
    let pause_us = received[1].received_at_us - received[0].received_at_us;
    assert!(pause_us >= 7_000_000, "repeated after {pause_us} us");
    assert_all_received(&cluster, &received);
}

#[test]
fn what_failed_while_the_clock_was_ahead_is_repeated_in_time_when_it_is_back() {
    assert_retries_outlive_the_step("back_none", "none", true);
}

#[test]
fn so_it_is_where_the_order_is_kept_and_nobody_saw_the_clock_go_back() {
    assert_retries_outlive_the_step("back_fifo", "fifo", true);
    assert_retries_outlive_the_step("back_unseen", "none", false);
}
