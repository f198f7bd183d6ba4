//! Never more calls in any second than a webhook asks for, and not many fewer.

use std::collections::HashMap;

use super::support::definitions::wait_idle;
use super::support::items::{cluster_with, insert, watch};
use super::support::{Cluster, Receiver, PATIENCE};

#[test]
fn a_throttled_webhook_never_makes_more_calls_in_any_second_over_all_its_urls() {
    const PER_SECOND: usize = 20;
    let (cluster, receiver) = cluster_with("throttle", "1h");
    watch(
        &cluster,
        &receiver,
        "slow",
        &["/ok/slow/a", "/ok/slow/b"],
        &format!("call_throttling => {PER_SECOND}"),
    );
    watch(&cluster, &receiver, "free", &["/ok/free"], "");
    insert(&cluster, 1..=40);
    receiver.wait_for(PATIENCE, "/ok/free", 40);
    assert!(receiver.count("/ok/slow").requests < 40);
    cluster.wait_for_text(
        PATIENCE,
        "select string_agg(distinct state, ', ') from webhook.queue where webhook_name = 'slow'",
        "throttled",
    );
    wait_idle(&cluster);
    let at = arrivals(&cluster, &receiver, "/ok/slow");
    assert_eq!(at.len(), 80);
    assert_no_second_holds_more_than(PER_SECOND, &at);
    // 80 calls at 20 a second: the first 20 at once, the last 20 after three windows.
    let all_us = at[79] - at[0];
    assert!(all_us < 6_000_000, "80 calls took {all_us} us");
}

#[test]
fn a_throttle_is_kept_and_used_up_also_where_answers_take_longer_than_a_second() {
    const PER_SECOND: usize = 10;
    let (cluster, receiver) = cluster_with("throttle_slow", "1h");
    let options = format!("call_throttling => {PER_SECOND}");
    watch(&cluster, &receiver, "slow", &["/slow/1500"], &options);
    insert(&cluster, 1..=40);
    wait_idle(&cluster);
    let at = arrivals(&cluster, &receiver, "/slow/1500");
    assert_eq!(at.len(), 40);
    assert_no_second_holds_more_than(PER_SECOND, &at);
    let all_us = at[39] - at[0];
    assert!(all_us < 6_000_000, "40 calls took {all_us} us");
}

/// When the calls of a path arrived, in order, in microseconds. A receiver that waits for a
/// processor notes a request late, which is no fault of who sent it: what was called
/// longer before than a request may be on its way counts as there by then.
fn arrivals(cluster: &Cluster, receiver: &Receiver, path: &str) -> Vec<u64> {
    const ON_ITS_WAY_US: u64 = 15_000;
    let called: HashMap<String, u64> = cluster
        .psql(
            "select call_id, (extract(epoch from called_at) * 1000000)::bigint from webhook.calls",
        )
        .lines()
        .filter_map(|line| line.split_once('|'))
        .map(|(id, at_us)| (id.to_owned(), at_us.parse().unwrap()))
        .collect();
    let mut at: Vec<u64> = receiver
        .received()
        .iter()
        .filter(|call| call.path.starts_with(path))
        .map(|call| {
            let called_at_us = called[call.header("webhook-call-id")];
            call.received_at_us.min(called_at_us + ON_ITS_WAY_US)
        })
        .collect();
    at.sort_unstable();
    at
}

fn assert_no_second_holds_more_than(per_second: usize, at: &[u64]) {
    for (first, beyond) in at.iter().zip(&at[per_second..]) {
        let took_us = beyond - first;
        assert!(
            took_us >= 1_000_000,
            "{} calls within {took_us} us",
            per_second + 1
        );
    }
}
