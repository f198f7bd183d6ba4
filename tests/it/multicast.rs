//! A message goes to every URL of its webhook, and one bad URL is nobody else's trouble.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::support::compare::{assert_delivered, changes};
use super::support::definitions::{create_event, create_webhook, wait_idle};
use super::support::stalls::{self, now_us};
use super::support::{ready_cluster, ready_cluster_with, Cluster, Receiver, PATIENCE};

/// A disturbed message waits for a pause between calls, a timeout or a retry, and none of
/// these is shorter than a second.
const UNDISTURBED: Duration = Duration::from_millis(900);

fn create_items(cluster: &Cluster) {
    cluster.sql("create table items (id integer primary key, pad text)");
}

fn add_webhook(cluster: &Cluster, receiver: &Receiver, name: &str, paths: &[&str], options: &str) {
    let urls: Vec<String> = paths.iter().map(|path| receiver.url(path)).collect();
    create_webhook(cluster, name, &urls, options);
    create_event(cluster, name, "items", "Insert", "");
}

fn committed(ids: std::ops::RangeInclusive<i64>) -> BTreeSet<String> {
    changes("recordInsert", ids)
}

/// Commits rows one by one, each of which comes once to every one of `paths`. Returns the
/// longest that one took from its commit, less the time in which the machine stood still.
fn longest_way(
    cluster: &Cluster,
    receiver: &Receiver,
    paths: &[&str],
    ids: std::ops::RangeInclusive<i64>,
) -> Duration {
    let mut session = cluster.connect("postgres");
    let mut committed_at = BTreeMap::new();
    receiver.reset();
    stalls::watched(|stalls| {
        for id in ids.clone() {
            session
                .batch_execute(&format!("insert into items values ({id})"))
                .unwrap();
            committed_at.insert(id, now_us());
        }
        let mut longest = Duration::ZERO;
        for path in paths {
            receiver.wait_for(PATIENCE, path, committed_at.len() as u64);
            let received = receiver.received_at(path);
            assert_delivered(&committed(ids.clone()), &received);
            assert_eq!(received.len(), committed_at.len(), "requests to {path}");
            for message in received {
                let id = message.body()["data"][0]["id"].as_i64().unwrap();
                let at_us = committed_at[&id];
                let took = Duration::from_micros(message.received_at_us.saturating_sub(at_us));
                let stood_still = stalls.between(at_us, message.received_at_us);
                longest = longest.max(took.saturating_sub(stood_still));
            }
        }
        longest
    })
}

#[test]
fn every_url_of_every_webhook_gets_every_message_once() {
    let (cluster, receiver) = ready_cluster("multicast");
    create_items(&cluster);
    let paths: Vec<String> = (1..=20).map(|n| format!("/ok/{n}")).collect();
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    add_webhook(&cluster, &receiver, "many", &paths, "");
    add_webhook(
        &cluster,
        &receiver,
        "same",
        &["/ok/1?again", "/ok/2?again"],
        "",
    );
    cluster.sql("insert into items select n from generate_series(1, 50) n");
    wait_idle(&cluster);
    for path in paths.iter().chain(&["/ok/1?again", "/ok/2?again"]) {
        let received = receiver.received_at(path);
        assert_delivered(&committed(1..=50), &received);
        assert_eq!(received.len(), 50, "requests to {path}");
    }
    assert_eq!(
        cluster.psql("select name, messages, calls, errors from webhook.webhooks order by name"),
        "many|50|1000|0\nsame|50|100|0\n"
    );
    assert_eq!(
        cluster.psql("select count(*), count(distinct message_id) from webhook.calls"),
        "1100|100\n"
    );
}

#[test]
fn a_url_that_fails_or_hangs_delays_no_other() {
    let (cluster, receiver) = ready_cluster("bad_neighbours");
    create_items(&cluster);
    add_webhook(&cluster, &receiver, "healthy", &["/ok/healthy"], "");
    // What this machine takes without them.
    let usual = longest_way(&cluster, &receiver, &["/ok/healthy"], 1..=100);
    let paths = ["/status/503", "/ok/beside", "/hang", "/reset", "/drip"];
    add_webhook(&cluster, &receiver, "mixed", &paths, "timeout_ms => 60000");
    add_webhook(
        &cluster,
        &receiver,
        "hungry",
        &["/hang/hungry"],
        "timeout_ms => 60000, max_in_flight => 1000",
    );
    // More than there are connections, so that the bad ones have all that they may have.
    let healthy = ["/ok/beside", "/ok/healthy"];
    let longest = longest_way(&cluster, &receiver, &healthy, 101..=200);
    assert!(
        longest < UNDISTURBED + 2 * usual,
        "a row came {longest:?} after its commit, without bad neighbours {usual:?}"
    );
    assert!(receiver.count("/hang").in_flight > 16, "URLs do hang");
    assert!(receiver.count("/status/503").requests > 0);
}

#[test]
fn a_url_that_is_back_gets_everything_that_others_got_long_ago() {
    let schedule = ("webhook.retry_schedule", "1s");
    let (cluster, receiver) = ready_cluster_with("back_again", &[schedule]);
    create_items(&cluster);
    add_webhook(
        &cluster,
        &receiver,
        "two",
        &["/ok/steady", "/ok/shaky"],
        "max_attempts => 1000",
    );
    receiver.behave("/ok/shaky", "/status/503");
    // More than a lane keeps in memory.
    cluster.sql("insert into items select n, repeat('x', 100) from generate_series(1, 5000) n");
    cluster.wait_until(PATIENCE, "the steady URL to have got everything", || {
        let seen = receiver.count("/ok/steady").requests;
        if seen == 5000 {
            Ok(())
        } else {
            Err(format!("{seen}"))
        }
    });
    let burnt = receiver.count("/ok/shaky").requests;
    assert!(burnt < 100, "an outage cost {burnt} calls");
    receiver.behave_normally("/ok/shaky");
    cluster.wait_for_text(
        PATIENCE,
        "select string_agg(pending || ' ' || retrying || ' ' || failed, ', ') from webhook.queue",
        "0 0 0, 0 0 0",
    );
    let received = receiver.received_at("/ok/shaky");
    assert_delivered(&committed(1..=5000), &received);
    assert_delivered(&committed(1..=5000), &receiver.received_at("/ok/steady"));
    assert_eq!(
        cluster.psql("select messages, calls - errors, errors from webhook.webhooks"),
        format!("5000|10000|{}\n", received.len() - 5000)
    );
    assert_eq!(
        cluster.psql("select status, count(*) from webhook.messages group by status"),
        "delivered|5000\n"
    );
}
