//! A URL that fails for too long is switched off, as one whose receiver is gone.

use super::support::definitions::wait_idle;
use super::support::items::{cluster_with, insert, resume, statuses, stop_worker, watch};
use super::support::{Cluster, PATIENCE};

/// No outage is suspected, so that each retry is a call.
const FAILS: &str = "/status/404";
const STATE: &str =
    "select state from webhook.queue where webhook_name = 'w' order by outgoing_url";

/// Shorter than a user may choose.
fn set_seconds(cluster: &Cluster, seconds: u32) {
    cluster.sql(&format!(
        "update webhook.webhook_def set disable_after = interval '{seconds} s'"
    ));
}

#[test]
fn a_url_without_a_success_for_so_long_is_switched_off_until_it_is_resumed() {
    let (cluster, receiver) = cluster_with("disable-after", "200ms");
    let options = "disable_after => '1 hour', max_attempts => 1000, max_in_flight => 1";
    watch(
        &cluster,
        &receiver,
        "w",
        &["/ok/a?token=hidden", "/ok/b"],
        options,
    );
    receiver.behave("/ok/a", FAILS);
    insert(&cluster, 1..=1);
    receiver.wait_for(PATIENCE, "/ok/a", 4);
    assert_eq!(cluster.psql(STATE), "failing\nactive\n");

    set_seconds(&cluster, 2);
    cluster.wait_for_text(
        PATIENCE,
        &format!("select string_agg(state, ',') from ({STATE}) q"),
        "disabled,active",
    );
    let why = cluster.psql("select last_error from webhook.queue where state = 'disabled'");
    assert!(why.contains("(disable_after): answered 404"), "{why}");
    let calls = receiver.received_at("/ok/a").len() as u64;
    insert(&cluster, 2..=2);
    receiver.wait_for(PATIENCE, "/ok/b", 2);
    wait_idle(&cluster);
    assert_eq!(
        receiver.received_at("/ok/a").len() as u64,
        calls,
        "it is off"
    );
    let log = cluster.log();
    assert_eq!(
        log.matches("this URL is off from now on, because no call has succeeded for")
            .count(),
        1,
        "{log}"
    );
    assert!(!log.contains("hidden"), "{log}");

    // The time starts again, also for the next worker: more than one call fails before it is off again.
    resume(&cluster, "w");
    stop_worker(&cluster);
    cluster.sql("select webhook.start_worker()");
    receiver.wait_for(PATIENCE, "/ok/a", calls + 3);
    cluster.wait_for_text(
        PATIENCE,
        &format!("select string_agg(state, ',') from ({STATE}) q"),
        "disabled,active",
    );

    // What waits is sent once the receiver is back.
    receiver.behave_normally("/ok/a");
    resume(&cluster, "w");
    cluster.wait_for_text(
        PATIENCE,
        "select sum(pending + retrying + failed)::text from webhook.queue",
        "0",
    );
    assert_eq!(statuses(&cluster), "delivered, delivered");
    assert_eq!(cluster.psql(STATE), "active\nactive\n");
}

#[test]
fn a_success_in_between_and_an_old_one_keep_a_url_on() {
    let (cluster, receiver) = cluster_with("disable-after-ok", "200ms");
    let options = "disable_after => '1 hour', max_attempts => 1000, max_in_flight => 1";
    watch(&cluster, &receiver, "w", &["/ok/a"], options);
    set_seconds(&cluster, 5);
    insert(&cluster, 1..=1);
    wait_idle(&cluster);
    let old =
        "select (last_success_at + interval '5 s' < clock_timestamp())::text from webhook.queue";
    cluster.wait_for_text(PATIENCE, old, "true");
    receiver.behave("/ok/a", FAILS);
    insert(&cluster, 2..=2);
    receiver.wait_for(PATIENCE, "/ok/a", 3);
    receiver.behave_normally("/ok/a");
    wait_idle(&cluster);
    cluster.wait_for_text(
        PATIENCE,
        "select string_agg(concat_ws(' ', state, pending, retrying), ',') from webhook.queue",
        "active 0 0",
    );
}
